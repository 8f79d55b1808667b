//! The 48-bit packet index: 32 bits of rollover counter, 16 of sequence number (RFC 3711 section 3.3.1).

/// Largest index of SRTP; the key is used up behind it (RFC 3711 section 9.2).
pub const INDEX_MAX: u64 = (1 << 48) - 1;

/// Half a turn of the sequence number: an index farther from the highest belongs to another turn.
pub const HALF_TURN: u64 = 1 << 15;

/// The index nearest to `highest` that has this sequence number (RFC 3711 appendix A); `None` where it would lie behind
/// the last. There is no turn before the first, so in the first one every sequence number means itself unless it is
/// nearer in the second.
#[inline]
pub fn guess(highest: u64, sequence: u16) -> Option<u64> {
    let (roc, last) = (highest >> 16, (highest & 0xffff) as u16);
    let roc = if last < 0x8000 {
        if i32::from(sequence) - i32::from(last) > 0x8000 { roc.saturating_sub(1) } else { roc }
    } else if i32::from(last) - 0x8000 > i32::from(sequence) {
        roc + 1
    } else {
        roc
    };
    let index = (roc << 16) | u64::from(sequence);
    (index <= INDEX_MAX).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_appendix() {
        let cases = [
            (0x0000_0000_0000u64, 0u16, Some(0)),
            (0, 0x8000, Some(0x8000)),
            (0, 0x8001, Some(0x8001)),
            (0x0000_0000_7fff, 0xffff, Some(0xffff)),
            (0x0000_0000_8000, 0, Some(0)),
            (0x0000_0000_8001, 0, Some(0x1_0000)),
            (0x0000_0000_ffff, 0, Some(0x1_0000)),
            (0x0000_0001_0000, 0xffff, Some(0xffff)),
            (0x0000_0001_0000, 0x8000, Some(0x1_8000)),
            (0x0000_0001_0000, 0x8001, Some(0x8001)),
            (0x0000_0001_7fff, 0xffff, Some(0x1_ffff)),
            (0x0000_0001_8000, 0, Some(0x1_0000)),
            (0x0000_0001_8001, 0, Some(0x2_0000)),
            (INDEX_MAX, 0, None),
            (INDEX_MAX, 0x7ffe, None),
            (INDEX_MAX, 0x7fff, Some(INDEX_MAX - 0x8000)),
            (INDEX_MAX, 0xffff, Some(INDEX_MAX)),
        ];
        for (highest, sequence, expected) in cases {
            assert_eq!(guess(highest, sequence), expected, "{highest:#x} {sequence:#x}");
        }
    }

    #[test]
    fn is_within_half_a_turn_of_the_highest() {
        for highest in (0x5_0000..0x6_0000u64).step_by(97) {
            for sequence in (0..=0xffffu16).step_by(61) {
                let index = guess(highest, sequence).unwrap();
                assert_eq!(index & 0xffff, u64::from(sequence));
                assert!(index.abs_diff(highest) <= HALF_TURN);
            }
        }
    }

    #[test]
    fn any_restored_state_is_survived() {
        for highest in [u64::MAX, u64::MAX - 0x8000, INDEX_MAX + 1] {
            for sequence in [0, 0x7fff, 0x8000, 0xffff] {
                assert!(guess(highest, sequence).is_none_or(|index| index <= INDEX_MAX));
            }
        }
    }
}
