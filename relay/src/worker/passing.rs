//! Packets that stay inside the relay: from worker to worker, and from one leg of ours to another.

use std::ops::Range;
use std::time::Instant;

use sallyport_core::{DirectionId, Tag};
use sallyport_io::{Frame, HEADROOM};
use sallyport_plan::FlowKey;

use super::{Due, Running, STRAYS, Worker};
use crate::hairpin::{HAIRPINS_MAX, arrival};
use crate::orders::Notice;

impl<N: Fn(Notice) -> bool> Running<N> {
    /// The tag of a flow, be it ours or another worker's.
    pub(super) fn tag_of(&self, key: &FlowKey) -> Option<Tag> {
        let routes = || self.routes.get(key).or_else(|| self.routes.get(&key.of_any_port())).copied();
        self.worker.translator.lookup(key).or_else(routes)
    }

    /// Gives a packet that was to leave by `path` to the flow of ours at its other end, as if it had come in there. Without
    /// such a flow it is judged as anybody's.
    pub(super) fn pass_on(&mut self, frame: Frame, payload: Range<usize>, path: &FlowKey, hairpins: u8) {
        if hairpins >= HAIRPINS_MAX {
            self.counts.hairpin_loop += 1;
            self.worker.edge.port().release(frame);
            return;
        }
        self.counts.hairpins += 1;
        let key = arrival(path);
        let due = Due { frame, payload, key, tag: self.tag_of(&key), hairpins: hairpins + 1 };
        if let Some(due) = self.keep_own(due) {
            self.passed.push(due);
        }
    }

    /// Gives a packet that leaves by a TCP connection to whoever has those.
    pub(super) fn hand_to_tcp(&mut self, frame: Frame, payload: Range<usize>, path: FlowKey) {
        let bytes = self.worker.edge.port().buffer(&frame).get(payload).unwrap_or_default();
        let to = self.worker.tcp.map(|tcp| Tag { direction: DirectionId::new(tcp, 0), epoch: 0 });
        let taken = to.is_some_and(|to| self.worker.handoff.push(to, path, 0, bytes));
        self.worker.edge.port().release(frame);
        if taken {
            self.counts.sent += 1;
        } else {
            self.counts.transmit_full += 1;
        }
    }

    /// A packet that this worker has to judge comes back; one of another worker is handed over.
    pub(super) fn keep_own(&mut self, due: Due) -> Option<Due> {
        let Some(tag) = due.tag.filter(|tag| tag.direction.worker() != self.worker.index) else {
            return Some(due);
        };
        let Due { frame, payload, key, hairpins, .. } = due;
        let bytes = self.worker.edge.port().buffer(&frame).get(payload).unwrap_or_default();
        let taken = self.worker.handoff.push(tag, key, hairpins, bytes);
        self.worker.edge.port().release(frame);
        if taken {
            self.counts.strays += 1;
        } else {
            self.counts.stray_overflow += 1;
        }
        None
    }

    /// Puts the next packet that was handed over into a frame of ours; whether there was one.
    fn take_stray(&mut self) -> bool {
        let Worker { edge, handoff, .. } = &mut self.worker;
        let port = edge.port();
        let (mut taken, mut end, mut fits) = (None, HEADROOM, true);
        let packet = handoff.pop_whole(|bytes| {
            if let Some(frame) = taken.get_or_insert_with(|| port.allocate()) {
                match port.buffer(frame).get_mut(end..end + bytes.len()) {
                    Some(room) => room.copy_from_slice(bytes),
                    None => fits = false,
                }
            }
            end += bytes.len();
        });
        let Some((tag, key, hairpins)) = packet else { return false };
        match taken.flatten() {
            None => self.counts.no_frame += 1,
            Some(frame) if !fits => {
                port.release(frame);
                self.counts.stray_overflow += 1;
            }
            Some(frame) => {
                self.due.push(Due { frame, payload: HEADROOM..end, key, tag: Some(tag), hairpins });
            }
        }
        true
    }

    /// Judges what other workers handed over.
    pub(super) fn take_strays(&mut self) {
        for taken in 1..=STRAYS {
            if !self.take_stray() {
                break;
            }
            if taken == STRAYS {
                // There may be more: the next sleep ends at once.
                let _ = self.worker.wake.write(1);
            }
        }
        if self.due.is_empty() {
            return;
        }
        self.translate(self.now());
        if let Some(residence) = &mut self.residence {
            // When these arrived is not known here.
            residence.arrived(Instant::now());
        }
    }
}
