//! SIP agents: baresip, which plays one tone and records what it hears, and SIPp, which sends back what it hears.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::net::{AGENT, INSIDE_PEER, Lab, Place};
use crate::process::{Process, Program};
use crate::tone;
use crate::wav::Wav;

/// How long an agent may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A SIP agent to be.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where it is.
    pub place: Place,
    /// Its interface there: whose address it puts into its SDP.
    pub interface: &'static str,
    /// Its address on that.
    pub address: IpAddr,
    /// Its SIP port, UDP and TCP.
    pub port: u16,
    /// Its user name.
    pub user: String,
    /// Where its own calls go; `None`: to the host of their URI.
    pub server: Option<std::net::SocketAddr>,
    /// The tone that it plays, Hz.
    pub tone: u32,
    /// For how long it can play, seconds.
    pub seconds: u32,
    /// What it speaks, as baresip names it: encoding, rate, channels.
    pub codecs: &'static [&'static str],
    /// Whether it encrypts its media.
    pub srtp: Srtp,
}

/// Whether media is encrypted under keys in the SDP (RFC 4568).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Srtp {
    /// Never.
    #[default]
    Off,
    /// Where both sides have keys: RTP/AVP.
    Optional,
    /// Always: RTP/SAVP.
    Required,
}

impl Srtp {
    /// As the appliance's configuration names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }

    /// As an account of baresip names it.
    const fn account(self) -> &'static str {
        match self {
            Self::Off => "",
            Self::Optional => ";mediaenc=srtp",
            Self::Required => ";mediaenc=srtp-mand",
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            place: Place::Enterprise,
            interface: INSIDE_PEER,
            address: AGENT.into(),
            port: 5060,
            user: "1000".into(),
            server: None,
            tone: tone::AGENT,
            seconds: 300,
            codecs: &["PCMU/8000/1", "PCMA/8000/1"],
            srtp: Srtp::Off,
        }
    }
}

/// A running baresip. It answers every call at once and records each call.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    folder: PathBuf,
}

impl Agent {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(lab: &Lab, setup: &Setup) -> anyhow::Result<Self> {
        Self::launch(lab, setup, None)
    }

    /// Starts one that calls `uri` at once.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_calling(lab: &Lab, setup: &Setup, uri: &str) -> anyhow::Result<Self> {
        Self::launch(lab, setup, Some(uri))
    }

    fn launch(lab: &Lab, setup: &Setup, uri: Option<&str>) -> anyhow::Result<Self> {
        let name = format!("agent-{}", setup.user);
        let folder = lab.folder().join(&name);
        fs::create_dir_all(&folder)?;
        let tone = folder.join("tone.wav");
        tone::sine(setup.tone, 8000, setup.seconds).write(&tone)?;
        fs::write(folder.join("config"), config(setup, &folder, &tone, uri.is_some()))?;
        fs::write(folder.join("accounts"), account(setup))?;
        fs::write(folder.join("contacts"), "")?;
        let mut command = lab.namespace(setup.place).command("baresip");
        command.arg("-f").arg(&folder).env("HOME", &folder);
        if let Some(uri) = uri {
            command.args(["-e", &format!("/dial {uri}")]);
        }
        let mut program = Program::new(name, command);
        // SIGINT hangs up; its answer is not waited for.
        program.farewell = Signal::SIGINT;
        let process = lab.start(program).context("baresip")?;
        process.wait_for_words("baresip is ready", PATIENCE)?;
        Ok(Self { process, folder })
    }

    /// What it heard, one file a call, in the order of their begin. A call's last packets are there when it has ended.
    pub fn recordings(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_heard = |path: &PathBuf| path.to_string_lossy().ends_with("-dec.wav");
        let mut paths: Vec<_> = entries.filter(is_heard).collect();
        paths.sort();
        paths
    }

    /// What it heard in its latest call.
    ///
    /// # Errors
    /// Where it had none, or the file is damaged.
    pub fn heard(&self) -> anyhow::Result<Wav> {
        let recordings = self.recordings();
        Wav::read(recordings.last().context("the agent has recorded no call")?)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn config(setup: &Setup, folder: &Path, tone: &Path, dials: bool) -> String {
    // `aubridge` plays to nobody; `sndfile` records what is decoded before that.
    let lines = [
        "poll_method epoll".into(),
        format!("sip_listen {}", std::net::SocketAddr::new(setup.address, setup.port)),
        format!("net_interface {}", setup.interface),
        "audio_path /nonexistent".into(),
        "audio_player aubridge,nobody".into(),
        "audio_alert aubridge,nobody".into(),
        format!("audio_source aufile,{}", tone.display()),
        "ausrc_srate 8000".into(),
        "auplay_srate 8000".into(),
        "ausrc_channels 1".into(),
        "auplay_channels 1".into(),
        "rtp_ports 30000-30998".into(),
        "jitter_buffer_delay 1-5".into(),
        // What it counted is told at a call's end.
        "rtp_stats yes".into(),
        format!("snd_path {}", folder.display()),
        format!("module_path {}", modules().display()),
    ];
    let applications: &[&str] = if dials { &["account", "menu"] } else { &["account"] };
    let modules = ["g711", "g722", "opus", "aufile", "aubridge", "sndfile", "srtp"]
        .map(|name| format!("module {name}.so"));
    let applications = applications.iter().map(|name| format!("module_app {name}.so"));
    let all: Vec<String> = lines.into_iter().chain(modules).chain(applications).collect();
    all.join("\n") + "\n"
}

fn account(setup: &Setup) -> String {
    let host = match setup.address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let outbound = setup.server.map(|server| format!(";outbound=\"sip:{server}\"")).unwrap_or_default();
    format!(
        "<sip:{}@{host}:{}>;regint=0;answermode=auto;audio_codecs={};ptime=20{outbound}{}\n",
        setup.user,
        setup.port,
        setup.codecs.join(","),
        setup.srtp.account()
    )
}

/// Debian keeps modules in a folder that does or does not name the architecture, by release.
fn modules() -> PathBuf {
    let with = format!("/usr/lib/{}-linux-gnu/baresip/modules", std::env::consts::ARCH);
    [PathBuf::from(with), PathBuf::from("/usr/lib/baresip/modules")]
        .into_iter()
        .find(|folder| folder.is_dir())
        .unwrap_or_else(|| "/usr/local/lib/baresip/modules".into())
}

/// A SIPp that answers any number of calls and sends RTP back to where it came from.
///
/// # Errors
/// Where it does not start.
pub fn start_echo(lab: &Lab, address: IpAddr, transport: &str, media_port: u16) -> anyhow::Result<Process> {
    const PORT: u16 = 5060;
    let mut command = lab.namespace(Place::Enterprise).command("sipp");
    command.args(["-sn", "uas", "-rtp_echo", "-aa", "-nostdin", "-i", &address.to_string()]);
    command.args(["-t", if transport == "tcp" { "t1" } else { "u1" }]);
    command.args(["-p", &PORT.to_string(), "-mp", &media_port.to_string()]);
    command.args(["-trace_err", "-error_file"]).arg(lab.folder().join("echo.errors"));
    command.env("TERM", "dumb").current_dir(lab.folder());
    let mut program = Program::new("echo", command);
    program.farewell = Signal::SIGKILL;
    let process = lab.start(program).context("sipp")?;
    let namespace = lab.namespace(Place::Enterprise);
    let listens = || namespace.within(|| ports(transport).contains(&PORT)).unwrap_or(false);
    process.wait_for(PATIENCE, || listens().then_some(()))?;
    Ok(process)
}

/// Bound ports of a transport in the calling thread's namespace.
pub(crate) fn ports(transport: &str) -> Vec<u16> {
    let read =
        |family| fs::read_to_string(format!("/proc/thread-self/net/{transport}{family}")).unwrap_or_default();
    let tables = [read(""), read("6")];
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let local = lines.filter_map(|line| line.split_whitespace().nth(1));
    local.filter_map(|address| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok()).collect()
}
