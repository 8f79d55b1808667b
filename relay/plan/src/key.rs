//! Keys: which profile, how long, and never printed.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Octets of the longest master salt (112 bits, RFC 3711 section 8.2).
pub const SALT_MAX: usize = 14;

/// SRTP protection profile, by its DTLS-SRTP number (RFC 5764 section 4.1.2, RFC 7714 section 14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Profile {
    /// AES_CM_128_HMAC_SHA1_80: 128-bit key, 112-bit salt, 10-octet tag.
    AesCm128HmacSha1_80,
    /// AEAD_AES_128_GCM: 128-bit key, 96-bit salt, 16-octet tag.
    AeadAes128Gcm,
    /// AEAD_AES_256_GCM: 256-bit key, 96-bit salt, 16-octet tag.
    AeadAes256Gcm,
    /// AES_256_CM_HMAC_SHA1_80: 256-bit key, 112-bit salt, 10-octet tag (RFC 6188). In SDP only: DTLS-SRTP has no number
    /// for it.
    AesCm256HmacSha1_80,
    /// AES_CM_128_HMAC_SHA1_32: as the first, with a tag of 4 octets on SRTP; on SRTCP it has 10 (RFC 5764 section 4.1.2,
    /// RFC 4568 section 6.2.2).
    AesCm128HmacSha1_32,
    /// AES_256_CM_HMAC_SHA1_32: the same with a 256-bit key (RFC 6188). In SDP only.
    AesCm256HmacSha1_32,
}

impl Profile {
    /// Octets of the master key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 | Self::AeadAes128Gcm => 16,
            Self::AesCm256HmacSha1_80 | Self::AesCm256HmacSha1_32 | Self::AeadAes256Gcm => 32,
        }
    }

    /// Octets of the master salt.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80
            | Self::AesCm256HmacSha1_80
            | Self::AesCm128HmacSha1_32
            | Self::AesCm256HmacSha1_32 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }

    /// Name as in the RFC that defines the profile.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AesCm256HmacSha1_32 => "AES_256_CM_HMAC_SHA1_32",
        }
    }
}

/// Master key and salt of one direction. Zeroed on drop; its `Debug` shows the profile only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    #[zeroize(skip)]
    profile: Profile,
    key: Vec<u8>,
    salt: Vec<u8>,
}

impl KeyMaterial {
    /// Takes a master key and salt of exactly the profile's lengths.
    ///
    /// # Errors
    /// `None` where a length is not the profile's.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Self> {
        let fits = key.len() == profile.key_len() && salt.len() == profile.salt_len();
        fits.then(|| Self { profile, key: key.to_vec(), salt: salt.to_vec() })
    }

    /// The profile that the key is for.
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// The master key, [`Profile::key_len`] octets.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The master salt, [`Profile::salt_len`] octets.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// Whether the lengths are the profile's: decoded material is not trusted before.
    pub fn is_well_formed(&self) -> bool {
        self.key.len() == self.profile.key_len() && self.salt.len() == self.profile.salt_len()
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMaterial({}, ..)", self.profile.name())
    }
}

/// How one side of a direction protects its packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// RTP as it is: a leg agreed to be plain.
    Plain,
    /// SRTP under this master key.
    Srtp(KeyMaterial),
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn debug_shows_no_key_octet() {
        let key = KeyMaterial::new(Profile::AeadAes128Gcm, &[0xAB; 16], &[0xCD; 12]).unwrap();
        assert_eq!(format!("{:?}", Protection::Srtp(key)), "Srtp(KeyMaterial(AEAD_AES_128_GCM, ..))");
    }

    #[test]
    fn refuses_wrong_lengths() {
        assert!(KeyMaterial::new(Profile::AeadAes128Gcm, &[0; 15], &[0; 12]).is_none());
        assert!(KeyMaterial::new(Profile::AesCm128HmacSha1_80, &[0; 16], &[0; 12]).is_none());
        assert!(KeyMaterial::new(Profile::AeadAes256Gcm, &[0; 16], &[0; 12]).is_none());
        assert!(KeyMaterial::new(Profile::AesCm256HmacSha1_80, &[0; 32], &[0; 14]).is_some());
    }
}
