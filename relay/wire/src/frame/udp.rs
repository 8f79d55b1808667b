//! The UDP header (RFC 768).

use core::ops::Range;

use super::word;
use crate::Malformed;
use crate::checksum::Sum;

/// Octets of the header.
pub(super) const HEADER: usize = 8;
/// UDP among the protocols of IP.
pub(super) const PROTOCOL: u8 = 17;

/// Source and destination port, and where the payload lies in the frame.
pub(super) fn parse(frame: &[u8], datagram: Range<usize>) -> Result<((u16, u16), Range<usize>), Malformed> {
    let at = datagram.start;
    let length = usize::from(word(frame, at + 4)?);
    if length < HEADER || at + length > datagram.end {
        return Err(Malformed::Length);
    }
    Ok(((word(frame, at)?, word(frame, at + 2)?), at + HEADER..at + length))
}

/// Fills the header of `datagram`, which is header and payload; `addresses` is the sum over the IP addresses.
pub(super) fn emit(datagram: &mut [u8], ports: (u16, u16), length: u16, addresses: Sum) {
    datagram[0..2].copy_from_slice(&ports.0.to_be_bytes());
    datagram[2..4].copy_from_slice(&ports.1.to_be_bytes());
    datagram[4..6].copy_from_slice(&length.to_be_bytes());
    datagram[6..8].fill(0);
    let sum = addresses.add_word(u16::from(PROTOCOL)).add_word(length).add_bytes(datagram).finish();
    // Zero stands for "no checksum".
    let sum = if sum == 0 { 0xffff } else { sum };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
}
