//! A kernel's side of AF_XDP in ordinary memory, for tests.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use sallyport_wire::PacketBuf;
use sallyport_wire::frame::{self, Link};

use crate::engine::{Channel, Chunks, Engine, KernelCounters, Shares, Socket};
use crate::meta::{META_FLOW, META_MAGIC};
use crate::pool::{place, spread};
use crate::port::{FRAME_SIZE, HEADROOM};
use crate::ring::fake::{Side, pair};
use crate::ring::{Consumer, Descriptor, Producer};

/// Frames in ordinary memory.
#[derive(Debug)]
pub(crate) struct Heap(Vec<u8>, usize);

impl Chunks for Heap {
    fn chunk(&mut self, index: u32) -> &mut [u8] {
        self.0.get_mut(place(index, self.1)).unwrap_or_default()
    }

    fn chunks<'a>(&'a mut self, names: &[Option<u32>], each: &mut dyn FnMut(&'a mut [u8])) {
        spread(&mut self.0, self.1, names, each);
    }

    fn frame_size(&self) -> usize {
        self.1
    }

    fn fetch(&self, _address: u64) {}
}

/// What the fake kernel does on one `sendto`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// Takes so many; EAGAIN where more are left.
    Take(usize),
    /// Takes none.
    Fail(i32),
    /// Takes one, which the device drops.
    Busy,
}

/// The kernel's side of one socket.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub fill: Consumer<Side<u64>>,
    pub completion: Producer<Side<u64>>,
    pub receive: Producer<Side<Descriptor>>,
    pub transmit: Consumer<Side<Descriptor>>,
    /// Taken from the fill ring and kept.
    pub kept: VecDeque<u64>,
    /// Taken from the transmit ring and not completed.
    pub flying: VecDeque<u64>,
    /// All that was ever taken from the transmit ring.
    pub sent: Vec<Descriptor>,
    /// What the next system calls do; then everything is taken, 32 at a time.
    pub answers: VecDeque<Answer>,
    pub kicks: usize,
}

impl Kernel {
    fn take(&mut self, limit: usize) -> usize {
        let mut count = 0;
        while count < limit
            && let Some(descriptor) = self.transmit.pop()
        {
            self.sent.push(descriptor);
            self.flying.push_back(descriptor.address);
            count += 1;
        }
        self.transmit.publish();
        count
    }

    fn kick(&mut self) -> io::Result<()> {
        self.kicks += 1;
        match self.answers.pop_front().unwrap_or(Answer::Take(32)) {
            Answer::Take(limit) if self.take(limit) < limit => Ok(()),
            // As the kernel: with the budget used up it looks whether there is more only by being called again.
            Answer::Take(_) => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            Answer::Fail(error) => Err(io::Error::from_raw_os_error(error)),
            Answer::Busy => {
                self.take(1);
                Err(io::Error::from_raw_os_error(libc::EBUSY))
            }
        }
    }

    /// Completes the oldest transmissions.
    pub fn complete(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(address) = self.flying.pop_front() {
                assert!(self.completion.push(address), "the completion ring has room for every frame");
            }
        }
        self.completion.publish();
    }

    /// Takes a frame to receive into, and keeps it.
    pub fn keep(&mut self) {
        self.kept.extend(self.fill.pop());
        self.fill.publish();
    }

    /// A frame to receive into: a kept one first.
    pub fn stock(&mut self) -> Option<u64> {
        let address = self.kept.pop_front().or_else(|| self.fill.pop());
        self.fill.publish();
        address
    }

    /// Shows a received packet.
    pub fn show(&mut self, address: u64, length: usize) {
        let length = u32::try_from(length).unwrap();
        assert!(self.receive.push(Descriptor { address, length, options: 0 }), "the receive ring has room");
        self.receive.publish();
    }
}

/// The engine's side of one socket.
#[derive(Debug)]
pub(crate) struct FakeSocket {
    kernel: Arc<Mutex<Kernel>>,
    file: File,
}

impl Socket for FakeSocket {
    type Addresses = Side<u64>;
    type Descriptors = Side<Descriptor>;

    fn kick(&self) -> io::Result<()> {
        self.kernel.lock().unwrap().kick()
    }

    fn wake(&self) {}

    fn counters(&self) -> KernelCounters {
        KernelCounters { starved: 1, dropped: 2, invalid: 0 }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

pub(crate) type FakeEngine = Engine<Heap, FakeSocket>;

/// Where all cursors begin: they wrap soon.
const START: u32 = u32::MAX - 20;

/// An engine with a socket per zone, zones from 1 up, and the kernel's side of each. As in copy mode, the transmit rings
/// want a system call.
pub(crate) fn engine(zones: u8, frames: u32, shares: Shares) -> (FakeEngine, Vec<Arc<Mutex<Kernel>>>) {
    let blank = Descriptor { address: 0, length: 0, options: 0 };
    let (mut channels, mut kernels) = (Vec::new(), Vec::new());
    for zone in 1..=zones {
        let (fill, kernel_fill) = pair(shares.fill.next_power_of_two(), START, 0);
        let (kernel_receive, receive) = pair(shares.fill.next_power_of_two(), START, blank);
        let (transmit, kernel_transmit) = pair(shares.transmit.next_power_of_two(), START, blank);
        let (kernel_completion, completion) = pair(frames.next_power_of_two(), START, 0);
        transmit.cells.wants_wakeup.store(true, Ordering::Relaxed);
        let kernel = Arc::new(Mutex::new(Kernel {
            fill: Consumer::new(kernel_fill, START),
            completion: Producer::new(kernel_completion, START),
            receive: Producer::new(kernel_receive, START),
            transmit: Consumer::new(kernel_transmit, START),
            kept: VecDeque::new(),
            flying: VecDeque::new(),
            sent: Vec::new(),
            answers: VecDeque::new(),
            kicks: 0,
        }));
        kernels.push(kernel.clone());
        channels.push(Channel {
            socket: FakeSocket { kernel, file: File::open("/dev/null").unwrap() },
            zone,
            mtu: 1500,
            part: None,
            fill: Producer::new(fill, START),
            completion: Consumer::new(completion, START),
            receive: Consumer::new(receive, START),
            transmit: Producer::new(transmit, START),
            stocked: 0,
            flying: 0,
            refusing: false,
        });
    }
    let heap = Heap(vec![0; frames as usize * FRAME_SIZE], FRAME_SIZE);
    (Engine::new(heap, channels, frames, shares), kernels)
}

pub(crate) const LINK: Link =
    Link { source_mac: [2, 0, 0, 0, 0, 1], destination_mac: [2, 0, 0, 0, 0, 2], vlan: Some(7), dscp: 46 };

pub(crate) fn ours() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 10_000))
}

pub(crate) fn theirs() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 4_000))
}

/// A frame from [`theirs`] to [`ours`].
pub(crate) fn packet(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    bytes.extend_from_slice(payload);
    let end = bytes.len();
    let mut buf = PacketBuf::new(&mut bytes, 100..end).unwrap();
    frame::emit(&mut buf, &LINK, theirs(), ours()).unwrap();
    buf.packet().to_vec()
}

/// Lets a packet come in, with metadata in front where a tag is given. `false` where the kernel had no frame.
pub(crate) fn deliver(
    chunks: &mut Heap,
    kernel: &Mutex<Kernel>,
    packet: &[u8],
    tag: Option<(u32, u32)>,
) -> bool {
    let mut kernel = kernel.lock().unwrap();
    let Some(address) = kernel.stock() else { return false };
    let chunk = chunks.chunk(u32::try_from(address / FRAME_SIZE as u64).unwrap());
    if let Some((direction, epoch)) = tag {
        let words = [META_MAGIC, direction, epoch, META_FLOW];
        let meta: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        chunk[HEADROOM - meta.len()..HEADROOM].copy_from_slice(&meta);
    }
    chunk[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
    kernel.show(address + HEADROOM as u64, packet.len());
    true
}
