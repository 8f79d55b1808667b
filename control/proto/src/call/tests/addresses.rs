//! Addresses that no media can go to.

use super::{Rig, sdp};
use crate::api::EndCause;
use crate::sip::Method;

const NOWHERE: [&str; 8] = [
    "127.0.0.1",
    "127.8.8.8",
    "224.2.1.1/127",
    "239.255.0.1",
    "255.255.255.255",
    "::1",
    "ff02::1",
    "::ffff:127.0.0.1",
];

fn says(text: &str, expected: &str) {
    assert!(text.contains(expected), "{text}");
}

#[test]
fn an_invite_with_an_address_that_leads_nowhere_is_refused_at_once() {
    for ip in NOWHERE.into_iter().chain(["0.0.0.0", "::"]) {
        let refusal = Rig::incoming(&sdp(ip, "0 101", ""), &[]).err().unwrap();
        assert_eq!(refusal.status, 488, "{ip}");
        says(refusal.header("Warning").next().unwrap(), "399 sallyport \"the inside names");
    }
    let rtcp = sdp("10.0.0.9", "0", "a=rtcp:30001 IN IP4 127.0.0.1\r\n");
    assert_eq!(Rig::incoming(&rtcp, &[]).err().unwrap().status, 488);
}

#[test]
fn an_answer_with_such_an_address_is_acknowledged_and_ended_with_a_reason() {
    for ip in NOWHERE {
        let mut rig = Rig::new();
        rig.reserve();
        rig.ring();
        rig.respond(&Method::Invite, 200, "pbx", &sdp(ip, "0 101", ""), &[]);
        assert_eq!((rig.acks().len(), rig.plans().len()), (1, 0), "{ip}");
        let (_, bye) = rig.requests(&Method::Bye).pop().unwrap();
        says(
            bye.header("Reason").next().unwrap(),
            "SIP;text=\"the inside names an address that no media can go to",
        );
        let failure = rig.failure().unwrap();
        assert!(matches!(failure.cause, EndCause::Protocol(_)));
        says(&failure.text, "loopback, multicast or broadcast");
        rig.respond(&Method::Bye, 200, "pbx", b"", &[]);
        rig.is_over();
    }
    // Early media that leads nowhere is no reason yet.
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 183, "pbx", &sdp("127.0.0.1", "0 101", ""), &[]);
    assert_eq!((rig.answer(), rig.cause()), (None, None));
    rig.pick_up("0 101");
    rig.come_up();
    rig.finish();
}

#[test]
fn who_merely_hangs_up_says_no_reason() {
    let mut rig = Rig::connected();
    rig.put(crate::api::Input::HangUp);
    let (_, bye) = rig.requests(&Method::Bye).pop().unwrap();
    assert_eq!(bye.header("Reason").count(), 0);
    rig.respond(&Method::Bye, 200, "pbx", b"", &[]);
    rig.is_over();
}

#[test]
fn in_the_middle_of_a_call_it_is_refused_and_the_call_goes_on() {
    let mut rig = Rig::connected();
    let before = rig.plans().len();
    for ip in NOWHERE {
        for method in [Method::Invite, Method::Update] {
            let refusal = rig.ask(method, "pbx", &sdp(ip, "0 101", "")).unwrap();
            assert_eq!(refusal.status, 488, "{ip}");
            says(refusal.header("Warning").next().unwrap(), "no media can go to");
        }
    }
    assert_eq!((rig.plans().len(), rig.cause()), (before, None));
    // The answer to an offer of ours cannot be refused any more but by a BYE.
    rig.acknowledges = false;
    assert_eq!(rig.ask(Method::Invite, "pbx", b"").unwrap().status, 200);
    rig.ask(Method::Ack, "pbx", &sdp("127.0.0.1", "0 101", ""));
    let (_, bye) = rig.requests(&Method::Bye).pop().unwrap();
    says(bye.header("Reason").next().unwrap(), "no media can go to");
    rig.respond(&Method::Bye, 200, "pbx", b"", &[]);
    rig.is_over();
}
