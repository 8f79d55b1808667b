//! Header extensions and feedback on bandwidth: what each side is told of them, and what the relay.

use std::sync::Arc;

use sallyport_plan::{Direction, ExtensionMap, Extensions, Mid};

use super::{Rig, sdp, settings};
use crate::settings::{Policy, Settings, SipSettings};
use crate::sip::Method;

const LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// What Chromium says beside its sound, and of its picture.
const SOUND: &str = "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtcp-rsize\r\na=rtcp-fb:111 transport-cc\r\n";
const FILM: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendrecv\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
a=extmap:14 urn:ietf:params:rtp-hdrext:toffset\r\na=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 nack\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n";
const VP8: &str = "m=video 30002 RTP/AVP 120\r\na=rtpmap:120 VP8/90000\r\n";

fn loud() -> Arc<Settings> {
    let plain = Settings::clone(&settings("secret"));
    let policy = Policy { audio_level: true, ..plain.sip.policy.clone() };
    Arc::new(Settings { sip: SipSettings { policy, ..plain.sip.clone() }, ..plain })
}

fn call(settings: Arc<Settings>, offer: &str, answer: &str) -> Rig {
    let mut rig = Rig::with(settings, offer);
    rig.reserve();
    rig.ring();
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0 101", answer), &[]);
    rig.come_up();
    rig
}

fn reinvite(rig: &mut Rig, body: &[u8]) {
    assert_eq!(rig.ask(Method::Invite, "pbx", body).unwrap().status, 200);
}

fn told(text: &str) -> Vec<&str> {
    let known = ["a=extmap", "a=rtcp-rsize", "a=rtcp-fb"];
    text.lines().filter(|line| known.iter().any(|name| line.starts_with(name))).collect()
}

fn invite(rig: &Rig) -> String {
    String::from_utf8(rig.requests(&Method::Invite).pop().unwrap().1.body).unwrap()
}

fn extensions(rig: &Rig) -> Vec<Extensions> {
    let directions: Vec<Direction> = rig.plans().pop().unwrap().directions;
    directions.into_iter().map(|direction| direction.extensions).collect()
}

fn carried(from: u8, to: u8) -> Extensions {
    Extensions { carried: vec![ExtensionMap { from, to }], ..Extensions::default() }
}

#[test]
fn sound_alone_agrees_on_nothing() {
    for offer in [SOUND.to_owned(), format!("{SOUND}{FILM}")] {
        let rig = call(settings("secret"), &offer, "");
        assert_eq!(told(invite(&rig).split("m=video").next().unwrap()), [""; 0]);
        assert_eq!(told(&rig.answer().unwrap()), [""; 0]);
        assert_eq!(extensions(&rig), vec![Extensions::default(); 2]);
        rig.finish();
    }
}

#[test]
fn beside_a_picture_sections_are_named_and_arrivals_fed_back() {
    let rig = call(settings("secret"), &format!("{SOUND}{FILM}"), VP8);
    let answer = rig.answer().unwrap();
    let (sound, picture) = answer.split_once("m=video").unwrap();
    let wide =
        "a=extmap:3/recvonly http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    let mid = "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid";
    assert_eq!(told(sound), ["a=rtcp-rsize", wide, mid], "the codec of the call has no such feedback");
    let of_96 = |what| format!("a=rtcp-fb:96 {what}");
    let all = ["ccm fir", "nack", "nack pli", "transport-cc", "goog-remb"].map(of_96);
    assert_eq!(
        told(picture),
        [&["a=rtcp-rsize"][..], &[&all[0], &all[1], &all[2]], &[wide, mid], &[&all[3], &all[4]]].concat()
    );
    let inward = Extensions { transport_wide: Some(3), ..Extensions::default() };
    let outward = |name: &str, remb| Extensions {
        mid: Some(Mid { id: 4, name: name.into() }),
        remb,
        ..Extensions::default()
    };
    let picture = Extensions { nack: true, ..inward.clone() };
    assert_eq!(extensions(&rig), [inward, outward("0", false), picture, outward("1", true)]);
    let before = extensions(&rig);
    let mut next = Rig::restored(&rig.plans().pop().unwrap(), rig.now);
    rig.finish();
    next.obedient = true;
    // Another control goes on with it: what makes it plan anew changes nothing of this.
    reinvite(&mut next, &sdp("10.0.0.6", "0 101", VP8));
    assert_eq!(extensions(&next), before);
    next.finish();
}

#[test]
fn the_bandwidth_that_the_inside_wants_is_told_to_the_browser() {
    let limited = VP8.replacen("\r\n", "\r\nb=AS:384\r\n", 1);
    let rig = call(settings("secret"), &format!("{SOUND}{FILM}"), &limited);
    let answer = rig.answer().unwrap();
    let (sound, picture) = answer.split_once("m=video").unwrap();
    assert!(picture.contains("\r\nc=IN IP4 0.0.0.0\r\nb=AS:384\r\nb=TIAS:384000\r\na="), "{picture}");
    assert!(!sound.contains("b="), "{sound}");
    rig.finish();
}

#[test]
fn without_feedback_in_the_offer_there_is_none() {
    for missing in ["a=rtcp-fb:96 transport-cc\r\n", "a=rtcp-rsize\r\n"] {
        let film = FILM.replace(missing, "");
        let rig = call(settings("secret"), &format!("{SOUND}{film}"), VP8);
        assert!(!rig.answer().unwrap().contains("transport-wide"));
        assert!(extensions(&rig).iter().all(|all| all.transport_wide.is_none()));
        rig.finish();
    }
}

#[test]
fn how_loud_it_is_passes_where_both_sides_want_it() {
    let mut rig = call(loud(), SOUND, &format!("a=extmap:1 {LEVEL}\r\n"));
    assert_eq!(told(&invite(&rig)), [format!("a=extmap:1 {LEVEL}")]);
    assert_eq!(told(&rig.answer().unwrap()), [format!("a=extmap:1 {LEVEL}")]);
    assert_eq!(extensions(&rig), [carried(1, 1), carried(1, 1)]);
    // Somebody without it takes over, and somebody who offers it under a number of its own.
    reinvite(&mut rig, &sdp("10.0.0.6", "0 101", ""));
    assert_eq!(extensions(&rig), vec![Extensions::default(); 2]);
    reinvite(&mut rig, &sdp("10.0.0.7", "0 101", &format!("a=extmap:7 {LEVEL}\r\n")));
    assert_eq!(extensions(&rig), [carried(1, 7), carried(7, 1)]);
    let mut next = Rig::restored(&rig.plans().pop().unwrap(), rig.now);
    rig.finish();
    next.obedient = true;
    reinvite(&mut next, &sdp("10.0.0.8", "0 101", &format!("a=extmap:9 {LEVEL}\r\n")));
    assert_eq!(extensions(&next), [carried(1, 9), carried(9, 1)], "another control knows it, too");
    next.finish();
    let refused = call(loud(), SOUND, "");
    assert_eq!(told(&refused.answer().unwrap()), [""; 0]);
    refused.finish();
    let unknown = call(loud(), "", &format!("a=extmap:1 {LEVEL}\r\n"));
    assert_eq!(told(&invite(&unknown)), [""; 0], "the browser does not tell it");
    assert_eq!(extensions(&unknown), vec![Extensions::default(); 2], "an answer to what was not offered");
    unknown.finish();
}

#[test]
fn what_the_inside_offers_is_answered_under_its_numbers() {
    let body = format!(
        "a=extmap:5 {LEVEL}\r\na=extmap:6 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
         a=extmap:7 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
    );
    let mut rig = Rig::incoming(&sdp("10.0.0.9", "0 8 101", &body), &[]).unwrap();
    rig.reserve();
    rig.take_with(
        &SOUND.replace("a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n", ""),
    )
    .unwrap();
    rig.acknowledge(b"");
    rig.come_up();
    let answer = rig.done.iter().find_map(|command| match command {
        crate::api::Command::SipReply { response, .. } if response.status == 200 => {
            Some(String::from_utf8(response.body.clone()).unwrap())
        }
        _ => None,
    });
    assert_eq!(told(&answer.unwrap()), [format!("a=extmap:5 {LEVEL}")]);
    assert_eq!(extensions(&rig), [carried(1, 5), carried(5, 1)]);
    rig.finish();
}
