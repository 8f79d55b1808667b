//! Unpredictable numbers from a seed, so that a call is a pure function of what it is given.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// 256 bits from the operating system's generator, used for one call only. Passwords, tags and SSRCs of the call come
/// from it, so its `Debug` shows nothing.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed(pub [u8; 32]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A stream of unpredictable octets: SHA-256 of seed and counter.
#[derive(Debug)]
pub struct Random {
    seed: Seed,
    counter: u64,
}

impl Random {
    pub const fn new(seed: Seed) -> Self {
        Self { seed, counter: 0 }
    }

    /// The next 32 octets.
    pub fn block(&mut self) -> [u8; 32] {
        self.counter = self.counter.wrapping_add(1);
        Sha256::new().chain_update(self.seed.0).chain_update(self.counter.to_be_bytes()).finalize().into()
    }

    pub fn u32(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.block();
        u32::from_be_bytes([a, b, c, d])
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    /// Text of `2 * octets` hexadecimal digits, `octets` at most 32.
    pub fn hex(&mut self, octets: usize) -> String {
        hex(self.block().get(..octets).unwrap_or_default())
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream_and_another_seed_another() {
        let take = |seed: u8| {
            let mut random = Random::new(Seed([seed; 32]));
            (random.u32(), random.u64(), random.hex(16))
        };
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        assert_eq!(take(1).2.len(), 32);
        assert_eq!(format!("{:?}", Seed([7; 32])), "Seed(..)");
        assert_eq!(hex(&[0x0f, 0xa0]), "0fa0");
    }
}
