//! `sallyport`: starts the appliance, checks a machine, and looks inside.

#![forbid(unsafe_code)]

mod api;
mod check;
mod holder;
mod maps;
mod run;
mod supervisor;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "sallyport", version, about = "A relay between browsers outside and telephony inside")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the appliance in the foreground: relay, control and descriptor holder. Ctrl-C hangs up and ends it.
    Run(run::Options),
    /// Check configuration and machine, change nothing.
    Check(check::Options),
    /// Look into the kernel's maps; works with relay and control dead.
    Maps(maps::Options),
    /// State of the running appliance, by its REST API.
    Status(api::Options),
    /// Calls of the running appliance, by its REST API.
    Calls(api::CallsOptions),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Maps(options) => maps::run(&options),
        Command::Status(options) => api::status(&options),
        Command::Calls(options) => api::calls(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("sallyport: {error:#}");
        ExitCode::FAILURE
    })
}
