//! The relay's middle: takes control's commands, drives workers, kernel and next hops in order, and reports.
//!
//! One thread owns it. Setting up goes directions, flows (reverse before forward), acknowledgement; tearing down goes
//! the other way. Nothing here is on the packet path.

mod arrivals;
mod forks;
mod homes;
mod install;
mod rewrite;
mod status;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use sallyport_core::Digit;
use sallyport_plan::{CallId, Command, Event, FlowKey, Plan, PortPair, Refusal, Zone};
use sallyport_wire::frame::Link;

use crate::facts::Interface;
use crate::hairpin::Own;
use crate::link::{Connection, FromControl};
use crate::nexthop::{Answer, Question};
use crate::offload::Offload;
use crate::orders::{Notice, Order};
use crate::ports::Ports;
use crate::sessions::Sessions;
use crate::worker::Handle;

/// Punted datagrams that may wait for the uplink at once; more are dropped and counted.
pub const PUNTS_WAITING: usize = 1024;

/// Everything that the uplink hears.
pub enum Message {
    /// From the socket.
    Control(FromControl),
    /// From worker `.0`.
    Worker(u8, Notice),
    /// From the resolver of next hops.
    NextHop(Answer),
    /// End: leave flows and program in place for the next relay, or take everything down.
    Stop {
        /// Whether calls are to survive.
        keep: bool,
    },
}

/// How many punts wait: workers add, the uplink takes off.
pub type Waiting = Arc<AtomicUsize>;

/// Hands a worker's notice to the uplink; punts are bounded.
pub fn notifier(
    worker: u8,
    inbox: Sender<Message>,
    waiting: Waiting,
) -> impl Fn(Notice) -> bool + Send + 'static {
    move |notice| {
        if matches!(notice, Notice::Punt { .. }) && waiting.fetch_add(1, Ordering::Relaxed) >= PUNTS_WAITING {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        inbox.send(Message::Worker(worker, notice)).is_ok()
    }
}

/// What the uplink is made of.
pub struct Uplink {
    /// Outside first.
    pub interfaces: [Interface; 2],
    /// Our own addresses inside.
    pub own: Own,
    /// The kernel program; `None` on the socket path.
    pub offload: Option<Offload>,
    /// One a worker.
    pub workers: Vec<Handle>,
    /// Has the TCP connections of browsers; `None` where there are none.
    pub tcp: Option<Handle>,
    /// Asks for next hops; `None` on the socket path.
    pub next_hops: Option<Sender<Question>>,
    /// Port pairs inside.
    pub ports: Ports,
    /// What a next relay would adopt.
    pub sessions: Sessions,
    /// Calls at the most.
    pub max_calls: usize,
    /// Punts that wait.
    pub waiting: Waiting,
    /// What runs and what is under way.
    pub state: State,
}

/// What runs and what is under way.
#[derive(Default)]
pub struct State {
    connection: Option<Connection>,
    calls: HashMap<CallId, Running>,
    installing: HashMap<CallId, VecDeque<Plan>>,
    tickets: HashMap<u64, Ticket>,
    next_ticket: u64,
    statuses: VecDeque<status::Gathering>,
    links: HashMap<FlowKey, Link>,
    /// On the socket path: what is being opened for a call, in the order in which its worker answers.
    reserving: HashMap<CallId, VecDeque<Vec<PortPair>>>,
    /// Whose the flows are that come by TCP connections.
    connected: HashMap<FlowKey, CallId>,
    /// On the socket path: the worker that has a call's sockets inside.
    homes: HashMap<CallId, u8>,
    /// On XDP: which worker heard which browser.
    arrivals: arrivals::Arrivals,
    adopted: HashMap<CallId, sallyport_core::Checkpoint>,
    /// Whether control waits for the list until all adopted calls run, or do not.
    listing: bool,
    dropped_events: u64,
}

impl State {
    /// A call that a worker has: one whose plan has more than its record.
    fn playing(&self, call: CallId) -> Option<&Running> {
        self.calls.get(&call).filter(|running| !running.plan.is_silent())
    }
}

/// A call as it runs.
struct Running {
    worker: u8,
    plan: Plan,
    flows: Vec<(FlowKey, sallyport_core::Tag)>,
    /// Pairs whose consent has lapsed: told to every control that asks.
    lapsed: Vec<FlowKey>,
}

impl Running {
    /// Every path that packets leave by.
    fn egress(&self) -> Vec<FlowKey> {
        egress(&self.plan)
    }
}

/// Every path that packets of a plan leave by, once.
fn egress(plan: &Plan) -> Vec<FlowKey> {
    let mut paths: Vec<FlowKey> =
        plan.directions.iter().flat_map(|direction| [direction.rtp, direction.rtcp]).collect();
    paths.extend(forks::paths(plan));
    paths.extend(plan.consents.iter().map(|consent| consent.flow));
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// Why the resolver was asked.
enum Ticket {
    Install(CallId),
    Send { path: FlowKey, payload: Vec<u8> },
}

impl Uplink {
    /// Serves until told to stop.
    pub fn run(mut self, inbox: &Receiver<Message>) {
        while let Ok(message) = inbox.recv() {
            match message {
                Message::Control(message) => self.control(message),
                Message::Worker(worker, notice) => self.notice(worker, notice),
                Message::NextHop(answer) => self.next_hop(answer),
                Message::Stop { keep } => {
                    self.stop(keep);
                    return;
                }
            }
        }
    }

    fn stop(&mut self, keep: bool) {
        for thread in self.workers.iter_mut().chain(&mut self.tcp) {
            thread.stop();
        }
        if let Some(offload) = self.offload.take() {
            offload.end(keep);
        }
        if !keep {
            self.sessions.clear();
        }
    }

    fn tell(&mut self, event: &Event) {
        let Some(connection) = &mut self.state.connection else {
            self.state.dropped_events += 1;
            return;
        };
        if let Err(error) = connection.send(event) {
            tracing::warn!(%error, "control does not read its socket; connection closed");
            connection.close();
            self.state.connection = None;
        }
    }

    fn refuse(&mut self, call: CallId, refusal: Refusal) {
        tracing::debug!(%call, %refusal, "refused");
        self.tell(&Event::Refused { call, refusal });
    }

    fn control(&mut self, message: FromControl) {
        match message {
            FromControl::Connected(connection) => {
                if let Some(old) = self.state.connection.replace(connection) {
                    old.close();
                    self.release_unplanned();
                }
                self.state.listing = false;
                tracing::info!("control connected");
            }
            FromControl::Gone { id } => {
                if self.state.connection.as_ref().is_some_and(|connection| connection.id == id) {
                    self.state.connection = None;
                    tracing::info!(calls = self.state.calls.len(), "control is gone; media goes on");
                    self.release_unplanned();
                }
            }
            FromControl::Command { id, command } => {
                if self.state.connection.as_ref().is_some_and(|connection| connection.id == id) {
                    self.command(*command);
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Hello { version } => self.hello(version),
            Command::Reserve { call, toward, pairs } => self.reserve(call, toward, pairs),
            Command::Install(plan) => self.install(plan),
            Command::Remove { call } => self.remove(call),
            Command::Send { path, payload } => self.send(path, payload),
            Command::List => {
                self.state.listing = true;
                self.list();
            }
            Command::Report { call } => self.report(call),
            Command::Status => self.gather(status::For::Status),
            Command::Picture { call, direction } => {
                if let Some(running) = self.state.calls.get(&call) {
                    self.order(running.worker, Order::Picture { call, direction });
                }
            }
            Command::Dial { call, direction, digits } => {
                let Some(worker) = self.state.calls.get(&call).map(|running| running.worker) else { return };
                let digits = digits.into_iter().map(|(event, duration)| Digit { event, duration }).collect();
                self.order(worker, Order::Dial { call, direction, digits });
            }
        }
    }

    fn report(&mut self, call: CallId) {
        match self.state.calls.get(&call) {
            Some(running) if running.plan.is_silent() => {
                self.tell(&Event::Report { call, directions: Vec::new() });
            }
            Some(running) => self.order(running.worker, Order::Report(call)),
            None => self.refuse(call, Refusal::UnknownCall),
        }
    }

    /// Answers `List`, once no adopted call is on its way any more: control gives up what is not in the list.
    fn list(&mut self) {
        if !self.state.listing || !self.state.adopted.is_empty() {
            return;
        }
        self.state.listing = false;
        let running: Vec<Plan> = self.state.calls.values().map(|call| call.plan.clone()).collect();
        for plan in running {
            self.tell(&Event::Running(plan));
        }
        self.tell(&Event::Listed);
        let lapsed = self.state.calls.iter();
        let lapsed = lapsed.flat_map(|(call, running)| running.lapsed.iter().map(|flow| (*call, *flow)));
        for (call, flow) in lapsed.collect::<Vec<_>>() {
            self.tell(&Event::ConsentLost { call, flow });
        }
        // The same of connections: whoever has them tells which flows have none.
        let calls = self.state.calls.iter();
        let flows: Vec<_> = calls.map(|(call, running)| (*call, running.flows.clone())).collect();
        for (call, flows) in flows {
            self.route_tcp(call, flows, Vec::new());
        }
    }

    fn hello(&mut self, version: u16) {
        if version == sallyport_plan::VERSION {
            self.gather(status::For::Hello);
            return;
        }
        tracing::error!(theirs = version, ours = sallyport_plan::VERSION, "control speaks another version");
        let status = self.bare_status();
        self.tell(&Event::Hello { version: sallyport_plan::VERSION, status });
        if let Some(connection) = self.state.connection.take() {
            connection.close();
        }
    }

    /// Everybody who obeys orders.
    fn threads(&self) -> impl Iterator<Item = &Handle> {
        self.workers.iter().chain(&self.tcp)
    }

    fn order(&self, worker: u8, order: Order) {
        if let Some(worker) = self.workers.get(usize::from(worker)) {
            worker.order(order);
        }
    }

    fn reserve(&mut self, call: CallId, toward: std::net::IpAddr, pairs: u8) {
        match self.ports.reserve(call, toward, pairs, Instant::now()) {
            Err(refusal) => self.refuse(call, refusal),
            Ok(ports) if self.offload.is_some() => self.tell(&Event::Reserved { call, ports }),
            Ok(ports) => {
                let addresses = ports.iter().flat_map(|pair| [pair.rtp, pair.rtcp]).collect();
                self.state.reserving.entry(call).or_default().push_back(ports);
                let home = self.state.homes.get(&call).copied().unwrap_or_else(|| self.lightest());
                self.move_in(call, home, addresses);
            }
        }
    }

    fn bound(&mut self, call: CallId, bound: bool) {
        let mut waiting = self.state.reserving.remove(&call).unwrap_or_default();
        let ports = waiting.pop_front();
        if !waiting.is_empty() {
            self.state.reserving.insert(call, waiting);
        }
        let Some(ports) = ports else {
            if !bound {
                tracing::warn!(%call, "the ports of a call cannot be taken over; it ends");
                self.remove(call);
            }
            return;
        };
        if bound {
            self.tell(&Event::Reserved { call, ports });
        } else {
            self.ports.give_back(call, &ports, Instant::now());
            if self.ports.of(call).next().is_none() {
                self.state.homes.remove(&call);
            }
            self.refuse(call, Refusal::NoPorts);
        }
    }

    fn release_ports(&mut self, call: CallId) {
        let released = self.ports.release(call, Instant::now());
        if let Some(home) = self.state.homes.remove(&call) {
            let addresses = released.iter().flat_map(|pair| [pair.rtp, pair.rtcp]).collect();
            self.order(home, Order::Unbind(addresses));
        }
    }

    /// Ports that a control reserved and never used die with its connection.
    fn release_unplanned(&mut self) {
        let state = &self.state;
        let unplanned =
            |call: &CallId| !state.calls.contains_key(call) && !state.installing.contains_key(call);
        let orphans: Vec<CallId> = self.ports.holders().filter(unplanned).collect();
        for call in orphans {
            self.release_ports(call);
        }
    }

    fn send(&mut self, path: FlowKey, payload: Vec<u8>) {
        // Candidates are what strangers make them: none of ours is asked by ourselves.
        let to_us = self.interfaces.iter().any(|interface| interface.serves(path.remote));
        if payload.len() > 1500 || to_us || !self.is_ours(path.zone, path.local) {
            tracing::debug!("control asked to send what no media address of ours can");
            return;
        }
        if let Some(tcp) = self.tcp.as_ref().filter(|_| self.own.is_tcp(&path)) {
            tcp.order(Order::Send { path, link: None, payload });
            return;
        }
        let Some(next_hops) = &self.next_hops else {
            self.order(self.sender(&path), Order::Send { path, link: None, payload });
            return;
        };
        if let Some(link) = self.state.links.get(&path).copied() {
            self.order(0, Order::Send { path, link: Some(link), payload });
            return;
        }
        let ticket = self.state.next_ticket;
        self.state.next_ticket += 1;
        self.state.tickets.insert(ticket, Ticket::Send { path, payload });
        // The resolver lives as long as the daemon.
        let _ =
            next_hops.send(Question::Resolve { ticket, paths: vec![path], hopes: Vec::new(), watch: false });
    }

    /// Whether this is one of our media addresses, on any side.
    fn has(&self, address: std::net::IpAddr) -> bool {
        self.interfaces.iter().any(|interface| interface.addresses.contains(&address))
    }

    fn is_ours(&self, zone: Zone, local: SocketAddr) -> bool {
        self.interfaces.iter().any(|interface| interface.zone == zone && interface.serves(local))
    }

    fn next_hop(&mut self, answer: Answer) {
        match answer {
            Answer::Moved(links) => {
                tracing::info!(paths = links.len(), "a next hop has another hardware address");
                self.learn(&links);
                self.state.links.extend(links.iter().copied());
                self.follow(&links);
                for worker in &self.workers {
                    worker.order(Order::Links(links.clone()));
                }
            }
            Answer::Resolved { ticket, links } => match self.state.tickets.remove(&ticket) {
                Some(Ticket::Install(call)) => self.resolved(call, links),
                Some(Ticket::Send { path, payload }) => match links {
                    Ok(links) => {
                        let link = links.first().map(|(_, link)| *link);
                        self.order(0, Order::Send { path, link, payload });
                    }
                    Err(_) => tracing::debug!("no next hop for a datagram of control"),
                },
                None => {}
            },
        }
    }

    fn notice(&mut self, worker: u8, notice: Notice) {
        match notice {
            Notice::Installed { call, changes } => self.installed(worker, call, changes),
            Notice::Removed { call, removed } => self.removed(call, removed),
            Notice::Bound { call, bound } => self.bound(call, bound),
            Notice::Parted { call, sockets } => self.parted(call, sockets),
            Notice::Report { call, directions: Some(directions) } => {
                let directions = self.with_kernel(call, directions);
                self.tell(&Event::Report { call, directions });
            }
            Notice::Report { call, directions: None } => self.refuse(call, Refusal::UnknownCall),
            Notice::Status { ticket, counters, frames } => self.gathered(worker, ticket, counters, frames),
            Notice::Punt { path, call, payload } => {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                self.state.arrivals.note(path, worker);
                self.tell(&Event::Punt { path, call, payload });
            }
            Notice::Checkpoint(checkpoints) => {
                for checkpoint in &checkpoints {
                    self.sessions.checkpoint(checkpoint);
                }
            }
            Notice::Digit { call, direction, digit: Digit { event, duration } } => {
                self.tell(&Event::Digit { call, direction, event, duration });
            }
            Notice::Disconnected(flow) => self.disconnected(flow),
            Notice::Picture { call, direction } => self.tell(&Event::Picture { call, direction }),
            Notice::Source { call, flow } => self.source(call, flow),
            Notice::ConsentLost { call, flow } => {
                if let Some(running) = self.state.calls.get_mut(&call) {
                    running.lapsed.push(flow);
                }
                self.tell(&Event::ConsentLost { call, flow });
            }
        }
    }
}
