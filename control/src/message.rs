//! What the task that owns all calls is told, and how others ask it.

use std::net::{IpAddr, SocketAddr};

use sallyport_plan::{CallId, DirectionReport, Event, Status, Zone};
use sallyport_proto::sip::{Request, Response, TransactionId};
use sallyport_proto::{
    CallEvent, CallFailure, CallView, FragmentError, Input, OfferError, Party, RegistrationState,
};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::random;

/// Names a browser that signed in; a secret of its, as a call's name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u128);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for SessionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Whom a browser may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Everybody.
    Anybody,
    /// These, letter by letter; `*` stands for everybody.
    Only(Vec<String>),
}

impl Reach {
    /// Whether `to` may be called.
    pub fn allows(&self, to: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Only(list) => list.iter().any(|one| one == "*" || one == to),
        }
    }
}

/// A browser that wants to sign in, as [`crate::identity::Identities::admit`] judged it.
#[derive(Debug)]
pub struct SignIn {
    /// An agent under its number; `None`: a customer, who can call but not be called.
    pub party: Option<Party>,
    /// Whom it may call.
    pub reach: Reach,
    /// Whose calls are counted as one client's; `None` for those who have a token.
    pub client: Option<IpAddr>,
    /// Whether the SIP server has to take number and password before the browser is signed in.
    pub verify: bool,
}

/// Why a browser was not signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignInError {
    /// There are as many as there may be.
    Full,
    /// There are as many under this number, or of this client without a token, as there may be.
    TooMany,
    /// We are on our way down.
    Draining,
    /// The SIP server does not take the number, or not with this password.
    Refused {
        /// Its final status; `None` where another browser is signed in with this number and another password.
        status: Option<u16>,
    },
    /// The SIP server does not answer, or takes nobody now.
    Unreachable,
}

/// A browser that is signed in until [`Message::SignOut`], or until its receiver is dropped or full.
#[derive(Debug)]
pub struct SignedIn {
    /// Its name.
    pub id: SessionId,
    /// What it is told.
    pub events: mpsc::Receiver<SessionEvent>,
}

/// What a browser that is signed in is told.
#[derive(Debug, Clone)]
pub enum SessionEvent {
    /// A call rings.
    Incoming {
        /// Its name.
        call: CallId,
        /// Who calls: a number.
        from: String,
        /// Which number was called.
        to: String,
        /// Headers of the INVITE that the configuration lets pass: names and values.
        headers: Vec<(String, String)>,
    },
    /// A call that rang was taken by another browser.
    Taken {
        /// Its name.
        call: CallId,
    },
    /// Something happened to a call of this browser, or to one that rings there.
    Call {
        /// Its name.
        call: CallId,
        /// What.
        event: CallEvent,
    },
    /// The number's registration with the SIP server stands elsewhere.
    Registration {
        /// Where.
        state: RegistrationState,
    },
    /// The browser is signed out by us. The last event.
    SignedOut {
        /// Why: `ending`.
        reason: &'static str,
    },
}

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
    /// State of the relay; `None` while it is away.
    pub relay: Option<Status>,
    /// Whether new calls are refused.
    pub draining: bool,
    /// Whether STUN has answered, or is not configured or not waited for any more.
    pub candidates_known: bool,
}

/// Numbers a browser's WebSocket connection; no number is given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Who opened a WebSocket connection, as far as its request tells.
#[derive(Clone)]
pub struct Visitor {
    /// As one client is counted.
    pub client: IpAddr,
    /// At which interface.
    pub zone: Zone,
    /// A bearer token.
    pub token: Option<String>,
    /// A number's password of digest authentication; may be empty.
    pub password: String,
}

impl std::fmt::Debug for Visitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visitor").field("zone", &self.zone).finish_non_exhaustive()
    }
}

/// Which way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From telephony: by UDP, TCP or TLS.
    Sip,
    /// From a browser, over its WebSocket connection (RFC 7118).
    WebSocket(ConnectionId),
}

/// What SIP reports.
#[derive(Debug)]
pub enum SipEvent {
    /// A response to a request of ours.
    Response {
        /// Whose.
        call: CallId,
        /// Of which request.
        transaction: TransactionId,
        /// The response.
        response: Response,
    },
    /// No answer in time.
    Timeout {
        /// Whose.
        call: CallId,
        /// Of which request.
        transaction: TransactionId,
    },
    /// The request could not be sent.
    TransportError {
        /// Whose.
        call: CallId,
        /// Of which request.
        transaction: TransactionId,
    },
    /// An INVITE, not finally answered yet, was cancelled: it is to be answered 487. The CANCEL has its answer.
    Cancelled {
        /// Our number for the INVITE.
        transaction: TransactionId,
        /// Its Call-ID.
        call_id: String,
    },
    /// A request within a dialog, an INVITE of the inside, or an ACK to a 2xx.
    Request {
        /// Which way it came.
        source: Source,
        /// Our number for it.
        transaction: TransactionId,
        /// The request.
        request: Request,
    },
    /// A browser opened a WebSocket connection.
    Opened {
        /// Which.
        connection: ConnectionId,
        /// Whose.
        visitor: Visitor,
    },
    /// A request without a tag in To that came over WebSocket. CANCEL is none of these: see [`SipEvent::Cancelled`].
    Gateway {
        /// Over which connection.
        connection: ConnectionId,
        /// Our number for it.
        transaction: TransactionId,
        /// The request.
        request: Request,
    },
    /// A WebSocket connection is gone. What was under way over it has been told before.
    Gone {
        /// Which.
        connection: ConnectionId,
    },
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
        /// [`Input::Dtmf`], [`Input::Info`] or [`Input::Transfer`].
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

/// Asks the owner of the calls.
#[derive(Debug, Clone)]
pub struct Handle(pub mpsc::UnboundedSender<Message>);

impl Handle {
    /// Sends a message; whether anybody listens.
    pub fn tell(&self, message: Message) -> bool {
        self.0.send(message).is_ok()
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply)).then_some(())?;
        answer.await.ok()
    }

    /// Begins a call and waits for its answer. Dropping the future before it is ready abandons the call, whatever has
    /// become of it: its name is ours, so there is no moment at which nobody knows it.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create(&self, wish: Wish) -> Result<Created, CreateError> {
        self.create_as(Self::name(), wish).await
    }

    /// A name for a call to come, for those who have to know it before the answer; see [`Handle::create_as`].
    pub fn name() -> CallId {
        CallId(u128::from_be_bytes(random::octets()))
    }

    /// As [`Handle::create`], under a name of [`Handle::name`].
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create_as(&self, id: CallId, wish: Wish) -> Result<Created, CreateError> {
        let (reply, answer) = oneshot::channel();
        let mut guard = Abandon { handle: self.clone(), id: Some(id) };
        let told = self.tell(Message::Create { id, wish, reply });
        let outcome = if told { answer.await.ok() } else { None };
        guard.id = None;
        outcome.unwrap_or(Err(CreateError::Draining))
    }

    /// Signs a browser in.
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn sign_in(&self, sign_in: SignIn) -> Result<SignedIn, SignInError> {
        let told = self.ask(|reply| Message::SignIn { sign_in, reply }).await;
        told.unwrap_or(Err(SignInError::Draining))
    }

    /// Whether a browser is signed in under this name.
    pub async fn is_signed_in(&self, session: SessionId) -> bool {
        self.ask(|reply| Message::IsSignedIn { session, reply }).await.unwrap_or(false)
    }

    /// Whether a browser may call `to`: [`Self::create`] asks by itself, a transfer of a call that nobody owns does not.
    ///
    /// # Errors
    /// [`CreateError::Forbidden`] and [`CreateError::UnknownSession`].
    pub async fn may_call(&self, session: SessionId, to: String) -> Result<(), CreateError> {
        let told = self.ask(|reply| Message::MayCall { session, to, reply }).await;
        told.unwrap_or(Err(CreateError::Draining))
    }

    /// Whether somebody may ask something of a call: to be asked before [`Self::renegotiate`], [`Self::act`],
    /// [`Self::trickle`], [`Self::hang_up`], [`Self::show`] and [`Self::watch`]. A call belongs to the browser that placed
    /// or took it while it was signed in; a call that was placed without is known by its name, which is a secret.
    ///
    /// # Errors
    /// [`CallError::Unknown`]: whose it is not hears no more than that.
    pub async fn may(&self, id: CallId, by: By) -> Result<(), CallError> {
        self.ask(|reply| Message::May { id, by, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// Takes a call that rings at a browser. Dropping the future before it is ready abandons the call.
    ///
    /// # Errors
    /// [`CreateError`]; with [`CreateError::Offer`] the call rings on.
    pub async fn accept(&self, id: CallId, offer: String, caller: Caller) -> Result<Created, CreateError> {
        let told = self.ask(|reply| Message::Accept { id, offer, caller, reply }).await;
        told.unwrap_or(Err(CreateError::Draining))
    }

    /// Our offer to a browser that a call rings at; [`Self::take`] brings its answer.
    ///
    /// # Errors
    /// [`CallError::Unknown`] where it does not ring there.
    pub async fn offer(&self, id: CallId, caller: Caller) -> Result<String, CallError> {
        self.ask(|reply| Message::Offer { id, caller, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// Takes a call that rings at a browser by its answer to our offer. Dropping the future before it is ready abandons
    /// the call.
    ///
    /// # Errors
    /// [`CreateError`]; with [`CreateError::Offer`] the call rings on.
    pub async fn take(&self, id: CallId, answer: String, caller: Caller) -> Result<(), CreateError> {
        let told = self.ask(|reply| Message::Take { id, answer, caller, reply }).await;
        told.unwrap_or(Err(CreateError::Draining)).map(|_| ())
    }

    /// A browser does not want a call that rings there.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn decline(&self, id: CallId, session: SessionId, status: u16) -> Result<(), CallError> {
        let told = self.ask(|reply| Message::Decline { id, session, status, reply }).await;
        told.unwrap_or(Err(CallError::Unknown))
    }

    /// The answer to another offer of the browser.
    ///
    /// # Errors
    /// [`CreateError`]; nothing has changed then.
    pub async fn renegotiate(&self, id: CallId, offer: String) -> Result<String, CreateError> {
        let told = self.ask(|reply| Message::Renegotiate { id, offer, reply }).await;
        told.unwrap_or(Err(CreateError::Gone))
    }

    /// Has a call send digits or user data, or transfer its far end.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn act(&self, id: CallId, input: Input) -> Result<(), CallError> {
        self.ask(|reply| Message::Act { id, input, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// Transfers the far end of a call onto that of another of the same browser.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn transfer_onto(&self, id: CallId, other: CallId) -> Result<(), CallError> {
        let told = self.ask(|reply| Message::TransferOnto { id, other, reply }).await;
        told.unwrap_or(Err(CallError::Unknown))
    }

    /// More candidates of the browser.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn trickle(&self, id: CallId, fragment: String) -> Result<(), CallError> {
        self.ask(|reply| Message::Trickle { id, fragment, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// Hangs up.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn hang_up(&self, id: CallId) -> Result<(), CallError> {
        self.ask(|reply| Message::HangUp { id, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// One call with its statistics.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn show(&self, id: CallId) -> Result<Shown, CallError> {
        self.ask(|reply| Message::Show { id, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// All calls.
    pub async fn list(&self) -> Vec<CallView> {
        self.ask(Message::List).await.unwrap_or_default()
    }

    /// Events of one call: those so far, and those to come.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn watch(&self, id: CallId) -> Result<Watched, CallError> {
        self.ask(|reply| Message::Watch { id, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// State of control and relay; `None` when we are on our way down.
    pub async fn overview(&self) -> Option<Overview> {
        self.ask(Message::Overview).await
    }

    /// Hangs up all calls and waits until none is left.
    pub async fn drain(&self) {
        let _ = self.ask(Message::Drain).await;
    }

    /// Hangs up the calls that another control could not go on with and waits until none of them is left.
    pub async fn leave(&self) {
        let _ = self.ask(Message::Leave).await;
    }
}

/// Abandons a call whose answer nobody has read.
struct Abandon {
    handle: Handle,
    id: Option<CallId>,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.handle.tell(Message::Abandon(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn begun() -> (Handle, mpsc::UnboundedReceiver<Message>) {
        let (sender, inbox) = mpsc::unbounded_channel();
        (Handle(sender), inbox)
    }

    fn created(
        inbox: &mut mpsc::UnboundedReceiver<Message>,
    ) -> (CallId, oneshot::Sender<Result<Created, CreateError>>) {
        match inbox.try_recv() {
            Ok(Message::Create { id, reply, .. }) => (id, reply),
            other => panic!("{other:?}"),
        }
    }

    fn wish() -> Wish {
        let caller = Caller { client: None, zone: Zone::Outside, session: None };
        Wish { to: "1000".into(), offer: String::new(), caller, headers: Vec::new() }
    }

    #[test]
    fn a_client_that_goes_away_at_any_moment_abandons_its_call() {
        for answered in [false, true] {
            let (handle, mut inbox) = begun();
            let mut context = Context::from_waker(Waker::noop());
            let id = {
                let mut creating = pin!(handle.create(wish()));
                assert!(creating.as_mut().poll(&mut context).is_pending());
                let (id, reply) = created(&mut inbox);
                if answered {
                    // The answer lies ready, but nobody comes for it any more.
                    reply.send(Ok(Created { id, answer: String::new() })).unwrap();
                }
                id
            };
            assert!(
                matches!(inbox.try_recv(), Ok(Message::Abandon(abandoned)) if abandoned == id),
                "{answered}"
            );
        }
    }

    #[test]
    fn a_call_whose_answer_was_read_is_not_abandoned() {
        let (handle, mut inbox) = begun();
        let mut context = Context::from_waker(Waker::noop());
        let mut creating = Box::pin(handle.create(wish()));
        assert!(creating.as_mut().poll(&mut context).is_pending());
        let (id, reply) = created(&mut inbox);
        reply.send(Ok(Created { id, answer: "x".into() })).unwrap();
        let Poll::Ready(Ok(read)) = creating.as_mut().poll(&mut context) else { panic!("no answer") };
        assert_eq!((read.id, read.answer.as_str()), (id, "x"));
        drop(creating);
        assert!(inbox.try_recv().is_err());
    }
}
