//! `bench ng`: calls a second over rtpengine's NG protocol, and what they leave behind.
//!
//! The harness plays Kamailio on the appliance's own loopback: offer, answer, delete, each by the words of its rtpengine
//! module, so many calls at once. The generator has the first processor; relay and control have the second together.

pub mod cycle;
pub mod drive;
pub mod target;

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::load::net::Row;
use crate::load::report::facts;
use cycle::{Kind, STEPS};
use drive::{Driver, Load, Outcome};
use target::{Figures, Target};

/// Times that memory is looked at.
const LOOKS: u64 = 10;
/// Calls that the appliance may have at once.
const CALLS_MAX: usize = 2000;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Who {
    /// Our relay and control.
    Sallyport,
    /// rtpengine in userspace.
    Rtpengine,
}

/// Options of `bench ng`.
#[derive(Args)]
pub struct Options {
    /// Who is asked.
    #[arg(value_enum, default_value = "sallyport")]
    pub who: Who,
    /// Calls in all.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub cycles: u64,
    /// Calls a second; without it as fast as they are answered.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// Calls at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub window: u16,
    /// Who calls whom, in turn.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["browser", "called", "sdes"])]
    pub kind: Vec<Kind>,
    /// Way that packets would take.
    #[arg(long, default_value = "xdp", value_parser = ["xdp", "generic", "socket"])]
    pub path: String,
    /// Write the figures there as one JSON object.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What the programs had taken when so many cycles were over.
type Look = (u64, Vec<(&'static str, Figures)>);

/// Runs all cycles and tells what they took.
///
/// # Errors
/// What keeps them from running, or calls that are left behind.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let row = Row::make().context("network namespaces (needs root, iproute2, ethtool)")?;
    let target = match options.who {
        Who::Sallyport => Target::appliance(&row, &options.path, CALLS_MAX)?,
        Who::Rtpengine => Target::rtpengine(&row)?,
    };
    let mut first = nix::sched::CpuSet::new();
    first.set(0)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &first)?;
    let server = Target::server()?;
    let socket = row.within("d", || {
        let socket = UdpSocket::bind((server.ip(), 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })?;
    let load = Load {
        cycles: options.cycles,
        rate: options.rate.map(f64::from),
        window: options.window.into(),
        kinds: options.kind.clone(),
    };
    let mut looks: Vec<Look> = vec![(0, target.figures())];
    let every = options.cycles.div_ceil(LOOKS);
    let outcome = Driver::new(&socket, &load)?.run(every, |done| looks.push((done, target.figures())))?;
    if looks.last().is_none_or(|(done, _)| *done < options.cycles) {
        looks.push((options.cycles, target.figures()));
    }
    let left = target.left(&row)?;
    print(target.name, options, &outcome, &looks);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&figures(target.name, options, &outcome, &looks))?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match left {
        Some(left) => bail!("left behind: {left}"),
        None => Ok(()),
    }
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 of anything")]
fn rate(options: &Options, outcome: &Outcome) -> f64 {
    options.cycles as f64 / outcome.elapsed.as_secs_f64().max(1e-9)
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 ns")]
fn us(outcome: &Outcome, step: usize, percentile: f64) -> f64 {
    outcome.latency.get(step).map_or(0.0, |latency| latency.value_at_percentile(percentile) as f64 / 1000.0)
}

/// CPU time of each program by cycle, us.
#[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 of anything")]
fn cpu(options: &Options, looks: &[Look]) -> Vec<(&'static str, f64)> {
    let (Some((_, before)), Some((_, after))) = (looks.first(), looks.last()) else { return Vec::new() };
    let each = before.iter().zip(after);
    each.map(|((name, before), (_, after))| (*name, (after.cpu - before.cpu) * 1e6 / options.cycles as f64))
        .collect()
}

fn print(name: &str, options: &Options, outcome: &Outcome, looks: &[Look]) {
    println!(
        "{name}: {} cycles of {:?}, {} at once: {:.0} a second",
        options.cycles,
        options.kind,
        options.window,
        rate(options, outcome)
    );
    println!("{:<10} {:>10} {:>10} {:>10} {:>10}", "reply, us", "p50", "p99", "p99.9", "max");
    for (step, name) in STEPS.into_iter().enumerate() {
        let [p50, p99, p999, max] = [50.0, 99.0, 99.9, 100.0].map(|percentile| us(outcome, step, percentile));
        println!("{name:<10} {p50:>10.0} {p99:>10.0} {p999:>10.0} {max:>10.0}");
    }
    let each: Vec<String> =
        cpu(options, looks).iter().map(|(name, us)| format!("{name} {us:.0} us")).collect();
    println!("CPU a cycle: {}", each.join(", "));
    println!(
        "sent again: {}, unanswered: {}, errors: {:?}",
        outcome.again, outcome.unanswered, outcome.errors
    );
    for (done, programs) in looks {
        print!("after {done:>9} cycles:");
        for (name, figures) in programs {
            print!("  {name} {:>7} KiB, {:>4} descriptors", figures.resident, figures.descriptors);
        }
        println!();
    }
}

fn figures(name: &str, options: &Options, outcome: &Outcome, looks: &[Look]) -> Value {
    let steps: serde_json::Map<String, Value> = STEPS
        .into_iter()
        .enumerate()
        .map(|(step, name)| {
            let reply = json!({ "p50": us(outcome, step, 50.0), "p99": us(outcome, step, 99.0), "max": us(outcome, step, 100.0) });
            (name.to_owned(), reply)
        })
        .collect();
    let told: Vec<Value> = looks
        .iter()
        .map(|(done, programs)| {
            let each = |(name, figures): &(&str, Figures)| {
                let held = json!({ "kib": figures.resident, "descriptors": figures.descriptors });
                ((*name).to_owned(), held)
            };
            json!({ "cycles": done, "programs": programs.iter().map(each).collect::<serde_json::Map<_, _>>() })
        })
        .collect();
    let kinds: Vec<String> = options.kind.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
    json!({
        "name": name, "cycles": options.cycles, "window": options.window, "kinds": kinds, "path": options.path,
        "cycles_per_second": rate(options, outcome), "us": steps,
        "cpu_us_per_cycle": cpu(options, looks).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "again": outcome.again, "unanswered": outcome.unanswered, "errors": outcome.errors, "looks": told,
        "facts": facts(0, 0),
    })
}
