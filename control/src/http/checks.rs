//! What may be asked of a call, by whatever way it is asked: one rule for REST, the JSON WebSocket and the hanging GET.

use std::collections::BTreeMap;

use axum::http::StatusCode;

use super::problem::Problem;

/// Digits of one request.
const DIGITS_MAX: usize = 64;
/// Milliseconds of a digit, as browsers' own senders have them (RTCDTMFSender, W3C WebRTC section 7.2).
const DIGIT_MS: std::ops::RangeInclusive<u16> = 40..=6000;
/// Octets of user data that go in one INFO.
pub const INFO_MAX: usize = 8192;
const TYPE_MAX: usize = 128;
/// Headers that a call may bring along, and octets of each.
const DATA_MAX: usize = 16;
const VALUE_MAX: usize = 2048;
const DESTINATION_MAX: usize = 256;

/// What a browser is told whose request cannot be obeyed.
pub fn wrong(kind: &str, text: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, kind, text)
}

/// Digits that telephony knows.
///
/// # Errors
/// The problem to answer with.
pub fn check_digits(digits: &str, duration: u16) -> Result<(), Problem> {
    let digit = |digit: u8| digit.is_ascii_digit() || b"ABCD*#".contains(&digit);
    let good =
        (1..=DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(digit) && DIGIT_MS.contains(&duration);
    let text = "digits are 1 to 64 of 0-9A-D*#, each 40 to 6000 ms long";
    good.then_some(()).ok_or_else(|| wrong("digits", text))
}

/// A media type, with parameters or without (RFC 9110 section 8.3).
pub fn is_media_type(text: &str) -> bool {
    let printable = |octet: u8| (b' '..=b'~').contains(&octet);
    let named = text.split_once('/').is_some_and(|(kind, more)| is_token(kind) && !more.is_empty());
    named && text.len() <= TYPE_MAX && text.bytes().all(printable)
}

/// User data: a media type and a body of 8 KiB at most.
///
/// # Errors
/// The problem to answer with.
pub fn check_info(content_type: &str, body: &str) -> Result<(), Problem> {
    let good = is_media_type(content_type) && body.len() <= INFO_MAX;
    good.then_some(())
        .ok_or_else(|| wrong("info", "content_type is a media type, body has 8192 octets at most"))
}

/// A user, `user@host` or a `sip:` URI of those, as far as its octets go; whoever obeys it reads it in full.
///
/// # Errors
/// The problem to answer with.
pub fn check_destination(to: &str) -> Result<(), Problem> {
    let octet = |octet: u8| octet.is_ascii_graphic() && !b"<>\"?,".contains(&octet);
    let good = (1..=DESTINATION_MAX).contains(&to.len()) && to.bytes().all(octet);
    good.then_some(())
        .ok_or_else(|| wrong("destination", "to is a number, user@host, or a sip: URI of those"))
}

/// Data that goes along as headers of the INVITE.
///
/// # Errors
/// The problem to answer with.
pub fn data_headers(data: BTreeMap<String, String>) -> Result<Vec<(String, String)>, Problem> {
    let named = |name: &str| {
        let known = name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"));
        (known && is_token(name)) || name.eq_ignore_ascii_case("user-to-user")
    };
    let printable = |value: &str| !value.chars().any(char::is_control) && value.len() <= VALUE_MAX;
    let good = data.len() <= DATA_MAX && data.iter().all(|(name, value)| named(name) && printable(value));
    let text = "data holds 16 headers at most, named X-... or User-to-User, of one line each";
    if good { Ok(data.into_iter().collect()) } else { Err(wrong("data", text)) }
}

/// RFC 3261 section 25.1, of 64 octets at most.
fn is_token(text: &str) -> bool {
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&octet);
    (1..=64).contains(&text.len()) && text.bytes().all(octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_types_and_destinations_are_what_they_should_be() {
        for (digits, duration, good) in [
            ("0159*#AD", 40, true),
            ("1", 6000, true),
            ("1", 39, false),
            ("1", 6001, false),
            ("", 100, false),
            ("E", 100, false),
            (&"1".repeat(65), 100, false),
        ] {
            assert_eq!(check_digits(digits, duration).is_ok(), good, "{digits} {duration}");
        }
        assert!(check_info("application/json; charset=utf-8", "{}").is_ok());
        assert!(check_info("json", "").is_err() && check_info("a/b\r\nVia: x", "").is_err());
        assert!(check_info("a/b", &"x".repeat(INFO_MAX + 1)).is_err());
        assert!(check_destination("sip:1000@example.com").is_ok() && check_destination("+4930123").is_ok());
        assert!(check_destination("1 2").is_err() && check_destination("a>\r\n").is_err());
    }

    #[test]
    fn data_becomes_headers_and_nothing_else() {
        let one =
            |name: &str, value: &str| data_headers(BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(one("X-Basket", "7 books").is_ok() && one("User-to-User", "56a390;encoding=hex").is_ok());
        for (name, value) in
            [("Via", "x"), ("X-", "a\r\nVia: b"), ("X-A:", "b"), ("", ""), ("X-Ä", "x"), ("X-A", "a\u{85}b")]
        {
            assert!(one(name, value).is_err(), "{name:?} {value:?}");
        }
    }
}
