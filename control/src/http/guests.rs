//! Browsers that are signed in over a connection that may drop: they stay for a while, with their calls, and go on by
//! their session's name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use sallyport_plan::CallId;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::Shared;
use super::access::sign_in_problem;
use super::connection::{Local, Peer};
use super::hanging::Talk;
use super::outbox::Outbox;
use super::problem::Problem;
use crate::identity::Credentials;
use crate::message::{Caller, Message, SessionEvent, SessionId};

/// How often it is looked whether a browser has been away for too long.
const GLANCE: Duration = Duration::from_millis(500);
/// Requests of one browser that wait for their outcome at once.
const REQUESTS: usize = 32;
/// Names of requests that are remembered: one that comes again after a reconnection does nothing twice.
const REFS: usize = 256;
/// Calls that one browser may have at once, ringing ones included.
const CALLS: usize = 64;

/// What a browser says of itself.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Names {
    /// Directory number of an agent; a customer has none.
    pub number: Option<String>,
    /// What its SIP server wants.
    pub password: String,
    /// Bearer token; a WebSocket of a page has no headers of its own.
    pub token: Option<String>,
    /// Shown to those it calls.
    pub display_name: String,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("number", &self.number).finish_non_exhaustive()
    }
}

impl From<Names> for Credentials {
    fn from(Names { number, password, token, display_name }: Names) -> Self {
        let named = |text: String| Some(text).filter(|text| !text.is_empty());
        Self { number: number.and_then(named), password, token: token.and_then(named), display_name }
    }
}

/// Where a request comes from, as far as can be told.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its other end.
    pub peer: Peer,
    /// Its end at ours.
    pub local: Local,
}

/// One browser.
#[derive(Debug)]
pub struct Guest {
    /// Its session.
    pub id: SessionId,
    /// Under which number it is called.
    pub number: Option<String>,
    /// What it is told.
    pub outbox: Outbox,
    /// Its calls as the hanging GET names them.
    pub talks: Mutex<Vec<Talk>>,
    caller: Caller,
    calls: Mutex<HashSet<CallId>>,
    refs: Mutex<VecDeque<String>>,
    tasks: Mutex<Vec<AbortHandle>>,
    places: Arc<Semaphore>,
    leave: watch::Sender<Option<&'static str>>,
}

/// All of one transport.
#[derive(Debug, Clone)]
pub struct Guests {
    all: Arc<Mutex<HashMap<SessionId, Arc<Guest>>>>,
    /// Member of messages that has their number.
    key: &'static str,
}

/// What browsers send, by what became of it.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages obeyed or answered.
    pub taken: AtomicU64,
    /// Messages that could not be read.
    pub bad: AtomicU64,
    /// Browsers that read too slowly or stayed away.
    pub lost: AtomicU64,
    /// Browsers that came back.
    pub resumed: AtomicU64,
}

impl Counts {
    /// All of them by name.
    pub fn all(&self) -> [(&'static str, u64); 4] {
        [("taken", &self.taken), ("bad", &self.bad), ("lost", &self.lost), ("resumed", &self.resumed)]
            .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }

    /// One more.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guests {
    /// Nobody is there yet; messages have their numbers as member `key`.
    pub fn new(key: &'static str) -> Self {
        Self { all: Arc::default(), key }
    }

    /// Who has this session.
    pub fn find(&self, id: SessionId) -> Option<Arc<Guest>> {
        lock(&self.all).get(&id).cloned()
    }

    /// Signs a browser in. From now on `tell` makes messages of what happens, until it signs out or is away for too long.
    ///
    /// # Errors
    /// The problem to answer with.
    pub async fn sign_in(
        &self,
        shared: &Shared,
        from: &Origin,
        names: Names,
        tell: impl Fn(&Guest, SessionEvent) -> Vec<Value> + Send + 'static,
    ) -> Result<Arc<Guest>, Problem> {
        let credentials = Credentials::from(names);
        let sign_in = shared.access.sign_in(&from.headers, from.peer.0, &credentials)?;
        let number = sign_in.party.as_ref().map(|party| party.user.clone());
        let outcome = shared.calls.sign_in(sign_in).await;
        shared.access.settle(&from.headers, from.peer.0, &credentials, outcome.as_ref().map(|_| ()));
        let signed_in = outcome.map_err(|error| sign_in_problem(&error))?;
        let caller = shared.caller(&from.headers, from.peer, from.local);
        let guest = Arc::new(Guest {
            id: signed_in.id,
            number,
            outbox: Outbox::new(self.key),
            talks: Mutex::default(),
            caller: Caller { session: Some(signed_in.id), ..caller },
            calls: Mutex::default(),
            refs: Mutex::default(),
            tasks: Mutex::default(),
            places: Arc::new(Semaphore::new(REQUESTS)),
            leave: watch::Sender::new(None),
        });
        lock(&self.all).insert(guest.id, guest.clone());
        let (guests, shared, host) = (self.clone(), shared.clone(), guest.clone());
        tokio::spawn(async move { guests.entertain(&shared, &host, signed_in.events, tell).await });
        Ok(guest)
    }

    async fn entertain(
        &self,
        shared: &Shared,
        guest: &Guest,
        mut events: Receiver<SessionEvent>,
        tell: impl Fn(&Guest, SessionEvent) -> Vec<Value>,
    ) {
        let mut glance = tokio::time::interval(GLANCE);
        let mut leave = guest.leave.subscribe();
        let reason = loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) if tell(guest, event.clone()).into_iter().all(|word| guest.outbox.push(word)) => {}
                    Some(_) => break "slow",
                    // Why, it may have been told with its last event.
                    None => break guest.leave.borrow().unwrap_or("ended"),
                },
                _ = glance.tick() => if guest.outbox.alone_for() > shared.linger {
                    break "away";
                },
                Ok(reason) = leave.wait_for(Option::is_some) => break reason.unwrap_or("signed_out"),
            }
        };
        if reason == "slow" || reason == "away" {
            Counts::add(&shared.counts.lost);
        }
        lock(&self.all).remove(&guest.id);
        lock(&guest.tasks).iter().for_each(AbortHandle::abort);
        shared.calls.tell(Message::SignOut(guest.id));
        guest.outbox.push(serde_json::json!({ "type": "signed_out", "reason": reason }));
        guest.outbox.close();
    }
}

impl Guest {
    /// As whom it calls and takes calls.
    pub fn caller(&self) -> Caller {
        self.caller
    }

    /// A call of its begins, or rings.
    ///
    /// # Errors
    /// The problem to answer with: it has too many.
    pub fn enter(&self, call: CallId) -> Result<(), Problem> {
        let mut calls = lock(&self.calls);
        if calls.len() >= CALLS {
            let text = "this browser has as many calls as one may have";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_calls", text));
        }
        calls.insert(call);
        Ok(())
    }

    /// A call of its is over, or another browser's.
    pub fn forget(&self, call: CallId) {
        lock(&self.calls).remove(&call);
    }

    /// Whether a call is its own, or rings at it.
    pub fn has(&self, call: CallId) -> bool {
        lock(&self.calls).contains(&call)
    }

    /// Whether a request of this name is a new one; it is not from now on.
    pub fn is_new(&self, name: String) -> bool {
        let mut refs = lock(&self.refs);
        if refs.contains(&name) {
            return false;
        }
        if refs.len() == REFS {
            refs.pop_front();
        }
        refs.push_back(name);
        true
    }

    /// Tells it something.
    pub fn tell(&self, word: Value) {
        if !self.outbox.push(word) {
            self.leave("slow");
        }
    }

    /// It goes, or has to.
    pub fn leave(&self, reason: &'static str) {
        self.leave.send_if_modified(|given| given.is_none() && given.replace(reason).is_none());
    }

    /// Tells it an outcome when there is one.
    ///
    /// # Errors
    /// The problem to answer with: it waits for too many.
    pub fn defer(
        self: &Arc<Self>,
        outcome: impl Future<Output = Value> + Send + 'static,
    ) -> Result<(), Problem> {
        let text = "too many requests of this browser wait for their outcome";
        let busy = |_| Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", text).retry(1);
        let place = self.places.clone().try_acquire_owned().map_err(busy)?;
        let guest = self.clone();
        self.spawn(async move {
            let word = outcome.await;
            guest.tell(word);
            drop(place);
        });
        Ok(())
    }

    /// Waits for an outcome, unless it leaves before.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: JoinHandle<()> = tokio::spawn(task);
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
        if self.leave.borrow().is_some() {
            task.abort();
        }
    }
}
