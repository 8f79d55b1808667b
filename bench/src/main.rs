//! `bench`: measures Sallyport, and tries it out.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sallyport_bench::load;
use sallyport_bench::load::options::{CompareOptions, DrawOptions, LimitOptions, RunOptions, Who};
use sallyport_bench::{judge, labs, ng, setup, trial};

#[derive(Parser)]
#[command(name = "bench", version, about = "Measures Sallyport, and tries it out")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One real call: a browser outside, a SIP agent inside, the appliance between them, all in network namespaces.
    Try(trial::Options),
    /// Added latency through the real path, beside the wire's own floor.
    Run(RunOptions),
    /// Most calls without loss, and the latency at half of that.
    Limit(LimitOptions),
    /// The same of everything that can be had here, in turn: our relay's paths, bare forwarders, rtpengine.
    Peers(LimitOptions),
    /// Calls a second over the NG protocol: offer, answer, delete, and what they leave behind.
    Ng(ng::Options),
    /// Call set-up: added delay, calls a second, memory.
    Setup(setup::Options),
    /// A long call with every trouble, judged by somebody else's SRTP: aiortc, baresip or Chromium.
    Judge(judge::Options),
    /// What changed between two result files, or between two relays that are run in turn.
    Compare(CompareOptions),
    /// A page with pictures from a result file.
    Draw(DrawOptions),
    /// The bare forwarder that `limit` starts.
    #[command(hide = true)]
    Bare(load::bare::Options),
    /// Labs that stand on this machine.
    #[command(subcommand)]
    Lab(labs::Command),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Try(options) => trial::run(&options),
        Command::Lab(command) => labs::run(&command),
        Command::Run(options) => load::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Limit(options) => load::limit("limit", &options, &[Who::Xdp]).map(|()| ExitCode::SUCCESS),
        Command::Peers(options) => {
            let all = [Who::Rtpengine, Who::Plain, Who::Socket, Who::Generic, Who::Xdp, Who::Bare];
            load::limit("peers", &options, &all).map(|()| ExitCode::SUCCESS)
        }
        Command::Ng(options) => ng::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Setup(options) => setup::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Judge(options) => judge::run(&options),
        Command::Compare(options) => load::compare(&options).map(|()| ExitCode::SUCCESS),
        Command::Draw(options) => load::draw(&options).map(|()| ExitCode::SUCCESS),
        Command::Bare(options) => load::bare::run(&options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}
