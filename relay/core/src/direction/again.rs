//! What a direction sends again, and what comes again (RFC 4588).

use sallyport_plan::{FlowKey, Mute};
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::Header;

use super::rules::Leaves;
use super::{Direction, low_half};
use crate::Now;
use crate::limit::AGAIN;
use crate::packet::Payload;
use crate::reason::Reason;
use crate::resend::{self, RESEND_ROOM};

impl Direction {
    /// Takes out of a retransmission what it repeats, if that is missing; whether it is one.
    #[cold]
    pub(super) fn recover(&mut self, buf: &mut PacketBuf<'_>) -> Result<bool, Reason> {
        let payload_type = buf.packet().get(1).map_or(0, |octet| octet & 0x7f);
        let Some(of) = self.rules.leaves(payload_type).and_then(Leaves::repeats) else { return Ok(false) };
        let source = self.stream.source().ok_or(Reason::Repeated)?;
        resend::unwrap(buf, source, of)?;
        let sequence = Header::parse(buf.packet()).map_err(|_| Reason::Malformed)?.sequence();
        if self.quality.recover(source, sequence) { Ok(true) } else { Err(Reason::Repeated) }
    }

    /// Keeps a packet as it leaves, where packets are sent again as they left.
    pub fn keep_sealed(&mut self, packet: &[u8], now: Now) {
        if self.ring.is_some() {
            self.keep(packet, true, now);
        }
    }

    // Out of line: of sound nothing is kept, and it is most of what passes.
    #[cold]
    pub(super) fn keep(&mut self, packet: &[u8], sealed: bool, now: Now) {
        if let Some(ring) = self.ring.as_mut().filter(|ring| ring.keeps_sealed() == sealed) {
            ring.keep(packet, now);
        }
    }

    /// Writes a packet once more, by the number under which it left. Where it goes and how long it is; `None` where it must
    /// not leave, or is gone.
    pub fn resend(
        &mut self,
        number: u16,
        room: &mut [u8; RESEND_ROOM],
        now: Now,
    ) -> Option<(FlowKey, usize)> {
        if !self.may_leave() || self.rules.mute == Mute::Held {
            return None;
        }
        let again = self.cold.again.wrapping_add(1);
        let (length, to_seal) = self.ring.as_ref()?.write(number, low_half(again), room, now)?;
        if !to_seal {
            return Some((self.rules.rtp, length));
        }
        if !self.cold.pace.take(AGAIN, now) {
            return None;
        }
        self.cold.again = again;
        self.protect(Payload::Rtp, room, length)
    }

    /// Writes a retransmission of nothing, by which its receiver learns that the numbers of retransmissions have stepped ahead.
    /// Where it goes and how long it is; `None` where it must not leave.
    pub fn announce(&mut self, room: &mut [u8; RESEND_ROOM], now: Now) -> Option<(FlowKey, usize)> {
        if !self.may_leave() || !self.cold.pace.take(AGAIN, now) {
            return None;
        }
        let again = self.cold.again.wrapping_add(1);
        let timestamp = self.stream.latest().map_or(0, |(timestamp, _)| timestamp);
        let length = self.ring.as_ref()?.pad(low_half(again), timestamp, room)?;
        self.cold.again = again;
        self.protect(Payload::Rtp, room, length)
    }
}
