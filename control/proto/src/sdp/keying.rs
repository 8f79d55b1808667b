//! What a section of telephony says of encryption: its profile, and its keys by `a=crypto`.

use std::fmt::Write;

use sdp_types::Media;
use serde::{Deserialize, Serialize};

use super::crypto::{Crypto, Flaw};
use super::values;

/// `a=crypto` lines that are looked at.
const CRYPTO_MAX: usize = 32;

/// Profile of a section inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InsideProfile {
    /// RTP/AVP (RFC 3551): plain, or encrypted where both sides have keys (RFC 8643).
    #[default]
    Avp,
    /// RTP/AVPF (RFC 4585): the same with early feedback.
    Avpf,
    /// RTP/SAVP (RFC 3711).
    Savp,
    /// RTP/SAVPF (RFC 5124).
    Savpf,
}

impl InsideProfile {
    const ALL: [Self; 4] = [Self::Avp, Self::Avpf, Self::Savp, Self::Savpf];

    /// As in an `m=` line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avp => "RTP/AVP",
            Self::Avpf => "RTP/AVPF",
            Self::Savp => "RTP/SAVP",
            Self::Savpf => "RTP/SAVPF",
        }
    }

    /// Whether media must be encrypted.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Savp | Self::Savpf)
    }
}

/// What a section says of encryption, ours or theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keying {
    /// Profile.
    pub profile: InsideProfile,
    /// Keys of what its writer sends, as it prefers them; an answer has one. Not for records: keys are in plans only.
    #[serde(skip)]
    pub crypto: Vec<Crypto>,
    /// What is wrong with the first of its keys that cannot be used.
    #[serde(skip)]
    pub flaw: Option<Flaw>,
}

impl Keying {
    /// What a section says; `None` where its profile is none of telephony's.
    pub fn read(media: &Media) -> Option<Self> {
        let profile = InsideProfile::ALL.into_iter().find(|profile| profile.name() == media.proto)?;
        let (mut crypto, mut flaw) = (Vec::new(), None);
        for line in values(media, "crypto").take(CRYPTO_MAX).map(Crypto::parse) {
            match line {
                Ok(line) => crypto.push(line),
                Err(found) => flaw = flaw.or(Some(found)),
            }
        }
        Some(Self { profile, crypto, flaw })
    }

    /// Lines of `a=crypto`.
    pub fn write(&self, text: &mut String) {
        for crypto in &self.crypto {
            let _ = write!(text, "a=crypto:{}\r\n", *crypto.text());
        }
    }
}
