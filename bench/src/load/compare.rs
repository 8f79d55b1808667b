//! What changed between two results: the ratio of every figure, and whether it is more than the runs scatter by themselves.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::results::{Capacity, Point, Results};

/// Facts that must be the same for figures to be comparable.
const CONDITIONS: [&str; 11] =
    ["cpu", "cpus", "kernel", "governor", "link", "mix", "suite", "seconds", "workers", "queues", "build"];

/// One figure of one target, before and after.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// Which target under which load.
    pub subject: String,
    /// Which figure, with its unit.
    pub figure: String,
    /// Before.
    pub before: Spread,
    /// After.
    pub after: Spread,
    /// Median after by median before; `None` where that was 0.
    pub ratio: Option<f64>,
    /// What to make of it.
    pub verdict: Verdict,
}

/// The runs of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Of all runs.
    pub median: f64,
    /// Lowest run.
    pub lowest: f64,
    /// Highest run.
    pub highest: f64,
    /// How many.
    pub runs: usize,
}

/// What a difference is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every run after is better than every run before.
    Better,
    /// Every run after is worse than every run before.
    Worse,
    /// The runs overlap.
    Within,
    /// One run on a side: nobody knows how runs scatter.
    Unknown,
}

impl Spread {
    /// Of runs; `None` of none.
    pub fn of(mut runs: Vec<f64>) -> Option<Self> {
        runs.sort_by(f64::total_cmp);
        let (lowest, highest) = (*runs.first()?, *runs.last()?);
        let median = f64::midpoint(runs[(runs.len() - 1) / 2], runs[runs.len() / 2]);
        Some(Self { median, lowest, highest, runs: runs.len() })
    }

    fn judge(before: Self, after: Self, more_is_better: bool) -> Verdict {
        if before.runs < 2 || after.runs < 2 {
            return Verdict::Unknown;
        }
        let (more, less) = (after.lowest > before.highest, after.highest < before.lowest);
        match (more, less) {
            (false, false) => Verdict::Within,
            (more, _) if more == more_is_better => Verdict::Better,
            _ => Verdict::Worse,
        }
    }
}

/// A figure of points: its name, how to read it, whether more of it is better.
type Figure = (&'static str, fn(&Point) -> Option<f64>, bool);

#[allow(clippy::cast_precision_loss)]
const FIGURES: [Figure; 11] = [
    ("p50 us", |point| Some(point.both.p50), false),
    ("p90 us", |point| Some(point.both.p90), false),
    ("p99 us", |point| Some(point.both.p99), false),
    ("p99.9 us", |point| Some(point.both.p99_9), false),
    ("p99.99 us", |point| Some(point.both.p99_99), false),
    ("max us", |point| Some(point.both.max), false),
    ("lost", |point| Some(point.lost() as f64), false),
    ("broken", |point| Some((point.inward.broken + point.outward.broken) as f64), false),
    ("us/pkt", |point| point.cpu_us_per_packet, false),
    ("KiB/call", |point| point.kib_per_call, false),
    ("setup/s", |point| point.setup_calls_per_second, true),
];

/// Both results as one, with what changed.
pub fn join(before: &Results, after: &Results) -> Results {
    let mut joined = Results { command: "compare".into(), comparison: lines(before, after), ..after.clone() };
    joined.floor.clone_from(if after.floor.is_empty() { &before.floor } else { &after.floor });
    joined.facts.insert("before".into(), before.facts.clone().into());
    let differing = differing(before, after);
    joined.facts.insert("differing_conditions".into(), differing.into());
    // Of both the table tells; a picture would be of one only.
    joined.stages.clear();
    joined.rows.clear();
    joined.limits.clear();
    for (when, results) in [("before", before), ("after", after)] {
        let name = |point: &Point| Point { name: format!("{when}: {}", point.name), ..point.clone() };
        joined.rows.extend(results.rows.iter().map(name));
        joined.limits.extend(results.limits.iter().map(|limit| Capacity {
            name: format!("{when}: {}", limit.name),
            calls: limit.calls,
            at_half: name(&limit.at_half),
            at_most: limit.at_most.as_ref().map(name),
            sweep: limit.sweep.iter().map(name).collect(),
        }));
    }
    joined
}

/// Conditions that were not the same, with both values.
fn differing(before: &Results, after: &Results) -> Vec<String> {
    let both = CONDITIONS.iter().map(|name| (name, before.fact(name), after.fact(name)));
    let differ = both.filter(|(_, before, after)| before != after);
    differ.map(|(name, before, after)| format!("{name}: {before} / {after}")).collect()
}

fn lines(before: &Results, after: &Results) -> Vec<Line> {
    let mut lines = Vec::new();
    let key = |point: &Point| (point.name.clone(), point.calls);
    let loads: BTreeSet<_> = before.rows.iter().map(key).collect();
    for load in loads {
        let of = |results: &Results| {
            results.rows.iter().filter(|point| key(point) == load).cloned().collect::<Vec<_>>()
        };
        figures(&format!("{}, {} calls", load.0, load.1), &of(before), &of(after), &mut lines);
    }
    let names: BTreeSet<_> = before.limits.iter().map(|limit| &limit.name).collect();
    for name in names {
        let of = |results: &Results| {
            results.limits.iter().filter(|limit| limit.name == *name).cloned().collect::<Vec<_>>()
        };
        let (before, after) = (of(before), of(after));
        let calls = |limits: &[Capacity]| limits.iter().map(|limit| limit.calls as f64).collect();
        lines.extend(line(name, "calls", (calls(&before), calls(&after)), true));
        let halves =
            |limits: Vec<Capacity>| limits.into_iter().map(|limit| limit.at_half).collect::<Vec<_>>();
        figures(&format!("{name}, at half"), &halves(before), &halves(after), &mut lines);
    }
    for stage in &before.stages {
        let same = after.stages.iter().filter(|other| (&other.way, &other.name) == (&stage.way, &stage.name));
        let subject = format!("stage {} {}", stage.way, stage.name);
        lines.extend(line(&subject, "ns", (vec![stage.ns], same.map(|stage| stage.ns).collect()), false));
    }
    lines
}

fn figures(subject: &str, before: &[Point], after: &[Point], lines: &mut Vec<Line>) {
    for (figure, read, more_is_better) in FIGURES {
        let of = |points: &[Point]| points.iter().filter_map(read).collect();
        lines.extend(line(subject, figure, (of(before), of(after)), more_is_better));
    }
}

/// `None` where one of them has no such figure.
fn line(subject: &str, figure: &str, runs: (Vec<f64>, Vec<f64>), more_is_better: bool) -> Option<Line> {
    let (before, after) = (Spread::of(runs.0)?, Spread::of(runs.1)?);
    let ratio = (before.median > 0.0).then(|| after.median / before.median);
    let verdict = Spread::judge(before, after, more_is_better);
    Some(Line { subject: subject.into(), figure: figure.into(), before, after, ratio, verdict })
}

/// Prints what changed.
pub fn print(results: &Results) {
    println!("{:<44} {:<10} {:>22} {:>22} {:>6}", "", "", "before (range)", "after (range)", "ratio");
    for line in &results.comparison {
        let ratio = line.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
        println!(
            "{:<44} {:<10} {:>22} {:>22} {:>6} {}",
            line.subject,
            line.figure,
            text(line.before),
            text(line.after),
            ratio,
            word(line.verdict)
        );
    }
    if results.comparison.is_empty() {
        println!("nothing in common: no target was measured under the same load in both");
    }
    if results.comparison.iter().any(|line| line.verdict == Verdict::Unknown) {
        println!("?: one run on a side, so nothing is known of the spread; --repeat makes more");
    }
    if let Some(serde_json::Value::Array(differing)) = results.facts.get("differing_conditions") {
        for one in differing {
            println!("not measured alike: {}", one.as_str().unwrap_or_default());
        }
    }
}

/// A median, and its range where there is one.
pub fn text(spread: Spread) -> String {
    let mut text = format!("{:.2}", spread.median);
    if spread.runs > 1 {
        // Writing to a string does not fail.
        let _ = write!(text, " ({:.2}-{:.2})", spread.lowest, spread.highest);
    }
    text
}

/// What a verdict is called.
pub const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "WORSE",
        Verdict::Within => "",
        Verdict::Unknown => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(before: &[f64], after: &[f64], more_is_better: bool) -> (Option<f64>, Verdict) {
        let line = line("x", "y", (before.to_vec(), after.to_vec()), more_is_better).unwrap();
        (line.ratio, line.verdict)
    }

    #[test]
    fn only_what_lies_beyond_all_runs_is_a_change() {
        assert_eq!(judged(&[1.0, 2.0], &[4.0, 5.0], false), (Some(3.0), Verdict::Worse));
        assert_eq!(judged(&[1.0, 2.0], &[4.0, 5.0], true), (Some(3.0), Verdict::Better));
        assert_eq!(judged(&[4.0, 5.0], &[1.0, 2.0], false).1, Verdict::Better);
        assert_eq!(judged(&[4.0, 5.0], &[1.0, 2.0], true).1, Verdict::Worse);
        assert_eq!(judged(&[1.0, 4.0], &[3.0, 9.0], false).1, Verdict::Within);
    }

    #[test]
    fn one_run_proves_nothing() {
        assert_eq!(judged(&[1.0], &[100.0], false), (Some(100.0), Verdict::Unknown));
        assert_eq!(judged(&[1.0, 2.0], &[100.0], false).1, Verdict::Unknown);
    }

    #[test]
    fn losses_that_appear_are_worse_though_no_ratio_says_so() {
        assert_eq!(judged(&[0.0, 0.0], &[5.0, 3.0], false), (None, Verdict::Worse));
        assert_eq!(judged(&[0.0, 0.0], &[0.0, 0.0], false), (None, Verdict::Within));
    }

    #[test]
    fn what_one_side_lacks_is_left_out() {
        assert!(line("x", "y", (vec![], vec![1.0]), false).is_none());
    }
}
