//! What a direction sends by itself: digits, wishes for a picture.

use sallyport_plan::{FlowKey, Format, Mute, Passage};
use sallyport_wire::PacketBuf;

use super::{Direction, REPORT_ROOM};
use crate::Now;
use crate::dial::{self, Dialled, EVENT_ROOM};
use crate::limit::PICTURE;
use crate::packet::{Payload, Sealing};
use crate::rtcp;
use crate::stream::Origin;

impl Direction {
    /// Writes what is due of the digits that it is to send: where it goes, how long it is, and whether it goes on with what
    /// has left; `None` where nothing is due.
    ///
    /// # Errors
    /// How many digits are lost, because nothing may leave, or no named events are taken.
    pub fn dial(&mut self, now: Now, room: &mut [u8; EVENT_ROOM]) -> Result<Option<Dialled>, usize> {
        let Some(dial) = self.cold.dial.as_mut() else { return Ok(None) };
        let open = self.rules.passage == Passage::Translated && self.rules.mute == Mute::Open;
        let event = self.cold.plan.payload_types.iter().find_map(|map| match map.format {
            Format::Event { to, .. } => Some((map.to.0, to.hz())),
            Format::Media(_) | Format::Rtx(_) => None,
        });
        let may = open && !self.lapsed && !matches!(self.seal, Sealing::Waiting);
        let Some((payload_type, clock)) = event.filter(|_| may) else {
            self.sounding = false;
            return Err(dial.clear());
        };
        let block = dial.step(now);
        self.sounding = dial.is_sounding();
        let Some(block) = block else { return Ok(None) };
        let sequence = self.stream.insert();
        let timestamp =
            block.timestamp.unwrap_or_else(|| self.stream.begin_event(self.rules.clock.hz(), now));
        dial.began(timestamp);
        let packet = dial::packet(&block, payload_type, (sequence, timestamp, self.rules.ssrc), clock);
        let follows = self.continuity.follows(&packet, None);
        room[..packet.len()].copy_from_slice(&packet);
        let sealed = PacketBuf::new(room, 0..packet.len()).ok().and_then(|mut buf| {
            if let Sealing::Srtp(sealer) = &mut self.seal {
                sealer.seal_rtp(&mut buf).ok()?;
            }
            Some(buf.len())
        });
        let Some(length) = sealed else {
            self.sounding = false;
            return Err(dial.clear());
        };
        self.packets += 1;
        self.octets += dial::BLOCK;
        let copy = self.fork(Payload::Rtp).map(|to| (to, packet));
        Ok(Some(Dialled { to: self.rules.rtp, length, follows, copy }))
    }

    /// Writes a wish for a whole picture of whoever receives this direction; `origin`: what it sends. Where it goes and how
    /// long it is; `None` where it was asked just now, has not sent yet, or nothing may leave.
    pub fn ask_picture(
        &mut self,
        origin: Option<Origin>,
        now: Now,
        room: &mut [u8; REPORT_ROOM],
    ) -> Option<(FlowKey, usize)> {
        let source = origin?.source;
        let translated = self.rules.passage == Passage::Translated;
        let may = translated && !self.lapsed && !matches!(self.seal, Sealing::Waiting);
        let (pictures, number) = &mut self.cold.pictures;
        if !may || !pictures.take(PICTURE, now) {
            return None;
        }
        *number = number.wrapping_add(1);
        let length = rtcp::ask_picture((self.rules.ssrc, source), *number, room)?;
        let mut buf = PacketBuf::new(room, 0..length).ok()?;
        if let Sealing::Srtp(sealer) = &mut self.seal {
            sealer.seal_rtcp(&mut buf).ok()?;
        }
        Some((self.rules.rtcp, buf.len()))
    }
}
