//! Telephony that sends from another port than it signals is heard from there; nobody else is.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
mod table;

use common::{Bench, Out};
use sallyport_core::{CoreEvent, Reason};
use sallyport_plan::{CallId, FlowKey, Mute, Passage, Plan, Profile, Protection};
use table::world::*;

const CM: Profile = Profile::AesCm128HmacSha1_80;
const GCM: Profile = Profile::AeadAes128Gcm;

fn from_port(flow: FlowKey, port: u16) -> FlowKey {
    let mut other = flow;
    other.remote.set_port(port);
    other
}

fn learning(mut plan: Plan) -> Plan {
    plan.directions[1].learns = true;
    plan
}

/// The call, and what the browser opens with.
fn call(plan: Plan, profile: Profile) -> (Bench, Peer) {
    let mut bench = Bench::new(1, 2);
    bench.core.install(plan, bench.now).unwrap();
    (bench, Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER)))
}

fn plain() -> (Bench, Peer) {
    call(learning(plan(Some(CM), paths())), CM)
}

/// One packet of a source, 20 ms after the one before.
fn speak(bench: &mut Bench, from: FlowKey, ssrc: u32, sequence: u16) -> Out {
    bench.elapse(20_000);
    bench.send(from, &g711(ssrc, sequence, u32::from(sequence) * 160).bytes())
}

fn told(flow: FlowKey) -> Vec<CoreEvent> {
    vec![CoreEvent::Source { call: CallId(1), flow }]
}

const UNLATCHED: Out = Out::Drop(Reason::Unlatched);

#[test]
fn a_source_that_is_alone_for_a_tenth_of_a_second_is_heard_and_control_told() {
    let (mut bench, mut browser) = plain();
    let other = from_port(paths().rtp, 5004);
    for sequence in 100..105 {
        assert_eq!(speak(&mut bench, other, 2, sequence), UNLATCHED);
    }
    assert_eq!(bench.events(), []);
    let mut numbers = Vec::new();
    for sequence in 105..400 {
        let opened = browser.open(&speak(&mut bench, other, 2, sequence).forwarded());
        numbers.push(u16::from_be_bytes([opened[2], opened[3]]));
    }
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    // Control is told once, and again where its plan does not follow.
    assert_eq!(bench.events(), vec![told(other); 1 + 294 / 64].concat());
    assert_eq!((bench.counter("sources_learned"), bench.counter("drop_unlatched")), (1, 5));
    assert_eq!(bench.report(1).drops.len(), 1);
}

#[test]
fn the_plan_that_follows_keeps_the_stream_and_lets_the_peer_move_on() {
    let (mut bench, mut browser) = plain();
    let other = from_port(paths().rtp, 5004);
    (1..7).for_each(|sequence| drop(speak(&mut bench, other, 2, sequence)));
    let mut next = Plan { version: 2, ..learning(plan(Some(CM), paths())) };
    next.directions[1].ingress[0] = other;
    next.directions[0].rtp = other;
    let changes = bench.core.install(next, bench.now).unwrap();
    assert_eq!(changes.remove, [paths().rtp]);
    assert_eq!(changes.insert.iter().map(|(flow, _)| *flow).collect::<Vec<_>>(), [other]);
    bench.events();
    for sequence in 7..200 {
        browser.open(&speak(&mut bench, other, 2, sequence).forwarded());
    }
    assert_eq!(bench.events(), []);
    // It goes where it comes from.
    let sealed = browser.seal(&g711(9, 1, 160).bytes());
    assert!(matches!(bench.send(paths().outside, &sealed), Out::Rtp(to, _) if to == other));
    // The port that was signalled is any other now.
    // Who was named just now is waited for.
    for sequence in 200..255 {
        assert_eq!(speak(&mut bench, paths().rtp, 2, sequence), UNLATCHED);
    }
    browser.open(&speak(&mut bench, paths().rtp, 2, 255).forwarded());
    assert_eq!(bench.events(), told(paths().rtp));
}

#[test]
fn who_is_not_alone_is_not_learned() {
    let (mut bench, mut browser) = plain();
    let other = from_port(paths().rtp, 5004);
    for sequence in 1..500 {
        browser.open(&speak(&mut bench, paths().rtp, 2, sequence).forwarded());
        assert_eq!(speak(&mut bench, other, 3, sequence), UNLATCHED);
    }
    // Nor is a burst between two packets.
    for sequence in 0..200 {
        assert_eq!(bench.send(other, &g711(3, sequence, 0).bytes()), UNLATCHED);
    }
    // Nor are two that take turns, one that jumps about, and one of other types.
    for sequence in 500..600 {
        assert_eq!(speak(&mut bench, other, 3, sequence), UNLATCHED);
        assert_eq!(speak(&mut bench, from_port(other, 5006), 4, sequence), UNLATCHED);
    }
    for sequence in 0..100 {
        assert_eq!(speak(&mut bench, other, 3, sequence * 400), UNLATCHED);
        let foreign = Rtp { payload_type: 77, ..g711(3, sequence, 0) };
        assert_eq!(bench.send(other, &foreign.bytes()), Out::Drop(Reason::PayloadType));
    }
    assert_eq!(bench.events(), []);
}

#[test]
fn other_addresses_held_media_and_plans_that_do_not_learn_hear_nothing() {
    let (mut bench, _) = plain();
    let mut stranger = paths().rtp;
    stranger.remote.set_ip("10.0.0.66".parse().unwrap());
    for sequence in 1..50 {
        assert_eq!(speak(&mut bench, stranger, 2, sequence), Out::Drop(Reason::UnknownFlow));
    }
    // A tag alone proves nothing.
    let tag = bench.core.lookup(&paths().rtp).unwrap();
    assert_eq!(bench.tagged(tag, stranger, &g711(2, 50, 0).bytes()), Out::Drop(Reason::StaleFlow));
    let mut held = Plan { version: 2, ..learning(plan(Some(CM), paths())) };
    held.directions[1].mute = Mute::Held;
    bench.core.install(held, bench.now).unwrap();
    let other = from_port(paths().rtp, 5004);
    for sequence in 1..50 {
        assert_eq!(speak(&mut bench, other, 2, sequence), Out::Drop(Reason::Held));
    }
    let strict = Plan { version: 3, ..plan(Some(CM), paths()) };
    let changes = bench.core.install(strict, bench.now).unwrap();
    assert_eq!(changes.remove, [paths().rtp.of_any_port(), paths().rtcp.of_any_port()]);
    for sequence in 1..50 {
        assert_eq!(speak(&mut bench, other, 2, sequence), Out::Drop(Reason::UnknownFlow));
    }
    assert_eq!(bench.tagged(tag, other, &g711(2, 50, 0).bytes()), Out::Drop(Reason::StaleFlow));
    assert_eq!(bench.events(), []);
    let mut outside = Plan { version: 4, ..plan(Some(CM), paths()) };
    outside.directions[0].learns = true;
    assert!(outside.validate().is_err(), "browsers are found by ICE");
}

#[test]
fn before_there_are_keys_nothing_is_learned() {
    let (mut bench, _) = call(learning(plan(None, paths())), CM);
    for sequence in 1..50 {
        let out = speak(&mut bench, from_port(paths().rtp, 5004), 2, sequence);
        assert_eq!(out, Out::Drop(Reason::Early));
    }
    assert_eq!(bench.events(), []);
}

#[test]
fn rtcp_is_heard_that_speaks_of_the_source() {
    let (mut bench, _) = plain();
    let other = from_port(paths().rtcp, 5005);
    let report = |ssrc| [sender_report(ssrc, 160, &[]), description(ssrc, "x")].concat();
    assert_eq!(bench.send(other, &report(2)), UNLATCHED, "nobody is heard yet");
    drop(speak(&mut bench, paths().rtp, 2, 1).forwarded());
    assert_eq!(bench.send(other, &report(3)), UNLATCHED);
    assert!(matches!(bench.send(other, &report(2)), Out::Rtcp(to, _) if to == paths().outside));
    assert_eq!(bench.events(), told(other));
}

#[test]
fn an_encrypted_packet_shows_by_its_tag_whose_it_is() {
    for profile in [CM, GCM] {
        let (mut bench, mut browser) = call(learning(plan_sealed_inside(profile)), profile);
        let mut agent = Peer::new(&key(profile, FROM_AGENT), &key(profile, TO_AGENT));
        let other = from_port(paths().rtp, 5004);
        for sequence in 1..50 {
            let forged = g711(2, sequence, 0).bytes();
            let forged = Peer::new(&key(profile, 0x55), &key(profile, 0x66)).seal(&forged);
            assert_eq!(bench.send(other, &forged), Out::Drop(Reason::BadTag));
        }
        assert_eq!(bench.events(), []);
        for sequence in 1..50 {
            let sealed = agent.seal(&g711(2, sequence, u32::from(sequence) * 160).bytes());
            browser.open(&bench.send(other, &sealed).forwarded());
            assert_eq!(bench.send(other, &sealed), Out::Drop(Reason::Replay));
        }
        assert_eq!(bench.events(), told(other));
    }
}

#[test]
fn control_alone_moves_what_the_kernel_forwards() {
    let mut bench = Bench::new(1, 2);
    let mut plain = learning(plan(Some(CM), paths()));
    for direction in &mut plain.directions {
        (direction.open, direction.seal) = (Some(Protection::Plain), Some(Protection::Plain));
        direction.payload_types.retain(|map| map.from == map.to && map.from.0 < 96);
        direction.passage = Passage::Transparent;
    }
    bench.core.install(plain, bench.now).unwrap();
    let other = from_port(paths().rtp, 5004);
    for sequence in 1..7 {
        assert_eq!(speak(&mut bench, other, 2, sequence), UNLATCHED);
    }
    assert_eq!(bench.events(), told(other));
}

#[test]
fn nothing_of_it_is_left() {
    let (mut bench, _) = plain();
    let removed = bench.core.remove(CallId(1), bench.now).unwrap();
    let mut flows = removed.flows;
    flows.sort_unstable();
    let Paths { outside, rtp, rtcp } = paths();
    let mut all = vec![outside, rtp, rtcp, rtp.of_any_port(), rtcp.of_any_port()];
    all.sort_unstable();
    assert_eq!(flows, all);
    assert_eq!(bench.core.lookup(&from_port(rtp, 5004)), None);
}
