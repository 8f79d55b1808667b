//! What a figure depends on beside the code: machine, kernel, links, revision, date.

use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::mix::Mix;

/// What was asked for.
pub struct Asked<'a> {
    /// Calls; 0 where they are searched for.
    pub calls: u16,
    /// Seconds of each load.
    pub seconds: u16,
    /// Runs of each target.
    pub repeat: u16,
    /// Packets.
    pub mix: Mix,
    /// Protection outside.
    pub suite: &'a str,
    /// Workers of each target, and queues of each interface.
    pub workers: u32,
    /// Queues of each interface.
    pub queues: u32,
}

/// What was asked for, and facts of this machine.
pub fn facts(asked: &Asked<'_>) -> Map<String, Value> {
    let value = json!({
        "calls": asked.calls, "seconds": asked.seconds, "repeat": asked.repeat, "mix": asked.mix.to_string(),
        "suite": asked.suite, "workers": asked.workers, "queues": asked.queues,
    });
    let mut facts = machine();
    if let Value::Object(value) = value {
        facts.extend(value);
    }
    facts
}

/// Facts of this machine at this moment.
pub fn machine() -> Map<String, Value> {
    let processors = read("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = processors.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.trim_start_matches(['\t', ' ', ':']).to_owned())
    };
    let flags = field("flags").unwrap_or_default();
    let value = json!({
        "link": "veth, copy mode", "driver": "veth",
        "caveat": "both ends run in software on one machine: ratios say something, absolute figures little about a NIC",
        "date": said("date", &["-u", "+%FT%TZ"]),
        "revision": revision(),
        "version": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "cpu": field("model name"),
        "cpus": processors.lines().filter(|line| line.starts_with("processor")).count(),
        "virtual_machine": flags.split(' ').any(|flag| flag == "hypervisor"),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_mib": memory_mib(),
        "load_average": read("/proc/loadavg").and_then(|load| load.split(' ').next().map(str::to_owned)),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "mitigations": read("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
        "bpf_jit": read("/proc/sys/net/core/bpf_jit_enable"),
    });
    match value {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Of the source tree that this was built from, as it is now; `-dirty` where it was changed since.
fn revision() -> Option<String> {
    said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"])
}

fn memory_mib() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}
