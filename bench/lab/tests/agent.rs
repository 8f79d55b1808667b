//! Agents without an appliance: baresip calls baresip, and SIPp sends back what it hears.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as the test does")]

mod common;

use std::time::Duration;

use common::lab;
use sallyport_lab::agent::{self, Agent, Setup};
use sallyport_lab::net::{AGENT, INSIDE, INSIDE_INTERFACE};
use sallyport_lab::tone::{self, Expected, Fault, listen};
use sallyport_lab::{Lab, Options, Place};

fn caller(lab: &Lab, uri: &str) -> Agent {
    let setup = Setup {
        place: Place::Dmz,
        interface: INSIDE_INTERFACE,
        address: INSIDE.into(),
        user: "caller".into(),
        tone: tone::BROWSER,
        ..Setup::default()
    };
    Agent::start_calling(lab, &setup, uri).unwrap()
}

#[test]
fn two_agents_hear_each_other() {
    let Some(lab) = lab(Options::default()) else { return };
    let agent = Agent::start(&lab, &Setup::default()).unwrap();
    let caller = caller(&lab, "sip:1000@10.20.0.5");
    caller.process().wait_for_words("Call established", Duration::from_secs(5)).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    caller.process().stop();
    agent.process().wait_for_words("terminated", Duration::from_secs(5)).unwrap();

    let by_agent = Expected { tone: tone::BROWSER, other: tone::AGENT, seconds: 4.0 };
    let heard = listen(&agent.heard().unwrap(), by_agent);
    assert_eq!(heard.judge(by_agent), Ok(()), "{heard:?}");
    let by_caller = Expected { tone: tone::AGENT, other: tone::BROWSER, seconds: 4.0 };
    let heard = listen(&caller.heard().unwrap(), by_caller);
    assert_eq!(heard.judge(by_caller), Ok(()), "{heard:?}");
}

#[test]
fn an_echo_is_heard_and_is_the_wrong_tone() {
    let Some(lab) = lab(Options::default()) else { return };
    agent::start_echo(&lab, AGENT.into(), "udp", 40_000).unwrap();
    let caller = caller(&lab, "sip:anyone@10.20.0.5");
    caller.process().wait_for_words("Call established", Duration::from_secs(5)).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    let own = Expected { tone: tone::BROWSER, other: tone::AGENT, seconds: 3.0 };
    let heard = listen(&caller.heard().unwrap(), own);
    assert_eq!(heard.judge(own), Ok(()), "{heard:?}");
    let agents = Expected { tone: tone::AGENT, other: tone::BROWSER, seconds: 3.0 };
    assert_eq!(listen(&caller.heard().unwrap(), agents).judge(agents), Err(Fault::Swapped));
}
