//! Within the dialog: holds, moves, refreshes.

use sallyport_plan::Mute;

use super::{Rig, sdp};
use crate::api::{EndCause, Input};
use crate::sdp::Kind;
use crate::sip::Method;

fn status(rig: &mut Rig, method: Method, body: &[u8]) -> u16 {
    rig.ask(method, "pbx", body).unwrap().status
}

fn kinds(rig: &Rig) -> Vec<Kind> {
    rig.call.inside.chosen.iter().map(|codec| codec.kind).collect()
}

#[test]
fn codecs_in_another_order_keep_the_running_one() {
    let mut rig = Rig::connected();
    assert_eq!(kinds(&rig), [Kind::Pcmu, Kind::Pcma, Kind::Event8000]);
    let answer = rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "8 0 101", "")).unwrap();
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8(answer.body).unwrap().contains("RTP/AVP 0 8 101\r\n"));
    assert_eq!(rig.cause(), None);
    assert_eq!(kinds(&rig), [Kind::Pcmu, Kind::Pcma, Kind::Event8000]);
    rig.installed();
    rig.finish();
}

#[test]
fn an_offer_without_the_running_codec_is_refused_and_the_call_goes_on() {
    let mut rig = Rig::connected();
    let plans = rig.plans().len();
    for formats in ["8 101", "18", "107"] {
        assert_eq!(status(&mut rig, Method::Invite, &sdp("10.0.0.5", formats, "")), 488, "{formats}");
        assert_eq!(status(&mut rig, Method::Update, &sdp("10.0.0.5", formats, "")), 488, "{formats}");
    }
    assert_eq!(status(&mut rig, Method::Invite, b"garbage"), 488);
    assert_eq!((rig.cause(), rig.plans().len()), (None, plans));
    rig.finish();
}

#[test]
fn fewer_codecs_may_become_more_again() {
    let mut rig = Rig::connected();
    assert_eq!(status(&mut rig, Method::Invite, &sdp("10.0.0.5", "0", "")), 200);
    assert_eq!(kinds(&rig), [Kind::Pcmu, Kind::Event8000], "events end in the relay");
    rig.installed();
    assert_eq!(status(&mut rig, Method::Invite, &sdp("10.0.0.5", "8 0 101", "")), 200);
    assert_eq!(kinds(&rig), [Kind::Pcmu, Kind::Pcma, Kind::Event8000]);
    rig.installed();
    rig.finish();
}

#[test]
fn a_hold_without_an_address_keeps_the_former_one() {
    let mut rig = Rig::connected();
    let before = rig.plans().pop().unwrap();
    let answer = rig.ask(Method::Invite, "pbx", &sdp("0.0.0.0", "0 101", "a=sendrecv\r\n")).unwrap();
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8(answer.body).unwrap().contains("a=inactive\r\n"));
    let held = rig.plans().pop().unwrap();
    assert_eq!(held.version, before.version + 1);
    for (now, then) in held.directions.iter().zip(&before.directions) {
        assert_eq!((now.rtp, now.rtcp, &now.ingress), (then.rtp, then.rtcp, &then.ingress));
        assert_eq!((now.mute, then.mute), (Mute::Held, Mute::Open));
    }
    rig.installed();
    assert_eq!(status(&mut rig, Method::Invite, &sdp("10.0.0.5", "0 101", "a=sendrecv\r\n")), 200);
    assert!(rig.plans().pop().unwrap().directions.iter().all(|direction| direction.mute == Mute::Open));
    assert_eq!(rig.cause(), None);
    rig.installed();
    rig.finish();
}

#[test]
fn each_direction_is_held_by_its_name() {
    for (said, answered, inward, outward) in [
        ("sendonly", "recvonly", Mute::Held, Mute::Open),
        ("recvonly", "sendonly", Mute::Open, Mute::Held),
        ("inactive", "inactive", Mute::Held, Mute::Held),
        ("sendrecv", "sendrecv", Mute::Open, Mute::Open),
    ] {
        let mut rig = Rig::connected();
        let body = sdp("10.0.0.5", "0 101", &format!("a={said}\r\n"));
        let answer = rig.ask(Method::Invite, "pbx", &body).unwrap();
        assert!(String::from_utf8(answer.body).unwrap().contains(&format!("a={answered}\r\n")), "{said}");
        let plan = rig.plans().pop().unwrap();
        assert_eq!((plan.directions[0].mute, plan.directions[1].mute), (inward, outward), "{said}");
        rig.installed();
        rig.finish();
    }
}

#[test]
fn the_ack_brings_the_answer_to_an_offer_of_ours() {
    let mut rig = Rig::connected();
    let offered = rig.ask(Method::Invite, "pbx", b"").unwrap();
    let text = String::from_utf8(offered.body).unwrap();
    assert_eq!((offered.status, offered.content_type.as_deref()), (200, Some("application/sdp")));
    assert!(text.contains("RTP/AVP 0 8 101\r\n") && text.contains("a=sendrecv\r\n"), "{text}");
    rig.installed();
    assert_eq!(status(&mut rig, Method::Update, &sdp("10.0.0.9", "0", "")), 491, "an offer is open");
    assert_eq!(status(&mut rig, Method::Invite, b""), 491);
    rig.remote_cseq -= 2;
    assert!(rig.ask(Method::Ack, "pbx", &sdp("10.0.0.9", "8 0", "")).is_none());
    let plan = rig.plans().pop().unwrap();
    assert_eq!(plan.directions[0].rtp.remote.to_string(), "10.0.0.9:30000", "media has moved");
    assert_eq!(kinds(&rig), [Kind::Pcmu, Kind::Pcma, Kind::Event8000]);
    rig.installed();
    rig.remote_cseq += 2;
    assert_eq!(status(&mut rig, Method::Update, &sdp("10.0.0.5", "0", "")), 200, "none is open any more");
    rig.installed();
    rig.finish();
}

#[test]
fn an_answer_in_the_ack_that_cannot_be_followed_ends_the_call() {
    for body in [&sdp("10.0.0.5", "8", "")[..], b"garbage"] {
        let mut rig = Rig::connected();
        rig.ask(Method::Invite, "pbx", b"");
        rig.installed();
        rig.ask(Method::Ack, "pbx", body);
        assert!(matches!(rig.cause(), Some(EndCause::NoCodec | EndCause::Protocol(_))));
        assert_eq!(rig.requests(&Method::Bye).len(), 1);
        rig.is_over();
    }
}

#[test]
fn requests_of_a_dialog_that_only_rings_are_answered() {
    let mut rig = Rig::new();
    rig.reserve();
    assert_eq!(status(&mut rig, Method::Update, b""), 481, "no dialog yet");
    rig.ring();
    assert_eq!(status(&mut rig, Method::Update, b""), 200);
    assert_eq!(status(&mut rig, Method::Update, &sdp("10.0.0.5", "0", "")), 491);
    assert_eq!(status(&mut rig, Method::Invite, &sdp("10.0.0.5", "0", "")), 491);
    assert_eq!(status(&mut rig, Method::Info, b""), 200);
    assert_eq!(status(&mut rig, Method::Bye, b""), 481);
    assert_eq!(rig.ask(Method::Update, "stranger", b"").unwrap().status, 481);
    rig.remote_cseq -= 3;
    assert_eq!(status(&mut rig, Method::Info, b""), 500, "out of order");
    rig.remote_cseq += 3;
    rig.pick_up("0");
    rig.remote_cseq -= 3;
    assert_eq!(status(&mut rig, Method::Info, b""), 500, "the dialog goes on counting");
    rig.remote_cseq += 3;
    assert_eq!(status(&mut rig, Method::Info, b""), 200);
    rig.finish();
}

#[test]
fn the_called_side_hangs_up_and_only_it_may() {
    let mut rig = Rig::connected();
    assert_eq!(rig.ask(Method::Bye, "stranger", b"").unwrap().status, 481);
    assert_eq!(rig.cause(), None);
    assert_eq!(status(&mut rig, Method::Bye, b""), 200);
    assert_eq!(rig.cause(), Some(EndCause::RemoteHangUp));
    assert!(rig.requests(&Method::Bye).is_empty());
    rig.is_over();
}

#[test]
fn other_requests_get_their_status() {
    let mut rig = Rig::connected();
    for (method, expected) in [
        (Method::Info, 200),
        (Method::Options, 200),
        (Method::Notify, 489),
        (Method::Cancel, 481),
        (Method::Update, 200),
        (Method::Other("DANCE".into()), 405),
    ] {
        assert_eq!(status(&mut rig, method.clone(), b""), expected, "{method}");
    }
    rig.put(Input::HangUp);
    assert_eq!(status(&mut rig, Method::Invite, &sdp("10.0.0.5", "0", "")), 481, "it is ending");
    rig.is_over();
}
