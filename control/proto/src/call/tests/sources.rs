//! Telephony that turns out to send from another port than it signalled.

use std::sync::Arc;

use sallyport_plan::{FlowKey, Plan, Zone};

use super::video::H264;
use super::{Rig, address, sdp, settings};
use crate::api::Input;
use crate::settings::Settings;
use crate::sip::Method;

fn last(rig: &Rig) -> Plan {
    rig.plans().pop().unwrap()
}

/// The path of what goes inside, and the two by which it comes from there.
fn paths(plan: &Plan) -> [FlowKey; 3] {
    [plan.directions[0].rtp, plan.directions[1].ingress[0], plan.directions[1].ingress[1]]
}

fn from(flow: FlowKey, remote: &str) -> FlowKey {
    FlowKey { remote: address(remote), ..flow }
}

#[test]
fn it_is_heard_and_sent_to_there_as_long_as_it_signals_the_same() {
    let mut rig = Rig::connected();
    let before = last(&rig);
    let [rtp, _, rtcp] = paths(&before);
    assert_eq!((before.directions[0].learns, before.directions[1].learns), (false, true));
    rig.put(Input::Source(from(rtp, "10.0.0.5:40000")));
    let plan = last(&rig);
    let moved = from(rtp, "10.0.0.5:40000");
    assert_eq!((paths(&plan), plan.version), ([moved, moved, rtcp], before.version + 1));
    assert_eq!(plan.directions[0].rtcp, rtcp, "its RTCP was not heard elsewhere");
    rig.put(Input::Source(from(rtcp, "10.0.0.5:40001")));
    assert_eq!(last(&rig).directions[0].rtcp, from(rtcp, "10.0.0.5:40001"));
    // What is known is no news; other addresses, ports and sides are none of its.
    let plans = rig.plans().len();
    let outside = FlowKey { zone: Zone::Outside, ..moved };
    for flow in [moved, from(rtp, "10.0.0.6:40000"), from(rtp, "10.0.0.5:0"), outside] {
        rig.put(Input::Source(flow));
    }
    let elsewhere = FlowKey { local: address("10.0.0.1:20300"), ..moved };
    rig.put(Input::Source(elsewhere));
    assert_eq!(rig.plans().len(), plans);
    // A re-INVITE that says the same changes nothing of that, one that says something else does.
    rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", "a=sendonly\r\n")).unwrap();
    assert_eq!(paths(&last(&rig))[1], moved);
    // Over a new control as well.
    let mut next = Rig::restored(&last(&rig), rig.now);
    next.obedient = true;
    next.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", "")).unwrap();
    assert_eq!(paths(&last(&next))[..2], [moved, moved]);
    next.ask(Method::Invite, "pbx", &sdp("10.0.0.7", "0 101", "")).unwrap();
    assert_eq!(paths(&last(&next))[1].remote.ip(), address("10.0.0.7:1").ip());
    assert_eq!(paths(&last(&next))[1].remote.port(), rtp.remote.port());
    // It has forgotten by then where the former one was.
    next.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", "")).unwrap();
    assert_eq!(paths(&last(&next)), [rtp, rtp, rtcp]);
}

#[test]
fn it_may_come_back_to_the_port_that_it_signalled() {
    let mut rig = Rig::connected();
    let signalled = paths(&last(&rig));
    rig.put(Input::Source(from(signalled[0], "10.0.0.5:40000")));
    rig.put(Input::Source(from(signalled[0], "10.0.0.5:40002")));
    assert_eq!(paths(&last(&rig))[0].remote, address("10.0.0.5:40002"));
    rig.put(Input::Source(signalled[0]));
    assert_eq!(paths(&last(&rig)), signalled);
    rig.finish();
}

#[test]
fn pictures_are_heard_so_as_well() {
    let mut rig = Rig::connected();
    rig.adds_a_picture();
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0 101", H264), &[]);
    let plan = last(&rig);
    let [sound, _, _] = paths(&plan);
    let film = plan.directions[2].rtp;
    assert_eq!(plan.directions.iter().map(|one| one.learns).collect::<Vec<_>>(), [false, true, false, true]);
    rig.put(Input::Source(from(film, "10.0.0.5:40002")));
    let plan = last(&rig);
    assert_eq!(plan.directions[2].rtp.remote, address("10.0.0.5:40002"));
    assert_eq!((plan.directions[3].ingress[0], paths(&plan)[0]), (plan.directions[2].rtp, sound));
    rig.finish();
}

#[test]
fn who_is_strict_hears_what_was_signalled() {
    let mut strict = Settings::clone(&settings("secret"));
    strict.sip.policy.strict_source = true;
    let mut rig = Rig::with(Arc::new(strict), "");
    rig.reserve();
    rig.ring();
    rig.pick_up("0 101");
    rig.come_up();
    let plan = last(&rig);
    assert!(plan.directions.iter().all(|direction| !direction.learns));
    rig.put(Input::Source(from(paths(&plan)[0], "10.0.0.5:40000")));
    assert_eq!(last(&rig), plan);
    rig.finish();
}
