//! `sallyport-relay`: the media plane as a process.

#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use sallyport_relay::config::{Config, Options};
use sallyport_relay::daemon;

fn main() -> ExitCode {
    let options = Options::parse();
    let config = match Config::load(&options) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sallyport-relay: {error}");
            return ExitCode::from(2);
        }
    };
    if options.check {
        return check(&config);
    }
    let filter = tracing_subscriber::EnvFilter::new(&config.log.filter);
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    abort_on_panic();
    match daemon::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A relay that lost a thread would go on half alive; one that ends is started again and adopts its calls.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

fn check(config: &Config) -> ExitCode {
    match toml::to_string(config) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sallyport-relay: {error}");
            ExitCode::FAILURE
        }
    }
}
