//! The task that owns all calls: drives their state machines, their DTLS, and routes what arrives to them.

mod machine;
mod ng;
mod route;
mod runtime;
mod serve;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport_plan::{CallId, Command as RelayCommand, Event, Plan, Status, Zone};
use sallyport_proto::sip::{Response, TransactionId};
use sallyport_proto::{CandidateKind, Input, LocalCandidate, Settings, SipSettings, Timeouts};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use crate::config::{Config, Ice, Transport};
use crate::dtls::Identity;
use crate::message::{Handle, Message, Overview, Shown, SipEvent};
use crate::random;
use crate::sip::Sender as Sip;
use crate::stun::Reflexive;

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
    calls: HashMap<CallId, Runtime>,
    status: Option<Status>,
    status_at: Instant,
    adopting: Option<Vec<Plan>>,
    reflexive: Option<Reflexive>,
    draining: Option<Vec<oneshot::Sender<()>>>,
    begun: u64,
    ended: BTreeMap<&'static str, u64>,
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
    ) -> Self {
        Self {
            config,
            identity,
            relay,
            sip,
            calls: HashMap::new(),
            status: None,
            status_at: Instant::now(),
            adopting: None,
            reflexive: None,
            draining: None,
            begun: 0,
            ended: BTreeMap::new(),
            ng: ng::Index::default(),
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
            Message::Create { to, offer, reply, named } => self.create(to, &offer, reply, named),
            Message::Abandon(id) => self.input(id, Input::Abandoned),
            Message::Trickle { id, fragment, reply } => {
                let _ = reply.send(self.trickle(id, &fragment));
            }
            Message::HangUp { id, reply } => {
                let known = self.calls.contains_key(&id);
                let _ = reply.send(if known { Ok(()) } else { Err(crate::message::CallError::Unknown) });
                self.input(id, Input::HangUp);
            }
            Message::Show { id, reply } => self.show(id, reply),
            Message::List(reply) => {
                let _ = reply.send(self.calls.values().map(|runtime| runtime.call.view()).collect());
            }
            Message::Watch { id, reply } => {
                let watched = self.calls.get(&id).map(Runtime::watch);
                let _ = reply.send(watched.ok_or(crate::message::CallError::Unknown));
            }
            Message::Overview(reply) => {
                let _ = reply.send(self.overview());
            }
            Message::Ng(ask) => self.ng(ask),
            Message::Drain(reply) => self.drain(reply),
        }
    }

    fn tell_relay(&self, command: RelayCommand) {
        // The link's task ends with the process only.
        let _ = self.relay.send(command);
    }

    fn relay_up(&mut self, status: Status) {
        tracing::info!(calls = status.calls, workers = status.workers, "the relay is there");
        let now = Instant::now();
        let locals = media(&status);
        let server: Option<SocketAddr> = self.config.outside.stun.parse().ok();
        self.reflexive = server.map(|server| Reflexive::new(server, &locals, now));
        self.status = Some(status);
        self.adopting = Some(Vec::new());
        self.tell_relay(RelayCommand::List);
    }

    fn relay_down(&mut self) {
        self.status = None;
        self.adopting = None;
        self.reflexive = None;
    }

    fn relay_event(&mut self, event: Event) {
        match event {
            Event::Hello { status, .. } | Event::Status(status) => self.status = Some(status),
            Event::Reserved { call, ports } => self.input(call, Input::Reserved(ports)),
            Event::Installed { call, version } => self.input(call, Input::Installed(version)),
            Event::Refused { call, refusal } => self.refused(call, refusal),
            Event::Removed { .. } => {}
            Event::Punt { path, call, payload } => self.punt(path, call, payload),
            Event::ConsentLost { call, flow } => self.input(call, Input::ConsentLost(flow)),
            Event::Running(plan) => {
                if let Some(found) = &mut self.adopting {
                    found.push(plan);
                }
            }
            Event::Listed => self.adopt(),
            Event::Report { call, directions } => {
                self.ng_report(call, &directions);
                if let Some(runtime) = self.calls.get_mut(&call) {
                    runtime.report(&directions);
                }
            }
        }
    }

    /// A refusal answers a question about statistics where one is open, else the call's own command.
    fn refused(&mut self, call: CallId, refusal: sallyport_plan::Refusal) {
        let asked = self.calls.get_mut(&call).is_some_and(|runtime| {
            let unknown = refusal == sallyport_plan::Refusal::UnknownCall;
            unknown && runtime.report(&[])
        });
        if !asked {
            self.input(call, Input::Refused(refusal));
        }
    }

    fn sip_event(&mut self, event: SipEvent) {
        match event {
            SipEvent::Response { call, transaction, response } => {
                self.input(call, Input::SipResponse { transaction, response });
            }
            SipEvent::Timeout { call, transaction } => self.input(call, Input::SipTimeout(transaction)),
            SipEvent::TransportError { call, transaction } => {
                self.input(call, Input::SipTransportError(transaction));
            }
            SipEvent::Request { transaction, request } => match self.by_sip(&request.call_id) {
                Some(id) => self.input(id, Input::SipRequest { transaction, request }),
                None => self.refuse_request(transaction, &request),
            },
        }
    }

    fn refuse_request(&self, transaction: TransactionId, request: &sallyport_proto::sip::Request) {
        if request.method != sallyport_proto::sip::Method::Ack {
            self.sip
                .reply(transaction, Response::to_request(request, 481, "Call/Transaction Does Not Exist"));
        }
    }

    fn by_sip(&self, call_id: &str) -> Option<CallId> {
        self.calls.iter().find(|(_, runtime)| runtime.call.sip_call_id() == call_id).map(|(id, _)| *id)
    }

    fn pass_time(&mut self) {
        let now = Instant::now();
        if self.status.is_some() && now.saturating_duration_since(self.status_at) >= STATUS_INTERVAL {
            self.status_at = now;
            self.tell_relay(RelayCommand::Status);
        }
        if let Some(reflexive) = &mut self.reflexive {
            for command in reflexive.poll(now, random::octets) {
                let _ = self.relay.send(command);
            }
        }
        self.ng_time(now);
        let due: Vec<CallId> =
            self.calls.iter().filter(|(_, call)| call.is_due(now)).map(|(id, _)| *id).collect();
        for id in due {
            self.act(id, |runtime| runtime.handle_timeout(now));
        }
    }

    fn input(&mut self, id: CallId, input: Input) {
        self.act(id, |runtime| runtime.call.handle(Instant::now(), input));
    }

    /// What all calls begun now share.
    fn settings(&self, status: &Status) -> Option<Arc<Settings>> {
        let config = &self.config;
        let server = config.sip.server?;
        let domain = if config.sip.domain.is_empty() { host(server) } else { config.sip.domain.clone() };
        let transport = if config.sip.transport == Transport::Tcp { ";transport=tcp" } else { "" };
        let contact = format!("sip:{}@{}{transport}", config.sip.user, self.sip.local());
        Some(Arc::new(Settings {
            candidates: self.candidates(status),
            ice_lite: config.outside.ice == Ice::Lite,
            fingerprint: self.identity.fingerprint(),
            toward: server.ip(),
            sip: SipSettings {
                domain,
                user: config.sip.user.clone(),
                password: config.sip.password.clone(),
                display_name: config.sip.display_name.clone(),
                contact,
                user_agent: concat!("sallyport/", env!("CARGO_PKG_VERSION")).into(),
            },
            timeouts: Timeouts {
                ring: Duration::from_secs(config.sip.ring_timeout_s.into()),
                ..Timeouts::default()
            },
        }))
    }

    /// Where browsers may reach us: what the Internet sees first.
    fn candidates(&self, status: &Status) -> Vec<LocalCandidate> {
        let mut found = Vec::new();
        for base in media(status) {
            let advertised =
                self.config.outside.advertised.iter().filter(|ip| ip.is_ipv4() == base.is_ipv4());
            found.extend(advertised.map(|ip| LocalCandidate {
                address: SocketAddr::new(*ip, base.port()),
                base,
                kind: CandidateKind::Advertised,
            }));
        }
        if let Some(reflexive) = &self.reflexive {
            let seen = reflexive.mapped().filter(|(base, address)| base != address);
            let known =
                |address: &SocketAddr| found.iter().any(|have: &LocalCandidate| have.address == *address);
            let fresh: Vec<_> = seen.filter(|(_, address)| !known(address)).collect();
            found.extend(fresh.into_iter().map(|(base, address)| LocalCandidate {
                address,
                base,
                kind: CandidateKind::ServerReflexive,
            }));
        }
        let host = |base| LocalCandidate { address: base, base, kind: CandidateKind::Host };
        found.extend(media(status).into_iter().map(host));
        found
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
            begun: self.begun,
            ended: self.ended.iter().map(|(cause, count)| (*cause, *count)).collect(),
            relay: self.status.clone(),
            draining: self.draining.is_some(),
            candidates_known: self.reflexive.as_ref().is_none_or(|asked| asked.is_settled(Instant::now())),
        }
    }

    fn drain(&mut self, reply: oneshot::Sender<()>) {
        let waiting = self.draining.get_or_insert_default();
        waiting.push(reply);
        let all: Vec<CallId> = self.calls.keys().copied().collect();
        for id in all {
            self.input(id, Input::HangUp);
        }
        self.settle_drain();
    }

    fn settle_drain(&mut self) {
        if self.calls.is_empty()
            && let Some(waiting) = &mut self.draining
        {
            for reply in waiting.drain(..) {
                let _ = reply.send(());
            }
        }
    }
}

/// Our media addresses outside, with the one port.
fn media(status: &Status) -> Vec<SocketAddr> {
    let outside = status.interfaces.iter().filter(|interface| interface.zone == Zone::Outside);
    outside
        .flat_map(|interface| interface.addresses.iter().map(|ip| SocketAddr::new(*ip, interface.port_min)))
        .collect()
}

/// A host part for a URI.
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

/// Makes the owner's task and the handle to ask it.
pub fn channel() -> (Handle, UnboundedReceiver<Message>) {
    let (sender, inbox) = tokio::sync::mpsc::unbounded_channel();
    (Handle(sender), inbox)
}
