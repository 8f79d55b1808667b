//! Transparent directions: between plain peers everything leaves as it came, and is judged all the same.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Bench, Out};
use sallyport_core::Reason;
use sallyport_plan::{
    CallId, Clock, Digits, Direction, DirectionIndex, Extensions, FlowKey, Format, Medium, Mute, Passage,
    Plan, Protection, Pt, PtMap, Resend, Ssrc, Zone,
};
use table::world::{Rtp, g711};

const OWN_SSRC: u32 = 0xaaaa_0000;

fn flow(local: &str, remote: &str) -> FlowKey {
    FlowKey { zone: Zone::Inside, local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

/// One telephone with a port each for RTP and RTCP, and one with a port for both.
fn paths() -> [[FlowKey; 2]; 2] {
    let one = ["10.0.0.1:20000", "10.0.0.1:20001"].into_iter().zip(["10.0.0.8:4000", "10.0.0.8:4001"]);
    let mut one = one.map(|(local, remote)| flow(local, remote));
    let other = flow("10.0.0.1:20002", "10.0.0.9:5000");
    [[one.next().unwrap(), one.next().unwrap()], [other, other]]
}

fn plan(version: u32, passage: Passage) -> Plan {
    let [one, other] = paths();
    let direction = |index: u8, from: [FlowKey; 2], to: [FlowKey; 2]| Direction {
        index: DirectionIndex(index),
        medium: Medium::Audio,
        ingress: if from[0] == from[1] { vec![from[0]] } else { from.to_vec() },
        open: Some(Protection::Plain),
        seal: Some(Protection::Plain),
        rtp: to[0],
        rtcp: to[1],
        passage,
        ssrc: Ssrc(OWN_SSRC + u32::from(index)),
        payload_types: [0, 8, 101]
            .map(|n| PtMap { from: Pt(n), to: Pt(n), format: Format::Media(Clock::Hz8000) })
            .to_vec(),
        extensions: Extensions::default(),
        digits: Digits::Pass,
        resend: Resend::Never,
        fork: None,
        learns: false,
        reverse: DirectionIndex(1 - index),
        mute: Mute::Open,
    };
    let directions = vec![direction(0, one, other), direction(1, other, one)];
    Plan { call: CallId(1), version, directions, consents: vec![], record: vec![] }
}

fn bench(passage: Passage) -> Bench {
    let mut bench = Bench::new(1, 2);
    bench.core.install(plan(1, passage), bench.now).unwrap();
    bench
}

/// A sender report, a source description with a name, an application's own words and a goodbye.
fn compound() -> Vec<u8> {
    let mut bytes = vec![0x81, 200, 0, 12];
    bytes.extend([7; 48]);
    bytes.extend([0x81, 202, 0, 2, 7, 7, 7, 7, 1, 1, b'x', 0]);
    bytes.extend([0x80, 204, 0, 2, 7, 7, 7, 7, b'n', b'a', b'm', b'e']);
    bytes.extend([0x81, 203, 0, 1, 7, 7, 7, 7]);
    bytes
}

#[test]
fn rtp_leaves_as_it_came() {
    let [one, other] = paths();
    let mut bench = bench(Passage::Transparent);
    let plain = g711(7, 65_535, 1);
    let packets = [
        plain.clone(),
        g711(7, 3, 99),
        g711(9, 40_000, 5),
        Rtp { csrc: vec![1, 2], extension: Some(vec![[1, 2, 3, 4]]), padding: 4, ..plain.clone() },
        Rtp { marker: true, payload_type: 101, ..plain.clone() },
        Rtp { payload: vec![], ..plain },
    ];
    for packet in &packets {
        for (from, to) in [(one[0], other[0]), (one[1], other[0]), (other[0], one[0])] {
            assert_eq!(bench.send(from, &packet.bytes()), Out::Rtp(to, packet.bytes()), "{packet:?}");
        }
    }
    let octets: u64 = packets.iter().map(|packet| packet.payload.len() as u64).sum();
    let (there, back) = (bench.report(0), bench.report(1));
    assert_eq!((there.packets, there.octets, there.lost), (12, 2 * octets, 0));
    assert_eq!((back.packets, back.octets, back.lost), (6, octets, 0));
    assert_eq!(bench.counter("forward_rtp"), 18);
}

#[test]
fn rtcp_leaves_as_it_came_by_its_own_way() {
    let [one, other] = paths();
    let mut bench = bench(Passage::Transparent);
    for (from, to) in [(one[1], other[1]), (one[0], other[1]), (other[0], one[1])] {
        assert_eq!(bench.send(from, &compound()), Out::Rtcp(to, compound()));
    }
    assert_eq!(bench.counter("forward_rtcp"), 3);
    assert_eq!(bench.report(0).packets, 0);
}

#[test]
fn what_is_broken_or_not_agreed_is_dropped_under_its_reason() {
    let [one, _] = paths();
    let mut bench = bench(Passage::Transparent);
    let whole = g711(7, 1, 1).bytes();
    let unmapped = Rtp { payload_type: 18, ..g711(7, 1, 1) }.bytes();
    let padding = [vec![0xa0], whole[1..15].to_vec(), vec![9]].concat();
    let csrc = [vec![0x8f], whole[1..].to_vec()].concat();
    for (bytes, reason) in [
        (&whole[..11], Reason::Malformed),
        (&padding, Reason::Malformed),
        (&csrc, Reason::Malformed),
        (&unmapped, Reason::PayloadType),
        (&compound()[..40], Reason::Malformed),
        (&[&compound()[..], &[0x80]].concat(), Reason::Malformed),
        (&[0x40; 20], Reason::Unexpected),
        (&[], Reason::Unexpected),
    ] {
        let before = bench.counter(reason.name());
        assert_eq!(bench.send(one[0], bytes), Out::Drop(reason), "{bytes:?}");
        assert_eq!(bench.counter(reason.name()), before + 1);
    }
    assert_eq!((bench.report(0).packets, bench.report(0).drops.len()), (0, 3));
}

#[test]
fn on_hold_reports_pass_and_media_does_not() {
    let [one, other] = paths();
    let mut bench = bench(Passage::Transparent);
    let mut held = plan(2, Passage::Transparent);
    held.directions[0].mute = Mute::Held;
    bench.core.install(held, bench.now).unwrap();
    let packet = g711(7, 1, 1).bytes();
    assert_eq!(bench.send(one[0], &packet), Out::Drop(Reason::Held));
    assert_eq!(bench.send(one[1], &compound()), Out::Rtcp(other[1], compound()));
    assert_eq!(bench.send(other[0], &packet), Out::Rtp(one[0], packet.clone()));
    bench.core.install(plan(3, Passage::Transparent), bench.now).unwrap();
    assert_eq!(bench.send(one[0], &packet), Out::Rtp(other[0], packet));
}

/// A re-offer ends transparency, another brings it back: our stream goes on with its next number, and nothing that passed
/// meanwhile is a gap or a loss.
#[test]
fn a_stream_of_ours_goes_on_behind_a_transparent_time() {
    let [one, _] = paths();
    let mut bench = bench(Passage::Translated);
    let first = bench.send(one[0], &g711(7, 100, 1600).bytes()).forwarded();
    assert_eq!(first[8..12], OWN_SSRC.to_be_bytes());
    let sequence = u16::from_be_bytes([first[2], first[3]]);
    bench.core.install(plan(2, Passage::Transparent), bench.now).unwrap();
    for n in 101..400 {
        bench.elapse(20_000);
        assert_eq!(bench.send(one[0], &g711(7, n, 0).bytes()).forwarded(), g711(7, n, 0).bytes());
    }
    bench.core.install(plan(3, Passage::Translated), bench.now).unwrap();
    for (nth, n) in (400..410).enumerate() {
        bench.elapse(20_000);
        let out = bench.send(one[0], &g711(7, n, u32::from(n) * 160).bytes()).forwarded();
        assert_eq!(out[8..12], OWN_SSRC.to_be_bytes());
        assert_eq!(u16::from_be_bytes([out[2], out[3]]), sequence + 1 + nth as u16);
    }
    assert_eq!((bench.report(0).lost, bench.report(0).packets), (0, 310));
}

#[test]
fn a_restart_changes_nothing() {
    let [one, other] = paths();
    let mut bench = bench(Passage::Transparent);
    let packet = g711(7, 9, 9).bytes();
    assert_eq!(bench.send(one[0], &packet), Out::Rtp(other[0], packet.clone()));
    let checkpoint = bench.core.checkpoint_of(CallId(1)).unwrap();
    let mut next = self::bench(Passage::Transparent);
    next.core.restore(&checkpoint, |_| 1024, next.now);
    assert_eq!(next.send(one[0], &packet), Out::Rtp(other[0], packet));
}
