//! What a direction sends by itself: digits, wishes for a picture, reports, feedback.

use sallyport_plan::{FlowKey, Format, Mute, Passage};
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::Header;

use super::{Direction, FEEDBACK_ROOM, REPORT_ROOM, low};
use crate::Now;
use crate::dial::{self, Dialled, EVENT_ROOM};
use crate::extensions;
use crate::feedback::{Bound, Wishes};
use crate::limit::{BOUND, PICTURE};
use crate::packet::{Payload, Sealing};
use crate::reason::Reason;
use crate::reports::{Report, Sender};
use crate::rtcp;
use crate::stream::Origin;

impl Direction {
    /// Writes what is due of the digits that it is to send: where it goes, how long it is, and whether it goes on with what
    /// has left; `None` where nothing is due.
    ///
    /// # Errors
    /// How many digits are lost, because nothing may leave, or no named events are taken.
    pub fn dial(&mut self, now: Now, room: &mut [u8; EVENT_ROOM]) -> Result<Option<Dialled>, usize> {
        let open = self.rules.passage == Passage::Translated && self.rules.mute == Mute::Open;
        let may = open && self.may_leave();
        let Some(dial) = self.cold.dial.as_mut() else { return Ok(None) };
        let event = self.cold.plan.payload_types.iter().find_map(|map| match map.format {
            Format::Event { to, .. } => Some((map.to.0, to.hz())),
            Format::Media(_) | Format::Rtx(_) => None,
        });
        let Some((payload_type, clock)) = event.filter(|_| may) else {
            self.sounding = false;
            return Err(dial.clear());
        };
        let block = dial.step(now);
        self.sounding = dial.is_sounding();
        let Some(block) = block else { return Ok(None) };
        let Some(sequence) = self.stream.insert() else {
            self.sounding = false;
            return Err(dial.clear());
        };
        let timestamp =
            block.timestamp.unwrap_or_else(|| self.stream.begin_event(self.rules.clock.hz(), now));
        dial.began(timestamp);
        let packet = dial::packet(&block, payload_type, (sequence, timestamp, self.rules.ssrc), clock);
        let follows = self.continuity.follows(&packet, None);
        room[..packet.len()].copy_from_slice(&packet);
        let Some((to, length)) = self.protect(Payload::Rtp, room, packet.len()) else {
            self.sounding = false;
            return Err(self.cold.dial.as_mut().map_or(0, |dial| dial.clear()));
        };
        self.packets += 1;
        self.octets += dial::BLOCK;
        let copy = self.fork(Payload::Rtp).map(|to| (to, packet));
        Ok(Some(Dialled { to, length, follows, copy }))
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
        let may = translated && self.may_leave();
        let (pictures, number) = &mut self.cold.pictures;
        if !may || !pictures.take(PICTURE, now) {
            return None;
        }
        *number = number.wrapping_add(1);
        let length = rtcp::ask(&Wishes::for_picture(), (self.rules.ssrc, source), *number, room)?;
        self.protect(Payload::Rtcp, room, length)
    }

    /// Writes the answer to a TMMBR of its receiver's (RFC 5104 section 4.2.2). Where it goes and how long it is; `None` where
    /// nothing may leave, or too many have: whoever was not answered asks again.
    pub fn notify(&mut self, bound: Bound, now: Now, room: &mut [u8]) -> Option<(FlowKey, usize)> {
        if !self.may_leave() || !self.cold.bounds.take(BOUND, now) {
            return None;
        }
        let length = rtcp::notify(bound, self.rules.ssrc, room)?;
        self.protect(Payload::Rtcp, room, length)
    }

    /// Writes a report of its own where its sender is silent, or the last one it has to send; `ntp`: what `now` is in NTP's
    /// format. Where it goes and how long it is; `None` where nothing is to be told, or must leave.
    pub fn report(
        &mut self,
        reverse: Option<&mut Self>,
        (now, ntp): (Now, u64),
        goodbye: bool,
        room: &mut [u8; REPORT_ROOM],
    ) -> Option<(FlowKey, usize)> {
        let translated = self.rules.passage == Passage::Translated;
        let due = goodbye || self.cold.reports.is_silent(now);
        if !translated || !due || !self.may_leave() {
            return None;
        }
        let sender = self.stream.latest().filter(|_| self.packets > 0).map(|(timestamp, at)| {
            let passed = now.since(at) * u64::from(self.quality.clock()) / 1_000_000;
            let timestamp = timestamp.wrapping_add(low(passed));
            (Sender { ntp, timestamp, packets: low(self.packets), octets: low(self.octets) }, at)
        });
        let reverse = reverse.map(|reverse| (&mut reverse.cold.reports, &reverse.quality));
        let report = Report { own_ssrc: self.rules.ssrc, sender, reverse, goodbye };
        let length = self.cold.reports.write(report, now, room.first_chunk_mut()?)?;
        self.protect(Payload::Rtcp, room, length)
    }

    /// Takes note of an open RTP packet of its bundle, where its sender is told when each arrived.
    pub fn note_arrival(&mut self, packet: &[u8], now: Now) {
        // The number is looked at first: of the rest most directions have nothing, and it lies elsewhere.
        if let Some(id) = self.rules.transport_wide
            && let Some(arrivals) = &mut self.cold.arrivals
            && let Some(sequence) = extensions::transport_wide(packet, id)
            && let Ok(header) = Header::parse(packet)
        {
            arrivals.arrive(sequence, header.ssrc(), now);
        }
    }

    /// Writes the next feedback on what arrived, as it leaves on `reverse`. Where it goes and how long it is; `None` where there
    /// is nothing more to tell, or must leave.
    pub fn feed_back(
        &mut self,
        reverse: &mut Self,
        room: &mut [u8; FEEDBACK_ROOM],
    ) -> Option<(FlowKey, usize)> {
        if !reverse.may_leave() {
            return None;
        }
        let length = self.cold.arrivals.as_mut()?.write(reverse.rules.ssrc, room.first_chunk_mut()?)?;
        reverse.protect(Payload::Rtcp, room, length)
    }

    /// Takes note whether its flow leads to it. Whether a timer for its feedback is to be started now.
    pub fn begins_to_feed_back(&mut self, leads: bool) -> bool {
        let translated = self.rules.passage == Passage::Translated;
        if !leads || !translated || self.rules.transport_wide.is_none() {
            self.cold.arrivals = None;
            return false;
        }
        self.cold.arrivals.get_or_insert_default();
        !std::mem::replace(&mut self.cold.feeding, true)
    }

    /// That timer has run out: whether another is to be started.
    pub fn goes_on_feeding_back(&mut self) -> bool {
        self.cold.feeding = self.cold.arrivals.is_some();
        self.cold.feeding
    }

    /// Whether a timer for its reports is to be started now: it may have to report, and none runs.
    pub fn begins_to_report(&mut self) -> bool {
        let begins = self.rules.passage == Passage::Translated && !self.cold.reporting;
        self.cold.reporting |= begins;
        begins
    }

    /// Its timer has run out: whether another is to be started.
    pub fn goes_on_reporting(&mut self) -> bool {
        self.cold.reporting = self.rules.passage == Passage::Translated;
        self.cold.reporting
    }

    /// Whether anything of it may leave.
    pub(super) const fn may_leave(&self) -> bool {
        !self.lapsed && !matches!(self.seal, Sealing::Waiting)
    }

    /// Whether another compound may leave.
    ///
    /// # Errors
    /// [`Reason::Early`], [`Reason::Unkept`] where its index would be beyond all that a restart steps over.
    pub(super) fn may_report(&self) -> Result<(), Reason> {
        match &self.seal {
            Sealing::Waiting => Err(Reason::Early),
            Sealing::Srtp(sealer) if !self.cold.kept.has_rtcp(sealer.next_rtcp(self.rules.ssrc)) => {
                Err(Reason::Unkept)
            }
            Sealing::Srtp(_) | Sealing::Plain => Ok(()),
        }
    }

    /// Makes of a packet of our own, the first `length` octets of `room`, what its leg takes: where it goes and how long it is.
    pub(super) fn protect(
        &mut self,
        payload: Payload,
        room: &mut [u8],
        length: usize,
    ) -> Option<(FlowKey, usize)> {
        if payload == Payload::Rtcp {
            self.may_report().ok()?;
        }
        let mut buf = PacketBuf::new(room, 0..length).ok()?;
        if let Sealing::Srtp(sealer) = &mut self.seal {
            let sealed = match payload {
                Payload::Rtp => sealer.seal_rtp(&mut buf),
                Payload::Rtcp => sealer.seal_rtcp(&mut buf),
            };
            sealed.ok()?;
        }
        Some((self.egress(payload), buf.len()))
    }
}
