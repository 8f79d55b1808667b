//! Bencode, read strictly: no leading zeros, no key twice, no deeper than [`DEPTH_MAX`]. Keys may come in any order, as
//! rtpengine's clients write them.

use super::value::{DEPTH_MAX, DecodeError, Dict, Value};

/// Digits that a length may have.
const DIGITS_MAX: usize = 9;

/// Reads one value from the front; gives how many octets it took.
///
/// # Errors
/// [`DecodeError::Truncated`] where the octets are the beginning of a value, others where they cannot become one.
pub fn parse(octets: &[u8]) -> Result<(Value, usize), DecodeError> {
    let mut reader = Reader { octets, at: 0 };
    let value = reader.value(DEPTH_MAX)?;
    Ok((value, reader.at))
}

/// Writes a value to the end of `out`.
pub fn emit(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Int(number) => out.extend_from_slice(format!("i{number}e").as_bytes()),
        Value::Text(text) => emit_text(text, out),
        Value::List(items) => {
            out.push(b'l');
            for item in items {
                emit(item, out);
            }
            out.push(b'e');
        }
        Value::Dict(dict) => {
            out.push(b'd');
            for (key, value) in dict {
                emit_text(key, out);
                emit(value, out);
            }
            out.push(b'e');
        }
    }
}

fn emit_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}:", text.len()).as_bytes());
    out.extend_from_slice(text);
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Result<u8, DecodeError> {
        self.octets.get(self.at).copied().ok_or(DecodeError::Truncated)
    }

    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        match self.peek()? {
            b'i' => {
                self.at += 1;
                self.int()
            }
            b'0'..=b'9' => Ok(Value::Text(self.text()?.to_vec())),
            b'l' => {
                self.at += 1;
                let mut items = Vec::new();
                while self.peek()? != b'e' {
                    items.push(self.value(depth)?);
                }
                self.at += 1;
                Ok(Value::List(items))
            }
            b'd' => {
                self.at += 1;
                let mut dict = Dict::new();
                while self.peek()? != b'e' {
                    let key = self.text()?.to_vec();
                    let value = self.value(depth)?;
                    if dict.insert(key, value).is_some() {
                        return Err(DecodeError::Bencode);
                    }
                }
                self.at += 1;
                Ok(Value::Dict(dict))
            }
            _ => Err(DecodeError::Bencode),
        }
    }

    /// The digits, and at the most a sign, before `end`; `most` octets.
    fn until(&mut self, end: u8, most: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.octets.get(self.at..).unwrap_or_default();
        let part = |octet: &u8| octet.is_ascii_digit() || *octet == b'-';
        let length = rest.iter().take(most).take_while(|octet| part(octet)).count();
        match rest.get(length) {
            Some(octet) if *octet == end => {
                self.at += length + 1;
                Ok(rest.get(..length).unwrap_or_default())
            }
            Some(_) => Err(DecodeError::Bencode),
            None => Err(DecodeError::Truncated),
        }
    }

    fn int(&mut self) -> Result<Value, DecodeError> {
        let text = self.until(b'e', 20)?;
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let canonical = digits.first() != Some(&b'0') || text == b"0";
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        number.filter(|_| plain && canonical).map(Value::Int).ok_or(DecodeError::Bencode)
    }

    fn text(&mut self) -> Result<&'a [u8], DecodeError> {
        let digits = self.until(b':', DIGITS_MAX)?;
        let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        if !plain || (digits.first() == Some(&b'0') && digits.len() > 1) {
            return Err(DecodeError::Bencode);
        }
        let length = digits.iter().fold(0, |sum: usize, digit| sum * 10 + usize::from(digit - b'0'));
        let text = self.octets.get(self.at..self.at + length).ok_or(DecodeError::Truncated)?;
        self.at += length;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Result<Value, DecodeError> {
        let (value, used) = parse(text.as_bytes())?;
        assert_eq!(used, text.len(), "{text}");
        Ok(value)
    }

    #[test]
    fn the_four_kinds_are_read_and_written() {
        let text = "d4:flagsl5:trusti-7ee3:sdp4:v=0\n4:zeroi0ee";
        let text = text.replace("4:flags", "5:flags");
        let value = whole(&text).unwrap();
        assert_eq!(value.get("flags"), Some(&Value::List(vec![Value::text("trust"), Value::Int(-7)])));
        assert_eq!(value.get("sdp").and_then(Value::as_str), Some("v=0\n"));
        let mut out = Vec::new();
        emit(&value, &mut out);
        assert_eq!(out, text.as_bytes());
        assert_eq!(
            whole("d1:b0:1:a0:e").unwrap(),
            Value::dict([("a", Value::text("")), ("b", Value::text(""))])
        );
    }

    #[test]
    fn what_is_broken_is_told_from_what_is_not_all_there() {
        for text in ["", "d", "d3:abc", "5:abc", "i12", "12", "l", "d1:a", "d1:ai1e"] {
            assert_eq!(whole(text), Err(DecodeError::Truncated), "{text}");
        }
        for text in [
            "x",
            "ie",
            "i-e",
            "i01e",
            "i-0e",
            "i+1e",
            "i1 e",
            "03:abc",
            "-1:a",
            "d1:ai1e1:ai2ee",
            "di1ei2ee",
            "1x:a",
            "i99999999999999999999999e",
            "9999999999:a",
            "lx",
            ":",
            "i9223372036854775808e",
        ] {
            assert_eq!(whole(text), Err(DecodeError::Bencode), "{text}");
        }
        let deep = format!("{}{}", "l".repeat(DEPTH_MAX + 1), "e".repeat(DEPTH_MAX + 1));
        assert_eq!(whole(&deep), Err(DecodeError::TooDeep));
        let deep = format!("{}{}", "l".repeat(DEPTH_MAX), "e".repeat(DEPTH_MAX));
        assert!(whole(&deep).is_ok());
        assert_eq!(whole(&"l".repeat(1 << 20)), Err(DecodeError::TooDeep));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::Int),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Text),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 0..9), inner, 0..6)
                    .prop_map(Value::Dict),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any_value()) {
            let mut out = Vec::new();
            emit(&value, &mut out);
            prop_assert_eq!(parse(&out), Ok((value, out.len())));
            for cut in 0..out.len() {
                prop_assert_eq!(parse(&out[..cut]), Err(DecodeError::Truncated));
            }
        }

        #[test]
        fn arbitrary_octets_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&octets);
        }

        #[test]
        fn octets_of_its_alphabet_do_no_harm(text in "[dlei0-9:a-]{0,200}") {
            if let Ok((value, used)) = parse(text.as_bytes()) {
                let mut out = Vec::new();
                emit(&value, &mut out);
                // Keys may come in any order, all else is canonical.
                prop_assert_eq!(out.len(), used);
            }
        }
    }
}
