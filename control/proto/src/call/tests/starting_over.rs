//! A browser that starts over: another connection beside the one that runs.

use super::*;
use crate::error::OfferError;

const OTHER: [u8; 32] = [0xcd; 32];
/// Where the page's other connection is.
const ELSEWHERE: &str = "198.51.100.7:41000";

fn pairs(fingerprint: [u8; 32]) -> String {
    fingerprint.map(|octet| format!("{octet:02X}")).join(":")
}

fn key(octet: u8) -> KeyMaterial {
    KeyMaterial::new(Profile::AeadAes128Gcm, &[octet; 16], &[0; 12]).unwrap()
}

fn flow(remote: &str) -> FlowKey {
    FlowKey { zone: Zone::Outside, local: media(), remote: address(remote) }
}

impl Rig {
    /// The page makes another connection and offers it; our answer.
    pub fn starts_over(&mut self, fingerprint: [u8; 32], at: &str) -> Result<String, AcceptError> {
        let mut browser = IceAgent::new(IceCreds::new());
        browser.set_controlling(true);
        browser.add_local_candidate(Candidate::host(address(at), "udp").unwrap());
        let former = std::mem::replace(&mut self.browser, browser);
        let answer = self.reoffer(|text| text.replace(&pairs(FINGERPRINT), &pairs(fingerprint)));
        match &answer {
            Ok(_) => self.at = vec![address(at)],
            Err(_) => self.browser = former,
        }
        answer
    }

    /// It reads the answer and checks.
    fn checks(&mut self, answer: &str) {
        let value =
            |start: &str| answer.lines().find_map(|line| line.strip_prefix(start)).unwrap().to_owned();
        let (ufrag, pass) = (value("a=ice-ufrag:"), value("a=ice-pwd:"));
        self.browser.set_remote_credentials(IceCreds { ufrag, pass });
        self.browser.add_remote_candidate(Candidate::host(media(), "udp").unwrap());
        self.ice(Duration::from_secs(2));
    }

    pub fn shakes_hands(&mut self, fingerprint: [u8; 32]) {
        let (receive, send) = (key(5), key(6));
        let profile = Profile::AeadAes128Gcm;
        self.put(Input::NextDtlsDone { profile, receive, send, peer_fingerprint: fingerprint });
    }

    /// It checks by the last answer that it got, if any.
    pub fn checks_again(&mut self) {
        let last = self.done.iter().rev().find_map(|command| match command {
            Command::Renegotiated(text) => Some(text.clone()),
            _ => None,
        });
        if let Some(answer) = last {
            self.checks(&answer);
        }
    }

    fn last(&self) -> Plan {
        self.plans().pop().unwrap()
    }

    fn count(&self, wanted: impl Fn(&Command) -> bool) -> usize {
        self.done.iter().filter(|command| wanted(command)).count()
    }
}

fn ingress(plan: &Plan) -> Vec<FlowKey> {
    plan.directions[0].ingress.clone()
}

#[test]
fn another_connection_takes_the_place_of_the_one_that_runs_when_it_has_keys() {
    let mut rig = Rig::connected();
    let (former, invites) = (rig.last(), rig.requests(&Method::Invite).len());
    let answer = rig.starts_over(OTHER, ELSEWHERE).unwrap();
    assert!(answer.contains("a=setup:passive") && answer.contains(&format!("a=ssrc:{}", rig.call.ssrc.0)));
    assert_eq!(rig.last(), former, "an answer changes nothing yet");
    rig.checks(&answer);
    // Both are there, and only the former one passes media.
    let both = rig.last();
    assert_eq!(ingress(&both), [former.directions[0].ingress[0], flow(ELSEWHERE)]);
    assert_eq!(both.directions[1], former.directions[1]);
    assert_eq!((&both.directions[0].open, &both.consents), (&former.directions[0].open, &former.consents));
    assert_eq!(rig.count(|command| matches!(command, Command::NextDtls(_))), 1);
    rig.shakes_hands(OTHER);
    let plan = rig.last();
    assert_eq!(plan.version, both.version + 1);
    assert_eq!(ingress(&plan), [flow(ELSEWHERE)]);
    assert_eq!(plan.consents.iter().map(|consent| consent.flow).collect::<Vec<_>>(), [flow(ELSEWHERE)]);
    assert_ne!(plan.consents[0].local_pwd, former.consents[0].local_pwd);
    assert_eq!(plan.directions[0].open, Some(sallyport_plan::Protection::Srtp(key(5))));
    assert_eq!(plan.directions[1].seal, Some(sallyport_plan::Protection::Srtp(key(6))));
    assert_eq!(plan.directions[1].rtp, flow(ELSEWHERE));
    for (one, other) in plan.directions.iter().zip(&former.directions) {
        assert_eq!((one.ssrc, &one.payload_types, one.mute), (other.ssrc, &other.payload_types, other.mute));
    }
    assert_eq!(rig.count(|command| matches!(command, Command::NextDtlsSucceeds)), 1);
    assert_eq!(rig.names().last(), Some(&"renewed"));
    assert_eq!(rig.requests(&Method::Invite).len(), invites, "the inside sees nothing of it");
    // It is the call's connection now: holds and starts ICE over as any.
    let held = rig
        .reoffer(|text| text.replace(&pairs(FINGERPRINT), &pairs(OTHER)).replace("a=sendrecv", "a=inactive"));
    assert!(held.unwrap().contains("a=inactive"));
    assert_eq!(rig.requests(&Method::Invite).len(), invites + 1);
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0 8 101", "a=inactive\r\n"), &[]);
    rig.finish();
}

#[test]
fn the_former_connection_goes_on_where_the_other_one_fails() {
    type Fails = fn(&mut Rig);
    let fails: [(Fails, &str); 3] = [
        (|rig| rig.put(Input::NextDtlsFailed("no".into())), "no"),
        (|rig| rig.shakes_hands([0xee; 32]), "certificate"),
        (|rig| rig.wait(Duration::from_secs(31)), "too long"),
    ];
    for (fail, text) in fails {
        let mut rig = Rig::connected();
        let former = rig.last();
        let answer = rig.starts_over(OTHER, ELSEWHERE).unwrap();
        rig.checks(&answer);
        assert_eq!(ingress(&rig.last()).len(), 2);
        fail(&mut rig);
        assert_eq!(ingress(&rig.last()), ingress(&former));
        assert_eq!(rig.last().directions[1].seal, former.directions[1].seal);
        let failed = rig.events().pop().unwrap();
        assert!(matches!(&failed, CallEvent::NotRenewed { detail } if detail.contains(text)), "{failed:?}");
        assert_eq!(rig.count(|command| matches!(command, Command::NextDtlsClose)), 1);
        assert_eq!(rig.cause(), None);
        rig.finish();
    }
}

#[test]
fn without_a_pair_it_is_given_up_in_time_and_may_be_tried_again() {
    let mut rig = Rig::connected();
    rig.starts_over(OTHER, ELSEWHERE).unwrap();
    assert_eq!(rig.starts_over(OTHER, "198.51.100.7:41001"), Err(AcceptError::Offer(OfferError::Pending)));
    rig.wait(Duration::from_secs(31));
    assert_eq!(rig.names().last(), Some(&"not_renewed"));
    let answer = rig.starts_over(OTHER, ELSEWHERE).unwrap();
    rig.checks(&answer);
    rig.shakes_hands(OTHER);
    assert_eq!(ingress(&rig.last()), [flow(ELSEWHERE)]);
    rig.finish();
}

#[test]
fn a_third_connection_takes_the_place_of_the_second_and_the_former_one_may_speak_again() {
    let mut rig = Rig::connected();
    let former = rig.last();
    let answer = rig.starts_over(OTHER, ELSEWHERE).unwrap();
    rig.checks(&answer);
    let answer = rig.starts_over([0xdd; 32], "198.51.100.7:42000").unwrap();
    assert_eq!(ingress(&rig.last()), ingress(&former));
    rig.shakes_hands(OTHER);
    assert_eq!(rig.last().directions, former.directions, "what was given up has no keys for us");
    rig.checks(&answer);
    // The page gives it up and goes on as before.
    let text = rig.turn("inactive");
    assert!(text.contains("a=inactive"));
    assert_eq!(ingress(&rig.last()), ingress(&former));
    rig.shakes_hands([0xdd; 32]);
    assert_eq!(rig.last().directions[1].seal, former.directions[1].seal);
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0 8 101", "a=inactive\r\n"), &[]);
    rig.finish();
}

#[test]
fn a_browser_that_closed_its_connection_may_come_back_for_ten_seconds() {
    // It comes.
    let mut rig = Rig::connected();
    rig.put(Input::DtlsClosed { returns: true });
    rig.wait(Duration::from_secs(9));
    let answer = rig.starts_over(OTHER, ELSEWHERE).unwrap();
    rig.wait(Duration::from_secs(5));
    rig.checks(&answer);
    rig.shakes_hands(OTHER);
    rig.wait(Duration::from_secs(40));
    assert_eq!(rig.cause(), None);
    rig.finish();
    // It does not come, or its other connection fails, or nobody knows it.
    let mut rig = Rig::connected();
    rig.put(Input::DtlsClosed { returns: true });
    rig.wait(Duration::from_secs(11));
    assert_eq!(rig.cause(), Some(EndCause::DtlsClosed));
    rig.is_over();
    let mut rig = Rig::connected();
    rig.put(Input::DtlsClosed { returns: true });
    rig.starts_over(OTHER, ELSEWHERE).unwrap();
    rig.wait(Duration::from_secs(31));
    assert_eq!(rig.cause(), Some(EndCause::DtlsClosed));
    rig.is_over();
    let mut rig = Rig::connected();
    rig.put(Input::DtlsClosed { returns: false });
    assert_eq!(rig.cause(), Some(EndCause::DtlsClosed));
    rig.is_over();
}

#[test]
fn hanging_up_meanwhile_leaves_nothing() {
    for step in 0..3 {
        let mut rig = Rig::connected();
        let answer = rig.starts_over(OTHER, ELSEWHERE).unwrap();
        if step > 0 {
            rig.checks(&answer);
        }
        if step > 1 {
            rig.put(Input::ConsentLost(flow("198.51.100.7:40000")));
            assert_eq!(rig.cause(), None, "another is under way");
        }
        rig.finish();
    }
}

#[test]
fn another_control_answers_a_browser_that_starts_over() {
    let mut rig = Rig::connected();
    let answer = rig.starts_over(OTHER, ELSEWHERE).unwrap();
    rig.checks(&answer);
    // Control is killed in between: what it had begun is lost, what ran goes on.
    let (plan, first) = (rig.last(), rig.plans()[0].clone());
    let mut next = Rig::restored(&plan, rig.now);
    next.obedient = true;
    let answer = next.starts_over([0xdd; 32], "198.51.100.7:42000").unwrap();
    assert!(answer.contains("a=fingerprint:sha-256 09:09"), "by its own certificate: {answer}");
    next.checks(&answer);
    assert_eq!(ingress(&next.last()), [first.directions[0].ingress[0], flow("198.51.100.7:42000")]);
    next.shakes_hands([0xdd; 32]);
    assert_eq!(ingress(&next.last()), [flow("198.51.100.7:42000")]);
    // What the browser offers now is answered by the certificate that shook hands.
    let again = next.reoffer(|text| text.replace(&pairs(FINGERPRINT), &pairs([0xdd; 32]))).unwrap();
    assert!(again.contains("a=fingerprint:sha-256 09:09"));
    next.finish();
}

#[test]
fn what_the_other_connection_speaks_counts_from_its_keys_on() {
    let mut rig = Rig::connected();
    let former = rig.last();
    let mut browser = IceAgent::new(IceCreds::new());
    browser.set_controlling(true);
    browser.add_local_candidate(Candidate::host(address(ELSEWHERE), "udp").unwrap());
    rig.browser = browser;
    let answer = rig
        .reoffer(|text| {
            let text = text.replace(&pairs(FINGERPRINT), &pairs(OTHER)).replace("a=sendrecv", "a=inactive");
            text.replace(" 126", " 97").replace(":126 ", ":97 ")
        })
        .unwrap();
    assert!(answer.contains("a=rtpmap:97 telephone-event/8000"), "{answer}");
    rig.at = vec![address(ELSEWHERE)];
    rig.checks(&answer);
    assert_eq!(rig.last().directions[0].payload_types, former.directions[0].payload_types);
    let invites = rig.requests(&Method::Invite).len();
    rig.shakes_hands(OTHER);
    let types = &rig.last().directions[0].payload_types;
    assert!(types.iter().any(|map| map.from.0 == 97) && types.iter().all(|map| map.from.0 != 126));
    assert_eq!(rig.requests(&Method::Invite).len(), invites + 1, "the inside hears of the hold");
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0 8 101", "a=inactive\r\n"), &[]);
    rig.finish();
}

/// Its pair has lapsed while another connection was under way; then the page speaks by it once more.
#[test]
fn a_connection_that_is_over_and_speaks_again_has_so_long_to_live_again() {
    for lives in [true, false] {
        let mut rig = Rig::connected();
        let lapsed = rig.last().consents[0].flow;
        rig.starts_over(OTHER, ELSEWHERE).unwrap();
        rig.put(Input::ConsentLost(lapsed));
        assert_eq!(rig.cause(), None, "the other one may take its place");
        super::hold::restart(&mut rig);
        rig.installed();
        if lives {
            rig.ice(Duration::from_secs(2));
            // Another one that fails later is not the end of it.
            rig.starts_over([0xdd; 32], "198.51.100.7:42000").unwrap();
        }
        rig.wait(Duration::from_secs(31));
        assert_eq!(rig.cause(), if lives { None } else { Some(EndCause::ConsentLost) });
        if lives { rig.finish() } else { rig.is_over() }
    }
}

#[test]
fn a_page_that_is_loaded_anew_while_its_picture_is_being_added_starts_over_at_once() {
    let mut rig = Rig::connected();
    rig.adds_a_picture();
    let waited = rig.count(|command| matches!(command, Command::Renegotiated(_)));
    let sent = rig.requests(&Method::Invite).len();
    let answer = rig.starts_over(OTHER, ELSEWHERE).unwrap();
    // One answer, and it is the other connection's.
    assert_eq!(rig.count(|command| matches!(command, Command::Renegotiated(_))), waited + 1);
    rig.checks(&answer);
    rig.shakes_hands(OTHER);
    assert_eq!(rig.names().last(), Some(&"renewed"));
    // The inside, which takes the picture yet, hears that there is none.
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0 101", super::video::H264), &[]);
    assert_eq!(rig.requests(&Method::Invite).len(), sent + 1);
    let body = String::from_utf8(rig.requests(&Method::Invite).pop().unwrap().1.body).unwrap();
    assert!(super::video::section(&body).starts_with("m=video 0 "), "{body}");
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0 101", "m=video 0 RTP/AVP 96\r\n"), &[]);
    assert_eq!((rig.last().directions.len(), rig.cause()), (2, None));
    rig.finish();
}

#[test]
fn no_picture_is_proposed_while_another_connection_is_being_made() {
    let mut rig = Rig::connected();
    let body = sdp("10.0.0.5", "0 101", super::video::H264);
    rig.ask(Method::Invite, "pbx", &body).unwrap();
    rig.starts_over(OTHER, ELSEWHERE).unwrap();
    assert_eq!(rig.call.offer_picture(), Err(AcceptError::Gone));
    rig.wait(Duration::from_secs(31));
    assert!(rig.call.offer_picture().is_ok());
}
