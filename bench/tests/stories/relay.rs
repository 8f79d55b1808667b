//! The relay dies in mid-call, and a new one goes on with its calls.

use std::net::IpAddr;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_lab::appliance::Way;
use sallyport_lab::caller::Caller;
use sallyport_lab::net::BROWSER;
use sallyport_lab::{Options, Place};

use crate::stage::{Stage, possible, until};

fn outlives(way: Way) {
    let stage = Stage::set(way, Options::default(), |_| ());
    let mut caller = Caller::new(&stage.lab, Place::Browser, IpAddr::V4(BROWSER)).unwrap();
    let placed = caller.call(&stage.appliance, "1000").unwrap();
    let mut media = caller.connect(&placed.answer, Duration::from_secs(10)).unwrap();
    let talk = caller.talk(&mut media, 50).unwrap();
    assert!(talk.heard >= 45 && talk.broken == 0, "{talk:?}");

    // The same DTLS keys go on both ways, and the browser's replay window takes what comes: no index is used twice, not even
    // by a relay that dies young, before it has kept indices of its own.
    for packets in [10, 100] {
        let old = stage.appliance.pid("sallyport-relay").unwrap();
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        until("a new relay runs", Duration::from_secs(10), || {
            stage.appliance.pid("sallyport-relay").is_ok_and(|pid| pid != old)
        });
        until("it has the call", Duration::from_secs(10), || {
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
