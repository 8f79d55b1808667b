//! Opening what a peer sealed.

use sallyport_plan::KeyMaterial;
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::Header;
use serde::{Deserialize, Serialize};

use crate::KeyError;
use crate::index::{INDEX_MAX, guess};
use crate::replay::{Judgement, Window};
use crate::sources::Sources;
use crate::suites::{ENCRYPTED, RTCP_CLEAR, Suite};

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
    /// Below the replay window, or before the first index.
    TooOld,
    /// SRTCP without encryption (E bit 0): not what was agreed.
    NotEncrypted,
}

/// An opened RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its source.
    pub ssrc: u32,
    /// Its index, 48 bits.
    pub index: u64,
    /// Its sequence number.
    pub sequence: u16,
}

#[derive(Debug, Clone, Copy, Default)]
struct Source {
    rtp: Option<Window>,
    rtcp: Option<Window>,
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
    /// By source.
    pub sources: Vec<OpenedSource>,
}

/// Opens the packets that a peer seals under one master key.
pub struct Opener {
    rtp: Suite,
    rtcp: Suite,
    sources: Sources<Source>,
}

impl Opener {
    /// Derives the session keys.
    ///
    /// # Errors
    /// [`KeyError`] where the key does not fit its profile.
    pub fn new(key: &KeyMaterial) -> Result<Self, KeyError> {
        Ok(Self { rtp: Suite::rtp(key)?, rtcp: Suite::rtcp(key)?, sources: Sources::new() })
    }

    /// Verifies, decrypts in place and takes the tag off. After [`OpenError::Tag`] the payload is undefined.
    ///
    /// # Errors
    /// [`OpenError`]; the state is as before.
    pub fn open_rtp(&mut self, buf: &mut PacketBuf<'_>) -> Result<Opened, OpenError> {
        let header = Header::parse(buf.packet()).map_err(|_| OpenError::Malformed)?;
        let (ssrc, sequence, header_len) = (header.ssrc(), header.sequence(), header.header_len());
        let tag = self.rtp.tag_len();
        if buf.len() < header_len + tag {
            return Err(OpenError::Short);
        }
        let mut source = self.sources.of(ssrc).unwrap_or_default();
        let index = match source.rtp {
            None => u64::from(sequence),
            Some(window) => {
                let index = guess(window.highest(), sequence).ok_or(OpenError::TooOld)?;
                judge(&window, index)?;
                index
            }
        };
        self.rtp.open_rtp(buf.packet_mut(), header_len, ssrc, index).map_err(|_| OpenError::Tag)?;
        buf.shrink_tail(tag).map_err(|_| OpenError::Short)?;
        commit(&mut source.rtp, index);
        self.sources.set(ssrc, source);
        Ok(Opened { ssrc, index, sequence })
    }

    /// Verifies, decrypts in place and takes index word and tag off; returns the index. After [`OpenError::Tag`] the
    /// contents are undefined.
    ///
    /// # Errors
    /// [`OpenError`]; the state is as before.
    pub fn open_rtcp(&mut self, buf: &mut PacketBuf<'_>) -> Result<u32, OpenError> {
        let at = self.rtcp.rtcp_index_at(buf.len()).ok_or(OpenError::Short)?;
        if buf.len() < RTCP_CLEAR + 4 + self.rtcp.tag_len() {
            return Err(OpenError::Short);
        }
        let packet = buf.packet();
        if packet[0] >> 6 != 2 {
            return Err(OpenError::Malformed);
        }
        let word = |at: usize| packet.get(at..).and_then(<[u8]>::first_chunk).map(|word| u32::from_be_bytes(*word));
        let (ssrc, last) = (word(4).ok_or(OpenError::Short)?, word(at).ok_or(OpenError::Short)?);
        if last & ENCRYPTED == 0 {
            return Err(OpenError::NotEncrypted);
        }
        let index = last & !ENCRYPTED;
        let mut source = self.sources.of(ssrc).unwrap_or_default();
        if let Some(window) = source.rtcp {
            judge(&window, u64::from(index))?;
        }
        self.rtcp.open_rtcp(buf.packet_mut(), ssrc, index).map_err(|_| OpenError::Tag)?;
        buf.shrink_tail(4 + self.rtcp.tag_len()).map_err(|_| OpenError::Short)?;
        commit(&mut source.rtcp, u64::from(index));
        self.sources.set(ssrc, source);
        Ok(index)
    }

    /// The indices seen so far.
    pub fn checkpoint(&self) -> OpenerState {
        let source = |(ssrc, source): (u32, Source)| OpenedSource { ssrc, rtp: source.rtp, rtcp: source.rtcp };
        OpenerState { sources: self.sources.iter().map(source).collect() }
    }

    /// Goes on behind a checkpoint: what was seen then stays seen.
    pub fn restore(&mut self, state: &OpenerState) {
        for source in &state.sources {
            self.sources.set(source.ssrc, Source { rtp: source.rtp, rtcp: source.rtcp });
        }
    }
}

fn judge(window: &Window, index: u64) -> Result<(), OpenError> {
    match window.judge(index) {
        Judgement::New if index <= INDEX_MAX => Ok(()),
        Judgement::New | Judgement::Old => Err(OpenError::TooOld),
        Judgement::Seen => Err(OpenError::Replay),
    }
}

fn commit(window: &mut Option<Window>, index: u64) {
    match window {
        Some(window) => window.commit(index),
        None => *window = Some(Window::at(index)),
    }
}
