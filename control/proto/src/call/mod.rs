//! One call.

mod errands;
pub(crate) mod ice;
mod inside;
mod invited;
mod media;
mod offering;
mod peer;
mod plan;
mod record;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use sallyport_plan::{CallId, FlowKey, PortPair, Profile, Refusal, Zone};

use crate::api::{
    CallEvent, CallFailure, CallState, CallView, Command, DtlsRole, DtlsStart, EndCause, Input, Party,
    Placing, StepState,
};
use crate::error::OfferError;
use crate::random::{Random, Seed};
use crate::relayed::Relayed;
use crate::sdp::{BrowserOffer, Chosen, Codec, Direction, InsideAnswer, InsideOffer, Setup};
use crate::settings::Settings;
use crate::sip::{Credentials, Dialog};

use ice::Ice;
use inside::{Bye, Invite};
use invited::Invited;
use plan::Keys;

/// When all is over but an answer inside never comes.
const LINGER: std::time::Duration = std::time::Duration::from_secs(34);

/// The browser's side.
#[derive(Debug)]
struct Outside {
    offer: Option<BrowserOffer>,
    /// What the browser may use: all of its offer that we know, then what our answer has of it.
    codecs: Vec<Codec>,
    ice: Option<Ice>,
    /// Agents of our own offers to browsers that it rings at, by their side.
    offered: Vec<(Zone, Ice)>,
    nominated: Option<FlowKey>,
    dtls: StepState,
    dtls_begun: bool,
    keys: Option<Keys>,
    profile: Option<Profile>,
    consent: Option<sallyport_plan::Consent>,
    /// Version of our answers.
    version: u32,
    /// What the browser does with the sound.
    direction: Direction,
    ufrags: (String, String),
}

/// Telephony's side.
#[derive(Debug)]
struct Inside {
    dialog: Dialog,
    /// More headers of our INVITE.
    headers: Vec<(String, String)>,
    /// Dialogs that provisional answers began, one per fork.
    early: Vec<Dialog>,
    credentials: Credentials,
    invite: Option<Invite>,
    /// Theirs, of a call that came from the inside.
    invited: Option<Invited>,
    bye: Option<Bye>,
    /// CSeq of a re-INVITE that we answered by an offer, and until when its ACK may bring the answer.
    offering: Option<(u32, Instant)>,
    offer: Option<InsideOffer>,
    version: u32,
    answer: Option<InsideAnswer>,
    chosen: Vec<Chosen>,
    answered: bool,
    status: Option<u16>,
}

/// Deadlines of the steps under way.
#[derive(Debug, Default)]
struct Deadlines {
    relay: Option<Instant>,
    ring: Option<Instant>,
    ice: Option<Instant>,
    dtls: Option<Instant>,
    linger: Option<Instant>,
}

impl Deadlines {
    fn next(&self) -> Option<Instant> {
        [self.relay, self.ring, self.ice, self.dtls, self.linger].into_iter().flatten().min()
    }
}

/// A browser's leg and a SIP leg, from the offer to the last BYE.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    /// Whether it came from the inside.
    incoming: bool,
    to: String,
    /// Who calls; of a call from the inside the number and name there.
    party: Party,
    created: u64,
    settings: Arc<Settings>,
    random: Random,
    commands: VecDeque<Command>,
    outside: Outside,
    inside: Inside,
    relayed: Relayed,
    deadlines: Deadlines,
    ssrc: (u32, u32),
    session: u64,
    /// Answer or failure went to the browser.
    replied: bool,
    rang: bool,
    connected: bool,
    /// What those who watch were told.
    past: Vec<CallEvent>,
    cause: Option<EndCause>,
    over: bool,
    next_transaction: u64,
}

impl Call {
    /// Begins a call with the browser's offer; `created` is the time in milliseconds since the Unix epoch, for
    /// [`CallView`] only.
    ///
    /// # Errors
    /// [`OfferError`]; nothing has begun then.
    pub fn new(
        id: CallId,
        settings: Arc<Settings>,
        seed: Seed,
        placing: Placing,
        now: Instant,
        created: u64,
        offer: &str,
    ) -> Result<Self, OfferError> {
        let offer = BrowserOffer::parse(offer)?;
        let uri = inside::destination(&placing.to, &settings.sip.domain).ok_or(OfferError::Destination)?;
        let mut random = Random::new(seed);
        let party = placing.from.unwrap_or_else(|| settings.sip.party());
        let mut dialog = inside::dialog(&settings.sip, &party, &uri, &mut random);
        dialog.route = placing.route;
        let mut call = Self::bare(id, (placing.to, party), created, settings, random, dialog);
        call.inside.headers = placing.headers;
        call.browser_offers(offer, placing.zone);
        let toward = call.settings.toward;
        call.commands.push_back(Command::Reserve { toward, pairs: 1 });
        call.deadlines.relay = Some(now + call.settings.timeouts.relay);
        Ok(call)
    }

    /// The browser's offer, whose answer it waits for.
    fn browser_offers(&mut self, offer: BrowserOffer, zone: Zone) {
        let ice = Ice::new(&self.settings, zone, &offer, &mut self.random);
        self.browser_is(offer, ice);
    }

    /// The browser of the call, as it described itself.
    fn browser_is(&mut self, offer: BrowserOffer, ice: Ice) {
        self.outside.ufrags = (ice.ufrag().to_owned(), ice.remote_ufrag().to_owned());
        self.outside.codecs.clone_from(&offer.codecs);
        self.outside.direction = offer.direction;
        self.outside.offer = Some(offer);
        self.outside.ice = Some(ice);
    }

    fn bare(
        id: CallId,
        (to, party): (String, Party),
        created: u64,
        settings: Arc<Settings>,
        mut random: Random,
        dialog: Dialog,
    ) -> Self {
        let ssrc = (random.u32(), random.u32());
        let session = random.u64() >> 2;
        Self {
            id,
            incoming: false,
            to,
            party,
            created,
            settings,
            random,
            commands: VecDeque::new(),
            outside: Outside {
                offer: None,
                codecs: Vec::new(),
                ice: None,
                offered: Vec::new(),
                nominated: None,
                dtls: StepState::New,
                dtls_begun: false,
                keys: None,
                profile: None,
                consent: None,
                version: 1,
                direction: Direction::SendRecv,
                ufrags: (String::new(), String::new()),
            },
            inside: Inside {
                dialog,
                early: Vec::new(),
                credentials: Credentials::default(),
                headers: Vec::new(),
                invite: None,
                invited: None,
                bye: None,
                offering: None,
                offer: None,
                version: 0,
                answer: None,
                chosen: Vec::new(),
                answered: false,
                status: None,
            },
            relayed: Relayed::default(),
            deadlines: Deadlines::default(),
            ssrc,
            session,
            replied: false,
            rang: false,
            connected: false,
            past: Vec::new(),
            cause: None,
            over: false,
            next_transaction: 0,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.over {
            return;
        }
        match input {
            Input::Trickle { ufrag, candidates, .. } => self.trickle(ufrag.as_deref(), &candidates, now),
            Input::HangUp => self.end(EndCause::HangUp, now),
            // Also behind the answer: nobody has read it.
            Input::Abandoned => self.end(EndCause::Abandoned, now),
            Input::Reserved(ports) => self.reserved(&ports, now),
            Input::Installed(version) => self.installed(version, now),
            Input::Refused(refusal) => self.refused(refusal, now),
            Input::Stun { path, payload } => {
                if let Some(ice) = &mut self.outside.ice {
                    ice.receive(&path, &payload, now);
                }
                self.drain_ice(now);
            }
            Input::ConsentLost(flow) if self.outside.nominated == Some(flow) => {
                self.end(EndCause::ConsentLost, now)
            }
            Input::ConsentLost(_) => {}
            Input::RelayAway => self.relay_away(now),
            Input::RelayBack(version) => self.relay_back(version, now),
            Input::RelayLost => self.end(EndCause::RelayLost, now),
            Input::DtlsDone { profile, receive, send, peer_fingerprint } => {
                self.dtls_done(profile, Keys { receive, send }, &peer_fingerprint, now);
            }
            Input::DtlsFailed(text) => {
                self.outside.dtls = StepState::Failed;
                self.end(EndCause::DtlsFailed(text), now);
            }
            Input::DtlsClosed => self.end(EndCause::DtlsClosed, now),
            Input::SipResponse { transaction, response } => self.sip_response(transaction, response, now),
            Input::SipTimeout(transaction) | Input::SipTransportError(transaction) => {
                self.sip_silence(transaction, now);
            }
            Input::SipRequest { transaction, request } => self.sip_request(transaction, &request, now),
            Input::SipCancelled(transaction) => self.cancelled(transaction, now),
            Input::Decline(status) => self.decline(status, now),
            Input::Dtmf { digits, duration } => self.dtmf(&digits, duration),
            Input::Info { content_type, body } => self.info(&content_type, body),
            Input::Transfer(transfer) => self.transfer(transfer),
        }
    }

    /// The next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called, unless something happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ice = self.outside.ice.as_ref().filter(|_| self.cause.is_none()).and_then(Ice::due);
        [self.deadlines.next(), ice].into_iter().flatten().min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if passed(self.deadlines.linger) {
            self.finish();
        } else if passed(self.deadlines.relay) {
            self.deadlines.relay = None;
            self.end(EndCause::RelayLost, now);
        } else if passed(self.deadlines.ring) {
            self.deadlines.ring = None;
            self.end(EndCause::RingTimeout, now);
        } else if passed(self.deadlines.ice) {
            self.deadlines.ice = None;
            self.end(EndCause::IceTimeout, now);
        } else if passed(self.deadlines.dtls) {
            self.deadlines.dtls = None;
            self.outside.dtls = StepState::Failed;
            self.end(EndCause::DtlsFailed("it took too long".into()), now);
        }
        if self.cause.is_none() {
            if let Some(ice) = &mut self.outside.ice {
                ice.handle_timeout(now);
            }
            self.drain_ice(now);
        }
    }

    fn reserved(&mut self, ports: &[PortPair], now: Instant) {
        let Some(pair) = ports.first() else { return };
        if self.cause.is_some() {
            self.commands.push_back(Command::Remove);
            return;
        }
        if self.inside.offer.is_some() {
            return;
        }
        self.deadlines.relay = None;
        if self.incoming {
            self.inside.offer = Some(InsideOffer::new(self.session, *pair, &[]));
            self.take_up(now);
            return;
        }
        let Some(offer) = &self.outside.offer else { return };
        self.inside.offer = Some(InsideOffer::new(self.session, *pair, &offer.codecs));
        self.send_invite(now);
    }

    /// What is not installed yet is lost with the connection: its ports are free for others. What runs goes on, and has
    /// some time to be found again.
    fn relay_away(&mut self, now: Instant) {
        if self.cause.is_some() || self.relayed.away {
            return;
        }
        if self.relayed.installed == 0 {
            self.end(EndCause::RelayLost, now);
            return;
        }
        self.relayed.away = true;
        self.deadlines.relay = Some(now + self.settings.timeouts.away);
    }

    /// What was on its way while the relay went may have arrived or not; what came about since is still to be told.
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

    fn refused(&mut self, refusal: Refusal, now: Instant) {
        self.deadlines.relay = None;
        self.relayed.in_flight = false;
        self.end(EndCause::Refused(refusal), now);
    }

    /// The one way that a call ends, whatever state it is in.
    fn end(&mut self, cause: EndCause, now: Instant) {
        if self.cause.is_some() {
            return;
        }
        if !self.replied {
            self.replied = true;
            let failure =
                CallFailure { sip_status: self.inside.status, text: cause.text(), cause: cause.clone() };
            self.commands.push_back(Command::Fail(failure));
        }
        let remote = matches!(cause, EndCause::RemoteHangUp);
        self.cause = Some(cause.clone());
        let linger = self.deadlines.linger.take().unwrap_or(now + LINGER);
        self.deadlines = Deadlines { linger: Some(linger), ..Deadlines::default() };
        if self.outside.dtls_begun {
            self.commands.push_back(Command::DtlsClose);
        }
        // Whatever the relay holds or not: its answer to a reservation or a plan may be on its way.
        self.commands.push_back(Command::Remove);
        self.notify(CallEvent::Ended { cause });
        self.hang_up_inside(remote);
        self.finish_if_quiet();
    }

    fn notify(&mut self, event: CallEvent) {
        if event.is_step() {
            self.past.push(event.clone());
        }
        self.commands.push_back(Command::Notify(event));
    }

    fn finish_if_quiet(&mut self) {
        if self.cause.is_some()
            && self.inside.bye.is_none()
            && self.inside.invite.as_ref().is_none_or(Invite::is_final)
        {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if !self.over {
            self.over = true;
            self.deadlines = Deadlines::default();
            self.commands.push_back(Command::Ended);
        }
    }

    /// The call as REST shows it.
    pub fn view(&self) -> CallView {
        let outside = &self.outside;
        let sound = self.inside.chosen.iter().find(|codec| codec.kind.is_sound());
        CallView {
            id: self.id,
            state: self.state(),
            incoming: self.incoming,
            from: self.party.user.clone(),
            to: self.to.clone(),
            created: self.created,
            codec: sound.map(|codec| codec.kind.rtpmap().to_owned()),
            ice: match (&outside.nominated, self.replied) {
                (Some(_), _) => StepState::Connected,
                (None, true) => StepState::Checking,
                (None, false) => StepState::New,
            },
            dtls: outside.dtls,
            profile: outside.profile,
            sip_status: self.inside.status,
            outside: outside.nominated.map(|flow| flow.remote),
            version: self.relayed.installed,
        }
    }

    fn state(&self) -> CallState {
        if self.over {
            CallState::Ended
        } else if self.cause.is_some() {
            CallState::Ending
        } else if self.connected {
            CallState::Connected
        } else if self.inside.answered {
            CallState::Answered
        } else if self.replied {
            CallState::Early
        } else if self.rang || self.inside.invited.is_some() {
            CallState::Ringing
        } else if self.inside.invite.is_some() {
            CallState::Calling
        } else {
            CallState::Reserving
        }
    }

    /// What those who watch were told so far, by a former control as well.
    pub fn past(&self) -> &[CallEvent] {
        &self.past
    }

    /// Whether media goes on, and another control can go on with the call, should this one end.
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

    /// Our tag of the SIP dialog.
    pub fn sip_tag(&self) -> &str {
        self.inside.dialog.local_tag()
    }

    /// Our ICE user fragment: what stands left of the colon in USERNAME of the browser's checks.
    pub fn ice_ufrag(&self) -> &str {
        &self.outside.ufrags.0
    }

    /// The browser's ICE user fragment.
    pub fn remote_ufrag(&self) -> &str {
        &self.outside.ufrags.1
    }

    /// Call-ID of the SIP leg.
    pub fn sip_call_id(&self) -> &str {
        &self.inside.dialog.call_id
    }
}

/// Who sends the ClientHello: the browser, unless its offer says that it does not.
fn dtls_role(setup: Setup) -> DtlsRole {
    match setup {
        Setup::Passive => DtlsRole::Active,
        Setup::ActPass | Setup::Active => DtlsRole::Passive,
    }
}

/// The handshake on a nominated pair.
fn dtls_start(setup: Setup, path: FlowKey) -> DtlsStart {
    DtlsStart { role: dtls_role(setup), path }
}
