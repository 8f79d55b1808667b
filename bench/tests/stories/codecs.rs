//! Agents that speak other codecs than G.711: what they choose is what the browser speaks.

use std::time::Duration;

use sallyport_bench::scene::Scene;
use sallyport_lab::agent;
use sallyport_lab::appliance::Way;
use sallyport_lab::tone;

use crate::stage::{browser_hears, judge, possible, tail, until};

fn speaks(codec: &'static [&'static str], name: &str) {
    let agent = agent::Setup { codecs: codec, ..agent::Setup::default() };
    let scene = Scene::set_as(Way::Xdp, &agent, &mut |_| (), |_| ()).unwrap();
    scene.call().unwrap();
    browser_hears(&scene.browser, tone::AGENT);
    let calls: serde_json::Value = serde_json::from_str(&scene.appliance.get("/v1/calls").unwrap()).unwrap();
    assert_eq!(calls[0]["legs"]["inside"]["codec"], name);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(scene.browser.hang_up().unwrap(), 204);
    scene.agent.process().wait_for_words("terminated", Duration::from_secs(10)).unwrap();
    judge(&tail(&scene.agent.heard().unwrap(), 3), tone::BROWSER, tone::AGENT);
    until("everything is released", Duration::from_secs(10), || {
        scene.appliance.status().is_ok_and(|status| status.holds_nothing())
    });
}

#[test]
fn an_agent_that_speaks_opus_is_heard_and_hears() {
    if possible() {
        speaks(&["opus/48000/2"], "opus/48000/2");
    }
}

#[test]
fn an_agent_that_speaks_g722_is_heard_and_hears() {
    if possible() {
        speaks(&["G722/16000/1"], "G722/8000");
    }
}
