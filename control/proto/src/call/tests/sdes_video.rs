//! Keys of the picture inside, beside those of the sound.

use std::time::Duration;

use sallyport_plan::{KeyMaterial, Protection};

use super::sdes::{CM, theirs, with};
use super::video::{FILM, section};
use super::*;
use crate::sdp::Crypto;
use crate::settings::Srtp;

const VP8: &str = "a=rtpmap:120 VP8/90000\r\n";

fn line(tag: u32, seed: u8) -> String {
    format!("{tag} {CM} {}", theirs(seed))
}

fn key(seed: u8) -> KeyMaterial {
    Crypto::parse(&line(1, seed)).unwrap().key
}

/// What the inside says of sound and picture, each with its profile and keys.
fn says(sound: (&str, &[String]), picture: (&str, &[String])) -> Vec<u8> {
    let crypto =
        |lines: &[String]| lines.iter().map(|line| format!("a=crypto:{line}\r\n")).collect::<String>();
    let film = format!("m=video 30002 {} 120\r\n{}{VP8}", picture.0, crypto(picture.1));
    let text = String::from_utf8(sdp("10.0.0.5", "0 8 101", &(crypto(sound.1) + &film))).unwrap();
    text.replacen("RTP/AVP", sound.0, 1).into_bytes()
}

/// Profile, port and keys of each section of ours: sound, then picture.
fn said(body: &[u8]) -> Vec<(String, u16, Vec<Crypto>)> {
    let text = std::str::from_utf8(body).unwrap();
    let sections = text.split("\r\nm=").skip(1).map(|section| {
        let mut words = section.lines().next().unwrap().split(' ');
        let port = words.nth(1).unwrap().parse().unwrap();
        let lines = section.lines().filter_map(|line| line.strip_prefix("a=crypto:"));
        let lines = lines.map(|line| Crypto::parse(line).unwrap()).collect();
        (words.next().unwrap().to_owned(), port, lines)
    });
    sections.collect()
}

fn invited(rig: &Rig) -> Vec<(String, u16, Vec<Crypto>)> {
    said(&rig.requests(&Method::Invite).pop().unwrap().1.body)
}

/// Keys of the last plan inside, of sound and picture: what we seal under, and what they do. All of them differ.
fn keys(rig: &Rig) -> Vec<Option<(KeyMaterial, KeyMaterial)>> {
    let directions = rig.plans().pop().unwrap().directions;
    let pair = |pair: &[sallyport_plan::Direction]| match (pair[0].seal.clone(), pair[1].open.clone()) {
        (Some(Protection::Srtp(ours)), Some(Protection::Srtp(theirs))) => Some((ours, theirs)),
        (Some(Protection::Plain), Some(Protection::Plain)) => None,
        mixed => panic!("{mixed:?}"),
    };
    let pairs: Vec<_> = directions.chunks(2).map(pair).collect();
    let all: Vec<&KeyMaterial> = pairs.iter().flatten().flat_map(|(ours, theirs)| [ours, theirs]).collect();
    for (at, key) in all.iter().enumerate() {
        assert!(!all[..at].contains(key), "each section has its own, each way");
    }
    pairs
}

/// A call of ours whose called side takes the second key of each section.
fn calling(srtp: Srtp) -> Rig {
    let mut rig = Rig::with(with(srtp), FILM);
    rig.reserve();
    let profile = invited(&rig)[0].0.clone();
    rig.respond(
        &Method::Invite,
        200,
        "pbx",
        &says((&profile, &[line(2, 1)]), (&profile, &[line(2, 2)])),
        &[],
    );
    rig.come_up();
    rig
}

fn is_refused(text: &str) -> bool {
    section(text).starts_with("m=video 0 ")
}

#[test]
fn sound_and_picture_have_keys_of_their_own() {
    for (srtp, profile) in [(Srtp::Optional, "RTP/AVP"), (Srtp::Required, "RTP/SAVP")] {
        let rig = calling(srtp);
        let offered = invited(&rig);
        let [sound, picture] = offered.as_slice() else { panic!("{offered:?}") };
        assert_eq!((sound.0.as_str(), picture.0.as_str(), picture.1), (profile, profile, 20_002));
        assert_eq!(picture.2.iter().map(|line| line.tag).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let keys = keys(&rig);
        assert_eq!(keys[0], Some((sound.2[1].key.clone(), key(1))));
        assert_eq!(keys[1], Some((picture.2[1].key.clone(), key(2))));
        assert!(!is_refused(&rig.answer().unwrap()));
        rig.finish();
    }
}

#[test]
fn an_offer_of_theirs_is_answered_in_each_section() {
    for (sound, picture) in [("RTP/SAVP", "RTP/SAVPF"), ("RTP/AVP", "RTP/AVP")] {
        let body = says((sound, &[line(3, 1)]), (picture, &[line(7, 2), line(8, 3)]));
        let mut rig = Rig::invited_with(invite(&body, &[]), with(Srtp::Optional)).unwrap();
        rig.reserve();
        rig.take_with(FILM).unwrap();
        let answered = said(&rig.replies(INVITE).pop().unwrap().body);
        assert_eq!((answered[1].0.as_str(), answered[1].2.len(), answered[1].2[0].tag), (picture, 1, 7));
        rig.acknowledge(b"");
        rig.come_up();
        let keys = keys(&rig);
        assert_eq!(keys[1], Some((answered[1].2[0].key.clone(), key(2))));
        assert_eq!(keys[0].as_ref().unwrap().1, key(1));
        rig.finish();
    }
}

/// Where encryption is a matter of choice each section chooses by itself.
#[test]
fn a_picture_may_be_plain_where_that_is_allowed() {
    let mut rig = Rig::with(with(Srtp::Optional), FILM);
    rig.reserve();
    rig.respond(&Method::Invite, 200, "pbx", &says(("RTP/AVP", &[line(2, 1)]), ("RTP/AVP", &[])), &[]);
    rig.come_up();
    assert!(matches!(keys(&rig).as_slice(), [Some(_), None]));
    rig.turn("sendonly");
    assert_eq!(invited(&rig)[1].2, [], "what was agreed stays");
    rig.finish();
}

/// The picture is refused, in our answer or by another re-INVITE; the sound goes on.
#[test]
fn a_picture_whose_keys_cannot_be_used_is_refused_alone() {
    let own = |rig: &Rig, section: usize| vec![invited(rig)[section].2[1].text().to_string()];
    type Lines = fn(&dyn Fn(usize) -> Vec<String>) -> (&'static str, Vec<String>);
    let cases: [(Srtp, Lines); 5] = [
        (Srtp::Required, |_| ("RTP/AVP", vec![])),
        (Srtp::Required, |_| ("RTP/SAVP", vec![line(9, 2)])),
        (Srtp::Optional, |_| ("RTP/SAVP", vec![format!("{}|1:4", line(2, 2))])),
        (Srtp::Optional, |own| ("RTP/AVP", own(1))),
        (Srtp::Optional, |own| ("RTP/AVP", own(0))),
    ];
    for (srtp, lines) in cases {
        let mut rig = Rig::with(with(srtp), FILM);
        rig.reserve();
        let profile = invited(&rig)[0].0.clone();
        let (film, lines) = lines(&|section| own(&rig, section));
        rig.respond(&Method::Invite, 200, "pbx", &says((&profile, &[line(2, 1)]), (film, &lines)), &[]);
        let away = String::from_utf8(rig.requests(&Method::Invite).pop().unwrap().1.body).unwrap();
        assert!(is_refused(&away), "it is offered away: {away}");
        let refused = says((&profile, &[line(2, 1)]), (film, &[]));
        let refused = String::from_utf8(refused).unwrap().replace("m=video 30002", "m=video 0");
        rig.respond(&Method::Invite, 200, "pbx", refused.as_bytes(), &[]);
        rig.come_up();
        assert!(is_refused(&rig.answer().unwrap()));
        assert_eq!((keys(&rig).len(), rig.cause()), (1, None));
        rig.finish();
    }
    // And a key of the picture's that comes back as the sound's.
    let mut rig = Rig::with(with(Srtp::Optional), FILM);
    rig.reserve();
    let echo = own(&rig, 1);
    rig.respond(&Method::Invite, 200, "pbx", &says(("RTP/AVP", &echo), ("RTP/AVP", &[])), &[]);
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))));
    rig.is_over();
}

#[test]
fn an_offer_whose_picture_cannot_be_encrypted_is_one_of_sound() {
    let body = says(("RTP/SAVP", &[line(1, 1)]), ("RTP/AVP", &[]));
    let mut rig = Rig::invited_with(invite(&body, &[]), with(Srtp::Required)).unwrap();
    assert!(!rig.call.rings_with_picture());
    rig.reserve();
    rig.take_with(FILM).unwrap();
    rig.acknowledge(b"");
    rig.come_up();
    let answered = rig.replies(INVITE).pop().unwrap().body;
    assert!(is_refused(std::str::from_utf8(&answered).unwrap()));
    assert_eq!(keys(&rig).len(), 1);
    rig.finish();
    // With one that rang under keys of its own, and then offers ours of the other section.
    let mut rig = calling(Srtp::Required);
    let before = keys(&rig);
    let echo = before[0].clone().unwrap().0;
    let echo = Crypto { tag: 1, key: echo }.text().to_string();
    let again =
        rig.ask(Method::Invite, "pbx", &says(("RTP/SAVP", &[line(2, 1)]), ("RTP/SAVP", &[echo]))).unwrap();
    assert!(again.status == 200 && is_refused(std::str::from_utf8(&again.body).unwrap()));
    assert_eq!(keys(&rig), before);
    rig.finish();
}

#[test]
fn new_keys_of_the_picture_leave_those_of_the_sound() {
    let mut rig = calling(Srtp::Required);
    let first = keys(&rig);
    let secure = "RTP/SAVP";
    let same =
        rig.ask(Method::Invite, "pbx", &says((secure, &[line(2, 1)]), (secure, &[line(2, 2)]))).unwrap();
    assert_eq!((same.status, keys(&rig)), (200, first.clone()));
    let other =
        rig.ask(Method::Update, "pbx", &says((secure, &[line(2, 1)]), (secure, &[line(4, 5)]))).unwrap();
    let ours = said(&other.body)[1].2.clone();
    let second = keys(&rig);
    assert_eq!((ours.len(), ours[0].tag, &second[0]), (1, 4, &first[0]));
    assert_eq!(second[1], Some((ours[0].key.clone(), key(5))));
    assert_ne!(second[1].as_ref().unwrap().0, first[1].as_ref().unwrap().0);
    // What we offer ourselves is what holds.
    rig.turn("sendonly");
    assert_eq!(invited(&rig)[1].2, ours);
    rig.respond(&Method::Invite, 200, "pbx", &says((secure, &[line(2, 1)]), (secure, &[line(4, 5)])), &[]);
    assert_eq!(keys(&rig), second);
    rig.finish();
}

/// The inside drops its picture and brings it back, under the same keys or others.
#[test]
fn a_picture_that_comes_back_has_keys() {
    for (seed, same) in [(2, true), (6, false)] {
        let mut rig = calling(Srtp::Required);
        let before = keys(&rig);
        let secure = "RTP/SAVP";
        let dropped = says((secure, &[line(2, 1)]), (secure, &[]));
        let dropped = String::from_utf8(dropped).unwrap().replace("m=video 30002", "m=video 0");
        let answer = rig.ask(Method::Invite, "pbx", dropped.as_bytes()).unwrap();
        assert!(is_refused(std::str::from_utf8(&answer.body).unwrap()));
        assert_eq!(keys(&rig), before, "it only pauses");
        let back = says((secure, &[line(2, 1)]), (secure, &[line(2, seed)]));
        let answer = rig.ask(Method::Invite, "pbx", &back).unwrap();
        let after = keys(&rig);
        assert_eq!((said(&answer.body)[1].1, after[1] == before[1]), (20_002, same));
        assert_eq!(after[1].as_ref().unwrap().1, key(seed));
        assert_eq!(rig.plans().pop().unwrap().directions[2].mute, sallyport_plan::Mute::Open);
        rig.finish();
    }
}

#[test]
fn another_control_goes_on_with_both() {
    let rig = calling(Srtp::Required);
    let plan = rig.plans().pop().unwrap();
    let before = keys(&rig);
    for (ours, theirs) in before.iter().flatten() {
        for key in [ours, theirs] {
            assert!(!plan.record.windows(16).any(|octets| octets == key.key()), "keys are in plans only");
        }
    }
    let mut next = Rig::restored(&plan, rig.now);
    next.obedient = true;
    let body = says(("RTP/SAVP", &[line(2, 1)]), ("RTP/SAVP", &[line(2, 2)]));
    assert_eq!(
        said(&next.ask(Method::Invite, "pbx", &body).unwrap().body)[1].2,
        [invited(&rig)[1].2[1].clone()]
    );
    assert_eq!(keys(&next), before);
    next.finish();
    rig.finish();
}

#[test]
fn one_that_is_added_has_keys_and_so_has_who_takes_over() {
    let mut rig = Rig::with(with(Srtp::Required), "");
    rig.reserve();
    let text =
        String::from_utf8(sdp("10.0.0.5", "0 8 101", &format!("a=crypto:{}\r\n", line(2, 1)))).unwrap();
    rig.respond(&Method::Invite, 200, "pbx", text.replace("RTP/AVP", "RTP/SAVP").as_bytes(), &[]);
    rig.come_up();
    let sound = keys(&rig);
    let film = offer(rig.browser.local_credentials(), FILM);
    rig.call.renegotiate(&film, rig.now).unwrap();
    rig.drain();
    let pair = PortPair { rtp: address("10.0.0.1:20010"), rtcp: address("10.0.0.1:20011") };
    rig.put(Input::Reserved(vec![pair]));
    let offered = invited(&rig);
    assert_eq!((offered[0].2.len(), offered[1].0.as_str(), offered[1].2.len()), (1, "RTP/SAVP", 4));
    let answer = says(("RTP/SAVP", &[line(2, 1)]), ("RTP/SAVP", &[line(1, 2)]));
    let gcm = "1 AEAD_AES_128_GCM inline:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHA==";
    let answer = String::from_utf8(answer).unwrap().replace(&line(1, 2), gcm);
    rig.respond(&Method::Invite, 200, "pbx", answer.as_bytes(), &[]);
    let both = keys(&rig);
    assert_eq!((&both[0], both[1].as_ref().unwrap().0.profile()), (&sound[0], Profile::AeadAes128Gcm));
    // Who is called in the far end's place hears none of them.
    let refer = [("Refer-To", "<sip:1002@pbx>")];
    assert_eq!(rig.ask_with(Method::Refer, "pbx", b"", None, &refer).unwrap().status, 202);
    let offered = invited(&rig);
    let former = both.iter().flatten().map(|(ours, _)| ours);
    assert!(
        former
            .clone()
            .all(|ours| offered.iter().flat_map(|section| &section.2).all(|line| line.key != *ours))
    );
    let answer = says(("RTP/SAVP", &[line(2, 11)]), ("RTP/SAVP", &[line(2, 12)]));
    rig.respond(&Method::Invite, 200, "other", &answer, &[]);
    assert_eq!(keys(&rig)[1], Some((offered[1].2[1].key.clone(), key(12))));
    rig.wait(Duration::from_secs(1));
    rig.finish();
}
