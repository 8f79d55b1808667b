//! The UDP port: the same datagrams through ordinary sockets.

mod reading;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use crate::outbox::{self, Buffers, Queued};
use crate::pool::{Frame, Owner, Pool, place, spread};
use crate::port::{Burst, Counters, Egress, FrameCount, FrameSize, Port, Received, TransmitError};
use crate::steer;
use crate::udp::{self, BATCH, SPILL};

/// Octets asked for what a socket has received: of one peer half a second of video. The system doubles it, counts its own
/// data as well, and may give less.
const SOCKET_BUFFER: usize = 256 << 10;
/// The same for a socket that many peers send to: some 16,000 packets of voice, which bridges 50 ms in which the worker does
/// not run at 300,000 packets a second.
const SHARED_BUFFER: usize = 8 << 20;
/// Sockets that one look finds readable at the most.
const LOOK: usize = 128;
/// Name of the reminder among the slots.
const REMINDER: u64 = u64::MAX;

/// All frames of the port belong to one system, as far as ownership goes.
const FILL: Owner = Owner::Fill(0);
const SEND: Owner = Owner::Transmit(0);

/// A bound socket.
#[derive(Debug)]
struct Bound {
    socket: UdpSocket,
    zone: u8,
    local: SocketAddr,
    /// Whether it is among the ready ones.
    ready: bool,
    /// Whether it had many datagrams the last time.
    busy: bool,
    /// Octets of datagrams that may be sent as one payload, which the system cuts up; 0 for none.
    merges: usize,
    /// Octets of payload that leave without being cut.
    whole: usize,
}

/// The port of one worker on the socket path. Sockets come and go while it runs; each is bound to one address and port,
/// by which [`Egress::local`] finds it.
#[derive(Debug)]
pub struct UdpPort {
    buffers: Box<[u8]>,
    /// Octets of a frame.
    size: usize,
    pool: Pool,
    epoll: Epoll,
    slots: Vec<Option<Bound>>,
    vacant: Vec<usize>,
    by_address: HashMap<SocketAddr, usize>,
    /// Slots of sockets that may have more to read. The system tells of each arrival once (`EPOLLET`), which spares it
    /// another look at each socket: one stays here until it was read to its end.
    ready: VecDeque<usize>,
    /// The same, of those that had many datagrams the last time.
    busy: VecDeque<usize>,
    events: Vec<EpollEvent>,
    /// Readable while something is left to do that the system will not tell of again.
    reminder: EventFd,
    reminded: bool,
    /// What was merged beyond the room of a burst.
    waiting: VecDeque<Received>,
    /// Where merged datagrams go on behind their frames; empty where nothing is merged.
    spill: Box<[u8]>,
    /// Frames that the next system call receives into.
    armed: Vec<u32>,
    queue: Vec<Queued>,
    sequence: u64,
    counters: Counters,
    devices: HashMap<u8, OsString>,
    dscps: HashMap<u8, u8>,
    mtus: HashMap<u8, u32>,
}

impl UdpPort {
    /// A port of `frames` ordinary frames without sockets.
    ///
    /// # Errors
    /// The system's, where it has no descriptor left.
    pub fn new(frames: u32) -> io::Result<Self> {
        Self::with_frames(frames, FrameSize::Ordinary)
    }

    /// As [`UdpPort::new`], with frames of a size.
    ///
    /// # Errors
    /// As [`UdpPort::new`].
    pub fn with_frames(frames: u32, size: FrameSize) -> io::Result<Self> {
        let size = size.octets();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let reminder = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&reminder, EpollEvent::new(EpollFlags::EPOLLIN, REMINDER))?;
        Ok(Self {
            buffers: vec![0; frames as usize * size].into_boxed_slice(),
            size,
            pool: Pool::new(frames),
            epoll,
            slots: Vec::new(),
            vacant: Vec::new(),
            by_address: HashMap::new(),
            ready: VecDeque::with_capacity(LOOK),
            busy: VecDeque::new(),
            events: vec![EpollEvent::empty(); LOOK],
            reminder,
            reminded: false,
            waiting: VecDeque::new(),
            spill: Box::default(),
            armed: Vec::with_capacity(BATCH),
            queue: Vec::with_capacity(frames as usize),
            sequence: 0,
            counters: Counters::default(),
            devices: HashMap::new(),
            dscps: HashMap::new(),
            mtus: HashMap::new(),
        })
    }

    /// From now on the system may merge datagrams of one flow that come one behind the other to sockets that are opened,
    /// and is given such to send as one payload. Costs 4 MiB.
    pub fn merge(&mut self) {
        self.spill = vec![0; SPILL * BATCH].into_boxed_slice();
    }

    /// Binds the sockets of a zone that are opened from now on to an interface: without, the system would take a packet to
    /// their address from any (RFC 1122 section 3.3.4.2, the weak host model).
    pub fn belong(&mut self, zone: u8, interface: &str) {
        self.devices.insert(zone, interface.into());
    }

    /// Marks what leaves by the sockets of a zone that are opened from now on with a DSCP, 0 to 63 (RFC 2474).
    pub fn mark(&mut self, zone: u8, dscp: u8) {
        self.dscps.insert(zone, dscp);
    }

    /// Says what MTU the interface of a zone has, by which the system cuts what is longer. Sockets that are opened from now on
    /// count that, and are not given what would have to be cut as parts of one payload. The system obeys no lower MTU: it has no
    /// word for one of IPv4, and cuts by one of IPv6 (`IPV6_MTU`) only what is longer than the interface's.
    pub fn limit(&mut self, zone: u8, mtu: u32) {
        self.mtus.insert(zone, mtu);
    }

    /// Binds a socket to one address of a zone; port 0 lets the system choose. Returns the address it has.
    ///
    /// # Errors
    /// The system's (address in use, not ours), or `InvalidInput` for an unspecified address: replies could then leave
    /// from another one.
    pub fn bind(&mut self, zone: u8, address: SocketAddr) -> io::Result<SocketAddr> {
        let socket = open(address, self.devices.get(&zone), false)?;
        self.adopt(zone, socket)
    }

    /// Binds one address of a zone once for each of several ports, whose sockets then share it: [`crate::steer()`] tells which
    /// of them hears whom. Where somebody else has the address it fails; later only a process of the same user that asks to
    /// share could join. Port 0 lets the system choose. Returns the address.
    ///
    /// # Errors
    /// As [`UdpPort::bind`]; `Unsupported` where the system does not let us steer. Ports may have been given their sockets
    /// already: they are of no use then.
    pub fn share(ports: &mut [Self], zone: u8, address: SocketAddr) -> io::Result<SocketAddr> {
        let count = u32::try_from(ports.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let [first, others @ ..] = ports else { return Err(io::ErrorKind::InvalidInput.into()) };
        let socket = open(address, first.devices.get(&zone), false)?;
        if !others.is_empty() {
            setsockopt(&socket, sockopt::ReusePort, &true)?;
        }
        let local = first.adopt(zone, socket)?;
        let program = steer::program(local.is_ipv4(), count);
        for (at, port) in others.iter_mut().enumerate() {
            let socket = open(local, port.devices.get(&zone), true)?;
            if at == 0 {
                // The second made them a group. A place that is not taken yet falls back to the system's own choice.
                udp::set_steering(socket.as_fd(), &program)
                    .map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))?;
            }
            port.adopt(zone, socket)?;
        }
        for port in ports {
            let slot = port.by_address.get(&local);
            if let Some(bound) = slot.and_then(|slot| port.slots.get(*slot)).and_then(Option::as_ref) {
                enlarge(&bound.socket, SHARED_BUFFER);
            }
        }
        Ok(local)
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
        if let Some(dscp) = self.dscps.get(&zone) {
            udp::set_dscp(socket.as_fd(), local.is_ipv4(), *dscp)?;
        }
        udp::set_fragmenting(socket.as_fd(), local.is_ipv4())?;
        let headers = if local.is_ipv4() { 28 } else { 48 };
        let whole = self.mtus.get(&zone).map_or(usize::MAX, |mtu| (*mtu as usize).saturating_sub(headers));
        enlarge(&socket, SOCKET_BUFFER);
        let merges = if self.spill.is_empty() { 0 } else { whole };
        if merges > 0 {
            // A kernel that cannot merge gives them one by one.
            let _ = udp::set_merging(socket.as_fd());
        }
        let slot = self.vacant.last().copied().unwrap_or(self.slots.len());
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(&socket, EpollEvent::new(readable, slot as u64))?;
        let bound = Some(Bound { socket, zone, local, ready: false, busy: false, merges, whole });
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
        self.part(address).is_some()
    }

    /// As [`UdpPort::unbind`], but the socket stays open, with what it has received: for another port to adopt.
    pub fn part(&mut self, address: SocketAddr) -> Option<UdpSocket> {
        let slot = self.by_address.remove(&address)?;
        let bound = self.slots.get_mut(slot).and_then(Option::take)?;
        // Closing alone would leave the registration to other holders of the same socket.
        let _ = self.epoll.delete(&bound.socket);
        self.ready.retain(|ready| *ready != slot);
        self.busy.retain(|busy| *busy != slot);
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
        Some(bound.socket)
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
}

/// A socket bound to one address, and to an interface where one is named. To `share`, all that are bound to the address must
/// ask for it.
fn open(address: SocketAddr, device: Option<&OsString>, share: bool) -> io::Result<UdpSocket> {
    if address.ip().is_unspecified() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a media socket needs a specific address"));
    }
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = UdpSocket::from(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?);
    // Before it is bound: sockets share an address with those of their own interface only.
    if let Some(device) = device {
        setsockopt(&socket, sockopt::BindToDevice, device)?;
    }
    if share {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

/// Gives a socket more room to receive into. Beyond the system's limit only with CAP_NET_ADMIN; less is no reason to fail.
fn enlarge(socket: &UdpSocket, octets: usize) {
    let _ = setsockopt(socket, sockopt::RcvBufForce, &octets)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &octets));
}

impl Port for UdpPort {
    fn receive(&mut self, burst: &mut Burst) -> io::Result<usize> {
        self.fill(burst)
    }

    fn buffer<'a>(&'a mut self, frame: &Frame) -> &'a mut [u8] {
        let octets = self.pool.index(frame).and_then(|index| self.buffers.get_mut(place(index, self.size)));
        octets.unwrap_or_default()
    }

    fn buffers<'a>(
        &'a mut self,
        frames: &mut dyn Iterator<Item = &Frame>,
        each: &mut dyn FnMut(&'a mut [u8]),
    ) {
        let (names, count) = self.pool.names(frames);
        spread(&mut self.buffers, self.size, names.get(..count).unwrap_or_default(), each);
    }

    fn transmit(
        &mut self,
        frame: Frame,
        payload: Range<usize>,
        egress: &Egress,
    ) -> Result<(), TransmitError> {
        let Some(index) = self.pool.index(&frame) else { return Err(TransmitError::Foreign) };
        let slot = self.route(egress);
        let fits = payload.start <= payload.end && payload.end <= self.size;
        let (Some(slot), true) = (slot, fits) else {
            self.release(frame);
            return Err(if fits { TransmitError::NoSocket } else { TransmitError::Short });
        };
        self.pool.accept(frame, SEND);
        let bound = self.slots.get(slot).and_then(Option::as_ref);
        if bound.is_some_and(|bound| payload.len() > bound.whole) {
            self.counters.fragment(egress.zone);
        }
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
            let done = match self.slots.get_mut(slot).and_then(Option::as_mut) {
                Some(bound) => {
                    let queued = &self.queue[from..from + run];
                    let buffers = Buffers { octets: &self.buffers, size: self.size };
                    let sent = outbox::send(bound.socket.as_fd(), buffers, queued, &mut bound.merges);
                    self.counters.refused += sent.refused;
                    self.counters.merged_out += sent.merged;
                    sent.done
                }
                None => 0,
            };
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
