//! A relay that speaks the contract and carries nothing but ICE and DTLS.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use sallyport_plan::{
    CallId, Command, Counter, DirectionIndex, DirectionReport, Event, FlowKey, InterfaceStatus, Plan,
    PortPair, Pt, Quality, Refusal, Ssrc, Status, Zone, decode, encode,
};

use super::harness::{Net, until};

/// Datagrams that control had sent: flow and payload.
pub type Inbox = Receiver<(FlowKey, Vec<u8>)>;

/// What the relay holds and has seen.
#[derive(Default)]
pub struct State {
    connection: Option<UnixStream>,
    /// Calls as installed.
    pub plans: BTreeMap<CallId, Plan>,
    /// Port pairs taken.
    pub ports: HashMap<CallId, Vec<PortPair>>,
    next_port: u16,
    /// Every plan that was ever installed, in order.
    pub installed: Vec<Plan>,
    /// Every call that was ever removed, in order.
    pub removed: Vec<CallId>,
    /// Every digit that control had sent as a named event, in order: direction, code, milliseconds.
    pub dialled: Vec<(DirectionIndex, u8, u16)>,
    listeners: HashMap<SocketAddr, Sender<(FlowKey, Vec<u8>)>>,
    /// Answers the next reservation or plan by this.
    pub refuse_reserve: Option<Refusal>,
    pub refuse_install: Option<Refusal>,
    /// Answers no reservation.
    pub is_mute: bool,
    /// Pairs whose consent lapsed while control was away: told again when calls have been listed.
    pub lapsed: Vec<(CallId, FlowKey)>,
    /// Speaks this version of the contract.
    version: Option<u16>,
    connections: u64,
}

/// The relay; outlives the daemon.
#[derive(Clone)]
pub struct Relay {
    state: Arc<Mutex<State>>,
    media: SocketAddr,
    inside: std::net::IpAddr,
    path: PathBuf,
}

impl Relay {
    /// Listens on a socket.
    pub fn start(path: &Path, net: &Net) -> Self {
        Self::with_version(path, net, None)
    }

    /// A relay of another version.
    pub fn with_version(path: &Path, net: &Net, version: Option<u16>) -> Self {
        let state = State { next_port: 20_000, version, ..State::default() };
        let relay = Self {
            state: Arc::new(Mutex::new(state)),
            media: net.media(),
            inside: net.inside(),
            path: path.to_owned(),
        };
        relay.listen();
        relay
    }

    /// Listens (again).
    pub fn listen(&self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        let relay = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                // The path is taken away to end the relay.
                if !relay.path.exists() {
                    return;
                }
                relay.follow(stream.unwrap());
            }
        });
    }

    /// Ends the connection and the listener; `forget` loses all calls with it.
    pub fn stop(&self, forget: bool) {
        let mut state = self.state();
        std::fs::remove_file(&self.path).unwrap();
        if let Some(stream) = state.connection.take() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if forget {
            state.plans.clear();
            state.ports.clear();
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.state().connections
    }

    /// Waits until nothing is installed or reserved.
    pub fn wait_until_empty(&self) {
        until("the relay is empty", || {
            let state = self.state();
            state.plans.is_empty() && state.ports.is_empty()
        });
    }

    /// Takes what control sends to this address.
    pub fn hear(&self, at: SocketAddr) -> Inbox {
        let (sender, inbox) = channel();
        self.state().listeners.insert(at, sender);
        inbox
    }

    /// A datagram arrives outside.
    pub fn punt(&self, from: SocketAddr, payload: &[u8]) {
        let path = FlowKey { zone: Zone::Outside, local: self.media, remote: from };
        let mut state = self.state();
        let owns = |plan: &&Plan| plan.directions.iter().any(|direction| direction.ingress.contains(&path));
        let call = state.plans.values().find(owns).map(|plan| plan.call);
        state.tell(&Event::Punt { path, call, payload: payload.to_vec() });
    }

    /// Consent lapses on a call's pair.
    pub fn lose_consent(&self, call: CallId) {
        let mut state = self.state();
        let flow = state.plans[&call].consents[0].flow;
        state.tell(&Event::ConsentLost { call, flow });
    }

    /// Says anything.
    pub fn say(&self, event: &Event) {
        self.state().tell(event);
    }

    /// Octets that follow no contract.
    pub fn babble(&self, octets: &[u8]) {
        let mut state = self.state();
        state.connection.as_mut().unwrap().write_all(octets).unwrap();
    }

    fn follow(&self, mut stream: UnixStream) {
        {
            let mut state = self.state();
            state.connection = Some(stream.try_clone().unwrap());
            state.connections += 1;
        }
        let mut pending = Vec::new();
        let mut piece = vec![0; 65_536];
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            pending.extend_from_slice(&piece[..length]);
            while let Some((command, used)) = decode::<Command>(&pending).unwrap() {
                pending.drain(..used);
                self.obey(command);
            }
        }
        // Ports without a plan die with the connection.
        let mut state = self.state();
        let plans: Vec<CallId> = state.plans.keys().copied().collect();
        state.ports.retain(|call, _| plans.contains(call));
    }

    fn obey(&self, command: Command) {
        let mut state = self.state();
        match command {
            Command::Hello { .. } => {
                let version = state.version.unwrap_or(sallyport_plan::VERSION);
                let status = self.status(&state);
                state.tell(&Event::Hello { version, status });
            }
            Command::Reserve { call, pairs, .. } => self.reserve(&mut state, call, pairs),
            Command::Install(plan) => install(&mut state, plan),
            Command::Remove { call } => {
                state.plans.remove(&call);
                state.ports.remove(&call);
                state.removed.push(call);
                state.tell(&Event::Removed { call, directions: Vec::new() });
            }
            Command::Send { path, payload } => {
                assert_eq!(
                    (path.zone, path.local),
                    (Zone::Outside, self.media),
                    "only our media address may send"
                );
                if let Some(listener) = state.listeners.get(&path.remote) {
                    // The test may not listen any more.
                    let _ = listener.send((path, payload));
                }
            }
            Command::List => {
                let plans: Vec<Plan> = state.plans.values().cloned().collect();
                plans.into_iter().for_each(|plan| state.tell(&Event::Running(plan)));
                state.tell(&Event::Listed);
                let lapsed = state.lapsed.clone();
                lapsed.into_iter().for_each(|(call, flow)| state.tell(&Event::ConsentLost { call, flow }));
            }
            Command::Report { call } => {
                let event = state.plans.get(&call).map(report);
                state.tell(&event.unwrap_or(Event::Refused { call, refusal: Refusal::UnknownCall }));
            }
            Command::Picture { call, .. } => assert!(state.plans.contains_key(&call)),
            Command::Dial { call, direction, digits } => {
                assert!(state.plans.contains_key(&call));
                let digits = digits.into_iter().map(|(event, duration)| (direction, event, duration));
                state.dialled.extend(digits);
            }
            Command::Status => {
                let status = self.status(&state);
                state.tell(&Event::Status(status));
            }
        }
    }

    fn reserve(&self, state: &mut State, call: CallId, pairs: u8) {
        if state.is_mute {
            return;
        }
        if let Some(refusal) = state.refuse_reserve.take() {
            state.tell(&Event::Refused { call, refusal });
            return;
        }
        let mut ports = Vec::new();
        for _ in 0..pairs {
            let (rtp, rtcp) = (state.next_port, state.next_port + 1);
            state.next_port += 2;
            ports.push(PortPair {
                rtp: SocketAddr::new(self.inside, rtp),
                rtcp: SocketAddr::new(self.inside, rtcp),
            });
        }
        state.ports.entry(call).or_default().extend(ports.clone());
        state.tell(&Event::Reserved { call, ports });
    }

    fn status(&self, state: &State) -> Status {
        let interface = |name: &str, zone, ip, port_min, port_max| InterfaceStatus {
            name: name.into(),
            zone,
            path: "socket".into(),
            queues: 0,
            zero_copy: false,
            addresses: vec![ip],
            port_min,
            port_max,
            browsers: (zone == Zone::Inside).then_some(10_000),
            tcp: (zone == Zone::Outside).then_some(443),
            hashes_ports: false,
        };
        let count = |number: usize| u32::try_from(number).unwrap();
        Status {
            interfaces: vec![
                interface("outside0", Zone::Outside, self.media.ip(), self.media.port(), self.media.port()),
                interface("inside0", Zone::Inside, self.inside, 20_000, 29_999),
            ],
            workers: 1,
            srtp: "portable".into(),
            calls: count(state.plans.len()),
            directions: count(state.plans.values().map(|plan| plan.directions.len()).sum()),
            flows: 0,
            ports: count(state.ports.len()),
            frames: (64, 0),
            counters: vec![Counter { name: "forward_rtp".into(), value: 42 }],
        }
    }
}

fn install(state: &mut State, plan: Plan) {
    let call = plan.call;
    let known = state.plans.get(&call).map_or(0, |known| known.version);
    let refusal = state.refuse_install.take().or_else(|| plan.validate().err());
    let refusal = refusal.or_else(|| (plan.version <= known).then_some(Refusal::Stale));
    let refusal = refusal.or_else(|| (!state.ports.contains_key(&call)).then_some(Refusal::NotOurs));
    if let Some(refusal) = refusal {
        state.tell(&Event::Refused { call, refusal });
        return;
    }
    let version = plan.version;
    state.installed.push(plan.clone());
    state.plans.insert(call, plan);
    state.tell(&Event::Installed { call, version });
}

fn report(plan: &Plan) -> Event {
    let report = |direction: &sallyport_plan::Direction| DirectionReport {
        index: direction.index,
        medium: direction.medium,
        from: direction.ingress[0].zone,
        packets: 100,
        octets: 16_000,
        lost: -1,
        drops: vec![Counter { name: "drop_replay".into(), value: 3 }],
        quality: Quality {
            received: 99,
            source: Some(Ssrc(1000 + u32::from(direction.index.0))),
            payload_type: Some(Pt(0)),
            jitter_us: 4000,
            round_trip_us: Some(30_000),
            stays: std::array::from_fn(|at| u32::from(at == 3)),
            ..Quality::default()
        },
    };
    Event::Report { call: plan.call, directions: plan.directions.iter().map(report).collect() }
}

impl State {
    fn tell(&mut self, event: &Event) {
        let mut octets = Vec::new();
        encode(event, &mut octets).unwrap();
        if let Some(stream) = &mut self.connection {
            // Control may be gone.
            let _ = stream.write_all(&octets);
        }
    }
}
