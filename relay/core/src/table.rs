//! Whose packet it is: slots of directions, and the flows that lead to them.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use sallyport_plan::FlowKey;
use sallyport_srtp::{Opener, Openers, Sealer, Sealers, prefetch};

use crate::direction::Direction;
use crate::packet::{Opening, Payload, Sealing};
use crate::rtcp;

/// Names a direction within the relay: worker in the top 8 bits, slot below. Kernel flows carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectionId(pub u32);

impl DirectionId {
    /// Slots that a worker can number.
    pub const SLOTS: usize = 1 << 24;

    /// Of a worker's slot.
    pub const fn new(worker: u8, slot: u32) -> Self {
        Self(((worker as u32) << 24) | (slot & 0x00ff_ffff))
    }

    /// The worker that owns the direction.
    pub const fn worker(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Its slot there.
    pub const fn slot(self) -> usize {
        (self.0 & 0x00ff_ffff) as usize
    }
}

/// What a packet of a known flow carries: whose it is. The epoch tells a slot's owners apart over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Which direction.
    pub direction: DirectionId,
    /// Which owner of its slot.
    pub epoch: u32,
}

/// Something by flow. Looked up for packets, so the hash is a fast one; its seed is random, and only plans enter flows.
pub type Flows<T> = HashMap<FlowKey, T, RandomState>;

struct Slot {
    epoch: u32,
    direction: Option<Box<Direction>>,
}

/// One worker's slots and flows.
pub struct Table {
    worker: u8,
    slots: Vec<Slot>,
    free: Vec<usize>,
    flows: Flows<Tag>,
}

impl Table {
    /// An empty one.
    pub fn new(worker: u8) -> Self {
        Self { worker, slots: Vec::new(), free: Vec::new(), flows: Flows::default() }
    }

    /// The tag of a flow.
    pub fn lookup(&self, flow: &FlowKey) -> Option<Tag> {
        self.flows.get(flow).copied()
    }

    /// The slot that a tag names, where its owner is still the one that was meant.
    pub fn owned(&self, tag: Tag) -> Option<usize> {
        let at = tag.direction.slot();
        let slot = self.slots.get(at)?;
        let same =
            tag.direction.worker() == self.worker && slot.epoch == tag.epoch && slot.direction.is_some();
        same.then_some(at)
    }

    /// Fetches into the cache what the next packet of a direction will touch.
    pub fn prefetch(&self, tag: Tag) {
        if let Some(direction) = self.at(tag.direction.slot()) {
            prefetch(direction);
        }
    }

    /// The direction in a slot.
    pub fn at(&self, at: usize) -> Option<&Direction> {
        self.slots.get(at)?.direction.as_deref()
    }

    /// The direction in a slot.
    pub fn at_mut(&mut self, at: usize) -> Option<&mut Direction> {
        self.slots.get_mut(at)?.direction.as_deref_mut()
    }

    /// A direction and the one that runs the other way, where there is another.
    pub fn pair(&mut self, at: usize) -> Option<(&mut Direction, Option<&mut Direction>)> {
        let reverse = self.at(at)?.reverse;
        if reverse == at || reverse >= self.slots.len() {
            return Some((self.at_mut(at)?, None));
        }
        let [one, other] = self.slots.get_disjoint_mut([at, reverse]).ok()?;
        Some((one.direction.as_deref_mut()?, other.direction.as_deref_mut()))
    }

    /// Whose packet of a bundle it is, by payload type or by what RTCP speaks of (RFC 8843 section 9.2); `first` is the
    /// direction that its flow leads to, and has what is nobody's.
    pub fn carrier(&self, first: usize, payload: Payload, packet: &[u8]) -> usize {
        let alone = self.at(first).is_none_or(|direction| direction.next == usize::MAX);
        if alone {
            return first;
        }
        let all = || {
            let next = |at: &usize| Some(self.at(*at)?.next).filter(|at| *at < self.slots.len());
            std::iter::successors(Some(first), next).take(self.slots.len())
        };
        let find = |is: &dyn Fn(&Direction) -> bool| all().find(|at| self.at(*at).is_some_and(is));
        let found = match payload {
            Payload::Rtp => {
                let payload_type = packet.get(1).map_or(0, |octet| octet & 0x7f);
                find(&|direction| direction.has_payload_type(payload_type))
            }
            Payload::Rtcp => {
                let (sender, reported) = rtcp::speakers(packet);
                let sends = |direction: &Direction| sender.is_some() && direction.stream.source() == sender;
                let sent = |direction: &Direction| {
                    let reverse = self.at(direction.reverse);
                    reported.is_some_and(|ssrc| reverse.is_some_and(|reverse| reverse.seals(ssrc)))
                };
                find(&sends).or_else(|| find(&sent))
            }
        };
        found.unwrap_or(first)
    }

    /// Slots that are taken.
    pub fn taken(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a direction into a free slot under a new epoch.
    pub fn put(&mut self, direction: Direction) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { epoch: 0, direction: None });
            self.slots.len() - 1
        });
        if let Some(slot) = self.slots.get_mut(at) {
            slot.epoch = slot.epoch.wrapping_add(1);
            slot.direction = Some(Box::new(direction));
        }
        at
    }

    /// Frees a slot; the direction's keys go with it.
    pub fn free(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at)
            && slot.direction.take().is_some()
        {
            self.free.push(at);
        }
    }

    /// The tag that packets of a slot's owner carry.
    pub fn tag(&self, at: usize) -> Option<Tag> {
        let direction = DirectionId::new(self.worker, u32::try_from(at).ok()?);
        Some(Tag { direction, epoch: self.slots.get(at)?.epoch })
    }

    /// Leads a flow to a slot's owner; whether it did not do so before.
    pub fn bind(&mut self, flow: FlowKey, tag: Tag) -> bool {
        self.flows.insert(flow, tag) != Some(tag)
    }

    /// Leads a flow nowhere.
    pub fn unbind(&mut self, flow: &FlowKey) {
        self.flows.remove(flow);
    }
}

/// Openers by the slots of their directions.
impl Openers for Table {
    fn opener(&self, number: u32) -> Option<&Opener> {
        match &self.at(number as usize)?.open {
            Opening::Srtp(opener) => Some(opener),
            Opening::Changing(change) => Some(&change.opener),
            Opening::Waiting | Opening::Plain => None,
        }
    }

    fn opener_mut(&mut self, number: u32) -> Option<&mut Opener> {
        match &mut self.at_mut(number as usize)?.open {
            Opening::Srtp(opener) => Some(opener),
            Opening::Changing(change) => Some(&mut change.opener),
            Opening::Waiting | Opening::Plain => None,
        }
    }
}

/// Sealers by the slots of their directions.
impl Sealers for Table {
    fn sealer(&self, number: u32) -> Option<&Sealer> {
        match &self.at(number as usize)?.seal {
            Sealing::Srtp(sealer) => Some(sealer),
            Sealing::Waiting | Sealing::Plain => None,
        }
    }

    fn sealer_mut(&mut self, number: u32) -> Option<&mut Sealer> {
        match &mut self.at_mut(number as usize)?.seal {
            Sealing::Srtp(sealer) => Some(sealer),
            Sealing::Waiting | Sealing::Plain => None,
        }
    }
}
