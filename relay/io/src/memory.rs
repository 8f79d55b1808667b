//! A port without a system: what goes in and out is in the hands of a test.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::pool::{Frame, Owner, Pool, place, spread};
use crate::port::{Burst, Counters, Egress, FRAME_SIZE, FrameCount, HEADROOM, Port, Received, TransmitError};

/// There is one system only.
const SEND: Owner = Owner::Transmit(0);

/// A datagram for a [`MemoryPort`] to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Zone it comes by.
    pub zone: u8,
    /// Destination: our side.
    pub local: SocketAddr,
    /// Source: the peer's side.
    pub remote: SocketAddr,
    /// Direction and epoch, as a kernel program would name them.
    pub tag: Option<(u32, u32)>,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// A datagram that a [`MemoryPort`] has sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where it went.
    pub egress: Egress,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// What both ends share.
#[derive(Debug)]
struct System {
    jammed: AtomicBool,
    /// Readable while something waits to be received.
    signal: EventFd,
}

/// The other end of a [`MemoryPort`]; may be in another thread.
#[derive(Debug)]
pub struct Wire {
    incoming: Sender<Incoming>,
    outgoing: Receiver<Outgoing>,
    system: Arc<System>,
}

impl Wire {
    /// Lets a datagram come in. `false` where the port is gone.
    pub fn inject(&self, datagram: Incoming) -> bool {
        let taken = self.incoming.send(datagram).is_ok();
        // Only a counter at its end refuses, and that is readable too.
        let _ = self.system.signal.write(1);
        taken
    }

    /// The oldest datagram that was sent and not asked for yet.
    pub fn sent(&self) -> Option<Outgoing> {
        self.outgoing.try_recv().ok()
    }

    /// Whether flushes are to leave everything waiting, as a system with full buffers does.
    pub fn jam(&self, jammed: bool) {
        self.system.jammed.store(jammed, Ordering::Relaxed);
    }
}

/// A port whose system is a [`Wire`]. Frames, counters and errors are as with the others; payloads are copied.
#[derive(Debug)]
pub struct MemoryPort {
    buffers: Box<[u8]>,
    pool: Pool,
    incoming: Receiver<Incoming>,
    outgoing: Sender<Outgoing>,
    system: Arc<System>,
    queue: VecDeque<(u32, Range<usize>, Egress)>,
    counters: Counters,
}

impl MemoryPort {
    /// A port of `frames` frames, and its other end.
    ///
    /// # Errors
    /// The system's, where it has no descriptor left.
    pub fn new(frames: u32) -> io::Result<(Self, Wire)> {
        let signal = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let system = Arc::new(System { jammed: AtomicBool::new(false), signal });
        let (into, incoming) = channel();
        let (outgoing, out_of) = channel();
        let port = Self {
            buffers: vec![0; frames as usize * FRAME_SIZE].into_boxed_slice(),
            pool: Pool::new(frames),
            incoming,
            outgoing,
            system: system.clone(),
            queue: VecDeque::new(),
            counters: Counters::default(),
        };
        Ok((port, Wire { incoming: into, outgoing: out_of, system }))
    }

    /// Takes one datagram in; `None` where none waits. Too long ones, and those that find no frame, are counted and gone.
    fn accept(&mut self) -> Option<Option<Received>> {
        let Incoming { zone, local, remote, tag, payload } = self.incoming.try_recv().ok()?;
        let range = HEADROOM..HEADROOM + payload.len();
        if range.end > FRAME_SIZE {
            self.counters.truncated += 1;
            return Some(None);
        }
        let Some(frame) = self.allocate() else { return Some(None) };
        if let Some(room) = self.buffer(&frame).get_mut(range.clone()) {
            room.copy_from_slice(&payload);
        }
        self.counters.received += 1;
        Some(Some(Received { frame, zone, local, remote, payload: range, tag, source_mac: None, vlan: None }))
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, burst: &mut Burst) -> io::Result<usize> {
        // Before looking: what comes in afterwards signals again.
        let _ = self.system.signal.read();
        let mut count = 0;
        while burst.room() > 0 {
            let Some(accepted) = self.accept() else { return Ok(count) };
            let Some(received) = accepted else { continue };
            match burst.push(received) {
                Ok(()) => count += 1,
                Err(received) => self.release(received.frame),
            }
        }
        let _ = self.system.signal.write(1);
        Ok(count)
    }

    fn buffer<'a>(&'a mut self, frame: &Frame) -> &'a mut [u8] {
        let octets = self.pool.index(frame).and_then(|index| self.buffers.get_mut(place(index, FRAME_SIZE)));
        octets.unwrap_or_default()
    }

    fn buffers<'a>(
        &'a mut self,
        frames: &mut dyn Iterator<Item = &Frame>,
        each: &mut dyn FnMut(&'a mut [u8]),
    ) {
        let (names, count) = self.pool.names(frames);
        spread(&mut self.buffers, FRAME_SIZE, names.get(..count).unwrap_or_default(), each);
    }

    fn transmit(
        &mut self,
        frame: Frame,
        payload: Range<usize>,
        egress: &Egress,
    ) -> Result<(), TransmitError> {
        let Some(index) = self.pool.index(&frame) else { return Err(TransmitError::Foreign) };
        if payload.start > payload.end || payload.end > FRAME_SIZE {
            self.release(frame);
            return Err(TransmitError::Short);
        }
        self.pool.accept(frame, SEND);
        self.queue.push_back((index, payload, egress.clone()));
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
        while !self.system.jammed.load(Ordering::Relaxed)
            && let Some((index, range, egress)) = self.queue.pop_front()
        {
            let octets = self.buffers.get(place(index, FRAME_SIZE)).and_then(|frame| frame.get(range));
            let payload = octets.unwrap_or_default().to_vec();
            // A test that dropped its end does not want to know.
            let _ = self.outgoing.send(Outgoing { egress, payload });
            self.pool.reclaim(SEND, index);
        }
        Ok(())
    }

    fn pending(&self) -> usize {
        self.queue.len()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.system.signal.as_fd()]
    }

    fn frames(&self) -> FrameCount {
        self.pool.count()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(n: u8) -> Incoming {
        let local = SocketAddr::from(([192, 0, 2, 1], 10_000));
        let remote = SocketAddr::from(([198, 51, 100, 7], 4_000));
        Incoming { zone: 1, local, remote, tag: Some((5, 6)), payload: vec![n; 172] }
    }

    #[test]
    fn datagrams_come_and_go_as_in_any_port() {
        let (mut port, wire) = MemoryPort::new(128).unwrap();
        let mut burst = Burst::new();
        for n in 0..100 {
            assert!(wire.inject(datagram(n)));
        }
        for (count, first) in [(64, 0), (36, 64)] {
            assert_eq!(port.receive(&mut burst).unwrap(), count);
            for (n, received) in (first..).zip(burst.drain()) {
                assert_eq!(port.buffer(&received.frame)[received.payload.clone()], [n; 172]);
                assert_eq!((received.zone, received.tag), (1, Some((5, 6))));
                let Received { local, remote, zone, .. } = received;
                let egress = Egress { zone: zone + 1, local, remote, link: None };
                port.transmit(received.frame, received.payload, &egress).unwrap();
            }
        }
        wire.jam(true);
        port.flush().unwrap();
        assert_eq!((port.pending(), port.frames().transmit, wire.sent().is_none()), (100, 100, true));
        wire.jam(false);
        port.flush().unwrap();
        let sent: Vec<Outgoing> = std::iter::from_fn(|| wire.sent()).collect();
        assert_eq!((sent.len(), port.pending()), (100, 0));
        for (n, outgoing) in (0..).zip(sent) {
            assert_eq!((outgoing.egress.zone, outgoing.payload), (2, vec![n; 172]));
        }
        assert_eq!((port.frames().free, port.frames().missing()), (128, 0));
    }

    #[test]
    fn it_is_readable_exactly_while_something_waits() {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let (mut port, wire) = MemoryPort::new(128).unwrap();
        let readable = |port: &MemoryPort| {
            poll(&mut [PollFd::new(port.descriptors()[0], PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
        };
        assert!(!readable(&port));
        for n in 0..70 {
            wire.inject(datagram(n));
        }
        for (count, more) in [(64, true), (6, false)] {
            assert!(readable(&port));
            let mut burst = Burst::new();
            assert_eq!(port.receive(&mut burst).unwrap(), count);
            assert_eq!(readable(&port), more);
            burst.drain().for_each(|received| port.release(received.frame));
        }
    }

    #[test]
    fn bad_input_costs_no_frame() {
        let (mut port, wire) = MemoryPort::new(2).unwrap();
        wire.inject(Incoming { payload: vec![0; FRAME_SIZE], ..datagram(0) });
        for n in 0..3 {
            wire.inject(datagram(n));
        }
        let mut burst = Burst::new();
        assert_eq!(port.receive(&mut burst).unwrap(), 2);
        assert_eq!((port.counters().truncated, port.counters().starved), (1, 1));
        let received = burst.drain().next().unwrap();
        let egress = Egress { zone: 2, local: received.local, remote: received.remote, link: None };
        assert_eq!(port.transmit(received.frame, 0..FRAME_SIZE + 1, &egress), Err(TransmitError::Short));
        assert_eq!(port.frames().lost, 1, "the drained burst dropped the other");
        drop(port);
        assert!(!wire.inject(datagram(0)));
    }
}
