//! Calls that are recorded: the recorder is invited, told who talks, and left; whatever it does, the call goes on.

use std::sync::Arc;
use std::time::Duration;

use sallyport_plan::{FlowKey, Fork, Mute, Plan, PortPair, Refusal, Zone};

use super::{FINGERPRINT, Rig, address, sdp, settings};
use crate::api::{CallEvent, EndCause, Input, Recorded};
use crate::settings::{RecordingSettings, Settings};
use crate::sip::{Dialog, Method, Request};

const SERVER: &str = "sip:srs@10.0.0.66:5070;transport=tcp";

pub fn recorder(all: bool, required: bool) -> Arc<Settings> {
    let recording = RecordingSettings {
        uri: SERVER.into(),
        route: vec!["<sip:10.0.0.66:5070;transport=tcp;lr>".into()],
        family: Some([10, 0, 0, 66].into()),
        all,
        required,
    };
    Arc::new(Settings { recording: Some(recording), ..Settings::clone(&settings("secret")) })
}

/// What the recorder says of its media: a port for each section, 0 for one that it does not want.
pub fn takes(ports: [u16; 2], direction: &str, more: &str) -> Vec<u8> {
    let [one, other] = ports;
    format!(
        "v=0\r\no=srs 1 1 IN IP4 10.0.0.66\r\ns=-\r\nc=IN IP4 10.0.0.66\r\nt=0 0\r\n\
         m=audio {one} RTP/AVP 0\r\na=label:1\r\na={direction}\r\n\
         m=audio {other} RTP/AVP 0\r\na=label:2\r\na={direction}\r\n{more}"
    )
    .into_bytes()
}

/// Copies of one direction.
pub fn fork(local: u16, remote: u16) -> Fork {
    let path = |nth| FlowKey {
        zone: Zone::Inside,
        local: ([10, 0, 0, 1], local + nth).into(),
        remote: ([10, 0, 0, 66], remote + nth).into(),
    };
    Fork { rtp: path(0), rtcp: path(1) }
}

pub fn both() -> [Option<Fork>; 2] {
    [Some(fork(20_100, 6000)), Some(fork(20_102, 6002))]
}

pub fn forks(plan: &Plan) -> [Option<Fork>; 2] {
    [plan.directions[0].fork, plan.directions[1].fork]
}

impl Rig {
    /// The relay gives the ports of the copies.
    pub fn gives_ports(&mut self) {
        let pair = |port: u16| PortPair {
            rtp: ([10, 0, 0, 1], port).into(),
            rtcp: ([10, 0, 0, 1], port + 1).into(),
        };
        self.put(Input::Reserved(vec![pair(20_100), pair(20_102)]));
    }

    /// A call whose recorder has its INVITE.
    pub fn invites(settings: Arc<Settings>) -> Self {
        let mut rig = Self::with(settings, "");
        rig.reserve();
        rig.ring();
        rig.pick_up("0 8 101");
        rig.gives_ports();
        rig
    }

    pub fn recorded() -> Self {
        let mut rig = Self::invites(recorder(true, false));
        rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
        rig.come_up_recorded();
        rig
    }

    pub fn come_up_recorded(&mut self) {
        self.connect();
        self.installed();
        self.keys(FINGERPRINT);
        self.installed();
        self.obedient = true;
    }

    pub fn to_recorder(&self, method: &Method) -> Vec<Request> {
        let all = self.requests(method).into_iter().map(|(_, request)| request);
        all.filter(|request| request.to.contains("srs@")).collect()
    }

    pub fn recorder_says(&mut self, status: u16, body: &[u8]) {
        assert!(self.requests(&Method::Invite).pop().unwrap().1.to.contains("srs@"));
        self.respond(&Method::Invite, status, "srs", body, &[]);
    }

    pub fn recorders(&self) -> Dialog {
        let request = self.to_recorder(&Method::Invite).pop().unwrap();
        Dialog { from: request.from, call_id: request.call_id, ..Dialog::default() }
    }

    pub fn told(&self) -> Vec<(bool, bool)> {
        let of = |event: CallEvent| match event {
            CallEvent::Recording { on, failed } => Some((on, failed)),
            _ => None,
        };
        self.events().into_iter().filter_map(of).collect()
    }
}

#[test]
fn the_recorder_is_invited_with_the_media_and_who_talks() {
    let rig = Rig::invites(recorder(true, false));
    let invite = rig.to_recorder(&Method::Invite).remove(0);
    assert_eq!(invite.uri, SERVER);
    assert_eq!(invite.route, ["<sip:10.0.0.66:5070;transport=tcp;lr>"]);
    assert_eq!(invite.contact.as_deref(), Some("<sip:sallyport@10.0.0.1:5060>;+sip.src"));
    let header = |name: &str| invite.header(name).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(header("Require"), ["siprec"]);
    assert!(header("Supported").is_empty(), "no timer of ours, nothing to be acknowledged");
    let kind = invite.content_type.clone().unwrap();
    let boundary = kind.strip_prefix("multipart/mixed;boundary=").unwrap();
    let text = String::from_utf8(invite.body.clone()).unwrap();
    let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
    assert_eq!((parts.len(), parts[3]), (4, "--\r\n"));
    assert!(parts[1].starts_with("\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n"));
    let sections: Vec<&str> = parts[1].split("m=audio ").skip(1).collect();
    assert!(sections[0].starts_with("20100 RTP/AVP 0 8 101\r\n"), "{}", sections[0]);
    assert!(sections[1].starts_with("20102 RTP/AVP 0 8 126\r\n"), "{}", sections[1]);
    for (section, label) in sections.iter().zip(1..) {
        assert!(section.contains("a=sendonly\r\n") && section.contains(&format!("a=label:{label}\r\n")));
    }
    let disposition =
        "Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n";
    assert!(parts[2].contains(disposition));
    assert!(parts[2].contains("aor=\"sip:sallyport@pbx\"") && parts[2].contains("aor=\"sip:1000@pbx\""));
    assert!(parts[2].contains("<label>1</label>") && parts[2].contains("<label>2</label>"));
    let tag = rig.recorders().from;
    assert!(tag.contains(&format!(";tag={}-r", rig.call.sip_tag())), "its requests find the call");
    assert!(rig.call.has_call_id(&invite.call_id));
    rig.finish();
}

#[test]
fn copies_begin_when_the_recorder_agrees_and_end_with_the_call() {
    let mut rig = Rig::invites(recorder(true, false));
    rig.recorder_says(100, b"");
    rig.come_up();
    assert_eq!((forks(rig.plans().last().unwrap()), rig.told()), ([None; 2], vec![]));
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    assert_eq!(rig.acks().len(), 2);
    assert_eq!(forks(rig.plans().last().unwrap()), both());
    assert_eq!(rig.told(), [(true, false)]);
    assert!(rig.call.view().recording);
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    assert_eq!(rig.acks().len(), 3, "each 2xx has its ACK, and changes nothing");
    rig.put(Input::HangUp);
    let bye = rig.to_recorder(&Method::Bye);
    assert_eq!((bye.len(), bye[0].call_id.clone()), (1, rig.recorders().call_id));
    rig.is_over();
}

#[test]
fn a_recorder_that_fails_changes_nothing_and_one_that_must_record_ends_the_call() {
    let cases: [fn(&mut Rig); 6] = [
        |rig| rig.recorder_says(503, b""),
        |rig| rig.recorder_says(200, b"nonsense"),
        |rig| rig.recorder_says(200, &takes([0, 0], "recvonly", "")),
        |rig| {
            let body = String::from_utf8(takes([6000, 6002], "recvonly", "")).unwrap();
            rig.recorder_says(200, body.replace("RTP/AVP 0", "RTP/AVP 8").as_bytes());
        },
        |rig| {
            let (transaction, _) = rig.requests(&Method::Invite).pop().unwrap();
            rig.put(Input::SipTimeout(transaction));
        },
        |rig| {
            rig.recorder_says(180, b"");
            rig.wait(Duration::from_secs(11));
            assert_eq!(rig.cancels(), 1);
            rig.recorder_says(487, b"");
        },
    ];
    for (nth, fails) in cases.into_iter().enumerate() {
        for required in [false, true] {
            let mut rig = Rig::invites(recorder(true, required));
            rig.connect();
            rig.installed();
            rig.keys(FINGERPRINT);
            rig.obedient = true;
            rig.installed();
            assert_eq!(rig.names().contains(&"connected"), !required, "{nth}");
            fails(&mut rig);
            let cause = required.then_some(EndCause::NotRecorded);
            assert_eq!((rig.cause(), rig.told()), (cause, vec![(false, true)]), "{nth}");
            if required {
                assert!(rig.plans().iter().all(|plan| plan.directions[0].mute == Mute::Held));
                rig.is_over();
            } else {
                assert_eq!(forks(rig.plans().last().unwrap()), [None; 2]);
                assert_eq!(rig.to_recorder(&Method::Invite).len(), 1, "it is asked once");
                rig.finish();
            }
        }
    }
}

#[test]
fn where_a_call_must_be_recorded_nobody_is_heard_before() {
    let mut rig = Rig::invites(recorder(true, true));
    rig.come_up_recorded();
    let mutes =
        |rig: &Rig| rig.plans().last().unwrap().directions.iter().map(|one| one.mute).collect::<Vec<_>>();
    assert_eq!(mutes(&rig), [Mute::Held; 2]);
    assert!(!rig.names().contains(&"connected"));
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    assert_eq!(mutes(&rig), [Mute::Open; 2]);
    assert_eq!(forks(rig.plans().last().unwrap()), both());
    let names = rig.names();
    assert!(names.contains(&"connected") && names.contains(&"recording"));
    assert_eq!(rig.ask_in(&rig.recorders(), (Method::Bye, "srs"), b"", None, &[]).unwrap().status, 200);
    assert_eq!(rig.cause(), Some(EndCause::NotRecorded));
    rig.is_over();
}

#[test]
fn the_recorder_may_leave_or_move_or_pause() {
    let mut rig = Rig::recorded();
    assert_eq!(rig.told(), [(true, false)]);
    let moved = takes([7000, 0], "recvonly", "");
    let answer = rig.ask_in(&rig.recorders(), (Method::Invite, "srs"), &moved, None, &[]).unwrap();
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains(" 2 IN IP4") && text.contains("m=audio 20100 "), "{text}");
    assert_eq!(forks(rig.plans().last().unwrap()), [Some(fork(20_100, 7000)), None]);
    let paused = takes([7000, 7002], "inactive", "");
    rig.ask_in(&rig.recorders(), (Method::Update, "srs"), &paused, None, &[]).unwrap();
    assert_eq!(forks(rig.plans().last().unwrap()), [None; 2]);
    let wrong = rig.ask_in(&rig.recorders(), (Method::Invite, "srs"), b"nonsense", None, &[]).unwrap();
    assert_eq!(wrong.status, 488);
    assert_eq!(rig.ask_in(&rig.recorders(), (Method::Refer, "srs"), b"", None, &[]).unwrap().status, 405);
    assert_eq!(rig.ask_in(&rig.recorders(), (Method::Bye, "other"), b"", None, &[]).unwrap().status, 481);
    rig.ask_in(&rig.recorders(), (Method::Bye, "srs"), b"", None, &[]).unwrap();
    assert_eq!((rig.told(), rig.cause()), (vec![(true, false), (false, false)], None));
    assert!(rig.to_recorder(&Method::Bye).is_empty());
    rig.finish();
}

#[test]
fn the_recorder_hears_of_another_codec() {
    let mut rig = Rig::recorded();
    rig.ask(Method::Invite, "pbx", &sdp("10.0.0.9", "0", ""));
    let invites = rig.to_recorder(&Method::Invite);
    let last = String::from_utf8(invites.last().unwrap().body.clone()).unwrap();
    assert_eq!((invites.len(), invites[1].cseq), (2, 2));
    assert!(invites[1].to.contains(";tag=srs"));
    assert!(last.contains("m=audio 20100 RTP/AVP 0\r\n") && last.contains(" 2 IN IP4 10.0.0.1"), "{last}");
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    assert_eq!((forks(rig.plans().last().unwrap()), rig.told().len()), (both(), 1));
    rig.ask(Method::Invite, "pbx", &sdp("10.0.0.9", "0 101", ""));
    rig.recorder_says(500, b"");
    assert_eq!(forks(rig.plans().last().unwrap()), both(), "what it knew still holds");
    rig.finish();
}

#[test]
fn a_call_from_the_inside_is_recorded_too() {
    let mut rig =
        Rig::invited_with(super::invite(&sdp("10.0.0.9", "0 8 101", ""), &[]), recorder(true, false))
            .unwrap();
    rig.reserve();
    rig.take().unwrap();
    rig.acknowledge(b"");
    rig.come_up();
    rig.gives_ports();
    let invite = String::from_utf8(rig.to_recorder(&Method::Invite).remove(0).body).unwrap();
    let place = |aor: &str| invite.find(aor).unwrap();
    assert!(place("sip:2000@pbx") < place("sip:1000@pbx"), "the browser has label 1");
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    assert_eq!(forks(rig.plans().last().unwrap()), both());
    rig.put(Input::HangUp);
    assert_eq!(rig.to_recorder(&Method::Bye).len(), 1);
    rig.is_over();
}

#[test]
fn what_the_relay_refuses_of_copies_costs_the_copies_only() {
    let mut rig = Rig::with(recorder(true, false), "");
    rig.reserve();
    rig.ring();
    rig.pick_up("0 8 101");
    rig.put(Input::Refused(Refusal::NoPorts));
    assert_eq!((rig.cause(), rig.told()), (None, vec![(false, true)]));
    rig.come_up();
    rig.finish();

    let mut rig = Rig::invites(recorder(true, false));
    rig.come_up();
    rig.obedient = false;
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    rig.put(Input::Refused(Refusal::NotOurs));
    assert_eq!((rig.cause(), rig.told()), (None, vec![(false, true)]));
    assert_eq!(rig.to_recorder(&Method::Bye).len(), 1);
    assert_eq!(forks(rig.plans().last().unwrap()), [None; 2]);
    rig.installed();
    rig.finish();
}

#[test]
fn a_recording_survives_control_and_relay() {
    let rig = Rig::recorded();
    let plan = rig.plans().pop().unwrap();
    let mut next = Rig::restored(&plan, rig.now);
    assert!(next.call.view().recording && next.call.has_call_id(&rig.recorders().call_id));
    assert!(next.call.past().contains(&CallEvent::Recording { on: true, failed: false }));
    next.put(Input::RelayAway);
    next.put(Input::RelayBack(plan.version));
    assert_eq!(next.ask(Method::Invite, "pbx", &sdp("10.0.0.9", "0 8 101", "")).unwrap().status, 200);
    assert_eq!(forks(next.plans().last().unwrap()), both(), "its copies go on");
    next.installed();
    assert_eq!(next.ask_in(&rig.recorders(), (Method::Bye, "srs"), b"", None, &[]).unwrap().status, 200);
    assert_eq!((forks(next.plans().last().unwrap()), next.told()), ([None; 2], vec![(false, false)]));
    next.finish();
    rig.finish();
}

#[test]
fn one_that_was_under_way_begins_anew() {
    let mut rig = Rig::invites(recorder(true, false));
    rig.come_up();
    rig.put(Input::RelayAway);
    assert_eq!(rig.cancels(), 0, "nobody has answered");
    let version = rig.plans().pop().unwrap().version;
    rig.put(Input::RelayBack(version));
    rig.gives_ports();
    let invites = rig.to_recorder(&Method::Invite);
    assert_eq!(invites.len(), 2);
    assert_ne!(invites[0].call_id, invites[1].call_id);
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    assert_eq!(rig.told(), [(true, false)]);
    // The first one agrees as well, too late.
    let (transaction, first) =
        rig.requests(&Method::Invite).into_iter().find(|(_, one)| one.call_id == invites[0].call_id).unwrap();
    let mut late = crate::sip::Response::to_request(&first, 200, "OK");
    late.to.push_str(";tag=late");
    rig.put(Input::SipResponse { transaction, response: late });
    assert_eq!(rig.to_recorder(&Method::Bye).pop().unwrap().call_id, invites[0].call_id);
    assert_eq!(forks(rig.plans().last().unwrap()), both());
    rig.finish();
}

#[test]
fn only_calls_that_are_asked_for_are_recorded_and_may_be_listened_to() {
    let mut rig = Rig::with(recorder(false, false), "");
    rig.reserve();
    rig.ring();
    assert_eq!(rig.call.may_record(&Recorded::Server), Err(true), "there is nothing yet");
    rig.pick_up("0 8 101");
    rig.come_up();
    assert!(rig.to_recorder(&Method::Invite).is_empty());
    let listener = Recorded::To([address("10.0.0.66:6000"), address("10.0.0.66:6002")]);
    rig.put(Input::Record(listener));
    assert_eq!(rig.call.may_record(&Recorded::Server), Err(true), "one at a time");
    rig.gives_ports();
    assert_eq!((forks(rig.plans().last().unwrap()), rig.told()), (both(), vec![(true, false)]));
    assert!(rig.to_recorder(&Method::Invite).is_empty(), "nobody is invited");
    rig.put(Input::Record(Recorded::Stop));
    assert_eq!(forks(rig.plans().last().unwrap()), [None; 2]);
    assert_eq!(rig.call.may_record(&Recorded::Server), Ok(()));
    rig.put(Input::Record(Recorded::Server));
    assert_eq!(rig.to_recorder(&Method::Invite).len(), 1, "it has its ports");
    rig.recorder_says(200, &takes([6000, 6002], "recvonly", ""));
    rig.put(Input::Record(Recorded::Stop));
    assert_eq!(rig.to_recorder(&Method::Bye).len(), 1);
    assert_eq!(rig.told(), [(true, false), (false, false), (true, false), (false, false)]);
    assert_eq!(rig.call.past().iter().filter(|event| event.name() == "recording").count(), 1);
    rig.finish();

    let rig = Rig::connected();
    assert_eq!(rig.call.may_record(&Recorded::Server), Err(false), "there is no recorder");
    rig.finish();
}
