//! Transfers from either side: REFER, NOTIFY, Replaces.

use std::time::Duration;

use super::{Rig, invite, sdp};
use crate::api::{CallEvent, Command, EndCause, Input, Replaces, Transfer};
use crate::sip::{Dialog, Method, Request, Response};
use crate::wanted;

fn to(user: &str) -> Input {
    Input::Transfer(Transfer::To(user.into()))
}

/// The far end says how far it is; what it is answered.
fn notify(rig: &mut Rig, fragment: &str, state: &str) -> u16 {
    let headers = [("Event", "refer"), ("Subscription-State", state)];
    let kind = Some("message/sipfrag;version=2.0");
    rig.ask_with(Method::Notify, "pbx", fragment.as_bytes(), kind, &headers).unwrap().status
}

fn transfers(rig: &Rig) -> Vec<u16> {
    let of = |event: CallEvent| match event {
        CallEvent::Transfer { status } => Some(status),
        _ => None,
    };
    rig.events().into_iter().filter_map(of).collect()
}

#[test]
fn a_blind_transfer_is_told_step_by_step_and_ends_our_part() {
    for start in [Rig::connected as fn() -> Rig, Rig::called] {
        let mut rig = start();
        rig.put(to("1002"));
        rig.put(to("1003"));
        let refers = rig.requests(&Method::Refer);
        assert_eq!(refers.len(), 1, "one at a time");
        let refer = &refers[0].1;
        assert_eq!(refer.header("Refer-To").next(), Some("<sip:1002@pbx>"));
        assert!(refer.contact.is_some() && refer.header("Referred-By").next().is_some());
        assert_eq!(notify(&mut rig, "SIP/2.0 100 Trying\r\n", "active;expires=60"), 200);
        rig.respond(&Method::Refer, 202, "pbx", b"", &[]);
        assert_eq!(notify(&mut rig, "SIP/2.0 180 Ringing", "active;expires=60"), 200);
        assert_eq!(rig.cause(), None);
        assert_eq!(notify(&mut rig, "SIP/2.0 200 OK", "terminated;reason=noresource"), 200);
        assert_eq!((transfers(&rig), rig.cause()), (vec![100, 180, 200], Some(EndCause::Transferred)));
        let last: Vec<&Command> = rig
            .done
            .iter()
            .filter(|command| matches!(command, Command::SipReply { .. } | Command::Sip { .. }))
            .collect();
        assert!(
            matches!(last[last.len() - 2..], [Command::SipReply { .. }, Command::Sip { .. }]),
            "first the 200, then the BYE"
        );
        rig.is_over();
    }
}

#[test]
fn a_transfer_that_fails_leaves_the_call() {
    let mut rig = Rig::connected();
    rig.put(to("1002"));
    rig.respond(&Method::Refer, 603, "pbx", b"", &[]);
    rig.put(to("1002"));
    rig.respond(&Method::Refer, 202, "pbx", b"", &[]);
    assert_eq!(notify(&mut rig, "SIP/2.0 486 Busy Here", "terminated;reason=noresource"), 200);
    assert_eq!(notify(&mut rig, "SIP/2.0 486 Busy Here", "terminated"), 481, "it is over");
    rig.put(to("1002"));
    rig.respond(&Method::Refer, 202, "pbx", b"", &[]);
    assert_eq!(notify(&mut rig, "hello", "active"), 400);
    assert_eq!(notify(&mut rig, "", "active"), 200);
    assert_eq!(notify(&mut rig, "", "terminated;reason=rejected"), 200);
    rig.put(to("not a user"));
    assert_eq!((transfers(&rig), rig.cause()), (vec![603, 486, 603, 404], None));
    rig.put(to("1002"));
    rig.respond(&Method::Refer, 481, "pbx", b"", &[]);
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))));
    rig.is_over();
}

#[test]
fn a_transfer_that_nobody_tells_of_is_over_some_time() {
    let mut rig = Rig::connected();
    rig.put(to("1002"));
    rig.respond(&Method::Refer, 202, "pbx", b"", &[]);
    rig.wait(Duration::from_secs(181));
    assert_eq!((transfers(&rig), rig.cause()), (vec![408], None));
    assert_eq!(notify(&mut rig, "SIP/2.0 200 OK", "terminated"), 481);
    rig.put(to("1002"));
    assert_eq!(rig.requests(&Method::Refer).len(), 2);
    rig.finish();
}

#[test]
fn a_challenged_refer_is_sent_again() {
    let mut rig = Rig::connected();
    rig.put(to("1002"));
    let ask = [("Proxy-Authenticate", "Digest realm=\"pbx\", nonce=\"n2\", qop=\"auth\"")];
    rig.respond(&Method::Refer, 407, "pbx", b"", &ask);
    let refers = rig.requests(&Method::Refer);
    let (first, second) = (&refers[0].1, &refers[1].1);
    assert_eq!((second.cseq, second.header("Proxy-Authorization").count()), (first.cseq + 1, 1));
    assert_eq!(second.header("Refer-To").next(), Some("<sip:1002@pbx>"));
    rig.respond(&Method::Refer, 407, "pbx", b"", &ask);
    assert_eq!((rig.requests(&Method::Refer).len(), transfers(&rig)), (2, vec![407]));
    rig.finish();
}

#[test]
fn an_attended_transfer_names_the_other_dialog_as_its_far_end_sees_it() {
    let (mut rig, other) = (Rig::connected(), Rig::called());
    let replaces = other.call.replaces().unwrap();
    let dialog = &other.call.inside.dialog;
    let expected = Replaces {
        uri: "sip:anna@10.0.0.9".into(),
        call_id: "c1".into(),
        to_tag: "pbx".into(),
        from_tag: dialog.local_tag().into(),
    };
    assert_eq!(replaces, expected);
    rig.put(Input::Transfer(Transfer::Onto(replaces)));
    let (_, refer) = rig.requests(&Method::Refer).pop().unwrap();
    let expected =
        format!("<sip:anna@10.0.0.9?Replaces=c1%3Bto-tag%3Dpbx%3Bfrom-tag%3D{}>", dialog.local_tag());
    assert_eq!(refer.header("Refer-To").next(), Some(expected.as_str()));
    other.finish();
    rig.finish();
    assert_eq!(Rig::new().call.replaces(), None);
}

#[test]
fn other_events_are_refused_and_wishes_of_the_server_are_told() {
    let mut rig = Rig::connected();
    let ask = |rig: &mut Rig, event: &str| {
        rig.ask_with(Method::Notify, "pbx", b"", None, &[("Event", event)]).unwrap()
    };
    let unknown = ask(&mut rig, "presence");
    assert_eq!((unknown.status, unknown.header("Allow-Events").next()), (489, Some("refer, talk, hold")));
    assert_eq!(ask(&mut rig, "refer;id=3").status, 481, "we asked for none");
    assert_eq!((ask(&mut rig, "talk").status, ask(&mut rig, "Hold").status), (200, 200));
    assert_eq!(rig.names()[3..], ["talk", "hold"]);
    rig.finish();
}

// --- the far end transfers

fn refer(rig: &mut Rig, refer_to: &str) -> Response {
    rig.ask_with(Method::Refer, "pbx", b"", None, &[("Refer-To", refer_to)]).unwrap()
}

/// Fragments of our NOTIFYs and whether each ends the subscription.
fn progress(rig: &Rig) -> Vec<(String, bool)> {
    let of = |request: &Request| {
        let text = String::from_utf8(request.body.clone()).unwrap();
        let over = request.header("Subscription-State").next().unwrap().starts_with("terminated");
        (text.split(' ').nth(1).unwrap().to_owned(), over)
    };
    rig.requests(&Method::Notify).iter().map(|(_, request)| of(request)).collect()
}

fn told(rig: &Rig) -> Vec<String> {
    progress(rig).into_iter().map(|(status, _)| status).collect()
}

#[test]
fn a_far_end_that_transfers_us_is_left_behind_the_browser_s_one_answer() {
    for start in [Rig::connected as fn() -> Rig, Rig::called] {
        let mut rig = start();
        let old = rig.call.inside.dialog.clone();
        let accepted = refer(&mut rig, "<sip:1002@10.0.0.8;transport=udp>");
        assert_eq!(accepted.status, 202);
        assert_eq!(refer(&mut rig, "<sip:1003@10.0.0.8>").status, 491);
        let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
        assert_eq!((invite.uri.as_str(), invite.cseq), ("sip:1002@10.0.0.8;transport=udp", 1));
        assert_ne!(invite.call_id, old.call_id);
        assert!(invite.from.ends_with(&format!(";tag={}-1", old.local_tag())) && invite.route.is_empty());
        assert_eq!(invite.header("Referred-By").next(), Some("<sip:1000@pbx>"));
        assert!(rig.call.has_call_id(&invite.call_id) && rig.call.has_call_id(&old.call_id));
        rig.respond(&Method::Invite, 180, "new", b"", &[]);
        rig.respond(&Method::Invite, 180, "new", b"", &[]);
        let plans = rig.plans().len();
        rig.respond(&Method::Invite, 200, "new", &sdp("10.0.0.8", "8 0 101", ""), &[]);
        assert_eq!(rig.acks().pop().unwrap().call_id, invite.call_id);
        let expected = [("100", false), ("180", false), ("200", true)];
        assert_eq!(progress(&rig), expected.map(|(status, over)| (status.to_owned(), over)));
        assert!(rig.requests(&Method::Notify).iter().all(|(_, notify)| notify.call_id == old.call_id));
        assert_eq!(rig.plans().len(), plans + 1);
        let plan = rig.plans().pop().unwrap();
        assert_eq!(plan.directions[0].rtp.remote.to_string(), "10.0.0.8:30000");
        rig.installed();
        // Who transferred us leaves.
        assert_eq!(rig.ask_in(&old, (Method::Options, "pbx"), b"", None, &[]).unwrap().status, 481);
        assert_eq!(rig.ask_in(&old, (Method::Bye, "pbx"), b"", None, &[]).unwrap().status, 200);
        rig.wait(Duration::from_secs(10));
        assert_eq!((rig.cause(), rig.requests(&Method::Bye).len()), (None, 0));
        // The new one holds, and hangs up.
        rig.remote_cseq = 0;
        let hold = sdp("10.0.0.8", "0", "a=sendonly\r\n");
        assert_eq!(rig.ask(Method::Invite, "new", &hold).unwrap().status, 200);
        assert_eq!(rig.names().last(), Some(&"held"));
        assert_eq!(rig.ask(Method::Bye, "new", b"").unwrap().status, 200);
        assert_eq!(rig.cause(), Some(EndCause::RemoteHangUp));
        assert_eq!(rig.done.iter().filter(|command| matches!(command, Command::Answer(_))).count(), 1);
        rig.is_over();
    }
}

#[test]
fn who_transferred_us_and_stays_gets_a_bye() {
    let mut rig = Rig::connected();
    let old = rig.call.inside.dialog.call_id.clone();
    refer(&mut rig, "<sip:1002@10.0.0.8>");
    rig.respond(&Method::Invite, 200, "new", &sdp("10.0.0.8", "0", ""), &[]);
    rig.wait(Duration::from_secs(6));
    let byes = rig.requests(&Method::Bye);
    assert_eq!((byes.len(), byes[0].1.call_id.as_str()), (1, old.as_str()));
    assert_eq!(rig.cause(), None);
    // A late answer of the former dialog is none of the new one's.
    rig.respond(&Method::Notify, 481, "pbx", b"", &[]);
    assert_eq!(rig.cause(), None);
    rig.installed();
    rig.finish();
}

#[test]
fn who_leaves_at_once_leaves_us_to_the_one_that_we_call() {
    for answered in [true, false] {
        let mut rig = Rig::connected();
        refer(&mut rig, "<sip:1002@10.0.0.8>");
        rig.respond(&Method::Invite, 180, "new", b"", &[]);
        assert_eq!(rig.ask(Method::Bye, "pbx", b"").unwrap().status, 200);
        assert_eq!(rig.cause(), None, "the browser waits for the other one");
        rig.turn("sendonly");
        if answered {
            rig.respond(&Method::Invite, 200, "new", &sdp("10.0.0.8", "0", ""), &[]);
            assert_eq!(rig.cause(), None);
            assert_eq!(told(&rig), ["100", "180"], "nobody is there to be told");
            rig.installed();
            rig.finish();
        } else {
            rig.respond(&Method::Invite, 486, "new", b"", &[]);
            assert_eq!(rig.cause(), Some(EndCause::Rejected(486)));
            assert!(rig.requests(&Method::Bye).is_empty());
            rig.is_over();
        }
    }
}

#[test]
fn a_transfer_that_comes_to_nothing_leaves_the_call_as_it_was() {
    let mut rig = Rig::connected();
    let (plans, old) = (rig.plans().len(), rig.call.inside.dialog.call_id.clone());
    refer(&mut rig, "<sip:1002@10.0.0.8>");
    rig.respond(&Method::Invite, 486, "new", b"", &[]);
    assert_eq!(told(&rig), ["100", "486"]);
    // Another try rings, and nobody answers.
    refer(&mut rig, "<sip:1002@10.0.0.8>");
    let notify = rig.requests(&Method::Notify).pop().unwrap().1;
    assert!(notify.header("Event").next().unwrap().starts_with("refer;id="));
    rig.respond(&Method::Invite, 180, "new", b"", &[]);
    rig.wait(Duration::from_secs(61));
    assert_eq!(rig.cancels(), 1);
    rig.respond(&Method::Invite, 487, "new", b"", &[]);
    // Another answers with another codec: it hears a BYE.
    refer(&mut rig, "<sip:1002@10.0.0.8>");
    rig.respond(&Method::Invite, 200, "new", &sdp("10.0.0.8", "8", ""), &[]);
    let byes = rig.requests(&Method::Bye);
    assert!(byes.len() == 1 && byes[0].1.call_id != old);
    assert_eq!(told(&rig)[2..], ["100", "180", "487", "100", "488"]);
    // And another cannot be reached.
    refer(&mut rig, "<sip:1002@10.0.0.8>");
    let (transaction, _) = rig.requests(&Method::Invite).pop().unwrap();
    rig.put(Input::SipTransportError(transaction));
    assert_eq!((rig.cause(), rig.plans().len()), (None, plans));
    assert_eq!(rig.call.inside.dialog.call_id, old);
    rig.finish();
}

#[test]
fn a_transfer_under_way_ends_with_the_call() {
    for answers in [true, false] {
        let mut rig = Rig::connected();
        refer(&mut rig, "<sip:1002@10.0.0.8>");
        rig.respond(&Method::Invite, 180, "new", b"", &[]);
        rig.put(Input::HangUp);
        assert_eq!((rig.cancels(), rig.requests(&Method::Bye).len()), (1, 1));
        rig.respond(&Method::Bye, 200, "pbx", b"", &[]);
        if answers {
            rig.respond(&Method::Invite, 200, "new", &sdp("10.0.0.8", "0", ""), &[]);
            assert_eq!(rig.requests(&Method::Bye).len(), 2, "an answer that crosses the CANCEL");
        } else {
            rig.respond(&Method::Invite, 487, "new", b"", &[]);
            assert!(matches!(rig.done.last(), Some(Command::Ended)));
        }
        rig.is_over();
    }
}

#[test]
fn a_refer_that_we_do_not_follow_gets_its_status() {
    let mut rig = Rig::connected();
    for (headers, expected) in [
        (&[][..], 400),
        (&[("Refer-To", "<sip:a@b>"), ("Refer-To", "<sip:c@d>")][..], 400),
        (&[("Refer-To", "<tel:+1>")][..], 603),
        (&[("Refer-To", "<sip:a@b;method=BYE>")][..], 603),
        (&[("Refer-To", "<sip:a@b?Replaces=x%0d%0a>")][..], 603),
    ] {
        let status = rig.ask_with(Method::Refer, "pbx", b"", None, headers).unwrap().status;
        assert_eq!(status, expected, "{headers:?}");
    }
    assert_eq!(rig.requests(&Method::Invite).len(), 1);
    rig.finish();
}

#[test]
fn the_one_who_was_called_for_a_transfer_may_hear_whom_to_replace_and_ask_for_a_prack() {
    let mut rig = Rig::connected();
    let refer_to = "<sip:1002@10.0.0.8?Replaces=x%40y%3Bto-tag%3D1%3Bfrom-tag%3D2>";
    let headers = [("Refer-To", refer_to), ("Referred-By", "<sip:boss@pbx>")];
    rig.ask_with(Method::Refer, "pbx", b"", None, &headers);
    let (_, invite) = rig.requests(&Method::Invite).pop().unwrap();
    assert_eq!(invite.header("Replaces").next(), Some("x@y;to-tag=1;from-tag=2"));
    assert_eq!(invite.header("Referred-By").next(), Some("<sip:boss@pbx>"));
    assert!(invite.lists("Require", "replaces"));
    rig.respond(&Method::Invite, 180, "new", b"", &[("Require", "100rel"), ("RSeq", "1")]);
    assert_eq!(rig.requests(&Method::Prack)[0].1.call_id, invite.call_id);
    rig.respond(&Method::Invite, 401, "new", b"", &[("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n\"")]);
    let (_, again) = rig.requests(&Method::Invite).pop().unwrap();
    assert_eq!((again.call_id, again.cseq), (invite.call_id, 2));
    rig.finish();
}

// --- Replaces

fn replacing(dialog: &Dialog, body: &[u8], early_only: bool) -> Request {
    let tail = if early_only { ";early-only" } else { "" };
    let remote = dialog.remote_tag.clone().unwrap();
    let value = format!("{};to-tag={};from-tag={remote}{tail}", dialog.call_id, dialog.local_tag());
    let request = invite(body, &[("Replaces", &value), ("Supported", "timer")]);
    Request { call_id: "c2".into(), from: "<sip:boss@pbx>;tag=boss".into(), ..request }
}

/// The daemon found the call; what the INVITE is answered.
fn replace(rig: &mut Rig, request: &Request) -> Response {
    let transaction = super::TransactionId(9_000 + u64::from(rig.remote_cseq));
    rig.remote_cseq += 1;
    let wanted = wanted(request).unwrap().unwrap();
    rig.ledger.input(&Input::SipRequest { transaction, request: request.clone() });
    match rig.call.replace(&wanted, transaction, request, rig.now) {
        Ok(()) => {
            rig.drain();
            rig.replies(transaction).pop().unwrap()
        }
        Err(refusal) => {
            let response = *refusal;
            rig.ledger.command(&Command::SipReply { transaction, response: response.clone() });
            response
        }
    }
}

/// Whatever becomes of it.
pub fn try_replace(rig: &mut Rig, body: &[u8]) {
    let dialog = rig.call.inside.dialog.clone();
    let ended = matches!(rig.done.last(), Some(Command::Ended));
    if dialog.remote_tag.is_some() && !ended {
        replace(rig, &Request { from: "<sip:1000@pbx>;tag=pbx".into(), ..replacing(&dialog, body, false) });
    }
}

#[test]
fn an_invite_may_take_the_place_of_the_far_end() {
    for start in [Rig::connected as fn() -> Rig, Rig::called] {
        for late in [false, true] {
            let mut rig = start();
            let old = rig.call.inside.dialog.clone();
            let body =
                if late { Vec::new() } else { sdp("10.0.0.8", "96 0", "a=rtpmap:96 opus/48000/2\r\n") };
            let request = replacing(&old, &body, false);
            let ok = replace(&mut rig, &request);
            assert_eq!(ok.status, 200);
            assert!(ok.to.ends_with(&format!(";tag={}-1", old.local_tag())));
            assert_eq!(ok.header("Session-Expires").next(), Some("1800;refresher=uas"));
            let byes = rig.requests(&Method::Bye);
            assert_eq!((byes.len(), &byes[0].1.call_id), (1, &old.call_id));
            let answer = if late { sdp("10.0.0.8", "0", "") } else { Vec::new() };
            let ack = Request { method: Method::Ack, to: ok.to, body: answer, ..request };
            rig.request(ack);
            let plan = rig.plans().pop().unwrap();
            assert_eq!(plan.directions[0].rtp.remote.to_string(), "10.0.0.8:30000");
            rig.installed();
            rig.remote_cseq = 50;
            assert_eq!(rig.ask(Method::Bye, "boss", b"").unwrap().status, 200);
            assert_eq!(rig.cause(), Some(EndCause::RemoteHangUp));
            rig.is_over();
        }
    }
}

#[test]
fn who_replaces_the_far_end_wins_over_whom_that_sent_us_to() {
    let mut rig = Rig::connected();
    let old = rig.call.inside.dialog.clone();
    refer(&mut rig, "<sip:1002@10.0.0.9>");
    rig.respond(&Method::Invite, 180, "new", b"", &[]);
    let request = replacing(&old, &sdp("10.0.0.8", "0", ""), false);
    let ok = replace(&mut rig, &request);
    assert_eq!((ok.status, rig.cancels()), (200, 1));
    rig.request(Request { method: Method::Ack, to: ok.to, body: Vec::new(), ..request });
    rig.respond(&Method::Invite, 200, "new", &sdp("10.0.0.9", "0", ""), &[]);
    assert_eq!(rig.requests(&Method::Bye).len(), 2, "the former one, and the one that crossed the CANCEL");
    assert_eq!(rig.plans().pop().unwrap().directions[0].rtp.remote.ip().to_string(), "10.0.0.8");
    assert_eq!((rig.cause(), told(&rig)), (None, vec!["100".to_owned(), "180".into()]));
    rig.finish();
}

#[test]
fn an_invite_that_cannot_take_its_place_changes_nothing() {
    let mut rig = Rig::connected();
    let old = rig.call.inside.dialog.clone();
    let body = sdp("10.0.0.8", "0", "");
    let other = Dialog { remote_tag: Some("else".into()), ..old.clone() };
    assert_eq!(replace(&mut rig, &replacing(&other, &body, false)).status, 481);
    assert_eq!(replace(&mut rig, &replacing(&old, &body, true)).status, 486);
    assert_eq!(replace(&mut rig, &replacing(&old, &sdp("10.0.0.8", "8", ""), false)).status, 488);
    assert_eq!(replace(&mut rig, &replacing(&old, &sdp("0.0.0.0", "0", ""), false)).status, 488);
    assert_eq!(rig.call.inside.dialog.call_id, old.call_id);
    for value in ["x", "x;to-tag=1", "x;from-tag=1"] {
        assert_eq!(wanted(&invite(&body, &[("Replaces", value)])).unwrap_err().status, 400, "{value}");
    }
    let twice = [("Replaces", "x;to-tag=1;from-tag=2"), ("Replaces", "x;to-tag=1;from-tag=2")];
    assert_eq!(wanted(&invite(&body, &twice)).unwrap_err().status, 400);
    assert_eq!(wanted(&invite(&body, &[])), Ok(None));
    rig.put(Input::HangUp);
    assert_eq!(replace(&mut rig, &replacing(&old, &body, false)).status, 603);
    rig.is_over();
    let mut rig = Rig::new();
    rig.reserve();
    rig.ring();
    let calling = rig.call.inside.invite.as_ref().unwrap().early[0].dialog.clone();
    assert_eq!(replace(&mut rig, &replacing(&calling, &body, false)).status, 481, "it only rings");
    rig.finish();
}
