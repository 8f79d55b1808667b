//! Telephony behind something that gives its media other ports than its SDP says, and hears nothing at those it says.

use std::time::Duration;

use sallyport_bench::scene::Scene;
use sallyport_lab::agent::{self, Srtp};
use sallyport_lab::appliance::{Setup, Way};
use sallyport_lab::net::Place;
use sallyport_lab::tone;

use crate::stage::{browser_hears, grown, judge, maps, possible, tail, until};

/// What leaves the agent's RTP ports (30000 to 30998) leaves from others, and what comes to those from outside is lost.
const ELSEWHERE: &str = "
table ip elsewhere {
    chain before { type filter hook prerouting priority raw
        udp dport 30000-30998 drop
    }
    chain after { type nat hook postrouting priority srcnat
        udp sport 30000-30998 masquerade to :40000-40998
    }
}
";

fn scene(way: Way, srtp: Srtp, strict: bool) -> Scene {
    let agent = agent::Setup { srtp, ..agent::Setup::default() };
    let scene = Scene::set_as(way, &agent, &mut |_| (), |setup: &mut Setup| {
        let inside = [("srtp".to_owned(), srtp.name().into()), ("strict_source".to_owned(), strict.into())];
        setup.more.insert("inside".into(), toml::Table::from_iter(inside).into());
    });
    let scene = scene.unwrap();
    scene.lab.namespace(Place::Enterprise).nft(ELSEWHERE).unwrap();
    scene
}

fn is_heard_and_hears(way: Way, srtp: Srtp) {
    let scene = scene(way, srtp, false);
    let before = scene.appliance.status().unwrap();
    scene.call().unwrap();
    browser_hears(&scene.browser, tone::AGENT);
    std::thread::sleep(Duration::from_secs(3));
    let grown = grown(&before, &scene.snapshot().unwrap().status);
    eprintln!("{grown:?}");
    let of = |name: &str| grown.get(name).copied().unwrap_or(0);
    assert!((1..=2).contains(&of("sources_learned")), "RTP, and RTCP where it came: {grown:?}");
    // A plain source shows within a tenth of a second what it is, an encrypted one by its first packet.
    assert!(of("drop_unlatched") <= 12, "{grown:?}");
    assert_eq!((of("continuity_broken"), of("drop_bad_tag")), (0, 0), "{grown:?}");
    if way == Way::Xdp {
        let flows = maps(&scene.appliance, "flows");
        let ports = |remote: &str| {
            flows.iter().filter(|flow| flow["remote"].as_str().unwrap().contains(remote)).count()
        };
        assert!(ports(":40") >= 1 && ports(":0") == 2, "{flows:?}");
    }
    assert_eq!(scene.browser.hang_up().unwrap(), 204);
    scene.agent.process().wait_for_words("terminated", Duration::from_secs(10)).unwrap();
    judge(&tail(&scene.agent.heard().unwrap(), 3), tone::BROWSER, tone::AGENT);
    until("everything is released", Duration::from_secs(10), || {
        scene.appliance.status().is_ok_and(|status| status.holds_nothing())
    });
    if way == Way::Xdp {
        assert!(maps(&scene.appliance, "flows").is_empty());
    }
}

#[test]
fn an_agent_at_other_ports_is_heard_and_hears_by_native_xdp() {
    if possible() {
        is_heard_and_hears(Way::Xdp, Srtp::Off);
    }
}

#[test]
fn an_agent_at_other_ports_is_heard_and_hears_by_sockets() {
    if possible() {
        is_heard_and_hears(Way::Socket, Srtp::Off);
    }
}

#[test]
fn an_encrypted_agent_at_other_ports_is_heard_and_hears_by_native_xdp() {
    if possible() {
        is_heard_and_hears(Way::Xdp, Srtp::Required);
    }
}

#[test]
fn where_sources_are_strict_another_port_is_not_heard() {
    if possible() {
        let scene = scene(Way::Xdp, Srtp::Off, true);
        let before = scene.appliance.status().unwrap();
        let _ = scene.call();
        std::thread::sleep(Duration::from_secs(2));
        let grown = grown(&before, &scene.snapshot().unwrap().status);
        assert!(grown.get("xdp_drop_unknown_flow").is_some_and(|count| *count > 50), "{grown:?}");
        assert_eq!((grown.get("sources_learned"), grown.get("drop_unlatched")), (None, None), "{grown:?}");
    }
}
