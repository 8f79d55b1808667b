//! `bench lab`: what labs stand on this machine, and their end.

use std::process::ExitCode;

use clap::Subcommand;
use sallyport_lab::{Lab, Options};

/// What to do with labs.
#[derive(Subcommand)]
pub enum Command {
    /// Make the network alone, for trying things by hand; Ctrl-C removes it.
    Up,
    /// Name the labs that stand.
    List,
    /// Remove labs whose process is dead, those that were left with --keep too. Living ones are never touched.
    Clean {
        /// Only this one.
        name: Option<String>,
    },
}

/// Does it.
///
/// # Errors
/// Where the lab named is alive or does not stand.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up => {
            let lab = Lab::new(Options::default())?;
            println!("{} stands; its places: ip netns list; Ctrl-C removes it", lab.name());
            loop {
                // The signal's handler ends the process.
                std::thread::park();
            }
        }
        Command::List => {
            for lab in sallyport_lab::standing() {
                let state = match (lab.alive, lab.kept) {
                    (true, _) => "alive",
                    (false, true) => "kept",
                    (false, false) => "dead",
                };
                println!("{:<12} {state}", lab.name);
            }
        }
        Command::Clean { name: None } => {
            let removed = sallyport_lab::sweep(true);
            removed.iter().for_each(|name| println!("removed {name}"));
        }
        Command::Clean { name: Some(name) } => {
            sallyport_lab::remove(name)?;
            println!("removed {name}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
