//! Where copies of what a direction sends go.

use sallyport_plan::FlowKey;

use super::Direction;
use crate::packet::Payload;

impl Direction {
    /// Where a copy of a packet that leaves now goes; most directions have none, and this touches nothing else of those.
    pub fn fork(&self, payload: Payload) -> Option<FlowKey> {
        if !self.rules.forks {
            return None;
        }
        let fork = self.cold.plan.fork.as_ref()?;
        Some(match payload {
            Payload::Rtp => fork.rtp,
            Payload::Rtcp => fork.rtcp,
        })
    }
}
