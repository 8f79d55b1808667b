//! What statistics cost a packet: bursts of G.711 through a translator of many plain calls, without and with the statistics
//! of each packet kept once more beside it (reception, and how long it stayed), in turns; the difference is their cost.
//!
//! `cargo bench -p sallyport-core --bench quality`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails as a test does")]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use sallyport_core::{Arrival, Inbound, Limits, Now, Quality, Tag, Translator, Verdict};
use sallyport_plan::{
    CallId, Clock, Digits, Direction, DirectionIndex, Extensions, FlowKey, Format, Medium, Mute, Passage,
    Plan, Protection, Pt, PtMap, Resend, Ssrc, Zone,
};
use sallyport_srtp::prefetch;
use sallyport_wire::PacketBuf;

const CALLS: [usize; 2] = [50, 2000];
const BURST: usize = 32;
/// Bursts of one round, and rounds.
const BURSTS: usize = 2000;
const ROUNDS: usize = 41;
/// Header and 20 ms of G.711.
const LENGTH: usize = 12 + 160;
const FRAME: usize = 256;

fn flow(zone: Zone, local: u16, remote: u32) -> FlowKey {
    let [_, a, b, c] = remote.to_be_bytes();
    let local = SocketAddr::from(([10, 0, 0, 1], local));
    FlowKey { zone, local, remote: SocketAddr::from(([10, a, b, c], 4000)) }
}

fn call(number: usize) -> Plan {
    let (one, other) =
        (flow(Zone::Outside, 10_000, number as u32), flow(Zone::Inside, 20_000, number as u32));
    let direction = |index, reverse, from, to| Direction {
        index: DirectionIndex(index),
        medium: Medium::Audio,
        ingress: vec![from],
        open: Some(Protection::Plain),
        seal: Some(Protection::Plain),
        rtp: to,
        rtcp: to,
        passage: Passage::Translated,
        ssrc: Ssrc(number as u32 * 2 + u32::from(index)),
        payload_types: vec![PtMap { from: Pt(0), to: Pt(0), format: Format::Media(Clock::Hz8000) }],
        extensions: Extensions::default(),
        digits: Digits::Pass,
        resend: Resend::Never,
        fork: None,
        learns: false,
        reverse: DirectionIndex(reverse),
        mute: Mute::Open,
    };
    let directions = vec![direction(0, 1, one, other), direction(1, 0, other, one)];
    Plan { call: CallId(number as u128), version: 1, directions, consents: vec![], record: vec![] }
}

struct Bench {
    core: Translator,
    flows: Vec<(FlowKey, Tag)>,
    beside: Vec<Quality>,
    sequences: Vec<u16>,
    frames: Vec<u8>,
    random: u32,
    now: u64,
}

impl Bench {
    fn new(calls: usize) -> Self {
        let mut core = Translator::new(0, Limits { calls, directions: 2 * calls }, [7; 32]);
        let flows: Vec<_> = (0..calls)
            .flat_map(|number| core.install(call(number), Now(0)).expect("a sound plan").insert)
            .collect();
        Self {
            beside: vec![Quality::default(); flows.len()],
            sequences: vec![0; flows.len()],
            flows,
            core,
            frames: vec![0; BURST * FRAME],
            random: 1,
            now: 1_000_000,
        }
    }

    /// Nanoseconds a packet of one round.
    fn round(&mut self, beside: bool) -> f64 {
        let mut spent = 0;
        for _ in 0..BURSTS {
            let chosen: [usize; BURST] = std::array::from_fn(|_| {
                self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (self.random >> 8) as usize % self.flows.len()
            });
            self.now += 100;
            let arrivals = self.speak(&chosen);
            let frames = self.frames.chunks_exact_mut(FRAME);
            let mut bufs: Vec<_> =
                frames.map(|frame| PacketBuf::new(frame, 0..LENGTH).expect("a frame holds it")).collect();
            let packets = chosen.iter().zip(&mut bufs);
            let mut packets: Vec<_> = packets
                .map(|(at, buf)| Inbound::new(self.flows[*at].0, Some(self.flows[*at].1), buf))
                .collect();
            let begin = Instant::now();
            self.core.arriving();
            if beside {
                // As the translator fetches a direction: well before its packet's turn.
                chosen.iter().for_each(|at| prefetch(&self.beside[*at]));
            }
            self.core.translate_burst(&mut packets, Now(self.now));
            if beside {
                for (at, arrival) in arrivals.iter().enumerate() {
                    self.beside[chosen[at]].arrive(arrival, Now(self.now));
                }
                for at in chosen {
                    self.beside[at].stay(5000);
                }
            }
            spent += begin.elapsed().as_nanos();
            assert!(packets.iter().all(|packet| matches!(packet.verdict, Verdict::Forward(_))));
            black_box(&packets);
        }
        spent as f64 / (BURSTS * BURST) as f64
    }

    /// Writes the next packet of each chosen direction.
    fn speak(&mut self, chosen: &[usize; BURST]) -> [Arrival; BURST] {
        let mut frames = self.frames.chunks_exact_mut(FRAME);
        chosen.map(|at| {
            self.sequences[at] = self.sequences[at].wrapping_add(1);
            let (sequence, ssrc) = (self.sequences[at], at as u32);
            let timestamp = u32::from(sequence) * 160;
            let frame = frames.next().expect("one for each");
            frame[..2].copy_from_slice(&[0x80, 0]);
            frame[2..4].copy_from_slice(&sequence.to_be_bytes());
            frame[4..8].copy_from_slice(&timestamp.to_be_bytes());
            frame[8..12].copy_from_slice(&ssrc.to_be_bytes());
            Arrival { ssrc, sequence, timestamp, payload_type: 0, clock: 8000, begins: false }
        })
    }
}

fn main() {
    println!("bursts of {BURST}, least of {ROUNDS} rounds (others only had more to bear), ns a packet");
    CALLS.into_iter().for_each(run);
}

fn run(calls: usize) {
    let mut bench = Bench::new(calls);
    let mut rounds = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (at, rounds) in rounds.iter_mut().enumerate() {
            rounds.push(bench.round(at == 1));
        }
    }
    let [once, twice] = rounds.map(|mut rounds| {
        rounds.sort_by(f64::total_cmp);
        rounds[0]
    });
    let cost = twice - once;
    println!("{calls:5} plain calls: {once:.1}, with statistics kept twice {twice:.1}: they cost {cost:.1}");
}
