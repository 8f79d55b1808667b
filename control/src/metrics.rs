//! Metrics in the OpenMetrics text format, made from the overview when asked for: nothing is counted twice.

use std::fmt;

use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::identity::Counts;
use crate::message::Overview;
use crate::sip::View;

type Label = Vec<(&'static str, String)>;

/// The text; `browsers`: what came by the browsers' transports, by what became of it.
///
/// # Errors
/// None that occurs: writing to a string does not fail.
pub fn encode(
    overview: &Overview,
    (sign_ins, messages): (Counts, &[(&'static str, u64)]),
    sip: &View,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sallyport");
    let calls = Family::<Label, Gauge>::default();
    for (state, count) in &overview.states {
        let value = i64::try_from(*count).unwrap_or(i64::MAX);
        calls.get_or_create(&vec![("state", (*state).to_owned())]).set(value);
    }
    registry.register("calls", "Calls by state", calls);
    browsers(&mut registry, overview, sign_ins);
    said(&mut registry, messages);
    let begun = Counter::<u64>::default();
    begun.inc_by(overview.begun);
    registry.register("calls_begun", "Calls begun", begun);
    let ended = Family::<Label, Counter>::default();
    for (cause, count) in &overview.ended {
        ended.get_or_create(&vec![("cause", (*cause).to_owned())]).inc_by(*count);
    }
    registry.register("calls_ended", "Calls ended by cause", ended);
    let recordings = Family::<Label, Counter>::default();
    for (outcome, count) in &overview.recordings {
        recordings.get_or_create(&vec![("outcome", (*outcome).to_owned())]).inc_by(*count);
    }
    registry.register("recordings", "Recordings of calls by what became of them", recordings);
    overview.quality.register(&mut registry);
    registry.register(
        "relay_connected",
        "Whether the relay is there",
        gauge(u64::from(overview.relay.is_some())),
    );
    encode_sip(&mut registry, sip);
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

fn encode_sip(registry: &mut Registry, sip: &View) {
    let peers = Family::<Label, Gauge>::default();
    for (number, peer) in sip.peers.iter().enumerate() {
        // By number: metrics hold no address.
        let labels = vec![("peer", number.to_string()), ("transport", peer.transport.name().to_owned())];
        peers.get_or_create(&labels).set(i64::from(peer.alive == Some(true)));
    }
    registry.register("sip_peer_alive", "Whether a SIP server answers, by its number in the status", peers);
    let refused = Family::<Label, Counter>::default();
    for (reason, count) in &sip.refused {
        refused.get_or_create(&vec![("reason", (*reason).to_owned())]).inc_by(*count);
    }
    registry.register("sip_refused", "SIP messages refused or dropped, by reason", refused);
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

/// What browsers said over the JSON WebSocket and the hanging GET.
fn said(registry: &mut Registry, messages: &[(&'static str, u64)]) {
    let family = Family::<Label, Counter>::default();
    for (outcome, count) in messages {
        family.get_or_create(&vec![("outcome", (*outcome).to_owned())]).inc_by(*count);
    }
    let help = "Messages of browsers, and browsers that came back or were lost";
    registry.register("browser_messages", help, family);
}

/// Who is signed in, with which numbers, and who tried.
fn browsers(registry: &mut Registry, overview: &Overview, sign_ins: Counts) {
    registry.register("sessions", "Browsers signed in", gauge(overview.sessions));
    let registrations = Family::<Label, Gauge>::default();
    for (state, count) in &overview.registrations {
        let value = i64::try_from(*count).unwrap_or(i64::MAX);
        registrations.get_or_create(&vec![("state", (*state).to_owned())]).set(value);
    }
    registry.register("registrations", "Numbers at the SIP server by state", registrations);
    let outcomes = Family::<Label, Counter>::default();
    let Counts { accepted, denied, limited, failed } = sign_ins;
    for (outcome, count) in
        [("accepted", accepted), ("denied", denied), ("limited", limited), ("failed", failed)]
    {
        outcomes.get_or_create(&vec![("outcome", outcome.to_owned())]).inc_by(count);
    }
    registry.register("sign_ins", "Sign-ins by what became of them", outcomes);
}

#[cfg(test)]
mod tests {
    use sallyport_plan::{CallId, DirectionReport};

    use super::*;
    use crate::quality::Totals;

    #[test]
    fn tells_numbers_by_name() {
        let overview = Overview {
            sessions: 3,
            registrations: vec![("registered", 2)],
            setup: 1,
            active: 2,
            states: vec![("ringing", 1)],
            begun: 7,
            ended: vec![("hang_up", 4)],
            recordings: vec![("failed", 2)],
            relay: None,
            draining: false,
            candidates_known: true,
            quality: Totals::default(),
        };
        let quality = sallyport_plan::Quality {
            received: 95,
            jitter_us: 3000,
            payload_type: Some(sallyport_plan::Pt(0)),
            ..Default::default()
        };
        let (packets, octets, drops) = Default::default();
        let index = sallyport_plan::DirectionIndex(0);
        let (medium, from) = (sallyport_plan::Medium::Audio, sallyport_plan::Zone::Inside);
        let report = DirectionReport { index, medium, from, packets, octets, lost: 5, drops, quality };
        overview.quality.add(CallId(1), &[report]);
        let peer = crate::sip::PeerState {
            name: "10.0.0.5:5060".into(),
            address: "10.0.0.5:5060".parse().unwrap(),
            transport: crate::config::Transport::Udp,
            alive: Some(true),
            reason: String::new(),
        };
        let sip = View { peers: vec![peer], refused: [("not_sip", 3)].into() };
        let text =
            encode(&overview, (Counts { limited: 5, ..Counts::default() }, &[("bad", 7)]), &sip).unwrap();
        for line in [
            "sallyport_calls{state=\"ringing\"} 1",
            "sallyport_browser_messages_total{outcome=\"bad\"} 7",
            "sallyport_calls_begun_total 7",
            "sallyport_registrations{state=\"registered\"} 2",
            "sallyport_sign_ins_total{outcome=\"limited\"} 5",
            "sallyport_calls_ended_total{cause=\"hang_up\"} 4",
            "sallyport_recordings_total{outcome=\"failed\"} 2",
            "sallyport_relay_connected 0",
            "sallyport_sip_peer_alive{peer=\"0\",transport=\"UDP\"} 1",
            "sallyport_media_received_total{from=\"inside\"} 95",
            "sallyport_media_lost_total{from=\"inside\"} 5",
            "sallyport_media_mos_count{from=\"inside\"} 1",
            "sallyport_media_mos_bucket{le=\"3.5\",from=\"inside\"} 0",
            "sallyport_media_mos_bucket{le=\"4.0\",from=\"inside\"} 1",
            "sallyport_media_jitter_seconds_bucket{le=\"0.005\",from=\"inside\"} 1",
            "sallyport_sip_refused_total{reason=\"not_sip\"} 3",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
