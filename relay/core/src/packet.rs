//! What can become of a packet, and the two halves of a direction that it passes.

use sallyport_plan::{CallId, FlowKey, Protection};
use sallyport_srtp::{KeyError, OpenError, Opener, SealError, Sealer};

use crate::burst::Cleared;
use crate::reason::Reason;
use crate::rekey::Change;

/// What a packet of media carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
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
    /// Done with it: a named event of which control is told.
    Heard,
    /// Done with it: RTCP of which all is answered from here.
    Answered,
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
    /// It is, and has just got another key.
    Changing(Box<Change>),
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

/// What an opener's error is called.
pub fn open_reason(error: OpenError) -> Reason {
    match error {
        OpenError::Short | OpenError::Malformed => Reason::Malformed,
        OpenError::Tag => Reason::BadTag,
        OpenError::Replay => Reason::Replay,
        OpenError::TooOld => Reason::TooOld,
        OpenError::NotEncrypted => Reason::NotEncrypted,
    }
}

/// What a sealer's error is called.
pub fn seal_reason(error: SealError) -> Reason {
    match error {
        SealError::Room => Reason::NoRoom,
        SealError::Malformed => Reason::Malformed,
        SealError::IndexReuse => Reason::IndexReuse,
        SealError::Exhausted | SealError::Sources => Reason::Exhausted,
    }
}
