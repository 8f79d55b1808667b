//! Which pictures a result makes.

use std::collections::BTreeMap;
use std::fmt::Write;

use plotters::style::RGBColor;

use super::super::compare::Spread;
use super::super::results::{Capacity, Percentiles, Point, Results, upper_edge};
use super::axis::{Axis, short};
use super::charts::{Bar, FLOOR, SERIES, Series, bars, lines};
use super::escape;

const WIDE: (u32, u32) = (1040, 380);
const PANEL: (u32, u32) = (340, 280);
/// Packets that must lie beyond a percentile for it to say something.
const BEYOND: u64 = 10;

/// A histogram: lower edges in microseconds, and packets.
type Bins = Vec<(f64, u64)>;
/// The same by edges as whole numbers: they have three decimals.
type Keyed = BTreeMap<u64, (f64, u64)>;
/// How a figure is read.
type Read = fn(&Point) -> Option<f64>;
type ReadPercentile = fn(&Percentiles) -> f64;

/// Colours by target, in the order in which they appear.
pub struct Palette(Vec<String>);

impl Palette {
    /// Of all targets but the wire.
    pub fn of(results: &Results) -> Self {
        let mut names: Vec<String> = Vec::new();
        let rows = results.rows.iter().map(|point| &point.name);
        for name in rows.chain(results.limits.iter().map(|limit| &limit.name)) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Self(names)
    }

    fn colour(&self, name: &str) -> RGBColor {
        let at = self.0.iter().position(|one| one == name);
        at.map_or(FLOOR, |at| SERIES[at % SERIES.len()])
    }

    /// A list of names and colours; the wire where it is shown.
    fn legend(&self, floor: bool) -> String {
        let item = |name: &str, colour: RGBColor, dash: &str| {
            let RGBColor(red, green, blue) = colour;
            format!(
                "<li><svg viewBox=\"0 0 26 10\"><line x1=\"0\" y1=\"5\" x2=\"26\" y2=\"5\" stroke-width=\"3\"{dash} \
                 stroke=\"#{red:02X}{green:02X}{blue:02X}\"/></svg>{}</li>",
                escape(name)
            )
        };
        let items: String = self.0.iter().map(|name| item(name, self.colour(name), "")).collect();
        let wire =
            if floor { item("the wire alone", FLOOR, " stroke-dasharray=\"5 4\"") } else { String::new() };
        format!("<ul class=\"legend\">{items}{wire}</ul>\n")
    }
}

/// What is drawn once for each target: repetitions as one.
fn merged(points: impl Iterator<Item = Point>) -> Vec<(String, Bins)> {
    let mut merged: Vec<(String, Keyed)> = Vec::new();
    for point in points {
        let at = merged.iter().position(|(name, _)| *name == point.name).unwrap_or_else(|| {
            merged.push((point.name.clone(), Keyed::new()));
            merged.len() - 1
        });
        for (edge, count) in point.bins() {
            merged[at].1.entry((edge * 1000.0).round() as u64).or_insert((edge, 0)).1 += count;
        }
    }
    merged.into_iter().map(|(name, bins)| (name, bins.into_values().collect())).collect()
}

/// What percentile curves and histograms are drawn of: the floor, rows, and every limit's half.
fn shown(results: &Results) -> Vec<(String, Bins)> {
    let halves = results.limits.iter().map(|limit| &limit.at_half);
    merged(results.floor.iter().take(1).chain(&results.rows).chain(halves).cloned())
}

#[allow(clippy::cast_precision_loss)]
fn curve(bins: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let total: u64 = bins.iter().map(|bin| bin.1).sum();
    let mut below = 0;
    let mut points = Vec::new();
    for (edge, count) in bins {
        if points.is_empty() {
            points.push((0.0, *edge));
        }
        below += count;
        let beyond = total - below;
        if beyond >= BEYOND {
            points.push(((total as f64 / beyond as f64).log10(), upper_edge(*edge)));
        }
    }
    points
}

/// Latency against percentile.
pub fn percentiles(results: &Results, palette: &Palette) -> anyhow::Result<String> {
    let of = |(name, bins): (String, Bins)| Series {
        colour: palette.colour(&name),
        points: curve(&bins),
        marks: false,
    };
    let series: Vec<Series> = shown(results).into_iter().map(of).collect();
    let Some(nines) = series.iter().filter_map(|one| one.points.last()).map(|last| last.0).reduce(f64::max)
    else {
        return Ok(String::new());
    };
    let latencies = series.iter().flat_map(|one| one.points.iter().map(|point| point.1));
    let y = Axis::logarithmic("one way, µs", latencies);
    let svg = lines(WIDE, &Axis::nines("percentile of packets", nines), &y, &series)?;
    Ok(format!("{}<figure>{svg}</figure>\n", palette.legend(!results.floor.is_empty())))
}

/// Shares of packets against latency.
#[allow(clippy::cast_precision_loss)]
pub fn histograms(results: &Results, palette: &Palette) -> anyhow::Result<String> {
    let of = |(name, bins): (String, Bins)| {
        let total: u64 = bins.iter().map(|bin| bin.1).sum();
        Series { colour: palette.colour(&name), points: steps(&bins, total.max(1) as f64), marks: false }
    };
    let series: Vec<Series> = shown(results).into_iter().map(of).collect();
    let all = || series.iter().flat_map(|one| one.points.iter());
    let Some(most) = all().map(|point| point.1).reduce(f64::max) else { return Ok(String::new()) };
    let x = Axis::logarithmic("one way, µs", all().map(|point| point.0));
    let svg = lines(WIDE, &x, &Axis::linear("% of packets in a bin", most * 1.05), &series)?;
    Ok(format!("{}<figure>{svg}</figure>\n", palette.legend(!results.floor.is_empty())))
}

/// The outline of a histogram, down to 0 where bins are empty; shares in percent.
#[allow(clippy::cast_precision_loss)]
fn steps(bins: &[(f64, u64)], total: f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (edge, count) in bins {
        let share = *count as f64 * 100.0 / total;
        match points.last().copied() {
            // Edges are rounded, so neighbours meet nearly.
            Some((last, _)) if *edge <= last * 1.01 => {}
            Some((last, _)) => points.extend([(last, 0.0), (*edge, 0.0)]),
            None => points.push((*edge, 0.0)),
        }
        points.extend([(*edge, share), (upper_edge(*edge), share)]);
    }
    points.extend(points.last().map(|(last, _)| (*last, 0.0)));
    points
}

/// Three percentiles against load.
pub fn latency_against_load(results: &Results, palette: &Palette) -> anyhow::Result<String> {
    if results.limits.is_empty() {
        return Ok(String::new());
    }
    let mut text = palette.legend(!results.floor.is_empty()) + "<div class=\"panels\">";
    let panels: [(&str, ReadPercentile); 3] =
        [("p50", |us| us.p50), ("p99", |us| us.p99), ("p99.9", |us| us.p99_9)];
    let all = || results.limits.iter().flat_map(Capacity::points).chain(&results.floor);
    // The same axes for all three: their heights can be compared.
    let values = all().flat_map(|point| panels.map(|(_, read)| read(&point.both)));
    let y = Axis::logarithmic("one way, µs", values);
    let most = results.limits.iter().map(|limit| limit.calls).max().unwrap_or_default();
    let x = Axis::linear("calls", most as f64 * 1.03);
    for (name, read) in panels {
        let svg = lines(PANEL, &x, &y, &by_load(results, palette, read))?;
        write!(text, "<figure><h3>{name}</h3>{svg}</figure>")?;
    }
    Ok(text + "</div>\n")
}

#[allow(clippy::cast_precision_loss)]
fn by_load(results: &Results, palette: &Palette, read: ReadPercentile) -> Vec<Series> {
    let most = results.limits.iter().map(|limit| limit.calls).max().unwrap_or_default() as f64;
    let mut floor: Vec<(f64, f64)> =
        results.floor.iter().map(|point| (point.calls as f64, read(&point.both))).collect();
    if let [(_, only)] = floor[..] {
        // One floor is a reference line for all loads.
        floor = vec![(0.0, only), (most, only)];
    }
    let mut series = vec![Series { colour: FLOOR, points: floor, marks: false }];
    for name in &palette.0 {
        let of_name = results.limits.iter().filter(|limit| limit.name == *name);
        let mut points: Vec<(f64, f64)> =
            of_name.flat_map(Capacity::points).map(|point| (point.calls as f64, read(&point.both))).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        series.push(Series { colour: palette.colour(name), points, marks: true });
    }
    series
}

/// One bar a target, by the median of its runs.
fn by_target(
    palette: &Palette,
    runs: impl Fn(&str) -> Vec<f64>,
    label: impl Fn(Spread, Option<f64>) -> String,
) -> anyhow::Result<String> {
    let spreads = palette.0.iter().filter_map(|name| Spread::of(runs(name)).map(|spread| (name, spread)));
    let spreads: Vec<(&String, Spread)> = spreads.collect();
    let Some(first) = spreads.first().map(|(_, spread)| spread.median) else { return Ok(String::new()) };
    let bar = |(name, spread): &(&String, Spread)| Bar {
        name: (*name).clone(),
        parts: vec![(spread.median, palette.colour(name))],
        range: (spread.runs > 1).then_some((spread.lowest, spread.highest)),
        label: label(*spread, (first > 0.0 && spreads.len() > 1).then(|| spread.median / first)),
    };
    bars(WIDE.0, &spreads.iter().map(bar).collect::<Vec<_>>())
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or(String::new(), |ratio| format!("  {ratio:.2}× the first"))
}

/// Capacities.
#[allow(clippy::cast_precision_loss)]
pub fn capacity(results: &Results, palette: &Palette) -> anyhow::Result<String> {
    let runs = |name: &str| {
        let limits = results.limits.iter().filter(|limit| limit.name == name);
        limits.map(|limit| limit.calls as f64).collect()
    };
    let svg =
        by_target(palette, runs, |spread, ratio| format!("{:.0} calls{}", spread.median, times(ratio)))?;
    if results.limits.is_empty() { Ok(String::new()) } else { Ok(format!("<figure>{svg}</figure>\n")) }
}

/// CPU, memory and set-up.
pub fn costs(results: &Results, palette: &Palette) -> anyhow::Result<String> {
    let figures: [(&str, &str, Read); 3] = [
        ("CPU a packet", "µs", |point| point.cpu_us_per_packet),
        ("Memory a call", "KiB", |point| point.kib_per_call),
        ("Calls set up a second, one after the other", "/s", |point| point.setup_calls_per_second),
    ];
    let mut text = String::new();
    for (heading, unit, read) in figures {
        let runs = |name: &str| {
            let halves = results.limits.iter().map(|limit| &limit.at_half);
            results.rows.iter().chain(halves).filter(|point| point.name == name).filter_map(read).collect()
        };
        let svg = by_target(palette, runs, |spread, ratio| {
            format!("{} {unit}{}", short(spread.median), times(ratio))
        })?;
        if !svg.is_empty() {
            writeln!(text, "<figure><h3>{heading}</h3>{svg}</figure>")?;
        }
    }
    Ok(text)
}

/// Stages of one packet as parts of a bar.
pub fn stages(results: &Results) -> anyhow::Result<String> {
    if results.stages.is_empty() {
        return Ok(String::new());
    }
    let colours = [
        ("parse", SERIES[6]),
        ("open", SERIES[0]),
        ("rewrite", SERIES[2]),
        ("seal", SERIES[3]),
        ("headers", SERIES[4]),
    ];
    let colour =
        |name: &str| colours.iter().find(|(stage, _)| *stage == name).map_or(FLOOR, |(_, colour)| *colour);
    let bar = |(way, name): (&str, &str)| {
        let stages = || results.stages.iter().filter(|stage| stage.way == way);
        Bar {
            name: name.into(),
            parts: stages().map(|stage| (stage.ns, colour(&stage.name))).collect(),
            range: None,
            label: format!("{:.0} ns", stages().map(|stage| stage.ns).sum::<f64>()),
        }
    };
    let svg = bars(WIDE.0, &[("inward", "browser to agent"), ("outward", "agent to browser")].map(bar))?;
    let mut legend = String::from("<ul class=\"legend\">");
    for (name, colour) in colours {
        let RGBColor(red, green, blue) = colour;
        let ns = |way: &str| {
            let stage = results.stages.iter().find(|stage| stage.way == way && stage.name == name);
            stage.map(|stage| format!("{:.0}", stage.ns))
        };
        let both = [ns("inward"), ns("outward")].into_iter().flatten().collect::<Vec<_>>().join(" / ");
        write!(
            legend,
            "<li><svg viewBox=\"0 0 26 10\"><rect width=\"26\" height=\"10\" fill=\"#{red:02X}{green:02X}{blue:02X}\"/></svg>\
             {name} {both} ns</li>"
        )?;
    }
    Ok(format!("{legend}</ul>\n<figure>{svg}</figure>\n"))
}
