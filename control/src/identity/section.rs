//! `[identity]` and `[agents]` of the configuration.

use serde::{Deserialize, Serialize};

/// `[identity]`: whose tokens (RFC 7519) are believed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Secrets for HS256, 32 octets at least (RFC 7518 section 3.2).
    #[serde(skip_serializing)]
    pub hs256: Vec<String>,
    /// Public keys for EdDSA over Ed25519 (RFC 8037): PEM, or the 32 octets in base64.
    pub ed25519: Vec<String>,
    /// What `iss` must be; empty: anything.
    pub issuer: String,
    /// What `aud` must name; empty: a token without one.
    pub audience: String,
}

/// What an agent shows to sign in with its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// A token that names the number.
    #[default]
    Token,
    /// The number's SIP password: the sign-in succeeds when the SIP server has taken it. A token is as good.
    Password,
    /// Nothing: for a lab.
    Open,
}

/// `[agents]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agents {
    /// What an agent shows to sign in.
    pub numbers: Numbers,
    /// Whether numbers are registered with the SIP server; default: where there is one.
    pub register: Option<bool>,
    /// How long a registration is asked for.
    pub expires_s: u32,
    /// How long a browser that hears no events stays signed in.
    pub grace_s: u16,
    /// Sign-ins of one client (an IPv4 address, an IPv6 /64) in a minute; a failed one counts fivefold, one with a token a
    /// tenth.
    pub sign_ins_per_minute: u32,
    /// Sign-ins without a token with one number in a minute.
    pub number_sign_ins_per_minute: u32,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            numbers: Numbers::Token,
            register: None,
            expires_s: 300,
            grace_s: 30,
            sign_ins_per_minute: 60,
            number_sign_ins_per_minute: 30,
        }
    }
}

impl Agents {
    /// Whether the values can be.
    ///
    /// # Errors
    /// Which cannot.
    pub fn validate(&self, server: bool) -> Result<(), String> {
        let wrong = |text: &str| Err(text.to_owned());
        if !(20..=86_400).contains(&self.expires_s) {
            return wrong("[agents] expires_s must lie between 20 and 86400");
        }
        if !(1..=3600).contains(&self.grace_s) {
            return wrong("[agents] grace_s must lie between 1 and 3600");
        }
        if self.sign_ins_per_minute == 0 || self.number_sign_ins_per_minute == 0 {
            return wrong("[agents] sign_ins_per_minute and number_sign_ins_per_minute must be 1 at least");
        }
        let registers = self.register.unwrap_or(server);
        if registers && !server {
            return wrong("[agents] register needs a [sip] server");
        }
        if self.numbers == Numbers::Password && !registers {
            return wrong("[agents] numbers = \"password\" needs a [sip] server that verifies them");
        }
        Ok(())
    }
}
