//! What a message is made of, whatever its form on the wire.

use std::collections::BTreeMap;

/// Depth of nesting that a message may have.
pub const DEPTH_MAX: usize = 16;

/// A value of the four kinds that bencode knows; JSON is read into the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An integer.
    Int(i64),
    /// Octets; text by convention.
    Text(Vec<u8>),
    /// A list.
    List(Vec<Self>),
    /// A dictionary.
    Dict(Dict),
}

/// A dictionary, ordered by the octets of its keys as bencode wants it.
pub type Dict = BTreeMap<Vec<u8>, Value>;

/// Why octets are not a message; in rtpengine's words where it has some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing behind the cookie.
    #[error("Invalid data (no payload)")]
    Empty,
    /// Begins as no dictionary does.
    #[error("Invalid NG data format")]
    NotDictionary,
    /// No bencode.
    #[error("Could not decode bencode dictionary")]
    Bencode,
    /// No JSON.
    #[error("Failed to parse JSON document")]
    Json,
    /// More follows where more could be: a stream waits for it, a datagram is broken.
    #[error("Could not decode dictionary (truncated)")]
    Truncated,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("Could not decode dictionary (nested too deep)")]
    TooDeep,
    /// Longer than the transport may carry.
    #[error("Message too long")]
    TooLong,
}

impl Value {
    /// Text from anything that is one.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(text.as_ref().as_bytes().to_vec())
    }

    /// A dictionary of these pairs.
    pub fn dict<'a>(pairs: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Dict(pairs.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect())
    }

    /// An integer from a counter; what does not fit is as large as can be.
    pub fn count(number: impl TryInto<i64>) -> Self {
        Self::Int(number.try_into().unwrap_or(i64::MAX))
    }

    /// As text, where it is text in UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(octets) => std::str::from_utf8(octets).ok(),
            Self::Int(_) | Self::List(_) | Self::Dict(_) => None,
        }
    }

    /// As a number, also where it is written as text.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Text(_) => self.as_str()?.trim().parse().ok(),
            Self::List(_) | Self::Dict(_) => None,
        }
    }

    /// The texts of a list, or of one text taken apart at commas.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::List(items) => items.iter().filter_map(Self::as_str).collect(),
            Self::Text(_) => {
                let words = self.as_str().unwrap_or_default().split(',');
                words.map(str::trim).filter(|word| !word.is_empty()).collect()
            }
            Self::Int(_) | Self::Dict(_) => Vec::new(),
        }
    }

    /// A member of a dictionary.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dict(dict) => dict.get(key.as_bytes()),
            Self::Int(_) | Self::Text(_) | Self::List(_) => None,
        }
    }
}
