//! The sources of one context: a small table, inline.

/// Synchronization sources that a context keeps apart.
pub const SOURCES: usize = 8;

/// State by SSRC. When all places are taken, a new source takes the one that was used longest ago.
pub struct Sources<T> {
    entries: [Option<Entry<T>>; SOURCES],
    clock: u64,
}

struct Entry<T> {
    ssrc: u32,
    used: u64,
    state: T,
}

impl<T: Copy> Sources<T> {
    pub const fn new() -> Self {
        Self { entries: [const { None }; SOURCES], clock: 0 }
    }

    /// State of a source.
    pub fn of(&self, ssrc: u32) -> Option<T> {
        self.entries.iter().flatten().find(|entry| entry.ssrc == ssrc).map(|entry| entry.state)
    }

    /// Sets the state of a source.
    pub fn set(&mut self, ssrc: u32, state: T) {
        self.clock += 1;
        let entry = Entry { ssrc, used: self.clock, state };
        let place = self.entries.iter().position(|place| place.as_ref().is_some_and(|entry| entry.ssrc == ssrc));
        let place = place.or_else(|| self.entries.iter().position(Option::is_none));
        let oldest = || (0..SOURCES).min_by_key(|at| self.entries[*at].as_ref().map_or(0, |entry| entry.used));
        if let Some(place) = place.or_else(oldest) {
            self.entries[place] = Some(entry);
        }
    }

    /// Whether another source still has a place of its own.
    pub fn has_room(&self) -> bool {
        self.entries.iter().any(Option::is_none)
    }

    /// All sources.
    pub fn iter(&self) -> impl Iterator<Item = (u32, T)> + '_ {
        self.entries.iter().flatten().map(|entry| (entry.ssrc, entry.state))
    }
}
