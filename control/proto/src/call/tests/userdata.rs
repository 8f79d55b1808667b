//! Digits, user data, who calls, and what must not pass.

use std::sync::Arc;

use sallyport_plan::{Digits, Format, PtMap};

use super::super::plan::{INWARD, OUTWARD};
use super::{FINGERPRINT, INVITE, Rig, invite, sdp, settings};
use crate::api::{CallEvent, Command, EndCause, Input};
use crate::settings::{Assertion, Dtmf, Settings};
use crate::sip::{Method, Response};

fn info(rig: &mut Rig, kind: &str, body: &str) -> Response {
    rig.ask_with(Method::Info, "pbx", body.as_bytes(), Some(kind), &[]).unwrap()
}

#[test]
fn digits_of_the_far_end_are_told() {
    let mut rig = Rig::connected();
    for (kind, body, expected) in [
        ("application/dtmf-relay", "Signal=5\r\nDuration=200\r\n", Some(('5', 200))),
        ("Application/DTMF-Relay; x=y", "duration = 90\nsignal = a", Some(('A', 90))),
        ("application/dtmf-relay", "Signal=*", Some(('*', 160))),
        ("application/dtmf-relay", "Signal=11", Some(('#', 160))),
        ("application/dtmf", "7\r\n", Some(('7', 160))),
        ("application/dtmf-relay", "Signal=E", None),
        ("application/dtmf-relay", "Duration=5", None),
        ("application/dtmf-relay", "Signal=5\r\nDuration=x", None),
        ("application/dtmf", "77", None),
        ("application/dtmf", "\u{fc}", None),
    ] {
        let before = rig.events().len();
        let status = info(&mut rig, kind, body).status;
        assert_eq!(status, if expected.is_some() { 200 } else { 400 }, "{body}");
        let told = rig.events()[before..].to_vec();
        let expected = expected.map(|(digit, duration)| CallEvent::Dtmf { digit, duration });
        assert_eq!(told, expected.into_iter().collect::<Vec<_>>());
    }
    rig.finish();
}

/// A call that runs, whose inside answered with these formats.
fn by(dtmf: Dtmf, formats: &str) -> Rig {
    let mut settings = Settings::clone(&settings("secret"));
    settings.sip.policy.dtmf = dtmf;
    let mut rig = Rig::with(Arc::new(settings), "");
    rig.reserve();
    rig.ring();
    rig.pick_up(formats);
    rig.connect();
    rig.installed();
    rig.keys(FINGERPRINT);
    rig.installed();
    rig.obedient = true;
    rig
}

#[test]
fn digits_of_the_browser_go_inside_as_it_is_configured_and_can_be() {
    let event = |map: &PtMap| matches!(map.format, Format::Event { .. });
    for (dtmf, formats, offered, inward, outward) in [
        (Dtmf::Auto, "0 101", true, Some(Digits::Pass), true),
        (Dtmf::Auto, "0", true, Some(Digits::Tell), false),
        (Dtmf::Rfc4733, "0 101", true, Some(Digits::Pass), true),
        (Dtmf::Rfc4733, "0", true, None, false),
        (Dtmf::Info, "0", false, Some(Digits::Tell), false),
        (Dtmf::Both, "0 101", true, Some(Digits::PassAndTell), true),
        (Dtmf::Both, "0", true, Some(Digits::Tell), false),
    ] {
        let rig = by(dtmf, formats);
        let what = format!("{dtmf:?}, {formats}");
        let (_, invite) = rig.requests(&Method::Invite).remove(0);
        let text = String::from_utf8(invite.body).unwrap();
        assert_eq!(text.contains("telephone-event/8000"), offered, "{what}");
        assert_eq!(rig.answer().unwrap().contains("telephone-event"), inward.is_some(), "{what}");
        let plan = rig.plans().pop().unwrap();
        let [to, from] = &plan.directions[..] else { panic!("{plan:?}") };
        assert_eq!(to.payload_types.iter().any(event), inward.is_some(), "{what}");
        assert_eq!(from.payload_types.iter().any(event), outward, "{what}");
        let told = if outward { Digits::PassAndTell } else { Digits::Pass };
        assert_eq!((to.digits, from.digits), (inward.unwrap_or(Digits::Pass), told), "{what}");
        rig.finish();
    }
}

#[test]
fn digits_of_the_browser_go_by_info_while_the_inside_is_on_hold() {
    let mut rig = by(Dtmf::Auto, "0 101");
    assert_eq!(
        rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", "a=sendonly\r\n")).unwrap().status,
        200
    );
    assert_eq!(rig.plans().pop().unwrap().directions[0].digits, Digits::Tell);
    assert_eq!(rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", "")).unwrap().status, 200);
    assert_eq!(rig.plans().pop().unwrap().directions[0].digits, Digits::Pass);
    rig.finish();
}

#[test]
fn a_digit_that_the_relay_heard_goes_by_info_one_behind_the_other() {
    let mut rig = by(Dtmf::Info, "0");
    for (event, duration) in [(5, 120), (11, 10), (16, 100), (15, 8000)] {
        rig.put(Input::Digit { direction: INWARD, event, duration });
    }
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let (_, request) = rig.requests(&Method::Info).pop().unwrap();
        assert_eq!(request.content_type.as_deref(), Some("application/dtmf-relay"));
        bodies.push(String::from_utf8(request.body).unwrap());
        rig.respond(&Method::Info, 200, "pbx", b"", &[]);
    }
    let body = |digit: char, duration: u16| format!("Signal={digit}\r\nDuration={duration}\r\n");
    assert_eq!(bodies, [body('5', 120), body('#', 40), body('D', 8000)], "flash is no digit");
    rig.finish();
}

#[test]
fn user_data_passes_by_its_type_and_length() {
    let mut rig = Rig::connected();
    assert_eq!(info(&mut rig, "application/json; charset=utf-8", "{}").status, 200);
    let expected =
        CallEvent::Info { content_type: "application/json; charset=utf-8".into(), body: b"{}".to_vec() };
    assert_eq!(rig.events().pop(), Some(expected));
    let other = info(&mut rig, "application/media_control+xml", "<x/>");
    let accept = other.header("Accept").next().unwrap();
    assert!(other.status == 415 && accept.contains("application/json"), "{accept}");
    assert_eq!(info(&mut rig, "application/json", &"x".repeat(8193)).status, 413);
    let package = rig.ask_with(Method::Info, "pbx", b"x", None, &[("Info-Package", "foo")]).unwrap();
    assert_eq!((package.status, package.header("Recv-Info").next()), (469, Some("")));
    assert_eq!(rig.ask(Method::Info, "pbx", b"").unwrap().status, 200);
    for (kind, body) in
        [("text/html", vec![1]), ("application/json\r\nX: y", vec![1]), ("application/json", vec![0; 9000])]
    {
        rig.put(Input::Info { content_type: kind.into(), body });
    }
    assert!(rig.requests(&Method::Info).is_empty(), "nor does it from here");
    rig.put(Input::Info { content_type: "application/json".into(), body: b"[]".to_vec() });
    let (_, request) = rig.requests(&Method::Info).pop().unwrap();
    assert_eq!(
        (request.content_type.as_deref(), request.body.as_slice()),
        (Some("application/json"), &b"[]"[..])
    );
    rig.respond(&Method::Info, 500, "pbx", b"", &[]);
    assert_eq!(rig.cause(), None);
    rig.finish();
}

#[test]
fn digits_go_one_behind_the_other() {
    let mut rig = by(Dtmf::Info, "0");
    rig.put(Input::Dtmf { digits: "1x#".into(), duration: 100 });
    rig.put(Input::Dtmf { digits: "d".into(), duration: 50 });
    let bodies = |rig: &Rig| -> Vec<String> {
        let all = rig.requests(&Method::Info);
        all.into_iter().map(|(_, request)| String::from_utf8(request.body).unwrap()).collect()
    };
    assert_eq!(bodies(&rig), ["Signal=1\r\nDuration=100\r\n"]);
    rig.respond(&Method::Info, 200, "pbx", b"", &[]);
    rig.respond(&Method::Info, 415, "pbx", b"", &[]);
    assert_eq!(bodies(&rig)[1..], ["Signal=#\r\nDuration=100\r\n", "Signal=D\r\nDuration=50\r\n"]);
    rig.respond(&Method::Info, 481, "pbx", b"", &[]);
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))));
    rig.is_over();
}

/// Digits that the relay was asked to send.
fn dialled(rig: &Rig) -> Vec<(u8, u16)> {
    let all = rig.done.iter().filter_map(|command| match command {
        Command::Dial { direction: INWARD, digits } => Some(digits.clone()),
        _ => None,
    });
    all.flatten().collect()
}

#[test]
fn digits_of_the_api_go_by_the_way_that_the_inside_takes() {
    let asked = [(1, 100), (11, 100)];
    for (dtmf, formats, events, infos) in [
        (Dtmf::Auto, "0 101", true, 0),
        (Dtmf::Auto, "0", false, 1),
        (Dtmf::Rfc4733, "0 101", true, 0),
        (Dtmf::Rfc4733, "0", false, 1),
        (Dtmf::Info, "0 101", false, 1),
        (Dtmf::Both, "0 101", true, 1),
        (Dtmf::Both, "0", false, 1),
    ] {
        let mut rig = by(dtmf, formats);
        rig.put(Input::Dtmf { digits: "1x#".into(), duration: 100 });
        let what = format!("{dtmf:?}, {formats}");
        assert_eq!(dialled(&rig), if events { &asked[..] } else { &[] }, "{what}");
        assert_eq!(rig.requests(&Method::Info).len(), infos, "{what}");
        rig.finish();
    }
    // By INFO while it does not listen, or the relay is away.
    let mut rig = by(Dtmf::Auto, "0 101");
    rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", "a=sendonly\r\n")).unwrap();
    rig.put(Input::Dtmf { digits: "1".into(), duration: 100 });
    rig.respond(&Method::Info, 200, "pbx", b"", &[]);
    rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", "")).unwrap();
    rig.put(Input::RelayAway);
    rig.put(Input::Dtmf { digits: "2".into(), duration: 100 });
    assert_eq!((dialled(&rig).len(), rig.requests(&Method::Info).len()), (0, 2));
    rig.put(Input::RelayBack(rig.plans().pop().unwrap().version));
    rig.put(Input::Dtmf { digits: "3".repeat(100), duration: 100 });
    assert_eq!(dialled(&rig).len(), 64, "so many at once");
    rig.finish();
}

#[test]
fn a_digit_of_the_far_end_is_told_once_whichever_way_it_comes() {
    let mut rig = by(Dtmf::Auto, "0 101");
    let event = |event| Input::Digit { direction: OUTWARD, event, duration: 100 };
    let by_info = |rig: &mut Rig, digit| {
        let body = format!("Signal={digit}\r\nDuration=120\r\n");
        assert_eq!(info(rig, "application/dtmf-relay", &body).status, 200);
    };
    let before = rig.events().len();
    rig.put(event(1));
    rig.put(event(1));
    rig.put(event(10));
    rig.put(event(16));
    assert_eq!(rig.requests(&Method::Info).len(), 0, "they are none of the browser's");
    by_info(&mut rig, '1');
    by_info(&mut rig, '*');
    by_info(&mut rig, '7');
    rig.put(event(7));
    rig.put(event(7));
    let told = |rig: &Rig| -> String {
        let digit = |event: &CallEvent| match event {
            CallEvent::Dtmf { digit, .. } => Some(*digit),
            _ => None,
        };
        rig.events()[before..].iter().filter_map(digit).collect()
    };
    assert_eq!(told(&rig), "11*77");
    // Long after, it is another one.
    rig.wait(std::time::Duration::from_secs(3));
    by_info(&mut rig, '7');
    for _ in 0..100 {
        rig.put(event(0));
    }
    assert_eq!(told(&rig), format!("11*777{}", "0".repeat(100)));
    rig.finish();
}

#[test]
fn a_digit_that_is_pressed_for_long_is_told_once_though_info_comes_when_it_begins() {
    let mut rig = by(Dtmf::Auto, "0 101");
    let before = rig.events().len();
    let told = |rig: &Rig| {
        rig.events()[before..].iter().filter(|event| matches!(event, CallEvent::Dtmf { .. })).count()
    };
    let event = |event, duration| Input::Digit { direction: OUTWARD, event, duration };
    assert_eq!(info(&mut rig, "application/dtmf-relay", "Signal=7\r\nDuration=160\r\n").status, 200);
    rig.wait(std::time::Duration::from_secs(5));
    rig.put(event(7, 5000));
    assert_eq!(told(&rig), 1);
    rig.put(event(7, 5000));
    assert_eq!(told(&rig), 2, "the next press");
    // One of long ago is not that of a short press.
    assert_eq!(info(&mut rig, "application/dtmf-relay", "Signal=8\r\nDuration=160\r\n").status, 200);
    rig.wait(std::time::Duration::from_secs(5));
    rig.put(event(8, 100));
    assert_eq!(told(&rig), 4);
    rig.finish();
}

#[test]
fn many_wishes_at_once_are_bounded() {
    let mut rig = Rig::connected();
    for _ in 0..200 {
        rig.put(Input::Info { content_type: "application/json".into(), body: b"[]".to_vec() });
        rig.put(Input::Dtmf { digits: "123456789".into(), duration: 50 });
    }
    assert!(rig.requests(&Method::Info).len() <= 33);
    rig.finish();
}

#[test]
fn who_calls_is_said_asserted_or_unknown() {
    let asserted = ("P-Asserted-Identity", "\"Boss\" <sip:99@pbx>");
    for (headers, from) in [
        (&[][..], "1000"),
        (&[asserted][..], "99"),
        (&[asserted, ("Privacy", "id")][..], "anonymous"),
        (&[("Privacy", "header; user")][..], "anonymous"),
        (&[("Privacy", "none")][..], "1000"),
        (&[("P-Asserted-Identity", "<tel:+1>")][..], "1000"),
    ] {
        let rig = Rig::incoming(&sdp("10.0.0.9", "0", ""), headers).unwrap();
        assert_eq!(rig.call.view().from, from, "{headers:?}");
        rig.finish();
    }
    let mut settings = (*super::settings("")).clone();
    settings.sip.policy.trust_identity = false;
    let sip = settings.sip.clone();
    let caller = super::super::identity::caller(&invite(b"", &[asserted]), &sip);
    assert_eq!((caller.user.as_str(), caller.display_name.as_str()), ("1000", "Anna"));
    for (assertion, name) in
        [(Assertion::Asserted, "P-Asserted-Identity"), (Assertion::Preferred, "P-Preferred-Identity")]
    {
        settings.sip.policy.assert_identity = assertion;
        let mut rig = Rig::with(settings.clone().into(), "");
        rig.reserve();
        let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
        assert_eq!(invite.header(name).next(), Some("<sip:sallyport@pbx>"));
        rig.finish();
    }
}

#[test]
fn headers_pass_by_their_names_only() {
    let pairs = [("X-Data", "one"), ("x-data", "two"), ("X-Other", "three"), ("X-Data", "a\r\nVia: b")];
    let rig = Rig::incoming(&sdp("10.0.0.9", "0", ""), &pairs).unwrap();
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(rig.call.passed(), own(&pairs[..2]));
    rig.finish();
    let creds = is::IceCreds::new();
    let placing = crate::api::Placing { headers: own(&pairs), ..super::placing() };
    let (seed, now) = (crate::random::Seed([3; 32]), std::time::Instant::now());
    let id = sallyport_plan::CallId(1);
    let mut call =
        super::Call::new(id, super::settings(""), seed, placing, now, 0, &super::offer(&creds, "")).unwrap();
    let ports = sallyport_plan::PortPair {
        rtp: super::address("10.0.0.1:20000"),
        rtcp: super::address("10.0.0.1:20001"),
    };
    call.handle(now, Input::Reserved(vec![ports]));
    let mut sent = std::iter::from_fn(|| call.poll_command());
    let invite = sent.find_map(|command| match command {
        Command::Sip { request, .. } => Some(request),
        _ => None,
    });
    let invite = invite.unwrap();
    assert_eq!(invite.header("X-Data").collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(invite.header("X-Other").count(), 0);
}

/// All that a browser hears in a call with a hold, a transfer, digits and an end holds no address, host or name of the
/// inside.
#[test]
fn nothing_of_the_inside_is_told_outside() {
    for start in [Rig::connected as fn() -> Rig, Rig::called] {
        let mut rig = start();
        rig.ask(Method::Invite, "pbx", &sdp("10.0.0.77", "0 101", "a=sendonly\r\n"));
        rig.turn("sendonly");
        let (transaction, _) = rig.requests(&Method::Invite).pop().unwrap_or((INVITE, invite(b"", &[])));
        rig.put(Input::SipTimeout(transaction));
        info(&mut rig, "application/dtmf", "7");
        rig.ask_with(Method::Refer, "pbx", b"", None, &[("Refer-To", "<sip:secret@10.0.0.8>")]);
        rig.put(Input::HangUp);
        let said = rig.done.iter().filter_map(|command| match command {
            Command::Answer(text) | Command::Renegotiated(text) => Some(text.clone()),
            Command::Fail(failure) => Some(failure.text.clone()),
            Command::Notify(CallEvent::Ended { cause }) => Some(format!("{} {}", cause.name(), cause.text())),
            Command::Notify(event) => Some(format!("{event:?}")),
            _ => None,
        });
        let dialog = &rig.call.inside.dialog;
        let secrets = ["10.0.0.", "sip:", "pbx", "secret", dialog.call_id.as_str(), dialog.local_tag()];
        for text in said {
            for secret in secrets {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
        }
        rig.is_over();
    }
    // What an answer that makes no sense is called has none of it either.
    let mut rig = Rig::new();
    rig.reserve();
    let odd = String::from_utf8(sdp("10.0.0.5", "0", "")).unwrap().replace("RTP/AVP", "RTP/10.0.0.5");
    rig.respond(&Method::Invite, 200, "pbx", odd.as_bytes(), &[]);
    let failure = rig.failure().unwrap();
    assert!(!failure.text.contains("10.0.0."), "{}", failure.text);
    rig.is_over();
}
