//! How the shared outside media port looks from the Internet: a Binding request from that very port, sent through the
//! relay, answered by a STUN server (RFC 8489 section 2, RFC 8445 section 5.1.1.2).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sallyport_plan::{Command, FlowKey, Zone};
use sallyport_wire::stun::{self, Builder, Class, Message as Datagram, TransactionId};

use crate::config::Config;
use crate::message::{Handle, Message};
use crate::random;

/// Bindings of NATs live 30 s at least (RFC 4787 section 4.3 asks for more): asked again before.
const REFRESH: Duration = Duration::from_secs(25);
/// First retransmission; doubles up to the refresh (RFC 8489 section 6.2.1).
const RETRY: Duration = Duration::from_millis(500);
/// Start-up does not wait longer than this for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often a server's name is looked up again, and after a failure.
const LOOKUP: Duration = Duration::from_secs(60);
const LOOKUP_RETRY: Duration = Duration::from_secs(5);

/// Whether a server is configured.
pub fn is_wanted(config: &Config) -> bool {
    !config.outside.stun.is_empty()
}

/// Looks the server's name up, now and again: a name may move, and may be unknown while the machine starts. An address
/// needs no looking up.
pub async fn look_up(server: String, calls: Handle) {
    let mut complained = false;
    loop {
        let pause = match tokio::net::lookup_host(&server).await {
            Ok(found) => {
                complained = false;
                if !calls.tell(Message::StunServers(one_per_family(found))) {
                    return;
                }
                LOOKUP
            }
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(%error, "the STUN server's name cannot be looked up; trying on");
                }
                LOOKUP_RETRY
            }
        };
        if server.parse::<SocketAddr>().is_ok() {
            // Nothing will change, but the task stands for the process's health.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(pause).await;
    }
}

fn one_per_family(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !servers.iter().any(|have| have.is_ipv4() == address.is_ipv4()) {
            servers.push(address);
        }
    }
    // A lookup gives its addresses in any order.
    servers.sort_unstable();
    servers
}

/// All that is asked, of one server per family.
#[derive(Debug)]
pub struct Stun {
    /// Where the server is; empty before its name is known.
    pub servers: Vec<SocketAddr>,
    wanted: bool,
    asked: Vec<Reflexive>,
    since: Option<Instant>,
}

impl Stun {
    /// Nothing is asked yet; `wanted` says that a server is configured.
    pub const fn new(wanted: bool) -> Self {
        Self { servers: Vec::new(), wanted, asked: Vec::new(), since: None }
    }

    /// Asks about these media addresses, unless the same is asked already: a server that has not moved is left in peace.
    pub fn ask(&mut self, locals: &[SocketAddr], now: Instant) {
        self.since.get_or_insert(now);
        let known = |reflexive: &Reflexive| reflexive.server;
        if !self.servers.is_empty() && !self.servers.iter().copied().eq(self.asked.iter().map(known)) {
            let fresh = |server: &SocketAddr| Reflexive::new(*server, locals, now);
            self.asked = self.servers.iter().map(fresh).collect();
        }
    }

    /// Nobody is there to ask through.
    pub fn rest(&mut self) {
        self.asked.clear();
        self.since = None;
    }

    /// Requests that are due.
    pub fn poll(&mut self, now: Instant) -> Vec<Command> {
        self.asked.iter_mut().flat_map(|reflexive| reflexive.poll(now, random::octets)).collect()
    }

    /// Takes in a datagram if it is a server's answer; whether it was.
    pub fn receive(&mut self, path: &FlowKey, payload: &[u8], now: Instant) -> bool {
        self.asked.iter_mut().any(|reflexive| reflexive.receive(path, payload, now))
    }

    /// Media addresses with what a server saw of them.
    pub fn mapped(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> + '_ {
        self.asked.iter().flat_map(Reflexive::mapped)
    }

    /// Whether all is known that can be, or start-up has waited long enough.
    pub fn is_settled(&self, now: Instant) -> bool {
        let waited = self.since.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE);
        let answered = !self.asked.is_empty() && self.asked.iter().all(Reflexive::is_answered);
        !self.wanted || waited || answered
    }
}

/// One media address and what the server said of it.
#[derive(Debug)]
struct Query {
    local: SocketAddr,
    transaction: TransactionId,
    due: Instant,
    retry: Duration,
    mapped: Option<SocketAddr>,
}

/// Asks for every media address of the server's family.
#[derive(Debug)]
pub struct Reflexive {
    server: SocketAddr,
    queries: Vec<Query>,
}

impl Reflexive {
    /// Begins to ask `server` about these media addresses.
    pub fn new(server: SocketAddr, locals: &[SocketAddr], now: Instant) -> Self {
        let locals = locals.iter().filter(|local| local.is_ipv4() == server.is_ipv4());
        let query = |local: &SocketAddr| Query {
            local: *local,
            transaction: TransactionId::default(),
            due: now,
            retry: RETRY,
            mapped: None,
        };
        Self { server, queries: locals.map(query).collect() }
    }

    /// Requests that are due; `random` gives transaction ids.
    pub fn poll(&mut self, now: Instant, mut random: impl FnMut() -> TransactionId) -> Vec<Command> {
        let server = self.server;
        let due = self.queries.iter_mut().filter(|query| query.due <= now);
        due.filter_map(|query| {
            query.transaction = random();
            query.due = now + query.retry;
            query.retry = (query.retry * 2).min(REFRESH);
            let mut room = [0; stun::HEADER + 8];
            let builder = Builder::new(&mut room, Class::Request, stun::BINDING, query.transaction).ok()?;
            let length = builder.fingerprint().ok()?;
            let path = FlowKey { zone: Zone::Outside, local: query.local, remote: server };
            Some(Command::Send { path, payload: room.get(..length)?.to_vec() })
        })
        .collect()
    }

    /// Takes in a datagram if it is the server's answer; whether it was.
    pub fn receive(&mut self, path: &FlowKey, payload: &[u8], now: Instant) -> bool {
        if path.remote != self.server {
            return false;
        }
        let Ok(message) = Datagram::parse(payload) else { return false };
        let id = message.transaction_id();
        let asked =
            self.queries.iter_mut().find(|query| query.local == path.local && query.transaction == id);
        let Some(query) = asked.filter(|_| message.class() == Class::Success) else { return false };
        query.mapped = message.xor_mapped_address();
        query.due = now + REFRESH;
        query.retry = RETRY;
        true
    }

    /// Media addresses with what the server saw of them.
    pub fn mapped(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> + '_ {
        self.queries.iter().filter_map(|query| Some((query.local, query.mapped?)))
    }

    /// Whether every address has an answer.
    fn is_answered(&self) -> bool {
        self.queries.iter().all(|query| query.mapped.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_until_answered_and_believes_the_server_only() {
        let (server, local): (SocketAddr, SocketAddr) =
            ("203.0.113.1:3478".parse().unwrap(), "192.0.2.1:10000".parse().unwrap());
        let now = Instant::now();
        let mut reflexive = Reflexive::new(server, &[local, "[2001:db8::1]:10000".parse().unwrap()], now);
        let sent = reflexive.poll(now, || [7; 12]);
        let [Command::Send { path, payload }] = sent.as_slice() else { panic!("one request") };
        assert_eq!((path.local, path.remote, stun::is_stun(payload)), (local, server, true));
        assert!(reflexive.poll(now, || [8; 12]).is_empty());
        assert_eq!(reflexive.poll(now + RETRY, || [9; 12]).len(), 1);
        let answer = |id| {
            let mut room = [0; 64];
            let builder = Builder::new(&mut room, Class::Success, stun::BINDING, id).unwrap();
            let length = builder.xor_mapped_address("198.51.100.9:4000".parse().unwrap()).unwrap().finish();
            room[..length].to_vec()
        };
        assert!(!reflexive.receive(path, &answer([7; 12]), now), "an old transaction");
        let stranger = FlowKey { remote: local, ..*path };
        assert!(!reflexive.receive(&stranger, &answer([9; 12]), now));
        assert!(!reflexive.is_answered());
        assert!(reflexive.receive(path, &answer([9; 12]), now));
        assert!(reflexive.is_answered());
        assert_eq!(reflexive.mapped().collect::<Vec<_>>(), [(local, "198.51.100.9:4000".parse().unwrap())]);
    }

    #[test]
    fn a_server_that_moves_is_asked_at_its_new_place_and_a_name_may_have_both_families() {
        let (local, now) = ("192.0.2.1:10000".parse().unwrap(), Instant::now());
        let mut stun = Stun::new(true);
        stun.ask(&[local], now);
        assert!(stun.poll(now).is_empty(), "its name is not known yet");
        assert!(!stun.is_settled(now));
        assert!(stun.is_settled(now + PATIENCE), "start-up does not wait for ever");
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        stun.servers = one_per_family(
            [at("[2001:db8::2]:3478"), at("203.0.113.1:3478"), at("203.0.113.2:3478")].into_iter(),
        );
        stun.ask(&[local], now);
        assert_eq!(stun.poll(now).len(), 1, "one server of the address's family");
        stun.ask(&[local], now);
        assert!(stun.poll(now).is_empty(), "nothing has moved");
        stun.servers = vec![at("203.0.113.9:3478")];
        stun.ask(&[local], now);
        let sent = stun.poll(now);
        let [Command::Send { path, .. }] = sent.as_slice() else { panic!("one request") };
        assert_eq!(path.remote, at("203.0.113.9:3478"));
        assert!(Stun::new(false).is_settled(now));
    }
}
