//! How the shared outside media port looks from the Internet: a Binding request from that very port, sent through the
//! relay, answered by a STUN server (RFC 8489 section 2, RFC 8445 section 5.1.1.2).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sallyport_plan::{Command, FlowKey, Zone};
use sallyport_wire::stun::{self, Builder, Class, Message, TransactionId};

/// Bindings of NATs live 30 s at least (RFC 4787 section 4.3 asks for more): asked again before.
const REFRESH: Duration = Duration::from_secs(25);
/// First retransmission; doubles up to the refresh (RFC 8489 section 6.2.1).
const RETRY: Duration = Duration::from_millis(500);
/// Start-up does not wait longer than this for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

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
    begun: Instant,
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
        Self { server, queries: locals.map(query).collect(), begun: now }
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
        let Ok(message) = Message::parse(payload) else { return false };
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

    /// Whether every address has an answer, or start-up has waited long enough.
    pub fn is_settled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begun) >= PATIENCE
            || self.queries.iter().all(|query| query.mapped.is_some())
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
        assert!(!reflexive.is_settled(now));
        assert!(reflexive.receive(path, &answer([9; 12]), now));
        assert!(reflexive.is_settled(now));
        assert_eq!(reflexive.mapped().collect::<Vec<_>>(), [(local, "198.51.100.9:4000".parse().unwrap())]);
    }
}
