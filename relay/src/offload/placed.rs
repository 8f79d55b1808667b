//! What lies in the kernel's flow map, and the tallies of the flows that the kernel sends on itself.

use std::collections::{BTreeMap, HashMap, VecDeque};

use sallyport_abi::Tally;
use sallyport_core::Tag;
use sallyport_plan::{CallId, DirectionIndex, FlowKey};
use sallyport_xdp::{Kernel, MapError, Rewrite};

use super::kernel_key;

/// Whose flow it is.
pub type Owner = (CallId, DirectionIndex);

/// A flow as it lies in the map.
#[derive(Debug, Clone)]
struct Placed {
    owner: Owner,
    tag: Tag,
    /// How the kernel sends it on, and where it counts that. Most flows go to the worker, and need no room for it.
    rewrite: Option<Box<(Rewrite, u32)>>,
}

impl Placed {
    fn rewrite(&self) -> Option<(Rewrite, u32)> {
        self.rewrite.as_deref().copied()
    }
}

/// The flows of this relay. Nobody else writes to the map.
#[derive(Debug, Default)]
pub struct Flows {
    placed: HashMap<FlowKey, Placed>,
    /// Places of tallies, the longest unused first: a packet under way may still count where a flow was taken away.
    free: VecDeque<u32>,
    /// What was counted of flows that are gone or go to the worker by now.
    ended: HashMap<CallId, BTreeMap<DirectionIndex, Tally>>,
}

impl Flows {
    /// None, with so many tallies.
    pub fn new(tallies: u32) -> Self {
        Self { free: (0..tallies).collect(), ..Self::default() }
    }

    /// Puts a flow into the map, or changes what lies there; `wanted` says how the kernel is to send it on itself. Where no
    /// tally is free, the worker does.
    ///
    /// # Errors
    /// What the kernel says, such as a full map; the flow is then as before.
    pub fn place(
        &mut self,
        kernel: &mut Kernel,
        flow: &FlowKey,
        (owner, tag): (Owner, Tag),
        wanted: Option<Rewrite>,
    ) -> Result<(), MapError> {
        let former = self.placed.get(flow).cloned();
        let same = former.as_ref().filter(|former| (former.owner, former.tag) == (owner, tag));
        let kept = same.and_then(Placed::rewrite);
        if same.is_some() && kept.map(|(rewrite, _)| rewrite) == wanted {
            return Ok(());
        }
        let tally = match (wanted, kept) {
            (Some(_), Some((_, tally))) => Some(tally),
            (Some(_), None) => self.take_tally(kernel),
            (None, _) => None,
        };
        let rewrite = wanted.zip(tally);
        let (key, direction) = (kernel_key(flow), tag.direction.0);
        let done = match (&rewrite, &former) {
            (None, None) => kernel.insert_flow(&key, direction, tag.epoch),
            (rewrite, _) => {
                let rewrite = rewrite.as_ref().map(|(rewrite, tally)| (rewrite, *tally));
                kernel.steer_flow(&key, direction, tag.epoch, rewrite)
            }
        };
        if let Err(error) = done {
            self.free.extend(tally.filter(|_| kept.is_none()));
            return Err(error);
        }
        self.placed.insert(*flow, Placed { owner, tag, rewrite: rewrite.map(Box::new) });
        if let Some(former) = former.filter(|former| former.rewrite().map(|(_, at)| at) != tally) {
            self.end(kernel, &former);
        }
        Ok(())
    }

    /// Takes a flow out of the map; one that is not there is no error.
    pub fn remove(&mut self, kernel: &mut Kernel, flow: &FlowKey) {
        if let Err(error) = kernel.remove_flow(&kernel_key(flow)) {
            tracing::debug!(%error, "a flow was not in the kernel");
        }
        if let Some(placed) = self.placed.remove(flow) {
            self.end(kernel, &placed);
        }
    }

    fn take_tally(&mut self, kernel: &mut Kernel) -> Option<u32> {
        let tally = self.free.pop_front()?;
        match kernel.clear_tally(tally) {
            Ok(()) => Some(tally),
            Err(error) => {
                tracing::warn!(%error, "a plain flow goes by its worker");
                self.free.push_back(tally);
                None
            }
        }
    }

    /// Keeps what a flow's tally counted, and frees its place.
    fn end(&mut self, kernel: &Kernel, placed: &Placed) {
        let Some((_, at)) = placed.rewrite() else { return };
        let (call, direction) = placed.owner;
        add(self.ended.entry(call).or_default(), direction, kernel.tally(at).unwrap_or_default());
        self.free.push_back(at);
    }

    /// RTP packets and octets that the kernel has sent on for a call, by direction; `flows` are those that it has now.
    pub fn forwarded<'a>(
        &self,
        kernel: &Kernel,
        call: CallId,
        flows: impl Iterator<Item = &'a FlowKey>,
    ) -> BTreeMap<DirectionIndex, Tally> {
        let mut sums = self.ended.get(&call).cloned().unwrap_or_default();
        for placed in flows.filter_map(|flow| self.placed.get(flow)) {
            if let Some((_, at)) = placed.rewrite() {
                add(&mut sums, placed.owner.1, kernel.tally(at).unwrap_or_default());
            }
        }
        sums
    }

    /// Forgets what was counted of a call that is gone.
    pub fn forget(&mut self, call: CallId) {
        self.ended.remove(&call);
    }
}

fn add(sums: &mut BTreeMap<DirectionIndex, Tally>, direction: DirectionIndex, tally: Tally) {
    let sum = sums.entry(direction).or_default();
    sum.packets += tally.packets;
    sum.octets += tally.octets;
}
