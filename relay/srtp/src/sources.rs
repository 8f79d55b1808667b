//! The sources of one context: a small table, inline, and a trace of those that had to leave it.

use crate::suites::prefetch_start;

/// Synchronization sources that a context keeps apart.
pub const SOURCES: usize = 8;

/// State by SSRC, and when each was used last. Of a context with one source a packet touches the first line and that of the
/// state.
#[repr(C, align(64))]
pub struct Sources<T> {
    ssrcs: [u32; SOURCES],
    /// A bit for each place that is taken.
    taken: u8,
    /// The place used last.
    last: u8,
    clock: u64,
    used: [u64; SOURCES],
    states: [Line<T>; SOURCES],
}

/// A line of the cache of its own.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line<T>(T);

impl<T: Copy + Default> Sources<T> {
    pub fn new() -> Self {
        let states = [Line::default(); SOURCES];
        Self { ssrcs: [0; SOURCES], taken: 0, last: 0, clock: 0, used: [0; SOURCES], states }
    }

    /// The place of a source.
    #[inline]
    fn place(&self, ssrc: u32) -> Option<usize> {
        let last = usize::from(self.last) % SOURCES;
        if self.ssrcs[last] == ssrc && self.taken >> last & 1 != 0 { Some(last) } else { self.search(ssrc) }
    }

    fn search(&self, ssrc: u32) -> Option<usize> {
        let mut same = 0;
        for (at, other) in self.ssrcs.iter().enumerate() {
            same |= u8::from(*other == ssrc) << at;
        }
        let same = same & self.taken;
        (same != 0).then(|| same.trailing_zeros() as usize)
    }

    /// State of a source.
    #[inline]
    pub fn of(&self, ssrc: u32) -> Option<&T> {
        self.place(ssrc).and_then(|at| self.states.get(at)).map(|line| &line.0)
    }

    /// Whether a source has a place or could have one without another leaving.
    #[inline]
    pub fn has_room(&self, ssrc: u32) -> bool {
        self.taken != u8::MAX || self.place(ssrc).is_some()
    }

    /// Changes the state of a source, a new one from its default. When all places are taken, a new source takes that of
    /// the one used longest ago, whose SSRC is returned.
    #[inline]
    pub fn update(&mut self, ssrc: u32, change: impl FnOnce(&mut T)) -> Option<u32> {
        let last = usize::from(self.last) % SOURCES;
        if self.ssrcs[last] == ssrc && self.taken >> last & 1 != 0 {
            // The one used last need not be marked again.
            change(&mut self.states[last].0);
            return None;
        }
        self.update_other(ssrc, change)
    }

    fn update_other(&mut self, ssrc: u32, change: impl FnOnce(&mut T)) -> Option<u32> {
        let place = self.place(ssrc);
        let at = place.unwrap_or_else(|| self.oldest());
        let mut left = None;
        if place.is_none() {
            left = (self.taken >> at & 1 != 0).then_some(self.ssrcs[at]);
            self.ssrcs[at] = ssrc;
            self.states[at] = Line::default();
            self.taken |= 1 << at;
        }
        self.clock += 1;
        self.used[at] = self.clock;
        self.last = at as u8;
        change(&mut self.states[at].0);
        left
    }

    /// An empty place, else that of the source used longest ago.
    fn oldest(&self) -> usize {
        let by_use = (0..SOURCES).min_by_key(|at| (self.taken >> at & 1 != 0).then_some(self.used[*at]));
        by_use.unwrap_or(0)
    }

    /// All sources, the one used longest ago first.
    pub fn by_use(&self) -> Vec<(u32, T)> {
        let mut places: Vec<_> = (0..SOURCES).filter(|at| self.taken >> at & 1 != 0).collect();
        places.sort_by_key(|at| self.used[*at]);
        places.into_iter().map(|at| (self.ssrcs[at], self.states[at].0)).collect()
    }

    /// Fetches into the cache what the next packet is likely to need.
    pub fn prefetch(&self) {
        prefetch_start(&self.ssrcs);
        prefetch_start(&self.states[0]);
    }
}

/// Words of a [`Forgotten`].
const WORDS: usize = 64;

/// A trace of sources that had to leave: a Bloom filter of 4,096 bits, two for each. It never denies one that left; of
/// the strangers it takes less than one in a thousand for one after 64 left, one in twenty after 500.
pub struct Forgotten([u64; WORDS]);

impl Forgotten {
    pub const fn new() -> Self {
        Self([0; WORDS])
    }

    fn bits(ssrc: u32) -> [(usize, u64); 2] {
        // Multiplicative hashing: the top bits of a product with the golden ratio.
        let hash = u64::from(ssrc).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [hash >> 52, (hash >> 40) & 0xfff].map(|bit| ((bit / 64) as usize, 1 << (bit % 64)))
    }

    pub fn add(&mut self, ssrc: u32) {
        for (word, bit) in Self::bits(ssrc) {
            self.0[word] |= bit;
        }
    }

    pub fn contains(&self, ssrc: u32) -> bool {
        Self::bits(ssrc).iter().all(|(word, bit)| self.0[*word] & bit != 0)
    }

    /// Its words; none where no source has left.
    pub fn words(&self) -> Vec<u64> {
        if self.0 == [0; WORDS] { Vec::new() } else { self.0.to_vec() }
    }

    /// Adds what [`Forgotten::words`] of another gave.
    pub fn merge(&mut self, words: &[u64]) {
        for (word, other) in self.0.iter_mut().zip(words) {
            *word |= other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_used_longest_ago_leaves() {
        let mut sources = Sources::<u8>::new();
        for ssrc in 0..8 {
            assert!(sources.has_room(ssrc));
            assert_eq!(sources.update(ssrc, |state| *state += 1), None);
        }
        assert!(sources.has_room(3) && !sources.has_room(8));
        assert_eq!(sources.update(0, |state| *state += 1), None);
        assert_eq!(sources.update(8, |state| *state += 5), Some(1));
        assert_eq!((sources.of(0), sources.of(1), sources.of(8)), (Some(&2), None, Some(&5)));
        let order: Vec<u32> = sources.by_use().iter().map(|(ssrc, _)| *ssrc).collect();
        assert_eq!(order, [2, 3, 4, 5, 6, 7, 0, 8]);
    }

    #[test]
    fn who_left_is_never_denied_and_few_strangers_are_taken_for_one() {
        let ssrc = |n: u32| n.wrapping_mul(0x85eb_ca6b) ^ 0x5bd1_e995;
        let mut forgotten = Forgotten::new();
        assert!(forgotten.words().is_empty());
        (0..500).for_each(|n| forgotten.add(ssrc(n)));
        assert!((0..500).all(|n| forgotten.contains(ssrc(n))));
        let wrong = (500..10_500).filter(|n| forgotten.contains(ssrc(*n))).count();
        assert!(wrong < 600, "{wrong} of 10,000");
        let mut other = Forgotten::new();
        other.merge(&forgotten.words());
        assert_eq!(other.words(), forgotten.words());
        other.merge(&[u64::MAX; 100]);
    }
}
