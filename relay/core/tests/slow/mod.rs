//! The slow obvious model of a direction: numbers without end, sets of all that ever happened.

use std::collections::{BTreeMap, BTreeSet};

use sallyport_core::Reason;

/// Opened before: by source, under one key.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<u32, BTreeSet<i64>>);

impl Seen {
    /// Judges a packet that was sealed as `index` (`None`: with another key, or forged) and shows the low `bits` of it.
    pub fn judge(&mut self, source: u32, shown: i64, bits: u32, index: Option<i64>) -> Result<(), Reason> {
        let seen = self.0.get(&source);
        let guess = match seen.and_then(BTreeSet::last) {
            Some(highest) => nearest(shown, *highest, bits),
            None => shown,
        };
        if let Some(highest) = seen.and_then(BTreeSet::last) {
            if guess < 0 || guess + 128 <= *highest {
                return Err(Reason::TooOld);
            }
            if seen.is_some_and(|seen| seen.contains(&guess)) {
                return Err(Reason::Replay);
            }
        }
        if index != Some(guess) {
            return Err(Reason::BadTag);
        }
        self.0.entry(source).or_default().insert(guess);
        Ok(())
    }
}

/// The number nearest to `to` whose low `bits` are `low`.
pub fn nearest(low: i64, to: i64, bits: u32) -> i64 {
    let turn = 1 << bits;
    let round = to.div_euclid(turn);
    let candidates = [round - 1, round, round + 1].map(|round| round * turn + low);
    candidates.into_iter().min_by_key(|candidate| (candidate - to).abs()).unwrap()
}

/// A stretch of the outgoing stream over which incoming numbers keep their distance.
#[derive(Debug, Clone)]
struct Stretch {
    /// Outgoing number minus incoming one.
    shift: i64,
    /// Lowest outgoing number of the stretch.
    floor: i64,
    clock_shift: i64,
}

/// What the next packet that leaves begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// A stretch, with a new clock.
    Source,
    /// A stretch, with the old clock if that can be.
    Same,
}

/// A packet as its source numbered it.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    pub source: u32,
    pub sequence: u16,
    pub timestamp: u32,
    /// Hz; of an event, that of the sound.
    pub clock: i64,
    pub event: bool,
}

/// What a stream has done so far.
#[derive(Debug)]
pub struct Stream {
    /// The source now, and the incoming numbers of it since it (re)started.
    source: Option<(u32, BTreeSet<i64>)>,
    first_of_source: i64,
    former: Option<u32>,
    /// The packet that came last, if it was neither of the source nor yet one of a new one.
    doubted: Option<(u32, u16)>,
    stretch: Option<Stretch>,
    begin: Option<Begin>,
    /// Outgoing numbers that were given out.
    left: BTreeSet<i64>,
    /// The latest timestamp, and when it left first.
    latest: Option<(i64, u64)>,
    clock: Option<i64>,
    /// Source and timestamp of the last event, and what that became.
    event: Option<((u32, u32), i64)>,
    first: i64,
    pub received: i64,
    pub expected: i64,
    /// Numbers that had not come when they were 64 overdue, packets that were overtaken, and those that came twice.
    pub missed: i64,
    pub reordered: u32,
    pub duplicates: u32,
}

impl Stream {
    pub fn new(first: u16) -> Self {
        Self {
            source: None,
            first_of_source: 0,
            former: None,
            doubted: None,
            stretch: None,
            begin: None,
            left: BTreeSet::new(),
            latest: None,
            clock: None,
            event: None,
            first: first.into(),
            received: 0,
            expected: 0,
            missed: 0,
            reordered: 0,
            duplicates: 0,
        }
    }

    /// All numbers of the source below `end` are due.
    fn settle(&mut self, end: i64) {
        let Some((_, numbers)) = &self.source else { return };
        let (first, highest) = (self.first_of_source, *numbers.last().unwrap());
        let overdue = (highest - 63).max(first)..end;
        self.missed += overdue.filter(|number| !numbers.contains(number)).count() as i64;
    }

    fn arrive(&mut self, source: u32, sequence: u16) -> Result<i64, Reason> {
        let confirmed = self.doubted.take() == Some((source, sequence.wrapping_sub(1)));
        let current = self.source.as_ref().map(|(now, _)| *now);
        if let Some((_, numbers)) = self.source.as_ref().filter(|(now, _)| *now == source) {
            let highest = *numbers.last().unwrap();
            let number = nearest(sequence.into(), highest, 16);
            if !confirmed && number > highest - 128 && number <= highest + 1000 {
                self.received += 1;
                self.expected += (number - highest).max(0);
                let recent = number > highest - 64;
                let again = recent && number >= self.first_of_source && numbers.contains(&number);
                if number > highest {
                    self.settle(number - 63);
                } else {
                    *(if again { &mut self.duplicates } else { &mut self.reordered }) += 1;
                }
                self.source.as_mut().unwrap().1.insert(number);
                return Ok(number);
            }
        }
        let known = current == Some(source) || self.former == Some(source);
        if known && self.begin.is_none() && !confirmed {
            self.doubted = Some((source, sequence));
            return Err(Reason::OutOfSequence);
        }
        if current == Some(source) {
            self.begin.get_or_insert(Begin::Same);
        } else {
            self.begin = Some(Begin::Source);
            self.former = current;
        }
        if let Some((_, numbers)) = &self.source {
            self.settle(*numbers.last().unwrap() + 1);
        }
        self.first_of_source = sequence.into();
        self.source = Some((source, BTreeSet::from([sequence.into()])));
        self.received += 1;
        self.expected += 1;
        Ok(sequence.into())
    }

    /// The source now, and its numbers.
    pub fn source(&self) -> Option<(u32, &BTreeSet<i64>)> {
        self.source.as_ref().map(|(source, numbers)| (*source, numbers))
    }

    pub fn hold(&mut self, source: u32, sequence: u16) {
        if self.arrive(source, sequence).is_ok() {
            self.begin.get_or_insert(Begin::Same);
        }
    }

    /// A hold has ended.
    pub fn reopen(&mut self) {
        self.begin.get_or_insert(Begin::Same);
    }

    pub fn skip(&mut self, source: u32, sequence: u16) {
        if self.source.as_ref().is_some_and(|(now, _)| *now == source) {
            let _ = self.arrive(source, sequence);
        }
    }

    /// Outgoing number and timestamp of a packet.
    pub fn place(&mut self, packet: Numbers, now: u64) -> Result<(i64, u32), Reason> {
        let number = self.arrive(packet.source, packet.sequence)?;
        let last = self.left.last().copied();
        // So many were skipped that the gap would be more than a loss may be.
        if let (Some(last), Some(stretch)) = (last, &self.stretch)
            && number + stretch.shift > last + 1000
        {
            self.begin.get_or_insert(Begin::Same);
        }
        let begin = self.begin.take();
        if begin.is_some() {
            let next = last.map_or(self.first, |last| last + 1);
            let floor = if last.is_none() { next - 127 } else { next };
            let clock_shift = self.stretch.as_ref().map_or(0, |stretch| stretch.clock_shift);
            self.stretch = Some(Stretch { shift: next - number, floor, clock_shift });
        }
        let stretch = self.stretch.clone().unwrap();
        let out = number + stretch.shift;
        if out < stretch.floor {
            return Err(Reason::Late);
        }
        let key = (packet.source, packet.timestamp);
        let began = self.event.filter(|(had, _)| packet.event && *had == key && begin != Some(Begin::Source));
        let kept = (i64::from(packet.timestamp) + stretch.clock_shift).rem_euclid(TURN);
        let mut timestamp = began.map_or(kept, |(_, out)| out);
        if last.is_none_or(|last| out > last) {
            if began.is_none() {
                timestamp = self.clocked(packet, begin, (out, kept), now);
            }
            self.advance(packet, timestamp, now);
        }
        self.left.insert(out);
        Ok((out, u32::try_from(timestamp).unwrap()))
    }

    /// The timestamp of a packet ahead of all others, in units that its clock could have counted.
    fn clocked(&mut self, packet: Numbers, begin: Option<Begin>, (out, kept): (i64, i64), now: u64) -> i64 {
        let Some((latest, at)) = self.latest else { return kept };
        let clock = if packet.event { self.clock.unwrap_or(packet.clock) } else { packet.clock };
        let passed = i64::try_from(now - at).unwrap() * clock / 1_000_000;
        let another = self.clock.is_some_and(|had| had != clock);
        let behind = if begin.is_some() || another { 0 } else { clock };
        // These histories are shorter than half a turn.
        let step = (kept - latest + TURN / 2).rem_euclid(TURN) - TURN / 2;
        if begin != Some(Begin::Source) && step >= -behind && step <= passed + 10 * clock {
            return kept;
        }
        let timestamp = (latest + passed.max(1)).rem_euclid(TURN);
        if !packet.event || begin == Some(Begin::Source) {
            let stretch = self.stretch.as_mut().unwrap();
            stretch.clock_shift = timestamp - i64::from(packet.timestamp);
            stretch.floor = out;
        }
        timestamp
    }

    fn advance(&mut self, packet: Numbers, timestamp: i64, now: u64) {
        if packet.event {
            self.event = Some(((packet.source, packet.timestamp), timestamp));
        } else {
            self.clock = Some(packet.clock);
        }
        let newer = |(latest, _): (i64, u64)| (1..TURN / 2).contains(&(timestamp - latest).rem_euclid(TURN));
        if self.latest.is_none_or(newer) {
            self.latest = Some((timestamp, now));
        }
    }
}

/// Timestamps begin anew here.
const TURN: i64 = 1 << 32;

/// The payload of an event with its durations in time of another clock, as near as can be said.
pub fn scale(payload: &[u8], from: f64, to: f64) -> Vec<u8> {
    let block = |block: &[u8]| {
        let duration = f64::from(u16::from_be_bytes([block[2], block[3]]));
        let [high, low] = ((duration * to / from).round().min(65_535.0) as u16).to_be_bytes();
        [block[0], block[1], high, low]
    };
    payload.chunks(4).flat_map(block).collect()
}

/// Sealed under one key.
#[derive(Debug, Default)]
pub struct Sealed {
    indices: BTreeSet<i64>,
    /// Index minus outgoing number.
    shift: Option<i64>,
}

impl Sealed {
    /// Whether an outgoing number may be sealed, once.
    pub fn seal(&mut self, out: i64) -> Result<(), Reason> {
        let shift = *self.shift.get_or_insert(out.rem_euclid(1 << 16) - out);
        let index = out + shift;
        let old = self.indices.last().is_some_and(|highest| index + 128 <= *highest);
        if index < 0 || old || !self.indices.insert(index) {
            return Err(Reason::IndexReuse);
        }
        Ok(())
    }
}
