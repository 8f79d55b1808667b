//! The task that owns all transactions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sallyport_plan::CallId;
use sallyport_proto::sip::{Method, Request, Response, TransactionId};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

use super::client::{Client, Due};
use super::codec::{self, Incoming};
use super::guard::{Verdict, Way, guard, unreadable};
use super::server::Server;
use super::transport::{Arrival, Target, Transports};
use super::{has_tag, outside};
use crate::config::Transport;
use crate::message::{ConnectionId, Handle, Message, SipEvent, Source};
use crate::random;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(20);
/// Requests of others that are remembered at once, and octets that they may take; beyond, they are answered 503 and
/// forgotten. What is not from our server within a dialog may take half of it.
const SERVERS_MAX: usize = 10_000;
const OCTETS_MAX: usize = 16 * 1024 * 1024;

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

/// Branch and method (RFC 3261 section 17.1.3); for requests of others with their source of the branch.
type Key = (String, String);

/// All transactions.
pub struct Stack {
    transports: Transports,
    server: Option<Target>,
    calls: Handle,
    browsers: HashMap<ConnectionId, Target>,
    clients: HashMap<Key, Client>,
    servers: HashMap<Key, TransactionId>,
    open: HashMap<TransactionId, Server>,
    /// Octets that `open` takes.
    held: usize,
    next: u64,
}

impl Stack {
    /// Nothing is under way.
    pub fn new(transports: Transports, server: Option<Target>, calls: Handle) -> Self {
        Self {
            transports,
            server,
            calls,
            browsers: HashMap::new(),
            clients: HashMap::new(),
            servers: HashMap::new(),
            open: HashMap::new(),
            held: 0,
            next: 0,
        }
    }

    /// Serves until the calls are gone.
    pub async fn run(
        mut self,
        mut work: UnboundedReceiver<Todo>,
        mut arrivals: Receiver<Arrival>,
        mut browsers: Receiver<Arrival>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                todo = work.recv() => match todo {
                    Some(todo) => self.obey(todo),
                    None => return,
                },
                Some(arrival) = arrivals.recv() => self.arrive(arrival),
                Some(arrival) = browsers.recv() => self.arrive(arrival),
                _ = tick.tick() => self.pass_time(Instant::now()),
            }
        }
    }

    fn tell(&self, event: SipEvent) {
        self.calls.tell(Message::Sip(event));
    }

    fn obey(&mut self, todo: Todo) {
        match todo {
            Todo::Request { call, transaction, request, over } => {
                self.request((call, transaction), &request, over);
            }
            Todo::Cancel { call, invite, request } => self.cancel((call, invite), &request),
            Todo::Ack { request, over } => {
                if let Some(target) = self.target(&request, over) {
                    let via = self.via(target, &branch());
                    self.transports.send(codec::request(&request, &via), target);
                }
            }
            Todo::Reply { transaction, response } => self.reply(transaction, &response),
        }
    }

    fn via(&self, target: Target, branch: &str) -> String {
        if target.connection.is_some() {
            // Browsers answer where they were asked, and need not know an address of the inside (RFC 7118 section 5).
            return format!("SIP/2.0/{} sallyport.invalid;branch={branch}", target.kind.name());
        }
        codec::via(self.transports.local(), target.kind, branch)
    }

    /// A request outside a dialog and without a route goes to the configured server, any other to its next hop; a name that
    /// is no address is the server's business.
    fn target(&self, request: &Request, over: Option<ConnectionId>) -> Option<Target> {
        if let Some(connection) = over {
            return self.browsers.get(&connection).copied();
        }
        let inside = has_tag(&request.to) || !request.route.is_empty();
        if inside && let Some(target) = uri_target(request.next_hop()) {
            return Some(target);
        }
        self.server
    }

    fn request(
        &mut self,
        (call, transaction): (CallId, TransactionId),
        request: &Request,
        over: Option<ConnectionId>,
    ) {
        let Some(target) = self.target(request, over) else {
            self.tell(SipEvent::TransportError { call, transaction });
            return;
        };
        let branch = branch();
        let octets = codec::request(request, &self.via(target, &branch));
        // A full socket buffer is a lost datagram: it is sent again. A stream that cannot take it has failed.
        let sent = self.transports.send(octets.clone(), target);
        if !sent && target.kind.is_reliable() {
            self.tell(SipEvent::TransportError { call, transaction });
            return;
        }
        let method = request.method.clone();
        let key = (branch, method.to_string());
        let mut client = Client::new(Some((call, transaction)), octets, target, method, Instant::now());
        if request.method == Method::Invite {
            client.ack = Some(self.ack_template(request, target, &key.0));
        }
        self.clients.insert(key, client);
    }

    /// ACK to a final answer other than 2xx: the INVITE's, but for the To of the answer (RFC 3261 section 17.1.1.3).
    fn ack_template(&self, invite: &Request, target: Target, branch: &str) -> Vec<u8> {
        let ack = Request {
            method: Method::Ack,
            contact: None,
            content_type: None,
            headers: Vec::new(),
            body: Vec::new(),
            ..invite.clone()
        };
        codec::request(&ack, &self.via(target, branch))
    }

    fn cancel(&mut self, owner: (CallId, TransactionId), request: &Request) {
        let invite = self.clients.iter_mut().find(|(_, client)| client.owner == Some(owner));
        let Some(((branch, _), client)) = invite else { return };
        client.cancelled(Instant::now());
        let (target, branch) = (client.target, branch.clone());
        let octets = codec::request(request, &self.via(target, &branch));
        self.transports.send(octets.clone(), target);
        let method = request.method.clone();
        let client = Client::new(None, octets, target, method.clone(), Instant::now());
        self.clients.insert((branch, method.to_string()), client);
    }

    fn reply(&mut self, transaction: TransactionId, response: &Response) {
        let Some(server) = self.open.get_mut(&transaction) else { return };
        let route = if response.status < 300 { server.record_route.as_slice() } else { &[] };
        let octets = codec::response(response, &server.vias, route);
        let invite = server.invite;
        self.held = self.held.saturating_sub(server.cost());
        if response.status < 200 {
            server.progressed(octets.clone());
        } else {
            let repeats = invite && (!server.source.kind.is_reliable() || response.status < 300);
            server.answered(octets.clone(), repeats, Instant::now());
        }
        self.held += server.cost();
        let source = server.source;
        self.transports.send(octets, source);
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
            Arrival::Unreachable(peer) => self.unreachable(peer),
        }
    }

    /// A connection ended. Answers to what went over TCP may still come over another; a browser has no other.
    fn gone(&mut self, peer: Target) {
        self.transports.gone(peer);
        let Some(connection) = peer.connection else { return };
        self.browsers.remove(&connection);
        self.unreachable(peer);
        let theirs = |(_, server): &(&TransactionId, &Server)| server.source == peer;
        let theirs: Vec<TransactionId> = self.open.iter().filter(theirs).map(|(id, _)| *id).collect();
        self.forget(&theirs);
        self.tell(SipEvent::Gone { connection });
    }

    fn unreachable(&mut self, peer: Target) {
        let lost = |client: &Client| client.target == peer && !client.done;
        let keys: Vec<Key> =
            self.clients.iter().filter(|(_, client)| lost(client)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some((call, transaction)) = self.clients.remove(&key).and_then(|client| client.owner) {
                self.tell(SipEvent::TransportError { call, transaction });
            }
        }
    }

    fn message(&mut self, octets: &[u8], source: Target) {
        let octets = match guard(octets, Way::of(source.kind)) {
            Verdict::Accept(octets) => octets,
            Verdict::Reply(reply) => {
                self.transports.send(reply.octets(source.address), source);
                return;
            }
            Verdict::Drop(flaw) => {
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
                tracing::debug!("a SIP message could not be read");
                if let Some(reply) = unreadable(&octets) {
                    self.transports.send(reply.octets(source.address), source);
                }
            }
        }
    }

    fn response(&mut self, response: Response, via: &str) {
        let Some(branch) = codec::parameter(via, "branch") else { return };
        let key = (branch.to_owned(), response.method.to_string());
        let Some(client) = self.clients.get_mut(&key) else { return };
        let now = Instant::now();
        let invite = client.method == Method::Invite;
        let first = !client.done;
        if response.status < 200 {
            if first {
                client.provisional(now);
            }
        } else {
            client.finish(now);
            if invite && response.status >= 300 {
                let ack = client.ack.as_deref().map(|ack| with_to(ack, &response.to));
                let target = client.target;
                if let Some(ack) = ack {
                    self.transports.send(ack, target);
                }
            }
        }
        // A 2xx to INVITE comes again until its ACK arrives: the call answers each.
        let again = invite && (200..300).contains(&response.status);
        let owner = self.clients.get(&key).and_then(|client| client.owner);
        if let Some((call, transaction)) = owner.filter(|_| first || again) {
            self.tell(SipEvent::Response { call, transaction, response });
        }
    }

    fn incoming(
        &mut self,
        request: Request,
        mut vias: Vec<String>,
        record_route: Vec<String>,
        source: Target,
    ) {
        let Some(top) = vias.first_mut() else { return };
        let branch = codec::parameter(top, "branch").unwrap_or_default().to_owned();
        *top = stamp(top, source.address);
        if request.method == Method::Ack {
            self.acknowledge(&branch, request, source);
            return;
        }
        let key = (format!("{branch} {}", source.address), request.method.to_string());
        if let Some(server) = self.servers.get(&key).and_then(|id| self.open.get(id)) {
            if let Some(answer) = server.answer.clone() {
                self.transports.send(answer, source);
            }
            return;
        }
        if self.is_full(&request, source) {
            let refusal = Response::to_request(&request, 503, "Service Unavailable");
            self.transports.send(codec::response(&refusal, &vias, &[]), source);
            return;
        }
        let cancels = (request.method == Method::Cancel)
            .then(|| self.servers.get(&(key.0.clone(), Method::Invite.to_string())).copied())
            .flatten();
        let transaction = self.number();
        self.servers.insert(key, transaction);
        let server = Server::new(&request, vias, record_route, source, Instant::now());
        self.held += server.cost();
        self.open.insert(transaction, server);
        match (cancels, source.connection) {
            (Some(invite), _) => self.cancelled(invite, transaction, &request),
            _ if has_tag(&request.to) => {
                self.tell(SipEvent::Request { source: way(source), transaction, request });
            }
            (None, None) if request.method == Method::Invite => {
                self.tell(SipEvent::Request { source: way(source), transaction, request });
            }
            (None, Some(connection)) if request.method != Method::Cancel => {
                self.tell(SipEvent::Gateway { connection, transaction, request });
            }
            (None, None) if request.method == Method::Invite => {
                self.tell(SipEvent::Request { source: Source::Sip, transaction, request });
            }
            _ => {
                if let Some(answer) = outside::answer(&request) {
                    self.reply(transaction, &answer);
                }
            }
        }
    }

    fn number(&mut self) -> TransactionId {
        let number = TransactionId(self.next);
        self.next += 1;
        number
    }

    /// A CANCEL of an INVITE that we know: it is answered whatever has become of that (RFC 3261 section 9.2).
    fn cancelled(&mut self, invite: TransactionId, cancel: TransactionId, request: &Request) {
        self.reply(cancel, &Response::to_request(request, 200, "OK"));
        if self.open.get(&invite).is_some_and(|server| !server.done) {
            self.tell(SipEvent::Cancelled { transaction: invite, call_id: request.call_id.clone() });
        }
    }

    /// Whether there is no room to remember this request; strangers cannot take what our server needs to end its calls,
    /// nor browsers what telephony needs to begin one.
    fn is_full(&self, request: &Request, source: Target) -> bool {
        let ours = self.server.is_some_and(|server| server.address.ip() == source.address.ip());
        let part = match source.connection {
            Some(_) => 4,
            None if ours && has_tag(&request.to) => 1,
            None => 2,
        };
        self.open.len() >= SERVERS_MAX / part || self.held >= OCTETS_MAX / part
    }

    /// An ACK ends the repetition of the answer; one to a 2xx is the call's as well.
    fn acknowledge(&mut self, branch: &str, request: Request, source: Target) {
        let same = |server: &Server| {
            server.invite && server.call_id == request.call_id && server.cseq == request.cseq
        };
        for server in self.open.values_mut().filter(|server| same(server)) {
            server.acknowledged();
            let own = server.vias.first().and_then(|via| codec::parameter(via, "branch"));
            if own == Some(branch) {
                return;
            }
        }
        let transaction = self.number();
        self.tell(SipEvent::Request { source: way(source), transaction, request });
    }

    fn pass_time(&mut self, now: Instant) {
        let mut over = Vec::new();
        for (key, client) in &mut self.clients {
            match client.due(now) {
                Due::Nothing => {}
                Due::Resend => {
                    self.transports.send(client.octets.clone(), client.target);
                }
                Due::Timeout => over.push((key.clone(), client.owner)),
                Due::Forget => over.push((key.clone(), None)),
            }
        }
        for (key, owner) in over {
            self.clients.remove(&key);
            if let Some((call, transaction)) = owner {
                self.tell(SipEvent::Timeout { call, transaction });
            }
        }
        let mut forgotten = Vec::new();
        for (id, server) in &mut self.open {
            match server.due(now) {
                Due::Nothing => {}
                Due::Resend => {
                    if let Some(answer) = server.answer.clone() {
                        self.transports.send(answer, server.source);
                    }
                }
                Due::Timeout | Due::Forget => forgotten.push(*id),
            }
        }
        self.forget(&forgotten);
    }

    fn forget(&mut self, servers: &[TransactionId]) {
        for server in servers.iter().filter_map(|id| self.open.remove(id)) {
            self.held = self.held.saturating_sub(server.cost());
        }
        if !servers.is_empty() {
            self.servers.retain(|_, id| self.open.contains_key(id));
        }
    }
}

/// Which side a message came from.
fn way(source: Target) -> Source {
    source.connection.map_or(Source::Sip, Source::WebSocket)
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

/// Address and transport of a URI whose host is an address.
fn uri_target(uri: &str) -> Option<Target> {
    let rest = uri.strip_prefix("sip:")?;
    let rest = rest.split('?').next()?;
    let mut parts = rest.split(';');
    let place = parts.next()?;
    let host = place.rsplit('@').next()?;
    let tcp = parts.any(|part| part.eq_ignore_ascii_case("transport=tcp"));
    let address = host.parse::<SocketAddr>().ok().or_else(|| {
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        Some(SocketAddr::new(ip, 5060))
    })?;
    Some(Target::new(address, if tcp { Transport::Tcp } else { Transport::Udp }))
}

#[cfg(test)]
mod tests;
