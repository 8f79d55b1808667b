//! Digits both ways, by whichever way each side takes them: named events in the stream (RFC 4733), which the relay hears and
//! sends, or INFO.

use std::time::{Duration, Instant};

use sallyport_plan::{Digits, DirectionIndex};

use super::Call;
use super::plan::{INWARD, OUTWARD};
use super::requests::Purpose;
use crate::api::{CallEvent, Command};
use crate::settings::Dtmf;

/// Digits that wait for those before them; so many at the most are asked of the relay at once.
const DIGITS: usize = 64;
/// Digits by their codes as named events (RFC 4733 section 3.2).
const CODES: &[u8] = b"0123456789*#ABCD";
/// Length of a digit of which only the beginning was heard, in milliseconds: the shortest that ITU-T Q.24 has recognized.
const SHORTEST: u16 = 40;
/// How far apart the two ways of one digit may arrive, from a far end that sends it by both: an event is told when it has
/// ended, INFO may come when it begins.
const APART: Duration = Duration::from_secs(2);
/// The longest digit that can be told of.
const LONGEST: Duration = Duration::from_millis(u16::MAX as u64);
/// Digits of the far end that are remembered for so long.
const REMEMBERED: usize = 16;

/// A digit that telephones have.
pub(super) fn is_digit(digit: char) -> bool {
    CODES.iter().any(|code| char::from(*code) == digit)
}

/// How a digit came from the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As a named event.
    Event,
    /// By INFO.
    Info,
}

/// A digit of the far end that the browser was told of.
#[derive(Debug)]
pub(super) struct Told {
    way: Way,
    digit: char,
    at: Instant,
}

/// What becomes of digits that come from the browser's side; `open`: the inside wants to hear media, `taken`: it takes named
/// events.
pub(super) fn inward(dtmf: Dtmf, taken: bool, open: bool) -> Digits {
    match dtmf {
        Dtmf::Rfc4733 => Digits::Pass,
        Dtmf::Auto if taken && open => Digits::Pass,
        Dtmf::Both if taken => Digits::PassAndTell,
        Dtmf::Auto | Dtmf::Both | Dtmf::Info => Digits::Tell,
    }
}

impl Call {
    /// Whether the inside is to hear of named events.
    pub(super) fn offers_events(&self) -> bool {
        self.settings.sip.policy.dtmf != Dtmf::Info
    }

    /// A digit that the relay heard as a named event: the browser's goes on by INFO, the far end's is told.
    pub(super) fn heard(&mut self, direction: DirectionIndex, event: u8, duration: u16, now: Instant) {
        let digit = CODES.get(usize::from(event)).map(|code| char::from(*code));
        let (Some(digit), duration) = (digit, duration.max(SHORTEST)) else { return };
        match direction {
            INWARD if self.can_inform() => self.queue(&[digit], duration),
            OUTWARD => self.hear(Way::Event, digit, duration, now),
            _ => {}
        }
    }

    /// The far end sends a digit: it is told once, also where it comes by both ways.
    pub(super) fn hear(&mut self, way: Way, digit: char, duration: u16, now: Instant) {
        if self.cause.is_some() {
            return;
        }
        let told = &mut self.inside.told_digits;
        let pressed = if way == Way::Event { Duration::from_millis(duration.into()) } else { Duration::ZERO };
        let within = |one: &Told, span| now.saturating_duration_since(one.at) < span;
        told.retain(|one| within(one, APART + LONGEST));
        let same = |one: &Told| one.way != way && one.digit == digit && within(one, APART + pressed);
        if let Some(at) = told.iter().position(same) {
            told.remove(at);
            return;
        }
        if told.len() == REMEMBERED {
            told.remove(0);
        }
        told.push(Told { way, digit, at: now });
        self.notify(CallEvent::Dtmf { digit, duration });
    }

    /// Digits of the API: as named events that the relay sends where the inside takes them and hears media, else by INFO, or
    /// both ways, as it is configured.
    pub(super) fn dtmf(&mut self, digits: &str, duration: u16) {
        if !self.can_inform() {
            return;
        }
        let fresh = digits.chars().map(|digit| digit.to_ascii_uppercase()).filter(|digit| is_digit(*digit));
        let digits: Vec<char> = fresh.take(DIGITS).collect();
        let way = inward(self.settings.sip.policy.dtmf, self.takes_events(), self.hears_sound());
        let events = way != Digits::Tell && self.takes_events() && self.hears_sound() && self.connected;
        if events && !self.relayed.away {
            let code = |digit: &char| CODES.iter().position(|code| char::from(*code) == *digit);
            let codes = digits.iter().filter_map(code).filter_map(|code| u8::try_from(code).ok());
            let digits = codes.map(|code| (code, duration)).collect();
            self.commands.push_back(Command::Dial { direction: INWARD, digits });
            if way == Digits::Pass {
                return;
            }
        }
        self.queue(&digits, duration);
    }

    fn takes_events(&self) -> bool {
        self.inside.chosen.iter().any(|codec| codec.kind.is_event() && codec.inside.is_some())
    }

    fn hears_sound(&self) -> bool {
        let told = self.inside.answer.as_ref().is_some_and(|answer| answer.direction.receives());
        told && self.outside.direction.sends()
    }

    /// They go by INFO, one behind the other: each waits until the one before was taken.
    fn queue(&mut self, digits: &[char], duration: u16) {
        let room = DIGITS.saturating_sub(self.inside.digits.len());
        self.inside.digits.extend(digits.iter().take(room).map(|digit| (*digit, duration)));
        if !self.is_asking(Purpose::Digit) {
            self.next_digit();
        }
    }
}
