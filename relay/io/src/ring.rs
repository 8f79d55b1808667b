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

    /// The memory, for tests that play the other side.
    #[cfg(test)]
    pub fn memory_for_tests(&self) -> &M {
        &self.memory
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

    /// The entry that comes `count` behind the oldest one, as far as known; it stays where it is.
    pub fn ahead(&self, count: u32) -> Option<M::Entry> {
        (count < self.ready()).then(|| self.memory.read(self.ours.wrapping_add(count)))
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

#[cfg(test)]
pub(crate) mod fake {
    //! A ring in ordinary memory, with both sides in the same hands.

    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use super::Memory;

    #[derive(Debug)]
    pub(crate) struct Cells<T> {
        pub producer: AtomicU32,
        pub consumer: AtomicU32,
        pub wants_wakeup: AtomicBool,
        slots: Mutex<Vec<T>>,
    }

    /// One side of the cells.
    #[derive(Debug, Clone)]
    pub(crate) struct Side<T> {
        pub cells: Arc<Cells<T>>,
        produces: bool,
    }

    /// The producer's and the consumer's side of a ring whose cursors begin at `start`.
    pub(crate) fn pair<T: Copy>(size: u32, start: u32, blank: T) -> (Side<T>, Side<T>) {
        assert!(size.is_power_of_two());
        let cells = Arc::new(Cells {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            wants_wakeup: AtomicBool::new(false),
            slots: Mutex::new(vec![blank; size as usize]),
        });
        (Side { cells: cells.clone(), produces: true }, Side { cells, produces: false })
    }

    impl<T: Copy> Memory for Side<T> {
        type Entry = T;

        fn size(&self) -> u32 {
            u32::try_from(self.cells.slots.lock().unwrap().len()).unwrap()
        }

        fn theirs(&self) -> u32 {
            let cell = if self.produces { &self.cells.consumer } else { &self.cells.producer };
            cell.load(Ordering::Acquire)
        }

        fn publish(&mut self, ours: u32) {
            let cell = if self.produces { &self.cells.producer } else { &self.cells.consumer };
            cell.store(ours, Ordering::Release);
        }

        fn read(&self, slot: u32) -> T {
            let at = (slot & (self.size() - 1)) as usize;
            self.cells.slots.lock().unwrap()[at]
        }

        fn write(&mut self, slot: u32, entry: T) {
            let at = (slot & (self.size() - 1)) as usize;
            self.cells.slots.lock().unwrap()[at] = entry;
        }

        fn wants_wakeup(&self) -> bool {
            self.cells.wants_wakeup.load(Ordering::Relaxed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::Ordering;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Produce,
        Pop(u8),
        Release,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            any::<u8>().prop_map(Step::Push),
            Just(Step::Produce),
            any::<u8>().prop_map(Step::Pop),
            Just(Step::Release),
        ];
        prop::collection::vec(step, 1..200)
    }

    fn starts() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), any::<u32>(), (u32::MAX - 300)..=u32::MAX]
    }

    proptest! {
        /// Both sides together are a bounded queue: nothing lost, doubled, reordered, or seen before it was published,
        /// wherever the cursors stand, over the wrap of `u32` too.
        #[test]
        fn two_sides_make_a_bounded_queue(order in 0u32..8, start in starts(), steps in steps()) {
            let size = 1 << order;
            let (one, other) = fake::pair(size, start, 0u64);
            let (mut producer, mut consumer) = (Producer::new(one, start), Consumer::new(other, start));
            let (mut hidden, mut shown, mut taken) = (VecDeque::new(), VecDeque::new(), 0);
            let mut next = 0u64;
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        let full = hidden.len() + shown.len() + taken == size as usize;
                        prop_assert_eq!(producer.push(next), !full);
                        if !full { hidden.push_back(next); }
                        next += 1;
                    },
                    Step::Produce => { producer.publish(); shown.append(&mut hidden); }
                    Step::Pop(count) => for _ in 0..count {
                        let expected = shown.pop_front();
                        taken += usize::from(expected.is_some());
                        prop_assert_eq!(consumer.pop(), expected);
                    },
                    Step::Release => { consumer.publish(); taken = 0; }
                }
                prop_assert_eq!(producer.waiting() as usize, hidden.len() + shown.len() + taken);
            }
        }

        /// Whatever the other side writes into its cursor, no slot is overwritten that it may still own, and no more
        /// entries than the ring has are taken before it moves again.
        #[test]
        fn a_wild_cursor_does_no_harm(start in any::<u32>(), wild in any::<u32>()) {
            let (one, other) = fake::pair(8, start, 0u64);
            let cells = one.cells.clone();
            let (mut producer, mut consumer) = (Producer::new(one, start), Consumer::new(other, start));
            for entry in 0..8 { prop_assert!(producer.push(entry)); }
            cells.consumer.store(wild, Ordering::Relaxed);
            let freed = wild.wrapping_sub(start);
            let pushed = (0..100).take_while(|entry| producer.push(*entry)).count();
            prop_assert_eq!(pushed, if freed <= 8 { freed as usize } else { 0 });
            prop_assert!(producer.waiting() <= 8);
            cells.producer.store(wild, Ordering::Relaxed);
            let popped = (0..100).take_while(|_| consumer.pop().is_some()).count();
            prop_assert_eq!(popped, if freed <= 8 { freed as usize } else { 0 });
        }
    }

    #[test]
    fn cursors_are_published_once_per_batch_only() {
        let (one, _) = fake::pair(4, u32::MAX, 0u64);
        let cells = one.cells.clone();
        let mut producer = Producer::new(one, u32::MAX);
        assert!(producer.push(1) && producer.push(2));
        assert_eq!(cells.producer.load(Ordering::Relaxed), u32::MAX);
        producer.publish();
        assert_eq!(cells.producer.load(Ordering::Relaxed), 1);
        cells.producer.store(77, Ordering::Relaxed);
        producer.publish();
        assert_eq!(cells.producer.load(Ordering::Relaxed), 77, "nothing new, nothing written");
    }

    #[test]
    fn two_threads_see_each_entry_whole_and_once() {
        let start = u32::MAX - 1000;
        let (one, other) = fake::pair(64, start, Descriptor { address: 0, length: 0, options: 0 });
        let (mut producer, mut consumer) = (Producer::new(one, start), Consumer::new(other, start));
        const COUNT: u32 = 20_000;
        let thread = std::thread::spawn(move || {
            for n in 0..COUNT {
                let entry = Descriptor { address: u64::from(n) << 11, length: n, options: !n };
                while !producer.push(entry) {
                    producer.publish();
                    std::thread::yield_now();
                }
            }
            producer.publish();
        });
        let mut n = 0;
        while n < COUNT {
            match consumer.pop() {
                Some(entry) => {
                    assert_eq!(entry, Descriptor { address: u64::from(n) << 11, length: n, options: !n });
                    n += 1;
                }
                None => {
                    consumer.publish();
                    std::thread::yield_now();
                }
            }
        }
        thread.join().unwrap();
        assert_eq!(consumer.pop(), None);
    }
}
