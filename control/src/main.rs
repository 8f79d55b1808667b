//! `sallyport-control`: the control plane as a process.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sallyport_control::config::{Config, Options};
use sallyport_control::daemon;

/// Descriptors that are asked for.
const DESCRIPTORS: u64 = 16_384;

fn main() -> ExitCode {
    let options = Options::parse();
    let config = match Config::load(&options) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sallyport-control: {error}");
            return ExitCode::from(2);
        }
    };
    if options.check {
        return check(&config);
    }
    // The ICE library logs passwords below that, the resolver addresses without a level.
    let quiet = "is=warn,hickory_proto=off,hickory_resolver=off";
    let filter = tracing_subscriber::EnvFilter::new(format!("{},{quiet}", config.log.filter));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    // Connections of strangers are bounded in number, but by more than the system's soft limit of descriptors.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most.min(DESCRIPTORS), most);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sallyport-control: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(daemon::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(config: &Config) -> ExitCode {
    match toml::to_string(config) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sallyport-control: {error}");
            ExitCode::FAILURE
        }
    }
}
