//! RTCP compound packets (RFC 3550 section 6).

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

/// Octets of a report block.
pub const REPORT_BLOCK: usize = 24;

/// One packet of a compound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// `SR`, `RR`, ...
    pub packet_type: u8,
    /// The five bits beside the version: reports, chunks, sources or a subtype.
    pub count: u8,
    /// Where the packet lies in the compound, header included.
    pub range: Range<usize>,
}

impl Packet {
    /// Where the octets behind the four of the header lie.
    pub fn body(&self) -> Range<usize> {
        self.range.start + 4..self.range.end
    }
}

/// The packets of a compound, in order. Ends behind the first error.
#[derive(Debug, Clone)]
pub struct Compound<'a> {
    bytes: &'a [u8],
    at: usize,
    broken: bool,
}

/// Reads a compound (or a reduced-size one, RFC 5506).
pub fn compound(bytes: &[u8]) -> Compound<'_> {
    Compound { bytes, at: 0, broken: false }
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

impl Compound<'_> {
    fn read(&self) -> Result<Packet, Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let [first, packet_type, high, low] = *rest.first_chunk::<4>().ok_or(Malformed::Short)?;
        if first >> 6 != 2 {
            return Err(Malformed::Version);
        }
        let length = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
        if length > rest.len() {
            return Err(Malformed::Length);
        }
        let count = first & 0x1f;
        let least = match packet_type {
            SR => 28 + usize::from(count) * REPORT_BLOCK,
            RR => 8 + usize::from(count) * REPORT_BLOCK,
            BYE => 4 + usize::from(count) * 4,
            APP | RTPFB | PSFB => 12,
            XR => 8,
            _ => 4,
        };
        if length < least {
            return Err(Malformed::Length);
        }
        // Only the last packet of a compound may be padded (section 6.4.1).
        if first & 0x20 != 0 {
            let padding = usize::from(rest[length - 1]);
            if length != rest.len() || padding == 0 || padding % 4 != 0 || padding > length - 4 {
                return Err(Malformed::Length);
            }
        }
        Ok(Packet { packet_type, count, range: self.at..self.at + length })
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
        assert_eq!(walk.next(), Some(Ok(Packet { packet_type: SR, count: 0, range: 0..28 })));
        assert_eq!(walk.next(), Some(Ok(Packet { packet_type: RR, count: 0, range: 28..36 })));
        assert_eq!(walk.next(), Some(Ok(Packet { packet_type: BYE, count: 1, range: 36..44 })));
        assert_eq!(walk.next(), None);
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
