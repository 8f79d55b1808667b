//! What every port can do, and what crosses it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use sallyport_wire::frame::{FRAGMENT_HEADERS_MAX, Link};

use crate::meta::META_LEN;
use crate::pool::Frame;

/// Octets of an ordinary frame's buffer.
pub const FRAME_SIZE: usize = 2048;

/// How much the frames of a port hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameSize {
    /// [`FRAME_SIZE`] octets: all that an Ethernet carries.
    #[default]
    Ordinary,
    /// Twice as much, which is the most that AF_XDP has: of the packets of a link with jumbo frames those up to some 3,700 octets.
    Long,
}

impl FrameSize {
    /// Octets that a packet may become longer by on its way, generously: tag, index, header extensions, a tag of a VLAN.
    const GROWTH: usize = 64;

    /// What interfaces with an MTU of so many octets at the most ask for.
    pub const fn of_mtu(mtu: u32) -> Self {
        if HEADROOM + mtu as usize + Self::GROWTH > FRAME_SIZE { Self::Long } else { Self::Ordinary }
    }

    /// Octets of a frame's buffer.
    pub const fn octets(self) -> usize {
        match self {
            Self::Ordinary => FRAME_SIZE,
            Self::Long => 2 * FRAME_SIZE,
        }
    }

    /// Octets of the longest packet that is received into a frame, from its Ethernet header on.
    pub const fn packet_max(self) -> usize {
        self.octets() - HEADROOM
    }
}

/// Where a payload is to start in the buffer of an allocated frame; received payloads start here or behind. The room in
/// front is for headers and the kernel's metadata: 256 octets that the kernel keeps for itself and 64 of ours.
pub const HEADROOM: usize = 320;

const _: () = assert!(HEADROOM >= FRAGMENT_HEADERS_MAX + META_LEN);

/// A datagram as it came in. Its frame belongs to the holder until it is transmitted or released.
#[derive(Debug)]
pub struct Received {
    /// Where the octets lie.
    pub frame: Frame,
    /// Zone of the interface or socket it came by (1 outside, 2 inside).
    pub zone: u8,
    /// Destination of the datagram: our side.
    pub local: SocketAddr,
    /// Source of the datagram: the peer's side.
    pub remote: SocketAddr,
    /// The UDP payload within [`Port::buffer`] of the frame.
    pub payload: Range<usize>,
    /// Direction and epoch that the kernel's flow entry named; `None` where no flow was hit or no kernel program ran.
    pub tag: Option<(u32, u32)>,
    /// Link-layer source, where the port sees one.
    pub source_mac: Option<[u8; 6]>,
    /// VLAN identifier, where the frame had a tag.
    pub vlan: Option<u16>,
}

/// Where a payload goes.
#[derive(Debug, Clone)]
pub struct Egress {
    /// Zone it leaves by.
    pub zone: u8,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Next hop; needed by ports that write the headers themselves, ignored by sockets.
    pub link: Option<Link>,
}

/// Why a payload was not taken for transmission. Its frame was released in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransmitError {
    /// The ring or queue is full: the system takes packets slower than they come.
    #[error("transmit queue is full")]
    Full,
    /// The port writes headers itself and the egress has no next hop.
    #[error("no next hop for this egress")]
    NoLink,
    /// No interface of that zone, or no socket bound to that address.
    #[error("no interface or socket for this egress")]
    NoSocket,
    /// The payload range lies outside the buffer, there is no room in front of it for the headers, or the egress names
    /// two address families.
    #[error("no room for the headers, or payload outside the frame")]
    Short,
    /// The queue is full and the system answers with an error instead of taking packets (interface down).
    #[error("the system refuses to transmit")]
    Io,
    /// The frame is of another port. It is lost to its own, and counted there.
    #[error("frame of another port")]
    Foreign,
}

/// Who has the frames of a port. Whatever happened, [`FrameCount::missing`] stays 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCount {
    /// Frames of the port.
    pub total: u64,
    /// Waiting for the system to fill them.
    pub fill: u64,
    /// Taken by the system for reception, up to and including those ready to be received.
    pub receive: u64,
    /// Accepted for transmission and not yet given back.
    pub transmit: u64,
    /// Free.
    pub free: u64,
    /// With the port's user, as a [`Frame`].
    pub held: u64,
    /// Dropped by the user instead of released: a defect of the user. Gone for the life of the port.
    pub lost: u64,
}

impl FrameCount {
    /// Frames that nobody has: lost ones, and those that no counter accounts for (a defect of the port).
    pub fn missing(&self) -> u64 {
        let accounted = self.fill + self.receive + self.transmit + self.free + self.held;
        self.total.abs_diff(accounted)
    }
}

/// What a port has counted since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams handed to the user.
    pub received: u64,
    /// Frames that held no well-formed UDP datagram.
    pub malformed: u64,
    /// Datagrams longer than a frame.
    pub truncated: u64,
    /// Datagrams accepted for transmission.
    pub transmitted: u64,
    /// Accepted datagrams that the system then refused to send.
    pub refused: u64,
    /// Times that no frame was free when one was wanted.
    pub starved: u64,
    /// Packets that the kernel had for us and dropped: no frame in the fill ring.
    pub kernel_starved: u64,
    /// Packets that the kernel had for us and dropped: receive ring full, frame too long, no memory.
    pub kernel_dropped: u64,
    /// Ring entries that made no sense to the kernel or to us. Must stay 0.
    pub corrupt: u64,
    /// Errors of receive system calls.
    pub errors: u64,
    /// Received datagrams that the system had merged.
    pub merged_in: u64,
    /// Sent datagrams that were given to the system as parts of one payload.
    pub merged_out: u64,
    /// Datagrams accepted for transmission that are longer than the MTU, and leave as fragments: outside, inside.
    pub fragmented: [u64; 2],
}

impl Counters {
    /// Counts a datagram that leaves by a zone as fragments.
    pub(crate) fn fragment(&mut self, zone: u8) {
        self.fragmented[usize::from(zone != 1)] += 1;
    }

    /// Names and values, names in snake case with the prefix `io_`.
    pub fn named(&self) -> [(&'static str, u64); 14] {
        [
            ("io_received", self.received),
            ("io_malformed", self.malformed),
            ("io_truncated", self.truncated),
            ("io_transmitted", self.transmitted),
            ("io_refused", self.refused),
            ("io_starved", self.starved),
            ("io_kernel_starved", self.kernel_starved),
            ("io_kernel_dropped", self.kernel_dropped),
            ("io_corrupt", self.corrupt),
            ("io_errors", self.errors),
            ("io_merged_in", self.merged_in),
            ("io_merged_out", self.merged_out),
            ("io_fragmented_outside", self.fragmented[0]),
            ("io_fragmented_inside", self.fragmented[1]),
        ]
    }
}

/// A fixed room for datagrams that come in together. Allocates once, in [`Burst::new`].
pub struct Burst {
    items: Vec<Received>,
}

impl Burst {
    /// Datagrams that a burst holds.
    pub const CAPACITY: usize = 64;

    /// An empty burst.
    pub fn new() -> Self {
        Self { items: Vec::with_capacity(Self::CAPACITY) }
    }

    /// Datagrams in the burst.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no datagram.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether no datagram fits any more: there may be more to receive.
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Datagrams that still fit.
    pub fn room(&self) -> usize {
        Self::CAPACITY - self.items.len()
    }

    /// Adds a datagram.
    ///
    /// # Errors
    /// Gives it back where there is no room.
    pub fn push(&mut self, received: Received) -> Result<(), Received> {
        if self.is_full() {
            return Err(received);
        }
        self.items.push(received);
        Ok(())
    }

    /// Takes the datagrams out, oldest first.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = Received> + '_ {
        self.items.drain(..)
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Burst").field("len", &self.len()).finish()
    }
}

/// The edge: datagrams in, datagrams out, in frames that are owned by exactly one side at any time. One worker owns a
/// port; nothing here blocks.
pub trait Port: Send {
    /// Adds what has come in to `burst`, up to its room, and takes back what was transmitted meanwhile. Returns how many
    /// were added.
    ///
    /// # Errors
    /// The system's, where nothing can be received at all; errors of a single datagram are counted.
    fn receive(&mut self, burst: &mut Burst) -> io::Result<usize>;

    /// All octets of a frame, [`FRAME_SIZE`] or more; none for a frame of another port. What lies outside a received payload is
    /// what former users left there.
    fn buffer<'a>(&'a mut self, frame: &Frame) -> &'a mut [u8];

    /// As [`Port::buffer`], of at most [`Burst::CAPACITY`] frames at once: `each` is given theirs in the same order. What goes
    /// beyond is left out.
    fn buffers<'a>(
        &'a mut self,
        frames: &mut dyn Iterator<Item = &Frame>,
        each: &mut dyn FnMut(&'a mut [u8]),
    );

    /// Accepts `payload` of the frame for transmission; it goes out with the next [`Port::flush`] at the latest. The
    /// frame is consumed in every case. What is longer than the MTU of its way leaves as fragments.
    ///
    /// # Errors
    /// [`TransmitError`]: the frame was released, nothing is sent. The caller counts it.
    fn transmit(&mut self, frame: Frame, payload: Range<usize>, egress: &Egress)
    -> Result<(), TransmitError>;

    /// A free frame, for packets that did not come in by this port: replies, what control sends, what another worker
    /// hands over. The payload goes to [`HEADROOM`] and behind. `None` where none is free.
    fn allocate(&mut self) -> Option<Frame>;

    /// Takes a frame back unsent.
    fn release(&mut self, frame: Frame);

    /// Hands all accepted datagrams to the system. Where the system takes only some, the rest waits
    /// ([`Port::pending`]) for the next flush; nothing is lost or sent twice.
    ///
    /// # Errors
    /// The system's, such as an interface that is down. Accepted datagrams keep waiting.
    fn flush(&mut self) -> io::Result<()>;

    /// Datagrams accepted and not yet taken by the system. While this is above 0 after a flush, wait for a millisecond
    /// at most before the next one.
    fn pending(&self) -> usize;

    /// Descriptors that become readable when there is something to receive.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Who has the frames.
    fn frames(&self) -> FrameCount;

    /// What was counted since the port was opened.
    fn counters(&self) -> Counters;
}
