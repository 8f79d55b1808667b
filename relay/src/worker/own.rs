//! Packets of our own, each in a frame of its own.

use sallyport_core::{Now, RESEND_ROOM};
use sallyport_io::HEADROOM;
use sallyport_plan::FlowKey;
use sallyport_wire::frame::Link;

use super::Running;
use crate::orders::Notice;

impl<N: Fn(Notice) -> bool> Running<N> {
    /// Puts `bytes` into a frame of our own and sends it; whether there was one.
    pub(super) fn send(&mut self, path: FlowKey, link: Option<Link>, bytes: &[u8]) -> bool {
        let port = self.worker.edge.port();
        let Some(frame) = port.allocate() else {
            self.counts.no_frame += 1;
            return false;
        };
        let range = HEADROOM..HEADROOM + bytes.len();
        let Some(room) = port.buffer(&frame).get_mut(range.clone()) else {
            port.release(frame);
            self.counts.transmit_failed += 1;
            return false;
        };
        room.copy_from_slice(bytes);
        if self.worker.own.is_hairpin(&path) {
            self.pass_on(frame, range, &path, 0);
        } else {
            self.transmit(frame, range, path, link);
        }
        true
    }

    /// Sends what the translator has to say by itself. What goes to another leg of ours is judged there.
    pub(super) fn send_all(&mut self, due: Vec<(FlowKey, Vec<u8>)>, now: Now) {
        for (path, bytes) in due {
            let link = self.links.get(&path).copied();
            self.send(path, link, &bytes);
        }
        if !self.passed.is_empty() {
            self.translate(now);
        }
    }

    /// Sends what peers have asked for.
    pub(super) fn resend(&mut self, now: Now) {
        let mut room = [0; RESEND_ROOM];
        while let Some((path, length)) = self.worker.translator.poll_resend(now, &mut room) {
            let link = self.links.get(&path).copied();
            let sent = self.send(path, link, room.get(..length).unwrap_or_default());
            self.worker.translator.resent(sent);
        }
        if !self.passed.is_empty() {
            self.translate(now);
        }
    }
}
