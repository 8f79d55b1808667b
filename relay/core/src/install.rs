//! Installing, swapping and removing plans. Everything that can fail happens before anything moves.

use std::cmp::Reverse;

use sallyport_plan::{CallId, Direction as DirectionPlan, FlowKey, Plan, Protection, Refusal};

use crate::Now;
use crate::consent::Consent;
use crate::direction::{Direction, REPORT_ROOM};
use crate::packet::{Opening, Sealing};
use crate::table::{DirectionId, Tag};
use crate::translator::{Call, FlowChanges, Removed, Translator};

/// A direction ready to be put in place.
struct Prepared {
    plan: DirectionPlan,
    /// `None`: the halves that run stay.
    open: Option<Opening>,
    seal: Option<Sealing>,
    /// The slot that it has already.
    slot: Option<usize>,
}

impl Translator {
    /// Obeys a plan: the first of its call, or a newer version. Directions keep stream and counters by index; halves whose
    /// keys are the same keep their indices, others start anew.
    ///
    /// # Errors
    /// A [`Refusal`]; what ran before runs on. Beyond what [`Plan::validate`] refuses: `Stale`, `Full`, `FlowTaken` by
    /// another call, `KeyReuse` of a key and SSRC that another direction has or had, `Malformed` ICE credentials, another
    /// SSRC of retransmissions under the same key, two consents of one pair, consent of a pair that feeds no direction, or a flow
    /// that another direction is to open under the same key.
    pub fn install(&mut self, plan: Plan, now: Now) -> Result<FlowChanges, Refusal> {
        plan.validate()?;
        self.admit(&plan)?;
        self.ledger.admit(&plan, &self.running(plan.call))?;
        let prepared = self.prepare(&plan)?;
        let consents = self.prepare_consents(&plan, now)?;
        Ok(self.commit(&plan, prepared, consents, now))
    }

    fn admit(&self, plan: &Plan) -> Result<(), Refusal> {
        let running = self.calls.get(&plan.call);
        if running.is_some_and(|call| call.version >= plan.version) {
            return Err(Refusal::Stale);
        }
        let have = running.map_or(0, |call| call.slots.len());
        let directions = self.table.taken() - have + plan.directions.len();
        let calls = self.calls.len() + usize::from(running.is_none());
        if calls > self.limits.calls || directions > self.limits.directions.min(DirectionId::SLOTS) {
            return Err(Refusal::Full);
        }
        let taken = plan.directions.iter().flat_map(|direction| &direction.ingress).any(|flow| {
            let owner = self.table.lookup(flow).and_then(|tag| self.table.at(tag.direction.slot()));
            owner.is_some_and(|owner| owner.cold.call != plan.call)
        });
        if taken {
            return Err(Refusal::FlowTaken);
        }
        let another = passes_opener_on(&self.running(plan.call), plan);
        if another { Err(Refusal::Malformed) } else { Ok(()) }
    }

    /// The directions of a call as they run, in the order of its plan; none of an unknown one.
    fn running(&self, call: CallId) -> Vec<&DirectionPlan> {
        let slots = self.calls.get(&call).map(|call| call.slots.as_slice()).unwrap_or_default();
        slots.iter().filter_map(|at| Some(&self.table.at(*at)?.cold.plan)).collect()
    }

    fn prepare(&self, plan: &Plan) -> Result<Vec<Prepared>, Refusal> {
        let slots = self.calls.get(&plan.call).map(|call| call.slots.as_slice()).unwrap_or_default();
        let running = |wanted: &DirectionPlan| {
            slots.iter().copied().find_map(|at| {
                let former = &self.table.at(at)?.cold.plan;
                (former.index == wanted.index).then_some((at, former))
            })
        };
        plan.directions
            .iter()
            .map(|wanted| {
                let running = running(wanted);
                let there = running.and_then(|(at, _)| self.table.at(at));
                if there.is_some_and(|direction| direction.renames_retransmissions(wanted)) {
                    return Err(Refusal::Malformed);
                }
                let keeps_open = running.is_some_and(|(_, former)| former.open == wanted.open);
                let keeps_seal = running.is_some_and(|(_, former)| former.seal == wanted.seal);
                let malformed = |_| Refusal::Malformed;
                let open = || Opening::new(wanted.open.as_ref()).map_err(malformed);
                let seal = || Sealing::new(wanted.seal.as_ref()).map_err(malformed);
                Ok(Prepared {
                    plan: wanted.clone(),
                    open: if keeps_open { None } else { Some(open()?) },
                    seal: if keeps_seal { None } else { Some(seal()?) },
                    slot: running.map(|(at, _)| at),
                })
            })
            .collect()
    }

    /// New consents; `None` stands for one that runs already.
    fn prepare_consents(&self, plan: &Plan, now: Now) -> Result<Vec<Option<Consent>>, Refusal> {
        let running = self.calls.get(&plan.call).map(|call| call.consents.as_slice()).unwrap_or_default();
        plan.consents
            .iter()
            .enumerate()
            .map(|(at, wanted)| {
                let feeds = plan.directions.iter().any(|direction| direction.ingress.contains(&wanted.flow));
                let twice = plan.consents.iter().take(at).any(|other| other.flow == wanted.flow);
                if twice || !feeds {
                    return Err(Refusal::Malformed);
                }
                if running.iter().any(|consent| consent.plan() == wanted) {
                    return Ok(None);
                }
                Consent::new(wanted.clone(), now).map(Some).ok_or(Refusal::Malformed)
            })
            .collect()
    }

    fn commit(
        &mut self,
        plan: &Plan,
        prepared: Vec<Prepared>,
        consents: Vec<Option<Consent>>,
        now: Now,
    ) -> FlowChanges {
        let id = plan.call;
        let former = self.calls.remove(&id);
        let (old_slots, old_consents) = former.map(|call| (call.slots, call.consents)).unwrap_or_default();
        let old_flows = self.flows(&old_slots);
        // Collected in place they would keep the room that their keys had.
        let mut slots = Vec::with_capacity(prepared.len());
        for direction in prepared {
            slots.push(self.put(id, direction, now));
        }
        for at in old_slots {
            if !slots.contains(&at) {
                self.table.free(at);
            }
        }
        if plan.directions.iter().any(|direction| direction.fork.is_some()) {
            self.copies.begin();
        }
        // Whose packets are missing waits for no memory.
        self.asks_due.reserve(self.table.taken());
        self.pair(&slots);
        self.lead(&slots, now);
        let changes = self.flow_changes(&slots, &old_flows);
        let consents = self.keep_consents(plan, consents, old_consents);
        self.ledger.enter(plan);
        self.calls.insert(id, Call { version: plan.version, slots, consents });
        self.lapse(id);
        changes
    }

    /// Puts a direction into the slot that it has, or into a free one.
    fn put(&mut self, call: CallId, prepared: Prepared, now: Now) -> usize {
        let Prepared { plan, open, seal, slot } = prepared;
        let led = |at| {
            let to = |flow| self.table.lookup(flow).is_some_and(|tag| tag.direction.slot() == at);
            plan.ingress.iter().all(to)
        };
        let leads = slot.is_some_and(led);
        if let Some(at) = slot
            && let Some(direction) = self.table.at_mut(at)
        {
            let changes = open.is_some();
            if let Some(open) = open {
                let goes_on = leads && direction.cold.plan.ingress == plan.ingress;
                direction.reopen(open, plan.open.as_ref(), goes_on, now);
            }
            if let Some(seal) = seal {
                direction.reseal(seal);
            }
            direction.swap(plan);
            self.begin_reports(at, now);
            if changes {
                self.begin_change(at, now);
            }
            return at;
        }
        let (open, seal) = (open.unwrap_or(Opening::Waiting), seal.unwrap_or(Sealing::Waiting));
        let at = self.table.put(Direction::new(call, plan, open, seal));
        self.begin_reports(at, now);
        at
    }

    /// Every direction learns the slot of the one that runs the other way, and of the next one of its bundle.
    fn pair(&mut self, slots: &[usize]) {
        for (nth, at) in slots.iter().enumerate() {
            let fed = |at: &usize| self.table.at(*at).map(|direction| &direction.cold.plan.ingress);
            let next = slots.iter().skip(nth + 1).find(|other| fed(other) == fed(at)).copied();
            if let Some(direction) = self.table.at_mut(*at) {
                direction.next = next.unwrap_or(usize::MAX);
            }
        }
        let named: Vec<_> =
            slots.iter().filter_map(|at| Some((*at, self.table.at(*at)?.cold.plan.index))).collect();
        for at in slots {
            if let Some(direction) = self.table.at_mut(*at) {
                let reverse = named.iter().find(|(_, index)| *index == direction.cold.plan.reverse);
                direction.reverse = reverse.map_or(usize::MAX, |(at, _)| *at);
            }
        }
    }

    /// The first direction of each bundle, to which its flow leads, hears all that arrives.
    fn lead(&mut self, slots: &[usize], now: Now) {
        for (nth, at) in slots.iter().enumerate() {
            let fed = |at: &usize| self.table.at(*at).map(|direction| &direction.cold.plan.ingress);
            let leads = slots.iter().take(nth).all(|other| fed(other) != fed(at));
            self.begin_feedback(*at, leads, now);
        }
    }

    fn flows(&self, slots: &[usize]) -> Vec<FlowKey> {
        let directions = slots.iter().filter_map(|at| self.table.at(*at));
        let mut flows = Vec::new();
        for flow in directions.flat_map(|direction| direction.cold.plan.flows()) {
            if !flows.contains(&flow) {
                flows.push(flow);
            }
        }
        flows
    }

    fn flow_changes(&mut self, slots: &[usize], old: &[FlowKey]) -> FlowChanges {
        let mut insert: Vec<(FlowKey, Tag)> = Vec::new();
        for at in slots {
            let Some(tag) = self.table.tag(*at) else { continue };
            // The flow of a bundle leads to its first direction, which opens for all.
            let mut flows = self.flows(&[*at]);
            flows.retain(|flow| !insert.iter().any(|(have, _)| have == flow));
            insert.extend(flows.into_iter().map(|flow| (flow, tag)));
        }
        let gone = |flow: &&FlowKey| !insert.iter().any(|(new, _)| new == *flow);
        let remove: Vec<FlowKey> = old.iter().filter(gone).copied().collect();
        for flow in &remove {
            self.table.unbind(flow);
        }
        insert.retain(|(flow, tag)| self.table.bind(*flow, *tag));
        FlowChanges { insert, remove }
    }

    fn keep_consents(
        &mut self,
        plan: &Plan,
        new: Vec<Option<Consent>>,
        mut old: Vec<Consent>,
    ) -> Vec<Consent> {
        let mut kept = Vec::new();
        for (wanted, new) in plan.consents.iter().zip(new) {
            let consent = match new {
                Some(consent) => {
                    self.due.push(Reverse((consent.due(), plan.call, wanted.flow)));
                    Some(consent)
                }
                None => {
                    let running = old.iter().position(|consent| consent.plan() == wanted);
                    running.map(|at| old.swap_remove(at))
                }
            };
            kept.extend(consent);
        }
        kept
    }

    /// Ends a call; `None` for an unknown one. Its keys are wiped with its directions.
    pub fn remove(&mut self, id: CallId, now: Now) -> Option<Removed> {
        let reports = self.report(id)?;
        let farewells = self.farewells(id, now);
        let running = self.running(id);
        let mut egress: Vec<FlowKey> =
            running.iter().flat_map(|direction| [direction.rtp, direction.rtcp]).collect();
        let forks = running.iter().filter_map(|direction| direction.fork);
        egress.extend(forks.flat_map(|fork| [fork.rtp, fork.rtcp]));
        let call = self.calls.remove(&id)?;
        let flows = self.flows(&call.slots);
        for flow in &flows {
            self.table.unbind(flow);
        }
        for at in &call.slots {
            self.table.free(*at);
        }
        self.ledger.remove(id);
        egress.extend(call.consents.iter().map(|consent| consent.plan().flow));
        egress.sort_unstable();
        egress.dedup();
        Some(Removed { flows, egress, reports, farewells })
    }

    /// Goodbyes to plain legs that something was sent to. Browsers learn the end by DTLS or their signalling.
    fn farewells(&mut self, id: CallId, now: Now) -> Vec<(FlowKey, Vec<u8>)> {
        let slots = self.calls.get(&id).map(|call| call.slots.clone()).unwrap_or_default();
        let spoke = |at: &usize| {
            let direction = self.table.at(*at);
            direction
                .is_some_and(|direction| direction.packets > 0 && matches!(direction.seal, Sealing::Plain))
        };
        let slots: Vec<usize> = slots.into_iter().filter(spoke).collect();
        let mut room = [0; REPORT_ROOM];
        let farewell = |at: usize| {
            let (to, length) = self.write_report(at, now, true, &mut room)?;
            Some((to, room.get(..length)?.to_vec()))
        };
        slots.into_iter().filter_map(farewell).collect()
    }
}

/// Whether a flow goes to another direction under the same key: what the one has opened the other would open again.
fn passes_opener_on(former: &[&DirectionPlan], plan: &Plan) -> bool {
    let mut all = plan.directions.iter().flat_map(|direction| &direction.ingress);
    all.any(|flow| {
        let now = plan.directions.iter().find(|direction| direction.ingress.contains(flow));
        let then = former.iter().find(|direction| direction.ingress.contains(flow));
        let (Some(now), Some(then)) = (now, then) else { return false };
        now.index != then.index && now.open == then.open && matches!(now.open, Some(Protection::Srtp(_)))
    })
}
