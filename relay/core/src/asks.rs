//! Questions for what is missing, by the timer of each direction that has any.

use std::cmp::Reverse;

use sallyport_plan::FlowKey;

use crate::Now;
use crate::direction::{NACK_ROOM, REPORT_ROOM};
use crate::missing::Missing;
use crate::table::Tag;
use crate::translator::{REPORTS, Translator};

impl Translator {
    /// Has a direction ask for what it misses, unless that comes in the meantime.
    pub(crate) fn ask_later(&mut self, slot: usize, now: Now) {
        if let Some(Tag { direction, epoch }) = self.table.tag(slot) {
            self.asks_due.push(Reverse((Missing::first_due(now), direction, epoch)));
        }
    }

    /// Asks through `send`, and for a whole picture where a packet is given up.
    pub(crate) fn handle_asks(&mut self, now: Now, send: &mut dyn FnMut(&FlowKey, &[u8])) {
        for _ in 0..REPORTS {
            let Some(Reverse((at, direction, epoch))) = self.asks_due.peek().copied() else { return };
            if at > now {
                return;
            }
            self.asks_due.pop();
            let Some(slot) = self.table.owned(Tag { direction, epoch }) else { continue };
            let Some((one, Some(back))) = self.table.pair(slot) else { continue };
            let mut room = [0; NACK_ROOM];
            let asking = one.ask_again(back, &mut room, now);
            self.stats.given_up += asking.given_up;
            if let Some((to, length)) = asking.sent {
                self.stats.asked += asking.named;
                send(&to, room.get(..length).unwrap_or_default());
            }
            if asking.given_up > 0 {
                let mut room = [0; REPORT_ROOM];
                if let Some((to, length)) = back.ask_picture(one.stream.origin(), now, &mut room) {
                    self.stats.reported += 1;
                    send(&to, room.get(..length).unwrap_or_default());
                }
            }
            if let Some(next) = asking.next {
                self.asks_due.push(Reverse((next, direction, epoch)));
            }
        }
    }
}
