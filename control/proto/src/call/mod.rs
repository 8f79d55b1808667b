//! One call.

mod adding;
mod deadlines;
mod digits;
mod farewell;
pub(crate) mod ice;
mod identity;
mod info;
mod inside;
mod invited;
mod media;
mod offering;
mod peer;
mod picture;
mod plan;
mod proposing;
mod record;
mod recording;
mod redirect;
mod refer;
mod referral;
mod reinvite;
mod relaying;
mod reoffer;
mod replaced;
mod requests;
mod restore;
mod rules;
mod secrecy;
mod successor;
#[cfg(test)]
mod tests;
mod timer;
mod video;
mod view;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use sallyport_plan::{CallId, FlowKey, PortPair, Profile, Zone};

use crate::api::{CallEvent, CallFailure, Command, EndCause, Input, Party, Placing, StepState};
use crate::error::OfferError;
use crate::random::{Random, Seed};
use crate::relayed::Relayed;
use crate::sdp::{
    Agreed, BrowserOffer, Chosen, Codec, Direction, Extension, InsideAnswer, InsideOffer, Setup,
};
use crate::settings::Settings;
use crate::sip::{Credentials, Dialog, Request, TransactionId};
use crate::sources::Sources;

use deadlines::{Deadlines, passed};
use farewell::{Bye, LINGER};
use ice::Ice;
use inside::{Calling, Line};
use invited::Invited;
use peer::Unacked;
use plan::Keys;
use recording::Recording;
use referral::Referral;
use reinvite::Reinvite;
use requests::Asking;
use secrecy::Secrets;
use successor::Successor;
use timer::Timer;
use video::Video;

pub use replaced::{Wanted, wanted};

/// The browser's side.
#[derive(Debug)]
struct Outside {
    offer: Option<BrowserOffer>,
    /// What the browser may use: all of its offer that we know, then what our answer has of it.
    codecs: Vec<Codec>,
    ice: Option<Ice>,
    /// Agents of our own offers to browsers that it rings at, by their side.
    offered: Vec<(Zone, Ice)>,
    /// Of an ICE restart, until it has found a pair.
    next: Option<Ice>,
    zone: Zone,
    nominated: Option<FlowKey>,
    /// SHA-256 over the browser's certificate, which stays the same as long as its connection.
    fingerprint: Option<[u8; 32]>,
    /// And over ours: that of the control which shook hands, as the association goes on without another.
    identity: [u8; 32],
    setup: Setup,
    dtls: StepState,
    dtls_begun: bool,
    keys: Option<Keys>,
    profile: Option<Profile>,
    consent: Option<sallyport_plan::Consent>,
    /// Version of our answers.
    version: u32,
    /// What the browser does with the sound.
    direction: Direction,
    /// What is agreed with it of the sound's header extensions.
    agreed: Agreed,
    /// Our answer to its offer in the middle of the call, until the relay has the plan of this version, which does what it says.
    answer: Option<(u32, String)>,
    ufrags: (String, String),
    /// What becomes of a picture that we have offered to it.
    proposal: proposing::Proposal,
    /// Why the call ends unless another connection of the browser takes the place of this one.
    gone: Option<EndCause>,
}

/// Telephony's side.
#[derive(Debug, Default)]
struct Inside {
    /// The one that the browser talks in, or begins to.
    dialog: Dialog,
    credentials: Credentials,
    /// Our INVITE that began the dialog.
    invite: Option<Calling>,
    /// Theirs, of a call that came from the inside.
    invited: Option<Invited>,
    /// Our INVITE in the middle of the call, and ACKs of former ones.
    reinvite: Option<Reinvite>,
    acked: VecDeque<(TransactionId, Request)>,
    /// Our 2xx to an INVITE that has no ACK yet.
    unacked: Option<Unacked>,
    /// Other requests of ours under way.
    asking: Vec<Asking>,
    digits: VecDeque<(char, u16)>,
    told_digits: Vec<digits::Told>,
    wishes: picture::Wishes,
    bye: Option<Bye>,
    bye_waits: bool,
    /// Whom the far end sends us to.
    referral: Option<Referral>,
    /// Whether it did before in this dialog.
    referred: bool,
    /// The dialog that another has replaced.
    former: Option<Dialog>,
    /// The far end left while it was being replaced.
    gone: bool,
    /// A transfer that we asked for is under way, or has come about.
    transferring: bool,
    transferred: bool,
    timer: Timer,
    /// Whether the Call-ID is ours.
    owner: bool,
    offer: Option<InsideOffer>,
    sdes: Secrets,
    /// Our last description, which holds keys where the leg has any, and its version.
    said: Option<Said>,
    version: u32,
    /// What the far end was told that the browser does with the sound.
    told: Direction,
    answer: Option<InsideAnswer>,
    /// Where it sends from, where it did not say so.
    sources: Sources,
    /// Whether the far end holds the call.
    held: bool,
    chosen: Vec<Chosen>,
    answered: bool,
    status: Option<u16>,
}

/// A description of ours. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
struct Said(zeroize::Zeroizing<String>);

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Said(..)")
    }
}

impl Inside {
    /// The id of a header extension that both we and the far end speak of.
    fn extension(&self, extension: Extension) -> Option<u8> {
        plan::inside_extension(self.offer.as_ref()?, self.answer.as_ref()?, extension)
    }

    /// Whether the far end sends or receives less than it could.
    fn holds(&self) -> bool {
        let most = self.told.answer(Direction::SendRecv);
        let less = |said: Direction| (most.sends() && !said.sends()) || (most.receives() && !said.receives());
        self.answer.as_ref().is_some_and(|answer| less(answer.direction))
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
    /// Another connection of the browser, until its handshake has ended.
    successor: Option<Box<Successor>>,
    inside: Inside,
    relayed: Relayed,
    deadlines: Deadlines,
    ssrc: (u32, u32),
    video: Video,
    /// The browser adds a picture, and waits for our answer.
    adding: Option<adding::Adding>,
    recording: Recording,
    session: u64,
    /// Answer or failure went to the browser.
    replied: bool,
    rang: bool,
    connected: bool,
    /// Headers of the INVITE that pass to browsers.
    passed: Vec<(String, String)>,
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
        if !settings.sip.policy.has_sound(&offer.codecs) {
            return Err(OfferError::NoCodec);
        }
        let uri = inside::destination(&placing.to, &settings.sip.domain).ok_or(OfferError::Destination)?;
        let mut random = Random::new(seed);
        let party = placing.from.unwrap_or_else(|| settings.sip.party());
        let tag = random.hex(8);
        let mut dialog = inside::dialog(&settings.sip, &party, &uri, &tag, &mut random);
        dialog.route = placing.route;
        let mut headers = identity::passed(&placing.headers, &settings.sip);
        headers.extend(identity::assertion(&party, &settings.sip));
        let calling = Calling::new(dialog.clone(), headers);
        let mut call = Self::bare(id, (placing.to, party), created, settings, random, dialog);
        (call.inside.invite, call.inside.owner) = (Some(calling), true);
        call.browser_offers(offer, placing.zone);
        let (toward, pairs) = (call.settings.toward, call.pairs(call.video.is_wanted()));
        call.commands.push_back(Command::Reserve { toward, pairs });
        call.deadlines.relay = Some(now + call.settings.timeouts.relay);
        Ok(call)
    }

    /// The browser's offer, whose answer it waits for.
    fn browser_offers(&mut self, offer: BrowserOffer, zone: Zone) {
        let ice = Ice::new(&self.settings, zone, &offer, &mut self.random);
        self.browser_is(offer, ice, zone);
    }

    /// The browser of the call, as it described itself.
    fn browser_is(&mut self, offer: BrowserOffer, ice: Ice, zone: Zone) {
        self.outside.ufrags = (ice.ufrag().to_owned(), ice.remote_ufrag().to_owned());
        let spoken = &self.settings.sip.policy.codecs;
        let usable =
            offer.codecs.iter().filter(|codec| codec.kind.is_event() || spoken.contains(&codec.kind));
        self.outside.codecs = usable.copied().collect();
        self.video.offered(&offer);
        self.outside.direction = offer.direction;
        (self.outside.zone, self.outside.setup) = (zone, offer.setup);
        self.outside.fingerprint = Some(offer.fingerprint);
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
        let (session, video) = (random.u64() >> 2, Video::new(&mut random));
        let (identity, recording) = (settings.fingerprint, Recording::new(&settings));
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
                next: None,
                zone: Zone::Outside,
                nominated: None,
                fingerprint: None,
                identity,
                setup: Setup::ActPass,
                dtls: StepState::New,
                dtls_begun: false,
                keys: None,
                profile: None,
                consent: None,
                version: 1,
                direction: Direction::SendRecv,
                agreed: Agreed::default(),
                answer: None,
                ufrags: (String::new(), String::new()),
                proposal: proposing::Proposal::None,
                gone: None,
            },
            successor: None,
            inside: Inside { dialog, ..Inside::default() },
            relayed: Relayed::default(),
            deadlines: Deadlines::default(),
            ssrc,
            video,
            adding: None,
            recording,
            session,
            replied: false,
            rang: false,
            connected: false,
            passed: Vec::new(),
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
                self.agents().for_each(|ice| ice.receive(&path, &payload, now));
                self.drain_ice(now);
            }
            Input::ConsentLost(flow) => self.consent_lost(flow, now),
            Input::Disconnected(flow) => self.disconnected(flow, now),
            Input::Digit { direction, event, duration } => self.heard(direction, event, duration, now),
            Input::Picture(direction) => self.wishes(direction, now),
            Input::Source(flow) => self.source(&flow, now),
            Input::RelayAway => self.relay_away(now),
            Input::RelayBack(version) => self.relay_back(version, now),
            Input::RelayLost => self.end(EndCause::RelayLost, now),
            Input::DtlsDone { profile, receive, send, peer_fingerprint } => {
                self.dtls_done(profile, Keys { receive, send }, &peer_fingerprint, now);
            }
            Input::DtlsFailed(text) => {
                self.outside.dtls = StepState::Failed;
                self.connection_over(EndCause::DtlsFailed(text), false, now);
            }
            Input::DtlsClosed { returns } => self.connection_over(EndCause::DtlsClosed, returns, now),
            Input::NextDtlsDone { profile, receive, send, peer_fingerprint } => {
                self.succeed((profile, Keys { receive, send }), &peer_fingerprint, now);
            }
            Input::NextDtlsFailed(text) => self.successor_failed(&text, now),
            Input::SipResponse { transaction, response } => self.sip_response(transaction, response, now),
            Input::SipTimeout(transaction) => self.sip_silence(transaction, now),
            Input::SipTransportError(transaction) => self.sip_lost(transaction, now),
            Input::SipRequest { transaction, request } => self.sip_request(transaction, &request, now),
            Input::SipCancelled(transaction) => self.cancelled(transaction, now),
            Input::Decline(status) => self.decline(status, now),
            Input::Dtmf { digits, duration } => self.dtmf(&digits, duration),
            Input::Info { content_type, body } => self.info(&content_type, body),
            Input::Transfer(transfer) => self.transfer(transfer, now),
            Input::Record(wish) => self.asked_to_record(wish, now),
        }
        self.see_to_recording(now);
    }

    /// The next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called, unless something happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let successor = self.successor.iter().map(|successor| &successor.ice);
        let agents = self.outside.ice.iter().chain(&self.outside.next).chain(successor);
        let agents = agents.filter(|_| self.cause.is_none());
        let ice = agents.filter_map(Ice::due).min();
        [self.deadlines.next(), ice, self.ack_due(), self.reliable_due()].into_iter().flatten().min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        if passed(&mut self.deadlines.linger, now) {
            self.finish();
        } else if passed(&mut self.deadlines.relay, now) {
            self.end(EndCause::RelayLost, now);
        } else if passed(&mut self.deadlines.ring, now) {
            self.end(EndCause::RingTimeout, now);
        } else if passed(&mut self.deadlines.ice, now) {
            self.end(EndCause::IceTimeout, now);
        } else if passed(&mut self.deadlines.dtls, now) {
            self.outside.dtls = StepState::Failed;
            self.end(EndCause::DtlsFailed("it took too long".into()), now);
        } else if self.ack_due().is_some_and(|at| at <= now) {
            self.unacknowledged(now);
        } else {
            self.dialog_time(now);
        }
        if self.cause.is_none() {
            self.agents().for_each(|ice| ice.handle_timeout(now));
            self.drain_ice(now);
        }
        self.finish_if_quiet();
    }

    /// Deadlines of a call that goes on behind them.
    fn dialog_time(&mut self, now: Instant) {
        if passed(&mut self.deadlines.restart, now) {
            self.outside.next = None;
        }
        if passed(&mut self.deadlines.expiry, now) {
            self.expired(now);
        }
        if passed(&mut self.deadlines.glare, now) {
            self.glare_passed(now);
        }
        if passed(&mut self.deadlines.refresh, now) {
            self.refresh(now);
        }
        if passed(&mut self.deadlines.former, now) {
            self.leave_former();
        }
        if passed(&mut self.deadlines.referral, now) {
            self.cancel(Line::Referred);
        }
        if passed(&mut self.deadlines.successor, now) {
            self.successor_failed("the handshake took too long", now);
        }
        if passed(&mut self.deadlines.gone, now) {
            return self.end(self.outside.gone.clone().unwrap_or(EndCause::DtlsClosed), now);
        }
        if passed(&mut self.deadlines.rekeyed, now) {
            self.far_end_has_key(now);
        }
        if passed(&mut self.deadlines.adding, now) {
            self.picture_refused(now);
        }
        if passed(&mut self.deadlines.transfer, now) {
            self.transfer_forgotten();
        }
        if self.reliable_due().is_some_and(|at| at <= now) {
            self.repeat_reliable(now);
        }
        self.recording_time(now);
    }

    /// Until when the ACK to our 2xx is waited for: a call that ends waits for the one before which it may not say BYE.
    fn ack_due(&self) -> Option<Instant> {
        let waits = self.cause.is_none() || self.inside.bye_waits;
        self.inside.unacked.as_ref().filter(|_| waits).map(|unacked| unacked.until)
    }

    fn reserved(&mut self, ports: &[PortPair], now: Instant) {
        let Some(pair) = ports.first() else { return };
        if self.cause.is_some() {
            self.commands.push_back(Command::Remove);
            return;
        }
        if self.inside.offer.is_some() {
            return self.reserved_later(ports, now);
        }
        self.deadlines.relay = None;
        self.video.reserved(ports.get(1));
        if self.incoming {
            self.inside.offer = Some(InsideOffer::new(self.session, *pair, &[], &[], false));
            self.take_up(now);
            return;
        }
        if self.outside.offer.is_none() {
            return;
        }
        let (spoken, events) = (&self.settings.sip.policy.codecs, self.offers_events());
        let offer = InsideOffer::new(self.session, *pair, &self.outside.codecs, spoken, events);
        self.inside.offer = Some(InsideOffer { extensions: self.first_extensions(), ..offer });
        self.send_invite(Line::Own, now);
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
        self.drop_successor();
        if self.outside.dtls_begun {
            self.commands.push_back(Command::DtlsClose);
        }
        // Whatever the relay holds or not: its answer to a reservation or a plan may be on its way.
        self.commands.push_back(Command::Remove);
        self.recording_ends_with_call();
        self.notify(CallEvent::Ended { cause });
        self.hang_up_inside(remote);
        self.finish_if_quiet();
    }

    fn notify(&mut self, event: CallEvent) {
        if event.is_step() {
            // Of these the last one says it all.
            self.past.retain(|past| past.name() != event.name());
            self.past.push(event.clone());
        }
        self.commands.push_back(Command::Notify(event));
    }

    fn finish_if_quiet(&mut self) {
        if self.cause.is_some() && self.is_quiet() {
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
}
