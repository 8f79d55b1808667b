//! What those who watch a call are told.

use serde::{Deserialize, Serialize};

use super::EndCause;

/// What those who watch a call are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallEvent {
    /// The called side rings.
    Ringing,
    /// Media of the called side comes before it has answered.
    Early,
    /// The called side answered.
    Answered,
    /// Answered, and media passes both ways.
    Connected,
    /// The call is over. The last event.
    Ended {
        /// Why.
        cause: EndCause,
    },
    /// The far end holds the call: it does not send, or does not receive.
    Held,
    /// It does not any more.
    Resumed,
    /// A body came from the inside in an INFO: user data.
    Info {
        /// Its type.
        content_type: String,
        /// Its octets.
        body: Vec<u8>,
    },
    /// A digit came from the inside, in its stream or in an INFO.
    Dtmf {
        /// `0-9A-D*#`.
        digit: char,
        /// Milliseconds.
        duration: u16,
    },
    /// How far a transfer is: status of the call to the new party (RFC 3515 section 2.4.5).
    Transfer {
        /// 100..=699; 200..=299 is success, 300 and above failure.
        status: u16,
    },
    /// Another connection of the browser took the place of the former one.
    Renewed,
    /// It did not; the former one goes on.
    NotRenewed {
        /// Why, in words.
        detail: String,
    },
    /// Copies of its sound go to a recorder, or to somebody who listens in, or do not any more.
    Recording {
        /// Whether they do.
        on: bool,
        /// Whether that is because it came to nothing.
        failed: bool,
    },
    /// The SIP server wants the browser to take the call, or to put it on hold (NOTIFY talk and hold).
    Asked {
        /// `true`: talk.
        talk: bool,
    },
    /// The far end wants to show a picture, and the browser has offered none: it may add one, to show or to see.
    VideoOffered,
}

impl CallEvent {
    /// Name of the server-sent event.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ringing => "ringing",
            Self::Early => "early",
            Self::Answered => "answered",
            Self::Connected => "connected",
            Self::Ended { .. } => "ended",
            Self::Held => "held",
            Self::Resumed => "resumed",
            Self::Info { .. } => "info",
            Self::Dtmf { .. } => "dtmf",
            Self::Transfer { .. } => "transfer",
            Self::Renewed => "renewed",
            Self::NotRenewed { .. } => "not_renewed",
            Self::Recording { .. } => "recording",
            Self::Asked { talk: true } => "talk",
            Self::Asked { talk: false } => "hold",
            Self::VideoOffered => "video_offered",
        }
    }

    /// Whether it marks a step of the call's life: told to those who come late, and to the next control.
    pub const fn is_step(&self) -> bool {
        let steps = matches!(self, Self::Ringing | Self::Early | Self::Answered | Self::Connected);
        steps || matches!(self, Self::Ended { .. } | Self::Recording { .. })
    }
}
