//! `sallyport check`: would it run here? Reads facts, asks both daemons about the configuration, changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;

/// Options of `sallyport check`.
#[derive(Args)]
pub struct Options {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", default_value = "/etc/sallyport/sallyport.toml")]
    config: PathBuf,
    /// Outside interface, where the file names none.
    #[arg(long, value_name = "IF")]
    outside: Option<String>,
    /// Inside interface, where the file names none.
    #[arg(long, value_name = "IF")]
    inside: Option<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    /// It runs, but not at its best.
    Warning,
    Bad,
}

struct Line {
    outcome: Outcome,
    what: &'static str,
    text: String,
}

/// Prints a line a check; fails where one is bad.
///
/// # Errors
/// None: what cannot be read is a bad line.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let lines = [
        kernel(&read("/proc/sys/kernel/osrelease")),
        btf(Path::new("/sys/kernel/btf/vmlinux")),
        privilege(),
        forwarding(&read("/proc/sys/net/ipv4/ip_forward")),
        daemon("relay", options),
        daemon("control", options),
    ];
    for line in &lines {
        let mark = match line.outcome {
            Outcome::Good => "ok  ",
            Outcome::Warning => "warn",
            Outcome::Bad => "FAIL",
        };
        println!("{mark}  {:<22} {}", line.what, line.text);
    }
    let bad = lines.iter().filter(|line| line.outcome == Outcome::Bad).count();
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn kernel(release: &str) -> Line {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // bpf_link for XDP: 5.9; need_wakeup and shared UMEM over devices: 5.10; frags programs: 5.18.
    let outcome = if version >= (5, 18) { Outcome::Good } else { Outcome::Warning };
    let advice = if outcome == Outcome::Good { "" } else { ": below 5.18 packets take UDP sockets" };
    Line { outcome, what: "kernel", text: format!("{release}{advice}") }
}

fn btf(path: &Path) -> Line {
    let there = path.exists();
    let outcome = if there { Outcome::Good } else { Outcome::Warning };
    let text = if there { "present" } else { "missing: map dumps show no names" };
    Line { outcome, what: "BTF of the kernel", text: text.into() }
}

fn privilege() -> Line {
    let root = nix::unistd::geteuid().is_root();
    let outcome = if root { Outcome::Good } else { Outcome::Warning };
    let text = if root { "root" } else { "not root: XDP and AF_XDP cannot be tried from here" };
    Line { outcome, what: "privilege", text: text.into() }
}

fn forwarding(value: &str) -> Line {
    let off = value == "0";
    let outcome = if off { Outcome::Good } else { Outcome::Warning };
    let text =
        if off { "off" } else { "on: this machine routes between outside and inside; a DMZ host should not" };
    Line { outcome, what: "IP forwarding", text: text.into() }
}

/// Each daemon judges its own sections, by the code that will read them.
fn daemon(name: &'static str, options: &Options) -> Line {
    let what = if name == "relay" { "relay configuration" } else { "control configuration" };
    let file = std::env::current_exe().map(|own| own.with_file_name(format!("sallyport-{name}")));
    let outcome = file.and_then(|file| {
        let mut command = Command::new(file);
        command.arg("--check").arg("--config").arg(&options.config);
        for (option, value) in [("--outside", &options.outside), ("--inside", &options.inside)] {
            if let Some(value) = value {
                command.args([option, value.as_str()]);
            }
        }
        command.output()
    });
    match outcome {
        Err(error) => {
            Line { outcome: Outcome::Bad, what, text: format!("sallyport-{name} does not run: {error}") }
        }
        Ok(output) if output.status.success() => {
            Line { outcome: Outcome::Good, what, text: "accepted".into() }
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            Line { outcome: Outcome::Bad, what, text }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_judged() {
        assert_eq!(kernel("6.18.44-x").outcome, Outcome::Good);
        assert_eq!(kernel("5.10.0-9-amd64").outcome, Outcome::Warning);
        assert_eq!(kernel("").outcome, Outcome::Warning);
        assert_eq!(forwarding("0").outcome, Outcome::Good);
        assert_eq!(forwarding("1").outcome, Outcome::Warning);
        assert_eq!(btf(Path::new("/nonexistent")).outcome, Outcome::Warning);
    }
}
