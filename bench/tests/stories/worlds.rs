//! Other worlds than deployment A's: IPv6 outside, inside, and on both sides; SIP over TCP; a fixed 1:1 NAT without STUN.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sallyport_lab::appliance::Way;
use sallyport_lab::caller::Caller;
use sallyport_lab::net::{AGENT, AGENT_V6, APPLIANCE_PUBLIC, BROWSER, OUTSIDE_V6};
use sallyport_lab::{Options, Place};

use crate::stage::{Stage, possible};

const BROWSER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0x10);

fn talk(stage: &Stage, address: IpAddr) -> SocketAddr {
    let mut caller = Caller::new(&stage.lab, Place::Browser, address).unwrap();
    let placed = caller.call(&stage.appliance, "1000").unwrap();
    let mut media = caller.connect(&placed.answer, Duration::from_secs(10)).unwrap();
    let talk = caller.talk(&mut media, 50).unwrap();
    assert!(talk.heard >= 45 && talk.broken == 0, "{talk:?}");
    assert_eq!(caller.hang_up(&stage.appliance, &placed).unwrap(), 204);
    media.peer()
}

fn both_families(way: Way) {
    let both = Options { ipv6: true, ..Options::default() };
    for inside in [IpAddr::V4(AGENT), IpAddr::V6(AGENT_V6)] {
        let stage = Stage::set(way, both, |setup| setup.server = SocketAddr::new(inside, 5060));
        let before = stage.status();
        assert_eq!(talk(&stage, IpAddr::V6(BROWSER_V6)).ip(), IpAddr::V6(OUTSIDE_V6));
        assert_eq!(talk(&stage, IpAddr::V4(BROWSER)).ip(), IpAddr::V4(APPLIANCE_PUBLIC));
        let after = stage.status();
        let forwarded = after.counter("forward_rtp") - before.counter("forward_rtp");
        assert!(forwarded >= 2 * 90, "{forwarded}");
    }
}

#[test]
fn ipv4_and_ipv6_meet_by_native_xdp() {
    if possible() {
        both_families(Way::Xdp);
    }
}

#[test]
fn ipv4_and_ipv6_meet_by_sockets() {
    if possible() {
        both_families(Way::Socket);
    }
}

#[test]
fn sip_goes_over_tcp_and_a_fixed_nat_needs_no_stun() {
    if possible() {
        let stage = Stage::set(Way::Generic, Options::default(), |setup| {
            setup.transport = "tcp";
            setup.stun = None;
        });
        talk(&stage, IpAddr::V4(BROWSER));
    }
}
