//! Who owns which frame. Pure bookkeeping: the octets lie elsewhere.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

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
