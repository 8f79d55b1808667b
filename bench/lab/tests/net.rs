//! The network: addresses are translated as drawn, nobody reaches what he should not, nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as the test does")]

mod common;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::lab;
use sallyport_lab::net::{
    AGENT, APPLIANCE_PUBLIC, BROWSER_PUBLIC, INSIDE, INSIDE_V6, OUTSIDE, OUTSIDE_V6, STUN,
};
use sallyport_lab::{Namespace, Options, Place, stun};

#[test]
fn both_sides_learn_their_public_addresses() {
    let Some(lab) = lab(Options::default()) else { return };
    let seen = lab.namespace(Place::Browser).within(|| stun::mapped(STUN)).unwrap().unwrap();
    assert_eq!(seen.ip(), IpAddr::V4(BROWSER_PUBLIC));
    let media = || stun::ask(&UdpSocket::bind((OUTSIDE, 10_000)).unwrap(), STUN);
    let seen = lab.namespace(Place::Dmz).within(media).unwrap().unwrap();
    assert_eq!(seen, SocketAddr::from((APPLIANCE_PUBLIC, 10_000)));
}

#[test]
fn doors_open_one_way() {
    let Some(lab) = lab(Options::default()) else { return };
    let listen = |address| move || TcpListener::bind((address, 8080)).unwrap();
    let _appliance = lab.namespace(Place::Dmz).within(listen(OUTSIDE)).unwrap();
    let _agent = lab.namespace(Place::Enterprise).within(listen(AGENT)).unwrap();
    let reaches = |place, address: std::net::Ipv4Addr| {
        let to = SocketAddr::from((address, 8080));
        let connect = || TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok();
        lab.namespace(place).within(connect).unwrap()
    };
    assert!(reaches(Place::Browser, APPLIANCE_PUBLIC));
    assert!(reaches(Place::Dmz, AGENT));
    assert!(!reaches(Place::Browser, AGENT), "the browser reaches the enterprise");
    assert!(!reaches(Place::Enterprise, APPLIANCE_PUBLIC), "the enterprise reaches the Internet");
    assert!(!reaches(Place::Enterprise, INSIDE), "nobody listens inside");
}

/// A mapping lets in answers, not strangers.
#[test]
fn the_browsers_nat_filters() {
    let Some(lab) = lab(Options::default()) else { return };
    let browser = lab.namespace(Place::Browser).within(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let public = stun::ask(&browser, STUN).unwrap();
    let appliance = lab.namespace(Place::Dmz).within(|| UdpSocket::bind((OUTSIDE, 10_000)).unwrap()).unwrap();
    let mut room = [0; 16];
    appliance.send_to(b"stranger", public).unwrap();
    assert!(browser.recv_from(&mut room).is_err());
    browser.send_to(b"hello", (APPLIANCE_PUBLIC, 10_000)).unwrap();
    appliance.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (_, from) = appliance.recv_from(&mut room).unwrap();
    assert_eq!(from, public);
    appliance.send_to(b"answer", from).unwrap();
    let (_, from) = browser.recv_from(&mut room).unwrap();
    assert_eq!(from, SocketAddr::from((APPLIANCE_PUBLIC, 10_000)));
}

#[test]
fn ipv6_is_routed() {
    let Some(lab) = lab(Options { ipv6: true, ..Options::default() }) else { return };
    let outside =
        lab.namespace(Place::Dmz).within(|| UdpSocket::bind((OUTSIDE_V6, 10_000)).unwrap()).unwrap();
    let inside = lab.namespace(Place::Dmz).within(|| UdpSocket::bind((INSIDE_V6, 20_000)).unwrap()).unwrap();
    for (place, socket, to) in [
        (Place::Browser, &outside, SocketAddr::from((OUTSIDE_V6, 10_000))),
        (Place::Enterprise, &inside, SocketAddr::from((INSIDE_V6, 20_000))),
    ] {
        let send = || UdpSocket::bind("[::]:0").unwrap().send_to(b"hello", to).unwrap();
        lab.namespace(place).within(send).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut room = [0; 16];
        assert_eq!(socket.recv_from(&mut room).unwrap().0, 5, "{place:?}");
    }
}

#[test]
fn nothing_is_left_behind() {
    let Some(first) = lab(Options::default()) else { return };
    let name = first.name().to_owned();
    let folder = first.folder().to_owned();
    let namespaces = || Namespace::all(&format!("{name}-")).len();
    assert_eq!(namespaces(), Place::ALL.len());
    assert!(!first.namespace(Place::Internet).pids().is_empty(), "the STUN server runs");
    drop(first);
    assert_eq!(namespaces(), 0);
    assert!(!folder.exists());
}

#[test]
fn a_panic_removes_it_too() {
    let Some(first) = lab(Options::default()) else { return };
    let name = first.name().to_owned();
    let outcome = std::thread::spawn(move || {
        let _first = first;
        panic!("on purpose");
    })
    .join();
    assert!(outcome.is_err());
    assert!(Namespace::all(&format!("{name}-")).is_empty());
}
