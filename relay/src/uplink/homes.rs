//! Which worker a call lives with.
//!
//! On XDP a packet reaches its owner by its RX queue or by hand. On sockets browsers' packets come to the worker that the
//! kernel steers their source to, so that is where their call belongs, and its sockets inside with it. Those are opened before
//! anybody knows the browser's address: they may have to move, once.

use std::net::{SocketAddr, UdpSocket};

use sallyport_plan::{CallId, FlowKey, Plan, Zone};

use super::Uplink;
use crate::nexthop::Links;
use crate::orders::Order;

impl Uplink {
    /// Whether a path begins at a port of ours for browsers.
    pub(super) fn is_browsers(&self, path: &FlowKey) -> bool {
        let mut interfaces = self.interfaces.iter();
        interfaces.any(|interface| interface.zone == path.zone && interface.is_browsers(path.local))
    }

    /// The pair of the plan's browser: the first that feeds one of its directions.
    pub(super) fn browser<'a>(&self, plan: &'a Plan) -> Option<&'a FlowKey> {
        let mut ingress = plan.directions.iter().flat_map(|direction| &direction.ingress);
        ingress.find(|flow| self.is_browsers(flow))
    }

    /// Calls of each worker, those included that are on their way to it.
    pub(super) fn load(&self) -> Vec<usize> {
        let mut load = vec![0usize; self.workers.len()];
        let waiting = self.state.homes.iter().filter(|(call, _)| !self.state.calls.contains_key(call));
        let running = self.state.calls.values().map(|running| running.worker);
        for worker in running.chain(waiting.map(|(_, home)| *home)) {
            if let Some(count) = load.get_mut(usize::from(worker)) {
                *count += 1;
            }
        }
        load
    }

    /// The worker with the fewest calls.
    pub(super) fn lightest(&self) -> u8 {
        let load = self.load();
        let lightest = load.iter().enumerate().min_by_key(|(_, count)| **count).map_or(0, |(at, _)| at);
        u8::try_from(lightest).unwrap_or(0)
    }

    /// On the socket path: the worker that hears the first of the plan's browsers; `None` where there is none.
    pub(super) fn hearer(&self, plan: &Plan) -> Option<u8> {
        let workers = u32::try_from(self.workers.len()).ok()?;
        u8::try_from(sallyport_io::steer(self.browser(plan)?.remote, workers)).ok()
    }

    /// Opens a call's sockets inside at a worker.
    pub(super) fn move_in(&mut self, call: CallId, home: u8, addresses: Vec<SocketAddr>) {
        self.state.homes.insert(call, home);
        self.order(home, Order::Bind { call, addresses });
    }

    /// Whether the call that is to be installed has its sockets where it belongs; else they are on their way there.
    pub(super) fn is_home(&mut self, call: CallId) -> bool {
        let plan = self.state.installing.get(&call).and_then(|plans| plans.front());
        if self.state.playing(call).is_some() {
            // Keys and indices stay with the one who has them; packets from new addresses are handed over.
            return true;
        }
        let Some(owner) = plan.and_then(|plan| self.hearer(plan)) else { return true };
        let home = *self.state.homes.entry(call).or_insert(owner);
        if owner != home {
            let addresses = self.ports.of(call).collect();
            self.order(home, Order::Part { call, addresses });
        }
        owner == home
    }

    /// A call's sockets are on their way to where it belongs. Where it has been removed meanwhile, they are closed.
    pub(super) fn parted(&mut self, call: CallId, sockets: Vec<UdpSocket>) {
        let plan = self.state.installing.get(&call).and_then(|plans| plans.front());
        let Some(owner) = plan.and_then(|plan| self.hearer(plan)) else { return };
        self.state.homes.insert(call, owner);
        self.order(owner, Order::Adopt { call, sockets });
        self.resolved(call, Ok(Links::new()));
    }

    /// On the socket path: a worker that can send by this path. To browsers each can.
    pub(super) fn sender(&self, path: &FlowKey) -> u8 {
        let mut homes = self.state.homes.iter();
        let owns = |call: &CallId| path.zone == Zone::Inside && self.ports.owns(*call, path.local);
        homes.find(|(call, _)| owns(call)).map_or(0, |(_, home)| *home)
    }
}
