//! Bearer tokens: JWT (RFC 7519) under keys of the configuration. A key verifies one algorithm (RFC 8725 section 3.1).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use super::provider;
use super::section::Identity;

/// Octets that a token may have.
const LENGTH_MAX: usize = 4096;
/// How far clocks may be apart.
const LEEWAY_S: u64 = 30;
/// Times further away are as good as this one: ten years.
const LONGEST_S: f64 = 10.0 * 365.0 * 86_400.0;
/// What stands before the 32 octets in a SubjectPublicKeyInfo of Ed25519 (RFC 8410 section 4).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const KEY_LENGTH: usize = 32;

/// What a token says.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Claims {
    /// An agent's number; absent for a customer.
    pub sub: Option<String>,
    /// Seconds since the Unix epoch, with a fraction or without; required.
    #[serde(default)]
    exp: f64,
    /// Its name (OpenID Connect Core section 5.1).
    pub name: Option<String>,
    /// Ours.
    #[serde(default)]
    pub sallyport: Ours,
}

impl Claims {
    /// When the token is worth nothing any more, our clock's tolerance included.
    pub fn until(&self) -> Instant {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let left = (self.exp + LEEWAY_S as f64 - now).clamp(0.0, LONGEST_S);
        Instant::now() + Duration::from_secs_f64(left)
    }
}

/// The claim `sallyport`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Ours {
    /// Destinations that may be called; absent: all of an agent's, the configuration's of a customer's.
    pub to: Option<Vec<String>>,
}

/// Whose tokens are believed.
pub struct Tokens(Vec<(Algorithm, DecodingKey, Validation)>);

impl Tokens {
    /// From `[identity]`.
    ///
    /// # Errors
    /// Which key cannot be one.
    pub fn new(section: &Identity) -> Result<Self, String> {
        provider::install();
        let mut keys = Vec::new();
        for secret in &section.hs256 {
            if secret.len() < KEY_LENGTH {
                return Err("[identity] hs256: a secret must have 32 octets at least (RFC 7518)".into());
            }
            let key = DecodingKey::from_secret(secret.as_bytes());
            keys.push((Algorithm::HS256, key, validation(Algorithm::HS256, section)));
        }
        for text in &section.ed25519 {
            let wrong = "[identity] ed25519: a key is a PEM public key of Ed25519 or its 32 octets in base64";
            let key = DecodingKey::from_ed_der(&public_key(text).ok_or(wrong)?);
            keys.push((Algorithm::EdDSA, key, validation(Algorithm::EdDSA, section)));
        }
        Ok(Self(keys))
    }

    /// What a token says, if it is one of ours and valid now.
    ///
    /// # Errors
    /// Why it is not, in words.
    pub fn verify(&self, token: &str) -> Result<Claims, &'static str> {
        const UNKNOWN: &str = "the token is none of ours";
        if token.len() > LENGTH_MAX {
            return Err("the token is too long");
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| UNKNOWN)?;
        // We know no extension, so that all that are critical are unknown (RFC 7515 section 4.1.11).
        if header.crit.is_some() {
            return Err("the token needs an extension that is unknown here");
        }
        let mut flaw = UNKNOWN;
        for (_, key, validation) in self.0.iter().filter(|(algorithm, ..)| *algorithm == header.alg) {
            match jsonwebtoken::decode::<Claims>(token, key, validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => flaw = text(error.kind()).unwrap_or(flaw),
            }
        }
        Err(flaw)
    }
}

/// What is wrong with a token whose signature is good; nothing is told of others.
const fn text(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => {
            "the token lacks a claim: exp, or iss or aud where they are configured"
        }
        ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => "a claim of the token is of the wrong kind",
        _ => return None,
    })
}

fn validation(algorithm: Algorithm, section: &Identity) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_S;
    validation.validate_nbf = true;
    let mut required = vec!["exp"];
    if !section.issuer.is_empty() {
        validation.set_issuer(&[&section.issuer]);
        required.push("iss");
    }
    if !section.audience.is_empty() {
        validation.set_audience(&[&section.audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn public_key(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let octets = if text.starts_with("-----BEGIN") {
        SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).ok()?.to_vec()
    } else {
        let plain = text.trim_end_matches('=');
        STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(plain)).ok()?
    };
    let key = octets.strip_prefix(&ED25519_PREFIX).unwrap_or(&octets);
    (key.len() == KEY_LENGTH).then(|| key.to_vec())
}
