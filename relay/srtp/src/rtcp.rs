//! RTCP compounds, sealed and opened in place.
//!
//! ```text
//!   | first word, SSRC | reports, ... | E + index | tag |     AES_CM_128_HMAC_SHA1_80 (RFC 3711 section 3.4)
//!   | first word, SSRC | reports, ... | tag | E + index |     AEAD_AES_128_GCM (RFC 7714 section 9)
//!   |  authenticated   |  encrypted   |
//! ```

use sallyport_wire::PacketBuf;

use crate::burst::{Kind, Known, Plan};
use crate::opener::{OpenError, Opener, judge};
use crate::sealer::{SealError, Sealer};

/// Largest index of SRTCP, 31 bits; the key is used up behind it (RFC 3711 section 9.2).
pub const RTCP_INDEX_MAX: u32 = (1 << 31) - 1;

/// Octets of an RTCP header that stay in the clear: the first word and the sender's SSRC.
pub const CLEAR: usize = 8;
/// Octets of the word that holds the E bit and the index.
pub const INDEX_WORD: usize = 4;
/// The E bit of that word.
pub const ENCRYPTED: u32 = 1 << 31;

impl Opener {
    /// Verifies, decrypts in place and takes index word and tag off; returns the index.
    ///
    /// After [`OpenError::Tag`] all behind the first eight octets is undefined under AEAD_AES_128_GCM (decrypting and
    /// verifying is one pass) and untouched under AES_CM_128_HMAC_SHA1_80; after any other error the packet is as before.
    ///
    /// # Errors
    /// [`OpenError`]; the state is as before.
    pub fn open_rtcp(&mut self, buf: &mut PacketBuf<'_>) -> Result<u32, OpenError> {
        self.open(Kind::Rtcp, buf).map(|opened| opened.index as u32)
    }

    pub(crate) fn plan_rtcp(&self, packet: &[u8]) -> Result<(Plan, Known), OpenError> {
        let trailer = INDEX_WORD + self.rtcp.tag().octets();
        if packet.len() < CLEAR + trailer {
            return Err(OpenError::Short);
        }
        if !is_version_2(packet) {
            return Err(OpenError::Malformed);
        }
        let at = self.rtcp.tag().rtcp_index_at(packet.len()).ok_or(OpenError::Short)?;
        let ssrc = word(packet, 4).ok_or(OpenError::Short)?;
        let last = word(packet, at).ok_or(OpenError::Short)?;
        if last & ENCRYPTED == 0 {
            return Err(OpenError::NotEncrypted);
        }
        let index = u64::from(last & !ENCRYPTED);
        let known = self.seen(ssrc)?.map(|seen| &seen.rtcp);
        if let Some(window) = known.and_then(Option::as_ref) {
            judge(window, index)?;
        }
        Ok((Plan { kind: Kind::Rtcp, ssrc, index, header: CLEAR as u32 }, Known::of(known)))
    }
}

impl Sealer {
    /// Encrypts in place and adds index word and tag. Indices count up by one from 0, by source.
    ///
    /// # Errors
    /// [`SealError`]; packet and state are as before.
    pub fn seal_rtcp(&mut self, buf: &mut PacketBuf<'_>) -> Result<(), SealError> {
        self.seal(Kind::Rtcp, buf)
    }

    pub(crate) fn plan_rtcp(&self, packet: &[u8]) -> Result<Plan, SealError> {
        let ssrc = word(packet, 4).filter(|_| is_version_2(packet)).ok_or(SealError::Malformed)?;
        let index = self.used(ssrc)?.rtcp;
        if index > RTCP_INDEX_MAX {
            return Err(SealError::Exhausted);
        }
        Ok(Plan { kind: Kind::Rtcp, ssrc, index: u64::from(index), header: CLEAR as u32 })
    }
}

fn is_version_2(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 6 == 2)
}

fn word(packet: &[u8], at: usize) -> Option<u32> {
    packet.get(at..).and_then(<[u8]>::first_chunk).map(|word| u32::from_be_bytes(*word))
}
