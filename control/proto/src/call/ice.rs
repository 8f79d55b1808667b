//! The browser's leg until a pair is nominated: one ICE agent (RFC 8445), fed and drained by the call.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use sallyport_plan::{Consent, FlowKey, IceRole, Zone};

use crate::api::Command;
use crate::random::Random;
use crate::sdp::{BrowserOffer, OUR_UFRAG};
use crate::settings::{CandidateKind, LocalCandidate, Settings};

/// Candidates of a browser that are looked at; beyond, they are passed over: its checks reach us anyway.
pub const CANDIDATES_MAX: usize = 64;
/// Type preferences of TCP's candidates. The lowest of UDP's, for a reflexive one, is 100 (RFC 8445 section 5.1.2.2).
const TCP_HOST: u32 = 90;
const TCP_REFLEXIVE: u32 = 75;
/// How long the browser's wish to use a pair (USE-CANDIDATE) counts.
const FRESH: Duration = Duration::from_secs(10);
/// Pairs whose last USE-CANDIDATE is remembered.
const WISHES: usize = 16;

/// The agent and what it stands for.
pub struct Ice {
    agent: IceAgent,
    /// At which interface the browser is.
    zone: Zone,
    local: (String, String),
    remote: (String, String),
    tie_breaker: u64,
    lite: bool,
    lines: Vec<String>,
    /// Our addresses and ports that are TCP's.
    tcp: Vec<SocketAddr>,
    begun: bool,
    due: Option<Instant>,
    own: Vec<IpAddr>,
    taken: usize,
    /// The pair that the agent nominated last.
    choice: Option<FlowKey>,
    /// A pair whose TCP connection has ended.
    gone: Option<FlowKey>,
    /// When the browser last wished to use which pair.
    wishes: Vec<(FlowKey, Instant)>,
}

impl fmt::Debug for Ice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ice").field("lite", &self.lite).finish_non_exhaustive()
    }
}

impl Ice {
    /// An agent with our candidates and the browser's.
    pub fn new(settings: &Settings, zone: Zone, offer: &BrowserOffer, random: &mut Random) -> Self {
        // The offerer controls, unless it is lite and we are not (section 6.1.1).
        let mut ice = Self::open(settings, zone, offer.lite && !settings.ice_lite, random);
        ice.meet(&offer.ufrag, &offer.password, &offer.candidates);
        ice
    }

    /// An agent with our candidates of that side, which knows nothing of the browser yet.
    pub fn open(settings: &Settings, zone: Zone, controlling: bool, random: &mut Random) -> Self {
        let local = (random.hex(OUR_UFRAG / 2), random.hex(16));
        let mut agent = IceAgent::new(IceCreds { ufrag: local.0.clone(), pass: local.1.clone() });
        let tie_breaker = random.u64();
        agent.set_control_tie_breaker(tie_breaker);
        agent.set_ice_lite(settings.ice_lite);
        agent.set_controlling(controlling);
        for known in settings.candidates.iter().filter(|known| known.zone == zone) {
            if let Some(candidate) = candidate(known) {
                agent.add_local_candidate(candidate);
            }
        }
        // A host candidate for each base, else checks on a reflexive one have no socket to leave by.
        for known in settings.candidates.iter().filter(|known| known.zone == zone) {
            let base = LocalCandidate { address: known.base, kind: CandidateKind::Host, ..*known };
            if let Some(candidate) = candidate(&base) {
                agent.add_local_candidate(candidate);
            }
        }
        let tcp = settings.candidates.iter().filter(|known| known.zone == zone && known.tcp);
        let (lite, remote) = (settings.ice_lite, (String::new(), String::new()));
        Self {
            agent,
            zone,
            local,
            remote,
            tie_breaker,
            lite,
            lines: lines(settings, zone),
            tcp: tcp.map(|known| known.base).collect(),
            begun: false,
            due: None,
            own: own_addresses(settings),
            taken: 0,
            choice: None,
            gone: None,
            wishes: Vec::new(),
        }
    }

    /// Learns the browser's credentials and candidates.
    pub fn meet(&mut self, ufrag: &str, password: &str, candidates: &[String]) {
        self.remote = (ufrag.to_owned(), password.to_owned());
        self.agent
            .set_remote_credentials(IceCreds { ufrag: self.remote.0.clone(), pass: self.remote.1.clone() });
        for candidate in candidates {
            self.add(candidate);
        }
    }

    /// Adds a candidate of the browser. Names (mDNS), other transports and addresses where no browser can be are passed
    /// over, and so is more than [`CANDIDATES_MAX`]: each is a place that we send checks to on a stranger's word.
    pub fn add(&mut self, line: &str) {
        if let Ok(candidate) = Candidate::from_sdp_string(line)
            && candidate.proto() == Protocol::Udp
            && self.taken < CANDIDATES_MAX
            && is_reachable(candidate.addr())
            && !self.own.contains(&candidate.addr().ip())
        {
            self.taken += 1;
            self.agent.add_remote_candidate(candidate);
        }
    }

    /// Our user fragment.
    pub fn ufrag(&self) -> &str {
        &self.local.0
    }

    /// Our password.
    pub fn password(&self) -> &str {
        &self.local.1
    }

    /// The browser's user fragment.
    pub fn remote_ufrag(&self) -> &str {
        &self.remote.0
    }

    /// Whether we use ICE lite.
    pub const fn is_lite(&self) -> bool {
        self.lite
    }

    /// Our candidates for the answer, each beginning with `candidate:`.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Begins to check: the browser is about to have our answer.
    pub fn begin(&mut self, now: Instant) {
        self.begun = true;
        self.handle_timeout(now);
    }

    /// Takes in a STUN datagram.
    pub fn receive(&mut self, path: &FlowKey, payload: &[u8], now: Instant) {
        let Ok(message) = StunMessage::parse(payload) else { return };
        if self.agent.accepts_message(&message) {
            if message.is_binding_request() && message.use_candidate() {
                self.wish(*path, now);
            }
            let proto = if self.tcp.contains(&path.local) { Protocol::Tcp } else { Protocol::Udp };
            let packet = StunPacket { proto, source: path.remote, destination: path.local, message };
            self.agent.handle_packet(now, packet);
            self.handle_timeout(now);
        }
    }

    /// When the agent wants to be woken.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.begun {
            // Events of a packet may come with the time that passes.
            self.agent.handle_timeout(now);
            self.due = self.agent.poll_timeout();
        }
    }

    fn wish(&mut self, path: FlowKey, now: Instant) {
        self.wishes.retain(|(have, at)| *have != path && now.saturating_duration_since(*at) < FRESH);
        if self.wishes.len() < WISHES {
            self.wishes.push((path, now));
        }
    }

    /// What the agent wants sent. Its checks on the installed pair go out beside the relay's own: an agent that hears no
    /// answer takes the pair for dead.
    pub fn poll_transmit(&mut self) -> Option<Command> {
        let transmit = self.agent.poll_transmit()?;
        let path = FlowKey { zone: self.zone, local: transmit.source, remote: transmit.destination };
        Some(Command::Send { path, payload: transmit.contents.to_vec() })
    }

    /// The pair to use instead of the `current` one. The browser decides where it is controlling: an agent that only
    /// lost sight of the current pair, whose checks the relay answers, is not followed to one that nobody wishes for.
    pub fn poll_nominated(&mut self, current: Option<FlowKey>, now: Instant) -> Option<FlowKey> {
        while let Some(event) = self.agent.poll_event() {
            if let IceAgentEvent::NominatedSend { source, destination, .. } = event {
                self.choice = Some(FlowKey { zone: self.zone, local: source, remote: destination });
            }
        }
        if current.is_some() && current == self.gone {
            self.choice = self.newest_wish().or(self.choice);
        }
        let choice = self.choice.filter(|choice| current != Some(*choice))?;
        let fresh =
            |(path, at): &(FlowKey, Instant)| *path == choice && now.saturating_duration_since(*at) < FRESH;
        let wished = self.agent.controlling() || self.wishes.iter().any(fresh);
        (current.is_none() || wished).then_some(choice)
    }

    /// The TCP connection of a pair has ended.
    pub fn disconnected(&mut self, flow: FlowKey) {
        self.gone = Some(flow);
    }

    /// The pair that the browser wished to use last, of those that work and are still there. The agent finds out by itself that a
    /// pair is dead, long after the browser.
    fn newest_wish(&self) -> Option<FlowKey> {
        let there = self.wishes.iter().filter(|(path, _)| Some(*path) != self.gone);
        let works = there.filter(|(path, _)| self.agent.has_viable_remote_candidate(path.remote));
        works.max_by_key(|(_, at)| *at).map(|(path, _)| *path)
    }

    /// What the relay needs to keep the pair alive.
    pub fn consent(&self, flow: FlowKey) -> Consent {
        let role = if self.agent.controlling() {
            IceRole::Controlling(self.tie_breaker)
        } else {
            IceRole::Controlled(self.tie_breaker)
        };
        Consent {
            flow,
            local_ufrag: self.local.0.clone(),
            local_pwd: self.local.1.clone(),
            remote_ufrag: self.remote.0.clone(),
            remote_pwd: self.remote.1.clone(),
            role,
        }
    }
}

/// A candidate of ours; `None` for an address that can be none. TCP's are passive (RFC 6544).
fn candidate(known: &LocalCandidate) -> Option<Candidate> {
    let LocalCandidate { address, base, kind, tcp, .. } = *known;
    let candidate = match (kind, tcp) {
        (CandidateKind::Host, false) => Candidate::host(address, "udp"),
        (CandidateKind::ServerReflexive | CandidateKind::Advertised, false) => {
            Candidate::server_reflexive(address, base, "udp")
        }
        (CandidateKind::Host, true) => {
            Candidate::builder().tcp().host(address).tcptype("passive".parse().ok()?).build()
        }
        (CandidateKind::ServerReflexive | CandidateKind::Advertised, true) => {
            let builder = Candidate::builder().tcp().server_reflexive(address, base);
            builder.tcptype("passive".parse().ok()?).build()
        }
    };
    candidate.ok()
}

/// Our candidates of a side for an answer, each beginning with `candidate:`.
pub fn lines(settings: &Settings, zone: Zone) -> Vec<String> {
    settings.candidates.iter().filter(|known| known.zone == zone).filter_map(line).collect()
}

fn line(known: &LocalCandidate) -> Option<String> {
    let line = candidate(known)?.to_sdp_string();
    let line = line.strip_prefix("a=").unwrap_or(&line).trim_end();
    let line = line.strip_prefix("candidate:").unwrap_or(line);
    let mut words: Vec<&str> = line.split(' ').collect();
    // Foundation, component, transport, priority.
    let priority = tcp_priority(known).to_string();
    if let Some(word) = words.get_mut(3).filter(|_| known.tcp) {
        *word = &priority;
    }
    Some(format!("candidate:{}", words.join(" ")))
}

/// The priority of a passive candidate: lower than any of UDP's, so that UDP is taken where it works (RFC 6544 section 4.2, whose
/// direction preference is 4 for those); IPv6 first, as for UDP.
fn tcp_priority(known: &LocalCandidate) -> u32 {
    let preference = if known.kind == CandidateKind::Host { TCP_HOST } else { TCP_REFLEXIVE };
    let local = (4 << 13) + 0x1fff - u32::from(known.address.is_ipv4());
    (preference << 24) + (local << 8) + 255
}

/// Whether a browser may be at an address.
fn is_reachable(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = ip == IpAddr::from([255, 255, 255, 255]);
    let nowhere = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || broadcast;
    address.port() != 0 && !nowhere
}

/// Our addresses. What a STUN server saw of us may be the address of a NAT that the browser is behind as well.
fn own_addresses(settings: &Settings) -> Vec<IpAddr> {
    let mut own = settings.own.clone();
    for known in &settings.candidates {
        own.push(known.base.ip());
        if known.kind != CandidateKind::ServerReflexive {
            own.push(known.address.ip());
        }
    }
    own
}

#[cfg(test)]
mod tests;
