//! Identifications of datagrams that are cut, or may be on their way (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Two datagrams of the same addresses must not have the same one while their fragments may be about (RFC 6864 section 4.3), and
//! whoever can guess the next one can spoil a datagram with a fragment of its own. So there is a counter for a pair of addresses
//! and those that share its place, and each pair begins to count elsewhere: RFC 7739 section 5.3. All ports of the process share
//! the counters, because browsers behind one address have calls of several workers.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counters; a power of two.
const PLACES: usize = 1024;

static COUNTERS: [AtomicU32; PLACES] = [const { AtomicU32::new(0) }; PLACES];
/// Where a pair's counter is, and where it begins to count.
static SECRETS: OnceLock<(RandomState, RandomState)> = OnceLock::new();

/// The next identification for a datagram between two addresses; of IPv4 the lower 16 bits are used.
pub(crate) fn next(source: IpAddr, destination: IpAddr) -> u32 {
    let (place, begin) = SECRETS.get_or_init(|| (RandomState::new(), RandomState::new()));
    let pair = (source, destination);
    let place = usize::try_from(place.hash_one(pair) % PLACES as u64).unwrap_or(0);
    let count = COUNTERS.get(place).map_or(0, |counter| counter.fetch_add(1, Ordering::Relaxed));
    // A part of the hash is as good as all of it.
    #[allow(clippy::cast_possible_truncation)]
    let begin = begin.hash_one(pair) as u32;
    begin.wrapping_add(count)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_pair_has_none_twice_for_long_and_each_pair_its_own() {
        let ours: IpAddr = "192.0.2.1".parse().unwrap();
        let theirs: Vec<IpAddr> = (0..=255u8).map(|n| IpAddr::from([198, 51, 100, n])).collect();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            assert!(seen.insert(next(ours, theirs[0]) & 0xffff), "the same again");
        }
        let firsts: HashSet<u32> = theirs.iter().map(|theirs| next(ours, *theirs) & 0xffff).collect();
        assert!(firsts.len() > 240, "they begin anywhere: {}", firsts.len());
        assert_ne!(next(ours, theirs[1]).wrapping_sub(next(theirs[1], ours)), u32::MAX, "both ways apart");
    }
}
