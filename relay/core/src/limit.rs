//! Rate limits of what goes to control: token buckets.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use sallyport_wire::site;

use crate::Now;

/// Buckets of the table; sources that share one share its rate.
const BUCKETS: usize = 1024;
/// What an unknown source may send: a burst, and microseconds for each more.
const SOURCE: Rate = Rate { burst: 50, refill: 20_000 };
/// What the peer of a known flow may send to control, likewise: handshakes come in flights.
pub const FLOW: Rate = Rate { burst: 100, refill: 10_000 };
/// Pictures that may be asked for: one at once, and another half a second later.
pub const PICTURE: Rate = Rate { burst: 1, refill: 500_000 };
/// Answers to TMMBR of one direction, which use up SRTCP indices likewise.
pub const BOUND: Rate = Rate { burst: 4, refill: 100_000 };
/// Retransmissions of one direction, which use up indices that a restart has to step over ([`resent_within`]).
pub const AGAIN: Rate = Rate { burst: 1024, refill: 1_000 };

/// How many retransmissions leave on one direction at the most within so many microseconds, whatever is asked for.
pub const fn resent_within(micros: u64) -> u64 {
    AGAIN.burst as u64 + micros / AGAIN.refill + 1
}

/// How fast a bucket empties and fills.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Tokens of a full bucket.
    burst: u16,
    /// Microseconds that a token takes to come back.
    refill: u64,
}

/// One bucket: in the upper 48 bits since when, for nine years of microseconds, in the lower 16 how many tokens are gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket(u64);

impl Bucket {
    /// Takes a token; whether there was one.
    pub fn take(&mut self, rate: Rate, now: Now) -> bool {
        let (mut since, mut gone) = (Now(self.0 >> 16), (self.0 & 0xffff) as u16);
        let back = now.since(since) / rate.refill;
        if back >= u64::from(gone) {
            (since, gone) = (now, 0);
        } else if let Ok(back) = u16::try_from(back) {
            gone -= back;
            since = since.plus(u64::from(back) * rate.refill);
        }
        let is_left = gone < rate.burst;
        gone += u16::from(is_left);
        self.0 = since.0 << 16 | u64::from(gone);
        is_left
    }
}

/// Buckets by source address, as many as there are. Which source shares a bucket with which cannot be foreseen: the hash is
/// keyed at random.
pub struct Sources {
    buckets: Box<[Bucket; BUCKETS]>,
    hash: RandomState,
}

impl Default for Sources {
    fn default() -> Self {
        Self::new()
    }
}

impl Sources {
    /// All buckets full.
    pub fn new() -> Self {
        Self { buckets: Box::new([Bucket::default(); BUCKETS]), hash: RandomState::new() }
    }

    /// Takes a token of the source; whether there was one.
    pub fn admit(&mut self, source: IpAddr, now: Now) -> bool {
        let hash = self.hash.hash_one(site(source));
        self.buckets[(hash % BUCKETS as u64) as usize].take(SOURCE, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let mut limit = Sources::new();
        let source = "192.0.2.1".parse().unwrap();
        let passed = (0..1000).filter(|_| limit.admit(source, Now(1))).count();
        assert_eq!(passed, 50);
        let passed = (0..100_000u64).filter(|n| limit.admit(source, Now(1 + n * 10))).count();
        assert_eq!(passed, 49, "a second at 50 a second; the last comes back one step later");
        assert!(limit.admit(source, Now(1_000_001)));
    }

    #[test]
    fn a_bucket_is_never_fuller_than_full() {
        let mut bucket = Bucket::default();
        for round in 1..4 {
            let now = Now(round * 10_000_000_000);
            assert_eq!((0..1000).filter(|_| bucket.take(FLOW, now)).count(), 100);
        }
        assert!(!bucket.take(FLOW, Now(0)), "time that steps back gives nothing");
    }

    #[test]
    fn one_ipv6_site_is_one_source() {
        let mut limit = Sources::new();
        let site = |n: u64| IpAddr::from(std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(n)));
        assert_eq!((0..1000).filter(|n| limit.admit(site(*n), Now(1))).count(), 50);
    }
}
