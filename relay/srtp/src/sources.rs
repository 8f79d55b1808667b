//! The sources of one context: a small table, inline, and a trace of those that had to leave it.

use crate::suites::prefetch_start;

/// Synchronization sources that a context keeps apart.
pub const SOURCES: usize = 8;

/// State by SSRC, in order of use. The first source's state begins behind 40 octets: of a context with one source, which
/// begins a line of the cache, a packet touches that line alone where what it reads of the state has 24.
#[repr(C)]
pub struct Sources<T> {
    ssrcs: [u32; SOURCES],
    /// The places, four bits each, the one used longest ago in the lowest; those that nobody has had come before all others.
    order: u32,
    /// A bit for each place that is taken.
    taken: u8,
    states: [T; SOURCES],
}

/// Bits of a place in `order`.
const PLACE: u32 = u32::BITS / SOURCES as u32;

impl<T: Copy + Default> Sources<T> {
    pub fn new() -> Self {
        Self { ssrcs: [0; SOURCES], order: 0x7654_3210, taken: 0, states: [T::default(); SOURCES] }
    }

    /// The place used last.
    #[inline]
    const fn last(&self) -> usize {
        (self.order >> (u32::BITS - PLACE)) as usize % SOURCES
    }

    /// The place of a source.
    #[inline]
    fn place(&self, ssrc: u32) -> Option<usize> {
        let last = self.last();
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
        self.place(ssrc).and_then(|at| self.states.get(at))
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
        let last = self.last();
        if self.ssrcs[last] == ssrc && self.taken >> last & 1 != 0 {
            // The one used last need not be marked again.
            change(&mut self.states[last]);
            return None;
        }
        self.update_other(ssrc, change)
    }

    fn update_other(&mut self, ssrc: u32, change: impl FnOnce(&mut T)) -> Option<u32> {
        let place = self.place(ssrc);
        let at = place.unwrap_or(self.order as usize % SOURCES);
        let mut left = None;
        if place.is_none() {
            left = (self.taken >> at & 1 != 0).then_some(self.ssrcs[at]);
            self.ssrcs[at] = ssrc;
            self.states[at] = T::default();
            self.taken |= 1 << at;
        }
        self.touch(at);
        change(&mut self.states[at]);
        left
    }

    /// Moves a place behind all others.
    fn touch(&mut self, at: usize) {
        let mut others = 0;
        for place in self.places().filter(|place| *place != at) {
            others = others >> PLACE | (place as u32) << (u32::BITS - PLACE);
        }
        self.order = others >> PLACE | (at as u32) << (u32::BITS - PLACE);
    }

    /// The places, the one used longest ago first.
    fn places(&self) -> impl Iterator<Item = usize> + use<T> {
        let order = self.order;
        (0..SOURCES as u32).map(move |at| (order >> (at * PLACE)) as usize % SOURCES)
    }

    /// All sources, the one used longest ago first.
    pub fn by_use(&self) -> Vec<(u32, T)> {
        let taken = self.places().filter(|at| self.taken >> at & 1 != 0);
        taken.map(|at| (self.ssrcs[at], self.states[at])).collect()
    }

    /// Fetches into the cache what the next packet is likely to need.
    #[inline]
    pub fn prefetch(&self) {
        prefetch_start(&self.ssrcs);
    }
}

/// Words of a [`Forgotten`].
const WORDS: usize = 32;

/// A trace of sources that had to leave: a Bloom filter of 2,048 bits, two for each. It never denies one that left; of
/// the strangers it takes less than one in two hundred for one after 64 left, one in six after 500.
pub struct Forgotten([u64; WORDS]);

impl Forgotten {
    pub const fn new() -> Self {
        Self([0; WORDS])
    }

    fn bits(ssrc: u32) -> [(usize, u64); 2] {
        // Multiplicative hashing: the top bits of a product with the golden ratio.
        let hash = u64::from(ssrc).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [hash >> 52, hash >> 40].map(|bit| ((bit / 64) as usize % WORDS, 1 << (bit % 64)))
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

    /// Adds what [`Forgotten::words`] of another gave. One that is longer is folded: where a bit lies in the longer one says
    /// where it lies in this.
    pub fn merge(&mut self, words: &[u64]) {
        for words in words.chunks(WORDS) {
            for (word, other) in self.0.iter_mut().zip(words) {
                *word |= other;
            }
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
        assert!(wrong < 1800, "{wrong} of 10,000");
        let mut other = Forgotten::new();
        other.merge(&forgotten.words());
        assert_eq!(other.words(), forgotten.words());
        other.merge(&[u64::MAX; 100]);
    }

    /// As relays before this one kept it: 64 words.
    #[test]
    fn a_longer_trace_is_folded() {
        let mut words = [0u64; 64];
        let hash = |ssrc: u32| u64::from(ssrc).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for ssrc in 0..40 {
            for bit in [hash(ssrc) >> 52, (hash(ssrc) >> 40) & 0xfff] {
                words[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        let mut forgotten = Forgotten::new();
        forgotten.merge(&words);
        assert!((0..40).all(|ssrc| forgotten.contains(ssrc)));
        assert!((40..140).filter(|ssrc| forgotten.contains(*ssrc)).count() < 5);
    }
}
