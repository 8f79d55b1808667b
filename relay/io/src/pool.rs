//! Who owns which frame. Pure bookkeeping: the octets lie elsewhere.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::port::{Burst, FrameCount};

/// A frame in the hands of the port's user. It goes back by [`crate::Port::transmit`] or [`crate::Port::release`]; one
/// that is dropped is lost to its port and counted ([`crate::FrameCount::lost`]).
#[must_use = "transmit or release the frame, or it is lost to its port"]
pub struct Frame {
    index: u32,
    home: &'static Home,
}

/// What frames know of the port they are of. One per port, leaked: so that a frame is 16 octets without a reference
/// count, and may outlive its port.
#[derive(Debug, Default)]
pub(crate) struct Home {
    lost: AtomicU64,
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.home.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({})", self.index)
    }
}

/// Octets of a frame, where the frames of a port lie one behind the other and have `size` each.
pub(crate) fn place(index: u32, size: usize) -> Range<usize> {
    let start = index as usize * size;
    start..start + size
}

/// The octets of several frames of `size` that lie in one slab, in the order of their names; none for a frame that is not
/// there or was named before. Of at most [`Burst::CAPACITY`] frames.
pub(crate) fn spread<'a>(
    slab: &'a mut [u8],
    size: usize,
    names: &[Option<u32>],
    each: &mut dyn FnMut(&'a mut [u8]),
) {
    let end = slab.len();
    let mut order = [(u32::MAX, 0usize); Burst::CAPACITY];
    let mut found: [Option<&'a mut [u8]>; Burst::CAPACITY] = [const { None }; Burst::CAPACITY];
    let names = names.get(..Burst::CAPACITY).unwrap_or(names);
    for ((entry, name), at) in order.iter_mut().zip(names).zip(0..) {
        *entry = (name.unwrap_or(u32::MAX), at);
    }
    let order = order.get_mut(..names.len()).unwrap_or_default();
    order.sort_unstable();
    let (mut rest, mut base) = (slab, 0);
    for (name, at) in order {
        let Range { start, end: behind } = place(*name, size);
        // Named before, or not there.
        if start < base || behind > end {
            continue;
        }
        let (_, ahead) = std::mem::take(&mut rest).split_at_mut(start - base);
        let (octets, behind) = ahead.split_at_mut(size);
        (rest, base) = (behind, start + size);
        if let Some(place) = found.get_mut(*at) {
            *place = Some(octets);
        }
    }
    for octets in found.into_iter().take(names.len()) {
        each(octets.unwrap_or_default());
    }
}

/// Who has a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody: it is on the free list.
    Free,
    /// The system, to receive into, by this socket.
    Fill(u8),
    /// The system, to send from, by this socket.
    Transmit(u8),
    /// The port's user.
    Held,
}

/// Frames by class of owner; for one pool the fields sum up to its total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub free: u32,
    pub fill: u32,
    pub transmit: u32,
    pub held: u32,
}

/// The owner of each frame of a port. A frame changes hands only from the owner that it is known to have, so nothing
/// the kernel or a user says can give one frame to two owners.
#[derive(Debug)]
pub(crate) struct Pool {
    home: &'static Home,
    owners: Vec<Owner>,
    free: Vec<u32>,
    census: Census,
}

impl Pool {
    /// `total` free frames, named 0 and up.
    pub fn new(total: u32) -> Self {
        let owners = vec![Owner::Free; total as usize];
        let free = (0..total).rev().collect();
        let census = Census { free: total, ..Census::default() };
        Self { home: Box::leak(Box::default()), owners, free, census }
    }

    /// Gives a free frame to `owner`.
    pub fn take(&mut self, owner: Owner) -> Option<u32> {
        let index = self.free.pop()?;
        self.shift(index, owner);
        Some(index)
    }

    /// A free frame for the user.
    pub fn allocate(&mut self) -> Option<Frame> {
        let index = self.take(Owner::Held)?;
        Some(Frame { index, home: self.home })
    }

    /// Whether `owner` has the frame of that name.
    pub fn has(&self, owner: Owner, index: u32) -> bool {
        self.owners.get(index as usize) == Some(&owner)
    }

    /// Passes a frame from `owner` to the user. `None` where `owner` does not have it.
    pub fn hand_out(&mut self, owner: Owner, index: u32) -> Option<Frame> {
        if owner == Owner::Free || owner == Owner::Held || !self.has(owner, index) {
            return None;
        }
        self.shift(index, Owner::Held);
        Some(Frame { index, home: self.home })
    }

    /// Frees a frame that `owner`, one of the system's, has. `false` where it does not.
    pub fn reclaim(&mut self, owner: Owner, index: u32) -> bool {
        if owner == Owner::Free || owner == Owner::Held || !self.has(owner, index) {
            return false;
        }
        self.shift(index, Owner::Free);
        self.free.push(index);
        true
    }

    /// Name of a frame of this pool; `None` for one of another.
    pub fn index(&self, frame: &Frame) -> Option<u32> {
        std::ptr::eq(self.home, frame.home).then_some(frame.index)
    }

    /// Names of at most [`Burst::CAPACITY`] frames, and how many there are.
    pub fn names(&self, frames: &mut dyn Iterator<Item = &Frame>) -> ([Option<u32>; Burst::CAPACITY], usize) {
        let mut names = [None; Burst::CAPACITY];
        let mut count = 0;
        for (name, frame) in names.iter_mut().zip(frames) {
            *name = self.index(frame);
            count += 1;
        }
        (names, count)
    }

    /// Passes a frame from the user to `owner`, or frees it. A frame of another pool is dropped, which its own counts.
    pub fn accept(&mut self, frame: Frame, owner: Owner) -> Option<u32> {
        let index = self.index(&frame)?;
        std::mem::forget(frame);
        self.shift(index, owner);
        if owner == Owner::Free {
            self.free.push(index);
        }
        Some(index)
    }

    /// Frames in all.
    pub fn total(&self) -> u32 {
        u32::try_from(self.owners.len()).unwrap_or(u32::MAX)
    }

    /// Frames by class of owner. Lost frames are among the held ones.
    pub fn census(&self) -> Census {
        self.census
    }

    /// Frames that the user dropped.
    pub fn lost(&self) -> u64 {
        self.home.lost.load(Ordering::Relaxed)
    }

    /// Who has the frames; those that the system has to receive into all wait in front of it.
    pub fn count(&self) -> FrameCount {
        let (census, lost) = (self.census, self.lost());
        FrameCount {
            total: self.total().into(),
            fill: census.fill.into(),
            receive: 0,
            transmit: census.transmit.into(),
            free: census.free.into(),
            held: u64::from(census.held).saturating_sub(lost),
            lost,
        }
    }

    fn shift(&mut self, index: u32, to: Owner) {
        let Some(owner) = self.owners.get_mut(index as usize) else { return };
        let from = std::mem::replace(owner, to);
        *self.class(from) -= 1;
        *self.class(to) += 1;
    }

    fn class(&mut self, owner: Owner) -> &mut u32 {
        match owner {
            Owner::Free => &mut self.census.free,
            Owner::Fill(_) => &mut self.census.fill,
            Owner::Transmit(_) => &mut self.census.transmit,
            Owner::Held => &mut self.census.held,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOTAL: u32 = 12;

    #[test]
    fn several_frames_are_lent_in_the_order_asked_for_and_none_twice() {
        for size in [2048, 4096] {
            let mut slab: Vec<u8> = (0..4u8).flat_map(|frame| vec![frame; size]).collect();
            let mut seen = Vec::new();
            let names = [Some(3), Some(0), None, Some(4), Some(2), Some(0), Some(u32::MAX)];
            spread(&mut slab, size, &names, &mut |octets| seen.push((octets.len(), octets.first().copied())));
            let whole = |frame| (size, Some(frame));
            assert_eq!(seen, [whole(3), whole(0), (0, None), (0, None), whole(2), (0, None), (0, None)]);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u8),
        Allocate,
        HandOut(u8, u32),
        Reclaim(u8, u32),
        Accept(usize, u8),
        Lose(usize),
    }

    fn owner(kind: u8) -> Owner {
        [Owner::Free, Owner::Held, Owner::Fill(0), Owner::Fill(1), Owner::Transmit(0), Owner::Transmit(1)]
            [usize::from(kind) % 6]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let index = 0..TOTAL + 2;
        let step = prop_oneof![
            (2u8..6).prop_map(Step::Take),
            Just(Step::Allocate),
            (any::<u8>(), index.clone()).prop_map(|(kind, index)| Step::HandOut(kind, index)),
            (any::<u8>(), index).prop_map(|(kind, index)| Step::Reclaim(kind, index)),
            (any::<usize>(), prop::sample::select(vec![0u8, 2, 3, 4, 5]))
                .prop_map(|(at, kind)| Step::Accept(at, kind)),
            any::<usize>().prop_map(Step::Lose),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        /// Against a plain table: a frame changes hands only from the owner it has, and none is ever in two places.
        #[test]
        fn each_frame_has_one_owner(steps in steps()) {
            let mut pool = Pool::new(TOTAL);
            let mut model = vec![Owner::Free; TOTAL as usize];
            let mut held: Vec<Frame> = Vec::new();
            let mut lost = 0;
            for step in steps {
                match step {
                    Step::Take(kind) => {
                        let taken = pool.take(owner(kind));
                        prop_assert_eq!(taken.is_some(), model.contains(&Owner::Free));
                        if let Some(index) = taken {
                            prop_assert_eq!(model[index as usize], Owner::Free);
                            model[index as usize] = owner(kind);
                        }
                    }
                    Step::Allocate => if let Some(frame) = pool.allocate() {
                        prop_assert_eq!(model[frame.index as usize], Owner::Free);
                        model[frame.index as usize] = Owner::Held;
                        held.push(frame);
                    } else {
                        prop_assert!(!model.contains(&Owner::Free));
                    },
                    Step::HandOut(kind, index) => {
                        let systems = matches!(owner(kind), Owner::Fill(_) | Owner::Transmit(_));
                        let right = systems && model.get(index as usize) == Some(&owner(kind));
                        let frame = pool.hand_out(owner(kind), index);
                        prop_assert_eq!(frame.is_some(), right);
                        if let Some(frame) = frame {
                            model[index as usize] = Owner::Held;
                            held.push(frame);
                        }
                    }
                    Step::Reclaim(kind, index) => {
                        let systems = matches!(owner(kind), Owner::Fill(_) | Owner::Transmit(_));
                        let right = systems && model.get(index as usize) == Some(&owner(kind));
                        prop_assert_eq!(pool.reclaim(owner(kind), index), right);
                        if right { model[index as usize] = Owner::Free; }
                    }
                    Step::Accept(at, kind) => if !held.is_empty() {
                        let frame = held.swap_remove(at % held.len());
                        let index = frame.index;
                        prop_assert_eq!(pool.accept(frame, owner(kind)), Some(index));
                        model[index as usize] = owner(kind);
                    },
                    Step::Lose(at) => if held.len() > 6 {
                        drop(held.swap_remove(at % held.len()));
                        lost += 1;
                    },
                }
                let count = |wanted: fn(&Owner) -> bool| {
                    u32::try_from(model.iter().filter(|owner| wanted(owner)).count()).unwrap()
                };
                prop_assert_eq!(pool.census(), Census {
                    free: count(|owner| *owner == Owner::Free),
                    fill: count(|owner| matches!(owner, Owner::Fill(_))),
                    transmit: count(|owner| matches!(owner, Owner::Transmit(_))),
                    held: count(|owner| *owner == Owner::Held),
                });
                prop_assert_eq!(pool.free.len(), pool.census().free as usize);
                prop_assert_eq!(pool.census().held as usize, held.len() + lost);
                prop_assert_eq!(pool.lost(), lost as u64);
            }
        }
    }

    #[test]
    fn a_frame_of_another_pool_is_refused_and_lost_to_its_own() {
        let (mut one, mut other) = (Pool::new(2), Pool::new(2));
        let frame = other.allocate().unwrap();
        assert_eq!(one.index(&frame), None);
        assert_eq!(one.accept(frame, Owner::Free), None);
        assert_eq!((one.lost(), other.lost()), (0, 1));
        assert_eq!(one.census(), Census { free: 2, ..Census::default() });
    }
}
