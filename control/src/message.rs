//! What the task that owns all calls is told, and how others ask it.

mod handle;
mod session;
mod sip;

use std::net::{IpAddr, SocketAddr};

use sallyport_plan::{CallId, DirectionReport, Event, Status, Zone};
use sallyport_proto::{CallEvent, CallFailure, CallView, FragmentError, Input, OfferError};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::quality::Totals;

pub use handle::Handle;
pub use session::{Reach, RenewError, Renewal, SessionEvent, SessionId, SignIn, SignInError, SignedIn};
pub use sip::{ConnectionId, SipEvent, Source, Visitor};

/// Who asks for a call.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Who calls, where it has no token: so many calls per client.
    pub client: Option<IpAddr>,
    /// At which interface.
    pub zone: Zone,
    /// As whom.
    pub session: Option<SessionId>,
}

/// A call that a browser asks for.
#[derive(Debug)]
pub struct Wish {
    /// Whom to call.
    pub to: String,
    /// The browser's offer.
    pub offer: String,
    /// Who asks.
    pub caller: Caller,
    /// More headers of the INVITE.
    pub headers: Vec<(String, String)>,
}

/// Who asks for something of a call that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An administrator: of any.
    Administrator,
    /// A browser that is signed in: of its own, and of those that nobody owns.
    Session(SessionId),
    /// Whoever knows its name: of those that nobody owns.
    Anybody,
}

/// Why a call was not set up.
#[derive(Debug)]
pub enum CreateError {
    /// The offer cannot become a call.
    Offer(OfferError),
    /// The call ended before it could be answered.
    Failed(CallFailure),
    /// The relay is away.
    NoRelay,
    /// No SIP server is configured.
    NoServer,
    /// We are on our way down.
    Draining,
    /// There are as many calls as there may be.
    Full,
    /// There are as many calls of this client as there may be without a token.
    TooMany,
    /// It does not ring, or not there; or it is over.
    Gone,
    /// This browser may not call there.
    Forbidden,
    /// Nobody is signed in under this name.
    UnknownSession,
    /// The session's token is worth nothing any more.
    Expired,
}

/// A call that was set up.
#[derive(Debug)]
pub struct Created {
    /// Its name.
    pub id: CallId,
    /// Our answer.
    pub answer: String,
}

/// Why something was not done to a call.
#[derive(Debug)]
pub enum CallError {
    /// There is no such call.
    Unknown,
    /// The fragment cannot be read.
    Fragment(FragmentError),
    /// This browser may not call there.
    Forbidden,
    /// The session's token is worth nothing any more.
    Expired,
    /// The relay has not told yet which calls run.
    NotYet,
    /// The call is recorded already, or nobody has answered it yet.
    NotRecordable,
    /// No recorder is configured.
    NoRecorder,
}

/// A call as it stands.
#[derive(Debug)]
pub struct Shown {
    /// Signalling.
    pub view: CallView,
    /// Media, where the relay has told.
    pub directions: Vec<DirectionReport>,
}

/// State of control.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Calls that are being set up.
    pub setup: u64,
    /// Calls that are established.
    pub active: u64,
    /// Calls by state name.
    pub states: Vec<(&'static str, u64)>,
    /// Browsers signed in.
    pub sessions: u64,
    /// Registrations by state name.
    pub registrations: Vec<(&'static str, u64)>,
    /// Calls begun, since the start.
    pub begun: u64,
    /// Calls ended by cause, since the start.
    pub ended: Vec<(&'static str, u64)>,
    /// Recordings by what became of them, since the start: `begun`, `ended`, `failed`.
    pub recordings: Vec<(&'static str, u64)>,
    /// Media of the calls that have ended.
    pub quality: Totals,
    /// State of the relay; `None` while it is away.
    pub relay: Option<Status>,
    /// Whether new calls are refused.
    pub draining: bool,
    /// Whether STUN has answered, or is not configured or not waited for any more.
    pub candidates_known: bool,
}

/// Everything that the owner of the calls hears.
#[derive(Debug)]
pub enum Message {
    /// The relay is there; it runs these plans.
    RelayUp {
        /// Its state.
        status: Status,
    },
    /// From the relay.
    Relay(Event),
    /// The relay is away.
    RelayDown,
    /// From SIP.
    Sip(SipEvent),
    /// Begin a call.
    Create {
        /// Its name.
        id: CallId,
        /// What is asked for.
        wish: Wish,
        /// Dropped before the answer: the client went away.
        reply: oneshot::Sender<Result<Created, CreateError>>,
    },
    /// A browser signs in.
    SignIn {
        /// Who.
        sign_in: SignIn,
        /// Outcome.
        reply: oneshot::Sender<Result<SignedIn, SignInError>>,
    },
    /// A browser signs out, or went away: its calls end.
    SignOut(SessionId),
    /// A browser that is signed in has another token.
    Renew {
        /// Its name.
        session: SessionId,
        /// The token.
        renewal: Renewal,
        /// Outcome.
        reply: oneshot::Sender<Result<(), RenewError>>,
    },
    /// A call of a former control is to be a browser's again.
    Claim {
        /// Which call.
        id: CallId,
        /// Whose.
        session: SessionId,
        /// Outcome.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// Whether a browser is signed in under this name.
    IsSignedIn {
        /// Its name.
        session: SessionId,
        /// Whether.
        reply: oneshot::Sender<bool>,
    },
    /// Whether a browser may call there.
    MayCall {
        /// Its name.
        session: SessionId,
        /// Whom.
        to: String,
        /// Outcome.
        reply: oneshot::Sender<Result<(), CreateError>>,
    },
    /// Whether somebody may ask something of a call.
    May {
        /// Which call.
        id: CallId,
        /// Who.
        by: By,
        /// Outcome.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// A browser takes a call that rings there.
    Accept {
        /// Which call.
        id: CallId,
        /// The browser's offer.
        offer: String,
        /// Who.
        caller: Caller,
        /// Our answer.
        reply: oneshot::Sender<Result<Created, CreateError>>,
    },
    /// Our offer to a browser that a call rings at, where the browser makes none.
    Offer {
        /// Which call.
        id: CallId,
        /// Who.
        caller: Caller,
        /// An SDP.
        reply: oneshot::Sender<Result<String, CallError>>,
    },
    /// A browser takes a call that rings there by its answer to [`Message::Offer`].
    Take {
        /// Which call.
        id: CallId,
        /// The browser's answer.
        answer: String,
        /// Who.
        caller: Caller,
        /// What it says is for nobody.
        reply: oneshot::Sender<Result<Created, CreateError>>,
    },
    /// A browser does not want a call that rings there.
    Decline {
        /// Which call.
        id: CallId,
        /// Who.
        session: SessionId,
        /// What the caller hears if nobody else takes it, 400..=699.
        status: u16,
        /// Outcome.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// A browser offers anew in the middle of a call.
    Renegotiate {
        /// Which call.
        id: CallId,
        /// The browser's offer.
        offer: String,
        /// Our answer.
        reply: oneshot::Sender<Result<String, CreateError>>,
    },
    /// Something is wanted of a call: digits, user data, a transfer.
    Act {
        /// Which call.
        id: CallId,
        /// [`Input::Dtmf`], [`Input::Info`], [`Input::Transfer`] or [`Input::Record`].
        input: Input,
        /// Outcome.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// Transfer the far end of a call onto that of another call of the same browser (RFC 5589 section 7).
    TransferOnto {
        /// Which call.
        id: CallId,
        /// Onto which.
        other: CallId,
        /// Outcome; what becomes of it is told by events.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// The client that began the call went away.
    Abandon(CallId),
    /// More candidates.
    Trickle {
        /// Of which call.
        id: CallId,
        /// Body of the request.
        fragment: String,
        /// Outcome.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// Hang up.
    HangUp {
        /// Which call.
        id: CallId,
        /// Outcome.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// One call.
    Show {
        /// Which.
        id: CallId,
        /// The call, with statistics of the relay.
        reply: oneshot::Sender<Result<Shown, CallError>>,
    },
    /// All calls.
    List(oneshot::Sender<Vec<CallView>>),
    /// Events of one call.
    Watch {
        /// Which.
        id: CallId,
        /// What has happened, and what will.
        reply: oneshot::Sender<Result<Watched, CallError>>,
    },
    /// State of control and relay.
    Overview(oneshot::Sender<Overview>),
    /// From the NG listeners.
    Ng(crate::ng::Ask),
    /// Hang up all calls, refuse new ones; answered when none is left.
    Drain(oneshot::Sender<()>),
    /// Hang up the calls that another control could not go on with, refuse new ones; answered when none of those is left.
    Leave(oneshot::Sender<()>),
    /// Addresses of the STUN server, one per family at most.
    StunServers(Vec<SocketAddr>),
}

/// Events of a call so far, and those to come.
pub type Watched = (Vec<CallEvent>, broadcast::Receiver<CallEvent>);
