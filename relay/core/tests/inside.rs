//! Browsers inside: their port is to them what the outside's is to browsers outside.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use std::net::SocketAddr;

use common::{Bench, Out};
use sallyport_core::{CoreEvent, Limits, Reason, Translator};
use sallyport_plan::{CallId, FlowKey, Profile, Zone};
use sallyport_wire::stun::Message;
use table::world::*;

const BROWSERS: u16 = 10_001;
const CM: Profile = Profile::AesCm128HmacSha1_80;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Both legs inside: the browser at the port of browsers, telephony at a pair.
fn inside(paths: Paths) -> Paths {
    let (local, remote) = match paths.rtp.local.is_ipv4() {
        true => (at("10.0.0.1:10001"), at("10.0.0.77:50000")),
        false => (at("[fd00::1]:10001"), at("[fd00::77]:50000")),
    };
    Paths { outside: FlowKey { zone: Zone::Inside, local, remote }, ..paths }
}

fn bench(browsers: Option<u16>, paths: Paths) -> Bench {
    let mut bench = Bench::new(1, 2);
    bench.core = Translator::new(3, Limits { calls: 1, directions: 2 }, [7; 32]).with_browsers(browsers);
    bench.core.install(plan_with_consent(Some(CM), paths), bench.now).unwrap();
    bench
}

const DTLS: [u8; 14] = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn a_browser_inside_and_telephony_inside_hear_each_other() {
    for paths in [inside(paths()), inside(paths6())] {
        let mut bench = bench(Some(BROWSERS), paths);
        let mut browser = Peer::new(&key(CM, FROM_BROWSER), &key(CM, TO_BROWSER));
        let spoken = g711(5, 1, 160);
        let Out::Rtp(path, octets) = bench.send(paths.outside, &browser.seal(&spoken.bytes())) else {
            panic!()
        };
        assert_eq!((path, octets), (paths.rtp, spoken.leaves(INSIDE_SSRC, INWARD_START, 160).bytes()));
        let heard = g711(6, 1, 160);
        let Out::Rtp(path, octets) = bench.send(paths.rtp, &heard.bytes()) else { panic!() };
        let opened = browser.open(&octets);
        assert_eq!((path, opened), (paths.outside, heard.leaves(OUTSIDE_SSRC, OUTWARD_START, 160).bytes()));
        let report = [sender_report(6, 160, &[]), description(6, "x")].concat();
        assert!(matches!(bench.send(paths.rtcp, &report), Out::Rtcp(path, _) if path == paths.outside));
        for index in 0..2 {
            assert_eq!((bench.report(index).packets, bench.report(index).from), (1, Zone::Inside));
        }
    }
}

#[test]
fn checks_and_handshakes_of_browsers_inside_are_heard() {
    let paths = inside(paths());
    let mut bench = bench(Some(BROWSERS), paths);
    assert!(matches!(bench.send(paths.outside, &check().bytes()), Out::Reply(_)));
    assert_eq!(bench.send(paths.outside, &DTLS), Out::Punt(Some(CallId(1))));
    let (flow, sent) = bench.timeout().remove(0);
    assert_eq!(flow, paths.outside);
    let id = Message::parse(&sent).unwrap().transaction_id();
    assert_eq!(bench.send(flow, &answer(id, flow.local, REMOTE_PWD)), Out::Consumed);
    bench.elapse(31_000_000);
    while bench.core.poll_timeout().is_some_and(|at| at <= bench.now) && bench.timeout().len() < 9 {
        if let Some(CoreEvent::ConsentLost { flow, .. }) = bench.events().pop() {
            assert_eq!(flow, paths.outside);
            assert_eq!(bench.send(paths.rtp, &g711(6, 1, 160).bytes()), Out::Drop(Reason::ConsentLost));
            return;
        }
    }
    panic!("consent outlives its pair");
}

#[test]
fn strangers_inside_are_heard_at_the_browsers_port_only() {
    let paths = inside(paths());
    let new = |port| FlowKey {
        local: SocketAddr::new(paths.rtp.local.ip(), port),
        remote: at("10.0.0.66:6"),
        ..paths.rtp
    };
    let mut bench = bench(Some(BROWSERS), paths);
    let hears = |bench: &mut Bench, port, octets: &[u8]| bench.send(new(port), octets);
    assert_eq!(hears(&mut bench, BROWSERS, &check().bytes()), Out::Punt(None));
    assert_eq!(hears(&mut bench, BROWSERS, &DTLS), Out::Drop(Reason::UnknownFlow));
    assert_eq!(hears(&mut bench, BROWSERS, &g711(1, 1, 1).bytes()), Out::Drop(Reason::UnknownFlow));
    assert_eq!(hears(&mut bench, 20_002, &check().bytes()), Out::Drop(Reason::UnknownFlow));
    assert_eq!(bench.send(paths.rtp, &check().bytes()), Out::Drop(Reason::Unexpected));
    let flood =
        (0..1000).filter(|_| hears(&mut bench, BROWSERS, &check().bytes()) == Out::Punt(None)).count();
    assert_eq!(flood, 49, "as many as a source outside may send");
}

/// Without the port there are no browsers inside, whatever a plan says.
#[test]
fn without_a_port_nobody_inside_is_a_browser() {
    let paths = inside(paths());
    let mut bench = bench(None, paths);
    assert_eq!(bench.send(paths.outside, &check().bytes()), Out::Drop(Reason::Unexpected));
    assert_eq!(bench.send(paths.outside, &DTLS), Out::Drop(Reason::Unexpected));
    let new = FlowKey { remote: at("10.0.0.66:6"), ..paths.outside };
    assert_eq!(bench.send(new, &check().bytes()), Out::Drop(Reason::UnknownFlow));
}
