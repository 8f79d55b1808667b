//! Opening what a peer sealed: keys, indices, errors. The packets are in [`crate::rtp`] and [`crate::rtcp`].

use sallyport_plan::KeyMaterial;
use sallyport_wire::PacketBuf;
use serde::{Deserialize, Serialize};

use crate::KeyError;
use crate::burst::{Kind, Known, Plan};
use crate::replay::{Judgement, Window};
use crate::rtcp::INDEX_WORD;
use crate::sources::{Forgotten, Sources};
use crate::suites::{RtcpSuite, Suite, unprotect_one};

/// Why a packet was not opened. No state moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// Too few octets for header and tag.
    Short,
    /// Not RTP or RTCP.
    Malformed,
    /// The tag is wrong.
    Tag,
    /// Opened before.
    Replay,
    /// Below the replay window, behind the last index, or of a source that had to be forgotten: whether it was opened
    /// before cannot be told.
    TooOld,
    /// SRTCP without encryption (E bit 0): not what was agreed.
    NotEncrypted,
}

impl OpenError {
    /// Whether it is the packet's form alone that is wrong, whatever the state.
    pub(crate) const fn is_of_form(self) -> bool {
        match self {
            Self::Short | Self::Malformed | Self::NotEncrypted => true,
            Self::Tag | Self::Replay | Self::TooOld => false,
        }
    }
}

/// An opened packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its source.
    pub ssrc: u32,
    /// Its index: 48 bits, of SRTCP 31.
    pub index: u64,
    /// Its sequence number: the lowest 16 bits of the index.
    pub sequence: u16,
}

/// The indices that a source has used; `None` before its first packet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub rtp: Option<Window>,
    pub rtcp: Option<Window>,
}

/// What one source has sent so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedSource {
    /// Which source.
    pub ssrc: u32,
    /// RTP indices.
    pub rtp: Option<Window>,
    /// RTCP indices.
    pub rtcp: Option<Window>,
}

/// An opener's indices: no keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenerState {
    /// By source, the one heard longest ago first.
    pub sources: Vec<OpenedSource>,
    /// Trace of the sources that were forgotten; empty where none was.
    pub forgotten: Vec<u64>,
}

/// Opens the packets that a peer seals under one master key.
///
/// It keeps [`crate::SOURCES`] sources apart. A new one gets a place by its first packet whose tag verifies; where all
/// are taken the source heard longest ago is forgotten, and nothing of it is opened any more: with its indices gone,
/// a replay could not be told from a new packet.
#[repr(C)]
pub struct Opener {
    pub(crate) rtp: Suite,
    // Behind a block that ends a line: it begins one.
    sources: Sources<Seen>,
    pub(crate) rtcp: RtcpSuite,
    forgotten: Forgotten,
}

impl Opener {
    /// Derives the session keys.
    ///
    /// # Errors
    /// [`KeyError`] where the key does not fit its profile.
    pub fn new(key: &KeyMaterial) -> Result<Self, KeyError> {
        let (rtp, rtcp) = (Suite::rtp(key)?, RtcpSuite::new(key)?);
        Ok(Self { rtp, rtcp, sources: Sources::new(), forgotten: Forgotten::new() })
    }

    /// What is known of a source; `None` of a new one.
    #[inline]
    pub(crate) fn seen(&self, ssrc: u32) -> Result<Option<&Seen>, OpenError> {
        match self.sources.of(ssrc) {
            Some(seen) => Ok(Some(seen)),
            None if self.forgotten.contains(ssrc) => Err(OpenError::TooOld),
            None => Ok(None),
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

    /// What a packet says of itself, judged by the state as it is.
    #[inline]
    pub(crate) fn plan(&self, kind: Kind, packet: &[u8]) -> Result<(Plan, Known), OpenError> {
        match kind {
            Kind::Rtp => self.plan_rtp(packet),
            Kind::Rtcp => self.plan_rtcp(packet),
        }
    }

    /// Takes off what sealing added and marks the index, behind a verified tag only.
    #[inline]
    pub(crate) fn finish(&mut self, buf: &mut PacketBuf<'_>, plan: &Plan) -> Result<Opened, OpenError> {
        let Plan { kind, ssrc, index, .. } = *plan;
        let trailer = match kind {
            Kind::Rtp => self.rtp.tag_len(),
            Kind::Rtcp => INDEX_WORD + self.rtcp.tag().octets(),
        };
        buf.shrink_tail(trailer).map_err(|_| OpenError::Short)?;
        self.update(ssrc, |seen| match kind {
            Kind::Rtp => commit(&mut seen.rtp, index),
            Kind::Rtcp => commit(&mut seen.rtcp, index),
        });
        Ok(Opened { ssrc, index, sequence: index as u16 })
    }

    /// Plans, opens and finishes one packet.
    pub(crate) fn open(&mut self, kind: Kind, buf: &mut PacketBuf<'_>) -> Result<Opened, OpenError> {
        let (plan, _) = self.plan(kind, buf.packet())?;
        let packet = buf.packet_mut();
        let opened = match kind {
            Kind::Rtp => plan.desc(&self.rtp, packet).and_then(unprotect_one),
            Kind::Rtcp => self.rtcp.unprotect(packet, plan.ssrc, plan.index as u32),
        };
        opened.map_err(|_| OpenError::Tag)?;
        self.finish(buf, &plan)
    }

    /// Changes what is known of a source, behind a verified tag only.
    #[inline]
    pub(crate) fn update(&mut self, ssrc: u32, change: impl FnOnce(&mut Seen)) {
        if let Some(left) = self.sources.update(ssrc, change) {
            self.forgotten.add(left);
        }
    }

    /// The indices seen so far. Allocates.
    pub fn checkpoint(&self) -> OpenerState {
        let source = |(ssrc, seen): (u32, Seen)| OpenedSource { ssrc, rtp: seen.rtp, rtcp: seen.rtcp };
        OpenerState {
            sources: self.sources.by_use().into_iter().map(source).collect(),
            forgotten: self.forgotten.words(),
        }
    }

    /// Goes on behind a checkpoint: what was seen then stays seen, and so does what was seen here before. What was
    /// opened between checkpoint and crash is not in it and would be opened once more.
    pub fn restore(&mut self, state: &OpenerState) {
        self.forgotten.merge(&state.forgotten);
        for source in &state.sources {
            self.update(source.ssrc, |seen| {
                unite(&mut seen.rtp, source.rtp);
                unite(&mut seen.rtcp, source.rtcp);
            });
        }
    }
}

fn unite(window: &mut Option<Window>, other: Option<Window>) {
    match (window, other) {
        (Some(window), Some(other)) => window.merge(other),
        (window @ None, other) => *window = other,
        (Some(_), None) => {}
    }
}

/// Whether an index may be opened.
#[inline]
pub fn judge(window: &Window, index: u64) -> Result<(), OpenError> {
    match window.judge(index) {
        Judgement::New => Ok(()),
        Judgement::Old => Err(OpenError::TooOld),
        Judgement::Seen => Err(OpenError::Replay),
    }
}

/// Marks an index as seen.
#[inline]
pub fn commit(window: &mut Option<Window>, index: u64) {
    match window {
        Some(window) => window.mark(index),
        None => *window = Some(Window::at(index)),
    }
}
