//! A packet in the middle of a larger buffer.

use core::fmt;
use core::ops::Range;

/// No room, or fewer octets than asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short;

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room")
    }
}

impl core::error::Error for Short {}

/// A packet inside a borrowed buffer (a UMEM frame, a `recvmmsg` slot, a test's array): it grows and shrinks at both
/// ends within the room that the buffer has.
///
/// ```text
///   bytes: | headroom ... | packet ... | tailroom ... |
///          0            start         end         bytes.len()
/// ```
#[derive(Debug)]
pub struct PacketBuf<'b> {
    bytes: &'b mut [u8],
    start: usize,
    end: usize,
}

impl<'b> PacketBuf<'b> {
    /// The octets `packet` of `bytes`.
    ///
    /// # Errors
    /// [`Short`] where the range does not lie in the buffer.
    #[inline]
    pub fn new(bytes: &'b mut [u8], packet: Range<usize>) -> Result<Self, Short> {
        if packet.start > packet.end || packet.end > bytes.len() {
            return Err(Short);
        }
        Ok(Self { bytes, start: packet.start, end: packet.end })
    }

    /// The octets `packet` of `bytes`, or those of them that there are.
    #[inline]
    pub fn clamped(bytes: &'b mut [u8], packet: Range<usize>) -> Self {
        let end = packet.end.min(bytes.len());
        Self { start: packet.start.min(end), end, bytes }
    }

    /// Octets of the packet.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the packet has no octets.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where the packet lies in the buffer.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The packet.
    #[inline]
    pub fn packet(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The packet.
    #[inline]
    pub fn packet_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Adds `n` octets behind; what they hold is what the buffer held.
    ///
    /// # Errors
    /// [`Short`] where the tailroom is smaller.
    #[inline]
    pub fn grow_tail(&mut self, n: usize) -> Result<(), Short> {
        let end = self.end.checked_add(n).filter(|end| *end <= self.bytes.len()).ok_or(Short)?;
        self.end = end;
        Ok(())
    }

    /// Takes `n` octets off the end.
    ///
    /// # Errors
    /// [`Short`] where the packet is smaller.
    #[inline]
    pub fn shrink_tail(&mut self, n: usize) -> Result<(), Short> {
        if n > self.len() {
            return Err(Short);
        }
        self.end -= n;
        Ok(())
    }

    /// Adds `n` octets in front; what they hold is what the buffer held.
    ///
    /// # Errors
    /// [`Short`] where the headroom is smaller.
    #[inline]
    pub fn grow_head(&mut self, n: usize) -> Result<(), Short> {
        self.start = self.start.checked_sub(n).ok_or(Short)?;
        Ok(())
    }

    /// Takes `n` octets off the front.
    ///
    /// # Errors
    /// [`Short`] where the packet is smaller.
    #[inline]
    pub fn shrink_head(&mut self, n: usize) -> Result<(), Short> {
        if n > self.len() {
            return Err(Short);
        }
        self.start += n;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_within_its_room_only() {
        let mut bytes = [0u8; 8];
        let mut buf = PacketBuf::new(&mut bytes, 2..6).unwrap();
        assert_eq!(buf.grow_head(3), Err(Short));
        assert_eq!(buf.grow_tail(3), Err(Short));
        assert_eq!(buf.grow_tail(usize::MAX), Err(Short));
        buf.grow_head(2).unwrap();
        buf.grow_tail(2).unwrap();
        assert_eq!(buf.range(), 0..8);
        assert_eq!(buf.shrink_tail(9), Err(Short));
        buf.shrink_head(8).unwrap();
        assert!(buf.is_empty());
        assert!(PacketBuf::new(&mut [0; 4], 3..5).is_err());
    }
}
