//! Who answers: our relay and control together on one processor, or rtpengine on the same.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_lab::Namespace;
use sallyport_lab::ng::Client;
use serde_json::Value;

use crate::load::net::{INSIDE, OUTSIDE, Row};
use crate::load::target::Middle;

/// Where NG is asked.
const SERVER: &str = "127.0.0.1:2223";
/// Where control's API is asked.
const API: &str = "127.0.0.1:8080";
/// Port of it at the outside address.
pub const API_OUTSIDE: u16 = 8081;
/// Bearer token of the appliance.
pub const TOKEN: &str = "of-a-benchmark";
/// How long what has ended may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// What a process has taken so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// CPU time, seconds.
    pub cpu: f64,
    /// Resident memory, KiB.
    pub resident: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

/// The programs under load.
pub struct Target {
    /// In the order in which they are ended.
    programs: Vec<(&'static str, Middle)>,
    folder: PathBuf,
    /// What they are called together.
    pub name: &'static str,
}

impl Target {
    /// Our relay and control.
    ///
    /// # Errors
    /// Where one of them does not come up.
    pub fn appliance(row: &Row, path: &str, calls: usize) -> anyhow::Result<Self> {
        Self::appliance_with(row, path, calls, "")
    }

    /// Our relay and control, with more sections of the configuration.
    ///
    /// # Errors
    /// Where one of them does not come up.
    pub fn appliance_with(row: &Row, path: &str, calls: usize, more: &str) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(&row.name);
        fs::create_dir_all(&folder)?;
        let mut target = Self { programs: Vec::new(), folder, name: "sallyport" };
        let folder = target.folder.clone();
        let config = folder.join("sallyport.toml");
        let text = format!(
            "[outside]\ninterface = \"out0\"\nport = 10000\n[inside]\ninterface = \"in0\"\nports = [20000, 65000]\n\
             [relay]\npath = \"{path}\"\nsocket = \"{0}/relay.sock\"\npins = \"{0}/bpf\"\nmax_calls = {calls}\n\
             [http]\nlisten = [\"{API}\", \"{OUTSIDE}:{API_OUTSIDE}\"]\ntokens = [\"{TOKEN}\"]\nmax_calls = {calls}\n[ng]\nlisten = [\"udp:{SERVER}\"]\n{more}",
            folder.display(),
        );
        fs::write(&config, text)?;
        let relay = start(row, &folder, "sallyport-relay", &config)?;
        target.programs.push(("relay", relay));
        let socket = folder.join("relay.sock");
        target.wait(|| socket.exists().then_some(())).context("the relay")?;
        let control = start(row, &folder, "sallyport-control", &config)?;
        target.programs.insert(0, ("control", control));
        let mut client = Client::new(&Namespace::named(row.namespace("d")), SERVER.parse()?)?;
        target.wait(|| (client.is_there() && status(row).is_ok()).then_some(())).context("control")?;
        Ok(target)
    }

    /// rtpengine with one worker thread, in userspace.
    ///
    /// # Errors
    /// Where it is not installed, or does not answer.
    pub fn rtpengine(row: &Row) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(&row.name);
        fs::create_dir_all(&folder)?;
        let arguments = [
            "--foreground".to_owned(),
            "--log-stderr".into(),
            "--log-level=2".into(),
            "--table=-1".into(),
            "--no-fallback".into(),
            "--num-threads=1".into(),
            format!("--interface=external/{OUTSIDE}"),
            format!("--interface=internal/{INSIDE}"),
            format!("--listen-ng={SERVER}"),
            "--port-min=20000".into(),
            "--port-max=65000".into(),
            "--delete-delay=0".into(),
            "--pidfile=/dev/null".into(),
        ];
        let program = Middle::start(row, "rtpengine", &arguments)?;
        let mut target = Self { programs: vec![("rtpengine", program)], folder, name: "rtpengine" };
        let mut client = Client::new(&Namespace::named(row.namespace("d")), SERVER.parse()?)?;
        target.wait(|| client.is_there().then_some(()))?;
        Ok(target)
    }

    fn wait(&mut self, ready: impl FnMut() -> Option<()>) -> anyhow::Result<()> {
        let (_, program) = self.programs.first_mut().context("nothing was started")?;
        program.wait(ready)
    }

    /// Where it is asked.
    ///
    /// # Errors
    /// None that occurs.
    pub fn server() -> anyhow::Result<SocketAddr> {
        Ok(SERVER.parse()?)
    }

    /// What each program has taken so far.
    pub fn figures(&self) -> Vec<(&'static str, Figures)> {
        let figures = |(name, program): &(&'static str, Middle)| {
            let (cpu, resident) = program.cost().unwrap_or_default();
            let folder = fs::read_dir(format!("/proc/{}/fd", program.pid()));
            (*name, Figures { cpu, resident, descriptors: folder.map_or(0, Iterator::count) })
        };
        self.programs.iter().map(figures).collect()
    }

    /// Waits until the appliance holds no call, port pair, flow or direction; what it held at last where it does not come
    /// to that. rtpengine is not asked.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn left(&self, row: &Row) -> anyhow::Result<Option<Value>> {
        let until = Instant::now() + GONE;
        while self.programs.len() == 2 {
            let relay = status(row)?["relay"].take();
            let held = |what: &&str| relay[*what] != 0;
            let left: Vec<&str> =
                ["calls", "ports", "flows", "directions"].into_iter().filter(held).collect();
            if left.is_empty() {
                break;
            }
            if Instant::now() > until {
                return Ok(Some(
                    left.into_iter().map(|what| (what.to_owned(), relay[what].clone())).collect(),
                ));
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(None)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Pins go after the program that holds them.
        for (_, program) in &mut self.programs {
            program.end();
        }
        let pins = self.folder.join("bpf");
        let _ = sallyport_xdp::clear(&pins);
        let _ = nix::mount::umount(&pins);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A program of ours that logs as it does by itself, into a file: a line for every call that ends is part of the cost.
fn start(row: &Row, folder: &Path, name: &str, config: &Path) -> anyhow::Result<Middle> {
    let program = std::env::current_exe()?.with_file_name(name);
    if !program.exists() {
        bail!("{} is missing: build it beside this program", program.display());
    }
    let line = format!(
        "exec '{}' --config '{}' 2> '{}/{name}.log'",
        program.display(),
        config.display(),
        folder.display()
    );
    Middle::start(row, "sh", &["-c".into(), line])
}

/// What control says of itself and of the relay.
fn status(row: &Row) -> anyhow::Result<Value> {
    let stream = row.within("d", || Ok(TcpStream::connect(API)?));
    let mut stream = stream?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET /v1/status HTTP/1.1\r\nHost: {API}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer over HTTP")?;
    let status: Value = serde_json::from_str(body)?;
    if status["relay"].is_object() { Ok(status) } else { bail!("control knows of no relay") }
}
