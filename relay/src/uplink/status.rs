//! The state of the relay, gathered from all workers and the kernel.

use std::collections::BTreeMap;

use sallyport_io::FrameCount;
use sallyport_plan::{Counter, Event, InterfaceStatus, Status, Zone};

use super::Uplink;
use crate::orders::Order;

/// The counter that is told of each worker too: how the load is shared.
const SHARED: &str = "received";

/// Who asked.
pub(super) enum For {
    Hello,
    Status,
}

/// Answers of the workers so far.
pub(super) struct Gathering {
    ticket: u64,
    purpose: For,
    missing: usize,
    counters: BTreeMap<String, u64>,
    frames: (u64, u64),
}

impl Uplink {
    /// Asks every worker; the last answer completes the report.
    pub(super) fn gather(&mut self, purpose: For) {
        let missing = self.threads().filter(|thread| thread.is_alive()).count();
        let ticket = self.state.next_ticket;
        self.state.next_ticket += 1;
        let gathering = Gathering { ticket, purpose, missing, counters: BTreeMap::new(), frames: (0, 0) };
        self.state.statuses.push_back(gathering);
        for thread in self.threads().filter(|thread| thread.is_alive()) {
            thread.order(Order::Status(ticket));
        }
    }

    /// Adds one worker's answer to the report that asked for it.
    pub(super) fn gathered(&mut self, worker: u8, ticket: u64, counters: Vec<Counter>, frames: FrameCount) {
        let several = self.workers.len() > 1;
        let asked = self.state.statuses.iter_mut().find(|gathering| gathering.ticket == ticket);
        let Some(gathering) = asked else { return };
        gathering.missing -= 1;
        for counter in counters {
            if several && counter.name == SHARED {
                gathering.counters.insert(format!("{SHARED}_by_worker_{worker}"), counter.value);
            }
            *gathering.counters.entry(counter.name).or_default() += counter.value;
        }
        gathering.frames.0 += frames.total;
        gathering.frames.1 += frames.missing();
        while self.state.statuses.front().is_some_and(|gathering| gathering.missing == 0) {
            if let Some(gathering) = self.state.statuses.pop_front() {
                self.publish(gathering);
            }
        }
    }

    fn publish(&mut self, gathering: Gathering) {
        let mut status = self.bare_status();
        status.frames = gathering.frames;
        status.counters =
            gathering.counters.into_iter().map(|(name, value)| Counter { name, value }).collect();
        if let Some(offload) = &self.offload {
            let kernel = offload.counters();
            status.counters.extend(
                kernel.into_iter().map(|(name, value)| Counter { name: format!("xdp_{name}"), value }),
            );
        }
        let dropped = self.state.dropped_events;
        status.counters.push(Counter { name: "events_without_control".into(), value: dropped });
        let hurried = self.ports.hurried();
        status.counters.push(Counter { name: "port_pairs_hurried".into(), value: hurried });
        let event = match gathering.purpose {
            For::Hello => Event::Hello { version: sallyport_plan::VERSION, status },
            For::Status => Event::Status(status),
        };
        self.tell(&event);
    }

    /// What packets take, in words, for whoever starts us.
    pub fn describe(&self) -> String {
        let status = self.bare_status();
        let interface = |interface: &InterfaceStatus| {
            let way = match interface.path.as_str() {
                "xdp" if interface.zero_copy => "native XDP and AF_XDP without a copy",
                "xdp" => "native XDP and AF_XDP",
                "generic" => "generic XDP and AF_XDP",
                _ => "UDP sockets (slower: no XDP)",
            };
            let ports = match (interface.port_min, interface.port_max) {
                (low, high) if low == high => format!("UDP port {low}"),
                (low, high) => format!("UDP ports {low} to {high}"),
            };
            let browsers = interface.browsers.map(|port| format!(", browsers on UDP port {port}"));
            let tcp = interface.tcp.map(|port| format!(" and TCP port {port}"));
            let zone = format!("{:?}", interface.zone).to_lowercase();
            format!(
                "{zone} {}: {way}, media on {ports}{}{}",
                interface.name,
                tcp.unwrap_or_default(),
                browsers.unwrap_or_default()
            )
        };
        let interfaces: Vec<String> = status.interfaces.iter().map(interface).collect();
        format!("{}; workers: {}", interfaces.join("; "), status.workers)
    }

    /// The status without counters and frames.
    pub(super) fn bare_status(&self) -> Status {
        let path = self.offload.as_ref();
        let interfaces = self
            .interfaces
            .iter()
            .map(|interface| InterfaceStatus {
                name: interface.name.clone(),
                zone: interface.zone,
                path: path.map_or("socket", |offload| offload.path(interface.zone)).into(),
                queues: path.map_or(0, |offload| offload.queues(interface.zone)),
                zero_copy: path.is_some_and(|offload| offload.zero_copy(interface.zone)),
                addresses: interface.addresses.clone(),
                port_min: interface.port_min,
                port_max: interface.port_max,
                browsers: interface.browsers.filter(|_| interface.zone == Zone::Inside),
                tcp: interface.tcp,
                hashes_ports: interface.hashes_ports,
            })
            .collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let calls = &self.state.calls;
        Status {
            interfaces,
            workers: count(self.workers.len()),
            srtp: sallyport_srtp::suites::selected().backend.name().into(),
            calls: count(calls.len()),
            directions: count(calls.values().map(|call| call.plan.directions.len()).sum()),
            flows: path.map_or_else(
                || count(calls.values().map(|call| call.flows.len()).sum()),
                |offload| count(offload.flows()),
            ),
            ports: count(self.ports.taken()),
            frames: (0, 0),
            counters: Vec::new(),
        }
    }
}
