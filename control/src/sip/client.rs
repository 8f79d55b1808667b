//! Client transactions (RFC 3261 section 17.1, RFC 6026).

use std::time::{Duration, Instant};

use sallyport_plan::CallId;
use sallyport_proto::sip::{Method, TransactionId};

use super::transport::Target;

/// Round-trip estimate.
pub const T1: Duration = Duration::from_millis(500);
/// Longest interval of retransmissions.
pub const T2: Duration = Duration::from_secs(4);
/// Timers B, F, H: 64 times T1.
pub const GIVE_UP: Duration = Duration::from_secs(32);

/// A request of ours under way.
#[derive(Debug)]
pub struct Client {
    /// Whose; `None` for a CANCEL, whose answer is of no interest.
    pub owner: Option<(CallId, TransactionId)>,
    /// Its octets.
    pub octets: Vec<u8>,
    /// Where it went.
    pub target: Target,
    /// Its method.
    pub method: Method,
    /// ACK to a final answer other than 2xx.
    pub ack: Option<Vec<u8>>,
    /// A provisional answer came.
    pub proceeding: bool,
    /// A final answer came.
    pub done: bool,
    cancelled: bool,
    interval: Duration,
    resend: Option<Instant>,
    end: Option<Instant>,
}

/// What a moment in a transaction's life asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Send again.
    Resend,
    /// It got no final answer in time.
    Timeout,
    /// It can be forgotten.
    Forget,
}

impl Client {
    /// Sent now.
    pub fn new(
        owner: Option<(CallId, TransactionId)>,
        octets: Vec<u8>,
        target: Target,
        method: Method,
        now: Instant,
    ) -> Self {
        let resend = (!target.kind.is_reliable()).then(|| now + T1);
        Self {
            owner,
            octets,
            target,
            method,
            ack: None,
            proceeding: false,
            done: false,
            cancelled: false,
            interval: T1,
            resend,
            end: Some(now + GIVE_UP),
        }
    }

    /// A provisional answer: an INVITE is not sent again and may ring as long as the call lets it; others slow down.
    pub fn provisional(&mut self, now: Instant) {
        self.proceeding = true;
        if self.method == Method::Invite {
            self.resend = None;
            if !self.cancelled {
                self.end = None;
            }
        } else if self.resend.is_some() {
            self.interval = T2;
            self.resend = Some(now + T2);
        }
    }

    /// It is cancelled: its final answer is waited for no longer than this, be the server as silent as it may
    /// (RFC 3261 section 9.1).
    pub fn cancelled(&mut self, now: Instant) {
        if !self.done {
            self.cancelled = true;
            self.end.get_or_insert(now + GIVE_UP);
        }
    }

    /// A final answer: what is left is to absorb its repetitions.
    pub fn finish(&mut self, now: Instant) {
        self.done = true;
        self.resend = None;
        self.end = Some(now + GIVE_UP);
    }

    /// What is due.
    pub fn due(&mut self, now: Instant) -> Due {
        if self.end.is_some_and(|at| at <= now) {
            return if self.done { Due::Forget } else { Due::Timeout };
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
        Client::new(Some((CallId(1), TransactionId(1))), Vec::new(), target, Method::Invite, now)
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
}
