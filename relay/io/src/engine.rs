//! The AF_XDP port without its system calls: which frame goes to which ring, and when. Generic over the memory, the rings
//! and the kernel, so that all of it runs in tests against a kernel of their own.

mod long;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use sallyport_wire::PacketBuf;
use sallyport_wire::frame::{self, Cut};

use crate::meta;
use crate::pool::{Frame, Owner, Pool};
use crate::port::{Burst, Counters, Egress, FrameCount, HEADROOM, Port, Received, TransmitError};
use crate::ring::{Consumer, Descriptor, Memory, Producer};

/// The octets of all frames.
pub(crate) trait Chunks: Send {
    /// The octets of a frame, none where there is no frame of that name. Only for frames that the caller
    /// has: the kernel may write to all others at any time.
    fn chunk(&mut self, index: u32) -> &mut [u8];
    /// The same of several frames at once, in the order asked for; none for a frame that was named before.
    fn chunks<'a>(&'a mut self, names: &[Option<u32>], each: &mut dyn FnMut(&'a mut [u8]));
    /// Octets of a frame.
    fn frame_size(&self) -> usize;
    /// Fetches what lies around an offset in the memory into the cache. A hint: any offset will do.
    fn fetch(&self, address: u64);
}

/// What the kernel says about a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KernelCounters {
    pub starved: u64,
    pub dropped: u64,
    pub invalid: u64,
}

/// One AF_XDP socket, bound to one queue of one interface.
pub(crate) trait Socket: Send {
    /// Memory of the fill and the completion ring.
    type Addresses: Memory<Entry = u64> + Send + Debug;
    /// Memory of the receive and the transmit ring.
    type Descriptors: Memory<Entry = Descriptor> + Send + Debug;
    /// Makes the kernel look at the transmit ring.
    fn kick(&self) -> io::Result<()>;
    /// Makes the kernel look at the fill ring.
    fn wake(&self);
    /// What the kernel counted, zeroes where it does not say.
    fn counters(&self) -> KernelCounters;
    /// Readable when the receive ring holds something.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// A socket with its four rings.
#[derive(Debug)]
pub(crate) struct Channel<S: Socket> {
    pub socket: S,
    pub zone: u8,
    /// Octets of the longest IP packet that leaves by it; what is longer leaves as fragments.
    pub mtu: usize,
    /// What came of a packet whose other parts are still to come.
    pub part: Option<Part>,
    pub fill: Producer<S::Addresses>,
    pub completion: Consumer<S::Addresses>,
    pub receive: Consumer<S::Descriptors>,
    pub transmit: Producer<S::Descriptors>,
    /// Frames that the kernel has to receive into.
    pub stocked: u32,
    /// Frames that the kernel has to transmit from.
    pub flying: u32,
    /// Whether the last flush met an error.
    pub refusing: bool,
}

impl<S: Socket> Channel<S> {
    /// Why no more fits on the transmit ring.
    fn jam(&self) -> TransmitError {
        if self.refusing { TransmitError::Io } else { TransmitError::Full }
    }
}

/// The first parts of a received packet, put together in the frame of the very first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    index: u32,
    start: usize,
    /// Octets so far; `None` where they are more than the frame has room for.
    length: Option<usize>,
}

/// How many frames may be where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// For each socket to receive into.
    pub fill: u32,
    /// For each socket to transmit from: an interface that is down must not hold up the others.
    pub transmit: u32,
}

impl Shares {
    /// Half of the frames receive. Of the rest a burst and a few are always left for the user, so that a transmit ring
    /// which nobody empties cannot stop reception.
    pub fn of(frames: u32, sockets: u32) -> Self {
        let fill = frames / 2 / sockets.max(1);
        let rest = frames - fill * sockets;
        Self { fill, transmit: (rest - rest / 4) / sockets.max(1) }
    }
}

/// Flag of a descriptor whose packet goes on in the next one (`XDP_PKT_CONTD`).
const CONTINUED: u32 = 1;

/// How many packets ahead of the one at work headers are fetched into the cache: another processor wrote them.
const AHEAD: u32 = 4;

/// All sockets of one worker over one UMEM.
#[derive(Debug)]
pub(crate) struct Engine<U, S: Socket> {
    chunks: U,
    /// Octets of a frame.
    size: usize,
    channels: Vec<Channel<S>>,
    pool: Pool,
    shares: Shares,
    counters: Counters,
    first: usize,
    /// Whether an empty receive ring is a reason to have the driver look.
    drives: bool,
}

/// Frame of `size` octets that an offset in the UMEM lies in, and the offset within it.
fn locate(address: u64, size: usize) -> (u32, usize) {
    let size = size as u64;
    let index = u32::try_from(address / size).unwrap_or(u32::MAX);
    (index, usize::try_from(address % size).unwrap_or(usize::MAX))
}

/// Offset in the UMEM of an octet of a frame of `size` octets.
fn address(index: u32, offset: usize, size: usize) -> u64 {
    u64::from(index) * size as u64 + offset as u64
}

/// Name of a channel as an owner. There are never more than 256: [`Engine::new`] sees to it.
fn name(at: usize) -> u8 {
    u8::try_from(at).unwrap_or(u8::MAX)
}

impl<U: Chunks, S: Socket> Engine<U, S> {
    /// Takes over rings that are empty, and stocks the fill rings. At most 255 channels, the rest is dropped.
    pub fn new(chunks: U, mut channels: Vec<Channel<S>>, frames: u32, shares: Shares) -> Self {
        channels.truncate(usize::from(u8::MAX));
        let (pool, size) = (Pool::new(frames), chunks.frame_size());
        let counters = Counters::default();
        let mut engine = Self { chunks, size, channels, pool, shares, counters, first: 0, drives: false };
        engine.restock();
        engine
    }

    /// The sockets, in the order of opening.
    pub fn sockets(&self) -> impl Iterator<Item = &S> {
        self.channels.iter().map(|channel| &channel.socket)
    }

    /// From now on the drivers take up packets when an empty ring is asked for them, not by themselves.
    pub fn drive(&mut self) {
        self.drives = true;
    }

    /// The octets of all frames.
    pub fn memory(&self) -> &U {
        &self.chunks
    }

    /// Takes back what was transmitted.
    fn reap(&mut self) {
        for (at, channel) in self.channels.iter_mut().enumerate() {
            while let Some(address) = channel.completion.pop() {
                if self.pool.reclaim(Owner::Transmit(name(at)), locate(address, self.size).0) {
                    channel.flying = channel.flying.saturating_sub(1);
                } else {
                    self.counters.corrupt += 1;
                }
            }
            channel.completion.publish();
        }
    }

    /// Fills the fill rings up to their share.
    fn restock(&mut self) {
        for at in 0..self.channels.len() {
            let owner = Owner::Fill(name(at));
            while self.channels[at].stocked < self.shares.fill {
                let Some(index) = self.pool.take(owner) else {
                    self.counters.starved += 1;
                    break;
                };
                // What the frame held before may look like metadata, and would be believed if the program set none.
                if let Some(headroom) = self.chunks.chunk(index).get_mut(..HEADROOM) {
                    meta::clear(headroom);
                }
                if !self.channels[at].fill.push(address(index, 0, self.size)) {
                    self.pool.reclaim(owner, index);
                    break;
                }
                self.channels[at].stocked += 1;
            }
            let channel = &mut self.channels[at];
            channel.fill.publish();
            if channel.fill.wants_wakeup() {
                channel.socket.wake();
            }
        }
    }

    /// Receives at most `quota` datagrams by one socket.
    fn receive_by(&mut self, at: usize, quota: usize, burst: &mut Burst) -> usize {
        let mut count = 0;
        while count < quota {
            let Some(descriptor) = self.channels[at].receive.pop() else { break };
            if let Some(next) = self.channels[at].receive.ahead(AHEAD) {
                self.chunks.fetch(next.address);
            }
            let Some(received) = self.open(at, descriptor) else { continue };
            // There is room: the quotas sum up to the burst's.
            if let Err(received) = burst.push(received) {
                self.release(received.frame);
                break;
            }
            count += 1;
        }
        self.channels[at].receive.publish();
        count
    }

    /// Makes a datagram of what the kernel put on a receive ring.
    fn open(&mut self, at: usize, descriptor: Descriptor) -> Option<Received> {
        let (index, start) = locate(descriptor.address, self.size);
        if !self.pool.has(Owner::Fill(name(at)), index) {
            self.counters.corrupt += 1;
            return None;
        }
        self.channels[at].stocked = self.channels[at].stocked.saturating_sub(1);
        let length = descriptor.length as usize;
        let more = descriptor.options & CONTINUED != 0;
        if more || self.channels[at].part.is_some() {
            return self.gather(at, Part { index, start, length: Some(length) }, more);
        }
        self.read(at, index, start, length)
    }

    /// Makes a datagram of a whole packet in a frame that came by a socket.
    fn read(&mut self, at: usize, index: u32, start: usize, length: usize) -> Option<Received> {
        let owner = Owner::Fill(name(at));
        let parsed = start.checked_add(length).and_then(|end| {
            let (headroom, packet) = self.chunks.chunk(index).get_mut(..end)?.split_at_mut_checked(start)?;
            let tag = meta::take(headroom);
            Some((tag, frame::parse(packet).ok()?))
        });
        let Some((tag, datagram)) = parsed else {
            self.counters.malformed += 1;
            self.pool.reclaim(owner, index);
            return None;
        };
        self.counters.received += 1;
        Some(Received {
            frame: self.pool.hand_out(owner, index)?,
            zone: self.channels[at].zone,
            local: datagram.destination,
            remote: datagram.source,
            payload: start + datagram.payload.start..start + datagram.payload.end,
            tag,
            source_mac: Some(datagram.source_mac),
            vlan: datagram.vlan,
        })
    }

    /// Writes the headers in front of the payload and puts the frame on its ring; answers with the channel.
    fn stage(&mut self, index: u32, payload: Range<usize>, egress: &Egress) -> Result<u8, TransmitError> {
        let Some(at) = self.channels.iter().position(|channel| channel.zone == egress.zone) else {
            return Err(TransmitError::NoSocket);
        };
        let link = egress.link.as_ref().ok_or(TransmitError::NoLink)?;
        if let Some(cut) = Cut::new(payload.len(), egress.remote.ip(), self.channels[at].mtu) {
            self.stage_cut(at, index, payload, egress, link, cut)?;
            return Ok(name(at));
        }
        self.make_room(at, 1)?;
        let mut packet =
            PacketBuf::new(self.chunks.chunk(index), payload).map_err(|_| TransmitError::Short)?;
        if long::may_be_cut(packet.len(), egress) {
            long::emit_whole(&mut packet, link, egress)
        } else {
            frame::emit(&mut packet, link, egress.local, egress.remote)
        }
        .map_err(|_| TransmitError::Short)?;
        let range = packet.range();
        self.push(at, index, range)?;
        Ok(name(at))
    }

    /// Sees that so many more frames may be transmitted by a socket.
    fn make_room(&mut self, at: usize, frames: u32) -> Result<(), TransmitError> {
        let most = self.shares.transmit;
        if self.channels[at].flying + frames > most {
            self.reap();
            if self.channels[at].flying + frames > most {
                return Err(self.channels[at].jam());
            }
        }
        Ok(())
    }

    /// Puts octets of a frame on a transmit ring.
    fn push(&mut self, at: usize, index: u32, octets: Range<usize>) -> Result<(), TransmitError> {
        let length = u32::try_from(octets.len()).map_err(|_| TransmitError::Short)?;
        let descriptor = Descriptor { address: address(index, octets.start, self.size), length, options: 0 };
        let channel = &mut self.channels[at];
        if !channel.transmit.push(descriptor) {
            return Err(channel.jam());
        }
        channel.flying += 1;
        Ok(())
    }

    /// Makes the kernel take what is on one transmit ring. Copy mode takes a limited number for each call and says
    /// EAGAIN while there is more, or while its socket buffer or completion ring is full: only its cursor tells which.
    fn flush_by(&mut self, at: usize) -> io::Result<()> {
        self.channels[at].transmit.publish();
        let mut stalls = 0;
        while stalls < 2 {
            let channel = &self.channels[at];
            let before = channel.transmit.waiting();
            if before == 0 || !channel.transmit.wants_wakeup() {
                break;
            }
            let error = match channel.socket.kick() {
                Ok(()) => break,
                Err(error) => error,
            };
            let progress = channel.transmit.waiting() < before;
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => {}
                // The kernel took the packet, and the device dropped it.
                Some(libc::EBUSY) if progress => self.counters.refused += 1,
                Some(libc::EBUSY) => {}
                _ => return Err(error),
            }
            if !progress {
                stalls += 1;
                self.reap();
            }
        }
        Ok(())
    }
}

impl<U: Chunks, S: Socket> Port for Engine<U, S> {
    fn receive(&mut self, burst: &mut Burst) -> io::Result<usize> {
        self.reap();
        let sockets = self.channels.len();
        let mut count = 0;
        // Fair shares first, then whoever has more; another socket begins each time.
        for quota in [burst.room().div_ceil(sockets.max(1)), burst.room()] {
            for turn in 0..sockets {
                let at = (self.first + turn) % sockets;
                count += self.receive_by(at, quota.min(burst.room()), burst);
            }
        }
        self.first = (self.first + 1) % sockets.max(1);
        self.restock();
        if count == 0 && self.drives {
            self.channels.iter().for_each(|channel| channel.socket.wake());
        }
        Ok(count)
    }

    fn buffer<'a>(&'a mut self, frame: &Frame) -> &'a mut [u8] {
        match self.pool.index(frame) {
            Some(index) => self.chunks.chunk(index),
            None => &mut [],
        }
    }

    fn buffers<'a>(
        &'a mut self,
        frames: &mut dyn Iterator<Item = &Frame>,
        each: &mut dyn FnMut(&'a mut [u8]),
    ) {
        let (names, count) = self.pool.names(frames);
        self.chunks.chunks(names.get(..count).unwrap_or_default(), each);
    }

    fn transmit(
        &mut self,
        frame: Frame,
        payload: Range<usize>,
        egress: &Egress,
    ) -> Result<(), TransmitError> {
        let index = self.pool.index(&frame).ok_or(TransmitError::Foreign)?;
        match self.stage(index, payload, egress) {
            Ok(channel) => {
                self.pool.accept(frame, Owner::Transmit(channel));
                self.counters.transmitted += 1;
                Ok(())
            }
            Err(error) => {
                self.release(frame);
                Err(error)
            }
        }
    }

    fn allocate(&mut self) -> Option<Frame> {
        if self.pool.census().free == 0 {
            self.reap();
        }
        let frame = self.pool.allocate();
        self.counters.starved += u64::from(frame.is_none());
        frame
    }

    fn release(&mut self, frame: Frame) {
        self.pool.accept(frame, Owner::Free);
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for at in 0..self.channels.len() {
            // One interface that is down must not hold up the other.
            let flushed = self.flush_by(at);
            self.channels[at].refusing = flushed.is_err();
            result = result.and(flushed);
        }
        self.reap();
        result
    }

    fn pending(&self) -> usize {
        self.channels.iter().map(|channel| channel.transmit.waiting() as usize).sum()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.channels.iter().map(|channel| channel.socket.descriptor()).collect()
    }

    fn frames(&self) -> FrameCount {
        let count = self.pool.count();
        let waiting: u32 = self.channels.iter().map(|channel| channel.fill.waiting()).sum();
        let fill = count.fill.min(waiting.into());
        FrameCount { fill, receive: count.fill - fill, ..count }
    }

    fn counters(&self) -> Counters {
        let mut counters = self.counters;
        for channel in &self.channels {
            let kernel = channel.socket.counters();
            counters.kernel_starved += kernel.starved;
            counters.kernel_dropped += kernel.dropped;
            counters.corrupt += kernel.invalid;
        }
        counters
    }
}

#[cfg(test)]
mod tests;
