//! `sallyport maps`: what the kernel holds, read from the pins; needs neither relay nor control.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use sallyport_abi::{ACTION_REWRITE, FlowKey, FlowValue, Target};
use sallyport_xdp::Inspector;
use serde_json::{Value, json};

/// Options of `sallyport maps`.
#[derive(Args)]
pub struct Options {
    /// Which map.
    map: Map,
    /// Where the maps are pinned.
    #[arg(long, value_name = "DIR", default_value = "/run/sallyport/bpf")]
    pins: PathBuf,
    /// One JSON array instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Map {
    /// Whose packets are whose: zone, 5-tuple, direction, packets, octets, seconds since the last packet, and what becomes of
    /// them: to the worker, or on from the kernel to a target.
    Flows,
    /// Every way out of the program, in packets since it was first loaded.
    Counters,
}

/// Prints a map.
///
/// # Errors
/// Where no maps are pinned, or they are of another version.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let inspector = Inspector::open(&options.pins)
        .with_context(|| format!("no maps of ours can be read under {}", options.pins.display()))?;
    match options.map {
        Map::Flows => flows(inspector.flows().context("the flow map cannot be read")?, options.json),
        Map::Counters => {
            counters(&inspector.counters().context("the counters cannot be read")?, options.json)
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn zone_name(zone: u8) -> &'static str {
    match zone {
        1 => "outside",
        2 => "inside",
        _ => "unknown",
    }
}

fn flows(mut flows: Vec<(FlowKey, FlowValue)>, as_json: bool) {
    flows.sort_by_key(|(key, _)| (key.zone, key.local(), key.remote()));
    let now = monotonic_ns();
    if as_json {
        let rows: Vec<Value> = flows.iter().map(|(key, value)| flow_json(key, value, now)).collect();
        println!("{}", Value::Array(rows));
        return;
    }
    println!(
        "{:<8} {:<28} {:<28} {:>9} {:>5} {:>10} {:>12} {:>8}  action",
        "zone", "local", "remote", "direction", "epoch", "packets", "octets", "idle [s]"
    );
    for (key, value) in &flows {
        println!(
            "{:<8} {:<28} {:<28} {:>9x} {:>5} {:>10} {:>12} {:>8}  {}",
            zone_name(key.zone),
            key.local().to_string(),
            key.remote().to_string(),
            value.direction,
            value.epoch,
            value.packets,
            value.bytes,
            idle(value, now).map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.1}")),
            action(value),
        );
    }
    println!("{} flows", flows.len());
}

/// What becomes of the flow's packets, in words.
fn action(value: &FlowValue) -> String {
    let way = |target: &Target| format!("{} -> {}", target.source(), target.destination());
    match (value.action == ACTION_REWRITE, value.rtp == value.rtcp) {
        (false, _) => "redirect".into(),
        (true, true) => format!("rewrite {}", way(&value.rtp)),
        (true, false) => format!("rewrite {}, RTCP {}", way(&value.rtp), way(&value.rtcp)),
    }
}

fn target_json(target: &Target) -> Value {
    let mac = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":");
    json!({
        "source": target.source().to_string(), "destination": target.destination().to_string(),
        "ifindex": target.ifindex, "source_mac": mac(&target.macs[6..]), "destination_mac": mac(&target.macs[..6]),
        "dscp": target.traffic_class >> 2, "back": target.back != 0,
    })
}

fn flow_json(key: &FlowKey, value: &FlowValue, now: u64) -> Value {
    let rewritten = value.action == ACTION_REWRITE;
    json!({
        "zone": zone_name(key.zone), "local": key.local().to_string(), "remote": key.remote().to_string(),
        "direction": value.direction, "epoch": value.epoch, "packets": value.packets, "octets": value.bytes,
        "idle_s": idle(value, now), "action": if rewritten { "rewrite" } else { "redirect" },
        "rtp": rewritten.then(|| target_json(&value.rtp)), "rtcp": rewritten.then(|| target_json(&value.rtcp)),
    })
}

/// Seconds since the last packet; `None` where there was none.
#[allow(clippy::cast_precision_loss)]
fn idle(value: &FlowValue, now: u64) -> Option<f64> {
    (value.last_seen_ns != 0).then(|| now.saturating_sub(value.last_seen_ns) as f64 / 1e9)
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

fn counters(counters: &[(&'static str, u64)], as_json: bool) {
    if as_json {
        let rows: Vec<Value> =
            counters.iter().map(|(name, packets)| json!({ "name": name, "packets": packets })).collect();
        println!("{}", Value::Array(rows));
        return;
    }
    println!("{:<28} {:>14}", "way out of the program", "packets");
    for (name, packets) in counters {
        println!("{name:<28} {packets:>14}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sallyport_abi::{Egress, INSIDE};
    use std::net::SocketAddr;

    #[test]
    fn flows_tell_what_becomes_of_their_packets() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let key = FlowKey::new(INSIDE, at("10.0.0.1:20000"), at("10.0.0.9:4000"));
        let egress = Egress {
            ifindex: 3,
            source_mac: [1; 6],
            destination_mac: [0xab; 6],
            dscp: 46,
            back: true,
            mtu: 1500,
        };
        let to = |port: u16| {
            let (source, destination) = (at("10.0.0.1:20002"), SocketAddr::new(at("10.0.0.8:1").ip(), port));
            Target::new(&key, source, destination, &egress).unwrap()
        };
        let mut value = FlowValue { direction: 1, rtp: to(5000), rtcp: to(5000), ..FlowValue::default() };
        assert_eq!((action(&value).as_str(), &flow_json(&key, &value, 0)["rtp"]), ("redirect", &Value::Null));
        value.action = ACTION_REWRITE;
        assert_eq!(action(&value), "rewrite 10.0.0.1:20002 -> 10.0.0.8:5000");
        value.rtcp = to(5001);
        let text = "rewrite 10.0.0.1:20002 -> 10.0.0.8:5000, RTCP 10.0.0.1:20002 -> 10.0.0.8:5001";
        assert_eq!(action(&value), text);
        let shown = flow_json(&key, &value, 0);
        assert_eq!(
            (&shown["action"], &shown["rtcp"]["destination"]),
            (&json!("rewrite"), &json!("10.0.0.8:5001"))
        );
        assert_eq!(
            (&shown["rtp"]["destination_mac"], &shown["rtp"]["dscp"]),
            (&json!("ab:ab:ab:ab:ab:ab"), &json!(46))
        );
    }
}
