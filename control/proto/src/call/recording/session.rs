//! The recording session with a recorder (RFC 7866): its INVITE, what it says, its end.

use std::time::Instant;

use sallyport_plan::{Fork, PortPair};
use serde::{Deserialize, Serialize};

use super::State;
use super::description::{description, sections, spoken, wanted};
use super::metadata::{Ids, Metadata, Participant, multipart};
use crate::api::Command;
use crate::call::Call;
use crate::call::inside;
use crate::call::peer::{NOT_ALLOWED, OK, OUT_OF_ORDER, answer, objection, unacceptable};
use crate::call::requests::Purpose;
use crate::sip::header::tag_of;
use crate::sip::{Dialog, Method, Request, Response, TransactionId};

/// What we take in a body.
const ACCEPT: &str = "application/sdp, application/rs-metadata-request";

/// An INVITE of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Invite {
    transaction: TransactionId,
    cseq: u32,
    /// Whether its final answer has not come.
    open: bool,
    provisional: bool,
}

/// The session, from its INVITE on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    dialog: Dialog,
    ids: Ids,
    /// Session id and version of our descriptions.
    sdp: (u64, u32),
    /// What the last one said of the media.
    said: String,
    #[serde(skip)]
    invite: Option<Invite>,
}

impl Session {
    /// Whether a transaction is its INVITE's.
    pub fn is_of(&self, transaction: TransactionId) -> bool {
        self.invite.as_ref().is_some_and(|invite| invite.transaction == transaction)
    }

    fn is_open(&self) -> bool {
        self.invite.as_ref().is_some_and(|invite| invite.open)
    }
}

/// An INVITE that nobody wants any more.
#[derive(Debug)]
pub struct Leaving {
    session: Session,
    cancelled: bool,
}

impl Leaving {
    /// Whether a transaction is its INVITE's.
    pub fn is_of(&self, transaction: TransactionId) -> bool {
        self.session.is_of(transaction)
    }
}

impl Call {
    /// Begins the session.
    pub(super) fn invite_recorder(&mut self, ports: &[PortPair; 2]) {
        let settings = self.settings.clone();
        let Some(server) = &settings.recording else { return };
        let nonce = self.random.hex(4);
        let tag = format!("{}-r{nonce}", self.sip_tag());
        let party = settings.sip.party();
        let mut dialog = inside::dialog(&settings.sip, &party, &server.uri, &tag, &mut self.random);
        dialog.route.clone_from(&server.route);
        // RFC 7866 section 6.1.1: this is how a recorder knows us.
        dialog.contact.push_str(";+sip.src");
        let (ids, id) = (Ids::new(&mut self.random), self.random.u64() >> 2);
        let said = sections(&spoken(&self.inside.chosen), ports);
        let session = Session { dialog, ids, sdp: (id, 0), said, invite: None };
        self.recording.session = Some(session);
        self.send_to_recorder(ports);
    }

    /// Sends the INVITE of the session, its first or a later one, with all that there is to say.
    fn send_to_recorder(&mut self, ports: &[PortPair; 2]) {
        let (transaction, boundary) = (self.transaction(), self.random.hex(16));
        let participants = self.participants();
        let (begun, call_id) = (self.created, self.inside.dialog.call_id.clone());
        let Some(session) = &mut self.recording.session else { return };
        session.sdp.1 += 1;
        let text = description(session.sdp.0, session.sdp.1, ports, &session.said);
        let metadata = Metadata { ids: &session.ids, participants, begun, call_id: &call_id };
        let (content_type, body) = multipart(&boundary, &text, &metadata.xml());
        let mut request = session.dialog.invite("", Vec::new());
        // Nothing else of what calls know is of use here.
        request.headers.retain(|(name, _)| name != "Supported");
        request.headers.push(("Require".into(), "siprec".into()));
        request.headers.push(("Accept".into(), ACCEPT.into()));
        (request.content_type, request.body) = (Some(content_type), body);
        let cseq = request.cseq;
        session.invite = Some(Invite { transaction, cseq, open: true, provisional: false });
        self.commands.push_back(Command::Sip { transaction, request });
    }

    /// Browser and far end.
    fn participants(&self) -> [Participant; 2] {
        let domain = &self.settings.sip.domain;
        let called = inside::destination(&self.to, domain).unwrap_or_else(|| format!("sip:{domain}"));
        let called = Participant { aor: called, name: String::new() };
        let name = self.party.display_name.clone();
        let caller = Participant { aor: format!("sip:{}@{domain}", self.party.user), name };
        if self.incoming { [called, caller] } else { [caller, called] }
    }

    /// Tells the recorder where the media has changed: another codec, other payload types.
    pub(super) fn tell_recorder(&mut self) {
        let Some(ports) = self.recording.ports else { return };
        let said = sections(&spoken(&self.inside.chosen), &ports);
        let Some(session) = &mut self.recording.session else { return };
        if session.is_open() || session.said == said {
            return;
        }
        session.said = said;
        self.send_to_recorder(&ports);
    }

    /// Whether the response is the recorder's.
    pub(in crate::call) fn recorder_answered(
        &mut self,
        transaction: TransactionId,
        response: &Response,
        now: Instant,
    ) -> bool {
        if !self.is_recorders(transaction) {
            return false;
        }
        if let Some(at) = self.recording.leaving.iter().position(|one| one.is_of(transaction)) {
            self.left_recorder_answered(at, response);
            return true;
        }
        let Some(session) = &mut self.recording.session else { return true };
        let Some(invite) = &mut session.invite else { return true };
        let first = std::mem::replace(&mut invite.open, response.status < 200);
        invite.provisional |= response.status < 200;
        match response.status {
            ..200 => {}
            200..300 => {
                let cseq = invite.cseq;
                if first {
                    session.dialog = session.dialog.opened_by(response);
                }
                self.commands.push_back(Command::SipAck(session.dialog.ack(cseq, &[])));
                if first {
                    self.recorder_takes(&response.body, now);
                }
            }
            // It goes on as it was, with what it was told before; but not where it does not know us any more.
            _ if self.recording.state == State::Running && ![408, 481].contains(&response.status) => {}
            _ => {
                self.recording.session = None;
                self.recording_over(true, now);
            }
        }
        true
    }

    /// The recorder says where it wants the copies.
    fn recorder_takes(&mut self, body: &[u8], now: Instant) {
        match self.recorder_wants(body) {
            Ok(forks) if forks != [None; 2] || self.recording.state == State::Running => {
                self.copy_to(forks, now);
            }
            Ok(_) | Err(_) => self.recording_over(true, now),
        }
    }

    fn recorder_wants(&self, body: &[u8]) -> Result<[Option<Fork>; 2], &'static str> {
        let ports = self.recording.ports.as_ref().ok_or("there are no ports for copies")?;
        wanted(body, &spoken(&self.inside.chosen), ports)
    }

    /// An answer to an INVITE that is not wanted any more: what was accepted gets its BYE.
    fn left_recorder_answered(&mut self, at: usize, response: &Response) {
        if response.status >= 200 {
            let Leaving { session, .. } = self.recording.leaving.swap_remove(at);
            if response.status < 300 {
                let mut dialog = session.dialog.opened_by(response);
                let cseq = session.invite.map_or(dialog.cseq, |invite| invite.cseq);
                self.commands.push_back(Command::SipAck(dialog.ack(cseq, &[])));
                let request = dialog.bye(Vec::new());
                self.ask(Purpose::Farewell, request);
            }
            return;
        }
        let Some(leaving) = self.recording.leaving.get_mut(at).filter(|leaving| !leaving.cancelled) else {
            return;
        };
        leaving.cancelled = true;
        let (invite, request) = (leaving.session.invite.as_ref(), leaving.session.dialog.cancel());
        if let Some(invite) = invite.map(|invite| invite.transaction) {
            self.commands.push_back(Command::SipCancel { invite, request });
        }
    }

    /// Whether it is the recorder that does not answer, or cannot be reached.
    pub(in crate::call) fn recorder_unheard(&mut self, transaction: TransactionId, now: Instant) -> bool {
        if !self.is_recorders(transaction) {
            return false;
        }
        self.recording.leaving.retain(|leaving| !leaving.is_of(transaction));
        if self.recording.session.take_if(|session| session.is_of(transaction)).is_some() {
            self.recording_over(true, now);
        }
        true
    }

    /// Leaves the session in the way that its state asks for (RFC 3261 sections 9 and 15).
    pub(in crate::call) fn leave_recorder(&mut self) {
        let Some(mut session) = self.recording.session.take() else { return };
        let established = session.dialog.remote_tag.is_some();
        if established {
            let request = session.dialog.bye(Vec::new());
            self.ask(Purpose::Farewell, request);
        }
        let Some(invite) = session.invite.clone().filter(|invite| invite.open && !established) else {
            return;
        };
        if invite.provisional {
            let (invite, request) = (invite.transaction, session.dialog.cancel());
            self.commands.push_back(Command::SipCancel { invite, request });
        }
        self.recording.leaving.push(Leaving { session, cancelled: invite.provisional });
    }

    /// Answers a request of the recorder within the session; whether it is the recorder's.
    pub(in crate::call) fn recorder_asks(
        &mut self,
        transaction: TransactionId,
        request: &Request,
        now: Instant,
    ) -> bool {
        let tag = tag_of(&request.from);
        let own = |session: &&mut Session| session.dialog.is(&request.call_id, tag);
        let Some(session) = self.recording.session.as_mut().filter(own) else { return false };
        if request.method == Method::Ack {
            return true;
        }
        let refusal = objection(request);
        let in_order = refusal.is_some() || session.dialog.admit(request);
        let response = match (refusal, request.method.as_str()) {
            (Some(refusal), _) => refusal,
            _ if !in_order => answer(request, OUT_OF_ORDER),
            (None, "INVITE" | "UPDATE") => self.recorder_changes(request, now),
            (None, "BYE" | "OPTIONS" | "INFO" | "NOTIFY") => answer(request, OK),
            (None, _) => answer(request, NOT_ALLOWED),
        };
        let left = request.method == Method::Bye && response.status == OK.0;
        self.reply(transaction, response);
        if left {
            self.recording.session = None;
            self.recording_over(false, now);
        }
        true
    }

    /// The recorder wants the copies elsewhere, or not for a while (RFC 7866 section 7.2), or refreshes the session.
    fn recorder_changes(&mut self, request: &Request, now: Instant) -> Response {
        if !request.body.is_empty() {
            match self.recorder_wants(&request.body) {
                Ok(forks) if forks != self.recording.forks => self.copy_to(forks, now),
                Ok(_) => {}
                Err(text) => return unacceptable(request, text),
            }
        }
        let ports = self.recording.ports;
        let Some(session) = &mut self.recording.session else { return answer(request, OK) };
        session.dialog.refresh(request.contact.as_deref());
        let mut response = answer(request, OK);
        response.contact = Some(session.dialog.contact.clone());
        let says = request.method == Method::Invite || !request.body.is_empty();
        if let Some(ports) = ports.filter(|_| says) {
            session.sdp.1 += 1;
            response.content_type = Some("application/sdp".into());
            response.body = description(session.sdp.0, session.sdp.1, &ports, &session.said).into_bytes();
        }
        response
    }

    /// Whether the session has this Call-ID.
    pub(in crate::call) fn records_as(&self, call_id: &str) -> bool {
        let session = self.recording.session.iter();
        let leaving = self.recording.leaving.iter().map(|leaving| &leaving.session);
        session.chain(leaving).any(|session| session.dialog.call_id == call_id)
    }
}
