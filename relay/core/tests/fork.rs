//! Copies of what a call sends, for a recorder: what leaves on the other leg, before it is sealed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Arrival, Bench, Out};
use sallyport_core::{Digit, FORK_ROOM, Reason};
use sallyport_plan::{CallId, Digits, FlowKey, Fork, Mute, Passage, Plan, Profile, Refusal, Zone};
use sallyport_wire::rtp::Header;
use table::world::*;

const PROFILE: Profile = Profile::AeadAes128Gcm;
const BROWSER: u32 = 0xb0b0_0001;
const AGENT: u32 = 0xa6e0_0001;

/// Where copies of a direction go.
fn fork(port: u16) -> Fork {
    let path = |port: u16| {
        let [local, remote] = [[10, 0, 0, 1], [10, 0, 0, 66]].map(|ip| (ip, port).into());
        FlowKey { zone: Zone::Inside, local, remote }
    };
    Fork { rtp: path(port), rtcp: path(port + 1) }
}

/// The call, recorded both ways or not.
fn recorded(version: u32, both: bool) -> Plan {
    copied(Plan { version, ..plan(Some(PROFILE), paths()) }, both)
}

fn copied(mut plan: Plan, both: bool) -> Plan {
    for (direction, port) in plan.directions.iter_mut().zip([20_010, 20_012]) {
        direction.fork = both.then(|| fork(port));
    }
    plan
}

impl Bench {
    fn copies(&mut self) -> Vec<(FlowKey, Vec<u8>)> {
        let mut room = [0; FORK_ROOM];
        let mut copies = Vec::new();
        while let Some((to, length)) = self.core.poll_fork(&mut room) {
            copies.push((to, room[..length].to_vec()));
        }
        assert!(!self.core.has_forks());
        copies
    }

    fn copy(&mut self) -> (FlowKey, Vec<u8>) {
        let mut copies = self.copies();
        assert_eq!(copies.len(), 1);
        copies.remove(0)
    }
}

fn bench(plan: Plan) -> (Bench, Peer) {
    let mut bench = Bench::new(1, 2);
    bench.core.install(plan, bench.now).unwrap();
    (bench, Peer::new(&key(PROFILE, FROM_BROWSER), &key(PROFILE, TO_BROWSER)))
}

#[test]
fn a_copy_is_what_leaves_before_it_is_sealed() {
    let (mut bench, mut browser) = bench(recorded(1, true));
    for n in 0..20u16 {
        bench.elapse(20_000);
        let spoken = g711(BROWSER, 65_530u16.wrapping_add(n), 160 * u32::from(n));
        let inside = bench.send(paths().outside, &browser.seal(&spoken.bytes())).forwarded();
        assert_eq!(bench.copy(), (fork(20_010).rtp, inside), "plain inside: the very packet");
        let answered = g711(AGENT, 9 + n, 160 * u32::from(n));
        let sealed = bench.send(paths().rtp, &answered.bytes()).forwarded();
        let (to, copy) = bench.copy();
        let opened = browser.open(&sealed);
        assert_eq!((to, &copy), (fork(20_012).rtp, &opened), "what the browser reads");
        assert_ne!(copy, sealed);
        let header = Header::parse(&copy).unwrap();
        assert_eq!((header.ssrc(), header.sequence()), (OUTSIDE_SSRC, OUTWARD_START + n));
    }
    let report = sender_report(BROWSER, 160 * 19, &[]);
    let inside = bench.send(paths().outside, &browser.seal_rtcp(&report)).forwarded();
    assert_eq!(bench.copy(), (fork(20_010).rtcp, inside));
    let report = sender_report(AGENT, 160 * 19, &[]);
    let sealed = bench.send(paths().rtcp, &report).forwarded();
    assert_eq!(bench.copy(), (fork(20_012).rtcp, browser.open_rtcp(&sealed)));
    let counters = ["forked", "fork_overflow", "forward_rtp", "continuity_broken"];
    assert_eq!(counters.map(|name| bench.counter(name)), [42, 0, 40, 0]);
}

#[test]
fn the_call_is_the_same_with_a_recorder_as_without() {
    let run = |both| {
        let (mut bench, mut browser) = bench(recorded(1, both));
        let mut left = Vec::new();
        for n in 0..10u16 {
            bench.elapse(20_000);
            let spoken = g711(BROWSER, n, 160 * u32::from(n)).bytes();
            left.push(bench.send(paths().outside, &browser.seal(&spoken)).forwarded());
            left.push(bench.send(paths().rtp, &g711(AGENT, n, 160 * u32::from(n)).bytes()).forwarded());
        }
        left
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn held_media_and_what_dies_is_not_copied() {
    let mut plan = recorded(1, true);
    plan.directions[0].mute = Mute::Held;
    let (mut bench, mut browser) = bench(plan);
    let spoken = |n: u16| g711(BROWSER, n, 160 * u32::from(n)).bytes();
    let held = browser.seal(&spoken(1));
    assert_eq!(bench.send(paths().outside, &held), Out::Drop(Reason::Held));
    assert_eq!(bench.send(paths().outside, &held), Out::Drop(Reason::Replay));
    let unknown = g711(AGENT, 1, 0).bytes();
    let unknown = [&[unknown[0], 77], &unknown[2..]].concat();
    assert_eq!(bench.send(paths().rtp, &unknown), Out::Drop(Reason::PayloadType));
    // The recorder itself is nobody's peer.
    let Fork { rtp, .. } = fork(20_010);
    assert_eq!(bench.send(rtp, &spoken(1)), Out::Drop(Reason::UnknownFlow));
    assert_eq!((bench.copies(), bench.counter("forked")), (vec![], 0));
    bench.core.install(recorded(2, true), bench.now).unwrap();
    bench.send(paths().outside, &browser.seal(&spoken(2))).forwarded();
    assert_eq!(bench.copies().len(), 1);
}

#[test]
fn copies_begin_and_end_with_the_plan_and_the_stream_goes_on() {
    let (mut bench, mut browser) = bench(recorded(1, false));
    let mut copied = Vec::new();
    for n in 0..9u16 {
        if n % 3 == 0 && n > 0 {
            bench.core.install(recorded(u32::from(n), n == 3), bench.now).unwrap();
        }
        bench.elapse(20_000);
        let spoken = g711(BROWSER, n, 160 * u32::from(n)).bytes();
        let inside = bench.send(paths().outside, &browser.seal(&spoken)).forwarded();
        assert_eq!(Header::parse(&inside).unwrap().sequence(), INWARD_START + n);
        copied.push(bench.copies().len());
    }
    assert_eq!(copied, [0, 0, 0, 1, 1, 1, 0, 0, 0]);
    let all = [fork(20_010), fork(20_012)].map(|fork| [fork.rtp, fork.rtcp]).concat();
    let removed = bench.core.remove(CallId(1), bench.now).unwrap();
    assert!(all.iter().all(|path| !removed.egress.contains(path)), "those ended before it did");
    bench.core.install(recorded(10, true), bench.now).unwrap();
    let removed = bench.core.remove(CallId(1), bench.now).unwrap();
    assert!(all.iter().all(|path| removed.egress.contains(path)), "{:?}", removed.egress);
}

#[test]
fn digits_of_control_are_copied_with_the_stream_before_they_are_sealed() {
    let (mut bench, mut browser) = bench(copied(plan_sealed_inside(PROFILE), true));
    let mut agent = Peer::new(&key(PROFILE, FROM_AGENT), &key(PROFILE, TO_AGENT));
    bench.core.dial(CallId(1), INWARD, &[Digit { event: 5, duration: 40 }], bench.now);
    let mut sent = Vec::new();
    for _ in 0..10 {
        bench.elapse(20_000);
        bench.core.handle_dials(bench.now, &mut |_, bytes| sent.push(bytes.to_vec()));
    }
    let spoken = g711(BROWSER, 1, 160 * 20);
    sent.push(bench.send(paths().outside, &browser.seal(&spoken.bytes())).forwarded());
    let copies = bench.copies();
    assert!(copies.iter().all(|(path, _)| *path == fork(20_010).rtp));
    let copies: Vec<Vec<u8>> = copies.into_iter().map(|(_, bytes)| bytes).collect();
    let opened: Vec<Vec<u8>> = sent.iter().map(|bytes| agent.open(bytes)).collect();
    assert!(opened.len() > 4 && sent.iter().zip(&copies).all(|(sent, copy)| sent != copy));
    assert_eq!(copies, opened, "what the agent reads");
    let event = |bytes: &Vec<u8>| {
        let header = Header::parse(bytes).unwrap();
        header.payload_type() == 101 && bytes[12] == 5
    };
    assert_eq!(copies.iter().filter(|copy| event(copy)).count(), copies.len() - 1);
    let numbers: Vec<u16> = copies.iter().map(|copy| Header::parse(copy).unwrap().sequence()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{numbers:?}");
}

#[test]
fn a_burst_has_its_copies_and_what_is_too_much_is_counted() {
    let (mut bench, mut browser) = bench(recorded(1, true));
    let tag = bench.core.lookup(&paths().outside);
    for round in 0..3u16 {
        let mut spoken = |nth: u16| {
            let nth = 64 * round + nth;
            let octets = browser.seal(&g711(BROWSER, nth, 160 * u32::from(nth)).bytes());
            Arrival { from: paths().outside, tag, octets }
        };
        let arrivals: Vec<Arrival> = (0..64).map(&mut spoken).collect();
        assert!(bench.burst(&arrivals).iter().all(|out| matches!(out, Out::Rtp(..))));
    }
    assert_eq!(["forked", "fork_overflow"].map(|name| bench.counter(name)), [128, 64], "nobody polled");
    assert_eq!(bench.copies().len(), 128);
}

#[test]
fn a_plan_with_copies_is_checked() {
    let (mut bench, _) = bench(recorded(1, false));
    let mut outside = recorded(2, true);
    outside.directions[1].fork = Some(Fork { rtcp: paths().outside, ..fork(20_012) });
    assert_eq!(bench.core.install(outside, bench.now), Err(Refusal::Malformed));
    let mut transparent = recorded(2, true);
    for direction in &mut transparent.directions {
        direction.passage = Passage::Transparent;
        (direction.open, direction.seal) =
            (Some(sallyport_plan::Protection::Plain), Some(sallyport_plan::Protection::Plain));
        direction.payload_types.retain(|map| map.from == map.to && map.format.is_kept());
        direction.digits = Digits::Pass;
    }
    assert_eq!(transparent.validate(), Err(Refusal::Malformed));
    for direction in &mut transparent.directions {
        direction.fork = None;
    }
    assert_eq!(transparent.validate(), Ok(()), "it is the copies");
}
