//! Keys in the SDP: `a=crypto` (RFC 4568, RFC 7714 section 14.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sallyport_plan::{KeyMaterial, Profile};

use super::flags::SdesChoice;
use crate::random::Random;

/// Suites that we have, as we prefer them: those with 128 bits are what telephones and our kernels are best at.
const SUITES: [Profile; 4] = [
    Profile::AeadAes128Gcm,
    Profile::AesCm128HmacSha1_80,
    Profile::AeadAes256Gcm,
    Profile::AesCm256HmacSha1_80,
];

/// One `a=crypto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Joins offer and answer.
    pub tag: u32,
    /// Key of what its writer sends.
    pub key: KeyMaterial,
}

/// Name of a suite in `a=crypto`.
pub const fn suite(profile: Profile) -> &'static str {
    profile.name()
}

impl Crypto {
    /// Reads the value behind `crypto:`. Other suites, MKIs and session parameters that change the packets are passed
    /// over.
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let tag = words.next()?.parse().ok()?;
        let name = words.next()?;
        let profile = SUITES.into_iter().find(|profile| suite(*profile).eq_ignore_ascii_case(name))?;
        let inline = words.next()?.strip_prefix("inline:")?;
        let mut parts = inline.split('|');
        let octets = zeroize::Zeroizing::new(STANDARD.decode(parts.next()?).ok()?);
        // A lifetime may follow, an MKI (`1:4`) would change the packets.
        if parts.any(|part| part.contains(':')) || words.any(|word| !word.starts_with("WSH=")) {
            return None;
        }
        let (key, salt) = octets.split_at_checked(profile.key_len())?;
        Some(Self { tag, key: KeyMaterial::new(profile, key, salt)? })
    }

    /// The value behind `crypto:`.
    pub fn text(&self) -> zeroize::Zeroizing<String> {
        let octets = zeroize::Zeroizing::new([self.key.key(), self.key.salt()].concat());
        let inline = zeroize::Zeroizing::new(STANDARD.encode(&*octets));
        zeroize::Zeroizing::new(format!("{} {} inline:{}", self.tag, suite(self.key.profile()), *inline))
    }

    /// A fresh key for a suite.
    pub fn fresh(tag: u32, profile: Profile, random: &mut Random) -> Option<Self> {
        let (key, salt) = (zeroize::Zeroizing::new(random.block()), zeroize::Zeroizing::new(random.block()));
        let (key, salt) = (key.get(..profile.key_len())?, salt.get(..profile.salt_len())?);
        Some(Self { tag, key: KeyMaterial::new(profile, key, salt)? })
    }

    /// Keys to offer.
    pub fn offer(choice: &SdesChoice, random: &mut Random) -> Vec<Self> {
        let wanted = SUITES.into_iter().filter(|profile| choice.allows(suite(*profile)));
        (1..).zip(wanted).filter_map(|(tag, profile)| Self::fresh(tag, profile, random)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;

    #[test]
    fn what_is_offered_reads_back() {
        let mut random = Random::new(Seed([3; 32]));
        let offered = Crypto::offer(&SdesChoice::default(), &mut random);
        assert_eq!(offered.iter().map(|crypto| crypto.tag).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_ne!(offered[0].key.key(), offered[1].key.key());
        for crypto in &offered {
            assert_eq!(Crypto::parse(&crypto.text()).as_ref(), Some(crypto));
        }
        let without = SdesChoice { without: vec!["aead_aes_128_gcm".into()], ..SdesChoice::default() };
        assert_eq!(Crypto::offer(&without, &mut random).len(), 3);
        let only = SdesChoice { only: vec!["AES_256_CM_HMAC_SHA1_80".into()], ..SdesChoice::default() };
        let offered = Crypto::offer(&only, &mut random);
        assert_eq!((offered.len(), offered[0].tag, offered[0].key.key().len()), (1, 1, 32));
    }

    #[test]
    fn rfc_4568s_example_and_what_we_do_not_do() {
        let inline = "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
        let good = format!("1 AES_CM_128_HMAC_SHA1_80 {inline}|2^20");
        assert_eq!(Crypto::parse(&good).map(|crypto| crypto.tag), Some(1));
        for bad in [
            format!("1 AES_CM_128_HMAC_SHA1_80 {inline}|2^20|1:4"),
            format!("1 AES_CM_128_HMAC_SHA1_32 {inline}"),
            format!("1 AES_CM_128_HMAC_SHA1_80 {inline} UNENCRYPTED_SRTP"),
            "1 AES_CM_128_HMAC_SHA1_80 inline:AAAA".into(),
            "x AES_CM_128_HMAC_SHA1_80".into(),
            String::new(),
        ] {
            assert_eq!(Crypto::parse(&bad), None, "{bad}");
        }
    }
}
