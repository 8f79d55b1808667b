//! Client transactions (RFC 3261 section 17.1, RFC 6026).

use std::time::{Duration, Instant};

use sallyport_plan::CallId;
use sallyport_proto::sip::{Method, Request, TransactionId};

use super::peers::PROBE_PATIENCE;
use super::timers::Armed;
use super::transport::Target;

/// Round-trip estimate.
pub const T1: Duration = Duration::from_millis(500);
/// Longest interval of retransmissions.
pub const T2: Duration = Duration::from_secs(4);
/// Timers B, F, H: 64 times T1.
pub const GIVE_UP: Duration = Duration::from_secs(32);
/// A request that may go to another peer does so after this without any answer.
const MOVE: Duration = Duration::from_millis(1500);
/// Where there was no other, it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Whose a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A call's, under its number.
    Call(CallId, TransactionId),
    /// A question whether a peer is alive.
    Probe,
    /// A CANCEL, whose answer is of no interest.
    Nobody,
}

/// A request that may go from peer to peer (RFC 3263 section 4.3).
#[derive(Debug)]
pub struct Journey {
    /// The request.
    pub request: Request,
    /// Where it was sent so far.
    pub tried: Vec<Target>,
}

/// A request of ours under way.
#[derive(Debug)]
pub struct Client {
    /// Whose.
    pub owner: Owner,
    /// Its branch.
    pub branch: String,
    /// Its octets.
    pub octets: Vec<u8>,
    /// Where it went.
    pub target: Target,
    /// Its method.
    pub method: Method,
    /// ACK to a final answer other than 2xx.
    pub ack: Option<Vec<u8>>,
    /// A final answer came.
    pub done: bool,
    /// A provisional answer to an INVITE came: whoever sent it holds the way of all that follow.
    pub rang: bool,
    /// Where else it may go.
    pub journey: Option<Box<Journey>>,
    /// When it was sent first.
    pub sent: Instant,
    /// For when its next deadline is set.
    pub armed: Armed,
    cancelled: bool,
    interval: Duration,
    resend: Option<Instant>,
    end: Option<Instant>,
    moves: Option<Instant>,
}

/// What a moment in a transaction's life asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Send again.
    Resend,
    /// It may go to another peer, where there is one.
    Move,
    /// It got no final answer in time.
    Timeout,
    /// It can be forgotten.
    Forget,
}

impl Client {
    /// Sent now.
    pub fn new(
        owner: Owner,
        branch: String,
        octets: Vec<u8>,
        target: Target,
        method: Method,
        now: Instant,
    ) -> Self {
        let resend = (!target.kind.is_reliable()).then(|| now + T1);
        let patience = if owner == Owner::Probe { PROBE_PATIENCE } else { GIVE_UP };
        Self {
            owner,
            branch,
            octets,
            target,
            method,
            ack: None,
            done: false,
            rang: false,
            journey: None,
            sent: now,
            armed: Armed::default(),
            cancelled: false,
            interval: T1,
            resend,
            end: Some(now + patience),
            moves: None,
        }
    }

    /// It may go to other peers as well.
    pub fn may_move(&mut self, journey: Option<Box<Journey>>) {
        self.moves = journey.is_some().then(|| self.sent + MOVE);
        self.journey = journey;
    }

    /// A provisional answer: an INVITE is not sent again and may ring as long as the call lets it; others slow down.
    pub fn provisional(&mut self, now: Instant) {
        self.moves = None;
        if self.method == Method::Invite {
            self.rang = true;
            self.resend = None;
            if !self.cancelled {
                self.end = None;
            }
        } else if self.resend.is_some() {
            self.interval = T2;
            self.resend = Some(now + T2);
        }
    }

    /// Whoever was to bring its answer is gone: soon it is looked whether another is there.
    pub fn doubt(&mut self, now: Instant) {
        if !self.done {
            self.moves = Some(now);
        }
    }

    /// It is not in doubt any more.
    pub fn trust(&mut self) {
        self.moves = None;
    }

    /// It could not be sent; it is sent again until its time is over, whatever the transport.
    pub fn persist(&mut self, now: Instant) {
        self.resend = Some(now + T2);
        self.moves = self.journey.is_some().then(|| now + LOOK_AGAIN);
    }

    /// It is cancelled: it goes nowhere else, and its final answer is waited for no longer than this, be the server as
    /// silent as it may (RFC 3261 section 9.1).
    pub fn cancelled(&mut self, now: Instant) {
        if !self.done {
            self.cancelled = true;
            self.may_move(None);
            self.end.get_or_insert(now + GIVE_UP);
        }
    }

    /// A final answer: what is left is to absorb its repetitions.
    pub fn finish(&mut self, now: Instant) {
        self.done = true;
        self.resend = None;
        self.may_move(None);
        self.end = Some(now + GIVE_UP);
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.end, self.resend, self.moves].into_iter().flatten().min()
    }

    /// What is due.
    pub fn due(&mut self, now: Instant) -> Due {
        if self.end.is_some_and(|at| at <= now) {
            return if self.done { Due::Forget } else { Due::Timeout };
        }
        if self.moves.is_some_and(|at| at <= now) {
            self.moves = Some(now + LOOK_AGAIN);
            return Due::Move;
        }
        if self.resend.is_none_or(|at| at > now) {
            return Due::Nothing;
        }
        self.interval *= 2;
        if self.method != Method::Invite {
            self.interval = self.interval.min(T2);
        }
        self.resend = Some(now + self.interval);
        Due::Resend
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transport;

    fn invite(now: Instant) -> Client {
        let target = Target::new("10.0.0.5:5060".parse().unwrap(), Transport::Udp);
        Client::new(
            Owner::Call(CallId(1), TransactionId(1)),
            String::new(),
            Vec::new(),
            target,
            Method::Invite,
            now,
        )
    }

    #[test]
    fn a_ringing_invite_waits_until_it_is_cancelled_and_then_64_times_t1() {
        let now = Instant::now();
        let mut client = invite(now);
        client.provisional(now);
        assert_eq!(client.due(now + GIVE_UP * 10), Due::Nothing);
        let cancelled = now + GIVE_UP * 10;
        client.cancelled(cancelled);
        assert_eq!(client.due(cancelled + GIVE_UP - T1), Due::Nothing);
        // Another 18x changes nothing.
        client.provisional(cancelled + T1);
        assert_eq!(client.due(cancelled + GIVE_UP), Due::Timeout);
    }

    #[test]
    fn an_answered_one_is_forgotten_in_time() {
        let now = Instant::now();
        let mut client = invite(now);
        client.provisional(now);
        client.finish(now);
        client.cancelled(now + T1);
        assert_eq!(client.due(now + GIVE_UP), Due::Forget);
    }

    #[test]
    fn one_without_an_answer_may_move_until_somebody_says_something() {
        let now = Instant::now();
        let mut client = invite(now);
        let request = Request {
            method: Method::Invite,
            uri: String::new(),
            from: String::new(),
            to: String::new(),
            call_id: String::new(),
            cseq: 1,
            route: Vec::new(),
            record_route: Vec::new(),
            contact: None,
            content_type: None,
            headers: Vec::new(),
            body: Vec::new(),
        };
        client.may_move(Some(Box::new(Journey { request, tried: Vec::new() })));
        assert_eq!(client.due(now + T1), Due::Resend);
        assert_eq!(client.due(now + MOVE), Due::Move);
        assert_eq!(client.due(now + MOVE), Due::Resend, "what else is due is not forgotten");
        assert_eq!(client.due(now + MOVE + LOOK_AGAIN), Due::Move);
        client.provisional(now + MOVE + LOOK_AGAIN);
        assert_eq!(client.poll_timeout(), None);
    }
}
