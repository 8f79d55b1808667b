//! Figures as tables and as JSON.

use std::fs;

use hdrhistogram::Histogram;
use sallyport_plan::Status;
use serde_json::{Value, json};

use super::drive::Load;

/// Percentiles that are told.
const PERCENTILES: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99), ("max", 100.0)];

/// One target at one number of calls.
pub struct Measured {
    name: String,
    calls: usize,
    load: Load,
    cpu_us_per_packet: Option<f64>,
    kib_per_call: Option<f64>,
}

impl Measured {
    /// `cost` is the target's before its calls, before the load, and after it.
    #[allow(clippy::cast_precision_loss)]
    pub fn new(name: String, calls: usize, load: Load, cost: [Option<(f64, u64)>; 3]) -> Self {
        let [idle, before, after] = cost;
        // Warm-up packets cost as well, and are not counted: a tenth at the usual lengths, the same for all.
        let packets = (load.inward.received + load.outward.received).max(1) as f64;
        let cpu_us_per_packet = before.zip(after).map(|(before, after)| (after.0 - before.0) * 1e6 / packets);
        let kib_per_call = idle
            .zip(before)
            .map(|(idle, before)| before.1.saturating_sub(idle.1) as f64 / calls.max(1) as f64);
        Self { name, calls, load, cpu_us_per_packet, kib_per_call }
    }

    /// What came of the load.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Both directions together.
    fn latency(&self) -> Histogram<u64> {
        let mut both = self.load.inward.latency.clone();
        // The same bounds: it fits.
        let _ = both.add(&self.load.outward.latency);
        both
    }

    fn json(&self) -> Value {
        let way = |outcome: &super::drive::Outcome| {
            let us: serde_json::Map<String, Value> = PERCENTILES
                .iter()
                .map(|(name, p)| ((*name).into(), us(&outcome.latency, *p).into()))
                .collect();
            json!({ "sent": outcome.sent, "lost": outcome.lost(), "broken": outcome.broken, "us": us })
        };
        json!({
            "name": self.name, "calls": self.calls, "inward": way(&self.load.inward),
            "outward": way(&self.load.outward), "cpu_us_per_packet": self.cpu_us_per_packet,
            "kib_per_call": self.kib_per_call, "unsent": self.load.unsent, "generator_late_us_p99": us(&self.load.lateness, 99.0),
        })
    }
}

#[allow(clippy::cast_precision_loss)]
fn us(latency: &Histogram<u64>, percentile: f64) -> f64 {
    latency.value_at_percentile(percentile) as f64 / 1000.0
}

/// Machine and links.
pub fn facts(calls: u16, seconds: u16) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    json!({
        "calls": calls, "seconds": seconds, "link": "veth, copy mode",
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": model.trim_start_matches(['\t', ' ', ':']),
        "cpus": count,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// Rows of targets under the same load.
pub struct Report {
    /// The floor first.
    pub rows: Vec<Measured>,
    facts: Value,
}

impl Report {
    /// An empty one.
    pub fn new(facts: Value) -> Self {
        Self { rows: Vec::new(), facts }
    }

    /// Adds what the relay says of itself.
    pub fn add_status(&mut self, status: &Status) {
        let interfaces = status.interfaces.iter().map(
            |interface| json!({ "name": interface.name, "path": interface.path, "queues": interface.queues }),
        );
        self.facts["interfaces"] = interfaces.collect();
        self.facts["workers"] = status.workers.into();
    }

    /// Prints the table.
    pub fn print(&self) {
        println!(
            "{:<26} {:>9} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "one way, us", "sent", "lost", "broken", "p50", "p90", "p99", "p99.9", "max"
        );
        for row in &self.rows {
            for (way, outcome) in [("in", &row.load.inward), ("out", &row.load.outward)] {
                print!(
                    "{:<26} {:>9} {:>7} {:>7}",
                    format!("{} {way}", row.name),
                    outcome.sent,
                    outcome.lost(),
                    outcome.broken
                );
                for percentile in [50.0, 90.0, 99.0, 99.9, 100.0] {
                    print!(" {:>9.1}", us(&outcome.latency, percentile));
                }
                println!();
            }
        }
        if let [floor, row] = self.rows.as_slice() {
            let (floor, both) = (floor.latency(), row.latency());
            let added = |percentile| us(&both, percentile) - us(&floor, percentile);
            println!(
                "added: p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us",
                added(50.0),
                added(99.0),
                added(99.9)
            );
            println!(
                "cost: {:.2} us CPU a packet, {:.1} KiB a call",
                row.cpu_us_per_packet.unwrap_or_default(),
                row.kib_per_call.unwrap_or_default()
            );
        }
        println!("{}", self.facts);
    }

    /// One JSON object.
    ///
    /// # Errors
    /// None that occurs: the values are plain.
    pub fn json(&self) -> serde_json::Result<String> {
        let rows: Vec<Value> = self.rows.iter().map(Measured::json).collect();
        serde_json::to_string_pretty(&json!({ "facts": self.facts, "rows": rows }))
    }
}

/// What a target carries at the most, and what it does at half of that.
pub struct Limit {
    /// Calls without loss.
    pub calls: usize,
    /// At that; `None` where it carries none.
    pub most: Option<Measured>,
    /// At half of that.
    pub half: Measured,
}

/// Prints all limits, and each beside the first.
#[allow(clippy::cast_precision_loss)]
pub fn print_limits(limits: &[Limit]) {
    println!(
        "{:<26} {:>7} {:>7} | at half: {:>9} {:>9} {:>9} {:>8} {:>9}",
        "most calls without loss", "calls", "times", "p50 us", "p99 us", "p99.9 us", "us/pkt", "KiB/call"
    );
    let first = limits.first().map_or(0, |limit| limit.calls);
    for limit in limits {
        let latency = limit.half.latency();
        println!(
            "{:<26} {:>7} {:>7.2} |          {:>9.1} {:>9.1} {:>9.1} {:>8.2} {:>9.1}",
            limit.half.name,
            limit.calls,
            limit.calls as f64 / first.max(1) as f64,
            us(&latency, 50.0),
            us(&latency, 99.0),
            us(&latency, 99.9),
            limit.half.cpu_us_per_packet.unwrap_or_default(),
            limit.half.kib_per_call.unwrap_or_default(),
        );
    }
    println!("veth in copy mode; generator on one processor, target on another; times: beside the first row");
}

/// One JSON object.
///
/// # Errors
/// None that occurs: the values are plain.
pub fn limits_json(limits: &[Limit], facts: Value) -> serde_json::Result<String> {
    let rows: Vec<Value> = limits
        .iter()
        .map(|limit| {
            json!({
                "name": limit.half.name, "calls": limit.calls, "at_half": limit.half.json(),
                "at_most": limit.most.as_ref().map(Measured::json),
            })
        })
        .collect();
    serde_json::to_string_pretty(&json!({ "facts": facts, "limits": rows }))
}
