//! The dialog with a recorder: offers and answers in the middle of it, glare, silence, what a next control finds of it.

use std::sync::Arc;
use std::time::Duration;

use sallyport_plan::{Fork, Mute, Plan, PortPair, Refusal};

use super::recording::{both, fork, forks, recorder, takes};
use super::{Rig, address, sdp};
use crate::api::{CallEvent, Command, EndCause, Input, Recorded};
use crate::settings::Settings;
use crate::sip::{Method, Request, Response};

impl Rig {
    /// The recorder asks; what it is answered.
    fn recorder_asks(&mut self, method: Method, body: &[u8]) -> Response {
        self.ask_in(&self.recorders(), (method, "srs"), body, None, &[]).unwrap()
    }

    /// Its ACK to our last 2xx.
    fn recorder_acknowledges(&mut self, body: &[u8]) {
        self.recorder_acknowledges_this(self.remote_cseq, body);
    }

    fn recorder_acknowledges_this(&mut self, cseq: u32, body: &[u8]) {
        let request = Request {
            method: Method::Ack,
            uri: "sip:sallyport@10.0.0.1".into(),
            from: "<sip:srs@10.0.0.66>;tag=srs".into(),
            to: self.recorders().from,
            call_id: self.recorders().call_id,
            cseq,
            route: Vec::new(),
            record_route: Vec::new(),
            contact: None,
            content_type: None,
            headers: Vec::new(),
            body: body.to_vec(),
        };
        assert_eq!(self.request(request), None);
    }

    /// The far end takes another codec, so that the recorder has to be told.
    fn changes_codec(&mut self, formats: &str) {
        self.ask(Method::Invite, "pbx", &sdp("10.0.0.9", formats, ""));
    }

    /// A recorder that has to record, and does.
    fn recorded_by(settings: Arc<Settings>) -> Self {
        let mut rig = Self::invites(settings);
        rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
        rig.come_up_recorded();
        rig
    }

    fn last_plan(&self) -> Plan {
        self.plans().pop().unwrap()
    }

    fn mutes(&self) -> Vec<Mute> {
        self.last_plan().directions.iter().map(|direction| direction.mute).collect()
    }
}

fn text(response: &Response) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

/// The lines of each section.
fn sections(text: &str) -> Vec<Vec<&str>> {
    text.split("m=").skip(1).map(|section| section.lines().collect()).collect()
}

#[test]
fn a_later_change_of_copies_that_the_relay_refuses_costs_the_recording_only() {
    for required in [false, true] {
        let mut rig = Rig::recorded_by(recorder(true, required));
        rig.obedient = false;
        let moved = takes([7000, 7002], "recvonly", "");
        assert_eq!(rig.recorder_asks(Method::Invite, &moved).status, 200);
        rig.put(Input::Refused(Refusal::NotOurs));
        let cause = required.then_some(EndCause::NotRecorded);
        assert_eq!((rig.cause(), rig.told()), (cause, vec![(true, false), (false, true)]));
        assert_eq!(rig.to_recorder(&Method::Bye).len(), 1);
        if required {
            rig.is_over();
        } else {
            assert_eq!(forks(&rig.last_plan()), [None; 2]);
            rig.installed();
            rig.finish();
        }
    }
    // Where it is not the copies that have changed it is not they that are refused.
    let mut rig = Rig::recorded();
    rig.obedient = false;
    rig.changes_codec("0");
    rig.put(Input::Refused(Refusal::Unreachable));
    assert_eq!(rig.cause(), Some(EndCause::Refused(Refusal::Unreachable)));
    rig.is_over();
}

#[test]
fn an_answer_to_the_recorder_has_the_sections_of_its_offer() {
    let mut rig = Rig::recorded();
    let more = "m=audio 6004 RTP/AVP 8\r\nm=video 6006 RTP/SAVPF 96 97\r\n";
    let body = String::from_utf8(takes([0, 6002], "recvonly", more)).unwrap();
    let answer = text(&rig.recorder_asks(Method::Invite, body.replace("RTP/AVP 0", "RTP/AVPF 0").as_bytes()));
    let lines = sections(&answer);
    let heads: Vec<&str> = lines.iter().map(|lines| lines[0]).collect();
    assert_eq!(
        heads,
        ["audio 0 RTP/AVPF 0", "audio 20102 RTP/AVPF 0", "audio 0 RTP/AVP 8", "video 0 RTP/SAVPF 96"]
    );
    assert!(lines[1].contains(&"a=sendonly") && lines[1].contains(&"a=label:2"), "{answer}");
    assert_eq!(forks(&rig.last_plan()), [None, Some(fork(20_102, 6002))]);

    // Offers of ours have them as well from now on.
    rig.changes_codec("0");
    let offer = String::from_utf8(rig.to_recorder(&Method::Invite).pop().unwrap().body).unwrap();
    let heads: Vec<&str> = sections(&offer).iter().map(|lines| lines[0]).collect();
    assert_eq!(
        heads,
        ["audio 20100 RTP/AVP 0", "audio 20102 RTP/AVP 0", "audio 0 RTP/AVP 8", "video 0 RTP/SAVPF 96"]
    );
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", &more.replace(" 600", " 0 ")));
    assert_eq!(forks(&rig.last_plan()), both());

    // It pauses one of the two and takes none back.
    let one = text(&rig.recorder_asks(Method::Update, &paused_first(more)));
    let lines = sections(&one);
    assert!(lines[0].contains(&"a=inactive") && lines[1].contains(&"a=sendonly"), "{one}");
    assert_eq!(forks(&rig.last_plan()), [None, Some(fork(20_102, 6002))]);
    let fewer = rig.recorder_asks(Method::Update, &takes([6000, 6002], "recvonly", ""));
    assert_eq!(fewer.status, 488, "no section goes away");
    let secret =
        String::from_utf8(takes([6000, 6002], "recvonly", more)).unwrap().replace("RTP/AVP", "RTP/SAVP");
    assert_eq!(rig.recorder_asks(Method::Update, secret.as_bytes()).status, 488);
    let many = "m=audio 0 RTP/AVP 0\r\n".repeat(20);
    assert_eq!(rig.recorder_asks(Method::Update, &takes([1, 2], "recvonly", &many)).status, 488);
    assert_eq!(forks(&rig.last_plan()), [None, Some(fork(20_102, 6002))], "a refusal changes nothing");
    rig.finish();
}

fn paused_first(more: &str) -> Vec<u8> {
    String::from_utf8(takes([6000, 6002], "recvonly", more))
        .unwrap()
        .replacen("recvonly", "inactive", 1)
        .into_bytes()
}

#[test]
fn a_description_that_says_the_same_keeps_its_version() {
    let mut rig = Rig::recorded();
    let version = |response: &Response| {
        let text = text(response);
        let words: Vec<&str> = text.lines().nth(1).unwrap().split(' ').collect();
        words[2].to_owned()
    };
    let body = takes([6000, 6002], "recvonly", "");
    let first = rig.recorder_asks(Method::Update, &body);
    let again = rig.recorder_asks(Method::Update, &body);
    assert_eq!(version(&first), version(&again));
    let other = rig.recorder_asks(Method::Update, &takes([6000, 0], "recvonly", ""));
    assert_ne!(version(&again), version(&other));
    rig.finish();
}

#[test]
fn a_later_2xx_moves_the_recorder_and_leaves_the_route_set() {
    let mut rig = Rig::invites(recorder(true, false));
    let answers = |rig: &mut Rig, contact: &str, routes: &[&str]| {
        let (transaction, request) = rig.requests(&Method::Invite).pop().unwrap();
        let mut response = Response::to_request(&request, 200, "OK");
        if !response.to.contains(";tag=") {
            response.to.push_str(";tag=srs");
        }
        response.contact = Some(contact.into());
        response.record_route = routes.iter().map(|route| (*route).to_owned()).collect();
        response.body = takes([6000, 6002], "recvonly", "");
        rig.put(Input::SipResponse { transaction, response });
    };
    answers(&mut rig, "<sip:srs@10.0.0.66:5071>", &["<sip:10.0.0.7;lr>", "<sip:10.0.0.6;lr>"]);
    rig.come_up_recorded();
    rig.changes_codec("0");
    answers(&mut rig, "<sip:srs@10.0.0.67:5072>", &[]);
    let ack = rig.acks().pop().unwrap();
    assert_eq!((ack.uri.as_str(), ack.cseq), ("sip:srs@10.0.0.67:5072", 2));
    assert_eq!(ack.route, ["<sip:10.0.0.6;lr>", "<sip:10.0.0.7;lr>"]);
    rig.put(Input::HangUp);
    assert_eq!(rig.to_recorder(&Method::Bye)[0].route, ["<sip:10.0.0.6;lr>", "<sip:10.0.0.7;lr>"]);
    rig.is_over();
}

#[test]
fn of_two_recorders_that_a_proxy_asked_one_is_left_at_once() {
    let mut rig = Rig::recorded();
    let (transaction, request) = rig.requests(&Method::Invite).pop().unwrap();
    let mut other = Response::to_request(&request, 200, "OK");
    other.to.push_str(";tag=other");
    rig.put(Input::SipResponse { transaction, response: other });
    assert!(rig.acks().pop().unwrap().to.ends_with(";tag=other"));
    assert!(rig.to_recorder(&Method::Bye)[0].to.ends_with(";tag=other"));
    assert_eq!((rig.told(), forks(&rig.last_plan())), (vec![(true, false)], both()));
    rig.put(Input::HangUp);
    assert!(rig.to_recorder(&Method::Bye)[1].to.ends_with(";tag=srs"));
    rig.is_over();
}

#[test]
fn an_answer_in_the_ack_counts() {
    let mut rig = Rig::recorded();
    let offer = text(&rig.recorder_asks(Method::Invite, b""));
    let lines = sections(&offer);
    assert_eq!(lines.len(), 2, "it did not offer: we do");
    assert!(lines.iter().all(|lines| lines.contains(&"a=sendonly")), "{offer}");
    assert_eq!(forks(&rig.last_plan()), both(), "and nothing changes before it has answered");
    rig.recorder_acknowledges(&takes([7000, 7002], "recvonly", ""));
    assert_eq!(forks(&rig.last_plan()), [Some(fork(20_100, 7000)), Some(fork(20_102, 7002))]);
    rig.recorder_acknowledges(&takes([9000, 9002], "recvonly", ""));
    assert_eq!(forks(&rig.last_plan())[0], Some(fork(20_100, 7000)), "a second ACK is none");

    rig.recorder_asks(Method::Invite, b"");
    rig.recorder_acknowledges(b"");
    assert_eq!(forks(&rig.last_plan())[0], Some(fork(20_100, 7000)), "without an answer all stays");
    assert_eq!(rig.told(), [(true, false)]);

    rig.recorder_asks(Method::Invite, b"");
    rig.recorder_acknowledges(b"nonsense");
    assert_eq!(rig.told(), [(true, false), (false, true)], "it cannot be refused but by a BYE");
    assert_eq!((rig.to_recorder(&Method::Bye).len(), rig.cause()), (1, None));
    rig.finish();
}

#[test]
fn one_invite_at_a_time_in_either_direction() {
    let mut rig = Rig::recorded();
    rig.acknowledges = false;
    assert_eq!(rig.recorder_asks(Method::Invite, &takes([7000, 7002], "recvonly", "")).status, 200);
    rig.acknowledges = true;
    let cseq = rig.remote_cseq;
    rig.changes_codec("0");
    assert_eq!(rig.to_recorder(&Method::Invite).len(), 1, "theirs has no ACK yet");
    rig.recorder_acknowledges_this(cseq, b"");
    assert_eq!(rig.to_recorder(&Method::Invite).len(), 2);
    let body = takes([7000, 7002], "recvonly", "");
    assert_eq!(rig.recorder_asks(Method::Invite, &body).status, 491);
    assert_eq!(rig.recorder_asks(Method::Update, &body).status, 491);
    assert_eq!(rig.recorder_asks(Method::Update, b"").status, 200, "that is about no media");
    rig.recorder_says(200, &body);

    rig.acknowledges = false;
    rig.recorder_asks(Method::Invite, &body);
    rig.wait(Duration::from_secs(33));
    assert_eq!(rig.told(), [(true, false), (false, true)], "the ACK never came (RFC 3261 section 14.2)");
    assert_eq!(rig.to_recorder(&Method::Bye).len(), 1);
    rig.finish();
}

#[test]
fn a_recorder_that_does_not_know_the_session_or_does_not_answer_gets_a_bye() {
    let cases: [fn(&mut Rig); 4] = [
        |rig| rig.recorder_says(481, b""),
        |rig| rig.recorder_says(408, b""),
        |rig| {
            let (transaction, _) = rig.requests(&Method::Invite).pop().unwrap();
            rig.put(Input::SipTimeout(transaction));
        },
        |rig| {
            let (transaction, _) = rig.requests(&Method::Invite).pop().unwrap();
            rig.put(Input::SipTransportError(transaction));
        },
    ];
    for (nth, fails) in cases.into_iter().enumerate() {
        let mut rig = Rig::recorded();
        rig.changes_codec("0");
        assert_eq!(rig.to_recorder(&Method::Invite).len(), 2);
        fails(&mut rig);
        assert_eq!(rig.told(), [(true, false), (false, true)], "{nth}");
        let bye = rig.to_recorder(&Method::Bye);
        assert_eq!((bye.len(), bye[0].cseq), (1, 3), "{nth}");
        assert_eq!((rig.cause(), forks(&rig.last_plan())), (None, [None; 2]), "{nth}");
        rig.finish();
    }
}

#[test]
fn what_crosses_a_bye_is_acknowledged_and_nothing_more() {
    let mut rig = Rig::recorded();
    rig.changes_codec("0");
    let (transaction, request) = rig.requests(&Method::Invite).pop().unwrap();
    rig.put(Input::Record(Recorded::Stop));
    let acks = rig.acks().len();
    let response = Response::to_request(&request, 200, "OK");
    rig.put(Input::SipResponse { transaction, response });
    assert_eq!((rig.acks().len(), rig.to_recorder(&Method::Bye).len(), rig.cancels()), (acks + 1, 1, 0));
    assert_eq!(forks(&rig.last_plan()), [None; 2]);
    rig.finish();
}

#[test]
fn after_a_491_the_recorder_is_told_again_and_only_then_counts_as_told() {
    let mut rig = Rig::recorded();
    rig.changes_codec("0");
    rig.recorder_says(491, b"");
    rig.wait(Duration::from_millis(2_090));
    assert_eq!(rig.to_recorder(&Method::Invite).len(), 2, "RFC 3261 section 14.1");
    rig.wait(Duration::from_millis(1_920));
    let invites = rig.to_recorder(&Method::Invite);
    assert_eq!((invites.len(), invites[2].cseq), (3, 3));
    let body = String::from_utf8(invites[2].body.clone()).unwrap();
    assert!(body.contains("m=audio 20100 RTP/AVP 0\r\n"), "{body}");
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    rig.wait(Duration::from_secs(10));
    assert_eq!((rig.to_recorder(&Method::Invite).len(), rig.told()), (3, vec![(true, false)]));

    // What it would not have is not offered twice, but what comes then is.
    rig.changes_codec("0 101");
    rig.recorder_says(488, b"");
    rig.wait(Duration::from_secs(10));
    rig.changes_codec("0 101");
    assert_eq!(rig.to_recorder(&Method::Invite).len(), 4);
    rig.changes_codec("0");
    assert_eq!(rig.to_recorder(&Method::Invite).len(), 4, "that is what it knows");
    rig.changes_codec("0 101");
    assert_eq!(rig.to_recorder(&Method::Invite).len(), 5);
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    rig.finish();
}

#[test]
fn a_recorder_that_asks_for_it_is_told_who_talks_once_more() {
    let mut rig = Rig::recorded();
    let kind = Some("application/rs-metadata-request");
    let recorders = rig.recorders();
    let asks = |rig: &mut Rig| rig.ask_in(&recorders, (Method::Update, "srs"), b"why", kind, &[]).unwrap();
    let answer = asks(&mut rig);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let invites = rig.to_recorder(&Method::Invite);
    let body = String::from_utf8(invites[1].body.clone()).unwrap();
    assert!(invites.len() == 2 && body.contains("<datamode>complete</datamode>"), "{body}");
    rig.recorder_says(491, b"");
    rig.wait(Duration::from_secs(5));
    assert_eq!(rig.to_recorder(&Method::Invite).len(), 3, "what met another INVITE comes again");
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    rig.wait(Duration::from_secs(5));
    assert_eq!((rig.to_recorder(&Method::Invite).len(), forks(&rig.last_plan())), (3, both()));
    rig.finish();
}

#[test]
fn a_next_control_goes_on_behind_all_that_was_said_to_the_recorder() {
    let settings = recorder(true, false);
    let goes_on = |rig: &Rig| {
        let mut next = Rig::restored_with(&settings, &rig.last_plan(), rig.now);
        next.ledger.talks(&rig.recorders().call_id);
        next
    };
    let mut rig = Rig::recorded();
    rig.changes_codec("0");
    let mut next = goes_on(&rig);
    let invite = next.requests(&Method::Invite).pop().expect("what has no 2xx is told again").1;
    assert!(invite.cseq > rig.to_recorder(&Method::Invite).pop().unwrap().cseq);
    next.respond(&Method::Invite, 200, "srs", &takes([6000, 6002], "recvonly", ""), &[]);
    next.finish();

    let (transaction, request) = rig.requests(&Method::Invite).pop().unwrap();
    let mut response = Response::to_request(&request, 200, "OK");
    (response.contact, response.body) =
        (Some("<sip:srs@10.0.0.67>".into()), takes([6000, 6002], "recvonly", ""));
    rig.put(Input::SipResponse { transaction, response });
    let mut next = goes_on(&rig);
    assert!(next.requests(&Method::Invite).is_empty(), "it knows");
    next.put(Input::HangUp);
    let bye = next.requests(&Method::Bye).into_iter().find(|(_, one)| one.to.contains("srs@")).unwrap().1;
    assert_eq!(bye.uri, "sip:srs@10.0.0.67", "where it is by now");
    next.is_over();

    let refresh = rig.recorder_asks(Method::Update, b"");
    assert_eq!((refresh.status, refresh.body.len()), (200, 0));
    let mut next = goes_on(&rig);
    next.put(Input::HangUp);
    let bye = next.requests(&Method::Bye).into_iter().find(|(_, one)| one.to.contains("srs@")).unwrap().1;
    assert_eq!(bye.uri, "sip:agent@10.0.0.5", "a refresh moves it as well");
    next.is_over();
    rig.finish();
}

#[test]
fn controls_one_after_the_other_count_on_with_the_recorder() {
    let settings = recorder(true, false);
    let mut rig = Rig::recorded();
    let (mut plan, mut last) = (rig.last_plan(), 1);
    let recorders = rig.recorders();
    for _ in 0..3 {
        let mut next = Rig::restored_with(&settings, &plan, rig.now);
        next.ledger.talks(&recorders.call_id);
        next.obedient = true;
        next.wait(Duration::from_secs(60));
        let asked = next.requests(&Method::Options).remove(0).1;
        assert!(asked.cseq > last, "{} after {last}", asked.cseq);
        next.respond(&Method::Options, 200, "srs", b"", &[]);
        (plan, last) = (next.last_plan(), asked.cseq);
        next.finish();
    }
    rig.put(Input::HangUp);
    rig.is_over();
}

#[test]
fn a_next_control_knows_what_became_of_a_recording() {
    let settings = recorder(true, false);
    // It began with the last plan, and could be told behind it only.
    let mut rig = Rig::invites(settings.clone());
    rig.come_up();
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    let next = Rig::restored_with(&settings, &rig.last_plan(), rig.now);
    assert!(next.call.past().contains(&CallEvent::Recording { on: true, failed: false }));
    rig.finish();
    // It failed, and is not tried again.
    let mut rig = Rig::invites(settings.clone());
    rig.come_up();
    rig.recorder_says(503, b"");
    let mut next = Rig::restored_with(&settings, &rig.last_plan(), rig.now);
    assert!(next.call.past().contains(&CallEvent::Recording { on: false, failed: true }));
    next.wait(Duration::from_secs(5));
    assert!(next.done.iter().all(|command| !matches!(command, Command::Reserve { .. })));
    next.finish();
    rig.finish();
}

#[test]
fn where_a_recording_is_asked_for_and_required_nobody_is_heard_until_it_runs() {
    let mut rig = Rig::with(recorder(false, true), "");
    rig.reserve();
    rig.ring();
    rig.pick_up("0 8 101");
    rig.come_up();
    assert_eq!(rig.mutes(), [Mute::Open; 2], "nobody has asked");
    rig.put(Input::Record(Recorded::Server));
    assert_eq!(rig.mutes(), [Mute::Held; 2]);
    rig.gives_ports();
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    assert_eq!((rig.mutes(), forks(&rig.last_plan())), (vec![Mute::Open; 2], both()));
    rig.put(Input::Record(Recorded::Stop));
    assert_eq!((rig.mutes(), rig.cause()), (vec![Mute::Open; 2], None), "an administrator's word");
    rig.put(Input::Record(Recorded::Server));
    assert_eq!(rig.mutes(), [Mute::Held; 2]);
    rig.recorder_says(503, b"");
    assert_eq!(rig.cause(), Some(EndCause::NotRecorded));
    rig.is_over();
}

#[test]
fn ports_of_one_ip_version_are_not_those_of_the_other() {
    let mut rig = Rig::with(recorder(false, false), "");
    rig.reserve();
    rig.ring();
    rig.pick_up("0 8 101");
    rig.come_up();
    let to = |ip: &str| Recorded::To([6000, 6002].map(|port| address(&format!("{ip}:{port}"))));
    rig.put(Input::Record(to("10.0.0.66")));
    rig.gives_ports();
    assert_eq!(forks(&rig.last_plan()), both());
    rig.put(Input::Record(Recorded::Stop));
    rig.put(Input::Record(to("[2001:db8::66]")));
    let asked = |rig: &Rig| {
        let of = |command: &Command| match command {
            Command::Reserve { toward, pairs: 2 } => Some(*toward),
            _ => None,
        };
        rig.done.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(asked(&rig).last(), Some(&address("[2001:db8::66]:1").ip()));
    let pair = |port: u16| PortPair {
        rtp: address(&format!("[2001:db8::1]:{port}")),
        rtcp: address(&format!("[2001:db8::1]:{}", port + 1)),
    };
    rig.put(Input::Reserved(vec![pair(20_200), pair(20_202)]));
    let same =
        |fork: Option<Fork>| fork.is_some_and(|fork| fork.rtp.local.is_ipv6() && fork.rtp.remote.is_ipv6());
    assert!(forks(&rig.last_plan()).into_iter().all(same));
    let before = asked(&rig).len();
    rig.put(Input::Record(Recorded::Stop));
    rig.put(Input::Record(to("10.0.0.66")));
    assert_eq!((forks(&rig.last_plan()), asked(&rig).len()), (both(), before), "both are kept");
    rig.finish();
}

#[test]
fn a_recording_that_ends_with_its_call_is_told_as_ended() {
    let mut rig = Rig::recorded();
    rig.put(Input::HangUp);
    assert_eq!(rig.told(), [(true, false), (false, false)]);
    assert!(matches!(rig.events().last(), Some(CallEvent::Ended { .. })));
    rig.is_over();
    // One that has not begun does not end.
    let mut rig = Rig::invites(recorder(true, false));
    rig.come_up();
    rig.put(Input::HangUp);
    assert_eq!(rig.told(), []);
    rig.recorder_says(487, b"");
    rig.is_over();
}

#[test]
fn what_was_asked_for_and_not_begun_is_begun_by_the_next_control() {
    let begins: [fn(&mut Rig); 2] = [
        |rig| rig.put(Input::Record(Recorded::To([address("10.0.0.66:6000"), address("10.0.0.66:6002")]))),
        |rig| rig.put(Input::Record(Recorded::Server)),
    ];
    for (nth, begin) in begins.into_iter().enumerate() {
        let settings = recorder(false, false);
        let mut rig = Rig::with(settings.clone(), "");
        rig.reserve();
        rig.ring();
        rig.pick_up("0 8 101");
        rig.come_up();
        begin(&mut rig);
        let mut next = Rig::restored_with(&settings, &rig.last_plan(), rig.now);
        next.obedient = true;
        next.gives_ports();
        if nth == 1 {
            next.respond(&Method::Invite, 200, "srs", &takes([6000, 6002], "recvonly", ""), &[]);
        }
        assert_eq!((forks(&next.last_plan()), next.told()), (both(), vec![(true, false)]), "{nth}");
        next.finish();
        rig.finish();
    }
}

#[test]
fn a_recorder_that_is_dead_without_a_word_is_found_out() {
    let mut rig = Rig::recorded();
    rig.wait(Duration::from_secs(50));
    rig.recorder_asks(Method::Options, b"");
    rig.wait(Duration::from_secs(59));
    assert!(rig.to_recorder(&Method::Options).is_empty(), "it was heard of");
    rig.wait(Duration::from_secs(2));
    let asked = rig.to_recorder(&Method::Options);
    assert_eq!((asked.len(), asked[0].cseq), (1, 2));
    // Whatever it says, it lives.
    rig.respond(&Method::Options, 501, "srs", b"", &[]);
    rig.wait(Duration::from_secs(61));
    assert_eq!((rig.to_recorder(&Method::Options).len(), rig.told()), (2, vec![(true, false)]));
    let (transaction, _) = rig.requests(&Method::Options).pop().unwrap();
    rig.put(Input::SipTimeout(transaction));
    assert_eq!((rig.told(), rig.cause()), (vec![(true, false), (false, true)], None));
    assert_eq!(rig.to_recorder(&Method::Bye).len(), 1);
    rig.wait(Duration::from_secs(200));
    assert_eq!(rig.to_recorder(&Method::Options).len(), 2, "nobody is asked any more");
    rig.finish();

    let mut rig = Rig::recorded_by(recorder(true, true));
    rig.wait(Duration::from_secs(61));
    rig.respond(&Method::Options, 481, "srs", b"", &[]);
    assert_eq!(rig.cause(), Some(EndCause::NotRecorded));
    rig.is_over();
}
