//! `bench setup`: how long the appliance takes to set up a call, how many a second it can, and what they leave behind.
//!
//! The harness plays browsers (HTTP, and with `--media` ICE and DTLS) and the called phone (SIP over UDP). The generator has
//! the first processor; relay and control have the second together.

pub mod phone;
pub mod web;

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::load::facts::machine;
use crate::load::net::{AGENT, Row, Shape, Side};
use crate::ng::target::{API_OUTSIDE, Figures, TOKEN, Target};
use phone::{Book, Moments};
use web::{Load, Seen};

/// Calls that the appliance may have at once.
const CALLS_MAX: usize = 5000;
/// Times that memory is looked at.
const LOOKS: u32 = 10;
/// Nanoseconds: 1 us to 60 s.
const RANGE_NS: (u64, u64) = (1_000, 60_000_000_000);
/// Beyond, a step of a sweep counts as broken: p99 of the whole set-up.
const BROKEN_NS: u64 = 1_000_000_000;

/// Options of `bench setup`.
#[derive(Args)]
pub struct Options {
    /// Calls a second; several, rising: one run each, until one breaks.
    #[arg(long, value_delimiter = ',', default_values = ["10"])]
    pub rate: Vec<f64>,
    /// Calls in each run.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub calls: u32,
    /// Milliseconds that each call stands.
    #[arg(long, default_value_t = 0)]
    pub hold: u64,
    /// Do ICE and DTLS too.
    #[arg(long)]
    pub media: bool,
    /// Browsers at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub browsers: u16,
    /// Way that packets would take.
    #[arg(long, default_value = "xdp", value_parser = ["xdp", "generic", "socket"])]
    pub path: String,
    /// Write the figures there as one JSON object.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What the programs had taken when so many calls had begun.
type Look = (usize, Vec<(&'static str, Figures)>);

/// One run.
struct Run {
    rate: f64,
    elapsed: Duration,
    /// Offer sent to INVITE heard; 200 sent to answer heard; due to connected (or answered): ns.
    inward: Histogram<u64>,
    outward: Histogram<u64>,
    whole: Histogram<u64>,
    done: usize,
    faults: BTreeMap<String, usize>,
    again: u64,
    looks: Vec<Look>,
}

impl Run {
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 calls")]
    fn achieved(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn is_broken(&self) -> bool {
        !self.faults.is_empty()
            || self.whole.value_at_percentile(99.0) > BROKEN_NS
            || self.achieved() < 0.95 * self.rate
    }
}

/// Runs and tells.
///
/// # Errors
/// What keeps it from running, calls that failed in the first run, or something that is left behind.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let row = Row::make(Shape::default()).context("network namespaces (needs root, iproute2, ethtool)")?;
    addresses(&row)?;
    let more = format!("[sip]\nserver = \"{AGENT}:5060\"\n");
    let target = Target::appliance_with(&row, &options.path, CALLS_MAX, &more)?;
    let mut first = nix::sched::CpuSet::new();
    first.set(0)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &first)?;
    let mut runs = Vec::new();
    for rate in &options.rate {
        eprintln!("{} calls at {rate} a second", options.calls);
        let run = one(&row, &target, options, *rate)?;
        print(&run, options);
        let broken = run.is_broken();
        runs.push(run);
        if broken {
            break;
        }
    }
    let left = target.left(&row)?;
    if let Some(path) = &options.json {
        let all: Vec<Value> = runs.iter().map(figures).collect();
        let value = json!({ "media": options.media, "path": options.path, "runs": all, "facts": machine() });
        fs::write(path, serde_json::to_string_pretty(&value)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(left) = left {
        bail!("left behind: {left}");
    }
    match runs.first() {
        Some(run) if !run.faults.is_empty() => bail!("calls failed at the first rate"),
        _ => Ok(()),
    }
}

/// Gives the far end outside the addresses of all browsers.
fn addresses(row: &Row) -> anyhow::Result<()> {
    let namespace = sallyport_lab::Namespace::named(row.namespace(Side::Outside.far()));
    let interface = Side::Outside.far_interface();
    let all = (0..usize::from(web::ADDRESSES)).map(web::address);
    let lines: String = all.map(|ip| format!("address add {ip}/24 dev {interface}\n")).collect();
    namespace.ip(&lines)
}

fn one(row: &Row, target: &Target, options: &Options, rate: f64) -> anyhow::Result<Run> {
    let calls = usize::try_from(options.calls)?;
    let book: Book = Arc::new((0..calls).map(|_| Moments::default()).collect());
    let socket = row.within("i", || Ok(UdpSocket::bind((AGENT, 5060))?))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = Load {
        calls,
        rate,
        hold: Duration::from_millis(options.hold),
        media: options.media,
        port: API_OUTSIDE,
        token: TOKEN,
    };
    let begin = Instant::now();
    let mut looks = vec![(0, target.figures())];
    let (again, outcomes) = std::thread::scope(|scope| {
        let phone = scope.spawn(|| phone::serve(&socket, &book, begin, &stop));
        let browsers: Vec<_> =
            (0..options.browsers).map(|_| scope.spawn(|| web::serve(row, &load, &next, begin))).collect();
        let every = (calls / LOOKS as usize).max(1);
        while browsers.iter().any(|browser| !browser.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            let done = next.load(Ordering::Relaxed).min(calls);
            if done / every >= looks.len() {
                looks.push((done, target.figures()));
            }
        }
        let outcomes: Vec<_> = browsers.into_iter().filter_map(|browser| browser.join().ok()).collect();
        // BYEs of the last calls.
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        (phone.join().unwrap_or_default(), outcomes)
    });
    let elapsed = begin.elapsed().saturating_sub(Duration::from_millis(200));
    let (seen, faults): (Vec<Vec<Seen>>, Vec<Vec<String>>) = outcomes.into_iter().unzip();
    judge(rate, elapsed, &book, (seen.concat(), faults.concat()), (again, looks))
}

fn judge(
    rate: f64,
    elapsed: Duration,
    book: &Book,
    (seen, texts): (Vec<Seen>, Vec<String>),
    (again, looks): (u64, Vec<Look>),
) -> anyhow::Result<Run> {
    let histogram = || Histogram::new_with_bounds(RANGE_NS.0, RANGE_NS.1, 3);
    let (mut inward, mut outward, mut whole) = (histogram()?, histogram()?, histogram()?);
    let mut faults: BTreeMap<String, usize> = BTreeMap::new();
    for text in texts {
        *faults.entry(text).or_default() += 1;
    }
    let note = |histogram: &mut Histogram<u64>, from: u64, to: u64| {
        histogram.saturating_record(to.saturating_sub(from).clamp(RANGE_NS.0, RANGE_NS.1));
    };
    for call in &seen {
        let Some(moments) = book.get(call.number) else { continue };
        let read = |moment: &std::sync::atomic::AtomicU64| moment.load(Ordering::Relaxed);
        note(&mut inward, call.sent, read(&moments.invited));
        note(&mut outward, read(&moments.accepted), call.answered);
        note(&mut whole, call.due, call.connected.unwrap_or(call.answered));
        if read(&moments.ended) == 0 {
            *faults.entry("the phone heard no BYE".into()).or_default() += 1;
        }
    }
    Ok(Run { rate, elapsed, inward, outward, whole, done: seen.len(), faults, again, looks })
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 ns")]
fn ms(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1e6
}

const ROWS: [&str; 3] = ["POST to INVITE", "200 to answer", "all of it"];

fn print(run: &Run, options: &Options) {
    let kind = if options.media { "ICE and DTLS too" } else { "signalling only" };
    println!(
        "{} calls at {:.0} a second ({kind}): {:.1} a second, {} failed{}",
        run.done,
        run.rate,
        run.achieved(),
        run.faults.values().sum::<usize>(),
        if run.is_broken() { "; BROKEN" } else { "" }
    );
    println!("{:<16} {:>9} {:>9} {:>9} {:>9}", "ms", "p50", "p99", "p99.9", "max");
    for (name, histogram) in ROWS.into_iter().zip([&run.inward, &run.outward, &run.whole]) {
        let [p50, p99, p999, max] = [50.0, 99.0, 99.9, 100.0].map(|percentile| ms(histogram, percentile));
        println!("{name:<16} {p50:>9.2} {p99:>9.2} {p999:>9.2} {max:>9.2}");
    }
    println!("requests that the phone heard again: {}", run.again);
    for (fault, count) in &run.faults {
        println!("{count:>6} x {fault}");
    }
    for (done, programs) in &run.looks {
        print!("after {done:>9} calls:");
        for (name, figures) in programs {
            print!(
                "  {name} {:>7} KiB, {:>4} descriptors, {:>6.2} s CPU",
                figures.resident, figures.descriptors, figures.cpu
            );
        }
        println!();
    }
}

fn figures(run: &Run) -> Value {
    let each = |histogram: &Histogram<u64>| json!({ "p50": ms(histogram, 50.0), "p99": ms(histogram, 99.0), "p999": ms(histogram, 99.9), "max": ms(histogram, 100.0) });
    let looks: Vec<Value> = run
        .looks
        .iter()
        .map(|(done, programs)| {
            let held: serde_json::Map<String, Value> = programs
                .iter()
                .map(|(name, figures)| {
                    let value = json!({ "kib": figures.resident, "descriptors": figures.descriptors, "cpu_s": figures.cpu });
                    ((*name).to_owned(), value)
                })
                .collect();
            json!({ "calls": done, "programs": held })
        })
        .collect();
    json!({
        "rate": run.rate, "achieved": run.achieved(), "calls": run.done, "faults": run.faults, "broken": run.is_broken(),
        "again": run.again, "looks": looks,
        "ms": { "post_to_invite": each(&run.inward), "ok_to_answer": each(&run.outward), "whole": each(&run.whole) },
    })
}
