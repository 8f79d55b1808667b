//! Sealing what a peer will open: keys, indices, errors. The packets are in [`crate::rtp`] and [`crate::rtcp`].

use sallyport_plan::KeyMaterial;
use sallyport_wire::PacketBuf;
use serde::{Deserialize, Serialize};

use crate::KeyError;
use crate::burst::{Kind, Plan};
use crate::index::INDEX_MAX;
use crate::opener::commit;
use crate::replay::Window;
use crate::rtcp::{INDEX_WORD, RTCP_INDEX_MAX};
use crate::sources::Sources;
use crate::suites::{RtcpSuite, Suite, protect_one};

/// Why a packet was not sealed. It is as it was, and no state moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// No room for the tag behind the packet.
    Room,
    /// Not RTP or RTCP, or longer than what may be encrypted under one index (2^20 octets of AES in counter mode).
    Malformed,
    /// The index was sealed before, lies so far back that it cannot be told, or so far ahead (more than half a turn of
    /// the sequence number) that the peer would take it for an old one.
    IndexReuse,
    /// All indices of the key are used up (RFC 3711 section 9.2).
    Exhausted,
    /// More sources than a context keeps apart: forgetting one would forget what was sealed.
    Sources,
}

/// The indices that were sealed for a source.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    pub rtp: Option<Window>,
    /// The next SRTCP index.
    pub rtcp: u32,
}

/// What was sealed for one source so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSource {
    /// Which source.
    pub ssrc: u32,
    /// Highest RTP index.
    pub rtp: Option<u64>,
    /// Next RTCP index.
    pub rtcp: u32,
}

/// A sealer's indices: no keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealerState {
    /// By source.
    pub sources: Vec<SealedSource>,
}

/// Seals packets under one master key, for [`crate::SOURCES`] sources at the most.
#[repr(C)]
pub struct Sealer {
    pub(crate) rtp: Suite,
    // Behind a block that ends a line: it begins one.
    sources: Sources<Used>,
    pub(crate) rtcp: RtcpSuite,
}

impl Sealer {
    /// Derives the session keys.
    ///
    /// # Errors
    /// [`KeyError`] where the key does not fit its profile.
    pub fn new(key: &KeyMaterial) -> Result<Self, KeyError> {
        Ok(Self { rtp: Suite::rtp(key)?, rtcp: RtcpSuite::new(key)?, sources: Sources::new() })
    }

    /// What was sealed for a source; nothing for a new one.
    #[inline]
    pub(crate) fn used(&self, ssrc: u32) -> Result<&Used, SealError> {
        const NOTHING: &Used = &Used { rtp: None, rtcp: 0 };
        match self.sources.of(ssrc) {
            Some(used) => Ok(used),
            None if self.sources.has_room(ssrc) => Ok(NOTHING),
            None => Err(SealError::Sources),
        }
    }

    /// Fetches into the cache what the next packet is likely to need.
    #[inline]
    pub(crate) fn prefetch(&self, kind: Kind) {
        self.sources.prefetch();
        match kind {
            Kind::Rtp => self.rtp.prefetch(),
            Kind::Rtcp => self.rtcp.prefetch(),
        }
    }

    /// Makes room for what sealing adds and uses up the index: from here on nothing can fail.
    #[inline]
    pub(crate) fn commit(&mut self, kind: Kind, buf: &mut PacketBuf<'_>) -> Result<Plan, SealError> {
        let (plan, tag, word) = match kind {
            Kind::Rtp => (self.plan_rtp(buf.packet())?, self.rtp.tag(), 0),
            Kind::Rtcp => (self.plan_rtcp(buf.packet())?, self.rtcp.tag(), INDEX_WORD),
        };
        let trailer = word + tag.octets();
        let takes = tag.takes(plan.header as usize, buf.len());
        // No room is told before what cannot be sealed.
        buf.grow_tail(trailer).map_err(|_| SealError::Room)?;
        if !takes {
            buf.shrink_tail(trailer).map_err(|_| SealError::Room)?;
            return Err(SealError::Malformed);
        }
        self.update(plan.ssrc, |used| match kind {
            Kind::Rtp => commit(&mut used.rtp, plan.index),
            Kind::Rtcp => used.rtcp = plan.index as u32 + 1,
        });
        Ok(plan)
    }

    /// Commits and seals one packet.
    pub(crate) fn seal(&mut self, kind: Kind, buf: &mut PacketBuf<'_>) -> Result<(), SealError> {
        let plan = self.commit(kind, buf)?;
        let packet = buf.packet_mut();
        let sealed = match kind {
            Kind::Rtp => plan.desc(&self.rtp, packet).and_then(protect_one),
            Kind::Rtcp => self.rtcp.protect(packet, plan.ssrc, plan.index as u32),
        };
        sealed.map_err(|_| SealError::Malformed)
    }

    /// Changes what was sealed for a source that [`Sealer::used`] has answered for.
    #[inline]
    pub(crate) fn update(&mut self, ssrc: u32, change: impl FnOnce(&mut Used)) {
        self.sources.update(ssrc, change);
    }

    /// The next SRTCP index of a source.
    pub fn next_rtcp(&self, ssrc: u32) -> u32 {
        self.sources.of(ssrc).map_or(0, |used| used.rtcp)
    }

    /// The indices used so far. Allocates.
    pub fn checkpoint(&self) -> SealerState {
        let source = |(ssrc, used): (u32, Used)| {
            let rtp = used.rtp.map(|window| window.highest());
            SealedSource { ssrc, rtp, rtcp: used.rtcp }
        };
        SealerState { sources: self.sources.by_use().into_iter().map(source).collect() }
    }

    /// Goes on behind a checkpoint that may be `ahead` packets old, of RTP and of RTCP each: nothing up to there is
    /// sealed again, nor what was sealed here before. `ahead` below 2^15 keeps the peer's index guess right.
    ///
    /// What a checkpoint does not name starts anew, so the first packet of a source must not leave before a checkpoint
    /// names it, or its sequence must go on behind what can have left.
    pub fn restore(&mut self, state: &SealerState, ahead: u32) {
        for source in &state.sources {
            // Without room it cannot be sealed for either.
            if !self.sources.has_room(source.ssrc) {
                continue;
            }
            self.sources.update(source.ssrc, |used| {
                let restored =
                    source.rtp.map(|highest| highest.saturating_add(u64::from(ahead)).min(INDEX_MAX));
                let highest = restored.max(used.rtp.map(|window| window.highest()));
                used.rtp = highest.map(Window::closed_up_to);
                used.rtcp = source.rtcp.saturating_add(ahead).min(RTCP_INDEX_MAX + 1).max(used.rtcp);
            });
        }
    }
}
