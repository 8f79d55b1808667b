//! The UDP port: the same datagrams through ordinary sockets.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

use crate::pool::{Frame, Owner, Pool, place, spread};
use crate::port::{Burst, Counters, Egress, FRAME_SIZE, FrameCount, HEADROOM, Port, Received, TransmitError};
use crate::udp::{self, BATCH, Incoming};

/// Octets asked for each socket's buffers: half a second of a few hundred calls. The system may give less.
const SOCKET_BUFFER: usize = 1 << 20;

/// All frames of the port belong to one system, as far as ownership goes.
const FILL: Owner = Owner::Fill(0);
const SEND: Owner = Owner::Transmit(0);

/// A bound socket.
#[derive(Debug)]
struct Bound {
    socket: UdpSocket,
    zone: u8,
    local: SocketAddr,
}

/// An accepted datagram.
#[derive(Debug)]
struct Queued {
    /// Slot of its socket.
    slot: usize,
    /// Keeps datagrams of one socket in order.
    sequence: u64,
    index: u32,
    octets: Range<usize>,
    remote: SocketAddr,
}

/// The port of one worker on the socket path. Sockets come and go while it runs; each is bound to one address and port,
/// by which [`Egress::local`] finds it.
#[derive(Debug)]
pub struct UdpPort {
    buffers: Box<[u8]>,
    pool: Pool,
    epoll: Epoll,
    slots: Vec<Option<Bound>>,
    vacant: Vec<usize>,
    by_address: HashMap<SocketAddr, usize>,
    /// Slots of sockets that were readable when last asked.
    ready: VecDeque<usize>,
    events: Vec<EpollEvent>,
    /// Frames that the next system call receives into.
    armed: Vec<u32>,
    queue: Vec<Queued>,
    sequence: u64,
    counters: Counters,
    devices: HashMap<u8, OsString>,
}

impl UdpPort {
    /// A port of `frames` frames without sockets.
    ///
    /// # Errors
    /// The system's, where it has no descriptor left.
    pub fn new(frames: u32) -> io::Result<Self> {
        Ok(Self {
            buffers: vec![0; frames as usize * FRAME_SIZE].into_boxed_slice(),
            pool: Pool::new(frames),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            slots: Vec::new(),
            vacant: Vec::new(),
            by_address: HashMap::new(),
            ready: VecDeque::with_capacity(BATCH),
            events: vec![EpollEvent::empty(); BATCH],
            armed: Vec::with_capacity(BATCH),
            queue: Vec::with_capacity(frames as usize),
            sequence: 0,
            counters: Counters::default(),
            devices: HashMap::new(),
        })
    }

    /// Binds the sockets of a zone that are opened from now on to an interface: without, the system would take a packet to
    /// their address from any (RFC 1122 section 3.3.4.2, the weak host model).
    pub fn belong(&mut self, zone: u8, interface: &str) {
        self.devices.insert(zone, interface.into());
    }

    /// Binds a socket to one address of a zone; port 0 lets the system choose. Returns the address it has.
    ///
    /// # Errors
    /// The system's (address in use, not ours), or `InvalidInput` for an unspecified address: replies could then leave
    /// from another one.
    pub fn bind(&mut self, zone: u8, address: SocketAddr) -> io::Result<SocketAddr> {
        if address.ip().is_unspecified() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a media socket needs a specific address",
            ));
        }
        let socket = UdpSocket::bind(address)?;
        if let Some(device) = self.devices.get(&zone) {
            setsockopt(&socket, sockopt::BindToDevice, device)?;
        }
        self.adopt(zone, socket)
    }

    /// Takes over a socket that is bound already. Returns its address.
    ///
    /// # Errors
    /// As [`UdpPort::bind`]; `AddrInUse` where the port has a socket of that address.
    pub fn adopt(&mut self, zone: u8, socket: UdpSocket) -> io::Result<SocketAddr> {
        let local = socket.local_addr()?;
        if local.ip().is_unspecified() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a media socket needs a specific address",
            ));
        }
        if self.by_address.contains_key(&local) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        // Beyond the system's limit only with CAP_NET_ADMIN; less is no reason to fail.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER));
        let slot = self.vacant.last().copied().unwrap_or(self.slots.len());
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64))?;
        let bound = Some(Bound { socket, zone, local });
        match self.vacant.pop() {
            Some(slot) => self.slots[slot] = bound,
            None => self.slots.push(bound),
        }
        self.by_address.insert(local, slot);
        Ok(local)
    }

    /// Closes the socket of an address; `false` where there is none. Datagrams still waiting to be sent by it are dropped
    /// and counted as refused.
    pub fn unbind(&mut self, address: SocketAddr) -> bool {
        let Some(slot) = self.by_address.remove(&address) else { return false };
        let Some(bound) = self.slots.get_mut(slot).and_then(Option::take) else { return false };
        // Closing alone would leave the registration to other holders of the same socket.
        let _ = self.epoll.delete(&bound.socket);
        self.ready.retain(|ready| *ready != slot);
        let Self { queue, pool, counters, .. } = self;
        queue.retain(|queued| {
            let stays = queued.slot != slot;
            if !stays {
                pool.reclaim(SEND, queued.index);
                counters.refused += 1;
            }
            stays
        });
        self.vacant.push(slot);
        true
    }

    /// Zones and addresses that sockets are bound to, in no order.
    pub fn bound(&self) -> impl Iterator<Item = (u8, SocketAddr)> + '_ {
        self.slots.iter().flatten().map(|bound| (bound.zone, bound.local))
    }

    /// Slot of the socket that an egress leaves by.
    fn route(&self, egress: &Egress) -> Option<usize> {
        let slot = *self.by_address.get(&egress.local)?;
        let bound = self.slots.get(slot)?.as_ref()?;
        (bound.zone == egress.zone).then_some(slot)
    }

    /// Asks which sockets are readable. Only once the former answer is used up, or the first ones would come first again
    /// and again.
    fn poll(&mut self) -> io::Result<bool> {
        let count = self.epoll.wait(&mut self.events, EpollTimeout::ZERO)?;
        let slots = self.events.iter().take(count).filter_map(|event| usize::try_from(event.data()).ok());
        self.ready.extend(slots);
        Ok(count > 0)
    }

    /// Receives by one socket what is there, at most what the burst has room for.
    fn receive_by(&mut self, slot: usize, burst: &mut Burst) -> usize {
        let wanted = burst.room().min(BATCH);
        while self.armed.len() < wanted {
            let Some(index) = self.pool.take(FILL) else {
                self.counters.starved += 1;
                break;
            };
            self.armed.push(index);
        }
        let Some(bound) = self.slots.get(slot).and_then(Option::as_ref) else { return 0 };
        if self.armed.is_empty() {
            return 0;
        }
        let rooms =
            self.armed.iter().take(wanted).map(|index| place(*index).start + HEADROOM..place(*index).end);
        let mut found = [Incoming { length: 0, truncated: false, source: None }; BATCH];
        let received = match udp::receive(bound.socket.as_fd(), &mut self.buffers, rooms, &mut found) {
            Ok(received) => received,
            Err(error) => {
                let nothing = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
                self.counters.errors += u64::from(!nothing);
                return 0;
            }
        };
        let (zone, local) = (bound.zone, bound.local);
        let mut count = 0;
        for (index, incoming) in self.armed.drain(..received.min(self.armed.len())).zip(found) {
            let Some(remote) = incoming.source.filter(|_| !incoming.truncated) else {
                self.counters.truncated += u64::from(incoming.truncated);
                self.counters.malformed += u64::from(!incoming.truncated);
                self.pool.reclaim(FILL, index);
                continue;
            };
            let Some(frame) = self.pool.hand_out(FILL, index) else { continue };
            let payload = HEADROOM..HEADROOM + incoming.length;
            let received =
                Received { frame, zone, local, remote, payload, tag: None, source_mac: None, vlan: None };
            match burst.push(received) {
                Ok(()) => count += 1,
                Err(received) => drop(self.pool.accept(received.frame, Owner::Free)),
            }
        }
        self.counters.received += count as u64;
        count
    }

    /// Sends what one socket has in `queue[from..to]`; returns how many of them are done with.
    fn flush_by(&mut self, from: usize, to: usize) -> usize {
        let mut done = from;
        while done < to {
            let Some(bound) = self.slots.get(self.queue[from].slot).and_then(Option::as_ref) else { break };
            let datagrams = self.queue[done..to].iter().map(|queued| {
                let start = place(queued.index).start;
                (start + queued.octets.start..start + queued.octets.end, queued.remote)
            });
            match udp::send(bound.socket.as_fd(), &self.buffers, datagrams) {
                Ok(sent) => done += sent.clamp(1, to - done),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::ENOBUFS) => break,
                    Some(libc::EINTR) => {}
                    // This datagram cannot be sent (no route, too long); the next may go elsewhere.
                    _ => {
                        self.counters.refused += 1;
                        done += 1;
                    }
                },
            }
        }
        done - from
    }
}

impl Port for UdpPort {
    fn receive(&mut self, burst: &mut Burst) -> io::Result<usize> {
        let mut count = 0;
        // Two answers at most: sockets that only yield broken datagrams must not keep the worker here.
        for _ in 0..2 {
            while burst.room() > 0
                && let Some(slot) = self.ready.pop_front()
            {
                count += self.receive_by(slot, burst);
            }
            if burst.room() == 0 || !self.poll()? {
                break;
            }
        }
        Ok(count)
    }

    fn buffer<'a>(&'a mut self, frame: &Frame) -> &'a mut [u8] {
        let octets = self.pool.index(frame).and_then(|index| self.buffers.get_mut(place(index)));
        octets.unwrap_or_default()
    }

    fn buffers<'a>(
        &'a mut self,
        frames: &mut dyn Iterator<Item = &Frame>,
        each: &mut dyn FnMut(&'a mut [u8]),
    ) {
        let (names, count) = self.pool.names(frames);
        spread(&mut self.buffers, names.get(..count).unwrap_or_default(), each);
    }

    fn transmit(
        &mut self,
        frame: Frame,
        payload: Range<usize>,
        egress: &Egress,
    ) -> Result<(), TransmitError> {
        let Some(index) = self.pool.index(&frame) else { return Err(TransmitError::Foreign) };
        let slot = self.route(egress);
        let fits = payload.start <= payload.end && payload.end <= FRAME_SIZE;
        let (Some(slot), true) = (slot, fits) else {
            self.release(frame);
            return Err(if fits { TransmitError::NoSocket } else { TransmitError::Short });
        };
        self.pool.accept(frame, SEND);
        self.sequence += 1;
        let queued = Queued { slot, sequence: self.sequence, index, octets: payload, remote: egress.remote };
        self.queue.push(queued);
        self.counters.transmitted += 1;
        Ok(())
    }

    fn allocate(&mut self) -> Option<Frame> {
        let frame = self.pool.allocate();
        self.counters.starved += u64::from(frame.is_none());
        frame
    }

    fn release(&mut self, frame: Frame) {
        self.pool.accept(frame, Owner::Free);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.queue.sort_unstable_by_key(|queued| (queued.slot, queued.sequence));
        let mut from = 0;
        let mut kept = 0;
        while from < self.queue.len() {
            let slot = self.queue[from].slot;
            let run = self.queue[from..].iter().take_while(|queued| queued.slot == slot).count();
            let done = self.flush_by(from, from + run);
            for at in from..from + done {
                self.pool.reclaim(SEND, self.queue[at].index);
            }
            // What is not done with moves to the front and waits.
            for at in from + done..from + run {
                self.queue.swap(kept, at);
                kept += 1;
            }
            from += run;
        }
        self.queue.truncate(kept);
        Ok(())
    }

    fn pending(&self) -> usize {
        self.queue.len()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.epoll.0.as_fd()]
    }

    fn frames(&self) -> FrameCount {
        self.pool.count()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
