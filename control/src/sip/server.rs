//! Server transactions (RFC 3261 sections 17.2 and 13.3.1.4).

use std::time::{Duration, Instant};

use sallyport_proto::sip::{Method, Request};

use super::client::{Due, GIVE_UP, T1, T2};
use super::timers::Armed;
use super::transport::Target;

/// An INVITE that rings: longer than any call may.
const RINGING: Duration = Duration::from_secs(660);
/// Octets that a transaction takes beside its texts.
const OVERHEAD: usize = 768;

/// What repetitions of a request have in common (RFC 3261 section 17.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerKey {
    /// Its branch and who sent it, or what stands for them.
    pub branch: String,
    /// Where it came from.
    pub source: Target,
    /// Its method.
    pub method: Method,
}

/// What copies of a request have in common that came by different ways (RFC 3261 section 8.2.2.2): tag of From, Call-ID,
/// CSeq.
pub type Merge = (String, String, u32);

/// A request of somebody else, as much of it as its answers need, and our answer to it.
#[derive(Debug)]
pub struct Server {
    /// What its repetitions have in common.
    pub key: ServerKey,
    /// What its copies have in common; `None` within a dialog.
    pub merge: Option<Merge>,
    /// Its Call-ID.
    pub call_id: String,
    /// Its CSeq.
    pub cseq: u32,
    /// Its Via headers, top first, the topmost stamped with where it came from.
    pub vias: Vec<String>,
    /// Its Record-Route headers.
    pub record_route: Vec<String>,
    /// Our last answer.
    pub answer: Option<Vec<u8>>,
    /// Whether that is final.
    pub done: bool,
    /// For when its next deadline is set.
    pub armed: Armed,
    interval: Duration,
    resend: Option<Instant>,
    end: Instant,
}

impl Server {
    /// Came in now.
    pub fn new(
        request: &Request,
        key: ServerKey,
        merge: Option<Merge>,
        (vias, record_route): (Vec<String>, Vec<String>),
        now: Instant,
    ) -> Self {
        let end = now + if key.method == Method::Invite { RINGING } else { GIVE_UP };
        Self {
            key,
            merge,
            call_id: request.call_id.clone(),
            cseq: request.cseq,
            vias,
            record_route,
            answer: None,
            done: false,
            armed: Armed::default(),
            interval: T1,
            resend: None,
            end,
        }
    }

    /// Whether it is an INVITE.
    pub fn is_invite(&self) -> bool {
        self.key.method == Method::Invite
    }

    /// Octets that it takes, roughly.
    pub fn cost(&self) -> usize {
        let lists = self.vias.iter().chain(&self.record_route).map(String::len).sum::<usize>();
        let merge = self.merge.as_ref().map_or(0, |(tag, call_id, _)| tag.len() + call_id.len());
        let texts = 2 * self.key.branch.len() + 2 * self.call_id.len() + 2 * merge;
        OVERHEAD + texts + lists + self.answer.as_ref().map_or(0, Vec::len)
    }

    /// Answered now, but not finally.
    pub fn progressed(&mut self, octets: Vec<u8>) {
        self.answer = Some(octets);
    }

    /// Answered now, finally. To INVITE it is sent again until its ACK.
    pub fn answered(&mut self, octets: Vec<u8>, repeats: bool, now: Instant) {
        self.answer = Some(octets);
        self.done = true;
        self.resend = repeats.then(|| now + T1);
        self.interval = T1;
        self.end = now + GIVE_UP;
    }

    /// The ACK came.
    pub fn acknowledged(&mut self) {
        self.resend = None;
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Instant {
        self.resend.map_or(self.end, |at| at.min(self.end))
    }

    /// What is due.
    pub fn due(&mut self, now: Instant) -> Due {
        if self.end <= now {
            return Due::Forget;
        }
        if self.resend.is_none_or(|at| at > now) {
            return Due::Nothing;
        }
        self.interval = (self.interval * 2).min(T2);
        self.resend = Some(now + self.interval);
        Due::Resend
    }
}
