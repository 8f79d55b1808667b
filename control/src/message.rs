//! What the task that owns all calls is told, and how others ask it.

use std::net::{IpAddr, SocketAddr};

use sallyport_plan::{CallId, DirectionReport, Event, Status};
use sallyport_proto::sip::{Request, Response, TransactionId};
use sallyport_proto::{CallEvent, CallFailure, CallView, FragmentError, OfferError};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::random;

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

/// Numbers a browser's WebSocket connection; no number is given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

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
    /// A request with a tag in To, or an ACK to a 2xx: of a call, found by Call-ID.
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
        /// Whose, as one client is counted.
        client: IpAddr,
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
    /// The INVITE, not finally answered yet, was cancelled: it is to be answered 487. The CANCEL has its answer.
    Cancelled {
        /// Our number for the INVITE.
        transaction: TransactionId,
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
        /// Whom to call.
        to: String,
        /// The browser's offer.
        offer: String,
        /// Who calls, where it has no token: so many calls per client.
        client: Option<IpAddr>,
        /// Dropped before the answer: the client went away.
        reply: oneshot::Sender<Result<Created, CreateError>>,
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
    pub async fn create(
        &self,
        to: String,
        offer: String,
        client: Option<IpAddr>,
    ) -> Result<Created, CreateError> {
        let id = CallId(u128::from_be_bytes(random::octets()));
        let (reply, answer) = oneshot::channel();
        let mut guard = Abandon { handle: self.clone(), id: Some(id) };
        let told = self.tell(Message::Create { id, to, offer, client, reply });
        let outcome = if told { answer.await.ok() } else { None };
        guard.id = None;
        outcome.unwrap_or(Err(CreateError::Draining))
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

    #[test]
    fn a_client_that_goes_away_at_any_moment_abandons_its_call() {
        for answered in [false, true] {
            let (handle, mut inbox) = begun();
            let mut context = Context::from_waker(Waker::noop());
            let id = {
                let mut creating = pin!(handle.create("1000".into(), String::new(), None));
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
        let mut creating = Box::pin(handle.create("1000".into(), String::new(), None));
        assert!(creating.as_mut().poll(&mut context).is_pending());
        let (id, reply) = created(&mut inbox);
        reply.send(Ok(Created { id, answer: "x".into() })).unwrap();
        let Poll::Ready(Ok(read)) = creating.as_mut().poll(&mut context) else { panic!("no answer") };
        assert_eq!((read.id, read.answer.as_str()), (id, "x"));
        drop(creating);
        assert!(inbox.try_recv().is_err());
    }
}
