//! Copies of what a direction sends.

use serde::{Deserialize, Serialize};

use crate::flow::{FlowKey, Zone};

/// Where copies of what a direction sends go as well: to a recorder, or to somebody who listens in. A copy is the packet as it is
/// before it is sealed, rewritten already; media that is held is not copied. Nothing that comes from there is taken, and the
/// call goes on whether copies arrive or not. A direction with copies is never transparent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Where copies of RTP go: from a port that was reserved for the call, by the inside.
    pub rtp: FlowKey,
    /// Where copies of RTCP go.
    pub rtcp: FlowKey,
}

impl Fork {
    /// Whether both paths leave by the inside.
    pub fn is_well_formed(&self) -> bool {
        self.rtp.zone == Zone::Inside && self.rtcp.zone == Zone::Inside
    }
}
