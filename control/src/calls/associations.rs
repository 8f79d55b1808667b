//! The DTLS associations of calls: one of the connection that runs, and, while a browser starts over, one of another.

use std::time::Instant;

use sallyport_plan::{CallId, Command as RelayCommand, FlowKey};
use sallyport_proto::{DtlsStart, Input};

use super::Calls;
use super::runtime::Which;
use crate::dtls::{Dtls, Step};

impl Calls {
    /// A datagram of DTLS came by a flow of the call.
    pub(super) fn dtls(&mut self, id: CallId, path: FlowKey, payload: &[u8]) {
        let Some(runtime) = self.calls.get_mut(&id) else { return };
        let next = runtime.next_dtls.as_ref().is_some_and(|(_, flow)| *flow == path);
        let which = if next { Which::Next } else { Which::Running };
        let Some((dtls, flow)) = runtime.association(which) else {
            // The ClientHello may be here before the plan is known to be: the browser sends it again.
            return;
        };
        *flow = path;
        let step = dtls.receive(payload);
        self.dtls_step(id, which, step);
        self.reindex(id);
    }

    pub(super) fn start_dtls(&mut self, id: CallId, which: Which, start: DtlsStart) {
        match Dtls::new(&self.identity, start.role) {
            Ok(dtls) => {
                if let Some(runtime) = self.calls.get_mut(&id) {
                    *runtime.association(which) = Some((dtls, start.path));
                }
                self.flush_dtls(id, which);
            }
            Err(text) => self.dtls_step(id, which, Step::Failed(text)),
        }
    }

    /// It goes on by another flow.
    pub(super) fn move_dtls(&mut self, id: CallId, which: Which, path: FlowKey) {
        if let Some((_, flow)) =
            self.calls.get_mut(&id).and_then(|runtime| runtime.association(which).as_mut())
        {
            *flow = path;
        }
    }

    /// It is over, and the peer is told so.
    pub(super) fn close_dtls(&mut self, id: CallId, which: Which) {
        if let Some((dtls, _)) =
            self.calls.get_mut(&id).and_then(|runtime| runtime.association(which).as_mut())
        {
            dtls.close();
        }
        self.flush_dtls(id, which);
        if let Some(runtime) = self.calls.get_mut(&id) {
            *runtime.association(which) = None;
        }
    }

    /// Lets time pass.
    pub(super) fn dtls_time(&mut self, id: CallId, which: Which, now: Instant) {
        let association = self.calls.get_mut(&id).and_then(|runtime| runtime.association(which).as_mut());
        let late = association
            .filter(|(dtls, _)| dtls.poll_timeout(now).is_some_and(|at| at <= now))
            .map(|(dtls, _)| dtls.handle_timeout());
        if let Some(step) = late {
            self.dtls_step(id, which, step);
        }
    }

    /// What came of a step goes to the call, and what it wrote to the browser.
    fn dtls_step(&mut self, id: CallId, which: Which, step: Step) {
        self.flush_dtls(id, which);
        // Who is signed in may have loaded its page anew.
        let returns = self.calls.get(&id).is_some_and(|runtime| runtime.owner.is_some());
        let input = match (step, which) {
            (Step::Going, _) => return,
            (Step::Done(done), which) => {
                let (profile, peer_fingerprint) = (done.profile, done.peer_fingerprint);
                let (receive, send) = (done.receive.clone(), done.send.clone());
                match which {
                    Which::Running => Input::DtlsDone { profile, receive, send, peer_fingerprint },
                    Which::Next => Input::NextDtlsDone { profile, receive, send, peer_fingerprint },
                }
            }
            (Step::Failed(text), Which::Running) => Input::DtlsFailed(text),
            (Step::Closed, Which::Running) => Input::DtlsClosed { returns },
            (Step::Failed(text), Which::Next) => Input::NextDtlsFailed(text),
            (Step::Closed, Which::Next) => Input::NextDtlsFailed("the browser closed it".into()),
        };
        self.input(id, input);
    }

    fn flush_dtls(&mut self, id: CallId, which: Which) {
        let association = self.calls.get_mut(&id).and_then(|runtime| runtime.association(which).as_mut());
        let Some((dtls, flow)) = association else { return };
        while let Some(payload) = dtls.poll_transmit() {
            let _ = self.relay.send(RelayCommand::Send { path: *flow, payload });
        }
    }
}
