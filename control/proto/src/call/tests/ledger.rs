//! What must hold whatever happens: all that a call takes it gives back, all that it begins it ends.

use std::collections::{BTreeMap, HashSet};

use sallyport_plan::Plan;

use crate::api::{CallEvent, Command, Input};
use crate::sip::{Method, Request, TransactionId};

#[derive(Debug, Default)]
struct Invite {
    provisional: bool,
    status: Option<u16>,
    silent: bool,
    cancelled: bool,
    acks: usize,
    cseq: u32,
    call_id: String,
    /// It is in a dialog, whose BYE is its end as well.
    within: bool,
}

/// A dialog by its Call-ID: whether it needs its end, and has it.
#[derive(Debug, Default)]
struct Dialog {
    talking: bool,
    /// It rings, or did: a BYE may end that as well.
    early: bool,
    hung_up: bool,
}

/// The books of one call.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The relay may hold something of the call.
    held: bool,
    removed: bool,
    in_flight: Option<u32>,
    version: u32,
    invites: BTreeMap<TransactionId, Invite>,
    dialogs: BTreeMap<String, Dialog>,
    said_goodbye: HashSet<TransactionId>,
    open: HashSet<TransactionId>,
    answers: usize,
    dtls: usize,
    dtls_closed: bool,
    /// Another association is under way.
    next_dtls: bool,
    over: bool,
    ended: bool,
    adopted: bool,
}

impl Ledger {
    pub fn restored(plan: &Plan, call_id: &str) -> Self {
        let version = plan.version;
        let dialogs = BTreeMap::from([(call_id.to_owned(), Dialog { talking: true, ..Dialog::default() })]);
        Self { held: true, dialogs, adopted: true, version, ..Self::default() }
    }

    /// A dialog that a former control began.
    pub fn talks(&mut self, call_id: &str) {
        self.dialogs.insert(call_id.to_owned(), Dialog { talking: true, ..Dialog::default() });
    }

    pub fn input(&mut self, input: &Input) {
        match input {
            Input::Installed(version) if self.in_flight == Some(*version) => self.in_flight = None,
            Input::Refused(_) | Input::RelayBack(_) => self.in_flight = None,
            Input::SipResponse { transaction, response } => {
                if let Some(invite) = self.invites.get_mut(transaction)
                    && invite.status.is_none()
                    && !invite.silent
                    && !self.over
                {
                    if response.status < 200 {
                        invite.provisional = true;
                        let dialog = self.dialogs.entry(response.call_id.clone()).or_default();
                        dialog.early |= response.to.contains(";tag=");
                    } else {
                        invite.status = Some(response.status);
                        let dialog = self.dialogs.entry(response.call_id.clone()).or_default();
                        dialog.talking |= response.status < 300;
                    }
                }
            }
            Input::SipTimeout(transaction) | Input::SipTransportError(transaction) => {
                if let Some(invite) = self.invites.get_mut(transaction) {
                    invite.silent = invite.status.is_none();
                }
            }
            Input::SipRequest { transaction, request } if !self.over => {
                if request.method != Method::Ack {
                    self.open.insert(*transaction);
                }
                if request.method == Method::Bye {
                    self.said_goodbye.insert(*transaction);
                }
            }
            _ => {}
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    pub fn command(&mut self, command: &Command) {
        assert!(!self.over, "nothing comes behind the end: {command:?}");
        match command {
            Command::Reserve { .. } => self.held = true,
            Command::Install(plan) => {
                assert!(!self.removed, "no plan behind the removal");
                assert_eq!(self.in_flight, None, "one plan at a time");
                assert!(plan.version > self.version, "versions grow");
                assert_eq!(plan.validate(), Ok(()));
                assert!(plan.directions.iter().all(|direction| !direction.rtp.remote.ip().is_unspecified()));
                (self.held, self.in_flight, self.version) = (true, Some(plan.version), plan.version);
            }
            Command::Remove => (self.held, self.removed) = (false, true),
            Command::Dtls(_) => {
                self.dtls += 1;
                assert_eq!(self.dtls, 1, "DTLS begins once");
            }
            Command::DtlsClose => self.dtls_closed = true,
            Command::NextDtls(_) => assert!(!std::mem::replace(&mut self.next_dtls, true), "one beside it"),
            Command::NextDtlsPath(_) => assert!(self.next_dtls, "it is under way"),
            Command::NextDtlsClose => assert!(std::mem::take(&mut self.next_dtls), "it is under way"),
            Command::NextDtlsSucceeds => {
                assert!(std::mem::take(&mut self.next_dtls), "it is under way");
                self.dtls = 1;
            }
            Command::Sip { transaction, request } => self.sent(*transaction, request),
            Command::SipCancel { invite, .. } => {
                let invite = self.invites.get_mut(invite).expect("an INVITE to cancel");
                assert!(invite.provisional && invite.status.is_none() && !invite.cancelled, "{invite:?}");
                invite.cancelled = true;
            }
            Command::SipAck(request) => {
                let mut invites = self.invites.values_mut();
                let same =
                    |invite: &&mut Invite| invite.cseq == request.cseq && invite.call_id == request.call_id;
                let invite = invites.find(same).expect("its INVITE");
                invite.acks += 1;
            }
            Command::SipReply { transaction, response } => {
                let open = match response.status {
                    100..=199 => self.open.contains(transaction),
                    _ => self.open.remove(transaction),
                };
                assert!(open, "one final answer to one request");
                let dialog = self.dialogs.entry(response.call_id.clone()).or_default();
                dialog.hung_up |= response.status == 200 && self.said_goodbye.contains(transaction);
                dialog.talking |= response.status == 200 && response.method == Method::Invite;
            }
            Command::Answer(_) | Command::Fail(_) => {
                self.answers += 1;
                assert_eq!(self.answers, 1, "one answer or one failure");
                assert!(!self.adopted, "the browser has its answer since long");
            }
            Command::Notify(event) => {
                assert!(!self.ended, "the end is told last");
                self.ended = matches!(event, CallEvent::Ended { .. });
            }
            Command::Ended => self.over = true,
            Command::Send { .. }
            | Command::Dial { .. }
            | Command::Picture { .. }
            | Command::DtlsPath(_)
            | Command::Renegotiated(_) => {}
        }
    }

    fn sent(&mut self, transaction: TransactionId, request: &Request) {
        match &request.method {
            Method::Invite => {
                let (cseq, call_id) = (request.cseq, request.call_id.clone());
                let within = request.to.contains(";tag=");
                let invite = Invite { cseq, call_id, within, ..Invite::default() };
                let before = self.invites.insert(transaction, invite);
                assert!(before.is_none(), "a transaction of its own");
            }
            Method::Bye => {
                let dialog = self.dialogs.entry(request.call_id.clone()).or_default();
                assert!(dialog.talking || dialog.early, "no BYE without a dialog");
                dialog.hung_up = true;
            }
            Method::Info | Method::Update | Method::Notify | Method::Options => {}
            other if ["PRACK", "REFER"].contains(&other.as_str()) => {}
            other => panic!("{other} is no request of ours"),
        }
    }

    /// At the end: nothing is held, nothing is left open.
    pub fn balanced(&self) {
        assert!(self.over && self.ended, "it has ended: {self:?}");
        assert!(!self.held, "what was taken from the relay is given back");
        assert!(self.adopted || self.answers == 1, "the browser was told");
        assert!(self.open.is_empty(), "requests are answered");
        assert!(self.dtls == 0 || self.dtls_closed, "DTLS is closed");
        for invite in self.invites.values() {
            let rings = invite.provisional && invite.status.is_none() && !invite.silent;
            assert!(!rings || invite.cancelled || invite.within, "nobody rings on: {invite:?}");
            let accepted = invite.status.is_some_and(|status| (200..300).contains(&status));
            assert!(!accepted || invite.acks > 0, "a 2xx is acknowledged: {invite:?}");
        }
        let ended = |dialog: &Dialog| !dialog.talking || dialog.hung_up;
        assert!(self.dialogs.values().all(ended), "a dialog is ended by a BYE: {self:?}");
    }
}
