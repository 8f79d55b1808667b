//! Requests of ours within a dialog, other than the INVITE and BYE of the call itself.

use std::time::Instant;

use super::Call;
use crate::api::{Command, EndCause};
use crate::sip::{Account, Attempts, Dialog, Method, Request, Response, TransactionId};

/// Requests of one call under way at once; beyond, none is sent.
const UNDER_WAY: usize = 32;

/// What for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// User data.
    Info,
    /// A digit; others may wait behind it.
    Digit,
    /// A wish for a picture.
    Wish,
    /// A transfer that we ask for.
    Refer,
    /// The session timer.
    Refresh,
    /// How far a transfer is that we were asked for.
    Progress,
    /// PRACK.
    Acknowledge,
    /// Whether a recorder is still there.
    Alive,
    /// BYE of a dialog that is not the call's any more.
    Farewell,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Asking {
    transaction: TransactionId,
    purpose: Purpose,
    request: Request,
    attempts: Attempts,
}

impl Asking {
    /// Whether it ends a dialog.
    pub fn is_farewell(&self) -> bool {
        self.purpose == Purpose::Farewell
    }
}

/// Whether a header answers a challenge.
fn is_credential(name: &str) -> bool {
    ["Authorization", "Proxy-Authorization"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

impl Call {
    pub(super) fn transaction(&mut self) -> TransactionId {
        self.next_transaction += 1;
        TransactionId(self.next_transaction)
    }

    /// Header fields that answer what was asked so far.
    pub(super) fn authorize(&mut self, method: &Method, uri: &str) -> Vec<(String, String)> {
        let account = Account { user: &self.party.user, password: &self.party.password };
        let random = &mut self.random;
        self.inside.credentials.headers(&account, method.as_str(), uri, || random.hex(8))
    }

    /// Takes in the challenges of a response; whether the request is worth another attempt.
    pub(super) fn learn(&mut self, response: &Response, attempts: &mut Attempts) -> bool {
        !self.party.password.is_empty() && self.inside.credentials.learn(response, attempts)
    }

    /// Sends a request of one of the dialogs; whether it was sent.
    pub(super) fn ask(&mut self, purpose: Purpose, request: Request) -> bool {
        if purpose != Purpose::Farewell && self.inside.asking.len() >= UNDER_WAY {
            return false;
        }
        self.put(Asking { transaction: TransactionId(0), purpose, request, attempts: Attempts::default() });
        true
    }

    fn put(&mut self, mut asking: Asking) {
        asking.transaction = self.transaction();
        let (transaction, request) = (asking.transaction, asking.request.clone());
        self.inside.asking.push(asking);
        self.commands.push_back(Command::Sip { transaction, request });
    }

    /// Whether a request of this purpose is under way.
    pub(super) fn is_asking(&self, purpose: Purpose) -> bool {
        self.inside.asking.iter().any(|asking| asking.purpose == purpose)
    }

    /// Whether the response was one to such a request.
    pub(super) fn asked(&mut self, transaction: TransactionId, response: &Response, now: Instant) -> bool {
        let Some(at) = self.inside.asking.iter().position(|asking| asking.transaction == transaction) else {
            return false;
        };
        if response.status < 200 {
            return true;
        }
        let asking = self.inside.asking.swap_remove(at);
        let challenged = [401, 407].contains(&response.status) && asking.purpose != Purpose::Alive;
        if challenged && self.again(response, &asking) {
            return true;
        }
        self.settled(&asking, Some(response), now);
        true
    }

    /// Whether the request went out once more with an answer to the challenge.
    fn again(&mut self, response: &Response, asking: &Asking) -> bool {
        let mut attempts = asking.attempts.clone();
        if !self.learn(response, &mut attempts) {
            return false;
        }
        let mut request = asking.request.clone();
        let credentials = self.authorize(&request.method, &request.uri);
        let Some(dialog) = self.dialog_of(&request) else { return false };
        request.cseq = dialog.count();
        request.headers.retain(|(name, _)| !is_credential(name));
        request.headers.extend(credentials);
        self.put(Asking { transaction: TransactionId(0), purpose: asking.purpose, request, attempts });
        true
    }

    /// The dialog that a request of ours was sent in.
    fn dialog_of(&mut self, request: &Request) -> Option<&mut Dialog> {
        let tag = crate::sip::header::tag_of(&request.to);
        let inside = &mut self.inside;
        let calling = inside.invite.iter_mut().chain(inside.referral.iter_mut().map(|one| &mut one.calling));
        let early = calling.flat_map(|calling| calling.early.iter_mut().map(|early| &mut early.dialog));
        let mut all = std::iter::once(&mut inside.dialog).chain(&mut inside.former).chain(early);
        all.find(|dialog| dialog.is(&request.call_id, tag))
    }

    /// Whether it was such a request that got no answer.
    pub(super) fn unheard(&mut self, transaction: TransactionId, now: Instant) -> bool {
        let Some(at) = self.inside.asking.iter().position(|asking| asking.transaction == transaction) else {
            return false;
        };
        let asking = self.inside.asking.swap_remove(at);
        self.settled(&asking, None, now);
        true
    }

    /// A request has its final answer, or none. What the far end does not know any more, or does not answer, is over
    /// (RFC 3261 section 12.2.1.2).
    fn settled(&mut self, asking: &Asking, response: Option<&Response>, now: Instant) {
        let (purpose, status) = (asking.purpose, response.map_or(408, |response| response.status));
        if let Purpose::Acknowledge | Purpose::Farewell | Purpose::Progress = purpose {
            if purpose == Purpose::Progress {
                self.progress_settled(status);
            }
            return;
        }
        // One that gets no answer ends no call, as phones that do not know it may well say nothing.
        if purpose == Purpose::Wish && status != 481 {
            return self.wish_settled(status);
        }
        if purpose == Purpose::Alive {
            return self.recorder_told(&asking.request.call_id, status, now);
        }
        // What was asked in a dialog that was replaced since is of no interest.
        if self.cause.is_some() {
            return;
        }
        if asking.request.call_id != self.inside.dialog.call_id {
            if purpose == Purpose::Digit {
                self.next_digit();
            }
            return;
        }
        if self.dialog_lost(status, now) {
            return;
        }
        match purpose {
            Purpose::Digit => self.next_digit(),
            Purpose::Refer => self.refer_settled(status),
            Purpose::Refresh => self.refresh_settled(response, now),
            _ => {}
        }
    }

    /// Whether a status ends the dialog, and so the call.
    pub(super) fn dialog_lost(&mut self, status: u16, now: Instant) -> bool {
        let cause = match status {
            408 => EndCause::SipUnreachable,
            481 => EndCause::Protocol("the other side does not know the call any more".into()),
            _ => return false,
        };
        if !self.inside.gone {
            self.end(cause, now);
        }
        true
    }
}
