//! Copies of what calls send, for recorders and those who listen in.

use sallyport_core::FORK_ROOM;
use sallyport_io::{Egress, HEADROOM};
use sallyport_plan::FlowKey;

use super::Running;
use crate::orders::Notice;

impl<N: Fn(Notice) -> bool> Running<N> {
    /// Sends the copies of what has been forwarded just now, behind it. What cannot leave is lost and counted.
    pub(super) fn send_forks(&mut self) {
        if !self.worker.translator.has_forks() {
            return;
        }
        let mut room = [0; FORK_ROOM];
        while let Some((path, length)) = self.worker.translator.poll_fork(&mut room) {
            let sent = room.get(..length).is_some_and(|copy| self.send_fork(&path, copy));
            self.counts.fork_lost += u64::from(!sent);
        }
    }

    /// Whether it is on its way.
    fn send_fork(&mut self, path: &FlowKey, copy: &[u8]) -> bool {
        let link = self.links.get(path).copied();
        if self.worker.framed && link.is_none() {
            return false;
        }
        let port = self.worker.edge.port();
        let Some(frame) = port.allocate() else { return false };
        let range = HEADROOM..HEADROOM + copy.len();
        let Some(room) = port.buffer(&frame).get_mut(range.clone()) else {
            port.release(frame);
            return false;
        };
        room.copy_from_slice(copy);
        let egress = Egress { zone: path.zone as u8, local: path.local, remote: path.remote, link };
        let sent = port.transmit(frame, range, &egress).is_ok();
        self.counts.sent += u64::from(sent);
        sent
    }
}
