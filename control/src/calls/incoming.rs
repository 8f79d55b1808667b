//! Calls from the inside: whom they ring, who takes them.

use std::time::Instant;

use sallyport_plan::CallId;
use sallyport_proto::sip::header::{tag_of, user_of};
use sallyport_proto::sip::{Method, Request, Response, TransactionId};
use sallyport_proto::{AcceptError, Call, CallEvent, Input, Seed, Transfer, Wanted};
use tokio::sync::oneshot;

use super::machine::Machine;
use super::runtime::Runtime;
use super::serve::since_epoch;
use super::{Calls, short};
use crate::message::{CallError, Caller, CreateError, Created, SessionEvent, SessionId};
use crate::random;

impl Calls {
    /// A request without a call of ours: an INVITE may begin one.
    pub(super) fn stray_request(&mut self, transaction: TransactionId, request: Request) {
        if request.method == Method::Ack {
            return;
        }
        let begins = request.method == Method::Invite && tag_of(&request.to).is_none();
        if !begins {
            let refusal = Response::to_request(&request, 481, "Call/Transaction Does Not Exist");
            self.sip.reply(transaction, refusal);
            return;
        }
        let outcome = match sallyport_proto::wanted(&request) {
            Ok(Some(wanted)) => self.replace(&wanted, transaction, &request),
            Ok(None) => self.ring(transaction, request),
            Err(refusal) => Err(refusal),
        };
        if let Err(mut refusal) = outcome {
            if tag_of(&refusal.to).is_none() {
                refusal.to = format!("{};tag={}", refusal.to, random::hex::<8>());
            }
            self.sip.reply(transaction, *refusal);
        }
    }

    /// An INVITE that takes the place of a call's dialog (RFC 3891).
    fn replace(
        &mut self,
        wanted: &Wanted,
        transaction: TransactionId,
        request: &Request,
    ) -> Result<(), Box<Response>> {
        let unknown = || Box::new(Response::to_request(request, 481, "Call/Transaction Does Not Exist"));
        let id = self.by_dialog(&wanted.local_tag, &wanted.call_id).ok_or_else(unknown)?;
        let runtime = self.calls.get_mut(&id).ok_or_else(unknown)?;
        runtime.call.replace(wanted, transaction, request)?;
        self.act(id, |_| {});
        Ok(())
    }

    /// The call `id` is transferred onto the far end of `other`, which is as much the browser's.
    pub(super) fn transfer_onto(&mut self, id: CallId, other: CallId) -> Result<(), CallError> {
        let find = |id: CallId| self.calls.get(&id).ok_or(CallError::Unknown);
        let (one, onto) = (find(id)?, find(other)?);
        if id == other || one.owner != onto.owner {
            return Err(CallError::Unknown);
        }
        let replaces = onto.call.replaces().ok_or(CallError::Unknown)?;
        self.input(id, Input::Transfer(Transfer::Onto(replaces)));
        Ok(())
    }

    fn ring(&mut self, transaction: TransactionId, request: Request) -> Result<(), Box<Response>> {
        let refuse = |status, reason: &str| Box::new(Response::to_request(&request, status, reason));
        let number = user_of(&request.uri).to_owned();
        let sessions = self.sessions.by_number(&number).to_vec();
        if sessions.is_empty() {
            return Err(refuse(480, "Temporarily Unavailable"));
        }
        let unavailable = || refuse(503, "Service Unavailable");
        if self.leaving() || self.calls.len() >= self.config.http.max_calls {
            return Err(unavailable());
        }
        let status = self.status.as_ref().ok_or_else(unavailable)?;
        let settings = self.settings(status);
        let id = CallId(u128::from_be_bytes(random::octets()));
        let name = (id, Seed(random::octets()), since_epoch());
        let call = Call::incoming(name, settings, number, transaction, request, Instant::now())?;
        self.begun += 1;
        let (view, headers, video) = (call.view(), call.passed().to_vec(), call.rings_with_picture());
        let mut runtime = Runtime::new(call, None);
        runtime.ringing.clone_from(&sessions);
        runtime.invite = Some(transaction);
        self.enter(id, runtime);
        for session in sessions {
            let (from, to, headers) = (view.from.clone(), view.to.clone(), headers.clone());
            self.sessions.tell(session, SessionEvent::Incoming { call: id, from, to, headers, video });
        }
        tracing::info!(call = %short(id), "rings");
        self.act(id, |_| {});
        Ok(())
    }

    /// A browser takes a call that rings there.
    pub(super) fn accept(
        &mut self,
        id: CallId,
        offer: &str,
        caller: &Caller,
        reply: oneshot::Sender<Result<Created, CreateError>>,
    ) {
        self.take_by(id, caller, reply, |call| call.accept(offer, caller.zone));
    }

    /// A browser takes a call that rings there, in its way of doing that.
    pub(super) fn take_by(
        &mut self,
        id: CallId,
        caller: &Caller,
        reply: oneshot::Sender<Result<Created, CreateError>>,
        way: impl FnOnce(&mut Machine) -> Result<(), AcceptError>,
    ) {
        let runtime = self.calls.get_mut(&id);
        let rings = |runtime: &&mut Runtime| caller.session.is_some_and(|id| runtime.ringing.contains(&id));
        let Some(runtime) = runtime.filter(rings) else {
            let _ = reply.send(Err(CreateError::Gone));
            return;
        };
        match way(&mut runtime.call) {
            Ok(()) => {
                let ringing = std::mem::take(&mut runtime.ringing);
                runtime.owner = caller.session;
                runtime.created = Some(reply);
                for other in ringing.into_iter().filter(|other| Some(*other) != caller.session) {
                    self.sessions.tell(other, SessionEvent::Taken { call: id });
                }
                self.act(id, |_| {});
            }
            Err(error) => {
                let _ = reply.send(Err(match error {
                    AcceptError::Gone => CreateError::Gone,
                    AcceptError::Offer(offer) => CreateError::Offer(offer),
                }));
            }
        }
    }

    /// Our offer to a browser that a call rings at.
    pub(super) fn offer(&mut self, id: CallId, caller: &Caller) -> Result<String, CallError> {
        let runtime = self.calls.get_mut(&id).ok_or(CallError::Unknown)?;
        if !caller.session.is_some_and(|session| runtime.ringing.contains(&session)) {
            return Err(CallError::Unknown);
        }
        runtime.call.offer(caller.zone).map_err(|_| CallError::Unknown)
    }

    /// A browser does not want a call that rings there; when none is left that might, the caller hears `status`.
    pub(super) fn decline(&mut self, id: CallId, session: SessionId, status: u16) -> Result<(), CallError> {
        let runtime = self.calls.get_mut(&id).ok_or(CallError::Unknown)?;
        let before = runtime.ringing.len();
        runtime.ringing.retain(|other| *other != session);
        if before == runtime.ringing.len() {
            return Err(CallError::Unknown);
        }
        if runtime.ringing.is_empty() {
            self.input(id, Input::Decline(status));
        }
        Ok(())
    }

    /// A browser offers anew in the middle of a call.
    pub(super) fn renegotiate(
        &mut self,
        id: CallId,
        offer: &str,
        reply: oneshot::Sender<Result<String, CreateError>>,
    ) {
        let Some(runtime) = self.calls.get_mut(&id) else {
            let _ = reply.send(Err(CreateError::Gone));
            return;
        };
        match runtime.call.renegotiate(offer) {
            Ok(()) => {
                runtime.renegotiating = Some(reply);
                self.act(id, |_| {});
            }
            Err(AcceptError::Gone) => drop(reply.send(Err(CreateError::Gone))),
            Err(AcceptError::Offer(error)) => drop(reply.send(Err(CreateError::Offer(error)))),
        }
    }

    /// Our offer of a picture that the inside wants to show.
    pub(super) fn offer_picture(&mut self, id: CallId) -> Result<String, CallError> {
        let runtime = self.calls.get_mut(&id).ok_or(CallError::Unknown)?;
        runtime.call.offer_picture().map_err(|_| CallError::Unknown)
    }

    /// The browser has answered that. What cannot be used leaves the call as it is.
    pub(super) fn picture_taken(&mut self, id: CallId, answer: &str) {
        let Some(runtime) = self.calls.get_mut(&id) else { return };
        if let Err(error) = runtime.call.picture_taken(answer) {
            tracing::debug!(call = %short(id), "the answer to a picture is of no use: {error}");
        }
        self.act(id, |_| {});
    }

    /// Tells all browsers of a call what happened to it.
    pub(super) fn tell_sessions(&mut self, id: CallId, event: &CallEvent) {
        let Some(runtime) = self.calls.get(&id) else { return };
        for session in runtime.owner.iter().chain(&runtime.ringing) {
            self.sessions.tell_of(*session, id, event.clone());
        }
    }

    /// A browser is gone: its calls end, what rings there rings elsewhere or not at all.
    pub(super) fn sign_out(&mut self, session: SessionId) {
        let party = self.sessions.sign_out(session);
        let owned = self.calls.values().filter(|runtime| runtime.owner == Some(session)).map(Runtime::id);
        let owned: Vec<CallId> = owned.collect();
        for id in owned {
            self.input(id, Input::HangUp);
        }
        self.ring_off(session);
        if let Some(party) = party {
            self.unregister_if_unused(&party.user);
        }
    }

    /// What rings at a browser rings there no more.
    pub(super) fn ring_off(&mut self, session: SessionId) {
        let rings = self.calls.values().filter(|runtime| runtime.ringing.contains(&session)).map(Runtime::id);
        let rings: Vec<CallId> = rings.collect();
        for id in rings {
            let _ = self.decline(id, session, 480);
        }
    }
}
