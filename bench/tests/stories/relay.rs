//! The relay dies in mid-call, and a new one goes on with its calls; control dies before the browser is heard.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::caller::Caller;
use sallyport_lab::net::{AGENT, BROWSER};
use sallyport_lab::registrar::{self, Registrar};
use sallyport_lab::sipp::{self, Scenario, Sipp, Sound};
use sallyport_lab::{Lab, Options, Place};

use crate::stage::{Stage, possible, registered, server_possible, until};

const PATIENCE: Duration = Duration::from_secs(10);

fn outlives(way: Way) {
    let stage = Stage::set(way, Options::default(), |_| ());
    let mut caller = Caller::new(&stage.lab, Place::Browser, IpAddr::V4(BROWSER)).unwrap();
    let placed = caller.call(&stage.appliance, "1000").unwrap();
    let mut media = caller.connect(&placed.answer, PATIENCE).unwrap();
    let talk = caller.talk(&mut media, 50).unwrap();
    assert!(talk.heard >= 45 && talk.broken == 0, "{talk:?}");

    // The same DTLS keys go on both ways, and the browser's replay window takes what comes: no index is used twice, not even
    // by a relay that dies young, before it has kept indices of its own.
    for packets in [10, 100] {
        let old = stage.appliance.pid("sallyport-relay").unwrap();
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        until("a new relay runs", PATIENCE, || {
            stage.appliance.pid("sallyport-relay").is_ok_and(|pid| pid != old)
        });
        until("it has the call", PATIENCE, || {
            stage.appliance.status().is_ok_and(|status| status.calls() == 1)
        });
        let talk = caller.talk(&mut media, packets).unwrap();
        assert!(talk.heard >= u64::from(packets) * 9 / 10 && talk.broken == 0, "{way}: {talk:?}");
    }
    assert_eq!(caller.hang_up(&stage.appliance, &placed).unwrap(), 204);
    until("everything is released", Duration::from_secs(5), || {
        stage.appliance.status().is_ok_and(|status| status.holds_nothing())
    });
}

#[test]
fn a_call_outlives_the_relay_by_native_xdp() {
    if possible() {
        outlives(Way::Xdp);
    }
}

#[test]
fn a_call_outlives_the_relay_by_sockets() {
    if possible() {
        outlives(Way::Socket);
    }
}

/// Control dies when the phone has been answered and the browser is not heard yet.
fn phone_is_told(way: Way) {
    let lab = Lab::new(Options::default()).unwrap();
    let scenario = Scenario::called()
        .answer("200 OK", Some(Sound::at(SocketAddr::from((AGENT, 30_100)))))
        .expect("ACK", None)
        .hung_up();
    let at = SocketAddr::from((AGENT, 5060));
    let phone = sipp::Setup { name: "phone", at, scenario, calls: 1, target: None };
    let phone = Sipp::start(&lab, &phone).unwrap();
    let server = registrar::Setup {
        aliases: vec![("1000".into(), format!("sip:1000@{at}"))],
        ..registrar::Setup::default()
    };
    Registrar::start(&lab, &server).unwrap();
    let mut setup = Setup::new(programs().unwrap(), way);
    (setup.server, setup.more) = (server.address, registered());
    let appliance = Appliance::start(&lab, &setup).unwrap();
    let caller = Caller::new(&lab, Place::Browser, IpAddr::V4(BROWSER)).unwrap();
    caller.call(&appliance, "1000").unwrap();
    until("the relay keeps its record", PATIENCE, || appliance.status().unwrap().calls() == 1);
    assert_eq!(appliance.status().unwrap().json()["relay"]["directions"], 0);
    let old = appliance.pid("sallyport-control").unwrap();
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
    phone.finish(PATIENCE).unwrap();
    until("everything is released", PATIENCE, || {
        appliance.status().is_ok_and(|status| status.holds_nothing())
    });
}

#[test]
fn a_phone_that_was_answered_before_control_died_is_told_by_the_next_one_by_xdp() {
    if server_possible() {
        phone_is_told(Way::Xdp);
    }
}

#[test]
fn a_phone_that_was_answered_before_control_died_is_told_by_the_next_one_by_sockets() {
    if server_possible() {
        phone_is_told(Way::Socket);
    }
}
