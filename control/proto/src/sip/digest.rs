//! Digest authentication (RFC 8760, RFC 7616, RFC 3261 section 22), MD5 and SHA-256, qop auth.

use md5::{Digest, Md5};
use sha2::Sha256;

use crate::random::hex;

/// A challenge that we can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    qop: bool,
    /// The former nonce was right but old.
    pub stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => hex(&Md5::digest(text)),
            Self::Sha256 => hex(&Sha256::digest(text)),
        }
    }
}

/// Who answers.
#[derive(Debug)]
pub struct Account<'a> {
    /// User name.
    pub user: &'a str,
    /// Password.
    pub password: &'a str,
}

impl Challenge {
    /// Reads `WWW-Authenticate` or `Proxy-Authenticate`; `None` where we cannot answer it.
    pub fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once(char::is_whitespace)?;
        scheme.eq_ignore_ascii_case("Digest").then_some(())?;
        let fields = fields(rest);
        let field = |name: &str| {
            fields.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
        };
        let algorithm = match field("algorithm").as_deref() {
            None => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            Some(_) => return None,
        };
        let qop = field("qop");
        let auth = qop.as_deref().is_some_and(|qop| qop.split(',').any(|one| one.trim() == "auth"));
        if qop.is_some() && !auth {
            return None;
        }
        Some(Self {
            realm: field("realm")?,
            nonce: field("nonce")?,
            opaque: field("opaque"),
            algorithm,
            qop: auth,
            stale: field("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// Value of `Authorization` or `Proxy-Authorization` for the first request under this nonce.
    pub fn answer(&self, account: &Account<'_>, method: &str, uri: &str, cnonce: &str) -> String {
        let Self { realm, nonce, algorithm, .. } = self;
        let Account { user, password } = account;
        let one = algorithm.hash(&format!("{user}:{realm}:{password}"));
        let two = algorithm.hash(&format!("{method}:{uri}"));
        let response = if self.qop {
            algorithm.hash(&format!("{one}:{nonce}:00000001:{cnonce}:auth:{two}"))
        } else {
            algorithm.hash(&format!("{one}:{nonce}:{two}"))
        };
        let mut text = format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", algorithm={}",
            algorithm.name()
        );
        if self.qop {
            text.push_str(&format!(", qop=auth, cnonce=\"{cnonce}\", nc=00000001"));
        }
        if let Some(opaque) = &self.opaque {
            text.push_str(&format!(", opaque=\"{opaque}\""));
        }
        text
    }
}

/// `name=value` or `name="value"`, parted by commas.
fn fields(text: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').map_or((after, ""), |(value, next)| (value, next)),
        };
        fields.push((name.trim().trim_start_matches(',').trim().to_owned(), value.trim().to_owned()));
        rest = next.trim_start().trim_start_matches(',');
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 section 3.9.1.
    #[test]
    fn matches_the_rfc() {
        let account = Account { user: "Mufasa", password: "Circle of Life" };
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (algorithm, expected) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let challenge = Challenge::parse(&format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            ))
            .unwrap();
            let answer = challenge.answer(&account, "GET", "/dir/index.html", cnonce);
            assert!(answer.contains(&format!("response=\"{expected}\"")), "{answer}");
        }
    }

    #[test]
    fn what_we_cannot_answer_is_none() {
        assert_eq!(Challenge::parse("Basic realm=\"x\""), None);
        assert_eq!(Challenge::parse("Digest realm=\"x\", nonce=\"y\", algorithm=SHA-512-256"), None);
        assert_eq!(Challenge::parse("Digest realm=\"x\", nonce=\"y\", qop=\"auth-int\""), None);
        assert_eq!(Challenge::parse("Digest realm=\"x\""), None);
        assert!(Challenge::parse("Digest realm=\"x\", nonce=\"y\", stale=TRUE").unwrap().stale);
    }
}
