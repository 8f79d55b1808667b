//! INVITEs of ours in the middle of a call: the browser holds or resumes, or the session is refreshed.

use std::time::{Duration, Instant};

use sallyport_plan::Medium;

use super::adding::Adding;
use super::requests::Purpose;
use super::video::Saying;
use super::{Call, Inside, Said};
use crate::api::{Command, EndCause};
use crate::sdp::{Codec, Direction, Extension, Extensions, InsideAnswer, Kind, MediaLine};
use crate::sip::{Attempts, Method, Request, Response, TransactionId};

/// 2xx of ours that may come again and want their ACK again.
const ACKS: usize = 4;

/// One under way.
#[derive(Debug)]
pub(super) struct Reinvite {
    transaction: TransactionId,
    cseq: u32,
    credentials: Vec<(String, String)>,
    attempts: Attempts,
    direction: Direction,
    rseq: Option<u32>,
    /// A provisional answer came.
    rang: bool,
}

impl Call {
    /// Tells the inside what the browser does with the sound, unless it knows, or something else comes first
    /// (RFC 3261 section 14.1): then this is called again.
    pub(super) fn settle_direction(&mut self, now: Instant) {
        let adds = self.adding == Some(Adding::Telling);
        let unsettled = self.inside.told != self.outside.direction || self.video.is_unsettled() || adds;
        if unsettled && self.can_offer() {
            self.send_reinvite();
            self.replan(now);
        }
    }

    /// Whether an INVITE may begin: no other is under way in either direction, and none waits for its time.
    pub(super) fn can_offer(&self) -> bool {
        let inside = &self.inside;
        let talks = inside.answered && !inside.gone && self.cause.is_none();
        talks && inside.reinvite.is_none() && inside.unacked.is_none() && self.deadlines.glare.is_none()
    }

    pub(super) fn send_reinvite(&mut self) {
        self.send_again(Attempts::default());
    }

    fn send_again(&mut self, attempts: Attempts) {
        self.picture_told(true);
        let direction = self.outside.direction;
        let codecs = self.offered();
        let text = self.describe(&codecs, Saying::Offer);
        let (transaction, target) = (self.transaction(), self.inside.dialog.target.clone());
        let challenged = !attempts.is_first();
        let credentials = if challenged { self.authorize(&Method::Invite, &target) } else { Vec::new() };
        let mut request = self.inside.dialog.invite(&text, credentials.clone());
        request.headers.extend(self.timer_headers(true));
        let cseq = request.cseq;
        self.inside.reinvite =
            Some(Reinvite { transaction, cseq, credentials, attempts, direction, rseq: None, rang: false });
        self.commands.push_back(Command::Sip { transaction, request });
    }

    /// Whether the response was one to such an INVITE.
    pub(super) fn reinvite_answered(
        &mut self,
        transaction: TransactionId,
        response: &Response,
        now: Instant,
    ) -> bool {
        let acked = self.inside.acked.iter().find(|(of, _)| *of == transaction);
        if let Some((_, ack)) = acked {
            if (200..300).contains(&response.status) {
                self.commands.push_back(Command::SipAck(ack.clone()));
            }
            return true;
        }
        let Some(reinvite) = self.inside.reinvite.take_if(|reinvite| reinvite.transaction == transaction)
        else {
            return false;
        };
        match response.status {
            100..=199 => self.reinvite_rings(reinvite, response),
            200..=299 => self.reinvite_taken(&reinvite, response, now),
            _ if self.cause.is_some() => {}
            status => self.reinvite_refused(status, reinvite, response, now),
        }
        self.settle_direction(now);
        true
    }

    /// A provisional answer that wants it gets its PRACK (RFC 3262 section 4).
    fn reinvite_rings(&mut self, mut reinvite: Reinvite, response: &Response) {
        let rseq = response.header("RSeq").next().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(rseq) = rseq.filter(|_| response.lists("Require", "100rel"))
            && reinvite.rseq.is_none_or(|last| last.checked_add(1) == Some(rseq))
        {
            reinvite.rseq = Some(rseq);
            let mut request = self.inside.dialog.next(Method::Prack);
            request.headers.push(("RAck".into(), format!("{rseq} {} INVITE", reinvite.cseq)));
            self.ask(Purpose::Acknowledge, request);
        }
        reinvite.rang = true;
        self.inside.reinvite = Some(reinvite);
    }

    /// Whether it was such an INVITE whose answer is lost with who was to bring it: it is sent again.
    pub(super) fn reinvite_lost(&mut self, transaction: TransactionId) -> bool {
        let lost =
            self.inside.reinvite.take_if(|reinvite| reinvite.transaction == transaction && reinvite.rang);
        let Some(reinvite) = lost.filter(|_| self.cause.is_none()) else { return false };
        self.send_again(reinvite.attempts);
        true
    }

    fn reinvite_taken(&mut self, reinvite: &Reinvite, response: &Response, now: Instant) {
        self.inside.dialog.refresh(response.contact.as_deref());
        let ack = self.inside.dialog.ack(reinvite.cseq, &reinvite.credentials);
        self.remember_ack(reinvite.transaction, ack);
        if self.cause.is_some() {
            return;
        }
        self.inside.told = reinvite.direction;
        self.timer_agreed(response, now);
        // Without an answer, against RFC 3264, the session stays as it was.
        if response.body.is_empty() {
            return self.picture_declined(now);
        }
        let answer = InsideAnswer::parse(&response.body).map_err(EndCause::Protocol);
        match answer.and_then(|answer| self.fit_answer(answer)) {
            Ok(fit) => {
                self.adopt(fit);
                self.picture_answered(now);
            }
            Err(cause) => self.end(cause, now),
        }
    }

    fn remember_ack(&mut self, transaction: TransactionId, ack: Request) {
        if self.inside.acked.len() == ACKS {
            self.inside.acked.pop_front();
        }
        self.inside.acked.push_back((transaction, ack.clone()));
        self.commands.push_back(Command::SipAck(ack));
    }

    /// The session stays as it was (RFC 3261 section 14.1).
    fn reinvite_refused(&mut self, status: u16, mut reinvite: Reinvite, response: &Response, now: Instant) {
        let again = match status {
            401 | 407 => self.learn(response, &mut reinvite.attempts),
            422 => self.raise_interval(response),
            _ => false,
        };
        if again {
            self.send_again(reinvite.attempts);
        } else if status == 491 {
            self.video.was_not_heard();
            self.picture_told(false);
            self.deadlines.glare = Some(now + self.glare());
        } else if !self.dialog_lost(status, now) {
            self.inside.told = reinvite.direction;
            self.video.stays_as_it_is();
            self.picture_declined(now);
            self.refresh_later(now);
        }
    }

    /// How long to wait after 491: the owner of the Call-ID longer, so that one of both goes first.
    fn glare(&mut self) -> Duration {
        let part = |random: u32, steps: u32| Duration::from_millis(u64::from(random % steps) * 10);
        match self.inside.owner {
            true => Duration::from_millis(2_100) + part(self.random.u32(), 191),
            false => part(self.random.u32(), 201),
        }
    }

    /// The time after a 491 is over.
    pub(super) fn glare_passed(&mut self, now: Instant) {
        self.deadlines.glare = None;
        self.settle_direction(now);
        let timer = self.inside.timer;
        if timer.ours && timer.interval > 0 && self.deadlines.refresh.is_none() {
            self.refresh_later(now);
        }
    }

    /// The dialog is replaced while an INVITE is under way: should it be answered well yet, it gets its ACK there.
    pub(super) fn retire_reinvite(&mut self) {
        if let Some(reinvite) = self.inside.reinvite.take() {
            self.picture_told(false);
            let ack = self.inside.dialog.ack(reinvite.cseq, &reinvite.credentials);
            self.inside.acked.push_back((reinvite.transaction, ack));
        }
    }

    /// Whether it was such an INVITE that got no answer.
    pub(super) fn reinvite_unheard(&mut self, transaction: TransactionId, now: Instant) -> bool {
        let lost = self.inside.reinvite.take_if(|reinvite| reinvite.transaction == transaction);
        if lost.is_some() && self.cause.is_none() {
            self.dialog_lost(408, now);
        }
        lost.is_some()
    }

    /// What we can offer in the middle of a call: all sounds that the browser was told, the running codec first.
    pub(super) fn offered(&self) -> Vec<Codec> {
        let has = |kind: Kind| self.outside.codecs.iter().any(|told| told.kind == kind);
        let chosen = &self.inside.chosen;
        // Named events as the inside takes them, if it does.
        let taken = chosen.iter().any(|codec| codec.kind.is_event() && codec.inside.is_some());
        let events =
            (chosen.is_empty() || taken) && self.outside.codecs.iter().any(|told| told.kind.is_event());
        let told = |codec: &&Codec| match codec.kind {
            Kind::Event8000 => events,
            Kind::Event48000 => events && has(Kind::Opus),
            sound => has(sound),
        };
        let own = self.inside.offer.iter().flat_map(|offer| &offer.codecs);
        let mut codecs: Vec<Codec> = own.filter(told).copied().collect();
        let running = self.inside.chosen.first().map(|codec| codec.kind);
        codecs.sort_by_key(|codec| Some(codec.kind) != running);
        codecs
    }

    /// An answer has no header extension that the offer lacks, and has its ids (RFC 8285 section 6).
    fn speak_of_extensions(&mut self, saying: Saying) {
        let outside = self.outside.offer.as_ref().map_or(&self.outside.agreed, |offer| &offer.says);
        let Inside { offer: Some(own), answer: Some(said), .. } = &mut self.inside else { return };
        if saying == Saying::Answer {
            let both = |kind| Extension::CARRIED.contains(&kind) && outside.extensions.id(kind).is_some();
            own.extensions = said.extensions.only(both);
        }
    }

    /// Header extensions that a first offer of ours has.
    pub(super) fn first_extensions(&self) -> Extensions {
        let says = self.outside.offer.as_ref().map(|offer| &offer.says.extensions);
        let known = says.is_some_and(|says| says.id(Extension::AudioLevel).is_some());
        let wanted = self.settings.sip.policy.audio_level && known;
        Extensions::numbered(wanted.then_some(Extension::AudioLevel).into_iter())
    }

    /// Our description; its version grows where its text changes, and only there (RFC 3264 section 8).
    pub(super) fn describe(&mut self, codecs: &[Codec], saying: Saying) -> String {
        let (keying, video) = (self.lines(Medium::Audio), self.film_says(saying));
        self.speak_of_extensions(saying);
        let (Some(own), said) = (&self.inside.offer, &self.inside.answer) else { return String::new() };
        let direction = match (saying, said) {
            (Saying::Answer, Some(said)) => said.direction.answer(self.outside.direction),
            _ => self.outside.direction,
        };
        let mut layout = said.as_ref().map_or(Vec::new(), |said| said.layout.clone());
        if self.adding.is_some() && video.is_some() && saying == Saying::Offer {
            make_room(&mut layout);
        }
        let text = |version| own.text(version, codecs, direction, video.as_ref(), &layout, &keying);
        let same = text(self.inside.version);
        if self.inside.said.as_ref().is_some_and(|said| *said.0 == same) {
            return same;
        }
        let text = text(self.inside.version + 1);
        self.inside.version += 1;
        self.inside.said = Some(Said(text.clone().into()));
        text
    }
}

/// A session that shows nothing yet gets a section for a picture: one that was refused may be used again (RFC 3264 section
/// 8.1). A first offer has no sections yet.
fn make_room(layout: &mut Vec<MediaLine>) {
    if layout.is_empty() || layout.iter().any(|line| matches!(line, MediaLine::Video(_))) {
        return;
    }
    let refused = |line: &MediaLine| match line {
        MediaLine::Refused(text) => text.starts_with("video ").then(|| text.clone()),
        MediaLine::Audio | MediaLine::Video(_) => None,
    };
    match layout.iter_mut().find_map(|line| refused(line).map(|text| (line, text))) {
        Some((line, text)) => *line = MediaLine::Video(text),
        None => layout.push(MediaLine::Video(String::new())),
    }
}
