//! Installing, swapping and removing the plan of a call.

use std::collections::VecDeque;

use sallyport_core::{Checkpoint, FlowChanges, Removed, Tag};
use sallyport_plan::{CallId, Event, FlowKey, Plan, Protection, Refusal};

use super::{Running, Ticket, Uplink, egress, forks};
use crate::nexthop::{Links, Question};
use crate::orders::Order;
use crate::sessions::Orphan;

impl Uplink {
    /// Goes on with the calls of a former relay. One that seals, and whose indices are not known, could only go on by using
    /// some twice.
    pub fn adopt(&mut self, orphans: Vec<Orphan>) {
        for Orphan { plan, checkpoint } in orphans {
            let call = plan.call;
            let inside = plan.directions.iter().flat_map(|direction| &direction.ingress);
            let inside = inside.filter(|flow| !self.is_browsers(flow)).map(|flow| flow.local);
            let mut inside: Vec<_> = inside.chain(forks::paths(&plan).map(|path| path.local)).collect();
            inside.sort_unstable();
            inside.dedup();
            self.ports.adopt(call, inside.iter().copied());
            let plain =
                !plan.directions.iter().any(|direction| matches!(direction.seal, Some(Protection::Srtp(_))));
            let nothing = plain.then(|| Checkpoint { call, directions: Vec::new() });
            let Some(checkpoint) = checkpoint.or(nothing) else {
                tracing::warn!("a call of the former relay cannot go on: its indices are not known");
                self.ports.release(call, std::time::Instant::now());
                self.sessions.forget(call);
                continue;
            };
            tracing::info!("a call of the former relay goes on");
            tracing::debug!(%call, "adopted");
            self.state.adopted.insert(call, checkpoint);
            if self.offload.is_none() {
                let home = self.hearer(&plan).unwrap_or_else(|| self.lightest());
                self.move_in(call, home, inside);
            }
            self.install(plan);
        }
    }

    pub(super) fn install(&mut self, plan: Plan) {
        let call = plan.call;
        if let Err(refusal) = self.admit(&plan) {
            self.refuse(call, refusal);
            self.abandon(call);
            return;
        }
        let queue = self.state.installing.entry(call).or_default();
        queue.push_back(plan);
        if queue.len() == 1 {
            self.start_install(call);
        }
    }

    /// What can be refused before anything moves.
    fn admit(&self, plan: &Plan) -> Result<(), Refusal> {
        plan.validate()?;
        // A worker has the call: it cannot be as if none had.
        if plan.is_silent() && self.state.playing(plan.call).is_some() {
            return Err(Refusal::Malformed);
        }
        let known =
            self.state.calls.contains_key(&plan.call) || self.state.installing.contains_key(&plan.call);
        if !known && self.state.calls.len() + self.state.installing.len() >= self.max_calls {
            return Err(Refusal::Full);
        }
        for direction in &plan.directions {
            for path in direction.ingress.iter().chain([&direction.rtp, &direction.rtcp]) {
                self.admit_path(plan.call, path)?;
            }
        }
        forks::paths(plan).try_for_each(|path| self.admit_fork(plan.call, &path))?;
        plan.consents.iter().try_for_each(|consent| self.admit_path(plan.call, &consent.flow))
    }

    pub(super) fn admit_path(&self, call: CallId, path: &FlowKey) -> Result<(), Refusal> {
        let browsers = self.is_browsers(path);
        let reserved = browsers || self.ports.owns(call, path.local);
        let remote = path.remote.ip();
        // From a pair of ours to one of ours: to another call's plain leg. Whose pair it is may not be known yet.
        let pairs = self.own.is_hairpin(path) && self.interfaces[1].has_media_port(path.remote);
        let loops = self.has(remote) && !(pairs && !browsers && path.remote != path.local);
        let astray = remote.is_unspecified() || remote.is_multicast() || remote.is_loopback();
        let ours = self.is_ours(path.zone, path.local);
        let families = path.local.is_ipv4() == path.remote.is_ipv4();
        if ours && reserved && families && !loops && !astray && path.remote.port() != 0 {
            Ok(())
        } else {
            Err(Refusal::NotOurs)
        }
    }

    /// Takes the first waiting plan of the call to the resolver, or straight to its worker.
    fn start_install(&mut self, call: CallId) {
        let Some(plan) = self.state.installing.get(&call).and_then(VecDeque::front) else { return };
        if plan.is_silent() {
            // There is nothing in it for a worker, and none is chosen before its browser is heard.
            return self.installed(self.worker_for(call), call, self.newer(plan));
        }
        let mut paths = egress(plan);
        // Whether copies arrive holds up no call.
        let hopes: Vec<FlowKey> = forks::paths(plan).collect();
        paths.retain(|path| !self.own.is_hairpin(path) && !self.own.is_tcp(path) && !hopes.contains(path));
        let Some(next_hops) = &self.next_hops else {
            if self.is_home(call) {
                self.resolved(call, Ok(Links::new()));
            }
            return;
        };
        let ticket = self.state.next_ticket;
        self.state.next_ticket += 1;
        self.state.tickets.insert(ticket, Ticket::Install(call));
        let _ = next_hops.send(Question::Resolve { ticket, paths, hopes, watch: true });
    }

    pub(super) fn resolved(&mut self, call: CallId, links: Result<Links, Refusal>) {
        let Some(plan) = self.state.installing.get(&call).and_then(VecDeque::front).cloned() else { return };
        match links {
            Ok(links) => {
                self.state.links.extend(links.iter().copied());
                let worker = self.worker_for(call);
                let checkpoint = self.state.adopted.get(&call).cloned();
                // First of all: a relay that knew the keys of the plan before it alone would let control begin with these
                // once more, and with the same indices.
                self.sessions.store(&plan);
                self.order(worker, Order::Install { plan: Box::new(plan), links, checkpoint });
            }
            Err(refusal) => {
                self.refuse(call, refusal);
                self.forget_paths(call, &egress(&plan));
                self.next_install(call);
                self.abandon(call);
            }
        }
    }

    /// Links and the watch over next hops end for paths that the call does not send by now.
    fn forget_paths(&mut self, call: CallId, paths: &[FlowKey]) {
        let kept = self.state.calls.get(&call).map(Running::egress).unwrap_or_default();
        let gone: Vec<FlowKey> = paths.iter().filter(|path| !kept.contains(path)).copied().collect();
        if gone.is_empty() {
            return;
        }
        for path in &gone {
            self.state.links.remove(path);
        }
        if let Some(running) = self.state.calls.get(&call) {
            self.order(running.worker, Order::Forget(gone.clone()));
        }
        if let Some(next_hops) = &self.next_hops {
            let _ = next_hops.send(Question::Forget(gone));
        }
    }

    /// A plan was refused. Where it was the first of its call, nothing of that may be left for a next relay to adopt; where the
    /// call was adopted, nobody else knows of its ports.
    fn abandon(&mut self, call: CallId) {
        let adopted = self.state.adopted.remove(&call).is_some();
        if !self.state.calls.contains_key(&call) {
            self.sessions.forget(call);
            if adopted || self.ports.of(call).next().is_none() {
                self.release_ports(call);
            }
        }
        self.list();
    }

    /// What a worker would say to a plan that moves nothing.
    fn newer(&self, plan: &Plan) -> Result<FlowChanges, Refusal> {
        let stale =
            self.state.calls.get(&plan.call).is_some_and(|running| running.plan.version >= plan.version);
        if stale { Err(Refusal::Stale) } else { Ok(FlowChanges::default()) }
    }

    /// A call stays with its worker; a new one goes where its sockets are, where its browser is heard, or to the worker with
    /// the fewest.
    fn worker_for(&self, call: CallId) -> u8 {
        let running = self.state.playing(call).map(|running| running.worker);
        let home = running.or_else(|| self.state.homes.get(&call).copied());
        home.or_else(|| self.nearest(call)).unwrap_or_else(|| self.lightest())
    }

    pub(super) fn installed(&mut self, worker: u8, call: CallId, changes: Result<FlowChanges, Refusal>) {
        let Some(plan) = self.state.installing.get(&call).and_then(VecDeque::front).cloned() else {
            // Removed while it was on its way: the worker's part goes as well.
            self.order(worker, Order::Remove(call));
            return;
        };
        match changes {
            Err(refusal) => {
                self.refuse(call, refusal);
                if let Some(running) = self.state.calls.get(&call) {
                    self.sessions.store(&running.plan);
                }
                self.forget_paths(call, &egress(&plan));
                self.next_install(call);
                self.abandon(call);
            }
            Ok(changes) => {
                self.settle(worker, plan, changes);
                self.next_install(call);
                self.state.adopted.remove(&call);
                self.list();
            }
        }
    }

    /// Brings the kernel's flows in line with the directions, then acknowledges.
    fn settle(&mut self, worker: u8, plan: Plan, changes: FlowChanges) {
        let (call, version) = (plan.call, plan.version);
        let FlowChanges { insert, remove } = changes;
        let mut flows = self.state.calls.get(&call).map(|running| running.flows.clone()).unwrap_or_default();
        flows.retain(|(flow, _)| !remove.contains(flow) && !insert.iter().any(|(new, _)| new == flow));
        flows.extend(insert.iter().copied());
        flows.sort_by_key(|(flow, _)| std::cmp::Reverse(flow.zone));
        if let Err(error) = self.place_flows(&plan, &flows) {
            tracing::error!(%error, "the kernel refused a flow; its call ends");
            self.drop_flows(&insert);
            if self.state.calls.contains_key(&call) {
                self.take_down(call);
            } else {
                self.order(worker, Order::Remove(call));
            }
            self.state.installing.remove(&call);
            self.sessions.forget(call);
            self.refuse(call, Refusal::Kernel);
            return;
        }
        if let Some(offload) = &mut self.offload {
            for flow in &remove {
                offload.remove_flow(flow);
            }
        }
        self.route(call, worker, insert, remove);
        self.teach(worker, &plan);
        if plan.is_silent() {
            self.sessions.store(&plan);
        }
        let running = self.state.calls.entry(call).or_insert_with(|| Running {
            worker,
            plan: plan.clone(),
            flows: Vec::new(),
            lapsed: Vec::new(),
        });
        let former = running.egress();
        running.lapsed.retain(|flow| plan.consents.iter().any(|consent| consent.flow == *flow));
        running.worker = worker;
        running.plan = plan;
        running.flows = flows;
        self.forget_paths(call, &former);
        self.tell(&Event::Installed { call, version });
    }

    fn drop_flows(&mut self, flows: &[(FlowKey, Tag)]) {
        if let Some(offload) = &mut self.offload {
            for (flow, _) in flows {
                offload.remove_flow(flow);
            }
        }
    }

    /// Other workers learn whose the flow is, for frames that come without metadata, and so does whoever has the connections.
    fn route(&mut self, call: CallId, owner: u8, insert: Vec<(FlowKey, Tag)>, remove: Vec<FlowKey>) {
        for (at, worker) in self.workers.iter().enumerate() {
            if at != usize::from(owner) {
                worker.order(Order::Routes { insert: insert.clone(), remove: remove.clone() });
            }
        }
        self.route_tcp(call, insert, remove);
    }

    /// Tells whoever has the TCP connections of the flows among these that are such.
    pub(super) fn route_tcp(
        &mut self,
        call: CallId,
        mut insert: Vec<(FlowKey, Tag)>,
        mut remove: Vec<FlowKey>,
    ) {
        insert.retain(|(flow, _)| self.own.is_tcp(flow));
        remove.retain(|flow| self.own.is_tcp(flow));
        for flow in &remove {
            self.state.connected.remove(flow);
        }
        self.state.connected.extend(insert.iter().map(|(flow, _)| (*flow, call)));
        if let Some(tcp) = self.tcp.as_ref().filter(|_| !insert.is_empty() || !remove.is_empty()) {
            tcp.order(Order::Routes { insert, remove });
        }
    }

    /// A flow has no connection: its call may have another path soon.
    pub(super) fn disconnected(&mut self, flow: FlowKey) {
        if let Some(call) = self.state.connected.get(&flow).copied() {
            self.tell(&Event::Disconnected { call, flow });
        }
    }

    fn next_install(&mut self, call: CallId) {
        let Some(queue) = self.state.installing.get_mut(&call) else { return };
        queue.pop_front();
        if queue.is_empty() {
            self.state.installing.remove(&call);
        } else {
            self.start_install(call);
        }
    }

    /// Flows go first, so that nothing reaches a direction that is on its way out.
    pub(super) fn remove(&mut self, call: CallId) {
        let pending = self.state.installing.remove(&call);
        self.state.adopted.remove(&call);
        if !self.take_down(call) {
            for plan in pending.into_iter().flatten() {
                self.forget_paths(call, &egress(&plan));
            }
            self.sessions.forget(call);
            self.release_ports(call);
            self.tell(&Event::Removed { call, directions: Vec::new() });
        }
        self.list();
    }

    /// Takes flows and session of a running call away and its directions from its worker, whose answer releases the rest;
    /// `false` where it does not run.
    fn take_down(&mut self, call: CallId) -> bool {
        let Some(running) = self.state.calls.remove(&call) else { return false };
        let mut flows = running.flows;
        flows.sort_by_key(|(flow, _)| flow.zone);
        self.drop_flows(&flows);
        let keys = flows.iter().map(|(flow, _)| *flow).collect();
        self.route(call, running.worker, Vec::new(), keys);
        self.sessions.forget(call);
        self.order(running.worker, Order::Remove(call));
        self.forget_paths(call, &egress(&running.plan));
        true
    }

    pub(super) fn removed(&mut self, call: CallId, removed: Option<Removed>) {
        self.release_ports(call);
        let directions = removed.map(|removed| removed.reports).unwrap_or_default();
        let directions = self.with_kernel(call, directions);
        if let Some(offload) = &mut self.offload {
            offload.forget(call);
        }
        self.tell(&Event::Removed { call, directions });
    }
}
