//! A call that is recorded by a SIPREC recorder: SIPp speaks for it, and two ports hear the copies, one what the customer says, one
//! what the agent says. What they play back nobody hears.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use sallyport_bench::scene::Scene;
use sallyport_lab::agent;
use sallyport_lab::appliance::Way;
use sallyport_lab::net::AGENT;
use sallyport_lab::sipp::{self, Scenario, Sipp};
use sallyport_lab::speaker::Speaker;
use sallyport_lab::{Place, tone};
use serde_json::Value;

use crate::stage::{browser_hears, grown, judge, possible, tail, until};

const PATIENCE: Duration = Duration::from_secs(20);
/// What the recorder's ports play back, Hz.
const BACK: u32 = 2000;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((AGENT, port))
}

/// What the recorder says of its media.
fn description() -> String {
    let section = |port: u16, label: u8| {
        format!("m=audio {port} RTP/AVP 0\na=rtpmap:0 PCMU/8000\na=recvonly\na=label:{label}\n")
    };
    format!(
        "v=0\no=srs 1 1 IN IP4 {AGENT}\ns=-\nc=IN IP4 {AGENT}\nt=0 0\n{}{}",
        section(40_200, 1),
        section(40_202, 2)
    )
}

struct Recorder {
    sip: Sipp,
    ports: [Speaker; 2],
}

impl Recorder {
    fn start(scene: &Scene) -> Self {
        let asks = "Require: siprec.*a=label:1.*a=label:2.*rs-metadata.xml.*<recording xmlns";
        let scenario = Scenario::called_with(asks).accept(&description()).expect("ACK", None).hung_up();
        let setup = sipp::Setup { name: "srs", at: at(5070), scenario, calls: 2, target: None };
        let sip = Sipp::start(&scene.lab, &setup).unwrap();
        let enterprise = scene.lab.namespace(Place::Enterprise);
        let ports = [40_200, 40_202].map(|port| Speaker::start(&enterprise, at(port), BACK).unwrap());
        Self { sip, ports }
    }

    /// Both tones, each in its stream.
    fn hears_both(&self) {
        self.ports.iter().for_each(Speaker::record);
        thread::sleep(Duration::from_secs(4));
        let [customer, agent] = [0, 1].map(|at: usize| self.ports[at].heard());
        judge(&customer, tone::BROWSER, tone::AGENT);
        judge(&agent, tone::AGENT, tone::BROWSER);
    }
}

fn recorded(scene: &Scene) -> bool {
    let calls: Value = serde_json::from_str(&scene.appliance.get("/v1/calls").unwrap()).unwrap();
    calls[0]["recording"] == true
}

/// The customer calls and is recorded.
fn call(scene: &Scene, recorder: &Recorder) {
    scene.call().unwrap();
    until("the call is recorded", PATIENCE, || recorded(scene));
    recorder.hears_both();
    browser_hears(&scene.browser, tone::AGENT);
}

fn story(way: Way) {
    if !possible() {
        return;
    }
    let scene = Scene::set_as(way, &agent::Setup::default(), &mut |_| (), |setup| {
        setup.more = toml::toml! {
            [recording]
            server = "sip:srs@10.20.0.5:5070"
        };
    })
    .unwrap();
    let recorder = Recorder::start(&scene);
    let before = scene.snapshot().unwrap().status;

    call(&scene, &recorder);
    assert_eq!(scene.browser.hang_up().unwrap(), 204);
    until("the recorder is told of the end", PATIENCE, || recorder.sip.said().contains("\nBYE sip:"));
    scene.agent.process().wait_for_words("terminated", PATIENCE).unwrap();
    judge(&tail(&scene.agent.heard().unwrap(), 3), tone::BROWSER, tone::AGENT);

    // The recorder dies in the middle of a call, which goes on: its system answers that nobody is there.
    call(&scene, &recorder);
    let Recorder { sip, ports } = recorder;
    sip.process().signal_all(Signal::SIGKILL).unwrap();
    drop(ports);
    browser_hears(&scene.browser, tone::AGENT);
    let after = scene.snapshot().unwrap().status;
    let grown = grown(&before, &after);
    let grew = |name: &str| grown.get(name).copied().unwrap_or(0);
    assert!(grew("forked") >= 1000, "{grown:?}");
    assert_eq!(["fork_overflow", "fork_lost", "continuity_broken"].map(grew), [0; 3], "{grown:?}");
    assert_eq!(scene.browser.hang_up().unwrap(), 204);
    let metrics = scene.appliance.metrics().unwrap();
    assert!(metrics.contains("sallyport_recordings_total{outcome=\"begun\"} 2"), "{metrics}");
    // The BYE to the dead recorder is waited for as long as RFC 3261 has it.
    until("everything is released", Duration::from_secs(60), || {
        scene.appliance.status().unwrap().holds_nothing()
    });
    judge(&tail(&scene.agent.heard().unwrap(), 3), tone::BROWSER, tone::AGENT);
}

#[test]
fn a_recorder_hears_both_sides_by_native_xdp_and_its_death_disturbs_nobody() {
    story(Way::Xdp);
}

#[test]
fn a_recorder_hears_both_sides_by_sockets_and_its_death_disturbs_nobody() {
    story(Way::Socket);
}
