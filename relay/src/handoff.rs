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
/// Octets that one place of a ring holds; longer packets take several.
const STRAY_MAX: usize = 1500;
/// Places that a packet takes at the most.
const PIECES: usize = 3;

/// A packet on its way to the worker that owns its direction, or a piece of it.
struct Stray {
    /// Whose direction.
    pub tag: Tag,
    /// Where it came from.
    pub key: FlowKey,
    /// How often it was passed on from one leg of ours to another.
    pub hairpins: u8,
    /// Whether the next stray is the next piece of the same packet.
    pub more: bool,
    length: u16,
    bytes: [u8; STRAY_MAX],
}

impl Stray {
    /// UDP payload, or a piece of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// One worker's ends of all rings.
pub struct Handoff {
    outgoing: Vec<Option<(Producer<Stray>, Arc<EventFd>)>>,
    incoming: Vec<Consumer<Stray>>,
    /// The ring that the next piece of a packet is to be taken from.
    open: Option<usize>,
    asleep: u64,
    /// Packets pushed since others were woken.
    pushed: usize,
}

/// Makes the rings between workers that are woken by these descriptors; `streams` is the one that has TCP connections.
pub fn mesh(wakes: &[Arc<EventFd>], streams: Option<usize>) -> Vec<Handoff> {
    let end = || Handoff { outgoing: Vec::new(), incoming: Vec::new(), open: None, asleep: 0, pushed: 0 };
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
        let count = packet.len().div_ceil(STRAY_MAX).max(1);
        let piece = |nth: usize| {
            let bytes = packet.chunks(STRAY_MAX).nth(nth).unwrap_or_default();
            let more = nth + 1 < count;
            let length = u16::try_from(bytes.len()).unwrap_or_default();
            let mut stray = Stray { tag, key, hairpins, more, length, bytes: [0; STRAY_MAX] };
            if let Some(room) = stray.bytes.get_mut(..bytes.len()) {
                room.copy_from_slice(bytes);
            }
            stray
        };
        let pushed = match count {
            1 => producer.push(piece(0)).is_ok(),
            2..=PIECES => {
                // All or none.
                let chunk = producer.write_chunk_uninit(count);
                chunk.is_ok_and(|chunk| chunk.fill_from_iter((0..count).map(piece)) == count)
            }
            _ => false,
        };
        if pushed {
            self.asleep |= 1 << (to % 64);
            self.pushed += 1;
            if self.pushed >= EAGER {
                self.wake_others();
            }
        }
        pushed
    }

    /// Takes one packet from any of the others, or the next piece of the last one, all of which are there.
    fn pop(&mut self) -> Option<Stray> {
        let open = self.open.take();
        let mut rings = self.incoming.iter_mut().enumerate();
        let (at, stray) = rings.find_map(|(at, ring)| {
            let looked = open.is_none_or(|open| open == at);
            looked.then(|| ring.pop().ok()).flatten().map(|stray| (at, stray))
        })?;
        self.open = stray.more.then_some(at);
        Some(stray)
    }

    /// Takes one packet: what is known of it, each of its pieces being handed to `each` in order.
    pub fn pop_whole(&mut self, mut each: impl FnMut(&[u8])) -> Option<(Tag, FlowKey, u8)> {
        let mut piece = self.pop()?;
        let Stray { tag, key, hairpins, .. } = piece;
        loop {
            each(piece.bytes());
            match piece.more.then(|| self.pop()).flatten() {
                Some(next) => piece = next,
                None => return Some((tag, key, hairpins)),
            }
        }
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
        assert!(!ends[0].push(of(1), key, 0, &[0; PIECES * STRAY_MAX + 1]));
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

    #[test]
    fn long_packets_are_handed_over_whole_or_not_at_all() {
        let mut ends = mesh(&[wake(), wake(), wake()], None);
        let here = SocketAddr::from(([192, 0, 2, 1], 1));
        let key = FlowKey { zone: Zone::Outside, local: here, remote: here };
        let to = Tag { direction: DirectionId::new(2, 0), epoch: 1 };
        let packet = |from: u8, octets: usize| vec![from; octets];
        for octets in [STRAY_MAX, STRAY_MAX + 1, 3776] {
            // Another's packets must not come in between.
            for from in [1, 0] {
                assert!(ends[usize::from(from)].push(to, key, 0, &packet(from, octets)));
            }
            for from in [0, 1] {
                let mut whole = Vec::new();
                loop {
                    let piece = ends[2].pop().unwrap();
                    whole.extend_from_slice(piece.bytes());
                    if !piece.more {
                        break;
                    }
                    // The ring of the lower number has something as well, from now on.
                    assert!(from == 0 || ends[0].push(to, key, 0, b"later"));
                }
                assert_eq!(whole, packet(from, octets));
            }
            while ends[2].pop().is_some() {}
        }
        for _ in 0..RING - 2 {
            assert!(ends[0].push(to, key, 0, b"x"));
        }
        assert!(!ends[0].push(to, key, 0, &packet(0, 3776)), "two places are left");
        assert!(ends[0].push(to, key, 0, &packet(0, 1501)));
    }
}
