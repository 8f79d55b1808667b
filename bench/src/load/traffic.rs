//! Open-loop G.711 load: every packet has a scheduled send time, carries it, and is late by what the path took.
//!
//! A packet that the sender could not send on time counts from its schedule all the same (no coordinated omission).

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use sallyport_srtp::{Opener, Sealer};
use sallyport_wire::PacketBuf;

use super::relay::LoadCall;

/// Packet interval of G.711 as telephony sends it.
pub const INTERVAL: Duration = Duration::from_millis(20);
/// RTP header and 20 ms of G.711.
const PACKET: usize = 12 + 160;
/// Histogram range: 1 us to 10 s, three digits.
const RANGE_NS: (u64, u64) = (1_000, 10_000_000_000);

/// One call's sockets: the browser's in the outside namespace, the agent's in the inside one.
pub struct Ends {
    /// The call, where packets are SRTP outside; `None` for the bare wire.
    pub call: Option<LoadCall>,
    /// Bound outside.
    pub browser: UdpSocket,
    /// Bound inside.
    pub agent: UdpSocket,
    /// Where the browser sends.
    pub toward_agent: SocketAddr,
    /// Where the agent sends.
    pub toward_browser: SocketAddr,
}

/// What one direction did.
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

/// Both directions.
pub struct Load {
    /// Browser to agent.
    pub inward: Outcome,
    /// Agent to browser.
    pub outward: Outcome,
}

/// Sends both ways for `duration`, then waits for stragglers.
///
/// # Errors
/// What the system says of sockets, epoll or threads.
pub fn run(ends: &[Ends], duration: Duration) -> anyhow::Result<Load> {
    let base = Instant::now() + Duration::from_millis(50);
    let stop = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let inward = {
            let stop = stop.clone();
            scope.spawn(move || receive(ends, Side::Agent, base, &stop))
        };
        let outward = {
            let stop = stop.clone();
            scope.spawn(move || receive(ends, Side::Browser, base, &stop))
        };
        let sent = send(ends, base, duration);
        thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        let join = |handle: thread::ScopedJoinHandle<'_, io::Result<Outcome>>| {
            handle.join().map_err(|_| anyhow::anyhow!("a receiver panicked"))?.map_err(anyhow::Error::from)
        };
        let (mut inward, mut outward) = (join(inward)?, join(outward)?);
        (inward.sent, outward.sent) = sent?;
        Ok(Load { inward, outward })
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Browser,
    Agent,
}

struct Stream {
    sealer: Option<Sealer>,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

impl Stream {
    /// Writes the next packet into `room`; how long it is.
    fn next(&mut self, scheduled_ns: u64, room: &mut [u8; PACKET + 16]) -> anyhow::Result<usize> {
        room[0] = 0x80;
        room[1] = 0;
        room[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        room[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        room[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        room[12..20].copy_from_slice(&scheduled_ns.to_be_bytes());
        room[20..PACKET].fill(0xd5);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        let Some(sealer) = &mut self.sealer else { return Ok(PACKET) };
        let mut buf = PacketBuf::new(room, 0..PACKET).map_err(|_| anyhow::anyhow!("no room"))?;
        sealer.seal_rtp(&mut buf).map_err(|error| anyhow::anyhow!("sealing: {error:?}"))?;
        Ok(buf.len())
    }
}

/// Sends every call's packets on schedule, spread over the interval; returns how many each way.
fn send(ends: &[Ends], base: Instant, duration: Duration) -> anyhow::Result<(u64, u64)> {
    let mut streams: Vec<(Stream, Stream)> = Vec::new();
    for (at, end) in ends.iter().enumerate() {
        let number = u32::try_from(at)?;
        let sealer = end.call.as_ref().map(|call| Sealer::new(&call.from_browser));
        let sealer = sealer.transpose().map_err(|error| anyhow::anyhow!("key: {error:?}"))?;
        let from_browser = Stream { sealer, ssrc: 0x1000_0000 + number, sequence: 1, timestamp: 0 };
        let from_agent = Stream { sealer: None, ssrc: 0x2000_0000 + number, sequence: 1, timestamp: 0 };
        streams.push((from_browser, from_agent));
    }
    let rounds = u32::try_from(duration.as_millis() / INTERVAL.as_millis())?;
    let step = INTERVAL / u32::try_from(ends.len().max(1))?;
    let mut room = [0; PACKET + 16];
    let mut sent = (0, 0);
    for round in 0..rounds {
        for (at, (end, (from_browser, from_agent))) in ends.iter().zip(&mut streams).enumerate() {
            let due = INTERVAL * round + step * u32::try_from(at)?;
            wait_until(base + due);
            let scheduled = u64::try_from(due.as_nanos())?;
            let length = from_browser.next(scheduled, &mut room)?;
            sent.0 += u64::from(end.browser.send_to(&room[..length], end.toward_agent).is_ok());
            let length = from_agent.next(scheduled, &mut room)?;
            sent.1 += u64::from(end.agent.send_to(&room[..length], end.toward_browser).is_ok());
        }
    }
    Ok(sent)
}

/// Sleeps most of the way and spins the rest: timers of the system are a few tens of microseconds late.
fn wait_until(at: Instant) {
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > Duration::from_micros(200) {
            thread::sleep(left - Duration::from_micros(150));
        } else {
            std::hint::spin_loop();
        }
    }
}

fn receive(ends: &[Ends], side: Side, base: Instant, stop: &AtomicBool) -> io::Result<Outcome> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut openers: HashMap<u64, Option<Opener>> = HashMap::new();
    for (at, end) in ends.iter().enumerate() {
        let socket = if side == Side::Agent { &end.agent } else { &end.browser };
        socket.set_nonblocking(true)?;
        epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        let sealed = end.call.as_ref().filter(|_| side == Side::Browser);
        openers.insert(at as u64, sealed.and_then(|call| Opener::new(&call.to_browser).ok()));
    }
    let latency = Histogram::new_with_bounds(RANGE_NS.0, RANGE_NS.1, 3).map_err(io::Error::other)?;
    let mut outcome = Outcome { sent: 0, received: 0, broken: 0, latency };
    let mut events = [EpollEvent::empty(); 64];
    while !stop.load(Ordering::Relaxed) {
        let ready = match epoll.wait(&mut events, EpollTimeout::from(50u8)) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        for event in &events[..ready] {
            let at = event.data();
            let Some(end) = usize::try_from(at).ok().and_then(|at| ends.get(at)) else { continue };
            let socket = if side == Side::Agent { &end.agent } else { &end.browser };
            let opener = openers.get_mut(&at).and_then(Option::as_mut);
            drain(socket, opener, base, &mut outcome);
        }
    }
    Ok(outcome)
}

fn drain(socket: &UdpSocket, mut opener: Option<&mut Opener>, base: Instant, outcome: &mut Outcome) {
    let mut room = [0; 2048];
    while let Ok(n) = socket.recv(&mut room) {
        let arrived =
            u64::try_from(Instant::now().saturating_duration_since(base).as_nanos()).unwrap_or(u64::MAX);
        match scheduled(&mut room, n, opener.as_deref_mut()) {
            Some(scheduled) => {
                outcome.received += 1;
                let late = arrived.saturating_sub(scheduled).clamp(RANGE_NS.0, RANGE_NS.1);
                let _ = outcome.latency.record(late);
            }
            None => outcome.broken += 1,
        }
    }
}

/// The scheduled send time that a packet carries.
fn scheduled(room: &mut [u8], length: usize, opener: Option<&mut Opener>) -> Option<u64> {
    let mut buf = PacketBuf::new(room, 0..length).ok()?;
    if let Some(opener) = opener {
        opener.open_rtp(&mut buf).ok()?;
    }
    let packet = buf.packet();
    if packet.len() != PACKET {
        return None;
    }
    Some(u64::from_be_bytes(packet.get(12..20)?.try_into().ok()?))
}
