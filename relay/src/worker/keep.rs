//! Indices that are kept for a restart: taken here, written by the uplink.

use sallyport_core::{Checkpoint, Now};

use super::Running;
use crate::orders::Notice;

/// How often indices are kept for a restart, in microseconds.
const CHECKPOINT_INTERVAL: u64 = 1_000_000;
/// Calls whose indices are kept in one turn.
const CHECKPOINTS: usize = 16;

impl<N: Fn(Notice) -> bool> Running<N> {
    /// When the next group of calls is due to have its indices kept.
    pub(super) fn keeps_at(&self) -> Option<Now> {
        let done = self.round.saturating_sub(self.unkept.len()) as u64;
        let passed = done * CHECKPOINT_INTERVAL / (self.round as u64).max(1);
        (!self.unkept.is_empty()).then(|| self.kept.plus(passed))
    }

    /// Has the indices of each call kept once an interval, spread over it: all at once would hold up their packets. Those that a
    /// restart would soon not step over do not wait for their turn.
    pub(super) fn keep(&mut self, now: Now) {
        if self.unkept.is_empty() && now.since(self.kept) >= CHECKPOINT_INTERVAL {
            self.kept = now;
            self.unkept.extend(self.worker.translator.calls().map(|(call, _)| call));
            self.round = self.unkept.len();
        }
        let due = self.keeps_at().is_some_and(|at| at <= now);
        let mut calls =
            self.unkept.split_off(self.unkept.len().saturating_sub(if due { CHECKPOINTS } else { 0 }));
        calls.extend(std::iter::from_fn(|| self.worker.translator.poll_hasty()));
        let kept = calls.into_iter().filter_map(|call| self.worker.translator.checkpoint_of(call));
        let checkpoints: Vec<Checkpoint> = kept.collect();
        if !checkpoints.is_empty() {
            (self.notify)(Notice::Checkpoint(checkpoints));
        }
    }

    /// Checkpoints are written: what waited for that may leave.
    pub(super) fn kept(&mut self, checkpoints: &[Checkpoint]) {
        checkpoints.iter().for_each(|checkpoint| self.worker.translator.kept(checkpoint));
        // Of many calls more would be owed than there is room for.
        self.resend(self.now());
    }
}
