//! What the stories share.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sallyport_lab::agent::start_echo;
use sallyport_lab::appliance::{Appliance, Setup, Status, Way, programs};
use sallyport_lab::browser::Browser;
use sallyport_lab::net::AGENT;
use sallyport_lab::registrar::{PASSWORD, REALM};
use sallyport_lab::tone::{self, Expected, listen};
use sallyport_lab::wav::Wav;
use sallyport_lab::{Lab, Options, registrar};
use serde_json::Value;

/// Whether stories can be played here; in CI they must.
pub fn possible() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: network namespaces, XDP and a browser need root");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
    }
    root
}

/// Whether Kamailio is there as well; in CI it must.
pub fn server_possible() -> bool {
    let there = possible() && registrar::modules().is_some();
    if possible() && !there {
        eprintln!("SKIPPED: kamailio is not installed");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
    }
    there
}

/// A recording holds one tone for 2.5 s at least, and nothing of another.
#[track_caller]
pub fn judge(wav: &Wav, tone: u32, other: u32) {
    judge_for(wav, tone, other, 2.5);
}

/// As [`judge`], for another time.
#[track_caller]
pub fn judge_for(wav: &Wav, tone: u32, other: u32, seconds: f64) {
    let expected = Expected { tone, other, seconds };
    let heard = listen(wav, expected);
    assert_eq!(heard.judge(expected), Ok(()), "{tone} Hz: {heard}");
}

/// The last seconds of a recording.
pub fn tail(wav: &Wav, seconds: usize) -> Wav {
    let from = wav.samples.len().saturating_sub(seconds * usize::try_from(wav.rate).unwrap());
    Wav { rate: wav.rate, samples: wav.samples[from..].to_vec() }
}

/// A browser hears a tone, for three seconds from now on.
#[track_caller]
pub fn browser_hears(browser: &Browser, tone: u32) {
    browser.record().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    judge(&browser.recorded().unwrap(), tone, tone::BROWSER);
}

/// A lab with an appliance and a SIPp inside that answers every call and sends media back.
pub struct Stage {
    pub appliance: Appliance,
    pub lab: Lab,
}

impl Stage {
    pub fn set(way: Way, options: Options, change: impl FnOnce(&mut Setup)) -> Self {
        Self::set_on(way, options, |_| (), change)
    }

    /// As [`Stage::set`]; `prepare` changes the world before anything starts.
    pub fn set_on(
        way: Way,
        options: Options,
        prepare: impl FnOnce(&Lab),
        change: impl FnOnce(&mut Setup),
    ) -> Self {
        let lab = Lab::new(options).unwrap();
        prepare(&lab);
        let mut setup = Setup::new(programs().unwrap(), way);
        setup.server = SocketAddr::from((AGENT, 5060));
        change(&mut setup);
        start_echo(&lab, setup.server.ip(), setup.transport, 40_000).unwrap();
        let appliance = Appliance::start(&lab, &setup).unwrap();
        Self { appliance, lab }
    }

    /// `/v1/status`, with figures that cover everything up to now.
    pub fn status(&self) -> Status {
        std::thread::sleep(Duration::from_millis(1100));
        self.appliance.status().unwrap()
    }
}

/// Sections of an appliance whose numbers show their password to the lab's registrar.
pub fn registered() -> toml::Table {
    let section = |keys: &[(&str, &str)]| {
        let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into()));
        toml::Value::Table(keys.collect())
    };
    let sip = section(&[("domain", REALM), ("password", PASSWORD)]);
    [("agents", section(&[("numbers", "password")])), ("sip", sip)]
        .map(|(name, section)| (name.to_owned(), section))
        .into_iter()
        .collect()
}

/// Asks until the answer is yes.
pub fn until(what: &str, patience: Duration, mut ask: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !ask() {
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sums of what has grown between two states, by counter; what has not is left out.
pub fn grown(before: &Status, after: &Status) -> BTreeMap<String, u64> {
    let was = before.counters();
    let difference = |(name, value): (String, u64)| {
        let grown = value - was.get(&name).copied().unwrap_or(0);
        (grown > 0).then_some((name, grown))
    };
    after.counters().into_iter().filter_map(difference).collect()
}

/// Open descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// `sallyport`, run outside all namespaces: pins are files.
pub fn sallyport(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

/// Rows of `sallyport maps`.
pub fn maps(appliance: &Appliance, map: &str) -> Vec<Value> {
    let pins = appliance.pins().display().to_string();
    let output = sallyport(&["maps", map, "--json", "--pins", &pins]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap().as_array().unwrap().clone()
}

fn program() -> PathBuf {
    programs().unwrap().join("sallyport")
}
