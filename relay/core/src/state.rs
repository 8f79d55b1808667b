//! What of a call's state must outlive the process: indices, no keys.

use sallyport_plan::{CallId, DirectionIndex};
use sallyport_srtp::{OpenerState, SealerState};
use serde::{Deserialize, Serialize};

use crate::stream::StreamState;

/// Indices of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionState {
    /// Which direction.
    pub index: DirectionIndex,
    /// What was opened; `None` on a plain or waiting leg.
    pub opened: Option<OpenerState>,
    /// What was sealed; `None` on a plain or waiting leg.
    pub sealed: Option<SealerState>,
    /// Where the outgoing stream stands.
    pub stream: StreamState,
}

/// Indices of one call at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which call.
    pub call: CallId,
    /// By direction.
    pub directions: Vec<DirectionState>,
}
