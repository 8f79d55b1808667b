//! The outgoing stream of a direction: one SSRC, one monotonic sequence, whatever happens on the incoming side.
//!
//! Sequence numbers are kept extended to 32 bits on both sides (RFC 3550 appendix A.1); the outgoing one is the incoming one
//! plus an offset. Re-basing chooses another offset, so that the next packet is the one behind the last that left.

use serde::{Deserialize, Serialize};

use crate::Now;
use crate::reason::Reason;

/// A forward jump of the incoming sequence beyond this is a restart, not a loss.
pub const JUMP: i16 = 1000;
/// A step back by this much or more is a restart, not a late packet: the width of the replay window.
pub const LATE: i16 = -128;
/// First outgoing sequence numbers lie in `START..START + STARTS`: room below for packets that overtook each other, and far
/// enough below 2^15 that neither lost first packets nor a restart's step ahead can hide a rollover (RFC 3711 section 3.3.1).
const START: u16 = 256;
const STARTS: u16 = 0x3000;
/// How far below the last packet the floor may lie.
const FLOOR_MAX: u32 = 1 << 20;

/// Sequence and timestamp of a packet as it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
}

/// Where a stream stands; what a restart must not forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Highest outgoing sequence number, extended; before the first packet, the one in front of it.
    pub sequence: u32,
    /// Timestamp that left with it.
    pub timestamp: Option<u32>,
    /// The incoming source.
    pub source: Option<u32>,
    /// What was added to its timestamps.
    pub timestamp_offset: u32,
}

/// What the next packet has to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rebase {
    /// Another source, or one that has started anew: sequence and timestamp.
    Source,
    /// The same source after packets of it that stayed here: sequence only.
    Resume,
    /// A restart of ours, or a time in which packets passed elsewhere: the source may be the same one or another.
    Restored,
}

/// Maps an incoming stream onto the outgoing one.
#[derive(Debug, Clone)]
pub struct Stream {
    source: Option<u32>,
    /// Highest incoming sequence number, extended from the source's first one.
    highest: u32,
    /// Outgoing sequence number minus incoming one.
    offset: u32,
    timestamp_offset: u32,
    /// No packet leaves below this any more.
    floor: u32,
    last: u32,
    last_timestamp: Option<u32>,
    last_at: Now,
    rebase: Option<Rebase>,
    received: u64,
    expected: u64,
}

/// How to read the sequence numbers in a report about the outgoing stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The incoming source.
    pub source: u32,
    /// Outgoing sequence number minus incoming one, both extended.
    pub offset: u32,
    /// Outgoing sequence numbers below this were another source's.
    pub floor: u32,
    /// The last one that left.
    pub last: u32,
}

impl Stream {
    /// A stream that nothing has left on. Where it starts follows from `name`, so that a restarted relay knows it too.
    pub fn new(name: [u8; 2]) -> Self {
        let first = START + u16::from_be_bytes(name) % STARTS;
        Self {
            source: None,
            highest: 0,
            offset: 0,
            timestamp_offset: 0,
            floor: u32::from(first) + 1 - u32::from(LATE.unsigned_abs()),
            last: u32::from(first) - 1,
            last_timestamp: None,
            last_at: Now(0),
            rebase: None,
            received: 0,
            expected: 0,
        }
    }

    /// The place of a packet in the outgoing stream.
    ///
    /// A new source, a jump beyond 1,000 or a step back beyond the replay window re-bases: the sequence goes on with the
    /// next number, the timestamp with the time that has passed in units of `clock` (Hz), at least one. Losses and
    /// reordering within those bounds stay as they are.
    ///
    /// # Errors
    /// [`Reason::Late`] for a packet from before the last re-basing.
    pub fn place(
        &mut self,
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
        clock: u32,
        now: Now,
    ) -> Result<Place, Reason> {
        let incoming = self.arrive(ssrc, sequence);
        if let Some(rebase) = self.rebase.take() {
            self.step(rebase, incoming, timestamp, clock, now);
        }
        let mut outgoing = incoming.wrapping_add(self.offset);
        if self.last_timestamp.is_some()
            && is_before(self.last.wrapping_add(JUMP.unsigned_abs().into()), outgoing)
        {
            // So many were skipped that the peer could not tell the index any more (RFC 3711 section 3.3.1).
            self.step(Rebase::Resume, incoming, timestamp, clock, now);
            outgoing = incoming.wrapping_add(self.offset);
        }
        if is_before(outgoing, self.floor) {
            return Err(Reason::Late);
        }
        let timestamp = timestamp.wrapping_add(self.timestamp_offset);
        if is_before(self.last, outgoing) {
            self.last = outgoing;
            self.last_timestamp = Some(timestamp);
            self.last_at = now;
            // Kept within half a turn of 32 bits, or a very long stream would one day lie before its floor.
            if self.last.wrapping_sub(self.floor) > FLOOR_MAX {
                self.floor = self.floor.wrapping_add(FLOOR_MAX / 2);
            }
        }
        Ok(Place { sequence: low(outgoing), timestamp })
    }

    /// Takes note of a packet that is not to leave: it is no loss, and the stream goes on behind it without a gap.
    pub fn hold(&mut self, ssrc: u32, sequence: u16) {
        self.arrive(ssrc, sequence);
        self.rebase.get_or_insert(Rebase::Resume);
    }

    /// Takes note of a packet that this leg does not carry: it is no loss if it is of the stream's own source.
    pub fn skip(&mut self, ssrc: u32, sequence: u16) {
        if self.source == Some(ssrc) {
            self.arrive(ssrc, sequence);
        }
    }

    /// Takes note that packets of it passed elsewhere: the next one is the one behind the last that left here, whatever its
    /// number, and what lies between is no loss.
    pub fn resume(&mut self) {
        self.rebase = Some(Rebase::Restored);
    }

    /// Follows the incoming sequence; the packet's extended number.
    fn arrive(&mut self, ssrc: u32, sequence: u16) -> u32 {
        self.received += 1;
        let step = sequence.wrapping_sub(low(self.highest)).cast_signed();
        let restored = self.rebase == Some(Rebase::Restored);
        if self.source != Some(ssrc) || restored || step > JUMP || step <= LATE {
            let goes_on = restored && self.source == Some(ssrc);
            self.rebase = Some(if goes_on { Rebase::Resume } else { Rebase::Source });
            self.source = Some(ssrc);
            self.highest = u32::from(sequence);
            self.expected += 1;
            return self.highest;
        }
        let incoming = self.highest.wrapping_add_signed(i32::from(step));
        if step > 0 {
            self.expected += u64::from(step.unsigned_abs());
            self.highest = incoming;
        }
        incoming
    }

    fn step(&mut self, rebase: Rebase, incoming: u32, timestamp: u32, clock: u32, now: Now) {
        let next = self.last.wrapping_add(1);
        self.offset = next.wrapping_sub(incoming);
        let Some(last) = self.last_timestamp else { return };
        self.floor = next;
        if rebase == Rebase::Source {
            let passed = u128::from(now.since(self.last_at)) * u128::from(clock) / 1_000_000;
            let passed = u32::try_from(passed & 0xffff_ffff).unwrap_or(1).max(1);
            self.timestamp_offset = last.wrapping_add(passed).wrapping_sub(timestamp);
        }
    }

    /// The incoming source, once its sequence and timestamps have a place in the outgoing stream.
    pub fn source(&self) -> Option<u32> {
        self.source.filter(|_| self.last_timestamp.is_some() && self.rebase != Some(Rebase::Source))
    }

    /// What is added to an incoming timestamp.
    pub fn timestamp_offset(&self) -> u32 {
        self.timestamp_offset
    }

    /// How reports about the outgoing stream become reports about the incoming one.
    pub fn origin(&self) -> Option<Origin> {
        let source = self.source().filter(|_| self.rebase != Some(Rebase::Restored))?;
        Some(Origin { source, offset: self.offset, floor: self.floor, last: self.last })
    }

    /// Timestamp of the last packet that left, and when it did; `None` before the first.
    pub fn latest(&self) -> Option<(u32, Now)> {
        self.last_timestamp.map(|timestamp| (timestamp, self.last_at))
    }

    /// Packets missing by sequence number; negative where duplicates came (RFC 3550 section 6.4.1).
    pub fn lost(&self) -> i64 {
        self.expected.cast_signed().wrapping_sub(self.received.cast_signed())
    }

    /// Where the stream stands.
    pub fn checkpoint(&self) -> StreamState {
        StreamState {
            sequence: self.last,
            timestamp: self.last_timestamp,
            source: self.source(),
            timestamp_offset: self.timestamp_offset,
        }
    }

    /// Goes on behind a checkpoint that may be `ahead` packets old.
    pub fn restore(&mut self, state: &StreamState, ahead: u16, now: Now) {
        self.last = state.sequence.wrapping_add(u32::from(ahead));
        self.floor = self.last.wrapping_add(1);
        self.last_timestamp = state.timestamp;
        self.last_at = now;
        self.source = state.source;
        self.timestamp_offset = state.timestamp_offset;
        self.rebase = Some(Rebase::Restored);
    }
}

/// Serial number arithmetic (RFC 1982) over 32 bits.
pub fn is_before(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() < 0
}

fn low(extended: u32) -> u16 {
    (extended & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u16 = START + 1;

    fn at(ms: u64) -> Now {
        Now(ms * 1000)
    }

    fn stream() -> Stream {
        Stream::new([0, 1])
    }

    #[test]
    fn losses_and_reordering_stay_as_they_are() {
        let mut stream = stream();
        let mut out = |sequence: u16| stream.place(1, sequence, 0, 8000, at(0)).unwrap().sequence;
        assert_eq!([out(100), out(101), out(105), out(103)], [0, 1, 5, 3].map(|n| FIRST + n));
        assert_eq!(stream.lost(), 2);
    }

    #[test]
    fn first_numbers_lie_far_below_a_rollover() {
        for name in [[0, 0], [0x2f, 0xff], [0x30, 0], [0xff, 0xff]] {
            let mut stream = Stream::new(name);
            let place = stream.place(1, 0xfffe, 9, 8000, at(0)).unwrap();
            assert!((START..0x4000).contains(&place.sequence), "{place:?}");
            assert_eq!(place.timestamp, 9);
            let mut out =
                |sequence: u16| stream.place(1, sequence, 9, 8000, at(0)).map(|place| place.sequence);
            assert_eq!(out(1), Ok(place.sequence + 3));
            assert_eq!(out(0xfffe - 124), Ok(place.sequence - 124), "overtaken first packets leave");
        }
    }

    #[test]
    fn a_new_source_goes_on_where_the_old_one_was() {
        let mut stream = stream();
        stream.place(1, 10, 1600, 8000, at(0)).unwrap();
        let place = stream.place(2, 60000, 77, 8000, at(100)).unwrap();
        assert_eq!(place, Place { sequence: FIRST + 1, timestamp: 1600 + 800 });
        assert_eq!(stream.place(2, 59999, 0, 8000, at(100)), Err(Reason::Late));
        let place = stream.place(2, 60001, 77 + 160, 8000, at(120)).unwrap();
        assert_eq!(place, Place { sequence: FIRST + 2, timestamp: 2560 });
    }

    #[test]
    fn edges_between_loss_and_restart() {
        for (step, sequence) in
            [(1000, 1000), (1001, 1), (-127, -127i16), (-128, 1), (32767, 1), (i16::MIN, 1)]
        {
            let mut stream = stream();
            stream.place(1, 30000, 0, 8000, at(0)).unwrap();
            let place = stream.place(1, 30000u16.wrapping_add_signed(step), 0, 8000, at(20)).unwrap();
            assert_eq!(place.sequence, FIRST.wrapping_add_signed(sequence), "step {step}");
            assert_eq!(place.timestamp, if sequence == 1 { 160 } else { 0 }, "step {step}");
        }
    }

    #[test]
    fn packets_that_were_held_leave_no_gap_and_are_no_loss() {
        let mut stream = stream();
        stream.place(1, 10, 100, 8000, at(0)).unwrap();
        for n in 11..5000 {
            stream.hold(1, n);
        }
        let place = stream.place(1, 5000, 800_100, 8000, at(90_000)).unwrap();
        assert_eq!(place, Place { sequence: FIRST + 1, timestamp: 800_100 });
        assert_eq!((stream.lost(), stream.source()), (0, Some(1)));
        stream.hold(2, 7);
        assert_eq!(stream.source(), None, "the new source has no place yet");
        let place = stream.place(2, 8, 0, 8000, at(90_020)).unwrap();
        assert_eq!(place, Place { sequence: FIRST + 2, timestamp: 800_260 });
    }

    #[test]
    fn foreign_payload_types_disturb_nothing() {
        let mut stream = stream();
        stream.place(1, 10, 0, 8000, at(0)).unwrap();
        stream.skip(1, 11);
        stream.skip(9, 40_000);
        assert_eq!(stream.place(1, 12, 0, 8000, at(40)).unwrap().sequence, FIRST + 2);
        assert_eq!((stream.lost(), stream.source()), (0, Some(1)));
    }

    #[test]
    fn a_long_run_of_foreign_payload_types_leaves_no_gap() {
        for skipped in [1001, 32_768, 40_000, 65_535, 200_000u32] {
            let mut stream = stream();
            stream.place(1, 10, 0, 8000, at(0)).unwrap();
            for n in 1..=skipped {
                stream.skip(1, ((10 + n) & 0xffff) as u16);
            }
            let next = ((11 + skipped) & 0xffff) as u16;
            let place = stream.place(1, next, skipped * 160, 8000, at(u64::from(skipped) * 20)).unwrap();
            assert_eq!(place, Place { sequence: FIRST + 1, timestamp: skipped * 160 }, "{skipped}");
            assert_eq!(stream.lost(), 0);
        }
    }

    #[test]
    fn wraps_without_a_step() {
        let mut stream = stream();
        for n in 0..140_000u32 {
            let place = stream.place(1, (n & 0xffff) as u16, n * 160, 8000, at(u64::from(n) * 20)).unwrap();
            assert_eq!(place, Place { sequence: low(n + u32::from(FIRST)), timestamp: n * 160 });
        }
        assert_eq!(stream.lost(), 0);
        let (offset, floor) = (u32::from(FIRST), u32::from(START) - 126);
        assert_eq!(stream.origin(), Some(Origin { source: 1, offset, floor, last: 139_999 + offset }));
    }

    #[test]
    fn goes_on_behind_a_checkpoint() {
        let mut stream = stream();
        stream.place(1, 10, 100, 8000, at(0)).unwrap();
        let kept = stream.checkpoint();
        let mut next = Stream::new([0, 1]);
        next.restore(&kept, 500, at(1000));
        assert_eq!((next.source(), next.origin()), (Some(1), None));
        let place = next.place(1, 60_000, 420, 8000, at(1020)).unwrap();
        assert_eq!(place, Place { sequence: FIRST + 501, timestamp: 420 }, "the same source keeps its clock");
        let mut other = Stream::new([0, 1]);
        other.restore(&kept, 500, at(1000));
        let place = other.place(2, 60_000, 420, 8000, at(1020)).unwrap();
        assert_eq!(place, Place { sequence: FIRST + 501, timestamp: 260 });
        let mut unused = Stream::new([0, 1]);
        unused.restore(&Stream::new([0, 1]).checkpoint(), 500, at(0));
        assert_eq!(
            unused.place(2, 7, 8, 8000, at(0)).unwrap(),
            Place { sequence: FIRST + 500, timestamp: 8 }
        );
    }
}
