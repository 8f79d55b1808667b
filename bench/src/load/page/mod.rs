//! A result file as one page: pictures, tables, facts; nothing is loaded from elsewhere.

mod axis;
mod charts;
mod pictures;
mod tables;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::results::Results;
use pictures::Palette;

const STYLE: &str = include_str!("style.css");

/// Writes the page.
///
/// # Errors
/// Where it cannot be written.
pub fn write(path: &Path, results: &Results) -> anyhow::Result<()> {
    fs::write(path, page(results)?).with_context(|| format!("cannot write {}", path.display()))
}

/// A part of the page: its heading, what to know of it, its body.
struct Section {
    heading: &'static str,
    about: &'static str,
    body: String,
}

fn page(results: &Results) -> anyhow::Result<String> {
    let palette = Palette::of(results);
    let sections = [
        Section {
            heading: "What changed",
            about: "Ratios are after by before, of medians. Better and worse: no run of one side lies within the other's range.",
            body: tables::comparison(results)?,
        },
        Section {
            heading: "Most calls without loss",
            about: "Less than 0.01 % of packets lost, with a generator that kept its schedule.",
            body: pictures::capacity(results, &palette)?,
        },
        Section {
            heading: "Latency against load",
            about: "From a packet's scheduled time to its arrival, both directions together. A packet that could not be sent on \
                    time counts from its schedule all the same.",
            body: pictures::latency_against_load(results, &palette)?,
        },
        Section {
            heading: "Latency by percentile",
            about: "Every step to the right is ten times rarer. Lines end where fewer than ten packets are beyond.",
            body: pictures::percentiles(results, &palette)?,
        },
        Section {
            heading: "Distribution",
            about: "Bins are 4.4 % wide.",
            body: pictures::histograms(results, &palette)?,
        },
        Section {
            heading: "Cost",
            about: "CPU microseconds a packet are CPU seconds per million packets, softirq time spent in the process included.",
            body: pictures::costs(results, &palette)?,
        },
        Section {
            heading: "One packet by stage",
            about: "Nanoseconds inside this program, hot caches, no kernel: what the path costs beyond this is rings, interrupts \
                    and wake-ups.",
            body: pictures::stages(results)?,
        },
        Section { heading: "Inside the box", about: "", body: tables::residence(results)? },
        Section {
            heading: "All figures",
            about: "Microseconds one way; losses beside them.",
            body: tables::points(results)?,
        },
        Section { heading: "Measured on", about: "", body: tables::facts(results)? },
    ];
    let title = format!("Sallyport: bench {}", escape(&results.command));
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title>\n<style>\n{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n{}",
        head(results)
    );
    for section in sections.iter().filter(|section| !section.body.is_empty()) {
        let Section { heading, about, body } = section;
        writeln!(text, "<section><h2>{heading}</h2>\n<p class=\"muted\">{about}</p>\n{body}</section>")?;
    }
    text.push_str("</body></html>\n");
    Ok(text)
}

fn head(results: &Results) -> String {
    let fact = |name| escape(&results.fact(name));
    format!(
        "<p class=\"muted\">{} &middot; revision {}<br>mix {} &middot; suite {} &middot; {} s a load &middot; workers {} &middot; queues {}<br>\
         {} &times; {}, Linux {}</p>\n<p class=\"caveat\"><strong>{}.</strong> {}.</p>\n",
        fact("date"),
        fact("revision"),
        fact("mix"),
        fact("suite"),
        fact("seconds"),
        fact("workers"),
        fact("queues"),
        fact("cpus"),
        fact("cpu"),
        fact("kernel"),
        fact("link"),
        sentence(&fact("caveat")),
    )
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Text that is no markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::results::{Percentiles, Point, Way};

    fn point(name: &str) -> Point {
        let us = Percentiles { p50: 50.0, p90: 60.0, p99: 90.0, p99_9: 120.0, p99_99: 200.0, max: 300.0 };
        let histogram_us = vec![(50.0, 500), (90.0, 90), (200.0, 10)];
        let way = Way { sent: 600, lost: 0, broken: 0, us, histogram_us };
        Point {
            name: name.into(),
            calls: 100,
            inward: way.clone(),
            outward: way,
            both: us,
            unsent: 0,
            generator_late_us_p99: 1.0,
            cpu_us_per_packet: Some(2.0),
            kib_per_call: Some(3.0),
            setup_calls_per_second: Some(400.0),
            capture: None,
            residence: None,
        }
    }

    #[test]
    fn names_of_targets_are_no_markup() {
        let results = Results { rows: vec![point("<script>&")], ..Results::default() };
        let page = page(&results).unwrap();
        assert!(!page.contains("<script>"));
        assert!(page.contains("&lt;script&gt;&amp;"));
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let results = Results { rows: vec![point("a")], floor: vec![point("wire")], ..Results::default() };
        let page = page(&results).unwrap().replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.matches("<svg").count() >= 4);
    }

    #[test]
    fn an_empty_result_makes_a_page_too() {
        assert!(page(&Results::default()).unwrap().contains("<h1>"));
    }
}
