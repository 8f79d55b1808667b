//! The replay window (RFC 3711 section 3.3.2): 128 indices up to the highest seen.

use std::num::NonZeroU128;

use serde::{Deserialize, Serialize};

/// Indices that the window remembers.
pub const WINDOW: u64 = 128;

/// What an index is to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Not seen yet.
    New,
    /// Seen.
    Seen,
    /// Below the window: it cannot be told.
    Old,
}

/// The highest index seen and which of the [`WINDOW`] up to it were; bit 0 stands for the highest, so one is always set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    highest: u64,
    seen: NonZeroU128,
}

impl Window {
    /// A window that has seen `index` only.
    pub(crate) const fn at(index: u64) -> Self {
        Self { highest: index, seen: NonZeroU128::MIN }
    }

    /// A window in which everything up to `index` counts as seen.
    pub(crate) const fn closed_up_to(index: u64) -> Self {
        Self { highest: index, seen: NonZeroU128::MAX }
    }

    /// The highest index seen.
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Judges an index and changes nothing.
    pub(crate) fn judge(&self, index: u64) -> Judgement {
        match self.highest.checked_sub(index) {
            None => Judgement::New,
            Some(behind) if behind >= WINDOW => Judgement::Old,
            Some(behind) if self.seen.get() & (1 << behind) != 0 => Judgement::Seen,
            Some(_) => Judgement::New,
        }
    }

    /// Marks an index as seen.
    #[inline]
    pub(crate) fn mark(&mut self, index: u64) {
        if index > self.highest {
            let below = match u32::try_from(index - self.highest) {
                Ok(ahead) => self.seen.get().checked_shl(ahead).unwrap_or(0),
                Err(_) => 0,
            };
            *self = Self { highest: index, seen: NonZeroU128::MIN | below };
        } else if self.highest - index < WINDOW {
            self.seen |= 1 << (self.highest - index);
        }
    }

    /// Marks as seen what another window has seen.
    pub(crate) fn merge(&mut self, other: Self) {
        let (high, low) = if self.highest >= other.highest { (*self, other) } else { (other, *self) };
        let behind = u32::try_from(high.highest - low.highest).unwrap_or(u32::MAX);
        let below = low.seen.get().checked_shl(behind).unwrap_or(0);
        *self = Self { highest: high.highest, seen: high.seen | below };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn edges_of_the_window() {
        let mut window = Window::at(1000);
        assert_eq!(window.judge(1000), Judgement::Seen);
        assert_eq!(window.judge(1000 - 127), Judgement::New);
        assert_eq!(window.judge(1000 - 128), Judgement::Old);
        window.merge(Window::at(1000 + 127));
        assert_eq!(window.judge(1000), Judgement::Seen);
        window.merge(Window::at(1000 + 128));
        assert_eq!(window.judge(1000), Judgement::Old);
        window.merge(Window::at(5000));
        assert_eq!((window.judge(4999), window.highest()), (Judgement::New, 5000));
        window.merge(Window::at(1));
        assert_eq!(window, Window::at(5000));
        assert_eq!(Window::closed_up_to(9).judge(3), Judgement::Seen);
    }

    /// The slow obvious model: a set of all indices seen.
    fn expected(seen: &BTreeSet<u64>, index: u64) -> Judgement {
        let highest = *seen.last().unwrap();
        if index < highest && highest - index >= WINDOW {
            Judgement::Old
        } else if seen.contains(&index) {
            Judgement::Seen
        } else {
            Judgement::New
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec(prop_oneof![20 => 0u64..600, 1 => Just(u64::MAX)], 1..400)) {
            let mut window = Window::at(steps[0]);
            let mut seen = BTreeSet::from([steps[0]]);
            for index in steps {
                prop_assert_eq!(window.judge(index), expected(&seen, index));
                let mut merged = window;
                merged.merge(Window::at(index));
                window.mark(index);
                prop_assert_eq!(window, merged);
                seen.insert(index);
            }
        }

        #[test]
        fn merging_unites(one in proptest::collection::vec(0u64..400, 1..60), other in proptest::collection::vec(0u64..400, 1..60)) {
            let window = |steps: &[u64]| {
                let mut window = Window::at(steps[0]);
                steps.iter().for_each(|index| window.merge(Window::at(*index)));
                window
            };
            let mut merged = window(&one);
            merged.merge(window(&other));
            let seen = one.iter().chain(&other).copied().collect();
            for index in 0..500 {
                prop_assert_eq!(merged.judge(index), expected(&seen, index));
            }
        }
    }
}
