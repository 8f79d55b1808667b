//! `bench run`, `limit`, `peers` and `compare`: latency, capacity and cost of the packet path, beside the floor of the wire
//! alone, a bare forwarder, and rtpengine.
//!
//! No browser and no SIP: the harness plays control (or Kamailio) toward what it measures, and sends calls both ways on
//! schedule, SRTP outside and RTP inside. The generator has the first processor, what is measured the others.

pub mod bare;
pub mod capture;
pub mod compare;
pub mod drive;
pub mod facts;
pub mod mix;
pub mod net;
pub mod options;
pub mod page;
pub mod relay;
pub mod report;
pub mod residence;
pub mod results;
pub mod rtpengine;
pub mod search;
pub mod stages;
pub mod station;
pub mod table;
pub mod target;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_plan::Status;
use serde_json::{Value, json};

use bare::Bare;
use capture::Capture;
use drive::{Generator, WARM_UP};
use facts::{Asked, facts};
use net::{Row, Shape};
use options::{Common, CompareOptions, DrawOptions, LimitOptions, Load, RunOptions, Who};
use report::{Cost, Limit, Measured};
use results::{FORMAT, Point, Results};
use rtpengine::Rtpengine;
use target::{Relay, RelayOptions, Target, Wire};

/// Calls that a search may come to.
const CALLS_MAX: usize = 10_000;
/// Calls at which the floor beside capacities is taken; the others with `--sweep` only.
const FLOOR_CALLS: [usize; 3] = [100, 400, 1600];
/// Percent of its limit that a target is measured at for `--sweep`; half and all of it are measured anyway.
const SWEEP: [usize; 4] = [10, 25, 75, 90];

impl Who {
    fn start(self, row: &Row, common: &Common) -> anyhow::Result<Box<dyn Target>> {
        let relay = |path: &str| Relay::start(row, &relay_options(path, common, CALLS_MAX)).map(Box::new);
        Ok(match self {
            Self::Xdp => relay("xdp")?,
            Self::Generic => relay("generic")?,
            Self::Socket => relay("socket")?,
            Self::Bare => Box::new(Bare::start(row, &common.suite, CALLS_MAX)?),
            Self::Plain => Box::new(Bare::start(row, "none", CALLS_MAX)?),
            Self::Rtpengine => Box::new(Rtpengine::start(row, common.mix)?),
        })
    }
}

fn relay_options(path: &str, common: &Common, calls: usize) -> RelayOptions {
    let (path, suite) = (path.to_owned(), common.suite.clone());
    RelayOptions { program: None, name: None, path, suite, mix: common.mix, calls, residence: false }
}

/// Measures the wire, then our relay, with the same load.
///
/// # Errors
/// What keeps the load from running.
pub fn run(options: &RunOptions) -> anyhow::Result<()> {
    let RunOptions { load, common, .. } = options;
    let row = make(common.shape(options.capture))?;
    let mut generator = Generator::open(&row, common.mix)?;
    let mut results = begin("run", common, &row, load.calls);
    let mut bench =
        Bench { row: &row, generator: &mut generator, duration: duration(common), capture: options.capture };
    results.floor = bench.floor(&[load.calls.into()])?;
    table::print_floor(&results.floor);
    for _ in 0..common.repeat {
        eprintln!(
            "relay: {} calls for {} s by {} and {}",
            load.calls, common.seconds, load.path, common.suite
        );
        if load.path == "bare" {
            let mut bare = Bare::start(&row, &common.suite, CALLS_MAX)?;
            results.rows.push(bench.measure(&mut bare, load.calls.into())?.point());
            continue;
        }
        let relay = RelayOptions { residence: true, ..relay_options(&load.path, common, CALLS_MAX) };
        let mut relay = Relay::start(&row, &relay)?;
        let measured = bench.measure(&mut relay, load.calls.into())?;
        let status = relay.status()?;
        results.rows.push(measured.with_residence(residence::of(&status)?).point());
        add_status(&mut results, &status);
    }
    finish(results, common, table::print_rows)
}

/// Searches each target's most calls without loss, then measures it at half of that.
///
/// # Errors
/// What keeps a load from running.
pub fn limit(command: &str, options: &LimitOptions, default: &[Who]) -> anyhow::Result<()> {
    let LimitOptions { common, sweep, .. } = options;
    let who = if options.who.is_empty() { default } else { &options.who };
    let shape = common.shape(false);
    let mut results = floor_of(command, options)?;
    table::print_floor(&results.floor);
    for who in (0..common.repeat).flat_map(|_| who) {
        if *who == Who::Rtpengine && !sallyport_lab::installed("rtpengine") {
            eprintln!("SKIPPED: rtpengine is not installed (Debian: rtpengine-daemon)");
            continue;
        }
        // A world of its own for each: no target meets what another left.
        let row = make(shape)?;
        let mut generator = Generator::open(&row, common.mix)?;
        eprintln!("{who:?}: searching");
        let mut fresh = || who.start(&row, common);
        let limit = search::search(&mut generator, &mut fresh, duration(common))?;
        let points =
            if *sweep { sweep_below(&limit, &mut generator, &mut fresh, common)? } else { Vec::new() };
        results.limits.push(limit.capacity(points));
    }
    finish(results, common, table::print_limits)
}

fn floor_of(command: &str, options: &LimitOptions) -> anyhow::Result<Results> {
    let common = &options.common;
    let row = make(common.shape(false))?;
    let mut generator = Generator::open(&row, common.mix)?;
    let mut results = begin(command, common, &row, 0);
    let mut bench =
        Bench { row: &row, generator: &mut generator, duration: duration(common), capture: false };
    results.floor = bench.floor(if options.sweep { &FLOOR_CALLS } else { &FLOOR_CALLS[..1] })?;
    Ok(results)
}

/// Loads below a limit that the search did not leave figures of.
fn sweep_below(
    limit: &Limit,
    generator: &mut Generator,
    fresh: &mut dyn FnMut() -> anyhow::Result<Box<dyn Target>>,
    common: &Common,
) -> anyhow::Result<Vec<Point>> {
    let loads = SWEEP.iter().map(|percent| limit.calls * percent / 100).filter(|calls| *calls > 0);
    loads
        .map(|calls| {
            eprintln!("  {calls} calls, below the limit");
            Ok(measure(generator, fresh()?.as_mut(), calls, duration(common))?.point())
        })
        .collect()
}

/// Reads two result files, or runs two relays in turn, and tells what changed.
///
/// # Errors
/// Where the two are not of one kind, cannot be read, or a load does not run.
pub fn compare(options: &CompareOptions) -> anyhow::Result<()> {
    let CompareOptions { before, after, common, .. } = options;
    let results = match (before.is_dir(), after.is_dir()) {
        (false, false) => compare::join(&Results::read(before)?, &Results::read(after)?),
        (true, true) => run_both(options)?,
        _ => bail!("two result files or two folders with a sallyport-relay, please: not one of each"),
    };
    finish_with(&results, common, compare::print)
}

/// Runs two relays in turn, so that what the machine does meanwhile meets both.
fn run_both(options: &CompareOptions) -> anyhow::Result<Results> {
    let CompareOptions { load, common, .. } = options;
    anyhow::ensure!(load.path != "bare", "two relays are compared: not the bare forwarder");
    let row = make(common.shape(false))?;
    let mut generator = Generator::open(&row, common.mix)?;
    let mut both = [(); 2].map(|()| begin("run", common, &row, load.calls));
    let mut bench =
        Bench { row: &row, generator: &mut generator, duration: duration(common), capture: false };
    both[0].floor = bench.floor(&[load.calls.into()])?;
    table::print_floor(&both[0].floor);
    for turn in 1..=common.repeat {
        for (results, folder) in both.iter_mut().zip([&options.before, &options.after]) {
            eprintln!("turn {turn} of {}: {}", common.repeat, folder.display());
            results.rows.push(run_one(&mut bench, load, common, folder.join("sallyport-relay"))?);
        }
    }
    let [before, after] = both;
    Ok(compare::join(&before, &after))
}

fn run_one(bench: &mut Bench<'_>, load: &Load, common: &Common, program: PathBuf) -> anyhow::Result<Point> {
    let options = relay_options(&load.path, common, CALLS_MAX);
    let mut relay = Relay::start(bench.row, &RelayOptions { program: Some(program), ..options })?;
    Ok(bench.measure(&mut relay, load.calls.into())?.point())
}

/// Draws a result file.
///
/// # Errors
/// Where one cannot be read or the other not be written.
pub fn draw(options: &DrawOptions) -> anyhow::Result<()> {
    page::write(&options.page, &Results::read(&options.results)?)
}

/// A row, its generator, and how to measure.
struct Bench<'r> {
    row: &'r Row,
    generator: &'r mut Generator,
    duration: Duration,
    capture: bool,
}

impl Bench<'_> {
    /// The wire alone under each of these loads, as far as it carries them.
    fn floor(&mut self, loads: &[usize]) -> anyhow::Result<Vec<Point>> {
        self.row.forward(true)?;
        let mut points: Vec<Point> = Vec::new();
        for calls in loads {
            eprintln!("wire: {calls} calls through the kernel's own forwarding");
            let measured = self.measure(&mut Wire, *calls)?;
            if !points.is_empty() && !search::passes(&measured) {
                break;
            }
            points.push(measured.point());
        }
        self.row.forward(false)?;
        Ok(points)
    }

    fn measure(&mut self, target: &mut dyn Target, calls: usize) -> anyhow::Result<Measured> {
        if !self.capture {
            return measure(self.generator, target, calls, self.duration);
        }
        let mut ends = Vec::new();
        let (cost, capture) = (target.cost(), Capture::start(self.row)?);
        let measured = measure_with(self.generator, target, (calls, &mut ends), self.duration, cost)?;
        Ok(measured.with_capture(capture.stop(&ends)?))
    }
}

/// One run of `calls` calls through a target.
fn measure(
    generator: &mut Generator,
    target: &mut dyn Target,
    calls: usize,
    duration: Duration,
) -> anyhow::Result<Measured> {
    let cost = target.cost();
    measure_with(generator, target, (calls, &mut Vec::new()), duration, cost)
}

#[allow(clippy::cast_precision_loss)]
fn measure_with(
    generator: &mut Generator,
    target: &mut dyn Target,
    (calls, ends): (usize, &mut Vec<drive::End>),
    duration: Duration,
    idle: Option<(f64, u64)>,
) -> anyhow::Result<Measured> {
    let begin = Instant::now();
    target.extend(ends, calls)?;
    let setup = begin.elapsed().as_secs_f64();
    generator.expect(ends)?;
    let before = target.cost();
    let load = generator.run(ends, duration)?;
    let after = target.cost();
    // Where nobody counts cost, nobody sets up calls either.
    let idle = idle.filter(|_| target.learns());
    // Warm-up packets cost as well, and are not counted.
    let share = (duration + WARM_UP).as_secs_f64() / duration.as_secs_f64();
    let packets = (load.inward.received + load.outward.received).max(1) as f64 * share;
    let memory =
        |idle: (f64, u64), before: (f64, u64)| before.1.saturating_sub(idle.1) as f64 / calls.max(1) as f64;
    let cost = Cost {
        cpu_us_per_packet: before.zip(after).map(|(before, after)| (after.0 - before.0) * 1e6 / packets),
        kib_per_call: idle.zip(before).map(|(idle, before)| memory(idle, before)),
        setup_calls_per_second: idle.map(|_| calls as f64 / setup.max(1e-9)),
    };
    Ok(Measured::new(target.name(), calls, load, cost))
}

fn make(shape: Shape) -> anyhow::Result<Row> {
    Row::make(shape).context("network namespaces (needs root, iproute2, ethtool)")
}

fn duration(common: &Common) -> Duration {
    Duration::from_secs(common.seconds.into())
}

fn begin(command: &str, common: &Common, row: &Row, calls: u16) -> Results {
    let Common { seconds, repeat, mix, suite, .. } = common;
    let (seconds, repeat, mix, workers, queues) = (*seconds, *repeat, *mix, row.workers, row.queues);
    let facts = facts(&Asked { calls, seconds, repeat, mix, suite, workers, queues });
    Results { format: FORMAT, command: command.into(), facts, ..Results::default() }
}

/// Adds what the relay says of itself.
fn add_status(results: &mut Results, status: &Status) {
    let interfaces = status.interfaces.iter().map(
        |interface| json!({ "name": interface.name, "path": interface.path, "queues": interface.queues }),
    );
    results.facts.insert("interfaces".into(), interfaces.collect());
    results.facts.insert("workers".into(), status.workers.into());
    // Who carried what, and what had to be handed over.
    let tells =
        |name: &str| name.starts_with("received") || name == "strays" || name == "drop_stray_overflow";
    let shares = status.counters.iter().filter(|counter| tells(&counter.name));
    let shares = shares.map(|counter| (counter.name.clone(), counter.value.into())).collect();
    results.facts.insert("shares".into(), Value::Object(shares));
}

/// Prints, and writes what was asked for.
fn finish(mut results: Results, common: &Common, print: impl FnOnce(&Results)) -> anyhow::Result<()> {
    if common.json.is_some() || common.html.is_some() {
        results.stages = stages::measure(&common.suite, common.mix)?;
    }
    finish_with(&results, common, print)
}

fn finish_with(results: &Results, common: &Common, print: impl FnOnce(&Results)) -> anyhow::Result<()> {
    print(results);
    if let Some(file) = &common.json {
        results.write(file)?;
    }
    if let Some(file) = &common.html {
        page::write(file, results)?;
    }
    Ok(())
}
