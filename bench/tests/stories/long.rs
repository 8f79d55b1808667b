//! Packets of a picture that are longer than the outside's MTU once they are encrypted.

use std::time::Duration;

use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::browser::{self, Browser, Call, FILM};
use sallyport_lab::film::Film;
use sallyport_lab::net::{AGENT, STUN};
use sallyport_lab::{Lab, Options};

use crate::stage::{possible, until};

/// UDP payload that fills an Ethernet by IPv4, as some cameras send it.
const FULL: u16 = 1472;

/// A phone inside fills its packets; with a tag each is 10 or 16 octets longer than the outside carries.
fn full_packets_arrive(way: Way, outside: toml::Table) {
    let lab = Lab::new(Options::default()).unwrap();
    let film = Film::start_long(&lab, AGENT.into(), FULL).unwrap();
    let mut setup = Setup::new(programs().unwrap(), way);
    setup.more = outside;
    let appliance = Appliance::start(&lab, &setup).unwrap();
    let browser = Browser::start_with(&lab, &browser::Setup::default(), FILM.into()).unwrap();
    browser.camera().unwrap();
    let call = Call {
        url: appliance.call_url("1000"),
        token: Some(appliance.token().into()),
        stun: Some(STUN.to_string()),
        trickle: true,
    };
    browser.call(&call).unwrap();
    browser.wait_connected(Duration::from_secs(20)).unwrap();
    until("a picture outside", Duration::from_secs(10), || browser.film().unwrap().decoded > 0);
    until("pictures go on", Duration::from_secs(10), || {
        let before = browser.film().unwrap().decoded;
        std::thread::sleep(Duration::from_secs(2));
        browser.film().unwrap().decoded - before >= 20
    });
    film.wait_for("picture", Duration::from_secs(10)).unwrap();
    let status = appliance.status().unwrap();
    let (cut, inside) = (status.counter("io_fragmented_outside"), status.counter("io_fragmented_inside"));
    eprintln!("{cut} packets left as fragments, {:?}", browser.film().unwrap());
    assert!(cut > 50 && inside == 0, "{cut} outside, {inside} inside");
    for never in ["drop_no_room", "drop_transmit_full", "drop_transmit_failed", "io_refused", "io_corrupt"] {
        assert_eq!(status.counter(never), 0, "{never}");
    }
    let metrics = appliance.metrics().unwrap();
    assert!(metrics.contains("io_fragmented_outside"), "{metrics}");
    assert_eq!(browser.hang_up().unwrap(), 204);
    film.wait_for("over", Duration::from_secs(5)).unwrap();
}

#[test]
fn a_picture_in_full_packets_arrives_by_native_xdp() {
    if possible() {
        full_packets_arrive(Way::Xdp, toml::Table::new());
    }
}

#[test]
fn a_picture_in_full_packets_arrives_by_sockets() {
    if possible() {
        full_packets_arrive(Way::Socket, toml::Table::new());
    }
}

/// The outside's interface carries 1,500 octets, and the configuration says that the way does not.
#[test]
fn a_picture_arrives_over_a_narrower_way_by_generic_xdp() {
    if possible() {
        let narrow = toml::toml! {
            [outside]
            mtu = 1400
        };
        full_packets_arrive(Way::Generic, narrow);
    }
}
