//! Telephony's side of a call: INVITE and what comes of it, requests in the dialog, the end.

use std::time::Instant;

use super::Call;
use crate::api::{CallEvent, Command, EndCause};
use crate::random::Random;
use crate::sdp::{Direction, InsideAnswer};
use crate::settings::SipSettings;
use crate::sip::header::tag_of;
use crate::sip::{Account, Challenge, Dialog, Method, Request, Response, TransactionId};

/// Challenges that are answered in a row.
const CHALLENGES: u8 = 2;

/// An INVITE under way.
#[derive(Debug)]
pub struct Invite {
    transaction: TransactionId,
    cseq: u32,
    challenges: u8,
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
pub fn dialog(sip: &SipSettings, uri: &str, random: &mut Random) -> Dialog {
    let quoted: String =
        sip.display_name.chars().filter(|c| !matches!(c, '"' | '\\' | '\r' | '\n')).collect();
    let display = if quoted.is_empty() { String::new() } else { format!("\"{quoted}\" ") };
    Dialog {
        from: format!("{display}<sip:{}@{}>;tag={}", sip.user, sip.domain, random.hex(8)),
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
    fn transaction(&mut self) -> TransactionId {
        self.next_transaction += 1;
        TransactionId(self.next_transaction)
    }

    pub(super) fn send_invite(&mut self, credentials: Option<(&'static str, String)>, now: Instant) {
        let Some(offer) = &self.inside.offer else { return };
        let challenges = self.inside.invite.as_ref().map_or(0, |invite| invite.challenges);
        self.inside.version = 1;
        let text = offer.text(1, None, Direction::SendRecv);
        let transaction = self.transaction();
        let challenges = challenges + u8::from(credentials.is_some());
        let request = self.inside.dialog.invite(&text, credentials);
        self.inside.invite = Some(Invite {
            transaction,
            cseq: request.cseq,
            challenges,
            provisional: false,
            cancel: false,
            cancelled: false,
            done: false,
        });
        self.deadlines.ring.get_or_insert(now + self.settings.timeouts.ring);
        self.commands.push_back(Command::Sip { transaction, request });
    }

    pub(super) fn sip_response(&mut self, transaction: TransactionId, response: Response, now: Instant) {
        if self.inside.bye == Some(transaction) {
            if response.status >= 200 {
                self.inside.bye = None;
                self.finish_if_quiet();
            }
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

    fn provisional(&mut self, response: &Response, now: Instant) {
        if self.cause.is_some() || response.status == 100 {
            return;
        }
        if !response.body.is_empty()
            && let Ok(answer) = InsideAnswer::parse(&response.body)
            && self.adopt_answer(answer, now)
        {
            if !self.replied {
                self.commands.push_back(Command::Notify(CallEvent::Early));
            }
            self.answer_browser(now);
            self.replan(now);
        }
        if !self.rang {
            self.rang = true;
            self.commands.push_back(Command::Notify(CallEvent::Ringing));
        }
    }

    fn success(&mut self, response: &Response, now: Instant) {
        let cseq = self.inside.invite.as_ref().map_or(0, |invite| invite.cseq);
        self.inside.dialog = self.inside.dialog.opened_by(response);
        self.commands.push_back(Command::SipAck(self.inside.dialog.ack(cseq)));
        self.inside.answered = true;
        self.deadlines.ring = None;
        if self.cause.is_some() {
            // Answered while we were cancelling (RFC 3261 section 9.1).
            self.bye();
            return;
        }
        if !response.body.is_empty() {
            match InsideAnswer::parse(&response.body) {
                Ok(answer) => {
                    if !self.adopt_answer(answer, now) {
                        return;
                    }
                }
                Err(text) => {
                    self.end(EndCause::Protocol(text), now);
                    return;
                }
            }
        }
        if self.inside.answer.is_none() {
            self.end(
                EndCause::Protocol("the called side answered without a session description".into()),
                now,
            );
            return;
        }
        self.commands.push_back(Command::Notify(CallEvent::Answered));
        self.answer_browser(now);
        self.replan(now);
        self.tell_connected();
    }

    /// A 2xx after the final answer: the same one again wants its ACK again, another fork's wants a BYE as well
    /// (RFC 3261 section 13.2.2.4).
    fn late_success(&mut self, response: &Response) {
        if !(200..300).contains(&response.status) {
            return;
        }
        let cseq = self.inside.invite.as_ref().map_or(0, |invite| invite.cseq);
        if self.inside.answered && tag_of(&response.to) == self.inside.dialog.remote_tag.as_deref() {
            self.commands.push_back(Command::SipAck(self.inside.dialog.ack(cseq)));
            return;
        }
        let mut fork = self.inside.dialog.opened_by(response);
        self.commands.push_back(Command::SipAck(fork.ack(cseq)));
        let request = fork.bye();
        let transaction = self.transaction();
        self.commands.push_back(Command::Sip { transaction, request });
    }

    fn rejected(&mut self, status: u16, response: &Response, now: Instant) {
        if self.cause.is_some() {
            return;
        }
        if let Some(credentials) = self.credentials(status, response) {
            self.send_invite(Some(credentials), now);
            return;
        }
        self.end(EndCause::Rejected(status), now);
    }

    fn credentials(&mut self, status: u16, response: &Response) -> Option<(&'static str, String)> {
        let (asked, given) = match status {
            401 => ("WWW-Authenticate", "Authorization"),
            407 => ("Proxy-Authenticate", "Proxy-Authorization"),
            _ => return None,
        };
        let spent = self.inside.invite.as_ref().map_or(0, |invite| invite.challenges);
        let challenge = response.header(asked).find_map(Challenge::parse)?;
        if self.settings.sip.password.is_empty() || spent >= CHALLENGES || (spent > 0 && !challenge.stale) {
            return None;
        }
        let account = Account { user: &self.settings.sip.user, password: &self.settings.sip.password };
        let cnonce = self.random.hex(8);
        Some((given, challenge.answer(&account, "INVITE", &self.inside.dialog.target, &cnonce)))
    }

    /// Takes over what the inside said of its media; whether the call can go on with it.
    fn adopt_answer(&mut self, answer: InsideAnswer, now: Instant) -> bool {
        let Some(own) = &self.inside.offer else { return false };
        let outside = self.outside.offer.as_ref().map(|offer| offer.codecs.clone());
        let chosen = match &outside {
            Some(outside) => own.choose(&answer, outside),
            None => Some(self.inside.chosen.clone()),
        };
        // The browser was told its codec: a later answer may move addresses, not that.
        let chosen = chosen.filter(|chosen| {
            let kind = |chosen: &[crate::sdp::Chosen]| chosen.first().map(|codec| codec.kind);
            !self.replied || kind(chosen) == kind(&self.inside.chosen)
        });
        let Some(chosen) = chosen else {
            self.end(EndCause::NoCodec, now);
            return false;
        };
        self.inside.chosen = chosen;
        self.inside.answer = Some(answer);
        true
    }

    pub(super) fn sip_silence(&mut self, transaction: TransactionId, now: Instant) {
        if self.inside.bye == Some(transaction) {
            self.inside.bye = None;
        } else if let Some(invite) =
            self.inside.invite.as_mut().filter(|invite| invite.transaction == transaction)
        {
            invite.done = true;
            self.end(EndCause::SipUnreachable, now);
        }
        self.finish_if_quiet();
    }

    pub(super) fn sip_request(&mut self, transaction: TransactionId, request: &Request, now: Instant) {
        if request.method == Method::Ack {
            return;
        }
        let known = self.inside.dialog.remote_tag.as_deref() == tag_of(&request.from);
        let (status, reason) = if !self.inside.answered || !known {
            (481, "Call/Transaction Does Not Exist")
        } else if !self.inside.dialog.admit(request) {
            (500, "Server Internal Error")
        } else {
            match &request.method {
                Method::Bye => (200, "OK"),
                Method::Invite | Method::Update => {
                    self.reinvited(transaction, request, now);
                    return;
                }
                Method::Info | Method::Options | Method::Notify => (200, "OK"),
                Method::Cancel => (481, "Call/Transaction Does Not Exist"),
                Method::Ack | Method::Other(_) => (405, "Method Not Allowed"),
            }
        };
        self.reply(transaction, Response::to_request(request, status, reason));
        if request.method == Method::Bye && status == 200 {
            self.end(EndCause::RemoteHangUp, now);
        }
    }

    fn reply(&mut self, transaction: TransactionId, response: Response) {
        self.commands.push_back(Command::SipReply { transaction, response });
    }

    /// The inside moves its media, holds or refreshes the session: absorbed, the browser sees nothing of it.
    fn reinvited(&mut self, transaction: TransactionId, request: &Request, now: Instant) {
        if self.cause.is_some() {
            self.reply(transaction, Response::to_request(request, 481, "Call/Transaction Does Not Exist"));
            return;
        }
        let offer = (!request.body.is_empty()).then(|| InsideAnswer::parse(&request.body)).transpose();
        let Ok(offer) = offer else {
            self.reply(transaction, Response::to_request(request, 488, "Not Acceptable Here"));
            return;
        };
        let direction =
            offer.as_ref().map_or(Direction::SendRecv, |offer| offer.direction.answer(Direction::SendRecv));
        if let Some(offer) = offer
            && self.inside.answer.as_ref() != Some(&offer)
        {
            if !self.can_follow(&offer) {
                self.reply(transaction, Response::to_request(request, 488, "Not Acceptable Here"));
                return;
            }
            self.adopt_answer(offer, now);
            self.inside.version += 1;
        }
        self.inside.dialog.refresh(request.contact.as_deref());
        let mut response = Response::to_request(request, 200, "OK");
        response.contact = Some(self.inside.dialog.contact.clone());
        if let Some(own) = self
            .inside
            .offer
            .as_ref()
            .filter(|_| request.method == Method::Invite || !request.body.is_empty())
        {
            let text = own.text(self.inside.version, Some(&self.inside.chosen), direction);
            response.content_type = Some("application/sdp".into());
            response.body = text.into_bytes();
        }
        self.reply(transaction, response);
        self.replan(now);
    }

    /// Whether an offer in mid-call still has the codec of the call.
    fn can_follow(&self, offer: &InsideAnswer) -> bool {
        let sound = self.inside.chosen.iter().find(|codec| codec.kind.is_sound());
        sound.is_some_and(|sound| offer.codecs.iter().any(|codec| codec.kind == sound.kind))
    }

    /// Ends the dialog in the way that its state asks for (RFC 3261 sections 9 and 15).
    pub(super) fn hang_up_inside(&mut self, by_remote: bool) {
        match &mut self.inside.invite {
            Some(invite) if !invite.done => {
                invite.cancel = true;
                self.cancel_if_wanted();
            }
            _ if self.inside.answered && !by_remote => self.bye(),
            _ => {}
        }
    }

    fn bye(&mut self) {
        let transaction = self.transaction();
        let request = self.inside.dialog.bye();
        self.inside.bye = Some(transaction);
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
