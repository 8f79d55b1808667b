//! The outgoing stream of a direction: one SSRC, one monotonic sequence, whatever happens on the incoming side.

use serde::{Deserialize, Serialize};

use crate::Now;
use crate::reason::Reason;

/// A forward jump of the incoming sequence beyond this is a restart, not a loss.
const JUMP: i16 = 1000;
/// A backward step beyond this is a restart, not a late packet: the width of the replay window.
const LATE: i16 = -128;

/// Sequence and timestamp of a packet as it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
}

/// Where the outgoing stream stands; what a restart must not forget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Highest outgoing sequence number and its timestamp; `None` before the first packet.
    pub last: Option<(u16, u32)>,
}

/// Maps an incoming stream onto the outgoing one.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    source: Option<u32>,
    sequence_offset: u16,
    timestamp_offset: u32,
    highest: u16,
    base: u16,
    /// Packets may lie before `base` as long as nothing has left before it.
    first: bool,
    last: Option<(u16, u32)>,
    last_at: Now,
    received: u64,
    expected: u64,
}

impl Stream {
    /// The place of a packet in the outgoing stream.
    ///
    /// A new source, a jump beyond 1,000 or a step back beyond the replay window re-bases: the sequence goes on with the
    /// next number, the timestamp with the time that has passed in units of `clock` (Hz), at least one. Losses and
    /// reordering within those bounds stay as they are.
    ///
    /// # Errors
    /// [`Reason::Late`] for a packet from before the last re-basing.
    pub fn place(&mut self, ssrc: u32, sequence: u16, timestamp: u32, clock: u32, now: Now) -> Result<Place, Reason> {
        let step = sequence.wrapping_sub(self.highest).cast_signed();
        if self.source != Some(ssrc) || step > JUMP || step < LATE {
            self.rebase(ssrc, sequence, timestamp, clock, now);
        } else if step > 0 {
            self.expected += u64::from(step.unsigned_abs());
            self.highest = sequence;
        } else if !self.first && sequence.wrapping_sub(self.base).cast_signed() < 0 {
            return Err(Reason::Late);
        }
        self.received += 1;
        let place = Place {
            sequence: sequence.wrapping_add(self.sequence_offset),
            timestamp: timestamp.wrapping_add(self.timestamp_offset),
        };
        if self.last.is_none_or(|(last, _)| place.sequence.wrapping_sub(last).cast_signed() > 0) {
            self.last = Some((place.sequence, place.timestamp));
            self.last_at = now;
        }
        Ok(place)
    }

    fn rebase(&mut self, ssrc: u32, sequence: u16, timestamp: u32, clock: u32, now: Now) {
        self.first = self.last.is_none();
        match self.last {
            // In the lower half, so that a loss of the first packets cannot hide a rollover (RFC 3711 section 3.3.1).
            None => {
                self.sequence_offset = (sequence & 0x7fff).wrapping_sub(sequence);
                self.timestamp_offset = 0;
            }
            Some((last, last_timestamp)) => {
                let passed = u128::from(now.since(self.last_at)) * u128::from(clock) / 1_000_000;
                let passed = u32::try_from(passed & 0xffff_ffff).unwrap_or(1).max(1);
                self.sequence_offset = last.wrapping_add(1).wrapping_sub(sequence);
                self.timestamp_offset = last_timestamp.wrapping_add(passed).wrapping_sub(timestamp);
            }
        }
        self.source = Some(ssrc);
        self.highest = sequence;
        self.base = sequence;
        self.expected += 1;
    }

    /// The incoming source, once there was a packet.
    pub fn source(&self) -> Option<u32> {
        self.source
    }

    /// What is added to an incoming timestamp.
    pub fn timestamp_offset(&self) -> u32 {
        self.timestamp_offset
    }

    /// What is added to an incoming sequence number.
    pub fn sequence_offset(&self) -> u16 {
        self.sequence_offset
    }

    /// Packets missing by sequence number; negative where duplicates came (RFC 3550 section 6.4.1).
    pub fn lost(&self) -> i64 {
        self.expected.cast_signed() - self.received.cast_signed()
    }

    /// Where the outgoing stream stands.
    pub fn checkpoint(&self) -> StreamState {
        StreamState { last: self.last }
    }

    /// Goes on behind a checkpoint that may be `ahead` packets old.
    pub fn restore(&mut self, state: &StreamState, ahead: u16, now: Now) {
        self.last = state.last.map(|(sequence, timestamp)| (sequence.wrapping_add(ahead), timestamp));
        self.last_at = now;
        self.source = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now(ms * 1000)
    }

    #[test]
    fn losses_and_reordering_stay_as_they_are() {
        let mut stream = Stream::default();
        let mut out = |sequence: u16| stream.place(1, sequence, 0, 8000, at(0)).unwrap().sequence;
        assert_eq!([out(100), out(101), out(105), out(103)], [100, 101, 105, 103]);
        assert_eq!(stream.lost(), 2);
    }

    #[test]
    fn the_first_sequence_lies_in_the_lower_half() {
        let mut stream = Stream::default();
        assert_eq!(stream.place(1, 0xfffe, 9, 8000, at(0)), Ok(Place { sequence: 0x7ffe, timestamp: 9 }));
        assert_eq!(stream.place(1, 1, 9, 8000, at(0)).unwrap().sequence, 0x8001);
    }

    #[test]
    fn a_new_source_goes_on_where_the_old_one_was() {
        let mut stream = Stream::default();
        stream.place(1, 10, 1600, 8000, at(0)).unwrap();
        let place = stream.place(2, 60000, 77, 8000, at(100)).unwrap();
        assert_eq!(place, Place { sequence: 11, timestamp: 1600 + 800 });
        assert_eq!(stream.place(2, 59999, 0, 8000, at(100)), Err(Reason::Late));
        assert_eq!(stream.place(2, 60001, 77 + 160, 8000, at(120)).unwrap(), Place { sequence: 12, timestamp: 2560 });
    }

    #[test]
    fn a_restart_of_the_same_source_is_no_rewind() {
        let mut stream = Stream::default();
        stream.place(1, 30000, 0, 8000, at(0)).unwrap();
        assert_eq!(stream.place(1, 5, 0, 8000, at(20)).unwrap(), Place { sequence: 30001, timestamp: 160 });
        assert_eq!(stream.place(1, 5000, 0, 8000, at(40)).unwrap().sequence, 30002);
    }

    #[test]
    fn wraps_without_a_step() {
        let mut stream = Stream::default();
        let mut last = None;
        for n in 0..70_000u32 {
            let place = stream.place(1, (n & 0xffff) as u16, n * 160, 8000, at(u64::from(n) * 20)).unwrap();
            assert!(last.is_none_or(|last: u16| place.sequence == last.wrapping_add(1)));
            assert_eq!(place.timestamp, n * 160);
            last = Some(place.sequence);
        }
        assert_eq!(stream.lost(), 0);
    }

    #[test]
    fn goes_on_behind_a_checkpoint() {
        let mut stream = Stream::default();
        stream.place(1, 10, 100, 8000, at(0)).unwrap();
        let mut next = Stream::default();
        next.restore(&stream.checkpoint(), 500, at(1000));
        assert_eq!(next.place(1, 12, 420, 8000, at(1020)).unwrap(), Place { sequence: 511, timestamp: 260 });
    }
}
