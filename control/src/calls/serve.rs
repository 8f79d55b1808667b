//! Beginning and adopting calls, and doing what they want done.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sallyport_plan::{CallId, Command as RelayCommand};
use sallyport_proto::{Call, CallEvent, Command, Seed, sdp};
use sallyport_wire::stun::Message as Stun;
use tokio::sync::oneshot;

use super::runtime::Runtime;
use super::{Calls, REPORT_PATIENCE, Waiting};
use crate::dtls::{Dtls, Step};
use crate::message::{CallError, CreateError, Created};
use crate::random;

impl Calls {
    pub(super) fn create(
        &mut self,
        to: String,
        offer: &str,
        reply: oneshot::Sender<Result<Created, CreateError>>,
        named: oneshot::Sender<CallId>,
    ) {
        match self.begin(to, offer) {
            Ok(call) => {
                let id = call.id();
                self.begun += 1;
                self.calls.insert(id, Runtime::new(call, Some(reply)));
                // The client may be gone already; its guard then abandons the call.
                if named.send(id).is_err() {
                    self.input(id, sallyport_proto::Input::Abandoned);
                } else {
                    self.act(id, |_| {});
                }
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    fn begin(&mut self, to: String, offer: &str) -> Result<Call, CreateError> {
        if self.draining.is_some() {
            return Err(CreateError::Draining);
        }
        let status = self.status.as_ref().ok_or(CreateError::NoRelay)?;
        let settings = self.settings(status).ok_or(CreateError::NoServer)?;
        let id = CallId(u128::from_be_bytes(random::octets()));
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let created = u64::try_from(created).unwrap_or(u64::MAX);
        Call::new(id, settings, Seed(random::octets()), to, Instant::now(), created, offer)
            .map_err(CreateError::Offer)
    }

    /// Takes over what the relay runs; what cannot be taken over is ended there.
    pub(super) fn adopt(&mut self) {
        let Some(plans) = self.adopting.take() else { return };
        let running: Vec<CallId> = plans.iter().map(|plan| plan.call).collect();
        for plan in plans.iter().filter(|plan| !self.calls.contains_key(&plan.call)).collect::<Vec<_>>() {
            match self.restore(plan) {
                Some(Ok(call)) => {
                    tracing::info!(call = %plan.call, "adopted");
                    self.calls.insert(plan.call, Runtime::new(call, None));
                    self.act(plan.call, |_| {});
                }
                Some(Err(error)) => {
                    tracing::warn!(call = %plan.call, %error, "a running call cannot be adopted and is ended");
                    self.tell_relay(RelayCommand::Remove { call: plan.call });
                }
                None => self.tell_relay(RelayCommand::Remove { call: plan.call }),
            }
        }
        // Calls of ours that the relay does not know any more.
        let lost = self
            .calls
            .values()
            .filter(|runtime| runtime.call.view().version > 0 && !running.contains(&runtime.id()));
        let lost: Vec<CallId> = lost.map(Runtime::id).collect();
        for id in lost {
            self.input(id, sallyport_proto::Input::RelayLost);
        }
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
    }

    /// Lets something happen to a call, then does all that it wants done.
    pub(super) fn act(&mut self, id: CallId, happen: impl FnOnce(&mut Runtime)) {
        let Some(runtime) = self.calls.get_mut(&id) else { return };
        happen(runtime);
        let now = Instant::now();
        let late = runtime.dtls.as_mut().and_then(|(dtls, _)| {
            dtls.poll_timeout(now).is_some_and(|at| at <= now).then(|| dtls.handle_timeout())
        });
        if let Some(step) = late {
            self.dtls_step(id, step);
        }
        while let Some(command) = self.calls.get_mut(&id).and_then(|runtime| runtime.call.poll_command()) {
            self.obey(id, command);
        }
    }

    fn obey(&mut self, id: CallId, command: Command) {
        match command {
            Command::Reserve { toward, pairs } => {
                self.tell_relay(RelayCommand::Reserve { call: id, toward, pairs })
            }
            Command::Install(plan) => self.tell_relay(RelayCommand::Install(plan)),
            Command::Remove => self.tell_relay(RelayCommand::Remove { call: id }),
            Command::Send { path, payload } => {
                if let Some(runtime) = self.calls.get_mut(&id)
                    && let Ok(message) = Stun::parse(&payload)
                {
                    runtime.remember(path, message.transaction_id());
                }
                self.tell_relay(RelayCommand::Send { path, payload });
            }
            Command::Dtls(start) => self.start_dtls(id, start),
            Command::DtlsPath(path) => {
                if let Some((_, flow)) = self.calls.get_mut(&id).and_then(|runtime| runtime.dtls.as_mut()) {
                    *flow = path;
                }
            }
            Command::DtlsClose => {
                if let Some((dtls, _)) = self.calls.get_mut(&id).and_then(|runtime| runtime.dtls.as_mut()) {
                    dtls.close();
                }
                self.flush_dtls(id);
                if let Some(runtime) = self.calls.get_mut(&id) {
                    runtime.dtls = None;
                }
            }
            Command::Sip { transaction, request } => self.sip.request(id, transaction, request),
            Command::SipCancel { invite, request } => self.sip.cancel(id, invite, request),
            Command::SipAck(request) => self.sip.ack(request),
            Command::SipReply { transaction, response } => self.sip.reply(transaction, response),
            Command::Answer(answer) => self.answer(id, Ok(Created { id, answer })),
            Command::Fail(failure) => self.answer(id, Err(CreateError::Failed(failure))),
            Command::Notify(event) => self.notify(id, event),
            Command::Ended => {
                let ended = self.calls.remove(&id);
                self.ng.forget(ended.as_ref());
                self.settle_drain();
            }
        }
    }

    fn start_dtls(&mut self, id: CallId, start: sallyport_proto::DtlsStart) {
        match Dtls::new(&self.identity, start.role) {
            Ok(dtls) => {
                if let Some(runtime) = self.calls.get_mut(&id) {
                    runtime.dtls = Some((dtls, start.path));
                }
                self.flush_dtls(id);
            }
            Err(text) => self.dtls_step(id, Step::Failed(text)),
        }
    }

    fn answer(&mut self, id: CallId, outcome: Result<Created, CreateError>) {
        if let Some(reply) = self.calls.get_mut(&id).and_then(|runtime| runtime.created.take()) {
            // Dropped: the client went away, and its guard says so.
            let _ = reply.send(outcome);
        }
    }

    fn notify(&mut self, id: CallId, event: CallEvent) {
        if let CallEvent::Ended { cause } = &event {
            *self.ended.entry(cause.name()).or_default() += 1;
            tracing::info!(call = %id, cause = cause.name(), "ended");
        }
        if let Some(runtime) = self.calls.get_mut(&id) {
            runtime.notify(event);
        }
    }
}
