//! Beginning calls, and doing what they want done.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sallyport_plan::{CallId, Command as RelayCommand};
use sallyport_proto::{Call, CallEvent, Command, Input, Placing, Seed, sdp};
use sallyport_wire::stun::Message as Stun;
use tokio::sync::oneshot;

use super::runtime::{Runtime, Which};
use super::{Calls, REPORT_PATIENCE, Waiting, short};
use crate::message::{CallError, Caller, CreateError, Created, Wish};
use crate::random;

impl Calls {
    pub(super) fn create(
        &mut self,
        id: CallId,
        mut wish: Wish,
        reply: oneshot::Sender<Result<Created, CreateError>>,
    ) {
        let known = self.place(wish.caller, &wish.to);
        let caller = *known.as_ref().unwrap_or(&wish.caller);
        wish.caller = caller;
        match known.and_then(|_| self.begin(id, wish)) {
            Ok(call) => {
                self.begun += 1;
                let mut runtime = Runtime::new(call, Some(reply));
                runtime.client = caller.client;
                runtime.owner = caller.session;
                self.enter(id, runtime);
                self.act(id, |_| {});
            }
            Err(error) => {
                // Whoever is gone by now has begun nothing.
                let _ = reply.send(Err(error));
            }
        }
    }

    fn begin(&self, id: CallId, wish: Wish) -> Result<Call, CreateError> {
        if self.leaving() {
            return Err(CreateError::Draining);
        }
        let status = self.status.as_ref().ok_or(CreateError::NoRelay)?;
        let Wish { to, offer, caller: Caller { client, zone, session }, headers } = wish;
        // Whoever is signed in here is called without a detour where there is no SIP server that could know better.
        let here = self.config.sip.server.is_empty() && !self.sessions.by_number(&to).is_empty();
        if self.config.sip.server.is_empty() && !here {
            return Err(CreateError::NoServer);
        }
        if self.calls.len() >= self.config.http.max_calls {
            return Err(CreateError::Full);
        }
        let same = |runtime: &&Runtime| runtime.client == client;
        if client.is_some()
            && self.calls.values().filter(same).count() >= self.config.http.max_anonymous_calls
        {
            return Err(CreateError::TooMany);
        }
        let route = if here { vec![format!("<sip:{};lr>", self.sip.local())] } else { Vec::new() };
        let from = session.and_then(|session| self.sessions.party(session)).cloned();
        let placing = Placing { to, from, zone, route, headers };
        let seed = Seed(random::octets());
        Call::new(id, self.settings(status), seed, placing, Instant::now(), since_epoch(), &offer)
            .map_err(CreateError::Offer)
    }

    pub(super) fn trickle(&mut self, id: CallId, fragment: &str) -> Result<(), CallError> {
        if !self.calls.contains_key(&id) {
            return Err(CallError::Unknown);
        }
        let input = sdp::parse_fragment(fragment).map_err(CallError::Fragment)?;
        self.input(id, input);
        Ok(())
    }

    pub(super) fn show(&mut self, id: CallId, reply: Waiting) {
        let Some(runtime) = self.calls.get_mut(&id) else {
            let _ = reply.send(Err(CallError::Unknown));
            return;
        };
        runtime.wait(reply, REPORT_PATIENCE);
        if self.status.is_some() && runtime.call.view().version > 0 {
            self.tell_relay(RelayCommand::Report { call: id });
        } else {
            runtime.report(&[]);
        }
        self.reindex(id);
    }

    /// Lets something happen to a call, then does all that it wants done.
    pub(super) fn act(&mut self, id: CallId, happen: impl FnOnce(&mut Runtime)) {
        let Some(runtime) = self.calls.get_mut(&id) else { return };
        happen(runtime);
        let now = Instant::now();
        for which in [Which::Running, Which::Next] {
            self.dtls_time(id, which, now);
        }
        while let Some(command) = self.calls.get_mut(&id).and_then(|runtime| runtime.call.poll_command()) {
            self.obey(id, command);
        }
        self.reindex(id);
    }

    fn obey(&mut self, id: CallId, command: Command) {
        match command {
            Command::Reserve { toward, pairs } => {
                self.tell_relay(RelayCommand::Reserve { call: id, toward, pairs })
            }
            Command::Install(plan) => self.tell_relay(RelayCommand::Install(plan)),
            Command::Picture { direction } => {
                self.tell_relay(RelayCommand::Picture { call: id, direction });
            }
            Command::Dial { direction, digits } => {
                self.tell_relay(RelayCommand::Dial { call: id, direction, digits });
            }
            Command::Remove => self.remove(id),
            Command::Send { path, payload } => {
                if let Some(runtime) = self.calls.get_mut(&id)
                    && let Ok(message) = Stun::parse(&payload)
                {
                    let check = message.transaction_id();
                    if let Some(oldest) = runtime.remember(path, check) {
                        self.index.forget_check(oldest);
                    }
                    self.index.remember_check(check, id);
                }
                self.tell_relay(RelayCommand::Send { path, payload });
            }
            Command::Dtls(start) => self.start_dtls(id, Which::Running, start),
            Command::DtlsPath(path) => self.move_dtls(id, Which::Running, path),
            Command::DtlsClose => self.close_dtls(id, Which::Running),
            Command::NextDtls(start) => self.start_dtls(id, Which::Next, start),
            Command::NextDtlsPath(path) => self.move_dtls(id, Which::Next, path),
            Command::NextDtlsClose => self.close_dtls(id, Which::Next),
            Command::NextDtlsSucceeds => {
                self.close_dtls(id, Which::Running);
                if let Some(runtime) = self.calls.get_mut(&id) {
                    runtime.dtls = runtime.next_dtls.take();
                }
            }
            Command::Sip { transaction, request } => self.sip.request(id, transaction, request),
            Command::SipCancel { invite, request } => self.sip.cancel(id, invite, request),
            Command::SipAck(request) => self.sip.ack(request),
            Command::SipReply { transaction, response } => self.sip.reply(transaction, response),
            Command::Answer(answer) => self.answer(id, Ok(Created { id, answer })),
            Command::Fail(failure) => self.answer(id, Err(CreateError::Failed(failure))),
            Command::Renegotiated(answer) => {
                let waits = self.calls.get_mut(&id).and_then(|runtime| runtime.renegotiating.take());
                if let Some(reply) = waits {
                    let _ = reply.send(Ok(answer));
                }
            }
            Command::Notify(event) => self.notify(id, event),
            Command::Ended => self.forget(id),
        }
    }

    /// What nobody reads any more is no answer: the call ends at once.
    fn answer(&mut self, id: CallId, outcome: Result<Created, CreateError>) {
        let reply = self.calls.get_mut(&id).and_then(|runtime| runtime.created.take());
        if reply.is_some_and(|reply| reply.send(outcome).is_err()) {
            self.input(id, Input::Abandoned);
        }
    }

    fn notify(&mut self, id: CallId, event: CallEvent) {
        if let CallEvent::Ended { cause } = &event {
            *self.ended.entry(cause.name()).or_default() += 1;
            tracing::info!(call = %short(id), cause = cause.name(), "ended");
            tracing::debug!(call = %id, cause = cause.name(), "ended");
        }
        if let CallEvent::Recording { on, failed } = event {
            let outcome = if on {
                "begun"
            } else if failed {
                "failed"
            } else {
                "ended"
            };
            *self.recordings.entry(outcome).or_default() += 1;
            tracing::info!(call = %short(id), outcome, "recording");
        }
        self.tell_sessions(id, &event);
        if let Some(runtime) = self.calls.get(&id) {
            runtime.notify(event);
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn since_epoch() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    u64::try_from(since).unwrap_or(u64::MAX)
}
