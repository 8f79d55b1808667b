//! One call with what belongs to it alone: its DTLS, who waits for its answer, who watches.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sallyport_plan::{CallId, DirectionReport, FlowKey};
use sallyport_proto::sip::TransactionId;
use sallyport_proto::{CallEvent, CallState};
use sallyport_wire::stun::TransactionId as CheckId;
use tokio::sync::{broadcast, oneshot};

use super::Waiting;
use super::machine::Machine;
use crate::dtls::Dtls;
use crate::message::{CreateError, Created, SessionId, Shown};

/// Events that a slow watcher may lag behind.
const EVENTS: usize = 16;
/// Checks that are remembered.
const CHECKS: usize = 128;

/// One of the associations that a call may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// That of the connection that runs, or begins to.
    Running,
    /// That of another connection of the browser.
    Next,
}

/// One call as it runs.
pub struct Runtime {
    /// Its state machine.
    pub call: Machine,
    /// Its DTLS association, and the flow that it runs on.
    pub dtls: Option<(Dtls, FlowKey)>,
    /// Another connection's, beside it.
    pub next_dtls: Option<(Dtls, FlowKey)>,
    /// The client that waits for the answer.
    pub created: Option<oneshot::Sender<Result<Created, CreateError>>>,
    /// Who waits for statistics, and until when.
    pub waiting: Vec<Waiting>,
    waiting_until: Option<Instant>,
    /// Checks of ours whose answers may come.
    checks: VecDeque<(FlowKey, CheckId)>,
    events: broadcast::Sender<CallEvent>,
    /// Who called without a token.
    pub client: Option<IpAddr>,
    /// The browser whose call it is, where it is signed in.
    pub owner: Option<SessionId>,
    /// Whether a former control had it: whose it was is not known.
    pub adopted: bool,
    /// The INVITE of the inside that began it, by its number.
    pub invite: Option<TransactionId>,
    /// Browsers that it rings at.
    pub ringing: Vec<SessionId>,
    /// The browser that offered anew and waits for the answer.
    pub renegotiating: Option<oneshot::Sender<Result<String, CreateError>>>,
}

impl Runtime {
    pub fn new(
        call: impl Into<Machine>,
        created: Option<oneshot::Sender<Result<Created, CreateError>>>,
    ) -> Self {
        Self {
            call: call.into(),
            dtls: None,
            next_dtls: None,
            created,
            waiting: Vec::new(),
            waiting_until: None,
            checks: VecDeque::new(),
            events: broadcast::Sender::new(EVENTS),
            client: None,
            owner: None,
            adopted: false,
            invite: None,
            ringing: Vec::new(),
            renegotiating: None,
        }
    }

    pub fn id(&self) -> CallId {
        self.call.id()
    }

    /// The next deadline.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let dtls =
            self.dtls.iter().chain(&self.next_dtls).filter_map(|(dtls, _)| dtls.poll_timeout(now)).min();
        [self.call.poll_timeout(), dtls, self.waiting_until].into_iter().flatten().min()
    }

    /// One of its associations.
    pub const fn association(&mut self, which: Which) -> &mut Option<(Dtls, FlowKey)> {
        match which {
            Which::Running => &mut self.dtls,
            Which::Next => &mut self.next_dtls,
        }
    }

    /// Lets time pass for the call; its DTLS is the caller's.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.waiting_until.is_some_and(|at| at <= now) {
            self.report(&[]);
        }
        if self.call.poll_timeout().is_some_and(|at| at <= now) {
            self.call.handle_timeout(now);
        }
    }

    /// A check was sent there; one that is forgotten for it.
    pub fn remember(&mut self, path: FlowKey, transaction: CheckId) -> Option<CheckId> {
        let oldest = if self.checks.len() == CHECKS { self.checks.pop_front() } else { None };
        self.checks.push_back((path, transaction));
        oldest.map(|(_, transaction)| transaction)
    }

    /// Checks whose answers may come.
    pub fn checks(&self) -> impl Iterator<Item = CheckId> {
        self.checks.iter().map(|(_, transaction)| *transaction)
    }

    /// Whether a check was sent there under this id.
    pub fn sent(&self, path: &FlowKey, transaction: CheckId) -> bool {
        self.checks.contains(&(*path, transaction))
    }

    /// Whether both sides have agreed.
    pub fn is_established(&self) -> bool {
        matches!(self.call.view().state, CallState::Answered | CallState::Connected | CallState::Ending)
    }

    /// Tells those who watch; the call keeps it for those who come later.
    pub fn notify(&self, event: CallEvent) {
        // An error says that nobody watches.
        let _ = self.events.send(event);
    }

    /// What has happened, and what will.
    pub fn watch(&self) -> (Vec<CallEvent>, broadcast::Receiver<CallEvent>) {
        (self.call.past().to_vec(), self.events.subscribe())
    }

    /// Somebody waits for statistics.
    pub fn wait(&mut self, reply: Waiting, patience: Duration) {
        self.waiting.push(reply);
        self.waiting_until = Some(Instant::now() + patience);
    }

    /// Hands statistics to all who wait; whether anybody did.
    pub fn report(&mut self, directions: &[DirectionReport]) -> bool {
        self.waiting_until = None;
        let asked = !self.waiting.is_empty();
        for reply in self.waiting.drain(..) {
            let _ = reply.send(Ok(Shown { view: self.call.view(), directions: directions.to_vec() }));
        }
        asked
    }
}
