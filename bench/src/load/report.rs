//! The figures of `bench run`, as a table and as JSON.

use std::fs;

use hdrhistogram::Histogram;
use sallyport_plan::Status;
use serde_json::{Value, json};

use super::Options;
use super::traffic::{Load, Outcome};

/// What was measured.
pub struct Report {
    rows: Vec<Row>,
    facts: Value,
    cpu_us_per_packet: f64,
}

struct Row {
    name: &'static str,
    sent: u64,
    received: u64,
    broken: u64,
    latency: Histogram<u64>,
}

impl Report {
    /// Puts floor and relay side by side; `cpu` is the relay's in ticks of 10 ms.
    #[allow(clippy::cast_precision_loss)]
    pub fn new(options: &Options, floor: &Load, relay: &Load, cpu: u64, status: Status) -> Self {
        let rows = vec![
            row("wire, inward", &floor.inward),
            row("relay, inward", &relay.inward),
            row("wire, outward", &floor.outward),
            row("relay, outward", &relay.outward),
        ];
        let packets = relay.inward.received + relay.outward.received;
        let interfaces: Vec<Value> = status
            .interfaces
            .iter()
            .map(|interface| json!({ "name": interface.name, "path": interface.path, "queues": interface.queues }))
            .collect();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let model = read("/proc/cpuinfo");
        let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let facts = json!({
            "calls": options.calls, "seconds": options.seconds, "path": options.path, "suite": options.suite,
            "interfaces": interfaces, "workers": status.workers, "link": "veth, copy mode",
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
            "cpu": model.trim_start_matches(['\t', ' ', ':']),
            "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        });
        Self { rows, facts, cpu_us_per_packet: cpu as f64 * 10_000.0 / packets.max(1) as f64 }
    }

    /// Prints the table.
    pub fn print(&self) {
        println!(
            "{:<16} {:>9} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "one way [us]", "sent", "lost", "broken", "p50", "p90", "p99", "p99.9", "max"
        );
        for row in &self.rows {
            println!(
                "{:<16} {:>9} {:>7} {:>7} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                row.name,
                row.sent,
                row.sent.saturating_sub(row.received),
                row.broken,
                row.us(50.0),
                row.us(90.0),
                row.us(99.0),
                row.us(99.9),
                row.us(100.0),
            );
        }
        for (direction, wire, relay) in [("inward", 0, 1), ("outward", 2, 3)] {
            let added = |quantile| self.rows[relay].us(quantile) - self.rows[wire].us(quantile);
            println!(
                "added {direction}: p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us",
                added(50.0),
                added(99.0),
                added(99.9)
            );
        }
        println!("relay CPU: {:.2} us a packet; {}", self.cpu_us_per_packet, self.facts);
    }

    /// One JSON object.
    ///
    /// # Errors
    /// None that occurs: the values are plain.
    pub fn json(&self) -> serde_json::Result<String> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name, "sent": row.sent, "received": row.received, "broken": row.broken,
                    "us": { "p50": row.us(50.0), "p90": row.us(90.0), "p99": row.us(99.0), "p99.9": row.us(99.9), "max": row.us(100.0) },
                })
            })
            .collect();
        serde_json::to_string_pretty(&json!({
            "facts": self.facts, "rows": rows, "relay_cpu_us_per_packet": self.cpu_us_per_packet,
        }))
    }
}

impl Row {
    #[allow(clippy::cast_precision_loss)]
    fn us(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1000.0
    }
}

fn row(name: &'static str, outcome: &Outcome) -> Row {
    let Outcome { sent, received, broken, latency } = outcome;
    Row { name, sent: *sent, received: *received, broken: *broken, latency: latency.clone() }
}
