//! The same messages as JSON (RFC 8259).

use serde_json::{Deserializer, Map, Value as Json};

use super::value::{DEPTH_MAX, DecodeError, Dict, Value};

/// Reads one value from the front; gives how many octets it took.
///
/// # Errors
/// [`DecodeError::Truncated`] where the octets are the beginning of a value, others where they cannot become one.
pub fn parse(octets: &[u8]) -> Result<(Value, usize), DecodeError> {
    let mut values = Deserializer::from_slice(octets).into_iter::<Json>();
    match values.next() {
        Some(Ok(json)) => Ok((value(json, DEPTH_MAX)?, values.byte_offset())),
        Some(Err(error)) if !error.is_eof() => Err(DecodeError::Json),
        Some(Err(_)) | None => Err(DecodeError::Truncated),
    }
}

/// Writes a value to the end of `out`; octets that are no UTF-8 are replaced.
pub fn emit(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(json(value).to_string().as_bytes());
}

fn value(json: Json, depth: usize) -> Result<Value, DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
    match json {
        Json::Null => Ok(Value::text("")),
        Json::Bool(yes) => Ok(Value::Int(yes.into())),
        Json::Number(number) => number.as_i64().map(Value::Int).ok_or(DecodeError::Json),
        Json::String(text) => Ok(Value::text(text)),
        Json::Array(items) => {
            items.into_iter().map(|item| value(item, depth)).collect::<Result<_, _>>().map(Value::List)
        }
        Json::Object(members) => {
            let members = members.into_iter().map(|(key, item)| Ok((key.into_bytes(), value(item, depth)?)));
            members.collect::<Result<Dict, DecodeError>>().map(Value::Dict)
        }
    }
}

fn json(value: &Value) -> Json {
    match value {
        Value::Int(number) => Json::from(*number),
        Value::Text(text) => Json::from(String::from_utf8_lossy(text)),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
        Value::Dict(dict) => {
            let member =
                |(key, value): (&Vec<u8>, &Value)| (String::from_utf8_lossy(key).into_owned(), json(value));
            Json::Object(dict.iter().map(member).collect::<Map<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_object_is_read_and_what_follows_is_left() {
        let text = br#"{"command":"ping","n":7,"flags":["a","b"],"yes":true} rest"#;
        let (value, used) = parse(text).unwrap();
        assert_eq!(&text[used..], b" rest");
        assert_eq!(value.get("command").and_then(Value::as_str), Some("ping"));
        assert_eq!(value.get("flags").unwrap().texts(), ["a", "b"]);
        assert_eq!(value.get("yes"), Some(&Value::Int(1)));
        let mut out = Vec::new();
        emit(&value, &mut out);
        assert_eq!(parse(&out).unwrap().0, value);
    }

    #[test]
    fn what_is_broken_is_told_from_what_is_not_all_there() {
        assert_eq!(parse(br#"{"a":"#), Err(DecodeError::Truncated));
        assert_eq!(parse(br#"{"a":1.5}"#), Err(DecodeError::Json));
        assert_eq!(parse(b"{]"), Err(DecodeError::Json));
        let deep = format!("{}{}", "[".repeat(20), "]".repeat(20));
        assert_eq!(parse(deep.as_bytes()), Err(DecodeError::TooDeep));
        assert!(parse("[".repeat(1 << 20).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_octets_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&octets);
        }
    }
}
