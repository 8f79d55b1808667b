//! Calls that ring at the browser: our INVITE, which has our offer, since some libraries make none of their own.

use sallyport_plan::CallId;

use super::offering::Picture;
use super::text::{host_or, is_type};
use super::{ALLOW, LEGS, Leg, Phone, PhoneCommand, Purpose, Refusal, State};
use crate::api::EndCause;
use crate::sip::header::tag_of;
use crate::sip::{Dialog, Method, Response, TransactionId};

impl Phone {
    pub(super) fn incoming(&mut self, call: CallId, from: &str, offer: &str) {
        let Some(registration) = self.registration.as_ref().filter(|_| self.lost.is_none()) else {
            self.commands.push_back(PhoneCommand::Decline { call, status: 480 });
            return;
        };
        if self.legs.len() >= LEGS {
            self.commands.push_back(PhoneCommand::Decline { call, status: 486 });
            return;
        }
        let host = host_or(&self.host);
        let user: String =
            from.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.!~*'()+$&=,/%".contains(*c)).collect();
        let user = if user.is_empty() { "anonymous" } else { user.as_str() };
        let mut dialog = Dialog {
            from: format!("<sip:{user}@{host}>;tag={}", self.random.hex(8)),
            to: format!("<sip:{}@{host}>", registration.number),
            call_id: self.random.hex(16),
            contact: self.contact(),
            agent: self.settings.agent.clone(),
            target: registration.contact.clone(),
            ..Dialog::default()
        };
        let mut request = dialog.invite(offer, Vec::new());
        // What the inside is told of us is not what browsers are.
        request.headers.retain(|(name, _)| name != "Allow" && name != "Supported");
        request.headers.push(("Allow".into(), ALLOW.into()));
        let transaction = self.transaction(Purpose::Invite(call));
        self.commands.push_back(PhoneCommand::Send { transaction, request });
        let state = State::Ringing { transaction, cancelled: false };
        self.legs.insert(
            call,
            Leg { dialog, state, offering: None, picture: Picture::None, subscription: None, timer: None },
        );
    }

    pub(super) fn response(&mut self, transaction: TransactionId, response: &Response) {
        let Some(purpose) = self.clients.get(&transaction).copied() else { return };
        if response.status < 200 {
            return;
        }
        let call = match purpose {
            Purpose::Invite(call) => call,
            Purpose::Picture(call) => return self.picture_answered(call, transaction, response),
            Purpose::Within(call) => {
                self.clients.remove(&transaction);
                if matches!(response.status, 408 | 481) && self.legs.contains_key(&call) {
                    self.legs.remove(&call);
                    self.commands.push_back(PhoneCommand::HangUp(call));
                }
                return;
            }
            Purpose::Refresh(call) => {
                self.clients.remove(&transaction);
                if matches!(response.status, 408 | 481) && self.legs.remove(&call).is_some() {
                    self.commands.push_back(PhoneCommand::HangUp(call));
                }
                self.refreshed(call, response.status);
                return;
            }
            Purpose::Farewell => {
                self.clients.remove(&transaction);
                return;
            }
        };
        if (200..300).contains(&response.status) {
            self.accepted(call, response);
            return;
        }
        self.clients.remove(&transaction);
        if let Some(Leg { state: State::Ringing { cancelled: false, .. }, .. }) = self.legs.get(&call) {
            self.commands.push_back(PhoneCommand::Decline { call, status: declined(response.status) });
        }
        self.legs.remove(&call);
    }

    /// A 2xx to our INVITE, or the same one again.
    fn accepted(&mut self, call: CallId, response: &Response) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        let State::Ringing { cancelled, .. } = leg.state else {
            if leg.dialog.remote_tag.as_deref() == tag_of(&response.to) {
                self.commands.push_back(PhoneCommand::Ack(leg.dialog.ack(response.cseq, &[])));
            }
            return;
        };
        leg.dialog = leg.dialog.opened_by(response);
        self.commands.push_back(PhoneCommand::Ack(leg.dialog.ack(response.cseq, &[])));
        if cancelled {
            self.part(call, None);
            return;
        }
        if !is_type(response.content_type.as_deref(), "application/sdp") || response.body.is_empty() {
            self.commands.push_back(PhoneCommand::Decline { call, status: 488 });
            self.part(call, Some("SIP;cause=488;text=\"Not Acceptable Here\""));
            return;
        }
        leg.state = State::Taking;
        let answer = String::from_utf8_lossy(&response.body).into_owned();
        self.commands.push_back(PhoneCommand::Take { call, answer });
    }

    pub(super) fn took(&mut self, call: CallId, outcome: Result<(), Refusal>) {
        let Some(leg) = self.legs.get_mut(&call) else {
            if outcome.is_ok() {
                // The browser has hung up meanwhile.
                self.commands.push_back(PhoneCommand::HangUp(call));
            }
            return;
        };
        if !matches!(leg.state, State::Taking) {
            return;
        }
        match outcome {
            Ok(()) => leg.state = State::Up,
            Err(refusal) => {
                if refusal.status == 488 {
                    // It rings on for others, and not here.
                    self.commands.push_back(PhoneCommand::Decline { call, status: 488 });
                }
                self.part(call, Some(&reason(refusal.status, &refusal.text)));
            }
        }
    }

    /// Another browser was faster.
    pub(super) fn taken(&mut self, call: CallId) {
        // RFC 3326: so that it does not show as a missed call.
        self.stop_ringing(call, "SIP;cause=200;text=\"Call completed elsewhere\"");
    }

    pub(super) fn stop_ringing(&mut self, call: CallId, reason: &str) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        if let State::Ringing { transaction, cancelled } = &mut leg.state
            && !std::mem::replace(cancelled, true)
        {
            let mut request = leg.dialog.cancel();
            request.headers.push(("Reason".into(), reason.to_owned()));
            self.commands.push_back(PhoneCommand::Cancel { invite: *transaction, request });
        }
    }

    /// A request of ours is not answered.
    pub(super) fn silence(&mut self, transaction: TransactionId) {
        let call = match self.clients.remove(&transaction) {
            Some(Purpose::Invite(call) | Purpose::Within(call)) => call,
            Some(Purpose::Picture(call)) => return self.picture_unanswered(call),
            // Its session runs out, unless the browser comes back.
            Some(Purpose::Farewell | Purpose::Refresh(_)) | None => return,
        };
        match self.legs.get(&call).map(|leg| &leg.state) {
            Some(State::Ringing { cancelled: false, .. }) => {
                self.legs.remove(&call);
                self.commands.push_back(PhoneCommand::Decline { call, status: 480 });
            }
            Some(State::Ringing { .. }) => {
                self.legs.remove(&call);
            }
            // The connection has yet to be found gone: what is established waits for the next one.
            _ => {}
        }
    }

    /// We end a dialog.
    pub(super) fn part(&mut self, call: CallId, reason: Option<&str>) {
        let Some(mut leg) = self.legs.remove(&call) else { return };
        self.clients.retain(
            |_, purpose| !matches!(purpose, Purpose::Invite(own) | Purpose::Picture(own) if *own == call),
        );
        let mut request = leg.dialog.next(Method::Bye);
        request.headers.extend(reason.map(|reason| ("Reason".to_owned(), reason.to_owned())));
        self.send(Purpose::Farewell, request);
    }

    /// A call is over, as far as the browser is concerned.
    pub(super) fn over(&mut self, call: CallId, cause: &EndCause) {
        let reason = match cause {
            EndCause::HangUp | EndCause::RemoteHangUp | EndCause::Cancelled => {
                "Q.850;cause=16;text=\"Normal call clearing\"".to_owned()
            }
            other => reason(super::status_of(other), &other.text()),
        };
        match self.legs.get(&call).map(|leg| &leg.state) {
            Some(State::Calling(_)) => self.unanswered(call, cause),
            Some(State::Ringing { .. }) => self.stop_ringing(call, &reason),
            Some(State::Up | State::Taking) => self.part(call, Some(&reason)),
            None => {}
        }
    }

    pub(super) fn end_all(&mut self, cause: &EndCause) {
        let calls: Vec<CallId> = self.legs.keys().copied().collect();
        for call in calls {
            self.fail(call, Refusal::plain(503));
            self.over(call, cause);
        }
    }
}

/// What the caller hears when the browser answers so.
fn declined(status: u16) -> u16 {
    match status {
        400..700 if !matches!(status, 401 | 407 | 408 | 481 | 487) => status,
        _ => 480,
    }
}

/// A Reason (RFC 3326).
fn reason(status: u16, text: &str) -> String {
    format!("SIP;cause={status};text=\"{}\"", text.replace(['"', '\\', '\r', '\n'], "'"))
}
