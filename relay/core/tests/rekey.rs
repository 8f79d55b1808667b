//! Another key in the middle of a direction: what is under way under the former one arrives, once.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Bench, Out};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sallyport_core::Reason;
use sallyport_plan::{Plan, Profile, Protection};
use table::world::*;

const AGENT: u32 = 0xa9e2_0002;
const PROFILES: [Profile; 3] =
    [Profile::AesCm128HmacSha1_80, Profile::AeadAes128Gcm, Profile::AesCm128HmacSha1_32];

/// SRTP on both legs; the inside's keys are of this generation.
fn version(number: u8, generation: u8) -> Plan {
    let mut plan = Plan { version: number.into(), ..plan_sealed_inside(Profile::AeadAes128Gcm) };
    plan.directions[1].open = Some(Protection::Srtp(theirs(generation)));
    plan
}

fn theirs(generation: u8) -> sallyport_plan::KeyMaterial {
    key(PROFILES[usize::from(generation) % 3], 0x80 + generation)
}

fn agent(generation: u8) -> Peer {
    Peer::new(&theirs(generation), &key(Profile::AeadAes128Gcm, TO_AGENT))
}

fn browser() -> Peer {
    Peer::new(&key(Profile::AeadAes128Gcm, FROM_BROWSER), &key(Profile::AeadAes128Gcm, TO_BROWSER))
}

fn spoken(sequence: u16) -> Rtp {
    g711(AGENT, sequence, 160 * u32::from(sequence))
}

/// A packet of the agent's: when it is sent and when it comes, in milliseconds.
#[derive(Debug, Clone)]
struct Sent {
    generation: u8,
    /// Of RTP; `None`: a report.
    sequence: Option<u16>,
    comes: u64,
    bytes: Vec<u8>,
}

/// The agent speaks every 20 ms and reports every 100, each packet under way for up to 200 ms; it changes its key at some time,
/// before or after we know of it.
fn history(first: u16, delays: &[u64], at: usize) -> Vec<Sent> {
    let (mut former, mut next) = (agent(0), agent(1));
    let mut all = Vec::new();
    for (n, delay) in delays.iter().enumerate() {
        let generation = u8::from(n >= at);
        let peer = if n < at { &mut former } else { &mut next };
        let sequence = first + n as u16;
        let sent = 20 * n as u64;
        let bytes = peer.seal(&spoken(sequence).bytes());
        all.push(Sent { generation, sequence: Some(sequence), comes: sent + delay, bytes });
        if n % 5 == 0 {
            let bytes = peer.seal_rtcp(&receiver_report(AGENT, &[]));
            all.push(Sent { generation, sequence: None, comes: sent + delay, bytes });
        }
    }
    all.sort_by_key(|one| one.comes);
    all
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::with_cases(200)
    })]

    /// None is lost, none comes twice, and each leaves as it was spoken.
    #[test]
    fn packets_around_a_new_key_arrive_once_each(
        first in prop_oneof![Just(100u16), Just(0x7ff0), 200u16..30_000],
        delays in prop::collection::vec(0u64..200, 40),
        (at, known) in (5usize..30, 0u64..800),
        again in prop::collection::vec(any::<prop::sample::Index>(), 10),
    ) {
        // We know of the key before the first packet under it comes, and at the earliest when the agent may have it: no packet is
        // under way for longer than that.
        let all = history(first, &delays, at);
        let met = all.iter().find(|one| one.generation == 1).map_or(0, |one| one.comes);
        let known = known.min(met);
        let (mut bench, mut browser) = (Bench::new(1, 2), browser());
        let begun = bench.now;
        bench.core.install(version(1, 0), bench.now).unwrap();
        let (mut changed, mut heard, mut reports) = (false, Vec::new(), 0);
        for one in &all {
            if !changed && one.comes >= known {
                changed = true;
                bench.core.install(version(2, 1), bench.now).unwrap();
            }
            bench.now = begun.plus(1000 * one.comes);
            bench.core.handle_reports(bench.now, &mut |_, _| {});
            match (bench.send(paths().rtp, &one.bytes), one.sequence) {
                (Out::Rtp(_, bytes), Some(sequence)) => {
                    prop_assert_eq!(&browser.open(&bytes)[12..], &spoken(sequence).payload[..]);
                    heard.push(sequence);
                }
                (Out::Rtcp(..), None) => reports += 1,
                (other, _) => prop_assert!(false, "{:?} became {:?}", one, other),
            }
        }
        heard.sort_unstable();
        prop_assert_eq!(heard, (first..first + 40).collect::<Vec<_>>());
        prop_assert_eq!(reports, 8);
        for index in again {
            let out = bench.send(paths().rtp, &index.get(&all).bytes);
            prop_assert!(matches!(out, Out::Drop(_)), "{:?}", out);
        }
        prop_assert_eq!(bench.report(1).packets, 40);
    }
}

#[test]
fn a_former_key_is_forgotten_half_a_second_after_the_new_one_is_met_and_in_time_where_it_is_not() {
    for (met, kept, over) in [(true, 400_000, 501_000), (false, 31_900_000, 32_001_000)] {
        for by_timer in [true, false] {
            let mut bench = Bench::new(1, 2);
            bench.core.install(version(1, 0), bench.now).unwrap();
            let (mut former, mut next) = (agent(0), agent(1));
            bench.send(paths().rtp, &former.seal(&spoken(1).bytes())).forwarded();
            bench.core.install(version(2, 1), bench.now).unwrap();
            let begun = bench.now;
            if met {
                bench.send(paths().rtp, &next.seal(&spoken(3).bytes())).forwarded();
            }
            bench.now = begun.plus(kept);
            bench.reports();
            bench.send(paths().rtp, &former.seal(&spoken(2).bytes())).forwarded();
            bench.now = begun.plus(over);
            if by_timer {
                bench.elapse(250_000);
                bench.reports();
            }
            let late = former.seal(&spoken(4).bytes());
            assert_eq!(bench.send(paths().rtp, &late), Out::Drop(Reason::BadTag));
            bench.send(paths().rtp, &next.seal(&spoken(5).bytes())).forwarded();
        }
    }
}

/// Nobody has to send for a key to be forgotten: the timer asks to be called until then, and not any more.
#[test]
fn the_timer_looks_after_former_keys() {
    let mut bench = Bench::new(1, 2);
    bench.core.install(version(1, 0), bench.now).unwrap();
    let wakes = |bench: &mut Bench| {
        let end = bench.now.plus(40_000_000);
        let mut wakes = 0;
        while let Some(at) = bench.core.poll_report().filter(|at| *at <= end) {
            bench.now = at;
            bench.core.handle_reports(at, &mut |_, _| {});
            wakes += 1;
        }
        bench.now = end;
        wakes
    };
    let before = wakes(&mut bench);
    bench.core.install(version(2, 1), bench.now).unwrap();
    let between = wakes(&mut bench);
    assert!((before + 100..before + 140).contains(&between), "{before} and {between}");
    assert!(wakes(&mut bench) < before + 10);
}

#[test]
fn keys_that_follow_each_other_leave_one_former_key_the_one_in_use() {
    let mut bench = Bench::new(1, 2);
    let mut agents = [0, 1, 2].map(agent);
    bench.core.install(version(1, 0), bench.now).unwrap();
    bench.send(paths().rtp, &agents[0].seal(&spoken(1).bytes())).forwarded();
    bench.core.install(version(2, 1), bench.now).unwrap();
    // Nothing came under the second one: the first is still what is spoken under.
    bench.core.install(version(3, 2), bench.now).unwrap();
    bench.send(paths().rtp, &agents[0].seal(&spoken(2).bytes())).forwarded();
    let second = agents[1].seal(&spoken(3).bytes());
    assert_eq!(bench.send(paths().rtp, &second), Out::Drop(Reason::BadTag));
    bench.send(paths().rtp, &agents[2].seal(&spoken(4).bytes())).forwarded();
    // The first comes back, and knows what it has opened.
    bench.core.install(version(4, 0), bench.now).unwrap();
    let replayed = agent(0).seal(&spoken(2).bytes());
    assert_eq!(bench.send(paths().rtp, &replayed), Out::Drop(Reason::Replay));
    bench.send(paths().rtp, &agents[0].seal(&spoken(5).bytes())).forwarded();
    bench.send(paths().rtp, &agents[2].seal(&spoken(6).bytes())).forwarded();
}

#[test]
fn another_peer_is_not_heard_under_the_former_key() {
    let mut bench = Bench::new(1, 2);
    bench.core.install(version(1, 0), bench.now).unwrap();
    let mut moved = version(2, 1);
    let elsewhere = "198.51.100.9:4000".parse().unwrap();
    moved.directions[1].ingress[0].remote = elsewhere;
    moved.directions[0].rtp.remote = elsewhere;
    let from = moved.directions[0].rtp;
    bench.core.install(moved, bench.now).unwrap();
    let former = agent(0).seal(&spoken(1).bytes());
    assert_eq!(bench.send(from, &former), Out::Drop(Reason::BadTag));
    bench.send(from, &agent(1).seal(&spoken(2).bytes())).forwarded();
}

/// A far end that offers the key that it has for another suite.
#[test]
fn the_same_key_under_another_suite_is_another() {
    let mut bench = Bench::new(1, 2);
    let keys = [Profile::AesCm128HmacSha1_80, Profile::AesCm128HmacSha1_32].map(|suite| key(suite, 0x80));
    let with = |number: u8, at: usize| {
        let mut plan = version(number, 0);
        plan.directions[1].open = Some(Protection::Srtp(keys[at].clone()));
        plan
    };
    let [mut long, mut short] =
        keys.clone().map(|theirs| Peer::new(&theirs, &key(Profile::AeadAes128Gcm, TO_AGENT)));
    bench.core.install(with(1, 0), bench.now).unwrap();
    bench.send(paths().rtp, &long.seal(&spoken(1).bytes())).forwarded();
    bench.core.install(with(2, 1), bench.now).unwrap();
    bench.send(paths().rtp, &long.seal(&spoken(2).bytes())).forwarded();
    bench.send(paths().rtp, &short.seal(&spoken(3).bytes())).forwarded();
    bench.elapse(600_000);
    bench.reports();
    bench.send(paths().rtp, &short.seal(&spoken(4).bytes())).forwarded();
}

#[test]
fn a_key_that_comes_back_after_it_was_wiped_opens_nothing_twice() {
    let mut bench = Bench::new(1, 2);
    let mut agents = [0, 1].map(agent);
    bench.core.install(version(1, 0), bench.now).unwrap();
    let heard = agents[0].seal(&spoken(1).bytes());
    bench.send(paths().rtp, &heard).forwarded();
    bench.core.install(version(2, 1), bench.now).unwrap();
    bench.send(paths().rtp, &agents[1].seal(&spoken(2).bytes())).forwarded();
    bench.elapse(1_000_000);
    bench.reports();
    bench.core.install(version(3, 0), bench.now).unwrap();
    assert_eq!(bench.send(paths().rtp, &heard), Out::Drop(Reason::Replay));
    bench.send(paths().rtp, &agents[0].seal(&spoken(3).bytes())).forwarded();
}
