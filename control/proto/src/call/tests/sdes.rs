//! Keys of the inside by `a=crypto`.

use sallyport_plan::{KeyMaterial, Plan, Protection};

use super::*;
use crate::sdp::Crypto;
use crate::settings::Srtp;

pub fn with(srtp: Srtp) -> Arc<Settings> {
    let mut settings = Settings::clone(&settings("secret"));
    settings.sip.policy.srtp = srtp;
    Arc::new(settings)
}

/// A key of theirs; another for each seed.
pub fn theirs(seed: u8) -> String {
    use base64::Engine;
    let octets: Vec<u8> = (0..30).map(|n: u8| n.wrapping_mul(37).wrapping_add(seed)).collect();
    format!("inline:{}", base64::engine::general_purpose::STANDARD.encode(octets))
}

pub const CM: &str = "AES_CM_128_HMAC_SHA1_80";

/// What the called side says, with this profile and these keys.
fn says(profile: &str, lines: &[String]) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("a=crypto:{line}\r\n")).collect();
    let text = String::from_utf8(sdp("10.0.0.5", "0 8 101", &lines)).unwrap();
    text.replace("RTP/AVP", profile).into_bytes()
}

/// Profile and keys of a description of ours.
fn said(body: &[u8]) -> (String, Vec<Crypto>) {
    let text = std::str::from_utf8(body).unwrap();
    let audio = text.lines().find(|line| line.starts_with("m=audio")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("a=crypto:"));
    (audio.split(' ').nth(2).unwrap().to_owned(), lines.map(|line| Crypto::parse(line).unwrap()).collect())
}

fn last_invite(rig: &Rig) -> (String, Vec<Crypto>) {
    said(&rig.requests(&Method::Invite).pop().unwrap().1.body)
}

/// Keys of the last plan inside: of what we seal, and of what we open.
fn keys(plan: &Plan) -> Option<(KeyMaterial, KeyMaterial)> {
    match (plan.directions[0].seal.clone().unwrap(), plan.directions[1].open.clone().unwrap()) {
        (Protection::Srtp(ours), Protection::Srtp(theirs)) => Some((ours, theirs)),
        (Protection::Plain, Protection::Plain) => None,
        mixed => panic!("{mixed:?}"),
    }
}

fn last_keys(rig: &Rig) -> Option<(KeyMaterial, KeyMaterial)> {
    keys(rig.plans().last().unwrap())
}

fn up(mut rig: Rig) -> Rig {
    rig.come_up();
    rig
}

/// A call of ours whose called side takes the key of tag 2.
fn calling(srtp: Srtp) -> Rig {
    let mut rig = Rig::with(with(srtp), "");
    rig.reserve();
    let (profile, _) = last_invite(&rig);
    rig.respond(&Method::Invite, 200, "pbx", &says(&profile, &[format!("2 {CM} {}", theirs(1))]), &[]);
    up(rig)
}

/// A call of theirs that the browser has taken.
fn called(srtp: Srtp, body: &[u8]) -> Result<Rig, Box<Response>> {
    let mut rig = Rig::invited_with(invite(body, &[]), with(srtp))?;
    rig.reserve();
    rig.take().unwrap();
    rig.acknowledge(b"");
    Ok(up(rig))
}

/// The text of our 488.
fn refusal(response: &Response) -> String {
    assert_eq!(response.status, 488);
    response.header("Warning").next().unwrap_or_default().to_owned()
}

#[test]
fn keys_are_offered_as_the_configuration_says_and_the_answer_chooses() {
    for (srtp, profile) in [(Srtp::Optional, "RTP/AVP"), (Srtp::Required, "RTP/SAVP")] {
        let rig = calling(srtp);
        let (offered, lines) = last_invite(&rig);
        assert_eq!(offered, profile);
        assert_eq!(lines.iter().map(|line| line.tag).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let (ours, opens) = last_keys(&rig).unwrap();
        assert_eq!(ours, lines[1].key);
        assert_eq!(opens, Crypto::parse(&format!("2 {CM} {}", theirs(1))).unwrap().key);
        rig.finish();
    }
    let mut rig = Rig::with(with(Srtp::Off), "");
    rig.reserve();
    assert_eq!(last_invite(&rig), ("RTP/AVP".to_owned(), Vec::new()));
    rig.finish();
}

#[test]
fn whoever_has_no_keys_is_plain_where_that_is_allowed() {
    let mut rig = Rig::with(with(Srtp::Optional), "");
    rig.reserve();
    rig.pick_up("0 8 101");
    let mut rig = up(rig);
    assert_eq!(last_keys(&rig), None);
    rig.turn("sendonly");
    assert_eq!(last_invite(&rig), ("RTP/AVP".to_owned(), Vec::new()), "what was agreed stays");
    rig.finish();
}

#[test]
fn an_answer_that_cannot_be_followed_ends_the_call() {
    let foreign = says("RTP/SAVP", &[format!("5 {CM} {}", theirs(1))]);
    let other_suite = says("RTP/SAVP", &[format!("1 {CM} {}", theirs(1))]);
    let with_mki = says("RTP/SAVP", &[format!("2 {CM} {}|2^20|1:4", theirs(1))]);
    for (srtp, answer) in [
        (Srtp::Required, says("RTP/AVP", &[])),
        (Srtp::Required, says("RTP/SAVP", &[])),
        (Srtp::Required, foreign.clone()),
        (Srtp::Optional, foreign),
        (Srtp::Optional, other_suite),
        (Srtp::Required, with_mki),
        (Srtp::Off, says("RTP/SAVP", &[format!("1 {CM} {}", theirs(1))])),
    ] {
        let mut rig = Rig::with(with(srtp), "");
        rig.reserve();
        rig.respond(&Method::Invite, 200, "pbx", &answer, &[]);
        assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))), "{srtp:?} {:?}", rig.cause());
        assert_eq!(rig.plans().len(), 0);
        rig.is_over();
    }
}

#[test]
fn our_own_key_is_taken_for_none_of_theirs() {
    let mut rig = Rig::with(with(Srtp::Optional), "");
    rig.reserve();
    let echo = last_invite(&rig).1[1].text().to_string();
    rig.respond(&Method::Invite, 200, "pbx", &says("RTP/AVP", &[echo]), &[]);
    assert!(matches!(rig.cause(), Some(EndCause::Protocol(_))));
    rig.is_over();
    let mut rig = calling(Srtp::Optional);
    let own = last_invite(&rig).1[1].text().to_string();
    let refused = rig.ask(Method::Invite, "pbx", &says("RTP/AVP", &[own])).unwrap();
    assert!(refusal(&refused).contains("our own key"));
    rig.finish();
}

#[test]
fn the_first_line_that_we_know_wins_and_its_tag_comes_back() {
    let lines = [
        format!("1 F8_128_HMAC_SHA1_80 {}", theirs(1)),
        format!("2 {CM} {}|2^20|1:4", theirs(2)),
        format!("17 AES_CM_128_HMAC_SHA1_32 {}|2^31", theirs(3)),
        format!("4 {CM} {}", theirs(4)),
    ];
    for (srtp, profile) in [
        (Srtp::Optional, "RTP/SAVP"),
        (Srtp::Optional, "RTP/AVP"),
        (Srtp::Required, "RTP/SAVPF"),
        (Srtp::Required, "RTP/AVPF"),
    ] {
        let rig = called(srtp, &says(profile, &lines)).unwrap();
        let answer = rig.replies(INVITE).pop().unwrap();
        let (answered, ours) = said(&answer.body);
        assert_eq!((answered.as_str(), ours.len(), ours[0].tag), (profile, 1, 17));
        let (seals, opens) = last_keys(&rig).unwrap();
        assert_eq!((seals.profile(), &seals), (Profile::AesCm128HmacSha1_32, &ours[0].key));
        assert_eq!(opens, Crypto::parse(&lines[2]).unwrap().key);
        assert_ne!(seals, opens);
        rig.finish();
    }
}

#[test]
fn offers_that_cannot_be_answered_are_refused_by_their_flaw() {
    let line = format!("1 {CM} {}", theirs(1));
    let cases = [
        (Srtp::Off, "RTP/SAVP", vec![line.clone()], "not served"),
        (Srtp::Optional, "RTP/SAVP", vec![], "no a=crypto"),
        (Srtp::Required, "RTP/AVP", vec![], "no a=crypto"),
        (Srtp::Optional, "RTP/SAVP", vec![format!("{line}|1:4")], "MKI"),
        (Srtp::Optional, "RTP/SAVP", vec![format!("{line} UNENCRYPTED_SRTP")], "parameters"),
        (Srtp::Required, "RTP/AVP", vec![format!("1 NULL_HMAC_SHA1_80 {}", theirs(1))], "suite"),
        (Srtp::Required, "RTP/SAVP", vec![format!("1 {CM} inline:AAAA")], "does not fit"),
    ];
    for (srtp, profile, lines, text) in cases {
        let refused = Rig::invited_with(invite(&says(profile, &lines), &[]), with(srtp)).err().unwrap();
        assert!(refusal(&refused).contains(text), "{srtp:?} {profile} {}", refusal(&refused));
        assert!(!refusal(&refused).contains("inline"), "no key is told");
    }
    // In the middle of a call it goes on as it was.
    let mut rig = calling(Srtp::Required);
    let before = last_keys(&rig);
    let refused = rig.ask(Method::Invite, "pbx", &says("RTP/AVP", &[])).unwrap();
    assert!(refusal(&refused).contains("no a=crypto"));
    assert_eq!((last_keys(&rig), rig.cause()), (before, None));
    rig.finish();
}

/// RTP/AVP with lines that nobody knows is an offer of plain media where that will do.
#[test]
fn unknown_keys_in_an_opportunistic_offer_leave_it_plain() {
    let lines = [format!("1 F8_128_HMAC_SHA1_80 {}", theirs(1))];
    for srtp in [Srtp::Off, Srtp::Optional] {
        let rig = called(srtp, &says("RTP/AVP", &lines)).unwrap();
        assert_eq!(last_keys(&rig), None);
        assert_eq!(said(&rig.replies(INVITE).pop().unwrap().body), ("RTP/AVP".to_owned(), Vec::new()));
        rig.finish();
    }
}

#[test]
fn new_keys_in_the_middle_of_a_call_become_a_plan_and_old_ones_stay() {
    for mut rig in [
        calling(Srtp::Required),
        called(Srtp::Optional, &says("RTP/SAVP", &[format!("2 {CM} {}", theirs(1))])).unwrap(),
    ] {
        let tag = rig.call.inside.dialog.remote_tag.clone().unwrap();
        let first = last_keys(&rig).unwrap();
        // A hold under the same key changes none.
        let held = String::from_utf8(says("RTP/SAVP", &[format!("2 {CM} {}", theirs(1))])).unwrap();
        let held = format!("{held}a=sendonly\r\n").into_bytes();
        let answer = rig.ask(Method::Invite, &tag, &held).unwrap();
        assert_eq!(said(&answer.body).1[0].key, first.0);
        assert_eq!(last_keys(&rig).as_ref(), Some(&first));
        // Another key, under another tag, gets another of ours, which is sealed with once the far end has it.
        let versions = rig.plans().len();
        let answer =
            rig.ask(Method::Invite, &tag, &says("RTP/SAVP", &[format!("3 {CM} {}", theirs(9))])).unwrap();
        let (profile, ours) = said(&answer.body);
        assert_eq!((profile.as_str(), ours[0].tag), ("RTP/SAVP", 3));
        let plans = rig.plans();
        assert_eq!(plans.len(), versions + 2);
        let second = last_keys(&rig).unwrap();
        assert_eq!(keys(&plans[versions]).unwrap(), (first.0.clone(), second.1.clone()));
        assert_eq!(second.0, ours[0].key);
        assert!(second.0 != first.0 && second.1 != first.1);
        // What we offer ourselves is what holds.
        rig.turn("sendonly");
        let (profile, offered) = last_invite(&rig);
        assert_eq!((profile.as_str(), offered), ("RTP/SAVP", ours));
        rig.respond(&Method::Invite, 200, &tag, &says("RTP/SAVP", &[format!("3 {CM} {}", theirs(9))]), &[]);
        assert_eq!(last_keys(&rig), Some(second));
        rig.finish();
    }
}

/// Whether the ACK came nobody knows then; the far end has our answer, or will have it.
#[test]
fn a_new_key_outlives_the_control_that_announced_it() {
    let mut rig = calling(Srtp::Required);
    let tag = rig.call.inside.dialog.remote_tag.clone().unwrap();
    let first = last_keys(&rig).unwrap();
    let answer =
        rig.ask(Method::Invite, &tag, &says("RTP/SAVP", &[format!("3 {CM} {}", theirs(9))])).unwrap();
    let ours = said(&answer.body).1.remove(0).key;
    // The plan before the ACK.
    let plans = rig.plans();
    let plan = plans[plans.len() - 2].clone();
    assert_eq!(keys(&plan).unwrap().0, first.0);
    let mut next = Rig::restored(&plan, rig.now);
    next.wait(Duration::from_millis(1));
    let (sealing, opening) = last_keys(&next).unwrap();
    assert_eq!((sealing, opening), (ours, keys(&plan).unwrap().1));
    next.installed();
    next.finish();
    rig.finish();
}

/// An INVITE without an offer: ours has keys, and the ACK chooses.
#[test]
fn a_late_offer_has_keys_as_well() {
    let mut rig = Rig::invited_with(invite(b"", &[]), with(Srtp::Required)).unwrap();
    rig.reserve();
    rig.take().unwrap();
    let (profile, ours) = said(&rig.replies(INVITE).pop().unwrap().body);
    assert_eq!((profile.as_str(), ours.len()), ("RTP/SAVP", 4));
    rig.acknowledge(&says("RTP/SAVP", &[format!("2 {CM} {}", theirs(1))]));
    let rig = up(rig);
    assert_eq!(last_keys(&rig).unwrap().0, ours[1].key);
    rig.finish();
}

#[test]
fn another_control_goes_on_with_the_keys() {
    let rig = calling(Srtp::Required);
    let (plan, ours) = (rig.plans().pop().unwrap(), last_invite(&rig).1[1].clone());
    // The record does not hold what the plan's keys are for.
    let (seals, opens) = keys(&plan).unwrap();
    for key in [&seals, &opens] {
        assert!(!plan.record.windows(16).any(|octets| octets == key.key()));
    }
    let mut next = Rig::restored(&plan, rig.now);
    next.obedient = true;
    let answer = next.ask(Method::Invite, "pbx", &says("RTP/SAVP", &[format!("2 {CM} {}", theirs(1))]));
    assert_eq!(said(&answer.unwrap().body), ("RTP/SAVP".to_owned(), vec![ours]));
    assert_eq!(last_keys(&next), Some((seals, opens)));
    next.finish();
}

/// Who is called in the far end's place hears none of its keys.
#[test]
fn a_transfer_has_keys_of_its_own() {
    let mut rig = calling(Srtp::Required);
    let former = last_invite(&rig).1;
    let before = last_keys(&rig).unwrap();
    let refer = [("Refer-To", "<sip:1002@pbx>")];
    assert_eq!(rig.ask_with(Method::Refer, "pbx", b"", None, &refer).unwrap().status, 202);
    let (profile, lines) = last_invite(&rig);
    assert_eq!((profile.as_str(), lines.len()), ("RTP/SAVP", 4));
    assert!(lines.iter().all(|line| former.iter().all(|former| former.key != line.key)));
    let answer = says("RTP/SAVP", &[format!("2 {CM} {}", theirs(7))]);
    rig.respond(&Method::Invite, 200, "other", &answer, &[]);
    let after = last_keys(&rig).unwrap();
    assert!(after.0 == lines[1].key && after.0 != before.0 && after.1 != before.1);
    rig.finish();
}

#[test]
fn no_debug_shows_a_key() {
    let rig = calling(Srtp::Required);
    let (ours, opens) = last_keys(&rig).unwrap();
    let told = format!("{:?} {:?} {:?}", rig.call, rig.done, rig.call.view());
    for key in [ours, opens] {
        let line = Crypto { tag: 1, key: key.clone() }.text().to_string();
        let inline = line.split("inline:").nth(1).unwrap();
        assert!(!told.contains(inline), "as text");
        assert!(!told.contains(&format!("{:?}", &key.key()[..8]).replace(['[', ']'], "")), "as numbers");
    }
    rig.finish();
}

/// Our new key is sealed with behind the ACK, which says that the far end has our answer; an UPDATE has none.
#[test]
fn our_new_key_is_used_once_the_far_end_has_it() {
    let other = says("RTP/SAVP", &[format!("3 {CM} {}", theirs(9))]);
    for method in [Method::Invite, Method::Update] {
        let mut rig = calling(Srtp::Required);
        rig.acknowledges = false;
        let first = last_keys(&rig).unwrap();
        let answer = rig.ask(method.clone(), "pbx", &other).unwrap();
        let between = last_keys(&rig).unwrap();
        assert_eq!(between.0, first.0, "{method:?}: nobody can open the new one yet");
        assert_ne!(between.1, first.1);
        rig.wait(Duration::from_millis(400));
        assert_eq!(last_keys(&rig), Some(between.clone()));
        if method == Method::Invite {
            rig.wait(Duration::from_secs(2));
            assert_eq!(last_keys(&rig), Some(between.clone()));
            rig.ask(Method::Ack, "pbx", b"");
        } else {
            rig.wait(Duration::from_millis(200));
        }
        assert_eq!(last_keys(&rig), Some((said(&answer.body).1[0].key.clone(), between.1)), "{method:?}");
        rig.finish();
    }
}
