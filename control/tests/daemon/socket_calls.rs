//! What a page asks of its calls by the JSON WebSocket: hold, digits, user data, transfers; and of a control that was replaced.

use sallyport_plan::{DirectionIndex, Event};
use serde_json::{Value, json};

use super::browser::Browser;
use super::harness::{TOKEN, until};
use super::pbx::{Pbx, line};
use super::socket::{Lab, Page, lab, lab_with};

/// The sound's directions in a plan.
const INWARD: DirectionIndex = DirectionIndex(0);
const OUTWARD: DirectionIndex = DirectionIndex(1);

/// Requests of a method, each once however often it was sent.
fn heard(pbx: &Pbx, method: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for request in pbx.heard(method) {
        let same =
            |have: &String| ["Call-ID", "CSeq"].iter().all(|name| line(have, name) == line(&request, name));
        if !all.iter().any(same) {
            all.push(request);
        }
    }
    all
}

/// A call that talks; its name.
fn connected(lab: &Lab, page: &mut Page, number: u16) -> (Value, Browser) {
    let mut browser = lab.browser(number);
    let offer = browser.offer("actpass");
    let asked = json!({ "type": "call", "ref": format!("call {number}"), "to": "1000", "sdp": offer });
    let call = page.ask(&asked)["call"].clone();
    let answer = page.hear("answer");
    browser.connect(answer["sdp"].as_str().unwrap());
    assert_eq!(page.event("connected")["call"], call);
    (call, browser)
}

/// Asks for what is answered by `ok`.
fn done(page: &mut Page, mut word: Value) {
    word["ref"] = word["type"].clone();
    word["ref"] = format!("{} {}", word["type"].as_str().unwrap(), page.seq).into();
    assert_eq!(page.ask(&word)["type"], "ok", "{word}");
}

fn turn(page: &mut Page, call: &Value, browser: &Browser, direction: &str) {
    let sdp = browser.offer("actpass").replace("a=sendrecv", &format!("a={direction}"));
    let word =
        json!({ "type": "offer", "ref": format!("{direction} {}", page.seq), "call": call, "sdp": sdp });
    let answer = page.ask(&word);
    assert_eq!((&answer["type"], &answer["call"]), (&"answer".into(), call), "{answer}");
    assert!(answer["sdp"].as_str().unwrap().contains(&format!("a={direction}")), "{answer}");
}

/// The far end's NOTIFY about a transfer, which is over with it.
fn notified(lab: &Lab, ack: &str, cseq: u32, status: &str) {
    let body = format!("SIP/2.0 {status}\r\n");
    let notify = lab.pbx.request("NOTIFY", ack, cseq).replace(
        "Content-Length: 0\r\n\r\n",
        &format!(
            "Event: refer\r\nSubscription-State: terminated;reason=noresource\r\n\
             Content-Type: message/sipfrag\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    lab.pbx.send_datagram(&notify, lab.control.net.sip());
}

#[test]
fn a_page_holds_and_resumes_and_the_inside_hears_it() {
    let lab = lab("anonymous = ['1000']");
    let mut page = Page::open(&lab.control);
    page.sign_in(json!({}));
    let (call, browser) = connected(&lab, &mut page, 1);
    turn(&mut page, &call, &browser, "inactive");
    until("the hold is acknowledged", || heard(&lab.pbx, "ACK").len() == 2);
    assert!(heard(&lab.pbx, "INVITE")[1].contains("a=inactive"));
    turn(&mut page, &call, &browser, "sendrecv");
    until("it is resumed", || heard(&lab.pbx, "ACK").len() == 3);
    assert!(heard(&lab.pbx, "INVITE")[2].contains("a=sendrecv"));
    done(&mut page, json!({ "type": "hangup", "call": call }));
    lab.is_clean();
}

#[test]
fn digits_and_user_data_of_a_page_reach_the_inside() {
    let lab = lab_with(&[("http", "anonymous = ['1000']"), ("sip", "pass_types = ['application/json']")]);
    let mut page = Page::open(&lab.control);
    page.sign_in(json!({}));
    let (call, _browser) = connected(&lab, &mut page, 1);
    done(&mut page, json!({ "type": "dtmf", "call": call, "digits": "5#", "duration": 40 }));
    done(
        &mut page,
        json!({ "type": "info", "call": call, "content_type": "application/json", "body": "{\"a\":1}" }),
    );
    until("data has come", || heard(&lab.pbx, "INFO").iter().any(|info| info.contains("{\"a\":1}")));
    // The far end takes named events: the relay sends them.
    assert_eq!(lab.relay.state().dialled, [(INWARD, 5, 40), (INWARD, 11, 40)]);
    assert_eq!(heard(&lab.pbx, "INFO").len(), 1);
    // And hears those of the far end.
    let running = *lab.relay.state().plans.keys().next().unwrap();
    let digit = Event::Digit { call: running, direction: OUTWARD, event: 10, duration: 120 };
    lab.relay.say(&digit);
    let told = page.event("dtmf");
    assert_eq!((&told["digit"], &told["duration"]), (&json!("*"), &json!(120)), "{told}");
    done(&mut page, json!({ "type": "hangup", "call": call }));
    lab.is_clean();
}

#[test]
fn digits_go_by_info_where_that_is_wanted() {
    let lab = lab_with(&[("http", "anonymous = ['1000']"), ("sip", "dtmf = 'info'")]);
    let mut page = Page::open(&lab.control);
    page.sign_in(json!({}));
    let (call, _browser) = connected(&lab, &mut page, 1);
    done(&mut page, json!({ "type": "dtmf", "call": call, "digits": "5#", "duration": 40 }));
    until("digits have come", || heard(&lab.pbx, "INFO").len() == 2);
    let infos = heard(&lab.pbx, "INFO");
    assert!(infos[0].contains("Signal=5") && infos[1].contains("Signal=#"), "{infos:?}");
    assert_eq!(lab.relay.state().dialled, []);
    done(&mut page, json!({ "type": "hangup", "call": call }));
    lab.is_clean();
}

#[test]
fn a_page_transfers_blind_and_onto_another_call() {
    let lab = lab("anonymous = ['1000', '1003']");
    let mut page = Page::open(&lab.control);
    page.sign_in(json!({}));
    let (first, _one) = connected(&lab, &mut page, 1);
    let forbidden = page.ask(&json!({ "type": "transfer", "ref": "f", "call": first, "to": "2000" }));
    assert_eq!(forbidden["code"], "destination", "{forbidden}");
    done(&mut page, json!({ "type": "transfer", "call": first, "to": "1003" }));
    until("the far end is asked", || heard(&lab.pbx, "REFER").len() == 1);
    assert!(line(&heard(&lab.pbx, "REFER")[0], "Refer-To").contains("sip:1003@"));
    let ack = heard(&lab.pbx, "ACK").remove(0);
    notified(&lab, &ack, 1, "200 OK");
    while page.event("transfer")["status"] != 200 {}
    assert_eq!(page.event("ended")["call"], first);
    lab.is_clean();

    let (second, _two) = connected(&lab, &mut page, 2);
    let (third, _three) = connected(&lab, &mut page, 3);
    done(&mut page, json!({ "type": "transfer", "call": second, "onto": third }));
    until("the far end is asked", || heard(&lab.pbx, "REFER").len() == 2);
    let refer = heard(&lab.pbx, "REFER").remove(1);
    assert!(line(&refer, "Refer-To").contains("Replaces="), "{refer}");
    done(&mut page, json!({ "type": "hangup", "call": second }));
    done(&mut page, json!({ "type": "hangup", "call": third }));
    lab.is_clean();
}

#[test]
fn a_new_control_gives_a_call_back_to_the_page_that_had_it() {
    let mut lab = lab("anonymous = ['1000']");
    let mut page = Page::open(&lab.control);
    let session = page.sign_in(json!({}));
    let (call, browser) = connected(&lab, &mut page, 1);
    lab.control.restart();
    lab.control.wait_until_ready();
    until("the call is adopted", || lab.control.status()["calls"]["active"] == 1);
    let mut page = Page::open(&lab.control);
    let lost = page.ask(&json!({ "type": "sign_in", "ref": 1, "session": session, "seq": 4 }));
    assert_eq!(lost["code"], "unknown_session");
    page.sign_in(json!({}));
    let foreign = page.ask(&json!({ "type": "offer", "ref": 2, "call": call, "sdp": "x" }));
    assert_eq!(foreign["code"], "unknown_call", "{foreign}");
    for name in ["00000000000000000000000000000007", "nonsense"] {
        let none = page.ask(&json!({ "type": "claim", "ref": name, "call": name }));
        assert_eq!(none["code"], "unknown_call", "{none}");
    }
    done(&mut page, json!({ "type": "claim", "call": call }));
    let mut other = Page::open(&lab.control);
    other.sign_in(json!({}));
    let taken = other.ask(&json!({ "type": "claim", "ref": 1, "call": call }));
    assert_eq!(taken["code"], "unknown_call", "it is a session's: {taken}");
    turn(&mut page, &call, &browser, "inactive");
    turn(&mut page, &call, &browser, "sendrecv");
    done(&mut page, json!({ "type": "dtmf", "call": call, "digits": "7" }));
    until("the digit has come", || lab.relay.state().dialled == [(INWARD, 7, 100)]);
    done(&mut page, json!({ "type": "hangup", "call": call }));
    assert_eq!(page.event("ended")["cause"], "hang_up");
    lab.is_clean();
}

#[test]
fn a_call_that_came_in_is_given_back_to_its_number_only() {
    let mut lab = lab("");
    let mut page = Page::open(&lab.control);
    page.sign_in(json!({ "number": "2000", "token": TOKEN }));
    lab.invite("2000", "in");
    let call = page.hear("incoming")["call"].clone();
    let mut browser = lab.browser(1);
    let answer =
        page.ask(&json!({ "type": "accept", "ref": 2, "call": call, "sdp": browser.offer("actpass") }));
    browser.connect(answer["sdp"].as_str().unwrap());
    page.event("connected");
    lab.control.restart();
    lab.control.wait_until_ready();
    until("the call is adopted", || lab.control.status()["calls"]["active"] == 1);
    let mut other = Page::open(&lab.control);
    other.sign_in(json!({ "number": "2001", "token": TOKEN }));
    let foreign = other.ask(&json!({ "type": "claim", "ref": 1, "call": call }));
    assert_eq!(foreign["code"], "unknown_call", "{foreign}");
    let mut page = Page::open(&lab.control);
    let session = page.sign_in(json!({ "number": "2000", "token": TOKEN }));
    let path = format!("/v1/calls/{}/claim", call.as_str().unwrap());
    let headers = [("Sallyport-Session", session.as_str())];
    assert_eq!(lab.control.send("POST", &path, &headers, b"").status, 204, "by REST as well");
    done(&mut page, json!({ "type": "claim", "call": call }));
    done(&mut page, json!({ "type": "hangup", "call": call }));
    lab.control.wait_until_idle();
}
