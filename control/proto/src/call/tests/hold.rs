//! The browser holds, resumes, and starts ICE over; INVITEs of both sides meet.

use std::time::Duration;

use is::{Candidate, IceAgent, IceCreds};
use sallyport_plan::Mute;

use super::{FINGERPRINT, Rig, address, sdp};
use crate::api::{Command, EndCause, Input};
use crate::error::{AcceptError, OfferError};
use crate::sip::{Method, Request};

/// The last INVITE of ours and what it says of the sound.
fn told(rig: &Rig) -> (usize, String) {
    let all = rig.requests(&Method::Invite);
    let text =
        String::from_utf8(all.last().map(|(_, invite)| invite.body.clone()).unwrap_or_default()).unwrap();
    let direction = ["sendrecv", "sendonly", "recvonly", "inactive"]
        .into_iter()
        .find(|direction| text.contains(&format!("a={direction}\r\n")));
    (all.len(), direction.unwrap_or_default().to_owned())
}

fn agree(rig: &mut Rig, direction: &str) {
    let body = sdp("10.0.0.5", "0 8 101", &format!("a={direction}\r\n"));
    rig.respond(&Method::Invite, 200, "pbx", &body, &[]);
}

fn mutes(rig: &Rig) -> (Mute, Mute) {
    let plan = rig.plans().pop().unwrap();
    (plan.directions[0].mute, plan.directions[1].mute)
}

#[test]
fn a_browser_holds_and_resumes_by_every_direction_in_calls_of_both_ways() {
    for start in [Rig::connected as fn() -> Rig, Rig::called] {
        let mut rig = start();
        let first = rig.requests(&Method::Invite).len();
        for (at, (browser, far, muted)) in [
            ("sendonly", "recvonly", (Mute::Open, Mute::Held)),
            ("inactive", "inactive", (Mute::Held, Mute::Held)),
            ("recvonly", "sendonly", (Mute::Held, Mute::Open)),
            ("sendrecv", "sendrecv", (Mute::Open, Mute::Open)),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = rig.turn(browser);
            assert!(answer.contains(&format!("a={far}\r\n")), "{browser}: {answer}");
            assert_eq!(told(&rig), (first + at + 1, browser.to_owned()));
            rig.installed();
            agree(&mut rig, far);
            let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
            assert_eq!(rig.acks().last().map(|ack| ack.cseq), Some(invite.cseq));
            while rig.call.relayed.in_flight {
                rig.installed();
            }
            assert_eq!(mutes(&rig), muted, "{browser}");
        }
        assert!(
            rig.events().iter().all(|event| !["held", "resumed"].contains(&event.name())),
            "nobody else did"
        );
        rig.finish();
    }
}

#[test]
fn the_browser_is_answered_once_the_relay_does_what_the_answer_says() {
    for away in [false, true] {
        let mut rig = Rig { obedient: false, ..Rig::connected() };
        let answers =
            |rig: &Rig| rig.done.iter().filter(|command| matches!(command, Command::Renegotiated(_))).count();
        let text = rig.offers_again(|text| text.replace("a=sendrecv", "a=inactive")).unwrap();
        assert_eq!((answers(&rig), mutes(&rig)), (0, (Mute::Held, Mute::Held)));
        assert_eq!(rig.call.renegotiate(&text, rig.now), Err(AcceptError::Offer(OfferError::Pending)));
        let version = rig.plans().pop().unwrap().version;
        if away {
            rig.put(Input::RelayAway);
            assert_eq!(answers(&rig), 1, "one that is away obeys when it is back");
            rig.put(Input::RelayBack(version));
        } else {
            rig.put(Input::Installed(version));
        }
        assert_eq!(answers(&rig), 1);
        rig.finish();
    }
}

#[test]
fn the_version_of_our_description_grows_where_it_changes() {
    let mut rig = Rig::connected();
    let version = |octets: &[u8]| -> u32 {
        let text = String::from_utf8(octets.to_vec()).unwrap();
        let origin = text.lines().find(|line| line.starts_with("o=")).unwrap().to_owned();
        origin.split(' ').nth(2).unwrap().parse().unwrap()
    };
    let first = version(&rig.requests(&Method::Invite)[0].1.body);
    let same = sdp("10.0.0.5", "0 8 101", "");
    let one = version(&rig.ask(Method::Invite, "pbx", &same).unwrap().body);
    let two = version(&rig.ask(Method::Invite, "pbx", &same).unwrap().body);
    assert_eq!(
        (one, two),
        (first + 1, first + 1),
        "an answer names fewer codecs than the offer, then the same"
    );
    rig.turn("sendonly");
    assert_eq!(version(&rig.requests(&Method::Invite).pop().unwrap().1.body), first + 2);
    rig.finish();
}

#[test]
fn the_far_end_holds_by_every_spelling_and_it_is_told_once() {
    for spelling in [
        sdp("10.0.0.5", "0 101", "a=sendonly\r\n"),
        sdp("10.0.0.5", "0 101", "a=inactive\r\n"),
        sdp("10.0.0.5", "0 101", "a=recvonly\r\n"),
        sdp("0.0.0.0", "0 101", ""),
    ] {
        for start in [Rig::connected as fn() -> Rig, Rig::called] {
            for method in [Method::Invite, Method::Update] {
                let mut rig = start();
                for _ in 0..2 {
                    assert_eq!(rig.ask(method.clone(), "pbx", &spelling).unwrap().status, 200);
                }
                let resumed = sdp("10.0.0.5", "0 101", "");
                assert_eq!(rig.ask(method.clone(), "pbx", &resumed).unwrap().status, 200);
                let names = rig.names();
                assert_eq!(names[names.len() - 2..], ["held", "resumed"]);
                assert_eq!(names.iter().filter(|name| **name == "held").count(), 1);
                assert!(!rig.done.iter().any(|command| matches!(command, Command::Renegotiated(_))));
                rig.finish();
            }
        }
    }
}

#[test]
fn both_hold_and_both_resume() {
    let mut rig = Rig::connected();
    rig.turn("sendonly");
    agree(&mut rig, "inactive");
    assert_eq!(rig.names().last(), Some(&"held"), "it does not even listen");
    let answer = rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0", "a=sendonly\r\n")).unwrap();
    assert!(String::from_utf8(answer.body).unwrap().contains("a=inactive\r\n"), "nobody hears");
    rig.turn("sendrecv");
    agree(&mut rig, "sendrecv");
    assert_eq!(rig.names().last(), Some(&"resumed"));
    rig.finish();
}

#[test]
fn a_hold_before_the_answer_is_told_behind_it() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 183, "pbx", &sdp("10.0.0.5", "0", ""), &[]);
    rig.turn("inactive");
    assert_eq!(told(&rig).0, 1);
    rig.pick_up("0");
    assert_eq!(told(&rig), (2, "inactive".into()));
    rig.finish();
}

#[test]
fn where_invites_meet_each_side_refuses_the_other_s_and_waits_its_time() {
    let starts = [(Rig::connected as fn() -> Rig, 2_100, 4_001), (Rig::called as fn() -> Rig, 0, 2_001)];
    for ((start, least, most), theirs) in starts.iter().flat_map(|one| [(*one, true), (*one, false)]) {
        let mut rig = start();
        rig.turn("sendonly");
        let (count, _) = told(&rig);
        assert_eq!(rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0", "")).unwrap().status, 491);
        assert_eq!(rig.ask(Method::Update, "pbx", &sdp("10.0.0.5", "0", "")).unwrap().status, 491);
        assert_eq!(rig.ask(Method::Update, "pbx", b"").unwrap().status, 200);
        rig.respond(&Method::Invite, 491, "pbx", b"", &[]);
        assert_eq!(told(&rig).0, count, "not at once");
        rig.wait(Duration::from_millis(u64::max(least, 1) - 1));
        assert_eq!(told(&rig).0, count);
        if theirs {
            let answer = rig.ask(Method::Invite, "pbx", &sdp("10.0.0.7", "0", "")).unwrap();
            assert_eq!(answer.status, 200);
            assert!(String::from_utf8(answer.body).unwrap().contains("a=sendonly\r\n"), "that tells it, too");
        }
        rig.wait(Duration::from_millis(most - least + 2));
        assert_eq!(
            told(&rig),
            (count + usize::from(!theirs), if theirs { told(&rig).1 } else { "sendonly".into() })
        );
        assert_eq!(rig.cause(), None);
        rig.finish();
    }
}

#[test]
fn ours_waits_while_theirs_has_no_ack_yet() {
    let mut rig = Rig::connected();
    rig.acknowledges = false;
    assert_eq!(rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0", "")).unwrap().status, 200);
    rig.turn("inactive");
    assert_eq!(told(&rig).0, 1);
    rig.remote_cseq -= 1;
    rig.ask(Method::Options, "pbx", b"");
    rig.ask(Method::Ack, "pbx", b"");
    assert_eq!(told(&rig), (2, "inactive".into()));
    rig.finish();
}

#[test]
fn a_refusal_leaves_the_session_as_it_was_and_is_not_asked_again() {
    for status in [488, 403, 500, 603] {
        let mut rig = Rig::connected();
        rig.turn("sendonly");
        rig.respond(&Method::Invite, status, "pbx", b"", &[]);
        rig.wait(Duration::from_secs(20));
        assert_eq!((told(&rig).0, rig.cause()), (2, None), "{status}");
        rig.turn("sendrecv");
        assert_eq!(told(&rig), (3, "sendrecv".into()));
        rig.finish();
    }
}

#[test]
fn a_far_end_that_knows_nothing_or_says_nothing_ends_the_call() {
    let mut rig = Rig::connected();
    rig.turn("sendonly");
    rig.respond(&Method::Invite, 481, "pbx", b"", &[]);
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))));
    rig.is_over();
    for silent in [true, false] {
        let mut rig = Rig::called();
        rig.turn("sendonly");
        if silent {
            let (transaction, _) = rig.requests(&Method::Invite).pop().unwrap();
            rig.put(Input::SipTimeout(transaction));
        } else {
            rig.respond(&Method::Invite, 408, "pbx", b"", &[]);
        }
        assert_eq!(rig.cause(), Some(EndCause::SipUnreachable));
        assert_eq!(rig.requests(&Method::Bye).len(), 1);
        rig.is_over();
    }
}

#[test]
fn a_challenge_in_the_middle_of_a_call_is_answered() {
    let ask = [("WWW-Authenticate", "Digest realm=\"pbx\", nonce=\"n2\", qop=\"auth\"")];
    let mut rig = Rig::connected();
    rig.turn("sendonly");
    rig.respond(&Method::Invite, 401, "pbx", b"", &ask);
    let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
    assert_eq!((told(&rig), invite.header("Authorization").count()), ((3, "sendonly".into()), 1));
    agree(&mut rig, "recvonly");
    assert_eq!(rig.acks().pop().unwrap().header("Authorization").count(), 1);
    rig.respond(&Method::Invite, 200, "pbx", b"", &[]);
    assert_eq!(rig.acks().len(), 3, "a repeated 2xx has its ACK again");
    rig.finish();
}

#[test]
fn twenty_offers_of_each_side_in_a_row() {
    for start in [Rig::connected as fn() -> Rig, Rig::called] {
        let mut rig = start();
        for number in 0..20 {
            let ip = format!("10.0.0.{}", 20 + number);
            let direction = ["sendrecv", "sendonly", "inactive"][number % 3];
            let body = sdp(&ip, "0 8 101", &format!("a={direction}\r\n"));
            assert_eq!(rig.ask(Method::Invite, "pbx", &body).unwrap().status, 200);
            rig.installed();
            assert_eq!(rig.plans().pop().unwrap().directions[0].rtp.remote.ip().to_string(), ip);
            rig.turn(["sendonly", "sendrecv"][number % 2]);
            agree(&mut rig, "sendrecv");
            while rig.call.relayed.in_flight {
                rig.installed();
            }
        }
        assert_eq!(rig.cause(), None);
        assert_eq!(rig.done.iter().filter(|command| matches!(command, Command::Answer(_))).count(), 1);
        rig.finish();
    }
}

#[test]
fn what_would_break_the_association_is_refused_and_changes_nothing() {
    let mut rig = Rig::connected();
    let other: Vec<&str> = vec!["CD"; 32];
    let own: Vec<String> = FINGERPRINT.iter().map(|octet| format!("{octet:02X}")).collect();
    let changed = rig.reoffer(|text| text.replace(&own.join(":"), &other.join(":")));
    assert_eq!(changed, Err(AcceptError::Offer(OfferError::ChangedFingerprint)));
    let codec = rig.reoffer(|text| text.replace("111 0 8", "111 8"));
    assert_eq!(codec, Err(AcceptError::Offer(OfferError::NoCodec)));
    let role = rig.reoffer(|text| text.replace("actpass", "passive"));
    assert!(matches!(role, Err(AcceptError::Offer(OfferError::Setup(_)))));
    assert!(matches!(rig.reoffer(|_| "v=1".into()), Err(AcceptError::Offer(OfferError::Malformed(_)))));
    assert_eq!((told(&rig).0, rig.cause()), (1, None));
    rig.put(Input::HangUp);
    assert_eq!(rig.reoffer(|text| text), Err(AcceptError::Gone));
    rig.is_over();
}

fn value(text: &str, start: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix(start)).unwrap().to_owned()
}

#[test]
fn credentials_are_repeated_and_the_version_grows() {
    let mut rig = Rig::connected();
    let first = rig.answer().unwrap();
    let again = rig.turn("sendonly");
    for start in ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=ssrc:", "a=candidate:"] {
        assert_eq!(value(&again, start), value(&first, start));
    }
    let version = |text: &str| value(text, "o=- ").split(' ').nth(1).unwrap().parse::<u32>().unwrap();
    assert_eq!(version(&again), version(&first) + 1);
    rig.finish();
}

/// The browser starts ICE over from another address.
pub fn restart(rig: &mut Rig) -> String {
    let other = address("198.51.100.99:41000");
    rig.browser = IceAgent::new(IceCreds::new());
    rig.browser.set_controlling(true);
    rig.browser.add_local_candidate(Candidate::host(other, "udp").unwrap());
    rig.at.push(other);
    let answer = rig.reoffer(|text| text).unwrap();
    let (ufrag, pass) = (value(&answer, "a=ice-ufrag:"), value(&answer, "a=ice-pwd:"));
    rig.browser.set_remote_credentials(IceCreds { ufrag, pass });
    rig.browser.add_remote_candidate(Candidate::host(super::media(), "udp").unwrap());
    answer
}

#[test]
fn ice_starts_over_beside_the_pair_that_runs() {
    let mut rig = Rig::connected();
    let (before, first) = (rig.plans().pop().unwrap(), rig.answer().unwrap());
    let answer = restart(&mut rig);
    assert_ne!(value(&answer, "a=ice-ufrag:"), value(&first, "a=ice-ufrag:"));
    assert_eq!(rig.call.next_ufrag(), Some(value(&answer, "a=ice-ufrag:").as_str()));
    assert_eq!(rig.call.ice_ufrag(), value(&first, "a=ice-ufrag:"), "the former one is heard, too");
    rig.installed();
    assert_eq!(rig.plans().pop().unwrap().consents, before.consents, "media stays where it is");
    rig.ice(Duration::from_secs(2));
    let moved = rig.plans().pop().unwrap();
    assert_eq!(moved.consents[0].flow.remote, address("198.51.100.99:41000"));
    assert_eq!(moved.consents[0].local_ufrag, value(&answer, "a=ice-ufrag:"));
    assert_eq!(moved.directions[0].open, before.directions[0].open, "the keys are the same");
    assert_eq!((rig.call.next_ufrag(), told(&rig).0), (None, 1), "the inside hears nothing of it");
    let paths = rig.done.iter().filter(|command| matches!(command, Command::DtlsPath(_))).count();
    assert!(paths >= 1 && rig.done.iter().filter(|command| matches!(command, Command::Dtls(_))).count() == 1);
    rig.installed();
    rig.finish();
}

#[test]
fn a_restart_that_finds_nothing_leaves_the_former_pair() {
    let mut rig = Rig::connected();
    let before = rig.plans().pop().unwrap();
    restart(&mut rig);
    rig.wait(Duration::from_secs(31));
    assert_eq!((rig.call.next_ufrag(), rig.cause()), (None, None));
    assert_eq!(rig.plans().pop().unwrap().consents, before.consents);
    rig.finish();
}

#[test]
fn another_control_can_renegotiate_as_well() {
    let rig = Rig::connected();
    let (plan, first) = (rig.plans().pop().unwrap(), rig.answer().unwrap());
    let mut next = Rig { obedient: true, ..Rig::restored(&plan, rig.now) };
    let text = super::offer(rig.browser.local_credentials(), "").replace("a=sendrecv", "a=sendonly");
    let answer = next.reoffer(|_| text).unwrap();
    for start in ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=candidate:"] {
        assert_eq!(value(&answer, start), value(&first, start));
    }
    assert_eq!(told(&next), (1, "sendonly".into()));
    next.installed();
    agree(&mut next, "recvonly");
    restart(&mut next);
    next.ice(Duration::from_secs(2));
    while next.call.relayed.in_flight {
        next.installed();
    }
    assert_eq!(next.plans().pop().unwrap().consents[0].flow.remote, address("198.51.100.99:41000"));
    assert_eq!(next.cause(), None);
    assert!(!next.done.iter().any(|command| matches!(command, Command::Dtls(_))));
    next.finish();
    rig.finish();
}

#[test]
fn a_2xx_of_ours_without_an_ack_ends_the_call() {
    let mut rig = Rig::connected();
    rig.acknowledges = false;
    rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0", ""));
    rig.wait(Duration::from_secs(31));
    assert_eq!(rig.cause(), None);
    rig.wait(Duration::from_secs(2));
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))));
    assert_eq!(rig.requests(&Method::Bye).len(), 1);
    rig.is_over();
}

#[test]
fn the_called_side_says_bye_behind_the_ack_only() {
    for acknowledged in [true, false] {
        let mut rig = Rig::incoming(&sdp("10.0.0.9", "0", ""), &[]).unwrap();
        rig.reserve();
        rig.take().unwrap();
        rig.put(Input::HangUp);
        assert!(rig.requests(&Method::Bye).is_empty());
        if acknowledged {
            rig.acknowledge(b"");
        } else {
            rig.wait(Duration::from_secs(33));
        }
        assert_eq!(rig.requests(&Method::Bye).len(), 1, "{acknowledged}");
        rig.respond(&Method::Bye, 200, "pbx", b"", &[]);
        assert!(matches!(rig.done.last(), Some(Command::Ended)));
        rig.is_over();
    }
}

#[test]
fn a_session_without_a_description_to_our_offer_stays_as_it_was() {
    let mut rig = Rig::connected();
    rig.turn("sendonly");
    rig.respond(&Method::Invite, 200, "pbx", b"", &[]);
    assert_eq!((rig.cause(), rig.acks().len()), (None, 2));
    rig.turn("sendrecv");
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "8", ""), &[]);
    assert_eq!(rig.cause(), Some(EndCause::NoCodec), "the browser cannot be told another one");
    rig.is_over();
}

#[test]
fn bodies_and_extensions_that_we_do_not_know_get_their_status() {
    let mut rig = Rig::connected();
    let body = sdp("10.0.0.5", "0", "");
    let ask = |rig: &mut Rig, kind: Option<&str>, headers: &[(&str, &str)]| {
        rig.ask_with(Method::Invite, "pbx", &body, kind, headers).unwrap()
    };
    let unknown = ask(&mut rig, None, &[("Require", "timer, precondition")]);
    assert_eq!((unknown.status, unknown.header("Unsupported").next()), (420, Some("precondition")));
    let other = ask(&mut rig, Some("multipart/mixed"), &[]);
    assert_eq!((other.status, other.header("Accept").next()), (415, Some("application/sdp")));
    assert_eq!(ask(&mut rig, Some("Application/SDP; charset=utf-8"), &[]).status, 200);
    let unknown = rig.ask(Method::Other("DANCE".into()), "pbx", b"").unwrap();
    assert!(unknown.status == 405 && unknown.header("Allow").next().is_some());
    let late = Request { cseq: 1, ..super::invite(&body, &[]) };
    assert_eq!(rig.request(late).unwrap().status, 481, "no dialog of the call");
    rig.finish();
}

#[test]
fn an_invite_of_ours_whose_answer_is_lost_on_its_way_is_sent_again() {
    let mut rig = Rig::connected();
    rig.turn("sendonly");
    rig.respond(&Method::Invite, 100, "pbx", b"", &[]);
    let lose = |rig: &mut Rig| {
        let (transaction, invite) = rig.requests(&Method::Invite).pop().unwrap();
        rig.put(Input::SipTransportError(transaction));
        invite
    };
    let lost = lose(&mut rig);
    assert_eq!(told(&rig), (3, "sendonly".to_owned()));
    let (_, again) = rig.requests(&Method::Invite).pop().unwrap();
    assert_eq!((again.call_id, again.cseq, again.to), (lost.call_id, lost.cseq + 1, lost.to));
    agree(&mut rig, "recvonly");
    assert_eq!(rig.cause(), None);
    // One that nobody had is not.
    rig.turn("sendrecv");
    lose(&mut rig);
    assert_eq!(rig.cause(), Some(EndCause::SipUnreachable));
    rig.finish();
}
