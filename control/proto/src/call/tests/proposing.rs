//! A picture of the inside's that we offer to a browser.

use sallyport_plan::{Mute, PortPair};

use super::video::{FILM, H264, section};
use super::{FINGERPRINT, Rig, address, offer, sdp};
use crate::api::{Command, Input};
use crate::error::AcceptError;
use crate::sip::Method;

/// A call of sound whose far side wants to show a picture; our offer of it.
fn proposed(mut rig: Rig) -> (Rig, String) {
    let body = sdp("10.0.0.5", "0 101", &H264.replace("99", "111"));
    assert_eq!(rig.ask(Method::Invite, "pbx", &body).unwrap().status, 200);
    let text = rig.call.offer_picture().unwrap();
    (rig, text)
}

/// What a browser answers that shows or sees a picture.
fn answer(rig: &Rig, direction: &str) -> String {
    let film = format!(
        "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na={direction}\r\na=rtcp-mux\r\n\
         a=rtpmap:96 H264/90000\r\na=fmtp:96 profile-level-id=42801f;packetization-mode=1\r\n"
    );
    offer(rig.browser.local_credentials(), &film).replace("actpass", "active")
}

fn reoffered(rig: &Rig) -> usize {
    rig.done.iter().filter(|command| matches!(command, Command::Renegotiated(_))).count()
}

#[test]
fn our_offer_is_the_session_and_a_picture() {
    for start in [Rig::connected as fn() -> Rig, Rig::called] {
        let (rig, text) = proposed(start());
        assert!(text.contains("a=group:BUNDLE 0 1\r\n"), "{text}");
        let sound = text.split("m=video").next().unwrap();
        assert!(sound.contains("m=audio 9 UDP/TLS/RTP/SAVPF 0 "), "{text}");
        let film = section(&text);
        // 111 is Opus in the browser's own offer, so that it cannot be anything else.
        assert!(film.starts_with("m=video 9 UDP/TLS/RTP/SAVPF 96 120\r\n"), "{film}");
        let password =
            rig.answer().unwrap().lines().find(|line| line.starts_with("a=ice-pwd")).unwrap().to_owned();
        for line in ["a=mid:1", "a=setup:passive", "a=sendrecv", "a=rtpmap:96 H264/90000", password.as_str()]
        {
            assert!(film.contains(&format!("{line}\r\n")), "{line}: {film}");
        }
        rig.finish();
    }
}

#[test]
fn what_the_browser_answers_the_inside_is_offered() {
    for (direction, far, sends) in
        [("sendrecv", "sendrecv", Mute::Open), ("recvonly", "sendonly", Mute::Held)]
    {
        let (mut rig, _) = proposed(Rig::connected());
        let text = answer(&rig, direction);
        rig.call.picture_taken(&text, rig.now).unwrap();
        rig.drain();
        let pair = PortPair { rtp: address("10.0.0.1:20010"), rtcp: address("10.0.0.1:20011") };
        rig.put(Input::Reserved(vec![pair]));
        let told = String::from_utf8(rig.requests(&Method::Invite).pop().unwrap().1.body).unwrap();
        assert!(section(&told).starts_with("m=video 20010 RTP/AVP 96\r\n"), "{told}");
        assert!(section(&told).contains(&format!("a={direction}\r\n")), "{told}");
        let body = sdp("10.0.0.5", "0 101", &format!("{H264}a={far}\r\n"));
        rig.respond(&Method::Invite, 200, "pbx", &body, &[]);
        let directions = rig.plans().pop().unwrap().directions;
        assert_eq!((directions[2].mute, directions[3].mute), (sends, Mute::Open));
        assert_eq!(directions[3].payload_types[0].to.0, 96);
        assert_eq!(reoffered(&rig), 0, "it has made no offer that would want an answer");
        // Its next one gets one.
        let again = rig.reoffer(|text| {
            format!("{}{FILM}", text.replace("BUNDLE 0", "BUNDLE 0 1"))
                .replace("profile-level-id=42e01f", "profile-level-id=42801f")
                .replace("102", "104")
                .replace("96", "97")
                .replace("104", "96")
        });
        assert!(section(&again.unwrap()).starts_with("m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"));
        rig.finish();
    }
}

#[test]
fn what_cannot_be_used_leaves_a_call_of_sound() {
    let mut rig = Rig::connected();
    assert_eq!(rig.call.offer_picture(), Err(AcceptError::Gone), "nobody wants to show one");
    rig.finish();
    let unusable: [fn(String) -> String; 3] = [
        |text| text.replace(&super::super::super::random::hex(&FINGERPRINT[..1]).to_uppercase(), "00"),
        |text| text.replace("a=ice-ufrag:", "a=ice-ufrag:x"),
        |text| text.replace("m=audio 9", "m=audio 0"),
    ];
    for change in unusable {
        let (mut rig, _) = proposed(Rig::connected());
        let text = change(answer(&rig, "sendrecv"));
        assert!(matches!(rig.call.picture_taken(&text, rig.now), Err(AcceptError::Offer(_))), "{text}");
        let text = answer(&rig, "sendrecv");
        assert_eq!(rig.call.picture_taken(&text, rig.now), Err(AcceptError::Gone), "one answer to one offer");
        rig.finish();
    }
    // The browser wants none, or offers something itself.
    let (mut rig, _) = proposed(Rig::connected());
    let text = answer(&rig, "inactive");
    rig.call.picture_taken(&text, rig.now).unwrap();
    rig.drain();
    assert_eq!((rig.requests(&Method::Invite).len(), rig.plans().pop().unwrap().directions.len()), (1, 2));
    let text = rig.call.offer_picture().unwrap();
    assert!(text.contains("m=video"));
    rig.turn("sendonly");
    let late = answer(&rig, "sendrecv");
    assert_eq!(rig.call.picture_taken(&late, rig.now), Err(AcceptError::Gone));
    rig.finish();
}
