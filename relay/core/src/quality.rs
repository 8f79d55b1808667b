//! What arrives on a direction as its receiver would judge it: loss, jitter, order, bursts (RFC 3550 sections 6.4.1 and A.8,
//! RFC 3611 section 4.7.2), and how long packets stayed here.
//!
//! Integers only, a fixed size, a few instructions a packet; what has to be divided or raised to a power is left to whoever
//! reads. Losses are counted when a packet is 64 numbers overdue: until then it may still come.

use sallyport_plan::{Pt, Quality as Report, STAYS, Ssrc};

use crate::Now;
use crate::stream::{JUMP, LATE};

/// A burst ends behind so many packets in a row that came (RFC 3611 section 4.7.2).
const GMIN: u32 = 16;
/// Packets that may still come.
const WINDOW: u32 = u64::BITS;
/// Seconds by which a packet's timestamp and its arrival may differ from the last packet's: beyond, its clock was set anew.
const LEAP: u32 = 5;

/// One packet, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Its source.
    pub ssrc: u32,
    /// Its sequence number.
    pub sequence: u16,
    /// Its timestamp.
    pub timestamp: u32,
    /// Its payload type as it came.
    pub payload_type: u8,
    /// Clock rate of that type, Hz.
    pub clock: u32,
    /// Whether the stream that leaves takes it for the beginning of its source.
    pub begins: bool,
}

/// Statistics of one direction.
/// One line is touched by a packet that comes, and again when it leaves; what happens seldom lies elsewhere.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct Quality {
    seldom: Box<Seldom>,
    /// Bit n: the packet n below the highest came, or lies below the first.
    came: u64,
    /// The source now.
    ssrc: u32,
    /// Its highest sequence number, extended from its first one.
    highest: u32,
    /// Packets of it.
    received: u32,
    /// Arrival minus timestamp of the packet before, in units of its clock.
    transit: u32,
    timestamp: u32,
    /// Interarrival jitter, sixteenths of a unit.
    jitter: u32,
    clock: u32,
    payload_type: u8,
    /// Whether there is a source.
    begun: bool,
    /// Packets by how long they stayed: up to 1, 2, 4, ... microseconds; as many as [`Seldom::stays`] does not have yet.
    stays: [u8; STAYS],
}

/// Octets of what few packets touch.
#[cfg(test)]
pub const SELDOM: usize = size_of::<Seldom>();

/// What few packets touch.
#[derive(Debug, Clone, Default)]
struct Seldom {
    /// The source's first sequence number.
    first: u32,
    /// The last loss, and how many lie in one burst with it.
    lost_at: u32,
    lost_near: u32,
    /// Packets by how long they stayed, in multiples of 256.
    stays: [u32; STAYS],
    counts: Counts,
}

/// What has happened so far, over all sources.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Of former sources.
    received: u64,
    lost: u64,
    runs: u32,
    bursts: u32,
    burst_lost: u32,
    burst_packets: u32,
    reordered: u32,
    duplicates: u32,
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            seldom: Box::default(),
            came: u64::MAX,
            ssrc: 0,
            highest: 0,
            received: 0,
            transit: 0,
            timestamp: 0,
            jitter: 0,
            clock: 0,
            payload_type: 0,
            begun: false,
            stays: [0; STAYS],
        }
    }
}

impl Quality {
    /// A packet came. A source that is new, jumps by more than 1,000 or steps back by 128 or more begins anew, as it does in
    /// the stream that leaves.
    #[inline]
    pub fn arrive(&mut self, packet: Arrival, now: Now) {
        let step = packet.sequence.wrapping_sub((self.highest & 0xffff) as u16).cast_signed();
        // Nearly all packets are the next one of their source, behind one that came: one question, not five.
        let known = !packet.begins & self.begun & (packet.ssrc == self.ssrc);
        if known & (step == 1) & (self.came >> (WINDOW - 1) == 1) {
            self.received = self.received.wrapping_add(1);
            self.highest = self.highest.wrapping_add(1);
            self.came = (self.came << 1) | 1;
        } else if known & (step <= JUMP) & (step > LATE) {
            self.stray(step);
        } else {
            return self.begin(packet, now);
        }
        self.time(packet, now);
    }

    /// Whether a packet came, of those that may still be told.
    pub fn has(&self, ssrc: u32, sequence: u16) -> bool {
        let behind = u32::from(((self.highest & 0xffff) as u16).wrapping_sub(sequence));
        if !self.begun || ssrc != self.ssrc || behind >= WINDOW {
            return false;
        }
        let below = self.highest.wrapping_sub(self.seldom.first) < behind;
        !below && self.came >> behind & 1 == 1
    }

    /// A packet of the source that is `step` above its highest one.
    fn stray(&mut self, step: i16) {
        self.received = self.received.wrapping_add(1);
        if step > 0 {
            self.advance(u32::from(step.unsigned_abs()));
        } else {
            self.late(u32::from(step.unsigned_abs()));
        }
    }

    /// Takes note of a packet whose timestamp says nothing of when it was sent: of a named event, or of a type that this leg
    /// does not carry.
    #[inline]
    pub fn arrive_untimed(&mut self, packet: Arrival, now: Now) {
        let known = self.source() == Some(packet.ssrc);
        let untimed = Arrival { timestamp: self.timestamp, clock: self.clock, ..packet };
        self.arrive(if known { untimed } else { packet }, now);
    }

    #[cold]
    fn begin(&mut self, packet: Arrival, now: Now) {
        self.settle(WINDOW);
        self.seldom.counts.received += u64::from(self.received);
        (self.ssrc, self.begun) = (packet.ssrc, true);
        self.highest = packet.sequence.into();
        self.seldom.first = self.highest;
        self.received = 1;
        self.came = u64::MAX;
        self.seldom.lost_near = 0;
        self.clock = packet.clock;
        self.jitter = 0;
        self.timestamp = packet.timestamp;
        self.transit = arrival(now, packet.clock).wrapping_sub(packet.timestamp);
        self.payload_type = packet.payload_type;
    }

    /// Packets up to `step` above the highest are due now; the one there came.
    fn advance(&mut self, step: u32) {
        self.settle(step);
        self.highest = self.highest.wrapping_add(step);
        self.came = self.came.checked_shl(step).unwrap_or(0) | 1;
    }

    /// The oldest `step` of the window, and what lies between it and the new one, come no more.
    fn settle(&mut self, step: u32) {
        let oldest = self.highest.wrapping_sub(WINDOW - 1);
        let mut missing = !self.came;
        if step < WINDOW {
            missing &= !(u64::MAX >> step);
        }
        while missing != 0 {
            let behind = missing.leading_zeros();
            missing &= !(1 << (WINDOW - 1 - behind));
            self.lose(oldest.wrapping_add(behind), 1);
        }
        if step > WINDOW {
            self.lose(self.highest.wrapping_add(1), step - WINDOW);
        }
    }

    /// `count` packets from `at` on are lost.
    fn lose(&mut self, at: u32, count: u32) {
        let seldom = &mut *self.seldom;
        let distance = at.wrapping_sub(seldom.lost_at);
        let near = seldom.lost_near > 0 && distance <= GMIN;
        let counts = &mut seldom.counts;
        counts.lost += u64::from(count);
        counts.runs += u32::from(!(near && distance == 1));
        let former = if near { seldom.lost_near } else { 0 };
        seldom.lost_near = former.saturating_add(count);
        if seldom.lost_near > 1 {
            // A single loss is one of the gap's; with the second one both are a burst's.
            let begins = former < 2;
            counts.bursts += u32::from(begins);
            counts.burst_lost = counts.burst_lost.saturating_add(count + if begins { former } else { 0 });
            let stretch = if near { distance - 1 } else { 0 } + count + if former == 1 { 1 } else { 0 };
            counts.burst_packets = counts.burst_packets.saturating_add(stretch);
        }
        seldom.lost_at = at.wrapping_add(count - 1);
    }

    /// A packet that is `behind` the highest.
    fn late(&mut self, behind: u32) {
        let bit = 1u64.checked_shl(behind).unwrap_or(0);
        let after_first = self.highest.wrapping_sub(self.seldom.first) >= behind;
        if after_first && self.came & bit != 0 {
            self.seldom.counts.duplicates = self.seldom.counts.duplicates.wrapping_add(1);
        } else {
            self.seldom.counts.reordered = self.seldom.counts.reordered.wrapping_add(1);
            self.came |= bit;
        }
    }

    /// A packet came by retransmission. Where it is none of those that count as lost already it is no loss, but it did not
    /// arrive as reports count it, which speak of the path (RFC 4588 section 7.1).
    pub fn recover(&mut self, ssrc: u32, sequence: u16) {
        let behind = ((self.highest & 0xffff) as u16).wrapping_sub(sequence);
        if self.source() == Some(ssrc) {
            self.came |= 1u64.checked_shl(behind.into()).unwrap_or(0);
        }
    }

    /// Interarrival jitter (RFC 3550 section A.8). Packets that share a timestamp, as those of one picture or one digit do,
    /// tell nothing of it but by the first of them.
    #[inline]
    fn time(&mut self, packet: Arrival, now: Now) {
        if packet.timestamp == self.timestamp {
            return;
        }
        self.timestamp = packet.timestamp;
        self.payload_type = packet.payload_type;
        let transit = arrival(now, packet.clock).wrapping_sub(packet.timestamp);
        if packet.clock == self.clock {
            let differs = transit.wrapping_sub(self.transit).cast_signed().unsigned_abs();
            let jitter = self.jitter + differs - ((self.jitter + 8) >> 4);
            self.jitter = if differs < LEAP * self.clock { jitter } else { self.jitter };
        } else {
            self.change_clock(packet.clock);
        }
        self.transit = transit;
    }

    #[cold]
    fn change_clock(&mut self, clock: u32) {
        let jitter = u64::from(self.jitter) * u64::from(clock) / u64::from(self.clock.max(1));
        self.jitter = u32::try_from(jitter).unwrap_or(0);
        self.clock = clock;
    }

    /// A packet left that had stayed for so many nanoseconds.
    #[inline]
    pub fn stay(&mut self, ns: u64) {
        // A microsecond is taken for 1,024 ns: one shift for one division. Half of it counts as nothing.
        let bucket = (ns.saturating_sub(1) >> 9 | 1).ilog2() as usize;
        let bucket = bucket.min(STAYS - 1);
        if let Some(count) = self.stays.get_mut(bucket) {
            *count = count.wrapping_add(1);
            if *count == 0 {
                self.carry(bucket);
            }
        }
    }

    #[cold]
    fn carry(&mut self, bucket: usize) {
        if let Some(count) = self.seldom.stays.get_mut(bucket) {
            *count = count.saturating_add(256);
        }
    }

    fn source(&self) -> Option<u32> {
        self.begun.then_some(self.ssrc)
    }

    /// What a report block tells of the source (RFC 3550 section 6.4.1); `None` before its first packet.
    pub fn reception(&self) -> Option<Reception> {
        let expected = self.highest.wrapping_sub(self.seldom.first).wrapping_add(1);
        Some(Reception {
            ssrc: self.source()?,
            highest: self.highest,
            expected,
            received: self.received,
            jitter: self.jitter >> 4,
        })
    }

    /// Clock rate of the last packet, Hz; 0 before the first.
    pub const fn clock(&self) -> u32 {
        self.clock
    }

    /// All of it, but for what only reports of the peer tell.
    pub fn report(&self) -> Report {
        let Counts { received, lost, runs, bursts, burst_lost, burst_packets, reordered, duplicates } =
            self.seldom.counts;
        let us = u64::from(self.jitter >> 4) * 1_000_000 / u64::from(self.clock.max(1));
        Report {
            received: received + u64::from(self.received),
            missed: lost,
            runs,
            bursts,
            burst_lost,
            burst_packets,
            reordered,
            duplicates,
            jitter_us: u32::try_from(us).unwrap_or(u32::MAX),
            source: self.source().map(Ssrc),
            payload_type: self.source().map(|_| Pt(self.payload_type)),
            stays: std::array::from_fn(|at| self.seldom.stays[at].saturating_add(self.stays[at].into())),
            round_trip_us: None,
            told: None,
        }
    }
}

/// What a receiver knows of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reception {
    /// Which source.
    pub ssrc: u32,
    /// Extended highest sequence number.
    pub highest: u32,
    /// Packets that its sequence numbers promise.
    pub expected: u32,
    /// Packets that came.
    pub received: u32,
    /// Interarrival jitter in units of its timestamps.
    pub jitter: u32,
}

/// A moment in units of a clock. Wraps, but once in six years also where it must not.
const fn arrival(now: Now, clock: u32) -> u32 {
    (now.0.wrapping_mul(clock as u64) / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(ssrc: u32, sequence: u16, timestamp: u32) -> Arrival {
        Arrival { ssrc, sequence, timestamp, payload_type: 0, clock: 8000, begins: false }
    }

    /// Packets of one source by number, all others are lost; behind the last come so many that everything is settled.
    fn lossy(numbers: impl IntoIterator<Item = u32>) -> Report {
        let mut quality = Quality::default();
        let mut last = 0;
        for number in numbers {
            quality.arrive(packet(1, (number & 0xffff) as u16, 0), Now(0));
            last = last.max(number);
        }
        (1..=WINDOW).for_each(|n| quality.arrive(packet(1, ((last + n) & 0xffff) as u16, 0), Now(0)));
        quality.report()
    }

    fn bursts(report: &Report) -> (u64, u32, u32, u32, u32) {
        (report.missed, report.runs, report.bursts, report.burst_lost, report.burst_packets)
    }

    /// The slow obvious way: all numbers in a row, cut where sixteen came in a row.
    fn slowly(came: &[bool]) -> (u64, u32, u32, u32, u32) {
        let lost: Vec<usize> = (0..came.len()).filter(|at| !came[*at]).collect();
        let runs = lost.iter().filter(|at| **at == 0 || came[**at - 1]).count();
        let near = |one: &usize, other: &usize| other - one - 1 < GMIN as usize;
        let groups: Vec<&[usize]> = lost.chunk_by(near).filter(|group| group.len() > 1).collect();
        let inside = groups.iter().map(|group| group.len()).sum::<usize>();
        let length = groups.iter().map(|group| group[group.len() - 1] - group[0] + 1).sum::<usize>();
        (lost.len() as u64, runs as u32, groups.len() as u32, inside as u32, length as u32)
    }

    #[test]
    fn bursts_are_losses_with_fewer_than_sixteen_packets_between() {
        let without = |gone: &'static [u32]| lossy((0..200).filter(move |n| !gone.contains(n)));
        assert_eq!(bursts(&without(&[])), (0, 0, 0, 0, 0));
        assert_eq!(bursts(&without(&[50])), (1, 1, 0, 0, 0));
        assert_eq!(bursts(&without(&[50, 66])), (2, 2, 1, 2, 17), "fifteen between");
        assert_eq!(bursts(&without(&[50, 67])), (2, 2, 0, 0, 0), "sixteen between");
        assert_eq!(bursts(&without(&[50, 51, 52, 60, 100])), (5, 3, 1, 4, 11));
    }

    #[test]
    fn a_step_beyond_the_window_is_one_burst() {
        assert_eq!(bursts(&lossy([0, 1000])), (999, 1, 1, 999, 999));
        assert_eq!(bursts(&lossy([0, 64])), (63, 1, 1, 63, 63));
        assert_eq!(bursts(&lossy([0, 65])), (64, 1, 1, 64, 64));
        assert_eq!(bursts(&lossy([0, 1001])), (0, 0, 0, 0, 0), "a restart loses nothing");
    }

    proptest! {
        #[test]
        fn bursts_are_what_the_slow_way_finds(came in prop::collection::vec(prop::bool::weighted(0.8), 1..600)) {
            let came = [vec![true; 1], came].concat();
            let numbers = (0..came.len()).filter(|at| came[*at]).map(|at| at as u32 + 65_300);
            let last = came.iter().rposition(|came| *came).unwrap_or(0);
            prop_assert_eq!(bursts(&lossy(numbers)), slowly(&came[..=last]));
        }
    }

    #[test]
    fn order_and_duplicates_are_told_apart() {
        let report = lossy([100, 101, 104, 102, 102, 103, 104, 99, 105]);
        assert_eq!((report.reordered, report.duplicates, report.missed), (3, 2, 0));
        assert_eq!(report.received, 9 + 64);
    }

    #[test]
    fn a_new_source_settles_what_the_former_one_owes() {
        let mut quality = Quality::default();
        for n in [10, 11, 14] {
            quality.arrive(packet(1, n, 0), Now(0));
        }
        quality.arrive(packet(2, 5000, 0), Now(0));
        assert_eq!(quality.report().missed, 2);
        let reception = quality.reception().unwrap();
        assert_eq!(
            (reception.ssrc, reception.highest, reception.expected, reception.received),
            (2, 5000, 1, 1)
        );
    }

    #[test]
    fn reception_counts_cycles() {
        let mut quality = Quality::default();
        for n in 65_530..65_545u32 {
            quality.arrive(packet(1, (n & 0xffff) as u16, 0), Now(0));
        }
        let wanted = Reception { ssrc: 1, highest: 65_544, expected: 15, received: 15, jitter: 0 };
        assert_eq!(quality.reception(), Some(wanted));
    }

    /// RFC 3550 section A.8 with real numbers.
    #[test]
    fn jitter_is_that_of_the_rfc() {
        let mut quality = Quality::default();
        let (mut estimate, mut before) = (0.0f64, None);
        for n in 0..2000u32 {
            let late = u64::from(n * 7919 % 31) * 250;
            let now = Now(3_000_000 + u64::from(n) * 20_000 + late);
            quality.arrive(packet(1, (n & 0xffff) as u16, n * 160), now);
            let transit = (now.0 as f64).mul_add(0.008, -f64::from(n * 160));
            if let Some(before) = before.replace(transit) {
                estimate += ((transit - before).abs() - estimate) / 16.0;
            }
        }
        let jitter = quality.reception().unwrap().jitter;
        assert!((f64::from(jitter) - estimate).abs() < 1.5, "{jitter} for {estimate}");
        assert_eq!(quality.report().jitter_us, jitter * 125);
        // A clock that is set anew, packets of one timestamp and another clock leave it.
        quality.arrive(packet(1, 2000, 7), Now(60_000_000));
        quality.arrive(packet(1, 2001, 7), Now(61_000_000));
        assert_eq!(quality.reception().unwrap().jitter, jitter);
        quality.arrive(Arrival { clock: 48_000, ..packet(1, 2002, 8) }, Now(61_000_000));
        assert!((jitter * 6..jitter * 6 + 6).contains(&quality.reception().unwrap().jitter));
    }

    #[test]
    fn stays_are_counted_by_octaves() {
        let mut quality = Quality::default();
        for ns in [0, 1, 1024, 1025, 2048, 2049, 1 << 24, (1 << 24) + 1, u64::MAX] {
            quality.stay(ns);
        }
        let stays = quality.report().stays;
        assert_eq!(stays[..4], [3, 2, 1, 0]);
        assert_eq!((stays[14], stays[15]), (1, 2));
    }

    /// With what is hot of a direction it is fetched ahead of the packet.
    #[test]
    fn one_line_is_enough() {
        assert!(size_of::<Quality>() <= 64, "{} octets", size_of::<Quality>());
    }

    #[test]
    fn stays_are_carried() {
        let mut quality = Quality::default();
        for n in 1..=1000u32 {
            quality.stay(0);
            quality.stay(5000);
            assert_eq!((quality.report().stays[0], quality.report().stays[3]), (n, n));
        }
    }
}
