//! The sources of one context: a small table, inline, and a trace of those that had to leave it.

/// Synchronization sources that a context keeps apart.
pub const SOURCES: usize = 8;

/// State by SSRC, and when each was used last.
pub struct Sources<T> {
    entries: [Option<Entry<T>>; SOURCES],
    clock: u64,
}

struct Entry<T> {
    ssrc: u32,
    used: u64,
    state: T,
}

impl<T: Copy + Default> Sources<T> {
    pub const fn new() -> Self {
        Self { entries: [const { None }; SOURCES], clock: 0 }
    }

    /// State of a source.
    pub fn of(&self, ssrc: u32) -> Option<T> {
        self.entries.iter().flatten().find(|entry| entry.ssrc == ssrc).map(|entry| entry.state)
    }

    /// Whether a source has a place or could have one without another leaving.
    pub fn has_room(&self, ssrc: u32) -> bool {
        self.entries.iter().any(|place| place.as_ref().is_none_or(|entry| entry.ssrc == ssrc))
    }

    /// Changes the state of a source, a new one from its default. When all places are taken, a new source takes that of
    /// the one used longest ago, whose SSRC is returned.
    pub fn update(&mut self, ssrc: u32, change: impl FnOnce(&mut T)) -> Option<u32> {
        self.clock += 1;
        let used = self.clock;
        if let Some(entry) = self.entries.iter_mut().flatten().find(|entry| entry.ssrc == ssrc) {
            entry.used = used;
            change(&mut entry.state);
            return None;
        }
        let mut state = T::default();
        change(&mut state);
        // An empty place counts as used before all others.
        let oldest =
            self.entries.iter_mut().min_by_key(|place| place.as_ref().map_or(0, |entry| entry.used))?;
        oldest.replace(Entry { ssrc, used, state }).map(|entry| entry.ssrc)
    }

    /// All sources, the one used longest ago first.
    pub fn by_use(&self) -> Vec<(u32, T)> {
        let mut entries: Vec<_> = self.entries.iter().flatten().collect();
        entries.sort_by_key(|entry| entry.used);
        entries.into_iter().map(|entry| (entry.ssrc, entry.state)).collect()
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
        assert_eq!((sources.of(0), sources.of(1), sources.of(8)), (Some(2), None, Some(5)));
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
