//! The crypto suites: the only files that name a crypto library.

mod aes_cm;
mod gcm;

use sallyport_plan::{KeyMaterial, Profile};

use crate::KeyError;
use crate::kdf::{Label, derive};
use crate::rtcp::INDEX_WORD;

/// The tag is wrong, or the packet does not fit the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// RTP or RTCP keys of one context, inline.
#[expect(clippy::large_enum_variant, reason = "no pointer between a direction and its keys")]
pub enum Suite {
    /// AES_CM_128_HMAC_SHA1_80, by RustCrypto.
    AesCm(aes_cm::AesCm),
    /// AEAD_AES_128_GCM, by ring.
    Gcm(gcm::Gcm),
}

impl Suite {
    /// Keys for RTP.
    pub fn rtp(master: &KeyMaterial) -> Result<Self, KeyError> {
        Self::new(master, [Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt])
    }

    /// Keys for RTCP.
    pub fn rtcp(master: &KeyMaterial) -> Result<Self, KeyError> {
        Self::new(master, [Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt])
    }

    fn new(master: &KeyMaterial, [encryption, authentication, salt]: [Label; 3]) -> Result<Self, KeyError> {
        if !master.is_well_formed() {
            return Err(KeyError);
        }
        let key = derive::<16>(master, encryption)?;
        match master.profile() {
            Profile::AesCm128HmacSha1_80 => {
                let mac = derive::<20>(master, authentication)?;
                let salt = derive::<14>(master, salt)?;
                Ok(Self::AesCm(aes_cm::AesCm::new(&key, &mac, &salt)?))
            }
            Profile::AeadAes128Gcm => {
                let salt = derive::<12>(master, salt)?;
                Ok(Self::Gcm(gcm::Gcm::new(&key, &salt)?))
            }
        }
    }

    /// Octets of a tag.
    pub const fn tag_len(&self) -> usize {
        match self {
            Self::AesCm(_) => aes_cm::TAG,
            Self::Gcm(_) => gcm::TAG,
        }
    }

    /// Encrypts `packet` behind `header` octets and writes the tag into its last [`Suite::tag_len`] octets. When refused,
    /// the octets before those are as before.
    pub fn seal_rtp(&self, packet: &mut [u8], header: usize, ssrc: u32, index: u64) -> Result<(), Refused> {
        match self {
            Self::AesCm(suite) => suite.seal_rtp(packet, header, ssrc, index),
            Self::Gcm(suite) => suite.seal_rtp(packet, header, ssrc, index),
        }
    }

    /// Verifies the tag in the last [`Suite::tag_len`] octets and decrypts; on a bad tag the contents are undefined.
    pub fn open_rtp(&self, packet: &mut [u8], header: usize, ssrc: u32, index: u64) -> Result<(), Refused> {
        match self {
            Self::AesCm(suite) => suite.open_rtp(packet, header, ssrc, index),
            Self::Gcm(suite) => suite.open_rtp(packet, header, ssrc, index),
        }
    }

    /// Encrypts an RTCP compound of `length` octets in `packet`, which has room for tag and index word behind it. When
    /// refused, the compound is as before.
    pub fn seal_rtcp(&self, packet: &mut [u8], length: usize, ssrc: u32, index: u32) -> Result<(), Refused> {
        match self {
            Self::AesCm(suite) => suite.seal_rtcp(packet, length, ssrc, index),
            Self::Gcm(suite) => suite.seal_rtcp(packet, length, ssrc, index),
        }
    }

    /// Where the index word lies in an SRTCP packet of `length` octets.
    pub fn rtcp_index_at(&self, length: usize) -> Option<usize> {
        match self {
            Self::AesCm(_) => length.checked_sub(aes_cm::TAG + INDEX_WORD),
            Self::Gcm(_) => length.checked_sub(INDEX_WORD),
        }
    }

    /// Verifies and decrypts an SRTCP packet; the compound is then its first octets.
    pub fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<(), Refused> {
        match self {
            Self::AesCm(suite) => suite.open_rtcp(packet, ssrc, index),
            Self::Gcm(suite) => suite.open_rtcp(packet, ssrc, index),
        }
    }
}

#[cfg(test)]
pub mod tests {
    /// Octets of a vector; spaces are for the reader.
    pub fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).unwrap()).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }
}
