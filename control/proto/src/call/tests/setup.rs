//! From the offer to the first word.

use std::time::Duration;

use is::IceCreds;
use sallyport_plan::Refusal;

use super::{FINGERPRINT, Rig, offer, placing, sdp, settings};
use crate::api::{Command, EndCause, Input};
use crate::error::OfferError;
use crate::random::Seed;
use crate::sip::Method;
use crate::{Call, sdp as sdps};

const ASK_PROXY: (&str, &str) = ("Proxy-Authenticate", "Digest realm=\"proxy\", nonce=\"n1\", qop=\"auth\"");
const ASK: (&str, &str) = ("WWW-Authenticate", "Digest realm=\"pbx\", nonce=\"n2\", qop=\"auth\"");

#[test]
fn a_call_goes_from_the_offer_to_the_bye() {
    let mut rig = Rig::connected();
    assert_eq!(rig.names(), ["ringing", "answered", "connected"]);
    assert_eq!((rig.plans().len(), rig.acks().len()), (2, 1));
    assert!(rig.call.outlives_control());
    rig.put(Input::HangUp);
    rig.respond(&Method::Bye, 200, "pbx", b"", &[]);
    assert!(matches!(rig.done.last(), Some(Command::Ended)), "at once, when the BYE is answered");
    rig.is_over();
}

#[test]
fn each_side_may_end_it_in_each_step() {
    type Step = fn(&mut Rig);
    let steps: [Step; 6] = [
        Rig::reserve,
        Rig::ring,
        |rig| rig.pick_up("0 101"),
        Rig::connect,
        Rig::installed,
        |rig| rig.keys(FINGERPRINT),
    ];
    let ends: [fn() -> Input; 8] = [
        || Input::HangUp,
        || Input::Abandoned,
        || Input::RelayLost,
        || Input::RelayAway,
        || Input::Refused(Refusal::NoPorts),
        || Input::DtlsFailed("x".into()),
        || Input::DtlsClosed { returns: false },
        || Input::HangUp,
    ];
    for end in ends {
        for reached in 0..=steps.len() {
            let mut rig = Rig::new();
            steps[..reached].iter().for_each(|step| step(&mut rig));
            rig.put(end());
            rig.is_over();
        }
    }
}

#[test]
fn a_client_that_goes_away_behind_its_answer_ends_the_call() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.pick_up("0");
    assert!(rig.answer().is_some());
    rig.put(Input::Abandoned);
    assert_eq!(rig.cause(), Some(EndCause::Abandoned));
    assert_eq!(rig.requests(&Method::Bye).len(), 1);
    rig.is_over();
}

#[test]
fn a_late_reservation_is_given_back() {
    let mut rig = Rig::new();
    rig.put(Input::HangUp);
    rig.reserve();
    assert!(rig.requests(&Method::Invite).is_empty());
    rig.is_over();
    let mut rig = Rig::new();
    rig.reserve();
    rig.ring();
    rig.put(Input::HangUp);
    let before = rig.removes();
    rig.reserve();
    assert_eq!(rig.removes(), before + 1);
    rig.is_over();
}

#[test]
fn a_proxy_and_the_far_end_may_both_ask() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 407, "p", b"", &[ASK_PROXY]);
    rig.respond(&Method::Invite, 401, "p", b"", &[ASK]);
    let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
    assert_eq!(invite.cseq, 3);
    for name in ["Proxy-Authorization", "Authorization"] {
        assert_eq!(invite.header(name).count(), 1, "{name}");
    }
    rig.pick_up("0");
    let ack = rig.acks().pop().unwrap();
    for name in ["Proxy-Authorization", "Authorization"] {
        assert_eq!(
            ack.header(name).collect::<Vec<_>>(),
            invite.header(name).collect::<Vec<_>>(),
            "the ACK has the INVITE's credentials"
        );
    }
    rig.finish();
}

#[test]
fn a_password_that_is_refused_is_not_tried_again() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 407, "p", b"", &[ASK_PROXY]);
    rig.respond(&Method::Invite, 407, "p", b"", &[ASK_PROXY]);
    assert_eq!(rig.requests(&Method::Invite).len(), 2);
    assert_eq!(rig.failure().map(|failure| failure.cause), Some(EndCause::Rejected(407)));
    rig.is_over();
    let mut rig = Rig::with(settings(""), "");
    rig.reserve();
    rig.respond(&Method::Invite, 401, "p", b"", &[ASK]);
    assert_eq!(rig.requests(&Method::Invite).len(), 1, "without a password nothing is tried");
    rig.is_over();
}

#[test]
fn a_challenged_bye_is_sent_again_with_credentials_once() {
    for again in [200, 401] {
        let mut rig = Rig::connected();
        rig.put(Input::HangUp);
        rig.respond(&Method::Bye, 401, "pbx", b"", &[ASK]);
        let byes = rig.requests(&Method::Bye);
        assert_eq!(byes.len(), 2, "a challenge is no end");
        assert_eq!(
            (byes[0].1.header("Authorization").count(), byes[1].1.header("Authorization").count()),
            (0, 1)
        );
        assert!(byes[1].1.header("Authorization").all(|value| value.contains("uri=\"sip:agent@10.0.0.5\"")));
        assert_eq!(byes[1].1.cseq, byes[0].1.cseq + 1);
        rig.respond(&Method::Bye, again, "pbx", b"", &[ASK]);
        assert_eq!(rig.requests(&Method::Bye).len(), 2);
        assert!(matches!(rig.done.last(), Some(Command::Ended)));
        rig.is_over();
    }
}

#[test]
fn what_cannot_be_used_of_a_provisional_answer_is_passed_over() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 183, "one", &sdp("10.0.0.5", "18", ""), &[]);
    rig.respond(&Method::Invite, 183, "one", &sdp("0.0.0.0", "0", ""), &[]);
    rig.respond(&Method::Invite, 183, "one", b"garbage", &[]);
    assert_eq!((rig.answer(), rig.cause()), (None, None));
    rig.respond(&Method::Invite, 183, "one", &sdp("10.0.0.5", "8", ""), &[]);
    assert!(rig.answer().unwrap().contains("m=audio 9 UDP/TLS/RTP/SAVPF 8 126\r\n"));
    rig.respond(&Method::Invite, 183, "two", &sdp("10.0.0.6", "0", ""), &[]);
    assert_eq!(rig.cause(), None, "another fork with another codec ends nothing");
    rig.respond(&Method::Invite, 200, "two", &sdp("10.0.0.6", "0", ""), &[]);
    assert_eq!(rig.cause(), Some(EndCause::NoCodec), "the browser was told another one");
    rig.is_over();
}

#[test]
fn an_answer_without_an_address_is_none() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.respond(&Method::Invite, 200, "pbx", &sdp("0.0.0.0", "0", ""), &[]);
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))));
    rig.is_over();
}

#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.put(Input::HangUp);
    assert_eq!(rig.cancels(), 0, "not before a provisional answer");
    rig.ring();
    assert_eq!(rig.cancels(), 1);
    rig.pick_up("0");
    assert_eq!((rig.acks().len(), rig.requests(&Method::Bye).len()), (1, 1));
    rig.is_over();
}

#[test]
fn another_fork_s_answer_is_ended_and_a_repeated_one_acknowledged() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.pick_up("0");
    rig.pick_up("0");
    assert_eq!((rig.acks().len(), rig.requests(&Method::Bye).len()), (2, 0));
    rig.respond(&Method::Invite, 200, "fork", &sdp("10.0.0.6", "0", ""), &[]);
    let byes = rig.requests(&Method::Bye);
    assert_eq!((rig.acks().len(), byes.len()), (3, 1));
    assert!(byes[0].1.to.ends_with(";tag=fork"));
    assert_eq!(rig.cause(), None);
    rig.finish();
}

#[test]
fn silence_ends_a_cancelled_invite() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.ring();
    rig.put(Input::HangUp);
    let (transaction, _) = rig.requests(&Method::Invite).pop().unwrap();
    rig.put(Input::SipTimeout(transaction));
    let (_, bye) = rig.requests(&Method::Bye).pop().unwrap();
    assert!(bye.to.ends_with(";tag=pbx"), "who rings is told by a BYE at last: {}", bye.to);
    rig.respond(&Method::Bye, 200, "pbx", b"", &[]);
    assert!(matches!(rig.done.last(), Some(Command::Ended)));
    rig.is_over();
}

#[test]
fn nothing_is_waited_for_without_end() {
    for reached in 0..4 {
        let mut rig = Rig::new();
        if reached > 0 {
            rig.reserve();
        }
        if reached > 1 {
            rig.ring();
        }
        if reached > 2 {
            rig.pick_up("0");
        }
        rig.wait(Duration::from_secs(200));
        assert!(rig.cause().is_some(), "{reached}");
        rig.is_over();
    }
}

#[test]
fn a_user_fragment_that_leaves_no_room_for_ours_is_refused() {
    let long = |length: usize| {
        let creds = IceCreds { ufrag: "a".repeat(length), pass: "0123456789abcdef01234567".into() };
        Call::new(
            sallyport_plan::CallId(1),
            settings(""),
            Seed([1; 32]),
            placing(),
            std::time::Instant::now(),
            0,
            &offer(&creds, ""),
        )
    };
    assert_eq!(long(sdps::UFRAG_MAX + 1).err(), Some(OfferError::LongUfrag));
    assert_eq!(long(256).err(), Some(OfferError::LongUfrag));
    assert_eq!(long(257).err(), Some(OfferError::NoIceCredentials));
    // As long as it may be, checks can be sent.
    let mut rig = Rig::new();
    rig.call = long(sdps::UFRAG_MAX).unwrap();
    rig.reserve();
    rig.pick_up("0");
    let candidate = "candidate:1 1 udp 2130706431 198.51.100.7 40000 typ host".to_owned();
    rig.put(Input::Trickle { ufrag: None, candidates: vec![candidate], end: true });
    rig.wait(Duration::from_secs(1));
    assert!(rig.done.iter().any(|command| matches!(command, Command::Send { .. })));
}
