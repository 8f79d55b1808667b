//! Tables of the page.

use std::fmt::Write;

use super::super::compare::{self, Verdict};
use super::super::results::{Percentiles, Point, Results};
use super::super::table::number;
use super::escape;

/// Opens a table with these columns; the first holds names.
fn open(columns: &[&str]) -> String {
    let cells = columns.iter().map(|column| format!("<th>{column}</th>"));
    format!("<div class=\"wide\"><table><thead><tr>{}</tr></thead><tbody>\n", cells.collect::<String>())
}

const CLOSE: &str = "</tbody></table></div>\n";

fn row(name: &str, cells: impl IntoIterator<Item = String>) -> String {
    let cells = cells.into_iter().map(|cell| format!("<td>{cell}</td>"));
    format!("<tr><td>{}</td>{}</tr>\n", escape(name), cells.collect::<String>())
}

fn percentiles(us: &Percentiles) -> impl Iterator<Item = String> {
    us.named().map(|(_, value)| format!("{value:.1}")).into_iter()
}

/// Every point.
pub fn points(results: &Results) -> anyhow::Result<String> {
    if results.points().next().is_none() {
        return Ok(String::new());
    }
    let mut text = open(&[
        "",
        "calls",
        "way",
        "sent",
        "lost",
        "broken",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "µs CPU/pkt",
        "KiB/call",
        "setup/s",
        "generator late p99",
    ]);
    for point in results.points() {
        for (way, outcome) in [("in", &point.inward), ("out", &point.outward)] {
            let counts = [outcome.sent, outcome.lost, outcome.broken].map(|count| count.to_string());
            let cells = [point.calls.to_string(), way.into()].into_iter().chain(counts);
            text += &row(&point.name, cells.chain(percentiles(&outcome.us)).chain(costs(point)));
        }
    }
    Ok(text + CLOSE)
}

fn costs(point: &Point) -> [String; 4] {
    [
        number(point.cpu_us_per_packet, 2),
        number(point.kib_per_call, 1),
        number(point.setup_calls_per_second, 0),
        number(Some(point.generator_late_us_p99), 1),
    ]
}

/// Times inside the box.
pub fn residence(results: &Results) -> anyhow::Result<String> {
    let mut text = String::new();
    for point in results.points() {
        let both = [("between captures", &point.capture), ("by the relay itself", &point.residence)];
        for (by, residence) in both {
            let Some(residence) = residence else { continue };
            for (way, stay) in [("in", &residence.inward), ("out", &residence.outward)] {
                let cells = [point.calls.to_string(), by.into(), way.into(), stay.packets.to_string()];
                text += &row(&point.name, cells.into_iter().chain(percentiles(&stay.us)));
            }
        }
    }
    if text.is_empty() {
        return Ok(text);
    }
    let columns = ["", "calls", "measured", "way", "packets", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    Ok(open(&columns) + &text + CLOSE)
}

/// What changed.
pub fn comparison(results: &Results) -> anyhow::Result<String> {
    if results.comparison.is_empty() {
        return Ok(String::new());
    }
    let mut text = String::new();
    if let Some(serde_json::Value::Array(differing)) = results.facts.get("differing_conditions") {
        for one in differing.iter().filter_map(serde_json::Value::as_str) {
            writeln!(text, "<p class=\"caveat\">Not measured alike: {}</p>", escape(one))?;
        }
    }
    text += &open(&["", "figure", "before", "after", "ratio", ""]);
    for line in &results.comparison {
        let class = match line.verdict {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Within | Verdict::Unknown => "muted",
        };
        let ratio = line.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let word = format!("<span class=\"{class}\">{}</span>", compare::word(line.verdict));
        let spreads = [line.before, line.after].map(compare::text);
        let cells = [line.figure.clone()].into_iter().chain(spreads).chain([ratio, word]);
        text += &row(&line.subject, cells);
    }
    Ok(text + CLOSE)
}

/// All facts.
pub fn facts(results: &Results) -> anyhow::Result<String> {
    let mut text = String::from("<div class=\"wide\"><table class=\"facts\"><tbody>\n");
    for name in results.facts.keys().filter(|name| *name != "differing_conditions") {
        text += &row(&name.replace('_', " "), [escape(&results.fact(name))]);
    }
    Ok(text + CLOSE)
}
