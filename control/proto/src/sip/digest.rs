//! Digest authentication (RFC 8760, RFC 7616, RFC 3261 section 22), MD5 and SHA-256, qop auth.

use md5::{Digest, Md5};
use sha2::Sha256;

use super::message::Response;
use crate::random::hex;

/// Challenges of one request that are answered in a row.
const ROUNDS: u8 = 4;
/// Realms that one response may name.
const REALMS: usize = 4;

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

    /// Value of `Authorization` or `Proxy-Authorization` for the request of number `count` under this nonce, from 1.
    pub fn answer(&self, account: &Account<'_>, method: &str, uri: &str, cnonce: &str, count: u32) -> String {
        let Self { realm, nonce, algorithm, .. } = self;
        let Account { user, password } = account;
        let one = algorithm.hash(&format!("{user}:{realm}:{password}"));
        let two = algorithm.hash(&format!("{method}:{uri}"));
        let response = if self.qop {
            algorithm.hash(&format!("{one}:{nonce}:{count:08x}:{cnonce}:auth:{two}"))
        } else {
            algorithm.hash(&format!("{one}:{nonce}:{two}"))
        };
        let mut text = format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", algorithm={}",
            algorithm.name()
        );
        if self.qop {
            text.push_str(&format!(", qop=auth, cnonce=\"{cnonce}\", nc={count:08x}"));
        }
        if let Some(opaque) = &self.opaque {
            text.push_str(&format!(", opaque=\"{opaque}\""));
        }
        text
    }
}

/// What a request may be answered by in its course: who was challenged for it before is not convinced by the same again.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    tried: Vec<(&'static str, String)>,
    rounds: u8,
}

/// Challenges of a dialog that were answered, each under the header that answers it: proxies and the far end may all ask.
#[derive(Debug, Default)]
pub struct Credentials(Vec<Held>);

#[derive(Debug)]
struct Held {
    header: &'static str,
    challenge: Challenge,
    count: u32,
}

impl Attempts {
    /// Whether nothing was challenged yet.
    pub const fn is_first(&self) -> bool {
        self.rounds == 0
    }
}

impl Credentials {
    /// Takes in the challenges of a response; whether the request is worth another attempt.
    pub fn learn(&mut self, response: &Response, attempts: &mut Attempts) -> bool {
        let (asked, header) = match response.status {
            401 => ("WWW-Authenticate", "Authorization"),
            407 => ("Proxy-Authenticate", "Proxy-Authorization"),
            _ => return false,
        };
        attempts.rounds += 1;
        if attempts.rounds > ROUNDS {
            return false;
        }
        let mut fresh: Vec<Challenge> = Vec::new();
        // Of one realm's challenges the first that we can answer (RFC 8760 section 2.4).
        for challenge in response.header(asked).filter_map(Challenge::parse) {
            if !fresh.iter().any(|have| have.realm == challenge.realm) {
                fresh.push(challenge);
            }
        }
        let refused = |challenge: &Challenge| {
            let tried = |(have, realm): &(&str, String)| *have == header && *realm == challenge.realm;
            !challenge.stale && attempts.tried.iter().any(tried)
        };
        if fresh.is_empty() || fresh.len() > REALMS || fresh.iter().any(refused) {
            return false;
        }
        for challenge in fresh {
            attempts.tried.push((header, challenge.realm.clone()));
            let known = |held: &Held| held.header == header && held.challenge.realm == challenge.realm;
            // A nonce that is named again is counted on.
            let count = self.0.iter().find(|held| held.challenge.nonce == challenge.nonce);
            let count = count.map_or(0, |held| held.count);
            self.0.retain(|held| !known(held));
            self.0.push(Held { header, challenge, count });
        }
        true
    }

    /// Header fields for the next request.
    pub fn headers(
        &mut self,
        account: &Account<'_>,
        method: &str,
        uri: &str,
        mut cnonce: impl FnMut() -> String,
    ) -> Vec<(String, String)> {
        let answer = |held: &mut Held| {
            held.count += 1;
            let value = held.challenge.answer(account, method, uri, &cnonce(), held.count);
            (held.header.to_owned(), value)
        };
        self.0.iter_mut().map(answer).collect()
    }
}

/// `name=value` or `name="value"`, parted by commas.
pub(crate) fn fields(text: &str) -> Vec<(String, String)> {
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
            let answer = challenge.answer(&account, "GET", "/dir/index.html", cnonce, 1);
            assert!(answer.contains(&format!("response=\"{expected}\"")), "{answer}");
        }
    }

    fn challenged(status: u16, values: &[&str]) -> Response {
        let name = if status == 401 { "WWW-Authenticate" } else { "Proxy-Authenticate" };
        Response {
            status,
            reason: String::new(),
            from: String::new(),
            to: String::new(),
            call_id: String::new(),
            cseq: 1,
            method: super::super::Method::Invite,
            record_route: Vec::new(),
            contact: None,
            content_type: None,
            headers: values.iter().map(|value| (name.to_owned(), (*value).to_owned())).collect(),
            body: Vec::new(),
        }
    }

    #[test]
    fn proxies_and_the_far_end_are_all_answered_each_once() {
        let account = Account { user: "u", password: "p" };
        let (mut held, mut attempts) = (Credentials::default(), Attempts::default());
        let proxy = challenged(407, &["Digest realm=\"a\", nonce=\"1\"", "Digest realm=\"b\", nonce=\"2\""]);
        assert!(held.learn(&proxy, &mut attempts));
        assert!(held.learn(&challenged(401, &["Digest realm=\"a\", nonce=\"3\""]), &mut attempts));
        let headers = held.headers(&account, "INVITE", "sip:x", || "c".into());
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Proxy-Authorization", "Proxy-Authorization", "Authorization"]);
        assert!(!held.learn(&proxy, &mut attempts), "the password was refused");
        assert!(held.learn(&proxy, &mut Attempts::default()), "another request, another attempt");
    }

    #[test]
    fn a_stale_nonce_is_replaced_but_not_for_ever_and_one_named_again_is_counted_on() {
        let account = Account { user: "u", password: "p" };
        let (mut held, mut attempts) = (Credentials::default(), Attempts::default());
        let stale = challenged(401, &["Digest realm=\"a\", nonce=\"1\", qop=\"auth\", stale=true"]);
        let mut counts = Vec::new();
        while held.learn(&stale, &mut attempts) {
            let headers = held.headers(&account, "BYE", "sip:x", || "c".into());
            counts.push(headers[0].1.rsplit("nc=").next().unwrap().to_owned());
        }
        assert_eq!(counts, ["00000001", "00000002", "00000003", "00000004"]);
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
