//! What a packet may become on its way: only one that was opened, rewritten and sealed (or agreed to be plain) leaves.
//!
//! ```text
//!   Packet<Arrived> ── open ──► Packet<Open> ── rewrite ──► Packet<Rewritten> ── seal ──► Cleared
//! ```
//!
//! Each step takes the former state; nothing else makes a [`Cleared`].

use std::marker::PhantomData;

use sallyport_plan::{CallId, FlowKey, Protection};
use sallyport_srtp::{KeyError, OpenError, Opener, SealError, Sealer};
use sallyport_wire::PacketBuf;

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
    /// Done with it: an answer to a check of ours, or a keep-alive.
    Consumed,
    /// Forget it; the reason is counted.
    Drop(Reason),
}

/// The opening half of a direction.
pub enum Opening {
    /// The handshake has not ended.
    Waiting,
    /// The leg is plain.
    Plain,
    /// The leg is SRTP.
    Srtp(Box<Opener>),
}

/// The sealing half of a direction.
pub enum Sealing {
    /// The handshake has not ended.
    Waiting,
    /// The leg is plain.
    Plain,
    /// The leg is SRTP.
    Srtp(Box<Sealer>),
}

impl Opening {
    pub fn new(protection: Option<&Protection>) -> Result<Self, KeyError> {
        Ok(match protection {
            None => Self::Waiting,
            Some(Protection::Plain) => Self::Plain,
            Some(Protection::Srtp(key)) => Self::Srtp(Box::new(Opener::new(key)?)),
        })
    }
}

impl Sealing {
    pub fn new(protection: Option<&Protection>) -> Result<Self, KeyError> {
        Ok(match protection {
            None => Self::Waiting,
            Some(Protection::Plain) => Self::Plain,
            Some(Protection::Srtp(key)) => Self::Srtp(Box::new(Sealer::new(key)?)),
        })
    }
}

/// As the peer sent it.
pub enum Arrived {}
/// Verified and decrypted, or of a plain leg.
pub enum Open {}
/// In the words of the other leg.
pub enum Rewritten {}

/// One packet in its buffer, at one point of its way.
pub struct Packet<'a, 'b, State> {
    buf: &'a mut PacketBuf<'b>,
    payload: Payload,
    state: PhantomData<State>,
}

impl<'a, 'b, State> Packet<'a, 'b, State> {
    fn at(buf: &'a mut PacketBuf<'b>, payload: Payload) -> Self {
        Self { buf, payload, state: PhantomData }
    }
}

impl<'a, 'b> Packet<'a, 'b, Arrived> {
    /// A packet of a known flow.
    pub fn arrived(buf: &'a mut PacketBuf<'b>, payload: Payload) -> Self {
        Self::at(buf, payload)
    }

    /// Verifies and decrypts.
    ///
    /// # Errors
    /// [`Reason::Early`] before there are keys, else what the opener says.
    pub fn open(self, opening: &mut Opening) -> Result<Packet<'a, 'b, Open>, Reason> {
        match (opening, self.payload) {
            (Opening::Waiting, _) => return Err(Reason::Early),
            (Opening::Plain, _) => {}
            (Opening::Srtp(opener), Payload::Rtp) => {
                opener.open_rtp(self.buf).map(drop).map_err(open_reason)?
            }
            (Opening::Srtp(opener), Payload::Rtcp) => {
                opener.open_rtcp(self.buf).map(drop).map_err(open_reason)?
            }
        }
        Ok(Packet::at(self.buf, self.payload))
    }
}

impl<'a, 'b> Packet<'a, 'b, Open> {
    /// Lets `work` turn it into the other leg's words.
    ///
    /// # Errors
    /// What `work` says.
    pub fn rewrite(
        self,
        work: impl FnOnce(&mut PacketBuf<'b>) -> Result<(), Reason>,
    ) -> Result<Packet<'a, 'b, Rewritten>, Reason> {
        work(self.buf)?;
        Ok(Packet::at(self.buf, self.payload))
    }
}

impl Packet<'_, '_, Rewritten> {
    /// Encrypts and signs, or leaves a packet plain where the leg agreed to that; where it goes by then.
    ///
    /// # Errors
    /// [`Reason::Early`] before there are keys, else what the sealer says.
    pub fn seal(self, sealing: &mut Sealing, egress: FlowKey) -> Result<Cleared, Reason> {
        match (sealing, self.payload) {
            (Sealing::Waiting, _) => return Err(Reason::Early),
            (Sealing::Plain, _) => {}
            (Sealing::Srtp(sealer), Payload::Rtp) => sealer.seal_rtp(self.buf).map_err(seal_reason)?,
            (Sealing::Srtp(sealer), Payload::Rtcp) => sealer.seal_rtcp(self.buf).map_err(seal_reason)?,
        }
        Ok(Cleared { egress, payload: self.payload })
    }
}

fn open_reason(error: OpenError) -> Reason {
    match error {
        OpenError::Short | OpenError::Malformed => Reason::Malformed,
        OpenError::Tag => Reason::BadTag,
        OpenError::Replay => Reason::Replay,
        OpenError::TooOld => Reason::TooOld,
        OpenError::NotEncrypted => Reason::NotEncrypted,
    }
}

fn seal_reason(error: SealError) -> Reason {
    match error {
        SealError::Room => Reason::NoRoom,
        SealError::Malformed => Reason::Malformed,
        SealError::IndexReuse => Reason::IndexReuse,
        SealError::Exhausted | SealError::Sources => Reason::Exhausted,
    }
}
