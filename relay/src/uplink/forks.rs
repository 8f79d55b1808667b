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
