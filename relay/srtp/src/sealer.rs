//! Sealing what a peer will open.

use sallyport_plan::KeyMaterial;
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::Header;
use serde::{Deserialize, Serialize};

use crate::KeyError;
use crate::index::{INDEX_MAX, guess};
use crate::replay::{Judgement, Window};
use crate::sources::Sources;
use crate::suites::{ENCRYPTED, RTCP_CLEAR, Suite};

/// Why a packet was not sealed. It is as it was, and no state moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// No room for the tag behind the packet.
    Room,
    /// Not RTP or RTCP.
    Malformed,
    /// The index was sealed before, or lies so far back that it cannot be told.
    IndexReuse,
    /// All indices of the key are used up.
    Exhausted,
    /// More sources than a context keeps apart: forgetting one would forget what was sealed.
    Sources,
}

#[derive(Debug, Clone, Copy, Default)]
struct Source {
    rtp: Option<Window>,
    /// The next SRTCP index.
    rtcp: u32,
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

/// Seals packets under one master key.
pub struct Sealer {
    rtp: Suite,
    rtcp: Suite,
    sources: Sources<Source>,
}

impl Sealer {
    /// Derives the session keys.
    ///
    /// # Errors
    /// [`KeyError`] where the key does not fit its profile.
    pub fn new(key: &KeyMaterial) -> Result<Self, KeyError> {
        Ok(Self { rtp: Suite::rtp(key)?, rtcp: Suite::rtcp(key)?, sources: Sources::new() })
    }

    fn source(&self, ssrc: u32) -> Result<Source, SealError> {
        match self.sources.of(ssrc) {
            Some(source) => Ok(source),
            None if self.sources.has_room() => Ok(Source::default()),
            None => Err(SealError::Sources),
        }
    }

    /// Encrypts in place and adds the tag. Late packets may be sealed as long as their index was not.
    ///
    /// # Errors
    /// [`SealError`]; packet and state are as before.
    pub fn seal_rtp(&mut self, buf: &mut PacketBuf<'_>) -> Result<(), SealError> {
        let header = Header::parse(buf.packet()).map_err(|_| SealError::Malformed)?;
        let (ssrc, sequence, header_len) = (header.ssrc(), header.sequence(), header.header_len());
        let mut source = self.source(ssrc)?;
        let index = match source.rtp {
            None => u64::from(sequence),
            Some(window) => next_index(&window, sequence)?,
        };
        buf.grow_tail(self.rtp.tag_len()).map_err(|_| SealError::Room)?;
        if self.rtp.seal_rtp(buf.packet_mut(), header_len, ssrc, index).is_err() {
            return Err(SealError::Malformed);
        }
        match &mut source.rtp {
            Some(window) => window.commit(index),
            None => source.rtp = Some(Window::at(index)),
        }
        self.sources.set(ssrc, source);
        Ok(())
    }

    /// Encrypts in place and adds index word and tag.
    ///
    /// # Errors
    /// [`SealError`]; packet and state are as before.
    pub fn seal_rtcp(&mut self, buf: &mut PacketBuf<'_>) -> Result<(), SealError> {
        let length = buf.len();
        let ssrc = buf.packet().get(4..RTCP_CLEAR).and_then(<[u8]>::first_chunk).ok_or(SealError::Malformed)?;
        let ssrc = u32::from_be_bytes(*ssrc);
        if buf.packet()[0] >> 6 != 2 {
            return Err(SealError::Malformed);
        }
        let mut source = self.source(ssrc)?;
        if source.rtcp >= ENCRYPTED {
            return Err(SealError::Exhausted);
        }
        buf.grow_tail(4 + self.rtcp.tag_len()).map_err(|_| SealError::Room)?;
        if self.rtcp.seal_rtcp(buf.packet_mut(), length, ssrc, source.rtcp).is_err() {
            return Err(SealError::Malformed);
        }
        source.rtcp += 1;
        self.sources.set(ssrc, source);
        Ok(())
    }

    /// The indices used so far.
    pub fn checkpoint(&self) -> SealerState {
        let source = |(ssrc, source): (u32, Source)| {
            let rtp = source.rtp.map(|window| window.highest());
            SealedSource { ssrc, rtp, rtcp: source.rtcp }
        };
        SealerState { sources: self.sources.iter().map(source).collect() }
    }

    /// Goes on behind a checkpoint that may be `ahead` packets old: no index up to there is used again. `ahead` below
    /// 2^15 keeps the peer's index guess right.
    pub fn restore(&mut self, state: &SealerState, ahead: u32) {
        for source in &state.sources {
            let rtp = source.rtp.map(|highest| Window::closed_up_to((highest + u64::from(ahead)).min(INDEX_MAX)));
            let rtcp = source.rtcp.saturating_add(ahead).min(ENCRYPTED);
            self.sources.set(source.ssrc, Source { rtp, rtcp });
        }
    }
}

fn next_index(window: &Window, sequence: u16) -> Result<u64, SealError> {
    let Some(index) = guess(window.highest(), sequence) else {
        let worn_out = window.highest() >> 16 == INDEX_MAX >> 16;
        return Err(if worn_out { SealError::Exhausted } else { SealError::IndexReuse });
    };
    match window.judge(index) {
        Judgement::New => Ok(index),
        Judgement::Seen | Judgement::Old => Err(SealError::IndexReuse),
    }
}
