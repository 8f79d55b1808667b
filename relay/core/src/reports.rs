//! What reports tell, and reports of our own (RFC 3550 sections 6.2 and 6.4).
//!
//! Where the sender of a direction's packets reports, its reports go on in the words of the other leg ([`crate::rtcp`]).
//! Where it is silent, as plain SIP peers often are, the direction reports itself: what it sent, and how the stream that runs
//! the other way arrived. On both ways round trips are told by the times at which reports left.

use sallyport_plan::Told;
use sallyport_wire::rtcp::{self, REPORT_BLOCK, RR, SR};

use crate::Now;
use crate::quality::{Quality, Reception};
use crate::rtcp::{SDES, describe, put, word};

/// The interval of a session of two (RFC 3550 section 6.2), microseconds, and what it is divided by because timers are
/// reconsidered (section 6.3.1).
const INTERVAL: u64 = 5_000_000;
const COMPENSATION: (u64, u64) = (1_218_280, 1_000_000);
/// The first report of ours is due behind the last moment at which the first one of a peer that reports at all can be
/// (half an interval, at most one and a half times as long).
const FIRST: (u64, u64) = (3_200_000, 5_000_000);
/// A peer that has not reported for so long is silent: two and a half intervals, microseconds.
const SILENT: u64 = 12_500_000;
/// Who sent no packet for so long is no sender: two intervals, microseconds.
const SENDING: u64 = 10_000_000;
/// Reports that answers can be about.
const SENT: usize = 2;

/// Octets that a report of ours has at the most: a sender report with one block, a source description, a goodbye.
pub const REPORT_MAX: usize = 28 + REPORT_BLOCK + SDES + 8;

/// When the first report of a new direction is due; `part`: where in the span, 65536ths.
pub fn first(now: Now, part: u16) -> Now {
    now.plus(FIRST.0 + (FIRST.1 - FIRST.0) * u64::from(part) / 65_536)
}

/// When the next one is due: half to one and a half intervals from now, compensated.
pub fn next(now: Now, part: u16) -> Now {
    let interval = INTERVAL / 2 + INTERVAL * u64::from(part) / 65_536;
    now.plus(interval * COMPENSATION.1 / COMPENSATION.0)
}

/// A report block as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    fraction: u8,
    lost: i32,
    jitter: u32,
    last_report: u32,
    delay: u32,
}

/// What a compound tells us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// The middle of the NTP timestamp of its sender report.
    sender: Option<u32>,
    /// What it says of our own stream.
    block: Option<Block>,
}

impl Heard {
    /// Whether it reports on our own stream.
    pub const fn is_about_ours(&self) -> bool {
        self.block.is_some()
    }
}

/// Reads a compound whose lengths are right; `ssrc`: of the stream of ours that its sender receives.
pub fn hear(bytes: &[u8], ssrc: Option<u32>) -> Heard {
    let mut heard = Heard::default();
    for packet in rtcp::compound(bytes).map_while(Result::ok) {
        let start = packet.range.start;
        let fixed = match packet.packet_type {
            SR => 28,
            RR => 8,
            _ => continue,
        };
        if packet.packet_type == SR {
            heard.sender = Some(word(bytes, start + 10));
        }
        let blocks = (0..usize::from(packet.count)).map(|at| start + fixed + at * REPORT_BLOCK);
        for at in blocks.filter(|at| Some(word(bytes, *at)) == ssrc) {
            heard.block = Some(Block {
                fraction: (word(bytes, at + 4) >> 24) as u8,
                lost: lost(bytes, at),
                jitter: word(bytes, at + 12),
                last_report: word(bytes, at + 16),
                delay: word(bytes, at + 20),
            });
        }
    }
    heard
}

/// Packets lost as a block says: 24 bits, signed.
pub fn lost(bytes: &[u8], block: usize) -> i32 {
    (word(bytes, block + 4) << 8).cast_signed() >> 8
}

/// Puts it there.
pub fn put_lost(bytes: &mut [u8], block: usize, lost: i32) {
    let fraction = word(bytes, block + 4) & 0xff00_0000;
    let lost = lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0x00ff_ffff;
    put(bytes, block + 4, fraction | lost);
}

/// A sender report that left on a direction.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// The middle of its NTP timestamp.
    name: u32,
    at: Now,
    /// Whether it is one of the sender's, whom an answer is for as well.
    theirs: bool,
}

/// What one direction keeps of reports.
#[derive(Debug, Default)]
pub struct Reports {
    /// When its sender last reported.
    heard: Option<Now>,
    /// The last sender report of its sender.
    sender: Option<(u32, Now)>,
    /// The last sender reports that left.
    sent: [Option<Sent>; SENT],
    /// Round trip to its sender, microseconds.
    round_trip: Option<u32>,
    /// What its receiver told last.
    told: Option<Block>,
    /// The source that its receiver's losses are told to, and what was lost before that one's time.
    base: Option<(u32, i32)>,
    /// Source, packets expected and received at the last block of ours.
    prior: (u32, u32, u32),
}

impl Reports {
    /// Its sender reported at `now`, and the report has left; `reverse`: of the direction that runs the other way, and the
    /// source of that one's packets.
    pub fn note(&mut self, heard: &Heard, reverse: Option<(&mut Self, Option<u32>)>, now: Now) {
        self.heard = Some(now);
        if let Some(name) = heard.sender {
            self.sender = Some((name, now));
            self.sends(Sent { name, at: now, theirs: true });
        }
        let (Some(block), Some((reverse, source))) = (heard.block, reverse) else { return };
        if let Some(sent) = reverse.answered(block.last_report) {
            let delay = u64::from(block.delay) * 1_000_000 / 65_536;
            self.round_trip = u32::try_from(now.since(sent.at).saturating_sub(delay)).ok();
        }
        if let Some(source) = source {
            reverse.base = Some((source, reverse.lost_before(source)));
        }
        reverse.told = Some(block);
    }

    fn sends(&mut self, sent: Sent) {
        self.sent.rotate_right(1);
        self.sent[0] = Some(sent);
    }

    fn answered(&self, last_report: u32) -> Option<Sent> {
        self.sent.iter().flatten().copied().find(|sent| sent.name == last_report)
    }

    /// Whether a report of the direction's sender bore this name when it left: an answer to it is for that sender.
    pub fn is_theirs(&self, last_report: u32) -> bool {
        self.answered(last_report).is_some_and(|sent| sent.theirs)
    }

    /// What the receiver had lost of other sources than this one.
    pub fn lost_before(&self, source: u32) -> i32 {
        match self.base {
            Some((base, lost)) if base == source => lost,
            _ => self.told.map_or(0, |told| told.lost),
        }
    }

    /// Whether the direction has to report itself.
    pub fn is_silent(&self, now: Now) -> bool {
        self.heard.is_none_or(|at| now.since(at) >= SILENT)
    }

    /// Round trip to the sender, microseconds.
    pub const fn round_trip(&self) -> Option<u32> {
        self.round_trip
    }

    /// What the receiver told last; `clock` in Hz.
    pub fn told(&self, clock: u32) -> Option<Told> {
        let Block { fraction, lost, jitter, .. } = self.told?;
        let jitter_us = u64::from(jitter) * 1_000_000 / u64::from(clock.max(1));
        Some(Told { fraction, lost, jitter_us: u32::try_from(jitter_us).unwrap_or(u32::MAX) })
    }

    /// The block about what arrived since the last one; `None` where nothing did.
    fn block(&mut self, quality: &Quality, now: Now) -> Option<[u8; REPORT_BLOCK]> {
        let Reception { ssrc, highest, expected, received, jitter } = quality.reception()?;
        let (_, expected_prior, received_prior) =
            if self.prior.0 == ssrc { self.prior } else { (ssrc, 0, 0) };
        let (due, came) = (expected.wrapping_sub(expected_prior), received.wrapping_sub(received_prior));
        if came == 0 {
            return None;
        }
        self.prior = (ssrc, expected, received);
        let missing = u64::from(due.saturating_sub(came)) << 8;
        let fraction = u8::try_from(missing / u64::from(due.max(1))).unwrap_or(u8::MAX);
        let mut block = [0; REPORT_BLOCK];
        put(&mut block, 0, ssrc);
        block[4] = fraction;
        put_lost(&mut block, 0, expected.wrapping_sub(received).cast_signed());
        put(&mut block, 8, highest);
        put(&mut block, 12, jitter);
        if let Some((name, at)) = self.sender {
            put(&mut block, 16, name);
            let delay = now.since(at).saturating_mul(65_536) / 1_000_000;
            put(&mut block, 20, u32::try_from(delay).unwrap_or(u32::MAX));
        }
        Some(block)
    }
}

/// What a sender report says of its own stream.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// NTP timestamp, 32 bits of seconds and 32 of their parts.
    pub ntp: u64,
    /// Timestamp of the stream at that moment.
    pub timestamp: u32,
    /// Packets and payload octets that left, as far as 32 bits go.
    pub packets: u32,
    /// See `packets`.
    pub octets: u32,
}

/// What a report of ours is made of.
pub struct Report<'a> {
    /// SSRC of the direction that it leaves on.
    pub own_ssrc: u32,
    /// Its stream, and when the last packet of it left.
    pub sender: Option<(Sender, Now)>,
    /// What came the other way.
    pub reverse: Option<(&'a mut Reports, &'a Quality)>,
    /// Whether it is the last one.
    pub goodbye: bool,
}

impl Reports {
    /// Writes a compound of our own: a sender report, or a receiver report where nothing was sent lately, a source
    /// description, perhaps a goodbye. Its length; `None` where there is nothing to tell.
    pub fn write(&mut self, report: Report<'_>, now: Now, room: &mut [u8; REPORT_MAX]) -> Option<usize> {
        let Report { own_ssrc, sender, reverse, goodbye } = report;
        let sender = sender.filter(|(_, at)| now.since(*at) < SENDING).map(|(sender, _)| sender);
        let block = reverse.and_then(|(reports, quality)| reports.block(quality, now));
        if sender.is_none() && block.is_none() && !goodbye {
            return None;
        }
        let count = u8::from(block.is_some());
        let fixed: usize = if sender.is_some() { 28 } else { 8 };
        let length = fixed + usize::from(count) * REPORT_BLOCK;
        room[..2].copy_from_slice(&[0x80 | count, if sender.is_some() { SR } else { RR }]);
        room[2..4].copy_from_slice(&words(length).to_be_bytes());
        put(room, 4, own_ssrc);
        if let Some(Sender { ntp, timestamp, packets, octets }) = sender {
            room[8..16].copy_from_slice(&ntp.to_be_bytes());
            [timestamp, packets, octets]
                .iter()
                .zip([16, 20, 24])
                .for_each(|(value, at)| put(room, at, *value));
            self.sends(Sent { name: word(room, 10), at: now, theirs: false });
        }
        if let Some(block) = block {
            room[fixed..length].copy_from_slice(&block);
        }
        describe(&mut room[length..length + SDES], own_ssrc);
        let end = length + SDES;
        if !goodbye {
            return Some(end);
        }
        room[end..end + 4].copy_from_slice(&[0x81, rtcp::BYE, 0, 1]);
        put(room, end + 4, own_ssrc);
        Some(end + 8)
    }
}

/// The length of a packet as its header has it.
pub fn words(octets: usize) -> u16 {
    u16::try_from(octets / 4 - 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_rfc() {
        assert_eq!((first(Now(0), 0), first(Now(0), u16::MAX).0 / 1000), (Now(3_200_000), 4999));
        let (least, most) = (next(Now(0), 0).0, next(Now(0), u16::MAX).0);
        assert_eq!((least / 1000, most / 1000), (2052, 6156));
    }

    #[test]
    fn losses_are_signed_numbers_of_24_bits() {
        let mut block = [0xff; REPORT_BLOCK];
        for value in [0, 1, -1, 0x7f_ffff, -0x80_0000] {
            put_lost(&mut block, 0, value);
            assert_eq!((lost(&block, 0), block[4]), (value, 0xff));
        }
        put_lost(&mut block, 0, 0x80_0000);
        assert_eq!(lost(&block, 0), 0x7f_ffff);
    }
}
