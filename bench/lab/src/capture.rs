//! Captures on a cable, and what RTP did between two of them.
//!
//! The relay rewrites payload type, sequence number and SSRC and may shift the timestamp by a constant; the SRTP header is
//! in clear. So a packet that came in is found again by its timestamp plus the stream's constant.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use hdrhistogram::Histogram;
use nix::sys::signal::Signal;
use sallyport_wire::demux::{Kind, classify};
use sallyport_wire::rtp::Header;

use crate::namespace::Namespace;
use crate::net::Lab;
use crate::pcap::{Captured, datagrams};
use crate::process::{Process, Program};

/// How far apart a packet may come in and go out.
const WINDOW_NS: i64 = 200_000_000;
/// Packets of a stream that vote for its constant.
const VOTERS: usize = 500;

/// A running tcpdump, stamping in nanoseconds.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures UDP on an interface into `NAME.pcap` of the lab's folder.
    ///
    /// # Errors
    /// Where tcpdump does not start.
    pub fn start(lab: &Lab, namespace: &Namespace, interface: &str, name: &str) -> anyhow::Result<Self> {
        let file = lab.folder().join(format!("{name}.pcap"));
        let mut command = namespace.command("tcpdump");
        // Immediate and unbuffered: whoever reads the file finds all that has passed.
        command.args([
            "-i",
            interface,
            "-n",
            "-U",
            "--immediate-mode",
            "-s",
            "0",
            "-B",
            "16384",
            "-Z",
            "root",
        ]);
        command.args(["--time-stamp-precision=nano", "-w"]).arg(&file).arg("udp");
        let mut program = Program::new(format!("tcpdump-{name}"), command);
        program.farewell = Signal::SIGINT;
        let process = lab.start(program).context("tcpdump")?;
        process.wait_for_words("listening on", Duration::from_secs(5))?;
        Ok(Self { process, file })
    }

    /// What has passed so far.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub fn so_far(&self) -> anyhow::Result<Vec<Captured>> {
        let bytes = fs::read(&self.file).with_context(|| self.file.display().to_string())?;
        datagrams(&bytes).with_context(|| self.file.display().to_string())
    }

    /// Ends it; what has passed.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub fn stop(self) -> anyhow::Result<Vec<Captured>> {
        self.process.stop();
        self.so_far()
    }

    /// Where the file lies.
    pub fn file(&self) -> &PathBuf {
        &self.file
    }
}

/// A stretch of time, nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// From here on.
    pub begin_ns: u64,
    /// Up to here.
    pub end_ns: u64,
}

impl Span {
    /// All times.
    pub const ALWAYS: Self = Self { begin_ns: 0, end_ns: u64::MAX };

    /// From one instant to another.
    pub fn between(begin: SystemTime, end: SystemTime) -> Self {
        let ns = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        Self { begin_ns: ns(begin), end_ns: ns(end) }
    }

    /// Whether it holds an instant.
    pub fn holds(&self, at_ns: u64) -> bool {
        (self.begin_ns..self.end_ns).contains(&at_ns)
    }
}

/// One way through the relay.
#[derive(Debug, Clone)]
pub struct Passage {
    /// RTP packets that came in within the span.
    pub sent: u64,
    /// Those of them that went out.
    pub received: u64,
    /// Nanoseconds between the two captures.
    pub latency: Histogram<u64>,
}

impl Passage {
    /// Nothing came.
    ///
    /// # Errors
    /// None: the histogram's bounds are fixed.
    pub fn none() -> anyhow::Result<Self> {
        Ok(Self { sent: 0, received: 0, latency: Histogram::new_with_bounds(1, 10_000_000_000, 3)? })
    }

    /// Those that did not go out.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// A percentile of the added latency, microseconds; `None` where nothing passed.
    pub fn latency_us(&self, percentile: f64) -> Option<f64> {
        let passed = !self.latency.is_empty();
        passed.then(|| self.latency.value_at_percentile(percentile) as f64 / 1000.0)
    }
}

/// A stream: where from, where to, SSRC.
type Stream = (SocketAddr, SocketAddr, u32);

/// Of an RTP packet what matching needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    at_ns: u64,
    timestamp: u32,
}

/// RTP packets of a capture by stream, in the order of capture.
fn streams<'a>(datagrams: impl Iterator<Item = &'a Captured>) -> HashMap<Stream, Vec<Stamp>> {
    let mut streams: HashMap<Stream, Vec<Stamp>> = HashMap::new();
    for datagram in datagrams.filter(|datagram| is_rtp(datagram)) {
        let Ok(header) = Header::parse(&datagram.payload) else { continue };
        let stamp = Stamp { at_ns: datagram.at_ns, timestamp: header.timestamp() };
        streams.entry((datagram.source, datagram.destination, header.ssrc())).or_default().push(stamp);
    }
    streams
}

/// Whether a datagram is RTP, or SRTP, by its first octets.
pub fn is_rtp(datagram: &Captured) -> bool {
    classify(&datagram.payload) == Kind::Rtp
}

/// Follows the RTP packets that reached `enter` through the relay to where they left from `leave`. Both are the relay's own
/// addresses; `leave` may name port 0 for any. `before` was captured where packets come in, `after` where they go out.
///
/// # Errors
/// None that input can cause: a histogram with fixed bounds.
pub fn follow(
    before: &[Captured],
    enter: SocketAddr,
    after: &[Captured],
    leave: SocketAddr,
    span: Span,
) -> anyhow::Result<Passage> {
    let is_ours = |own: SocketAddr, seen: SocketAddr| {
        own.ip() == seen.ip() && (own.port() == 0 || own.port() == seen.port())
    };
    let came = streams(before.iter().filter(|datagram| is_ours(enter, datagram.destination)));
    let went = streams(after.iter().filter(|datagram| is_ours(leave, datagram.source)));
    let mut passage = Passage::none()?;
    for entered in came.values() {
        let counted = entered.iter().filter(|stamp| span.holds(stamp.at_ns));
        passage.sent += counted.clone().count() as u64;
        // Two streams that came may leave as one: the relay hides a change of SSRC.
        let explanations = went.values().flat_map(|left| explanations(entered, left));
        let Some(right) = choose(explanations.collect()) else { continue };
        for latency in latencies(counted, right.left, right.constant).flatten() {
            passage.received += 1;
            passage.latency.saturating_record(latency.max(1));
        }
    }
    Ok(passage)
}

/// For each packet that came in how long until it went out; `None` where it did not.
fn latencies<'a>(
    came: impl Iterator<Item = &'a Stamp>,
    left: &[Stamp],
    constant: u32,
) -> impl Iterator<Item = Option<u64>> {
    // Packets of a DTMF event share a timestamp: the first that came is the first that left.
    let mut by_timestamp: HashMap<u32, VecDeque<u64>> = HashMap::new();
    for stamp in left {
        by_timestamp.entry(stamp.timestamp).or_default().push_back(stamp.at_ns);
    }
    came.map(move |stamp| {
        let at_ns = by_timestamp.get_mut(&stamp.timestamp.wrapping_add(constant))?.pop_front()?;
        let late = at_ns.cast_signed() - stamp.at_ns.cast_signed();
        (0..WINDOW_NS).contains(&late).then_some(late.unsigned_abs())
    })
}

/// One way in which a stream that left can be one that came.
#[derive(Debug, Clone, Copy)]
struct Explanation<'a> {
    left: &'a [Stamp],
    constant: u32,
    votes: usize,
    median: u64,
    spread: u64,
}

/// Constants between two streams' timestamps for which most packets would have passed.
fn explanations<'a>(came: &[Stamp], left: &'a [Stamp]) -> Vec<Explanation<'a>> {
    let mut votes: HashMap<u32, usize> = HashMap::new();
    let mut first = 0;
    let begin = came.first().map_or(0, |stamp| stamp.at_ns);
    for out in left.iter().skip_while(|out| out.at_ns < begin).take(VOTERS) {
        let late = |stamp: &Stamp| out.at_ns.cast_signed() - stamp.at_ns.cast_signed();
        while came.get(first).is_some_and(|stamp| late(stamp) >= WINDOW_NS) {
            first += 1;
        }
        for stamp in came[first..].iter().take_while(|stamp| late(stamp) >= 0) {
            *votes.entry(out.timestamp.wrapping_sub(stamp.timestamp)).or_default() += 1;
        }
    }
    let most = votes.values().max().copied().unwrap_or_default();
    let likely = votes.into_iter().filter(|(_, votes)| *votes * 10 >= most * 8);
    let explain = |(constant, votes)| {
        let (median, spread) = shape(latencies(came.iter(), left, constant).flatten().collect())?;
        Some(Explanation { left, constant, votes, median, spread })
    };
    likely.filter_map(explain).collect()
}

/// Packets come at even intervals, so being one packet off, or another call's stream, explains nearly as many. What tells
/// is that senders are never quite even, and that their unevenness carries over: the right latencies scatter least. Of
/// those that scatter alike the shortest is right.
fn choose(mut explanations: Vec<Explanation<'_>>) -> Option<Explanation<'_>> {
    let most = explanations.iter().map(|explanation| explanation.votes).max()?;
    explanations.retain(|explanation| explanation.votes * 10 >= most * 8);
    let least = explanations.iter().map(|explanation| explanation.spread).min()?;
    let alike = explanations.into_iter().filter(|it| it.spread <= least.saturating_mul(2) + 20_000);
    alike.min_by_key(|explanation| explanation.median)
}

/// Median, and distance between the quartiles.
fn shape(mut values: Vec<u64>) -> Option<(u64, u64)> {
    values.sort_unstable();
    let at = |part: usize| values.get(values.len() * part / 4).copied();
    Some((at(2)?, at(3)? - at(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTER: &str = "172.20.0.7:10000";
    const LEAVE: &str = "10.20.0.1:20000";

    fn rtp(at_ns: u64, from: &str, to: &str, sequence: u16, timestamp: u32, ssrc: u32) -> Captured {
        let mut payload = vec![0x80, 0];
        payload.extend(sequence.to_be_bytes());
        payload.extend(timestamp.to_be_bytes());
        payload.extend(ssrc.to_be_bytes());
        payload.extend([0xd5; 160]);
        Captured { at_ns, source: from.parse().unwrap(), destination: to.parse().unwrap(), dscp: 0, payload }
    }

    /// A number below `below` that looks random.
    fn scatter(n: u64, below: u64) -> u64 {
        let n = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (n ^ (n >> 31)) % below
    }

    /// 500 packets with sender jitter up to `jitter_ns`, which leave `latency_ns` and up to 30 us later.
    fn call(
        jitter_ns: u64,
        latency_ns: u64,
        shift: u32,
        lost: impl Fn(u64) -> bool,
    ) -> (Vec<Captured>, Vec<Captured>) {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for n in 0..500 {
            let at = 1_000_000_000_000 + n * 20_000_000 + scatter(n, jitter_ns);
            let timestamp = (u32::MAX - 40_000).wrapping_add(u32::try_from(n).unwrap() * 160);
            let sequence = (65_300 + n) as u16;
            before.push(rtp(at, "198.51.100.10:5000", ENTER, sequence, timestamp, 1));
            if !lost(n) {
                let at = at + latency_ns + scatter(n + 7, 30_000);
                after.push(rtp(at, LEAVE, "10.20.0.5:30000", n as u16, timestamp.wrapping_add(shift), 2));
            }
        }
        (before, after)
    }

    fn passage((before, after): &(Vec<Captured>, Vec<Captured>)) -> Passage {
        follow(before, ENTER.parse().unwrap(), after, LEAVE.parse().unwrap(), Span::ALWAYS).unwrap()
    }

    #[test]
    fn all_packets_are_found_whatever_the_shift() {
        for shift in [0, 1, 160, 0x8000_0000, u32::MAX] {
            let passage = passage(&call(2_000_000, 50_000, shift, |_| false));
            assert_eq!((passage.sent, passage.received, passage.lost()), (500, 500, 0), "{shift}");
            let p50 = passage.latency_us(50.0).unwrap();
            assert!((50.0..80.1).contains(&p50), "{shift}: {p50}");
        }
    }

    #[test]
    fn latency_beyond_a_packet_interval_is_told_from_the_next_packet() {
        let passage = passage(&call(2_000_000, 45_000_000, 0, |_| false));
        assert_eq!(passage.lost(), 0);
        assert!(passage.latency_us(50.0).unwrap() > 45_000.0);
    }

    #[test]
    fn an_even_sender_gets_the_shortest_latency() {
        let passage = passage(&call(1, 60_000, 77, |_| false));
        assert_eq!(passage.lost(), 0);
        assert!(passage.latency_us(99.0).unwrap() < 100.0);
    }

    #[test]
    fn lost_packets_are_counted_wherever_they_are() {
        let passage_of = |lost: fn(u64) -> bool| passage(&call(1_000_000, 50_000, 9, lost)).lost();
        assert_eq!(passage_of(|n| n == 250), 1);
        assert_eq!(passage_of(|n| n < 3), 3);
        assert_eq!(passage_of(|n| n >= 495), 5);
        assert_eq!(passage_of(|n| n % 2 == 0), 250);
        assert_eq!(passage_of(|_| true), 500);
    }

    #[test]
    fn packets_that_share_a_timestamp_are_told_apart() {
        let mut call = call(1_000_000, 50_000, 9, |_| false);
        for n in 300..310 {
            call.0[n].payload[4..8].copy_from_slice(&7u32.to_be_bytes());
            call.1[n].payload[4..8].copy_from_slice(&16u32.to_be_bytes());
        }
        assert_eq!(passage(&call).lost(), 0);
        call.1.remove(305);
        assert_eq!(passage(&call).lost(), 1);
    }

    #[test]
    fn only_the_span_counts() {
        let call = call(1_000_000, 50_000, 9, |n| n < 100);
        let span = Span { begin_ns: call.0[100].at_ns, end_ns: call.0[200].at_ns };
        let passage = follow(&call.0, ENTER.parse().unwrap(), &call.1, LEAVE.parse().unwrap(), span).unwrap();
        assert_eq!((passage.sent, passage.lost()), (100, 0));
    }

    #[test]
    fn streams_of_several_calls_are_not_mixed_up() {
        let (mut before, mut after) = call(2_000_000, 50_000, 5, |_| false);
        for n in 0..500u64 {
            let at = 1_000_000_300_000 + n * 20_000_000 + scatter(n + 1000, 1_900_000);
            let timestamp = u32::try_from(n).unwrap() * 160;
            before.push(rtp(at, "198.51.100.10:6000", ENTER, 1, timestamp, 11));
            let late = at + 90_000 + scatter(n, 30_000);
            after.push(rtp(late, "10.20.0.1:20002", "10.20.0.5:30002", 1, timestamp + 333, 12));
        }
        let leave = "10.20.0.1:0".parse().unwrap();
        let passage = follow(&before, ENTER.parse().unwrap(), &after, leave, Span::ALWAYS).unwrap();
        assert_eq!((passage.sent, passage.received), (1000, 1000));
        assert!(passage.latency_us(100.0).unwrap() < 130.0);
    }

    #[test]
    fn a_change_of_ssrc_that_the_relay_hides_is_no_loss() {
        let (mut before, after) = call(2_000_000, 50_000, 5, |_| false);
        for datagram in &mut before[250..] {
            let timestamp =
                u32::from_be_bytes(datagram.payload[4..8].try_into().unwrap()).wrapping_add(99_999);
            datagram.payload[4..8].copy_from_slice(&timestamp.to_be_bytes());
            datagram.payload[8..12].copy_from_slice(&77u32.to_be_bytes());
        }
        let passage = passage(&(before, after));
        assert_eq!((passage.sent, passage.lost()), (500, 0));
        assert!(passage.latency_us(100.0).unwrap() < 90.0);
    }

    #[test]
    fn rtcp_stun_and_rubbish_are_no_rtp() {
        let (mut before, after) = call(2_000_000, 50_000, 5, |_| false);
        for payload in
            [vec![0x80, 200, 0, 6], vec![0, 1, 0, 0], vec![22, 254, 253], vec![], vec![0x80], vec![0x80, 0]]
        {
            let mut other = before[0].clone();
            other.payload = payload;
            before.push(other);
        }
        assert_eq!(passage(&(before, after)).sent, 500);
    }
}
