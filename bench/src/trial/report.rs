//! The figures of a call, as a table and as JSON.

use hdrhistogram::Histogram;
use sallyport_lab::appliance::Way;
use sallyport_lab::capture::Passage;
use serde_json::json;

use super::Deployment;
use super::measure::{Audio, Measured, faults};

/// Prints the table.
pub(super) fn print(measured: &Measured) {
    print!("\n{}", table(measured));
}

fn table(measured: &Measured) -> String {
    let faults = faults(measured);
    let verdict = if faults.is_empty() { "PASSED" } else { "FAILED" };
    let timings = measured.timings;
    let packets = measured.packets;
    let drops: Vec<_> = measured.drops.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let drops = if drops.is_empty() { String::new() } else { format!(" ({})", drops.join(", ")) };
    let mut lines = vec![
        format!("deployment {}, path {}: {verdict}", measured.deployment, measured.way),
        row(
            "call set up",
            &format!(
                "{:.0} ms (answer {:.0}, ICE and DTLS {:.0}, first packet {:.0})",
                timings.connected_ms,
                timings.answer_ms.unwrap_or(0.0),
                timings.connected_ms,
                timings.media_ms
            ),
        ),
        row("browser", &browser(measured)),
        passage("browser to agent", &measured.inward),
        passage("agent to browser", &measured.outward),
        row(
            "packets by",
            &format!("AF_XDP {}, XDP alone {}, UDP sockets {}", packets.afxdp, packets.xdp, packets.socket),
        ),
        row("dropped", &format!("{}{drops}", packets.dropped)),
        audio("browser hears", &measured.outside_hears),
        audio("agent hears", &measured.inside_hears),
    ];
    lines.extend(faults.iter().map(|fault| row("fault", fault)));
    lines.join("\n") + "\n"
}

fn row(name: &str, text: &str) -> String {
    format!("  {name:<18} {text}")
}

fn browser(measured: &Measured) -> String {
    let stats = &measured.stats;
    let dtls = match stats.dtls.version.as_deref() {
        Some("FEFC") => "1.3",
        Some("FEFD") => "1.2",
        other => other.unwrap_or("?"),
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".into());
    format!(
        "DTLS {dtls}, {}, {}, to {}:{} ({} to {})",
        text(&stats.dtls.srtp),
        text(&stats.codec),
        text(&stats.remote.address),
        stats.remote.port.unwrap_or(0),
        text(&stats.local.kind),
        text(&stats.remote.kind),
    )
}

fn passage(name: &str, passage: &Passage) -> String {
    let us = |percentile| passage.latency_us(percentile).map_or_else(|| "-".into(), |us| format!("{us:.0}"));
    let latency = format!("added latency p50 {} us, p99 {} us", us(50.0), us(99.0));
    row(name, &format!("{} packets, {} lost; {latency}", passage.sent, passage.lost()))
}

fn audio(name: &str, audio: &Audio) -> String {
    let verdict = audio.verdict.map_or_else(|fault| fault.to_string(), |()| "ok".into());
    row(name, &format!("{} Hz: {verdict} ({})", audio.expected.tone, audio.heard))
}

/// One object a call.
///
/// # Errors
/// None that occurs: two histograms of one shape.
pub(super) fn json(measured: &Measured) -> anyhow::Result<String> {
    let mut latency: Histogram<u64> = measured.inward.latency.clone();
    latency.add(&measured.outward.latency)?;
    let us = |percentile| {
        let us = latency.value_at_percentile(percentile) as f64 / 1000.0;
        if latency.is_empty() { None } else { Some(us) }
    };
    let faults = faults(measured);
    let packets = measured.packets;
    let direction = |passage: &Passage| {
        json!({
            "sent": passage.sent, "received": passage.received, "lost": passage.lost(),
            "latency_us": { "p50": passage.latency_us(50.0), "p99": passage.latency_us(99.0) },
        })
    };
    let value = json!({
        "deployment": measured.deployment.to_string(),
        "path": measured.way.to_string(),
        "passed": faults.is_empty(),
        "setup_ms": measured.timings.connected_ms,
        "packets": {
            "afxdp": packets.afxdp, "xdp": packets.xdp, "socket": packets.socket, "dropped": packets.dropped,
        },
        "lost": measured.lost(),
        "latency_us": { "p50": us(50.0), "p99": us(99.0) },
        "audio": {
            "outside_hears_inside": measured.outside_hears.verdict.is_ok(),
            "inside_hears_outside": measured.inside_hears.verdict.is_ok(),
        },
        "faults": faults,
        "browser_to_agent": direction(&measured.inward),
        "agent_to_browser": direction(&measured.outward),
        "drops": measured.drops,
        "timings_ms": measured.timings,
        "browser": measured.stats,
        "heard": { "outside": measured.outside_hears.heard, "inside": measured.inside_hears.heard },
    });
    Ok(value.to_string())
}

/// The object of a call that did not come to its end.
///
/// # Errors
/// None that occurs.
pub(super) fn failure_json(
    deployment: Deployment,
    way: Way,
    error: &anyhow::Error,
) -> anyhow::Result<String> {
    let value = json!({
        "deployment": deployment.to_string(), "path": way.to_string(), "passed": false, "faults": [format!("{error:#}")],
    });
    Ok(serde_json::to_string(&value)?)
}

#[cfg(test)]
mod tests {
    use super::super::measure::tests::good;
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_object_has_the_shape_that_was_promised() {
        let value: Value = serde_json::from_str(&json(&good()).unwrap()).unwrap();
        assert_eq!(value["deployment"], "A");
        assert_eq!(value["path"], "xdp");
        assert_eq!(value["passed"], true);
        assert_eq!(value["setup_ms"], 180.0);
        let packets = serde_json::json!({ "afxdp": 1040, "xdp": 0, "socket": 0, "dropped": 2 });
        assert_eq!(value["packets"], packets);
        assert_eq!(value["lost"], 0);
        assert!((value["latency_us"]["p50"].as_f64().unwrap() - 70.0).abs() < 0.1);
        assert!(value["latency_us"]["p99"].is_f64());
        let audio = serde_json::json!({ "outside_hears_inside": true, "inside_hears_outside": true });
        assert_eq!(value["audio"], audio);
        assert_eq!(json(&good()).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_call_that_failed_is_not_passed() {
        let mut measured = good();
        measured.packets.socket = 3;
        let value: Value = serde_json::from_str(&json(&measured).unwrap()).unwrap();
        assert_eq!(value["passed"], false);
        assert_eq!(value["faults"].as_array().map(Vec::len), Some(1));
        assert!(table(&measured).contains("FAILED") && table(&measured).contains("UDP stack took 3"));
        let value = failure_json(Deployment::A, Way::Xdp, &anyhow::anyhow!("nothing works")).unwrap();
        let value: Value = serde_json::from_str(&value).unwrap();
        assert_eq!((&value["passed"], &value["faults"][0]), (&false.into(), &"nothing works".into()));
    }

    #[test]
    fn the_table_is_short_and_says_all() {
        let table = table(&good());
        assert!(table.lines().count() <= 12);
        assert!(table.lines().all(|line| line.len() <= 110), "{table}");
        for text in [
            "PASSED",
            "180 ms",
            "DTLS 1.3",
            "AEAD_AES_256_GCM",
            "500 packets, 0 lost",
            "AF_XDP 1040",
            "p99 70 us",
        ] {
            assert!(table.contains(text), "{text} is missing:\n{table}");
        }
    }
}
