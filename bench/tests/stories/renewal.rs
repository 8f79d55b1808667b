//! A page goes on by another connection in the middle of its call, in Chromium: ICE starts over, another RTCPeerConnection takes
//! the place of the first, the page is loaded anew. Both sides are heard before and behind, and the cables tell how long they were
//! silent.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sallyport_lab::Place;
use sallyport_lab::appliance::MEDIA_PORT;
use sallyport_lab::capture::{Capture, is_rtp};
use sallyport_lab::net::{AGENT, INSIDE_PEER, OUTSIDE, OUTSIDE_PEER};
use sallyport_lab::pcap::Captured;
use sallyport_lab::tone;
use sallyport_wire::rtp::Header;
use serde_json::json;

use crate::client::{CONNECT, Scene};
use crate::stage::possible;

/// Before and behind what happens.
const CALM: Duration = Duration::from_secs(2);

/// What the cables saw while something happened.
struct Seen {
    /// The longest times without a packet of sound, to the agent and to the browser.
    silence: [Duration; 2],
    /// Sources that the agent heard, and numbers that were missing there.
    sources: BTreeSet<u32>,
    missing: u64,
    /// SIP to the agent.
    requests: Vec<String>,
}

fn longest(datagrams: &[&Captured]) -> Duration {
    let gaps = datagrams.windows(2).map(|pair| pair[1].at_ns.saturating_sub(pair[0].at_ns));
    Duration::from_nanos(gaps.max().expect("sound"))
}

fn watch(scene: &Scene, what: &str, happen: impl FnOnce()) -> Seen {
    let tap = |place, interface, side| {
        let name = format!("{}-{side}", what.replace(' ', "-"));
        Capture::start(&scene.world.lab, &scene.world.lab.namespace(place), interface, &name).unwrap()
    };
    let outside = tap(Place::DmzNat, OUTSIDE_PEER, "outside");
    let inside = tap(Place::Enterprise, INSIDE_PEER, "inside");
    std::thread::sleep(CALM);
    happen();
    std::thread::sleep(CALM);
    let (outside, inside) = (outside.stop().unwrap(), inside.stop().unwrap());
    let media = SocketAddr::from((OUTSIDE, MEDIA_PORT));
    let to_agent = |one: &&Captured| one.destination.ip() == IpAddr::from(AGENT);
    let inward: Vec<&Captured> = inside.iter().filter(to_agent).filter(|one| is_rtp(one)).collect();
    let outward: Vec<&Captured> = outside.iter().filter(|one| one.source == media && is_rtp(one)).collect();
    let headers: Vec<Header<'_>> = inward.iter().map(|one| Header::parse(&one.payload).unwrap()).collect();
    let steps = headers.windows(2).map(|pair| u64::from(pair[1].sequence().wrapping_sub(pair[0].sequence())));
    let sip = inside.iter().filter(to_agent).filter(|one| one.destination.port() == 5060);
    let first_line = |one: &Captured| String::from_utf8_lossy(&one.payload).lines().next().map(str::to_owned);
    let seen = Seen {
        silence: [longest(&inward), longest(&outward)],
        sources: headers.iter().map(Header::ssrc).collect(),
        missing: steps.map(|step| step - 1).sum(),
        requests: sip.filter_map(first_line).filter(|line| line.ends_with("SIP/2.0")).collect(),
    };
    let [inward, outward] = seen.silence.map(|silence| silence.as_millis());
    eprintln!("{what}: {inward} ms of silence to the agent, {outward} ms to the browser");
    seen
}

impl Seen {
    /// The inside noticed nothing but silence, which was short.
    fn judge(&self, what: &str, silence: Duration) {
        assert!(self.silence.iter().all(|seen| *seen < silence), "{what}: {:?}", self.silence);
        assert_eq!((self.sources.len(), self.missing), (1, 0), "{what}: one stream without a gap in numbers");
        let requests: Vec<&String> =
            self.requests.iter().filter(|line| !line.starts_with("OPTIONS")).collect();
        assert!(requests.is_empty(), "{what}: {requests:?}");
    }
}

#[test]
fn a_page_goes_on_by_another_connection_and_its_ice_starts_over() {
    if !possible() {
        return;
    }
    let scene = Scene::calling();
    scene.sounds("connected", tone::AGENT, &scene.agent);
    let seen = watch(&scene, "ICE starts over", || {
        scene.runs("await lab.call().renegotiate(() => undefined, { iceRestart: true });");
    });
    seen.judge("ICE starts over", Duration::from_millis(200));
    scene.sounds("ICE has started over", tone::AGENT, &scene.agent);
    scene.runs("window.former = lab.call().peer; window.renewed = []; lab.call().on('renewed', well => renewed.push(well));");
    let seen = watch(&scene, "another connection", || {
        scene.runs("await lab.call().renew();");
    });
    seen.judge("another connection", Duration::from_millis(500));
    let states = scene.runs("return [former.connectionState, lab.call().peer.connectionState, renewed];");
    assert_eq!(states, json!(["closed", "connected", [true]]));
    scene.sounds("by another connection", tone::AGENT, &scene.agent);
    // That one is as good as the first: it holds and goes on.
    scene.runs("await lab.call().hold(); await lab.call().resume();");
    scene.hangs_up();
}

#[test]
fn a_page_that_is_loaded_anew_goes_on_with_its_call() {
    if !possible() {
        return;
    }
    let scene = Scene::set("/demo/?raw&keep");
    scene.visitor.click(&json!({ "to": "1000" }), "#place").unwrap();
    scene.talks();
    scene.sounds("connected", tone::AGENT, &scene.agent);
    let id = scene.runs("return lab.call().id;");
    let seen = watch(&scene, "loaded anew", || {
        scene.visitor.go(&scene.world.appliance.public_url("/demo/?raw&keep")).unwrap();
        scene.talks();
        scene.visitor.until("lab.call().peer.connectionState === 'connected'", CONNECT).unwrap();
    });
    seen.judge("loaded anew", Duration::from_secs(8));
    assert_eq!(scene.runs("return lab.call().id;"), id, "the same call");
    scene.sounds("loaded anew", tone::AGENT, &scene.agent);
    scene.hangs_up();
}
