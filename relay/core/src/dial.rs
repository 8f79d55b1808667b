//! Digits that a direction sends by itself (RFC 4733): control asks for them, and no packet of the peer has to come for them
//! to leave. What the peer sends meanwhile is held.

use std::cmp::Reverse;
use std::collections::VecDeque;

use sallyport_plan::{CallId, DirectionIndex, FlowKey};
use sallyport_srtp::RTP_OVERHEAD;

use crate::Now;
use crate::event::{DIGITS, Digit};
use crate::table::Tag;
use crate::translator::Translator;

/// Digits of one direction that wait.
const WAITING: usize = 64;
/// Microseconds from one packet of an event to the next, its repeated ends among them (RFC 4733 section 2.5.1.2).
const STEP: u64 = 20_000;
/// How often the end of an event is said (RFC 4733 section 2.5.1.4).
const ENDS: u8 = 3;
/// Microseconds between two digits, as browsers' own senders leave them (RTCDTMFSender, W3C WebRTC section 7.2).
const PAUSE: u64 = 70_000;
/// Milliseconds that a digit lasts: the shortest that ITU-T Q.24 has recognized, and what one packet can say on any clock.
const LASTS: std::ops::RangeInclusive<u16> = 40..=6000;
/// The power of the tone, -10 dBm0.
const VOLUME: u8 = 10;
const END: u8 = 0x80;
/// Directions that are looked after at once: packets wait meanwhile.
const DIALS: usize = 32;

/// Octets of its payload.
pub const BLOCK: u64 = 4;
/// Octets of an event packet.
const LENGTH: usize = 16;
/// The same with what sealing adds.
pub const EVENT_ROOM: usize = LENGTH + RTP_OVERHEAD;

/// A packet of digits that leaves.
#[derive(Debug)]
pub struct Dialled {
    /// Where it goes.
    pub to: FlowKey,
    /// How long it is.
    pub length: usize,
    /// Whether it goes on with what has left.
    pub follows: bool,
    /// Where a copy of it goes, and what that says.
    pub copy: Option<(FlowKey, [u8; LENGTH])>,
}

/// What the next packet of an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its timestamp, once it has begun to leave.
    pub timestamp: Option<u32>,
    /// Which digit.
    pub event: u8,
    /// Whether it is over.
    pub end: bool,
    /// Milliseconds so far.
    pub lasted: u16,
}

/// The digit that is being sent.
#[derive(Debug, Clone, Copy)]
struct Tone {
    digit: Digit,
    began: Now,
    timestamp: Option<u32>,
    ends: u8,
}

/// Digits of one direction.
#[derive(Debug, Default)]
pub struct Dial {
    waiting: VecDeque<Digit>,
    tone: Option<Tone>,
    /// When the next packet, or the next digit, is due; `None` where nothing is left to send.
    due: Option<Now>,
}

impl Dial {
    /// Takes on a digit; `false` where it is none, or one too many.
    fn add(&mut self, digit: Digit) -> bool {
        let fits = digit.event <= DIGITS && self.waiting.len() < WAITING;
        if fits {
            let duration = digit.duration.clamp(*LASTS.start(), *LASTS.end());
            self.waiting.push_back(Digit { duration, ..digit });
        }
        fits
    }

    /// When it has something to send.
    pub fn due(&self) -> Option<Now> {
        self.due
    }

    /// Whether a digit is being sent.
    pub fn is_sounding(&self) -> bool {
        self.tone.is_some()
    }

    /// Forgets what it was to send; how many digits that is.
    pub fn clear(&mut self) -> usize {
        let lost = self.waiting.len() + usize::from(self.tone.is_some());
        *self = Self::default();
        lost
    }

    /// What is due now: a packet's worth, or nothing where a pause has ended with nothing behind it.
    pub fn step(&mut self, now: Now) -> Option<Block> {
        let Some(tone) = self.tone.or_else(|| self.begin(now)) else {
            self.due = None;
            return None;
        };
        // A late timer stretches no digit: what it says is how long it has lasted, and it is told at once that it is over.
        let passed = u16::try_from((now.since(tone.began) + STEP) / 1000).unwrap_or(u16::MAX);
        let lasted = passed.min(tone.digit.duration);
        let end = lasted == tone.digit.duration && tone.timestamp.is_some();
        let ends = tone.ends + u8::from(end);
        let over = ends == ENDS;
        self.tone = Some(Tone { ends, ..tone }).filter(|_| !over);
        self.due = Some(now.plus(if over { PAUSE - (u64::from(ENDS) - 1) * STEP } else { STEP }));
        Some(Block { timestamp: tone.timestamp, event: tone.digit.event, end, lasted })
    }

    fn begin(&mut self, now: Now) -> Option<Tone> {
        let digit = self.waiting.pop_front()?;
        self.tone = Some(Tone { digit, began: now, timestamp: None, ends: 0 });
        self.tone
    }

    /// The event has begun to leave, with this timestamp.
    pub fn began(&mut self, timestamp: u32) {
        if let Some(tone) = &mut self.tone {
            tone.timestamp = Some(timestamp);
        }
    }
}

/// An event packet, to be sealed: payload type, sequence number, timestamp, SSRC; `clock` in Hz, that of the durations.
pub fn packet(
    block: &Block,
    payload_type: u8,
    (sequence, timestamp, ssrc): (u16, u32, u32),
    clock: u32,
) -> [u8; LENGTH] {
    let marker = if block.timestamp.is_none() { 0x80 } else { 0 };
    let duration = u64::from(block.lasted) * u64::from(clock) / 1000;
    let mut packet = [0; LENGTH];
    packet[..2].copy_from_slice(&[0x80, marker | payload_type]);
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
    packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
    packet[12..14].copy_from_slice(&[block.event, VOLUME | if block.end { END } else { 0 }]);
    packet[14..].copy_from_slice(&u16::try_from(duration).unwrap_or(u16::MAX).to_be_bytes());
    packet
}

impl Translator {
    /// Has a direction send digits as named events, one behind the other, behind those that it was asked for before. What
    /// cannot be sent is counted.
    pub fn dial(&mut self, call: CallId, direction: DirectionIndex, digits: &[Digit], now: Now) {
        let Some(slot) = self.slot_of(call, direction) else {
            digits.iter().for_each(|_| self.stats.lose_digit());
            return;
        };
        let Some(direction) = self.table.at_mut(slot) else { return };
        let dial = direction.cold.dial.get_or_insert_default();
        for digit in digits {
            if !dial.add(*digit) {
                self.stats.lose_digit();
            }
        }
        if dial.due.is_none() && !dial.waiting.is_empty() {
            dial.due = Some(now);
            if let Some(tag) = self.table.tag(slot) {
                self.dials_due.push(Reverse((now, tag.direction, tag.epoch)));
            }
        }
    }

    /// When [`Translator::handle_dials`] wants to be called; `None` where no digit is to be sent.
    pub fn poll_dial(&self) -> Option<Now> {
        self.dials_due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Sends packets of digits that are due through `send`, a few at once.
    pub fn handle_dials(&mut self, now: Now, send: &mut dyn FnMut(&FlowKey, &[u8])) {
        for _ in 0..DIALS {
            let Some(Reverse((at, direction, epoch))) = self.dials_due.peek().copied() else { return };
            if at > now {
                return;
            }
            self.dials_due.pop();
            // One that is gone sends no more.
            let Some(slot) = self.table.owned(Tag { direction, epoch }) else { continue };
            let Some(direction_of) = self.table.at_mut(slot) else { continue };
            let mut room = [0; EVENT_ROOM];
            match direction_of.dial(now, &mut room) {
                Ok(Some(Dialled { to, length, follows, copy })) => {
                    if let Some((to, packet)) = copy {
                        self.stats.fork(self.copies.push(to, &packet));
                    }
                    self.stats.dialled += 1;
                    self.stats.continue_or_break(follows);
                    send(&to, room.get(..length).unwrap_or_default());
                }
                Ok(None) => {}
                Err(lost) => (0..lost).for_each(|_| self.stats.lose_digit()),
            }
            if let Some(due) = direction_of.cold.dial.as_ref().and_then(|dial| dial.due()) {
                self.dials_due.push(Reverse((due, direction, epoch)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn digit(event: u8, duration: u16) -> Digit {
        Digit { event, duration }
    }

    /// Every packet with the millisecond at which it is due.
    fn play(dial: &mut Dial) -> Vec<(u64, Block)> {
        let mut sent = Vec::new();
        let mut now = Now(0);
        dial.due = Some(now);
        while let Some(due) = dial.due() {
            now = due;
            if let Some(block) = dial.step(now) {
                if block.timestamp.is_none() {
                    dial.began(u32::try_from(now.0 / 125).unwrap());
                }
                sent.push((now.0 / 1000, block));
            }
        }
        sent
    }

    #[test]
    fn a_digit_has_a_beginning_and_three_ends() {
        let mut dial = Dial::default();
        assert!(dial.add(digit(5, 100)) && dial.add(digit(11, 40)));
        let sent: Vec<_> = play(&mut dial)
            .into_iter()
            .map(|(ms, block)| (ms, block.event, block.timestamp, block.lasted, block.end))
            .collect();
        assert_eq!(
            sent,
            [
                (0, 5, None, 20, false),
                (20, 5, Some(0), 40, false),
                (40, 5, Some(0), 60, false),
                (60, 5, Some(0), 80, false),
                (80, 5, Some(0), 100, true),
                (100, 5, Some(0), 100, true),
                (120, 5, Some(0), 100, true),
                (150, 11, None, 20, false),
                (170, 11, Some(1200), 40, true),
                (190, 11, Some(1200), 40, true),
                (210, 11, Some(1200), 40, true),
            ]
        );
        assert!(!dial.is_sounding() && dial.due().is_none());
    }

    #[test]
    fn what_is_no_digit_and_what_is_too_much_is_refused() {
        let mut dial = Dial::default();
        assert!(!dial.add(digit(16, 100)));
        let taken = (0..100).filter(|_| dial.add(digit(1, 1))).count();
        assert_eq!(taken, WAITING);
        let sent = play(&mut dial);
        assert_eq!(sent.iter().filter(|(_, block)| block.end).count(), 3 * WAITING);
        assert!(sent.iter().all(|(_, block)| block.lasted <= 40), "as short as may be");
    }

    #[test]
    fn a_late_timer_stretches_nothing() {
        let mut dial = Dial::default();
        dial.add(digit(1, 100));
        assert_eq!(dial.step(Now(0)).map(|block| block.lasted), Some(20));
        dial.began(7);
        let block = dial.step(Now(5_000_000)).unwrap();
        assert_eq!((block.lasted, block.end), (100, true));
    }

    #[test]
    fn packets_are_as_the_rfc_has_them() {
        let block = Block { timestamp: None, event: 10, end: false, lasted: 20 };
        let first = packet(&block, 101, (0x0102, 0x0304_0506, 7), 8000);
        assert_eq!(first, [0x80, 0xe5, 1, 2, 3, 4, 5, 6, 0, 0, 0, 7, 10, 10, 0, 160]);
        let last =
            packet(&Block { timestamp: Some(1), end: true, lasted: 6000, ..block }, 101, (1, 1, 7), 48_000);
        assert_eq!((last[1], last[13], &last[14..]), (0x65, 0x8a, &[0xff, 0xff][..]));
    }
}
