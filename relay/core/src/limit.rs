//! A rate limit per source address: token buckets in a table of fixed size.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use crate::Now;

/// Buckets; sources that share one share its rate.
const BUCKETS: usize = 1024;
/// Tokens of a full bucket.
const BURST: u32 = 50;
/// Microseconds that a token takes to come back: 50 a second.
const REFILL: u64 = 20_000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    since: Now,
}

/// The table. Which source shares a bucket with which cannot be foreseen: the hash is keyed at random.
pub struct Limit {
    buckets: Box<[Bucket]>,
    hash: RandomState,
}

impl Limit {
    /// All buckets full.
    pub fn new() -> Self {
        let full = Bucket { tokens: BURST, since: Now(0) };
        Self { buckets: vec![full; BUCKETS].into_boxed_slice(), hash: RandomState::new() }
    }

    /// Takes a token of the source; whether there was one.
    pub fn admit(&mut self, source: IpAddr, now: Now) -> bool {
        #[allow(clippy::cast_possible_truncation)]
        let at = self.hash.hash_one(source) as usize % BUCKETS;
        let bucket = &mut self.buckets[at];
        let back = now.since(bucket.since) / REFILL;
        if back > 0 {
            let tokens = u64::from(bucket.tokens).saturating_add(back).min(u64::from(BURST));
            bucket.tokens = u32::try_from(tokens).unwrap_or(BURST);
            bucket.since = now;
        }
        let admitted = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let mut limit = Limit::new();
        let source = "192.0.2.1".parse().unwrap();
        let passed = (0..1000).filter(|_| limit.admit(source, Now(1))).count();
        assert_eq!(passed, BURST as usize);
        let passed = (0..100_000u64).filter(|n| limit.admit(source, Now(n * 10))).count();
        assert!((45..=55).contains(&passed), "{passed} in a second");
    }
}
