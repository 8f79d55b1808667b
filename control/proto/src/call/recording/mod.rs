//! Copies of a call's sound for somebody else: a recorder that we invite (SIPREC, RFC 7866: we are the recording client, it is the
//! recording server), or one who listens in at addresses that were named. The relay makes the copies; whatever becomes of them,
//! the call goes on, unless it may not go on unrecorded.

mod description;
mod metadata;
mod requests;
mod session;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sallyport_plan::{Fork, PortPair};
use serde::{Deserialize, Serialize};

use super::Call;
use super::deadlines::passed;
use crate::api::{CallEvent, Command, EndCause, Recorded};
use crate::settings::Settings;
use crate::sip::TransactionId;

use session::{Leaving, Session};

/// How long a recorder may take to agree, and the relay to give ports for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Port pairs that it takes: one a direction.
const PAIRS: u8 = 2;

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// Not begun.
    #[default]
    Off,
    /// The relay is to give ports.
    Ports,
    /// The recorder is to agree.
    Inviting,
    /// Copies are made.
    Running,
    /// It is over, or came to nothing.
    Over,
}

/// The recording of a call.
#[derive(Debug, Default)]
pub(super) struct Recording {
    state: State,
    /// Whether the recorder is to be invited.
    wanted: bool,
    /// Who listens in instead: addresses for RTP, one a direction.
    toward: Option<[SocketAddr; 2]>,
    /// Where copies leave from.
    ports: Option<[PortPair; 2]>,
    /// The same of the other IP version, where a former recording was of that.
    spare: Option<[PortPair; 2]>,
    /// Where copies are to go.
    forks: [Option<Fork>; 2],
    /// Where the last plan has them go, and the last that the relay took.
    planned: [Option<Fork>; 2],
    placed: [Option<Fork>; 2],
    /// Copies are to begin, and nobody was told that they have.
    due: bool,
    /// The record of the call is older than what is to be kept of it.
    unsaved: bool,
    session: Option<Session>,
    /// INVITEs that nobody wants any more, until they have their answers.
    leaving: Vec<Leaving>,
}

/// What a new control needs of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    state: State,
    wanted: bool,
    toward: Option<[SocketAddr; 2]>,
    ports: Option<[PortPair; 2]>,
    forks: [Option<Fork>; 2],
    session: Option<Session>,
}

impl Recording {
    /// Of a call that begins.
    pub fn new(settings: &Settings) -> Self {
        let wanted = settings.recording.as_ref().is_some_and(|recording| recording.all);
        Self { wanted, ..Self::default() }
    }

    /// What of it goes into the record: what is under way ends with the control that began it, and begins anew.
    pub fn kept(&self) -> Kept {
        let runs = self.state == State::Running;
        let state = if runs || self.state == State::Over { self.state } else { State::Off };
        let session = self.session.clone().filter(|_| runs);
        let ports = self.ports.filter(|_| runs);
        Kept { state, wanted: self.wanted, toward: self.toward, ports, forks: self.forks, session }
    }

    /// From a record, whose plan the relay has.
    pub fn restored(kept: Kept) -> Self {
        let Kept { state, wanted, toward, ports, forks, session } = kept;
        let session = session.map(Session::resumed);
        let (planned, placed) = (forks, forks);
        Self { state, wanted, toward, ports, forks, planned, placed, session, ..Self::default() }
    }

    /// Where copies of either direction go, the browser's first.
    pub const fn forks(&self) -> [Option<Fork>; 2] {
        self.forks
    }

    /// Whether media has to wait for the recorder.
    pub fn holds(&self, settings: &Settings) -> bool {
        let required = settings.recording.as_ref().is_some_and(|recording| recording.required);
        required && self.wanted && self.forks == [None; 2]
    }

    /// Whether copies are made.
    pub fn is_on(&self) -> bool {
        self.state == State::Running && !self.due
    }

    /// Whether nothing of it is to be waited for.
    pub fn is_quiet(&self) -> bool {
        self.leaving.is_empty()
    }

    /// Whether port pairs that came are for it.
    pub fn waits_for_ports(&self) -> bool {
        self.state == State::Ports
    }

    /// A plan goes out with these copies, and with what is to be kept.
    pub fn planned(&mut self, forks: [Option<Fork>; 2]) {
        (self.planned, self.unsaved) = (forks, false);
    }
}

impl Call {
    /// Whether somebody may ask for a recording now.
    ///
    /// # Errors
    /// `false`: there is nobody whom it could be sent to; `true`: it is under way already, or the call is not.
    pub fn may_record(&self, wish: &Recorded) -> Result<(), bool> {
        match wish {
            Recorded::Stop => Ok(()),
            Recorded::Server if self.settings.recording.is_none() => Err(false),
            _ => {
                let idle = matches!(self.recording.state, State::Off | State::Over) && !self.recording.wanted;
                let over = self.recording.state == State::Over;
                let goes_on = self.inside.answered && self.cause.is_none();
                if (idle || over) && goes_on { Ok(()) } else { Err(true) }
            }
        }
    }

    /// Somebody wants a recording, or wants it to end.
    pub(super) fn asked_to_record(&mut self, wish: Recorded, now: Instant) {
        if self.may_record(&wish).is_err() || self.cause.is_some() {
            return;
        }
        self.recording.unsaved = true;
        match wish {
            Recorded::Stop => {
                self.recording.wanted = false;
                self.recording_over(false, now);
            }
            Recorded::Server => {
                (self.recording.state, self.recording.wanted) = (State::Off, true);
            }
            Recorded::To(addresses) => {
                (self.recording.state, self.recording.toward) = (State::Off, Some(addresses));
            }
        }
    }

    /// Begins what is wanted once there is something to record, tells the recorder what has changed, and has the relay keep what
    /// a new control needs: whom asked for what, where copies go, how far the dialog is.
    pub(super) fn see_to_recording(&mut self, now: Instant) {
        if self.cause.is_some() || self.relayed.away {
            return;
        }
        match self.recording.state {
            State::Off => self.begin_recording(now),
            State::Running => self.tell_recorder(),
            State::Ports | State::Inviting | State::Over => {}
        }
        if std::mem::take(&mut self.recording.unsaved) {
            self.replan(now);
        }
    }

    /// A new control goes on with it: what was under way begins anew.
    pub(super) fn recording_resumes(&mut self, now: Instant) {
        // The plan with the copies went out before this could be told.
        let on = CallEvent::Recording { on: true, failed: false };
        if self.cause.is_none() && self.recording.is_on() && !self.past.contains(&on) {
            self.past.push(on);
        }
        self.recorder_resumes(now);
        self.see_to_recording(now);
    }

    /// What has to do with time.
    pub(super) fn recording_time(&mut self, now: Instant) {
        if passed(&mut self.deadlines.recording, now) || passed(&mut self.deadlines.recorder_ack, now) {
            self.recording_over(true, now);
        }
        if passed(&mut self.deadlines.recorder_alive, now) {
            self.ask_recorder(now);
        }
        // Behind it the recorder is told what it has not heard yet.
        let _ = passed(&mut self.deadlines.recorder_glare, now);
        self.see_to_recording(now);
    }

    fn begin_recording(&mut self, now: Instant) {
        let invites = self.recording.wanted && self.settings.recording.is_some();
        let wanted = self.recording.toward.is_some() || invites;
        let ready = self.inside.answered && self.adding.is_none();
        let Some(own) = self.inside.offer.as_ref().filter(|_| wanted && ready) else { return };
        self.deadlines.recording = Some(now + PATIENCE);
        let server = self.settings.recording.as_ref().and_then(|recording| recording.family);
        let toward = self.recording.toward.map(|[one, _]| one.ip()).or(server).unwrap_or(own.rtp.ip());
        let recording = &mut self.recording;
        let fits = |[one, _]: &[PortPair; 2]| one.rtp.is_ipv4() == toward.is_ipv4();
        if recording.ports.as_ref().is_some_and(|ports| !fits(ports)) {
            std::mem::swap(&mut recording.ports, &mut recording.spare);
        }
        if recording.ports.is_some() {
            return self.recording_has_ports();
        }
        self.recording.state = State::Ports;
        self.commands.push_back(Command::Reserve { toward, pairs: PAIRS });
    }

    /// Port pairs for the copies.
    pub(super) fn reserved_for_recording(&mut self, ports: &[PortPair], now: Instant) {
        let [one, other] = ports else { return self.recording_over(true, now) };
        self.recording.ports = Some([*one, *other]);
        self.recording_has_ports();
    }

    fn recording_has_ports(&mut self) {
        let Some(ports) = self.recording.ports else { return };
        let Some(addresses) = self.recording.toward else {
            self.recording.state = State::Inviting;
            return self.invite_recorder(&ports);
        };
        let rtcp = |address: SocketAddr| {
            let port = address.port().checked_add(1)?;
            Some(SocketAddr::new(address.ip(), port))
        };
        let mut forks = [None; 2];
        for ((fork, pair), address) in forks.iter_mut().zip(&ports).zip(addresses) {
            *fork = rtcp(address).map(|rtcp| description::to(pair, address, rtcp));
        }
        self.copy_to(forks);
    }

    /// Copies go there from now on: the relay is told when all is said that this comes of.
    fn copy_to(&mut self, forks: [Option<Fork>; 2]) {
        self.deadlines.recording = None;
        let recording = &mut self.recording;
        recording.due |= recording.state != State::Running;
        (recording.state, recording.forks, recording.unsaved) = (State::Running, forks, true);
    }

    /// The relay has this version of the plan: if it is the first one with the copies, the call is recorded by now.
    pub(super) fn recording_installed(&mut self, version: u32) {
        if version != self.relayed.sent {
            return;
        }
        self.recording.placed = self.recording.planned;
        if self.recording.due && self.recording.placed != [None; 2] {
            self.recording.due = false;
            self.notify(CallEvent::Recording { on: true, failed: false });
        }
    }

    /// Whether a plan that was refused has other copies than the one that runs: then it is the copies that are refused, and the
    /// call goes on without, or ends as one that nobody records.
    pub(super) fn recording_refused(&mut self, now: Instant) -> bool {
        let Recording { planned, placed, .. } = self.recording;
        let blamed = planned != placed && planned != [None; 2];
        if blamed {
            self.recording_over(true, now);
        }
        blamed
    }

    /// The call ends, and its recording with it.
    pub(super) fn recording_ends_with_call(&mut self) {
        if self.recording.is_on() {
            self.notify(CallEvent::Recording { on: false, failed: false });
        }
        self.recording.state = State::Over;
        self.leave_recorder();
    }

    /// It ends, or comes to nothing; the recorder hears of it unless it said so itself.
    pub(super) fn recording_over(&mut self, failed: bool, now: Instant) {
        let on = self.recording.is_on();
        self.leave_recorder();
        let recording = &mut self.recording;
        (recording.state, recording.toward, recording.due) = (State::Over, None, false);
        (recording.forks, recording.unsaved) = ([None; 2], true);
        self.deadlines.recording = None;
        if on || failed {
            self.notify(CallEvent::Recording { on: false, failed });
        }
        let required = self.settings.recording.as_ref().is_some_and(|recording| recording.required);
        if required && self.recording.wanted {
            self.end(EndCause::NotRecorded, now);
        }
    }

    /// The relay is away: ports that no plan names are lost with it, and what waits for them begins anew.
    pub(super) fn recording_loses_relay(&mut self) {
        self.recording.spare = None;
        if self.recording.state != State::Running {
            self.recording.ports = None;
        }
        if matches!(self.recording.state, State::Ports | State::Inviting) {
            self.leave_recorder();
            self.recording.state = State::Off;
            self.deadlines.recording = None;
        }
    }

    /// Whether a transaction is one with the recorder.
    fn is_recorders(&self, transaction: TransactionId) -> bool {
        let session = self.recording.session.as_ref();
        session.is_some_and(|session| session.is_of(transaction))
            || self.recording.leaving.iter().any(|leaving| leaving.is_of(transaction))
    }
}
