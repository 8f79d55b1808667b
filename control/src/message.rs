//! What the task that owns all calls is told, and how others ask it.

use sallyport_plan::{CallId, DirectionReport, Event, Status};
use sallyport_proto::sip::{Request, Response, TransactionId};
use sallyport_proto::{CallEvent, CallFailure, CallView, FragmentError, OfferError};
use tokio::sync::{broadcast, mpsc, oneshot};

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

/// What SIP reports of a call of ours, found by Call-ID.
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
    /// A request with a tag in To; `known` says whether a call took it.
    Request {
        /// Our number for it.
        transaction: TransactionId,
        /// The request.
        request: Request,
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
        /// Whom to call.
        to: String,
        /// The browser's offer.
        offer: String,
        /// Dropped before the answer: the client went away.
        reply: oneshot::Sender<Result<Created, CreateError>>,
        /// Told as soon as the call has a name.
        named: oneshot::Sender<CallId>,
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

    /// Begins a call and waits for its answer. Dropping the future before abandons the call.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create(&self, to: String, offer: String) -> Result<Created, CreateError> {
        let (reply, answer) = oneshot::channel();
        let (named, name) = oneshot::channel();
        if !self.tell(Message::Create { to, offer, reply, named }) {
            return Err(CreateError::Draining);
        }
        let mut guard = name.await.ok().map(|id| Abandon { handle: self.clone(), id: Some(id) });
        let outcome = answer.await.unwrap_or(Err(CreateError::Draining));
        if let Some(guard) = &mut guard {
            guard.id = None;
        }
        outcome
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
}

/// Abandons a call unless it was answered.
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
