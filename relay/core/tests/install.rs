//! Installing, swapping and removing plans: what stays, what starts anew, what is refused and changes nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Bench, Out};
use sallyport_core::{DirectionId, FlowChanges, Reason, Tag};
use sallyport_plan::{
    CallId, DirectionIndex, FlowKey, Medium, Mute, Plan, Profile, Protection, Refusal, Ssrc,
};
use table::world::*;

const PROFILE: Profile = Profile::AeadAes128Gcm;
const GCM: Option<Profile> = Some(PROFILE);

fn browser() -> Peer {
    Peer::new(&key(PROFILE, FROM_BROWSER), &key(PROFILE, TO_BROWSER))
}

fn installed() -> Bench {
    let mut bench = Bench::new(4, 8);
    bench.core.install(plan(GCM, paths()), bench.now).unwrap();
    bench
}

/// The same call elsewhere: other peers, other keys.
fn other_call() -> Plan {
    let mut paths = paths();
    for flow in [&mut paths.outside, &mut paths.rtp, &mut paths.rtcp] {
        flow.remote.set_port(flow.remote.port() + 100);
    }
    let mut plan = plan(GCM, paths);
    plan.call = CallId(2);
    plan.directions[0].open = Some(Protection::Srtp(key(PROFILE, 0x55)));
    plan.directions[1].seal = Some(Protection::Srtp(key(PROFILE, 0x66)));
    plan
}

fn sequence_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

/// Everything that can be seen from outside.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    directions: usize,
    calls: Vec<(CallId, u32)>,
    tags: Vec<Option<Tag>>,
    counters: Vec<(&'static str, u64)>,
}

fn shape(bench: &Bench) -> Shape {
    let mut calls: Vec<_> = bench.core.calls().collect();
    calls.sort_unstable();
    let flows = [paths().outside, paths().rtp, paths().rtcp, stranger()];
    let tags = flows.iter().map(|flow| bench.core.lookup(flow)).collect();
    Shape { directions: bench.core.directions(), calls, tags, counters: bench.core.counters().collect() }
}

#[test]
fn the_first_plan_names_all_flows_and_a_removed_call_gives_all_back() {
    let mut bench = Bench::new(4, 8);
    let FlowChanges { insert, remove } = bench.core.install(plan(GCM, paths()), bench.now).unwrap();
    let tag = |slot, epoch| Tag { direction: DirectionId::new(3, slot), epoch };
    let Paths { outside, rtp, rtcp } = paths();
    assert_eq!(insert, [(outside, tag(0, 1)), (rtp, tag(1, 1)), (rtcp, tag(1, 1))]);
    assert_eq!(remove, []);
    for (flow, tag) in insert {
        assert_eq!(bench.core.lookup(&flow), Some(tag));
        assert_eq!(tag.direction.worker(), 3);
    }
    let removed = bench.core.remove(CallId(1), bench.now).unwrap();
    assert_eq!(removed.flows, [outside, rtp, rtcp]);
    assert_eq!(removed.egress, [outside, rtp, rtcp]);
    assert_eq!(removed.reports.len(), 2);
    assert_eq!((bench.core.directions(), bench.core.calls().count()), (0, 0));
    assert_eq!(bench.core.lookup(&outside), None);
    assert_eq!(bench.core.remove(CallId(1), bench.now), None);
    assert_eq!(bench.core.report(CallId(1)), None);
}

#[test]
fn a_newer_plan_with_the_same_keys_keeps_indices_stream_and_counters() {
    let mut bench = installed();
    let mut browser = browser();
    let first = browser.seal(&g711(1, 500, 0).bytes());
    bench.send(paths().outside, &first).forwarded();
    let early = bench.send(paths().rtp, &g711(2, 1, 160).bytes()).forwarded();
    let before = bench.report(1);
    let changes = bench.core.install(Plan { version: 2, ..plan(GCM, paths()) }, bench.now).unwrap();
    assert_eq!(changes, FlowChanges::default(), "the kernel has nothing to do");
    assert_eq!(bench.report(1), before);
    assert_eq!(
        bench.send(paths().outside, &first),
        Out::Drop(Reason::Replay),
        "the replay window is still there"
    );
    let late = bench.send(paths().rtp, &g711(2, 2, 320).bytes()).forwarded();
    assert_eq!(sequence_of(&late), sequence_of(&early) + 1);
    browser.open(&early);
    assert_eq!(browser.open(&late), g711(2, 2, 320).leaves(OUTSIDE_SSRC, OUTWARD_START + 1, 320).bytes());
    assert_eq!(bench.report(1).packets, 2);
}

#[test]
fn new_keys_start_anew_and_the_sequence_goes_on() {
    let mut bench = installed();
    let mut old = browser();
    let before = bench.send(paths().rtp, &g711(2, 1, 160).bytes()).forwarded();
    let mut next = Plan { version: 2, ..plan(GCM, paths()) };
    next.directions[0].open = Some(Protection::Srtp(key(PROFILE, 0x77)));
    next.directions[1].seal = Some(Protection::Srtp(key(PROFILE, 0x88)));
    bench.core.install(next, bench.now).unwrap();
    let mut new = Peer::new(&key(PROFILE, 0x77), &key(PROFILE, 0x88));
    let after = bench.send(paths().rtp, &g711(2, 2, 320).bytes()).forwarded();
    assert_eq!(sequence_of(&after), sequence_of(&before) + 1);
    assert_eq!(new.open(&after), g711(2, 2, 320).leaves(OUTSIDE_SSRC, OUTWARD_START + 1, 320).bytes());
    let late = old.seal(&g711(1, 1, 0).bytes());
    bench.send(paths().outside, &late).forwarded();
    bench.send(paths().outside, &new.seal(&g711(1, 2, 160).bytes())).forwarded();
    bench.elapse(1_000_000);
    let late = old.seal(&g711(1, 3, 320).bytes());
    assert_eq!(
        bench.send(paths().outside, &late),
        Out::Drop(Reason::BadTag),
        "the old key opens nothing more"
    );
}

#[test]
fn a_far_end_that_moves_takes_its_flows_along() {
    let mut bench = installed();
    let old = paths();
    let old_tag = bench.core.lookup(&old.rtp).unwrap();
    let before = bench.send(old.rtp, &g711(2, 1, 160).bytes()).forwarded();
    let mut new = old;
    new.rtp.remote.set_port(7000);
    new.rtcp.remote.set_port(7001);
    let changes = bench.core.install(Plan { version: 2, ..plan(GCM, new) }, bench.now).unwrap();
    assert_eq!(changes.remove, [old.rtp, old.rtcp]);
    assert_eq!(changes.insert, [(new.rtp, old_tag), (new.rtcp, old_tag)]);
    assert_eq!(bench.core.lookup(&old.rtp), None);
    // A frame of the old far end that waited in a ring: its tag is right, its flow is not.
    let waited = bench.tagged(old_tag, old.rtp, &g711(2, 2, 320).bytes());
    assert_eq!(waited, Out::Drop(Reason::StaleFlow));
    bench.elapse(20_000);
    let after = bench.send(new.rtp, &g711(9, 100, 5).bytes());
    let Out::Rtp(to, bytes) = after else { panic!("{after:?}") };
    assert_eq!((to, sequence_of(&bytes)), (new.outside, sequence_of(&before) + 1));
}

#[test]
fn flows_change_hands_within_a_call() {
    let mut bench = installed();
    let mut swapped = Plan { version: 2, ..plan(GCM, paths()) };
    swapped.directions[0].ingress = vec![paths().outside, paths().rtcp];
    swapped.directions[1].ingress = vec![paths().rtp];
    let changes = bench.core.install(swapped, bench.now).unwrap();
    assert_eq!(changes.remove, []);
    let tag = bench.core.lookup(&paths().outside).unwrap();
    assert_eq!(changes.insert, [(paths().rtcp, tag)]);
    assert_eq!(bench.core.lookup(&paths().rtcp), Some(tag));
}

#[test]
fn a_slot_that_has_another_owner_does_not_take_its_packets() {
    let mut bench = installed();
    let old = bench.core.lookup(&paths().rtp).unwrap();
    bench.core.remove(CallId(1), bench.now).unwrap();
    assert_eq!(
        bench.tagged(old, paths().rtp, &g711(2, 1, 0).bytes()),
        Out::Drop(Reason::StaleFlow),
        "no owner"
    );
    // The same call again and again, until its direction has the same slot.
    let new = (9..20)
        .find_map(|call| {
            bench.core.install(Plan { call: CallId(call), ..plan(GCM, paths()) }, bench.now).unwrap();
            let new = bench.core.lookup(&paths().rtp).filter(|new| new.direction == old.direction);
            new.is_none().then(|| bench.core.remove(CallId(call), bench.now));
            new
        })
        .unwrap();
    assert!(new.epoch != old.epoch);
    assert_eq!(
        bench.tagged(old, paths().rtp, &g711(2, 1, 0).bytes()),
        Out::Drop(Reason::StaleFlow),
        "a new owner"
    );
    let foreign = Tag { direction: DirectionId(new.direction.0 ^ (7 << 24)), ..new };
    assert_eq!(bench.tagged(foreign, paths().rtp, &g711(2, 1, 0).bytes()), Out::Drop(Reason::StaleFlow));
    let beyond = Tag { direction: DirectionId::new(3, 0xff_ffff), ..new };
    assert_eq!(bench.tagged(beyond, paths().rtp, &g711(2, 1, 0).bytes()), Out::Drop(Reason::StaleFlow));
    assert!(matches!(bench.tagged(new, paths().rtp, &g711(2, 1, 0).bytes()), Out::Rtp(..)));
    assert_eq!(bench.counter("drop_stale_flow"), 4);
}

#[test]
fn directions_come_and_go_with_the_plan() {
    let mut bench = installed();
    let mut grown = Plan { version: 2, ..plan(GCM, paths()) };
    let video = |flow: FlowKey, port: u16| {
        let mut flow = flow;
        flow.local.set_port(port);
        flow
    };
    for (index, reverse) in [(2, 3), (3, 2)] {
        let mut direction = grown.directions[usize::from(index) - 2].clone();
        direction.index = DirectionIndex(index);
        direction.reverse = DirectionIndex(reverse);
        direction.medium = Medium::Video;
        direction.ssrc = Ssrc(direction.ssrc.0 + 0x100);
        direction.ingress =
            direction.ingress.iter().map(|flow| video(*flow, flow.local.port() + 2)).collect();
        grown.directions.push(direction);
    }
    let changes = bench.core.install(grown.clone(), bench.now).unwrap();
    assert_eq!((changes.insert.len(), changes.remove.len(), bench.core.directions()), (3, 0, 4));
    let back = Plan { version: 3, ..plan(GCM, paths()) };
    let changes = bench.core.install(back, bench.now).unwrap();
    assert_eq!((changes.insert.len(), changes.remove.len(), bench.core.directions()), (0, 3, 2));
    // The sealer of the old video is gone, and with it the knowledge of what it sealed.
    grown.version = 4;
    assert_eq!(bench.core.install(grown.clone(), bench.now), Err(Refusal::KeyReuse));
    grown.directions[3].ssrc = Ssrc(0x9999);
    assert!(bench.core.install(grown, bench.now).is_ok());
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut bench = Bench::new(2, 4);
    bench.core.install(Plan { version: 5, ..plan(GCM, paths()) }, bench.now).unwrap();
    bench.core.install(other_call(), bench.now).unwrap();
    bench.send(paths().rtp, &g711(2, 1, 0).bytes()).forwarded();
    let next = || Plan { version: 6, ..plan(GCM, paths()) };
    let refusals: [(Refusal, Plan); 10] = [
        (Refusal::Stale, Plan { version: 5, ..next() }),
        (Refusal::Stale, Plan { version: 4, ..next() }),
        (Refusal::Full, Plan { call: CallId(3), ..next() }),
        (Refusal::TooLarge, Plan { record: vec![0; Plan::RECORD_MAX + 1], ..next() }),
        (Refusal::Malformed, Plan { directions: next().directions[..1].to_vec(), ..next() }),
        (Refusal::FlowTaken, {
            let mut plan = next();
            plan.directions[0].ingress.push(other_call().directions[0].ingress[0]);
            plan
        }),
        (Refusal::KeyReuse, {
            let mut plan = next();
            plan.directions[1].seal = other_call().directions[1].seal.clone();
            plan
        }),
        (Refusal::KeyReuse, {
            let mut plan = next();
            plan.directions[0].seal = plan.directions[1].seal.clone();
            plan.directions[0].ssrc = plan.directions[1].ssrc;
            plan
        }),
        (Refusal::Malformed, Plan { consents: vec![consent(stranger())], ..next() }),
        (Refusal::Malformed, {
            let mut short = consent(paths().outside);
            short.local_pwd = "short".into();
            Plan { consents: vec![short], ..next() }
        }),
    ];
    let before = shape(&bench);
    for (refusal, plan) in refusals {
        assert_eq!(bench.core.install(plan, bench.now), Err(refusal));
        assert_eq!(shape(&bench), before, "{refusal:?}");
    }
    let packet = bench.send(paths().rtp, &g711(2, 2, 0).bytes()).forwarded();
    assert_eq!(sequence_of(&packet), OUTWARD_START + 1);
    assert!(bench.core.install(next(), bench.now).is_ok());
}

#[test]
fn limits_count_what_a_call_has_already() {
    let mut bench = Bench::new(1, 2);
    bench.core.install(plan(GCM, paths()), bench.now).unwrap();
    assert!(bench.core.install(Plan { version: 2, ..plan(GCM, paths()) }, bench.now).is_ok());
    assert_eq!(bench.core.install(other_call(), bench.now), Err(Refusal::Full));
    bench.core.remove(CallId(1), bench.now).unwrap();
    assert!(bench.core.install(other_call(), bench.now).is_ok());
    let mut narrow = Bench::new(9, 3);
    narrow.core.install(plan(GCM, paths()), narrow.now).unwrap();
    assert_eq!(narrow.core.install(other_call(), narrow.now), Err(Refusal::Full), "directions");
}

#[test]
fn an_ssrc_that_changes_under_the_same_key_is_a_stream_of_its_own() {
    let mut bench = installed();
    let mut browser = browser();
    browser.open(&bench.send(paths().rtp, &g711(2, 1, 160).bytes()).forwarded());
    for (version, ssrc) in [(2, 0x3333), (3, OUTSIDE_SSRC)] {
        let mut next = Plan { version, ..plan(GCM, paths()) };
        next.directions[1].ssrc = Ssrc(ssrc);
        bench.core.install(next, bench.now).unwrap();
        let sequence = version as u16;
        let out = bench.send(paths().rtp, &g711(2, sequence, 0).bytes()).forwarded();
        let expected = g711(2, sequence, 0).leaves(ssrc, OUTWARD_START + sequence - 1, 0);
        assert_eq!(browser.open(&out), expected.bytes());
    }
}

#[test]
fn no_room_behind_a_packet_is_a_drop_and_the_next_one_leaves() {
    let mut bench = installed();
    let cramped = bench.cramped(paths().rtp, &g711(2, 1, 0).bytes(), 15);
    assert_eq!(cramped, Out::Drop(Reason::NoRoom));
    assert!(matches!(bench.cramped(paths().rtp, &g711(2, 2, 0).bytes(), 16), Out::Rtp(..)));
    let report = receiver_report(2, &[]);
    assert_eq!(bench.cramped(paths().rtcp, &report, 19), Out::Drop(Reason::NoRoom));
    assert_eq!(bench.cramped(paths().rtcp, &report, 39), Out::Drop(Reason::NoRoom));
    assert!(matches!(bench.cramped(paths().rtcp, &report, 40), Out::Rtcp(..)));
    let mut ice = Bench::new(1, 2);
    ice.core.install(plan_with_consent(GCM, paths()), ice.now).unwrap();
    // An answer is shorter than a check of a browser: it needs no room.
    assert!(matches!(ice.cramped(paths().outside, &check().bytes(), 0), Out::Reply(_)));
}

#[test]
fn unknown_sources_are_limited_one_by_one_and_so_is_a_flow() {
    let mut bench = installed();
    let judge = |bench: &mut Bench, from: FlowKey| bench.send(from, &check().bytes());
    let admitted = (0..200).filter(|_| judge(&mut bench, stranger()) == Out::Punt(None)).count();
    assert_eq!(admitted, 50);
    assert_eq!(judge(&mut bench, stranger()), Out::Drop(Reason::RateLimited));
    let mut port = stranger();
    port.remote.set_port(1);
    assert_eq!(judge(&mut bench, port), Out::Drop(Reason::RateLimited), "a port is no other source");
    let others = (0..50u8).filter(|n| {
        let mut other = stranger();
        other.remote.set_ip([198, 18, 0, *n].into());
        judge(&mut bench, other) == Out::Punt(None)
    });
    assert!(others.count() >= 45, "hardly any shares the bucket");
    bench.elapse(1_000_000);
    assert_eq!(judge(&mut bench, stranger()), Out::Punt(None));
    let known = (0..500).filter(|_| judge(&mut bench, paths().outside) == Out::Punt(Some(CallId(1)))).count();
    assert_eq!(known, 100);
    assert_eq!(
        bench.report(0).drops.iter().find(|drop| drop.name == "drop_rate_limited").unwrap().value,
        400
    );
    bench.elapse(1_000_000);
    assert_eq!(bench.send(paths().outside, &[22, 0xfe, 0xfd]), Out::Punt(Some(CallId(1))));
}

#[test]
fn a_direction_that_is_its_own_reverse_still_reports() {
    let mut bench = Bench::new(1, 2);
    let mut alone = plan(GCM, paths());
    alone.directions.truncate(1);
    alone.directions[0].reverse = alone.directions[0].index;
    bench.core.install(alone, bench.now).unwrap();
    let block = Block { ssrc: OUTSIDE_SSRC, highest: 1 };
    let report = browser().seal_rtcp(&receiver_report(1, &[block]));
    let out = bench.send(paths().outside, &report).forwarded();
    assert_eq!(out, [receiver_report(INSIDE_SSRC, &[]), description(INSIDE_SSRC, "11110001")].concat());
}

#[test]
fn held_and_open_follow_the_plan_at_once() {
    let mut bench = installed();
    for (version, mute) in [(2, Mute::Held), (3, Mute::Open), (4, Mute::Held), (5, Mute::Open)] {
        let mut next = Plan { version, ..plan(GCM, paths()) };
        next.directions[1].mute = mute;
        bench.core.install(next, bench.now).unwrap();
        let out = bench.send(paths().rtp, &g711(2, version as u16, 0).bytes());
        assert_eq!(out == Out::Drop(Reason::Held), mute == Mute::Held);
    }
    assert_eq!((bench.report(1).packets, bench.report(1).lost), (2, 0));
}
