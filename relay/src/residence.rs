//! How long packets stay inside the relay: from the clock when their burst was taken from the port to the clock after the
//! flush that handed them to the kernel.
//!
//! What a packet waited in a ring before its burst was taken is not in it: captures on both sides tell that. Nor are
//! packets that another worker handed over. Two clock reads a burst, no allocation, one histogram for each way through.

use std::time::Instant;

use sallyport_plan::{Counter, Zone};

/// Buckets of an octave: a bucket is 6.25 % of its lower edge wide at the most.
const OCTAVE: usize = 16;
/// Binary digits of [`OCTAVE`].
const DIGITS: u32 = OCTAVE.trailing_zeros();
/// Octaves above the first sixteen nanoseconds, which have a bucket each: up to 2^34 ns, seventeen seconds.
const OCTAVES: usize = 30;
const BUCKETS: usize = OCTAVE * (OCTAVES + 1);

/// A log-linear histogram of nanoseconds, fixed in size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS] }
    }
}

impl Histogram {
    /// Counts `packets` that took `ns` nanoseconds each. What is longer than the last bucket is counted there.
    pub fn record(&mut self, ns: u64, packets: u64) {
        if let Some(bucket) = self.buckets.get_mut(bucket(ns).min(BUCKETS - 1)) {
            *bucket += packets;
        }
    }

    /// Lower edge of each bucket that is not empty, in nanoseconds, and its packets.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let buckets = self.buckets.iter().enumerate().filter(|(_, packets)| **packets > 0);
        buckets.map(|(at, packets)| (lower(at), *packets))
    }
}

/// The bucket of a time.
const fn bucket(ns: u64) -> usize {
    if ns < OCTAVE as u64 {
        return ns as usize;
    }
    let shift = ns.ilog2() - DIGITS;
    // The leading digit says the octave, the four behind it the bucket within.
    OCTAVE * shift as usize + (ns >> shift) as usize
}

/// Lower edge of a bucket, ns.
const fn lower(bucket: usize) -> u64 {
    if bucket < 2 * OCTAVE {
        return bucket as u64;
    }
    let shift = bucket / OCTAVE - 1;
    ((OCTAVE + bucket % OCTAVE) as u64) << shift
}

/// Residence times of one worker.
#[derive(Debug, Clone)]
pub struct Residence {
    inward: Histogram,
    outward: Histogram,
    arrived: Instant,
    /// Packets of the burst that leave with the next flush: from outside, from inside.
    leaving: [u64; 2],
}

impl Default for Residence {
    fn default() -> Self {
        let (inward, outward) = (Histogram::default(), Histogram::default());
        Self { inward, outward, arrived: Instant::now(), leaving: [0; 2] }
    }
}

impl Residence {
    /// A burst was taken from the port at `now`. Packets forwarded before and not flushed since are forgotten.
    pub fn arrived(&mut self, now: Instant) {
        self.arrived = now;
        self.leaving = [0; 2];
    }

    /// A packet of the burst that came from this zone leaves with the next flush.
    pub const fn forwarded(&mut self, from: Zone) {
        match from {
            Zone::Outside => self.leaving[0] += 1,
            Zone::Inside => self.leaving[1] += 1,
        }
    }

    /// Whether a flush has anything to tell: where not, no clock need be read.
    pub const fn waits(&self) -> bool {
        self.leaving[0] + self.leaving[1] > 0
    }

    /// The flush ended at `now`: what was forwarded is the kernel's.
    pub fn departed(&mut self, now: Instant) {
        let stay = now.saturating_duration_since(self.arrived).as_nanos();
        let stay = u64::try_from(stay).unwrap_or(u64::MAX);
        for (histogram, leaving) in [&mut self.inward, &mut self.outward].into_iter().zip(&mut self.leaving) {
            histogram.record(stay, std::mem::take(leaving));
        }
    }

    /// As counters of the status, so that those of several workers add up: `residence_inward_ns_1024` counts the packets
    /// from outside whose bucket begins at 1024 ns. Empty buckets are left out.
    pub fn counters(&self) -> impl Iterator<Item = Counter> + '_ {
        let both = [("inward", &self.inward), ("outward", &self.outward)];
        both.into_iter().flat_map(|(way, histogram)| {
            let named = move |(ns, value)| Counter { name: format!("residence_{way}_ns_{ns}"), value };
            histogram.iter().map(named)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for at in 0..BUCKETS {
            let (low, next) = (lower(at), lower(at + 1));
            assert!(low < next);
            assert_eq!((bucket(low), bucket(next - 1)), (at, at), "{low} to {next}");
            assert!(low < 16 || (next - low) * 16 <= low, "{low} to {next} is too wide");
        }
    }

    #[test]
    fn the_longest_stay_is_counted_too() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX, 3);
        histogram.record(0, 2);
        assert_eq!(histogram.iter().collect::<Vec<_>>(), [(0, 2), (lower(BUCKETS - 1), 3)]);
        assert!(lower(BUCKETS - 1) > 16_000_000_000);
    }

    fn counters(residence: &Residence) -> Vec<(String, u64)> {
        residence.counters().map(|counter| (counter.name, counter.value)).collect()
    }

    #[test]
    fn what_is_forwarded_counts_with_its_flush_by_the_zone_it_came_from() {
        let (mut residence, begin) = (Residence::default(), Instant::now());
        residence.arrived(begin);
        for zone in [Zone::Outside, Zone::Inside, Zone::Outside] {
            residence.forwarded(zone);
        }
        assert!(residence.waits());
        residence.departed(begin + Duration::from_nanos(1030));
        assert!(!residence.waits());
        let expected =
            [("residence_inward_ns_1024".to_owned(), 2), ("residence_outward_ns_1024".to_owned(), 1)];
        assert_eq!(counters(&residence), expected);
        residence.departed(begin + Duration::from_secs(1));
        assert_eq!(counters(&residence), expected, "a flush without packets tells nothing");
    }

    #[test]
    fn what_was_not_flushed_is_not_taken_for_the_next_burst() {
        let (mut residence, begin) = (Residence::default(), Instant::now());
        residence.arrived(begin);
        residence.forwarded(Zone::Inside);
        residence.arrived(begin + Duration::from_micros(5));
        residence.departed(begin + Duration::from_micros(6));
        assert!(counters(&residence).is_empty());
    }
}
