//! Sound and pictures in one call: a browser's bundle on one side, sections with ports of their own on the other.

use super::*;
use sallyport_plan::{Consent, FlowKey, Format, KeyMaterial, Profile as SrtpProfile, PtMap, Resend};

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const WIDE: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// As Chromium offers it, in short.
fn film_web() -> String {
    let audio = WEB.split("m=video").next().unwrap();
    format!(
        "{audio}a=extmap:3 {WIDE}\r\na=extmap:4 {MID}\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 39 40 41\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
         a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=setup:actpass\r\na=mid:v\r\n\
         a=extmap:3 {WIDE}\r\na=extmap:4 {MID}\r\na=extmap:13 urn:3gpp:video-orientation\r\na=sendrecv\r\na=msid:- c\r\n\
         a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 transport-cc\r\n\
         a=rtcp-fb:96 ccm fir\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
         a=rtpmap:102 H264/90000\r\na=rtcp-fb:102 transport-cc\r\na=rtcp-fb:102 nack\r\n\
         a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\na=rtpmap:103 rtx/90000\r\n\
         a=fmtp:103 apt=102\r\na=rtpmap:39 red/90000\r\na=rtpmap:40 ulpfec/90000\r\na=rtpmap:41 flexfec-03/90000\r\n\
         a=ssrc-group:FID 11 12\r\na=ssrc:11 cname:x\r\na=ssrc:12 cname:x\r\n"
    )
}

/// A phone with a picture.
pub const FILM_PHONE: &str = "v=0\r\no=ph 17 1 IN IP4 10.0.0.9\r\ns=call\r\nc=IN IP4 10.0.0.9\r\nt=0 0\r\n\
    m=audio 4000 RTP/AVP 8 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n\
    m=video 4010 RTP/AVP 99 101 34\r\nb=AS:1500\r\na=rtpmap:99 H264/90000\r\n\
    a=fmtp:99 profile-level-id=42801F;packetization-mode=1;sprop-parameter-sets=Z0IAKeK,aM48gA==\r\n\
    a=rtpmap:101 VP8/90000\r\na=rtcp-fb:* nack pli\r\na=content:main\r\n";

/// The text of a section.
fn section<'a>(sdp: &'a str, medium: &str) -> &'a str {
    let begin = sdp.find(&format!("m={medium} ")).unwrap_or_else(|| panic!("no {medium} in {sdp}"));
    let end = sdp[begin + 1..].find("\nm=").map_or(sdp.len(), |end| begin + end + 2);
    &sdp[begin..end]
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|own| own == *line), "{line} in {text}");
    }
}

/// ICE and DTLS as they end: the plan with all keys.
fn connected(bridge: &mut Bridge) -> Plan {
    let local = "203.0.113.1:10000".parse().unwrap();
    let flow = FlowKey { zone: Zone::Outside, local, remote: "198.51.100.7:5000".parse().unwrap() };
    let browser = bridge.sides.iter().position(|side| side.zone == Zone::Outside).unwrap();
    let outside = bridge.sides[browser].outside.as_mut().unwrap();
    let consent = Consent {
        flow,
        local_ufrag: outside.local.0.clone(),
        local_pwd: outside.local.1.clone(),
        remote_ufrag: outside.remote.0.clone(),
        remote_pwd: outside.remote.1.clone(),
        role: sallyport_plan::IceRole::Controlled(1),
    };
    (outside.nominated, outside.consent, outside.dtls_begun) = (Some(flow), Some(consent), true);
    let peer_fingerprint = outside.fingerprint.unwrap();
    let key = |octet| KeyMaterial::new(SrtpProfile::AeadAes128Gcm, &[octet; 16], &[octet; 12]).unwrap();
    let (receive, send) = (key(1), key(2));
    let done = Input::DtlsDone { profile: SrtpProfile::AeadAes128Gcm, receive, send, peer_fingerprint };
    bridge.handle(Instant::now(), done);
    installed(bridge)
}

/// The plan that goes out, and is installed.
fn installed(bridge: &mut Bridge) -> Plan {
    let plan = commands(bridge).into_iter().find_map(|command| match command {
        Command::Install(plan) => Some(plan),
        _ => None,
    });
    let plan = plan.expect("a plan");
    assert_eq!(plan.validate(), Ok(()));
    bridge.handle(Instant::now(), Input::Installed(plan.version));
    plan
}

fn again(bridge: &mut Bridge, verb: &str, sdp: &str, flags: &str) -> String {
    bridge.request(Instant::now(), &request(verb, sdp, flags));
    said(bridge)
}

/// An answer whose plan goes out at once.
fn answers(bridge: &mut Bridge, sdp: &str) -> (Plan, String) {
    bridge.request(Instant::now(), &request("answer", sdp, ""));
    let commands = commands(bridge);
    let plan = commands.iter().find_map(|command| match command {
        Command::Install(plan) => Some(plan.clone()),
        _ => None,
    });
    let text = commands.into_iter().find_map(|command| match command {
        Command::Answer(text) => Some(text),
        _ => None,
    });
    let plan = plan.expect("a plan");
    bridge.handle(Instant::now(), Input::Installed(plan.version));
    (plan, text.expect("an answer"))
}

/// The same of the other side, as it is in a dialog whose called side asks.
fn back(bridge: &mut Bridge, verb: &str, sdp: &str, flags: &str) {
    let mut request = request(verb, sdp, flags);
    (request.from_tag, request.to_tag) = ("b".into(), Some("a".into()));
    bridge.request(Instant::now(), &request);
}

fn types(maps: &[PtMap]) -> Vec<(u8, u8)> {
    maps.iter().map(|map| (map.from.0, map.to.0)).collect()
}

const INWARD: &str = "RTP/AVP ICE=remove rtcp-mux-demux replace-origin";
const OUTWARD: &str = "UDP/TLS/RTP/SAVPF ICE=force rtcp-mux-offer generate-mid";

#[test]
fn a_browsers_picture_is_offered_inside_without_what_repairs_it() {
    let (_, text) = offered(&film_web(), INWARD);
    assert_eq!(
        section(&text, "video"),
        "m=video 20002 RTP/AVP 96 102\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\n\
         a=rtpmap:102 H264/90000\r\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
         a=rtcp-fb:102 nack pli\r\na=rtcp-fb:102 ccm fir\r\na=sendrecv\r\na=rtcp:20003\r\n"
    );
    for strange in [
        "ice-",
        "candidate",
        "fingerprint",
        "mux",
        "BUNDLE",
        "extmap",
        "ssrc",
        "mid:",
        "rtx",
        "ulpfec",
        "red/",
    ] {
        assert!(!text.contains(strange), "{strange} in {text}");
    }
    let (_, early) = offered(&film_web(), &INWARD.replace("RTP/AVP", "RTP/AVPF"));
    assert!(
        early.contains("m=video 20002 RTP/AVPF 96 102\r\n") && early.contains("m=audio 20000 RTP/AVPF "),
        "{early}"
    );
    // Within the bundle only (RFC 8843 section 6).
    let only =
        film_web().replace("m=video 9", "m=video 0").replace("a=mid:v\r\n", "a=mid:v\r\na=bundle-only\r\n");
    assert!(offered(&only, INWARD).1.contains("m=video 20002 RTP/AVP 96 102\r\n"));
    // By a path of its own it cannot come, nor without a format that passes.
    for other in [
        film_web().replace("BUNDLE a v", "BUNDLE a"),
        film_web().replace("H264", "H263").replace("VP8", "XX"),
    ] {
        assert!(offered(&other, INWARD).1.contains("m=video 0 UDP/TLS/RTP/SAVPF 96 "), "{other}");
    }
    let (_, text) = offered(&film_web(), &format!("{INWARD} codec-strip-VP8"));
    assert!(text.contains("m=video 20002 RTP/AVP 102\r\n"), "{text}");
}

#[test]
fn the_phones_picture_comes_back_in_the_bundle_under_the_browsers_numbers() {
    let (mut bridge, _) = offered(&film_web(), INWARD);
    let answer = again(&mut bridge, "answer", FILM_PHONE, "");
    has(&answer, &["a=group:BUNDLE a v"]);
    let film = section(&answer, "video");
    has(
        film,
        &[
            "m=video 10000 UDP/TLS/RTP/SAVPF 102 96 103 97",
            "b=AS:1500",
            "a=content:main",
            "a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            "a=fmtp:103 apt=102",
            "a=rtcp-fb:96 transport-cc",
            "a=rtcp-fb:96 goog-remb",
            "a=rtcp-fb:102 nack pli",
            "a=rtcp-rsize",
            "a=mid:v",
            &format!("a=extmap:3/recvonly {WIDE}"),
            &format!("a=extmap:4 {MID}"),
        ],
    );
    assert!(
        film.contains("a=ssrc-group:FID ") && film.contains("a=candidate:") && !film.contains("sprop"),
        "{film}"
    );
    assert!(section(&answer, "audio").contains(&format!("a=extmap:4 {MID}")), "{answer}");
    let plan = connected(&mut bridge);
    let [inward, outward, film_in, film_out] = plan.directions.as_slice() else { panic!("four directions") };
    assert_eq!(film_in.ingress, inward.ingress, "one path");
    assert_eq!((film_in.rtp.remote.port(), film_in.rtcp.remote.port()), (4010, 4011));
    assert_eq!(film_out.ingress[0].local.port(), 20_002);
    assert_eq!(types(&film_in.payload_types), [(102, 99), (96, 101), (103, 99), (97, 101)]);
    assert_eq!(
        types(&film_out.payload_types),
        [(102, 102), (96, 96), (99, 102), (101, 96)],
        "its own numbers, too"
    );
    assert!(matches!(film_in.payload_types[2].format, Format::Rtx(of) if of.0 == 102));
    assert!(matches!(&film_out.resend, Resend::Rtx { payload_types, .. } if payload_types.len() == 2));
    assert_eq!(inward.extensions.transport_wide, Some(3));
    assert!(film_in.extensions.nack && film_out.extensions.remb);
    let names = [outward, film_out].map(|one| one.extensions.mid.clone().unwrap());
    assert_eq!(names.map(|mid| (mid.id, mid.name)), [(4, "a".into()), (4, "v".into())]);
    let tags: Vec<BridgeTag> = bridge.tags().collect();
    let of = |tag: &BridgeTag| {
        tag.medias.iter().map(|one| (one.place, one.medium, one.direction)).collect::<Vec<_>>()
    };
    assert_eq!(of(&tags[0]), [(0, Medium::Audio, 0), (1, Medium::Video, 2)]);
    assert_eq!(of(&tags[1]), [(0, Medium::Audio, 1), (1, Medium::Video, 3)]);
    assert_eq!(bridge.view().video.as_deref(), Some("H264/90000"));
}

#[test]
fn a_picture_that_the_phone_refuses_leaves_the_sound() {
    let refused = FILM_PHONE.replace("m=video 4010", "m=video 0");
    let strange = FILM_PHONE.replace("H264", "H263").replace("VP8", "VP9");
    let other = FILM_PHONE.replace("m=video 4010 RTP/AVP", "m=video 4010 RTP/SAVP");
    for phone in [refused.as_str(), PHONE, &strange, &other] {
        let (mut bridge, _) = offered(&film_web(), INWARD);
        let answer = again(&mut bridge, "answer", phone, "");
        has(&answer, &["a=group:BUNDLE a", "m=video 0 UDP/TLS/RTP/SAVPF 96 97 102 103 39 40 41", "a=mid:v"]);
        assert!(!answer.contains("extmap") && !answer.contains("VP8"), "{answer}");
        assert_eq!(connected(&mut bridge).directions.len(), 2, "{phone}");
    }
}

#[test]
fn a_phone_calls_a_browser_with_a_picture() {
    let (mut bridge, offer) = offered(FILM_PHONE, OUTWARD);
    has(&offer, &["a=group:BUNDLE 0 1", "a=mid:0", "a=mid:1", "m=audio 10000 UDP/TLS/RTP/SAVPF 8 0 101"]);
    let film = section(&offer, "video");
    // 101 is the sound's within the bundle.
    has(
        film,
        &[
            "m=video 10000 UDP/TLS/RTP/SAVPF 99 96",
            "a=rtpmap:96 VP8/90000",
            "a=fmtp:99 profile-level-id=42801F;packetization-mode=1",
            "a=rtcp-fb:96 transport-cc",
            "a=rtcp-fb:96 ccm fir",
            "a=setup:actpass",
            &format!("a=extmap:1 {MID}"),
            &format!("a=extmap:2/recvonly {WIDE}"),
        ],
    );
    assert!(!film.contains("H263") && !film.contains("rtx") && film.contains("a=ice-ufrag:"), "{film}");
    let browser = film_web()
        .replace("a v", "0 1")
        .replace("mid:a", "mid:0")
        .replace("mid:v", "mid:1")
        .replace("actpass", "active")
        .replace(&format!("extmap:4 {MID}"), &format!("extmap:1 {MID}"))
        .replace(&format!("extmap:3 {WIDE}"), &format!("extmap:2 {WIDE}"))
        .replace("a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n", "")
        .replace("111 9 0 8 110", "8 101")
        .replace("96 97 102 103 39 40 41", "96 99")
        .replace("a=rtpmap:102", "a=rtpmap:99")
        .replace("a=fmtp:102", "a=fmtp:99");
    let answer = again(&mut bridge, "answer", &browser, INWARD);
    let film = section(&answer, "video");
    has(
        film,
        &["m=video 20002 RTP/AVP 101 99", "a=rtpmap:101 VP8/90000", "a=rtpmap:99 H264/90000", "a=rtcp:20003"],
    );
    assert!(!answer.contains("mid:") && !answer.contains("extmap") && !film.contains("sprop"), "{answer}");
    let plan = connected(&mut bridge);
    let [_, inward, film_out, film_in] = plan.directions.as_slice() else { panic!("four directions") };
    assert_eq!(types(&film_out.payload_types), [(101, 96), (99, 99)], "toward the browser");
    assert_eq!(types(&film_in.payload_types), [(96, 101), (99, 99)]);
    assert_eq!((film_out.resend.clone(), film_in.resend.clone()), (Resend::Same, Resend::Never));
    assert_eq!((inward.extensions.transport_wide, film_in.extensions.nack), (Some(2), true));
    assert_eq!(film_out.extensions.mid.as_ref().map(|mid| (mid.id, mid.name.as_str())), Some((1, "1")));
    // The phone holds its picture, under other numbers: the browser keeps those that it has.
    let hold = FILM_PHONE.replace(" 99 ", " 120 ").replace(":99 ", ":120 ") + "a=inactive\r\n";
    let offer = again(&mut bridge, "offer", &hold, OUTWARD);
    has(section(&offer, "video"), &["m=video 10000 UDP/TLS/RTP/SAVPF 99 96", "a=inactive", "a=mid:1"]);
    bridge.request(
        Instant::now(),
        &request("answer", &browser.replace("v\r\n", "v\r\na=inactive\r\n"), INWARD),
    );
    let plan = installed(&mut bridge);
    assert_eq!(types(&plan.directions[2].payload_types), [(101, 96), (120, 99)]);
    assert_eq!((plan.directions[2].mute, plan.directions[0].mute), (Mute::Held, Mute::Open));
}

/// The browser adds a picture; what the phone is offered when the relay has said this of ports.
fn adds(bridge: &mut Bridge, outcome: Input) -> String {
    commands(bridge);
    bridge.request(Instant::now(), &request("offer", &film_web(), INWARD));
    assert!(matches!(bridge.poll_command(), Some(Command::Reserve { pairs: 1, .. })));
    bridge.request(Instant::now(), &request("offer", &film_web(), INWARD));
    assert!(matches!(bridge.poll_command(), Some(Command::Fail(failure)) if failure.text.contains("busy")));
    bridge.handle(Instant::now(), outcome);
    said(bridge)
}

#[test]
fn a_picture_is_added_dropped_and_brought_back() {
    let audio = film_web().split("m=video").next().unwrap().replace("BUNDLE a v", "BUNDLE a");
    let (mut bridge, offer) = offered(&audio, INWARD);
    assert!(!offer.contains("m=video"));
    again(&mut bridge, "answer", PHONE, "");
    assert_eq!(connected(&mut bridge).directions.len(), 2);
    let at = |port| std::net::SocketAddr::from(([10, 0, 0, 1], port));
    let pair = PortPair { rtp: at(20_002), rtcp: at(20_003) };
    // Where there are no ports, or no relay, the call stays one of sound.
    let without = adds(&mut bridge, Input::Refused(Refusal::NoPorts));
    has(
        &without,
        &["m=audio 20000 RTP/AVP 111 9 0 8 110", "m=video 0 UDP/TLS/RTP/SAVPF 96 97 102 103 39 40 41"],
    );
    let (plan, answer) = answers(&mut bridge, FILM_PHONE);
    has(&answer, &["a=group:BUNDLE a"]);
    assert_eq!(plan.directions.len(), 2);
    let away = adds(&mut bridge, Input::RelayAway);
    assert!(away.contains("m=video 0 "), "{away}");
    let version = bridge.relayed.sent;
    bridge.handle(Instant::now(), Input::RelayBack(version));
    commands(&mut bridge);
    let with = adds(&mut bridge, Input::Reserved(vec![pair]));
    has(&with, &["m=video 20002 RTP/AVP 96 102"]);
    let (plan, answer) = answers(&mut bridge, FILM_PHONE);
    has(&answer, &["a=group:BUNDLE a v"]);
    let streams = |plan: &Plan| plan.directions.iter().map(|one| (one.index.0, one.ssrc)).collect::<Vec<_>>();
    assert_eq!((plan.directions.len(), plan.directions[2].mute), (4, Mute::Open));
    // The phone drops it: both ways rest, and the streams stay.
    let dropped = FILM_PHONE.replace("m=video 4010", "m=video 0");
    let offer = {
        back(&mut bridge, "offer", &dropped, OUTWARD);
        said(&mut bridge)
    };
    assert!(offer.contains("m=video 0 RTP/AVP 99 101 34\r\n"), "{offer}");
    let browser = film_web().replace("m=video 9", "m=video 0").replace("BUNDLE a v", "BUNDLE a");
    back(&mut bridge, "answer", &browser, INWARD);
    let without = installed(&mut bridge);
    assert_eq!(streams(&without), streams(&plan));
    let mutes: Vec<Mute> = without.directions.iter().map(|one| one.mute).collect();
    assert_eq!(mutes, [Mute::Open, Mute::Open, Mute::Held, Mute::Held]);
    assert_eq!(bridge.view().video, None);
    // And brings it back: the browser is offered its own numbers, and no ports have to be reserved.
    let offer = {
        back(&mut bridge, "offer", FILM_PHONE, OUTWARD);
        said(&mut bridge)
    };
    has(&offer, &["a=group:BUNDLE a v", "m=video 10000 UDP/TLS/RTP/SAVPF 102 96 103 97"]);
    back(&mut bridge, "answer", &film_web(), INWARD);
    let back = installed(&mut bridge);
    assert_eq!(streams(&back), streams(&plan));
    assert!(back.directions.iter().all(|one| one.mute == Mute::Open));
}

#[test]
fn a_number_that_sound_and_picture_share_is_renumbered_for_the_browser() {
    // The phone answers events under the browser's number of VP8.
    let phone = FILM_PHONE
        .replacen("8 0 101", "8 0 96", 1)
        .replacen(":101 tel", ":96 tel", 1)
        .replace(":101 0-16", ":96 0-16");
    let (mut bridge, _) =
        offered(&film_web().replace("telephone-event/48000", "telephone-event/8000"), INWARD);
    let answer = again(&mut bridge, "answer", &phone, "");
    has(
        &answer,
        &["m=audio 10000 UDP/TLS/RTP/SAVPF 8 0 110", "a=rtpmap:110 telephone-event/8000", "a=fmtp:110 0-16"],
    );
    let plan = connected(&mut bridge);
    assert!(types(&plan.directions[0].payload_types).contains(&(110, 96)));
    assert!(types(&plan.directions[1].payload_types).contains(&(96, 110)));
    assert!(!types(&plan.directions[0].payload_types).contains(&(96, 96)), "that is the picture's");
    // And offers them so later.
    let offer = {
        back(&mut bridge, "offer", &phone, OUTWARD);
        said(&mut bridge)
    };
    has(
        &offer,
        &["m=audio 10000 UDP/TLS/RTP/SAVPF 8 0 110", "m=video 10000 UDP/TLS/RTP/SAVPF 102 96 103 97"],
    );
    // Without a number of the browser's own there is none in the answer.
    let (mut bridge, _) = offered(&film_web(), INWARD);
    let answer = again(&mut bridge, "answer", &phone, "");
    has(&answer, &["m=audio 10000 UDP/TLS/RTP/SAVPF 8 0"]);
    connected(&mut bridge);
}

#[test]
fn a_section_is_never_anothers() {
    let (mut bridge, _) = offered(PHONE, "");
    let film = PHONE.replace("m=audio", "m=video");
    for verb in ["answer", "offer"] {
        bridge.request(Instant::now(), &request(verb, &film, ""));
        let failed = commands(&mut bridge);
        assert!(
            matches!(failed.as_slice(), [Command::Fail(failure)] if failure.text.contains("another's")),
            "{verb}: {failed:?}"
        );
    }
    assert_eq!(answered(&mut bridge, PHONE).0.directions.len(), 2, "the call goes on");
}

#[test]
fn each_section_has_keys_of_its_own() {
    let keys = |sdp: &str| -> Vec<String> {
        let inline = |line: &str| line.split("inline:").nth(1).unwrap().to_owned();
        sdp.lines().filter(|line| line.starts_with("a=crypto:1 ")).map(inline).collect()
    };
    let (mut bridge, offer) = offered(&film_web(), "RTP/SAVP SDES-only-AES_CM_128_HMAC_SHA1_80");
    let ours = keys(&offer);
    assert!(ours.len() == 2 && ours[0] != ours[1], "{offer}");
    let crypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n";
    let other = crypto.replace("d0Rm", "e0Rm");
    let phone =
        FILM_PHONE.replace("RTP/AVP", "RTP/SAVP").replace("m=video", &format!("{crypto}m=video")) + &other;
    let answer = again(&mut bridge, "answer", &phone, "");
    assert!(keys(&answer).is_empty() && answer.contains("a=group:BUNDLE a v\r\n"), "{answer}");
    let plan = connected(&mut bridge);
    assert_ne!(plan.directions[0].seal, plan.directions[2].seal);
    assert_ne!(plan.directions[1].open, plan.directions[3].open);
    // One whose picture has no keys that can be used is one of sound.
    let (mut bridge, _) = offered(&film_web(), "RTP/SAVP SDES-only-AES_CM_128_HMAC_SHA1_80");
    let answer = again(&mut bridge, "answer", &phone.replace(&other, ""), "");
    assert!(answer.contains("m=video 0 ") && answer.contains("a=group:BUNDLE a\r\n"), "{answer}");
    // Keys on one side, a plain phone on the other.
    let (mut bridge, offer) = offered(&phone, "RTP/AVP");
    assert!(keys(&offer).is_empty() && offer.contains("m=video 20006 RTP/AVP 99 101 34\r\n"), "{offer}");
    let (plan, answer) = answered(&mut bridge, FILM_PHONE);
    let ours = keys(&answer);
    assert!(ours.len() == 2 && ours[0] != ours[1], "{answer}");
    assert!(plan.directions.iter().all(|one| one.passage == Passage::Translated));
    assert_eq!(types(&plan.directions[2].payload_types)[..2], [(99, 99), (101, 101)]);
}

#[test]
fn plain_phones_pass_what_they_like() {
    let (mut bridge, offer) = offered(FILM_PHONE, "");
    let film = section(&offer, "video");
    has(film, &["m=video 20006 RTP/AVP 99 101 34", "a=rtcp-fb:* nack pli", "a=content:main", "a=rtcp:20007"]);
    assert!(film.contains("sprop-parameter-sets"), "{film}");
    let (plan, answer) = answered(&mut bridge, &FILM_PHONE.replace("RTP/AVP 99 101 34", "RTP/AVP 34"));
    has(&answer, &["m=video 20004 RTP/AVP 34"]);
    assert!(plan.directions.iter().all(|one| one.passage == Passage::Transparent && one.mute == Mute::Open));
    assert_eq!(plan.directions[2].rtp.local.port(), 20_006);
    // A profile of each section's own.
    let own = FILM_PHONE.replace("m=video 4010 RTP/AVP", "m=video 4010 RTP/AVPF");
    let (_, offer) = offered(&own, "");
    assert!(
        offer.contains("m=audio 20002 RTP/AVP 8") && offer.contains("m=video 20006 RTP/AVPF 99"),
        "{offer}"
    );
    assert!(offered(&own, "RTP/AVP").1.contains("m=video 20006 RTP/AVP 99"));
}

#[test]
fn a_new_control_goes_on_with_sound_and_picture() {
    let (mut bridge, _) = offered(&film_web(), INWARD);
    again(&mut bridge, "answer", FILM_PHONE, "");
    let plan = connected(&mut bridge);
    let restore = |plan: &Plan| Bridge::restore(plan, settings(), Arc::default(), Seed([1; 32])).unwrap();
    let mut restored = restore(&plan);
    assert_eq!(record::Record::of(&restored).encode(), plan.record);
    // A hold of the phone's: the same plan but for that.
    let hold = FILM_PHONE.to_owned() + "a=sendonly\r\n";
    let offer = {
        back(&mut restored, "offer", &hold, OUTWARD);
        said(&mut restored)
    };
    has(&offer, &["m=video 10000 UDP/TLS/RTP/SAVPF 102 96 103 97", "a=mid:v"]);
    back(&mut restored, "answer", &film_web(), INWARD);
    let next = installed(&mut restored);
    // The browser answers its own formats in another order.
    let ordered = |mut directions: Vec<sallyport_plan::Direction>| {
        for direction in &mut directions {
            direction.payload_types.sort_by_key(|map| map.from);
            if let Resend::Rtx { payload_types, .. } = &mut direction.resend {
                payload_types.sort();
            }
        }
        directions
    };
    let mut expected = plan.directions.clone();
    expected[2].mute = Mute::Held;
    // It was offered other numbers than its own, and now has answered under them.
    let numbers = types(&expected[3].payload_types);
    expected[3].payload_types.clone_from(&next.directions[3].payload_types);
    assert!(types(&expected[3].payload_types).iter().all(|pair| numbers.contains(pair)), "{numbers:?}");
    assert_eq!(ordered(next.directions), ordered(expected));
    // A picture that no plan has lost its ports with the control that reserved them.
    let (mut bridge, _) = offered(&film_web(), INWARD);
    again(&mut bridge, "answer", PHONE, "");
    let mut restored = restore(&connected(&mut bridge));
    commands(&mut restored);
    restored.request(Instant::now(), &request("offer", &film_web(), INWARD));
    assert!(matches!(restored.poll_command(), Some(Command::Reserve { pairs: 1, .. })));
}

#[test]
fn the_largest_record_fits() {
    let name = "x".repeat(58);
    let maps: String = (0..128).map(|number| format!("a=rtpmap:{number} {name}/8000\r\n")).collect();
    let types = (0..128).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
    let parameters = "x".repeat(256 - 20);
    let film: String = (0..6)
        .map(|number| {
            format!("a=rtpmap:{number} VP9/90000\r\na=fmtp:{number} profile-id={number};{parameters}\r\n")
        })
        .collect();
    let rest: String = (6..128).map(|number| format!("a=rtpmap:{number} {name}/90000\r\n")).collect();
    let session = PHONE.split("m=").next().unwrap();
    let mid = "m".repeat(64);
    let section = |medium: &str, port: u16, maps: &str| {
        format!("m={medium} {port} RTP/AVP {types}\r\na=mid:{mid}{port}\r\n{maps}")
    };
    let largest = |port: u16| {
        let films: String =
            (1..4).map(|at| section("video", port + 10 * at, &format!("{film}{rest}"))).collect();
        format!("{session}{}{films}", section("audio", port, &maps))
    };
    let (mut bridge, _) = offered(&largest(5000), "");
    let (plan, _) = answered(&mut bridge, &largest(6000));
    assert_eq!(plan.directions.len(), 8);
    assert!(plan.record.len() < Plan::RECORD_MAX, "{}", plan.record.len());
}
