//! Browsers that speak SIP themselves (RFC 7118): one task owns their [`Phone`]s and asks the owner of the calls, as any
//! other client does, for what the phones want.

mod deeds;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sallyport_plan::CallId;
use sallyport_proto::Seed;
use sallyport_proto::gateway::{Phone, PhoneCommand, PhoneInput, PhoneSettings, Secret};
use sallyport_proto::sip::{Method, TransactionId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::Config;
use crate::identity::{Identities, Numbers};
use crate::message::{
    ConnectionId, Handle, Message, SessionEvent, SessionId, SignedIn, SipEvent, Source, Visitor,
};
use crate::random;
use crate::sip::{AGENT, Sender};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Everything that the gateway hears.
#[derive(Debug)]
pub enum Told {
    /// SIP, as far as it is no call's.
    Sip(SipEvent),
    /// A browser's session.
    Session {
        /// Whose.
        session: SessionId,
        /// What it is told.
        event: SessionEvent,
        /// Our offer, where a call rings.
        offer: Option<String>,
    },
    /// A session is over.
    Over(SessionId),
    /// What came of a sign-in.
    SignedIn(PhoneId, Result<SignedIn, sallyport_proto::gateway::Refusal>),
    /// What came of something else.
    Outcome(PhoneId, PhoneInput),
}

/// Names a phone; its requests are sent under this name, as others are under a call's.
pub type PhoneId = CallId;

/// A sign-in that is asked for.
#[derive(Debug)]
struct Wanted {
    number: Option<String>,
    instance: String,
    token: Option<Secret>,
}

/// A phone and what it is tied to.
struct Runtime {
    phone: Phone,
    visitor: Visitor,
    connection: Option<ConnectionId>,
    session: Option<SessionId>,
    /// Sessions of before that have calls yet: nothing rings there.
    former: Vec<SessionId>,
    /// The first one is under way.
    wanted: VecDeque<Wanted>,
}

/// All phones.
pub struct Gateway {
    calls: Handle,
    sip: Sender,
    identities: Arc<Identities>,
    settings: Arc<PhoneSettings>,
    told: UnboundedSender<Told>,
    phones: HashMap<PhoneId, Runtime>,
    connections: HashMap<ConnectionId, PhoneId>,
    sessions: HashMap<SessionId, PhoneId>,
    /// Browsers' INVITEs that have no final answer.
    invites: HashMap<TransactionId, PhoneId>,
}

/// The way to tell the gateway, and where it hears.
pub fn channel() -> (UnboundedSender<Told>, UnboundedReceiver<Told>) {
    unbounded_channel()
}

impl Gateway {
    /// Nobody is there yet.
    pub fn new(
        config: &Config,
        identities: Arc<Identities>,
        (calls, sip): (Handle, Sender),
        told: UnboundedSender<Told>,
    ) -> Self {
        let settings = PhoneSettings {
            agent: AGENT.to_owned(),
            secrets: config.http.tokens.iter().cloned().map(Secret).collect(),
            challenges: config.agents.numbers == Numbers::Token,
        };
        Self {
            calls,
            sip,
            identities,
            settings: Arc::new(settings),
            told,
            phones: HashMap::new(),
            connections: HashMap::new(),
            sessions: HashMap::new(),
            invites: HashMap::new(),
        }
    }

    /// Serves as long as the process lives.
    pub async fn run(mut self, mut inbox: UnboundedReceiver<Told>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = inbox.recv() => match told {
                    Some(told) => self.take(told),
                    None => return,
                },
                _ = tick.tick() => self.pass_time(),
            }
        }
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Sip(event) => self.sip(event),
            Told::Session { session, event, offer } => self.session(session, event, offer),
            Told::Over(session) => {
                let Some(id) = self.sessions.remove(&session) else { return };
                let Some(runtime) = self.phones.get_mut(&id) else { return };
                runtime.former.retain(|former| *former != session);
                if runtime.session == Some(session) {
                    runtime.session = None;
                    self.input(id, PhoneInput::SignedOut);
                }
            }
            Told::SignedIn(id, outcome) => self.signed_in(id, outcome),
            Told::Outcome(id, input) => self.input(id, input),
        }
    }

    fn sip(&mut self, event: SipEvent) {
        match event {
            SipEvent::Opened { connection, visitor } => self.opened(connection, visitor),
            SipEvent::Gone { connection } => {
                if let Some(id) = self.connections.remove(&connection) {
                    if let Some(runtime) = self.phones.get_mut(&id) {
                        runtime.connection = None;
                    }
                    self.invites.retain(|_, phone| *phone != id);
                    self.input(id, PhoneInput::Disconnected);
                }
            }
            SipEvent::Gateway { connection, transaction, request }
            | SipEvent::Request { source: Source::WebSocket(connection), transaction, request } => {
                let Some(id) = self.connections.get(&connection).copied() else { return };
                if request.method == Method::Invite {
                    self.invites.insert(transaction, id);
                }
                self.input(id, PhoneInput::Request { transaction, request });
            }
            SipEvent::Cancelled { transaction, .. } => {
                if let Some(id) = self.invites.get(&transaction).copied() {
                    self.input(id, PhoneInput::Cancelled(transaction));
                }
            }
            SipEvent::Response { call, transaction, response } => {
                self.input(call, PhoneInput::Response { transaction, response });
            }
            SipEvent::Timeout { call, transaction } | SipEvent::TransportError { call, transaction } => {
                self.input(call, PhoneInput::Silence(transaction));
            }
            SipEvent::Request { source: Source::Sip, .. } | SipEvent::PeersChanged => {}
        }
    }

    fn opened(&mut self, connection: ConnectionId, visitor: Visitor) {
        let id = CallId(u128::from_be_bytes(random::octets()));
        let token = visitor.token.clone().map(Secret);
        let phone = Phone::new(self.settings.clone(), Seed(random::octets()), token);
        let runtime = Runtime {
            phone,
            visitor,
            connection: Some(connection),
            session: None,
            former: Vec::new(),
            wanted: VecDeque::new(),
        };
        self.phones.insert(id, runtime);
        self.connections.insert(connection, id);
    }

    fn session(&mut self, session: SessionId, event: SessionEvent, offer: Option<String>) {
        let Some(id) = self.sessions.get(&session).copied() else { return };
        let current = self.phones.get(&id).is_some_and(|runtime| runtime.session == Some(session));
        if let SessionEvent::Incoming { call, from, .. } = event {
            match offer.filter(|_| current) {
                Some(offer) => self.input(id, PhoneInput::Incoming { call, from, offer }),
                None => self.decline(call, session, 480),
            }
        } else if let SessionEvent::Call { call, event } = event {
            self.input(id, PhoneInput::Event { call, event });
        } else if let SessionEvent::Taken { call } = event
            && current
        {
            self.input(id, PhoneInput::Taken(call));
        }
    }

    /// Lets something happen to a phone, then does all that it wants done.
    fn input(&mut self, id: PhoneId, input: PhoneInput) {
        let Some(runtime) = self.phones.get_mut(&id) else { return };
        runtime.phone.handle(Instant::now(), input);
        self.work(id);
    }

    fn work(&mut self, id: PhoneId) {
        while let Some(command) = self.phones.get_mut(&id).and_then(|runtime| runtime.phone.poll_command()) {
            self.obey(id, command);
        }
        let Some(runtime) = self.phones.get_mut(&id) else { return };
        if runtime.phone.is_idle() {
            let former = std::mem::take(&mut runtime.former);
            self.sign_out(former);
        }
        if self.phones.get(&id).is_some_and(|runtime| runtime.phone.is_over() && runtime.wanted.is_empty()) {
            self.phones.remove(&id);
        }
    }

    fn obey(&mut self, id: PhoneId, command: PhoneCommand) {
        let Some(runtime) = self.phones.get_mut(&id) else { return };
        match command {
            PhoneCommand::Reply { transaction, mut response } => {
                if response.status >= 200 {
                    self.invites.remove(&transaction);
                }
                if response.method == Method::Register && response.status == 200 {
                    // RFC 3261 section 10.3.
                    let date = httpdate::fmt_http_date(SystemTime::now());
                    response.headers.push(("Date".into(), date));
                }
                self.sip.reply(transaction, response);
            }
            PhoneCommand::Send { transaction, request } => {
                if let Some(connection) = runtime.connection {
                    self.sip.request_over(connection, id, transaction, request);
                }
            }
            PhoneCommand::Cancel { invite, request } => self.sip.cancel(id, invite, request),
            PhoneCommand::Ack(request) => {
                if let Some(connection) = runtime.connection {
                    self.sip.ack_over(connection, request);
                }
            }
            PhoneCommand::SignIn { number, instance, token } => {
                runtime.wanted.push_back(Wanted { number, instance, token });
                if runtime.wanted.len() == 1 {
                    self.ask_in(id);
                }
            }
            PhoneCommand::SignOut => {
                let mut all = std::mem::take(&mut runtime.former);
                all.extend(runtime.session.take());
                self.sign_out(all);
            }
            PhoneCommand::HangUp(call) => self.hang_up(call),
            PhoneCommand::Abandon(call) => {
                self.calls.tell(Message::Abandon(call));
            }
            other => self.ask(id, other),
        }
    }

    fn sign_out(&mut self, sessions: Vec<SessionId>) {
        for session in sessions {
            self.sessions.remove(&session);
            self.calls.tell(Message::SignOut(session));
        }
    }

    fn pass_time(&mut self) {
        let now = Instant::now();
        let due = |runtime: &Runtime| runtime.phone.poll_timeout().is_some_and(|at| at <= now);
        let due: Vec<PhoneId> =
            self.phones.iter().filter(|(_, runtime)| due(runtime)).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(runtime) = self.phones.get_mut(&id) {
                runtime.phone.handle_timeout(now);
            }
            self.work(id);
        }
    }
}
