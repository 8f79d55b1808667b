//! When packets of a bundle arrived, and what their sender is told of it: transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01), from which it estimates what the path bears.
//!
//! ```text
//!   | 2 bits version, 15 | 205 | words | our SSRC | an SSRC of theirs |
//!   | first sequence | how many | reference time, 64 ms, 24 bits | number 8 bits |
//!   | chunks of 16 bits: what arrived | deltas of 8 or 16 bits, 250 us | null octets up to a word |
//! ```

use sallyport_wire::rtcp::RTPFB;

use crate::Now;
use crate::reports::words;
use crate::rtcp::put;

/// Packets that are kept in mind: at 100 ms between reports, 5,000 a second.
const KEPT: usize = 512;
/// Format of the feedback (section 3.1).
const TRANSPORT_WIDE: u8 = 15;
/// Microseconds of a unit of time, and units of one of reference times.
const TICK: u64 = 250;
const REFERENCE: u32 = 256;
/// Octets in front of the first chunk.
const FIXED: usize = 20;
/// Symbols of a chunk of runs, of one bit each, and of two bits each.
const RUN: usize = 0x1fff;
const ONE_BIT: usize = 14;
const TWO_BITS: usize = 7;
/// From how many on a run is as short as symbols of one bit each.
const LONG: usize = 14;

/// How often a sender is told, in microseconds.
pub const INTERVAL: u64 = 100_000;
/// Octets of feedback at the most, for one datagram with room for its tag. What does not fit goes into the next.
pub const FEEDBACK_MAX: usize = 1200;

/// What arrived of one bundle, by transport-wide sequence number.
#[derive(Debug, Clone)]
pub struct Arrivals {
    /// By the low bits of their numbers, when they arrived; 0: they did not.
    ticks: [u32; KEPT],
    /// The first number to tell of, extended; none arrived yet: `None`.
    first: Option<u64>,
    /// Behind the last one that arrived, extended.
    end: u64,
    /// SSRC of the last one.
    ssrc: u32,
    /// Whether there is anything to tell.
    news: bool,
    number: u8,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { ticks: [0; KEPT], first: None, end: 0, ssrc: 0, news: false, number: 0 }
    }
}

impl Arrivals {
    /// A packet with this number arrived.
    pub fn arrive(&mut self, sequence: u16, ssrc: u32, now: Now) {
        // Far enough above 0 that earlier ones have numbers, too.
        let first = *self.first.get_or_insert_with(|| {
            self.end = (1 << 32) + u64::from(sequence);
            self.end
        });
        let behind = sequence.wrapping_sub((self.end & 0xffff) as u16).cast_signed();
        let extended = self.end.wrapping_add_signed(i64::from(behind));
        if extended >= self.end {
            // Those between have not arrived; further back than all that are kept nobody looks.
            let missing = usize::try_from(extended - self.end).unwrap_or(KEPT).min(KEPT) as u64;
            (extended - missing..extended).for_each(|at| self.ticks[slot(at)] = 0);
            self.end = extended + 1;
            // What was not told in time and has no place any more is not told.
            self.first = Some(first.max(self.end.saturating_sub(KEPT as u64)));
        } else if self.end - extended > KEPT as u64 {
            return;
        } else {
            // One that was overtaken: told again from there on, as its sender took it for lost.
            self.first = Some(first.min(extended));
        }
        self.ticks[slot(extended)] = tick(now);
        self.ssrc = ssrc;
        self.news = true;
    }

    /// Writes one packet of feedback from `own_ssrc`. Its length; `None` where there is nothing more to tell.
    pub fn write(&mut self, own_ssrc: u32, room: &mut [u8; FEEDBACK_MAX]) -> Option<usize> {
        let from = self.first.filter(|_| self.news)?;
        // The last one that is kept did arrive; before it some may be missing.
        let arrived = (from..self.end).map(|at| self.ticks[slot(at)]).find(|tick| *tick != 0)?;
        let mut told = Told::new(arrived);
        let to = (from..self.end).find(|at| !told.push(self.ticks[slot(*at)])).unwrap_or(self.end);
        // A sender knows by the next one what became of packets behind the last that arrived.
        (self.first, self.news) = (Some(to), to < self.end);
        room[..2].copy_from_slice(&[0x80 | TRANSPORT_WIDE, RTPFB]);
        put(room, 4, own_ssrc);
        put(room, 8, self.ssrc);
        let length = told.write((from & 0xffff) as u16, self.number, room);
        room[2..4].copy_from_slice(&words(length).to_be_bytes());
        self.number = self.number.wrapping_add(1);
        Some(length)
    }
}

/// What one packet of feedback tells.
struct Told {
    /// Reference time, and the time of the last one that arrived.
    reference: u32,
    last: u32,
    /// By packet: 0 not received, 1 with a delta of 8 bits, 2 of 16 bits (section 3.1.1).
    symbols: [u8; KEPT],
    count: usize,
    deltas: [u8; FEEDBACK_MAX],
    length: usize,
}

impl Told {
    fn new(first: u32) -> Self {
        let reference = first / REFERENCE;
        Self {
            reference,
            last: reference.wrapping_mul(REFERENCE),
            symbols: [0; KEPT],
            count: 0,
            deltas: [0; FEEDBACK_MAX],
            length: 0,
        }
    }

    /// The next packet; `false` where it does not fit any more.
    fn push(&mut self, tick: u32) -> bool {
        // Chunks have two octets for seven packets at the worst.
        let chunks = 2 * (self.count / TWO_BITS + 1);
        if self.count == KEPT || FIXED + chunks + self.length + 2 + 3 > FEEDBACK_MAX {
            return false;
        }
        let symbol = match tick {
            0 => 0,
            _ => {
                let delta = tick.wrapping_sub(self.last).cast_signed();
                let (symbol, octets) = match (u8::try_from(delta), i16::try_from(delta)) {
                    (Ok(small), _) => (1, [small, 0]),
                    (_, Ok(large)) => (2, large.to_be_bytes()),
                    _ => return false,
                };
                let length = usize::from(symbol);
                self.deltas[self.length..self.length + length].copy_from_slice(&octets[..length]);
                self.length += length;
                self.last = tick;
                symbol
            }
        };
        self.symbols[self.count] = symbol;
        self.count += 1;
        true
    }

    /// All behind the SSRCs; the packet's length.
    fn write(&self, sequence: u16, number: u8, room: &mut [u8; FEEDBACK_MAX]) -> usize {
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        room[12..14].copy_from_slice(&sequence.to_be_bytes());
        room[14..16].copy_from_slice(&count.to_be_bytes());
        put(room, 16, self.reference << 8 | u32::from(number));
        let mut at = FIXED;
        let mut rest = &self.symbols[..self.count];
        while !rest.is_empty() {
            let (chunk, taken) = chunk(rest);
            room[at..at + 2].copy_from_slice(&chunk.to_be_bytes());
            (at, rest) = (at + 2, &rest[taken..]);
        }
        room[at..at + self.length].copy_from_slice(&self.deltas[..self.length]);
        at += self.length;
        let end = at.next_multiple_of(4);
        room[at..end].fill(0);
        end
    }
}

/// The next chunk, and how many symbols are in it (sections 3.1.3 and 3.1.4).
fn chunk(symbols: &[u8]) -> (u16, usize) {
    let first = symbols.first().copied().unwrap_or(0);
    let run = symbols.iter().take(RUN).take_while(|symbol| **symbol == first).count();
    let short = symbols.iter().take(ONE_BIT).all(|symbol| *symbol < 2);
    if run >= LONG || run == symbols.len() || (!short && run >= TWO_BITS) {
        let length = u16::try_from(run).unwrap_or(0);
        return (u16::from(first) << 13 | length, run);
    }
    let (head, bits, most) = if short { (0b10, 1, ONE_BIT) } else { (0b11, 2, TWO_BITS) };
    let taken = symbols.len().min(most);
    let vector = symbols.iter().take(taken).fold(0, |vector, symbol| vector << bits | u16::from(*symbol));
    (head << 14 | vector << (bits * (most - taken)), taken)
}

/// Where a number has its place.
const fn slot(extended: u64) -> usize {
    (extended % KEPT as u64) as usize
}

/// Time in units, never 0; it wraps as reference times do.
fn tick(now: Now) -> u32 {
    ((now.0 / TICK) & 0xffff_ffff).max(1) as u32
}

#[cfg(test)]
mod tests;
