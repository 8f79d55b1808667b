//! Messages as bytes: a four-byte big-endian length, then postcard.

use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Octets that one message may have behind its length.
pub const MESSAGE_MAX: usize = 256 * 1024;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The length is above [`MESSAGE_MAX`].
    TooLong,
    /// The body is not of this contract's version.
    Malformed,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "message longer than the contract allows",
            Self::Malformed => "message does not follow the contract",
        })
    }
}

impl core::error::Error for DecodeError {}

/// Appends one framed message to `out`.
///
/// # Errors
/// [`DecodeError::TooLong`] where the message would exceed [`MESSAGE_MAX`]; `out` is then as before.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let body = bytes(message)?;
    if body.len() > MESSAGE_MAX {
        return Err(DecodeError::TooLong);
    }
    let length = u32::try_from(body.len()).map_err(|_| DecodeError::TooLong)?;
    out.reserve_exact(4 + body.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&body);
    Ok(())
}

/// A value as postcard, in memory that is wiped: it may hold keys. Measured first, since a buffer that grows leaves copies
/// of itself behind.
///
/// # Errors
/// [`DecodeError::Malformed`] for a value that postcard has no form for; none of this crate is.
pub fn bytes<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, DecodeError> {
    let size = postcard::experimental::serialized_size(value).map_err(|_| DecodeError::Malformed)?;
    let mut body = Zeroizing::new(alloc::vec![0; size]);
    postcard::to_slice(value, &mut body).map_err(|_| DecodeError::Malformed)?;
    Ok(body)
}

/// Takes one message off the front of `input`: the message and the octets it used, or `None` while it is incomplete.
///
/// # Errors
/// [`DecodeError`]; the stream cannot be followed any further and must be closed.
pub fn decode<T: DeserializeOwned>(input: &[u8]) -> Result<Option<(T, usize)>, DecodeError> {
    let Some((length, rest)) = input.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > MESSAGE_MAX {
        return Err(DecodeError::TooLong);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let message = postcard::from_bytes(body).map_err(|_| DecodeError::Malformed)?;
    Ok(Some((message, 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CallId, Command};

    #[test]
    fn messages_survive_the_stream_in_pieces() {
        let mut bytes = Vec::new();
        encode(&Command::Hello { version: 1 }, &mut bytes).unwrap();
        let first = bytes.len();
        encode(&Command::Remove { call: CallId(5) }, &mut bytes).unwrap();
        for cut in 0..first {
            assert_eq!(decode::<Command>(&bytes[..cut]).unwrap(), None);
        }
        assert_eq!(decode(&bytes).unwrap(), Some((Command::Hello { version: 1 }, first)));
        let (second, used) = decode::<Command>(&bytes[first..]).unwrap().unwrap();
        assert_eq!((second, first + used), (Command::Remove { call: CallId(5) }, bytes.len()));
    }

    #[test]
    fn hostile_lengths_and_bodies_are_errors() {
        assert_eq!(decode::<Command>(&[0xff; 8]), Err(DecodeError::TooLong));
        assert_eq!(decode::<Command>(&[0, 0, 0, 1, 0xee]), Err(DecodeError::Malformed));
    }
}
