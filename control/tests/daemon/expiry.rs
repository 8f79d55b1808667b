//! Tokens that expire: their sessions end, calls that talk do not; another token in time keeps the session.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::agents::{SECRET, token};
use super::harness::until;
use super::session::{Session, sign_in};
use super::socket::{Lab, Page, final_answer, lab_with};
use super::websocket::Browser as Socket;

/// Clocks may be 30 s apart: a token that has expired so long ago is good for three more.
const PAST: i64 = -27;
const LATER: i64 = 300;
/// Behind that end, and the second that it may take to be seen.
const OVER: Duration = Duration::from_millis(4500);

fn lab() -> Lab {
    let keys = format!("hs256 = ['{SECRET}']");
    lab_with(&[("identity", &keys), ("http", "anonymous = ['9000']"), ("agents", "register = false")])
}

/// A token of a number, or of a customer; good until so many seconds from now.
fn good_until(number: Option<&str>, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({ "exp": now.checked_add_signed(seconds).unwrap() });
    if let Some(number) = number {
        claims["sub"] = number.into();
    }
    token(&claims).trim_start_matches("Bearer ").to_owned()
}

fn sessions(lab: &Lab) -> u64 {
    lab.control.status()["sessions"].as_u64().unwrap()
}

#[test]
fn a_session_ends_with_its_token_unless_another_one_comes() {
    let lab = lab();
    let mut page = Page::open(&lab.control);
    page.sign_in(json!({ "token": good_until(Some("2000"), PAST) }));
    let mut customer = Page::open(&lab.control);
    customer.sign_in(json!({ "token": good_until(None, PAST) }));
    let mut renewed = Page::open(&lab.control);
    renewed.sign_in(json!({ "token": good_until(Some("2000"), PAST) }));
    for (token, code) in [
        (good_until(Some("2001"), LATER), "other_number"),
        (good_until(None, LATER), "other_number"),
        (good_until(Some("2000"), -100), "token"),
        ("nonsense".to_owned(), "token"),
    ] {
        let name = token.chars().rev().take(8).collect::<String>();
        let refused = renewed.ask(&json!({ "type": "renew", "ref": name, "token": token }));
        assert_eq!(refused["code"], code, "{refused}");
    }
    let token = good_until(Some("2000"), LATER);
    assert_eq!(renewed.ask(&json!({ "type": "renew", "ref": "r", "token": token }))["type"], "ok");
    for page in [&mut page, &mut customer] {
        let word = page.hear("signed_out");
        assert_eq!(word["reason"], "expired", "{word}");
        assert_eq!(page.next(), None);
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sessions(&lab), 1);
    lab.invite("2000", "renewed");
    assert_eq!(renewed.hear("incoming")["to"], "2000");
}

#[test]
fn a_call_that_talks_outlives_the_token_and_nothing_else_begins() {
    let lab = lab();
    let mut page = Page::open(&lab.control);
    page.sign_in(json!({ "token": good_until(Some("2000"), PAST) }));
    let mut browser = lab.browser(1);
    let offer = browser.offer("actpass");
    let call = page.ask(&json!({ "type": "call", "ref": 1, "to": "1000", "sdp": offer }))["call"].clone();
    let answer = page.hear("answer");
    browser.connect(answer["sdp"].as_str().unwrap());
    page.event("connected");
    std::thread::sleep(OVER);
    let expired = |page: &mut Page, word: &Value| {
        page.say(word);
        assert_eq!(page.hear("error")["code"], "expired", "{word}");
    };
    expired(&mut page, &json!({ "type": "call", "ref": 2, "to": "1000", "sdp": offer }));
    expired(&mut page, &json!({ "type": "transfer", "ref": 3, "call": call, "to": "1003" }));
    assert!(final_answer(&lab.invite("2000", "late")).starts_with("SIP/2.0 480 "), "it rings nobody");
    let word = json!({ "type": "dtmf", "ref": 4, "call": call, "digits": "1" });
    assert_eq!(page.ask(&word)["type"], "ok");
    let stats = page.ask(&json!({ "type": "stats", "ref": 5, "call": call }));
    assert_eq!(stats["stats"]["state"], "connected");
    assert_eq!(page.ask(&json!({ "type": "hangup", "ref": 6, "call": call }))["type"], "ok");
    assert_eq!(page.hear("signed_out")["reason"], "expired");
    lab.is_clean();
}

#[test]
fn it_is_so_over_http_and_the_hanging_get() {
    let lab = lab();
    let bearer = |seconds| format!("Bearer {}", good_until(Some("2000"), seconds));
    let enter =
        || Session::of(&lab.control, &sign_in(&lab.control, "{}", &[("Authorization", &bearer(PAST))]));
    let (session, kept) = (enter(), enter());
    let hanging = || {
        let body = json!({ "token": good_until(Some("2001"), PAST) }).to_string();
        let answer = lab.control.send("POST", "/hanging/sign-in", &[], body.as_bytes());
        answer.json()["session"].as_str().unwrap().to_owned()
    };
    let (ended, hung) = (hanging(), hanging());
    let renew = |id: &str, token: &str| {
        let headers = [("Authorization", token)];
        lab.control.send("PUT", &format!("/v1/sessions/{id}/token"), &headers, b"").status
    };
    assert_eq!(renew(&kept.id, &bearer(LATER)), 204);
    assert_eq!(renew(&hung, &format!("Bearer {}", good_until(Some("2001"), LATER))), 204);
    assert_eq!(renew(&hung, &bearer(LATER)), 403, "another number's");
    assert_eq!(renew(&"7".repeat(32), &bearer(LATER)), 404);
    assert_eq!(lab.control.send("PUT", &format!("/v1/sessions/{hung}/token"), &[], b"").status, 401);
    assert_eq!(session.hears("signed_out").1["reason"], "expired");
    session.is_over();
    until("two are left", || sessions(&lab) == 2);
    let gone = lab.control.send("GET", &format!("/hanging/{ended}?timeout=10"), &[], b"").status;
    assert!([200, 404, 410].contains(&gone), "{gone}");
    until("it is unknown", || {
        lab.control.send("GET", &format!("/hanging/{ended}?timeout=10"), &[], b"").status == 404
    });
    std::thread::sleep(OVER);
    assert_eq!(sessions(&lab), 2);
    assert_eq!(lab.control.send("DELETE", &format!("/hanging/{hung}"), &[], b"").status, 204);
}

#[test]
fn a_phone_is_registered_no_longer_than_its_token_lasts() {
    let lab = lab();
    let mut socket = Socket::open(&lab.control);
    let mut register = |cseq: u32, seconds: i64| {
        let token = good_until(Some("2000"), seconds);
        socket.send(&format!(
            "REGISTER sip:lab.example SIP/2.0\r\nVia: SIP/2.0/WS x.invalid;branch=z9hG4bKr{cseq}\r\nMax-Forwards: 69\r\n\
             From: <sip:2000@lab.example>;tag=own\r\nTo: <sip:2000@lab.example>\r\nCall-ID: registers\r\n\
             CSeq: {cseq} REGISTER\r\nContact: <sip:k@x.invalid;transport=ws>;+sip.instance=\"<urn:uuid:1>\";reg-id=1;expires=600\r\n\
             Authorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
        ));
        socket.hear().expect("an answer")
    };
    let expires = |answer: &str| -> u64 {
        assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
        let at = answer.find(";expires=").unwrap() + ";expires=".len();
        answer[at..].split("\r\n").next().unwrap().parse().unwrap()
    };
    assert!(expires(&register(1, PAST)) <= 3);
    until("it is signed out", || sessions(&lab) == 0);
    assert!(expires(&register(2, PAST)) <= 3);
    let left = expires(&register(3, LATER));
    assert!((320..=331).contains(&left), "until the token ends, and 30 s: {left}");
    assert!(register(4, -100).starts_with("SIP/2.0 401 "), "a bad token renews nothing");
    std::thread::sleep(OVER);
    assert_eq!(sessions(&lab), 1, "the last good one counts");
}
