//! RTCP where one side is silent: Chromium talks to a SIPp that sends back what it hears and knows no RTCP.

use std::time::Duration;

use sallyport_lab::Options;
use sallyport_lab::appliance::Way;
use sallyport_lab::browser::{self, Browser, Call};
use sallyport_lab::net::STUN;
use serde_json::Value;

use crate::stage::{Stage, possible, until};

const PATIENCE: Duration = Duration::from_secs(30);

fn a_silent_far_end_is_spoken_for(way: Way) {
    let stage = Stage::set(way, Options::default(), |_| ());
    let browser = Browser::start(&stage.lab, &browser::Setup::default()).unwrap();
    let call = Call {
        url: stage.appliance.call_url("1000"),
        token: Some(stage.appliance.token().into()),
        stun: Some(STUN.to_string()),
        trickle: true,
    };
    let answered = browser.call(&call).unwrap();
    browser.wait_connected(PATIENCE).unwrap();
    // The first report of ours is due within five seconds, the browser's answer to it within as many.
    until("the browser is told of its own stream", PATIENCE, || {
        browser.stats().unwrap().report_round_trip_s.is_some()
    });
    let stats = browser.stats().unwrap();
    assert!(stats.report_round_trip_s.unwrap() < 0.2, "{stats:?}");
    assert_eq!(stats.reported_lost, Some(0), "{stats:?}");
    let sent = stats.reported_sent.unwrap();
    assert!(sent > 100 && sent <= stats.received + 50, "{stats:?}");
    // What the appliance knows of it.
    let path = &answered.location[answered.location.find("/v1/").unwrap()..];
    let mut shown = Value::Null;
    until("the browser's answer has told the way to it", PATIENCE, || {
        shown = serde_json::from_str(&stage.appliance.get(path).unwrap()).unwrap();
        shown["media"]["directions"][0]["quality"]["round_trip_ms"].is_number()
    });
    let quality = |at: usize, name: &str| shown["media"]["directions"][at]["quality"][name].as_f64().unwrap();
    for at in 0..2 {
        assert!(quality(at, "received") > 100.0 && quality(at, "loss_percent") < 1.0, "{shown}");
        assert!(quality(at, "mos") > 4.0 && quality(at, "jitter_ms") < 20.0, "{shown}");
        // Not told of packets that one worker hands to another.
        let stay = shown["media"]["directions"][at]["quality"]["stay"]["p50_us"].as_u64();
        assert!(stay.is_none_or(|us| us < 20_000), "{shown}");
    }
    let reported = &shown["media"]["directions"][1]["quality"]["reported"];
    assert!(reported["lost"].as_i64().unwrap().abs() < 5, "what Chromium tells of our stream: {shown}");
    assert!(stage.status().counter("report_rtcp") > 0);
    assert_eq!(browser.hang_up().unwrap(), 204);
    browser.stop();
}

#[test]
fn a_silent_far_end_is_spoken_for_by_native_xdp() {
    if possible() {
        a_silent_far_end_is_spoken_for(Way::Xdp);
    }
}

#[test]
fn a_silent_far_end_is_spoken_for_by_sockets() {
    if possible() {
        a_silent_far_end_is_spoken_for(Way::Socket);
    }
}
