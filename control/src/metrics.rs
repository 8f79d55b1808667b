//! Metrics in the OpenMetrics text format, made from the overview when asked for: nothing is counted twice.

use std::fmt;

use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::message::Overview;

type Label = Vec<(&'static str, String)>;

/// The text; `browsers`: what came by the browsers' transports, by what became of it.
///
/// # Errors
/// None that occurs: writing to a string does not fail.
pub fn encode(overview: &Overview, browsers: &[(&'static str, u64)]) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sallyport");
    let gauge = |value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    let calls = Family::<Label, Gauge>::default();
    for (state, count) in &overview.states {
        let value = i64::try_from(*count).unwrap_or(i64::MAX);
        calls.get_or_create(&vec![("state", (*state).to_owned())]).set(value);
    }
    registry.register("calls", "Calls by state", calls);
    registry.register("sessions", "Browsers signed in", gauge(overview.sessions));
    let messages = Family::<Label, Counter>::default();
    for (outcome, count) in browsers {
        messages.get_or_create(&vec![("outcome", (*outcome).to_owned())]).inc_by(*count);
    }
    registry.register(
        "browser_messages",
        "Messages of browsers, and browsers that came back or were lost",
        messages,
    );
    let begun = Counter::<u64>::default();
    begun.inc_by(overview.begun);
    registry.register("calls_begun", "Calls begun", begun);
    let ended = Family::<Label, Counter>::default();
    for (cause, count) in &overview.ended {
        ended.get_or_create(&vec![("cause", (*cause).to_owned())]).inc_by(*count);
    }
    registry.register("calls_ended", "Calls ended by cause", ended);
    registry.register(
        "relay_connected",
        "Whether the relay is there",
        gauge(u64::from(overview.relay.is_some())),
    );
    let build = Family::<Label, Gauge>::default();
    build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1);
    registry.register("build", "Version of control", build);
    if let Some(relay) = &overview.relay {
        for (name, help, value) in [
            ("relay_calls", "Calls installed in the relay", u64::from(relay.calls)),
            ("relay_directions", "Directions installed", u64::from(relay.directions)),
            ("relay_flows", "Kernel flow entries", u64::from(relay.flows)),
            ("relay_port_pairs", "Port pairs taken", u64::from(relay.ports)),
            ("relay_frames", "Packet frames", relay.frames.0),
            (
                "relay_frames_missing",
                "Packet frames that nobody can account for; must stay 0",
                relay.frames.1,
            ),
        ] {
            registry.register(name, help, gauge(value));
        }
        let packets = Family::<Label, Counter>::default();
        for counter in &relay.counters {
            packets.get_or_create(&vec![("counter", counter.name.clone())]).inc_by(counter.value);
        }
        registry.register("relay_events", "What relay and kernel program count", packets);
    }
    let mut text = String::new();
    encode_text(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_numbers_by_name() {
        let overview = Overview {
            sessions: 3,
            setup: 1,
            active: 2,
            states: vec![("ringing", 1)],
            begun: 7,
            ended: vec![("hang_up", 4)],
            relay: None,
            draining: false,
            candidates_known: true,
        };
        let text = encode(&overview, &[("bad", 5)]).unwrap();
        for line in [
            "sallyport_calls{state=\"ringing\"} 1",
            "sallyport_browser_messages_total{outcome=\"bad\"} 5",
            "sallyport_calls_begun_total 7",
            "sallyport_calls_ended_total{cause=\"hang_up\"} 4",
            "sallyport_relay_connected 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
