//! What a packet may become on its way: only one that was opened, rewritten and sealed (or agreed to be plain) leaves.

use sallyport_plan::{CallId, FlowKey};

use crate::reason::Reason;

/// What a cleared packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
}

/// Proof that the bytes in the buffer may leave, and where to. Only the translator makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Cleared {
    egress: FlowKey,
    payload: Payload,
}

impl Cleared {
    pub(crate) const fn new(egress: FlowKey, payload: Payload) -> Self {
        Self { egress, payload }
    }

    /// Where the packet goes: from `local` to `remote`, by `zone`.
    pub const fn egress(&self) -> &FlowKey {
        &self.egress
    }

    /// What it carries.
    pub const fn payload(&self) -> Payload {
        self.payload
    }
}

/// What is to become of a packet.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Send what the buffer holds now.
    Forward(Cleared),
    /// Send the STUN answer that the buffer holds now.
    Reply(FlowKey),
    /// Hand the bytes to control, with the call whose flow they came on.
    Punt(Option<CallId>),
    /// Done with it: an answer to a check of ours.
    Consumed,
    /// Forget it; the reason is counted.
    Drop(Reason),
}
