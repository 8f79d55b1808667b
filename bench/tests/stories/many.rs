//! Many calls, and what they leave: nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use sallyport_lab::appliance::Way;
use sallyport_lab::caller::Caller;
use sallyport_lab::net::BROWSER;
use sallyport_lab::{Options, Place};

use crate::stage::{Stage, descriptors, possible, until};

/// Calls at once.
const AT_ONCE: usize = 20;

/// One whole call with some media; says what went wrong.
fn call(stage: &Stage) -> anyhow::Result<()> {
    let mut caller = Caller::new(&stage.lab, Place::Browser, IpAddr::V4(BROWSER))?;
    let placed = caller.call(&stage.appliance, "1000")?;
    let mut media = caller.connect(&placed.answer, Duration::from_secs(20))?;
    let talk = caller.talk(&mut media, 25)?;
    anyhow::ensure!(talk.heard >= 20 && talk.broken == 0, "{talk:?}");
    let status = caller.hang_up(&stage.appliance, &placed)?;
    anyhow::ensure!(status == 204, "DELETE answers {status}");
    Ok(())
}

fn calls(stage: &Stage, count: usize) {
    for _ in 0..count / AT_ONCE {
        thread::scope(|scope| {
            let calls: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| call(stage))).collect();
            calls.into_iter().for_each(|call| call.join().unwrap().unwrap());
        });
    }
}

fn held(stage: &Stage) -> BTreeMap<&'static str, usize> {
    ["sallyport-relay", "sallyport-control", "sallyport"]
        .into_iter()
        .map(|name| (name, descriptors(stage.appliance.pid(name).unwrap())))
        .collect()
}

fn leave_nothing(way: Way) {
    let stage = Stage::set(way, Options::default(), |_| ());
    // What is opened once and kept.
    calls(&stage, AT_ONCE);
    let nothing = || {
        let status = stage.appliance.status().unwrap();
        status.holds_nothing() && status.json()["calls"]["active"] == 0
    };
    until("the first calls are released", Duration::from_secs(10), nothing);
    // HTTP connections of the callers end with them.
    thread::sleep(Duration::from_secs(2));
    let before = held(&stage);

    calls(&stage, 200);

    until("200 calls are released", Duration::from_secs(10), nothing);
    until("no descriptor is left", Duration::from_secs(10), || held(&stage) == before);
    let status = stage.status();
    assert_eq!(status.json()["relay"]["frames"]["missing"], 0, "UMEM frames are conserved");
    assert_eq!(status.json()["calls"]["setup"], 0);
}

#[test]
fn two_hundred_calls_leave_nothing_by_native_xdp() {
    if possible() {
        leave_nothing(Way::Xdp);
    }
}

#[test]
fn two_hundred_calls_leave_nothing_by_sockets() {
    if possible() {
        leave_nothing(Way::Socket);
    }
}
