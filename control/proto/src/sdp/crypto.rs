//! Keys in the SDP: `a=crypto` (RFC 4568, RFC 6188 section 4, RFC 7714 section 14.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sallyport_plan::{KeyMaterial, Profile};
use zeroize::Zeroizing;

use crate::random::Random;

/// Suites that we offer, as we prefer them: those with 128 bits are what telephones and our kernels are best at.
const SUITES: [Profile; 4] = [
    Profile::AeadAes128Gcm,
    Profile::AesCm128HmacSha1_80,
    Profile::AeadAes256Gcm,
    Profile::AesCm256HmacSha1_80,
];

/// Suites with tags of 32 bits: taken where a peer offers them, offered where nothing else may be.
const SHORT: [Profile; 2] = [Profile::AesCm128HmacSha1_32, Profile::AesCm256HmacSha1_32];

/// Bits of the longest lifetime: SRTP's index has no more (RFC 4568 section 6.1, RFC 3711 section 9.2).
const LIFETIME_BITS: u32 = 48;

/// One `a=crypto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Joins offer and answer: 1 to 9 digits.
    pub tag: u32,
    /// Key of what its writer sends.
    pub key: KeyMaterial,
}

/// Why an `a=crypto` is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// No line by RFC 4568 section 9.1.
    Syntax,
    /// A suite that we do not have, such as one without encryption.
    Suite,
    /// A master key identifier, or several keys that need one: packets would have another form.
    Mki,
    /// A session parameter that changes packets or weakens them.
    Parameter,
    /// A key of a wrong length, or one that is no secret, as of equal octets.
    Key,
}

impl Flaw {
    /// For people, without anything of the line.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Syntax => "a=crypto cannot be read",
            Self::Suite => "no known suite in a=crypto",
            Self::Mki => "a=crypto with an MKI or several keys is not supported",
            Self::Parameter => "a=crypto with such session parameters is not supported",
            Self::Key => "the key in a=crypto does not fit its suite or is none",
        }
    }
}

impl Crypto {
    /// Reads the value behind `crypto:`. A lifetime is accepted: it says how many packets its writer will send under the
    /// key, and keys last for 2^48 packets with us.
    ///
    /// # Errors
    /// [`Flaw`]: the line is to be passed over.
    pub fn parse(value: &str) -> Result<Self, Flaw> {
        let mut words = value.split_ascii_whitespace();
        let tag = words.next().filter(|tag| (1..=9).contains(&tag.len())).ok_or(Flaw::Syntax)?;
        let tag = if tag.bytes().all(|octet| octet.is_ascii_digit()) { tag.parse().ok() } else { None };
        let tag = tag.ok_or(Flaw::Syntax)?;
        let (name, params) = (words.next().ok_or(Flaw::Syntax)?, words.next().ok_or(Flaw::Syntax)?);
        let mut known = SUITES.into_iter().chain(SHORT);
        let profile = known.find(|profile| profile.name().eq_ignore_ascii_case(name)).ok_or(Flaw::Suite)?;
        let inline = params.strip_prefix("inline:").ok_or(Flaw::Syntax)?;
        if inline.contains(';') {
            return Err(Flaw::Mki);
        }
        let mut parts = inline.split('|');
        let octets = parts.next().and_then(|text| STANDARD.decode(text).ok()).map(Zeroizing::new);
        let octets = octets.ok_or(Flaw::Key)?;
        match (parts.next(), parts.next()) {
            (None, _) => {}
            (Some(_), Some(_)) => return Err(Flaw::Mki),
            (Some(mki), None) if mki.contains(':') => return Err(Flaw::Mki),
            (Some(lifetime), None) if is_lifetime(lifetime) => {}
            (Some(_), None) => return Err(Flaw::Syntax),
        }
        if !words.all(is_harmless) {
            return Err(Flaw::Parameter);
        }
        let (key, salt) = octets.split_at_checked(profile.key_len()).ok_or(Flaw::Key)?;
        if key.iter().all(|octet| Some(octet) == key.first()) {
            return Err(Flaw::Key);
        }
        let key = KeyMaterial::new(profile, key, salt).ok_or(Flaw::Key)?;
        Ok(Self { tag, key })
    }

    /// The value behind `crypto:`.
    pub fn text(&self) -> Zeroizing<String> {
        let octets = Zeroizing::new([self.key.key(), self.key.salt()].concat());
        let inline = Zeroizing::new(STANDARD.encode(&*octets));
        Zeroizing::new(format!("{} {} inline:{}", self.tag, self.key.profile().name(), *inline))
    }

    /// A fresh key for a suite.
    pub fn fresh(tag: u32, profile: Profile, random: &mut Random) -> Option<Self> {
        let (key, salt) = (Zeroizing::new(random.block()), Zeroizing::new(random.block()));
        let (key, salt) = (key.get(..profile.key_len())?, salt.get(..profile.salt_len())?);
        Some(Self { tag, key: KeyMaterial::new(profile, key, salt)? })
    }

    /// Fresh keys to offer, for the suites whose names are allowed; those with short tags only where no other is.
    pub fn offer(allows: impl Fn(&str) -> bool, random: &mut Random) -> Vec<Self> {
        let of = |suites: &[Profile]| -> Vec<Profile> {
            suites.iter().copied().filter(|profile| allows(profile.name())).collect()
        };
        let wanted = Some(of(&SUITES)).filter(|wanted| !wanted.is_empty()).unwrap_or_else(|| of(&SHORT));
        (1..).zip(wanted).filter_map(|(tag, profile)| Self::fresh(tag, profile, random)).collect()
    }
}

/// `2^n` or a number (RFC 4568 section 9.2).
fn is_lifetime(text: &str) -> bool {
    let number =
        |digits: &str| digits.bytes().all(|octet| octet.is_ascii_digit()).then(|| digits.parse::<u64>().ok());
    match text.strip_prefix("2^") {
        Some(bits) => number(bits).flatten().is_some_and(|bits| bits <= u64::from(LIFETIME_BITS)),
        None => number(text).flatten().is_some_and(|count| (1..=1 << LIFETIME_BITS).contains(&count)),
    }
}

/// Whether a session parameter changes nothing for us: a hint for the replay window, or one that may be passed over
/// (RFC 4568 sections 6.3.7 and 9.1.1).
fn is_harmless(word: &str) -> bool {
    word.starts_with("WSH=") || word.starts_with('-') || word == "KDR=0"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;

    #[test]
    fn what_is_offered_reads_back() {
        let mut random = Random::new(Seed([3; 32]));
        let offered = Crypto::offer(|_| true, &mut random);
        assert_eq!(offered.iter().map(|crypto| crypto.tag).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_ne!(offered[0].key.key(), offered[1].key.key());
        for crypto in &offered {
            assert_eq!(Crypto::parse(&crypto.text()).as_ref(), Ok(crypto));
        }
        let without = Crypto::offer(|name| name != "AEAD_AES_128_GCM", &mut random);
        assert_eq!(without.len(), 3);
        let only = |wanted: &'static str| move |name: &str| name == wanted;
        let offered = Crypto::offer(only("AES_256_CM_HMAC_SHA1_80"), &mut random);
        assert_eq!((offered.len(), offered[0].tag, offered[0].key.key().len()), (1, 1, 32));
        let offered = Crypto::offer(only("AES_CM_128_HMAC_SHA1_32"), &mut random);
        assert_eq!(offered[0].key.profile(), Profile::AesCm128HmacSha1_32, "where nothing else is allowed");
    }

    const INLINE: &str = "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

    #[test]
    fn rfc_4568s_example_and_its_variants() {
        for rest in ["", "|2^20", "|2^48", "|1048576", " WSH=64", "|2^31 WSH=128 -future=1", " KDR=0"] {
            for suite in ["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32", "aes_cm_128_hmac_sha1_80"] {
                let crypto = Crypto::parse(&format!("7 {suite} {INLINE}{rest}"));
                assert_eq!(crypto.map(|crypto| crypto.tag), Ok(7), "{suite} {rest}");
            }
        }
    }

    #[test]
    fn what_we_do_not_do_is_told_by_its_flaw() {
        let zeros = STANDARD.encode([0; 30]);
        for (bad, flaw) in [
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE}|2^20|1:4"), Flaw::Mki),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE}|1:4"), Flaw::Mki),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE};{INLINE}"), Flaw::Mki),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE}|2^49"), Flaw::Syntax),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE}|0"), Flaw::Syntax),
            (format!("1 F8_128_HMAC_SHA1_80 {INLINE}"), Flaw::Suite),
            (format!("1 NULL_HMAC_SHA1_80 {INLINE}"), Flaw::Suite),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE} UNENCRYPTED_SRTP"), Flaw::Parameter),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE} UNENCRYPTED_SRTCP"), Flaw::Parameter),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE} UNAUTHENTICATED_SRTP"), Flaw::Parameter),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE} KDR=1"), Flaw::Parameter),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:AAAA".into(), Flaw::Key),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:*".into(), Flaw::Key),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{zeros}"), Flaw::Key),
            (format!("1 AEAD_AES_128_GCM {INLINE}"), Flaw::Key),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {}", &INLINE[7..]), Flaw::Syntax),
            (format!("1234567890 AES_CM_128_HMAC_SHA1_80 {INLINE}"), Flaw::Syntax),
            ("x AES_CM_128_HMAC_SHA1_80".into(), Flaw::Syntax),
            (String::new(), Flaw::Syntax),
        ] {
            assert_eq!(Crypto::parse(&bad), Err(flaw), "{bad}");
        }
    }

    #[test]
    fn no_key_is_told() {
        let crypto = Crypto::parse(&format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE}")).unwrap();
        let told = format!("{crypto:?}");
        assert_eq!(told, "Crypto { tag: 1, key: KeyMaterial(AES_CM_128_HMAC_SHA1_80, ..) }");
    }
}
