//! What a worker counts: every packet that it judges moves exactly one of its counters. Beside them
//! `continuity_broken` must stay 0 (packets whose SSRC, sequence or timestamp does not go on with what has left on their leg),
//! `digit_lost` counts digits beyond what a peer may send to control, and those of control's that could not be sent,
//! and `extension_malformed` packets that went on without their header extensions. Of packets that a NACK asks for,
//! `nack_answered` were sent again from here, `nack_limited` were not because they just had been or too much was,
//! `nack_declined` because they were gone or nothing could leave when their turn came, `nack_forwarded` were asked of the
//! sender. Of packets that are missing here `nack_asked` were asked of their sender, `nack_given_up` never came;
//! `rtx_recovered` were lost and came by retransmission. `sources_learned` are ports of peers that were not signalled. Of copies, `forked` were made, and for `fork_overflow` there was no
//! room.

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
    answers: u64,
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
    malformed_extensions: u64,
    /// Packets of transport-wide feedback of our own.
    pub fed_back: u64,
    /// Packets that were sent again.
    pub answered: u64,
    /// Packets that were asked for too often.
    pub limited: u64,
    /// Packets that were to be sent again, and were gone or could not leave when their turn came.
    pub declined: u64,
    /// Packets that their sender was asked for.
    pub forwarded: u64,
    /// Packets that their sender was asked for because they are missing here.
    pub asked: u64,
    /// Packets that did not come, however often they were asked for.
    pub given_up: u64,
    /// Packets that came by retransmission.
    pub recovered: u64,
    /// Sources that were taken for the peer's though their port was not signalled.
    pub latched: u64,
    forked: u64,
    fork_overflow: u64,
}

impl Stats {
    /// Takes note whether a packet goes on with what has left on its leg.
    pub fn continue_or_break(&mut self, follows: bool) {
        self.broken += u64::from(!follows);
    }

    /// Counts a packet whose header extensions made no sense.
    pub fn note_extensions(&mut self, sound: bool) {
        self.malformed_extensions += u64::from(!sound);
    }

    /// Counts a digit that control is not told of, or that it wanted sent and was not.
    pub fn lose_digit(&mut self) {
        self.lost_digits += 1;
    }

    /// Counts a copy, or one that there was no room for.
    pub fn fork(&mut self, taken: bool) {
        self.forked += u64::from(taken);
        self.fork_overflow += u64::from(!taken);
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
            Verdict::Answered => self.answers += 1,
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
            ("consume_rtcp", self.answers),
            ("punt_call", self.punted_call),
            ("punt_unknown", self.punted_unknown),
            ("report_rtcp", self.reported),
            ("event_rtp", self.dialled),
            ("feedback_rtcp", self.fed_back),
            ("continuity_broken", self.broken),
            ("digit_lost", self.lost_digits),
            ("extension_malformed", self.malformed_extensions),
            ("nack_answered", self.answered),
            ("nack_limited", self.limited),
            ("nack_declined", self.declined),
            ("nack_forwarded", self.forwarded),
            ("nack_asked", self.asked),
            ("nack_given_up", self.given_up),
            ("rtx_recovered", self.recovered),
            ("sources_learned", self.latched),
            ("forked", self.forked),
            ("fork_overflow", self.fork_overflow),
        ];
        ways.into_iter().chain(self.drops.iter())
    }
}
