//! `bench run`: added latency of the relay through the real path, beside the floor of the wire alone.
//!
//! No browser and no SIP: the harness plays control at the relay's socket, installs calls with keys of its own, and sends
//! G.711 both ways on schedule. The floor is the same traffic through the same links, forwarded by the kernel.

pub mod net;
pub mod relay;
pub mod report;
pub mod traffic;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_plan::{CallId, KeyMaterial, Profile};

use net::{AGENT, BROWSER, INSIDE, OUTSIDE, Row};
use relay::{LoadCall, RelayClient};
use report::Report;
use traffic::{Ends, Load};

/// Port of media outside.
const MEDIA: u16 = 10_000;

/// Options of `bench run`.
#[derive(Args)]
pub struct Options {
    /// Calls at once, each 50 packets a second both ways.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub calls: u16,
    /// Seconds of load, for the floor and for the relay.
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

/// Runs floor and relay in turn and prints both.
///
/// # Errors
/// What keeps the load from running.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let row = Row::make().context("network namespaces (needs root, iproute2, ethtool)")?;
    let duration = Duration::from_secs(u64::from(options.seconds));
    eprintln!("floor: {} calls for {} s through the kernel's own forwarding", options.calls, options.seconds);
    row.forward(true)?;
    let floor = traffic::run(&floor_ends(&row, options.calls)?, duration)?;
    row.forward(false)?;

    eprintln!("relay: the same by {} and {}", options.path, options.suite);
    let relay = Relay::start(&row, options)?;
    let before = relay.cpu();
    let load = relay.load(&row, options, duration)?;
    let cpu = relay.cpu().saturating_sub(before);
    let report = Report::new(options, &floor, &load.0, cpu, load.1);
    report.print();
    if let Some(path) = &options.json {
        fs::write(path, report.json()?).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

fn floor_ends(row: &Row, calls: u16) -> anyhow::Result<Vec<Ends>> {
    let browsers = row.sockets("o", BROWSER, 40_000, 1, calls)?;
    let agents = row.sockets("i", AGENT, 40_000, 2, calls)?;
    let pairs = browsers.into_iter().zip(agents);
    pairs
        .map(|(browser, agent)| {
            let (toward_browser, toward_agent) = (browser.local_addr()?, agent.local_addr()?);
            Ok(Ends { call: None, browser, agent, toward_agent, toward_browser })
        })
        .collect()
}

/// A relay of our own in the middle namespace.
struct Relay {
    child: Child,
    folder: PathBuf,
}

impl Relay {
    fn start(row: &Row, options: &Options) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(&row.name);
        fs::create_dir_all(&folder)?;
        let config = folder.join("relay.toml");
        let text = format!(
            "[outside]\ninterface = \"out0\"\nport = {MEDIA}\n[inside]\ninterface = \"in0\"\n[relay]\npath = \"{}\"\nsocket = \"{}\"\npins = \"{}\"\nmax_calls = 4000\n[log]\nfilter = \"warn\"\n",
            options.path,
            folder.join("relay.sock").display(),
            folder.join("bpf").display(),
        );
        fs::write(&config, text)?;
        let program = std::env::current_exe()?.with_file_name("sallyport-relay");
        if !program.exists() {
            bail!("{} is missing: build it beside this program", program.display());
        }
        let namespace = format!("--net=/run/netns/{}", row.namespace("d"));
        let child = Command::new("nsenter")
            .arg(namespace)
            .arg(&program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .context("nsenter does not run")?;
        let relay = Self { child, folder };
        let until = Instant::now() + Duration::from_secs(20);
        while !relay.socket().exists() {
            if Instant::now() > until {
                bail!("the relay did not come up; its log is above");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(relay)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("relay.sock")
    }

    /// CPU time of the relay so far, in clock ticks of 10 ms.
    fn cpu(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        ticks(11) + ticks(12)
    }

    fn load(
        &self,
        row: &Row,
        options: &Options,
        duration: Duration,
    ) -> anyhow::Result<(Load, sallyport_plan::Status)> {
        let (mut client, _) = RelayClient::connect(&self.socket())?;
        let browsers = row.sockets("o", BROWSER, 30_000, 1, options.calls)?;
        let agents = row.sockets("i", AGENT, 30_000, 2, options.calls)?;
        let media = SocketAddr::new(OUTSIDE.parse()?, MEDIA);
        let mut ends = Vec::new();
        for (at, (browser, agent)) in browsers.into_iter().zip(agents).enumerate() {
            let call = call(at, &options.suite, browser.local_addr()?, agent.local_addr()?)?;
            let ports = client.reserve(call.id, IpAddr::V4(INSIDE.parse()?))?;
            client.install(&call, media, ports)?;
            ends.push(Ends {
                call: Some(call),
                browser,
                agent,
                toward_agent: media,
                toward_browser: ports.rtp,
            });
        }
        let load = traffic::run(&ends, duration)?;
        let status = client.status()?;
        for end in &ends {
            if let Some(call) = &end.call {
                client.remove(call.id)?;
            }
        }
        Ok((load, status))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = nix::mount::umount(&self.folder.join("bpf"));
        let _ = fs::remove_dir_all(Path::new(&self.folder));
    }
}

/// Keys that differ by call and direction. They protect nothing but a load.
fn call(at: usize, suite: &str, browser: SocketAddr, agent: SocketAddr) -> anyhow::Result<LoadCall> {
    let profile = if suite == "gcm" { Profile::AeadAes128Gcm } else { Profile::AesCm128HmacSha1_80 };
    let number = u32::try_from(at)?;
    let key = |direction: u8| {
        let mut octets = [direction; 16];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        KeyMaterial::new(profile, &octets, &[direction; 14][..profile.salt_len()]).context("key")
    };
    Ok(LoadCall {
        id: CallId(u128::from(number) + 1),
        browser,
        agent,
        from_browser: key(1)?,
        to_browser: key(2)?,
        inside_ssrc: 0x3000_0000 + number,
        outside_ssrc: 0x4000_0000 + number,
    })
}
