//! The state of one direction, and the way of one packet through it.

use sallyport_plan::{
    CallId, Clock, Digits, Direction as Plan, FlowKey, Format, Mute, Passage, PtMap, Quality,
};
use sallyport_srtp::RTCP_OVERHEAD;
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::{self, Header};
use sha1::{Digest, Sha1};

use crate::Now;
use crate::continuity::Continuity;
use crate::dial::{self, Dial, EVENT_ROOM};
use crate::event::{self, Digit, Hearing};
use crate::limit::{Bucket, PICTURE};
use crate::packet::{Opening, Payload, Sealing};
use crate::quality::{Arrival, Quality as Statistics};
use crate::reason::Reason;
use crate::reports::{self, REPORT_MAX, Report, Reports, Sender};
use crate::rtcp::{self, Names};
use crate::stats::Drops;
use crate::stream::{Numbers, Origin, Stream};

/// Octets of a report of ours, sealed.
pub const REPORT_ROOM: usize = REPORT_MAX + RTCP_OVERHEAD;

/// One direction as it runs. What every packet touches lies here, the rest behind `cold`.
pub struct Direction {
    pub open: Opening,
    pub seal: Sealing,
    pub stream: Stream,
    rules: Rules,
    continuity: Continuity,
    /// Slot of the direction that runs the other way.
    pub reverse: usize,
    /// Slot of the next direction of its bundle; `usize::MAX` behind the last.
    pub next: usize,
    /// Consent of a pair that it receives from or sends to has lapsed.
    pub lapsed: bool,
    /// A digit of ours is being sent: media is held meanwhile.
    sounding: bool,
    /// A digit is being heard whose end has not come.
    hearing: bool,
    pub packets: u64,
    pub octets: u64,
    pub cold: Box<Cold>,
    pub quality: Statistics,
}

/// What most packets do not touch.
pub struct Cold {
    pub call: CallId,
    pub plan: Plan,
    pub drops: Drops,
    /// What its peer may still send to control.
    pub punts: Bucket,
    /// Pictures that may still be asked for of its sender, and the number of the last request.
    pictures: (Bucket, u8),
    pub reports: Reports,
    /// Whether a timer runs for its reports.
    reporting: bool,
    /// The digit that it hears, where control is told of digits.
    pub hearing: Hearing,
    /// Digits that it is to send.
    pub dial: Option<Box<Dial>>,
}

impl Cold {
    fn new(call: CallId, plan: Plan) -> Self {
        let (drops, punts, reports, hearing) = Default::default();
        Self {
            call,
            plan,
            drops,
            punts,
            pictures: (Bucket::default(), 0),
            reports,
            reporting: false,
            hearing,
            dial: None,
        }
    }
}

/// The plan, as the packet path reads it.
struct Rules {
    ingress: [Option<FlowKey>; 2],
    rtp: FlowKey,
    rtcp: FlowKey,
    ssrc: u32,
    /// Clock of the first sound or picture, which events run beside.
    clock: Clock,
    mute: Mute,
    passage: Passage,
    digits: Digits,
    payload_types: [Leaves; 128],
}

impl Rules {
    fn new(plan: &Plan) -> Self {
        let mut payload_types = [Leaves::UNMAPPED; 128];
        for map in &plan.payload_types {
            if let Some(entry) = payload_types.get_mut(usize::from(map.from.0)) {
                *entry = Leaves::new(map);
            }
        }
        let media = |map: &PtMap| if let Format::Media(clock) = map.format { Some(clock) } else { None };
        Self {
            ingress: [plan.ingress.first().copied(), plan.ingress.get(1).copied()],
            rtp: plan.rtp,
            rtcp: plan.rtcp,
            ssrc: plan.ssrc.0,
            clock: plan.payload_types.iter().find_map(media).unwrap_or(Clock::Hz8000),
            mute: plan.mute,
            passage: plan.passage,
            digits: plan.digits,
            payload_types,
        }
    }

    /// What a payload type becomes.
    fn leaves(&self, payload_type: u8) -> Option<Leaves> {
        self.payload_types
            .get(usize::from(payload_type))
            .copied()
            .filter(|leaves| *leaves != Leaves::UNMAPPED)
    }

    /// Whether a packet of this type may leave as it came.
    fn lets_pass(&self, payload_type: u8) -> Result<(), Reason> {
        match self.mute {
            _ if self.leaves(payload_type).is_none() => Err(Reason::PayloadType),
            Mute::Held => Err(Reason::Held),
            Mute::Open => Ok(()),
        }
    }
}

/// What a payload type becomes, in two octets: the type, then the clocks that it comes and leaves with, then whether it is one
/// of named events.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Leaves(u16);

impl Leaves {
    const UNMAPPED: Self = Self(u16::MAX);

    fn new(map: &PtMap) -> Self {
        let (from, to, event) = match map.format {
            Format::Media(clock) => (clock, clock, 0),
            Format::Event { from, to } => (from, to, 1),
        };
        Self(u16::from(map.to.0 & 0x7f) | (from as u16) << 7 | (to as u16) << 11 | event << 15)
    }

    const fn payload_type(self) -> u8 {
        (self.0 & 0x7f) as u8
    }

    const fn is_event(self) -> bool {
        self.0 >> 15 == 1
    }

    /// Rates in Hz, as it comes and as it leaves.
    fn clocks(self) -> (u32, u32) {
        let hz = |at: u16| Clock::ALL.get(usize::from(self.0 >> at & 0xf)).map_or(0, |clock| clock.hz());
        (hz(7), hz(11))
    }
}

impl Direction {
    /// A direction that nothing has passed yet.
    pub fn new(call: CallId, plan: Plan, open: Opening, seal: Sealing) -> Self {
        Self {
            open,
            seal,
            stream: Stream::new(name(call, &plan)),
            rules: Rules::new(&plan),
            continuity: Continuity::default(),
            reverse: usize::MAX,
            next: usize::MAX,
            lapsed: false,
            sounding: false,
            hearing: false,
            packets: 0,
            octets: 0,
            cold: Box::new(Cold::new(call, plan)),
            quality: Statistics::default(),
        }
    }

    /// Takes over a newer plan; state and counters stay.
    pub fn swap(&mut self, plan: Plan) {
        if self.rules.passage == Passage::Transparent && plan.passage == Passage::Translated {
            // What passed meanwhile was not of the stream that leaves from now on.
            self.stream.resume();
        }
        if self.rules.mute == Mute::Held && plan.mute == Mute::Open {
            self.stream.reopen();
        }
        self.rules = Rules::new(&plan);
        self.cold.plan = plan;
    }

    /// Whether packets of the flow feed it.
    pub fn is_fed_by(&self, flow: &FlowKey) -> bool {
        self.rules.ingress.iter().flatten().any(|own| own == flow)
    }

    /// Whether it receives from or sends to the pair.
    pub fn touches(&self, pair: &FlowKey) -> bool {
        self.is_fed_by(pair) || self.rules.rtp == *pair || self.rules.rtcp == *pair
    }

    /// Whether packets that come in have to be opened.
    ///
    /// # Errors
    /// Why none is taken.
    pub fn arrive(&self) -> Result<bool, Reason> {
        if self.lapsed {
            return Err(Reason::ConsentLost);
        }
        match self.open {
            Opening::Waiting => Err(Reason::Early),
            Opening::Plain => Ok(false),
            Opening::Srtp(_) => Ok(true),
        }
    }

    /// Whether control is told of its digits.
    pub fn tells_digits(&self) -> bool {
        self.rules.digits != Digits::Pass
    }

    /// Hears an open RTP packet: digits that have ended now, and whether the packet ends here. The stream goes on behind it
    /// without a gap.
    pub fn hear(&mut self, packet: &[u8], now: Now) -> ([Option<Digit>; 2], bool) {
        let Ok(header) = Header::parse(packet) else { return ([None; 2], false) };
        let Some(leaves) = self.rules.leaves(header.payload_type()).filter(|leaves| leaves.is_event()) else {
            // Most packets touch nothing that is cold.
            let ended = if self.hearing { self.cold.hearing.hear_media(now) } else { None };
            self.hearing &= ended.is_none();
            return ([ended, None], false);
        };
        let digits = self.cold.hearing.hear_event(packet, leaves.clocks().0, now);
        self.hearing = self.cold.hearing.is_waiting();
        let ends = self.rules.digits == Digits::Tell;
        let (ssrc, sequence) = (header.ssrc(), header.sequence());
        if ends && self.stream.hold(ssrc, sequence) {
            let (timestamp, payload_type) = (header.timestamp(), header.payload_type());
            let (clock, begins) = (self.rules.clock.hz(), self.stream.has_begun());
            let arrival = Arrival { ssrc, sequence, timestamp, payload_type, clock, begins };
            self.quality.arrive_untimed(&arrival, now);
        }
        (digits, ends)
    }

    /// Puts one open RTP packet into the outgoing stream.
    ///
    /// # Errors
    /// Why it does not leave.
    pub fn rewrite_rtp(&mut self, buf: &mut PacketBuf<'_>, now: Now) -> Result<Rewritten, Reason> {
        let holds = match self.seal {
            Sealing::Waiting => Some(Reason::Early),
            _ if self.rules.mute == Mute::Held || self.sounding => Some(Reason::Held),
            _ => None,
        };
        let state = (&mut self.stream, &mut self.continuity, &mut self.quality);
        rewrite(buf, state, &self.rules, holds, now)
    }

    /// Writes what is due of the digits that it is to send: where it goes, how long it is, and whether it goes on with what
    /// has left; `None` where nothing is due.
    ///
    /// # Errors
    /// How many digits are lost, because nothing may leave, or no named events are taken.
    pub fn dial(
        &mut self,
        now: Now,
        room: &mut [u8; EVENT_ROOM],
    ) -> Result<Option<(FlowKey, usize, bool)>, usize> {
        let Some(dial) = self.cold.dial.as_mut() else { return Ok(None) };
        let open = self.rules.passage == Passage::Translated && self.rules.mute == Mute::Open;
        let event = self.cold.plan.payload_types.iter().find_map(|map| match map.format {
            Format::Event { to, .. } => Some((map.to.0, to.hz())),
            Format::Media(_) => None,
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
        Ok(Some((self.rules.rtp, length, follows)))
    }

    /// Puts one open RTCP compound into the other leg's words; `reverse` is the direction that runs the other way. Whether it
    /// asks for a whole picture.
    ///
    /// # Errors
    /// Why it does not leave.
    pub fn rewrite_rtcp(
        &mut self,
        buf: &mut PacketBuf<'_>,
        reverse: Option<&mut Self>,
        now: Now,
    ) -> Result<bool, Reason> {
        if matches!(self.seal, Sealing::Waiting) {
            return Err(Reason::Early);
        }
        if self.rules.passage == Passage::Transparent {
            return rtcp::pass(buf.packet()).map(|()| false);
        }
        let heard = reports::hear(buf.packet(), reverse.as_ref().map(|reverse| reverse.rules.ssrc));
        let Self { stream, rules, packets, octets, cold, .. } = self;
        let names = Names {
            own_ssrc: rules.ssrc,
            source: stream.source(),
            timestamp_offset: stream.timestamp_offset(),
            counts: [low(*packets), low(*octets)],
            reverse: reverse.as_deref().and_then(|reverse| {
                Some((reverse.rules.ssrc, reverse.stream.origin()?, &reverse.cold.reports))
            }),
        };
        let (pictures, number) = &mut cold.pictures;
        let mut asks = false;
        rtcp::rewrite(buf, &names, || {
            asks = pictures.take(PICTURE, now);
            *number = number.wrapping_add(u8::from(asks));
            asks.then_some(*number)
        })?;
        let reverse = reverse.map(|reverse| {
            let source = reverse.stream.origin().map(|origin| origin.source);
            (&mut reverse.cold.reports, source)
        });
        cold.reports.note(&heard, reverse, now);
        Ok(asks)
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
        if !translated || !due || self.lapsed || matches!(self.seal, Sealing::Waiting) {
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
        let mut buf = PacketBuf::new(room, 0..length).ok()?;
        if let Sealing::Srtp(sealer) = &mut self.seal {
            sealer.seal_rtcp(&mut buf).ok()?;
        }
        Some((self.rules.rtcp, buf.len()))
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

    /// Statistics so far.
    pub fn quality(&self) -> Quality {
        let reports = &self.cold.reports;
        let told = reports.told(self.quality.clock());
        Quality { round_trip_us: reports.round_trip(), told, ..self.quality.report() }
    }

    /// Whether this leg has such a payload type.
    pub fn has_payload_type(&self, payload_type: u8) -> bool {
        self.rules.leaves(payload_type).is_some()
    }

    /// SSRC of the stream that leaves.
    pub const fn ssrc(&self) -> u32 {
        self.rules.ssrc
    }

    /// Where it sends to.
    pub const fn egress(&self, payload: Payload) -> FlowKey {
        match payload {
            Payload::Rtp => self.rules.rtp,
            Payload::Rtcp => self.rules.rtcp,
        }
    }
}

/// A packet in the words of the other leg.
#[derive(Debug, Clone, Copy)]
pub struct Rewritten {
    /// Octets of its payload.
    pub octets: u64,
    /// Whether it goes on with what has left before it; anything else is a fault of ours.
    pub follows: bool,
}

/// Rewrites an open packet in place.
fn rewrite(
    buf: &mut PacketBuf<'_>,
    (stream, continuity, quality): (&mut Stream, &mut Continuity, &mut Statistics),
    rules: &Rules,
    holds: Option<Reason>,
    now: Now,
) -> Result<Rewritten, Reason> {
    let header = Header::parse(buf.packet()).map_err(|_| Reason::Malformed)?;
    let padding = header.padding_len().map_err(|_| Reason::Malformed)?;
    let octets = (header.payload_len() - padding) as u64;
    let (ssrc, sequence, payload_type) = (header.ssrc(), header.sequence(), header.payload_type());
    if rules.passage == Passage::Transparent {
        return rules.lets_pass(payload_type).map(|()| Rewritten { octets, follows: true });
    }
    let leaves = rules.leaves(payload_type);
    let (from, to) = leaves.map_or((rules.clock.hz(), 0), Leaves::clocks);
    let timestamp = header.timestamp();
    let arrival = |begins| Arrival { ssrc, sequence, timestamp, payload_type, clock: from, begins };
    let Some(leaves) = leaves else {
        if stream.skip(ssrc, sequence) {
            quality.arrive_untimed(&arrival(stream.has_begun()), now);
        }
        return Err(Reason::PayloadType);
    };
    let event = leaves.is_event();
    let mut note = |stream: &Stream| match event {
        true => quality.arrive_untimed(&arrival(stream.has_begun()), now),
        false => quality.arrive(&arrival(stream.has_begun()), now),
    };
    if let Some(reason) = holds {
        if stream.hold(ssrc, sequence) {
            note(stream);
        }
        return Err(reason);
    }
    let clock = if event { rules.clock.hz() } else { from };
    let place = stream.place(&Numbers { ssrc, sequence, timestamp, clock, event }, now);
    if place != Err(Reason::OutOfSequence) {
        note(stream);
    }
    let place = place?;
    if event && from != to {
        event::scale(buf.packet_mut(), from, to);
    }
    // Extensions were agreed with one leg only.
    rtp::strip_extension(buf).map_err(|_| Reason::Malformed)?;
    let packet = buf.packet_mut();
    rtp::set_payload_type(packet, leaves.payload_type());
    rtp::set_sequence(packet, place.sequence);
    rtp::set_timestamp(packet, place.timestamp);
    rtp::set_ssrc(packet, rules.ssrc);
    let follows = continuity.follows(packet, (!event).then_some(clock));
    Ok(Rewritten { octets, follows })
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// Two octets that look random and are the same after a restart.
fn name(call: CallId, plan: &Plan) -> [u8; 2] {
    let digest = Sha1::new().chain_update(call.0.to_be_bytes()).chain_update([plan.index.0]);
    let [high, low, ..]: [u8; 20] = digest.finalize().into();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a packet touches besides keys; the payload types alone are four cache lines, of which it touches one, addresses
    /// four.
    #[test]
    fn hot_state_is_small() {
        let hot = size_of::<Direction>() - size_of::<Statistics>();
        assert!(hot <= 12 * 64, "{hot} octets beside the statistics");
    }
}
