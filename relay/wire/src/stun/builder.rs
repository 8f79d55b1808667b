//! Writing messages.

use core::net::{IpAddr, SocketAddr};

use super::crc::fingerprint;
use super::{
    COOKIE, Class, ERROR_CODE, FINGERPRINT, HEADER, MESSAGE_INTEGRITY, TAG, TransactionId, XOR_MAPPED_ADDRESS,
};
use crate::Short;

/// Writes a message into a buffer, attribute by attribute.
#[derive(Debug)]
pub struct Builder<'b> {
    bytes: &'b mut [u8],
    length: usize,
}

impl<'b> Builder<'b> {
    /// Begins a message.
    ///
    /// # Errors
    /// [`Short`] where the buffer does not take the header.
    pub fn new(bytes: &'b mut [u8], class: Class, method: u16, id: TransactionId) -> Result<Self, Short> {
        let header = bytes.get_mut(..HEADER).ok_or(Short)?;
        let bits = (method & 0x000f) | ((method & 0x0070) << 1) | ((method & 0x0f80) << 2) | class.bits();
        header[0..2].copy_from_slice(&bits.to_be_bytes());
        header[2..4].fill(0);
        header[4..8].copy_from_slice(&COOKIE.to_be_bytes());
        header[8..].copy_from_slice(&id);
        Ok(Self { bytes, length: HEADER })
    }

    /// Adds an attribute whose value is the pieces in their order; padding is zero.
    ///
    /// # Errors
    /// [`Short`] where it does not fit.
    pub fn attribute(mut self, kind: u16, value: &[&[u8]]) -> Result<Self, Short> {
        let length: usize = value.iter().map(|piece| piece.len()).sum();
        let padded = 4 + length.next_multiple_of(4);
        let room = self.bytes.get_mut(self.length..self.length + padded).ok_or(Short)?;
        room[0..2].copy_from_slice(&kind.to_be_bytes());
        room[2..4].copy_from_slice(&u16::try_from(length).map_err(|_| Short)?.to_be_bytes());
        let mut at = 4;
        for piece in value {
            room[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        room[at..].fill(0);
        self.length += padded;
        self.write_length(self.length)?;
        Ok(self)
    }

    fn write_length(&mut self, end: usize) -> Result<(), Short> {
        let length = u16::try_from(end - HEADER).map_err(|_| Short)?;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Adds XOR-MAPPED-ADDRESS.
    ///
    /// # Errors
    /// [`Short`] where it does not fit.
    pub fn xor_mapped_address(self, address: SocketAddr) -> Result<Self, Short> {
        let port = (address.port() ^ (COOKIE >> 16) as u16).to_be_bytes();
        let mut octets = [0; 16];
        let (family, length) = match address.ip() {
            IpAddr::V4(v4) => {
                octets[..4].copy_from_slice(&v4.octets());
                (1, 4)
            }
            IpAddr::V6(v6) => {
                octets = v6.octets();
                (2, 16)
            }
        };
        for (octet, mask) in octets.iter_mut().zip(&self.bytes[4..HEADER]) {
            *octet ^= mask;
        }
        self.attribute(XOR_MAPPED_ADDRESS, &[&[0, family], &port, &octets[..length]])
    }

    /// Adds ERROR-CODE: a code of 300 to 699, and a reason for people to read (RFC 8489 section 14.8).
    ///
    /// # Errors
    /// [`Short`] where it does not fit, or the code is another.
    pub fn error_code(self, code: u16, reason: &str) -> Result<Self, Short> {
        if !(300..700).contains(&code) {
            return Err(Short);
        }
        // Both fit in an octet: 3 to 6, 0 to 99.
        let [hundreds, rest] = [code / 100, code % 100].map(|part| part as u8);
        self.attribute(ERROR_CODE, &[&[0, 0, hundreds, rest], reason.as_bytes()])
    }

    /// Adds MESSAGE-INTEGRITY; `hmac` is HMAC-SHA1 under the right key.
    ///
    /// # Errors
    /// [`Short`] where it does not fit.
    pub fn integrity(mut self, hmac: impl FnOnce(&[u8]) -> [u8; TAG]) -> Result<Self, Short> {
        self.write_length(self.length + 4 + TAG)?;
        let tag = hmac(self.bytes.get(..self.length).ok_or(Short)?);
        self.attribute(MESSAGE_INTEGRITY, &[&tag])
    }

    /// Adds FINGERPRINT, which is the last attribute, and ends; returns the message's length.
    ///
    /// # Errors
    /// [`Short`] where it does not fit.
    pub fn fingerprint(mut self) -> Result<usize, Short> {
        self.write_length(self.length + 8)?;
        let value = fingerprint(self.bytes.get(..self.length).ok_or(Short)?);
        Ok(self.attribute(FINGERPRINT, &[&value])?.length)
    }

    /// Ends without FINGERPRINT; returns the message's length.
    pub fn finish(self) -> usize {
        self.length
    }
}
