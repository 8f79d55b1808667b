//! The AF_XDP port and how it is opened.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::net::if_::if_indextoname;

use crate::afxdp::{How, Sizes, Umem, Xsk};
use crate::engine::{Channel, Engine, Shares, Socket};
use crate::pool::Frame;
use crate::port::{Burst, Counters, Egress, FrameCount, FrameSize, Port, TransmitError};
use crate::ring::{Consumer, Producer};

/// How the XDP program is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver: zero-copy where it can, else the kernel copies.
    Native,
    /// In the network stack (skb): the kernel copies.
    Generic,
}

/// One queue of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Index of the interface.
    pub ifindex: u32,
    /// Receive (and transmit) queue.
    pub queue: u32,
    /// Zone of the interface: 1 outside, 2 inside.
    pub zone: u8,
    /// How its XDP program is attached.
    pub mode: Mode,
    /// Octets of the longest IP packet that is to leave by it; what is longer leaves as fragments.
    pub mtu: u32,
}

/// Why an AF_XDP port could not be opened. Sockets remain as the slower way.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No queue was given, or more than 255.
    #[error("an AF_XDP port needs 1 to 255 queues, not {0}")]
    Queues(usize),
    /// Too few frames for the sockets, or more than [`AfXdpPort::FRAMES_MAX`].
    #[error("{frames} frames do not do: {least} to {most} are possible")]
    Frames {
        /// Frames asked for.
        frames: u32,
        /// Fewest for so many sockets.
        least: u32,
        /// Most.
        most: u32,
    },
    /// EPERM or EACCES.
    #[error("AF_XDP needs the capability CAP_NET_RAW")]
    Permission,
    /// EAFNOSUPPORT.
    #[error("this kernel has no AF_XDP")]
    Unsupported,
    /// ENOBUFS: the pages cannot be locked.
    #[error(
        "{0} KiB of packet memory exceed the limit of locked memory: raise it (LimitMEMLOCK) or grant CAP_IPC_LOCK"
    )]
    Memory(u64),
    /// ENODEV.
    #[error("there is no interface with index {0}")]
    NoInterface(u32),
    /// EINVAL or ENXIO at bind.
    #[error("{} has no queue {queue}, or its driver cannot do AF_XDP", interface(*ifindex))]
    NoQueue {
        /// Index of the interface.
        ifindex: u32,
        /// The queue.
        queue: u32,
    },
    /// EBUSY, for a second and longer.
    #[error("queue {queue} of {} is in use by another AF_XDP socket", interface(*ifindex))]
    Busy {
        /// Index of the interface.
        ifindex: u32,
        /// The queue.
        queue: u32,
    },
    /// Any other error.
    #[error("AF_XDP: {step}: {source}")]
    Other {
        /// What was tried.
        step: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

/// The port of one worker on the fast path: one UMEM over one AF_XDP socket per interface, so that a frame received on one
/// leaves on another without a copy. The XDP program is not its business: enter [`AfXdpPort::sockets`] into its map.
#[derive(Debug)]
pub struct AfXdpPort {
    engine: Engine<Umem, Xsk>,
    queues: Vec<Queue>,
}

impl AfXdpPort {
    /// Most frames of a port: 128 MiB, or twice that of long ones.
    pub const FRAMES_MAX: u32 = 1 << 16;

    /// Fewest frames for each socket: two bursts to receive into, and as many to send.
    pub const FRAMES_MIN: u32 = 256;

    /// How long a queue may stay busy: the kernel gives it up some time after its former socket was closed.
    const BUSY: Duration = Duration::from_secs(1);

    /// Opens a socket for each queue and stocks it. `frames`, each of that size, are shared by all; half of them wait for
    /// packets. May block for a second per queue while a former owner's socket goes away.
    ///
    /// # Errors
    /// [`OpenError`]; nothing stays open.
    pub fn open(queues: &[Queue], frames: u32, size: FrameSize) -> Result<Self, OpenError> {
        let sockets = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        if queues.is_empty() || queues.len() > usize::from(u8::MAX) {
            return Err(OpenError::Queues(queues.len()));
        }
        let (least, most) = (Self::FRAMES_MIN * sockets, Self::FRAMES_MAX);
        if frames < least || frames > most {
            return Err(OpenError::Frames { frames, least, most });
        }
        // Packets longer than a frame come to drivers that work on the memory themselves, unless they may not: then they vanish
        // there, and nobody counts them. Where kernel or driver know of no parts, that has to do.
        if size == FrameSize::Long
            && let Ok(port) = Self::open_as(queues, frames, size, true)
        {
            return Ok(port);
        }
        Self::open_as(queues, frames, size, false)
    }

    fn open_as(queues: &[Queue], frames: u32, size: FrameSize, parts: bool) -> Result<Self, OpenError> {
        // One memory is either mapped for every driver or for none.
        if queues.iter().all(|queue| queue.mode == Mode::Native)
            && let Ok(port) = Self::attempt(queues, frames, size, How { copy: false, parts })
        {
            return Ok(port);
        }
        Self::attempt(queues, frames, size, How { copy: true, parts })
    }

    /// The sockets for the map of the XDP program: interface index, queue, descriptor.
    pub fn sockets(&self) -> Vec<(u32, u32, BorrowedFd<'_>)> {
        let descriptors = self.engine.sockets().map(Socket::descriptor);
        self.queues.iter().zip(descriptors).map(|(queue, fd)| (queue.ifindex, queue.queue, fd)).collect()
    }

    /// Whether the drivers work on the memory itself; otherwise the kernel copies each packet.
    pub fn zero_copy(&self) -> bool {
        self.engine.sockets().all(Xsk::zero_copy)
    }

    /// Whether the memory lies in huge pages, as far as the system has them: some set aside (`vm.nr_hugepages`), or
    /// transparent ones.
    pub fn huge_pages(&self) -> bool {
        self.engine.memory().is_huge()
    }

    /// Has packets taken up by [`Port::receive`] itself instead of by interrupts, which suits a user that never sleeps.
    /// Whether all drivers do that; where one does not, nothing changes for it. Linux: `SO_PREFER_BUSY_POLL`.
    pub fn poll_busily(&mut self) -> bool {
        // Each is asked: `all` would stop at the first that cannot.
        let all = self.engine.sockets().map(Xsk::poll_busily).filter(|driven| !driven).count() == 0;
        if all {
            self.engine.drive();
        }
        all
    }

    fn attempt(queues: &[Queue], frames: u32, size: FrameSize, how: How) -> Result<Self, OpenError> {
        let shares = Shares::of(frames, u32::try_from(queues.len()).unwrap_or(u32::MAX));
        let ring = shares.fill.next_power_of_two();
        // Completions of all frames fit at any time, so that ring never holds up the kernel.
        let (transmit, completion) = (shares.transmit.next_power_of_two(), frames.next_power_of_two());
        let sizes = Sizes { fill: ring, receive: ring, transmit, completion };
        let umem =
            Umem::new(frames, size.octets()).map_err(|source| OpenError::Other { step: "mmap", source })?;
        let mut channels: Vec<Channel<Xsk>> = Vec::with_capacity(queues.len());
        for queue in queues {
            let first = channels.first().map(|channel| &channel.socket);
            let socket = Xsk::new().map_err(socket_error)?;
            if first.is_none() {
                socket.register(&umem).map_err(|error| memory_error(error, frames, size))?;
            }
            let rings = socket.rings(sizes).map_err(|source| OpenError::Other { step: "rings", source })?;
            bind(&socket, queue, how, first)?;
            channels.push(Channel {
                socket,
                zone: queue.zone,
                mtu: queue.mtu as usize,
                part: None,
                fill: Producer::new(rings.fill, 0),
                completion: Consumer::new(rings.completion, 0),
                receive: Consumer::new(rings.receive, 0),
                transmit: Producer::new(rings.transmit, 0),
                stocked: 0,
                flying: 0,
                refusing: false,
            });
        }
        Ok(Self { engine: Engine::new(umem, channels, frames, shares), queues: queues.to_vec() })
    }
}

/// Binds, and again for a while where the queue is still busy.
fn bind(socket: &Xsk, queue: &Queue, how: How, first: Option<&Xsk>) -> Result<(), OpenError> {
    let until = Instant::now() + AfXdpPort::BUSY;
    loop {
        match socket.bind(queue.ifindex, queue.queue, how, first) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(bind_error(error, queue)),
        }
    }
}

fn bind_error(source: io::Error, queue: &Queue) -> OpenError {
    let Queue { ifindex, queue, .. } = *queue;
    match source.raw_os_error() {
        Some(libc::ENODEV) => OpenError::NoInterface(ifindex),
        Some(libc::EINVAL | libc::ENXIO) => OpenError::NoQueue { ifindex, queue },
        Some(libc::EBUSY) => OpenError::Busy { ifindex, queue },
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission,
        _ => OpenError::Other { step: "bind", source },
    }
}

/// Name of an interface for messages.
fn interface(ifindex: u32) -> String {
    if_indextoname(ifindex)
        .map_or_else(|_| format!("interface {ifindex}"), |name| name.to_string_lossy().into_owned())
}

fn socket_error(source: io::Error) -> OpenError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission,
        Some(libc::EAFNOSUPPORT) => OpenError::Unsupported,
        _ => OpenError::Other { step: "socket", source },
    }
}

fn memory_error(source: io::Error, frames: u32, size: FrameSize) -> OpenError {
    match source.raw_os_error() {
        Some(libc::ENOBUFS) => OpenError::Memory(u64::from(frames) * size.octets() as u64 / 1024),
        _ => OpenError::Other { step: "memory registration", source },
    }
}

impl Port for AfXdpPort {
    fn receive(&mut self, burst: &mut Burst) -> io::Result<usize> {
        self.engine.receive(burst)
    }

    fn buffer<'a>(&'a mut self, frame: &Frame) -> &'a mut [u8] {
        self.engine.buffer(frame)
    }

    fn buffers<'a>(
        &'a mut self,
        frames: &mut dyn Iterator<Item = &Frame>,
        each: &mut dyn FnMut(&'a mut [u8]),
    ) {
        self.engine.buffers(frames, each);
    }

    fn transmit(
        &mut self,
        frame: Frame,
        payload: Range<usize>,
        egress: &Egress,
    ) -> Result<(), TransmitError> {
        self.engine.transmit(frame, payload, egress)
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.engine.allocate()
    }

    fn release(&mut self, frame: Frame) {
        self.engine.release(frame);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.engine.flush()
    }

    fn pending(&self) -> usize {
        self.engine.pending()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.engine.descriptors()
    }

    fn frames(&self) -> FrameCount {
        self.engine.frames()
    }

    fn counters(&self) -> Counters {
        self.engine.counters()
    }
}
