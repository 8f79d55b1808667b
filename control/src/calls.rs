//! The task that owns all calls: drives their state machines, their DTLS, and routes what arrives to them.

mod associations;
mod incoming;
mod index;
mod machine;
mod ng;
mod registrations;
mod relay;
mod route;
mod runtime;
mod serve;
mod sessions;
mod settings;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport_plan::{CallId, Command as RelayCommand, Plan, Status};
use sallyport_proto::Input;
use sallyport_proto::sip::header::tag_of;
use sallyport_proto::sip::{Request, TransactionId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::dtls::Identity;
use crate::gateway::Told;
use crate::message::{CallError, Handle, Message, Overview, Shown, SipEvent, Source, Watched};
use crate::quality::Totals;
use crate::sip::Sender as Sip;
use crate::stun::{self, Stun};

use runtime::Runtime;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(10);
/// How often the relay is asked how it is.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How long those who ask for statistics wait for the relay.
const REPORT_PATIENCE: Duration = Duration::from_millis(500);

/// Everything about calls.
pub struct Calls {
    config: Arc<Config>,
    identity: Identity,
    relay: UnboundedSender<RelayCommand>,
    sip: Sip,
    /// What of SIP is no call's.
    gateway: UnboundedSender<Told>,
    calls: HashMap<CallId, Runtime>,
    status: Option<Status>,
    status_at: Instant,
    swept_at: Instant,
    adopting: Option<Vec<Plan>>,
    /// Calls that the relay was told to drop and has not said that it did.
    removing: HashSet<CallId>,
    stun: Stun,
    draining: Option<Vec<oneshot::Sender<()>>>,
    leaving: Option<Vec<oneshot::Sender<()>>>,
    sessions: sessions::Sessions,
    registrations: registrations::Registrations,
    /// Calls by our tag of their SIP dialog.
    by_tag: HashMap<String, CallId>,
    /// Calls by the INVITE of the inside that they ring for.
    by_invite: HashMap<TransactionId, CallId>,
    index: index::Index,
    begun: u64,
    ended: BTreeMap<&'static str, u64>,
    recordings: BTreeMap<&'static str, u64>,
    quality: Totals,
    ng: ng::Index,
}

/// Answers that wait for the relay's statistics.
type Waiting = oneshot::Sender<Result<Shown, crate::message::CallError>>;

impl Calls {
    /// Nothing runs yet; the relay says what does.
    pub fn new(
        config: Arc<Config>,
        identity: Identity,
        relay: UnboundedSender<RelayCommand>,
        sip: Sip,
        gateway: UnboundedSender<Told>,
    ) -> Self {
        Self {
            identity,
            gateway,
            relay,
            sip,
            calls: HashMap::new(),
            status: None,
            status_at: Instant::now(),
            swept_at: Instant::now(),
            adopting: None,
            removing: HashSet::new(),
            stun: Stun::new(stun::is_wanted(&config)),
            draining: None,
            leaving: None,
            sessions: sessions::Sessions::default(),
            registrations: registrations::Registrations::default(),
            by_tag: HashMap::new(),
            by_invite: HashMap::new(),
            index: index::Index::default(),
            begun: 0,
            ended: BTreeMap::new(),
            recordings: BTreeMap::new(),
            quality: Totals::default(),
            ng: ng::Index::default(),
            config,
        }
    }

    /// Serves until nobody can ask any more.
    pub async fn run(mut self, mut inbox: UnboundedReceiver<Message>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                _ = tick.tick() => self.pass_time(),
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::RelayUp { status } => self.relay_up(status),
            Message::RelayDown => self.relay_down(),
            Message::Relay(event) => self.relay_event(event),
            Message::Sip(event) => self.sip_event(event),
            Message::Create { id, wish, reply } => self.create(id, wish, reply),
            message @ (Message::SignIn { .. }
            | Message::SignOut(_)
            | Message::Renew { .. }
            | Message::Claim { .. }
            | Message::IsSignedIn { .. }
            | Message::MayCall { .. }
            | Message::May { .. }) => self.take_of_session(message),
            Message::Accept { id, offer, caller, reply } => {
                self.accept(id, &offer, &self.met(caller), reply);
            }
            Message::Offer { id, caller, reply } => {
                let _ = reply.send(self.offer(id, &self.met(caller)));
            }
            Message::Take { id, answer, caller, reply } => {
                let caller = self.met(caller);
                self.take_by(id, &caller, reply, |call| call.take(&answer, caller.zone));
            }
            Message::Decline { id, session, status, reply } => {
                let _ = reply.send(self.decline(id, session, status));
            }
            Message::Renegotiate { id, offer, reply } => self.renegotiate(id, &offer, reply),
            Message::Act { id, input, reply } => {
                let _ = reply.send(self.want(id, input));
            }
            Message::TransferOnto { id, other, reply } => {
                let _ = reply.send(self.transfer_onto(id, other));
            }
            Message::Abandon(id) => self.input(id, Input::Abandoned),
            Message::Trickle { id, fragment, reply } => {
                let _ = reply.send(self.trickle(id, &fragment));
            }
            Message::HangUp { id, reply } => {
                let _ = reply.send(self.hang_up(id));
            }
            Message::Show { id, reply } => self.show(id, reply),
            Message::List(reply) => {
                let _ = reply.send(self.calls.values().map(|runtime| runtime.call.view()).collect());
            }
            Message::Watch { id, reply } => {
                let _ = reply.send(self.watch(id));
            }
            Message::Overview(reply) => {
                let _ = reply.send(self.overview());
            }
            Message::Ng(ask) => self.ng(ask),
            Message::Drain(reply) => self.drain(reply),
            Message::Leave(reply) => self.leave(reply),
            Message::StunServers(servers) => self.stun_servers(servers),
        }
    }

    fn take_of_session(&mut self, message: Message) {
        match message {
            Message::SignIn { sign_in, reply } => self.sign_in(sign_in, reply),
            Message::SignOut(session) => self.sign_out(session),
            Message::Renew { session, renewal, reply } => {
                let _ = reply.send(self.renew(session, renewal));
            }
            Message::Claim { id, session, reply } => {
                let _ = reply.send(self.claim(id, session));
            }
            Message::IsSignedIn { session, reply } => {
                let _ = reply.send(self.sessions.is_signed_in(session));
            }
            Message::MayCall { session, to, reply } => {
                let _ = reply.send(self.may_call(session, &to));
            }
            Message::May { id, by, reply } => {
                let _ = reply.send(self.may(id, by));
            }
            _ => {}
        }
    }

    fn hang_up(&mut self, id: CallId) -> Result<(), CallError> {
        let known = self.calls.contains_key(&id);
        self.input(id, Input::HangUp);
        if known { Ok(()) } else { Err(CallError::Unknown) }
    }

    fn watch(&self, id: CallId) -> Result<Watched, CallError> {
        self.calls.get(&id).map(Runtime::watch).ok_or(CallError::Unknown)
    }

    fn stun_servers(&mut self, servers: Vec<SocketAddr>) {
        self.stun.servers = servers;
        self.ask_stun();
    }

    fn tell_relay(&self, command: RelayCommand) {
        // The link's task ends with the process only.
        let _ = self.relay.send(command);
    }

    fn sip_event(&mut self, event: SipEvent) {
        let Some(event) = self.registration_event(event) else { return };
        match event {
            SipEvent::Response { call, transaction, response } if self.calls.contains_key(&call) => {
                self.input(call, Input::SipResponse { transaction, response });
            }
            SipEvent::Timeout { call, transaction } if self.calls.contains_key(&call) => {
                self.input(call, Input::SipTimeout(transaction));
            }
            SipEvent::TransportError { call, transaction } if self.calls.contains_key(&call) => {
                self.input(call, Input::SipTransportError(transaction));
            }
            SipEvent::Request { source: Source::Sip, transaction, request } => match self.by_sip(&request) {
                Some(id) => self.input(id, Input::SipRequest { transaction, request }),
                None => self.stray_request(transaction, request),
            },
            SipEvent::Cancelled { transaction, .. } if self.by_invite.contains_key(&transaction) => {
                if let Some(id) = self.by_invite.get(&transaction).copied() {
                    self.input(id, Input::SipCancelled(transaction));
                }
            }
            // Browsers' own SIP.
            other => drop(self.gateway.send(Told::Sip(other))),
        }
    }

    /// The call in whose dialog a request is: To has our tag. Call-IDs are shared where we call ourselves.
    fn by_sip(&self, request: &Request) -> Option<CallId> {
        self.by_dialog(tag_of(&request.to)?, &request.call_id)
    }

    /// The call of a dialog: all its tags begin as its first one, up to a hyphen.
    fn by_dialog(&self, tag: &str, call_id: &str) -> Option<CallId> {
        let id = *self.by_tag.get(tag.split('-').next()?)?;
        self.calls.get(&id).is_some_and(|runtime| runtime.call.has_call_id(call_id)).then_some(id)
    }

    /// A call begins, or goes on.
    fn enter(&mut self, id: CallId, runtime: Runtime) {
        let tag = runtime.call.sip_tag();
        if !tag.is_empty() {
            self.by_tag.insert(tag.to_owned(), id);
        }
        if let Some(transaction) = runtime.invite {
            self.by_invite.insert(transaction, id);
        }
        self.calls.insert(id, runtime);
    }

    /// A call is over.
    fn forget(&mut self, id: CallId) {
        let Some(ended) = self.calls.remove(&id) else { return };
        self.index.forget(id, ended.checks());
        self.by_tag.remove(ended.call.sip_tag());
        if let Some(transaction) = ended.invite {
            self.by_invite.remove(&transaction);
        }
        self.ng.forget(Some(&ended));
        self.settle();
    }

    fn pass_time(&mut self) {
        let now = Instant::now();
        if self.status.is_some() && now.saturating_duration_since(self.status_at) >= STATUS_INTERVAL {
            self.status_at = now;
            self.tell_relay(RelayCommand::Status);
        }
        if now.saturating_duration_since(self.swept_at) >= STATUS_INTERVAL {
            self.swept_at = now;
            self.sweep(now);
        }
        self.registration_time(now);
        for command in self.stun.poll(now) {
            self.tell_relay(command);
        }
        self.ng_time(now);
        // So many at the most: a call that stays due whatever it does waits for the next tick.
        for _ in 0..=self.calls.len() {
            let Some(id) = self.index.due(now) else { return };
            self.act(id, |runtime| runtime.handle_timeout(now));
        }
    }

    /// A call has changed: it is found as it stands now.
    fn reindex(&mut self, id: CallId) {
        let Some(runtime) = self.calls.get(&id) else { return };
        let own = Some(runtime.call.ice_ufrag()).filter(|ufrag| !ufrag.is_empty());
        self.index.update(id, [own, runtime.call.next_ufrag()], runtime.due(Instant::now()));
    }

    fn input(&mut self, id: CallId, input: Input) {
        self.act(id, |runtime| runtime.call.handle(Instant::now(), input));
    }

    fn overview(&self) -> Overview {
        let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut setup = 0;
        for runtime in self.calls.values() {
            let state = runtime.call.view().state;
            *states.entry(state.name()).or_default() += 1;
            setup += u64::from(!runtime.is_established());
        }
        let total = u64::try_from(self.calls.len()).unwrap_or(u64::MAX);
        Overview {
            setup,
            active: total - setup,
            states: states.into_iter().collect(),
            sessions: u64::try_from(self.sessions.len()).unwrap_or(u64::MAX),
            registrations: self.registrations.states(),
            begun: self.begun,
            ended: self.ended.iter().map(|(cause, count)| (*cause, *count)).collect(),
            recordings: self.recordings.iter().map(|(outcome, count)| (*outcome, *count)).collect(),
            quality: self.quality.clone(),
            relay: self.status.clone(),
            draining: self.leaving(),
            candidates_known: self.stun.is_settled(Instant::now()),
        }
    }

    /// Whether new calls are refused.
    fn leaving(&self) -> bool {
        self.draining.is_some() || self.leaving.is_some()
    }

    fn drain(&mut self, reply: oneshot::Sender<()>) {
        self.draining.get_or_insert_default().push(reply);
        self.dismiss();
        let all: Vec<CallId> = self.calls.keys().copied().collect();
        for id in all {
            self.input(id, Input::HangUp);
        }
        self.settle();
    }

    /// What another control cannot go on with ends here: nobody rings on, no dialog is left without its other half.
    fn leave(&mut self, reply: oneshot::Sender<()>) {
        self.leaving.get_or_insert_default().push(reply);
        self.dismiss();
        let short_lived = self.calls.values().filter(|runtime| !runtime.call.outlives_control());
        let short_lived: Vec<CallId> = short_lived.map(Runtime::id).collect();
        for id in short_lived {
            self.input(id, Input::HangUp);
        }
        self.settle();
    }

    /// Tells those who wait for calls to end, when they have.
    fn settle(&mut self) {
        if !self.leaving() {
            return;
        }
        let registered = !self.registrations.is_empty();
        let none = self.calls.is_empty() && !registered;
        let only_lasting = !registered && self.calls.values().all(|runtime| runtime.call.outlives_control());
        for (waiting, done) in [(&mut self.draining, none), (&mut self.leaving, only_lasting)] {
            for reply in waiting.iter_mut().filter(|_| done).flat_map(|waiting| waiting.drain(..)) {
                // Whoever waited may have lost patience.
                let _ = reply.send(());
            }
        }
    }
}

/// What a log may hold of a call's name, which is a secret of its caller: enough to tell calls apart.
pub fn short(id: CallId) -> String {
    id.to_string().chars().take(8).collect()
}

/// Makes the owner's task and the handle to ask it.
pub fn channel() -> (Handle, UnboundedReceiver<Message>) {
    let (sender, inbox) = tokio::sync::mpsc::unbounded_channel();
    (Handle(sender), inbox)
}
