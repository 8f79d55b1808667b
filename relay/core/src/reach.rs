//! How far the numbers of a stream may go: no farther than a restart steps over.
//!
//! Whoever keeps checkpoints says which one is written; the next relay would go on `ahead` numbers behind what that has. Nothing
//! beyond leaves, whatever a source sends or skips, so that no number is ever used by both relays.
//!
//! ```text
//!   kept ──── a quarter ──── three quarters ──── 128 less ──── kept + ahead
//!              ask to be kept        leave no gaps    packets of our own alone
//! ```

use crate::stream::is_before;

/// Numbers that are left to what a direction sends by itself (digits).
const OWN: u32 = 128;

/// Whether the stream is to be kept before its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    No,
    Wanted,
    Asked,
}

/// What becomes of a number beyond a quarter of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It may be used.
    Take,
    /// The one behind the last may be used instead: the gap would take too much of what is left.
    Close,
    /// None may be.
    Stop,
}

/// Numbers that may be used. Extended to 32 bits, compared by serial number arithmetic.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// A quarter of the room is used up behind this.
    early: u32,
    /// Numbers behind what is kept that a restart steps over; 0 where nobody keeps anything.
    ahead: u16,
    ask: Ask,
}

impl Reach {
    /// Without a bound, for a stream that nobody keeps. `last`: the number in front of the first.
    pub const fn unbounded(last: u32) -> Self {
        Self { early: last.wrapping_add(1 << 30), ahead: 0, ask: Ask::No }
    }

    /// Up to `ahead` numbers behind `kept`.
    pub const fn behind(kept: u32, ahead: u16) -> Self {
        Self { early: kept.wrapping_add(ahead as u32 / 4), ahead, ask: Ask::No }
    }

    /// Behind the same number, where a restart steps over another count.
    pub fn stepping(&mut self, ahead: u16) {
        if self.ahead != 0 && self.ahead != ahead {
            *self = Self::behind(self.early.wrapping_sub(u32::from(self.ahead) / 4), ahead);
        }
    }

    /// Whether a number lies beyond a quarter of the room, so that [`Self::step`] is to be asked.
    #[inline]
    pub fn is_near(&self, number: u32) -> bool {
        is_before(self.early, number)
    }

    /// What becomes of a number behind the last one.
    pub fn step(&mut self, last: u32, number: u32) -> Step {
        if self.ahead == 0 {
            self.early = number.wrapping_add(1 << 30);
            return Step::Take;
        }
        if self.ask == Ask::No {
            self.ask = Ask::Wanted;
        }
        let (end, next) = (self.end().wrapping_sub(OWN), last.wrapping_add(1));
        let gaps = end.wrapping_sub(u32::from(self.ahead) / 4);
        if is_before(end, next) {
            Step::Stop
        } else if number != next && is_before(gaps, number) {
            Step::Close
        } else {
            Step::Take
        }
    }

    /// Whether a packet of our own may have the number.
    pub fn has(&self, number: u32) -> bool {
        self.ahead == 0 || !is_before(self.end(), number)
    }

    /// Whether the stream is to be kept before its turn.
    #[inline]
    pub fn asks(&self) -> bool {
        self.ask == Ask::Wanted
    }

    /// It is under way to be kept.
    pub fn is_asked(&mut self) {
        self.ask = Ask::Asked;
    }

    /// The last number that a restart steps over.
    fn end(&self) -> u32 {
        let ahead = u32::from(self.ahead);
        self.early.wrapping_add(ahead - ahead / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_one_by_one_to_the_end_and_gaps_leave_a_quarter() {
        for kept in [0, 65_000, u32::MAX - 700] {
            let mut reach = Reach::behind(kept, 2048);
            let at = |numbers: u32| kept.wrapping_add(numbers);
            assert!(!reach.is_near(at(512)) && reach.is_near(at(513)) && !reach.asks());
            assert_eq!(reach.step(at(400), at(1408)), Step::Take, "a gap of a thousand");
            assert!(reach.asks());
            assert_eq!(reach.step(at(400), at(1409)), Step::Close);
            assert_eq!(reach.step(at(1408), at(1409)), Step::Take);
            assert_eq!(reach.step(at(1919), at(1920)), Step::Take);
            assert_eq!(reach.step(at(1920), at(1921)), Step::Stop);
            assert_eq!(reach.step(at(1920), at(2900)), Step::Stop);
            assert!(reach.has(at(2048)) && !reach.has(at(2049)));
        }
    }

    #[test]
    fn what_nobody_keeps_has_no_end() {
        let mut reach = Reach::unbounded(u32::MAX - 5);
        let mut last = u32::MAX - 5;
        for _ in 0..12 {
            let number = last.wrapping_add(1 << 29);
            assert!(!reach.is_near(number) || reach.step(last, number) == Step::Take);
            last = number;
        }
        assert!(reach.has(last) && !reach.asks());
    }

    #[test]
    fn it_is_little_beside_a_stream() {
        assert!(size_of::<Reach>() <= 8);
    }
}
