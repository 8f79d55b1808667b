//! Telephony's side of a call: INVITE and what comes of it, requests in the dialog, the end.

use std::time::Instant;

use super::Call;
use crate::api::{CallEvent, Command, EndCause, Party};
use crate::random::Random;
use crate::sdp::{Chosen, Direction, InsideAnswer};
use crate::settings::SipSettings;
use crate::sip::header::tag_of;
use crate::sip::{Account, Attempts, Dialog, Method, Response, TransactionId};

/// Forks of one INVITE whose early dialogs are told apart.
const FORKS: usize = 8;

/// An INVITE under way.
#[derive(Debug)]
pub struct Invite {
    transaction: TransactionId,
    cseq: u32,
    /// Header fields that answered challenges: its ACK has them as well.
    credentials: Vec<(String, String)>,
    attempts: Attempts,
    provisional: bool,
    cancel: bool,
    cancelled: bool,
    done: bool,
}

impl Invite {
    /// Whether it has its final answer.
    pub fn is_final(&self) -> bool {
        self.done
    }
}

/// A BYE under way.
#[derive(Debug)]
pub struct Bye {
    transaction: TransactionId,
    attempts: Attempts,
}

/// What an answer inside comes to.
pub(super) struct Fit {
    answer: InsideAnswer,
    chosen: Vec<Chosen>,
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

/// A dialog that is about to begin.
pub fn dialog(sip: &SipSettings, party: &Party, uri: &str, random: &mut Random) -> Dialog {
    let quoted: String =
        party.display_name.chars().filter(|c| !matches!(c, '"' | '\\' | '\r' | '\n')).collect();
    let display = if quoted.is_empty() { String::new() } else { format!("\"{quoted}\" ") };
    Dialog {
        from: format!("{display}<sip:{}@{}>;tag={}", party.user, sip.domain, random.hex(8)),
        to: format!("<{uri}>"),
        call_id: random.hex(16),
        cseq: 0,
        remote_cseq: None,
        contact: format!("<{}>", sip.contact),
        agent: sip.user_agent.clone(),
        remote_tag: None,
        target: uri.to_owned(),
        route: Vec::new(),
    }
}

impl Call {
    pub(super) fn transaction(&mut self) -> TransactionId {
        self.next_transaction += 1;
        TransactionId(self.next_transaction)
    }

    pub(super) fn send_invite(&mut self, now: Instant) {
        let Some(offer) = &self.inside.offer else { return };
        self.inside.version = 1;
        let text = offer.text(1, &offer.codecs, Direction::SendRecv, &[]);
        let transaction = self.transaction();
        let attempts = self.inside.invite.take().map(|invite| invite.attempts).unwrap_or_default();
        let credentials = self.authorize(&Method::Invite);
        let mut request = self.inside.dialog.invite(&text, credentials.clone());
        request.headers.extend(self.inside.headers.iter().cloned());
        self.inside.invite = Some(Invite {
            transaction,
            cseq: request.cseq,
            credentials,
            attempts,
            provisional: false,
            cancel: false,
            cancelled: false,
            done: false,
        });
        self.deadlines.ring.get_or_insert(now + self.settings.timeouts.ring);
        self.commands.push_back(Command::Sip { transaction, request });
    }

    /// Header fields that answer what was asked in this dialog so far.
    fn authorize(&mut self, method: &Method) -> Vec<(String, String)> {
        let account = Account { user: &self.party.user, password: &self.party.password };
        let random = &mut self.random;
        let target = &self.inside.dialog.target;
        self.inside.credentials.headers(&account, method.as_str(), target, || random.hex(8))
    }

    pub(super) fn sip_response(&mut self, transaction: TransactionId, response: Response, now: Instant) {
        if self.inside.bye.as_ref().is_some_and(|bye| bye.transaction == transaction) {
            self.bye_answered(&response);
            return;
        }
        let Some(invite) = self.inside.invite.as_mut().filter(|invite| invite.transaction == transaction)
        else {
            return;
        };
        if invite.done {
            self.late_success(&response);
            return;
        }
        self.inside.status = Some(response.status);
        match response.status {
            100..=199 => {
                invite.provisional = true;
                self.provisional(&response, now);
            }
            200..=299 => {
                invite.done = true;
                self.success(&response, now);
            }
            status => {
                invite.done = true;
                self.rejected(status, &response, now);
            }
        }
        self.cancel_if_wanted();
        self.finish_if_quiet();
    }

    /// A challenge is answered as for an INVITE; else the dialog lives on at the far end.
    fn bye_answered(&mut self, response: &Response) {
        if response.status < 200 {
            return;
        }
        let Some(mut bye) = self.inside.bye.take() else { return };
        let can = !self.party.password.is_empty();
        if can && self.inside.credentials.learn(response, &mut bye.attempts) {
            self.bye(bye.attempts);
        }
        self.finish_if_quiet();
    }

    fn provisional(&mut self, response: &Response, now: Instant) {
        if self.cause.is_some() || response.status == 100 {
            return;
        }
        self.begin_early(response);
        // What one fork says of its media and cannot be used may be said better by another, or by the final answer.
        if !response.body.is_empty()
            && let Ok(answer) = InsideAnswer::parse(&response.body)
            && let Ok(fit) = self.fit(answer)
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

    /// A provisional answer with a tag begins an early dialog (RFC 3261 section 12.1.2).
    fn begin_early(&mut self, response: &Response) {
        let tag = tag_of(&response.to);
        let known = self.inside.early.iter().any(|dialog| dialog.remote_tag.as_deref() == tag);
        if tag.is_some() && !known && self.inside.early.len() < FORKS {
            let dialog = self.inside.dialog.opened_by(response);
            self.inside.early.push(dialog);
        }
    }

    fn success(&mut self, response: &Response, now: Instant) {
        let mut dialog = self.inside.dialog.opened_by(response);
        let early = std::mem::take(&mut self.inside.early);
        let same = early.iter().find(|early| early.remote_tag == dialog.remote_tag);
        dialog.remote_cseq = same.and_then(|early| early.remote_cseq);
        self.inside.dialog = dialog;
        self.acknowledge();
        self.inside.answered = true;
        self.deadlines.ring = None;
        if self.cause.is_some() {
            // Answered while we were cancelling (RFC 3261 section 9.1).
            self.bye(Attempts::default());
            return;
        }
        if let Err(cause) = self.take_answer(&response.body) {
            self.end(cause, now);
            return;
        }
        self.notify(CallEvent::Answered);
        self.answer_browser(now);
        self.replan(now);
        self.tell_connected();
    }

    fn take_answer(&mut self, body: &[u8]) -> Result<(), EndCause> {
        if !body.is_empty() {
            let answer = InsideAnswer::parse(body).map_err(EndCause::Protocol)?;
            let fit = self.fit(answer)?;
            self.adopt(fit);
        }
        let missing = "the called side answered without a session description";
        self.inside.answer.as_ref().map(|_| ()).ok_or_else(|| EndCause::Protocol(missing.into()))
    }

    fn acknowledge(&mut self) {
        let Some(invite) = &self.inside.invite else { return };
        self.commands.push_back(Command::SipAck(self.inside.dialog.ack(invite.cseq, &invite.credentials)));
    }

    /// A 2xx after the final answer: the same one again wants its ACK again, another fork's wants a BYE as well
    /// (RFC 3261 section 13.2.2.4).
    fn late_success(&mut self, response: &Response) {
        if !(200..300).contains(&response.status) {
            return;
        }
        if self.inside.answered && tag_of(&response.to) == self.inside.dialog.remote_tag.as_deref() {
            self.acknowledge();
            return;
        }
        let Some(invite) = &self.inside.invite else { return };
        let mut fork = self.inside.dialog.opened_by(response);
        self.commands.push_back(Command::SipAck(fork.ack(invite.cseq, &invite.credentials)));
        let request = fork.bye(Vec::new());
        let transaction = self.transaction();
        self.commands.push_back(Command::Sip { transaction, request });
    }

    fn rejected(&mut self, status: u16, response: &Response, now: Instant) {
        if self.cause.is_some() {
            return;
        }
        let can = !self.party.password.is_empty();
        if let Some(invite) = self.inside.invite.as_mut().filter(|_| can)
            && self.inside.credentials.learn(response, &mut invite.attempts)
        {
            self.inside.early.clear();
            self.send_invite(now);
            return;
        }
        self.end(EndCause::Rejected(status), now);
    }

    /// What the inside said of its media, as the call can use it: the codec that runs already stays, and an address that
    /// is none (held the old way) leaves the former one.
    pub(super) fn fit(&self, mut answer: InsideAnswer) -> Result<Fit, EndCause> {
        let own = self.inside.offer.as_ref().ok_or(EndCause::NoCodec)?;
        if !answer.has_address() {
            let text = "the inside names no usable address";
            let former = self.inside.answer.as_ref().ok_or_else(|| EndCause::Protocol(text.into()))?;
            (answer.rtp, answer.rtcp) = (former.rtp, former.rtcp);
        }
        let running = self.inside.chosen.first().filter(|_| self.replied).map(|codec| codec.kind);
        let chosen = own.choose(&answer, &self.outside.codecs, running).ok_or(EndCause::NoCodec)?;
        Ok(Fit { answer, chosen })
    }

    pub(super) fn adopt(&mut self, fit: Fit) {
        self.inside.chosen = fit.chosen;
        self.inside.answer = Some(fit.answer);
    }

    pub(super) fn sip_silence(&mut self, transaction: TransactionId, now: Instant) {
        if self.inside.bye.as_ref().is_some_and(|bye| bye.transaction == transaction) {
            self.inside.bye = None;
        } else if let Some(invite) =
            self.inside.invite.as_mut().filter(|invite| invite.transaction == transaction && !invite.done)
        {
            invite.done = true;
            self.end(EndCause::SipUnreachable, now);
        }
        self.finish_if_quiet();
    }

    /// Ends the dialog in the way that its state asks for (RFC 3261 sections 9 and 15).
    pub(super) fn hang_up_inside(&mut self, by_remote: bool) {
        match &mut self.inside.invite {
            Some(invite) if !invite.done => {
                invite.cancel = true;
                self.cancel_if_wanted();
            }
            _ if self.inside.invited.as_ref().is_some_and(|invited| !invited.is_final()) => self.refuse(),
            _ if self.inside.answered && !by_remote => self.bye(Attempts::default()),
            _ => {}
        }
    }

    fn bye(&mut self, attempts: Attempts) {
        let transaction = self.transaction();
        let credentials = if attempts.is_first() { Vec::new() } else { self.authorize(&Method::Bye) };
        let request = self.inside.dialog.bye(credentials);
        self.inside.bye = Some(Bye { transaction, attempts });
        self.commands.push_back(Command::Sip { transaction, request });
    }

    /// A CANCEL must wait for a provisional answer.
    fn cancel_if_wanted(&mut self) {
        let Some(invite) = &mut self.inside.invite else { return };
        if invite.cancel && invite.provisional && !invite.cancelled && !invite.done {
            invite.cancelled = true;
            let invite = invite.transaction;
            let request = self.inside.dialog.cancel();
            self.commands.push_back(Command::SipCancel { invite, request });
        }
    }
}
