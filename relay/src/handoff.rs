//! Packets that reached the wrong worker: a bounded ring from each worker to each other one.

use std::sync::Arc;

use nix::sys::eventfd::EventFd;
use rtrb::{Consumer, Producer, RingBuffer};
use sallyport_core::Tag;
use sallyport_plan::FlowKey;

/// Strays that a ring holds; more are dropped and counted.
const RING: usize = 256;
/// Frames of TCP connections that a ring holds: they come as their senders' networks let them, many at once.
const STREAMS: usize = 1024;
/// Packets after which their owner is woken without waiting for the end of the burst.
const EAGER: usize = 64;
/// Octets of the longest stray.
const STRAY_MAX: usize = 1500;

/// A packet on its way to the worker that owns its direction.
pub struct Stray {
    /// Whose direction.
    pub tag: Tag,
    /// Where it came from.
    pub key: FlowKey,
    /// How often it was passed on from one leg of ours to another.
    pub hairpins: u8,
    length: u16,
    bytes: [u8; STRAY_MAX],
}

impl Stray {
    /// UDP payload.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// One worker's ends of all rings.
pub struct Handoff {
    outgoing: Vec<Option<(Producer<Stray>, Arc<EventFd>)>>,
    incoming: Vec<Consumer<Stray>>,
    asleep: u64,
    /// Packets pushed since others were woken.
    pushed: usize,
}

/// Makes the rings between workers that are woken by these descriptors; `streams` is the one that has TCP connections.
pub fn mesh(wakes: &[Arc<EventFd>], streams: Option<usize>) -> Vec<Handoff> {
    let end = || Handoff { outgoing: Vec::new(), incoming: Vec::new(), asleep: 0, pushed: 0 };
    let mut ends: Vec<Handoff> = wakes.iter().map(|_| end()).collect();
    for from in 0..wakes.len() {
        let room = if streams == Some(from) { STREAMS } else { RING };
        for (to, wake) in wakes.iter().enumerate() {
            let ring = (from != to).then(|| RingBuffer::new(room));
            let outgoing = ring.map(|(producer, consumer)| {
                ends[to].incoming.push(consumer);
                (producer, wake.clone())
            });
            ends[from].outgoing.push(outgoing);
        }
    }
    ends
}

impl Handoff {
    /// Copies a packet into the ring toward the worker that owns its direction; whether it fitted.
    pub fn push(&mut self, tag: Tag, key: FlowKey, hairpins: u8, packet: &[u8]) -> bool {
        let to = tag.direction.worker();
        let Some(Some((producer, _))) = self.outgoing.get_mut(usize::from(to)) else { return false };
        let mut stray = Stray { tag, key, hairpins, length: 0, bytes: [0; STRAY_MAX] };
        let Some(room) = stray.bytes.get_mut(..packet.len()) else { return false };
        room.copy_from_slice(packet);
        stray.length = u16::try_from(packet.len()).unwrap_or_default();
        let pushed = producer.push(stray).is_ok();
        if pushed {
            self.asleep |= 1 << (to % 64);
            self.pushed += 1;
            if self.pushed >= EAGER {
                self.wake_others();
            }
        }
        pushed
    }

    /// Takes one packet from any of the others.
    pub fn pop(&mut self) -> Option<Stray> {
        self.incoming.iter_mut().find_map(|ring| ring.pop().ok())
    }

    /// Wakes the workers that were given something since the last call.
    pub fn wake_others(&mut self) {
        if self.asleep == 0 {
            return;
        }
        for (to, end) in self.outgoing.iter().enumerate() {
            if let Some((_, wake)) = end
                && self.asleep & (1 << (to % 64)) != 0
            {
                let _ = wake.write(1);
            }
        }
        self.asleep = 0;
        self.pushed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::EfdFlags;
    use sallyport_core::DirectionId;
    use sallyport_plan::Zone;
    use std::net::SocketAddr;

    fn wake() -> Arc<EventFd> {
        Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap())
    }

    #[test]
    fn strays_reach_their_owner_and_a_full_ring_refuses() {
        let wakes = [wake(), wake(), wake()];
        let mut ends = mesh(&wakes, Some(1));
        let here = SocketAddr::from(([192, 0, 2, 1], 1));
        let key = FlowKey { zone: Zone::Outside, local: here, remote: here };
        let of = |worker| Tag { direction: DirectionId::new(worker, 0), epoch: 1 };
        for n in 0..RING {
            assert!(ends[0].push(of(2), key, 3, &[n as u8]));
        }
        assert!(!ends[0].push(of(2), key, 0, &[0]));
        assert!(!ends[0].push(of(0), key, 0, &[0]), "no ring to oneself");
        assert!(!ends[0].push(of(1), key, 0, &[0; STRAY_MAX + 1]));
        ends[0].wake_others();
        assert!(wakes[2].read().is_ok() && wakes[1].read().is_err());
        for n in 0..RING {
            let stray = ends[2].pop().unwrap();
            assert_eq!((stray.bytes(), stray.tag, stray.hairpins), (&[n as u8][..], of(2), 3));
        }
        assert!(ends[2].pop().is_none() && ends[1].pop().is_none());
        let fits = (0..).take_while(|_| ends[1].push(of(0), key, 0, &[0])).count();
        assert_eq!(fits, STREAMS);
    }
}
