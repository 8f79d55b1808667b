//! The replay window (RFC 3711 section 3.3.2): 128 indices up to the highest seen.

use std::num::NonZeroU64;

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
///
/// In three words, where one of 128 bits would want a fourth for its alignment and a fifth for an `Option` around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Whole", into = "Whole")]
pub struct Window {
    highest: u64,
    /// The 64 up to the highest.
    near: NonZeroU64,
    /// The 64 below.
    far: u64,
}

const _: () = assert!(size_of::<Option<Window>>() == 24);

/// A window as it is kept over restarts.
#[derive(Serialize, Deserialize)]
struct Whole {
    highest: u64,
    seen: u128,
}

impl From<Whole> for Window {
    fn from(whole: Whole) -> Self {
        Self::new(whole.highest, whole.seen)
    }
}

impl From<Window> for Whole {
    fn from(window: Window) -> Self {
        Self { highest: window.highest, seen: window.seen() }
    }
}

impl Window {
    /// The highest one counts as seen, whatever the bits say.
    #[inline]
    const fn new(highest: u64, seen: u128) -> Self {
        let (near, far) = (seen as u64, (seen >> 64) as u64);
        // The lowest bit is set, so the other arm is never taken.
        let near = match NonZeroU64::new(near | 1) {
            Some(near) => near,
            None => NonZeroU64::MIN,
        };
        Self { highest, near, far }
    }

    #[inline]
    const fn seen(&self) -> u128 {
        (self.far as u128) << 64 | self.near.get() as u128
    }

    /// A window that has seen `index` only.
    pub(crate) const fn at(index: u64) -> Self {
        Self::new(index, 1)
    }

    /// A window in which everything up to `index` counts as seen.
    pub(crate) const fn closed_up_to(index: u64) -> Self {
        Self::new(index, u128::MAX)
    }

    /// The highest index seen.
    #[inline]
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Judges an index and changes nothing.
    #[inline]
    pub(crate) fn judge(&self, index: u64) -> Judgement {
        match self.highest.checked_sub(index) {
            None => Judgement::New,
            Some(behind) if behind >= WINDOW => Judgement::Old,
            Some(behind) if self.seen() & (1 << behind) != 0 => Judgement::Seen,
            Some(_) => Judgement::New,
        }
    }

    /// Marks an index as seen.
    #[inline]
    pub(crate) fn mark(&mut self, index: u64) {
        if index > self.highest {
            let below = match u32::try_from(index - self.highest) {
                Ok(ahead) => self.seen().checked_shl(ahead).unwrap_or(0),
                Err(_) => 0,
            };
            *self = Self::new(index, below | 1);
        } else if self.highest - index < WINDOW {
            *self = Self::new(self.highest, self.seen() | 1 << (self.highest - index));
        }
    }

    /// Marks as seen what another window has seen.
    pub(crate) fn merge(&mut self, other: Self) {
        let (high, low) = if self.highest >= other.highest { (*self, other) } else { (other, *self) };
        let behind = u32::try_from(high.highest - low.highest).unwrap_or(u32::MAX);
        let below = low.seen().checked_shl(behind).unwrap_or(0);
        *self = Self::new(high.highest, high.seen() | below);
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
