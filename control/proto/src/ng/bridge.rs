//! One call of somebody else's signalling: two sides, of which one may be a browser outside.

mod media;
mod negotiate;
mod record;
mod section;
mod side;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport_plan::{CallId, Medium, PortPair, Refusal, Zone};

use super::flags::{Flags, Profile};
use super::peer::Peer;
use super::request::{Request, Verb};
use super::sdp::Sdp;
use crate::api::{CallEvent, CallFailure, CallState, CallView, Command, EndCause, Input, StepState};
use crate::random::{Random, Seed};
use crate::relayed::Relayed;
use crate::settings::Settings;
use crate::sources::Sources;
use section::Section;
use side::Side;

/// Sections that a call may have: each may need two port pairs, and the relay gives a call eight.
const SECTIONS_MAX: usize = 4;

/// What all bridges share beside [`Settings`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSettings {
    /// Names that `direction` gives to browsers' side.
    pub external: Vec<String>,
    /// Names that `direction` gives to telephony's side.
    pub internal: Vec<String>,
    /// How long a call may be without answer or without path after its last request.
    pub patience: Duration,
}

impl Default for BridgeSettings {
    fn default() -> Self {
        let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        Self {
            external: names(["external", "pub"]),
            internal: names(["internal", "priv"]),
            patience: Duration::from_secs(300),
        }
    }
}

/// An offer, kept for all answers to it.
#[derive(Debug)]
struct Offered {
    by: usize,
    sdp: Sdp,
    peer: Peer,
    flags: Flags,
}

/// What a request waits for.
#[derive(Debug)]
enum Waiting {
    /// Ports for the first offer.
    Ports,
    /// This version of the plan, before this answer is told.
    Plan(u32, String),
}

/// Deadlines of the steps under way.
#[derive(Debug, Default)]
struct Deadlines {
    relay: Option<Instant>,
    quiet: Option<Instant>,
    dtls: Option<Instant>,
    delete: Option<Instant>,
}

impl Deadlines {
    fn next(&self) -> Option<Instant> {
        [self.relay, self.quiet, self.dtls, self.delete].into_iter().flatten().min()
    }
}

/// A call under somebody else's signalling. It is driven as [`crate::Call`] is; each offer and each answer comes back as
/// exactly one [`Command::Answer`] or [`Command::Fail`].
#[derive(Debug)]
pub struct Bridge {
    id: CallId,
    call_id: String,
    branch: Option<String>,
    created: u64,
    /// The clock's hand when it began; `None` in a call that was adopted.
    begun: Option<Instant>,
    /// From then to the last request.
    signalled: Duration,
    settings: Arc<Settings>,
    options: Arc<BridgeSettings>,
    random: Random,
    commands: VecDeque<Command>,
    /// First the one that made the first offer.
    sides: [Side; 2],
    /// Those with sound or pictures, in the order in which they came; their places in a plan stay.
    sections: Vec<Section>,
    offered: Option<Offered>,
    answered: bool,
    waiting: Option<Waiting>,
    relayed: Relayed,
    deadlines: Deadlines,
    /// Where telephony sends from, where it did not say so.
    sources: Sources,
    /// Whether a request wanted that to be as signalled, and what we send.
    strict: bool,
    asymmetric: bool,
    connected: bool,
    past: Vec<CallEvent>,
    cause: Option<EndCause>,
    over: bool,
}

impl Bridge {
    /// Begins with an offer.
    ///
    /// # Errors
    /// `error-reason`; nothing has begun then.
    pub fn new(
        id: CallId,
        settings: Arc<Settings>,
        options: Arc<BridgeSettings>,
        seed: Seed,
        (now, created): (Instant, u64),
        request: &Request,
    ) -> Result<Self, String> {
        let sdp = Sdp::parse(&request.sdp)?;
        let mut peer = Peer::read(&sdp, &request.flags)?;
        let sides = negotiate::sides(&options, request, &peer)?;
        negotiate::strip(&mut peer, &request.flags)?;
        let strict = settings.sip.policy.strict_source;
        let mut bridge = Self {
            id,
            call_id: request.call_id.clone(),
            branch: request.via_branch.clone(),
            created,
            begun: Some(now),
            signalled: Duration::ZERO,
            settings,
            options,
            random: Random::new(seed),
            commands: VecDeque::new(),
            sides,
            sections: Vec::new(),
            offered: None,
            answered: false,
            waiting: Some(Waiting::Ports),
            relayed: Relayed::default(),
            deadlines: Deadlines::default(),
            sources: Sources::default(),
            strict,
            asymmetric: false,
            connected: false,
            past: Vec::new(),
            cause: None,
            over: false,
        };
        bridge.note_sources(&request.flags);
        bridge.check(0, &mut peer)?;
        bridge.take_up(&mut peer)?;
        let (toward, pairs) = bridge.wanted_ports(&peer, &request.flags)?;
        bridge.offered = Some(Offered { by: 0, sdp, peer, flags: request.flags.clone() });
        bridge.commands.push_back(Command::Reserve { toward, pairs });
        bridge.deadlines.relay = Some(now + bridge.settings.timeouts.relay);
        bridge.deadlines.quiet = Some(now + bridge.options.patience);
        Ok(bridge)
    }

    /// A later offer, or an answer.
    pub fn request(&mut self, now: Instant, request: &Request) {
        if self.over || self.cause.is_some() {
            self.fail("Unknown call-id");
            return;
        }
        if self.waiting.is_some() {
            self.fail("The call is busy with another request");
            return;
        }
        self.deadlines.delete = None;
        self.signalled = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        self.note_sources(&request.flags);
        let outcome = match request.verb {
            Verb::Offer => self.offer(request, now),
            Verb::Answer => self.answer(request, now),
            _ => Err("Unrecognized command".into()),
        };
        match outcome {
            Ok(()) if !self.connected && self.cause.is_none() => {
                self.deadlines.quiet = Some(now + self.options.patience)
            }
            Ok(()) => {}
            Err(reason) => self.fail(&reason),
        }
    }

    /// Ends the call, at once or after a while.
    pub fn delete(&mut self, now: Instant, delay: Duration) {
        if delay.is_zero() {
            self.end(EndCause::HangUp);
        } else if self.cause.is_none() {
            self.deadlines.delete.get_or_insert(now + delay);
        }
    }

    /// In [`Self::is_meant`]: the request names the branch of the first offer.
    pub const SAME_BRANCH: u8 = 2;

    /// Whether a request means this call, by tags and branch as far as it names them: the higher, the surer.
    pub fn is_meant(&self, request: &Request) -> Option<u8> {
        let [one, other] = [&self.sides[0].tag, &self.sides[1].tag];
        let is = |tag: &str| tag == one || tag == other;
        let branches = request.via_branch.as_ref().zip(self.branch.as_ref());
        let same_branch = branches.is_some_and(|(theirs, ours)| theirs == ours);
        if !self.answered && branches.is_some() && !same_branch && other.is_empty() {
            // Another branch of the same INVITE; later requests have branches of their own.
            return None;
        }
        let to = request.to_tag.as_deref();
        let meant = match request.verb {
            Verb::Offer => {
                (is(&request.from_tag) || (other.is_empty() && self.answered))
                    && to.is_none_or(|to| is(to) || other.is_empty())
            }
            Verb::Answer => {
                let offerer = self.offered.as_ref().map_or(0, |offered| offered.by);
                request.from_tag == self.sides[offerer].tag
            }
            _ => {
                let from = request.from_tag.is_empty() || is(&request.from_tag);
                from && to.is_none_or(|to| is(to) || other.is_empty())
            }
        };
        let known = to.is_some_and(|to| to == other || to == one);
        meant.then(|| {
            4 * u8::from(known) + Self::SAME_BRANCH * u8::from(same_branch) + u8::from(!self.answered)
        })
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.over {
            return;
        }
        match input {
            Input::HangUp | Input::Abandoned => self.end(EndCause::HangUp),
            Input::Reserved(ports) => self.reserved(&ports),
            Input::Installed(version) => self.installed(version, now),
            Input::Refused(refusal) => self.refused(refusal),
            Input::Stun { path, payload } => self.stun(&path, &payload, now),
            Input::Trickle { candidates, .. } => self.trickle(&candidates, now),
            Input::ConsentLost(flow) => {
                if self.sides.iter().any(|side| side.nominated() == Some(flow)) {
                    self.end(EndCause::ConsentLost);
                }
            }
            Input::Disconnected(flow) => self.disconnected(flow, now),
            Input::RelayAway => self.relay_away(now),
            Input::RelayBack(version) => self.relay_back(version, now),
            Input::Source(flow) => self.source(&flow, now),
            Input::RelayLost => self.end(EndCause::RelayLost),
            Input::DtlsDone { profile, receive, send, peer_fingerprint } => {
                self.dtls_done(profile, side::Keys { receive, send }, &peer_fingerprint, now);
            }
            Input::DtlsFailed(text) => self.end(EndCause::DtlsFailed(text)),
            Input::DtlsClosed { .. } => self.end(EndCause::DtlsClosed),
            Input::SipResponse { .. }
            | Input::SipTimeout(_)
            | Input::SipTransportError(_)
            | Input::SipRequest { .. }
            | Input::SipCancelled(_)
            | Input::NextDtlsDone { .. }
            | Input::NextDtlsFailed(_)
            | Input::Digit { .. }
            | Input::Picture(_)
            | Input::Decline(_)
            | Input::Dtmf { .. }
            | Input::Info { .. }
            | Input::Transfer(_)
            | Input::Record(_) => {}
        }
    }

    /// The next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called, unless something happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ice = self.sides.iter().filter_map(Side::ice_due).min().filter(|_| self.cause.is_none());
        [self.deadlines.next(), ice].into_iter().flatten().min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if self.over {
            return;
        }
        if passed(self.deadlines.delete) {
            self.end(EndCause::HangUp);
        } else if passed(self.deadlines.relay) {
            self.end(EndCause::RelayLost);
        } else if passed(self.deadlines.dtls) {
            self.end(EndCause::DtlsFailed("it took too long".into()));
        } else if passed(self.deadlines.quiet) {
            self.end(if self.answered { EndCause::IceTimeout } else { EndCause::RingTimeout });
        } else {
            self.ice_time(now);
        }
    }

    fn reserved(&mut self, ports: &[PortPair]) {
        if !matches!(self.waiting, Some(Waiting::Ports)) {
            return;
        }
        let mut ports = ports.iter().copied();
        let offered = self.offered.as_ref().map(|offered| &offered.peer);
        let wanted = |section: &&mut Section| offered.is_some_and(|peer| peer.at(section.at).is_some());
        for section in self.sections.iter_mut().filter(wanted) {
            let inside = |(_, side): &(_, &Side)| side.zone == Zone::Inside;
            for (end, _) in section.ends.iter_mut().zip(&self.sides).filter(inside) {
                end.ports = end.ports.or_else(|| ports.next());
            }
        }
        self.go_on();
    }

    /// The relay gave ports, or has none for what a later offer adds.
    fn go_on(&mut self) {
        self.deadlines.relay = self.deadlines.relay.filter(|_| self.relayed.in_flight);
        self.waiting = None;
        match self.show_offer() {
            Ok(text) => self.commands.push_back(Command::Answer(text)),
            Err(reason) if self.answered => {
                self.offered = None;
                self.fail(&reason);
            }
            Err(reason) => {
                self.waiting = Some(Waiting::Ports);
                self.end(EndCause::Protocol(reason));
            }
        }
    }

    /// Whether this is about ports that a later offer needs for more sections.
    fn adds(&self) -> bool {
        let first = self.sections.iter().all(|section| !section.has_ports(&self.sides));
        matches!(self.waiting, Some(Waiting::Ports)) && !first
    }

    fn refused(&mut self, refusal: Refusal) {
        let of_ports = matches!(refusal, Refusal::NoPorts | Refusal::TooLarge | Refusal::Unreachable);
        if of_ports && self.adds() {
            self.go_on();
            return;
        }
        self.relayed.in_flight = false;
        self.end(EndCause::Refused(refusal));
    }

    /// A request is answered by an error; the call stays as it was.
    fn fail(&mut self, reason: &str) {
        let cause = EndCause::Protocol(reason.to_owned());
        self.commands.push_back(Command::Fail(CallFailure {
            cause,
            sip_status: None,
            text: reason.to_owned(),
        }));
    }

    pub(super) fn notify(&mut self, event: CallEvent) {
        self.past.push(event.clone());
        self.commands.push_back(Command::Notify(event));
    }

    /// What runs goes on for a while; a call that was never installed has nothing there.
    fn relay_away(&mut self, now: Instant) {
        if self.cause.is_some() || self.relayed.away {
            return;
        }
        if self.relayed.installed == 0 {
            self.end(EndCause::RelayLost);
            return;
        }
        // Its successor knows only of ports that a plan has.
        for section in &mut self.sections {
            if !section.is_installed(&self.sides) {
                section.ends.iter_mut().for_each(|end| end.ports = None);
            }
        }
        if self.adds() {
            self.go_on();
        }
        self.relayed.away = true;
        self.deadlines.relay = Some(now + self.settings.timeouts.away);
    }

    fn relay_back(&mut self, version: u32, now: Instant) {
        if self.cause.is_some() || !self.relayed.away {
            return;
        }
        self.deadlines.relay = None;
        if self.relayed.returns(version) {
            self.replan(now);
        }
        self.tell_connected();
    }

    /// The one way that a call ends.
    fn end(&mut self, cause: EndCause) {
        if self.cause.is_some() || self.over {
            return;
        }
        if self.waiting.take().is_some() {
            let failure = CallFailure { sip_status: None, text: cause.text(), cause: cause.clone() };
            self.commands.push_back(Command::Fail(failure));
        }
        self.cause = Some(cause.clone());
        self.deadlines = Deadlines::default();
        if self.sides.iter().any(Side::has_dtls) {
            self.commands.push_back(Command::DtlsClose);
        }
        self.commands.push_back(Command::Remove);
        self.notify(CallEvent::Ended { cause });
        self.over = true;
        self.commands.push_back(Command::Ended);
    }

    /// The call as REST shows it.
    pub fn view(&self) -> CallView {
        let outside = self.sides.iter().find_map(|side| side.outside.as_deref());
        let codec = |medium: Medium| {
            let section = self.sections.iter().find(|section| section.medium == medium && section.live)?;
            let formats = section.ends.iter().rev().find_map(|end| end.said.as_ref())?.formats.first();
            let chosen = section.chosen.first().map(|chosen| &chosen.outside);
            Some(chosen.or(formats)?.name.clone())
        };
        CallView {
            incoming: false,
            from: String::new(),
            id: self.id,
            state: self.state(),
            to: format!("ng:{}", self.call_id),
            created: self.created,
            codec: codec(Medium::Audio),
            video: codec(Medium::Video),
            ice: match outside.map(|outside| outside.nominated.is_some()) {
                Some(true) => StepState::Connected,
                Some(false) if self.answered => StepState::Checking,
                Some(false) | None => StepState::New,
            },
            dtls: outside.map_or(StepState::New, |outside| outside.dtls),
            profile: outside.and_then(|outside| outside.profile),
            recording: false,
            sip_status: None,
            outside: outside.and_then(|outside| outside.nominated).map(|flow| flow.remote),
            version: self.relayed.installed,
        }
    }

    fn state(&self) -> CallState {
        if self.over {
            CallState::Ended
        } else if self.connected {
            CallState::Connected
        } else if self.answered {
            CallState::Answered
        } else if self.sections.iter().any(|section| section.has_ports(&self.sides)) {
            CallState::Calling
        } else {
            CallState::Reserving
        }
    }

    /// What those who watch were told.
    pub fn past(&self) -> &[CallEvent] {
        &self.past
    }

    /// Whether another control can go on with it.
    pub const fn outlives_control(&self) -> bool {
        self.connected && self.cause.is_none()
    }

    /// Whether it waits for a relay that is away.
    pub const fn waits_for_relay(&self) -> bool {
        self.relayed.away
    }

    /// Names the call.
    pub const fn id(&self) -> CallId {
        self.id
    }

    /// Its name in the signalling.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// When it began, in milliseconds since the Unix epoch.
    pub const fn created(&self) -> u64 {
        self.created
    }

    /// When its last request came, in milliseconds since the Unix epoch; when it began, where another control heard that.
    pub fn signalled(&self) -> u64 {
        self.created.saturating_add(u64::try_from(self.signalled.as_millis()).unwrap_or(u64::MAX))
    }

    /// Our ICE user fragment: what stands left of the colon in USERNAME of a browser's checks. Without a browser one that
    /// no check can name.
    pub fn ice_ufrag(&self) -> &str {
        let outside = self.sides.iter().find_map(|side| side.outside.as_deref());
        outside.map_or("-", |outside| &outside.local.0)
    }

    /// Both sides, for those who ask.
    pub fn tags(&self) -> impl Iterator<Item = BridgeTag> {
        self.sides.iter().enumerate().map(|(at, side)| {
            let medium = |(index, section): (u8, &Section)| self.tag_medium((index, section), at);
            BridgeTag {
                tag: side.tag.clone(),
                zone: side.zone,
                profile: side.profile,
                medias: (0..).zip(&self.sections).map(medium).collect(),
            }
        })
    }

    fn tag_medium(&self, (index, section): (u8, &Section), at: usize) -> BridgeMedium {
        let end = &section.ends[at];
        let direction = end.said.as_ref().map(|said| said.direction).filter(|_| section.live);
        let flows = section.flows(at, &self.sides).map(|(rtp, rtcp)| (rtp.local, rtcp.local));
        BridgeMedium {
            place: section.at,
            medium: section.medium,
            direction: 2 * index + u8::from(at == 1),
            profile: end.said.as_ref().map_or(self.sides[at].profile, |said| said.profile),
            local: flows.or_else(|| end.ports.map(|ports| (ports.rtp, ports.rtcp))),
            remote: section.remote(at, &self.sides),
            mux: end.mux,
            sends: direction.is_some_and(crate::sdp::Direction::sends),
            receives: direction.is_some_and(crate::sdp::Direction::receives),
        }
    }

    /// Whether nobody would miss the call were its end never told: no consent is kept on either side.
    pub fn is_plain(&self) -> bool {
        self.sides.iter().all(|side| side.zone == Zone::Inside)
    }
}

/// One side of a call, for those who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeTag {
    /// Its tag; empty before it has answered.
    pub tag: String,
    /// Where it is.
    pub zone: Zone,
    /// Its profile.
    pub profile: Profile,
    /// Its sound and pictures.
    pub medias: Vec<BridgeMedium>,
}

/// What a side has of one section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeMedium {
    /// Place of the section, from 0.
    pub place: usize,
    /// Sound or a picture.
    pub medium: Medium,
    /// Index of the direction that comes from the side.
    pub direction: u8,
    /// Its profile.
    pub profile: Profile,
    /// Where it sends RTP and RTCP; outside not before there is a path.
    pub local: Option<(SocketAddr, SocketAddr)>,
    /// Where its RTP and RTCP go.
    pub remote: Option<(SocketAddr, SocketAddr)>,
    /// Whether those are one.
    pub mux: bool,
    /// Whether it wants to send.
    pub sends: bool,
    /// Whether it wants to receive.
    pub receives: bool,
}
