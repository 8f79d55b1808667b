//! The browser against a stand-in for the appliance: another browser, behind the 1:1 NAT, with HTTP in front.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as the test does")]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::lab;
use sallyport_lab::browser::{Browser, Call, Setup};
use sallyport_lab::capture::{Capture, Span, follow};
use sallyport_lab::http::{Request, Response, Server};
use sallyport_lab::net::{APPLIANCE_PUBLIC, OUTSIDE, OUTSIDE_PEER, STUN};
use sallyport_lab::tone::{self, Expected, Fault, listen};
use sallyport_lab::{Lab, Options, Place};

/// What the stand-in was asked.
type Log = Arc<Mutex<Vec<String>>>;

fn stand_in(lab: &Lab, far: Arc<Browser>, log: Log) -> Server {
    let answer = move |request: &Request| {
        log.lock().unwrap().push(format!("{} {}", request.method, request.path));
        let cors = |name, value: &str| (name, value.to_owned());
        let mut headers = vec![
            cors("Access-Control-Allow-Origin", "*"),
            cors("Access-Control-Allow-Methods", "POST, PATCH, DELETE"),
            cors("Access-Control-Allow-Headers", "authorization, content-type"),
            cors("Access-Control-Expose-Headers", "Location, ETag"),
        ];
        let (status, body) = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v1/calls?to=1000") => {
                headers.push(cors("Location", "/v1/calls/1"));
                headers.push(cors("Content-Type", "application/sdp"));
                (201, far.answer(&request.body, Some(&STUN.to_string())).unwrap())
            }
            ("POST", _) => (502, "nobody".into()),
            ("PATCH", "/v1/calls/1") => {
                far.add_candidates(&request.body).unwrap();
                (204, String::new())
            }
            _ => (204, String::new()),
        };
        Response { status, headers, body }
    };
    Server::start(&lab.namespace(Place::Dmz), SocketAddr::from((OUTSIDE, 8080)), answer).unwrap()
}

fn call(to: &str, trickle: bool) -> Call {
    let url = format!("http://{APPLIANCE_PUBLIC}:8080/v1/calls?to={to}");
    Call { url, token: Some("secret".into()), stun: Some(STUN.to_string()), trickle }
}

#[test]
fn a_page_calls_through_both_nats_and_hears_the_far_tone() {
    let Some(lab) = lab(Options::default()) else { return };
    let browser = Browser::start(&lab, &Setup::default()).unwrap();
    let far = Arc::new(Browser::start(&lab, &Setup { place: Place::Dmz, tone: tone::AGENT }).unwrap());
    let log = Log::default();
    let _server = stand_in(&lab, far.clone(), log.clone());
    let near_tap = Capture::start(&lab, &lab.namespace(Place::Browser), "eth0", "browser").unwrap();
    let far_tap = Capture::start(&lab, &lab.namespace(Place::DmzNat), OUTSIDE_PEER, "outside").unwrap();

    let refused = format!("{:#}", browser.call(&call("nobody", true)).unwrap_err());
    assert!(refused.contains("502") && refused.contains("nobody"), "{refused}");
    let answered = browser.call(&call("1000", true)).unwrap();
    assert!(
        answered.answer.contains("203.0.113.7"),
        "the answer holds the public address: {}",
        answered.answer
    );
    let timings = browser.wait_connected(Duration::from_secs(20)).unwrap();
    far.wait_connected(Duration::from_secs(5)).unwrap();
    assert!(timings.media_ms >= timings.connected_ms && timings.connected_ms > timings.answer_ms.unwrap());
    browser.record().unwrap();
    far.record().unwrap();
    let begin = SystemTime::now();
    std::thread::sleep(Duration::from_secs(5));
    let span = Span::between(begin, SystemTime::now());
    let (near_heard, far_heard) = (browser.recorded().unwrap(), far.recorded().unwrap());
    let stats = browser.stats().unwrap();
    assert_eq!(browser.hang_up().unwrap(), 204);

    let mut expected = Expected { tone: tone::AGENT, other: tone::BROWSER, seconds: 4.0 };
    let heard = listen(&near_heard, expected);
    assert_eq!(heard.judge(expected), Ok(()), "{heard:?}");
    assert_eq!(listen(&far_heard, expected).judge(expected), Err(Fault::Swapped));
    std::mem::swap(&mut expected.tone, &mut expected.other);
    let heard = listen(&far_heard, expected);
    assert_eq!(heard.judge(expected), Ok(()), "{heard:?}");

    assert_eq!(stats.connection, "connected");
    assert_eq!(stats.dtls.state.as_deref(), Some("connected"));
    assert!(stats.dtls.srtp.is_some() && stats.codec.is_some(), "{stats:?}");
    assert!(stats.sent > 200 && stats.received > 200, "{stats:?}");
    assert_eq!(stats.remote.address.as_deref(), Some("203.0.113.7"));
    let asked = log.lock().unwrap().clone();
    assert!(asked.iter().any(|line| line == "PATCH /v1/calls/1"), "{asked:?}");
    assert_eq!(asked.last().map(String::as_str), Some("DELETE /v1/calls/1"));

    // The same packets on the browser's cable and on the appliance's, two NATs apart.
    let (near, far) = (near_tap.stop().unwrap(), far_tap.stop().unwrap());
    let from_browser = |datagram: &&sallyport_lab::pcap::Captured| {
        datagram.destination.ip() == IpAddr::V4(OUTSIDE) && sallyport_lab::capture::is_rtp(datagram)
    };
    let seen = far.iter().find(from_browser).unwrap();
    let public = SocketAddr::from((APPLIANCE_PUBLIC, 0));
    let port = SocketAddr::new(public.ip(), seen.destination.port());
    let passage = follow(&near, port, &far, SocketAddr::new(seen.source.ip(), 0), span).unwrap();
    assert!(passage.sent > 200, "{passage:?}");
    assert_eq!(passage.lost(), 0);
    assert!(passage.latency_us(50.0).unwrap() < 1000.0, "{:?}", passage.latency_us(50.0));
}
