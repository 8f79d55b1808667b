//! The recording session with a recorder (RFC 7866): our INVITEs, what comes of them, its end.

use std::time::{Duration, Instant};

use sallyport_plan::PortPair;
use serde::{Deserialize, Serialize};

use super::State;
use super::description::{Heard, Spoken, description, heard, sections, spoken};
use super::metadata::{Ids, Metadata, Participant, multipart};
use crate::api::Command;
use crate::call::Call;
use crate::call::inside;
use crate::call::requests::Purpose;
use crate::sip::header::tag_of;
use crate::sip::{Dialog, Method, Response, TransactionId};

/// What we take in a body.
const ACCEPT: &str = "application/sdp, application/rs-metadata-request";
/// How long a recorder may say nothing before it is asked whether it is still there.
const ALIVE: Duration = Duration::from_secs(60);
/// How far a new control counts on, as the former one may have said more than is in the record (RFC 3261 section 12.2.1.1: CSeq
/// grows, by whatever).
const GAP: u32 = 1 << 16;

/// An INVITE of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Invite {
    transaction: TransactionId,
    cseq: u32,
    /// What it offers.
    offers: Spoken,
    /// Whether its final answer has not come.
    open: bool,
    provisional: bool,
}

/// A 2xx of ours to an INVITE of the recorder, until its ACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unacked {
    pub cseq: u32,
    /// What it offers, where the INVITE did not.
    pub offers: Option<Spoken>,
}

/// The session, from its INVITE on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub(super) dialog: Dialog,
    ids: Ids,
    /// Session id and version of our descriptions.
    sdp: (u64, u32),
    /// What the last one said of the media.
    said: String,
    /// What the recorder has agreed to.
    pub(super) told: Option<Spoken>,
    /// Sections of its own, which we refused.
    pub(super) refused: Vec<String>,
    #[serde(skip)]
    invite: Option<Invite>,
    #[serde(skip)]
    pub(super) unacked: Option<Unacked>,
    /// What it would not have: it is not offered again.
    #[serde(skip)]
    declined: Option<Spoken>,
    /// A former control began it, and nothing was kept since.
    #[serde(skip)]
    resumed: bool,
    /// It wants to be told all there is to say (RFC 7866 section 8.2).
    #[serde(skip)]
    pub(super) curious: bool,
}

impl Session {
    /// Whether a transaction is its INVITE's.
    pub fn is_of(&self, transaction: TransactionId) -> bool {
        self.invite.as_ref().is_some_and(|invite| invite.transaction == transaction)
    }

    /// Whether its INVITE waits for its final answer.
    pub fn is_open(&self) -> bool {
        self.invite.as_ref().is_some_and(|invite| invite.open)
    }

    /// As a new control goes on with it.
    pub fn resumed(mut self) -> Self {
        self.dialog.cseq = self.dialog.cseq.saturating_add(GAP);
        self.resumed = true;
        self
    }

    /// Our next description; its version grows where its text changes (RFC 3264 section 8).
    pub(super) fn say(&mut self, ports: &[PortPair; 2], sections: String) -> String {
        if self.said != sections {
            self.sdp.1 += 1;
            self.said = sections;
        }
        description(self.sdp.0, self.sdp.1, ports, &self.said)
    }

    fn is_established(&self) -> bool {
        self.dialog.remote_tag.is_some()
    }
}

/// An INVITE that nobody wants any more.
#[derive(Debug)]
pub struct Leaving {
    session: Session,
    cancelled: bool,
    /// Its dialog has had its BYE.
    left: bool,
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
        self.recording.session = Some(Session {
            dialog,
            ids,
            sdp: (id, 0),
            said: String::new(),
            told: None,
            refused: Vec::new(),
            invite: None,
            unacked: None,
            declined: None,
            resumed: false,
            curious: false,
        });
        self.send_to_recorder(ports);
    }

    /// Sends the INVITE of the session, its first or a later one, with all that there is to say.
    fn send_to_recorder(&mut self, ports: &[PortPair; 2]) {
        let (transaction, boundary) = (self.transaction(), self.random.hex(16));
        let participants = self.participants();
        let (begun, call_id) = (self.created, self.inside.dialog.call_id.clone());
        let offers = spoken(&self.inside.chosen);
        let Some(session) = &mut self.recording.session else { return };
        let text = session.say(ports, sections(&offers, ports, &session.refused));
        let metadata = Metadata { ids: &session.ids, participants, begun, call_id: &call_id };
        let (content_type, body) = multipart(&boundary, &text, &metadata.xml());
        let mut request = session.dialog.invite("", Vec::new());
        // Nothing else of what calls know is of use here.
        request.headers.retain(|(name, _)| name != "Supported");
        request.headers.push(("Require".into(), "siprec".into()));
        request.headers.push(("Accept".into(), ACCEPT.into()));
        (request.content_type, request.body) = (Some(content_type), body);
        let cseq = request.cseq;
        session.invite = Some(Invite { transaction, cseq, offers, open: true, provisional: false });
        self.recording.unsaved |= self.recording.state == State::Running;
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

    /// Tells the recorder where the media has changed: another codec, other payload types. Not while another INVITE is under way
    /// in either direction, or waits for its time (RFC 3261 section 14.1): then this is called again.
    pub(super) fn tell_recorder(&mut self) {
        let Some(ports) = self.recording.ports else { return };
        let spoken = Some(spoken(&self.inside.chosen));
        let Some(session) = &mut self.recording.session else { return };
        let waits = session.is_open() || session.unacked.is_some() || self.deadlines.recorder_glare.is_some();
        if session.declined.is_some() && session.declined != spoken {
            session.declined = None;
        }
        let news = session.told != spoken && session.declined.is_none();
        if !waits && (news || session.curious) {
            session.curious = false;
            self.send_to_recorder(&ports);
        }
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
            200..300 => self.recorder_agrees(response, first, now),
            _ if !first => {}
            status if session.is_established() => self.recorder_declines(status, now),
            _ => {
                self.recording.session = None;
                self.recording_over(true, now);
            }
        }
        true
    }

    /// A 2xx to the INVITE; `first`: it has had no final answer before.
    fn recorder_agrees(&mut self, response: &Response, first: bool, now: Instant) {
        let Some(session) = &mut self.recording.session else { return };
        let Some((cseq, offers)) = session.invite.as_ref().map(|invite| (invite.cseq, invite.offers.clone()))
        else {
            return;
        };
        let established = session.is_established();
        if !first && established && session.dialog.remote_tag.as_deref() != tag_of(&response.to) {
            // Somebody else's whom a proxy asked as well (RFC 3261 section 13.2.2.4): one is enough.
            let mut fork = session.dialog.opened_by(response);
            self.commands.push_back(Command::SipAck(fork.ack(cseq, &[])));
            let request = fork.bye(Vec::new());
            self.ask(Purpose::Farewell, request);
            return;
        }
        if first && established {
            // A target refresh; the route set is the dialog's for good (section 12.2.1.2).
            session.dialog.refresh(response.contact.as_deref());
        } else if first {
            session.dialog = session.dialog.opened_by(response);
        }
        self.commands.push_back(Command::SipAck(session.dialog.ack(cseq, &[])));
        if first {
            (session.told, session.declined) = (Some(offers), None);
            self.recording.unsaved = true;
            self.recorder_lives(now);
            self.recorder_takes(&response.body, now);
        }
    }

    /// A later INVITE is refused: the session goes on as it was, but where the recorder does not know it any more (section
    /// 12.2.1.2).
    fn recorder_declines(&mut self, status: u16, now: Instant) {
        self.recorder_lives(now);
        match status {
            408 | 481 => self.recording_over(true, now),
            491 => {
                if let Some(session) = &mut self.recording.session {
                    session.curious = true;
                }
                let part = u64::from(self.random.u32() % 191) * 10;
                // Section 14.1, for whoever owns the Call-ID.
                self.deadlines.recorder_glare = Some(now + Duration::from_millis(2_100 + part));
            }
            _ => {
                if let Some(session) = &mut self.recording.session {
                    session.declined = session.invite.as_ref().map(|invite| invite.offers.clone());
                }
            }
        }
    }

    /// The recorder says where it wants the copies.
    pub(super) fn recorder_takes(&mut self, body: &[u8], now: Instant) {
        // Without an answer, against RFC 3264, the session stays as it was.
        if body.is_empty() && self.recording.state == State::Running {
            return;
        }
        match self.recorder_wants(body) {
            Ok(Heard { forks, .. }) if forks != [None; 2] || self.recording.state == State::Running => {
                self.copy_to(forks);
                self.recorder_lives(now);
            }
            Ok(_) | Err(_) => self.recording_over(true, now),
        }
    }

    pub(super) fn recorder_wants(&self, body: &[u8]) -> Result<Heard, &'static str> {
        let ports = self.recording.ports.as_ref().ok_or("there are no ports for copies")?;
        heard(body, &spoken(&self.inside.chosen), ports)
    }

    /// It has been heard of; when it has been silent for a while it is asked.
    pub(super) fn recorder_lives(&mut self, now: Instant) {
        let runs = self.recording.state == State::Running && self.recording.session.is_some();
        self.deadlines.recorder_alive = runs.then(|| now + ALIVE);
    }

    /// A new control does not know since when it has been silent, and does not ask those of all calls at once.
    pub(super) fn recorder_resumes(&mut self, now: Instant) {
        self.recorder_lives(now);
        if let Some(at) = &mut self.deadlines.recorder_alive {
            let part = self.random.u32() % 60_000;
            *at = now + Duration::from_millis(u64::from(part));
        }
    }

    /// It has been silent for long: RTP has no answer, so that SIP is asked (RFC 3261 section 11).
    pub(in crate::call) fn ask_recorder(&mut self, now: Instant) {
        self.recorder_lives(now);
        let Some(session) = self.recording.session.as_mut().filter(|session| !session.is_open()) else {
            return;
        };
        // The next control counts on from here, where this one does behind the gap.
        self.recording.unsaved |= std::mem::take(&mut session.resumed);
        let mut request = session.dialog.next(Method::Options);
        request.headers.push(("Accept".into(), ACCEPT.into()));
        if !self.is_asking(Purpose::Alive) {
            self.ask(Purpose::Alive, request);
        }
    }

    /// What came of that: any answer will do, but that it does not know the session.
    pub(in crate::call) fn recorder_told(&mut self, call_id: &str, status: u16, now: Instant) {
        let session = self.recording.session.as_ref();
        if session.is_none_or(|session| session.dialog.call_id != call_id) {
            return;
        }
        if [408, 481].contains(&status) {
            self.recording_over(true, now);
        } else {
            self.recorder_lives(now);
        }
    }

    /// An answer to an INVITE that is not wanted any more: what was accepted gets its BYE.
    fn left_recorder_answered(&mut self, at: usize, response: &Response) {
        if response.status >= 200 {
            let Leaving { mut session, left, .. } = self.recording.leaving.swap_remove(at);
            if response.status < 300 && left {
                let cseq = session.invite.map_or(session.dialog.cseq, |invite| invite.cseq);
                session.dialog.refresh(response.contact.as_deref());
                self.commands.push_back(Command::SipAck(session.dialog.ack(cseq, &[])));
            } else if response.status < 300 {
                let mut dialog = session.dialog.opened_by(response);
                let cseq = session.invite.map_or(dialog.cseq, |invite| invite.cseq);
                self.commands.push_back(Command::SipAck(dialog.ack(cseq, &[])));
                let request = dialog.bye(Vec::new());
                self.ask(Purpose::Farewell, request);
            }
            return;
        }
        let rings = |leaving: &&mut Leaving| !leaving.cancelled && !leaving.left;
        let Some(leaving) = self.recording.leaving.get_mut(at).filter(rings) else { return };
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
        let Some(session) = self.recording.session.as_mut().filter(|session| session.is_of(transaction))
        else {
            return true;
        };
        let established = session.is_established();
        if session.invite.take().is_some_and(|invite| invite.open) {
            // What has a dialog gets its BYE (RFC 3261 section 12.2.1.2): the recorder may live, and its answers be lost.
            self.recording.session.take_if(|_| !established);
            self.recording_over(true, now);
        }
        true
    }

    /// The recorder has said BYE: it is to hear nothing more, but for the ACK to a 2xx that crosses it.
    pub(super) fn recorder_leaves(&mut self) {
        if let Some(session) = self.recording.session.take().filter(Session::is_open) {
            self.recording.leaving.push(Leaving { session, cancelled: false, left: true });
        }
    }

    /// Leaves the session in the way that its state asks for (RFC 3261 sections 9 and 15).
    pub(in crate::call) fn leave_recorder(&mut self) {
        (self.deadlines.recorder_glare, self.deadlines.recorder_ack) = (None, None);
        self.deadlines.recorder_alive = None;
        let Some(mut session) = self.recording.session.take() else { return };
        let established = session.is_established();
        if established {
            let request = session.dialog.bye(Vec::new());
            self.ask(Purpose::Farewell, request);
        }
        let Some(invite) = session.invite.clone().filter(|invite| invite.open) else { return };
        let cancelled = invite.provisional && !established;
        if cancelled {
            let (invite, request) = (invite.transaction, session.dialog.cancel());
            self.commands.push_back(Command::SipCancel { invite, request });
        }
        self.recording.leaving.push(Leaving { session, cancelled, left: established });
    }

    /// Whether the session has this Call-ID.
    pub(in crate::call) fn records_as(&self, call_id: &str) -> bool {
        let session = self.recording.session.iter();
        let leaving = self.recording.leaving.iter().map(|leaving| &leaving.session);
        session.chain(leaving).any(|session| session.dialog.call_id == call_id)
    }
}
