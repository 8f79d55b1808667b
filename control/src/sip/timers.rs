//! Deadlines by what they are for: whoever has none costs nothing, however many there are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// A heap of deadlines. A deadline that moves away is found too early once and set anew by its owner; one that is not
/// wanted any more is found and ignored.
#[derive(Debug)]
pub struct Timers<K>(BinaryHeap<Reverse<(Instant, K)>>);

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<K: Ord> Timers<K> {
    /// Sets a deadline.
    pub fn set(&mut self, at: Instant, key: K) {
        self.0.push(Reverse((at, key)));
    }

    /// The next deadline.
    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one that is over.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, key))| key)
    }

    /// Deadlines that wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Remembers for when its owner's next deadline is set, so that each has one in the heap, or two where one moved nearer.
#[derive(Debug, Default, Clone, Copy)]
pub struct Armed(Option<Instant>);

impl Armed {
    /// Whether a deadline is to be set for this moment: none is, or a later one.
    pub fn wants(&mut self, at: Instant) -> bool {
        let wants = self.0.is_none_or(|set| at < set);
        if wants {
            self.0 = Some(at);
        }
        wants
    }

    /// What was set has passed.
    pub fn passed(&mut self, now: Instant) {
        self.0 = self.0.filter(|at| *at > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ten_thousand_that_wait_are_not_touched() {
        let now = Instant::now();
        let mut timers = Timers::default();
        for key in 0..10_000_u64 {
            timers.set(now + Duration::from_secs(32), key);
        }
        timers.set(now + Duration::from_millis(500), 77);
        assert_eq!(timers.next(), Some(now + Duration::from_millis(500)));
        assert_eq!(timers.pop(now), None);
        assert_eq!(timers.pop(now + Duration::from_secs(1)), Some(77));
        assert_eq!(timers.pop(now + Duration::from_secs(1)), None, "one look, and no more, at the others");
        assert_eq!(timers.len(), 10_000);
    }

    #[test]
    fn a_deadline_is_set_again_only_where_it_comes_nearer() {
        let now = Instant::now();
        let mut armed = Armed::default();
        assert!(armed.wants(now + Duration::from_secs(2)));
        assert!(!armed.wants(now + Duration::from_secs(3)));
        assert!(armed.wants(now + Duration::from_secs(1)));
        armed.passed(now + Duration::from_secs(1));
        assert!(armed.wants(now + Duration::from_secs(3)));
    }
}
