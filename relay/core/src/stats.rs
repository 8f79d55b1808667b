//! What a worker counts: every packet that it judges moves exactly one of its counters. Beside them
//! `continuity_broken` must stay 0 (packets whose SSRC, sequence or timestamp does not go on with what has left on their leg),
//! and `digit_lost` counts digits beyond what a peer may send to control, and those of control's that could not be sent.

use sallyport_plan::CallId;

use crate::packet::{Payload, Verdict};
use crate::reason::Reason;

/// One number a reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops([u64; Reason::ALL.len()]);

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    /// Names and numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Reason::ALL.iter().map(|reason| (reason.name(), self.0[*reason as usize]))
    }
}

/// Counters of one worker.
#[derive(Debug, Default)]
pub struct Stats {
    rtp: u64,
    rtcp: u64,
    replied: u64,
    consumed: u64,
    punted_call: u64,
    punted_unknown: u64,
    /// Reports of our own.
    pub reported: u64,
    /// Packets of digits of our own.
    pub dialled: u64,
    drops: Drops,
    broken: u64,
    event: u64,
    lost_digits: u64,
}

impl Stats {
    /// Takes note whether a packet goes on with what has left on its leg.
    pub fn continue_or_break(&mut self, follows: bool) {
        self.broken += u64::from(!follows);
    }

    /// Counts a digit that control is not told of, or that it wanted sent and was not.
    pub fn lose_digit(&mut self) {
        self.lost_digits += 1;
    }

    /// Counts a packet by what becomes of it.
    pub fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Forward(cleared) => match cleared.payload() {
                Payload::Rtp => self.rtp += 1,
                Payload::Rtcp => self.rtcp += 1,
            },
            Verdict::Reply(_) => self.replied += 1,
            Verdict::Consumed => self.consumed += 1,
            Verdict::Heard => self.event += 1,
            Verdict::Punt(Some(CallId(_))) => self.punted_call += 1,
            Verdict::Punt(None) => self.punted_unknown += 1,
            Verdict::Drop(reason) => self.drops.count(*reason),
        }
    }

    /// Names and numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let ways = [
            ("forward_rtp", self.rtp),
            ("forward_rtcp", self.rtcp),
            ("reply_stun", self.replied),
            ("consume_stun", self.consumed),
            ("consume_event", self.event),
            ("punt_call", self.punted_call),
            ("punt_unknown", self.punted_unknown),
            ("report_rtcp", self.reported),
            ("event_rtp", self.dialled),
            ("continuity_broken", self.broken),
            ("digit_lost", self.lost_digits),
        ];
        ways.into_iter().chain(self.drops.iter())
    }
}
