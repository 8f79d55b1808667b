//! Reading: which sockets have something, how much of it is taken at once, and what the system merged.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;

use nix::sys::epoll::EpollTimeout;

use super::{FILL, UdpPort};
use crate::pool::{Frame, place};
use crate::port::{Burst, HEADROOM, Port, Received};
use crate::udp::{self, BATCH, Incoming, SPILL};

/// Datagrams that are asked of a socket which had few the last time. Getting fewer than asked for says that no more are
/// there, and spares another call that finds nothing.
const FEW: usize = 4;

impl UdpPort {
    /// Octets of a datagram that a frame has room for.
    const fn room(&self) -> usize {
        self.size - HEADROOM
    }

    /// Asks which sockets have become readable; those that were before come first.
    fn look(&mut self) -> io::Result<()> {
        let count = self.epoll.wait(&mut self.events, EpollTimeout::ZERO)?;
        for event in self.events.iter().take(count) {
            let Ok(slot) = usize::try_from(event.data()) else { continue };
            let bound = self.slots.get_mut(slot).and_then(Option::as_mut);
            if let Some(bound) = bound.filter(|bound| !bound.ready) {
                bound.ready = true;
                let queue = if bound.busy { &mut self.busy } else { &mut self.ready };
                queue.push_back(slot);
            }
        }
        Ok(())
    }

    /// Whether something is left that the system has told of already.
    fn left(&self) -> bool {
        !self.ready.is_empty() || !self.busy.is_empty() || !self.waiting.is_empty()
    }

    /// Makes the port's descriptor readable as long as something is left that the system has told of already.
    fn remind(&mut self) {
        let left = self.left();
        if left != self.reminded {
            // Neither can fail: the count is 0 or 1.
            let _ = if left { self.reminder.write(1).map(drop) } else { self.reminder.read().map(drop) };
            self.reminded = left;
        }
    }

    /// Takes `wanted` frames to receive into, or as many as there are.
    fn arm(&mut self, wanted: usize) -> usize {
        while self.armed.len() < wanted {
            let Some(index) = self.pool.take(FILL) else {
                self.counters.starved += 1;
                break;
            };
            self.armed.push(index);
        }
        self.armed.len().min(wanted)
    }

    /// Fills the burst: with what waits, then from sockets. How many it has more.
    pub(super) fn fill(&mut self, burst: &mut Burst) -> io::Result<usize> {
        let before = burst.len();
        while burst.room() > 0
            && let Some(received) = self.waiting.pop_front()
        {
            // There is room.
            let _ = burst.push(received);
        }
        if self.ready.len() < super::LOOK {
            self.look()?;
        }
        // Half of the burst is for one of the busy ones: behind the outside's are half of all packets, and it must neither
        // wait for all of the inside's, nor they for it.
        if let Some(slot) = self.busy.pop_front() {
            self.serve(slot, burst.room().div_ceil(2), burst);
        }
        // Each socket once: those that have more wait behind the others.
        for _ in 0..self.ready.len() {
            let room = burst.room();
            if let Some(slot) = self.ready.pop_front_if(|_| room > 0) {
                self.serve(slot, room, burst);
            }
        }
        for _ in 0..self.busy.len() {
            let room = burst.room();
            if let Some(slot) = self.busy.pop_front_if(|_| room > 0) {
                self.serve(slot, room, burst);
            }
        }
        self.remind();
        Ok(burst.len() - before)
    }

    /// Serves one of the ready sockets, and puts it back where it may have more.
    fn serve(&mut self, slot: usize, most: usize, burst: &mut Burst) {
        let more = self.receive_by(slot, most, burst);
        let Some(bound) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        bound.ready = more;
        match (more, bound.busy) {
            (true, true) => self.busy.push_back(slot),
            (true, false) => self.ready.push_back(slot),
            (false, _) => {}
        }
    }

    /// Receives by one socket what is there, at most `most` datagrams. Whether there may be more.
    fn receive_by(&mut self, slot: usize, most: usize, burst: &mut Burst) -> bool {
        let Some(busy) = self.slots.get(slot).and_then(Option::as_ref).map(|bound| bound.busy) else {
            return false;
        };
        let wanted = self.arm(most.min(if busy { BATCH } else { FEW }));
        let Some(bound) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
        if wanted == 0 {
            return true;
        }
        let size = self.size;
        let rooms = self.armed.iter().take(wanted).map(|index| place(*index, size));
        let rooms = rooms.map(|place| place.start + HEADROOM..place.end);
        let mut found = [Incoming::default(); BATCH];
        let (fd, spill) = (bound.socket.as_fd(), &mut self.spill);
        let received = if busy {
            udp::receive::<BATCH>(fd, &mut self.buffers, spill, rooms, &mut found)
        } else {
            udp::receive::<FEW>(fd, &mut self.buffers, spill, rooms, &mut found)
        };
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                bound.busy = false;
                let nothing = error.kind() == io::ErrorKind::WouldBlock;
                let real = !nothing && error.kind() != io::ErrorKind::Interrupted;
                self.counters.errors += u64::from(real);
                // An error, such as one that an ICMP message brought, is told once, in front of what was received.
                return !nothing;
            }
        };
        bound.busy = received >= FEW;
        let by = (bound.zone, bound.local);
        let mut armed = std::mem::take(&mut self.armed);
        for (at, (index, incoming)) in armed.drain(..received.min(wanted)).zip(found).enumerate() {
            self.accept(index, at, incoming, by, burst);
        }
        self.armed = armed;
        received == wanted
    }

    /// Hands out what came into a frame and the spill `at`.
    fn accept(&mut self, index: u32, at: usize, incoming: Incoming, by: (u8, SocketAddr), burst: &mut Burst) {
        let Incoming { length, segment, truncated, source } = incoming;
        let segment = if segment == 0 { length } else { segment };
        let count = if segment == 0 { 1 } else { length.div_ceil(segment) as u64 };
        let Some(remote) = source.filter(|_| !truncated && segment <= self.room()) else {
            let class = match source {
                Some(_) => &mut self.counters.truncated,
                None => &mut self.counters.malformed,
            };
            *class += count;
            self.pool.reclaim(FILL, index);
            return;
        };
        let Some(frame) = self.pool.hand_out(FILL, index) else { return };
        let (zone, local) = by;
        let received = |frame, octets| {
            let payload = HEADROOM..HEADROOM + octets;
            Received { frame, zone, local, remote, payload, tag: None, source_mac: None, vlan: None }
        };
        self.deliver(received(frame, segment.min(length)), burst);
        self.counters.merged_in += if count > 1 { count } else { 0 };
        let mut from = segment;
        while from < length {
            let to = (from + segment).min(length);
            // Where no frame is free, it is counted as starved, and this datagram is lost as one in the system's buffer is.
            if let Some(frame) = self.allocate() {
                self.copy_out(&frame, index, at, from..to);
                self.deliver(received(frame, to - from), burst);
            }
            from = to;
        }
    }

    /// Copies octets of merged datagrams, which begin in the frame `index` and go on in the spill `at`, to a frame of their
    /// own.
    fn copy_out(&mut self, frame: &Frame, index: u32, at: usize, octets: Range<usize>) {
        let (size, room) = (self.size, self.room());
        let Some(to) = self.pool.index(frame).map(|index| place(index, size).start + HEADROOM) else {
            return;
        };
        let from = place(index, size).start + HEADROOM;
        let inner = octets.start.min(room)..octets.end.min(room);
        let outer = octets.start.max(room) - room..octets.end.max(room) - room;
        let outer_to = to + inner.len()..to + octets.len();
        self.buffers.copy_within(from + inner.start..from + inner.end, to);
        let spill = self.spill.get(at * SPILL + outer.start..at * SPILL + outer.end);
        if let (Some(spill), Some(room)) = (spill, self.buffers.get_mut(outer_to)) {
            room.copy_from_slice(spill);
        }
    }

    /// Adds a datagram to the burst, or lets it wait for the next one, behind those that wait.
    fn deliver(&mut self, received: Received, burst: &mut Burst) {
        self.counters.received += 1;
        // None waits while there is room: this keeps them in order.
        if let Err(received) = burst.push(received) {
            self.waiting.push_back(received);
        }
    }
}
