//! STUN messages (RFC 8489), as ICE uses them (RFC 8445). No cryptography: a keyed hash comes in as a function.
//!
//! ```text
//!   | type 2 | length 2 | cookie 4 | transaction id 12 | attributes: (type 2, length 2, value, padding)* |
//! ```

mod builder;
mod crc;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Malformed;

pub use builder::Builder;

/// Octets of the header.
pub const HEADER: usize = 20;
/// The magic cookie.
pub const COOKIE: u32 = 0x2112_a442;
/// A transaction id.
pub type TransactionId = [u8; 12];

/// The one method that ICE uses.
pub const BINDING: u16 = 0x001;
/// `USERNAME`
pub const USERNAME: u16 = 0x0006;
/// `MESSAGE-INTEGRITY`
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
/// `ERROR-CODE`
pub const ERROR_CODE: u16 = 0x0009;
/// `XOR-MAPPED-ADDRESS`
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// `PRIORITY`
pub const PRIORITY: u16 = 0x0024;
/// `USE-CANDIDATE`
pub const USE_CANDIDATE: u16 = 0x0025;
/// `FINGERPRINT`
pub const FINGERPRINT: u16 = 0x8028;
/// `ICE-CONTROLLED`
pub const ICE_CONTROLLED: u16 = 0x8029;
/// `ICE-CONTROLLING`
pub const ICE_CONTROLLING: u16 = 0x802a;

/// Octets of HMAC-SHA1.
const TAG: usize = 20;

/// Message class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Asks for none.
    Indication,
    /// Answers well.
    Success,
    /// Answers badly.
    Error,
}

impl Class {
    const fn bits(self) -> u16 {
        match self {
            Self::Request => 0x000,
            Self::Indication => 0x010,
            Self::Success => 0x100,
            Self::Error => 0x110,
        }
    }
}

/// Whether `payload` looks like STUN: a first octet of 0 to 3 (RFC 7983 section 7; methods up to 0x0ff), the cookie, a length
/// that is the payload's.
pub fn is_stun(payload: &[u8]) -> bool {
    let Some(header) = payload.first_chunk::<HEADER>() else { return false };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    header[0] <= 3
        && header[4..8] == COOKIE.to_be_bytes()
        && length.is_multiple_of(4)
        && HEADER + length == payload.len()
}

/// A checked view of a message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks the header and the bounds of every attribute.
    ///
    /// # Errors
    /// [`Malformed::Invalid`] where [`is_stun`] says no, [`Malformed::Length`] where an attribute does not fit.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if !is_stun(bytes) {
            return Err(Malformed::Invalid);
        }
        let mut at = HEADER;
        while at < bytes.len() {
            let header = bytes.get(at..at + 4).ok_or(Malformed::Length)?;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            at += 4 + length.next_multiple_of(4);
        }
        if at == bytes.len() { Ok(Self { bytes }) } else { Err(Malformed::Length) }
    }

    fn message_type(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// Class.
    pub fn class(&self) -> Class {
        match self.message_type() & 0x110 {
            0x000 => Class::Request,
            0x010 => Class::Indication,
            0x100 => Class::Success,
            _ => Class::Error,
        }
    }

    /// Method, 12 bits.
    pub fn method(&self) -> u16 {
        let bits = self.message_type();
        (bits & 0x000f) | ((bits & 0x00e0) >> 1) | ((bits & 0x3e00) >> 2)
    }

    /// Transaction id.
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = TransactionId::default();
        id.copy_from_slice(&self.bytes[8..HEADER]);
        id
    }

    /// Type, place of the attribute's header, value.
    fn attributes(&self) -> impl Iterator<Item = (u16, usize, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        let mut at = HEADER;
        core::iter::from_fn(move || {
            let header = bytes.get(at..at + 4)?;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let (kind, begin) = (u16::from_be_bytes([header[0], header[1]]), at);
            at += 4 + length.next_multiple_of(4);
            Some((kind, begin, bytes.get(begin + 4..begin + 4 + length)?))
        })
    }

    /// Value of the first attribute of a type. What follows MESSAGE-INTEGRITY is not covered by it and, FINGERPRINT apart,
    /// not found (RFC 8489 section 14.5).
    pub fn attribute(&self, wanted: u16) -> Option<&'a [u8]> {
        let mut covered = true;
        for (kind, _, value) in self.attributes() {
            if kind == wanted && (covered || kind == FINGERPRINT) {
                return Some(value);
            }
            covered &= kind != MESSAGE_INTEGRITY;
        }
        None
    }

    /// Checks MESSAGE-INTEGRITY: `hmac` is HMAC-SHA1 under the right key over the pieces in their order, and `equal` a
    /// comparison in constant time. False where the attribute is missing.
    pub fn has_integrity(
        &self,
        hmac: impl FnOnce(&[&[u8]]) -> [u8; TAG],
        equal: impl FnOnce(&[u8], &[u8]) -> bool,
    ) -> bool {
        let Some((_, at, tag)) = self.attributes().find(|(kind, ..)| *kind == MESSAGE_INTEGRITY) else {
            return false;
        };
        let Ok(length) = u16::try_from(at + 4 + TAG - HEADER) else { return false };
        tag.len() == TAG && equal(tag, &hmac(&[&self.bytes[..2], &length.to_be_bytes(), &self.bytes[4..at]]))
    }

    /// Checks FINGERPRINT: the last attribute, over all before it. `None` where there is none.
    pub fn has_right_fingerprint(&self) -> Option<bool> {
        let (_, at, value) = self.attributes().find(|(kind, ..)| *kind == FINGERPRINT)?;
        Some(at + 8 == self.bytes.len() && value == crc::fingerprint(&self.bytes[..at]))
    }

    /// The address in XOR-MAPPED-ADDRESS.
    pub fn xor_mapped_address(&self) -> Option<SocketAddr> {
        let value = self.attribute(XOR_MAPPED_ADDRESS)?;
        let [_, family, high, low] = *value.first_chunk::<4>()?;
        let port = u16::from_be_bytes([high, low]) ^ (COOKIE >> 16) as u16;
        let key = self.bytes.get(4..HEADER)?;
        let mut octets = [0; 16];
        let address = value.get(4..)?;
        for ((octet, from), mask) in octets.iter_mut().zip(address).zip(key) {
            *octet = from ^ mask;
        }
        match (family, address.len()) {
            (1, 4) => {
                let v4 = Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]);
                Some(SocketAddr::new(IpAddr::V4(v4), port))
            }
            (2, 16) => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), port)),
            _ => None,
        }
    }

    /// Code in ERROR-CODE, 300 to 699 (RFC 8489 section 14.8).
    pub fn error_code(&self) -> Option<u16> {
        let [_, _, hundreds, rest] = *self.attribute(ERROR_CODE)?.first_chunk::<4>()?;
        let code = u16::from(hundreds & 7) * 100 + u16::from(rest);
        (rest < 100 && (300..700).contains(&code)).then_some(code)
    }
}
