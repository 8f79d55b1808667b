//! INVITEs of ours that begin a dialog, and what comes of them.

use std::time::Instant;

use sallyport_plan::Medium;

use super::requests::Purpose;
use super::secrecy::Agreement;
use super::video::Saying;
use super::{Call, Said};
use crate::api::{CallEvent, Command, EndCause, Party};
use crate::random::Random;
use crate::sdp::{Chosen, InsideAnswer};
use crate::settings::{Dtmf, SipSettings};
use crate::sip::header::tag_of;
use crate::sip::{Attempts, Dialog, Method, Request, Response, TransactionId};

/// Forks of one INVITE whose early dialogs are told apart.
const FORKS: usize = 8;

/// Which INVITE of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// The call's own.
    Own,
    /// The one that a transfer asks for.
    Referred,
}

/// A dialog that a provisional answer began (RFC 3261 section 12.1.2).
#[derive(Debug)]
pub(super) struct Early {
    pub dialog: Dialog,
    /// RSeq of the last reliable answer (RFC 3262 section 4).
    rseq: Option<u32>,
    /// What it said of its media.
    pub answer: Option<InsideAnswer>,
    /// Whether that is the answer to our offer, as it came reliably (RFC 6337 section 2.1).
    pub settled: bool,
}

/// An INVITE under way.
#[derive(Debug)]
pub(super) struct Calling {
    /// As the INVITE has it, then as the 2xx opened it.
    pub dialog: Dialog,
    pub early: Vec<Early>,
    transaction: TransactionId,
    cseq: u32,
    /// More headers of the INVITE.
    pub headers: Vec<(String, String)>,
    /// Header fields that answered challenges: its ACK has them as well.
    credentials: Vec<(String, String)>,
    attempts: Attempts,
    /// URIs that it was sent to, where it was redirected.
    pub visited: Vec<String>,
    provisional: bool,
    cancel: bool,
    cancelled: bool,
    done: bool,
    accepted: bool,
}

impl Calling {
    /// Not sent yet.
    pub fn new(dialog: Dialog, headers: Vec<(String, String)>) -> Self {
        Self {
            dialog,
            early: Vec::new(),
            transaction: TransactionId(0),
            cseq: 0,
            headers,
            credentials: Vec::new(),
            attempts: Attempts::default(),
            visited: Vec::new(),
            provisional: false,
            cancel: false,
            cancelled: false,
            done: false,
            accepted: false,
        }
    }

    /// Whether it went out.
    pub fn is_sent(&self) -> bool {
        self.cseq > 0
    }

    /// Whether nobody wants it any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancel
    }

    /// Whether somebody has it who has not answered finally yet.
    fn rings(&self) -> bool {
        self.provisional && !self.done
    }

    /// Whether no answer is to come.
    pub fn is_final(&self) -> bool {
        self.done || !self.is_sent()
    }

    fn ack(&self, dialog: &Dialog) -> Request {
        dialog.ack(self.cseq, &self.credentials)
    }

    /// The dialog that a 2xx opens; it goes on counting where its early form was.
    fn opened_by(&self, response: &Response) -> Dialog {
        let mut dialog = self.dialog.opened_by(response);
        if let Some(early) = self.early.iter().find(|early| early.dialog.remote_tag == dialog.remote_tag) {
            dialog.cseq = dialog.cseq.max(early.dialog.cseq);
            dialog.remote_cseq = early.dialog.remote_cseq;
            dialog.updates |= early.dialog.updates;
        }
        dialog
    }
}

/// What an answer inside comes to.
pub(super) struct Fit {
    pub answer: InsideAnswer,
    chosen: Vec<Chosen>,
    keys: Agreement,
}

/// The URI of a destination: a user, `user@host`, or a `sip:` URI of those.
pub fn destination(to: &str, domain: &str) -> Option<String> {
    let bare = to.strip_prefix("sip:").unwrap_or(to);
    let (user, host) = bare.split_once('@').unwrap_or((bare, domain));
    let user_octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.!~*'()+$&=,/".contains(&octet);
    let host_octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-.:[]".contains(&octet);
    let sound = (1..=128).contains(&user.len()) && user.bytes().all(user_octet);
    let sound = sound && (1..=255).contains(&host.len()) && host.bytes().all(host_octet);
    sound.then(|| format!("sip:{user}@{host}"))
}

/// A dialog that is about to begin; `tag` is ours.
pub fn dialog(sip: &SipSettings, party: &Party, uri: &str, tag: &str, random: &mut Random) -> Dialog {
    let quoted: String =
        party.display_name.chars().filter(|c| !matches!(c, '"' | '\\' | '\r' | '\n')).collect();
    let display = if quoted.is_empty() { String::new() } else { format!("\"{quoted}\" ") };
    Dialog {
        from: format!("{display}<sip:{}@{}>;tag={tag}", party.user, sip.domain),
        to: format!("<{uri}>"),
        call_id: random.hex(16),
        cseq: 0,
        remote_cseq: None,
        contact: format!("<{}>", sip.contact),
        agent: sip.user_agent.clone(),
        remote_tag: None,
        target: uri.to_owned(),
        route: Vec::new(),
        updates: false,
    }
}

impl Call {
    pub(super) fn calling(&mut self, line: Line) -> Option<&mut Calling> {
        match line {
            Line::Own => self.inside.invite.as_mut(),
            Line::Referred => self.inside.referral.as_mut().map(|referral| &mut referral.calling),
        }
    }

    /// Sends the INVITE, or sends it anew with what was learned.
    pub(super) fn send_invite(&mut self, line: Line, now: Instant) {
        let Some(calling) = self.calling(line) else { return };
        let uri = calling.dialog.target.clone();
        let text = match line {
            Line::Own => self.first_offer(),
            Line::Referred => self.referred_offer(),
        };
        let (transaction, timer) = (self.transaction(), self.timer_headers(false));
        let credentials = self.authorize(&Method::Invite, &uri);
        let Some(calling) = self.calling(line) else { return };
        let mut request = calling.dialog.invite(&text, credentials.clone());
        request.headers.extend(timer);
        request.headers.extend(calling.headers.iter().cloned());
        (calling.transaction, calling.cseq, calling.credentials) = (transaction, request.cseq, credentials);
        (calling.provisional, calling.cancelled, calling.done) = (false, false, false);
        calling.early.clear();
        let patience = now + self.settings.timeouts.ring;
        match line {
            Line::Own => self.deadlines.ring.get_or_insert(patience),
            Line::Referred => self.deadlines.referral.get_or_insert(patience),
        };
        self.commands.push_back(Command::Sip { transaction, request });
    }

    /// The offer of the call's own INVITE, and of each time that it is sent anew.
    fn first_offer(&mut self) -> String {
        let keying = self.first_lines(Medium::Audio);
        let video = self.film_says(Saying::Offer);
        let Some(offer) = &self.inside.offer else { return String::new() };
        self.inside.told = self.outside.direction;
        self.inside.version = 1;
        let text = offer.text(1, &offer.codecs, self.inside.told, video.as_ref(), &[], &keying);
        self.inside.said = Some(Said(text.clone().into()));
        text
    }

    pub(super) fn sip_response(&mut self, transaction: TransactionId, response: Response, now: Instant) {
        let bye = self.inside.bye.as_ref().is_some_and(|bye| bye.transaction == transaction);
        if bye {
            self.bye_answered(&response);
        } else if !self.recorder_answered(transaction, &response, now)
            && !self.asked(transaction, &response, now)
            && !self.reinvite_answered(transaction, &response, now)
        {
            self.invite_answered(transaction, &response, now);
        }
        self.finish_if_quiet();
    }

    fn invite_answered(&mut self, transaction: TransactionId, response: &Response, now: Instant) {
        let mut lines = [Line::Own, Line::Referred].into_iter();
        let ours = |line: &Line| self.calling(*line).is_some_and(|one| one.transaction == transaction);
        let Some(line) = lines.find(ours) else { return };
        let Some(calling) = self.calling(line) else { return };
        if calling.done {
            self.late_success(line, response);
            return;
        }
        calling.done = response.status >= 200;
        calling.provisional |= response.status < 200;
        if line == Line::Own {
            self.inside.status = Some(response.status);
        }
        match response.status {
            100..=199 => self.provisional(line, response, now),
            200..=299 => self.success(line, response, now),
            status => self.rejected(line, status, response, now),
        }
        self.cancel_if_wanted(line);
    }

    fn provisional(&mut self, line: Line, response: &Response, now: Instant) {
        if self.cause.is_some() || response.status == 100 || !self.begin_early(line, response) {
            return;
        }
        if line == Line::Referred {
            self.progress(response.status);
            return;
        }
        // What one fork says of its media and cannot be used may be said better by another, or by the final answer.
        if !response.body.is_empty()
            && let Ok(answer) = InsideAnswer::parse(&response.body)
            && let Ok(fit) = self.fit_answer(answer)
        {
            self.adopt(fit);
            if !self.replied {
                self.notify(CallEvent::Early);
            }
            self.answer_browser(now);
            self.replan(now);
        }
        if !self.rang {
            self.rang = true;
            self.notify(CallEvent::Ringing);
        }
    }

    /// A provisional answer with a tag begins an early dialog; a reliable one gets its PRACK. `false`: it is one of those
    /// that came before, or that has overtaken another (RFC 3262 section 4).
    fn begin_early(&mut self, line: Line, response: &Response) -> bool {
        let Some(calling) = self.calling(line) else { return false };
        let tag = tag_of(&response.to);
        let known = calling.early.iter().position(|early| early.dialog.is(&calling.dialog.call_id, tag));
        let reliable = response.lists("Require", "100rel");
        let at = match known {
            Some(at) => at,
            None if tag.is_none() || calling.early.len() >= FORKS => return !reliable,
            None => {
                let dialog = calling.dialog.opened_by(response);
                calling.early.push(Early { dialog, rseq: None, answer: None, settled: false });
                calling.early.len() - 1
            }
        };
        let Some(early) = calling.early.get_mut(at) else { return false };
        let rseq = response.header("RSeq").next().and_then(|text| text.trim().parse::<u32>().ok());
        if reliable {
            let Some(rseq) = rseq else { return false };
            if early.rseq.is_some_and(|last| last.checked_add(1) != Some(rseq)) {
                return false;
            }
            early.rseq = Some(rseq);
        }
        if let Ok(answer) = InsideAnswer::parse(&response.body) {
            early.answer = Some(answer);
            early.settled |= reliable;
        }
        if let Some(rseq) = rseq.filter(|_| reliable) {
            let mut request = early.dialog.next(Method::Prack);
            request.headers.push(("RAck".into(), format!("{rseq} {} INVITE", response.cseq)));
            self.ask(Purpose::Acknowledge, request);
        }
        true
    }

    fn success(&mut self, line: Line, response: &Response, now: Instant) {
        let Some(calling) = self.calling(line) else { return };
        calling.dialog = calling.opened_by(response);
        calling.accepted = true;
        let early = std::mem::take(&mut calling.early);
        let (dialog, ack) = (calling.dialog.clone(), calling.ack(&calling.dialog));
        self.commands.push_back(Command::SipAck(ack));
        if line == Line::Referred {
            self.referral_answered(response, now);
            return;
        }
        let said = early.into_iter().find(|early| early.dialog.remote_tag == dialog.remote_tag);
        self.inside.dialog = dialog;
        self.inside.answered = true;
        self.deadlines.ring = None;
        if self.cause.is_some() {
            // Answered while we were cancelling (RFC 3261 section 9.1).
            self.bye(Attempts::default());
            return;
        }
        if let Err(cause) = self.take_answer(&response.body, said.and_then(|early| early.answer)) {
            self.end(cause, now);
            return;
        }
        self.timer_agreed(response, now);
        self.notify(CallEvent::Answered);
        self.note_hold();
        self.answer_browser(now);
        self.replan(now);
        self.tell_connected();
        self.settle_direction(now);
    }

    /// The description of a 2xx; one without has said it in its early dialog.
    fn take_answer(&mut self, body: &[u8], early: Option<InsideAnswer>) -> Result<(), EndCause> {
        let missing = "the called side answered without a session description";
        let answer = match (body.is_empty(), early) {
            (true, Some(early)) => early,
            (true, None) => return Err(EndCause::Protocol(missing.into())),
            (false, _) => InsideAnswer::parse(body).map_err(EndCause::Protocol)?,
        };
        let fit = self.fit_answer(answer)?;
        self.adopt(fit);
        Ok(())
    }

    /// A 2xx after the final answer: the same one again wants its ACK again, another fork's wants a BYE as well
    /// (RFC 3261 section 13.2.2.4).
    fn late_success(&mut self, line: Line, response: &Response) {
        let again = |calling: &&mut Calling| calling.accepted && (200..300).contains(&response.status);
        let Some(calling) = self.calling(line).filter(again) else { return };
        if calling.dialog.remote_tag.as_deref() == tag_of(&response.to) {
            let ack = calling.ack(&calling.dialog);
            self.commands.push_back(Command::SipAck(ack));
            return;
        }
        let mut fork = calling.dialog.opened_by(response);
        let ack = calling.ack(&fork);
        self.commands.push_back(Command::SipAck(ack));
        let request = fork.bye(Vec::new());
        self.ask(Purpose::Farewell, request);
    }

    fn rejected(&mut self, line: Line, status: u16, response: &Response, now: Instant) {
        if self.cause.is_some() {
            return;
        }
        let Some(calling) = self.calling(line) else { return };
        let mut attempts = calling.attempts.clone();
        let again = match status {
            401 | 407 => self.learn(response, &mut attempts),
            422 => self.raise_interval(response),
            300..=399 => self.redirected(line, response),
            _ => false,
        };
        if again {
            if let Some(calling) = self.calling(line) {
                calling.attempts = attempts;
            }
            self.send_invite(line, now);
        } else if line == Line::Own {
            self.end(EndCause::Rejected(status), now);
        } else {
            self.referral_failed(status, now);
        }
    }

    /// An answer of the inside, as the call can use it.
    pub(super) fn fit_answer(&self, mut answer: InsideAnswer) -> Result<Fit, EndCause> {
        let keys = self.taken_keys(&mut answer)?;
        self.fit(answer, keys)
    }

    /// An offer of the inside, as the call can use it.
    pub(super) fn fit_offer(&mut self, mut offer: InsideAnswer) -> Result<Fit, EndCause> {
        let keys = self.answered_keys(&mut offer)?;
        self.fit(offer, keys)
    }

    /// What the inside said of its media, as the call can use it: the codec that runs already stays, and an address that
    /// is none (held the old way) leaves the former one.
    pub(super) fn fit(&self, mut answer: InsideAnswer, keys: Agreement) -> Result<Fit, EndCause> {
        let own = self.inside.offer.as_ref().ok_or(EndCause::NoCodec)?;
        answer.reach(own.rtp.ip()).map_err(|text| EndCause::Protocol(text.into()))?;
        if !answer.has_address() {
            let text = "the inside names no usable address";
            let former = self.inside.answer.as_ref().ok_or_else(|| EndCause::Protocol(text.into()))?;
            (answer.rtp, answer.rtcp) = (former.rtp, former.rtcp);
        }
        let running = self.inside.chosen.first().filter(|_| self.replied).map(|codec| codec.kind);
        let mut chosen = own.choose(&answer, &self.outside.codecs, running).ok_or(EndCause::NoCodec)?;
        if self.settings.sip.policy.dtmf == Dtmf::Rfc4733 {
            chosen.retain(|codec| codec.inside.is_some());
        }
        Ok(Fit { answer, chosen, keys })
    }

    pub(super) fn adopt(&mut self, fit: Fit) {
        self.inside.chosen = fit.chosen;
        self.inside.sdes.sound.settle(fit.keys.sound, fit.answer.keying.profile);
        let said = fit.answer.video.as_ref();
        if self.video.follow(said, fit.answer.shows)
            && let Some(said) = said
        {
            self.inside.sdes.picture.settle(fit.keys.picture, said.keying.profile);
        }
        self.inside.answer = Some(fit.answer);
        self.note_hold();
    }

    /// Says whether the far end holds the call, where that has changed: it sends or receives less than it could.
    pub(super) fn note_hold(&mut self) {
        let held = self.inside.answered && self.inside.holds();
        if held != std::mem::replace(&mut self.inside.held, held) {
            self.notify(if held { CallEvent::Held } else { CallEvent::Resumed });
        }
    }

    /// The way of a request is gone. Where an INVITE rang already, its answer would have come by that way: it is placed
    /// anew, as a call of its own, since who heard the former one would take the same again for a loop (RFC 3261 section
    /// 8.2.2.2). One in the middle of the call is sent again.
    pub(super) fn sip_lost(&mut self, transaction: TransactionId, now: Instant) {
        let rings = |calling: &Calling| calling.transaction == transaction && calling.rings();
        let line = [Line::Own, Line::Referred]
            .into_iter()
            .find(|line| self.calling(*line).is_some_and(|one| rings(one)));
        let Some(line) = line.filter(|_| self.cause.is_none()) else {
            if !self.reinvite_lost(transaction) {
                self.sip_silence(transaction, now);
            }
            return;
        };
        self.leave_early(line);
        let call_id = self.random.hex(16);
        let Some(calling) = self.calling(line).filter(|calling| !calling.cancel) else {
            return self.sip_silence(transaction, now);
        };
        (calling.dialog.call_id, calling.dialog.cseq) = (call_id, 0);
        calling.attempts = Attempts::default();
        self.send_invite(line, now);
    }

    /// Says BYE in the dialogs that only ring (RFC 3261 section 15): nothing else ends them where no CANCEL gets through.
    fn leave_early(&mut self, line: Line) {
        let early = self.calling(line).map(|calling| std::mem::take(&mut calling.early));
        for mut early in early.into_iter().flatten() {
            let request = early.dialog.bye(Vec::new());
            self.ask(Purpose::Farewell, request);
        }
    }

    pub(super) fn sip_silence(&mut self, transaction: TransactionId, now: Instant) {
        let unanswered = |calling: &&mut Calling| calling.transaction == transaction && !calling.done;
        if self.inside.bye.as_ref().is_some_and(|bye| bye.transaction == transaction) {
            self.inside.bye = None;
        } else if self.recorder_unheard(transaction, now)
            || self.unheard(transaction, now)
            || self.reinvite_unheard(transaction, now)
        {
        } else if let Some(calling) = self.calling(Line::Own).filter(unanswered) {
            calling.done = true;
            self.leave_early(Line::Own);
            self.end(EndCause::SipUnreachable, now);
        } else if let Some(calling) = self.calling(Line::Referred).filter(unanswered) {
            calling.done = true;
            self.leave_early(Line::Referred);
            self.referral_failed(408, now);
        }
        self.finish_if_quiet();
    }

    /// An INVITE is not wanted any more.
    pub(super) fn cancel(&mut self, line: Line) {
        if let Some(calling) = self.calling(line) {
            calling.cancel = true;
        }
        self.cancel_if_wanted(line);
    }

    /// A CANCEL must wait for a provisional answer.
    fn cancel_if_wanted(&mut self, line: Line) {
        let Some(calling) = self.calling(line) else { return };
        if calling.cancel && calling.provisional && !calling.cancelled && !calling.done {
            calling.cancelled = true;
            let (invite, request) = (calling.transaction, calling.dialog.cancel());
            self.commands.push_back(Command::SipCancel { invite, request });
        }
    }
}
