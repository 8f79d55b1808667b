//! The format of result files: what `--json` writes, `bench compare` and `bench draw` read. docs/benchmark.md describes it.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::compare::Line;
use super::stages::Stage;

/// Number of the format; a file of another one is refused.
pub const FORMAT: u32 = 2;
/// Bins of a stored histogram by octave: their edges are 4.4 % apart.
const BINS: f64 = 16.0;

/// One result file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// Which command wrote it: `run`, `limit`, `peers` or `compare`.
    pub command: String,
    /// The machine, the links and what was asked for.
    pub facts: serde_json::Map<String, serde_json::Value>,
    /// The wire alone, one or several loads.
    #[serde(default)]
    pub floor: Vec<Point>,
    /// Each target at one load, once for each repetition.
    #[serde(default)]
    pub rows: Vec<Point>,
    /// Each target's capacity, once for each repetition.
    #[serde(default)]
    pub limits: Vec<Capacity>,
    /// Stages of one packet, measured inside the harness.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// What `compare` found; names of rows and limits then begin with `before` or `after`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparison: Vec<Line>,
}

/// One target under one load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// Of the target.
    pub name: String,
    /// Calls at once.
    pub calls: usize,
    /// Browser to agent.
    pub inward: Way,
    /// Agent to browser.
    pub outward: Way,
    /// Percentiles of both directions together, microseconds.
    pub both: Percentiles,
    /// Packets that the generator itself could not send.
    pub unsent: u64,
    /// How late the generator was, microseconds.
    pub generator_late_us_p99: f64,
    /// CPU microseconds of the target for each packet that arrived: CPU seconds per million packets.
    pub cpu_us_per_packet: Option<f64>,
    /// Resident memory that a call adds, KiB.
    pub kib_per_call: Option<f64>,
    /// Calls set up in a second, one after the other.
    pub setup_calls_per_second: Option<f64>,
    /// Time between captures on both sides of the target, where they were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Residence>,
    /// Time inside the box as the relay itself measured it, where it was asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residence: Option<Residence>,
}

impl Point {
    /// Packets that did not arrive, both ways together.
    pub fn lost(&self) -> u64 {
        self.inward.lost + self.outward.lost
    }

    /// The histogram of both ways together.
    pub fn bins(&self) -> Vec<(f64, u64)> {
        merge(&self.inward.histogram_us, &self.outward.histogram_us)
    }
}

/// One direction of a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Way {
    /// Packets sent.
    pub sent: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Packets that arrived and did not verify or parse.
    pub broken: u64,
    /// From schedule to arrival, microseconds.
    pub us: Percentiles,
    /// Lower edge of each bin that is not empty, microseconds, and its packets; sixteen bins an octave.
    pub histogram_us: Vec<(f64, u64)>,
}

/// Time inside the box by direction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Residence {
    /// Browser to agent.
    pub inward: Stay,
    /// Agent to browser.
    pub outward: Stay,
}

/// Time inside the box of one direction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stay {
    /// Packets that it is known of.
    pub packets: u64,
    /// Percentiles, microseconds.
    pub us: Percentiles,
}

/// Percentiles of a latency, microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    /// 99.99 %.
    #[serde(rename = "p99.99")]
    pub p99_99: f64,
    /// Longest.
    pub max: f64,
}

impl Percentiles {
    /// Of a histogram of nanoseconds.
    pub fn of(latency: &Histogram<u64>) -> Self {
        let us = |percentile| us(latency, percentile);
        Self {
            p50: us(50.0),
            p90: us(90.0),
            p99: us(99.0),
            p99_9: us(99.9),
            p99_99: us(99.99),
            max: us(100.0),
        }
    }

    /// Each with its name.
    pub fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("p99.99", self.p99_99),
            ("max", self.max),
        ]
    }
}

/// A target's capacity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Capacity {
    /// Of the target.
    pub name: String,
    /// Most calls without loss.
    pub calls: usize,
    /// At half of that.
    pub at_half: Point,
    /// At that; `None` where it carries none.
    pub at_most: Option<Point>,
    /// At other loads below it, where asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<Point>,
}

impl Capacity {
    /// All loads that it was measured at, the lowest first.
    pub fn points(&self) -> Vec<&Point> {
        let mut points: Vec<&Point> = self.sweep.iter().chain([&self.at_half]).chain(&self.at_most).collect();
        points.sort_by_key(|point| point.calls);
        points
    }
}

impl Results {
    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read, or is none of this format.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let wrong = || format!("{} is no result file of `bench`", path.display());
        let value: serde_json::Value = serde_json::from_str(&text).with_context(wrong)?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => bail!("{} has format {format}; this is for {FORMAT}", path.display()),
            None => bail!("{}: no format", wrong()),
        }
        serde_json::from_value(value).with_context(wrong)
    }

    /// Writes a file, on one line: `jq .` makes it readable.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// All points.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        let limits = self.limits.iter().flat_map(Capacity::points);
        self.floor.iter().chain(&self.rows).chain(limits)
    }

    /// What a fact says, or a dash.
    pub fn fact(&self, name: &str) -> String {
        match self.facts.get(name) {
            None | Some(serde_json::Value::Null) => "-".into(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        }
    }
}

/// A percentile of a histogram of nanoseconds, in microseconds.
#[allow(clippy::cast_precision_loss)]
pub fn us(latency: &Histogram<u64>, percentile: f64) -> f64 {
    latency.value_at_percentile(percentile) as f64 / 1000.0
}

/// A histogram of nanoseconds as bins, as [`Way::histogram_us`] has them.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
pub fn bins(latency: &Histogram<u64>) -> Vec<(f64, u64)> {
    let mut bins: Vec<(i64, u64)> = Vec::new();
    for value in latency.iter_recorded() {
        let bin = ((value.value_iterated_to().max(1) as f64).log2() * BINS).floor() as i64;
        match bins.last_mut() {
            Some((last, count)) if *last == bin => *count += value.count_at_value(),
            _ => bins.push((bin, value.count_at_value())),
        }
    }
    // Three decimals, a nanosecond, are enough to tell bins apart above 20 ns.
    let edge = |bin: i64| ((bin as f64 / BINS).exp2()).round() / 1000.0;
    bins.into_iter().map(|(bin, count)| (edge(bin), count)).collect()
}

/// Upper edge of the bin that begins at `lower`, in the same unit.
pub fn upper_edge(lower: f64) -> f64 {
    lower * (1.0 / BINS).exp2()
}

/// Two histograms of the same bins as one.
fn merge(one: &[(f64, u64)], other: &[(f64, u64)]) -> Vec<(f64, u64)> {
    let mut all: Vec<(f64, u64)> = one.iter().chain(other).copied().collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    all.dedup_by(|next, kept| {
        let same = (next.0 - kept.0).abs() < f64::EPSILON;
        kept.1 += if same { next.1 } else { 0 };
        same
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_every_packet_and_lie_close_to_it() {
        let mut latency = Histogram::new_with_bounds(1_000, 10_000_000_000, 3).unwrap();
        for value in (0..5000u64).map(|n| 1_000 + n * n) {
            latency.record(value).unwrap();
        }
        let bins = bins(&latency);
        assert_eq!(bins.iter().map(|bin| bin.1).sum::<u64>(), 5000);
        assert!(bins.windows(2).all(|pair| pair[0].0 < pair[1].0), "edges rise");
        // 4.4 % of the bin and 0.1 % of the histogram itself.
        let half = bins
            .iter()
            .scan(0, |sum, bin| {
                *sum += bin.1;
                Some((*sum, bin.0))
            })
            .find(|bin| bin.0 >= 2500);
        let exact = us(&latency, 50.0);
        let edge = half.unwrap().1;
        assert!((edge * 0.99..=upper_edge(edge) * 1.01).contains(&exact), "{edge} {exact}");
    }

    #[test]
    fn merging_adds_bins_of_the_same_edge() {
        assert_eq!(merge(&[(1.0, 2), (4.0, 1)], &[(1.0, 3), (2.0, 5)]), [(1.0, 5), (2.0, 5), (4.0, 1)]);
    }

    #[test]
    fn a_file_of_another_format_is_refused_by_its_number() {
        let file = std::env::temp_dir().join(format!("sp-format-{}.json", std::process::id()));
        let say = |text: &str| {
            fs::write(&file, text).unwrap();
            format!("{:#}", Results::read(&file).unwrap_err())
        };
        assert!(say(r#"{"format":1}"#).contains("format 1"));
        assert!(say("{}").contains("no result file"));
        assert!(say("so not JSON").contains("no result file"));
        fs::remove_file(&file).unwrap();
    }
}
