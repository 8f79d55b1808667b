//! One side of a ring that is shared with the kernel: cursors that run over `u32` and wrap, entries in between.
//!
//! The rules are those of AF_XDP's four rings (kernel documentation, networking/af_xdp): each cursor has one writer, the
//! producer's is at most the ring's size ahead of the consumer's, an entry lies in slot `cursor mod size`, and a power of
//! two as size makes that hold over the wrap.

/// The memory of a ring. `slot` is any cursor: implementations mask it.
pub(crate) trait Memory {
    /// What an entry is.
    type Entry: Copy;
    /// Entries of the ring, a power of two.
    fn size(&self) -> u32;
    /// The other side's cursor; what it published before is visible afterwards (acquire).
    fn theirs(&self) -> u32;
    /// Publishes our cursor; what we wrote before is visible with it (release).
    fn publish(&mut self, ours: u32);
    /// Entry of a slot that is ours.
    fn read(&self, slot: u32) -> Self::Entry;
    /// Sets a slot that is ours.
    fn write(&mut self, slot: u32, entry: Self::Entry);
    /// Whether the kernel asks for a system call to go on.
    fn wants_wakeup(&self) -> bool;
}

/// A packet on a receive or transmit ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Descriptor {
    /// Offset in the UMEM.
    pub address: u64,
    /// Octets.
    pub length: u32,
    /// Flags of the kernel; 0 here.
    pub options: u32,
}

/// The side that adds entries.
#[derive(Debug)]
pub(crate) struct Producer<M> {
    memory: M,
    ours: u32,
    theirs: u32,
    published: u32,
}

impl<M: Memory> Producer<M> {
    /// A ring in which `start` entries were produced and consumed, 0 for a new one.
    pub fn new(memory: M, start: u32) -> Self {
        Self { memory, ours: start, theirs: start, published: start }
    }

    /// Adds an entry, which the other side sees after [`Producer::publish`]. `false` where the ring is full.
    pub fn push(&mut self, entry: M::Entry) -> bool {
        if self.room() == 0 {
            self.theirs = self.memory.theirs();
            if self.room() == 0 {
                return false;
            }
        }
        self.memory.write(self.ours, entry);
        self.ours = self.ours.wrapping_add(1);
        true
    }

    /// Shows all entries to the other side.
    pub fn publish(&mut self) {
        if self.published != self.ours {
            self.memory.publish(self.ours);
            self.published = self.ours;
        }
    }

    /// Entries that the other side has not taken yet.
    pub fn waiting(&self) -> u32 {
        self.ours.wrapping_sub(self.memory.theirs()).min(self.memory.size())
    }

    /// Whether the kernel asks for a system call to go on.
    pub fn wants_wakeup(&self) -> bool {
        self.memory.wants_wakeup()
    }

    /// Free slots as far as known. A cursor that cannot be right leaves none: better stuck than overwritten.
    fn room(&self) -> u32 {
        self.memory.size().saturating_sub(self.ours.wrapping_sub(self.theirs))
    }
}

/// The side that takes entries.
#[derive(Debug)]
pub(crate) struct Consumer<M> {
    memory: M,
    ours: u32,
    theirs: u32,
    published: u32,
}

impl<M: Memory> Consumer<M> {
    /// A ring in which `start` entries were produced and consumed, 0 for a new one.
    pub fn new(memory: M, start: u32) -> Self {
        Self { memory, ours: start, theirs: start, published: start }
    }

    /// Takes the oldest entry; its slot is the other side's again after [`Consumer::publish`].
    pub fn pop(&mut self) -> Option<M::Entry> {
        if self.ready() == 0 {
            self.theirs = self.memory.theirs();
            if self.ready() == 0 {
                return None;
            }
        }
        let entry = self.memory.read(self.ours);
        self.ours = self.ours.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots of all taken entries back.
    pub fn publish(&mut self) {
        if self.published != self.ours {
            self.memory.publish(self.ours);
            self.published = self.ours;
        }
    }

    /// Entries to take as far as known; none where the cursor cannot be right.
    fn ready(&self) -> u32 {
        let ready = self.theirs.wrapping_sub(self.ours);
        if ready <= self.memory.size() { ready } else { 0 }
    }
}
