//! Whole calls: a browser, the relay, an agent or another browser. Each end opens and checks all that it gets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Bench, Out};
use sallyport_core::{CoreEvent, Digit, Reason};
use sallyport_plan::{CallId, Digits, Mute, Plan, Profile, Protection};
use table::world::*;

const PROFILES: [Profile; 2] = [Profile::AesCm128HmacSha1_80, Profile::AeadAes128Gcm];
const BROWSER: u32 = 0xb0b0_0001;
const AGENT: u32 = 0xa9e2_0002;

fn browser(profile: Profile) -> Peer {
    Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER))
}

fn agent(profile: Profile) -> Peer {
    Peer::new(&key(profile, FROM_AGENT), &key(profile, TO_AGENT))
}

fn sequence_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

/// Longer than the sequence numbers of both sides, from just below their end.
#[test]
fn a_call_of_70_000_packets_each_way() {
    for profile in PROFILES {
        let mut bench = Bench::new(1, 2);
        bench.core.install(plan(Some(profile), paths()), bench.now).unwrap();
        let mut browser = browser(profile);
        for n in 0..70_000u32 {
            bench.elapse(20_000);
            let (sequence, timestamp) = ((30_000 + n) as u16, 160 * n);
            let spoken = g711(BROWSER, sequence, timestamp);
            let heard = bench.send(paths().outside, &browser.seal(&spoken.bytes())).forwarded();
            let expected = spoken.leaves(INSIDE_SSRC, (u32::from(INWARD_START) + n) as u16, timestamp);
            assert_eq!(heard, expected.bytes());
            let spoken = g711(AGENT, sequence, timestamp);
            let heard = browser.open(&bench.send(paths().rtp, &spoken.bytes()).forwarded());
            let expected = spoken.leaves(OUTSIDE_SSRC, (u32::from(OUTWARD_START) + n) as u16, timestamp);
            assert_eq!(heard, expected.bytes());
        }
        for index in [0, 1] {
            let report = bench.report(index);
            assert_eq!((report.packets, report.octets, report.lost), (70_000, 70_000 * 16, 0));
            assert_eq!(report.drops, []);
        }
    }
}

/// Browser to browser: SRTP on both legs, each under its own profile, losses and reordering on both.
#[test]
fn two_browsers_hear_each_other() {
    for (outside, inside) in [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(a, b)| (PROFILES[a], PROFILES[b])) {
        let mut plan = plan(Some(outside), paths());
        plan.directions[0].seal = Some(Protection::Srtp(key(inside, TO_AGENT)));
        plan.directions[1].open = Some(Protection::Srtp(key(inside, FROM_AGENT)));
        let mut bench = Bench::new(1, 2);
        bench.core.install(plan, bench.now).unwrap();
        let (mut browser, mut agent) = (browser(outside), agent(inside));
        for block in (0..3000u16).step_by(4) {
            // One in five is lost, two change places.
            for n in [block + 1, block, block + 3, block + 2].into_iter().filter(|n| n % 5 != 0) {
                let (sequence, timestamp) = (n + 100, 960 * u32::from(n));
                let spoken = Rtp { payload_type: 111, ..g711(BROWSER, sequence, timestamp) };
                let heard =
                    agent.open(&bench.send(paths().outside, &browser.seal(&spoken.bytes())).forwarded());
                let expected = spoken.leaves(INSIDE_SSRC, INWARD_START + n - 1, timestamp);
                assert_eq!(heard, Rtp { payload_type: 96, ..expected }.bytes());
                let spoken = Rtp { payload_type: 96, ..g711(AGENT, sequence, timestamp) };
                let heard = browser.open(&bench.send(paths().rtp, &agent.seal(&spoken.bytes())).forwarded());
                let expected = spoken.leaves(OUTSIDE_SSRC, OUTWARD_START + n - 1, timestamp);
                assert_eq!(heard, Rtp { payload_type: 111, ..expected }.bytes());
            }
        }
        let report =
            receiver_report(9, &[Block { ssrc: OUTSIDE_SSRC, highest: u32::from(OUTWARD_START) + 50 }]);
        let heard = agent.open_rtcp(&bench.send(paths().outside, &browser.seal_rtcp(&report)).forwarded());
        let back = Block { ssrc: AGENT, highest: 151 };
        let tail = description(INSIDE_SSRC, "11110001");
        assert_eq!(heard, [receiver_report(INSIDE_SSRC, &[back]), tail].concat());
        let report =
            sender_report(AGENT, 77, &[Block { ssrc: INSIDE_SSRC, highest: u32::from(INWARD_START) }]);
        let heard = browser.open_rtcp(&bench.send(paths().rtcp, &agent.seal_rtcp(&report)).forwarded());
        let back = Block { ssrc: BROWSER, highest: 101 };
        let tail = description(OUTSIDE_SSRC, "22220002");
        let packets = bench.report(1).packets as u32;
        assert_eq!(heard, [counted(sender_report(OUTSIDE_SSRC, 77, &[back]), packets), tail].concat());
    }
}

/// The trap of "no audio after hold": the agent's device keeps its SSRC and starts its sequence anew, or comes back as another
/// source, or goes on, at every point around both ends of the sequence space. The browser's SRTP never rejects a packet.
#[test]
fn hold_at_every_point_never_silences_the_browser() {
    for profile in PROFILES {
        let mut bench = Bench::new(1, 2);
        let held = |version: u32, mute: Mute| {
            let mut plan = Plan { version, ..plan(Some(profile), paths()) };
            plan.directions[1].mute = mute;
            plan
        };
        bench.core.install(held(1, Mute::Open), bench.now).unwrap();
        let mut browser = browser(profile);
        let (mut version, mut last) = (1, OUTWARD_START - 1);
        let (mut ssrc, mut sequence) = (AGENT, 65_400u16);
        for round in 0..1200u32 {
            version += 2;
            for n in 0..(round % 7 + 1) {
                bench.elapse(20_000);
                let spoken = g711(ssrc, sequence, n).bytes();
                let heard = browser.open(&bench.send(paths().rtp, &spoken).forwarded());
                assert_eq!(sequence_of(&heard), last.wrapping_add(1), "round {round}");
                assert_eq!(heard[12..], spoken[12..]);
                last = sequence_of(&heard);
                sequence = sequence.wrapping_add(1);
            }
            bench.core.install(held(version, Mute::Held), bench.now).unwrap();
            if round % 2 == 0 {
                let music = bench.send(paths().rtp, &g711(ssrc, sequence, 0).bytes());
                assert_eq!(music, Out::Drop(Reason::Held));
                sequence = sequence.wrapping_add(1);
            }
            bench.core.install(held(version + 1, Mute::Open), bench.now).unwrap();
            match round % 4 {
                0 => {}
                1 => sequence = sequence.wrapping_sub(30_000),
                2 => ssrc += 1,
                _ => (ssrc, sequence) = (ssrc + 1, sequence.wrapping_add(40_000)),
            }
        }
        assert_eq!(bench.report(1).lost, 0);
    }
}

/// Control is told of each digit once, of so many as a peer may, and of none while nobody asked.
#[test]
fn digits_are_told_once_each() {
    for (digits, told) in [(Digits::Pass, 0), (Digits::Tell, 3), (Digits::PassAndTell, 3)] {
        let mut bench = Bench::new(1, 2);
        let profile = Profile::AeadAes128Gcm;
        let mut plan = plan(Some(profile), paths());
        plan.directions[0].digits = digits;
        bench.core.install(plan, bench.now).unwrap();
        let mut browser = browser(profile);
        let mut sequence = 0;
        let mut events = Vec::new();
        for code in [1, 11, 1] {
            for (duration, end) in [(960u16, false), (1920, false), (4800, true), (4800, true), (4800, true)]
            {
                bench.elapse(20_000);
                let [high, low] = duration.to_be_bytes();
                let payload = vec![code, if end { 0x8a } else { 10 }, high, low];
                let timestamp = 1000 * (u32::from(sequence) / 5);
                let event = Rtp { payload_type: 110, payload, ..g711(BROWSER, sequence, timestamp) };
                let out = bench.send(paths().outside, &browser.seal(&event.bytes()));
                assert_eq!(out == Out::Heard, digits == Digits::Tell, "{out:?}");
                sequence += 1;
            }
            events.extend(bench.events());
        }
        let digit = |event| CoreEvent::Digit {
            call: CallId(1),
            direction: INWARD,
            digit: Digit { event, duration: 100 },
        };
        assert_eq!(events, [1, 11, 1].map(digit)[..told]);
        assert_eq!((bench.counter("digit_lost"), bench.counter("continuity_broken")), (0, 0));
    }
}

#[test]
fn a_flood_of_digits_is_bounded_and_counted() {
    let mut bench = Bench::new(1, 2);
    let profile = Profile::AeadAes128Gcm;
    let mut plan = plan(Some(profile), paths());
    plan.directions[0].digits = Digits::Tell;
    bench.core.install(plan, bench.now).unwrap();
    let mut browser = browser(profile);
    for sequence in 0..500 {
        let event = Rtp {
            payload_type: 126,
            payload: vec![1, 0x8a, 0, 80],
            ..g711(BROWSER, sequence, 160 * u32::from(sequence))
        };
        assert_eq!(bench.send(paths().outside, &browser.seal(&event.bytes())), Out::Heard);
    }
    assert_eq!((bench.events().len(), bench.counter("digit_lost")), (64, 436));
}

/// Far ends alternate on one flow, as when music and agent overlap: every packet is another source's.
#[test]
fn sources_that_take_turns_are_one_stream() {
    let profile = Profile::AeadAes128Gcm;
    let mut bench = Bench::new(1, 2);
    bench.core.install(plan(Some(profile), paths()), bench.now).unwrap();
    let mut browser = browser(profile);
    for n in 0..2000u16 {
        bench.elapse(10_000);
        let spoken = g711(u32::from(n % 3), n.wrapping_mul(33_333), u32::from(n) << 20).bytes();
        let heard = browser.open(&bench.send(paths().rtp, &spoken).forwarded());
        assert_eq!(sequence_of(&heard), OUTWARD_START + n);
        let timestamp = u32::from_be_bytes(heard[4..8].try_into().unwrap());
        assert_eq!(timestamp, 80 * u32::from(n), "10 ms at 8 kHz each");
    }
}

/// New keys in the middle of the call, many times: each end follows from the packet after the change.
#[test]
fn a_call_lives_through_many_handshakes() {
    let mut bench = Bench::new(1, 2);
    let mut last = None;
    for version in 1..=60u8 {
        let profile = PROFILES[usize::from(version % 2)];
        let mut plan = Plan { version: version.into(), ..plan(Some(profile), paths()) };
        plan.directions[0].open = Some(Protection::Srtp(key(profile, 2 * version)));
        plan.directions[1].seal = Some(Protection::Srtp(key(profile, 2 * version + 1)));
        bench.core.install(plan, bench.now).unwrap();
        let mut browser = Peer::new(&key(profile, 2 * version), &key(profile, 2 * version + 1));
        for n in 0..40u16 {
            let sequence = u16::from(version) * 40 + n;
            let spoken = g711(BROWSER, sequence, 0);
            bench.send(paths().outside, &browser.seal(&spoken.bytes())).forwarded();
            let heard = browser.open(&bench.send(paths().rtp, &g711(AGENT, sequence, 0).bytes()).forwarded());
            assert!(last.is_none_or(|last: u16| sequence_of(&heard) == last + 1));
            last = Some(sequence_of(&heard));
        }
    }
}

/// A telephone that changes its key by a re-INVITE, suite and all: what it sent under the former one is counted, the browser
/// hears on under sequence numbers that go on, and so does the telephone under the other key of ours.
#[test]
fn keys_inside_change_in_mid_call_without_a_gap() {
    let suites = [Profile::AesCm128HmacSha1_80, Profile::AesCm128HmacSha1_32, Profile::AeadAes128Gcm];
    let (mut bench, mut browser) = (Bench::new(1, 2), browser(Profile::AeadAes128Gcm));
    let mut former: Option<Peer> = None;
    let (mut inward, mut outward) = (INWARD_START, OUTWARD_START);
    for version in 1..=9u8 {
        let suite = suites[usize::from(version) % 3];
        let (theirs, ours) = (key(suite, 0x50 + version), key(suite, 0x80 + version));
        let mut next = Plan { version: version.into(), ..plan(Some(Profile::AeadAes128Gcm), paths()) };
        next.directions[0].seal = Some(Protection::Srtp(ours.clone()));
        next.directions[1].open = Some(Protection::Srtp(theirs.clone()));
        bench.core.install(next, bench.now).unwrap();
        let mut agent = Peer::new(&theirs, &ours);
        let first = 100 * u16::from(version);
        if let Some(mut former) = former.take() {
            let spoken = g711(AGENT, first - 1, 160 * u32::from(first - 1));
            let out = bench.send(paths().rtp, &former.seal(&spoken.bytes()));
            let heard = browser.open(&out.forwarded());
            assert_eq!((sequence_of(&heard), &heard[12..]), (outward - 1, &spoken.payload[..]), "under way");
        }
        for sequence in first..first + 50 {
            bench.elapse(20_000);
            let timestamp = 160 * u32::from(sequence);
            let spoken = g711(BROWSER, sequence, timestamp);
            let out = bench.send(paths().outside, &browser.seal(&spoken.bytes()));
            let heard = agent.open(&out.forwarded());
            assert_eq!(
                (sequence_of(&heard), heard[8..12].to_vec()),
                (inward, INSIDE_SSRC.to_be_bytes().into())
            );
            let out = bench.send(paths().rtp, &agent.seal(&g711(AGENT, sequence, timestamp).bytes()));
            let heard = browser.open(&out.forwarded());
            assert_eq!(sequence_of(&heard), outward);
            assert_eq!(heard[8..12], OUTSIDE_SSRC.to_be_bytes());
            (inward, outward) = (inward + 1, outward + 1);
        }
        // Fifty are lost on both ways before the next key.
        (inward, outward) = (inward + 50, outward + 50);
        former = Some(agent);
    }
    let report = bench.report(1);
    assert_eq!((report.packets, report.drops), (458, vec![]));
}
