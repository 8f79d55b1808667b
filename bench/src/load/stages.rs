//! What one packet costs by stage, measured inside the harness: no kernel, no rings, hot caches. What the path costs beyond
//! the sum of these is the kernel's and the worker's.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, ensure};
use sallyport_core::{Inbound, Limits, Now, Tag, Translator, Verdict};
use sallyport_io::HEADROOM;
use sallyport_plan::{FlowKey, PortPair, Zone};
use sallyport_srtp::{Kind, OpenJob, Opener, Openers, SealJob, Sealer, Sealers, open_burst, seal_burst};
use sallyport_wire::{PacketBuf, frame};
use serde::{Deserialize, Serialize};

use super::mix::Mix;
use super::net::{INSIDE, OUTSIDE, Side};
use super::relay::plan;
use super::target::{FIRST, MEDIA, call};

/// Packets timed at once, of as many calls.
const BURST: usize = 32;
/// Bursts of each way; the median counts.
const ROUNDS: u16 = 1000;
/// Octets of a frame.
const FRAME: usize = 2048;

/// One stage of one way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stage {
    /// `inward` (browser to agent) or `outward`.
    pub way: String,
    /// `parse`, `open`, `rewrite`, `seal` or `headers`.
    pub name: String,
    /// Nanoseconds a packet, the median of many bursts.
    pub ns: f64,
}

/// One call: its flows, and its keys apart from the translator's.
struct Lane {
    outside: (FlowKey, Tag),
    inside: (FlowKey, Tag),
    browser: Sealer,
    opener: Opener,
    sealer: Sealer,
}

impl Lane {
    fn new(translator: &mut Translator, at: usize, suite: &str, mix: Mix) -> anyhow::Result<Self> {
        let call = call(at, suite, mix)?;
        let media = SocketAddr::new(OUTSIDE.parse()?, MEDIA);
        let inside: IpAddr = INSIDE.parse()?;
        let port = FIRST + 2 * u16::try_from(at)?;
        let ports = PortPair { rtp: SocketAddr::new(inside, port), rtcp: SocketAddr::new(inside, port + 1) };
        let changes = translator.install(plan(&call, media, ports), Now(0));
        changes.map_err(|refusal| anyhow::anyhow!("refused: {refusal}"))?;
        let flow = |zone, local, remote| {
            let key = FlowKey { zone, local, remote };
            translator.lookup(&key).map(|tag| (key, tag)).context("no such flow")
        };
        let wrong = |error| anyhow::anyhow!("key: {error:?}");
        Ok(Self {
            outside: flow(Zone::Outside, media, call.browser)?,
            inside: flow(Zone::Inside, ports.rtp, call.agent)?,
            browser: Sealer::new(&call.from_browser).map_err(wrong)?,
            opener: Opener::new(&call.from_browser).map_err(wrong)?,
            sealer: Sealer::new(&call.to_browser).map_err(wrong)?,
        })
    }
}

/// All calls: keys by their place.
struct Lanes(Vec<Lane>);

impl Openers for Lanes {
    fn opener(&self, at: u32) -> Option<&Opener> {
        self.0.get(at as usize).map(|lane| &lane.opener)
    }

    fn opener_mut(&mut self, at: u32) -> Option<&mut Opener> {
        self.0.get_mut(at as usize).map(|lane| &mut lane.opener)
    }
}

impl Sealers for Lanes {
    fn sealer(&self, at: u32) -> Option<&Sealer> {
        self.0.get(at as usize).map(|lane| &lane.sealer)
    }

    fn sealer_mut(&mut self, at: u32) -> Option<&mut Sealer> {
        self.0.get_mut(at as usize).map(|lane| &mut lane.sealer)
    }
}

/// Measures both ways.
///
/// # Errors
/// Where a packet is not forwarded: nothing was measured then.
pub fn measure(suite: &str, mix: Mix) -> anyhow::Result<Vec<Stage>> {
    let mut translator = Translator::new(0, Limits { calls: BURST, directions: 2 * BURST }, [7; 32]);
    let lanes = (0..BURST).map(|at| Lane::new(&mut translator, at, suite, mix));
    let mut lanes = Lanes(lanes.collect::<anyhow::Result<_>>()?);
    let mut stages = Vec::new();
    for side in [Side::Outside, Side::Inside] {
        let mut spent = [const { Vec::new() }; 4];
        for round in 0..ROUNDS {
            let times = burst(&mut translator, &mut lanes, side, round, mix)?;
            for (all, time) in spent.iter_mut().zip(times) {
                all.push(time);
            }
        }
        let [parse, translate, cipher, headers] = spent.map(median);
        let (way, ciphering) = if side == Side::Outside { ("inward", "open") } else { ("outward", "seal") };
        let rewrite = (translate - cipher).max(0.0);
        let mut named =
            vec![("parse", parse), ("rewrite", rewrite), (ciphering, cipher), ("headers", headers)];
        if side == Side::Outside {
            named.swap(1, 2);
        }
        stages.extend(named.into_iter().map(|(name, ns)| Stage { way: way.into(), name: name.into(), ns }));
    }
    Ok(stages)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Nanoseconds a packet of parsing, of translating, of the cipher alone, and of new headers.
fn burst(
    translator: &mut Translator,
    lanes: &mut Lanes,
    side: Side,
    round: u16,
    mix: Mix,
) -> anyhow::Result<[f64; 4]> {
    let mut frames = vec![[0u8; FRAME]; lanes.0.len()];
    let mut wholes = Vec::new();
    for (at, (bytes, lane)) in frames.iter_mut().zip(&mut lanes.0).enumerate() {
        wholes.push(arrive(bytes, lane, side, (round, mix.length(at, round.into(), 0)), mix)?);
    }
    let mut copies = frames.clone();
    let count = frames.len();
    let parse = timed(count, || {
        let both = black_box(&frames).iter().zip(&wholes);
        both.filter(|(bytes, whole)| black_box(frame::parse(&bytes[whole.start..whole.end])).is_ok()).count()
    })?;
    // 42 octets of Ethernet, IPv4 and UDP.
    let payloads: Vec<Range<usize>> = wholes.iter().map(|whole| whole.start + 42..whole.end).collect();
    let mut packets = bufs(&mut frames, &payloads)?;
    let now = Now(u64::from(round) * 20_000);
    let translate = timed(count, || {
        let inbound = lanes.0.iter().zip(&mut packets).map(|(lane, buf)| {
            let (key, tag) = if side == Side::Outside { lane.outside } else { lane.inside };
            Inbound::new(key, Some(tag), buf)
        });
        let mut inbound: Vec<_> = inbound.collect();
        translator.translate_burst(black_box(&mut inbound), now);
        inbound.iter().filter(|packet| matches!(packet.verdict, Verdict::Forward(_))).count()
    })?;
    let headers = timed(count, || {
        let both = packets.iter_mut().zip(&lanes.0);
        let made = both.filter_map(|(buf, lane)| {
            let (path, link) = match side {
                Side::Outside => (&lane.inside.0, Side::Inside.back_link()),
                Side::Inside => (&lane.outside.0, Side::Outside.back_link()),
            };
            frame::emit(buf, &link, path.local, path.remote).ok()
        });
        made.count()
    })?;
    let mut alone = bufs(&mut copies, &payloads)?;
    let cipher = timed(count, || cipher(lanes, side, black_box(&mut alone)))?;
    Ok([parse, translate, cipher, headers])
}

/// Opens or seals; how many packets it did.
fn cipher(lanes: &mut Lanes, side: Side, packets: &mut [PacketBuf<'_>]) -> usize {
    let numbered = (0..).zip(packets);
    if side == Side::Outside {
        let mut jobs: Vec<_> = numbered.map(|(at, buf)| OpenJob::new(at, Kind::Rtp, buf)).collect();
        open_burst(lanes, &mut jobs);
        jobs.iter().filter(|job| job.outcome.is_ok()).count()
    } else {
        let mut jobs: Vec<_> = numbered.map(|(at, buf)| SealJob::new(at, Kind::Rtp, buf)).collect();
        seal_burst(lanes, &mut jobs);
        jobs.iter().filter(|job| job.outcome.is_ok()).count()
    }
}

/// A frame as it arrives from the far end of `side`; where it lies.
fn arrive(
    bytes: &mut [u8; FRAME],
    lane: &mut Lane,
    side: Side,
    (round, length): (u16, usize),
    mix: Mix,
) -> anyhow::Result<Range<usize>> {
    let mut buf =
        PacketBuf::new(bytes, HEADROOM..HEADROOM + length).map_err(|_| anyhow::anyhow!("too long"))?;
    let packet = buf.packet_mut();
    packet.fill(0x5a);
    packet[..2].copy_from_slice(&[0x80, mix.payload_type()]);
    packet[2..4].copy_from_slice(&round.to_be_bytes());
    packet[4..8].copy_from_slice(&(u32::from(round) * mix.ticks()).to_be_bytes());
    packet[8..12].copy_from_slice(&[1, 2, 3, 4]);
    if side == Side::Outside {
        lane.browser.seal_rtp(&mut buf).map_err(|reason| anyhow::anyhow!("not sealed: {reason:?}"))?;
    }
    let key = if side == Side::Outside { &lane.outside.0 } else { &lane.inside.0 };
    let emitted = frame::emit(&mut buf, &side.link(), key.remote, key.local);
    emitted.map_err(|_| anyhow::anyhow!("no room for headers"))?;
    Ok(buf.range())
}

fn bufs<'f>(frames: &'f mut [[u8; FRAME]], payloads: &[Range<usize>]) -> anyhow::Result<Vec<PacketBuf<'f>>> {
    let both = frames.iter_mut().zip(payloads);
    let bufs = both.map(|(bytes, payload)| PacketBuf::new(bytes, payload.clone()));
    bufs.collect::<Result<_, _>>().map_err(|_| anyhow::anyhow!("a frame is too short"))
}

/// Nanoseconds by packet of `work`, which must say that it did all.
#[allow(clippy::cast_precision_loss)]
fn timed(packets: usize, work: impl FnOnce() -> usize) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let done = work();
    let spent = begin.elapsed().as_nanos() as f64;
    ensure!(done == packets, "{done} of {packets} packets passed a stage");
    Ok(spent / packets as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mix_and_suite_passes_every_stage() {
        for (suite, mix) in [("aes-cm", Mix::G711), ("gcm", Mix::Opus), ("aes-cm", Mix::Video)] {
            let stages = measure(suite, mix).unwrap();
            let names: Vec<_> = stages.iter().map(|stage| format!("{} {}", stage.way, stage.name)).collect();
            let inward = ["inward parse", "inward open", "inward rewrite", "inward headers"];
            let outward = ["outward parse", "outward rewrite", "outward seal", "outward headers"];
            assert_eq!(names, [inward, outward].concat());
        }
    }
}
