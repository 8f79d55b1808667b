//! The translator, sans-IO: plans in, packets in, verdicts out.
//!
//! One [`Translator`] belongs to one worker. It is told what to do by [`Translator::install`] and [`Translator::remove`]
//! and asked about packets by [`Translator::translate`] and [`Translator::unknown`], in any order; after each, events may
//! be waiting in [`Translator::poll_event`], and [`Translator::poll_timeout`] says when it wants to be woken.
//!
//! Contract: a [`Verdict::Drop`] has counted exactly one [`Reason`]; a [`Verdict::Punt`] leaves the bytes as they came;
//! only a [`Cleared`] packet is forwarded, and nobody else can make one. No clock, no socket, no lock; nothing is
//! allocated per packet.

#![forbid(unsafe_code)]

mod checkpoint;
mod consent;
mod direction;
mod install;
mod ledger;
mod limit;
mod packet;
mod reason;
mod rtcp;
mod stats;
mod stream;
mod table;
mod translator;

pub use checkpoint::{Checkpoint, DirectionState};
pub use ledger::KeyId;
pub use packet::{Cleared, Payload, Verdict};
pub use reason::Reason;
pub use stream::StreamState;
pub use table::{DirectionId, Tag};
pub use translator::{CoreEvent, FlowChanges, Limits, Removed, Translator};

/// Monotonic time in microseconds; its zero is the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(pub u64);

impl Now {
    /// Later by so many microseconds.
    #[must_use]
    pub const fn plus(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds since `earlier`, 0 where that lies ahead.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
