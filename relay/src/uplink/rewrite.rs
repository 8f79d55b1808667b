//! Plain calls: which flows the kernel sends on itself, and what it has sent.

use sallyport_abi::{Egress, Target};
use sallyport_core::Tag;
use sallyport_plan::{CallId, Direction, DirectionReport, Event, FlowKey, Mute, Passage, Plan};
use sallyport_xdp::{MapError, Rewrite};

use super::Uplink;
use crate::nexthop::Links;
use crate::offload::kernel_key;

impl Uplink {
    /// Brings flows of a plan into the kernel, or in line with the plan there.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn place_flows(&mut self, plan: &Plan, flows: &[(FlowKey, Tag)]) -> Result<(), MapError> {
        // What only we feed is no business of the kernel's: a packet by a cable that bears our own source address is nobody's.
        // Nor are TCP's, which come as connections.
        let comes = |(flow, _): &&(FlowKey, Tag)| !self.own.is_hairpin(flow) && !self.own.is_tcp(flow);
        for (flow, tag) in flows.iter().filter(comes).collect::<Vec<_>>() {
            let led = |direction: &&Direction| direction.flows().any(|one| one == *flow);
            let Some(direction) = plan.directions.iter().find(led) else { continue };
            // What may come from any port the worker looks at.
            let named = direction.ingress.contains(flow);
            let rewrite = if named { self.rewrite(plan, direction, flow) } else { None };
            if let Some(offload) = &mut self.offload {
                offload.place_flow(flow, (plan.call, direction.index), *tag, rewrite)?;
            }
        }
        Ok(())
    }

    /// How the kernel can send a flow on by itself; `None` where its packets are the worker's: they have to change, are held,
    /// hang on consent, become another IP version, or the egress has no way for the kernel.
    fn rewrite(&self, plan: &Plan, direction: &Direction, flow: &FlowKey) -> Option<Rewrite> {
        let passes = direction.passage == Passage::Transparent && direction.mute == Mute::Open;
        if !passes || !plan.consents.is_empty() {
            return None;
        }
        let target = |to: &FlowKey| {
            let link = self.state.links.get(to).filter(|link| link.vlan.is_none())?;
            let back = self.offload.as_ref()?.leaves_back(flow.zone, to.zone)?;
            let interface = self.interfaces.iter().find(|interface| interface.zone == to.zone)?;
            let egress = Egress {
                ifindex: interface.ifindex,
                source_mac: link.source_mac,
                destination_mac: link.destination_mac,
                dscp: link.dscp,
                back,
                mtu: u16::try_from(interface.egress_mtu()).unwrap_or(u16::MAX),
            };
            Target::new(&kernel_key(flow), to.local, to.remote, &egress)
        };
        let mut payload_types = [0u64; 2];
        for map in &direction.payload_types {
            payload_types[usize::from(map.from.0 >> 6) & 1] |= 1 << (map.from.0 & 63);
        }
        Some(Rewrite { rtp: target(&direction.rtp)?, rtcp: target(&direction.rtcp)?, payload_types })
    }

    /// Next hops have other hardware addresses: flows that the kernel sends on there follow.
    pub(super) fn follow(&mut self, links: &Links) {
        let moved = |path: &FlowKey| links.iter().any(|(moved, _)| moved == path);
        let calls = self.state.calls.values();
        let touched = calls.filter(|running| {
            let transparent = |direction: &&Direction| direction.passage == Passage::Transparent;
            let mut directions = running.plan.directions.iter().filter(transparent);
            directions.any(|direction| moved(&direction.rtp) || moved(&direction.rtcp))
        });
        let touched: Vec<(Plan, Vec<(FlowKey, Tag)>)> =
            touched.map(|running| (running.plan.clone(), running.flows.clone())).collect();
        for (plan, flows) in touched {
            if let Err(error) = self.place_flows(&plan, &flows) {
                tracing::error!(%error, "the kernel goes on sending to a former next hop");
            }
        }
    }

    /// A peer is heard from a port that its plan does not name: control may change the plan. Not where the kernel sends on what
    /// still comes from the port that is named, past the worker who judged that.
    pub(super) fn source(&mut self, call: CallId, flow: FlowKey) {
        let running = self.state.calls.get(&call);
        let named = running.into_iter().flat_map(|running| &running.flows).map(|(flow, _)| flow);
        let mut named = named.filter(|named| named.of_any_port() == flow.of_any_port());
        let comes = |named: &FlowKey| self.offload.as_ref().is_some_and(|offload| offload.is_heard(named));
        if !named.any(comes) {
            self.tell(&Event::Source { call, flow });
        }
    }

    /// A worker's statistics with what the kernel sent on past it.
    pub(super) fn with_kernel(
        &self,
        call: CallId,
        mut directions: Vec<DirectionReport>,
    ) -> Vec<DirectionReport> {
        let Some(offload) = &self.offload else { return directions };
        let flows = self.state.calls.get(&call).map(|running| running.flows.as_slice()).unwrap_or_default();
        let forwarded = offload.forwarded(call, flows.iter().map(|(flow, _)| flow));
        for report in &mut directions {
            if let Some(tally) = forwarded.get(&report.index) {
                report.packets += tally.packets;
                report.octets += tally.octets;
            }
        }
        directions
    }
}
