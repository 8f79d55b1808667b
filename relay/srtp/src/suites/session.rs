//! Session keys as they are derived (RFC 3711 section 4.3.1): what suites are made of.

use sallyport_plan::{KeyMaterial, Profile};
use zeroize::Zeroize;

use super::{Backend, Desc, Refused, Suite, Tag, protect_one, selected, unprotect_one};
use crate::KeyError;
use crate::kdf::{Label, derive};

/// Keys of one context, and what they are for.
struct SessionKeys {
    /// Of AES: 16 octets, or all.
    key: [u8; 32],
    /// Of HMAC-SHA1; GCM has none.
    mac: [u8; 20],
    /// 14 octets; of GCM 12.
    salt: [u8; 14],
    is_long: bool,
    tag: Tag,
    backend: Backend,
}

impl SessionKeys {
    fn derive(
        master: &KeyMaterial,
        tag: Tag,
        [encryption, authentication, salt]: [Label; 3],
    ) -> Result<Self, KeyError> {
        if !master.is_well_formed() {
            return Err(KeyError);
        }
        let is_long = master.profile().key_len() == 32;
        let backend = selected().backend;
        let mut keys = Self { key: [0; 32], mac: [0; 20], salt: [0; 14], is_long, tag, backend };
        if is_long {
            keys.key = *derive::<32>(master, encryption)?;
        } else {
            keys.key[..16].copy_from_slice(&*derive::<16>(master, encryption)?);
        }
        if tag.is_gcm() {
            keys.salt[..12].copy_from_slice(&*derive::<12>(master, salt)?);
        } else {
            keys.salt = *derive::<14>(master, salt)?;
            keys.mac = *derive::<20>(master, authentication)?;
        }
        Ok(keys)
    }

    /// The keys as the backend wants them.
    fn expand(&self) -> Result<Suite, KeyError> {
        let (backend, mac, salt) = (self.backend, &self.mac, &self.salt);
        let key = if self.is_long { &self.key[..] } else { &self.key[..16] };
        match self.tag {
            Tag::Gcm => Suite::gcm(backend, key, salt.first_chunk().ok_or(KeyError)?),
            Tag::HmacSha1_80 => Suite::aes_cm(backend, key, mac, salt),
            Tag::HmacSha1_32 => Suite::aes_cm_short(backend, key, mac, salt),
        }
    }
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.mac.zeroize();
        self.salt.zeroize();
    }
}

impl Suite {
    /// Keys for RTP.
    pub(crate) fn rtp(master: &KeyMaterial) -> Result<Self, KeyError> {
        let tag = match master.profile() {
            Profile::AesCm128HmacSha1_32 | Profile::AesCm256HmacSha1_32 => Tag::HmacSha1_32,
            Profile::AesCm128HmacSha1_80 | Profile::AesCm256HmacSha1_80 => Tag::HmacSha1_80,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => Tag::Gcm,
        };
        let labels = [Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt];
        SessionKeys::derive(master, tag, labels)?.expand()
    }
}

/// RTCP session keys of one context.
///
/// Few packets are RTCP's: the keys stay as they were derived, and are expanded on the stack for each packet, which takes
/// some hundred nanoseconds; a block for them would take as much memory as that for RTP.
pub(crate) struct RtcpSuite(Form);

enum Form {
    Short(SessionKeys),
    /// Of the portable backend, whose keys for GCM ring expands in a box: no packet allocates.
    Whole(Box<Suite>),
}

const _: () = assert!(size_of::<RtcpSuite>() <= 96);

impl RtcpSuite {
    /// Keys for RTCP, whose tags are long in every profile.
    pub fn new(master: &KeyMaterial) -> Result<Self, KeyError> {
        let tag = match master.profile() {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => Tag::Gcm,
            Profile::AesCm128HmacSha1_32
            | Profile::AesCm256HmacSha1_32
            | Profile::AesCm128HmacSha1_80
            | Profile::AesCm256HmacSha1_80 => Tag::HmacSha1_80,
        };
        let labels = [Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt];
        let keys = SessionKeys::derive(master, tag, labels)?;
        // Expanded here in any case: what a backend refuses is told now.
        let suite = keys.expand()?;
        Ok(Self(match keys.backend {
            Backend::Portable => Form::Whole(Box::new(suite)),
            Backend::Shani | Backend::Avx512 => Form::Short(keys),
        }))
    }

    /// What its packets end with, but for the index word.
    pub const fn tag(&self) -> Tag {
        match &self.0 {
            Form::Short(keys) => keys.tag,
            Form::Whole(suite) => suite.tag(),
        }
    }

    /// Seals a compound behind which there is room for tag and index word; when refused, what is in front of these is as
    /// before.
    pub fn protect(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<(), Refused> {
        self.with(|suite| protect_one(Desc::sealing_rtcp(suite, packet, ssrc, index)?))
    }

    /// Verifies and decrypts.
    pub fn unprotect(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<(), Refused> {
        self.with(|suite| unprotect_one(Desc::opening_rtcp(suite, packet, ssrc, index)?))
    }

    /// Fetches the keys into the cache. A hint.
    pub fn prefetch(&self) {
        super::prefetch(self);
    }

    /// Not inlined: the stack of the packet path stays short.
    #[inline(never)]
    fn with(&self, work: impl FnOnce(&Suite) -> Result<(), Refused>) -> Result<(), Refused> {
        match &self.0 {
            Form::Short(keys) => work(&keys.expand().map_err(|_| Refused)?),
            Form::Whole(suite) => work(suite),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many packets as one likes, under whichever key: the short form and the whole one are the same keys.
    #[test]
    fn keys_expanded_for_a_packet_are_the_same_as_keys_kept() {
        let profiles = [
            (Profile::AeadAes128Gcm, 16),
            (Profile::AeadAes256Gcm, 32),
            (Profile::AesCm128HmacSha1_80, 16),
            (Profile::AesCm256HmacSha1_32, 32),
        ];
        for (profile, octets) in profiles {
            let key: Vec<u8> = (0..octets).collect();
            let master = KeyMaterial::new(profile, &key, &vec![9; profile.salt_len()]).unwrap();
            let suite = RtcpSuite::new(&master).unwrap();
            let kept = match &suite.0 {
                Form::Short(keys) => keys.expand().unwrap(),
                Form::Whole(_) => continue,
            };
            for index in [0u32, 1, 77] {
                let plain = [[0x81, 200, 0, 6].as_slice(), &[7; 24 + 20]].concat();
                let (mut one, mut other) = (plain.clone(), plain.clone());
                suite.protect(&mut one, 7, index).unwrap();
                protect_one(Desc::sealing_rtcp(&kept, &mut other, 7, index).unwrap()).unwrap();
                assert_eq!(one, other);
                assert_ne!(one, plain);
                suite.unprotect(&mut one, 7, index).unwrap();
                let end = one.len() - 4 - suite.tag().octets();
                assert_eq!(one[..end], plain[..end]);
                other[9] ^= 1;
                assert_eq!(suite.unprotect(&mut other, 7, index), Err(Refused));
            }
        }
    }
}
