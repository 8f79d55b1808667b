//! The relay as the calls see it: it comes, goes, and holds what it was told and not told to drop.

use sallyport_plan::{CallId, Command as RelayCommand, Event, Plan, Refusal, Status};
use sallyport_proto::Input;

use super::runtime::Runtime;
use super::{Calls, short};

impl Calls {
    pub(super) fn relay_up(&mut self, status: Status) {
        tracing::info!(calls = status.calls, workers = status.workers, "the relay is there");
        self.status = Some(status);
        self.ask_stun();
        self.adopting = Some(Vec::new());
        // What was removed while nobody listened, or just as the relay went: it may still run there.
        let removing: Vec<CallId> = self.removing.iter().copied().collect();
        for call in removing {
            self.tell_relay(RelayCommand::Remove { call });
        }
        self.tell_relay(RelayCommand::List);
    }

    pub(super) fn relay_down(&mut self) {
        self.status = None;
        self.adopting = None;
        self.stun.rest();
        let all: Vec<CallId> = self.calls.keys().copied().collect();
        for id in all {
            self.input(id, Input::RelayAway);
        }
    }

    pub(super) fn relay_event(&mut self, event: Event) {
        match event {
            Event::Hello { status, .. } | Event::Status(status) => self.status = Some(status),
            Event::Reserved { call, ports } => self.told(call, Input::Reserved(ports)),
            Event::Installed { call, version } => self.told(call, Input::Installed(version)),
            Event::Refused { call, refusal } => self.refused(call, refusal),
            Event::Removed { call, directions } => {
                self.quality.add(call, &directions);
                self.removing.remove(&call);
            }
            Event::Punt { path, call, payload } => self.punt(path, call, payload),
            Event::ConsentLost { call, flow } => self.told(call, Input::ConsentLost(flow)),
            Event::Disconnected { call, flow } => self.told(call, Input::Disconnected(flow)),
            Event::Digit { call, direction, event, duration } => {
                self.told(call, Input::Digit { direction, event, duration });
            }
            Event::Picture { call, direction } => self.told(call, Input::Picture(direction)),
            Event::Source { call, flow } => self.told(call, Input::Source(flow)),
            Event::Running(plan) => {
                if let Some(found) = &mut self.adopting {
                    found.push(plan);
                }
            }
            Event::Listed => self.adopt(),
            Event::Report { call, directions } => {
                self.ng_report(call, &directions);
                if let Some(runtime) = self.calls.get_mut(&call) {
                    runtime.report(&directions);
                }
            }
        }
    }

    /// The relay says that it holds something of a call. One that nobody knows any more is to be dropped there; while
    /// calls are being listed nobody can say, and [`Self::adopt`] judges.
    fn told(&mut self, call: CallId, input: Input) {
        if self.calls.contains_key(&call) {
            self.input(call, input);
        } else if self.adopting.is_none() && !self.removing.contains(&call) {
            tracing::debug!(%call, "the relay holds a call that is none of ours");
            self.remove(call);
        }
    }

    /// Has the relay drop a call, now or when it is back: it is told again until it has said that it did.
    pub(super) fn remove(&mut self, call: CallId) {
        self.removing.insert(call);
        self.tell_relay(RelayCommand::Remove { call });
    }

    /// A refusal answers a question about statistics where one is open, else the call's own command.
    fn refused(&mut self, call: CallId, refusal: Refusal) {
        let asked = self.calls.get_mut(&call).is_some_and(|runtime| {
            let unknown = refusal == Refusal::UnknownCall;
            unknown && runtime.report(&[])
        });
        if !asked {
            self.input(call, Input::Refused(refusal));
        }
    }

    /// Takes over what the relay runs; what cannot be taken over, or has ended meanwhile, is ended there.
    fn adopt(&mut self) {
        let Some(plans) = self.adopting.take() else { return };
        let running: Vec<CallId> = plans.iter().map(|plan| plan.call).collect();
        for plan in &plans {
            if self.removing.contains(&plan.call) {
                continue;
            }
            if self.calls.contains_key(&plan.call) {
                self.input(plan.call, Input::RelayBack(plan.version));
            } else {
                self.take_over(plan);
            }
        }
        // Calls of ours that the relay does not know any more; those begun since it is back were never away.
        let waits = |runtime: &&Runtime| runtime.call.waits_for_relay() && !running.contains(&runtime.id());
        let lost: Vec<CallId> = self.calls.values().filter(waits).map(Runtime::id).collect();
        for id in lost {
            self.input(id, Input::RelayLost);
        }
    }

    fn take_over(&mut self, plan: &Plan) {
        match self.restore(plan) {
            Some(Ok(call)) => {
                tracing::info!(call = %short(plan.call), "adopted");
                tracing::debug!(call = %plan.call, "adopted");
                let mut runtime = Runtime::new(call, None);
                runtime.adopted = true;
                self.enter(plan.call, runtime);
                self.act(plan.call, |_| {});
            }
            Some(Err(error)) => {
                let call = short(plan.call);
                tracing::warn!(%call, %error, "a running call cannot be adopted and is ended");
                self.remove(plan.call);
            }
            None => self.remove(plan.call),
        }
    }
}
