//! Digits of a browser, and the marks of media, as they are seen on the appliance's cables.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sallyport_bench::scene::Scene;
use sallyport_lab::appliance::{MEDIA_PORT, Way};
use sallyport_lab::net::{AGENT, INSIDE, OUTSIDE};
use sallyport_lab::pcap::Captured;
use sallyport_wire::demux::{Kind, classify};
use sallyport_wire::rtp::Header;

use crate::stage::{possible, until};

const TONES: &str = "15#9*";
/// Codes of those (RFC 4733 section 3.2).
const CODES: [u8; 5] = [1, 5, 11, 9, 10];
/// Marks: expedited forwarding, as media inside has where nothing is configured, and what is configured outside.
const EF: u8 = 46;
const AF41: u8 = 34;

/// Packets of media that left the appliance inside.
fn media(captured: &[Captured]) -> Vec<Header<'_>> {
    let inward = |packet: &&Captured| {
        packet.source.ip() == IpAddr::V4(INSIDE)
            && packet.destination.ip() == IpAddr::V4(AGENT)
            && packet.destination.port() >= 30_000
            && classify(&packet.payload) == Kind::Rtp
    };
    captured.iter().filter(inward).filter_map(|packet| Header::parse(&packet.payload).ok()).collect()
}

/// One event as it was seen: its code, the longest duration, how many packets and how many of them were its end.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    code: u8,
    duration: u16,
    packets: usize,
    ends: usize,
}

/// Events by their timestamps. All media is of one stream without a gap.
fn events(captured: &[Captured]) -> Vec<Seen> {
    let mut events: BTreeMap<u32, Seen> = BTreeMap::new();
    for packet in captured {
        let Ok(header) = Header::parse(&packet.payload) else { continue };
        if header.payload_type() != 101 || header.payload_len() != 4 {
            continue;
        }
        let block = &packet.payload[header.header_len()..];
        let duration = u16::from_be_bytes([block[2], block[3]]);
        let seen = events.entry(header.timestamp()).or_insert(Seen {
            code: block[0],
            duration,
            packets: 0,
            ends: 0,
        });
        assert_eq!(seen.code, block[0], "one event has one timestamp");
        seen.duration = seen.duration.max(duration);
        seen.packets += 1;
        seen.ends += usize::from(block[1] & 0x80 != 0);
    }
    events.into_values().collect()
}

fn scene(way: Way, mode: &str) -> Scene {
    let more = format!("[sip]\ndtmf = \"{mode}\"\n[outside]\ndscp = {AF41}\n");
    Scene::set_with(way, &mut |_| (), |setup| setup.more = more.parse().unwrap()).unwrap()
}

/// What went inside by INFO: digits and durations in milliseconds.
fn told(captured: &[Captured]) -> Vec<(char, u16)> {
    let value = |text: &str, name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let digit = |packet: &Captured| {
        let text = std::str::from_utf8(&packet.payload).ok()?;
        text.starts_with("INFO ").then_some(())?;
        Some((value(text, "Signal=")?.parse().ok()?, value(text, "Duration=")?.parse().ok()?))
    };
    captured.iter().filter_map(digit).collect()
}

fn digits_by_rtp(way: Way) {
    let scene = scene(way, "auto");
    scene.call().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(scene.browser.digits(TONES, 120, 100).unwrap(), TONES.len());
    std::thread::sleep(Duration::from_millis(500));
    let captured = scene.inside.so_far().unwrap();
    let seen = events(&captured);
    assert_eq!(seen.iter().map(|event| event.code).collect::<Vec<_>>(), CODES, "{seen:?}");
    for event in &seen {
        // 120 ms at 8 kHz, and the 20 ms of a packet more or less.
        assert!((800..=1200).contains(&event.duration), "{event:?}");
        assert_eq!(event.ends, 3, "the end is repeated, as it came: {event:?}");
    }
    assert_eq!(told(&captured), [], "not by INFO as well");
    let stream = media(&captured);
    assert!(stream.iter().all(|packet| packet.ssrc() == stream[0].ssrc()), "one SSRC");
    for (one, next) in stream.iter().zip(&stream[1..]) {
        assert_eq!(next.sequence(), one.sequence().wrapping_add(1), "no gap");
    }
    marks(&scene);
    let status = scene.snapshot().unwrap().status;
    assert_eq!(status.counter("continuity_broken"), 0);
    assert_eq!(scene.browser.hang_up().unwrap(), 204);
}

/// Digits that are asked for by the API leave as named events in the browser's stream, made by the relay.
fn digits_of_the_api(way: Way) {
    let scene = scene(way, "auto");
    scene.call().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let asked = serde_json::json!({ "digits": TONES, "duration": 100 });
    assert_eq!(scene.browser.ask("dtmf", &asked).unwrap(), 204);
    until("all have left", Duration::from_secs(5), || {
        scene.snapshot().unwrap().status.counter("event_rtp") >= 7 * 5
    });
    std::thread::sleep(Duration::from_millis(500));
    let captured = scene.inside.so_far().unwrap();
    let seen = events(&captured);
    let expected = CODES.map(|code| Seen { code, duration: 800, packets: 7, ends: 3 });
    assert_eq!(seen, expected);
    assert_eq!(told(&captured), [], "not by INFO as well");
    let stream = media(&captured);
    assert!(stream.iter().all(|packet| packet.ssrc() == stream[0].ssrc()), "one SSRC");
    for (one, next) in stream.iter().zip(&stream[1..]) {
        assert_eq!(next.sequence(), one.sequence().wrapping_add(1), "no gap");
        if one.payload_type() == 101 && next.payload_type() == 101 && one.timestamp() == next.timestamp() {
            assert!(!next.marker(), "one beginning");
        }
    }
    let status = scene.snapshot().unwrap().status;
    let counters = ["continuity_broken", "digit_lost", "event_rtp"].map(|name| status.counter(name));
    assert_eq!(counters, [0, 0, 35]);
    assert_eq!(scene.browser.hang_up().unwrap(), 204);
}

#[test]
fn digits_of_the_api_leave_as_named_events_by_native_xdp() {
    if possible() {
        digits_of_the_api(Way::Xdp);
    }
}

#[test]
fn digits_of_the_api_leave_as_named_events_by_sockets() {
    if possible() {
        digits_of_the_api(Way::Socket);
    }
}

/// Media leaves with the mark of each side.
fn marks(scene: &Scene) {
    let ours = |packet: &&Captured| {
        packet.source.ip() == IpAddr::V4(INSIDE) || packet.source == SocketAddr::from((OUTSIDE, MEDIA_PORT))
    };
    let is_media = |packet: &&Captured| matches!(classify(&packet.payload), Kind::Rtp | Kind::Rtcp);
    for (mark, cable) in [(AF41, &scene.outside), (EF, &scene.inside)] {
        let captured = cable.so_far().unwrap();
        let sent: Vec<u8> = captured.iter().filter(ours).filter(is_media).map(|packet| packet.dscp).collect();
        assert!(sent.len() > 50 && sent.iter().all(|dscp| *dscp == mark), "{mark}: {sent:?}");
    }
}

#[test]
fn digits_of_a_browser_arrive_as_named_events_by_native_xdp() {
    if possible() {
        digits_by_rtp(Way::Xdp);
    }
}

#[test]
fn digits_of_a_browser_arrive_as_named_events_by_sockets() {
    if possible() {
        digits_by_rtp(Way::Socket);
    }
}

#[test]
fn digits_of_a_browser_arrive_by_info_where_that_is_wanted() {
    if !possible() {
        return;
    }
    let scene = scene(Way::Generic, "info");
    scene.call().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    scene.browser.digits(TONES, 120, 100).unwrap();
    until("all digits are told", Duration::from_secs(5), || {
        told(&scene.inside.so_far().unwrap()).len() >= TONES.len()
    });
    std::thread::sleep(Duration::from_millis(500));
    let captured = scene.inside.so_far().unwrap();
    let digits = told(&captured);
    assert_eq!(digits.iter().map(|(digit, _)| *digit).collect::<String>(), TONES, "{digits:?}");
    assert!(digits.iter().all(|(_, duration)| (100..=150).contains(duration)), "{digits:?}");
    assert_eq!(events(&captured), [], "not by RTP as well");
    marks(&scene);
    assert_eq!(scene.browser.hang_up().unwrap(), 204);
}
