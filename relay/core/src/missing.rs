//! What is missing of a picture's packets: which may still come by retransmission, and which their sender is asked for by NACK
//! (RFC 4585 section 6.2.1).
//!
//! A gap is left alone for a moment, since packets overtake each other. Then each packet is asked for once in a round trip, a
//! few times, while it is young enough to be shown. What does not come then is given up: a whole picture is asked for.

use arrayvec::ArrayVec;

use crate::Now;
use crate::feedback::LOST;
use crate::stream::{JUMP, LATE};

/// Packets that are kept in mind.
const KEPT: usize = 256;
/// Milliseconds for which one that was overtaken may be late before it is asked for, and between two questions.
const REORDER: u32 = 10;
/// How often one packet is asked for at the most, and for how many milliseconds.
const TRIES: u8 = 8;
const YOUNG: u32 = 1000;
/// Milliseconds between two questions about one packet: a round trip and a half, within these bounds, or where it is not known
/// the third.
const PATIENCE: [u32; 3] = [20, 300, 100];

/// A packet that has not come; times in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Its number, extended.
    number: u32,
    /// When a later one came.
    since: u32,
    /// When it was asked for last.
    asked: u32,
    tries: u8,
}

impl Entry {
    /// When it is to be asked for, or given up.
    fn due(&self, patience: u32) -> u32 {
        if self.tries == 0 { self.since.wrapping_add(REORDER) } else { self.asked.wrapping_add(patience) }
    }

    fn is_given_up(&self, now: u32) -> bool {
        self.tries >= TRIES || now.wrapping_sub(self.since) >= YOUNG
    }
}

/// What is missing of one source, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Missing {
    ssrc: Option<u32>,
    /// Its highest number, extended.
    highest: u32,
    entries: ArrayVec<Entry, KEPT>,
}

/// What its sender is to be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Packets, by their numbers.
    pub numbers: ArrayVec<u16, LOST>,
    /// How many are given up.
    pub given_up: u64,
    /// When there will be something to ask again; `None` while nothing is missing.
    pub next: Option<Now>,
}

impl Missing {
    /// A packet came. `begins`: its source begins anew, and what was missing is of no use to anybody.
    pub fn arrive(&mut self, ssrc: u32, sequence: u16, begins: bool, now: Now) {
        let step = sequence.wrapping_sub(low(self.highest)).cast_signed();
        if begins || self.ssrc != Some(ssrc) || step > JUMP || step <= LATE {
            // Far enough above 0 that earlier ones have numbers, too.
            *self = Self { ssrc: Some(ssrc), highest: 1 << 16 | u32::from(sequence), ..Self::default() };
        } else if step == 1 {
            self.highest = self.highest.wrapping_add(1);
        } else if step > 0 {
            self.skip(u32::from(step.unsigned_abs()), now);
        } else {
            self.take(ssrc, sequence, LATE.unsigned_abs());
        }
    }

    /// All between the highest one and one that is `step` above it are missing.
    #[cold]
    fn skip(&mut self, step: u32, now: Now) {
        let end = self.highest.wrapping_add(step);
        let new = (step as usize - 1).min(KEPT);
        // The oldest have no place any more.
        let surplus = (self.entries.len() + new).saturating_sub(KEPT);
        self.entries.drain(..surplus);
        let since = millis(now);
        let first = end.wrapping_sub(new as u32);
        let entry = |at| Entry { number: first.wrapping_add(at), since, asked: since, tries: 0 };
        self.entries.extend((0..new as u32).map(entry));
        self.highest = end;
    }

    /// Whether a packet was missing, no further than `reach` behind the highest; it is not any more.
    pub fn take(&mut self, ssrc: u32, sequence: u16, reach: u16) -> bool {
        let behind = low(self.highest).wrapping_sub(sequence);
        let found = self.place(sequence);
        let Some(at) = found.filter(|_| self.ssrc == Some(ssrc) && behind < reach) else { return false };
        self.entries.remove(at);
        true
    }

    /// Whether one is missing that its sender is or will be asked for from here.
    pub fn contains(&self, sequence: u16) -> bool {
        self.place(sequence).is_some()
    }

    /// Where it is among the entries, which lie in order.
    fn place(&self, sequence: u16) -> Option<usize> {
        let behind = low(self.highest).wrapping_sub(sequence);
        let number = self.highest.wrapping_sub(u32::from(behind));
        self.entries.binary_search_by_key(&0, |entry| entry.number.wrapping_sub(number).cast_signed()).ok()
    }

    /// Whether anything is missing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Nothing is missing that anybody needs.
    pub fn forget(&mut self) {
        self.entries.clear();
    }

    /// When what is missing since now is to be asked for.
    pub fn first_due(now: Now) -> Now {
        now.plus(u64::from(REORDER) * 1000)
    }

    /// What its sender is to be asked for now; `round_trip` to it, microseconds. What lies `reach` or more behind the highest
    /// nobody could take any more. `has_place`: whether a packet could still leave, by its number.
    pub fn ask(
        &mut self,
        round_trip: Option<u32>,
        reach: u16,
        now: Now,
        has_place: impl Fn(u16) -> bool,
    ) -> Wanted {
        let [least, most, unknown] = PATIENCE;
        let patience = round_trip.map_or(unknown, |micros| (micros / 2000 * 3).clamp(least, most));
        let mut wanted = Wanted::default();
        let (at, highest) = (millis(now), self.highest);
        self.entries.retain(|entry| {
            let open = has_place(low(entry.number));
            let too_far = highest.wrapping_sub(entry.number) >= u32::from(reach);
            let is_due = at.wrapping_sub(entry.due(patience)).cast_signed() >= 0;
            if !open || too_far || (is_due && entry.is_given_up(at)) {
                wanted.given_up += u64::from(open);
                return false;
            }
            if is_due && wanted.numbers.try_push(low(entry.number)).is_ok() {
                (entry.asked, entry.tries) = (at, entry.tries + 1);
            }
            true
        });
        let waits = self.entries.iter().map(|entry| entry.due(patience).wrapping_sub(at).cast_signed());
        let wait = waits.min().map(|wait| wait.max(0).unsigned_abs().max(REORDER));
        wanted.next = wait.map(|wait| now.plus(u64::from(wait) * 1000));
        wanted
    }
}

fn low(extended: u32) -> u16 {
    (extended & 0xffff) as u16
}

fn millis(now: Now) -> u32 {
    ((now.0 / 1000) & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const FAR: u16 = JUMP.unsigned_abs();

    const fn at(ms: u64) -> Now {
        Now(ms * 1000)
    }

    fn after(numbers: &[u16]) -> Missing {
        let mut missing = Missing::default();
        numbers.iter().for_each(|number| missing.arrive(7, *number, false, at(1000)));
        missing
    }

    fn asks(missing: &mut Missing, ms: u64) -> Vec<u16> {
        missing.ask(Some(40_000), FAR, at(ms), |_| true).numbers.to_vec()
    }

    #[test]
    fn a_gap_is_asked_for_once_nobody_can_have_been_overtaken_then_once_a_round_trip() {
        let mut missing = after(&[65_533, 65_534, 2, 65_535]);
        assert_eq!(asks(&mut missing, 1009), []);
        assert_eq!(asks(&mut missing, 1010), [0, 1]);
        assert_eq!(asks(&mut missing, 1069), []);
        assert!(missing.take(7, 0, 128) && !missing.take(7, 0, 128) && !missing.take(8, 1, 128));
        let wanted = missing.ask(Some(40_000), FAR, at(1070), |_| true);
        assert_eq!((wanted.numbers.to_vec(), wanted.next), (vec![1], Some(at(1130))));
        missing.arrive(7, 1, false, at(1080));
        assert_eq!(missing.ask(None, FAR, at(2000), |_| true), Wanted::default());
    }

    #[test]
    fn what_does_not_come_is_given_up() {
        let mut missing = after(&[1, 3]);
        let (mut asked, mut given_up, mut now) = (0, 0, 1000);
        while !missing.is_empty() {
            let wanted = missing.ask(Some(40_000), FAR, at(now), |_| true);
            asked += wanted.numbers.len();
            given_up += wanted.given_up;
            now += 1;
        }
        assert_eq!((asked, given_up), (usize::from(TRIES), 1));
        let mut missing = after(&[1, 3]);
        let wanted = missing.ask(None, FAR, at(1010), |_| false);
        assert_eq!(
            (wanted.numbers.len(), wanted.given_up),
            (0, 0),
            "of what has no place any more nothing is lost"
        );
        let mut missing = after(&[1, 3, 2002, 2003]);
        assert_eq!(asks(&mut missing, 1010), [], "a source that begins anew");
        missing.arrive(8, 9, false, at(1020));
        missing.arrive(8, 11, false, at(1020));
        assert_eq!(asks(&mut missing, 1030), [10]);
    }

    #[test]
    fn what_nobody_could_take_any_more_is_given_up_at_once() {
        let mut missing = after(&[1, 200]);
        let wanted = missing.ask(None, 128, at(1010), |_| true);
        assert_eq!((wanted.numbers.first(), wanted.given_up), (Some(&73), 198 - 127));
        let mut missing = after(&[1, 200]);
        assert_eq!(missing.ask(None, FAR, at(1010), |_| true).given_up, 0);
    }

    proptest! {
        /// Whatever arrives in whatever order: what is asked for has not come, no packet more often than may be, nothing old.
        #[test]
        fn only_what_is_missing_and_young_is_asked_for(
            steps in prop::collection::vec((0u16..6, 0u64..40, any::<bool>(), 0u16..100), 1..400),
        ) {
            let mut missing = Missing::default();
            let (mut number, mut now) = (65_000u16, 1_000u64);
            missing.arrive(7, number, false, at(now));
            let mut came = BTreeSet::from([number]);
            let mut tries: BTreeMap<u16, u8> = BTreeMap::new();
            let mut left: BTreeMap<u16, u64> = BTreeMap::new();
            for (step, wait, late, back) in steps {
                now += wait;
                let arrives = if late { number.wrapping_sub(back) } else { number.wrapping_add(step) };
                if !late {
                    left.extend((1..step).map(|at| (number.wrapping_add(at), now)));
                    number = arrives;
                }
                came.insert(arrives);
                missing.arrive(7, arrives, false, at(now));
                let wanted = missing.ask(Some(10_000), FAR, at(now), |_| true);
                for asked in wanted.numbers {
                    prop_assert!(!came.contains(&asked));
                    *tries.entry(asked).or_default() += 1;
                    prop_assert!(tries[&asked] <= TRIES);
                    prop_assert!(now - left[&asked] < u64::from(YOUNG) && now - left[&asked] >= u64::from(REORDER));
                }
            }
        }
    }
}
