//! `sallyport run`: relay, control and descriptor holder as one process tree.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use nix::sys::signal::Signal;
use serde::Deserialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::supervisor::{Happened, Program, Supervised};

/// How long the relay may take to come up.
const RELAY_PATIENCE: Duration = Duration::from_secs(20);
/// How long control may take to hang up all calls.
const DRAIN_PATIENCE: Duration = Duration::from_secs(8);
/// How long the relay may take to take the program off the interfaces.
const RELAY_END: Duration = Duration::from_secs(5);

/// Options of `sallyport run`.
#[derive(Args)]
pub struct Options {
    /// Outside interface: browsers.
    #[arg(long, value_name = "IF")]
    outside: Option<String>,
    /// Inside interface: telephony.
    #[arg(long, value_name = "IF")]
    inside: Option<String>,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Way that packets take.
    #[arg(long, value_enum)]
    path: Option<WayChoice>,
    /// Let Kamailio or OpenSIPS drive the media plane by rtpengine's NG protocol: [udp:|tcp:]ADDRESS:PORT or unix:/PATH.
    #[arg(long, value_name = "ADDR")]
    ng: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WayChoice {
    Auto,
    Xdp,
    Generic,
    Socket,
}

/// What the supervisor itself reads of the file; relay and control check the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    supervisor: SupervisorSection,
    http: HttpSection,
    relay: RelaySection,
}

/// `[supervisor]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SupervisorSection {
    restart_delay_ms: u64,
}

impl Default for SupervisorSection {
    fn default() -> Self {
        Self { restart_delay_ms: 500 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HttpSection {
    tokens: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RelaySection {
    pins: Option<PathBuf>,
    socket: Option<PathBuf>,
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// What keeps the appliance from starting.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "sallyport run needs root: it loads an XDP program (CAP_BPF, CAP_NET_ADMIN), opens AF_XDP sockets \
             (CAP_NET_RAW) and mounts a bpffs of its own (CAP_SYS_ADMIN). The relay keeps the first three only."
        );
        return Ok(ExitCode::from(2));
    }
    let file = read(options.config.as_deref())?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).context("signals cannot be caught")?;
    }
    let socket = file.relay.socket.clone().unwrap_or_else(|| "/run/sallyport/relay.sock".into());
    let folder = socket.parent().map_or_else(|| PathBuf::from("/run/sallyport"), Path::to_path_buf);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let delay = Duration::from_millis(file.supervisor.restart_delay_ms);

    // Both are looked for before either starts.
    let mut control = program("control", options, Vec::new())?;
    // One pool of memory for all threads, as in its unit.
    let one_pool = vec![("MALLOC_ARENA_MAX", "1".to_owned())];
    let mut relay = Supervised::start(program("relay", options, one_pool)?, &folder, delay)
        .context("the relay does not start")?;
    if !wait_ready(&mut relay, &stop) {
        relay.end(Signal::SIGINT, RELAY_END);
        unmount(&file);
        return Ok(ExitCode::FAILURE);
    }
    if file.http.tokens.is_empty() {
        let token = random_token()?;
        println!("sallyport: REST token of this run (none is configured): {token}");
        control.environment.push(("SALLYPORT_TOKEN", token));
    }
    let mut control = Supervised::start(control, &folder, delay).context("control does not start")?;
    println!("sallyport: supervisor {}, {}, {}", std::process::id(), pid(&relay), pid(&control));
    while !stop.load(Ordering::Relaxed) {
        watch(&mut relay);
        watch(&mut control);
        thread::sleep(Duration::from_millis(50));
    }
    println!("sallyport: ending; calls are hung up");
    control.end(Signal::SIGINT, DRAIN_PATIENCE);
    relay.end(Signal::SIGINT, RELAY_END);
    unmount(&file);
    println!("sallyport: ended");
    Ok(ExitCode::SUCCESS)
}

fn read(path: Option<&Path>) -> anyhow::Result<File> {
    let Some(path) = path else { return Ok(File::default()) };
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{}", path.display()))
}

fn program(
    name: &'static str,
    options: &Options,
    environment: Vec<(&'static str, String)>,
) -> anyhow::Result<Program> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let file = own.with_file_name(format!("sallyport-{name}"));
    if !file.exists() {
        bail!("{} is missing: it belongs beside this program", file.display());
    }
    let mut arguments = Vec::new();
    let mut push = |option: &str, value: Option<String>| {
        if let Some(value) = value {
            arguments.extend([option.to_owned(), value]);
        }
    };
    push("--config", options.config.as_ref().map(|path| path.display().to_string()));
    push("--outside", options.outside.clone());
    push("--inside", options.inside.clone());
    let path = options.path.and_then(|path| path.to_possible_value());
    push("--path", path.map(|value| value.get_name().to_owned()));
    // The relay never hears of whoever drives control.
    push("--ng", options.ng.clone().filter(|_| name == "control"));
    Ok(Program { name, file, arguments, environment })
}

/// Whether the relay came up; says why not where it did not.
fn wait_ready(relay: &mut Supervised, stop: &AtomicBool) -> bool {
    let until = Instant::now() + RELAY_PATIENCE;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        for happened in relay.poll() {
            match happened {
                Happened::Said(said) => {
                    report(relay.name(), said.status);
                    if said.ready {
                        return true;
                    }
                }
                Happened::Ended(status, _) => {
                    eprintln!("sallyport: the relay ended at once ({status}); its last lines above say why");
                    return false;
                }
                Happened::Restarted => {}
                Happened::Failed(error) => eprintln!("sallyport: the relay does not start: {error}"),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    eprintln!("sallyport: the relay did not come up within {} s", RELAY_PATIENCE.as_secs());
    false
}

fn watch(child: &mut Supervised) {
    for happened in child.poll() {
        match happened {
            Happened::Said(said) => report(child.name(), said.status),
            Happened::Ended(status, pause) => {
                eprintln!(
                    "sallyport: {} ended ({status}); starts again in {} ms",
                    child.name(),
                    pause.as_millis()
                );
            }
            Happened::Restarted => println!("sallyport: {} runs again, pid {}", child.name(), pid(child)),
            Happened::Failed(error) => eprintln!("sallyport: {} does not start: {error}", child.name()),
        }
    }
    let _ = io::stdout().flush();
}

fn report(name: &str, status: Option<String>) {
    if let Some(status) = status {
        println!("sallyport: {name}: {status}");
    }
}

fn pid(child: &Supervised) -> String {
    child
        .pid()
        .map_or_else(|| format!("{} not running", child.name()), |pid| format!("{} {pid}", child.name()))
}

fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0u8; 16];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The relay mounted its bpffs while it still might; it has given that capability up.
fn unmount(file: &File) {
    let pins = file.relay.pins.clone().unwrap_or_else(|| "/run/sallyport/bpf".into());
    let _ = nix::mount::umount(&pins);
}
