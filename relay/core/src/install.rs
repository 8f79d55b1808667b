//! Installing, swapping and removing plans. Everything that can fail happens before anything moves.

use std::cmp::Reverse;

use sallyport_plan::{CallId, Direction as DirectionPlan, FlowKey, Plan, Protection, Refusal};
use sha1::{Digest, Sha1};

use crate::Now;
use crate::consent::Consent;
use crate::direction::{Direction, DirectionId, Open, Seal, Tag};
use crate::translator::{Call, FlowChanges, Removed, Slot, Translator};

/// A direction ready to be put in place.
struct Prepared {
    plan: DirectionPlan,
    /// `None`: the halves that run stay.
    open: Option<Open>,
    seal: Option<Seal>,
    /// The slot that it has already.
    slot: Option<usize>,
}

impl Translator {
    /// Obeys a plan: the first of its call, or a newer version. Directions keep their state by index; halves whose keys
    /// are the same keep their indices.
    ///
    /// # Errors
    /// A [`Refusal`]; what ran before runs on.
    pub fn install(&mut self, plan: Plan, now: Now) -> Result<FlowChanges, Refusal> {
        plan.validate()?;
        self.admit(&plan)?;
        let prepared = self.prepare(&plan)?;
        let consents = self.prepare_consents(&plan, now)?;
        let retired = self.retire(&plan)?;
        Ok(self.commit(plan, prepared, consents, retired))
    }

    fn admit(&self, plan: &Plan) -> Result<(), Refusal> {
        let running = self.calls.get(&plan.call);
        if running.is_some_and(|call| call.plan.version >= plan.version) {
            return Err(Refusal::Stale);
        }
        let have = running.map_or(0, |call| call.slots.len());
        let directions = self.slots.len() - self.free.len() - have + plan.directions.len();
        let calls = self.calls.len() + usize::from(running.is_none());
        if calls > self.limits.calls || directions > self.limits.directions.min(DirectionId::SLOTS) {
            return Err(Refusal::Full);
        }
        let taken = plan.directions.iter().flat_map(|direction| &direction.ingress).any(|flow| {
            let owner = self.table.get(flow).and_then(|tag| self.slots.get(tag.direction.slot()));
            owner.and_then(|slot| slot.direction.as_ref()).is_some_and(|direction| direction.call != plan.call)
        });
        if taken { Err(Refusal::FlowTaken) } else { Ok(()) }
    }

    fn prepare(&self, plan: &Plan) -> Result<Vec<Prepared>, Refusal> {
        let slots = self.calls.get(&plan.call).map(|call| call.slots.as_slice()).unwrap_or_default();
        let running = |wanted: &DirectionPlan| {
            slots.iter().copied().find_map(|at| {
                let direction = self.slots.get(at)?.direction.as_deref()?;
                (direction.plan.index == wanted.index).then_some((at, direction))
            })
        };
        plan.directions
            .iter()
            .map(|wanted| {
                let running = running(wanted);
                let keeps_open = running.is_some_and(|(_, direction)| direction.plan.open == wanted.open);
                let keeps_seal = running.is_some_and(|(_, direction)| direction.plan.seal == wanted.seal);
                let malformed = |_| Refusal::Malformed;
                let open = if keeps_open { None } else { Some(Open::new(wanted.open.as_ref()).map_err(malformed)?) };
                let seal = if keeps_seal { None } else { Some(Seal::new(wanted.seal.as_ref()).map_err(malformed)?) };
                Ok(Prepared { plan: wanted.clone(), open, seal, slot: running.map(|(at, _)| at) })
            })
            .collect()
    }

    /// New consents; `None` stands for one that runs already.
    fn prepare_consents(&self, plan: &Plan, now: Now) -> Result<Vec<Option<Consent>>, Refusal> {
        let running = self.calls.get(&plan.call).map(|call| call.consents.as_slice()).unwrap_or_default();
        plan.consents
            .iter()
            .map(|wanted| {
                if running.iter().any(|consent| consent.plan() == wanted) {
                    return Ok(None);
                }
                Consent::new(wanted.clone(), now).map(Some).ok_or(Refusal::Malformed)
            })
            .collect()
    }

    /// Digests of all sealing keys that the call has given up; refuses a plan that brings one back.
    fn retire(&self, plan: &Plan) -> Result<Vec<[u8; 20]>, Refusal> {
        let Some(call) = self.calls.get(&plan.call) else { return Ok(Vec::new()) };
        let mut retired = call.retired.clone();
        let wanted: Vec<[u8; 20]> = plan.directions.iter().filter_map(sealing_digest).collect();
        let running = call.plan.directions.iter().filter_map(sealing_digest);
        retired.extend(running.filter(|digest| !wanted.contains(digest)));
        if wanted.iter().any(|digest| retired.contains(digest)) {
            return Err(Refusal::KeyReuse);
        }
        Ok(retired)
    }

    fn commit(
        &mut self,
        plan: Plan,
        prepared: Vec<Prepared>,
        consents: Vec<Option<Consent>>,
        retired: Vec<[u8; 20]>,
    ) -> FlowChanges {
        let id = plan.call;
        let former = self.calls.remove(&id);
        let (old_slots, old_consents) = former.map(|call| (call.slots, call.consents)).unwrap_or_default();
        let old_flows: Vec<FlowKey> = old_slots.iter().flat_map(|at| self.flows(*at)).collect();
        let slots: Vec<usize> = prepared.into_iter().map(|direction| self.place(id, direction)).collect();
        for at in old_slots {
            if !slots.contains(&at) {
                self.vacate(at);
            }
        }
        self.pair(&slots);
        let changes = self.flow_changes(&slots, &old_flows);
        let consents = self.keep_consents(&plan, consents, old_consents);
        self.calls.insert(id, Call { plan, slots, consents, retired });
        changes
    }

    /// Puts a direction into its slot, or into a free one.
    fn place(&mut self, call: CallId, prepared: Prepared) -> usize {
        let Prepared { plan, open, seal, slot } = prepared;
        if let Some(at) = slot
            && let Some(direction) = self.direction(at)
        {
            direction.lapsed = false;
            if let Some(open) = open {
                direction.open = open;
            }
            if let Some(seal) = seal {
                direction.seal = seal;
            }
            direction.swap(plan);
            return at;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { epoch: 0, direction: None });
            self.slots.len() - 1
        });
        let (open, seal) = (open.unwrap_or(Open::Waiting), seal.unwrap_or(Seal::Waiting));
        let slot = &mut self.slots[at];
        slot.epoch = slot.epoch.wrapping_add(1);
        slot.direction = Some(Box::new(Direction::new(call, plan, open, seal)));
        at
    }

    fn vacate(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at)
            && slot.direction.take().is_some()
        {
            self.free.push(at);
        }
    }

    /// Every direction learns the slot of the one that runs the other way.
    fn pair(&mut self, slots: &[usize]) {
        let named: Vec<_> =
            slots.iter().filter_map(|at| Some((*at, self.direction(*at)?.plan.index))).collect();
        for at in slots {
            if let Some(direction) = self.direction(*at) {
                let reverse = named.iter().find(|(_, index)| *index == direction.plan.reverse);
                direction.reverse = reverse.map_or(usize::MAX, |(at, _)| *at);
            }
        }
    }

    fn flows(&self, at: usize) -> Vec<FlowKey> {
        let direction = self.slots.get(at).and_then(|slot| slot.direction.as_deref());
        direction.map(|direction| direction.plan.ingress.clone()).unwrap_or_default()
    }

    fn flow_changes(&mut self, slots: &[usize], old: &[FlowKey]) -> FlowChanges {
        let mut insert = Vec::new();
        for at in slots {
            let Ok(number) = u32::try_from(*at) else { continue };
            let Some(epoch) = self.slots.get(*at).map(|slot| slot.epoch) else { continue };
            let tag = Tag { direction: DirectionId::new(self.worker, number), epoch };
            insert.extend(self.flows(*at).into_iter().map(|flow| (flow, tag)));
        }
        let remove: Vec<FlowKey> =
            old.iter().copied().filter(|flow| !insert.iter().any(|(new, _)| new == flow)).collect();
        for flow in &remove {
            self.table.remove(flow);
        }
        insert.retain(|(flow, tag)| self.table.insert(*flow, *tag) != Some(*tag));
        FlowChanges { insert, remove }
    }

    fn keep_consents(&mut self, plan: &Plan, new: Vec<Option<Consent>>, mut old: Vec<Consent>) -> Vec<Consent> {
        let mut kept = Vec::new();
        for (wanted, new) in plan.consents.iter().zip(new) {
            let running = || old.iter().position(|consent| consent.plan() == wanted);
            let consent = match new {
                Some(consent) => {
                    self.due.push(Reverse((consent.due(), plan.call, wanted.flow)));
                    Some(consent)
                }
                None => running().map(|at| old.swap_remove(at)),
            };
            kept.extend(consent);
        }
        kept
    }

    /// Ends a call; `None` for an unknown one. Its keys are wiped with its directions.
    pub fn remove(&mut self, id: CallId) -> Option<Removed> {
        let reports = self.report(id)?;
        let call = self.calls.remove(&id)?;
        let flows: Vec<FlowKey> = call.slots.iter().flat_map(|at| self.flows(*at)).collect();
        for flow in &flows {
            self.table.remove(flow);
        }
        for at in &call.slots {
            self.vacate(*at);
        }
        let directions = &call.plan.directions;
        let mut egress: Vec<FlowKey> =
            directions.iter().flat_map(|direction| [direction.rtp, direction.rtcp]).collect();
        egress.extend(call.plan.consents.iter().map(|consent| consent.flow));
        egress.sort_unstable();
        egress.dedup();
        Some(Removed { flows, egress, reports })
    }
}

fn sealing_digest(direction: &DirectionPlan) -> Option<[u8; 20]> {
    let Some(Protection::Srtp(key)) = &direction.seal else { return None };
    Some(Sha1::new().chain_update(key.key()).chain_update(key.salt()).finalize().into())
}
