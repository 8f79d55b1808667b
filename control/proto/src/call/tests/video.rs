//! A picture beside the sound: offered, refused, held, and gone, while the sound goes on.

use std::sync::Arc;

use sallyport_plan::{Clock, Direction, Format, Mute, Pt, PtMap, Resend, Zone};

use super::super::plan::{VIDEO_INWARD, VIDEO_OUTWARD};
use super::{Rig, offer, sdp, settings};
use crate::api::{Command, Input};
use crate::error::{AcceptError, OfferError};
use crate::settings::Settings;
use crate::sip::Method;

/// What a browser offers beside its sound.
pub const FILM: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 102\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendrecv\r\na=rtcp-mux\r\n\
a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=0\r\n\
a=rtpmap:102 H264/90000\r\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";
/// What telephony says of it.
pub const H264: &str = "m=video 30002 RTP/AVP 99 120\r\na=rtpmap:99 H264/90000\r\n\
a=fmtp:99 profile-level-id=42801f;packetization-mode=1\r\na=rtpmap:120 VP8/90000\r\n";

fn calling() -> Rig {
    let mut rig = Rig::with(settings("secret"), FILM);
    rig.reserve();
    rig.ring();
    rig
}

fn pick_up(rig: &mut Rig, more: &str) {
    rig.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", "0 101", more), &[]);
}

fn connected() -> Rig {
    let mut rig = calling();
    pick_up(&mut rig, H264);
    rig.come_up();
    rig
}

fn directions(rig: &Rig) -> Vec<Direction> {
    rig.plans().pop().unwrap().directions
}

fn film_of(rig: &Rig) -> (Mute, Mute) {
    let directions = directions(rig);
    (directions[2].mute, directions[3].mute)
}

fn last_body(rig: &Rig) -> String {
    String::from_utf8(rig.requests(&Method::Invite).pop().unwrap().1.body).unwrap()
}

/// The section of video: its first line and its attributes.
pub fn section(text: &str) -> String {
    let at = text.find("m=video").unwrap_or(text.len());
    text[at..].to_owned()
}

fn is_refused(answer: &str) -> bool {
    section(answer).starts_with("m=video 0 ")
}

#[test]
fn a_picture_has_directions_of_its_own_in_the_bundle() {
    let rig = connected();
    let invite = section(&last_body(&rig));
    assert!(invite.starts_with("m=video 20002 RTP/AVP 96 98 102\r\na=rtcp:20003 "), "{invite}");
    assert!(invite.contains("a=rtpmap:102 H264/90000\r\n") && !invite.contains("rtx"), "{invite}");
    let answer = rig.answer().unwrap();
    assert!(answer.contains("a=group:BUNDLE 0 1\r\n"), "{answer}");
    let answer = section(&answer);
    assert!(answer.starts_with("m=video 9 UDP/TLS/RTP/SAVPF 102 96 97\r\n"), "{answer}");
    let lines = [
        "a=mid:1",
        "a=sendrecv",
        "a=rtcp-fb:102 nack",
        "a=rtcp-fb:102 nack pli",
        "a=rtcp-fb:96 ccm fir",
        "a=rtcp-mux",
    ];
    for line in lines.into_iter().chain(["a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96"]) {
        assert!(answer.contains(&format!("{line}\r\n")), "{line}: {answer}");
    }
    let all = directions(&rig);
    let [sound, _, inward, outward] = all.as_slice() else { panic!("{all:?}") };
    assert!(sound.may_share_with(inward), "one flow feeds both");
    let map = |from, to| PtMap { from: Pt(from), to: Pt(to), format: Format::Media(Clock::Hz90000) };
    let again = PtMap { from: Pt(97), to: Pt(120), format: Format::Rtx(Pt(96)) };
    assert_eq!(inward.payload_types, [map(102, 99), map(96, 120), again]);
    let Resend::Rtx { ssrc, payload_types } = &outward.resend else { panic!("{outward:?}") };
    assert_eq!((payload_types.as_slice(), &inward.resend), (&[(Pt(96), Pt(97))][..], &Resend::Never));
    for line in
        [format!("a=ssrc-group:FID {} {}", outward.ssrc.0, ssrc.0), format!("a=ssrc:{} cname:", ssrc.0)]
    {
        assert!(answer.contains(&line), "{line}: {answer}");
    }
    assert_eq!(outward.payload_types, [map(102, 102), map(96, 96)]);
    assert_eq!(
        (inward.rtp.local.port(), inward.rtp.remote.port(), inward.rtcp.remote.port()),
        (20_002, 30_002, 30_003)
    );
    assert_eq!(outward.ingress, [inward.rtp, inward.rtcp]);
    assert!(answer.contains(&format!("a=ssrc:{} cname", outward.ssrc.0)));
    assert_eq!(film_of(&rig), (Mute::Open, Mute::Open));
    assert_eq!(rig.call.view().video.as_deref(), Some("H264/90000"));
    rig.finish();
}

#[test]
fn each_side_is_told_how_large_a_picture_the_other_decodes() {
    let theirs = H264.replace("42801f;", "42800c;max-fs=396;level-asymmetry-allowed=1;");
    let mut rig = calling();
    let invite = section(&last_body(&rig));
    assert!(invite.contains("packetization-mode=1;profile-level-id=42e01f\r\n"), "{invite}");
    pick_up(&mut rig, &theirs);
    rig.come_up();
    let answer = section(&rig.answer().unwrap());
    assert!(answer.contains("profile-level-id=42e00c;max-fs=396\r\n"), "{answer}");
    let said = rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", &theirs)).unwrap();
    let said = section(&String::from_utf8(said.body).unwrap());
    assert!(said.contains("profile-level-id=42e01f\r\n") && !said.contains("max-fs"), "{said}");
    rig.finish();
    let mut rig = Rig::incoming(&sdp("10.0.0.9", "0 101", &theirs), &[]).unwrap();
    rig.reserve();
    rig.take_with(FILM).unwrap();
    let said = section(&String::from_utf8(rig.replies(super::INVITE).pop().unwrap().body).unwrap());
    assert!(said.contains("profile-level-id=42801f;") && !said.contains("max-fs"), "{said}");
    rig.acknowledge(b"");
    rig.come_up();
    let answer = section(&rig.answer().unwrap());
    assert!(answer.contains("profile-level-id=42e00c;max-fs=396\r\n"), "{answer}");
    rig.finish();
}

#[test]
fn what_does_not_fit_leaves_the_sound() {
    let none = Arc::new(Settings { video: false, ..Settings::clone(&settings("secret")) });
    let mut off = Rig::with(none, FILM);
    off.reserve();
    assert!(!last_body(&off).contains("m=video"));
    pick_up(&mut off, "");
    off.come_up();
    assert!(is_refused(&off.answer().unwrap()));
    off.finish();
    for more in [
        "",
        "m=video 0 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n",
        "m=video 30002 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\na=fmtp:99 profile-level-id=640028;packetization-mode=1\r\n",
        "m=video 30002 RTP/AVP 34\r\n",
        "m=video 30002 RTP/AVP 99\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:99 VP8/90000\r\n",
    ] {
        let mut rig = calling();
        pick_up(&mut rig, more);
        // One that the inside took and that is of no use is offered away.
        let sent = rig.requests(&Method::Invite).len();
        assert_eq!(sent, if more.contains("m=video 3") { 2 } else { 1 }, "{more}");
        if sent == 2 {
            assert!(is_refused(&last_body(&rig)), "{more}");
            pick_up(&mut rig, "m=video 0 RTP/AVP 99\r\n");
        }
        rig.come_up();
        let answer = rig.answer().unwrap();
        assert!(is_refused(&answer) && answer.contains("a=group:BUNDLE 0\r\n"), "{more}: {answer}");
        assert_eq!((directions(&rig).len(), rig.call.view().video), (2, None), "{more}");
        assert_eq!(rig.names().last(), Some(&"connected"));
        // What the browser was refused the inside cannot bring about later.
        let again = rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", H264)).unwrap();
        let text = String::from_utf8(again.body).unwrap();
        assert!(again.status == 200 && is_refused(&text), "{text}");
        assert_eq!(directions(&rig).len(), 2);
        rig.finish();
    }
}

#[test]
fn the_inside_pauses_the_picture_and_brings_it_back() {
    let paused = [("a=sendonly\r\n", (Mute::Held, Mute::Open)), ("a=inactive\r\n", (Mute::Held, Mute::Held))];
    for (direction, muted) in paused {
        let mut rig = connected();
        let streams: Vec<_> = directions(&rig).iter().map(|one| one.ssrc).collect();
        let body = sdp("10.0.0.5", "0 101", &format!("{H264}{direction}"));
        assert_eq!(rig.ask(Method::Invite, "pbx", &body).unwrap().status, 200);
        assert_eq!(film_of(&rig), muted, "{direction}");
        let resumed = rig.ask(Method::Update, "pbx", &sdp("10.0.0.5", "0 101", H264)).unwrap();
        assert!(
            section(&String::from_utf8(resumed.body).unwrap())
                .starts_with("m=video 20002 RTP/AVP 102 96\r\n")
        );
        assert_eq!(film_of(&rig), (Mute::Open, Mute::Open));
        assert_eq!(directions(&rig).iter().map(|one| one.ssrc).collect::<Vec<_>>(), streams);
        rig.finish();
    }
}

#[test]
fn somebody_without_a_picture_takes_over_and_another_brings_one() {
    let mut rig = connected();
    let before = directions(&rig);
    let other = rig.ask(Method::Invite, "pbx", &sdp("10.0.0.6", "0 101", "")).unwrap();
    assert!(!String::from_utf8(other.body).unwrap().contains("m=video"));
    assert_eq!((film_of(&rig), directions(&rig).len()), ((Mute::Held, Mute::Held), 4));
    let moved = sdp("10.0.0.7", "0 101", "m=video 40000 RTP/AVP 97\r\na=rtpmap:97 VP8/90000\r\n");
    assert_eq!(rig.ask(Method::Invite, "pbx", &moved).unwrap().status, 200);
    let after = directions(&rig);
    assert_eq!(film_of(&rig), (Mute::Open, Mute::Open));
    assert_eq!(after[2].rtp.remote.to_string(), "10.0.0.7:40000");
    assert_eq!((after[2].ssrc, after[3].ssrc), (before[2].ssrc, before[3].ssrc));
    assert!(
        !rig.done.iter().any(|command| matches!(command, Command::Renegotiated(_))),
        "the browser hears nothing"
    );
    rig.finish();
}

#[test]
fn the_browser_turns_its_picture_off_and_on() {
    let mut rig = connected();
    for (browser, far, muted) in [
        ("inactive", "inactive", (Mute::Held, Mute::Held)),
        ("recvonly", "sendonly", (Mute::Held, Mute::Open)),
        ("sendrecv", "sendrecv", (Mute::Open, Mute::Open)),
    ] {
        let sent = rig.requests(&Method::Invite).len();
        let text = FILM.replace("a=sendrecv", &format!("a={browser}")).replace(" 96 97", " 96");
        let answer =
            rig.reoffer(|offer| format!("{}{text}", offer.replace("BUNDLE 0", "BUNDLE 0 1"))).unwrap();
        assert!(section(&answer).contains(&format!("a={far}\r\n")), "{answer}");
        assert_eq!(rig.requests(&Method::Invite).len(), sent + 1, "{browser}");
        assert!(section(&last_body(&rig)).contains(&format!("a={browser}\r\n")));
        let body = sdp("10.0.0.5", "0 101", &format!("{H264}a={far}\r\n"));
        rig.respond(&Method::Invite, 200, "pbx", &body, &[]);
        assert_eq!(film_of(&rig), muted, "{browser}");
    }
    // Without it, and once more: one that was taken may end, and no INVITE says the same twice.
    let answer = rig.reoffer(|offer| offer).unwrap();
    assert!(!answer.contains("m=video"));
    rig.respond(&Method::Invite, 491, "pbx", b"", &[]);
    let sent = rig.requests(&Method::Invite).len();
    rig.wait(std::time::Duration::from_secs(6));
    assert_eq!(rig.requests(&Method::Invite).len(), sent + 1, "after a 491 it is said again");
    rig.respond(
        &Method::Invite,
        200,
        "pbx",
        &sdp("10.0.0.5", "0 101", &format!("{H264}a=inactive\r\n")),
        &[],
    );
    assert_eq!(film_of(&rig), (Mute::Held, Mute::Held));
    rig.finish();
}

#[test]
fn calls_from_the_inside_have_pictures_too() {
    for late in [false, true] {
        let body = sdp("10.0.0.9", "0 101", H264);
        let mut rig = Rig::incoming(if late { b"" } else { &body }, &[]).unwrap();
        rig.reserve();
        rig.take_with(FILM).unwrap();
        let said = rig.replies(super::INVITE).pop().unwrap();
        let text = String::from_utf8(said.body).unwrap();
        let types = if late { "96 98 102" } else { "99 120" };
        assert!(section(&text).starts_with(&format!("m=video 20002 RTP/AVP {types}\r\n")), "{text}");
        rig.acknowledge(if late { &body } else { b"" });
        rig.come_up();
        assert!(section(&rig.answer().unwrap()).starts_with("m=video 9 UDP/TLS/RTP/SAVPF 102 96 97\r\n"));
        assert_eq!(film_of(&rig), (Mute::Open, Mute::Open), "{late}");
        rig.finish();
    }
    // A browser without one.
    let mut rig = Rig::incoming(&sdp("10.0.0.9", "0 101", H264), &[]).unwrap();
    rig.reserve();
    rig.take().unwrap();
    let text = String::from_utf8(rig.replies(super::INVITE).pop().unwrap().body).unwrap();
    assert!(is_refused(&text), "{text}");
    rig.acknowledge(b"");
    rig.come_up();
    assert_eq!(directions(&rig).len(), 2);
    rig.finish();
}

#[test]
fn a_new_control_goes_on_with_the_picture() {
    let rig = connected();
    let mut next = Rig::restored(&rig.plans().pop().unwrap(), rig.now);
    next.obedient = true;
    let before = directions(&rig);
    assert_eq!(next.ask(Method::Invite, "pbx", &sdp("10.0.0.6", "0 101", "")).unwrap().status, 200);
    assert_eq!(film_of(&next), (Mute::Held, Mute::Held));
    assert_eq!(next.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", H264)).unwrap().status, 200);
    let after = directions(&next);
    assert_eq!(
        after.iter().map(|one| one.ssrc).collect::<Vec<_>>(),
        before.iter().map(|one| one.ssrc).collect::<Vec<_>>()
    );
    assert_eq!(film_of(&next), (Mute::Open, Mute::Open));
    next.put(Input::HangUp);
    next.finish();
}

#[test]
fn a_picture_that_leads_nowhere_is_refused_and_the_sound_goes_on() {
    let mut rig = calling();
    pick_up(&mut rig, &H264.replace("AVP 99 120\r\n", "AVP 99 120\r\nc=IN IP4 127.0.0.1\r\n"));
    rig.come_up();
    assert!(is_refused(&rig.answer().unwrap()));
    assert_eq!(directions(&rig).len(), 2);
    // It was not told so before: the inside keeps it whatever is said, and is asked no third time.
    assert!(is_refused(&last_body(&rig)));
    pick_up(&mut rig, H264);
    rig.wait(std::time::Duration::from_secs(60));
    assert_eq!(rig.requests(&Method::Invite).len(), 2);
    rig.finish();
}

/// The inside adds a picture, which is refused at once and offered to the browser's page.
#[test]
fn a_picture_of_the_insides_is_told_to_the_page_which_may_add_its_own() {
    let told = |rig: &Rig| rig.names().iter().filter(|name| **name == "video_offered").count();
    let body = sdp("10.0.0.5", "0 101", H264);
    for (method, direction) in [(Method::Invite, "sendrecv"), (Method::Update, "recvonly")] {
        let mut rig = Rig::connected();
        let answer = rig.ask(method.clone(), "pbx", &body).unwrap();
        assert!(is_refused(&String::from_utf8(answer.body).unwrap()), "{method}");
        assert_eq!((told(&rig), directions(&rig).len()), (1, 2));
        // A session that is refreshed says the same, and is no news.
        rig.ask(method.clone(), "pbx", &body).unwrap();
        assert_eq!(told(&rig), 1);
        rig.ask(method.clone(), "pbx", &sdp("10.0.0.5", "0 101", "m=video 0 RTP/AVP 99\r\n")).unwrap();
        rig.ask(method.clone(), "pbx", &body).unwrap();
        assert_eq!(told(&rig), 2, "it wants one again");
        let film = FILM.replace("a=sendrecv", &format!("a={direction}"));
        let text = offer(rig.browser.local_credentials(), &film);
        rig.call.renegotiate(&text, rig.now).unwrap();
        rig.drain();
        let port = |port| std::net::SocketAddr::from(([10, 0, 0, 1], port));
        rig.put(Input::Reserved(vec![sallyport_plan::PortPair { rtp: port(20_010), rtcp: port(20_011) }]));
        let offered = last_body(&rig);
        assert_eq!(offered.matches("m=video").count(), 1, "in the section that it was offered in: {offered}");
        assert!(
            section(&offered).starts_with("m=video 20010 ")
                && offered.contains(&format!("a={direction}\r\n"))
        );
        pick_up(
            &mut rig,
            &format!("{H264}a={}\r\n", if direction == "recvonly" { "sendonly" } else { direction }),
        );
        let sends = if direction == "recvonly" { Mute::Held } else { Mute::Open };
        assert_eq!(film_of(&rig), (sends, Mute::Open));
        // From here on it goes away and comes back without a word to the page.
        rig.ask(method.clone(), "pbx", &sdp("10.0.0.5", "0 101", "m=video 0 RTP/AVP 99\r\n")).unwrap();
        assert_eq!(film_of(&rig), (Mute::Held, Mute::Held));
        rig.ask(method, "pbx", &body).unwrap();
        assert_eq!((film_of(&rig), told(&rig)), ((sends, Mute::Open), 2));
        rig.finish();
    }
    // What is of no use to anybody is no offer.
    for more in [
        "m=video 30002 RTP/AVP 34\r\n",
        "m=video 30002 RTP/SAVP 99\r\na=rtpmap:99 VP8/90000\r\n",
        "m=video 30002 RTP/AVP 99\r\na=rtpmap:99 VP8/90000\r\na=inactive\r\n",
        "m=video 30002 RTP/AVP 99\r\nc=IN IP4 127.0.0.1\r\na=rtpmap:99 VP8/90000\r\n",
    ] {
        let mut rig = Rig::connected();
        let answer = rig.ask(Method::Invite, "pbx", &sdp("10.0.0.5", "0 101", more)).unwrap();
        assert_eq!((answer.status, told(&rig)), (200, 0), "{more}");
        rig.finish();
    }
    let mut rig = calling();
    pick_up(&mut rig, H264);
    rig.come_up();
    rig.ask(Method::Invite, "pbx", &body).unwrap();
    assert_eq!(told(&rig), 0, "there is one");
    rig.finish();
}

/// Both in one offer, and one by one: the sound keeps its number, the call its sound.
#[test]
fn a_number_that_sound_and_picture_share_is_the_sounds() {
    let film = FILM.replace("98", "111").replace("97", "110");
    let mut rig = Rig::with(settings("secret"), &film);
    rig.reserve();
    let invite = section(&last_body(&rig));
    assert!(invite.starts_with("m=video 20002 RTP/AVP 96 102\r\n"), "{invite}");
    rig.ring();
    pick_up(&mut rig, H264);
    rig.come_up();
    let answer = section(&rig.answer().unwrap());
    assert!(answer.starts_with("m=video 9 UDP/TLS/RTP/SAVPF 102 96\r\n"), "no retransmissions: {answer}");
    // A later offer that moves the sound there is refused, and nothing changes.
    let plans = rig.plans().len();
    let moved = |text: String| {
        text.replace("RTP/SAVPF 111 0", "RTP/SAVPF 111 102").replace("opus", "other")
            + "a=rtpmap:102 PCMU/8000\r\n"
    };
    assert!(matches!(rig.offers_again(moved), Err(AcceptError::Offer(OfferError::Malformed(_)))));
    assert_eq!((rig.plans().len(), rig.cause()), (plans, None));
    rig.finish();
    let film = FILM.replace("96 97 98 102", "111").replace(":96 ", ":111 ");
    let mut rig = Rig::with(settings("secret"), &film);
    rig.reserve();
    assert!(!last_body(&rig).contains("m=video"));
    rig.pick_up("0 101");
    rig.come_up();
    rig.finish();
}

const WISH: &str = "<?xml version=\"1.0\"?><media_control><vc_primitive><to_encoder><picture_fast_update></picture_fast_update>\
</to_encoder></vc_primitive></media_control>";

fn wishes(rig: &mut Rig, body: &str) -> u16 {
    rig.ask_with(Method::Info, "pbx", body.as_bytes(), Some("application/media_control+xml"), &[])
        .unwrap()
        .status
}

#[test]
fn a_wish_for_a_picture_by_info_is_asked_of_the_browser() {
    let asked = |rig: &Rig| {
        let asks = |command: &&Command| matches!(command, Command::Picture { direction: VIDEO_INWARD });
        rig.done.iter().filter(asks).count()
    };
    let mut rig = connected();
    assert_eq!((wishes(&mut rig, WISH), asked(&rig)), (200, 1));
    assert_eq!((wishes(&mut rig, "<media_control/>"), asked(&rig)), (415, 1));
    rig.finish();
    let mut rig = Rig::connected();
    assert_eq!((wishes(&mut rig, WISH), asked(&rig)), (200, 0), "there is no picture");
    rig.finish();
}

#[test]
fn a_far_end_that_knows_no_feedback_is_asked_by_info() {
    let wish = |rig: &mut Rig| rig.put(Input::Picture(VIDEO_INWARD));
    let sent = |rig: &Rig| rig.requests(&Method::Info).len();
    let second = std::time::Duration::from_millis(1001);
    let mut rig = connected();
    wish(&mut rig);
    let (_, info) = rig.requests(&Method::Info).pop().unwrap();
    assert_eq!(info.content_type.as_deref(), Some("application/media_control+xml"));
    assert!(String::from_utf8(info.body).unwrap().contains("<picture_fast_update/>"));
    rig.respond(&Method::Info, 200, "pbx", b"", &[]);
    wish(&mut rig);
    rig.put(Input::Picture(VIDEO_OUTWARD));
    assert_eq!(sent(&rig), 1, "not so soon, and not what is the inside's own wish");
    rig.wait(second);
    wish(&mut rig);
    rig.wait(second);
    wish(&mut rig);
    assert_eq!(sent(&rig), 2, "one at a time");
    // Silence ends no call, and who knows no such words is left alone.
    let (transaction, _) = rig.requests(&Method::Info).pop().unwrap();
    rig.put(Input::SipTimeout(transaction));
    rig.wait(second);
    wish(&mut rig);
    assert_eq!((sent(&rig), rig.cause()), (2, None));
    rig.finish();
    for feedback in ["a=rtcp-fb:* nack pli", "a=rtcp-fb:99 ccm fir"] {
        let mut rig = calling();
        pick_up(&mut rig, &format!("{H264}{feedback}\r\n"));
        rig.come_up();
        wish(&mut rig);
        assert_eq!(sent(&rig), 0, "{feedback}");
        rig.finish();
    }
}

#[test]
fn a_browser_that_is_offered_a_picture_takes_it_or_not() {
    // A number that the sound has already, and one that looks like RTCP.
    let video = H264.replace("99 120", "101 72").replace(":99", ":101").replace(":120", ":72");
    let body = sdp("10.0.0.9", "0 101", &video);
    for taken in [true, false] {
        let mut rig = Rig::incoming(&body, &[]).unwrap();
        assert!(rig.call.rings_with_picture());
        rig.reserve();
        let text = rig.call.offer(Zone::Outside).unwrap();
        assert!(text.contains("a=group:BUNDLE 0 1\r\n"), "{text}");
        let offered = section(&text);
        assert!(offered.starts_with("m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n"), "{offered}");
        for line in
            ["a=mid:1", "a=setup:actpass", "a=rtpmap:96 H264/90000", "a=rtpmap:97 VP8/90000", "a=sendrecv"]
        {
            assert!(offered.contains(&format!("{line}\r\n")), "{line}: {offered}");
        }
        let answer = "m=video 9 UDP/TLS/RTP/SAVPF 97\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=recvonly\r\na=rtcp-mux\r\n\
                      a=rtpmap:97 VP8/90000\r\n";
        let answer = if taken { answer } else { "m=video 0 UDP/TLS/RTP/SAVPF 97\r\na=mid:1\r\n" };
        let answer = offer(rig.browser.local_credentials(), answer).replace("actpass", "active");
        rig.call.take(&answer, Zone::Outside, rig.now).unwrap();
        rig.drain();
        let said = String::from_utf8(rig.replies(super::INVITE).pop().unwrap().body).unwrap();
        if taken {
            assert!(section(&said).starts_with("m=video 20002 RTP/AVP 72\r\n"), "{said}");
            assert!(section(&said).contains("a=recvonly\r\n"), "{said}");
        } else {
            assert!(is_refused(&said), "{said}");
        }
        rig.acknowledge(b"");
        rig.come_up();
        let expected = if taken { vec![Mute::Held, Mute::Open] } else { vec![] };
        let mutes: Vec<Mute> = directions(&rig)[2..].iter().map(|direction| direction.mute).collect();
        assert_eq!(mutes, expected);
        rig.finish();
    }
    let none = Arc::new(Settings { video: false, ..Settings::clone(&settings("secret")) });
    let rig = Rig::invited_with(super::invite(&body, &[]), none).unwrap();
    assert!(!rig.call.rings_with_picture());
    rig.finish();
    let rig = Rig::incoming(&sdp("10.0.0.9", "0", ""), &[]).unwrap();
    assert!(!rig.call.rings_with_picture());
    rig.finish();
}
