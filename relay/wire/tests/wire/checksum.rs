//! The checksum against RFC 1071 as it is written there.

use proptest::prelude::*;
use sallyport_wire::checksum::Sum;

/// Word by word, folding at once.
pub fn slow(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Octets that end in all ways around the width of a word, often full of ones.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![3 => any::<u8>(), 1 => Just(0xff), 1 => Just(0)];
    prop::collection::vec(octet, 0..200)
}

proptest! {
    #[test]
    fn agrees_with_the_slow_sum(bytes in octets()) {
        prop_assert_eq!(Sum::default().add_bytes(&bytes).finish(), slow(&bytes));
    }

    #[test]
    fn pieces_of_even_length_add_up(bytes in octets(), cut in 0usize..100, word: u16) {
        let (first, second) = bytes.split_at((cut * 2).min(bytes.len() & !1));
        let whole: Vec<u8> = word.to_be_bytes().iter().chain(&bytes).copied().collect();
        let sum = Sum::default().add_bytes(first).add_word(word).add_bytes(second);
        prop_assert_eq!(sum.finish(), slow(&whole));
    }

    #[test]
    fn octets_with_their_checksum_sum_up_to_zero(mut bytes in octets()) {
        if bytes.len() % 2 == 1 {
            bytes.push(0);
        }
        let sum = Sum::default().add_bytes(&bytes).finish();
        bytes.extend(sum.to_be_bytes());
        prop_assert_eq!(Sum::default().add_bytes(&bytes).finish(), 0);
    }
}
