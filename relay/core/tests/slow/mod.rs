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

/// What a stream has done so far.
#[derive(Debug)]
pub struct Stream {
    /// The source now, and the incoming numbers of it since it (re)started.
    source: Option<(u32, BTreeSet<i64>)>,
    first_of_source: i64,
    stretch: Option<Stretch>,
    /// What the next packet that leaves begins: a stretch, with a new clock or the old one.
    begin: Option<bool>,
    /// All outgoing numbers that were given out, with timestamp and time.
    left: BTreeMap<i64, (i64, u64)>,
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
            stretch: None,
            begin: None,
            left: BTreeMap::new(),
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

    fn arrive(&mut self, source: u32, sequence: u16) -> i64 {
        self.received += 1;
        if let Some((now, numbers)) = &self.source
            && *now == source
        {
            let highest = *numbers.last().unwrap();
            let number = nearest(sequence.into(), highest, 16);
            if number > highest - 128 && number <= highest + 1000 {
                self.expected += (number - highest).max(0);
                let recent = number > highest - 64;
                let again = recent && number >= self.first_of_source && numbers.contains(&number);
                if number > highest {
                    self.settle(number - 63);
                } else {
                    *(if again { &mut self.duplicates } else { &mut self.reordered }) += 1;
                }
                self.source.as_mut().unwrap().1.insert(number);
                return number;
            }
        }
        let number = i64::from(sequence);
        if let Some((_, numbers)) = &self.source {
            self.settle(*numbers.last().unwrap() + 1);
        }
        self.first_of_source = number;
        self.source = Some((source, BTreeSet::from([number])));
        self.expected += 1;
        self.begin = Some(true);
        number
    }

    /// The source now, and its numbers.
    pub fn source(&self) -> Option<(u32, &BTreeSet<i64>)> {
        self.source.as_ref().map(|(source, numbers)| (*source, numbers))
    }

    pub fn hold(&mut self, source: u32, sequence: u16) {
        self.arrive(source, sequence);
        self.begin.get_or_insert(false);
    }

    pub fn skip(&mut self, source: u32, sequence: u16) {
        if self.source.as_ref().is_some_and(|(now, _)| *now == source) {
            self.arrive(source, sequence);
        }
    }

    /// Outgoing number and timestamp of a packet.
    pub fn place(
        &mut self,
        source: u32,
        sequence: u16,
        timestamp: u32,
        now: u64,
    ) -> Result<(i64, u32), Reason> {
        let number = self.arrive(source, sequence);
        // So many were skipped that the gap would be more than a loss may be.
        if let (Some((last, _)), Some(stretch)) = (self.left.last_key_value(), &self.stretch)
            && number + stretch.shift > last + 1000
        {
            self.begin.get_or_insert(false);
        }
        if let Some(new_clock) = self.begin.take() {
            let last = self.left.last_key_value().map(|(last, (timestamp, at))| (*last, *timestamp, *at));
            let clock_shift = match last {
                None => 0,
                Some((_, last_timestamp, at)) if new_clock => {
                    let passed = ((now - at) * 8000 / 1_000_000).max(1);
                    last_timestamp + i64::try_from(passed).unwrap() - i64::from(timestamp)
                }
                Some(_) => self.stretch.as_ref().unwrap().clock_shift,
            };
            let next = last.map_or(self.first, |(last, ..)| last + 1);
            let floor = if last.is_none() { next - 127 } else { next };
            self.stretch = Some(Stretch { shift: next - number, floor, clock_shift });
        }
        let stretch = self.stretch.as_ref().unwrap();
        let out = number + stretch.shift;
        if out < stretch.floor {
            return Err(Reason::Late);
        }
        let clock = (i64::from(timestamp) + stretch.clock_shift).rem_euclid(1 << 32);
        self.left.entry(out).or_insert((clock, now));
        Ok((out, u32::try_from(clock).unwrap()))
    }
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
