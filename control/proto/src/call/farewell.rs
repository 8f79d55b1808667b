//! The end of a call inside: BYE, CANCEL, refusals, each where the state of the dialog asks for it.

use std::time::{Duration, Instant};

use super::Call;
use super::inside::{Calling, Line};
use super::requests::Purpose;
use crate::api::{Command, EndCause};
use crate::sip::{Attempts, Dialog, Method, Response, TransactionId};

/// When all is over but an answer inside never comes.
pub(super) const LINGER: Duration = Duration::from_secs(34);
/// How long whoever transferred the call may take to leave it.
pub(super) const LEAVE: Duration = Duration::from_secs(5);

/// A BYE under way.
#[derive(Debug)]
pub(super) struct Bye {
    pub transaction: TransactionId,
    attempts: Attempts,
}

/// Why we end a call that the far end has answered (RFC 3326); nothing where somebody merely hung up.
fn reason(cause: &EndCause) -> Option<(String, String)> {
    let code = match cause {
        EndCause::NoCodec => "cause=488;",
        EndCause::Protocol(_) => "",
        _ => return None,
    };
    Some(("Reason".into(), format!("SIP;{code}text=\"{}\"", cause.text().replace(['"', '\\'], ""))))
}

impl Call {
    /// Ends the dialogs in the way that their states ask for (RFC 3261 sections 9 and 15).
    pub(super) fn hang_up_inside(&mut self, by_remote: bool) {
        self.leave_former();
        let pending = |calling: Option<&Calling>| calling.is_some_and(|calling| !calling.is_final());
        if pending(self.inside.referral.as_ref().map(|referral| &referral.calling)) {
            self.cancel(Line::Referred);
        }
        if pending(self.inside.invite.as_ref()) {
            self.cancel(Line::Own);
        } else if self.inside.invited.as_ref().is_some_and(|invited| !invited.is_final()) {
            self.refuse();
        } else if self.inside.answered && !by_remote && !self.inside.gone {
            if self.waits_for_first_ack() {
                // The called side may not say BYE before (RFC 3261 section 15).
                self.inside.bye_waits = true;
            } else {
                self.bye(Attempts::default());
            }
        }
    }

    /// The ACK that a BYE waited for is here, or will not come.
    pub(super) fn bye_if_waited(&mut self, now: Instant) {
        if std::mem::take(&mut self.inside.bye_waits) {
            self.deadlines.linger = Some(now + LINGER);
            self.bye(Attempts::default());
        }
    }

    pub(super) fn bye(&mut self, attempts: Attempts) {
        let transaction = self.transaction();
        let target = self.inside.dialog.target.clone();
        let credentials =
            if attempts.is_first() { Vec::new() } else { self.authorize(&Method::Bye, &target) };
        let mut request = self.inside.dialog.bye(credentials);
        request.headers.extend(self.cause.as_ref().and_then(reason));
        self.inside.bye = Some(Bye { transaction, attempts });
        self.commands.push_back(Command::Sip { transaction, request });
    }

    /// A challenge is answered as for an INVITE; else the dialog lives on at the far end.
    pub(super) fn bye_answered(&mut self, response: &Response) {
        if response.status < 200 {
            return;
        }
        let Some(mut bye) = self.inside.bye.take() else { return };
        if self.learn(response, &mut bye.attempts) {
            self.bye(bye.attempts);
        }
    }

    /// Another dialog takes the place of the present one, which is left in time.
    pub(super) fn replaced_by(&mut self, dialog: Dialog, now: Instant) {
        self.leave_former();
        let former = std::mem::replace(&mut self.inside.dialog, dialog);
        if !std::mem::take(&mut self.inside.gone) {
            self.inside.former = Some(former);
            self.deadlines.former = Some(now + LEAVE);
        }
    }

    /// Says BYE in the dialog that was replaced.
    pub(super) fn leave_former(&mut self) {
        self.deadlines.former = None;
        if let Some(mut former) = self.inside.former.take() {
            let request = former.bye(Vec::new());
            self.ask(Purpose::Farewell, request);
        }
    }

    /// Whether nothing of the inside is to be waited for.
    pub(super) fn is_quiet(&self) -> bool {
        let inside = &self.inside;
        let referral = inside.referral.as_ref().map(|referral| &referral.calling);
        inside.bye.is_none()
            && !inside.bye_waits
            && inside.reinvite.is_none()
            && inside.invite.iter().chain(referral).all(Calling::is_final)
            && inside.asking.iter().all(|asking| !asking.is_farewell())
            && self.recording.is_quiet()
    }

    /// The ACK to our 2xx never came (RFC 3261 sections 13.3.1.4 and 14.2).
    pub(super) fn unacknowledged(&mut self, now: Instant) {
        self.inside.unacked = None;
        self.bye_if_waited(now);
        if self.cause.is_none() {
            self.end(EndCause::Protocol("the other side did not acknowledge our answer".into()), now);
        }
    }
}
