//! What the relay was told of a call, and what it has: versions of the plan, one in flight at a time.

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Relayed {
    /// Version that was sent last.
    pub sent: u32,
    /// Version that the relay has.
    pub installed: u32,
    /// Whether the relay has not answered the last one yet.
    pub in_flight: bool,
    /// Whether what the plan says has changed since it was sent.
    pub stale: bool,
    /// Whether the last one has the keys of all its directions.
    pub complete: bool,
    /// Whether the relay is away.
    pub away: bool,
}

impl Relayed {
    /// Whether the next version can go out now; else it is due when the relay has answered, or is back.
    pub fn takes_next(&mut self) -> bool {
        let waits = self.in_flight || self.away;
        self.stale |= waits;
        !waits
    }

    /// The version that says all there is to say by now.
    pub const fn next(&self) -> u32 {
        if self.stale { self.sent + 1 } else { self.sent }
    }

    /// A version went out.
    pub fn sends(&mut self, version: u32, complete: bool) {
        (self.sent, self.in_flight, self.stale, self.complete) = (version, true, false, complete);
    }

    /// The relay has this version.
    pub fn has(&mut self, version: u32) {
        (self.in_flight, self.installed) = (false, version);
    }

    /// The relay is back and has this version; whether that is not what it should have. What was on its way may have arrived
    /// or not.
    pub fn returns(&mut self, version: u32) -> bool {
        let behind = version != self.sent || self.stale;
        self.away = false;
        self.has(version);
        self.sent = self.sent.max(version);
        behind
    }
}
