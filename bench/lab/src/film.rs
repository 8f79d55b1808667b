//! A SIP phone with a picture: GStreamer carries the media of the one call that it takes (`film.py`).

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::net::{Lab, Place};
use crate::process::{Process, Program};

const SCRIPT: &str = include_str!("film.py");
/// Debian's own, which knows Debian's GStreamer.
const PYTHON: &str = "/usr/bin/python3";
const PATIENCE: Duration = Duration::from_secs(15);

/// What it tells.
#[derive(Debug, Clone, Deserialize)]
pub struct Told {
    /// `call`, `added`, `picture`, `seen`, `lost`, `key`, `level` or `over`.
    pub what: String,
    /// Seconds since the Unix epoch.
    pub at: f64,
    /// Pictures decoded so far.
    pub pictures: Option<u64>,
    /// Mean red, green and blue of the last one.
    pub colour: Option<[u8; 3]>,
    /// How far below the loudest a packet of the sound is, in dB (RFC 6464 section 3).
    pub level: Option<u8>,
}

/// One that runs.
#[derive(Debug)]
pub struct Film(Process);

impl Film {
    /// Starts one inside; with `lose` it loses the first key frame that comes.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(lab: &Lab, address: IpAddr, lose: bool) -> anyhow::Result<Self> {
        Self::run(lab, address, lose.then_some("lose"), None)
    }

    /// Starts one inside whose picture is noise, in RTP packets of up to so many octets, most of them as long.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_long(lab: &Lab, address: IpAddr, octets: u16) -> anyhow::Result<Self> {
        Self::run(lab, address, None, Some(octets))
    }

    fn run(lab: &Lab, address: IpAddr, word: Option<&str>, octets: Option<u16>) -> anyhow::Result<Self> {
        let script = lab.folder().join("film.py");
        fs::write(&script, SCRIPT)?;
        let mut command = lab.namespace(Place::Enterprise).command(PYTHON);
        command.arg(&script).args([address.to_string(), "5060".into(), "41000".into()]);
        command.args(word).env("HOME", lab.folder());
        command.envs(octets.map(|octets| ("FILM_MTU", octets.to_string())));
        let mut program = Program::new("film", command);
        program.farewell = Signal::SIGKILL;
        let process = lab.start(program).context("python3 with GStreamer")?;
        process.wait_for_words("\"ready\"", PATIENCE)?;
        Ok(Self(process))
    }

    /// All that it told so far.
    pub fn told(&self) -> Vec<Told> {
        let text = fs::read_to_string(self.0.log()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it tells `what`; the first of these.
    ///
    /// # Errors
    /// Its last words where it does not.
    pub fn wait_for(&self, what: &str, patience: Duration) -> anyhow::Result<Told> {
        self.0.wait_for(patience, || self.told().into_iter().find(|told| told.what == what))
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.0
    }
}
