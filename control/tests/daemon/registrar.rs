//! What the SIP server says to a REGISTER, by the number: 2xxx has a password, 3xxx must register for long, 4xxx is
//! unknown, 5xxx is put off once, 6xxx has to come again soon, any other is taken as it asks.

use boring::hash::{MessageDigest, hash};

use super::pbx::{answer, line};

/// The password of numbers that have one.
pub const PASSWORD: &str = "sesame-7421";

/// The answer to a REGISTER; `before`: how often this number has asked.
pub fn register(request: &str, before: usize) -> String {
    let number = line(request, "To").split(['@', ':']).nth(1).unwrap().to_owned();
    let expires: u32 = line(request, "Expires").parse().unwrap();
    let taken = |granted: u32| {
        let contact = line(request, "Contact");
        if expires == 0 {
            return answer(request, "200 OK", "", &[]);
        }
        let contact = format!("Contact: <sip:{number}@192.0.2.1>;expires=77, {contact};expires={granted}");
        answer(request, "200 OK", "", &[&contact, "Service-Route: <sip:edge;lr>"])
    };
    match number.as_bytes()[0] {
        b'2' if !is_authorized(request, &number) => {
            let challenge =
                "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"r1\", qop=\"auth\", algorithm=MD5";
            answer(request, "401 Unauthorized", "", &[challenge])
        }
        b'3' if expires > 0 && expires < 600 => {
            answer(request, "423 Interval Too Brief", "", &["Min-Expires: 600"])
        }
        b'4' => answer(request, "404 Not Found", "", &[]),
        b'5' if before == 0 => answer(request, "503 Service Unavailable", "", &["Retry-After: 1"]),
        b'6' => taken(2),
        _ => taken(expires),
    }
}

/// Whether it bears the right digest (RFC 2617 section 3.2.2).
fn is_authorized(request: &str, user: &str) -> bool {
    let Some(given) = request.lines().find_map(|line| line.strip_prefix("Authorization: Digest ")) else {
        return false;
    };
    let part = |name: &str| {
        let mut parts = given.split(", ").filter_map(|part| part.trim().split_once('='));
        parts.find(|(have, _)| *have == name).map_or("", |(_, value)| value).trim_matches('"').to_owned()
    };
    let md5 = |text: String| -> String {
        let digest = hash(MessageDigest::md5(), text.as_bytes()).unwrap();
        digest.iter().map(|octet| format!("{octet:02x}")).collect()
    };
    let (one, two) = (md5(format!("{user}:pbx:{PASSWORD}")), md5(format!("REGISTER:{}", part("uri"))));
    let middle = format!("{}:{}:{}:{}", part("nonce"), part("nc"), part("cnonce"), part("qop"));
    part("response") == md5(format!("{one}:{middle}:{two}"))
}
