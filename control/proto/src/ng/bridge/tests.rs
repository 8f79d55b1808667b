mod flags;
mod opensips;
mod strange;
mod video;

use super::*;
use crate::ng::{Value, bencode};
use crate::settings::{CandidateKind, LocalCandidate, SipSettings, Timeouts};
use sallyport_plan::{Mute, Passage, Plan, Protection};

const WEB: &str = "v=0\r\no=- 46117 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a v\r\na=extmap-allow-mixed\r\n\
    a=msid-semantic: WMS\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 9 0 8 110\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
    a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=ice-options:trickle\r\n\
    a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
    a=setup:actpass\r\na=mid:a\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=sendrecv\r\na=msid:- t\r\n\
    a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 useinbandfec=1\r\n\
    a=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
    a=ssrc:3735928559 cname:x\r\na=label:main\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\n\
    a=rtpmap:96 VP8/90000\r\n";

const PHONE: &str = "v=0\r\no=ph 17 1 IN IP4 10.0.0.9\r\ns=call\r\nc=IN IP4 10.0.0.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8 0 101\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n";

fn settings() -> Arc<Settings> {
    let at = |text: &str| text.parse().unwrap();
    Arc::new(Settings {
        candidates: vec![LocalCandidate {
            address: at("203.0.113.1:10000"),
            base: at("203.0.113.1:10000"),
            kind: CandidateKind::Host,
            zone: Zone::Outside,
            tcp: false,
        }],
        own: Vec::new(),
        ice_lite: false,
        video: true,
        fingerprint: [7; 32],
        toward: "10.0.0.1".parse().unwrap(),
        sip: SipSettings {
            domain: String::new(),
            user: String::new(),
            password: String::new(),
            display_name: String::new(),
            contact: String::new(),
            user_agent: String::new(),
            policy: crate::Policy::default(),
        },
        recording: None,
        timeouts: Timeouts::default(),
    })
}

fn request(verb: &str, sdp: &str, flags: &str) -> Request {
    let flags = Value::text(flags);
    let mut pairs = vec![
        ("command", Value::text(verb)),
        ("call-id", Value::text("c")),
        ("from-tag", Value::text("a")),
        ("sdp", Value::text(sdp)),
        ("rtpp-flags", flags),
    ];
    if verb == "answer" {
        pairs.push(("to-tag", Value::text("b")));
    }
    Request::parse(&Value::dict(pairs)).unwrap()
}

fn begin(sdp: &str, flags: &str) -> Result<Bridge, String> {
    let when = (Instant::now(), 0);
    Bridge::new(CallId(1), settings(), Arc::default(), Seed([9; 32]), when, &request("offer", sdp, flags))
}

/// Begins, reserves, and gives the SDP for the other side.
fn offered(sdp: &str, flags: &str) -> (Bridge, String) {
    let mut bridge = begin(sdp, flags).unwrap();
    let Some(Command::Reserve { toward, pairs }) = bridge.poll_command() else { panic!("no reservation") };
    let pair = |number: u8| {
        let port = 20_000 + 2 * u16::from(number);
        let ip = if toward.is_ipv4() { "10.0.0.1".parse().unwrap() } else { "fd00::1".parse().unwrap() };
        let at = |port| std::net::SocketAddr::new(ip, port);
        PortPair { rtp: at(port), rtcp: at(port + 1) }
    };
    bridge.handle(Instant::now(), Input::Reserved((0..pairs).map(pair).collect()));
    let text = said(&mut bridge);
    (bridge, text)
}

fn said(bridge: &mut Bridge) -> String {
    match commands(bridge)
        .into_iter()
        .find(|command| matches!(command, Command::Answer(_) | Command::Fail(_)))
    {
        Some(Command::Answer(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn commands(bridge: &mut Bridge) -> Vec<Command> {
    std::iter::from_fn(|| bridge.poll_command()).collect()
}

/// Answers inside, where the plan comes before the answer.
fn answered(bridge: &mut Bridge, sdp: &str) -> (Plan, String) {
    answered_with(bridge, sdp, "")
}

fn answered_with(bridge: &mut Bridge, sdp: &str, flags: &str) -> (Plan, String) {
    bridge.request(Instant::now(), &request("answer", sdp, flags));
    let plan = commands(bridge).into_iter().find_map(|command| match command {
        Command::Install(plan) => Some(plan),
        _ => None,
    });
    let plan = plan.expect("a plan");
    bridge.handle(Instant::now(), Input::Installed(plan.version));
    let text = said(bridge);
    (plan, text)
}

#[test]
fn a_browsers_offer_loses_all_that_is_the_browsers() {
    let (_, text) = offered(WEB, "RTP/AVP ICE=remove rtcp-mux-demux replace-origin codec-strip-opus");
    assert_eq!(
        text,
        "v=0\r\no=- 46117 2 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 20000 RTP/AVP 9 0 8 110\r\n\
         a=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
         a=label:main\r\na=sendrecv\r\na=rtcp:20001\r\nm=video 20002 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n\
         a=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\na=sendrecv\r\na=rtcp:20003\r\n"
    );
}

#[test]
fn telephonys_answer_becomes_the_browsers() {
    let (mut bridge, _) = offered(WEB, "RTP/AVP ICE=remove rtcp-mux-demux");
    bridge.request(Instant::now(), &request("answer", PHONE, "DTLS=active"));
    let text = said(&mut bridge);
    for line in [
        "a=group:BUNDLE a",
        "m=audio 10000 UDP/TLS/RTP/SAVPF 8 0 101",
        "c=IN IP4 203.0.113.1",
        "a=mid:a",
        "a=rtcp-mux",
        "a=rtcp:10000",
        "a=sendrecv",
        "a=ptime:20",
        "a=end-of-candidates",
        "m=video 0 UDP/TLS/RTP/SAVPF 96",
        "a=mid:v",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} in {text}");
    }
    assert!(text.contains("a=candidate:") && text.contains("a=fingerprint:sha-256 07:07:"), "{text}");
    assert!(!text.contains("10.0.0.1\r\n") && text.matches("c=").count() == 1, "{text}");
}

#[test]
fn mux_is_offered_inside_as_asked() {
    let has = |flags: &str| {
        let (_, text) = offered(WEB, &format!("RTP/AVP {flags}"));
        (text.contains("a=rtcp-mux\r\n"), text.contains("a=rtcp:20000\r\n"))
    };
    assert_eq!(has(""), (true, false));
    assert_eq!(has("rtcp-mux-demux"), (false, false));
    assert_eq!(has("rtcp-mux-require"), (true, true));
    assert!(!offered(PHONE, "no-rtcp-attribute").1.contains("a=rtcp:"));
}

#[test]
fn sdes_meets_plain_rtp() {
    let (mut bridge, offer) = offered(PHONE, "RTP/SAVP SDES-no-AEAD_AES_128_GCM");
    let crypto = offer.lines().find(|line| line.starts_with("a=crypto:")).unwrap();
    assert!(
        offer.contains(" RTP/SAVP 8 0 101\r\n")
            && crypto.starts_with("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:")
    );
    let theirs = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    let answer = PHONE.replace("RTP/AVP", "RTP/SAVP") + theirs + "\r\n";
    let (plan, text) = answered(&mut bridge, &answer);
    assert!(text.contains(" RTP/AVP 8 0 101\r\n") && !text.contains("crypto"), "{text}");
    let [there, back] = plan.directions.as_slice() else { panic!("two directions") };
    assert_eq!((there.open.as_ref(), there.passage), (Some(&Protection::Plain), Passage::Translated));
    assert!(matches!((&there.seal, &back.open), (Some(Protection::Srtp(_)), Some(Protection::Srtp(_)))));
    assert_ne!(there.seal, back.open);
}

#[test]
fn sdes_offered_is_answered_under_its_tag() {
    let theirs = "a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^31";
    let sdp = PHONE.replace("RTP/AVP", "RTP/SAVP") + theirs + "\r\n";
    let (mut bridge, offer) = offered(&sdp, "RTP/AVP");
    assert!(!offer.contains("crypto") && offer.contains(" RTP/AVP "), "{offer}");
    let (_, answer) = answered(&mut bridge, PHONE);
    assert!(
        answer.contains("a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:") && !answer.contains("d0Rmdm"),
        "{answer}"
    );
    assert!(answer.contains(" RTP/SAVP "), "{answer}");
}

#[test]
fn old_configurations_say_rtp_savpf_for_browsers() {
    let (_, offer) = offered(PHONE, "RTP/SAVPF ICE=force");
    assert!(offer.contains(" RTP/SAVPF 8 0 101\r\n") && offer.contains("a=setup:actpass\r\n"), "{offer}");
    assert!(!offer.contains("crypto"), "{offer}");
}

#[test]
fn hold_mutes_and_an_address_of_zeroes_keeps_the_old_one() {
    let (mut bridge, _) = offered(PHONE, "");
    let (plan, _) = answered(&mut bridge, PHONE);
    assert!(plan.directions.iter().all(|direction| direction.mute == Mute::Open));
    let held = PHONE.replace("c=IN IP4 10.0.0.9", "c=IN IP4 0.0.0.0");
    bridge.request(Instant::now(), &request("offer", &held, ""));
    let offer = said(&mut bridge);
    assert!(offer.contains("a=inactive\r\n") && offer.contains("c=IN IP4 10.0.0.1\r\n"), "{offer}");
    let (plan, _) = answered(&mut bridge, &format!("{PHONE}a=inactive\r\n"));
    assert!(plan.directions.iter().all(|direction| direction.mute == Mute::Held));
    assert_eq!(plan.directions[1].rtp.remote.port(), 4000);
    assert_eq!(plan.version, 2);
}

/// Between plain telephones packets leave as they came, also on hold; a re-offer under other payload types ends that, and the
/// next one brings it back.
#[test]
fn plain_telephones_are_transparent_while_nothing_has_to_change() {
    let passages = |plan: &Plan| plan.directions.iter().map(|one| one.passage).collect::<Vec<_>>();
    let (mut bridge, _) = offered(PHONE, "");
    let (plan, _) = answered(&mut bridge, PHONE);
    assert_eq!(passages(&plan), [Passage::Transparent; 2]);
    let ours = plan.directions[0].ssrc;
    let renumbered = PHONE.replace("101", "96");
    let versions = [
        (PHONE, format!("{PHONE}a=inactive\r\n"), Passage::Transparent),
        (PHONE, renumbered.clone(), Passage::Translated),
        (&renumbered, renumbered.clone(), Passage::Transparent),
    ];
    for (version, (offer, answer, passage)) in (2..).zip(versions) {
        bridge.request(Instant::now(), &request("offer", offer, ""));
        said(&mut bridge);
        let (plan, _) = answered(&mut bridge, &answer);
        assert_eq!((plan.version, passages(&plan)), (version, vec![passage; 2]));
        assert_eq!(plan.directions[0].ssrc, ours, "the stream of ours is the same one each time");
    }
}

#[test]
fn ipv6_inside_has_ports_of_its_own() {
    let v6 = PHONE.replace("IP4 10.0.0.9", "IP6 2001:db8::9");
    let (mut bridge, offer) = offered(&v6, "UDP/TLS/RTP/SAVPF");
    assert!(offer.contains("c=IN IP4 203.0.113.1\r\n"), "outside is reached by what it has: {offer}");
    bridge.request(Instant::now(), &request("answer", &WEB.replace("actpass", "active"), ""));
    let answer = said(&mut bridge);
    assert!(answer.contains("c=IN IP6 fd00::1\r\n"), "{answer}");
    assert!(begin(PHONE, "address-family=IP6").unwrap_err().contains("family"));
}

#[test]
fn what_cannot_be_is_refused_before_anything_begins() {
    for (sdp, flags, reason) in [
        (WEB, "", "Both sides are WebRTC"),
        (WEB, "RTP/AVP direction=internal direction=internal", "internal interface"),
        (PHONE, "direction=external direction=internal", "external interface"),
        (PHONE, "UDP/TLS/RTP/SAVPF ICE=force DTLS=off", "DTLS is off"),
        (WEB, "RTP/AVP codec-strip-all codec-except-G729", "No codec"),
        (PHONE, "RTP/SAVP SDES-only-NONE", "suite"),
    ] {
        let outcome = begin(sdp, flags);
        match outcome {
            Err(error) => assert!(error.contains(reason), "{flags}: {error}"),
            Ok(mut bridge) => {
                bridge.poll_command();
                let at = |port| std::net::SocketAddr::from(([10, 0, 0, 1], port));
                let pair = |port| PortPair { rtp: at(port), rtcp: at(port + 1) };
                bridge.handle(Instant::now(), Input::Reserved(vec![pair(20_000), pair(20_002)]));
                let ended = commands(&mut bridge);
                assert!(
                    matches!(ended.first(), Some(Command::Fail(failure)) if failure.text.contains(reason))
                );
                assert_eq!(ended.last(), Some(&Command::Ended));
            }
        }
    }
}

#[test]
fn a_record_gives_the_same_bridge_again() {
    let (mut bridge, _) = offered(PHONE, "");
    let (plan, _) = answered(&mut bridge, PHONE);
    assert!(Bridge::is_record(&plan.record));
    let restored = Bridge::restore(&plan, settings(), Arc::default(), Seed([1; 32])).unwrap();
    assert_eq!(record::Record::of(&restored), record::Record::of(&bridge));
    assert_eq!(restored.view().state, CallState::Connected);
    let mut broken = plan;
    broken.record.truncate(5);
    assert!(Bridge::restore(&broken, settings(), Arc::default(), Seed([1; 32])).is_err());
}

#[test]
fn time_ends_what_nobody_answers() {
    let (mut bridge, _) = offered(PHONE, "");
    let due = bridge.poll_timeout().unwrap();
    bridge.handle_timeout(due);
    let ended = commands(&mut bridge);
    assert!(ended.contains(&Command::Remove) && ended.last() == Some(&Command::Ended));
    assert_eq!((bridge.view().state, bridge.poll_timeout()), (CallState::Ended, None));
}

#[test]
fn a_cut_sdp_is_refused_or_carried_but_never_harms() {
    for cut in 0..WEB.len() {
        let mut request = request("offer", "x", "RTP/AVP");
        request.sdp = WEB[..cut].to_owned();
        let when = (Instant::now(), 0);
        let _ = Bridge::new(CallId(1), settings(), Arc::default(), Seed([9; 32]), when, &request);
    }
    assert!(bencode::parse(b"d").is_err());
}
