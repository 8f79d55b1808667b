//! What the load passes through: each target brings up the path of a number of calls, tells where the ends have to send, and
//! what it costs.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_plan::{CallId, KeyMaterial, Profile};
use sallyport_srtp::{Opener, Sealer};

use super::drive::{End, Keys};
use super::mix::Mix;
use super::net::{AGENT, BROWSER, INSIDE, OUTSIDE, Row};
use super::relay::{LoadCall, RelayClient};

/// Port of media outside.
pub const MEDIA: u16 = 10_000;
/// Lowest port of browsers, agents, and of the appliance inside.
pub const FIRST: u16 = 20_000;
/// How long a program may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that carries calls.
pub trait Target {
    /// What people call it.
    fn name(&self) -> String;

    /// Carries `ends.len()` to `calls` more calls; appends their ends.
    ///
    /// # Errors
    /// What it says.
    fn extend(&mut self, ends: &mut Vec<End>, calls: usize) -> anyhow::Result<()>;

    /// Whether it learns calls one by one; else neither its memory by call nor its pace of setting up says anything.
    fn learns(&self) -> bool {
        true
    }

    /// CPU time so far, in seconds, and resident memory, in KiB; `None` where that is nobody's.
    fn cost(&self) -> Option<(f64, u64)>;
}

/// Address of browser `at`.
pub fn browser(at: usize) -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::new(BROWSER.parse()?, FIRST + u16::try_from(at)?))
}

/// RTP address of agent `at`; the odd port above is RTCP's.
pub fn agent(at: usize) -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::new(AGENT.parse()?, FIRST + 2 * u16::try_from(at)?))
}

/// Keys that differ by call and direction. They protect nothing but a load.
pub fn call(at: usize, suite: &str, mix: Mix) -> anyhow::Result<LoadCall> {
    let profile = if suite == "gcm" { Profile::AeadAes128Gcm } else { Profile::AesCm128HmacSha1_80 };
    let number = u32::try_from(at)?;
    let key = |direction: u8| {
        let mut octets = [direction; 16];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        KeyMaterial::new(profile, &octets, &[direction; 14][..profile.salt_len()]).context("key")
    };
    Ok(LoadCall {
        id: CallId(u128::from(number) + 1),
        browser: browser(at)?,
        agent: agent(at)?,
        from_browser: key(1)?,
        to_browser: key(2)?,
        inside_ssrc: 0x3000_0000 + number,
        outside_ssrc: 0x4000_0000 + number,
        mix,
    })
}

/// The browser's half of a call's keys.
pub fn keys(seal: &KeyMaterial, open: &KeyMaterial) -> anyhow::Result<Keys> {
    let wrong = |error| anyhow::anyhow!("key: {error:?}");
    Ok(Keys { seal: Sealer::new(seal).map_err(wrong)?, open: Opener::new(open).map_err(wrong)? })
}

/// The cables alone: the kernel between them forwards.
pub struct Wire;

impl Target for Wire {
    fn name(&self) -> String {
        "wire".into()
    }

    fn extend(&mut self, ends: &mut Vec<End>, calls: usize) -> anyhow::Result<()> {
        for at in ends.len()..calls {
            let (browser, agent) = (browser(at)?, agent(at)?);
            let (toward_agent, toward_browser) = (agent, browser);
            ends.push(End { browser, agent, toward_agent, toward_browser, keys: None, sequence: 0 });
        }
        Ok(())
    }

    fn cost(&self) -> Option<(f64, u64)> {
        None
    }
}

/// A program in the middle namespace, on processors of its own; ended when dropped.
pub struct Middle {
    child: Child,
}

impl Middle {
    /// Starts `program` with `arguments`.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(row: &Row, program: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", row.namespace("d")));
        command.args(["taskset", "-c", &row.processors(), program]).args(arguments).stdin(Stdio::null());
        Ok(Self { child: command.spawn().with_context(|| format!("{program} does not run"))? })
    }

    /// Waits until `ready` says something.
    ///
    /// # Errors
    /// Where it ends before, or patience does.
    pub fn wait<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(found) = ready() {
                return Ok(found);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                bail!("it ended at once ({status}); its words are above");
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("it did not come up; its words are above")
    }

    /// Its id. nsenter, taskset and env become the program itself.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU seconds and KiB of the program.
    #[allow(clippy::cast_precision_loss)]
    pub fn cost(&self) -> Option<(f64, u64)> {
        let read = |name| fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).ok();
        let stat = read("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let status = read("status")?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let memory = memory.split_whitespace().next()?.parse().ok()?;
        // Clock ticks are 10 ms everywhere that Linux runs today.
        Some(((ticks(11)? + ticks(12)?) as f64 / 100.0, memory))
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.end();
    }
}

impl Middle {
    /// Asks it to end, waits, then ends it.
    pub fn end(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our relay, with the harness as its control.
pub struct Relay {
    program: Middle,
    client: RelayClient,
    folder: PathBuf,
    name: String,
    suite: String,
    mix: Mix,
}

/// Which relay is to be started, and how.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Its program; `None`: the one beside this program.
    pub program: Option<PathBuf>,
    /// What figures call it; `None`: after path and suite.
    pub name: Option<String>,
    /// `xdp`, `generic` or `socket`.
    pub path: String,
    /// `aes-cm` or `gcm`.
    pub suite: String,
    /// What calls send.
    pub mix: Mix,
    /// Calls at the most.
    pub calls: usize,
    /// Whether it keeps residence times.
    pub residence: bool,
}

impl Relay {
    /// Starts one.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(row: &Row, options: &RelayOptions) -> anyhow::Result<Self> {
        let RelayOptions { path, calls, .. } = options;
        let folder = std::env::temp_dir().join(&row.name);
        fs::create_dir_all(&folder)?;
        let (config, socket, pins) =
            (folder.join("relay.toml"), folder.join("relay.sock"), folder.join("bpf"));
        let text = format!(
            "[outside]\ninterface = \"out0\"\nport = {MEDIA}\n[inside]\ninterface = \"in0\"\nports = [{FIRST}, 65000]\n\
             [relay]\npath = \"{path}\"\nsocket = \"{}\"\npins = \"{}\"\nmax_calls = {calls}\nworkers = {}\n{}[log]\nfilter = \"warn\"\n",
            socket.display(),
            pins.display(),
            row.workers,
            // Relays of before, which are compared too, do not know the word.
            if options.residence { "residence = true\n" } else { "" },
        );
        fs::write(&config, text)?;
        let beside = std::env::current_exe()?.with_file_name("sallyport-relay");
        let relay = options.program.clone().unwrap_or(beside);
        if !relay.exists() {
            bail!("{} is missing: build it", relay.display());
        }
        // As the appliance starts it.
        let words =
            ["MALLOC_ARENA_MAX=1", &relay.display().to_string(), "--config", &config.display().to_string()];
        let mut program = Middle::start(row, "env", &words.map(str::to_owned))?;
        let client = program.wait(|| RelayClient::connect(&socket).ok()).context("the relay")?.0;
        let name = options.name.clone().unwrap_or_else(|| format!("sallyport {path} {}", options.suite));
        Ok(Self { program, client, folder, name, suite: options.suite.clone(), mix: options.mix })
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn status(&mut self) -> anyhow::Result<sallyport_plan::Status> {
        self.client.status()
    }
}

impl Target for Relay {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn extend(&mut self, ends: &mut Vec<End>, calls: usize) -> anyhow::Result<()> {
        let media = SocketAddr::new(OUTSIDE.parse()?, MEDIA);
        for at in ends.len()..calls {
            let call = call(at, &self.suite, self.mix)?;
            let ports = self.client.reserve(call.id, IpAddr::V4(INSIDE.parse()?))?;
            self.client.install(&call, media, ports)?;
            ends.push(End {
                browser: call.browser,
                agent: call.agent,
                toward_agent: media,
                toward_browser: ports.rtp,
                keys: Some(keys(&call.from_browser, &call.to_browser)?),
                sequence: 0,
            });
        }
        Ok(())
    }

    fn cost(&self) -> Option<(f64, u64)> {
        self.program.cost()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Its program must have ended before its pins go.
        self.program.end();
        let pins = self.folder.join("bpf");
        let _ = sallyport_xdp::clear(&pins);
        let _ = nix::mount::umount(&pins);
        let _ = fs::remove_dir_all(&self.folder);
    }
}
