//! What `query`, `list` and `statistics` tell: the members and types that rtpengine 10.5 gives, which scripts read.

use std::net::SocketAddr;

use sallyport_plan::PortPair;
use sallyport_proto::ng::{Form, Value, frame};

use super::browser::Browser;
use super::harness::until;
use super::ng::{Lab, inward, lab, outward, request, text, to};

/// Follows a path of keys and indices.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(value, |value, step| {
        let found = match value {
            Value::List(items) => items.get(step.parse::<usize>().unwrap()),
            _ => value.get(step),
        };
        found.unwrap_or_else(|| panic!("{step} of {path} in {value:?}"))
    })
}

fn int(value: &Value, path: &str) -> i64 {
    let Value::Int(number) = at(value, path) else { panic!("{path} is no number: {:?}", at(value, path)) };
    *number
}

fn word<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_else(|| panic!("{path} is no text"))
}

/// What the lab's relay says of both sources.
fn tells_of_sources(query: &Value) {
    for source in ["1000", "1001"] {
        let average = |name: &str| int(query, &format!("SSRC/{source}/average MOS/{name}"));
        assert_eq!(["MOS", "jitter", "packet loss", "round-trip time"].map(average), [44, 4, 0, 30_000]);
        assert_eq!(int(query, &format!("SSRC/{source}/cumulative loss")), 0);
    }
}

#[test]
fn query_and_delete_tell_of_both_sides_as_rtpengine_does() {
    let lab = lab("");
    let mut browser = Browser::new(&lab.relay, lab.browser(1));
    lab.sdp(&request("offer", "told", inward(&browser.offer("actpass"))));
    let early = lab.ask(&request("query", "told", vec![]));
    assert_eq!(word(&early, "tags/one/tag"), "one");
    assert_eq!(at(&early, "tags/one/subscriptions"), &Value::List(vec![]), "nobody has answered");
    let answer = lab.sdp(&request("answer", "told", to("two", inward(&lab.phone(30_000)))));
    browser.connect(&answer);
    until("keys are in the plan", || {
        lab.relay.state().plans.values().next().is_some_and(|plan| plan.directions[0].open.is_some())
    });
    let ports = lab.relay.state().ports.values().next().unwrap()[0];
    let query = lab.ask(&request("query", "told", vec![]));
    assert_eq!(word(&query, "result"), "ok");
    let (created, us) = (int(&query, "created"), int(&query, "created_us"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((0..60).contains(&(i64::try_from(now).unwrap() - created)) && (0..1_000_000).contains(&us));
    assert!((created..=created + 60).contains(&int(&query, "last signal")));
    tells_of_sources(&query);
    // The lab's relay says 100 packets, 16000 octets and 3 drops for each way.
    assert_eq!(
        ["packets", "bytes", "errors"].map(|name| int(&query, &format!("totals/RTP/{name}"))),
        [200, 32_000, 6]
    );
    assert_eq!(
        ["packets", "bytes", "errors"].map(|name| int(&query, &format!("totals/RTCP/{name}"))),
        [0; 3]
    );
    for (tag, other, protocol) in [("one", "two", "UDP/TLS/RTP/SAVPF"), ("two", "one", "RTP/AVP")] {
        let side = at(&query, &format!("tags/{tag}"));
        assert_eq!(
            (word(side, "tag"), word(side, "in dialogue with"), int(side, "created")),
            (tag, other, created)
        );
        for list in ["subscriptions", "subscribers"] {
            assert_eq!(word(side, &format!("{list}/0/tag")), other);
            assert_eq!(word(side, &format!("{list}/0/type")), "offer/answer");
        }
        let medium = at(side, "medias/0");
        assert_eq!(
            (int(medium, "index"), word(medium, "type"), word(medium, "protocol")),
            (1, "audio", protocol)
        );
        assert!(
            at(medium, "flags").texts().contains(&"send") && at(medium, "flags").texts().contains(&"recv")
        );
        let stream = at(medium, "streams/0");
        assert_eq!(
            ["packets", "bytes", "errors"].map(|name| int(stream, &format!("stats/{name}"))),
            [100, 16_000, 3]
        );
        assert_eq!(word(stream, "family"), "IPv4");
        assert!(
            at(stream, "flags").texts().contains(&"RTP") && at(stream, "flags").texts().contains(&"filled")
        );
    }
    paths(&lab, &query, browser.address, ports);
    let deleted = lab.ask(&request("delete", "told", vec![]));
    assert_eq!(at(&deleted, "totals"), at(&query, "totals"), "the last numbers come with the delete");
    lab.is_clean();
}

/// Where each side's media comes from and goes to.
fn paths(lab: &Lab, query: &Value, browser: SocketAddr, ports: PortPair) {
    let outside = at(query, "tags/one/medias/0/streams");
    assert!(matches!(outside, Value::List(streams) if streams.len() == 1), "RTP and RTCP are one");
    assert_eq!(word(outside, "0/endpoint/address"), browser.ip().to_string());
    assert_eq!(int(outside, "0/endpoint/port"), i64::from(browser.port()));
    assert_eq!(int(outside, "0/local port"), i64::from(lab.control.net.media().port()));
    let flags = at(query, "tags/one/medias/0/flags").texts();
    assert!(["DTLS-SRTP", "ICE", "rtcp-mux"].iter().all(|flag| flags.contains(flag)), "{flags:?}");
    let inside = at(query, "tags/two/medias/0/streams");
    assert_eq!(int(inside, "0/local port"), i64::from(ports.rtp.port()));
    assert_eq!(word(inside, "0/local address"), ports.rtp.ip().to_string());
    assert_eq!(
        (int(inside, "1/local port"), int(inside, "1/endpoint/port")),
        (i64::from(ports.rtcp.port()), 30_001)
    );
    assert_eq!(at(inside, "1/flags").texts(), ["RTCP", "filled"]);
    assert_eq!(word(inside, "0/advertised endpoint/address"), lab.control.net.pbx().ip().to_string());
}

#[test]
fn list_is_as_long_as_it_is_asked_to_be() {
    let lab = lab("");
    for call in 0..40 {
        lab.sdp(&request("offer", &format!("call-{call}"), outward(&lab.phone(30_000 + 2 * call))));
    }
    let list = |more: Vec<(&'static str, Value)>| {
        let all = [("command", Value::text("list"))].into_iter().chain(more);
        let answer = lab.ask(&Value::dict(all));
        assert_eq!(word(&answer, "result"), "ok");
        let Value::List(calls) = at(&answer, "calls").clone() else { panic!("no list") };
        assert!(calls.iter().all(|call| call.as_str().is_some_and(|name| name.starts_with("call-"))));
        calls.len()
    };
    assert_eq!(list(vec![]), 32, "rtpengine's own limit");
    assert_eq!(list(vec![("limit", Value::Int(5))]), 5);
    assert_eq!(list(vec![("limit", Value::text("100"))]), 40);
    assert_eq!(list(vec![("limit", Value::Int(-1))]), 32);
    for call in 0..40 {
        lab.ask(&request("delete", &format!("call-{call}"), vec![]));
    }
    lab.is_clean();
}

#[test]
fn statistics_count_sessions_and_requests_as_rtpengine_does() {
    let lab = lab("");
    let statistics =
        || lab.ask(&Value::dict([("command", Value::text("statistics"))])).get("statistics").unwrap().clone();
    lab.sdp(&request("offer", "one", outward(&lab.phone(30_000))));
    lab.sdp(&request("offer", "two", outward(&lab.phone(30_002))));
    lab.error(&request("offer", "three", vec![("sdp", Value::text("no SDP"))]));
    lab.ask(&request("delete", "one", vec![]));
    let cookie = "json";
    let json = frame::emit(cookie.as_bytes(), Form::Json, &Value::dict([("command", Value::text("ping"))]));
    assert_eq!(text(&lab.exchange(&json, cookie), "result"), "pong");
    let told = statistics();
    let current = at(&told, "currentstatistics");
    assert_eq!(
        ["sessionsown", "sessionsforeign", "sessionstotal", "transcodedmedia"].map(|name| int(current, name)),
        [1, 0, 1, 0]
    );
    let total = at(&told, "totalstatistics");
    assert!(word(total, "uptime").parse::<u64>().is_ok(), "text, as rtpengine has it");
    for (name, count) in [
        ("managedsessions", 1),
        ("regularterminatedsessions", 1),
        ("forcedterminatedsessions", 0),
        ("timeoutsessions", 0),
        ("offertimeoutsessions", 0),
        ("rejectedsessions", 0),
        ("relayedpackets", 42),
    ] {
        assert_eq!(int(total, name), count, "{name}");
    }
    let control = at(&told, "controlstatistics");
    let proxy = at(control, "proxies/0");
    assert_eq!(word(proxy, "proxy"), lab.control.net.http().ip().to_string());
    for (verb, count) in [("ping", 1), ("offer", 3), ("answer", 0), ("delete", 1), ("query", 0), ("list", 0)]
    {
        assert_eq!(int(proxy, &format!("{verb}count")), count, "{verb}");
        assert_eq!(int(control, &format!("total{verb}count")), count, "{verb}");
        assert!(word(proxy, &format!("{verb}duration")).parse::<f64>().is_ok(), "{verb}");
    }
    assert_eq!(int(proxy, "errorcount"), 1);
    let inside = at(&told, "interfaces/1");
    assert_eq!(
        (word(inside, "name"), word(inside, "address")),
        ("internal", lab.control.net.inside().to_string().as_str())
    );
    assert_eq!(
        (int(inside, "ports/min"), int(inside, "ports/max"), int(inside, "ports/totals")),
        (20_000, 29_999, 10_000)
    );
    assert_eq!(at(&told, "transcoders"), &Value::List(vec![]));
    assert_eq!(int(&told, "relay/forward_rtp"), 42);
    lab.ask(&request("delete", "two", vec![]));
    lab.is_clean();
    assert_eq!(int(&statistics(), "totalstatistics/managedsessions"), 2);
}
