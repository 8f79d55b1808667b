//! The case table, played by the core.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod table;

use std::collections::BTreeMap;

use sallyport_core::{Limits, Now, Payload, Translator, Verdict};
use sallyport_plan::{CallId, DirectionReport, FlowKey, Quality};
use sallyport_wire::PacketBuf;
use table::world::{HEAD, TAIL};
use table::{Case, Datagram, Expect, STEP, Step};

/// Everything that a packet may move.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Numbers {
    worker: BTreeMap<&'static str, u64>,
    reports: Vec<DirectionReport>,
}

fn numbers(translator: &Translator) -> Numbers {
    let mut reports = translator.report(CallId(1)).unwrap();
    // What it is worth is compared with a model elsewhere.
    reports.iter_mut().for_each(|report| report.quality = Quality::default());
    // Packets that a compound asks for are no packets that came: resend.rs looks after those.
    let counters = translator.counters().filter(|(name, _)| *name != "nack_forwarded");
    Numbers { worker: counters.collect(), reports }
}

/// What the numbers must be behind a packet.
fn expected(mut numbers: Numbers, datagram: &Datagram) -> Numbers {
    let Datagram { expect, moves, .. } = datagram;
    *numbers.worker.get_mut(expect.counter()).unwrap() += 1;
    let Some(direction) = moves.direction else { return numbers };
    let report = numbers.reports.iter_mut().find(|report| report.index == direction).unwrap();
    report.packets += moves.packets;
    report.octets += moves.octets;
    report.lost += moves.lost;
    if let Expect::Drop(reason) = expect {
        let all = sallyport_core::Reason::ALL;
        let order = |name: &str| all.iter().position(|reason| reason.name() == name);
        match report.drops.iter_mut().find(|drop| drop.name == reason.name()) {
            Some(drop) => drop.value += 1,
            None => report.drops.push(sallyport_plan::Counter { name: reason.name().into(), value: 1 }),
        }
        report.drops.sort_by_key(|drop| order(&drop.name));
    }
    numbers
}

fn play(translator: &mut Translator, from: FlowKey, bytes: &[u8], now: Now) -> (Expect, Vec<u8>) {
    let mut room = [vec![0xEE; HEAD], bytes.to_vec(), vec![0xEE; TAIL]].concat();
    let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
    let verdict = match translator.lookup(&from) {
        Some(tag) => translator.translate(tag, &from, &mut buf, now),
        None => translator.unknown(&from, &mut buf, now),
    };
    let out = buf.packet().to_vec();
    let seen = match verdict {
        Verdict::Forward(cleared) => {
            let rtcp = cleared.payload() == Payload::Rtcp;
            Expect::Forward { to: *cleared.egress(), rtcp, bytes: out.clone() }
        }
        Verdict::Reply(to) => {
            assert_eq!(to, from, "answers go back");
            Expect::Reply(out.clone())
        }
        Verdict::Consumed => Expect::Consumed,
        Verdict::Heard => Expect::Heard,
        Verdict::Answered => Expect::Answered,
        Verdict::Punt(call) => {
            assert_eq!(out, bytes, "a punt leaves the bytes as they came");
            Expect::Punt { known: call == Some(CallId(1)) }
        }
        Verdict::Drop(reason) => Expect::Drop(reason),
    };
    (seen, out)
}

fn run(case: Case) -> usize {
    let mut translator = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
    let mut now = Now(1_000_000);
    translator.install(case.plan, now).unwrap();
    let count = case.steps.len();
    for (at, step) in case.steps.into_iter().enumerate() {
        now = now.plus(STEP);
        match step {
            Step::Install(plan) => {
                translator.install(plan, now).unwrap();
            }
            Step::Packet(datagram) => {
                let before = numbers(&translator);
                let (seen, _) = play(&mut translator, datagram.from, &datagram.bytes, now);
                assert_eq!(seen, datagram.expect, "{}: step {at}", case.name);
                assert_eq!(numbers(&translator), expected(before, &datagram), "{}: step {at}", case.name);
            }
        }
    }
    count
}

#[test]
fn every_case_ends_as_the_table_says() {
    let mut steps = 0;
    let mut names = Vec::new();
    for case in table::cases() {
        names.push(case.name);
        steps += run(case);
    }
    assert!(names.len() >= 27 && steps >= 180, "{} cases, {steps} steps", names.len());
}
