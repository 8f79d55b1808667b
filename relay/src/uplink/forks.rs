//! Copies of what a call sends: where they may go, and how their paths are found.

use sallyport_plan::{CallId, FlowKey, Plan, Refusal};

use super::Uplink;
use crate::nexthop::Links;
use crate::orders::Order;

/// Every path that copies leave by.
pub(super) fn paths(plan: &Plan) -> impl Iterator<Item = FlowKey> + '_ {
    let forks = plan.directions.iter().filter_map(|direction| direction.fork);
    forks.flat_map(|fork| [fork.rtp, fork.rtcp])
}

impl Uplink {
    /// Copies go by a port pair of the call's to somebody else: to a leg of ours they would be media of another call.
    pub(super) fn admit_fork(&self, call: CallId, path: &FlowKey) -> Result<(), Refusal> {
        if self.own.is_hairpin(path) || !self.ports.owns(call, path.local) {
            return Err(Refusal::NotOurs);
        }
        self.admit_path(call, path)
    }

    /// Next hops that were found while a plan was on its way to its worker, where [`Self::learn`] knew nobody who has the call.
    pub(super) fn teach(&self, worker: u8, plan: &Plan) {
        let known = paths(plan).filter_map(|path| Some((path, *self.state.links.get(&path)?)));
        let links: Links = known.collect();
        if !links.is_empty() {
            self.order(worker, Order::Learn(links));
        }
    }

    /// Next hops that were not known when their plans were installed are by now: copies can leave.
    pub(super) fn learn(&self, links: &Links) {
        let new = links.iter().filter(|(path, _)| !self.state.links.contains_key(path));
        for (path, link) in new {
            let mut calls = self.state.calls.values();
            if let Some(running) = calls.find(|running| paths(&running.plan).any(|fork| fork == *path)) {
                self.order(running.worker, Order::Learn(vec![(*path, *link)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    use nix::sys::eventfd::EventFd;
    use sallyport_core::FlowChanges;
    use sallyport_plan::{
        Digits, Direction, DirectionIndex, Extensions, Fork, Medium, Mute, Passage, Resend, Ssrc, Zone,
    };
    use sallyport_wire::frame::Link;

    use super::*;
    use crate::facts::imagined;
    use crate::hairpin::Own;
    use crate::nexthop::Answer;
    use crate::ports::Ports;
    use crate::sessions::Sessions;
    use crate::worker::Handle;

    fn path(port: u16) -> FlowKey {
        let [local, remote] = [1, 66].map(|last| SocketAddr::from(([10, 0, 0, last], port)));
        FlowKey { zone: Zone::Inside, local, remote }
    }

    fn link(path: FlowKey) -> (FlowKey, Link) {
        (path, Link { source_mac: [2; 6], destination_mac: [6; 6], vlan: None, dscp: 0 })
    }

    /// One direction with copies.
    fn plan() -> Plan {
        let fork = Fork { rtp: path(20_002), rtcp: path(20_003) };
        let direction = Direction {
            index: DirectionIndex(0),
            medium: Medium::Audio,
            ingress: vec![path(20_000)],
            learns: false,
            open: None,
            seal: None,
            rtp: path(20_000),
            rtcp: path(20_001),
            passage: Passage::Translated,
            ssrc: Ssrc(1),
            payload_types: Vec::new(),
            extensions: Extensions::default(),
            digits: Digits::Pass,
            resend: Resend::Never,
            fork: Some(fork),
            reverse: DirectionIndex(1),
            mute: Mute::Open,
        };
        Plan {
            call: CallId(1),
            version: 1,
            directions: vec![direction],
            consents: Vec::new(),
            record: Vec::new(),
        }
    }

    fn uplink() -> (Uplink, Receiver<Order>) {
        let (orders, inbox) = channel();
        let interfaces = [imagined(Zone::Outside, 1), imagined(Zone::Inside, 1)];
        let wake = Arc::new(EventFd::new().unwrap());
        let uplink = Uplink {
            own: Own::new(&interfaces),
            interfaces,
            offload: None,
            workers: vec![Handle::new(orders, wake, std::thread::spawn(|| ()))],
            tcp: None,
            next_hops: None,
            ports: Ports::new(&[], 20_000, 20_100),
            sessions: Sessions::open(1).unwrap().0,
            max_calls: 1,
            waiting: Arc::default(),
            state: super::super::State::default(),
        };
        (uplink, inbox)
    }

    #[test]
    fn a_next_hop_that_is_found_while_its_plan_is_on_its_way_is_learned() {
        let (mut uplink, inbox) = uplink();
        let learned = || {
            let of = |order| match order {
                Order::Learn(links) => Some(links),
                _ => None,
            };
            inbox.try_iter().filter_map(of).flatten().map(|(path, _)| path).collect::<Vec<_>>()
        };
        uplink.state.installing.insert(CallId(1), VecDeque::from([plan()]));
        uplink.resolved(CallId(1), Ok(vec![link(path(20_000)), link(path(20_001))]));
        uplink.next_hop(Answer::Moved(vec![link(path(20_002))]));
        assert!(learned().is_empty(), "nobody has the call yet");
        uplink.installed(0, CallId(1), Ok(FlowChanges::default()));
        assert_eq!(learned(), [path(20_002)]);
        uplink.next_hop(Answer::Moved(vec![link(path(20_003))]));
        assert_eq!(learned(), [path(20_003)], "and one that is found later");
    }
}
