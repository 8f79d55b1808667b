//! On XDP: by whose queue a browser's packets come.
//!
//! The network card spreads pairs of addresses over its queues, and nobody asks it how. But a browser's checks come before its
//! call is installed: whoever heard them serves the queue that its media will come by, so its call belongs there. What the
//! other side sends may come by another queue, and is handed over.

use std::collections::{HashMap, VecDeque};

use sallyport_plan::{CallId, FlowKey};

use super::Uplink;

/// Pairs that are remembered: those of browsers whose calls are being set up.
const REMEMBERED: usize = 4096;

/// Who heard whom.
#[derive(Debug, Default)]
pub struct Arrivals {
    workers: HashMap<FlowKey, u8>,
    order: VecDeque<FlowKey>,
}

impl Arrivals {
    /// A packet of this pair came to this worker.
    pub fn note(&mut self, path: FlowKey, worker: u8) {
        if self.workers.insert(path, worker).is_some() {
            return;
        }
        self.order.push_back(path);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.workers.remove(&oldest);
        }
    }

    /// Who heard the pair last.
    pub fn of(&self, path: &FlowKey) -> Option<u8> {
        self.workers.get(path).copied()
    }
}

/// Whether a worker that has `own` calls may take another one while the one with the fewest has `fewest`: cards that look at
/// addresses only send everything behind one NAT to one queue.
const fn has_room(own: usize, fewest: usize) -> bool {
    own <= 2 * (fewest + 8)
}

impl Uplink {
    /// The worker that a new call belongs to for the sake of its browser's packets; `None` where nothing speaks for any.
    pub(super) fn nearest(&self, call: CallId) -> Option<u8> {
        self.offload.as_ref()?;
        let plan = self.state.installing.get(&call)?.front()?;
        let worker = self.state.arrivals.of(self.browser(plan)?)?;
        let load = self.load();
        let own = load.get(usize::from(worker)).copied()?;
        has_room(own, load.iter().copied().min().unwrap_or(0)).then_some(worker)
    }
}

#[cfg(test)]
mod tests {
    use sallyport_plan::Zone;

    use super::*;

    fn path(port: u16) -> FlowKey {
        let address = |port| std::net::SocketAddr::from(([192, 0, 2, 1], port));
        FlowKey { zone: Zone::Outside, local: address(10_000), remote: address(port) }
    }

    #[test]
    fn the_last_one_who_heard_a_pair_is_known_and_old_pairs_are_forgotten() {
        let mut arrivals = Arrivals::default();
        for port in 0..5000 {
            arrivals.note(path(port), 1);
            arrivals.note(path(port), (port % 4) as u8);
        }
        assert_eq!((arrivals.of(&path(4999)), arrivals.of(&path(4998))), (Some(3), Some(2)));
        assert_eq!(arrivals.of(&path(5000 - REMEMBERED as u16)), Some(0));
        assert_eq!(arrivals.of(&path(4999 - REMEMBERED as u16)), None);
        assert_eq!((arrivals.workers.len(), arrivals.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn nobody_takes_all_calls_for_the_sake_of_nearness() {
        assert!(has_room(0, 0) && has_room(16, 0) && !has_room(17, 0));
        assert!(has_room(216, 100) && !has_room(217, 100));
    }
}
