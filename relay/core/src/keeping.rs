//! What a restart goes on with: checkpoints, whether they are written, and how far directions may go until they are.
//!
//! The rule is one: what [`Translator::restore`] would step over, from the last checkpoint that is known to be written, may be used,
//! and nothing else ([`crate::reach`]). So behind a restart nothing leaves until its first checkpoint is written.

use sallyport_plan::{CallId, Medium};

use crate::Now;
use crate::checkpoint::Checkpoint;
use crate::direction::Direction;
use crate::translator::{HASTY, Owed, Translator};

/// Whether a restart may go on with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It may.
    Kept,
    /// Its indices cannot be kept, and it ends with this relay.
    Ends,
}

impl Translator {
    /// The same, bound to what a restart steps over: of each medium so many numbers behind the last checkpoint that
    /// [`Translator::kept`] has told of, RTP, retransmissions and RTCP each, at most 2^14. Without it nothing is bound.
    #[must_use]
    pub fn with_ahead(mut self, ahead: fn(Medium) -> u16) -> Self {
        self.ahead = Some(ahead);
        self
    }

    /// Indices of one call, for a restart; `None` for an unknown one.
    pub fn checkpoint_of(&self, call: CallId) -> Option<Checkpoint> {
        let slots = &self.calls.get(&call)?.slots;
        let directions = slots.iter().filter_map(|at| self.table.at(*at)).map(Direction::checkpoint);
        Some(Checkpoint { call, directions: directions.collect() })
    }

    /// A call that is to be kept before its turn, since a direction of it has used up a quarter of what a restart steps over.
    pub fn poll_hasty(&mut self) -> Option<CallId> {
        self.hasty.pop_front()
    }

    /// Takes note that a direction is to be kept before its turn.
    #[cold]
    pub(crate) fn hurry(&mut self, slot: usize) {
        if self.hasty.len() < HASTY
            && let Some(direction) = self.table.at_mut(slot)
        {
            direction.stream.is_asked();
            let call = direction.cold.call;
            if !self.hasty.contains(&call) {
                self.hasty.push_back(call);
            }
        }
    }

    /// A checkpoint is written: a restart would go on behind this one, or one that was taken later. Checkpoints of a call are
    /// to be told of in the order in which they were written. Packets may be owed then ([`Translator::poll_resend`]).
    pub fn kept(&mut self, checkpoint: &Checkpoint) {
        let Some(ahead) = self.ahead else { return };
        let call = self.calls.get(&checkpoint.call).filter(|call| call.keeping == Keeping::Kept);
        for at in call.map(|call| call.slots.clone()).unwrap_or_default() {
            let Some(direction) = self.table.at_mut(at) else { continue };
            let index = direction.cold.plan.index;
            let state = checkpoint.directions.iter().find(|state| state.index == index);
            direction.bind(state, ahead(direction.cold.plan.medium));
            if std::mem::take(&mut direction.cold.announces)
                && let Some(tag) = self.table.tag(at)
            {
                self.owe(tag, Owed::Padding);
            }
        }
    }

    /// Indices of a call are not kept, nor will be: no restart goes on with it, and it is bound to nothing.
    pub fn release(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.keeping = Keeping::Ends;
        for at in call.slots.clone() {
            if let Some(direction) = self.table.at_mut(at) {
                direction.release();
            }
        }
    }

    /// Goes on behind a checkpoint of an installed call; to be called before its first packet. A direction's checkpoint may be
    /// as many packets old as `ahead` says of its medium, at most 2^14. One that the checkpoint does not know goes on as if
    /// all those packets had been its first. Where it is bound by [`Translator::with_ahead`] nothing leaves until another
    /// checkpoint is kept.
    pub fn restore(&mut self, checkpoint: &Checkpoint, ahead: impl Fn(Medium) -> u16, now: Now) {
        let slots = self.calls.get(&checkpoint.call).map(|call| call.slots.clone()).unwrap_or_default();
        for at in slots {
            let Some(direction) = self.table.at_mut(at) else { continue };
            let index = direction.cold.plan.index;
            let ahead = ahead(direction.cold.plan.medium);
            let state = checkpoint.directions.iter().find(|state| state.index == index);
            let announces = direction.restore(state, ahead, now);
            if self.ahead.is_some() {
                direction.bind(state, ahead);
                direction.stream.is_asked();
                direction.cold.announces = announces;
            } else if announces && let Some(tag) = self.table.tag(at) {
                self.owe(tag, Owed::Padding);
            }
        }
    }
}
