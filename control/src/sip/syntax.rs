//! Shapes of what a message says of addresses, as far as misreading them would do harm (RFC 3261 section 25.1).

use std::net::Ipv6Addr;

use super::codec::split_list;
use super::head::is_token;

/// Whether a Request-URI has a shape: no brackets, no blanks, of a SIP URI a host and no headers (section 19.1.1).
pub fn request_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let foreign = |character: char| character.is_whitespace() || "<>\"".contains(character);
    if uri.contains(foreign) || scheme.is_empty() {
        return false;
    }
    if !is_sip(scheme) {
        return true;
    }
    let place = rest.rsplit('@').next().unwrap_or(rest);
    let host = place.split(';').next().unwrap_or(place);
    !place.contains('?') && host_port(host)
}

fn is_sip(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips")
}

/// `host [":" port]`; an IPv6 address stands in brackets (RFC 5118 section 4.2).
fn host_port(text: &str) -> bool {
    let port = |port: &str| port.bytes().all(|octet| octet.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if let Some(rest) = text.strip_prefix('[') {
        let Some((v6, rest)) = rest.split_once(']') else { return false };
        return v6.parse::<Ipv6Addr>().is_ok()
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(port));
    }
    let (host, after) = text.split_once(':').map_or((text, None), |(host, after)| (host, Some(after)));
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
    !host.is_empty() && host.bytes().all(octet) && after.is_none_or(port)
}

/// Whether From, To or one Contact has a shape: `name-addr` or `addr-spec`, and parameters.
pub fn address(value: &str) -> bool {
    let value = value.trim();
    let rest = match value.strip_prefix('"') {
        Some(quoted) => match quoted_end(quoted) {
            Some(end) => quoted.get(end..).unwrap_or_default().trim_start(),
            None => return false,
        },
        None => {
            let Some(at) = value.find('<') else { return addr_spec(value) };
            let (name, rest) = value.split_at(at);
            // Letters of other alphabets should be quoted; telephones do not.
            let good = |character: char| {
                !character.is_ascii()
                    || character.is_whitespace()
                    || u8::try_from(character).is_ok_and(is_token)
            };
            if !name.chars().all(good) {
                return false;
            }
            rest
        }
    };
    let bracketed = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    bracketed.is_some_and(|(uri, tail)| named_uri(uri) && parameters(tail))
}

/// Without brackets, commas, question marks and semicolons would be read in two ways (section 20).
fn addr_spec(value: &str) -> bool {
    let (uri, tail) = value.find(';').map_or((value, ""), |at| value.split_at(at));
    let uri = uri.trim();
    named_uri(uri) && !uri.contains(['?', ',']) && parameters(tail)
}

fn named_uri(uri: &str) -> bool {
    let scheme = uri.split(':').next().unwrap_or_default();
    let named = !scheme.is_empty() && scheme.len() < uri.len() && scheme.bytes().all(is_token);
    named && !uri.contains(|character: char| character.is_whitespace() || "<>\"".contains(character))
}

/// Where a quoted string ends, its quote included.
fn quoted_end(quoted: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, octet) in quoted.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// `*( SEMI generic-param )`.
fn parameters(tail: &str) -> bool {
    let mut rest = tail.trim();
    while !rest.is_empty() {
        let Some(after) = rest.strip_prefix(';') else { return false };
        let after = after.trim_start();
        let name = after.bytes().take_while(|octet| is_token(*octet)).count();
        if name == 0 {
            return false;
        }
        rest = after.get(name..).unwrap_or_default().trim_start();
        if let Some(value) = rest.strip_prefix('=') {
            let value = value.trim_start();
            let end = match value.strip_prefix('"') {
                Some(quoted) => quoted_end(quoted).map(|end| end + 1),
                None => Some(
                    value
                        .find(|character: char| character == ';' || character.is_whitespace())
                        .unwrap_or(value.len()),
                ),
            };
            let Some(end) = end.filter(|end| *end > 0) else { return false };
            rest = value.get(end..).unwrap_or_default().trim_start();
        }
    }
    true
}

/// Whether Via has a shape: `sent-protocol LWS sent-by`, and parameters, each value.
pub fn via(value: &str) -> bool {
    let one = |value: String| {
        let (head, tail) = value.find(';').map_or((value.as_str(), ""), |at| value.split_at(at));
        let parts: Vec<&str> = head.splitn(3, '/').map(str::trim).collect();
        let [name, version, sent] = parts[..] else { return false };
        let sent = sent.split_once(char::is_whitespace);
        let by = |(transport, by): (&str, &str)| transport.bytes().all(is_token) && !by.trim().is_empty();
        name.eq_ignore_ascii_case("SIP") && version == "2.0" && sent.is_some_and(by) && parameters(tail)
    };
    split_list(value).into_iter().all(one)
}

/// Whether an answer with a session description is acceptable to who sent these Accept headers (section 20.1).
pub fn accepts_sdp<'a>(accept: impl Iterator<Item = &'a str>) -> bool {
    let mut any = false;
    for value in accept {
        any = true;
        let kind = |part: &str| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if value
            .split(',')
            .map(kind)
            .any(|kind| ["application/sdp", "application/*", "*/*"].contains(&kind.as_str()))
        {
            return true;
        }
    }
    !any
}

/// Whether we can read a body of this kind.
pub fn is_readable(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/sdp" || kind.starts_with("multipart/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_shapes() {
        for good in [
            "\"J Rosenberg \\\\\\\"\" <sip:j@example.com> ; tag = 98asjd8",
            "sip:vivekg@chair-dnrc.example.com ; tag = 1918181833n",
            "caller<sip:caller@example.com>;tag=323",
            "<sip:a@b>",
            "isbn:2983792873",
            "Müller <sip:m@b>;x=\"; <\";y",
            "<sip:user@example.com?Route=%3Csip:x%3E>",
            "token1~` token2'+_ <sip:m@b>;p''~+*_!.-%=\"x\";tag=_t~1'+`*%!-.",
        ] {
            assert!(address(good), "{good}");
        }
        for bad in [
            "\"Mr. J. User <sip:j.user@example.com>",
            "Bell, Alexander <sip:a.g.bell@example.com>;tag=43",
            "\"Watson, Thomas\" < sip:t.watson@example.org >",
            "sip:user@example.com?Route=%3Csip:x%3E",
            "\"Joe\" <sip:joe@example.org>;;;;",
            "<sip:a@b",
            "<>",
            "<sip:a@b> x",
            "",
        ] {
            assert!(!address(bad), "{bad}");
        }
    }

    #[test]
    fn vias_and_uris_have_theirs() {
        assert!(via(
            "SIP  / 2.0  / TCP     spindle.example.com   ; branch  =   z9hG4bK9ikj8  , SIP/2.0/X [::1]:5;rport"
        ));
        for bad in ["SIP/2.0/UDP 192.0.2.15;;,;,,", "SIP/2.0/UDP", "SIP/3.0/UDP a", "SIP/2.0/UDP a,", "x"] {
            assert!(!via(bad), "{bad}");
        }
        for good in [
            "sip:[2001:db8::10]:5070",
            "sip:user;par=u%40example.net@example.com",
            "sip:a:b?c@example.com;x",
            "tel:+1",
            "sips:10.0.0.1:5061",
        ] {
            assert!(request_uri(good), "{good}");
        }
        for bad in [
            "sip:2001:db8::10",
            "sip:u@[2001:db8:::192.0.2.1]",
            "<sip:u@h>",
            "sip:u@h?Route=x",
            "sip:",
            "u",
            "sip:h:99999",
        ] {
            assert!(!request_uri(bad), "{bad}");
        }
        assert!(accepts_sdp(["text/plain, application/sdp;level=1"].into_iter()));
        assert!(!accepts_sdp(["text/nobodyKnowsThis"].into_iter()));
        assert!(accepts_sdp([].into_iter()));
    }
}
