//! Open-loop load: every packet has a scheduled send time, carries it, and is late by what the path took.
//!
//! A packet that the generator could not send on time counts from its schedule all the same (no coordinated omission); how
//! late the generator was is told beside, so that a saturated generator is not taken for a slow path.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use sallyport_io::Burst;
use sallyport_srtp::{Opener, Sealer};
use sallyport_wire::PacketBuf;

use super::mix::Mix;
use super::net::{Row, Side};
use super::station::Station;

/// What is sent before this is not counted.
pub const WARM_UP: Duration = Duration::from_millis(300);
/// How long stragglers are waited for.
const STRAGGLERS: Duration = Duration::from_millis(300);
/// Packets of calls that are sent at once at the most, before what came in is looked at.
const BATCH: usize = 32;
/// Moments in an interval at which packets are due. Calls are spread over them; those of one moment leave together, by one
/// queue, as packets come off a real network: an interrupt brings several.
const MOMENTS: usize = 160;
/// Histogram range: 1 us to 10 s, three digits.
const RANGE_NS: (u64, u64) = (1_000, 10_000_000_000);

/// Keys of a call outside: what the browser seals with and what it opens with.
pub struct Keys {
    /// Of what the browser sends.
    pub seal: Sealer,
    /// Of what it hears.
    pub open: Opener,
}

/// One call of the load.
pub struct End {
    /// Where the browser is.
    pub browser: SocketAddr,
    /// Where the agent is.
    pub agent: SocketAddr,
    /// Where the browser sends.
    pub toward_agent: SocketAddr,
    /// Where the agent sends.
    pub toward_browser: SocketAddr,
    /// `None`: plain RTP outside too.
    pub keys: Option<Keys>,
    /// Packets sent so far.
    pub sequence: u32,
}

/// What one direction did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived and verified.
    pub received: u64,
    /// Packets that arrived and did not verify or parse.
    pub broken: u64,
    /// Nanoseconds from schedule to arrival.
    pub latency: Histogram<u64>,
}

impl Outcome {
    fn new() -> anyhow::Result<Self> {
        let latency = Histogram::new_with_bounds(RANGE_NS.0, RANGE_NS.1, 3)?;
        Ok(Self { sent: 0, received: 0, broken: 0, latency })
    }

    /// Packets that did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    fn take(&mut self, sent: Option<u64>, now: u64) {
        match sent {
            None => self.broken += 1,
            Some(sent) if sent < nanoseconds(WARM_UP) => {}
            Some(sent) => {
                self.received += 1;
                let _ = self.latency.record(now.saturating_sub(sent).clamp(RANGE_NS.0, RANGE_NS.1));
            }
        }
    }
}

/// Both directions.
#[derive(Debug, Clone)]
pub struct Load {
    /// Browser to agent.
    pub inward: Outcome,
    /// Agent to browser.
    pub outward: Outcome,
    /// Packets that the generator itself could not send.
    pub unsent: u64,
    /// How late the generator was, ns.
    pub lateness: Histogram<u64>,
}

impl Load {
    /// Share of the schedule that the generator could not send.
    #[allow(clippy::cast_precision_loss)]
    pub fn shortfall(&self) -> f64 {
        let sent = self.inward.sent + self.outward.sent;
        self.unsent as f64 / (sent + self.unsent).max(1) as f64
    }

    /// Share of packets that did not arrive.
    #[allow(clippy::cast_precision_loss)]
    pub fn loss(&self) -> f64 {
        let sent = self.inward.sent + self.outward.sent;
        (self.inward.lost() + self.outward.lost()) as f64 / sent.max(1) as f64
    }
}

/// Both ends of the load.
pub struct Generator {
    outside: Station,
    inside: Station,
    mix: Mix,
}

/// What is to be sent of one frame's packet.
#[derive(Clone, Copy)]
struct Piece {
    ssrc: u32,
    sequence: u32,
    timestamp: u32,
    payload_type: u8,
    last: bool,
    due: u64,
    length: usize,
}

impl Generator {
    /// Opens both ends and keeps this thread on the first processor: what is measured has the others.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(row: &Row, mix: Mix) -> anyhow::Result<Self> {
        let mut first = nix::sched::CpuSet::new();
        first.set(0)?;
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &first)?;
        Ok(Self {
            outside: Station::open(row, Side::Outside)?,
            inside: Station::open(row, Side::Inside)?,
            mix,
        })
    }

    /// Expects the packets of these calls and no others.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn expect(&mut self, ends: &[End]) -> anyhow::Result<()> {
        self.outside.forget()?;
        self.inside.forget()?;
        for (at, end) in ends.iter().enumerate() {
            let at = u32::try_from(at)?;
            self.outside.expect(at, end.browser, end.toward_agent)?;
            self.inside.expect(at, end.agent, end.toward_browser)?;
        }
        Ok(())
    }

    /// Sends both ways for `duration`, spread over the interval, then waits for stragglers.
    ///
    /// # Errors
    /// None that occurs.
    pub fn run(&mut self, ends: &mut [End], duration: Duration) -> anyhow::Result<Load> {
        let mut load = Load {
            inward: Outcome::new()?,
            outward: Outcome::new()?,
            unsent: 0,
            lateness: Histogram::new_with_bounds(RANGE_NS.0, RANGE_NS.1, 2)?,
        };
        let (calls, mut burst) = (ends.len().max(1), Burst::new());
        let interval = nanoseconds(self.mix.interval());
        let rounds = (duration + WARM_UP).as_nanos() / u128::from(interval);
        let total = usize::try_from(rounds)? * calls;
        let begin = Instant::now();
        let mut next = 0;
        let mut until = None;
        loop {
            let now = nanoseconds(begin.elapsed());
            let mut sent = 0;
            while sent < BATCH {
                let (at, frame) = (next % calls, (next / calls) as u64);
                let moment = at * MOMENTS / calls;
                let due = interval * frame + interval / MOMENTS as u64 * moment as u64;
                if next >= total || due > now {
                    break;
                }
                sent += self.send_frame(&mut load, (at, moment), frame, &mut ends[at], due);
                let _ = load.lateness.record((now - due).clamp(RANGE_NS.0, RANGE_NS.1));
                next += 1;
            }
            self.outside.flush();
            self.inside.flush();
            self.hear(&mut load, ends, &mut burst, begin);
            if next >= total && begin.elapsed() > *until.get_or_insert(begin.elapsed() + STRAGGLERS) {
                return Ok(load);
            }
        }
    }

    /// Sends a frame of call `at` both ways by a queue; how many packets it has.
    fn send_frame(
        &mut self,
        load: &mut Load,
        (at, queue): (usize, usize),
        frame: u64,
        end: &mut End,
        due: u64,
    ) -> usize {
        let (mix, packets) = (self.mix, self.mix.packets(at, frame));
        for packet in 0..packets {
            let piece = Piece {
                ssrc: u32::try_from(at).unwrap_or_default(),
                sequence: end.sequence,
                // As wide as the clock is: it wraps.
                timestamp: (frame as u32).wrapping_mul(mix.ticks()),
                payload_type: mix.payload_type(),
                last: packets > 1 && packet + 1 == packets,
                due,
                length: mix.length(at, frame, packet),
            };
            end.sequence = end.sequence.wrapping_add(1);
            self.send(load, queue, end, piece);
        }
        packets
    }

    fn send(&mut self, load: &mut Load, queue: usize, end: &mut End, piece: Piece) {
        let counts = u64::from(piece.due >= nanoseconds(WARM_UP));
        let keys = &mut end.keys;
        let sent = self.outside.send(queue, (end.browser, end.toward_agent), piece.length, |packet| {
            write(packet.packet_mut(), 0x1000_0000, piece);
            keys.as_mut().is_none_or(|keys| keys.seal.seal_rtp(packet).is_ok())
        });
        // What the generator itself could not send is no loss of the path, but then it is no load either.
        load.inward.sent += counts * u64::from(sent);
        load.unsent += counts * u64::from(!sent);
        let sent = self.inside.send(queue, (end.agent, end.toward_browser), piece.length, |packet| {
            write(packet.packet_mut(), 0x2000_0000, piece);
            true
        });
        load.outward.sent += counts * u64::from(sent);
        load.unsent += counts * u64::from(!sent);
    }

    fn hear(&mut self, load: &mut Load, ends: &mut [End], burst: &mut Burst, begin: Instant) {
        let now = || nanoseconds(begin.elapsed());
        self.inside.receive(burst, |_, packet| load.inward.take(scheduled(packet), now()));
        self.outside.receive(burst, |at, packet| {
            // Reports of whom is measured share the browser's port (RFC 5761 section 4): they are no media.
            if packet.packet().get(1).is_some_and(|kind| (192..=223).contains(kind)) {
                return;
            }
            let keys = ends.get_mut(at as usize).and_then(|end| end.keys.as_mut());
            let opened = keys.is_none_or(|keys| keys.open.open_rtp(packet).is_ok());
            load.outward.take(opened.then(|| scheduled(packet)).flatten(), now());
        });
    }
}

/// An RTP packet with its scheduled time and its length in the payload.
fn write(room: &mut [u8], ssrc: u32, piece: Piece) {
    room.fill(0xd5);
    room[..2].copy_from_slice(&[0x80, u8::from(piece.last) << 7 | piece.payload_type]);
    room[2..4].copy_from_slice(&piece.sequence.to_be_bytes()[2..]);
    room[4..8].copy_from_slice(&piece.timestamp.to_be_bytes());
    room[8..12].copy_from_slice(&(ssrc + piece.ssrc).to_be_bytes());
    room[12..20].copy_from_slice(&piece.due.to_be_bytes());
    // No packet of any mix is longer.
    room[20..22].copy_from_slice(&(piece.length as u16).to_be_bytes());
}

/// The scheduled send time that a packet carries, where it is as long as it was.
fn scheduled(packet: &PacketBuf<'_>) -> Option<u64> {
    let packet = packet.packet();
    let length = u16::from_be_bytes(packet.get(20..22)?.try_into().ok()?);
    (packet.len() == usize::from(length))
        .then(|| packet.get(12..20)?.try_into().ok().map(u64::from_be_bytes))?
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
