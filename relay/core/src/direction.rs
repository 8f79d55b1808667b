//! The state of one direction, and the way of one packet through it.

mod fork;
mod own;
mod rules;

use arrayvec::ArrayVec;
use sallyport_plan::{CallId, Digits, Direction as Plan, FlowKey, Mute, Passage, Quality};
use sallyport_srtp::RTCP_OVERHEAD;
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::{self, Header};
use sha1::{Digest, Sha1};

use crate::Now;
use crate::arrivals::{Arrivals, FEEDBACK_MAX};
use crate::continuity::Continuity;
use crate::dial::Dial;
use crate::event::{self, Digit, Hearing};
use crate::extensions;
use crate::feedback::LOST;
use crate::limit::{Bucket, PICTURE};
use crate::packet::{Opening, Payload, Sealing};
use crate::quality::{Arrival, Quality as Statistics};
use crate::reason::Reason;
use crate::reports::{self, REPORT_MAX, Report, Reports, Sender};
use crate::resend::{self, Asked, RESEND_ROOM, Ring};
use crate::rtcp::{self, Names};
use crate::stats::Drops;
use crate::stream::{Numbers, START, STARTS, Stream};
use rules::{Leaves, Rules};

/// Octets of a report of ours, sealed.
pub const REPORT_ROOM: usize = REPORT_MAX + RTCP_OVERHEAD;
/// The same of feedback.
pub const FEEDBACK_ROOM: usize = FEEDBACK_MAX + RTCP_OVERHEAD;

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
    /// What it may have to send again.
    pub ring: Option<Box<Ring>>,
    /// A digit of ours is being sent: media is held meanwhile.
    sounding: bool,
    /// A digit is being heard whose end has not come.
    hearing: bool,
    /// Whether its receiver is still to learn what section it is of.
    names: bool,
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
    /// The same for feedback.
    feeding: bool,
    /// What arrived of its bundle, where its sender is told of that.
    arrivals: Option<Box<Arrivals>>,
    /// The digit that it hears, where control is told of digits.
    pub hearing: Hearing,
    /// The sequence number of its last retransmission, extended; before the first one, the one in front of it.
    pub again: u32,
    /// Digits that it is to send.
    pub dial: Option<Box<Dial>>,
}

impl Cold {
    fn new(call: CallId, plan: Plan) -> Self {
        let (drops, punts, reports, hearing) = Default::default();
        let again = first_again(call, &plan);
        Self {
            call,
            plan,
            drops,
            punts,
            pictures: (Bucket::default(), 0),
            reports,
            reporting: false,
            feeding: false,
            arrivals: None,
            hearing,
            again,
            dial: None,
        }
    }
}

impl Direction {
    /// A direction that nothing has passed yet.
    pub fn new(call: CallId, plan: Plan, open: Opening, seal: Sealing) -> Self {
        let rules = Rules::new(&plan);
        Self {
            open,
            seal,
            stream: Stream::new(name(call, &plan)),
            names: rules.extensions.as_ref().is_some_and(|extensions| extensions.begins_to_name(None)),
            rules,
            continuity: Continuity::default(),
            reverse: usize::MAX,
            next: usize::MAX,
            lapsed: false,
            ring: Ring::new(&plan.resend).map(Box::new),
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
        if !self.ring.as_mut().is_some_and(|ring| ring.follow(&plan.resend)) {
            self.ring = Ring::new(&plan.resend).map(Box::new);
        }
        let rules = Rules::new(&plan);
        if let Some(extensions) = &rules.extensions {
            self.names |= extensions.begins_to_name(self.rules.extensions.as_deref());
        }
        self.rules = rules;
        self.cold.plan = plan;
    }

    /// Seals with another key from now on: what was sealed with the former one is of no use to anybody, and retransmissions
    /// begin as a restart would have them begin that knows nothing of the key.
    pub fn reseal(&mut self, seal: Sealing) {
        self.seal = seal;
        self.cold.again = first_again(self.cold.call, &self.cold.plan);
        if let Some(ring) = &mut self.ring {
            ring.clear();
        }
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
        let recovered = self.rules.repeats && self.recover(buf)?;
        let state = (&mut self.stream, &mut self.continuity, &mut self.quality);
        let rewritten = rewrite(buf, state, (&self.rules, self.names), (holds, recovered), now)?;
        if self.ring.is_some() {
            self.keep(buf.packet(), false, now);
        }
        Ok(rewritten)
    }

    /// Takes out of a retransmission what it repeats, if that is missing; whether it is one.
    #[cold]
    fn recover(&mut self, buf: &mut PacketBuf<'_>) -> Result<bool, Reason> {
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
    fn keep(&mut self, packet: &[u8], sealed: bool, now: Now) {
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
        if self.lapsed || self.rules.mute == Mute::Held || matches!(self.seal, Sealing::Waiting) {
            return None;
        }
        let again = self.cold.again.wrapping_add(1);
        let (length, to_seal) = self.ring.as_ref()?.write(number, low_half(again), room, now)?;
        if !to_seal {
            return Some((self.rules.rtp, length));
        }
        self.cold.again = again;
        let mut buf = PacketBuf::new(room, 0..length).ok()?;
        if let Sealing::Srtp(sealer) = &mut self.seal {
            sealer.seal_rtp(&mut buf).ok()?;
        }
        Some((self.rules.rtp, buf.len()))
    }

    /// Puts one open RTCP compound into the other leg's words; `reverse` is the direction that runs the other way, which may
    /// have packets that are to be sent again. Whether it asks for a whole picture.
    ///
    /// # Errors
    /// Why it does not leave.
    pub fn rewrite_rtcp(
        &mut self,
        buf: &mut PacketBuf<'_>,
        mut reverse: Option<&mut Self>,
        lost: &mut Lost,
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
        let round_trip = cold.reports.round_trip();
        let mut ring = reverse.as_mut().and_then(|reverse| reverse.ring.take());
        let names = Names {
            own_ssrc: rules.ssrc,
            source: stream.source(),
            timestamp_offset: stream.timestamp_offset(),
            counts: [low(*packets), low(*octets)],
            remb: cold.plan.extensions.remb,
            reverse: reverse.as_deref().and_then(|reverse| {
                Some((reverse.rules.ssrc, reverse.stream.origin()?, &reverse.cold.reports))
            }),
        };
        let (pictures, number) = &mut cold.pictures;
        let mut asks = false;
        let picture = || {
            asks = pictures.take(PICTURE, now);
            *number = number.wrapping_add(u8::from(asks));
            asks.then_some(*number)
        };
        let answer = |sequence| match ring.as_mut().map(|ring| ring.ask(sequence, round_trip, now)) {
            Some(Asked::Again) => lost.again.try_push(sequence).is_ok(),
            Some(Asked::Enough) => {
                lost.limited += 1;
                true
            }
            Some(Asked::Gone) | None => false,
        };
        let asked = rtcp::rewrite(buf, &names, picture, answer);
        if let Some(reverse) = &mut reverse {
            reverse.ring = ring;
        }
        lost.forwarded = asked? as u64;
        let reverse = reverse.map(|reverse| {
            // Who reports on a stream knows it.
            reverse.names &= !heard.is_about_ours();
            let source = reverse.stream.origin().map(|origin| origin.source);
            (&mut reverse.cold.reports, source)
        });
        cold.reports.note(&heard, reverse, now);
        Ok(asks)
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
        if reverse.lapsed || matches!(reverse.seal, Sealing::Waiting) {
            return None;
        }
        let length = self.cold.arrivals.as_mut()?.write(reverse.rules.ssrc, room.first_chunk_mut()?)?;
        let mut buf = PacketBuf::new(room, 0..length).ok()?;
        if let Sealing::Srtp(sealer) = &mut reverse.seal {
            sealer.seal_rtcp(&mut buf).ok()?;
        }
        Some((reverse.rules.rtcp, buf.len()))
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

    /// Whether packets of this SSRC leave on it.
    pub fn seals(&self, ssrc: u32) -> bool {
        self.rules.ssrc == ssrc || self.cold.plan.sealed().any(|own| own.0 == ssrc)
    }

    /// Where it sends to.
    pub const fn egress(&self, payload: Payload) -> FlowKey {
        match payload {
            Payload::Rtp => self.rules.rtp,
            Payload::Rtcp => self.rules.rtcp,
        }
    }
}

/// What becomes of the packets that a compound has lost.
#[derive(Debug, Default)]
pub struct Lost {
    /// Those that are to be sent again, by the numbers under which they left.
    pub again: ArrayVec<u16, LOST>,
    /// Those that were asked for too often.
    pub limited: u64,
    /// Those that their sender is asked for.
    pub forwarded: u64,
}

/// A packet in the words of the other leg.
#[derive(Debug, Clone, Copy)]
pub struct Rewritten {
    /// Octets of its payload.
    pub octets: u64,
    /// Whether it goes on with what has left before it; anything else is a fault of ours.
    pub follows: bool,
    /// Whether its header extensions made sense.
    pub sound: bool,
    /// Whether it came by retransmission.
    pub recovered: bool,
}

/// Rewrites an open packet in place.
fn rewrite(
    buf: &mut PacketBuf<'_>,
    (stream, continuity, quality): (&mut Stream, &mut Continuity, &mut Statistics),
    (rules, names): (&Rules, bool),
    (holds, recovered): (Option<Reason>, bool),
    now: Now,
) -> Result<Rewritten, Reason> {
    let header = Header::parse(buf.packet()).map_err(|_| Reason::Malformed)?;
    let padding = header.padding_len().map_err(|_| Reason::Malformed)?;
    let octets = (header.payload_len() - padding) as u64;
    let (ssrc, sequence, payload_type) = (header.ssrc(), header.sequence(), header.payload_type());
    let extended = header.has_extension();
    if rules.passage == Passage::Transparent {
        return rules.lets_pass(payload_type).map(|()| Rewritten {
            octets,
            follows: true,
            sound: true,
            recovered,
        });
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
        _ if recovered => {}
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
    // Most packets have none.
    let sound = match (extended || names).then_some(&rules.extensions) {
        None => Ok(true),
        Some(Some(extensions)) => extensions.apply(buf, names),
        Some(None) => extensions::strip(buf),
    };
    let sound = sound.map_err(|_| Reason::Malformed)?;
    let packet = buf.packet_mut();
    rtp::set_payload_type(packet, leaves.payload_type());
    rtp::set_sequence(packet, place.sequence);
    rtp::set_timestamp(packet, place.timestamp);
    rtp::set_ssrc(packet, rules.ssrc);
    let follows = continuity.follows(packet, (!event).then_some(clock));
    Ok(Rewritten { octets, follows, sound, recovered })
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

fn low_half(value: u32) -> u16 {
    (value & 0xffff) as u16
}

/// The number in front of that of a direction's first retransmission: it follows from the direction, so that a restarted relay
/// knows it too.
fn first_again(call: CallId, plan: &Plan) -> u32 {
    let [high, low] = name(call, plan);
    u32::from(START + u16::from_be_bytes([low, high]) % STARTS)
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

    const ROOM: usize = 4096;

    /// What a packet touches besides keys; the payload types alone are four cache lines, of which it touches one, addresses
    /// four.
    #[test]
    fn hot_state_is_small() {
        let hot = size_of::<Direction>() - size_of::<Statistics>();
        assert!(hot <= 12 * 64, "{hot} octets beside the statistics");
    }

    /// What a direction has from its installation to its end, encrypted on one side, but for a ring and the plan's lists. Both
    /// sides encrypted is the sum of all.
    #[test]
    fn a_direction_has_its_room() {
        let keys = [size_of::<sallyport_srtp::Opener>(), size_of::<sallyport_srtp::Sealer>()];
        let own = size_of::<Direction>() + size_of::<Cold>() + crate::quality::SELDOM;
        eprintln!("{own} octets of its own, {keys:?} of keys and indices, {} of a ring", crate::resend::RING);
        assert!(keys.iter().all(|keys| own + keys <= ROOM), "{own} and {keys:?} octets");
    }
}
