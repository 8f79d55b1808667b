//! The RTP header (RFC 3550 section 5.1) and its extension (RFC 8285).

use crate::{Malformed, PacketBuf};

/// Octets of the fixed header.
pub const FIXED: usize = 12;

/// A checked view of an RTP packet. Padding is checked on plain packets only: in SRTP the count is encrypted.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    packet: &'a [u8],
    header_len: usize,
}

impl<'a> Header<'a> {
    /// Checks version, CSRC list and extension against the octets that are there.
    ///
    /// # Errors
    /// [`Malformed::Short`], [`Malformed::Version`] or [`Malformed::Length`].
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let fixed: &[u8; FIXED] = packet.first_chunk().ok_or(Malformed::Short)?;
        if fixed[0] >> 6 != 2 {
            return Err(Malformed::Version);
        }
        let mut header_len = FIXED + usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] & 0x10 != 0 {
            let words = packet.get(header_len + 2..header_len + 4).ok_or(Malformed::Length)?;
            header_len += 4 + usize::from(u16::from_be_bytes([words[0], words[1]])) * 4;
        }
        if header_len > packet.len() {
            return Err(Malformed::Length);
        }
        Ok(Self { packet, header_len })
    }

    /// Octets up to the payload: fixed header, CSRC list, extension.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Octets of the fixed header and the CSRC list.
    pub fn fixed_len(&self) -> usize {
        FIXED + self.csrc_count() * 4
    }

    /// Octets behind the header, padding included.
    pub fn payload_len(&self) -> usize {
        self.packet.len() - self.header_len
    }

    /// Contributing sources.
    pub fn csrc_count(&self) -> usize {
        usize::from(self.packet[0] & 0x0f)
    }

    /// Whether there is a header extension.
    pub fn has_extension(&self) -> bool {
        self.packet[0] & 0x10 != 0
    }

    /// Profile and octets of the header extension, its head left out.
    #[inline]
    pub fn extension(&self) -> Option<(u16, &'a [u8])> {
        let block = self.packet.get(self.fixed_len()..self.header_len)?;
        let (head, block) = block.split_at_checked(4)?;
        Some((u16::from_be_bytes([head[0], head[1]]), block))
    }

    /// Whether there is padding.
    pub fn has_padding(&self) -> bool {
        self.packet[0] & 0x20 != 0
    }

    /// Octets of padding of a plain packet, 0 where there is none.
    ///
    /// # Errors
    /// [`Malformed::Length`] where the count is 0 or exceeds the payload.
    pub fn padding_len(&self) -> Result<usize, Malformed> {
        if !self.has_padding() {
            return Ok(0);
        }
        let count = usize::from(*self.packet.last().ok_or(Malformed::Short)?);
        if count == 0 || count > self.payload_len() { Err(Malformed::Length) } else { Ok(count) }
    }

    /// The marker bit.
    pub fn marker(&self) -> bool {
        self.packet[1] & 0x80 != 0
    }

    /// Payload type, 0 to 127.
    pub fn payload_type(&self) -> u8 {
        self.packet[1] & 0x7f
    }

    /// Sequence number.
    #[inline]
    pub fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.packet[2], self.packet[3]])
    }

    /// Timestamp, in units of the payload's clock.
    pub fn timestamp(&self) -> u32 {
        u32::from_be_bytes([self.packet[4], self.packet[5], self.packet[6], self.packet[7]])
    }

    /// Synchronization source.
    #[inline]
    pub fn ssrc(&self) -> u32 {
        u32::from_be_bytes([self.packet[8], self.packet[9], self.packet[10], self.packet[11]])
    }
}

/// Sets the payload type, keeps the marker. A packet shorter than the field is left alone, here and below.
pub fn set_payload_type(packet: &mut [u8], payload_type: u8) {
    if let Some(octet) = packet.get_mut(1) {
        *octet = (*octet & 0x80) | (payload_type & 0x7f);
    }
}

/// Sets the sequence number.
pub fn set_sequence(packet: &mut [u8], sequence: u16) {
    if let Some(field) = packet.get_mut(2..4) {
        field.copy_from_slice(&sequence.to_be_bytes());
    }
}

/// Sets the timestamp.
pub fn set_timestamp(packet: &mut [u8], timestamp: u32) {
    if let Some(field) = packet.get_mut(4..8) {
        field.copy_from_slice(&timestamp.to_be_bytes());
    }
}

/// Sets the synchronization source.
pub fn set_ssrc(packet: &mut [u8], ssrc: u32) {
    if let Some(field) = packet.get_mut(8..12) {
        field.copy_from_slice(&ssrc.to_be_bytes());
    }
}

/// Takes the header extension out: fixed header and CSRC list move up to the payload, the X bit is cleared.
///
/// # Errors
/// [`Malformed`] where the packet is no RTP packet; it is then as before.
pub fn strip_extension(buf: &mut PacketBuf<'_>) -> Result<(), Malformed> {
    let header = Header::parse(buf.packet())?;
    if !header.has_extension() {
        return Ok(());
    }
    let (fixed, extension) = (header.fixed_len(), header.header_len() - header.fixed_len());
    buf.packet_mut().copy_within(..fixed, extension);
    buf.shrink_head(extension).map_err(|_| Malformed::Length)?;
    if let Some(first) = buf.packet_mut().first_mut() {
        *first &= !0x10;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 2, extension of one word, one CSRC, marker, PT 111, two octets of payload.
    const PACKET: [u8; 26] = [
        0x91, 0xef, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0, 0xaa,
        0xbb,
    ];

    #[test]
    fn reads_every_field() {
        let header = Header::parse(&PACKET).unwrap();
        assert_eq!((header.payload_type(), header.marker(), header.sequence()), (111, true, 0x1234));
        assert_eq!((header.timestamp(), header.ssrc()), (0x0102_0304, 0x0506_0708));
        assert_eq!((header.csrc_count(), header.header_len(), header.payload_len()), (1, 24, 2));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for cut in 0..12 {
            assert_eq!(Header::parse(&PACKET[..cut]).unwrap_err(), Malformed::Short);
        }
        for cut in 12..24 {
            assert_eq!(Header::parse(&PACKET[..cut]).unwrap_err(), Malformed::Length);
        }
        let mut version = PACKET;
        version[0] = 0x51;
        assert_eq!(Header::parse(&version).unwrap_err(), Malformed::Version);
    }

    #[test]
    fn stripping_keeps_csrc_and_payload() {
        let mut bytes = PACKET;
        let mut buf = PacketBuf::new(&mut bytes, 0..26).unwrap();
        strip_extension(&mut buf).unwrap();
        let mut expected = [0; 18];
        expected[..16].copy_from_slice(&PACKET[..16]);
        expected[0] = 0x81;
        expected[16..].copy_from_slice(&[0xaa, 0xbb]);
        assert_eq!(buf.packet(), expected);
    }

    #[test]
    fn padding_must_lie_in_the_payload() {
        let mut packet = [0; 16];
        packet[0] = 0xa0;
        for (count, expected) in [(0, None), (1, Some(1)), (4, Some(4)), (5, None)] {
            packet[15] = count;
            assert_eq!(Header::parse(&packet).unwrap().padding_len().ok(), expected);
        }
    }

    #[test]
    fn setters_touch_their_field_only() {
        let mut bytes = PACKET;
        set_payload_type(&mut bytes, 0);
        set_sequence(&mut bytes, 0xabcd);
        set_timestamp(&mut bytes, 0x0a0b_0c0d);
        set_ssrc(&mut bytes, 0x1111_2222);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.payload_type(), header.marker(), header.sequence()), (0, true, 0xabcd));
        assert_eq!((header.timestamp(), header.ssrc()), (0x0a0b_0c0d, 0x1111_2222));
        assert_eq!(bytes[12..], PACKET[12..]);
        set_ssrc(&mut [], 1);
    }
}
