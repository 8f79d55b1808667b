//! The task that owns all transactions.

mod clients;
mod detour;
mod servers;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sallyport_plan::CallId;
use sallyport_proto::sip::{Request, Response, TransactionId};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::watch;

use super::codec::{self, Incoming};
use super::guard::{Verdict, Way, guard, unreadable};
use super::peers::{PeerState, Peers, default_port};
use super::timers::{Armed, Timers};
use super::transport::{Arrival, Target, Transports, Trusted};
use crate::config::Transport;
use crate::message::{ConnectionId, Handle, Message, SipEvent};
use crate::ng::Network;
use crate::random;
use clients::Clients;
use servers::Servers;

/// How long changes may stay unpublished.
const PUBLISH: Duration = Duration::from_millis(250);

/// What the calls want sent.
#[derive(Debug)]
pub enum Todo {
    /// A request in a transaction of its own.
    Request {
        /// Whose.
        call: CallId,
        /// Its number there.
        transaction: TransactionId,
        /// The request.
        request: Request,
        /// To this browser, whatever its URI says.
        over: Option<ConnectionId>,
    },
    /// A CANCEL.
    Cancel {
        /// Whose.
        call: CallId,
        /// The INVITE's number.
        invite: TransactionId,
        /// The CANCEL.
        request: Request,
    },
    /// An ACK to a 2xx.
    Ack {
        /// The ACK.
        request: Request,
        /// To this browser, whatever its URI says.
        over: Option<ConnectionId>,
    },
    /// An answer.
    Reply {
        /// Our number of the request.
        transaction: TransactionId,
        /// The answer.
        response: Response,
    },
}

/// What anybody may know of SIP.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Our peers.
    pub peers: Vec<PeerState>,
    /// Messages that were refused or dropped by us before anything else saw them, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TimerKey {
    Client(u64),
    Server(TransactionId),
    Probe,
    Publish,
}

/// What the configuration says of our side.
pub struct Rules {
    /// Our peers.
    pub peers: Peers,
    /// Whose requests are heard beside theirs.
    pub accept: Vec<Network>,
    /// Whose connections are always taken; the peers'.
    pub trusted: Trusted,
}

/// All transactions.
pub struct Stack {
    transports: Transports,
    peers: Peers,
    accept: Vec<Network>,
    trusted: Trusted,
    calls: Handle,
    browsers: HashMap<ConnectionId, Target>,
    clients: Clients,
    servers: Servers,
    timers: Timers<TimerKey>,
    probe_armed: Armed,
    refused: BTreeMap<&'static str, u64>,
    view: watch::Sender<View>,
    /// Changes of the peers that are published; `None` where others wait to be.
    published: Option<u64>,
    publishing: bool,
}

impl Stack {
    /// Nothing is under way.
    pub fn new(transports: Transports, rules: Rules, calls: Handle, view: watch::Sender<View>) -> Self {
        let Rules { peers, accept, trusted } = rules;
        let mut stack = Self {
            transports,
            peers,
            accept,
            trusted,
            calls,
            browsers: HashMap::new(),
            clients: Clients::default(),
            servers: Servers::default(),
            timers: Timers::default(),
            probe_armed: Armed::default(),
            refused: BTreeMap::new(),
            view,
            published: None,
            publishing: false,
        };
        stack.know_peers();
        stack.publish();
        stack
    }

    /// Serves until the calls are gone.
    pub async fn run(
        mut self,
        mut work: UnboundedReceiver<Todo>,
        mut arrivals: Receiver<Arrival>,
        mut browsers: Receiver<Arrival>,
    ) {
        loop {
            let next = self.timers.next().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                todo = work.recv() => match todo {
                    Some(todo) => self.obey(todo),
                    None => return,
                },
                Some(arrival) = arrivals.recv() => self.arrive(arrival),
                Some(arrival) = browsers.recv() => self.arrive(arrival),
                () = tokio::time::sleep_until(next.into()) => {}
            }
            self.pass_time(Instant::now());
        }
    }

    fn tell(&self, event: SipEvent) {
        self.calls.tell(Message::Sip(event));
    }

    fn obey(&mut self, todo: Todo) {
        match todo {
            Todo::Request { call, transaction, request, over } => {
                self.request((call, transaction), request, over)
            }
            Todo::Cancel { call, invite, request } => self.cancel((call, invite), &request),
            Todo::Ack { request, over } => {
                if let Some(target) = self.target(&request, over) {
                    let via = self.via(target, &branch());
                    self.transports.send(codec::request(&self.by_way_of(&request, target), &via), target);
                }
            }
            Todo::Reply { transaction, response } => self.reply(transaction, &response),
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Message { octets, source } => self.message(&octets, source),
            Arrival::Connected(peer, writer) => self.transports.connected(peer, writer),
            Arrival::Entered(peer, writer, visitor) => {
                self.transports.connected(peer, writer);
                if let Some(connection) = peer.connection {
                    self.browsers.insert(connection, peer);
                    self.tell(SipEvent::Opened { connection, visitor });
                }
            }
            Arrival::Gone(peer) => self.gone(peer),
            Arrival::Unreachable(peer, reason) => self.unreachable(peer, &reason),
            Arrival::Resolved(server, places) => {
                self.peers.resolved(server, places, Instant::now());
                self.know_peers();
            }
        }
    }

    /// Takes note of who our peers are now.
    fn know_peers(&mut self) {
        if let Ok(mut trusted) = self.trusted.write() {
            *trusted = self.peers.places().map(|place| place.target.address.ip()).collect();
        }
        for place in self.peers.places() {
            self.transports.expect(place.target.address, &place.name);
        }
        self.arm_probe();
    }

    /// A connection ended. Answers to what went over TCP may still come over another; a browser has no other.
    fn gone(&mut self, peer: Target) {
        self.transports.gone(peer);
        let Some(connection) = peer.connection else {
            self.peers.suspect(peer, Instant::now());
            self.arm_probe();
            return;
        };
        self.browsers.remove(&connection);
        self.unreachable(peer, "the connection is gone");
        self.servers.forget_all_of(connection);
        self.tell(SipEvent::Gone { connection });
    }

    fn message(&mut self, octets: &[u8], source: Target) {
        let octets = match guard(octets, Way::of(source.kind)) {
            Verdict::Accept(octets) => octets,
            Verdict::Reply(reply) => {
                self.refuse(reply.reason);
                self.transports.send(reply.octets(source.address), source);
                return;
            }
            Verdict::Drop(flaw) => {
                self.refuse(flaw.name());
                tracing::debug!(flaw = flaw.name(), "a SIP message was dropped");
                return;
            }
        };
        match codec::parse(&octets) {
            Some(Incoming::Request(request, vias, record_route)) => {
                self.incoming(*request, vias, record_route, source);
            }
            Some(Incoming::Response(response, via)) => self.response(*response, &via),
            None => {
                self.refuse("unreadable");
                tracing::debug!("a SIP message could not be read");
                if let Some(reply) = unreadable(&octets) {
                    self.transports.send(reply.octets(source.address), source);
                }
            }
        }
    }

    /// Counts a message that is refused.
    fn refuse(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
        self.published = None;
    }

    fn pass_time(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop(now) {
            match key {
                TimerKey::Client(number) => self.client_due(number, now),
                TimerKey::Server(number) => self.server_due(number, now),
                TimerKey::Probe => self.probe(now),
                TimerKey::Publish => self.publish(),
            }
        }
        if self.peers.take_turn() {
            self.tell(SipEvent::PeersChanged);
        }
        self.publish_soon(now);
    }

    fn publish(&mut self) {
        let view = View { peers: self.peers.states(Instant::now()), refused: self.refused.clone() };
        self.view.send_replace(view);
        self.published = Some(self.peers.changes());
        self.publishing = false;
    }

    /// Publishes what has changed, not more often than is of use.
    fn publish_soon(&mut self, now: Instant) {
        if self.published != Some(self.peers.changes()) && !std::mem::replace(&mut self.publishing, true) {
            self.timers.set(now + PUBLISH, TimerKey::Publish);
        }
    }
}

/// A branch with the cookie of RFC 3261 section 8.1.1.7.
fn branch() -> String {
    format!("z9hG4bK{}", random::hex::<12>())
}

/// The request's octets with another To.
fn with_to(octets: &[u8], to: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(octets);
    let line = |line: &str| if line.starts_with("To: ") { format!("To: {to}") } else { line.to_owned() };
    text.split("\r\n").map(line).collect::<Vec<_>>().join("\r\n").into_bytes()
}

/// The topmost Via with where the request came from (RFC 3261 section 18.2.1, RFC 3581 section 4).
fn stamp(via: &str, source: SocketAddr) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in via.split(';') {
        let name = part.split('=').next().unwrap_or_default().trim();
        if name.eq_ignore_ascii_case("rport") {
            parts.push(format!("rport={}", source.port()));
        } else if !name.eq_ignore_ascii_case("received") {
            parts.push(part.trim().to_owned());
        }
    }
    parts.push(format!("received={}", source.ip()));
    parts.join(";")
}

/// Address and transport of a URI whose host is an address (RFC 3263 section 4.1).
fn uri_target(uri: &str) -> Option<Target> {
    let (scheme, rest) = uri.split_once(':')?;
    let secure = scheme.eq_ignore_ascii_case("sips");
    if !secure && !scheme.eq_ignore_ascii_case("sip") {
        return None;
    }
    let rest = rest.split('?').next()?;
    let mut parts = rest.split(';');
    let place = parts.next()?;
    let host = place.rsplit('@').next()?;
    let named = |name: &str| parts.clone().any(|part| part.eq_ignore_ascii_case(name));
    let kind = if secure || named("transport=tls") {
        Transport::Tls
    } else if named("transport=tcp") {
        Transport::Tcp
    } else {
        Transport::Udp
    };
    let address = host.parse::<SocketAddr>().ok().or_else(|| {
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        Some(SocketAddr::new(ip, default_port(kind)))
    })?;
    Some(Target::new(address, kind))
}

#[cfg(test)]
mod tests;
