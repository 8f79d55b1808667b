//! Session timers (RFC 4028).

use std::time::Duration;

use super::{INVITE, Rig, sdp};
use crate::api::EndCause;
use crate::sip::Method;

/// Headers of an INVITE; what its answer says, and whether it requires it.
type Case = (&'static [(&'static str, &'static str)], Option<&'static str>, bool);

const UPDATES: (&str, &str) = ("Allow", "INVITE, ACK, BYE, UPDATE");

fn answered(headers: &[(&str, &str)]) -> Rig {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0", ""), headers);
    rig.connect();
    rig.installed();
    rig.keys(super::FINGERPRINT);
    rig.installed();
    rig.obedient = true;
    rig
}

fn expires(request: &crate::sip::Request) -> &str {
    request.header("Session-Expires").next().unwrap_or_default()
}

#[test]
fn we_refresh_at_half_time_by_update_where_it_is_taken() {
    let mut rig = answered(&[UPDATES, ("Session-Expires", "1800;refresher=uac")]);
    assert_eq!(expires(&rig.requests(&Method::Invite)[0].1), "1800");
    for number in 1..=3 {
        rig.wait(Duration::from_secs(905));
        let updates = rig.requests(&Method::Update);
        assert_eq!((updates.len(), expires(&updates[0].1)), (number, "1800;refresher=uac"));
        assert!(updates[0].1.body.is_empty() && updates[0].1.lists("Supported", "timer"));
        rig.respond(&Method::Update, 200, "pbx", b"", &[("Session-Expires", "1800;refresher=uac")]);
    }
    assert_eq!(rig.cause(), None);
    rig.finish();
}

#[test]
fn else_by_an_invite_that_changes_nothing() {
    for refused in [false, true] {
        let headers = [("Session-Expires", "600;refresher=uac"), UPDATES];
        let mut rig = answered(&headers[..1 + usize::from(refused)]);
        rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0", ""));
        rig.ask_with(Method::Update, "pbx", b"", None, &[("Session-Expires", "600;refresher=uas")]);
        let answer = rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0", "")).unwrap().body;
        rig.ask_with(Method::Update, "pbx", b"", None, &[("Session-Expires", "600;refresher=uas")]);
        rig.wait(Duration::from_secs(301));
        if refused {
            rig.respond(&Method::Update, 501, "pbx", b"", &[]);
        }
        let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
        assert_eq!((invite.cseq > 1, invite.body), (true, answer), "version and all");
        let body = sdp("10.0.0.5", "0", "");
        rig.respond(&Method::Invite, 200, "pbx", &body, &[("Session-Expires", "600;refresher=uac")]);
        rig.wait(Duration::from_secs(299));
        assert_eq!(rig.cause(), None);
        rig.finish();
    }
}

#[test]
fn a_session_that_nobody_refreshes_ends_a_little_before_its_time() {
    let mut rig = answered(&[("Session-Expires", "300;refresher=uas")]);
    rig.wait(Duration::from_secs(200));
    let answer = rig.ask_with(
        Method::Update,
        "pbx",
        b"",
        None,
        &[("Session-Expires", "300;refresher=uac"), ("Supported", "timer")],
    );
    let answer = answer.unwrap();
    assert_eq!(answer.header("Session-Expires").next(), Some("300;refresher=uac"));
    assert!(answer.status == 200 && answer.lists("Require", "timer"));
    rig.wait(Duration::from_secs(267));
    assert_eq!(rig.cause(), None);
    rig.wait(Duration::from_secs(2));
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))));
    assert_eq!(rig.requests(&Method::Bye).len(), 1);
    rig.is_over();
    let mut rig = answered(&[UPDATES, ("Session-Expires", "300;refresher=uac")]);
    rig.wait(Duration::from_secs(151));
    rig.respond(&Method::Update, 503, "pbx", b"", &[]);
    rig.wait(Duration::from_secs(6));
    assert_eq!(rig.requests(&Method::Update).len(), 2, "there is time for another");
    rig.wait(Duration::from_secs(120));
    assert!(rig.cause().is_some());
    rig.is_over();
}

#[test]
fn an_interval_that_is_too_small_for_somebody_is_raised() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 422, "pbx", b"", &[("Min-SE", "3600")]);
    let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
    assert_eq!((invite.cseq, expires(&invite), invite.header("Min-SE").next()), (2, "3600", Some("3600")));
    rig.respond(&Method::Invite, 422, "pbx", b"", &[("Min-SE", "3600")]);
    assert_eq!(rig.cause(), Some(EndCause::Rejected(422)), "that is no reason");
    rig.is_over();
    let brief = [("Session-Expires", "30"), ("Supported", "timer")];
    let refusal = Rig::incoming(&sdp("10.0.0.9", "0", ""), &brief).err().unwrap();
    assert_eq!((refusal.status, refusal.header("Min-SE").next()), (422, Some("90")));
    let mut rig = answered(&[]);
    let refusal = rig.ask_with(Method::Invite, "pbx", &sdp("10.0.0.5", "0", ""), None, &brief).unwrap();
    assert_eq!(refusal.status, 422);
    rig.finish();
}

/// RFC 4028 section 9, table 2.
#[test]
fn an_answer_says_who_refreshes() {
    let cases: [Case; 7] = [
        (&[], None, false),
        (&[("Supported", "timer")], Some("1800;refresher=uas"), false),
        (&[("Session-Expires", "600")], Some("600;refresher=uas"), false),
        (&[("x", "600")], Some("600;refresher=uas"), false),
        (&[("Session-Expires", "600"), ("Supported", "timer")], Some("600;refresher=uac"), true),
        (
            &[("Session-Expires", "600;refresher=uas"), ("Supported", "timer")],
            Some("600;refresher=uas"),
            false,
        ),
        (
            &[("Session-Expires", "600;refresher=uac"), ("Supported", "timer")],
            Some("600;refresher=uac"),
            true,
        ),
    ];
    for (headers, expected, required) in cases {
        let mut rig = Rig::incoming(&sdp("10.0.0.9", "0", ""), headers).unwrap();
        rig.reserve();
        rig.take().unwrap();
        let ok = rig.replies(INVITE).pop().unwrap();
        assert_eq!(ok.header("Session-Expires").next(), expected, "{headers:?}");
        assert_eq!(ok.lists("Require", "timer"), required, "{headers:?}");
        rig.finish();
    }
}

#[test]
fn another_control_goes_on_refreshing() {
    let rig = answered(&[UPDATES, ("Session-Expires", "1800;refresher=uac")]);
    let plan = rig.plans().pop().unwrap();
    let mut next = Rig::restored(&plan, rig.now);
    next.wait(Duration::from_secs(451));
    assert_eq!(next.requests(&Method::Update).len(), 1, "nobody knows when it was refreshed last");
    next.finish();
    rig.finish();
}
