//! The Internet checksum (RFC 1071).

/// A running ones' complement sum of 16-bit words.
///
/// The sum is kept in the machine's byte order and swapped once, at the end: ones' complement addition does not mind
/// (RFC 1071 section 2 (B)). Wide words are split in halves, so that no carry is lost and the loop is vectorized.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds octets that start at an even place; an odd last one counts as the high half of a word.
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let mut sum = self.0;
        for word in words {
            sum += halves(*word);
        }
        Self(sum + halves(last))
    }

    /// Adds one word.
    #[must_use]
    pub fn add_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// The checksum: the complement of the folded sum. Over octets that hold their own right checksum it is 0.
    #[must_use]
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        // Folded: it fits in a word.
        #[allow(clippy::cast_possible_truncation)]
        let sum = sum as u16;
        !u16::from_be(sum)
    }
}

fn halves(word: [u8; 8]) -> u64 {
    let word = u64::from_ne_bytes(word);
    (word & 0xffff_ffff) + (word >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_example_of_rfc_1071() {
        let sum = Sum::default().add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(!sum.finish(), 0xddf2, "section 3");
    }

    #[test]
    fn an_ipv4_header_with_its_checksum_sums_up_to_zero() {
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8, 0x00, 0x01,
            0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(Sum::default().add_bytes(&header).finish(), 0xb861);
        header[10..12].copy_from_slice(&[0xb8, 0x61]);
        assert_eq!(Sum::default().add_bytes(&header).finish(), 0);
    }

    #[test]
    fn both_zeros_are_told_apart() {
        assert_eq!(Sum::default().finish(), 0xffff);
        assert_eq!(Sum::default().add_word(0xffff).finish(), 0);
    }

    #[test]
    fn no_carry_is_lost() {
        assert_eq!(Sum::default().add_bytes(&[0xff; 65_535]).finish(), 0x00ff);
    }
}
