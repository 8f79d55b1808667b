//! A browser that adds a picture in the middle of the call.

use std::time::Duration;

use sallyport_plan::{Mute, PortPair, Refusal};

use super::video::{FILM, H264, section};
use super::{Rig, address, offer, sdp};
use crate::api::{Command, EndCause, Input};
use crate::error::{AcceptError, OfferError};
use crate::sip::Method;

const REFUSED: &str = "m=video 0 ";

/// It offers anew, with a picture; nothing is answered yet.
fn adds(rig: &mut Rig) {
    let before = answers(rig).len();
    let text = offer(rig.browser.local_credentials(), FILM);
    rig.call.renegotiate(&text, rig.now).unwrap();
    rig.drain();
    assert_eq!(answers(rig).len(), before);
}

fn answers(rig: &Rig) -> Vec<String> {
    let of = |command: &Command| match command {
        Command::Renegotiated(text) => Some(text.clone()),
        _ => None,
    };
    rig.done.iter().filter_map(of).collect()
}

fn reserves(rig: &Rig) -> usize {
    rig.done.iter().filter(|command| matches!(command, Command::Reserve { pairs: 1, .. })).count()
}

fn give_ports(rig: &mut Rig) {
    let pair = PortPair { rtp: address("10.0.0.1:20010"), rtcp: address("10.0.0.1:20011") };
    rig.put(Input::Reserved(vec![pair]));
}

/// It adds one, and the inside hears of it.
fn tells(rig: &mut Rig) -> String {
    let before = reserves(rig);
    adds(rig);
    if reserves(rig) > before {
        give_ports(rig);
    }
    section(&String::from_utf8(rig.requests(&Method::Invite).pop().unwrap().1.body).unwrap())
}

fn answers_by(rig: &mut Rig, more: &str) {
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0 101", more), &[]);
}

fn films(rig: &Rig) -> Vec<Mute> {
    rig.plans().pop().unwrap().directions[2..].iter().map(|direction| direction.mute).collect()
}

impl Rig {
    /// The browser adds a picture, and the inside has been asked.
    pub fn adds_a_picture(&mut self) {
        assert!(!tells(self).starts_with(REFUSED));
    }
}

/// The call goes on, and what happens to the picture afterwards is as if it had always been there.
fn goes_on(mut rig: Rig) {
    assert_eq!(films(&rig), [Mute::Open, Mute::Open]);
    let answer = answers(&rig).pop().unwrap();
    assert!(section(&answer).starts_with("m=video 9 UDP/TLS/RTP/SAVPF 102 96 97\r\n"), "{answer}");
    assert!(answer.contains("a=group:BUNDLE 0 1\r\n"), "{answer}");
    assert!(answer.contains("a=ssrc-group:FID ") && !answer.contains("a=ssrc:0 "), "{answer}");
    let body = sdp("10.0.0.5", "0 101", &format!("{H264}a=sendonly\r\n"));
    let held = rig.ask(Method::Invite, "pbx", &body).unwrap();
    assert!(section(&String::from_utf8(held.body).unwrap()).contains("a=recvonly\r\n"));
    assert_eq!(films(&rig), [Mute::Held, Mute::Open]);
    rig.finish();
}

#[test]
fn the_inside_is_asked_first_and_then_the_browser_answered() {
    for start in [Rig::connected as fn() -> Rig, Rig::called] {
        let mut rig = start();
        let offered = tells(&mut rig);
        assert!(offered.starts_with("m=video 20010 RTP/AVP 96 98 102\r\na=rtcp:20011 "), "{offered}");
        answers_by(&mut rig, H264);
        goes_on(rig);
    }
}

#[test]
fn another_control_may_be_asked_again() {
    let mut rig = Rig::connected();
    tells(&mut rig);
    let mut next = Rig { obedient: true, ..Rig::restored(&rig.plans().pop().unwrap(), rig.now) };
    rig.finish();
    tells(&mut next);
    answers_by(&mut next, H264);
    goes_on(next);
}

#[test]
fn a_relay_that_goes_takes_ports_along_that_no_plan_has() {
    let mut rig = Rig::connected();
    tells(&mut rig);
    rig.respond(&Method::Invite, 488, "pbx", b"", &[]);
    let version = rig.plans().pop().unwrap().version;
    rig.put(Input::RelayAway);
    rig.put(Input::RelayBack(version));
    tells(&mut rig);
    assert_eq!(reserves(&rig), 3, "one at the beginning, two for pictures");
    answers_by(&mut rig, H264);
    goes_on(rig);
}

#[test]
fn one_that_the_inside_does_not_want_is_refused_and_may_be_tried_again() {
    for status in [200, 488] {
        let mut rig = Rig::connected();
        tells(&mut rig);
        match status {
            200 => answers_by(&mut rig, "m=video 0 RTP/AVP 96\r\n"),
            status => rig.respond(&Method::Invite, status, "pbx", b"", &[]),
        }
        assert!(section(&answers(&rig).pop().unwrap()).starts_with(REFUSED), "{status}");
        assert_eq!((films(&rig), rig.cause()), (vec![], None));
        let again = tells(&mut rig);
        assert!(again.contains("m=video 20010 RTP/AVP 96 98 102\r\n"), "{again}");
        assert_eq!(reserves(&rig), 2, "one at the beginning, one for pictures");
        assert_eq!(again.matches("m=video").count(), 1, "the section that was refused is used again");
        answers_by(&mut rig, H264);
        goes_on(rig);
    }
}

#[test]
fn a_glare_puts_it_off() {
    let mut rig = Rig::connected();
    tells(&mut rig);
    let pending = rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", "")).unwrap();
    assert_eq!(pending.status, 491);
    rig.respond(&Method::Invite, 491, "pbx", b"", &[]);
    let sent = rig.requests(&Method::Invite).len();
    rig.wait(Duration::from_secs(5));
    assert_eq!(rig.requests(&Method::Invite).len(), sent + 1);
    answers_by(&mut rig, H264);
    goes_on(rig);
}

#[test]
fn without_ports_without_an_answer_or_without_a_relay_it_stays_a_call_of_sound() {
    let refused = |rig: &Rig| {
        assert!(section(&answers(rig).pop().unwrap()).starts_with(REFUSED));
        assert_eq!((films(rig), rig.cause()), (vec![], None));
    };
    let mut rig = Rig::connected();
    adds(&mut rig);
    rig.put(Input::Refused(Refusal::NoPorts));
    refused(&rig);
    rig.finish();
    let mut rig = Rig::connected();
    tells(&mut rig);
    rig.respond(&Method::Invite, 180, "pbx", b"", &[]);
    let text = offer(rig.browser.local_credentials(), FILM);
    assert_eq!(rig.call.renegotiate(&text, rig.now), Err(AcceptError::Offer(OfferError::Pending)));
    rig.wait(Duration::from_secs(21));
    refused(&rig);
    // It comes too late: the inside is told that there is none after all.
    answers_by(&mut rig, H264);
    refused(&rig);
    let away = |rig: &Rig| String::from_utf8(rig.requests(&Method::Invite).pop().unwrap().1.body).unwrap();
    assert!(section(&away(&rig)).starts_with(REFUSED), "{}", away(&rig));
    let sent = rig.requests(&Method::Invite).len();
    rig.respond(&Method::Invite, 491, "pbx", b"", &[]);
    rig.wait(Duration::from_secs(5));
    assert_eq!(rig.requests(&Method::Invite).len(), sent + 1, "after a glare once more");
    assert!(section(&away(&rig)).starts_with(REFUSED));
    rig.respond(&Method::Invite, 488, "pbx", b"", &[]);
    rig.wait(Duration::from_secs(60));
    assert_eq!(
        rig.requests(&Method::Invite).len(),
        sent + 1,
        "who does not want to hear it is not told again"
    );
    // And may be tried again.
    tells(&mut rig);
    answers_by(&mut rig, H264);
    goes_on(rig);
    let mut rig = Rig::connected();
    adds(&mut rig);
    rig.put(Input::RelayAway);
    refused(&rig);
    rig.put(Input::RelayBack(rig.plans().pop().unwrap().version));
    rig.finish();
    // The end of the call is the end of it.
    let mut rig = Rig::connected();
    tells(&mut rig);
    assert_eq!(rig.ask(Method::Bye, "pbx", b"").unwrap().status, 200);
    assert_eq!(rig.cause(), Some(EndCause::RemoteHangUp));
    rig.respond(&Method::Invite, 487, "pbx", b"", &[]);
    rig.is_over();
}

#[test]
fn sound_that_is_held_at_once_is_told_with_it() {
    let mut rig = Rig::connected();
    let text = offer(rig.browser.local_credentials(), FILM).replacen("a=sendrecv", "a=sendonly", 1);
    rig.call.renegotiate(&text, rig.now).unwrap();
    rig.drain();
    let held = String::from_utf8(rig.requests(&Method::Invite).pop().unwrap().1.body).unwrap();
    assert!(held.contains("a=sendonly") && !held.contains("m=video"), "{held}");
    give_ports(&mut rig);
    answers_by(&mut rig, "a=recvonly\r\n");
    let told = String::from_utf8(rig.requests(&Method::Invite).pop().unwrap().1.body).unwrap();
    assert!(told.contains("a=sendonly") && told.contains("m=video 20010"), "{told}");
    answers_by(&mut rig, &format!("a=recvonly\r\n{H264}"));
    assert_eq!(films(&rig), [Mute::Open, Mute::Open]);
    rig.finish();
}
