//! ICE consent with simulated time (RFC 7675).

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Bench, Out};
use sallyport_core::{CoreEvent, Now, Reason};
use sallyport_plan::{CallId, Consent, IceRole, Plan, Profile, Refusal, Zone};
use sallyport_wire::stun::{self, Class, Message};
use table::world::{self, *};

const GCM: Option<Profile> = Some(Profile::AeadAes128Gcm);
const SECOND: u64 = 1_000_000;

fn bench() -> Bench {
    let mut bench = Bench::new(4, 8);
    bench.core.install(plan_with_consent(GCM, paths()), bench.now).unwrap();
    bench
}

/// Answers as the browser does.
fn answered(check: &[u8]) -> Vec<u8> {
    answer(Message::parse(check).unwrap().transaction_id(), paths().outside.local, REMOTE_PWD)
}

/// Goes from timer to timer until `until`, answering where `answers`; when each check was sent.
fn live(bench: &mut Bench, until: Now, answers: bool) -> Vec<Now> {
    let mut sent = Vec::new();
    while let Some(at) = bench.core.poll_timeout().filter(|at| *at <= until) {
        bench.now = at;
        for (flow, check) in bench.timeout() {
            assert_eq!(flow, paths().outside);
            sent.push(at);
            if answers {
                assert_eq!(bench.send(flow, &answered(&check)), Out::Consumed);
            }
        }
    }
    bench.now = until;
    sent
}

fn media_passes(bench: &mut Bench, sequence: u16) -> [Out; 2] {
    let inward = bench.send(paths().outside, &g711(1, sequence, 0).bytes());
    [inward, bench.send(paths().rtp, &g711(2, sequence, 0).bytes())]
}

#[test]
fn a_check_is_what_rfc_8445_asks_for() {
    let mut bench = bench();
    let sent = bench.timeout();
    let [(flow, bytes)] = sent.as_slice() else { panic!("one check: {sent:?}") };
    assert_eq!(*flow, paths().outside);
    let message = Message::parse(bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, stun::BINDING));
    assert_eq!(message.attribute(stun::USERNAME), Some(b"theirUfrag:ourU".as_slice()));
    assert_eq!(message.attribute(stun::ICE_CONTROLLED), Some(TIE_BREAKER.to_be_bytes().as_slice()));
    assert_eq!(message.attribute(stun::ICE_CONTROLLING), None);
    assert_eq!(message.attribute(stun::USE_CANDIDATE), None);
    let priority = u32::from_be_bytes(message.attribute(stun::PRIORITY).unwrap().try_into().unwrap());
    assert_eq!(priority, (110 << 24) + (65535 << 8) + 255);
    assert_eq!(message.has_right_fingerprint(), Some(true));
    assert!(world::has_integrity(bytes, REMOTE_PWD) && !world::has_integrity(bytes, LOCAL_PWD));
}

#[test]
fn the_controlling_side_says_so_and_meets_conflicts() {
    let mut bench = Bench::new(1, 2);
    let role = IceRole::Controlling(TIE_BREAKER);
    let mut consents = vec![consent(paths().outside)];
    consents[0].role = role;
    bench.core.install(Plan { consents, ..plan(GCM, paths()) }, bench.now).unwrap();
    let (_, bytes) = bench.timeout().remove(0);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.attribute(stun::ICE_CONTROLLING), Some(TIE_BREAKER.to_be_bytes().as_slice()));
    let controlled = Check { role: stun::ICE_CONTROLLED, ..check() };
    assert!(matches!(bench.send(paths().outside, &controlled.bytes()), Out::Reply(_)));
    assert_eq!(bench.send(paths().outside, &check().bytes()), Out::Punt(Some(CallId(1))));
}

#[test]
fn answered_checks_keep_the_pair_alive_for_an_hour() {
    let mut bench = bench();
    let end = bench.now.plus(3600 * SECOND);
    let sent = live(&mut bench, end, true);
    let gaps: Vec<u64> = sent.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| (4 * SECOND..=6 * SECOND).contains(gap)), "{gaps:?}");
    let different: std::collections::BTreeSet<_> = gaps.iter().collect();
    assert!((600..=900).contains(&gaps.len()) && different.len() > gaps.len() / 2, "{} gaps", gaps.len());
    assert_eq!(bench.events(), []);
    assert!(matches!(media_passes(&mut bench, 1)[1], Out::Rtp(..)));
}

#[test]
fn without_answers_consent_lapses_after_thirty_seconds_and_nothing_leaves() {
    let mut bench = bench();
    let begin = bench.now;
    live(&mut bench, begin.plus(30 * SECOND - 1), false);
    assert_eq!(bench.events(), []);
    assert!(matches!(media_passes(&mut bench, 1)[1], Out::Rtp(..)), "until then media passes");
    let sent = live(&mut bench, begin.plus(30 * SECOND), false);
    assert_eq!(sent, [], "at the moment of lapse no check is sent");
    assert_eq!(bench.events(), [CoreEvent::ConsentLost { call: CallId(1), flow: paths().outside }]);
    assert_eq!(media_passes(&mut bench, 2), [Reason::ConsentLost, Reason::ConsentLost].map(Out::Drop));
    let (outside, rtcp) = (paths().outside, paths().rtcp);
    assert_eq!(bench.send(rtcp, &receiver_report(2, &[])), Out::Drop(Reason::ConsentLost));
    assert_eq!(bench.send(outside, &check().bytes()), Out::Drop(Reason::ConsentLost), "no answers either");
    assert_eq!(bench.core.poll_timeout(), None, "no checks either");
    assert_eq!(live(&mut bench, begin.plus(600 * SECOND), false), []);
    // An ICE restart comes with other credentials and is control's.
    let restart = Check { username: Some("next:theirs".into()), ..check() };
    assert_eq!(bench.send(outside, &restart.bytes()), Out::Punt(Some(CallId(1))));
    assert_eq!(bench.events(), []);
}

#[test]
fn a_late_answer_does_not_bring_consent_back_nor_does_a_newer_plan() {
    let mut bench = bench();
    let begin = bench.now;
    let (_, check) = bench.timeout().remove(0);
    live(&mut bench, begin.plus(30 * SECOND), false);
    assert_eq!(bench.events().len(), 1);
    bench.send(paths().outside, &answered(&check));
    assert_eq!(media_passes(&mut bench, 1)[1], Out::Drop(Reason::ConsentLost));
    bench.core.install(Plan { version: 2, ..plan_with_consent(GCM, paths()) }, bench.now).unwrap();
    assert_eq!(media_passes(&mut bench, 2)[1], Out::Drop(Reason::ConsentLost));
    // A restart of ICE on the same pair: consent begins anew.
    let mut consents = vec![consent(paths().outside)];
    consents[0].remote_ufrag = "again".into();
    bench.core.install(Plan { version: 3, consents, ..plan(GCM, paths()) }, bench.now).unwrap();
    assert!(matches!(media_passes(&mut bench, 3)[1], Out::Rtp(..)));
    assert_eq!(bench.timeout().len(), 1);
}

#[test]
fn only_an_authentic_answer_to_a_check_of_ours_counts() {
    let mut bench = bench();
    let begin = bench.now;
    let outside = paths().outside;
    while let Some(at) = bench.core.poll_timeout().filter(|at| *at < begin.plus(30 * SECOND)) {
        bench.now = at;
        for (_, bytes) in bench.timeout() {
            let id = Message::parse(&bytes).unwrap().transaction_id();
            let forged = answer(id, outside.local, LOCAL_PWD);
            assert_eq!(bench.send(outside, &forged), Out::Drop(Reason::StunIntegrity));
            assert!(
                matches!(bench.send(outside, &check().bytes()), Out::Reply(_)),
                "their checks are no answers"
            );
            let foreign = answer(*b"somebody's-x", outside.local, REMOTE_PWD);
            assert_eq!(bench.send(outside, &foreign), Out::Punt(Some(CallId(1))));
        }
    }
    bench.now = begin.plus(30 * SECOND);
    assert_eq!((bench.timeout(), bench.events().len()), (vec![], 1));
}

#[test]
fn an_answer_counts_once() {
    let mut bench = bench();
    let (flow, check) = bench.timeout().remove(0);
    bench.elapse(SECOND);
    assert_eq!(bench.send(flow, &answered(&check)), Out::Consumed);
    bench.elapse(28 * SECOND);
    assert_eq!(bench.send(flow, &answered(&check)), Out::Punt(Some(CallId(1))), "not pending any more");
    bench.elapse(2 * SECOND);
    while bench.core.poll_timeout().is_some_and(|at| at <= bench.now) {
        bench.timeout();
        if !bench.events().is_empty() {
            return;
        }
    }
    panic!("consent outlived its answer by more than 30 s");
}

#[test]
fn a_newer_plan_keeps_the_state_of_a_pair() {
    let mut bench = bench();
    let begin = bench.now;
    live(&mut bench, begin.plus(20 * SECOND), false);
    bench.core.install(Plan { version: 2, ..plan_with_consent(GCM, paths()) }, bench.now).unwrap();
    live(&mut bench, begin.plus(30 * SECOND), false);
    assert_eq!(bench.events().len(), 1, "the 30 s go on over an installation");
}

#[test]
fn a_removed_call_is_silent() {
    let mut bench = bench();
    bench.timeout();
    bench.core.remove(CallId(1), bench.now).unwrap();
    let begin = bench.now;
    assert_eq!(live(&mut bench, begin.plus(100 * SECOND), true), []);
    assert_eq!((bench.events(), bench.core.poll_timeout()), (vec![], None));
}

#[test]
fn many_lapses_at_once_are_all_told() {
    let mut bench = Bench::new(500, 1000);
    for n in 0..500u16 {
        let mut paths = paths();
        for flow in [&mut paths.outside, &mut paths.rtp, &mut paths.rtcp] {
            flow.remote
                .set_port(1000 + 2 * n + u16::from(flow.remote.port() % 2 == 1 && flow.zone == Zone::Inside));
        }
        let plan = Plan { call: CallId(n.into()), ..plan_with_consent(None, paths) };
        bench.core.install(plan, bench.now).unwrap();
    }
    bench.elapse(31 * SECOND);
    let mut lost = std::collections::BTreeSet::new();
    while bench.core.poll_timeout().is_some_and(|at| at <= bench.now) {
        assert_eq!(bench.timeout(), []);
        let events = bench.events();
        assert!(!events.is_empty());
        lost.extend(events.into_iter().filter_map(|event| match event {
            CoreEvent::ConsentLost { call, .. } => Some(call),
            CoreEvent::Digit { .. } | CoreEvent::Picture { .. } | CoreEvent::Source { .. } => None,
        }));
    }
    assert_eq!(lost.len(), 500);
}

#[test]
fn credentials_that_ice_does_not_know_are_refused() {
    let refused = |change: &dyn Fn(&mut Consent)| {
        let mut bench = Bench::new(1, 2);
        let mut wanted = consent(paths().outside);
        change(&mut wanted);
        let outcome = bench.core.install(Plan { consents: vec![wanted], ..plan(GCM, paths()) }, bench.now);
        assert_eq!(bench.core.directions(), if outcome.is_ok() { 2 } else { 0 });
        outcome.err()
    };
    assert_eq!(refused(&|_| {}), None);
    assert_eq!(refused(&|consent| consent.local_ufrag = "abc".into()), Some(Refusal::Malformed));
    assert_eq!(refused(&|consent| consent.remote_ufrag = "x".repeat(257)), Some(Refusal::Malformed));
    assert_eq!(refused(&|consent| consent.local_pwd = "x".repeat(21)), Some(Refusal::Malformed));
    assert_eq!(refused(&|consent| consent.remote_pwd = String::new()), Some(Refusal::Malformed));
    assert_eq!(refused(&|consent| consent.flow = stranger()), Some(Refusal::Malformed));
    let mut bench = Bench::new(1, 2);
    let consents = vec![consent(paths().outside), consent(paths().outside)];
    assert_eq!(
        bench.core.install(Plan { consents, ..plan(GCM, paths()) }, bench.now),
        Err(Refusal::Malformed)
    );
}

#[test]
fn the_longest_credentials_fit_into_a_check() {
    let mut bench = Bench::new(1, 2);
    let ufrag = "u".repeat(256);
    let mut consents = vec![consent(paths().outside)];
    consents[0].local_ufrag = ufrag.clone();
    consents[0].remote_ufrag = ufrag;
    consents[0].remote_pwd = "p".repeat(256);
    bench.core.install(Plan { consents, ..plan(GCM, paths()) }, bench.now).unwrap();
    assert_eq!(bench.timeout().len(), 1);
}
