//! RTCP compound packets (RFC 3550 section 6).
//!
//! ```text
//!   | version 2 bits, padding 1, count 5 | packet type 1 | length 2: words - 1 | body | padding? |  repeated
//! ```

use core::iter::FusedIterator;
use core::ops::Range;

use crate::Malformed;

/// Sender report.
pub const SR: u8 = 200;
/// Receiver report.
pub const RR: u8 = 201;
/// Source description.
pub const SDES: u8 = 202;
/// Goodbye.
pub const BYE: u8 = 203;
/// Application-defined.
pub const APP: u8 = 204;
/// Transport-layer feedback (RFC 4585).
pub const RTPFB: u8 = 205;
/// Payload-specific feedback (RFC 4585).
pub const PSFB: u8 = 206;
/// Extended report (RFC 3611).
pub const XR: u8 = 207;

/// Octets of the header of every packet.
pub const HEADER: usize = 4;
/// Octets of a report block.
pub const REPORT_BLOCK: usize = 24;

/// One packet of a compound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// `SR`, `RR`, ...
    pub packet_type: u8,
    /// The five bits beside the version: reports, chunks, sources or a subtype.
    pub count: u8,
    /// Where the packet lies in the compound, header and padding included.
    pub range: Range<usize>,
    /// Octets of padding at the packet's end.
    pub padding: usize,
}

impl Packet {
    /// Where the octets behind the header lie, padding left out.
    pub fn body(&self) -> Range<usize> {
        self.range.start + HEADER..self.range.end - self.padding
    }
}

/// The packets of a compound, in order. Ends behind the first error.
#[derive(Debug, Clone)]
pub struct Compound<'a> {
    bytes: &'a [u8],
    at: usize,
    broken: bool,
}

/// Reads a compound (or a reduced-size one, RFC 5506). Every packet handed out is as long as its count demands; types that
/// are not known here pass.
pub fn compound(bytes: &[u8]) -> Compound<'_> {
    Compound { bytes, at: 0, broken: false }
}

/// Whether `bytes` are packets of version 2 whose lengths fill them, at least one. What a packet's count promises is not
/// looked at: enough for whoever hands a compound on unread, and all that the kernel program looks at.
pub fn is_framed(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some([first, _, high, low]) = rest.first_chunk::<HEADER>() {
        let length = (usize::from(u16::from_be_bytes([*high, *low])) + 1) * 4;
        match rest.get(length..) {
            Some(behind) if first >> 6 == 2 => rest = behind,
            _ => return false,
        }
    }
    rest.is_empty() && !bytes.is_empty()
}

impl Iterator for Compound<'_> {
    type Item = Result<Packet, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || (self.at == self.bytes.len() && self.at > 0) {
            return None;
        }
        let packet = self.read();
        match &packet {
            Ok(packet) => self.at = packet.range.end,
            Err(_) => self.broken = true,
        }
        Some(packet)
    }
}

impl FusedIterator for Compound<'_> {}

impl Compound<'_> {
    fn read(&self) -> Result<Packet, Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let [first, packet_type, high, low] = *rest.first_chunk::<HEADER>().ok_or(Malformed::Short)?;
        if first >> 6 != 2 {
            return Err(Malformed::Version);
        }
        let length = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
        let packet = rest.get(..length).ok_or(Malformed::Length)?;
        let padding = if first & 0x20 == 0 { 0 } else { padding(packet, rest.len())? };
        let count = first & 0x1f;
        let body = packet.get(HEADER..length - padding).ok_or(Malformed::Length)?;
        if !fits(packet_type, usize::from(count), body) {
            return Err(Malformed::Length);
        }
        Ok(Packet { packet_type, count, range: self.at..self.at + length, padding })
    }
}

/// Octets of padding of a packet whose padding bit is set: whole words, and only at the end of the compound (section 6.4.1).
fn padding(packet: &[u8], rest: usize) -> Result<usize, Malformed> {
    let padding = packet.last().map_or(0, |count| usize::from(*count));
    if packet.len() != rest || padding == 0 || !padding.is_multiple_of(4) || padding > packet.len() {
        return Err(Malformed::Length);
    }
    Ok(padding)
}

/// Whether `body` holds what `count` promises.
fn fits(packet_type: u8, count: usize, body: &[u8]) -> bool {
    match packet_type {
        SR => body.len() >= 24 + count * REPORT_BLOCK,
        RR => body.len() >= 4 + count * REPORT_BLOCK,
        SDES => chunks_fit(count, body),
        BYE => goodbye_fits(count, body),
        APP | RTPFB | PSFB => body.len() >= 8,
        XR => body.len() >= 4,
        _ => true,
    }
}

/// SDES (section 6.5): a chunk is a source, items (type, length, text) up to a null octet, and null octets up to the next
/// word. The null octet may be missing at the end of the packet: nothing is misread without it.
fn chunks_fit(count: usize, body: &[u8]) -> bool {
    let mut at = 0;
    for _ in 0..count {
        at += 4;
        while let Some([kind, length]) = body.get(at..at + 2)
            && *kind != 0
        {
            at += 2 + usize::from(*length);
        }
        // What the loop leaves: past the end, at the end, a null octet, or a lone last octet of an item.
        if at > body.len() || body.get(at).is_some_and(|kind| *kind != 0) {
            return false;
        }
        at = (at / 4 + 1) * 4;
    }
    true
}

/// BYE (section 6.6): sources, then perhaps a reason with its length in front.
fn goodbye_fits(count: usize, body: &[u8]) -> bool {
    match body.get(count * 4..) {
        None => false,
        Some([]) => true,
        Some([length, reason @ ..]) => reason.len() >= usize::from(*length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compound_is_walked_to_its_end() {
        let mut bytes = [0; 28 + 8 + 8];
        bytes[..4].copy_from_slice(&[0x80, SR, 0, 6]);
        bytes[28..32].copy_from_slice(&[0x80, RR, 0, 1]);
        bytes[36..40].copy_from_slice(&[0x81, BYE, 0, 1]);
        let mut walk = compound(&bytes);
        assert_eq!(walk.next(), Some(Ok(Packet { packet_type: SR, count: 0, range: 0..28, padding: 0 })));
        assert_eq!(walk.next(), Some(Ok(Packet { packet_type: RR, count: 0, range: 28..36, padding: 0 })));
        assert_eq!(walk.next(), Some(Ok(Packet { packet_type: BYE, count: 1, range: 36..44, padding: 0 })));
        assert_eq!(walk.next(), None);
    }

    #[test]
    fn framing_is_lengths_that_fill_and_nothing_else() {
        let mut bytes = [0; 28 + 8];
        bytes[..4].copy_from_slice(&[0x9f, SR, 0, 6]);
        bytes[28..32].copy_from_slice(&[0xbf, SDES, 0, 1]);
        assert!(is_framed(&bytes) && is_framed(&bytes[28..]) && is_framed(&[0x80, BYE, 0, 0]));
        for cut in (0..36).filter(|cut| *cut != 28) {
            assert!(!is_framed(&bytes[..cut]), "{cut}");
        }
        bytes[28] = 0x40;
        assert!(!is_framed(&bytes));
    }

    #[test]
    fn every_length_is_checked_once() {
        let cases: [(&[u8], Malformed); 6] = [
            (&[], Malformed::Short),
            (&[0x80, RR, 0], Malformed::Short),
            (&[0x40, RR, 0, 0], Malformed::Version),
            (&[0x80, RR, 0, 1, 0, 0, 0], Malformed::Length),
            (&[0x81, RR, 0, 1, 0, 0, 0, 0], Malformed::Length),
            (&[0xa0, RR, 0, 1, 0, 0, 0, 5], Malformed::Length),
        ];
        for (bytes, expected) in cases {
            let mut walk = compound(bytes);
            assert_eq!(walk.next(), Some(Err(expected)), "{bytes:?}");
            assert_eq!(walk.next(), None);
        }
    }
}
