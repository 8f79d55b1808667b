//! The outgoing stream of a direction: one SSRC, one monotonic sequence, whatever happens on the incoming side.
//!
//! Sequence numbers are kept extended to 32 bits on both sides (RFC 3550 appendix A.1); the outgoing one is the incoming one
//! plus an offset. Re-basing chooses another offset, so that the next packet is the one behind the last that left.
//!
//! Timestamps keep their distances as well. Where the source's clock cannot be followed (another source, another clock rate,
//! a step that no time explains) they are re-based: the outgoing one goes on by the time that has passed (RFC 7160
//! section 4.1), and is never rewound.

use serde::{Deserialize, Serialize};

use crate::Now;
use crate::reach::{Reach, Step};
use crate::reason::Reason;

/// A forward jump of the incoming sequence beyond this is a restart, not a loss.
pub const JUMP: i16 = 1000;
/// A step back by this much or more is a restart, not a late packet: the width of the replay window.
pub const LATE: i16 = -128;
/// First outgoing sequence numbers lie in `START..START + STARTS`: room below for packets that overtook each other, and far
/// enough below 2^15 that neither lost first packets nor a restart's step ahead can hide a rollover (RFC 3711 section 3.3.1).
pub const START: u16 = 256;
pub const STARTS: u16 = 0x3000;
/// How far below the last packet the floor may lie.
const FLOOR_MAX: u32 = 1 << 20;
/// Seconds by which a timestamp may run ahead of the time that has passed: bursts after a stall, senders' own clocks.
const AHEAD: i64 = 10;
/// Seconds by which a later packet's timestamp may lie behind an earlier one's: pictures that are sent before those that they
/// are shown behind.
pub const BEHIND: u32 = 1;

/// A packet as its source numbered it.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// The source.
    pub ssrc: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Clock rate of the timestamp in Hz; of an event, that of the sound beside it.
    pub clock: u32,
    /// Whether it is of a named event, whose packets all have the timestamp at which it began (RFC 4733 section 2.5.1.2).
    pub event: bool,
}

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
    /// The latest timestamp that left.
    pub timestamp: Option<u32>,
    /// The incoming source.
    pub source: Option<u32>,
    /// What was added to its timestamps.
    pub timestamp_offset: u32,
}

/// What the next packet has to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rebase {
    /// Another source: sequence and timestamp.
    Source,
    /// The same source after packets of it that stayed here, or one that numbers its packets anew: the sequence, and the
    /// timestamp if it cannot be followed.
    Resume,
    /// The same after a time of which nothing is known: its timestamp may have run ahead by any distance.
    Return,
    /// A restart of ours, or a time in which packets passed elsewhere: the source may be the same one or another.
    Restored,
}

/// The latest named event.
#[derive(Debug, Clone, Copy)]
struct Event {
    ssrc: u32,
    incoming: u32,
    outgoing: u32,
}

/// Maps an incoming stream onto the outgoing one.
#[derive(Debug, Clone)]
pub struct Stream {
    source: Option<u32>,
    /// The source before, of which packets may still be under way.
    former: Option<u32>,
    /// A packet that would be the second in sequence of a source that (re)starts (`bad_seq` of RFC 3550 appendix A.1).
    awaited: Option<(u32, u16)>,
    /// Highest incoming sequence number, extended from the source's first one.
    highest: u32,
    /// Outgoing sequence number minus incoming one.
    offset: u32,
    timestamp_offset: u32,
    /// Clock rate of the sound or pictures that left last.
    clock: Option<u32>,
    event: Option<Event>,
    /// No packet leaves below this any more.
    floor: u32,
    last: u32,
    /// How far numbers may go until the stream is kept once more.
    reach: Reach,
    /// The latest timestamp that left, and when the first packet with it did.
    latest: Option<u32>,
    latest_at: Now,
    rebase: Option<Rebase>,
    begun: bool,
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
            former: None,
            awaited: None,
            highest: 0,
            offset: 0,
            timestamp_offset: 0,
            clock: None,
            event: None,
            floor: u32::from(first) + 1 - u32::from(LATE.unsigned_abs()),
            last: u32::from(first) - 1,
            reach: Reach::unbounded(u32::from(first) - 1),
            latest: None,
            latest_at: Now(0),
            rebase: None,
            begun: false,
            received: 0,
            expected: 0,
        }
    }

    /// The place of a packet in the outgoing stream.
    ///
    /// A new source re-bases: the sequence goes on with the next number, the timestamp with the time that has passed, at least
    /// one unit. So does a jump beyond 1,000, a step back beyond the replay window and the source before the last one, once a
    /// second packet in sequence has shown that the first was no straggler; where the source's timestamps went on, they do.
    /// Losses and reordering within those bounds stay as they are, unless a gap would leave too few of the numbers that a
    /// restart steps over.
    ///
    /// # Errors
    /// [`Reason::OutOfSequence`] for such a first packet, [`Reason::Late`] for one from before the last re-basing,
    /// [`Reason::Unkept`] for one beyond all that a restart steps over.
    pub fn place(&mut self, packet: &Numbers, now: Now) -> Result<Place, Reason> {
        let incoming = self.arrive(packet.ssrc, packet.sequence)?;
        let mut rebase = self.rebase.take();
        let mut outgoing = incoming.wrapping_add(self.offset);
        let skipped = is_before(self.last.wrapping_add(JUMP.unsigned_abs().into()), outgoing);
        if rebase.is_none() && self.latest.is_some() && skipped {
            // So many were skipped that the peer could not tell the index any more (RFC 3711 section 3.3.1).
            rebase = Some(Rebase::Resume);
        }
        if rebase.is_some() {
            outgoing = self.go_on(incoming);
        }
        if is_before(outgoing, self.floor) {
            return Err(Reason::Late);
        }
        if self.reach.is_near(outgoing) && is_before(self.last, outgoing) {
            match self.reach.step(self.last, outgoing) {
                Step::Take => {}
                Step::Close => {
                    rebase = Some(Rebase::Resume);
                    outgoing = self.go_on(incoming);
                }
                Step::Stop => {
                    self.rebase = rebase;
                    return Err(Reason::Unkept);
                }
            }
        }
        let sequence = low(outgoing);
        if !is_before(self.last, outgoing) {
            return Ok(Place { sequence, timestamp: self.timestamp_of(packet) });
        }
        let timestamp = self.follow(packet, rebase, outgoing, now);
        self.last = outgoing;
        // Kept within half a turn of 32 bits, or a very long stream would one day lie before its floor.
        if self.last.wrapping_sub(self.floor) > FLOOR_MAX {
            self.floor = self.floor.wrapping_add(FLOOR_MAX / 2);
        }
        Ok(Place { sequence, timestamp })
    }

    /// Re-bases the sequence: the outgoing number that `incoming` becomes.
    fn go_on(&mut self, incoming: u32) -> u32 {
        let outgoing = self.last.wrapping_add(1);
        self.offset = outgoing.wrapping_sub(incoming);
        if self.latest.is_some() {
            self.floor = outgoing;
        }
        outgoing
    }

    /// The place that a packet of the past has, which comes by retransmission. It re-bases nothing.
    ///
    /// # Errors
    /// [`Reason::Repeated`] where the stream goes on anew with its next packet, or is another source's; [`Reason::Late`] for
    /// one from before the last re-basing.
    pub fn fill(&mut self, packet: &Numbers) -> Result<Place, Reason> {
        if self.source() != Some(packet.ssrc) || self.rebase.is_some() {
            return Err(Reason::Repeated);
        }
        let outgoing = self.past(packet.sequence).ok_or(Reason::Late)?;
        self.received += 1;
        Ok(Place { sequence: low(outgoing), timestamp: self.timestamp_of(packet) })
    }

    /// Whether a packet of the past could still leave.
    pub fn has_place(&self, sequence: u16) -> bool {
        self.rebase.is_none() && self.past(sequence).is_some()
    }

    /// The outgoing number of a packet of the past, extended; `None` for one from before the last re-basing, or behind which only
    /// packets came that this leg does not carry.
    fn past(&self, sequence: u16) -> Option<u32> {
        let behind = low(self.highest).wrapping_sub(sequence);
        let outgoing = self.highest.wrapping_sub(u32::from(behind)).wrapping_add(self.offset);
        Some(outgoing)
            .filter(|outgoing| !is_before(*outgoing, self.floor) && !is_before(self.last, *outgoing))
    }

    /// Takes note of a packet that is not to leave: it is no loss, and the stream goes on behind it without a gap. `false`
    /// where it is out of sequence.
    pub fn hold(&mut self, ssrc: u32, sequence: u16) -> bool {
        let follows = self.arrive(ssrc, sequence).is_ok();
        if follows {
            self.rebase.get_or_insert(Rebase::Resume);
        }
        follows
    }

    /// The sequence number of a packet of our own, behind all that have left; what comes goes on behind it. `None` beyond all
    /// that a restart steps over.
    pub fn insert(&mut self) -> Option<u16> {
        let next = self.last.wrapping_add(1);
        if !self.reach.has(next) {
            return None;
        }
        self.rebase.get_or_insert(Rebase::Resume);
        self.last = next;
        Some(low(next))
    }

    /// The timestamp of an event of our own that begins now; `clock` in Hz, that of the sound where none has left yet.
    pub fn begin_event(&mut self, clock: u32, now: Now) -> u32 {
        let clock = self.clock.unwrap_or(clock);
        let timestamp = self.latest.map_or_else(
            // Nobody has seen anything of the stream: it begins anywhere.
            || self.last.wrapping_mul(0x9e37_79b1),
            |latest| {
                let passed = u128::from(now.since(self.latest_at)) * u128::from(clock) / 1_000_000;
                latest.wrapping_add(((passed & 0xffff_ffff) as u32).max(1))
            },
        );
        (self.latest, self.latest_at) = (Some(timestamp), now);
        timestamp
    }

    /// Takes note of a packet that this leg does not carry: it is no loss if it is of the stream's own source. `false` where
    /// it is not, or out of sequence.
    pub fn skip(&mut self, ssrc: u32, sequence: u16) -> bool {
        self.source == Some(ssrc) && self.arrive(ssrc, sequence).is_ok()
    }

    /// Whether the packet noted last began its source, for the first time or anew.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes note that a hold has ended: devices like to number their packets anew then, so that no packet is out of sequence.
    pub fn reopen(&mut self) {
        self.rebase.get_or_insert(Rebase::Resume);
    }

    /// Takes note that packets of it passed elsewhere: the next one is the one behind the last that left here, whatever its
    /// number, and what lies between is no loss.
    pub fn resume(&mut self) {
        self.rebase = Some(Rebase::Restored);
    }

    /// Follows the incoming sequence; the packet's extended number.
    fn arrive(&mut self, ssrc: u32, sequence: u16) -> Result<u32, Reason> {
        let step = sequence.wrapping_sub(low(self.highest)).cast_signed();
        let restored = self.rebase == Some(Rebase::Restored);
        let same = self.source == Some(ssrc);
        let confirmed = self.awaited == Some((ssrc, sequence));
        if same && !restored && !confirmed && step <= JUMP && step > LATE {
            self.awaited = None;
            self.begun = false;
            self.received += 1;
            let incoming = self.highest.wrapping_add_signed(i32::from(step));
            if step > 0 {
                self.expected += u64::from(step.unsigned_abs());
                self.highest = incoming;
            }
            return Ok(incoming);
        }
        // Where the stream is to be re-based anyhow, whatever comes is its beginning.
        let doubtful = self.rebase.is_none() && (same || self.former == Some(ssrc));
        if doubtful && !confirmed {
            self.awaited = Some((ssrc, sequence.wrapping_add(1)));
            return Err(Reason::OutOfSequence);
        }
        self.awaited = None;
        self.rebase = Some(match (restored, same) {
            (true, true) => Rebase::Return,
            // What an earlier packet of it was to begin with has not been begun yet.
            (false, true) => self.rebase.unwrap_or(Rebase::Resume),
            (_, false) => Rebase::Source,
        });
        if !same {
            self.former = self.source;
        }
        self.begun = true;
        self.source = Some(ssrc);
        self.highest = u32::from(sequence);
        self.received += 1;
        self.expected += 1;
        Ok(self.highest)
    }

    /// The outgoing timestamp of a packet behind all that have left.
    fn follow(&mut self, packet: &Numbers, rebase: Option<Rebase>, outgoing: u32, now: Now) -> u32 {
        let kept = self.timestamp_of(packet);
        let clock = if packet.event { self.clock.unwrap_or(packet.clock) } else { packet.clock };
        let mut timestamp = kept;
        if let Some(latest) = self.latest {
            let passed = u128::from(now.since(self.latest_at)) * u128::from(clock) / 1_000_000;
            let passed = i64::try_from(passed).unwrap_or(i64::MAX);
            let another = rebase == Some(Rebase::Source);
            let known = packet.event && !another && self.event_of(packet).is_some();
            let begins = rebase.is_some() || self.clock.is_some_and(|before| before != clock);
            let fits = !another && is_near(kept, latest, passed, clock, rebase, begins);
            if !known && !fits {
                // At least one unit, modulo the width of timestamps.
                timestamp = latest.wrapping_add(((passed & 0xffff_ffff) as u32).max(1));
                if !packet.event || another {
                    self.timestamp_offset = timestamp.wrapping_sub(packet.timestamp);
                    self.floor = outgoing;
                }
            }
        }
        if packet.event {
            self.event = Some(Event { ssrc: packet.ssrc, incoming: packet.timestamp, outgoing: timestamp });
        } else {
            self.clock = Some(clock);
        }
        if self.latest.is_none_or(|latest| is_before(latest, timestamp)) {
            self.latest = Some(timestamp);
            self.latest_at = now;
        }
        timestamp
    }

    /// What the timestamp becomes while nothing is re-based.
    fn timestamp_of(&self, packet: &Numbers) -> u32 {
        let event = self.event_of(packet).filter(|_| packet.event);
        event.unwrap_or_else(|| packet.timestamp.wrapping_add(self.timestamp_offset))
    }

    /// What all packets of an event that has begun to leave have.
    fn event_of(&self, packet: &Numbers) -> Option<u32> {
        let same = |event: &Event| event.ssrc == packet.ssrc && event.incoming == packet.timestamp;
        self.event.filter(same).map(|event| event.outgoing)
    }

    /// The incoming source, once its sequence and timestamps have a place in the outgoing stream.
    pub fn source(&self) -> Option<u32> {
        self.source.filter(|_| self.latest.is_some() && self.rebase != Some(Rebase::Source))
    }

    /// What is added to an incoming timestamp.
    pub fn timestamp_offset(&self) -> u32 {
        self.timestamp_offset
    }

    /// How reports about the outgoing stream become reports about the incoming one.
    pub fn origin(&self) -> Option<Origin> {
        let unknown = matches!(self.rebase, Some(Rebase::Restored | Rebase::Return));
        let source = self.source().filter(|_| !unknown)?;
        Some(Origin { source, offset: self.offset, floor: self.floor, last: self.last })
    }

    /// The latest timestamp that left, and when it did first; `None` before the first packet.
    pub fn latest(&self) -> Option<(u32, Now)> {
        self.latest.map(|timestamp| (timestamp, self.latest_at))
    }

    /// Packets missing by sequence number; negative where duplicates came (RFC 3550 section 6.4.1).
    pub fn lost(&self) -> i64 {
        self.expected.cast_signed().wrapping_sub(self.received.cast_signed())
    }

    /// Where the stream stands.
    pub fn checkpoint(&self) -> StreamState {
        StreamState {
            sequence: self.last,
            timestamp: self.latest,
            source: self.source(),
            timestamp_offset: self.timestamp_offset,
        }
    }

    /// A checkpoint that has `kept` is written: what a restart from it steps over may be used.
    pub fn keep(&mut self, kept: u32, ahead: u16) {
        self.reach = Reach::behind(kept, ahead);
    }

    /// A restart steps over another count from now on.
    pub fn stepping(&mut self, ahead: u16) {
        self.reach.stepping(ahead);
    }

    /// No restart goes on with the stream: all numbers may be used.
    pub fn release(&mut self) {
        self.reach = Reach::unbounded(self.last);
    }

    /// Whether it is to be kept before its turn.
    #[inline]
    pub fn asks(&self) -> bool {
        self.reach.asks()
    }

    /// It is under way to be kept.
    pub fn is_asked(&mut self) {
        self.reach.is_asked();
    }

    /// Goes on behind a checkpoint that may be `ahead` packets old.
    pub fn restore(&mut self, state: &StreamState, ahead: u16, now: Now) {
        self.last = state.sequence.wrapping_add(u32::from(ahead));
        self.floor = self.last.wrapping_add(1);
        self.latest = state.timestamp;
        self.latest_at = now;
        self.source = state.source;
        self.timestamp_offset = state.timestamp_offset;
        self.rebase = Some(Rebase::Restored);
    }
}

/// Whether a timestamp follows the latest one by a step that the time explains that has `passed`, in units of the clock.
/// `begins`: it must not lie behind it at all.
fn is_near(kept: u32, latest: u32, passed: i64, clock: u32, rebase: Option<Rebase>, begins: bool) -> bool {
    if rebase == Some(Rebase::Return) {
        return !is_before(kept, latest);
    }
    let behind = if begins { 0 } else { i64::from(BEHIND * clock) };
    // How far it is ahead of the time, modulo the width of timestamps.
    let now = latest.wrapping_add((passed & 0xffff_ffff) as u32);
    let ahead = i64::from(kept.wrapping_sub(now).cast_signed());
    // Beyond a quarter of a turn nobody can tell a step back from one ahead.
    (-passed.min(1 << 30) - behind..=AHEAD * i64::from(clock)).contains(&ahead)
}

/// Serial number arithmetic (RFC 1982) over 32 bits.
pub fn is_before(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() < 0
}

fn low(extended: u32) -> u16 {
    (extended & 0xffff) as u16
}

#[cfg(test)]
mod tests;
