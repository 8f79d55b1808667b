//! What of a call's state must outlive the process: indices, no keys.

use sallyport_plan::{CallId, DirectionIndex, Resend};
use sallyport_srtp::{OpenerState, SealedSource, SealerState};
use serde::{Deserialize, Serialize};

use crate::Now;
use crate::direction::Direction;
use crate::ledger::KeyId;
use crate::packet::{Opening, Sealing};
use crate::stream::StreamState;

/// Indices of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionState {
    /// Which direction.
    pub index: DirectionIndex,
    /// What was opened, and with which key; `None` on a plain or waiting leg.
    pub opened: Option<(KeyId, OpenerState)>,
    /// What was sealed, and with which key; `None` on a plain or waiting leg.
    pub sealed: Option<(KeyId, SealerState)>,
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

impl Direction {
    /// Its indices now.
    pub fn checkpoint(&self) -> DirectionState {
        let plan = &self.cold.plan;
        let opened = match &self.open {
            Opening::Srtp(opener) => Some(opener.checkpoint()),
            // What is under way under the former key is lost over a restart.
            Opening::Changing(change) => Some(change.opener.checkpoint()),
            Opening::Waiting | Opening::Plain => None,
        };
        let opened = KeyId::of_side(plan.open.as_ref()).zip(opened);
        let sealed = match &self.seal {
            Sealing::Srtp(sealer) => KeyId::of_side(plan.seal.as_ref()).map(|key| (key, sealer.checkpoint())),
            Sealing::Waiting | Sealing::Plain => None,
        };
        DirectionState { index: plan.index, opened, sealed, stream: self.stream.checkpoint() }
    }

    /// Goes on behind `state`, or, where it is not known, behind all that can have left since it was installed. Whether its
    /// receiver knows retransmissions of it and is to be told how far they have stepped: a peer follows steps of 2^15
    /// together at the most (RFC 3711 section 3.3.1), and retransmissions may be as rare as restarts.
    pub fn restore(&mut self, state: Option<&DirectionState>, ahead: u16, now: Now) -> bool {
        let mut announces = false;
        let (open, seal) = (self.cold.plan.open.as_ref(), self.cold.plan.seal.as_ref());
        let (open, seal) = (KeyId::of_side(open), KeyId::of_side(seal));
        let stream = state.map_or_else(|| self.stream.checkpoint(), |state| state.stream);
        let opened = state.and_then(|state| state.opened.as_ref()).filter(|(key, _)| Some(*key) == open);
        if let (Opening::Srtp(opener), Some((_, opened))) = (&mut self.open, opened) {
            opener.restore(opened);
        }
        if let Sealing::Srtp(sealer) = &mut self.seal {
            // A key that is newer than the checkpoint, or that had sealed nothing yet, starts where the stream stood.
            let sealed = state.and_then(|state| state.sealed.as_ref()).filter(|(key, _)| Some(*key) == seal);
            let mut sealed = sealed.map(|(_, sealed)| sealed.clone()).unwrap_or_default();
            let ssrc = self.cold.plan.ssrc.0;
            let first = Some(u64::from(stream.sequence & 0xffff));
            match sealed.sources.iter_mut().find(|source| source.ssrc == ssrc) {
                Some(source) => source.rtp = source.rtp.or(first),
                None => sealed.sources.push(SealedSource { ssrc, rtp: first, rtcp: 0 }),
            }
            if let Resend::Rtx { ssrc, .. } = self.cold.plan.resend {
                let known = sealed.sources.iter().find(|source| source.ssrc == ssrc.0);
                let last = known.and_then(|source| source.rtp).unwrap_or(u64::from(self.cold.again));
                announces = known.is_some();
                if known.is_none() {
                    sealed.sources.push(SealedSource { ssrc: ssrc.0, rtp: Some(last), rtcp: 0 });
                }
                self.cold.again = (last & 0xffff_ffff) as u32 + u32::from(ahead);
            }
            sealer.restore(&sealed, u32::from(ahead));
        }
        self.stream.restore(&stream, ahead, now);
        announces
    }
}
