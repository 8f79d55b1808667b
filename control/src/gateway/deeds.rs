//! What takes its time: it is asked for, and what comes of it is told to the phone.

use sallyport_plan::CallId;
use sallyport_proto::gateway::{PhoneAct, PhoneCommand, PhoneInput, Refusal};
use sallyport_proto::{CallEvent, Input, Transfer};
use tokio::sync::oneshot;

use super::{Gateway, PhoneId, Told, Wanted};
use crate::identity::{Credentials, Denied};
use crate::message::{
    CallError, Caller, CreateError, Message, SessionEvent, SessionId, SignInError, SignedIn, Wish,
};

impl Gateway {
    /// Begins the sign-in that a phone wants first.
    pub(super) fn ask_in(&mut self, id: PhoneId) {
        let Some(runtime) = self.phones.get(&id) else { return };
        let Some(wanted) = runtime.wanted.front() else { return };
        let credentials = Credentials {
            number: wanted.number.clone(),
            password: runtime.visitor.password.clone(),
            display_name: String::new(),
            token: wanted.token.as_ref().map(|token| token.0.clone()),
        };
        let client = runtime.visitor.client;
        let (calls, told, identities) = (self.calls.clone(), self.told.clone(), self.identities.clone());
        match identities.admit(client, &credentials) {
            Ok(sign_in) => {
                tokio::spawn(async move {
                    let outcome = calls.sign_in(sign_in).await;
                    identities.settle(client, &credentials, outcome.as_ref().map(|_| ()));
                    let outcome = outcome.map_err(|error| unsigned(&error));
                    let _ = told.send(Told::SignedIn(id, outcome));
                });
            }
            Err(error) => {
                let _ = told.send(Told::SignedIn(id, Err(denied(&error))));
            }
        }
    }

    pub(super) fn signed_in(&mut self, id: PhoneId, outcome: Result<SignedIn, Refusal>) {
        let Some(runtime) = self.phones.get_mut(&id) else {
            if let Ok(signed_in) = outcome {
                self.calls.tell(Message::SignOut(signed_in.id));
            }
            return;
        };
        let wanted = runtime.wanted.pop_front();
        let outcome = match outcome {
            Ok(SignedIn { id: session, events, until }) => {
                runtime.former.extend(runtime.session.replace(session));
                let zone = runtime.visitor.zone;
                self.sessions.insert(session, id);
                let caller = Caller { client: None, zone, session: Some(session) };
                self.follow(caller, session, events);
                if let Some(Wanted { number: Some(number), instance, .. }) = wanted {
                    self.adopt(id, &number, &instance);
                }
                Ok(until)
            }
            Err(refusal) => Err(refusal),
        };
        self.input(id, PhoneInput::SignedIn(outcome));
        self.ask_in(id);
    }

    /// Hears what a session is told. Our offer to a call that rings is asked for here, so that what happens to the call
    /// meanwhile is told afterwards.
    fn follow(
        &self,
        caller: Caller,
        session: SessionId,
        mut events: tokio::sync::mpsc::Receiver<SessionEvent>,
    ) {
        let (calls, told) = (self.calls.clone(), self.told.clone());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let offer = match &event {
                    SessionEvent::Incoming { call, .. } => calls.offer(*call, caller).await.ok(),
                    _ => None,
                };
                if told.send(Told::Session { session, event, offer }).is_err() {
                    return;
                }
            }
            let _ = told.send(Told::Over(session));
        });
    }

    /// The same browser on another connection: what it has goes over.
    fn adopt(&mut self, id: PhoneId, number: &str, instance: &str) {
        let same = |(other, runtime): &(&PhoneId, &super::Runtime)| {
            **other != id && runtime.phone.name() == Some((number, instance))
        };
        let Some(other) = self.phones.iter().find(same).map(|(other, _)| *other) else { return };
        let Some(mut former) = self.phones.remove(&other) else { return };
        if let Some(runtime) = self.phones.get_mut(&id) {
            runtime.phone.adopt(&mut former.phone);
            let sessions: Vec<SessionId> = former.former.drain(..).chain(former.session.take()).collect();
            for session in &sessions {
                self.sessions.insert(*session, id);
            }
            runtime.former.extend(sessions);
        }
        // What is left of it is a connection on which nobody is registered.
        self.phones.insert(other, former);
        self.work(other);
    }

    pub(super) fn decline(&self, call: CallId, session: SessionId, status: u16) {
        let (reply, _) = oneshot::channel();
        self.calls.tell(Message::Decline { id: call, session, status, reply });
    }

    pub(super) fn hang_up(&self, call: CallId) {
        let (reply, _) = oneshot::channel();
        self.calls.tell(Message::HangUp { id: call, reply });
    }

    pub(super) fn ask(&mut self, id: PhoneId, command: PhoneCommand) {
        let Some(runtime) = self.phones.get(&id) else { return };
        let caller = Caller { client: None, zone: runtime.visitor.zone, session: runtime.session };
        match command {
            PhoneCommand::Create { call, to, offer, headers, token } => {
                self.create(id, call, Wish { to, offer, caller, headers }, token.is_some());
            }
            PhoneCommand::Take { call, answer } => {
                let (calls, told) = (self.calls.clone(), self.told.clone());
                tokio::spawn(async move {
                    let outcome = calls.take(call, answer, caller).await.map_err(|error| refused(&error));
                    let _ = told.send(Told::Outcome(id, PhoneInput::Took { call, outcome }));
                });
            }
            PhoneCommand::Decline { call, status } => {
                // Whichever session it rings at.
                let sessions = runtime.session.iter().chain(&runtime.former);
                for session in sessions {
                    self.decline(call, *session, status);
                }
            }
            PhoneCommand::Renegotiate { call, offer } => {
                let (calls, told) = (self.calls.clone(), self.told.clone());
                tokio::spawn(async move {
                    let outcome = calls.renegotiate(call, offer).await.map_err(|error| refused(&error));
                    let _ = told.send(Told::Outcome(id, PhoneInput::Renegotiated { call, outcome }));
                });
            }
            PhoneCommand::AskPicture(call) => {
                let (calls, told) = (self.calls.clone(), self.told.clone());
                tokio::spawn(async move {
                    let offer = calls.offer_picture(call).await.ok();
                    let _ = told.send(Told::Outcome(id, PhoneInput::PictureOffer { call, offer }));
                });
            }
            PhoneCommand::PictureAnswer { call, answer } => {
                self.calls.tell(Message::PictureAnswer { id: call, answer });
            }
            PhoneCommand::Act { call, input } => self.act(id, call, input),
            _ => {}
        }
    }

    fn create(&self, id: PhoneId, call: CallId, wish: Wish, shown: bool) {
        let (calls, told) = (self.calls.clone(), self.told.clone());
        let (reply, answer) = oneshot::channel();
        calls.tell(Message::Create { id: call, wish, reply });
        tokio::spawn(async move {
            let outcome = match answer.await.unwrap_or(Err(CreateError::Draining)) {
                Ok(created) => {
                    let past = calls.watch(call).await.map(|(past, _)| past).unwrap_or_default();
                    Ok((created.answer, past.contains(&CallEvent::Answered)))
                }
                Err(CreateError::Forbidden) if !shown => Err(Refusal::plain(401)),
                Err(error) => Err(refused(&error)),
            };
            let _ = told.send(Told::Outcome(id, PhoneInput::Created { call, outcome }));
        });
    }

    fn act(&self, id: PhoneId, call: CallId, act: PhoneAct) {
        let transfers = matches!(act, PhoneAct::TransferTo(_) | PhoneAct::TransferOnto(_));
        let (calls, told) = (self.calls.clone(), self.told.clone());
        tokio::spawn(async move {
            let done = match act {
                PhoneAct::TransferOnto(other) => calls.transfer_onto(call, other).await,
                PhoneAct::TransferTo(to) => calls.act(call, Input::Transfer(Transfer::To(to))).await,
                PhoneAct::Dtmf(digit, duration) => {
                    calls.act(call, Input::Dtmf { digits: digit.to_string(), duration }).await
                }
                PhoneAct::Info(content_type, body) => {
                    calls.act(call, Input::Info { content_type, body }).await
                }
            };
            if let Err(error) = done
                && transfers
            {
                let status =
                    if matches!(error, CallError::Forbidden | CallError::Expired) { 403 } else { 503 };
                let event = CallEvent::Transfer { status };
                let _ = told.send(Told::Outcome(id, PhoneInput::Event { call, event }));
            }
        });
    }
}

/// What a browser is told that does not get in.
fn denied(denied: &Denied) -> Refusal {
    match denied {
        Denied::Limited(wait) => Refusal {
            retry_after: Some(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1)),
            ..Refusal::because(503, denied.text())
        },
        Denied::Token(_) | Denied::NoToken => Refusal::because(401, denied.text()),
        other => Refusal::because(other.sip_status(), other.text()),
    }
}

/// What a browser is told whose sign-in fails.
fn unsigned(error: &SignInError) -> Refusal {
    let (status, text) = match error {
        SignInError::Full => (503, "as many browsers are signed in as may be"),
        SignInError::TooMany => (403, "as many browsers are signed in with this number as may be"),
        SignInError::Draining => (503, "the appliance is ending and signs nobody in"),
        SignInError::Refused { .. } => (403, "the SIP server does not take this number with this password"),
        SignInError::Unreachable => (504, "the SIP server takes no registrations now"),
    };
    Refusal::because(status, text)
}

/// What a browser is told whose call does not come about.
fn refused(error: &CreateError) -> Refusal {
    match error {
        CreateError::Offer(sallyport_proto::OfferError::Destination) => {
            Refusal::because(404, "nobody can be called so")
        }
        CreateError::Offer(sallyport_proto::OfferError::TooLong) => Refusal::plain(413),
        // RFC 3261 section 14.2: it is tried again.
        CreateError::Offer(sallyport_proto::OfferError::Pending) => Refusal::plain(491),
        CreateError::Offer(error) => Refusal::because(488, error.to_string()),
        CreateError::Failed(failure) => Refusal::of(failure),
        CreateError::NoRelay => Refusal::because(503, "the relay is away"),
        CreateError::NoServer => Refusal::because(503, "no SIP server is configured"),
        CreateError::Draining => Refusal::because(503, "the appliance is ending and takes no calls"),
        CreateError::Full => Refusal::because(503, "there are as many calls as there may be"),
        CreateError::TooMany => Refusal::because(403, "this client has as many calls as it may have"),
        CreateError::Forbidden => Refusal::because(403, "this destination may not be called with this token"),
        CreateError::Expired => Refusal::because(401, "the token has expired"),
        CreateError::UnknownSession => Refusal::because(480, "nobody is signed in here any more"),
        CreateError::Gone => Refusal::because(481, "the call is over"),
    }
}
