//! What a direction sends again, and what comes again (RFC 4588).

use sallyport_plan::{Direction as Plan, FlowKey, Mute, Resend};
use sallyport_srtp::{RTCP_OVERHEAD, SealedSource};
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::Header;

use super::rules::Leaves;
use super::{Direction, low_half};
use crate::Now;
use crate::feedback::{LOST, Wishes};
use crate::limit::AGAIN;
use crate::missing::Wanted;
use crate::packet::{Payload, Sealing};
use crate::reason::Reason;
use crate::resend::{self, RESEND_ROOM};
use crate::rtcp;
use crate::stream::{JUMP, LATE};

/// Octets of a NACK of ours with as many packets as it can name, sealed.
pub const NACK_ROOM: usize = 8 + rtcp::SDES + 12 + 4 * LOST + RTCP_OVERHEAD;

/// What a direction has asked its sender for.
#[derive(Debug, Default)]
pub struct Asking {
    /// Where the NACK goes and how long it is; `None` where nothing is due.
    pub sent: Option<(FlowKey, usize)>,
    /// How many packets it names.
    pub named: u64,
    /// How many packets are given up.
    pub given_up: u64,
    /// When the timer is to run out next.
    pub next: Option<Now>,
}

impl Direction {
    /// Takes out of a retransmission what it repeats, if that is missing; whether it is one.
    #[cold]
    pub(super) fn recover(&mut self, buf: &mut PacketBuf<'_>) -> Result<bool, Reason> {
        let payload_type = buf.packet().get(1).map_or(0, |octet| octet & 0x7f);
        let Some(of) = self.rules.leaves(payload_type).and_then(Leaves::repeats) else { return Ok(false) };
        let source = self.stream.source().ok_or(Reason::Repeated)?;
        let reach = self.reach();
        resend::unwrap(buf, source, of)?;
        let sequence = Header::parse(buf.packet()).map_err(|_| Reason::Malformed)?.sequence();
        let missing = self.cold.missing.as_mut();
        if !missing.is_some_and(|missing| missing.take(source, sequence, reach)) {
            return Err(Reason::Repeated);
        }
        self.quality.recover(source, sequence);
        Ok(true)
    }

    /// How far behind the last packet one can still be taken: not behind the window in which repetitions are told, where there
    /// is one (RFC 3711 section 3.3.2).
    fn reach(&self) -> u16 {
        let reach = if matches!(self.seal, Sealing::Plain) { JUMP } else { -LATE };
        reach.unsigned_abs()
    }

    /// Whether a timer for questions is to be started now: something is missing, and none runs.
    pub(super) fn begins_to_ask(&mut self) -> bool {
        let cold = &mut *self.cold;
        let begins = !cold.asking && cold.missing.as_ref().is_some_and(|missing| !missing.is_empty());
        cold.asking |= begins;
        begins
    }

    /// Its timer has run out: writes a NACK for what is missing of it (RFC 4585 section 6.2.1), as it leaves on `reverse`.
    pub fn ask_again(&mut self, reverse: &mut Self, room: &mut [u8; NACK_ROOM], now: Now) -> Asking {
        let reach = self.reach();
        let cold = &mut *self.cold;
        cold.asking = false;
        let asks = self.rules.nack && self.rules.mute == Mute::Open && reverse.may_leave();
        let (Some(missing), Some(source)) = (cold.missing.as_mut(), self.stream.source()) else {
            return Asking::default();
        };
        if !asks {
            missing.forget();
            return Asking::default();
        }
        let Wanted { numbers, given_up, next } =
            missing.ask(cold.reports.round_trip(), reach, now, |number| self.stream.has_place(number));
        cold.asking = next.is_some();
        let named = numbers.len() as u64;
        let sent = (named > 0).then(|| reverse.want(Wishes::for_packets(numbers), source, room)).flatten();
        Asking { sent, named, given_up, next }
    }

    fn want(&mut self, wishes: Wishes, source: u32, room: &mut [u8; NACK_ROOM]) -> Option<(FlowKey, usize)> {
        let length = rtcp::ask(&wishes, (self.rules.ssrc, source), 0, room)?;
        self.protect(Payload::Rtcp, room, length)
    }

    /// Whether a plan gives retransmissions another SSRC while the key stays: their numbers, and what a checkpoint knows of them,
    /// are those of the one that was announced, or was sealed with before.
    pub fn renames_retransmissions(&self, wanted: &Plan) -> bool {
        let (Resend::Rtx { ssrc, .. }, Sealing::Srtp(sealer)) = (&wanted.resend, &self.seal) else {
            return false;
        };
        let former = &self.cold.plan;
        if former.seal != wanted.seal {
            return false;
        }
        let announced = matches!(&former.resend, Resend::Rtx { ssrc: other, .. } if other != ssrc);
        let others = |sealed: &SealedSource| ![former.ssrc.0, ssrc.0].contains(&sealed.ssrc);
        announced || sealer.checkpoint().sources.iter().any(others)
    }

    /// Retransmissions begin once more after a plan without any: behind those that left before.
    pub(super) fn take_up_retransmissions(&mut self, plan: &Plan) {
        let (Resend::Rtx { ssrc, .. }, Sealing::Srtp(sealer)) = (&plan.resend, &self.seal) else { return };
        if matches!(self.cold.plan.resend, Resend::Rtx { .. }) {
            return;
        }
        let sealed = sealer.checkpoint().sources;
        if let Some(last) = sealed.iter().find(|sealed| sealed.ssrc == ssrc.0).and_then(|sealed| sealed.rtp) {
            self.cold.again = (last & 0xffff_ffff) as u32;
        }
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
