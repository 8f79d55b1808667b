//! Agents and customers: sign-in, registration, calls that ring browsers, who may do what.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::browser::{Browser, value};
use super::harness::{Control, Net, TOKEN, until};
use super::pbx::{Pbx, line};
use super::registrar::PASSWORD;
use super::relay::Relay;
use super::session::{Phone, Session, sign_in};

const SDP: &str = "application/sdp";
const JSON: &str = "application/json";
pub const SECRET: &str = "a secret of thirty-two octets, or more";

struct Lab {
    control: Control,
    relay: Relay,
    pbx: Pbx,
}

fn lab(sections: &[(&str, &str)]) -> Lab {
    lab_in(Net::new(), sections)
}

fn lab_in(net: Net, sections: &[(&str, &str)]) -> Lab {
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, sections);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    Lab { control, relay, pbx }
}

impl Lab {
    fn browser(&self, number: u16) -> Browser {
        Browser::new(&self.relay, self.control.net.browser(number))
    }

    fn registers(&self) -> Vec<String> {
        self.pbx.heard("REGISTER")
    }

    fn waits_for_state(&self, expected: &Value) {
        until("registrations stand so", || self.control.status()["registrations"] == *expected);
    }

    /// Nobody is signed in, no call is left, no number is registered.
    fn is_clean(&self) {
        self.control.wait_until_idle();
        self.relay.wait_until_empty();
        self.waits_for_state(&json!({}));
        assert_eq!(self.control.status()["sessions"], 0);
        for number in ["secret of", PASSWORD, TOKEN] {
            assert!(!self.control.log().contains(number), "no secret in the log");
        }
    }

    fn metric(&self, name: &str) -> bool {
        self.control.ask("GET", "/metrics").text().contains(name)
    }
}

pub fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes()));
    format!("Bearer {message}.{signature}")
}

fn soon() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 300
}

#[test]
fn a_number_is_registered_refreshed_and_taken_back() {
    let lab = lab(&[]);
    let first = Session::agent(&lab.control, "6001");
    assert_eq!(first.hears("registration").1["state"], "registered");
    let second = Session::agent(&lab.control, "6001");
    until("it is refreshed twice", || lab.registers().len() >= 3);
    lab.waits_for_state(&json!({ "registered": 1 }));
    assert!(lab.metric("sallyport_registrations{state=\"registered\"} 1"));
    assert!(lab.metric("sallyport_sign_ins_total{outcome=\"accepted\"} 2"));
    let registers = lab.registers();
    let sip = lab.control.net.sip();
    assert!(registers.iter().all(|request| {
        line(request, "Call-ID") == line(&registers[0], "Call-ID")
            && line(request, "Contact") == format!("<sip:6001@{sip}>")
            && line(request, "Expires") == "300"
    }));
    for (session, left) in [(&first, 1), (&second, 0)] {
        let gone = session.ask(&lab.control, "DELETE", &format!("/v1/sessions/{}", session.id), JSON, "");
        assert_eq!(gone.status, 204);
        session.is_over();
        until("it is signed out", || lab.control.status()["sessions"] == left);
    }
    until("it is taken back", || lab.registers().last().is_some_and(|last| line(last, "Expires") == "0"));
    let taken_back = lab.registers().iter().filter(|request| line(request, "Expires") == "0").count();
    assert_eq!(taken_back, 1, "once, with the last browser");
    lab.is_clean();
    let again = first.ask(&lab.control, "DELETE", &format!("/v1/sessions/{}", first.id), JSON, "");
    assert_eq!(
        (again.status, again.problem()["type"].clone()),
        (404, "urn:sallyport:unknown_session".into())
    );
}

#[test]
fn the_sip_server_verifies_passwords() {
    let lab = lab(&[("agents", "numbers = 'password'")]);
    let with = |number: &str, password: &str| {
        sign_in(&lab.control, &json!({ "number": number, "password": password }).to_string(), &[])
    };
    let refused = |number: &str, password: &str| {
        let answer = with(number, password);
        let problem = answer.problem();
        (answer.status, problem["type"].as_str().unwrap().to_owned(), problem["sip_status"].as_u64())
    };
    assert_eq!(refused("2001", ""), (401, "urn:sallyport:password".into(), None));
    assert_eq!(refused("2001", "wrong"), (403, "urn:sallyport:refused".into(), Some(401)));
    assert_eq!(refused("4001", PASSWORD), (403, "urn:sallyport:refused".into(), Some(404)));
    assert_eq!(refused("5001", PASSWORD), (504, "urn:sallyport:sip_unreachable".into(), None));
    lab.waits_for_state(&json!({}));
    let first = Session::of(&lab.control, &with("2001", PASSWORD));
    let asked = lab.registers().len();
    // Strangers cannot undo a registration that works, and do not bother the server.
    assert_eq!(refused("2001", "wrong"), (403, "urn:sallyport:refused".into(), None));
    let second = Session::of(&lab.control, &with("2001", PASSWORD));
    assert_eq!(lab.registers().len(), asked);
    lab.waits_for_state(&json!({ "registered": 1 }));
    assert!(lab.metric("sallyport_sign_ins_total{outcome=\"denied\"} 4"));
    for session in [first, second] {
        session.ask(&lab.control, "DELETE", &format!("/v1/sessions/{}", session.id), JSON, "");
    }
    lab.is_clean();
}

#[test]
fn a_server_that_puts_off_or_asks_for_longer_is_obeyed() {
    let lab = lab(&[]);
    let (off, long) = (Session::agent(&lab.control, "5001"), Session::agent(&lab.control, "3001"));
    let first = off.hears("registration").1;
    assert_eq!((&first["state"], &first["sip_status"]), (&"failed".into(), &503.into()));
    assert_eq!(off.hears("registration").1["state"], "registered", "a second later");
    assert_eq!(long.hears("registration").1["state"], "registered");
    let registers = lab.registers();
    assert!(registers.iter().any(|request| request.contains("3001@") && line(request, "Expires") == "600"));
    let unknown = Session::agent(&lab.control, "4001");
    let failed = unknown.hears("registration").1;
    assert_eq!((&failed["state"], &failed["sip_status"]), (&"failed".into(), &404.into()));
    lab.waits_for_state(&json!({ "registered": 2, "failed": 1 }));
}

#[test]
fn a_call_rings_all_browsers_of_its_number_and_the_first_one_has_it() {
    let lab = lab(&[]);
    let (first, second) = (Session::agent(&lab.control, "1001"), Session::agent(&lab.control, "1001"));
    let elsewhere = Session::agent(&lab.control, "1002");
    let phone = Phone::calls(&lab.control, &lab.pbx, "1001");
    phone.hears(180);
    let (_, ringing) = first.hears("incoming");
    assert_eq!((&ringing["from"], &ringing["to"]), (&"7000".into(), &"1001".into()));
    assert_eq!(second.hears("incoming").1["call"], ringing["call"]);
    let call = format!("/v1/calls/{}", ringing["call"].as_str().unwrap());
    let mut browser = lab.browser(1);
    let accept = format!("{call}/accept");
    let stranger = elsewhere.ask(&lab.control, "POST", &accept, SDP, &browser.offer("actpass"));
    assert_eq!(stranger.status, 409, "it does not ring there");
    let taken = second.ask(&lab.control, "POST", &accept, SDP, &browser.offer("actpass"));
    assert_eq!((taken.status, taken.header("content-type")), (200, SDP), "{}", taken.text());
    assert_eq!(first.hears("taken").1["call"], ringing["call"]);
    let late = first.ask(&lab.control, "POST", &accept, SDP, &lab.browser(2).offer("actpass"));
    assert_eq!(late.status, 409);
    phone.acknowledges(&phone.hears(200));
    browser.connect(&taken.text());
    assert_eq!(second.hears("connected").1["call"], ringing["call"]);
    // It is the second browser's now, and nobody else's.
    for other in [&first, &elsewhere] {
        assert_eq!(other.ask(&lab.control, "DELETE", &call, SDP, "").status, 404);
    }
    assert_eq!(lab.control.send("GET", &call, &[], b"").status, 404);
    assert_eq!(second.ask(&lab.control, "GET", &call, SDP, "").json()["state"], "connected");
    let digits = second.ask(&lab.control, "POST", &format!("{call}/dtmf"), JSON, "{\"digits\":\"12x\"}");
    assert_eq!(digits.status, 400);
    assert_eq!(second.ask(&lab.control, "DELETE", &call, SDP, "").status, 204);
    phone.is_hung_up();
    assert_eq!(second.hears("ended").1["cause"], "hang_up");
    lab.control.wait_until_idle();
}

#[test]
fn a_call_that_all_decline_is_busy_and_one_that_nobody_is_there_for_unavailable() {
    let lab = lab(&[]);
    let both = [Session::agent(&lab.control, "1001"), Session::agent(&lab.control, "1001")];
    let phone = Phone::calls(&lab.control, &lab.pbx, "1001");
    for (session, body) in both.iter().zip(["", "{\"status\":486}"]) {
        let (_, ringing) = session.hears("incoming");
        let path = format!("/v1/calls/{}/decline", ringing["call"].as_str().unwrap());
        assert_eq!(session.ask(&lab.control, "POST", &path, JSON, "{\"status\":200}").status, 400);
        assert_eq!(session.ask(&lab.control, "POST", &path, JSON, body).status, 204);
        assert_eq!(session.ask(&lab.control, "POST", &path, JSON, body).status, 404, "not twice");
    }
    phone.acknowledges(&phone.hears(486));
    let phone = Phone::calls(&lab.control, &lab.pbx, "1002");
    phone.acknowledges(&phone.hears(480));
    lab.control.wait_until_idle();
}

#[test]
fn tokens_say_who_one_is_and_whom_one_may_call() {
    let keys = format!("hs256 = ['{SECRET}']");
    let lab = lab(&[("identity", &keys), ("http", "anonymous = ['9000']")]);
    let status = |answer: &super::harness::Answer| (answer.status, answer.problem()["type"].clone());
    let of = |claims: &Value, body: &str| sign_in(&lab.control, body, &[("Authorization", &token(claims))]);
    let agent = json!({ "sub": "1001", "exp": soon() });
    assert_eq!(of(&agent, "{}").json()["number"], "1001");
    assert_eq!(status(&of(&agent, "{\"number\":\"1002\"}")), (403, "urn:sallyport:other_number".into()));
    let past = json!({ "sub": "1001", "exp": soon() - 600 });
    assert_eq!(status(&of(&past, "{}")), (401, "urn:sallyport:token".into()));
    assert_eq!(
        status(&sign_in(&lab.control, "{\"number\":\"1\"}", &[])),
        (401, "urn:sallyport:token".into())
    );
    assert_eq!(sign_in(&lab.control, "{\"nubmer\":\"1\"}", &[]).status, 400);
    let customer = json!({ "exp": soon(), "sallyport": { "to": ["1000"] } });
    let answer = of(&customer, "{}");
    assert!(answer.json()["number"].is_null());
    let customer = Session::of(&lab.control, &answer);
    let nobody = Session::of(&lab.control, &sign_in(&lab.control, "{}", &[]));
    let browser = Browser::new(&lab.relay, lab.control.net.browser(1));
    let place = |session: &Session, to: &str| {
        let path = format!("/v1/calls?to={to}");
        session.ask(&lab.control, "POST", &path, SDP, &browser.offer("actpass"))
    };
    assert_eq!(status(&place(&customer, "9000")), (403, "urn:sallyport:destination".into()));
    assert_eq!(status(&place(&nobody, "1000")), (403, "urn:sallyport:destination".into()));
    let call = place(&customer, "1000");
    assert_eq!(call.status, 201, "{}", call.text());
    let path = call.header("location").to_owned();
    let transfer = format!("{path}/transfer");
    let away = customer.ask(&lab.control, "POST", &transfer, JSON, "{\"to\":\"9000\"}");
    assert_eq!(status(&away), (403, "urn:sallyport:destination".into()), "a transfer is a call, too");
    assert_eq!(nobody.ask(&lab.control, "DELETE", &path, SDP, "").status, 404);
    // A call without a session is judged by its own token.
    let authorization = token(&json!({ "exp": soon(), "sallyport": { "to": ["1000"] } }));
    let direct = |to: &str| {
        let headers = [("Content-Type", SDP), ("Authorization", authorization.as_str())];
        lab.control.send("POST", &format!("/v1/calls?to={to}"), &headers, browser.offer("actpass").as_bytes())
    };
    assert_eq!((direct("1000").status, direct("1001").status), (201, 403));
    // Whoever signs out takes the calls along.
    customer.ask(&lab.control, "DELETE", &format!("/v1/sessions/{}", customer.id), JSON, "");
    until("its call is over", || lab.control.ask("GET", &path).status == 404);
}

#[test]
fn who_tries_too_often_waits() {
    let lab = lab(&[("agents", "sign_ins_per_minute = 5")]);
    let wrong = [("Authorization", "Bearer no token of ours")];
    let outcomes: Vec<u16> =
        (0..4).map(|_| sign_in(&lab.control, "{\"number\":\"1\"}", &wrong).status).collect();
    assert_eq!(outcomes, [401, 429, 429, 429], "failed ones count fivefold");
    let late = sign_in(&lab.control, "{\"number\":\"1\"}", &wrong);
    assert!((1..=61).contains(&late.header("retry-after").parse::<u32>().unwrap()));
    assert_eq!(late.problem()["type"], "urn:sallyport:too_many_sign_ins");
    assert!(lab.metric("sallyport_sign_ins_total{outcome=\"limited\"} 4"));
    assert!(lab.metric("sallyport_sign_ins_total{outcome=\"denied\"} 1"));
}

#[test]
fn a_session_waits_for_its_browser_and_not_for_ever() {
    let lab = lab(&[("agents", "grace_s = 5")]);
    let session = Session::agent(&lab.control, "1001");
    let (first, _) = session.hears("registration");
    session.leaves();
    let phone = Phone::calls(&lab.control, &lab.pbx, "1001");
    phone.hears(180);
    // What happened meanwhile is told to who comes back, and nothing twice.
    let back = Session::read(&lab.control, &session.id, Some(first));
    let (number, ringing) = back.hears("incoming");
    assert_eq!((number, &ringing["to"]), (first + 1, &"1001".into()));
    back.leaves();
    phone.acknowledges(&phone.hears(480));
    until("nobody is signed in", || lab.control.status()["sessions"] == 0);
    until("it is taken back", || lab.registers().last().is_some_and(|last| line(last, "Expires") == "0"));
    lab.is_clean();
}

#[test]
fn whoever_ends_takes_its_numbers_back() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut lab = lab(&[]);
        let session = Session::agent(&lab.control, "1001");
        session.hears("registration");
        lab.control.signal(signal);
        assert_eq!(session.hears("signed_out").1["reason"], "ending");
        assert_eq!(lab.control.ended(Duration::from_secs(8)), Some(0));
        assert_eq!(line(lab.registers().last().unwrap(), "Expires"), "0", "{signal}");
    }
}

#[test]
fn a_browser_hears_of_addresses_on_its_own_side_only() {
    // Where REST is reached at an address inside, the browser is inside.
    for inside in [false, true] {
        let net = Net::new();
        let ours = format!("addresses = ['{}']", net.http().ip());
        let sections: &[(&str, &str)] = if inside { &[("inside", &ours)] } else { &[] };
        let (mut expected, mut other) = (net.media().ip(), net.inside());
        if inside {
            std::mem::swap(&mut expected, &mut other);
        }
        let lab = lab_in(net, sections);
        let browser = Browser::new(&lab.relay, lab.control.net.browser(1));
        let answer = lab.control.call("1000", &browser.offer("actpass"));
        assert_eq!(answer.status, 201);
        let candidate = value(&answer.text(), "a=candidate:").to_owned();
        assert!(candidate.contains(&format!("{expected} 10000")), "{candidate}");
        assert!(!answer.text().contains(&other.to_string()), "{}", answer.text());
    }
}
