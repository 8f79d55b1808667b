//! The hanging GET: offers and answers by POST, one message per GET.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Control, Net, until};
use super::socket::{Lab, final_answer, lab, lab_with};

/// A page that is signed in.
struct Page<'a> {
    control: &'a Control,
    session: String,
}

impl<'a> Page<'a> {
    fn enter(control: &'a Control, body: &Value) -> Self {
        let json = [("Content-Type", "application/json")];
        let answer = control.send("POST", "/hanging/sign-in", &json, body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let session = answer.json()["session"].as_str().unwrap().to_owned();
        Self { control, session }
    }

    fn say(&self, to: &str, word: &Value) -> u16 {
        let path = format!("/hanging/{}?to={to}", self.session);
        let answer = self.control.send("POST", &path, &[], word.to_string().as_bytes());
        if answer.status != 204 {
            answer.problem();
        }
        answer.status
    }

    /// The next message, and its peer.
    fn hear(&self) -> (Value, String) {
        let answer = self.control.send("GET", &format!("/hanging/{}", self.session), &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let word = answer.json();
        assert_eq!(word["from"], answer.header("sallyport-peer"), "{word}");
        (word, answer.header("sallyport-peer").to_owned())
    }

    fn hear_verb(&self, verb: &str) -> Value {
        let (word, _) = self.hear();
        assert_eq!(word["messageType"], verb, "{word}");
        word
    }
}

fn offer(seq: u32, sdp: &str) -> Value {
    json!({ "messageType": "OFFER", "offererSessionId": "page-1", "seq": seq, "tieBreaker": 7, "sdp": sdp })
}

fn answering(word: &Value, verb: &str) -> Value {
    json!({ "messageType": verb, "offererSessionId": word["offererSessionId"],
        "answererSessionId": word["answererSessionId"], "seq": word["seq"] })
}

fn is_clean(lab: &Lab) {
    lab.is_clean();
}

#[test]
fn a_page_calls_by_offer_and_hears_the_answer() {
    let lab = lab("anonymous = ['1000', 'busy']");
    let page = Page::enter(&lab.control, &json!({}));
    let mut browser = lab.browser(1);
    let first = offer(1, &browser.offer("actpass"));
    assert_eq!(page.say("1000", &first), 204);
    let answer = page.hear_verb("ANSWER");
    assert_eq!(
        (&answer["offererSessionId"], &answer["seq"], &answer["from"]),
        (&"page-1".into(), &1.into(), &"1000".into())
    );
    assert_eq!(page.say("1000", &first), 204);
    assert_eq!(
        page.hear_verb("ANSWER")["sdp"],
        answer["sdp"],
        "an OFFER that comes again calls nobody twice"
    );
    assert_eq!(lab.pbx.heard("INVITE").len(), 1);
    assert_eq!(page.say("1000", &answering(&answer, "OK")), 204);
    browser.connect(answer["sdp"].as_str().unwrap());
    assert_eq!(page.say("1000", &answering(&answer, "STATS")), 204);
    assert!(page.hear_verb("STATS")["stats"]["legs"].is_object());
    assert_eq!(page.say("1000", &answering(&answer, "ANSWER")), 400);
    assert_eq!(page.say("1000", &json!({ "messageType": "DANCE" })), 400);
    assert_eq!(page.say("1000", &json!({ "messageType": "BYE", "offererSessionId": "other" })), 404);
    let mut info = answering(&answer, "INFO");
    info["contentType"] = "nonsense".into();
    assert_eq!(page.say("1000", &info), 400);
    assert_eq!(page.say("1000", &answering(&answer, "BYE")), 204);
    page.hear_verb("OK");
    is_clean(&lab);
    for (to, kind) in [("busy", "REFUSED"), ("2000", "REFUSED")] {
        assert_eq!(page.say(to, &offer(1, &lab.browser(2).offer("actpass"))), 204);
        let error = page.hear_verb("ERROR");
        assert_eq!(error["errorType"], kind, "{error}");
    }
    assert_eq!(page.say("1000", &offer(1, "nonsense")), 204);
    assert_eq!(page.hear_verb("ERROR")["code"], "offer");
    is_clean(&lab);
}

#[test]
fn a_page_is_invited_and_offers_or_does_not() {
    let lab = lab_with(&[("http", ""), ("agents", "numbers = 'open'\nregister = false")]);
    let page = Page::enter(&lab.control, &json!({ "number": "2000" }));
    let caller = lab.invite("2000", "first");
    let (invite, peer) = page.hear();
    assert_eq!(
        (&invite["messageType"], peer.as_str(), &invite["to"]),
        (&"INVITE".into(), "7000", &"2000".into())
    );
    let mut browser = lab.browser(1);
    let mut word = offer(1, &browser.offer("actpass"));
    word["answererSessionId"] = invite["answererSessionId"].clone();
    assert_eq!(page.say("7000", &word), 204);
    let answer = page.hear_verb("ANSWER");
    assert_eq!(answer["answererSessionId"], invite["answererSessionId"]);
    assert_eq!(page.say("7000", &answering(&answer, "OK")), 204);
    browser.connect(answer["sdp"].as_str().unwrap());
    assert!(final_answer(&caller).starts_with("SIP/2.0 200 "));
    assert_eq!(page.say("7000", &answering(&answer, "BYE")), 204);
    page.hear_verb("OK");
    let caller = lab.invite("2000", "second");
    let invite = page.hear_verb("INVITE");
    let mut bye = answering(&invite, "BYE");
    bye["status"] = 603.into();
    assert_eq!(page.say("7000", &bye), 204);
    assert!(final_answer(&caller).starts_with("SIP/2.0 603 "));
}

#[test]
fn an_answer_has_the_sequence_of_its_offer_whatever_was_told_before() {
    let lab = lab("anonymous = ['1000']");
    let page = Page::enter(&lab.control, &json!({ "events": 1 }));
    let mut browser = lab.browser(1);
    assert_eq!(page.say("1000", &offer(5, &browser.offer("actpass"))), 204);
    let mut numbers = Vec::new();
    let answer = loop {
        let (word, _) = page.hear();
        numbers.push(word["number"].as_u64().unwrap());
        if word["messageType"] == "ANSWER" {
            break word;
        }
        assert_eq!((&word["messageType"], &word["seq"]), (&"EVENT".into(), &5.into()), "{word}");
    };
    assert_eq!(answer["seq"], 5, "{answer}");
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
    browser.connect(answer["sdp"].as_str().unwrap());
    assert_eq!(page.say("1000", &answering(&answer, "BYE")), 204);
    lab.is_clean();
}

#[test]
fn a_get_hangs_so_long_and_who_stops_asking_is_signed_out() {
    let lab = lab_with(&[("http", "anonymous = ['*']"), ("agents", "grace_s = 1")]);
    let control = &lab.control;
    let page = Page::enter(control, &json!({}));
    let begun = Instant::now();
    let path = format!("/hanging/{}?timeout=1", page.session);
    assert_eq!(control.send("GET", &path, &[], b"").status, 204);
    assert!((9..14).contains(&begun.elapsed().as_secs()), "10 s at the least: {:?}", begun.elapsed());
    assert_eq!(page.say("1000", &offer(1, &lab.browser(1).offer("actpass"))), 204);
    let answer = page.hear_verb("ANSWER");
    let again = control.send("GET", &format!("/hanging/{}?after=0", page.session), &[], b"");
    assert_eq!(again.json()["sdp"], answer["sdp"], "what was lost on the way is told again");
    std::thread::sleep(Duration::from_millis(200));
    is_clean(&lab);
    until("the session is gone", || control.send("GET", &path, &[], b"").status == 404);
}

#[test]
fn what_is_no_sign_in_is_refused() {
    let control = Control::start(Net::new(), &[]);
    let get = |query: &str| control.send("GET", &format!("/hanging/sign-in?{query}"), &[], b"");
    assert_eq!(get("").status, 200);
    assert_eq!(get("number=2000").problem()["status"], 401);
    assert_eq!(get("password=secret").problem()["status"], 400);
    assert_eq!(control.send("POST", "/hanging/sign-in", &[], b"[").problem()["status"], 400);
    assert_eq!(control.send("GET", "/hanging/nobody", &[], b"").problem()["status"], 404);
    let session = get("").json()["session"].as_str().unwrap().to_owned();
    assert_eq!(control.send("GET", &format!("/hanging/{session}/sign-out"), &[], b"").status, 204);
    until("it is signed out", || {
        [404, 410].contains(&control.send("GET", &format!("/hanging/{session}?timeout=10"), &[], b"").status)
    });
}
