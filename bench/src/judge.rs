//! `bench judge`: one long call in which everything happens that has silenced calls elsewhere, between real peers, judged by
//! SRTP that is not ours: aiortc's libsrtp and Chromium outside, where a phone plays; baresip's inside, where a browser does.

mod course;
mod inward;
mod outward;
mod verdict;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use nix::unistd::geteuid;
use sallyport_lab::appliance::{Appliance, Status};
use sallyport_lab::capture::{Capture, is_rtp};
use sallyport_lab::pcap::Captured;
use sallyport_lab::trouble::{Score, Tally};
use serde_json::json;

use crate::path::PathChoice;

pub use verdict::{Row, Verdict};

/// `/v1/status` is at most this old.
const STATUS_AGE: Duration = Duration::from_millis(1200);
/// How long a stream may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a long call tells how far it is.
const TOLD: Duration = Duration::from_secs(10);

/// Who judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Who {
    /// Outside: a browser in Python, with libsrtp.
    Aiortc,
    /// Inside, by keys in the SDP; with its own SRTP.
    Baresip,
    /// Outside.
    Chromium,
}

/// Options of `bench judge`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Who judges.
    #[arg(value_enum)]
    pub who: Who,
    /// Packets of 5 ms; 70,000 take six minutes.
    #[arg(long, default_value_t = 70_000, value_parser = clap::value_parser!(u32).range(400..=1_000_000))]
    pub packets: u32,
    /// A call of some twenty seconds instead, which comes to the end of its numbers by skipping most of them.
    #[arg(long)]
    pub short: bool,
    /// Has other troubles in the same places.
    #[arg(long, default_value_t = 0)]
    pub turn: usize,
    /// Way that packets are to take through the appliance.
    #[arg(long, value_enum, default_value = "xdp")]
    pub path: PathChoice,
    /// Longest gap that nobody asked for, milliseconds.
    #[arg(long, default_value_t = 60)]
    pub gap: u32,
    /// Write the figures there as one JSON object.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Plays the call and prints its table; success only where it passed.
///
/// # Errors
/// What could not be set up or did not answer.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if !geteuid().is_root() {
        eprintln!(
            "bench judge needs root, as bench try does: network namespaces, XDP, captures. Run it with sudo."
        );
        return Ok(ExitCode::from(2));
    }
    let begin = Instant::now();
    let mut say = |text: &str| eprintln!("[{:5.1} s] {text}", begin.elapsed().as_secs_f64());
    for name in sallyport_lab::sweep(false) {
        say(&format!("removed the dead lab {name}"));
    }
    let verdict = play(options, &mut say)?;
    print!("{verdict}");
    if let Some(path) = &options.json {
        let figures = json!({ "who": format!("{:?}", options.who), "turn": options.turn, "passed": verdict.passed(),
                              "rows": verdict.rows });
        fs::write(path, format!("{figures:#}\n")).with_context(|| path.display().to_string())?;
    }
    Ok(if verdict.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays one call.
///
/// # Errors
/// What could not be set up, or ended the call before its time.
pub fn play(options: &Options, say: &mut dyn FnMut(&str)) -> anyhow::Result<Verdict> {
    match options.who {
        Who::Aiortc | Who::Chromium => outward::play(options, say),
        Who::Baresip => inward::play(options, say),
    }
}

/// The sequence number of the first packet that the appliance sent onto a cable.
fn first_number(capture: &Capture, is_ours: impl Fn(&Captured) -> bool) -> anyhow::Result<u16> {
    let end = Instant::now() + PATIENCE;
    loop {
        let captured = capture.so_far()?;
        let first = captured.iter().find(|datagram| is_rtp(datagram) && is_ours(datagram));
        if let Some([_, _, high, low, ..]) = first.map(|datagram| datagram.payload.as_slice()) {
            return Ok(u16::from_be_bytes([*high, *low]));
        }
        if Instant::now() > end {
            bail!("nothing is heard of the stream that is to be judged");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// When packets of the judged stream passed a cable, nanoseconds.
fn arrivals(captured: &[Captured], is_ours: impl Fn(&Captured) -> bool) -> Vec<u64> {
    captured
        .iter()
        .filter(|datagram| is_rtp(datagram) && is_ours(datagram))
        .map(|datagram| datagram.at_ns)
        .collect()
}

/// Adds what a course has beyond the first packets.
fn go_on(options: &Options, score: &Score, mut course: course::Course, first: u16) {
    if options.short {
        let (troubles, end) = course.short(first);
        score.add(&troubles);
        score.end_at(end);
    } else {
        score.add(&course.long(options.packets, first));
    }
}

/// Waits until all was played; what that was.
fn wait(
    score: &Score,
    say: &mut dyn FnMut(&str),
    fault: impl Fn() -> Option<String>,
    received: impl Fn() -> String,
) -> anyhow::Result<Tally> {
    let (mut told, mut progress, mut sent) = (Instant::now(), Instant::now(), 0);
    loop {
        let tally = score.tally();
        if tally.done {
            // What is on its way, and in jitter buffers.
            std::thread::sleep(Duration::from_millis(700));
            return Ok(tally);
        }
        if let Some(fault) = fault() {
            bail!("the call ended before its time: {fault}");
        }
        let moved = tally.sent + tally.held;
        if moved != sent {
            (sent, progress) = (moved, Instant::now());
        }
        if progress.elapsed() > PATIENCE {
            bail!("nothing was sent for {PATIENCE:?}");
        }
        if told.elapsed() > TOLD {
            told = Instant::now();
            say(&format!("{} packets sent, {} troubles, {}", tally.sent, tally.troubles, received()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The appliance's state, with figures that cover everything up to now.
fn status(appliance: &Appliance) -> anyhow::Result<Status> {
    std::thread::sleep(STATUS_AGE);
    appliance.status()
}
