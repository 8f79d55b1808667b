//! What a browser shows to be let in: a bearer token (RFC 8898), or a digest over one (RFC 7616) where its library knows
//! passwords only.

use md5::{Digest, Md5};

use super::{Phone, Refusal, Secret};
use crate::random::{Random, hex};
use crate::sip::{Request, fields};

const REALM: &str = "sallyport";
/// Wrong answers of one connection that are judged; beyond, there is no other chance.
const FAILURES: u8 = 5;

/// Challenges of one connection.
pub struct Guard {
    nonce: String,
    count: u32,
    failures: u8,
    stale: bool,
}

impl Guard {
    pub fn new(random: &mut Random) -> Self {
        Self { nonce: random.hex(16), count: 0, failures: 0, stale: false }
    }

    /// Headers of a 401. JsSIP and SIP.js keep the last one only, which has to be the one that they can answer.
    pub fn challenges(&self) -> Vec<(String, String)> {
        let name = || "WWW-Authenticate".to_owned();
        let stale = if self.stale { ", stale=true" } else { "" };
        let digest =
            format!("Digest realm=\"{REALM}\", nonce=\"{}\", algorithm=MD5, qop=\"auth\"{stale}", self.nonce);
        vec![(name(), format!("Bearer realm=\"{REALM}\"")), (name(), digest)]
    }

    /// The secret that a digest was made with; `Ok(None)` for an answer to another challenge than the present one.
    fn judge(
        &mut self,
        value: &str,
        request: &Request,
        secrets: &[Secret],
    ) -> Result<Option<Secret>, Refusal> {
        let fields = fields(value);
        let field = |name: &str| {
            let found = fields.iter().find(|(have, _)| have.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str())
        };
        self.stale = field("nonce") != self.nonce;
        if self.stale {
            return Ok(None);
        }
        let count = u32::from_str_radix(field("nc"), 16).unwrap_or_default();
        if field("qop") != "auth" || field("realm") != REALM || count <= self.count {
            return self.failed();
        }
        self.count = count;
        let md5 = |text: String| hex(&Md5::digest(text));
        let two = md5(format!("{}:{}", request.method, field("uri")));
        let middle = format!("{}:{}:{}:auth", self.nonce, field("nc"), field("cnonce"));
        let given = field("response").to_ascii_lowercase();
        let made_with = |secret: &&Secret| {
            let one = md5(format!("{}:{REALM}:{}", field("username"), secret.0));
            md5(format!("{one}:{middle}:{two}")) == given
        };
        match secrets.iter().find(made_with) {
            Some(secret) => Ok(Some(secret.clone())),
            None => self.failed(),
        }
    }

    fn failed(&mut self) -> Result<Option<Secret>, Refusal> {
        self.failures = self.failures.saturating_add(1);
        if self.failures > FAILURES {
            return Err(Refusal::because(403, "too many wrong passwords on this connection"));
        }
        Err(Refusal::plain(401))
    }
}

impl Phone {
    /// What the request shows, else what was shown on this connection before.
    ///
    /// # Errors
    /// The answer to a wrong digest.
    pub(super) fn shown(&mut self, request: &Request) -> Result<Option<Secret>, Refusal> {
        let values: Vec<&str> = ["Authorization", "Proxy-Authorization"]
            .into_iter()
            .flat_map(|name| request.header(name))
            .collect();
        for value in values {
            let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value, ""));
            let secret = if scheme.eq_ignore_ascii_case("Bearer") {
                Some(Secret(rest.trim().to_owned()))
            } else if scheme.eq_ignore_ascii_case("Digest") {
                self.guard.judge(rest, request, &self.settings.secrets)?
            } else {
                None
            };
            if secret.is_some() {
                self.token = secret;
                break;
            }
        }
        Ok(self.token.clone())
    }
}
