//! Our peers inside: which of them live, and which is next (RFC 3263 section 4, RFC 2782).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::config::{Server, Transport};
use crate::random;

use super::transport::Target;

/// How long a probe may go unanswered.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// Without probes a dead peer is tried again after this.
const FORGIVE: Duration = Duration::from_secs(30);
/// A peer by which a call rings is asked as often as this, where it is asked at all: nothing else tells that it died.
const WATCH: Duration = Duration::from_secs(4);
/// After a connection to a peer ended; not at once, lest one that ends each keeps us busy.
const SUSPECT: Duration = Duration::from_millis(500);
/// A peer is not left alone for longer, whatever its Retry-After says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A place where a configured server is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub target: Target,
    /// Who must be found there by TLS: a host's name, or an address.
    pub name: String,
    /// Lower ones are better.
    pub priority: u16,
    /// Among equals, how often this one.
    pub weight: u16,
}

/// State of a peer, as told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// As configured.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// By what.
    pub transport: Transport,
    /// Whether requests go there; `None`: nobody knows yet.
    pub alive: Option<bool>,
    /// Why not; empty if it is alive.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Unknown,
    Alive,
    Dead(String, Instant),
}

#[derive(Debug)]
struct Peer {
    /// Index of the configured server.
    server: usize,
    place: Place,
    health: Health,
    busy: Option<Instant>,
    heard: Option<Instant>,
    probe: Instant,
}

/// All peers, the best first.
#[derive(Debug)]
pub struct Peers {
    names: Vec<String>,
    list: Vec<Peer>,
    interval: Option<Duration>,
    /// Counts changes of state.
    changes: u64,
    /// One that answered before died, or one that was dead is back.
    turned: bool,
}

impl Peers {
    /// Those with addresses are known at once; hosts come with [`Self::resolved`]. `interval`: of probes.
    pub fn new(servers: &[Server], transport: Transport, interval: Option<Duration>, now: Instant) -> Self {
        let names = servers.iter().map(|server| server.text.clone()).collect();
        let mut peers = Self { names, list: Vec::new(), interval, changes: 1, turned: false };
        for (index, server) in servers.iter().enumerate() {
            let Some(address) = server.address else { continue };
            let kind = server.transport.unwrap_or(transport);
            let port = server.port.unwrap_or(default_port(kind));
            let target = Target::new(SocketAddr::new(address, port), kind);
            let place = Place { target, name: address.to_string(), priority: 0, weight: 1 };
            peers.resolved(index, vec![place], now);
        }
        peers
    }

    /// Where a configured server is, from now on; what is known of a place stays known.
    pub fn resolved(&mut self, server: usize, places: Vec<Place>, now: Instant) {
        let (mut old, mut list): (Vec<Peer>, Vec<Peer>) =
            std::mem::take(&mut self.list).into_iter().partition(|peer| peer.server == server);
        for place in places {
            let known = old.iter().position(|peer| peer.place.target == place.target);
            list.push(match known {
                Some(at) => Peer { place, ..old.swap_remove(at) },
                None => Peer { server, place, health: Health::Unknown, busy: None, heard: None, probe: now },
            });
        }
        list.sort_by_key(|peer| (peer.server, peer.place.priority));
        self.list = list;
        self.changes += 1;
    }

    fn find(&mut self, target: Target) -> Option<&mut Peer> {
        self.list.iter_mut().find(|peer| peer.place.target == target)
    }

    /// Whether an address is a peer's.
    pub fn is_peer(&self, ip: IpAddr) -> bool {
        self.list.iter().any(|peer| peer.place.target.address.ip() == ip)
    }

    /// Whether this place is a peer.
    pub fn contains(&self, target: Target) -> bool {
        self.list.iter().any(|peer| peer.place.target == target)
    }

    /// Whether a place is a peer that nothing should be sent to.
    pub fn is_dead(&self, target: Target) -> bool {
        let dead = |peer: &Peer| peer.place.target == target && matches!(peer.health, Health::Dead(..));
        self.list.iter().any(dead)
    }

    /// Whether a peer has said anything since.
    pub fn heard_since(&self, target: Target, since: Instant) -> bool {
        self.list.iter().any(|peer| peer.place.target == target && peer.heard.is_some_and(|at| at >= since))
    }

    /// All addresses, and who is expected there.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.list.iter().map(|peer| &peer.place)
    }

    /// The best peer that was not tried: one that lives, else one that nobody knows of; `last_resort`: else any.
    pub fn best(&self, now: Instant, tried: &[Target], last_resort: bool) -> Option<Target> {
        let open = |peer: &&Peer| !tried.contains(&peer.place.target);
        let grade = |peer: &Peer| match &peer.health {
            _ if peer.busy.is_some_and(|until| until > now) => 2,
            Health::Alive => 0,
            Health::Unknown => 1,
            Health::Dead(_, since) if self.interval.is_none() && now >= *since + FORGIVE => 1,
            Health::Dead(..) => 3,
        };
        let rank = |peer: &Peer| (grade(peer), peer.server, peer.place.priority);
        let first = self.list.iter().filter(open).map(rank).min()?;
        if first.0 >= 2 && !last_resort {
            return None;
        }
        let equals: Vec<&Peer> = self.list.iter().filter(open).filter(|peer| rank(peer) == first).collect();
        Some(weighted(&equals)?.place.target)
    }

    /// A peer said something.
    pub fn heard(&mut self, target: Target, now: Instant) {
        let Some(peer) = self.find(target) else { return };
        peer.heard = Some(now);
        let former = std::mem::replace(&mut peer.health, Health::Alive);
        if former != Health::Alive {
            self.changes += 1;
            self.turned |= former != Health::Unknown;
        }
    }

    /// A peer did not answer, or cannot be reached.
    pub fn lost(&mut self, target: Target, reason: &str, now: Instant) {
        let Some(peer) = self.find(target) else { return };
        let known = matches!(peer.health, Health::Dead(..));
        peer.health = Health::Dead(reason.to_owned(), now);
        let answered = peer.heard.is_some();
        if !known {
            self.changes += 1;
            self.turned |= answered;
            tracing::warn!(reason, "a SIP peer does not answer");
        }
    }

    /// A peer wants to be left alone for so long (RFC 3261 section 21.5.4).
    pub fn busy(&mut self, target: Target, retry_after: Duration, now: Instant) {
        let Some(peer) = self.find(target) else { return };
        peer.busy = Some(now + retry_after.min(RETRY_AFTER_MAX));
        self.changes += 1;
    }

    /// Peers that are to be asked now; each is asked again after the interval.
    pub fn due(&mut self, now: Instant) -> Vec<Target> {
        let Some(interval) = self.interval else { return Vec::new() };
        let mut due = Vec::new();
        for peer in self.list.iter_mut().filter(|peer| peer.probe <= now) {
            peer.probe = now + interval;
            due.push(peer.place.target);
        }
        due
    }

    /// A call rings by this peer: it is asked soon.
    pub fn watch(&mut self, target: Target, now: Instant) {
        self.ask_within(target, WATCH, now);
    }

    /// There is reason to ask a peer.
    pub fn suspect(&mut self, target: Target, now: Instant) {
        self.ask_within(target, SUSPECT, now);
    }

    fn ask_within(&mut self, target: Target, wait: Duration, now: Instant) {
        if let Some(peer) = self.find(target) {
            peer.probe = peer.probe.min(now + wait);
        }
    }

    /// Whether, since this was asked last, one died that had answered before, or one came back.
    pub fn take_turn(&mut self) -> bool {
        std::mem::take(&mut self.turned)
    }

    /// When the next one is to be asked.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.interval.and_then(|_| self.list.iter().map(|peer| peer.probe).min())
    }

    /// Grows whenever the states differ from before.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The state of each.
    pub fn states(&self, now: Instant) -> Vec<PeerState> {
        let state = |peer: &Peer| {
            let busy = peer.busy.is_some_and(|until| until > now);
            let (alive, reason) = match &peer.health {
                Health::Dead(reason, _) => (Some(false), reason.as_str()),
                _ if busy => (Some(false), "it asked to be left alone (503 with Retry-After)"),
                Health::Unknown => (None, "not heard of yet"),
                Health::Alive => (Some(true), ""),
            };
            PeerState {
                name: self.names.get(peer.server).cloned().unwrap_or_default(),
                address: peer.place.target.address,
                transport: peer.place.target.kind,
                alive,
                reason: reason.to_owned(),
            }
        };
        self.list.iter().map(state).collect()
    }
}

/// Port of a transport (RFC 3261 section 19.1.2).
pub const fn default_port(kind: Transport) -> u16 {
    match kind {
        Transport::Tls => 5061,
        _ => 5060,
    }
}

/// One of equals, by weight (RFC 2782: a weight of 0 is chosen rarely, not never).
fn weighted<'a>(equals: &[&'a Peer]) -> Option<&'a Peer> {
    let share = |peer: &Peer| u64::from(peer.place.weight) * 100 + 1;
    let sum: u64 = equals.iter().map(|peer| share(peer)).sum();
    let mut at = u64::from_be_bytes(random::octets()).checked_rem(sum)?;
    for peer in equals {
        if at < share(peer) {
            return Some(peer);
        }
        at -= share(peer);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: u8) -> Target {
        Target::new(SocketAddr::from(([10, 0, 0, number], 5060)), Transport::Udp)
    }

    fn peers(now: Instant) -> Peers {
        let servers: Vec<Server> =
            ["10.0.0.1:5060", "10.0.0.2"].iter().map(|text| Server::parse(text).unwrap()).collect();
        Peers::new(&servers, Transport::Udp, Some(Duration::from_secs(10)), now)
    }

    #[test]
    fn the_first_that_lives_is_the_best() {
        let now = Instant::now();
        let mut peers = peers(now);
        assert_eq!(peers.best(now, &[], false), Some(target(1)));
        peers.heard(target(2), now);
        assert_eq!(peers.best(now, &[], false), Some(target(2)), "known to live");
        peers.heard(target(1), now);
        assert_eq!(peers.best(now, &[], false), Some(target(1)));
        assert_eq!(peers.best(now, &[target(1)], false), Some(target(2)));
        peers.lost(target(1), "x", now);
        assert_eq!(peers.best(now, &[], false), Some(target(2)));
        peers.lost(target(2), "x", now);
        assert_eq!(peers.best(now, &[], false), None);
        assert_eq!(peers.best(now, &[], true), Some(target(1)), "better than nothing");
        peers.heard(target(2), now);
        assert_eq!(peers.best(now, &[], false), Some(target(2)), "alive again at the first answer");
    }

    #[test]
    fn who_wants_to_be_left_alone_is_for_so_long() {
        let now = Instant::now();
        let mut peers = peers(now);
        peers.heard(target(1), now);
        peers.busy(target(1), Duration::from_secs(30), now);
        assert_eq!(peers.best(now, &[], false), Some(target(2)));
        peers.heard(target(1), now);
        assert_eq!(peers.best(now, &[], false), Some(target(2)), "answers to probes change nothing");
        assert_eq!(peers.best(now + Duration::from_secs(31), &[], false), Some(target(1)));
    }

    #[test]
    fn probes_come_at_their_interval() {
        let now = Instant::now();
        let mut peers = peers(now);
        assert_eq!(peers.due(now), [target(1), target(2)]);
        assert!(peers.due(now + Duration::from_secs(9)).is_empty());
        assert_eq!(peers.poll_timeout(), Some(now + Duration::from_secs(10)));
        assert_eq!(peers.due(now + Duration::from_secs(10)).len(), 2);
    }

    #[test]
    fn priorities_come_first_and_weights_share() {
        let now = Instant::now();
        let servers = [Server::parse("sip.example.com").unwrap()];
        let mut peers = Peers::new(&servers, Transport::Udp, None, now);
        assert_eq!(peers.best(now, &[], true), None, "not looked up yet");
        let place =
            |number, priority, weight| Place { target: target(number), name: "h".into(), priority, weight };
        peers.resolved(0, vec![place(3, 20, 1), place(1, 10, 3), place(2, 10, 1)], now);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            let Some(best) = peers.best(now, &[], false) else { panic!("none") };
            let IpAddr::V4(v4) = best.address.ip() else { panic!("v6") };
            counts[usize::from(v4.octets()[3])] += 1;
        }
        assert_eq!(counts[3], 0, "a worse priority");
        assert!((2700..3300).contains(&counts[1]), "{counts:?}");
        peers.lost(target(1), "x", now);
        peers.resolved(0, vec![place(1, 10, 3), place(3, 20, 1)], now);
        assert_eq!(peers.best(now, &[], false), Some(target(3)), "what was known stays known");
        assert_eq!(
            peers.best(now + FORGIVE, &[], false),
            Some(target(1)),
            "without probes it gets another chance"
        );
    }
}
