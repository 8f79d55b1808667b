//! `cookie SP dictionary`, in a datagram of its own or one behind the other on a stream. The form of the reply is that of
//! the request.

use super::value::{DecodeError, Value};
use super::{bencode, json};

/// Octets that a datagram may have.
pub const DATAGRAM_MAX: usize = 64 * 1024;
/// Octets that a message on a stream may have.
pub const STREAM_MAX: usize = 1024 * 1024;
/// Octets that a cookie may have.
pub const COOKIE_MAX: usize = 255;

/// How a dictionary is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// rtpengine's own.
    Bencode,
    /// RFC 8259.
    Json,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Names the request; the reply bears it.
    pub cookie: Vec<u8>,
    /// How the dictionary was written.
    pub form: Form,
    /// The dictionary, or why there is none.
    pub body: Result<Value, DecodeError>,
}

/// Takes a datagram apart. `None` where there is no cookie: nobody could be answered.
pub fn datagram(octets: &[u8]) -> Option<Frame> {
    let (cookie, body) = split(octets)?;
    let form = form(body).unwrap_or(Form::Bencode);
    let read = if octets.len() > DATAGRAM_MAX {
        Err(DecodeError::TooLong)
    } else {
        read(body).and_then(|(value, used)| {
            let rest = body.get(used..).unwrap_or_default();
            let blank = rest.iter().all(|octet| octet.is_ascii_whitespace() || *octet == 0);
            if blank { Ok(value) } else { Err(malformed(form)) }
        })
    };
    // Of a datagram nothing more will come.
    let read = read.map_err(|error| if error == DecodeError::Truncated { malformed(form) } else { error });
    Some(Frame { cookie: cookie.to_vec(), form, body: read })
}

/// What the beginning of a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Streamed {
    /// A message, and how many octets it took.
    Message(Frame, usize),
    /// Less than a message.
    Part,
    /// Something after which nobody can tell where the next message begins; with a cookie it is answered before the end.
    Broken(DecodeError, Option<Frame>),
}

/// The next message of a stream.
pub fn stream(octets: &[u8]) -> Streamed {
    let skipped = octets.iter().take_while(|octet| octet.is_ascii_whitespace()).count();
    let message = octets.get(skipped..).unwrap_or_default();
    let Some((cookie, body)) = split(message) else {
        let sound = message.len() <= COOKIE_MAX && message.iter().all(u8::is_ascii_graphic);
        return if sound { Streamed::Part } else { Streamed::Broken(DecodeError::NotDictionary, None) };
    };
    let form = form(body);
    if body.is_empty() {
        return Streamed::Part;
    }
    let frame = |body| Frame { cookie: cookie.to_vec(), form: form.unwrap_or(Form::Bencode), body };
    let broken = |error| Streamed::Broken(error, Some(frame(Err(error))));
    match read(body) {
        Ok((value, used)) if used <= STREAM_MAX => {
            Streamed::Message(frame(Ok(value)), skipped + cookie.len() + 1 + used)
        }
        Ok(_) => broken(DecodeError::TooLong),
        Err(DecodeError::Truncated) if body.len() > STREAM_MAX => broken(DecodeError::TooLong),
        Err(DecodeError::Truncated) => Streamed::Part,
        Err(error) => broken(error),
    }
}

/// Writes a message: a reply, or a request.
pub fn emit(cookie: &[u8], form: Form, value: &Value) -> Vec<u8> {
    let mut out = cookie.to_vec();
    out.push(b' ');
    match form {
        Form::Bencode => bencode::emit(value, &mut out),
        Form::Json => json::emit(value, &mut out),
    }
    out
}

/// Cookie and what follows its space.
fn split(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = octets.iter().take(COOKIE_MAX + 1).position(|octet| *octet == b' ')?;
    let cookie = octets.get(..length).filter(|cookie| !cookie.is_empty())?;
    cookie.iter().all(u8::is_ascii_graphic).then_some((cookie, octets.get(length + 1..)?))
}

fn form(body: &[u8]) -> Option<Form> {
    match body.first()? {
        b'd' => Some(Form::Bencode),
        b'{' => Some(Form::Json),
        _ => None,
    }
}

const fn malformed(form: Form) -> DecodeError {
    match form {
        Form::Bencode => DecodeError::Bencode,
        Form::Json => DecodeError::Json,
    }
}

fn read(body: &[u8]) -> Result<(Value, usize), DecodeError> {
    match form(body) {
        Some(Form::Bencode) => bencode::parse(body),
        Some(Form::Json) => json::parse(body),
        None if body.is_empty() => Err(DecodeError::Empty),
        None => Err(DecodeError::NotDictionary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_datagram_has_cookie_and_dictionary_in_either_form() {
        let frame = datagram(b"5323_1 d7:command4:pinge").unwrap();
        assert_eq!((frame.cookie.as_slice(), frame.form), (&b"5323_1"[..], Form::Bencode));
        assert_eq!(frame.body.unwrap().get("command").and_then(Value::as_str), Some("ping"));
        let frame = datagram(b"x {\"command\":\"ping\"}\n").unwrap();
        assert_eq!(frame.form, Form::Json);
        let reply = emit(b"x", Form::Json, &Value::dict([("result", Value::text("pong"))]));
        assert_eq!(reply, b"x {\"result\":\"pong\"}");
        let reply = emit(b"5323_1", Form::Bencode, &Value::dict([("result", Value::text("pong"))]));
        assert_eq!(reply, b"5323_1 d6:result4:ponge");
    }

    #[test]
    fn broken_datagrams_are_answered_where_they_have_a_cookie() {
        let error = |octets: &[u8]| datagram(octets).map(|frame| frame.body.unwrap_err());
        assert_eq!(error(b"c d7:command4:ping"), Some(DecodeError::Bencode));
        assert_eq!(error(b"c d7:command4:pingeX"), Some(DecodeError::Bencode));
        assert_eq!(error(b"c hello"), Some(DecodeError::NotDictionary));
        assert_eq!(error(b"c l4:pinge"), Some(DecodeError::NotDictionary));
        assert_eq!(error(b"c {\"command\":\"ping\""), Some(DecodeError::Json));
        assert_eq!(error(b"c {\"command\":\"ping\"} {}"), Some(DecodeError::Json));
        assert_eq!(error(b"c "), Some(DecodeError::Empty));
        let long = [b"c d3:sdp".as_slice(), &vec![b'x'; DATAGRAM_MAX]].concat();
        assert_eq!(error(&long), Some(DecodeError::TooLong));
        for octets in [&b""[..], b"d7:command4:pinge", b" d7:command4:pinge", b"\0\x01 d1:ai1ee"] {
            assert_eq!(datagram(octets), None);
        }
        assert_eq!(datagram(&[vec![b'c'; 300], b" d1:ai1ee".to_vec()].concat()), None);
    }

    #[test]
    fn a_stream_gives_message_after_message() {
        let octets = b"a d7:command4:pinge\nb {\"command\":\"ping\"}c d7:comm";
        let Streamed::Message(first, used) = stream(octets) else { panic!("a message") };
        assert_eq!(first.cookie, b"a");
        let rest = &octets[used..];
        let Streamed::Message(second, used) = stream(rest) else { panic!("a message") };
        assert_eq!((second.cookie.as_slice(), second.form), (&b"b"[..], Form::Json));
        assert_eq!(stream(&rest[used..]), Streamed::Part);
        assert_eq!(stream(b"c "), Streamed::Part);
        assert!(matches!(stream(b"a x"), Streamed::Broken(DecodeError::NotDictionary, Some(_))));
        assert!(matches!(stream(b"\xff\xff\xff"), Streamed::Broken(DecodeError::NotDictionary, None)));
        let long = [b"a d3:sdp9999999:".as_slice(), &vec![b'x'; STREAM_MAX + 1]].concat();
        assert!(matches!(stream(&long), Streamed::Broken(DecodeError::TooLong, Some(_))));
        assert!(matches!(stream(&vec![b'c'; 1000]), Streamed::Broken(..)));
    }

    proptest! {
        #[test]
        fn arbitrary_octets_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = datagram(&octets);
            let _ = stream(&octets);
            let with_cookie = [b"c d".as_slice(), &octets].concat();
            let _ = datagram(&with_cookie);
            let _ = stream(&with_cookie);
        }
    }
}
