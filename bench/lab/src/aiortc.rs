//! A browser that is no browser: aiortc calls (`aiortc.py`), and its libsrtp judges what comes. `.ci/aiortc` installs it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::appliance::Appliance;
use crate::net::{Lab, Place, STUN};
use crate::process::{Process, Program};
use crate::wav::Wav;

const SCRIPT: &str = include_str!("aiortc.py");
/// How long a call may take to connect.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long writing the recording may take.
const WRITING: Duration = Duration::from_secs(60);

/// What it tells.
#[derive(Debug, Clone, Deserialize)]
struct Told {
    what: String,
    text: Option<String>,
    received: Option<u64>,
}

/// What it counted in its call.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// State of the connection at the end, before it hung up.
    pub state: String,
    /// RTP packets that libsrtp took.
    pub received: u64,
    /// RTP packets that it refused.
    pub refused: u64,
    /// RTCP packets that it refused.
    pub refused_rtcp: u64,
    /// SSRCs.
    pub sources: Vec<u32>,
    /// Sequence numbers that did not come.
    pub missing: u64,
    /// So many in a row, each time.
    pub jumps: Vec<u64>,
    /// Packets behind later ones, or that came twice.
    pub disorder: u64,
    /// Packets whose timestamp lies before the one in front.
    pub rewound: u64,
    /// Packets whose timestamp is that of the one in front.
    pub stuck: u64,
    /// The first sequence number.
    pub first: Option<u16>,
    /// How often the sequence wrapped.
    pub wraps: u64,
    /// The longest time between two packets, seconds.
    pub longest_wait: f64,
    /// Pieces of sound that were decoded.
    pub frames: u64,
    /// Pieces whose timestamps are nowhere near the others'.
    pub torn: u64,
}

/// A running one, in [`Place::Browser`].
#[derive(Debug)]
pub struct Aiortc {
    process: Process,
    recording: PathBuf,
}

/// Where Python with aiortc lies: the environment that `.ci/aiortc` made beside the programs, or the one that
/// `SALLYPORT_AIORTC` names.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("SALLYPORT_AIORTC").map(PathBuf::from);
    let own = std::env::current_exe().ok()?;
    let beside = own.ancestors().skip(1).take(4).map(|folder| folder.join("aiortc"));
    let found = named.into_iter().chain(beside).map(|folder| folder.join("bin/python"));
    found.into_iter().find(|python| python.is_file())
}

impl Aiortc {
    /// Starts one that calls `user` at once, and waits until it is connected.
    ///
    /// # Errors
    /// Where it is not installed or does not connect, with its words.
    pub fn call(lab: &Lab, appliance: &Appliance, user: &str) -> anyhow::Result<Self> {
        let python = python().context("aiortc is not installed; .ci/aiortc installs it")?;
        // The script is not called as its module, or it would import itself.
        let (script, recording) = (lab.folder().join("judge.py"), lab.folder().join("aiortc.wav"));
        fs::write(&script, SCRIPT)?;
        let mut command = lab.namespace(Place::Browser).command(&python.display().to_string());
        command.arg(&script).args([&appliance.call_url(user), appliance.token(), &STUN.to_string()]);
        command.arg(&recording).env("HOME", lab.folder());
        let process = lab.start(Program::new("aiortc", command))?;
        process.wait_for_words("\"connected\"", PATIENCE)?;
        Ok(Self { process, recording })
    }

    fn told(&self) -> Vec<Told> {
        let text = fs::read_to_string(self.process.log()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// About how many packets came so far.
    pub fn received(&self) -> u64 {
        self.told().iter().rev().find_map(|told| told.received).unwrap_or(0)
    }

    /// What it complained of.
    pub fn faults(&self) -> Vec<String> {
        self.told().into_iter().filter(|told| told.what == "fault").filter_map(|told| told.text).collect()
    }

    /// Ends the call: what it counted, and what it heard.
    ///
    /// # Errors
    /// Where it has ended before, with its words.
    pub fn finish(&self) -> anyhow::Result<(Report, Wav)> {
        self.process.signal(Signal::SIGUSR1)?;
        let status = self.process.wait_ended(WRITING)?;
        let text = fs::read_to_string(self.process.log())?;
        let report = text.lines().rev().find(|line| line.contains("\"report\""));
        let Some(report) = report else {
            bail!("aiortc ended with {status} and no report:\n{}", self.process.last_words(20))
        };
        Ok((serde_json::from_str(report)?, Wav::read(&self.recording)?))
    }
}
