//! Options of the harness's commands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::mix::Mix;
use super::net::Shape;

/// What all of them have.
#[derive(Args, Clone)]
pub struct Common {
    /// Seconds of each load.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Protection outside; rtpengine always has `aes-cm`.
    #[arg(long, default_value = "aes-cm", value_parser = ["aes-cm", "gcm"])]
    pub suite: String,
    /// What every call sends, both ways.
    #[arg(long, value_enum, default_value_t)]
    pub mix: Mix,
    /// Workers of what is measured, and queues of each interface; without it one worker serves four queues.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: Option<u32>,
    /// How often everything is measured, in turn: the spread of the runs tells what a difference is worth.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub repeat: u16,
    /// Write the figures there as one JSON object.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with pictures there, complete in itself.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Common {
    /// How the row of namespaces is to be.
    pub fn shape(&self, taps: bool) -> Shape {
        Shape { workers: self.workers, taps }
    }
}

/// One load through our relay.
#[derive(Args, Clone)]
pub struct Load {
    /// Calls at once.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub calls: u16,
    /// Way that packets take; `bare`: the bare forwarder instead of the relay (`run` only).
    #[arg(long, default_value = "xdp", value_parser = ["xdp", "generic", "socket", "bare"])]
    pub path: String,
}

/// Options of `bench run`.
#[derive(Args)]
pub struct RunOptions {
    /// What is sent.
    #[command(flatten)]
    pub load: Load,
    /// Capture on both sides too (tcpdump), and tell how long each packet was between; for few calls.
    #[arg(long)]
    pub capture: bool,
    /// How it is measured.
    #[command(flatten)]
    pub common: Common,
}

/// Options of `bench limit` and `bench peers`.
#[derive(Args)]
pub struct LimitOptions {
    /// What to measure, in turn; default: everything for `peers`, our relay by native XDP for `limit`.
    #[arg(value_enum)]
    pub who: Vec<Who>,
    /// Measure at 10, 25, 75 and 90 % of the limit too: latency against load.
    #[arg(long)]
    pub sweep: bool,
    /// How it is measured.
    #[command(flatten)]
    pub common: Common,
}

/// Options of `bench compare`.
#[derive(Args)]
pub struct CompareOptions {
    /// A result file, or a folder with a `sallyport-relay`.
    pub before: PathBuf,
    /// Another of the same kind. Two relays are run in turn under the same load, two files are only read.
    pub after: PathBuf,
    /// What is sent.
    #[command(flatten)]
    pub load: Load,
    /// How it is measured.
    #[command(flatten)]
    pub common: Common,
}

/// Options of `bench draw`.
#[derive(Args)]
pub struct DrawOptions {
    /// A result file.
    pub results: PathBuf,
    /// The page to write.
    pub page: PathBuf,
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
