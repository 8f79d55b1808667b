//! What of a call's state must outlive the process: indices, no keys.

use sallyport_plan::{CallId, DirectionIndex, Resend};
use sallyport_srtp::{OpenerState, SealedSource, SealerState};
use serde::{Deserialize, Serialize};

use crate::Now;
use crate::direction::{Direction, first_again, first_kept};
use crate::ledger::KeyId;
use crate::packet::{Opening, Sealing};
use crate::stream::{StreamState, is_before};

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

/// Indices that a written checkpoint has of a direction, beside those of its stream, and how far behind them a restart goes on:
/// what it steps over may be used until another one is written, and nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kept {
    /// Sequence number of the last retransmission, extended.
    again: u32,
    /// The next SRTCP index.
    rtcp: u32,
    /// 0 where nobody keeps anything.
    ahead: u16,
}

impl Kept {
    /// A checkpoint knows nothing of a new key or, where `again` is `None`, of a new SSRC.
    pub fn begin(&mut self, again: Option<u32>) {
        self.rtcp = 0;
        self.again = again.unwrap_or(self.again);
    }

    /// Whether a retransmission may have the number.
    pub fn has_again(&self, number: u32) -> bool {
        self.ahead == 0 || !is_before(self.again.wrapping_add(u32::from(self.ahead)), number)
    }

    /// Whether a compound may have the index.
    pub fn has_rtcp(&self, index: u32) -> bool {
        self.ahead == 0 || index < self.rtcp.saturating_add(u32::from(self.ahead))
    }
}

impl Direction {
    /// `state` is written, or, where it is not known, nothing of the direction is: what [`Direction::restore`] would step over
    /// may be used from now on, and nothing else.
    pub fn bind(&mut self, state: Option<&DirectionState>, ahead: u16) {
        let (call, plan) = (self.cold.call, &self.cold.plan);
        let sequence = state.map_or_else(|| first_kept(call, plan), |state| state.stream.sequence);
        let key = KeyId::of_side(plan.seal.as_ref());
        let sealed = state.and_then(|state| state.sealed.as_ref()).filter(|(known, _)| Some(*known) == key);
        let source = |ssrc: u32| {
            let mut sources = sealed.into_iter().flat_map(|(_, sealed)| &sealed.sources);
            sources.find(|source| source.ssrc == ssrc)
        };
        let rtcp = source(plan.ssrc.0).map_or(0, |source| source.rtcp);
        let again = match plan.resend {
            Resend::Rtx { ssrc, .. } => source(ssrc.0).and_then(|source| source.rtp),
            Resend::Never | Resend::Same => None,
        };
        let again = again.map_or_else(|| first_again(call, plan), |last| (last & 0xffff_ffff) as u32);
        self.cold.kept = Kept { again, rtcp, ahead };
        self.stream.keep(sequence, ahead);
    }

    /// A restart steps over another count from now on, where it is bound to any.
    pub fn stepping(&mut self, ahead: u16) {
        if self.cold.kept.ahead != 0 {
            self.cold.kept.ahead = ahead;
            self.stream.stepping(ahead);
        }
    }

    /// No restart goes on with it: all indices may be used.
    pub fn release(&mut self) {
        self.cold.kept = Kept::default();
        self.stream.release();
    }

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
