//! The replay window (RFC 3711 section 3.3.2): 128 indices up to the highest seen.

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

/// The highest index seen and which of the 128 up to it were; bit 0 stands for the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    highest: u64,
    seen: u128,
}

impl Window {
    /// A window that has seen `index` only.
    pub const fn at(index: u64) -> Self {
        Self { highest: index, seen: 1 }
    }

    /// A window in which everything up to `index` counts as seen.
    pub const fn closed_up_to(index: u64) -> Self {
        Self { highest: index, seen: u128::MAX }
    }

    /// The highest index seen.
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Judges an index and changes nothing.
    pub fn judge(&self, index: u64) -> Judgement {
        match self.highest.checked_sub(index) {
            None => Judgement::New,
            Some(behind) if behind >= WINDOW => Judgement::Old,
            Some(behind) if self.seen & (1 << behind) != 0 => Judgement::Seen,
            Some(_) => Judgement::New,
        }
    }

    /// Marks an index as seen.
    pub fn commit(&mut self, index: u64) {
        match self.highest.checked_sub(index) {
            None => {
                let ahead = index - self.highest;
                self.seen = if ahead >= WINDOW { 1 } else { (self.seen << ahead) | 1 };
                self.highest = index;
            }
            Some(behind) if behind < WINDOW => self.seen |= 1 << behind,
            Some(_) => {}
        }
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
        window.commit(1000 + 127);
        assert_eq!(window.judge(1000), Judgement::Seen);
        window.commit(1000 + 128);
        assert_eq!(window.judge(1000), Judgement::Old);
        window.commit(5000);
        assert_eq!((window.judge(4999), window.highest()), (Judgement::New, 5000));
        assert_eq!(Window::closed_up_to(9).judge(3), Judgement::Seen);
    }

    proptest! {
        /// The slow obvious model: a set of all indices seen.
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec(0u64..600, 1..400)) {
            let mut window = Window::at(steps[0]);
            let mut seen = BTreeSet::from([steps[0]]);
            for index in steps {
                let highest = *seen.last().unwrap();
                let expected = if seen.contains(&index) && index + WINDOW > highest { Judgement::Seen }
                    else if index + WINDOW <= highest { Judgement::Old } else { Judgement::New };
                prop_assert_eq!(window.judge(index), expected);
                if expected == Judgement::New {
                    window.commit(index);
                    seen.insert(index);
                }
            }
        }
    }
}
