//! `bench run`, `limit` and `peers`: latency, capacity and cost of the packet path, beside the floor of the wire alone, a bare
//! forwarder, and rtpengine.
//!
//! No browser and no SIP: the harness plays control (or Kamailio) toward what it measures, and sends G.711 both ways on
//! schedule, SRTP outside and RTP inside. The generator has the first processor, what is measured the second.

pub mod bare;
pub mod drive;
pub mod net;
pub mod relay;
pub mod report;
pub mod rtpengine;
pub mod search;
pub mod station;
pub mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use bare::Bare;
use drive::Generator;
use net::Row;
use report::{Limit, Measured, Report, facts};
use rtpengine::Rtpengine;
use target::{Relay, Target, Wire};

/// Calls that a search may come to.
const CALLS_MAX: usize = 8000;

/// Options of `bench run`.
#[derive(Args)]
pub struct Options {
    /// Calls at once, each 50 packets a second both ways.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=8000))]
    pub calls: u16,
    /// Seconds of load for each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Way that packets take.
    #[arg(long, default_value = "xdp", value_parser = ["xdp", "generic", "socket"])]
    pub path: String,
    /// Protection outside.
    #[arg(long, default_value = "aes-cm", value_parser = ["aes-cm", "gcm"])]
    pub suite: String,
    /// Write the figures there as one JSON object.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Who {
    /// Our relay by native XDP.
    Xdp,
    /// Our relay by generic XDP.
    Generic,
    /// Our relay by UDP sockets.
    Socket,
    /// A bare AF_XDP forwarder with SRTP.
    Bare,
    /// A bare forwarder by UDP sockets, without SRTP.
    Plain,
    /// rtpengine in userspace.
    Rtpengine,
}

impl Who {
    fn start(self, row: &Row, suite: &str) -> anyhow::Result<Box<dyn Target>> {
        Ok(match self {
            Self::Xdp => Box::new(Relay::start(row, "xdp", suite, CALLS_MAX)?),
            Self::Generic => Box::new(Relay::start(row, "generic", suite, CALLS_MAX)?),
            Self::Socket => Box::new(Relay::start(row, "socket", suite, CALLS_MAX)?),
            Self::Bare => Box::new(Bare::start(row, suite, CALLS_MAX)?),
            Self::Plain => Box::new(Bare::start(row, "none", CALLS_MAX)?),
            Self::Rtpengine => Box::new(Rtpengine::start(row)?),
        })
    }
}

/// Options of `bench limit` and `bench peers`.
#[derive(Args)]
pub struct LimitOptions {
    /// What to measure, in turn; default: everything for `peers`, our relay by native XDP for `limit`.
    #[arg(value_enum)]
    pub who: Vec<Who>,
    /// Seconds of load for each step.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub seconds: u16,
    /// Protection outside; rtpengine always has `aes-cm`.
    #[arg(long, default_value = "aes-cm", value_parser = ["aes-cm", "gcm"])]
    pub suite: String,
    /// Write the figures there as one JSON object.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Measures the wire, then our relay, with the same load.
///
/// # Errors
/// What keeps the load from running.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let row = Row::make().context("network namespaces (needs root, iproute2, ethtool)")?;
    let mut generator = Generator::open(&row)?;
    let (calls, duration) = (usize::from(options.calls), Duration::from_secs(options.seconds.into()));
    let mut report = Report::new(facts(options.calls, options.seconds));
    eprintln!("wire: {calls} calls for {} s through the kernel's own forwarding", options.seconds);
    row.forward(true)?;
    report.rows.push(measure(&mut generator, &mut Wire, calls, duration)?);
    row.forward(false)?;
    eprintln!("relay: the same by {} and {}", options.path, options.suite);
    let mut relay = Relay::start(&row, &options.path, &options.suite, CALLS_MAX)?;
    report.rows.push(measure(&mut generator, &mut relay, calls, duration)?);
    report.add_status(&relay.status()?);
    report.print();
    write(options.json.as_deref(), &report.json()?)
}

/// One run of `calls` calls through a target.
fn measure(
    generator: &mut Generator,
    target: &mut dyn Target,
    calls: usize,
    duration: Duration,
) -> anyhow::Result<Measured> {
    let mut ends = Vec::new();
    let idle = target.cost();
    target.extend(&mut ends, calls)?;
    generator.expect(&ends)?;
    let before = target.cost();
    let load = generator.run(&mut ends, duration)?;
    Ok(Measured::new(target.name(), calls, load, [idle, before, target.cost()]))
}

/// Searches each target's most calls without loss, then measures it at half of that.
///
/// # Errors
/// What keeps a load from running.
pub fn limit(options: &LimitOptions, default: &[Who]) -> anyhow::Result<()> {
    let who = if options.who.is_empty() { default } else { &options.who };
    let duration = Duration::from_secs(options.seconds.into());
    let mut limits: Vec<Limit> = Vec::new();
    for who in who {
        if *who == Who::Rtpengine && !sallyport_lab::installed("rtpengine") {
            eprintln!("SKIPPED: rtpengine is not installed (Debian: rtpengine-daemon)");
            continue;
        }
        // A world of its own for each: no target meets what another left.
        let row = Row::make().context("network namespaces (needs root, iproute2, ethtool)")?;
        let mut generator = Generator::open(&row)?;
        eprintln!("{who:?}: searching");
        let mut fresh = || who.start(&row, &options.suite);
        limits.push(search::search(&mut generator, &mut fresh, duration)?);
    }
    report::print_limits(&limits);
    write(options.json.as_deref(), &report::limits_json(&limits, facts(0, options.seconds))?)
}

fn write(path: Option<&Path>, text: &str) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
