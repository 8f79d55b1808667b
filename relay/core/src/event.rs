//! Named events (RFC 4733): digits as packets of their own.

use sallyport_wire::rtp::Header;

use crate::Now;
use crate::stream::is_before;

/// Octets of one event (RFC 4733 section 2.3): the event, end bit and volume, and how long it has lasted.
const BLOCK: usize = 4;

/// Counts the durations of all events in an open packet anew, from one clock to another, both in Hz. What is longer than can be
/// said is said to be as long as can be: the event is still the one that began at its timestamp.
pub fn scale(packet: &mut [u8], from: u32, to: u32) {
    let Ok(header) = Header::parse(packet) else { return };
    let (at, padding) = (header.header_len(), header.padding_len().unwrap_or(0));
    let end = packet.len().saturating_sub(padding);
    for block in packet.get_mut(at..end).unwrap_or_default().chunks_exact_mut(BLOCK) {
        let [_, _, high, low] = block else { return };
        let duration = u64::from(u16::from_be_bytes([*high, *low]));
        // Half a unit more, so that an event that has just begun is not one of no duration (RFC 4733 section 2.3.5).
        let scaled = (duration * u64::from(to) + u64::from(from) / 2) / u64::from(from.max(1));
        [*high, *low] = u16::try_from(scaled).unwrap_or(u16::MAX).to_be_bytes();
    }
}

/// The highest code of a digit that telephones have (RFC 4733 section 3.2).
pub const DIGITS: u8 = 15;
/// Microseconds without a packet of it behind which an event has ended: senders repeat them every 20 to 50 ms.
const OVER: u64 = 200_000;

/// A digit that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digit {
    /// Its code: 0 to 9, 10 for star, 11 for hash, 12 to 15 for A to D.
    pub event: u8,
    /// How long it lasted, in milliseconds.
    pub duration: u16,
}

/// An event as far as it was heard.
#[derive(Debug, Clone, Copy)]
struct Current {
    ssrc: u32,
    timestamp: u32,
    digit: Digit,
    heard: Now,
    told: bool,
}

impl Current {
    /// The digit, the first time.
    fn tell(&mut self) -> Option<Digit> {
        let first = !std::mem::replace(&mut self.told, true);
        Some(self.digit).filter(|digit| first && digit.event <= DIGITS)
    }
}

/// Hears one digit for each event, however many of its packets come, and though some do not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hearing(Option<Current>);

impl Hearing {
    /// Takes in an open packet of an event whose durations count at `clock` Hz: at most one digit whose end was never heard,
    /// and the one that ends with this packet.
    pub fn hear_event(&mut self, packet: &[u8], clock: u32, now: Now) -> [Option<Digit>; 2] {
        let Ok(header) = Header::parse(packet) else { return [None; 2] };
        let block = packet.get(header.header_len()..).and_then(<[u8]>::first_chunk::<BLOCK>);
        let Some([event, flags, high, low]) = block.copied() else { return [None; 2] };
        let (ssrc, timestamp) = (header.ssrc(), header.timestamp());
        let lasted = u64::from(u16::from_be_bytes([high, low])) * 1000 / u64::from(clock.max(1));
        let duration = u16::try_from(lasted).unwrap_or(u16::MAX);
        let same = |current: &&mut Current| current.ssrc == ssrc && current.timestamp == timestamp;
        if let Some(current) = self.0.as_mut().filter(same) {
            current.digit.duration = current.digit.duration.max(duration);
            current.heard = now;
            return [None, if flags & 0x80 != 0 { current.tell() } else { None }];
        }
        let late = |current: &Current| current.ssrc == ssrc && is_before(timestamp, current.timestamp);
        if self.0.as_ref().is_some_and(late) {
            return [None; 2];
        }
        let before = self.0.as_mut().and_then(Current::tell);
        let digit = Digit { event, duration };
        let mut current = Current { ssrc, timestamp, digit, heard: now, told: false };
        let ended = if flags & 0x80 != 0 { current.tell() } else { None };
        self.0 = Some(current);
        [before, ended]
    }

    /// Whether a digit is being heard that may have to be told of though its end is not.
    pub fn is_waiting(&self) -> bool {
        self.0.as_ref().is_some_and(|current| !current.told)
    }

    /// Takes note of other media: a digit of which nothing was heard for a while has ended.
    pub fn hear_media(&mut self, now: Now) -> Option<Digit> {
        self.0.as_mut().filter(|current| now.since(current.heard) >= OVER)?.tell()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event packet: timestamp, code, whether it is the end, duration at 8 kHz.
    fn event(timestamp: u32, code: u8, end: bool, duration: u16) -> Vec<u8> {
        let block = [code, if end { 0x8a } else { 0x0a }];
        let head = [&[0x80, 101, 0, 1][..], &timestamp.to_be_bytes(), &[0, 0, 0, 7]].concat();
        [head, block.to_vec(), duration.to_be_bytes().to_vec()].concat()
    }

    const fn digit(event: u8, duration: u16) -> Option<Digit> {
        Some(Digit { event, duration })
    }

    #[test]
    fn each_event_is_one_digit_however_often_its_end_is_sent() {
        let mut hearing = Hearing::default();
        let mut hear = |packet: &[u8], ms: u64| hearing.hear_event(packet, 8000, Now(ms * 1000));
        for (ms, duration) in [(20, 160), (40, 320), (60, 480)] {
            assert_eq!(hear(&event(1000, 5, false, duration), ms), [None, None]);
        }
        assert_eq!(hear(&event(1000, 5, true, 800), 100), [None, digit(5, 100)]);
        assert_eq!(hear(&event(1000, 5, true, 800), 101), [None, None]);
        assert_eq!(hear(&event(1000, 5, true, 800), 102), [None, None]);
        // The same digit again is another event.
        assert_eq!(hear(&event(3000, 5, true, 400), 300), [None, digit(5, 50)]);
        assert_eq!(hear(&event(1000, 5, true, 800), 301), [None, None], "one of long ago");
        // Flash is no digit.
        assert_eq!(hear(&event(5000, 16, true, 400), 400), [None, None]);
    }

    #[test]
    fn ends_that_were_lost_are_made_up_for() {
        let mut hearing = Hearing::default();
        let at = |ms: u64| Now(ms * 1000);
        assert_eq!(hearing.hear_event(&event(1000, 1, false, 400), 8000, at(0)), [None, None]);
        assert_eq!(
            hearing.hear_event(&event(2000, 2, true, 800), 8000, at(100)),
            [digit(1, 50), digit(2, 100)]
        );
        assert_eq!(hearing.hear_event(&event(9000, 11, false, 160), 8000, at(200)), [None, None]);
        assert_eq!(hearing.hear_media(at(399)), None);
        assert_eq!(hearing.hear_media(at(400)), digit(11, 20));
        assert_eq!(hearing.hear_media(at(800)), None);
        assert_eq!(hearing.hear_event(&[0x80, 101, 0], 8000, at(900)), [None, None]);
    }

    fn scaled(duration: u16, from: u32, to: u32) -> u16 {
        let mut packet =
            [&[0x80, 101, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x8a][..], &duration.to_be_bytes()].concat();
        scale(&mut packet, from, to);
        assert_eq!(packet[12..14], [5, 0x8a], "the digit, the end bit and the volume stay");
        u16::from_be_bytes([packet[14], packet[15]])
    }

    #[test]
    fn durations_keep_their_length_in_time() {
        for (ms, at_48, at_8) in [(20, 960, 160), (100, 4800, 800), (1000, 48_000, 8000)] {
            assert_eq!((scaled(at_48, 48_000, 8000), scaled(at_8, 8000, 48_000)), (at_8, at_48), "{ms} ms");
        }
        assert_eq!((scaled(2, 48_000, 8000), scaled(3, 48_000, 8000)), (0, 1), "the nearest");
        assert_eq!(scaled(0xffff, 48_000, 8000), 10_923);
        assert_eq!(scaled(20_000, 8000, 48_000), 0xffff, "as long as can be said");
    }

    #[test]
    fn several_events_and_padding() {
        let mut packet = vec![0xa0, 101, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend([1, 0, 0x03, 0xc0, 2, 0, 0x07, 0x80, 0, 0, 0, 4]);
        scale(&mut packet, 48_000, 8000);
        assert_eq!(packet[12..], [1, 0, 0, 160, 2, 0, 1, 64, 0, 0, 0, 4]);
        let mut short = vec![0x80, 101, 0];
        scale(&mut short, 48_000, 8000);
        assert_eq!(short, [0x80, 101, 0]);
    }
}
