//! The demo page with the JavaScript client, in Chromium and in Firefox: a customer calls, an agent is called.

use std::net::SocketAddr;
use std::time::Duration;

use sallyport_lab::agent::{self, Agent};
use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::net::{AGENT, INSIDE};
use sallyport_lab::tone::{self, Expected, listen};
use sallyport_lab::visitor::{Kind, Visitor};
use sallyport_lab::wav::Wav;
use sallyport_lab::{Lab, Options};
use serde_json::{Value, json};

use crate::stage::{possible, until};

const CONNECT: Duration = Duration::from_secs(30);
/// For how long both sides must hear each other.
const SECONDS: u64 = 5;

/// A lab with an appliance that serves the demo page.
pub struct World {
    pub appliance: Appliance,
    pub lab: Lab,
}

pub fn world() -> World {
    world_with(|_| ())
}

/// As [`world`], with an appliance that is set up in another way.
pub fn world_with(change: impl FnOnce(&mut Setup)) -> World {
    let lab = Lab::new(Options::default()).unwrap();
    let mut setup = Setup::new(programs().unwrap(), Way::Xdp);
    setup.server = SocketAddr::from((AGENT, 5060));
    setup.more = toml::toml! {
        [http]
        anonymous = ["1000"]
        demo = true
        [agents]
        numbers = "open"
        register = false
        [sip]
        pass_types = ["application/json"]
    };
    change(&mut setup);
    let appliance = Appliance::start(&lab, &setup).unwrap();
    World { appliance, lab }
}

impl World {
    pub fn visitor(&self, kind: Kind, path: &str) -> Visitor {
        let visitor = Visitor::open(&self.lab, kind, self.appliance.public_url("").as_str(), path);
        visitor.unwrap_or_else(|error| panic!("{kind:?}: {error:#}"))
    }

    /// Both hear each other for a while, then the page hangs up and nothing is left.
    fn talk(&self, visitor: &Visitor, agent: &Agent) {
        visitor
            .until("lab.call() && lab.call().state === 'connected' && lab.call().remote", CONNECT)
            .unwrap();
        visitor.record().unwrap();
        std::thread::sleep(Duration::from_secs(SECONDS));
        let outside = visitor.recorded().unwrap();
        let quality = visitor.run("return lab.call().stats();", &Value::Null).unwrap();
        assert!(quality["packetsReceived"].as_u64().unwrap() > 200, "{quality}");
        visitor.until("document.querySelector('.quality:not([hidden])')", CONNECT).unwrap();
        visitor.click(&Value::Null, ".hangup").unwrap();
        until("nothing is left", CONNECT, || self.appliance.status().unwrap().holds_nothing());
        std::thread::sleep(Duration::from_millis(500));
        hears("the page", &outside, tone::AGENT, tone::BROWSER);
        hears("the agent", &agent.heard().unwrap(), tone::BROWSER, tone::AGENT);
    }
}

fn hears(who: &str, sound: &Wav, tone: u32, other: u32) {
    let expected = Expected { tone, other, seconds: SECONDS as f64 - 1.0 };
    let heard = listen(sound, expected);
    assert_eq!(heard.judge(expected), Ok(()), "{who}: {heard:?}");
}

fn a_customer_calls(kind: Kind) {
    if !possible() {
        return;
    }
    let world = world();
    let agent = Agent::start(&world.lab, &agent::Setup::default()).unwrap();
    let visitor = world.visitor(kind, "/demo/?raw");
    visitor.click(&json!({ "to": "1000" }), "#place").unwrap();
    world.talk(&visitor, &agent);
}

fn an_agent_is_called(kind: Kind) {
    if !possible() {
        return;
    }
    let world = world();
    let visitor = world.visitor(kind, "/demo/?raw#agent");
    visitor.click(&json!({ "number": "2000" }), "#enter").unwrap();
    visitor.until("!document.getElementById('signed-in').hidden", CONNECT).unwrap();
    let uri = format!("sip:2000@{INSIDE}");
    let agent = Agent::start_calling(&world.lab, &agent::Setup::default(), &uri).unwrap();
    visitor.until("document.querySelector('[data-state=incoming] .answer')", CONNECT).unwrap();
    visitor.click(&Value::Null, ".answer").unwrap();
    world.talk(&visitor, &agent);
}

#[test]
fn a_customer_calls_from_the_demo_page_in_chromium() {
    a_customer_calls(Kind::Chromium);
}

#[test]
fn a_customer_calls_from_the_demo_page_in_firefox() {
    a_customer_calls(Kind::Firefox);
}

#[test]
fn an_agent_is_called_at_the_demo_page_in_chromium() {
    an_agent_is_called(Kind::Chromium);
}

#[test]
fn an_agent_is_called_at_the_demo_page_in_firefox() {
    an_agent_is_called(Kind::Firefox);
}
