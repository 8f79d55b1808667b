//! Before the final answer: reliable provisional answers of both sides, forks, early media, redirects.

use std::time::Duration;

use super::{INVITE, Rig, sdp};
use crate::api::{EndCause, Input};
use crate::sip::{Dialog, Method};

fn early(rig: &Rig, tag: &str) -> Dialog {
    let calling = rig.call.inside.invite.as_ref().unwrap();
    let found = calling.early.iter().find(|early| early.dialog.remote_tag.as_deref() == Some(tag));
    found.unwrap().dialog.clone()
}

fn praks(rig: &Rig) -> Vec<(String, u32, String)> {
    let all = rig.requests(&Method::Prack);
    let of = |request: &crate::sip::Request| {
        (request.header("RAck").next().unwrap().to_owned(), request.cseq, request.to.clone())
    };
    all.iter().map(|(_, request)| of(request)).collect()
}

fn reliably(rig: &mut Rig, status: u16, tag: &str, rseq: &str, body: &[u8]) {
    rig.respond(&Method::Invite, status, tag, body, &[("Require", "100rel"), ("RSeq", rseq)]);
}

#[test]
fn each_reliable_answer_of_each_fork_has_one_prack_in_order() {
    let mut rig = Rig::new();
    rig.reserve();
    let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
    assert!(invite.lists("Supported", "100rel") && invite.lists("Supported", "replaces"));
    reliably(&mut rig, 180, "one", "7", b"");
    reliably(&mut rig, 180, "one", "7", b"");
    reliably(&mut rig, 183, "one", "9", &sdp("10.0.0.5", "0", ""));
    assert_eq!(rig.answer(), None, "8 is missing");
    reliably(&mut rig, 183, "one", "8", &sdp("10.0.0.5", "0", ""));
    assert!(rig.answer().is_some());
    reliably(&mut rig, 180, "two", "1", b"");
    reliably(&mut rig, 180, "two", "x", b"");
    rig.respond(&Method::Invite, 180, "three", b"", &[]);
    let [one, two, other] = &praks(&rig)[..] else { panic!("{:?}", praks(&rig)) };
    assert_eq!((one.0.as_str(), one.1), ("7 1 INVITE", 2));
    assert_eq!((two.0.as_str(), two.1), ("8 1 INVITE", 3));
    assert_eq!((other.0.as_str(), other.1), ("1 1 INVITE", 2), "a dialog of its own");
    assert!(two.2.ends_with(";tag=one") && other.2.ends_with(";tag=two"));
    rig.respond(&Method::Invite, 200, "one", b"", &[]);
    assert_eq!(rig.acks().pop().unwrap().cseq, 1);
    rig.put(Input::HangUp);
    assert_eq!(rig.requests(&Method::Bye)[0].1.cseq, 4, "it counts on behind the PRACKs");
    rig.is_over();
}

#[test]
fn early_media_of_two_forks_and_the_final_answer_switch_behind_one_answer() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 183, "one", &sdp("10.0.0.5", "0 8 101", ""), &[]);
    rig.connect();
    rig.installed();
    reliably(&mut rig, 183, "two", "5", &sdp("10.0.0.6", "0", ""));
    rig.installed();
    assert_eq!(rig.plans().pop().unwrap().directions[0].rtp.remote.ip().to_string(), "10.0.0.6");
    // The fork that speaks in its early dialog only.
    rig.respond(&Method::Invite, 200, "one", b"", &[]);
    assert_eq!(rig.cause(), None);
    assert_eq!(rig.plans().pop().unwrap().directions[0].rtp.remote.ip().to_string(), "10.0.0.5");
    assert_eq!(rig.names(), ["early", "ringing", "answered"]);
    rig.installed();
    rig.finish();
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 183, "one", &sdp("10.0.0.5", "0", ""), &[]);
    rig.respond(&Method::Invite, 200, "two", b"", &[]);
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))), "what another fork said is no answer");
    rig.is_over();
}

#[test]
fn an_update_of_an_early_dialog_may_offer_once_ours_is_answered_reliably() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 183, "pbx", &sdp("10.0.0.5", "0", ""), &[]);
    let dialog = early(&rig, "pbx");
    let update =
        |rig: &mut Rig, body: &[u8]| rig.ask_in(&dialog, (Method::Update, "pbx"), body, None, &[]).unwrap();
    assert_eq!(update(&mut rig, &sdp("10.0.0.7", "0", "")).status, 491, "it may be another's answer yet");
    reliably(&mut rig, 183, "pbx", "1", &sdp("10.0.0.5", "0", ""));
    let answer = update(&mut rig, &sdp("10.0.0.7", "0", ""));
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8(answer.body).unwrap().contains("m=audio 20000 RTP/AVP 0\r\n"));
    assert_eq!(update(&mut rig, &sdp("10.0.0.7", "18", "")).status, 488);
    assert_eq!(update(&mut rig, b"").status, 200);
    rig.respond(&Method::Invite, 200, "pbx", b"", &[]);
    rig.connect();
    assert_eq!(rig.plans().pop().unwrap().directions[0].rtp.remote.ip().to_string(), "10.0.0.7");
    rig.installed();
    rig.finish();
}

#[test]
fn a_caller_that_wants_it_gets_its_180_until_the_prack() {
    let body = sdp("10.0.0.9", "0", "");
    let mut rig = Rig::incoming(&body, &[("Require", "100rel")]).unwrap();
    let ringing = rig.replies(INVITE).pop().unwrap();
    rig.reserve();
    let rseq = ringing.header("RSeq").next().unwrap().to_owned();
    assert!(ringing.status == 180 && ringing.lists("Require", "100rel"));
    rig.wait(Duration::from_secs(4));
    assert_eq!(rig.replies(INVITE).len(), 4, "at once, after 0.5, 1.5 and 3.5 s");
    let prack = |rig: &mut Rig, rack: &str| {
        rig.ask_with(Method::Prack, "pbx", b"", None, &[("RAck", rack)]).unwrap().status
    };
    assert_eq!(prack(&mut rig, "1 5 INVITE"), 481);
    assert_eq!(prack(&mut rig, &format!("{rseq} 5 INVITE")), 200);
    assert_eq!(prack(&mut rig, &format!("{rseq} 5 INVITE")), 481, "it has it");
    rig.wait(Duration::from_secs(40));
    assert_eq!(rig.replies(INVITE).len(), 4);
    rig.take().unwrap();
    rig.acknowledge(b"");
    assert_eq!(prack(&mut rig, &format!("{rseq} 5 INVITE")), 481);
    rig.finish();
    let mut rig = Rig::incoming(&body, &[("Require", "100rel")]).unwrap();
    rig.reserve();
    rig.wait(Duration::from_secs(33));
    assert_eq!(rig.replies(INVITE).last().map(|reply| reply.status), Some(504));
    rig.is_over();
    let rig = Rig::incoming(&body, &[("Supported", "100rel")]).unwrap();
    assert!(!rig.replies(INVITE)[0].lists("Require", "100rel"), "not where it only may");
    rig.finish();
}

#[test]
fn requests_of_a_caller_whose_call_rings_are_answered() {
    let mut rig = Rig::incoming(&sdp("10.0.0.9", "0", ""), &[]).unwrap();
    rig.reserve();
    let body = sdp("10.0.0.9", "0", "");
    let offer = rig.ask(Method::Update, "pbx", &body).unwrap();
    assert!(offer.status == 500 && offer.header("Retry-After").next().is_some(), "its first one is open");
    for (method, expected) in [
        (Method::Update, 200),
        (Method::Options, 200),
        (Method::Invite, 500),
        (Method::Refer, 603),
        (Method::Other("DANCE".into()), 405),
    ] {
        assert_eq!(rig.ask(method.clone(), "pbx", b"").unwrap().status, expected, "{method}");
    }
    assert_eq!(rig.ask(Method::Update, "stranger", b"").unwrap().status, 481);
    assert_eq!(rig.ask(Method::Bye, "pbx", b"").unwrap().status, 200);
    assert_eq!(rig.replies(INVITE).last().map(|reply| reply.status), Some(487));
    assert_eq!(rig.cause(), Some(EndCause::Cancelled));
    rig.is_over();
}

#[test]
fn an_acknowledgement_without_the_answer_that_it_owes_ends_the_call() {
    let mut rig = Rig::incoming(b"", &[]).unwrap();
    rig.reserve();
    rig.take().unwrap();
    rig.acknowledge(b"");
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))));
    assert_eq!(rig.requests(&Method::Bye).len(), 1);
    rig.is_over();
}

fn moved(rig: &mut Rig, status: u16, contact: &str) {
    let (transaction, request) = rig.requests(&Method::Invite).pop().unwrap();
    let mut response = crate::sip::Response::to_request(&request, status, "Moved");
    response.to = format!("{};tag=r", response.to);
    response.contact = Some(contact.to_owned());
    rig.put(Input::SipResponse { transaction, response });
}

#[test]
fn a_redirected_call_goes_on_elsewhere_five_times_and_in_no_circle() {
    let mut rig = Rig::new();
    rig.reserve();
    for number in 1..=5 {
        moved(&mut rig, 302, &format!("<tel:+1>, <sip:200{number}@10.0.0.5>;q=0.5"));
        let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
        assert_eq!((invite.uri, invite.to), (format!("sip:200{number}@10.0.0.5"), "<sip:1000@pbx>".into()));
        assert_eq!(invite.cseq, number + 1);
    }
    moved(&mut rig, 302, "<sip:2006@10.0.0.5>");
    assert_eq!(rig.cause(), Some(EndCause::Rejected(302)), "so often and not more");
    rig.is_over();
    let mut rig = Rig::new();
    rig.reserve();
    moved(&mut rig, 301, "<sip:2001@10.0.0.5>");
    moved(&mut rig, 301, "<sip:1000@pbx>, <sip:2001@10.0.0.5>");
    assert_eq!(rig.cause(), Some(EndCause::Rejected(301)), "back to where it came from");
    rig.is_over();
    let mut settings = (*super::settings("")).clone();
    settings.sip.policy.follow_redirects = false;
    let mut rig = Rig::with(settings.into(), "");
    rig.reserve();
    moved(&mut rig, 302, "<sip:2001@10.0.0.5>");
    assert_eq!(rig.cause(), Some(EndCause::Rejected(302)));
    rig.is_over();
}

#[test]
fn an_invite_that_loses_its_way_while_it_rings_is_placed_anew() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 183, "one", &sdp("10.0.0.5", "0", ""), &[]);
    rig.respond(&Method::Invite, 180, "two", b"", &[]);
    let (transaction, first) = rig.requests(&Method::Invite).pop().unwrap();
    rig.put(Input::SipTransportError(transaction));
    let mut byes: Vec<_> = rig.requests(&Method::Bye).into_iter().map(|(_, bye)| bye.to).collect();
    byes.sort();
    assert!(byes[0].ends_with(";tag=one") && byes[1].ends_with(";tag=two"), "nobody rings on: {byes:?}");
    let (again, second) = rig.requests(&Method::Invite).pop().unwrap();
    assert_ne!(second.call_id, first.call_id, "the same one again would be a loop");
    assert_eq!((second.uri, second.from, second.cseq), (first.uri, first.from, 1));
    assert_eq!(second.body, first.body);
    rig.respond(&Method::Invite, 180, "one", b"", &[]);
    rig.respond(&Method::Invite, 200, "three", &sdp("10.0.0.6", "0", ""), &[]);
    assert_eq!(rig.acks().pop().unwrap().call_id, second.call_id);
    assert_eq!(rig.names(), ["early", "ringing", "answered"], "the browser hears nothing of it");
    assert_eq!(rig.requests(&Method::Invite).last().unwrap().0, again);
    rig.finish();

    // Who hears nothing by the next way either is not there.
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 100, "", b"", &[]);
    let lost = |rig: &mut Rig| {
        let (transaction, _) = rig.requests(&Method::Invite).pop().unwrap();
        rig.put(Input::SipTransportError(transaction));
    };
    lost(&mut rig);
    assert_eq!((rig.requests(&Method::Invite).len(), rig.cause()), (2, None));
    lost(&mut rig);
    assert_eq!(rig.cause(), Some(EndCause::SipUnreachable));
    rig.is_over();
}
