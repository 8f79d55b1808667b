//! The browser's side of a call: answer, ICE, DTLS, and the plan that follows from them.

use std::net::SocketAddr;
use std::time::Instant;

use sallyport_plan::{FlowKey, Plan, Profile};

use super::Call;
use super::plan::{Keys, Parts, build};
use super::record::Record;
use super::video::Film;
use crate::api::{CallEvent, Command, DtlsRole, DtlsStart, EndCause, StepState};
use crate::sdp::{
    AnswerParts, BrowserOffer, Direction, Extension, InsideAnswer, InsideOffer, Setup, browser_answer,
};

impl Call {
    pub(super) fn trickle(&mut self, ufrag: Option<&str>, candidates: &[String], now: Instant) {
        let outside = &mut self.outside;
        let next =
            outside.next.as_mut().filter(|next| ufrag.is_none_or(|ufrag| ufrag == next.remote_ufrag()));
        let ours = ufrag.is_none_or(|ufrag| ufrag == outside.ufrags.1);
        let successor = self.successor.as_mut().map(|successor| &mut successor.ice);
        let successor = successor.filter(|ice| ufrag.is_none_or(|ufrag| ufrag == ice.remote_ufrag()));
        let agent = successor.or(next).or_else(|| outside.ice.as_mut().filter(|_| ours));
        if let Some(ice) = agent {
            for candidate in candidates {
                ice.add(candidate);
            }
            // An agent without a pair sleeps for seconds.
            ice.handle_timeout(now);
        }
        self.drain_ice(now);
    }

    /// The browser gets its one answer; from now on it checks.
    pub(super) fn answer_browser(&mut self, now: Instant) {
        if self.replied {
            return;
        }
        let Some(offer) = self.outside.offer.take() else { return };
        let _ = self.video.answers(&offer);
        self.agree(&offer);
        let offer = self.outside.offer.insert(offer);
        let Some(ice) = &mut self.outside.ice else { return };
        self.replied = true;
        let (cname, video) = (format!("{:08x}", self.ssrc.0), self.video.answers_again(offer));
        let text = browser_answer(
            offer,
            &AnswerParts {
                session: (self.session, self.outside.version),
                ufrag: ice.ufrag(),
                password: ice.password(),
                candidates: ice.lines(),
                lite: self.settings.ice_lite,
                fingerprint: &self.settings.fingerprint,
                ssrc: self.ssrc.0,
                cname: &cname,
                chosen: &self.inside.chosen,
                direction: Direction::SendRecv,
                agreed: &self.outside.agreed,
                video,
            },
        );
        let told = &self.inside.chosen;
        self.outside.codecs.retain(|codec| told.iter().any(|told| told.kind == codec.kind));
        ice.begin(now);
        self.commands.push_back(Command::Answer(text));
        self.deadlines.ice = Some(now + self.settings.timeouts.ice);
        self.drain_ice(now);
    }

    /// Takes what the browser offers of the sound's header extensions: what the inside has as well, and beside a picture what
    /// a bundle needs.
    pub(super) fn agree(&mut self, offer: &BrowserOffer) {
        let picture = self.video.agreed();
        let (named, wide) = (picture.mid.is_some() && offer.bundled, picture.is_transport_wide());
        self.outside.agreed = offer.says.only(|extension| match extension {
            Extension::Mid => named,
            Extension::TransportWide => wide,
            carried => self.inside.extension(carried).is_some(),
        });
    }

    /// Sends what the agent wants sent and follows its nominations.
    pub(super) fn drain_ice(&mut self, now: Instant) {
        if self.cause.is_some() || !self.replied {
            return;
        }
        self.drain_next(now);
        self.drain_successor(now);
        let Some(ice) = &mut self.outside.ice else { return };
        while let Some(command) = ice.poll_transmit() {
            self.commands.push_back(command);
        }
        let Some(flow) = ice.poll_nominated(self.outside.nominated, now) else { return };
        self.nominated(flow, now);
    }

    pub(super) fn consent_lost(&mut self, flow: FlowKey, now: Instant) {
        if self.outside.nominated == Some(flow) {
            self.connection_over(EndCause::ConsentLost, false, now);
        }
    }

    /// The TCP connection of a pair has ended.
    pub(super) fn disconnected(&mut self, flow: FlowKey, now: Instant) {
        self.agents().for_each(|ice| ice.disconnected(flow));
        self.drain_ice(now);
    }

    /// The agent of the call nominated a pair.
    pub(super) fn nominated(&mut self, flow: FlowKey, now: Instant) {
        self.outside.consent = self.outside.ice.as_ref().map(|ice| ice.consent(flow));
        self.outside.nominated = Some(flow);
        self.deadlines.ice = None;
        if self.outside.dtls_begun {
            self.commands.push_back(Command::DtlsPath(flow));
        } else if let Some(offer) = &self.outside.offer {
            self.outside.dtls_begun = true;
            self.outside.dtls = StepState::Checking;
            self.deadlines.dtls = Some(now + self.settings.timeouts.dtls);
            self.commands.push_back(Command::Dtls(dtls_start(offer.setup, flow)));
        }
        self.replan(now);
    }

    pub(super) fn dtls_done(&mut self, profile: Profile, keys: Keys, fingerprint: &[u8; 32], now: Instant) {
        if self.cause.is_some() {
            return;
        }
        self.deadlines.dtls = None;
        self.connection_lives();
        if self.outside.fingerprint != Some(*fingerprint) {
            self.outside.dtls = StepState::Failed;
            self.end(EndCause::FingerprintMismatch, now);
            return;
        }
        self.outside.dtls = StepState::Connected;
        self.outside.profile = Some(profile);
        self.outside.keys = Some(keys);
        self.replan(now);
    }

    /// Something that the plan says has changed: the next version goes out, or waits for the one in flight.
    pub(super) fn replan(&mut self, now: Instant) {
        if !self.relayed.takes_next() {
            return;
        }
        let (Some(inside), Some(answer)) = (&self.inside.offer, &self.inside.answer) else { return };
        if self.cause.is_some() {
            return;
        }
        let version = self.relayed.sent + 1;
        let record = self.record(inside, answer);
        let next = self.successor.as_ref().and_then(|successor| successor.flow);
        let Some(outside) = self.outside.nominated.or(next) else {
            // Nothing can pass yet; but whoever comes after us has to know whom to tell BYE.
            if self.inside.answered {
                self.recording.planned([None; 2]);
                self.plan_is(Plan::silent(self.id, version, record.encode()), now);
            }
            return;
        };
        // Nobody is heard before the recorder that a call must have.
        let holds = self.recording.holds(&self.settings);
        let direction = if holds { Direction::Inactive } else { self.outside.direction };
        let film = self.video.film();
        let video = film.map(|film| if holds { Film { open: (false, false), ..film } } else { film });
        let built = build(Parts {
            call: self.id,
            version,
            outside,
            beside: next.filter(|next| *next != outside),
            consent: self.outside.consent.clone(),
            keys: self.outside.keys.as_ref(),
            inside_keys: self.inside.sdes.sound.keys(),
            film_keys: self.inside.sdes.picture.keys(),
            inside,
            answer,
            chosen: &self.inside.chosen,
            dtmf: self.settings.sip.policy.dtmf,
            direction,
            ssrc: self.ssrc,
            agreed: &self.outside.agreed,
            video,
            learns: !self.settings.sip.policy.strict_source,
            forks: self.recording.forks(),
            record: record.encode(),
        });
        self.inside.sources.keep(&self.signalled());
        match built {
            Ok(mut plan) => {
                self.inside.sources.settle(&mut plan, true);
                self.recording.planned(self.recording.forks());
                self.plan_is(plan, now);
            }
            Err(refusal) => self.end(EndCause::Refused(refusal), now),
        }
    }

    /// The relay hears the inside from another port than was signalled: what we send goes there, too.
    pub(super) fn source(&mut self, flow: &FlowKey, now: Instant) {
        let strict = self.settings.sip.policy.strict_source;
        if !strict && self.inside.sources.hear(flow, &self.signalled()) {
            self.replan(now);
        }
    }

    /// Ports of ours inside, and what was signalled of the other ends.
    pub(super) fn signalled(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let sound = self.inside.offer.as_ref().zip(self.inside.answer.as_ref());
        let sound = sound.map(|(ours, theirs)| [(ours.rtp, theirs.rtp), (ours.rtcp, theirs.rtcp)]);
        let film =
            self.video.film().map(|Film { ports, theirs, .. }| [(ports.0, theirs.0), (ports.1, theirs.1)]);
        sound.into_iter().chain(film).flatten().collect()
    }

    fn plan_is(&mut self, plan: Plan, now: Instant) {
        let passes = self.outside.keys.is_some() && !self.recording.holds(&self.settings);
        self.relayed.sends(plan.version, passes);
        self.deadlines.relay = Some(now + self.settings.timeouts.relay);
        self.commands.push_back(Command::Install(plan));
    }

    /// What a new control needs to go on.
    fn record(&self, inside: &InsideOffer, answer: &InsideAnswer) -> Record {
        Record {
            incoming: self.incoming,
            from: self.party.user.clone(),
            to: self.to.clone(),
            created: self.created,
            dialog: self.inside.dialog.clone(),
            answered: self.inside.answered,
            inside: inside.clone(),
            inside_version: self.inside.version,
            answer: answer.clone(),
            chosen: self.inside.chosen.clone(),
            outside: self.outside.codecs.clone(),
            outside_version: self.outside.version,
            direction: self.outside.direction,
            agreed: self.outside.agreed.clone(),
            fingerprint: self.outside.fingerprint,
            identity: self.outside.identity,
            setup: self.outside.setup,
            told: self.inside.told,
            timer: (self.inside.timer.interval, self.inside.timer.ours),
            session: self.session,
            owner: self.inside.owner,
            ssrc: self.ssrc,
            video: self.video.clone(),
            profile: self.outside.profile,
            crypto: [self.inside.sdes.sound.noted(), self.inside.sdes.picture.noted()],
            sip_status: self.inside.status,
            past: self.past.clone(),
            recording: self.recording.kept(),
        }
    }

    pub(super) fn installed(&mut self, version: u32, now: Instant) {
        if version != self.relayed.sent || self.relayed.away {
            return;
        }
        self.deadlines.relay = None;
        self.relayed.has(version);
        if self.cause.is_some() {
            return;
        }
        self.recording_installed(version);
        if self.relayed.stale {
            self.replan(now);
        }
        self.tell_renegotiated();
        self.tell_connected();
    }

    /// Answered, and media passes: said once.
    pub(super) fn tell_connected(&mut self) {
        let passes = self.relayed.complete
            && self.relayed.installed == self.relayed.sent
            && self.relayed.installed > 0;
        if !self.connected && self.inside.answered && passes {
            self.connected = true;
            self.notify(CallEvent::Connected);
        }
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
pub(super) fn dtls_start(setup: Setup, path: FlowKey) -> DtlsStart {
    DtlsStart { role: dtls_role(setup), path }
}
