//! Server transactions (RFC 3261 sections 17.2 and 13.3.1.4).

use std::time::{Duration, Instant};

use sallyport_proto::sip::{Method, Request};

use super::client::{Due, GIVE_UP, T1, T2};
use super::transport::Target;

/// An INVITE that rings: longer than any call may.
const RINGING: Duration = Duration::from_secs(660);
/// Octets that a transaction takes beside its texts.
const OVERHEAD: usize = 512;

/// A request of somebody else, as much of it as its answers need, and our answer to it.
#[derive(Debug)]
pub struct Server {
    /// Whether it is an INVITE.
    pub invite: bool,
    /// Its Call-ID.
    pub call_id: String,
    /// Its CSeq.
    pub cseq: u32,
    /// Its Via headers, top first, the topmost stamped with where it came from.
    pub vias: Vec<String>,
    /// Its Record-Route headers.
    pub record_route: Vec<String>,
    /// Where it came from.
    pub source: Target,
    /// Our last answer.
    pub answer: Option<Vec<u8>>,
    /// Whether that is final.
    pub done: bool,
    interval: Duration,
    resend: Option<Instant>,
    end: Instant,
}

impl Server {
    /// Came in now.
    pub fn new(
        request: &Request,
        vias: Vec<String>,
        record_route: Vec<String>,
        source: Target,
        now: Instant,
    ) -> Self {
        let (invite, call_id) = (request.method == Method::Invite, request.call_id.clone());
        let (interval, resend, end) = (T1, None, now + if invite { RINGING } else { GIVE_UP });
        let cseq = request.cseq;
        Self {
            invite,
            call_id,
            cseq,
            vias,
            record_route,
            source,
            answer: None,
            done: false,
            interval,
            resend,
            end,
        }
    }

    /// Octets that it takes, roughly.
    pub fn cost(&self) -> usize {
        let lists = self.vias.iter().chain(&self.record_route).map(String::len).sum::<usize>();
        OVERHEAD + 2 * self.call_id.len() + lists + self.answer.as_ref().map_or(0, Vec::len)
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
