//! Trickled candidates: `application/trickle-ice-sdpfrag` (RFC 8840 section 9).

use crate::api::Input;
use crate::error::FragmentError;
use crate::sdp::OFFER_MAX;

/// Reads a fragment into [`Input::Trickle`]. Lines other than candidates, their end and the user fragment are passed
/// over: with one bundled section it does not matter to which `m=` line a candidate belongs.
///
/// # Errors
/// [`FragmentError`] with the number of the line.
pub fn parse_fragment(text: &str) -> Result<Input, FragmentError> {
    if text.len() > OFFER_MAX {
        return Err(FragmentError::TooLong);
    }
    let (mut ufrag, mut candidates, mut end) = (None, Vec::new(), false);
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (key, value) = line.split_once('=').ok_or(FragmentError::Malformed(at + 1))?;
        if key.len() != 1 || !key.bytes().all(|octet| octet.is_ascii_lowercase()) {
            return Err(FragmentError::Malformed(at + 1));
        }
        let value = value.trim();
        if key != "a" {
            continue;
        }
        if value.starts_with("candidate:") {
            candidates.push(value.to_owned());
        } else if let Some(given) = value.strip_prefix("ice-ufrag:") {
            ufrag = Some(given.to_owned());
        } else if value == "end-of-candidates" {
            end = true;
        }
    }
    Ok(Input::Trickle { ufrag, candidates, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_gives_its_candidates() {
        let text = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
            a=candidate:1 1 UDP 2130706431 198.51.100.1 49203 typ host\r\na=end-of-candidates\r\n";
        let Ok(Input::Trickle { ufrag, candidates, end }) = parse_fragment(text) else { panic!("refused") };
        assert_eq!(ufrag.as_deref(), Some("EsAw"));
        assert_eq!(candidates, ["candidate:1 1 UDP 2130706431 198.51.100.1 49203 typ host"]);
        assert!(end);
    }

    #[test]
    fn what_is_no_fragment_is_refused_with_its_line() {
        assert_eq!(parse_fragment("a=mid:0\nhello").err(), Some(FragmentError::Malformed(2)));
        assert_eq!(parse_fragment("{\"a\"=1}").err(), Some(FragmentError::Malformed(1)));
        assert_eq!(parse_fragment(&"a=x\n".repeat(OFFER_MAX)).err(), Some(FragmentError::TooLong));
    }
}
