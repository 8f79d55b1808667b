//! A relay that goes and comes, and a control that does.

use std::time::Duration;

use sallyport_plan::Plan;

use super::{Rig, sdp, settings};
use crate::Call;
use crate::api::{CallEvent, CallState, Command, EndCause, Input};
use crate::error::RestoreError;
use crate::random::Seed;
use crate::sip::Method;

const GRACE: Duration = Duration::from_secs(30);

fn disobedient() -> Rig {
    Rig { obedient: false, ..Rig::connected() }
}

#[test]
fn a_relay_that_stays_away_ends_the_call_after_a_while() {
    let mut rig = disobedient();
    rig.put(Input::RelayAway);
    rig.wait(GRACE - Duration::from_secs(1));
    rig.put(Input::RelayAway);
    assert!(rig.call.waits_for_relay());
    assert_eq!(rig.cause(), None, "it may come back");
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.cause(), Some(EndCause::RelayLost));
    assert_eq!(rig.requests(&Method::Bye).len(), 1);
    rig.is_over();
}

#[test]
fn a_relay_that_comes_back_gets_what_it_missed() {
    let mut rig = disobedient();
    let plan = rig.plans().pop().unwrap();
    rig.put(Input::RelayAway);
    assert_eq!(rig.ask(Method::Invite, "pbx", &sdp("10.0.0.9", "0", "")).unwrap().status, 200);
    assert_eq!(rig.plans().len(), 2, "nobody is there to be told");
    rig.put(Input::RelayBack(plan.version));
    let newer = rig.plans().pop().unwrap();
    assert_eq!(newer.directions[0].rtp.remote.to_string(), "10.0.0.9:30000");
    assert!(newer.version > plan.version);
    rig.installed();
    rig.wait(GRACE * 2);
    assert_eq!(rig.cause(), None);
    rig.finish();
}

#[test]
fn a_plan_that_was_on_its_way_may_have_arrived_or_not() {
    for arrived in [true, false] {
        let mut rig = disobedient();
        rig.ask(Method::Invite, "pbx", &sdp("10.0.0.9", "0", ""));
        let sent = rig.plans().pop().unwrap().version;
        rig.put(Input::RelayAway);
        rig.put(Input::RelayBack(if arrived { sent } else { sent - 1 }));
        let last = rig.plans().pop().unwrap().version;
        assert_eq!(last, if arrived { sent } else { sent + 1 });
        if !arrived {
            rig.installed();
        }
        rig.wait(GRACE);
        assert_eq!(rig.cause(), None);
        rig.finish();
    }
}

#[test]
fn what_is_not_installed_is_lost_with_the_relay_at_once() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.ring();
    rig.put(Input::RelayAway);
    assert_eq!(rig.failure().map(|failure| failure.cause), Some(EndCause::RelayLost));
    assert_eq!(rig.cancels(), 1);
    rig.is_over();
}

#[test]
fn consent_that_lapsed_ends_the_call() {
    let mut rig = disobedient();
    let flow = rig.plans()[0].consents[0].flow;
    let other = sallyport_plan::FlowKey { remote: super::address("203.0.113.9:9"), ..flow };
    rig.put(Input::ConsentLost(other));
    assert_eq!(rig.cause(), None);
    rig.put(Input::ConsentLost(flow));
    assert_eq!(rig.cause(), Some(EndCause::ConsentLost));
    rig.is_over();
}

#[test]
fn another_control_goes_on_with_the_call_and_its_past() {
    let rig = disobedient();
    let plan = rig.plans().pop().unwrap();
    let mut next = Rig::restored(&plan, rig.now);
    assert_eq!(next.call.view().state, CallState::Connected);
    assert!(next.call.outlives_control());
    assert_eq!(next.call.past(), [CallEvent::Ringing, CallEvent::Answered, CallEvent::Connected]);
    let answer = next.ask(Method::Invite, "pbx", &sdp("0.0.0.0", "8 0 101", "")).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(next.plans().pop().unwrap().version, plan.version + 1);
    next.installed();
    let flow = plan.consents[0].flow;
    next.put(Input::ConsentLost(flow));
    assert_eq!(next.requests(&Method::Bye).len(), 1);
    next.is_over();
    rig.finish();
}

/// Answered, a pair nominated, the handshake under way.
fn without_keys() -> (Rig, Plan) {
    let mut rig = Rig::new();
    rig.reserve();
    rig.ring();
    rig.pick_up("0");
    rig.connect();
    rig.installed();
    let plan = rig.plans().pop().unwrap();
    (rig, plan)
}

#[test]
fn a_call_that_was_answered_but_has_no_keys_comes_back_to_end() {
    let (rig, plan) = without_keys();
    assert!(!rig.call.outlives_control());
    let mut next = Rig::restored(&plan, rig.now);
    assert_eq!(next.cause(), Some(EndCause::Restarted));
    let (_, bye) = next.requests(&Method::Bye).pop().unwrap();
    assert!(bye.to.ends_with(";tag=pbx"));
    assert_eq!((bye.uri.as_str(), bye.cseq), ("sip:agent@10.0.0.5", 2));
    assert_eq!(next.removes(), 1);
    next.is_over();
    rig.finish();
    let rig = disobedient();
    let mut strange = rig.plans().pop().unwrap();
    strange.consents.clear();
    let mut next = Rig::restored(&strange, rig.now);
    assert_eq!(next.cause(), Some(EndCause::Restarted), "nor can a plan that makes no sense go on");
    next.is_over();
    rig.finish();
}

#[test]
fn a_call_that_was_answered_before_any_pair_comes_back_to_say_bye() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.ring();
    assert_eq!(rig.record(), None, "nobody is told BYE who has not answered");
    rig.pick_up("0");
    let plan = rig.record().unwrap();
    let mut next = Rig::restored(&plan, rig.now);
    assert_eq!(next.cause(), Some(EndCause::Restarted));
    let (_, bye) = next.requests(&Method::Bye).pop().unwrap();
    assert!(bye.to.ends_with(";tag=pbx"));
    assert_eq!((bye.uri.as_str(), bye.cseq), ("sip:agent@10.0.0.5", 2));
    assert_eq!(next.removes(), 1);
    next.is_over();
    // The pair that comes later is the next version.
    rig.connect();
    assert_eq!(rig.plans().pop().unwrap().version, plan.version + 1);
    rig.finish();
}

#[test]
fn a_relay_that_goes_before_any_pair_takes_the_ports_along() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.pick_up("0");
    assert!(rig.record().is_some());
    rig.put(Input::RelayAway);
    assert_eq!(rig.cause(), Some(EndCause::RelayLost));
    assert_eq!(rig.requests(&Method::Bye).len(), 1);
    rig.is_over();
}

#[test]
fn a_record_that_cannot_be_read_is_no_call() {
    let (rig, plan) = without_keys();
    let restore = |record: Vec<u8>| {
        let plan = Plan { record, ..plan.clone() };
        Call::restore(&plan, settings(""), Seed([1; 32]), rig.now).map(|_| ())
    };
    assert_eq!(restore(Vec::new()), Err(RestoreError::Malformed));
    assert_eq!(restore(vec![99, 1, 2]), Err(RestoreError::Version));
    let mut cut = plan.record.clone();
    cut.truncate(cut.len() / 2);
    assert_eq!(restore(cut), Err(RestoreError::Malformed));
    rig.finish();
    let mut early = Rig::new();
    early.reserve();
    early.respond(&Method::Invite, 183, "pbx", &sdp("10.0.0.5", "0", ""), &[]);
    early.connect();
    let plan = early.plans().pop().unwrap();
    let restored = Call::restore(&plan, settings(""), Seed([1; 32]), early.now).map(|_| ());
    assert_eq!(restored, Err(RestoreError::Contradiction), "not answered: nobody can follow its INVITE");
    assert!(early.done.iter().any(|command| matches!(command, Command::Dtls(_))));
    early.finish();
}
