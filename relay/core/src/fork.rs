//! Copies of what directions send ([`sallyport_plan::Fork`]), until the worker has sent them: behind the packets of the burst that
//! they were made of, so that no copy keeps a packet of a call waiting.

use std::collections::VecDeque;
use std::ops::Range;

use sallyport_plan::FlowKey;

/// Octets that a copy has at the most.
pub const FORK_ROOM: usize = 2048;
/// Copies that wait at the most: of what a worker has judged at once, and of its digits.
const COPIES: usize = 128;
const OCTETS: usize = COPIES * 1024;

/// Copies that wait.
#[derive(Debug, Default)]
pub struct Copies {
    /// Empty until a direction has copies.
    octets: Vec<u8>,
    /// How many of the octets are taken.
    filled: usize,
    waiting: VecDeque<(FlowKey, Range<usize>)>,
}

impl Copies {
    /// Takes the memory for copies, once.
    pub fn begin(&mut self) {
        if self.octets.is_empty() {
            self.octets = vec![0; OCTETS];
            self.waiting.reserve(COPIES);
        }
    }

    /// Takes a copy; whether there was room for it. Allocates nothing.
    pub fn push(&mut self, to: FlowKey, packet: &[u8]) -> bool {
        let range = self.filled..self.filled + packet.len();
        let fits = packet.len() <= FORK_ROOM && self.waiting.len() < COPIES;
        let Some(room) = self.octets.get_mut(range.clone()).filter(|_| fits) else { return false };
        room.copy_from_slice(packet);
        self.filled = range.end;
        self.waiting.push_back((to, range));
        true
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The one that waits longest: where it goes and how long it is.
    pub fn pop(&mut self, room: &mut [u8; FORK_ROOM]) -> Option<(FlowKey, usize)> {
        let (to, range) = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            self.filled = 0;
        }
        let copy = self.octets.get(range)?;
        room.get_mut(..copy.len())?.copy_from_slice(copy);
        Some((to, copy.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sallyport_plan::Zone;

    fn to(port: u16) -> FlowKey {
        let [local, remote] = [20_000, port].map(|port| ([10, 0, 0, 1], port).into());
        FlowKey { zone: Zone::Inside, local, remote }
    }

    #[test]
    fn copies_leave_in_order_and_make_room() {
        let mut copies = Copies::default();
        assert!(!copies.push(to(1), &[1]), "nobody asked for any");
        copies.begin();
        let mut room = [0; FORK_ROOM];
        for round in 0..100 {
            let taken =
                (0..200u16).filter(|nth| copies.push(to(*nth), &[nth.to_be_bytes()[1]; 1000])).count();
            assert_eq!(taken, COPIES, "{round}");
            for nth in 0..128u16 {
                let (path, length) = copies.pop(&mut room).unwrap();
                assert_eq!((path, length, room[999]), (to(nth), 1000, nth.to_be_bytes()[1]));
            }
            assert_eq!(copies.pop(&mut room), None);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_the_rest_as_it_is() {
        let mut copies = Copies::default();
        copies.begin();
        assert!(!copies.push(to(1), &[0; FORK_ROOM + 1]));
        let taken = (0..100).filter(|_| copies.push(to(2), &[7; FORK_ROOM])).count();
        assert_eq!(taken, OCTETS / FORK_ROOM);
        let mut room = [0; FORK_ROOM];
        assert_eq!(copies.pop(&mut room), Some((to(2), FORK_ROOM)));
        assert!(!copies.push(to(3), &[7]), "room comes back when all have left");
        assert_eq!(std::iter::from_fn(|| copies.pop(&mut room)).count(), taken - 1);
        assert!(copies.push(to(3), &[7]));
    }
}
