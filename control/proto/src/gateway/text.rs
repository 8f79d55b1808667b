//! Pieces of URIs and header values that a phone reads.

use crate::sip::header::{uri_of, user_of};

/// The words of RFC 3261 section 21.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        420 => "Bad Extension",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        429 => "Too Many Requests",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        484 => "Address Incomplete",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        _ => "Refused",
    }
}

/// Host and port of a SIP URI; empty for none.
fn place_of(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or("", |(_, rest)| rest);
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    place.split([';', '?']).next().unwrap_or_default()
}

/// The host part of a SIP URI, without port; empty for none.
pub fn host_of(uri: &str) -> &str {
    let place = place_of(uri);
    match place.starts_with('[') {
        true => place.split_inclusive(']').next().unwrap_or_default(),
        false => place.split(':').next().unwrap_or_default(),
    }
}

/// A host for URIs of ours where the browser has not named any.
pub fn host_or(host: &str) -> &str {
    if host.is_empty() { "sallyport.invalid" } else { host }
}

/// Whom a URI names: the user alone where it is at the browser's own host, else `user@host`; `None` for nobody.
pub fn called(uri: &str, own: &str) -> Option<String> {
    let (user, place) = (user_of(uri), place_of(uri));
    if user.is_empty() || place.is_empty() {
        return None;
    }
    let user = unescaped(user);
    Some(if host_of(uri).eq_ignore_ascii_case(own) { user } else { format!("{user}@{place}") })
}

/// `%23` and the like, where the outcome is printable ASCII.
pub fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let octet = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match octet.filter(|octet| octet.is_ascii_graphic() || *octet == b' ') {
            Some(octet) => {
                out.push(char::from(octet));
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out + rest
}

/// Whether a Content-Type is this one, whatever its parameters.
pub fn is_type(content_type: Option<&str>, wanted: &str) -> bool {
    content_type
        .is_some_and(|given| given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted))
}

/// Where a REFER leads to (RFC 3515 section 2.1), and the headers of that URI.
pub fn refer_to(value: &str) -> (String, Vec<(String, String)>) {
    let uri = uri_of(value);
    let (uri, headers) = uri.split_once('?').unwrap_or((uri, ""));
    let pairs = headers.split('&').filter_map(|pair| pair.split_once('='));
    (uri.to_owned(), pairs.map(|(name, value)| (name.to_owned(), unescaped(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_parted() {
        assert_eq!(host_of("sip:a@b.example:5060;transport=ws"), "b.example");
        assert_eq!(host_of("sip:a@[2001:db8::1]:5060"), "[2001:db8::1]");
        assert_eq!(host_of("sip:b.example"), "b.example");
        assert_eq!(called("sip:1000@pbx.example;user=phone", "PBX.example").as_deref(), Some("1000"));
        assert_eq!(called("sip:%2a1@other:5070", "pbx").as_deref(), Some("*1@other:5070"));
        assert_eq!(called("sip:pbx", "pbx"), None);
        assert_eq!(unescaped("a%3bb%zz%"), "a;b%zz%");
    }

    #[test]
    fn a_refer_names_a_dialog() {
        let (uri, headers) = refer_to("<sip:1001@h?Replaces=abc%40x%3Bto-tag%3Dt%3Bfrom-tag%3Df&X=1>");
        assert_eq!(uri, "sip:1001@h");
        assert_eq!(headers[0], ("Replaces".to_owned(), "abc@x;to-tag=t;from-tag=f".to_owned()));
        assert_eq!(refer_to("sip:1001@h").0, "sip:1001@h");
    }
}
