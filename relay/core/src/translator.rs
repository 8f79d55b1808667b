//! All directions of one worker, and the way of a packet to its direction.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use sallyport_plan::{CallId, Counter, DirectionReport, FlowKey, Plan, Zone};
use sallyport_wire::PacketBuf;
use sallyport_wire::demux::{Kind, classify};
use sallyport_wire::stun;

use crate::Now;
use crate::consent::{Consent, MESSAGE_MAX, Met, Random};
use crate::direction::{Direction, DirectionId, Tag};
use crate::limit::Limit;
use crate::packet::{Cleared, Payload, Verdict};
use crate::reason::{Drops, Reason};
use crate::state::{Checkpoint, DirectionState};

/// Events that may wait; consent of one pair lapses once, so a queue as long as the consents never overflows.
const EVENTS: usize = 64;

/// How much a translator takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls.
    pub calls: usize,
    /// Directions of all calls, at most 2^24.
    pub directions: usize,
}

/// What the kernel's flow map has to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowChanges {
    /// Flows that are to exist, with what they carry.
    pub insert: Vec<(FlowKey, Tag)>,
    /// Flows that are to go.
    pub remove: Vec<FlowKey>,
}

/// What a removed call leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its flows.
    pub flows: Vec<FlowKey>,
    /// Where it sent to.
    pub egress: Vec<FlowKey>,
    /// Its last statistics.
    pub reports: Vec<DirectionReport>,
}

/// What happened by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreEvent {
    /// Consent lapsed: nothing is forwarded from or to that pair any more.
    ConsentLost {
        /// Which call.
        call: CallId,
        /// Which pair.
        flow: FlowKey,
    },
}

pub(crate) struct Slot {
    pub epoch: u32,
    pub direction: Option<Box<Direction>>,
}

pub(crate) struct Call {
    pub plan: Plan,
    /// Slots in the order of the plan's directions.
    pub slots: Vec<usize>,
    pub consents: Vec<Consent>,
    /// Digests of sealing keys that are not in use any more: none may come back.
    pub retired: Vec<[u8; 20]>,
}

/// One worker's directions.
pub struct Translator {
    pub(crate) worker: u8,
    pub(crate) limits: Limits,
    pub(crate) slots: Vec<Slot>,
    pub(crate) free: Vec<usize>,
    pub(crate) table: HashMap<FlowKey, Tag>,
    pub(crate) calls: HashMap<CallId, Call>,
    pub(crate) due: BinaryHeap<Reverse<(Now, CallId, FlowKey)>>,
    random: Random,
    limit: Limit,
    events: VecDeque<CoreEvent>,
    drops: Drops,
    forwarded: [u64; 2],
}

impl Translator {
    /// An empty one. `seed` must be random: transaction ids come from it.
    pub fn new(worker: u8, limits: Limits, seed: [u8; 32]) -> Self {
        Self {
            worker,
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            table: HashMap::new(),
            calls: HashMap::new(),
            due: BinaryHeap::new(),
            random: Random::new(seed),
            limit: Limit::new(),
            events: VecDeque::with_capacity(EVENTS),
            drops: Drops::default(),
            forwarded: [0; 2],
        }
    }

    /// The tag of a flow, for packets that come without one.
    pub fn lookup(&self, key: &FlowKey) -> Option<Tag> {
        self.table.get(key).copied()
    }

    /// Judges and rewrites a packet of a known flow, in place.
    pub fn translate(&mut self, tag: Tag, from: &FlowKey, buf: &mut PacketBuf<'_>, now: Now) -> Verdict {
        let at = tag.direction.slot();
        let Some(call) = self.owner(tag, at) else { return self.drop_unowned(Reason::StaleFlow) };
        let verdict = match classify(buf.packet()) {
            Kind::Rtp => self.rtp(at, buf, now),
            Kind::Rtcp => self.rtcp(at, buf),
            Kind::Stun if from.zone == Zone::Outside => self.stun(call, from, buf, now),
            Kind::Dtls if from.zone == Zone::Outside => Ok(Verdict::Punt(Some(call))),
            Kind::Stun | Kind::Dtls | Kind::Unknown => Err(Reason::Unexpected),
        };
        match verdict {
            Ok(verdict) => verdict,
            Err(reason) => {
                self.drops.count(reason);
                if let Some(direction) = self.direction(at) {
                    direction.drops.count(reason);
                }
                Verdict::Drop(reason)
            }
        }
    }

    /// Judges a packet that no flow claims: STUN outside goes to control, as much as its source may send.
    pub fn unknown(&mut self, from: &FlowKey, buf: &PacketBuf<'_>, now: Now) -> Verdict {
        if from.zone != Zone::Outside || !stun::is_stun(buf.packet()) {
            return self.drop_unowned(Reason::UnknownFlow);
        }
        if self.limit.admit(from.remote.ip(), now) {
            Verdict::Punt(None)
        } else {
            self.drop_unowned(Reason::RateLimited)
        }
    }

    fn drop_unowned(&mut self, reason: Reason) -> Verdict {
        self.drops.count(reason);
        Verdict::Drop(reason)
    }

    fn owner(&self, tag: Tag, at: usize) -> Option<CallId> {
        let slot = self.slots.get(at).filter(|slot| slot.epoch == tag.epoch)?;
        (tag.direction.worker() == self.worker).then_some(())?;
        slot.direction.as_ref().map(|direction| direction.call)
    }

    pub(crate) fn direction(&mut self, at: usize) -> Option<&mut Direction> {
        self.slots.get_mut(at)?.direction.as_deref_mut()
    }

    fn rtp(&mut self, at: usize, buf: &mut PacketBuf<'_>, now: Now) -> Result<Verdict, Reason> {
        let direction = self.direction(at).ok_or(Reason::StaleFlow)?;
        let cleared = direction.rtp(buf, now)?;
        Ok(self.forward(cleared))
    }

    fn rtcp(&mut self, at: usize, buf: &mut PacketBuf<'_>) -> Result<Verdict, Reason> {
        let reverse = self.direction(at).ok_or(Reason::StaleFlow)?.reverse;
        let Ok([direction, reverse]) = self.slots.get_disjoint_mut([at, reverse]) else {
            return Err(Reason::RtcpSource);
        };
        let direction = direction.direction.as_deref_mut().ok_or(Reason::StaleFlow)?;
        let reverse = reverse.direction.as_deref();
        let cleared = direction.rtcp(buf, |own| reverse.map(|reverse| own.names(reverse)))?;
        Ok(self.forward(cleared))
    }

    fn forward(&mut self, cleared: Cleared) -> Verdict {
        self.forwarded[usize::from(cleared.payload() == Payload::Rtcp)] += 1;
        Verdict::Forward(cleared)
    }

    fn stun(&mut self, id: CallId, from: &FlowKey, buf: &mut PacketBuf<'_>, now: Now) -> Result<Verdict, Reason> {
        let consents = self.calls.get_mut(&id).map(|call| call.consents.as_mut_slice()).unwrap_or_default();
        let Some(consent) = consents.iter_mut().find(|consent| consent.plan().flow == *from) else {
            return Ok(Verdict::Punt(Some(id)));
        };
        match consent.meet(buf, now) {
            Met::Answered => Ok(Verdict::Reply(*from)),
            Met::Confirmed => Ok(Verdict::Consumed),
            Met::Foreign => Ok(Verdict::Punt(Some(id))),
            Met::Bad(reason) => Err(reason),
        }
    }

    /// When [`Translator::handle_timeout`] wants to be called; `None` while no pair is kept alive.
    pub fn poll_timeout(&self) -> Option<Now> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Sends the checks that are due through `send`, and ends what has lapsed.
    pub fn handle_timeout(&mut self, now: Now, send: &mut dyn FnMut(&FlowKey, &[u8])) {
        while let Some(Reverse((at, id, flow))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            let consents = self.calls.get_mut(&id).map(|call| call.consents.as_mut_slice()).unwrap_or_default();
            // An entry that is not the pair's own due time belongs to a former version of the plan.
            let current = consents.iter_mut().find(|consent| consent.plan().flow == flow && consent.due() == at);
            let Some(consent) = current else { continue };
            if consent.lapse(now) {
                self.lapse(id, flow);
                continue;
            }
            if consent.has_lapsed() {
                continue;
            }
            let mut room = [0; MESSAGE_MAX];
            if let Some(length) = consent.check(&mut self.random, &mut room, now) {
                send(&flow, &room[..length]);
            }
            let due = consent.due();
            self.due.push(Reverse((due, id, flow)));
        }
    }

    /// No packet goes from or to the pair any more.
    fn lapse(&mut self, id: CallId, flow: FlowKey) {
        let slots = self.calls.get(&id).map(|call| call.slots.clone()).unwrap_or_default();
        for at in slots {
            if let Some(direction) = self.direction(at) {
                let plan = &direction.plan;
                direction.lapsed |= plan.ingress.contains(&flow) || plan.rtp == flow || plan.rtcp == flow;
            }
        }
        self.events.push_back(CoreEvent::ConsentLost { call: id, flow });
    }

    /// What happened by itself since the last time.
    pub fn poll_event(&mut self) -> Option<CoreEvent> {
        self.events.pop_front()
    }

    /// Statistics of a call, by direction.
    pub fn report(&self, call: CallId) -> Option<Vec<DirectionReport>> {
        let slots = &self.calls.get(&call)?.slots;
        let directions = slots.iter().filter_map(|at| self.slots.get(*at)?.direction.as_deref());
        Some(directions.map(report).collect())
    }

    /// Plans of all calls.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.calls.values().map(|call| &call.plan)
    }

    /// Directions installed.
    pub fn directions(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Every counter of this worker.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let [rtp, rtcp] = self.forwarded;
        [("forward_rtp", rtp), ("forward_rtcp", rtcp)].into_iter().chain(self.drops.iter())
    }

    /// Indices of all calls, for a restart.
    pub fn checkpoint(&self) -> Vec<Checkpoint> {
        let direction = |at: &usize| self.slots.get(*at)?.direction.as_deref().map(state);
        let call = |(id, call): (&CallId, &Call)| Checkpoint {
            call: *id,
            directions: call.slots.iter().filter_map(direction).collect(),
        };
        self.calls.iter().map(call).collect()
    }

    /// Goes on behind a checkpoint of an installed call that may be `ahead` packets old, at most 2^14; to be called before
    /// its first packet.
    pub fn restore(&mut self, checkpoint: &Checkpoint, ahead: u16, now: Now) {
        let slots = self.calls.get(&checkpoint.call).map(|call| call.slots.clone()).unwrap_or_default();
        for at in slots {
            let Some(direction) = self.direction(at) else { continue };
            let found = checkpoint.directions.iter().find(|state| state.index == direction.plan.index);
            if let Some(state) = found {
                direction.restore(state, ahead, now);
            }
        }
    }
}

fn report(direction: &Direction) -> DirectionReport {
    let drops = direction.drops.iter().filter(|(_, value)| *value > 0);
    DirectionReport {
        index: direction.plan.index,
        from: direction.plan.ingress.first().map_or(Zone::Outside, |flow| flow.zone),
        packets: direction.packets,
        octets: direction.octets,
        lost: direction.stream.lost(),
        drops: drops.map(|(name, value)| Counter { name: name.into(), value }).collect(),
    }
}

fn state(direction: &Direction) -> DirectionState {
    use crate::direction::{Open, Seal};
    DirectionState {
        index: direction.plan.index,
        opened: if let Open::Srtp(opener) = &direction.open { Some(opener.checkpoint()) } else { None },
        sealed: if let Seal::Srtp(sealer) = &direction.seal { Some(sealer.checkpoint()) } else { None },
        stream: direction.stream.checkpoint(),
    }
}

impl Direction {
    fn restore(&mut self, state: &DirectionState, ahead: u16, now: Now) {
        use crate::direction::{Open, Seal};
        if let (Open::Srtp(opener), Some(opened)) = (&mut self.open, &state.opened) {
            opener.restore(opened);
        }
        if let (Seal::Srtp(sealer), Some(sealed)) = (&mut self.seal, &state.sealed) {
            sealer.restore(sealed, u32::from(ahead));
        }
        // One more than what counts as sealed, so that the next packet is behind it.
        self.stream.restore(&state.stream, ahead, now);
    }
}

impl DirectionId {
    /// Slots that a worker can number.
    pub const SLOTS: usize = 1 << 24;
}
