//! The JSON WebSocket: each message, what is no message, connections that drop and come back.

use std::collections::VecDeque;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::WebSocket;
use tungstenite::{Error, Message};

use super::browser::Browser;
use super::harness::{Control, Net, SOON, TOKEN, until};
use super::pbx::Pbx;
use super::relay::Relay;

const PROTOCOL: (&str, &str) = ("Sec-WebSocket-Protocol", "sallyport.v1");

/// A page's connection.
pub struct Page {
    socket: WebSocket<TcpStream>,
    /// Number of the last message.
    pub seq: u64,
    /// News that came while something else was awaited: what a request sets off may be told before it is answered.
    passed: VecDeque<Value>,
}

fn connect(control: &Control, headers: &[(&'static str, &'static str)]) -> Result<Page, u16> {
    let mut request = format!("ws://{}/v1/socket", control.net.http()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let stream = TcpStream::connect(control.net.http()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, answer)) => {
            assert_eq!(answer.headers()["sec-websocket-protocol"], "sallyport.v1");
            Ok(Page { socket, seq: 0, passed: VecDeque::new() })
        }
        Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

impl Page {
    pub fn open(control: &Control) -> Self {
        connect(control, &[PROTOCOL]).expect("let in")
    }

    pub fn say(&mut self, word: &Value) {
        self.socket.send(Message::Text(word.to_string().into())).unwrap();
    }

    /// The next message; `None` when the connection is at its end.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            match self.socket.read().ok()? {
                Message::Text(text) => {
                    let word: Value = serde_json::from_str(&text).unwrap();
                    if let Some(seq) = word["seq"].as_u64() {
                        assert_eq!(seq, self.seq + 1, "none is lost, none comes twice: {word}");
                        self.seq = seq;
                    }
                    return Some(word);
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The next message of a type; news of other types wait for whoever asks for them.
    pub fn hear(&mut self, kind: &str) -> Value {
        if let Some(at) = self.passed.iter().position(|word| word["type"] == kind)
            && let Some(word) = self.passed.remove(at)
        {
            return word;
        }
        loop {
            let word = self.next().unwrap_or_else(|| panic!("no {kind}"));
            if word["type"] == kind {
                return word;
            }
            let news = ["event", "registration"].contains(&word["type"].as_str().unwrap_or_default());
            assert!(news || kind == "error", "{kind} is awaited: {word}");
            self.passed.push_back(word);
        }
    }

    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let word = self.hear("event");
            if word["event"] == name {
                return word;
            }
        }
    }

    pub fn ask(&mut self, word: &Value) -> Value {
        self.say(word);
        loop {
            let answer = self.next().unwrap_or_else(|| panic!("no answer to {word}"));
            if answer["ref"] == word["ref"] {
                return answer;
            }
            self.passed.push_back(answer);
        }
    }

    /// Signs in; the session.
    pub fn sign_in(&mut self, more: Value) -> String {
        let mut word = json!({ "type": "sign_in", "ref": "in" });
        word.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.ask(&word);
        assert_eq!(answer["type"], "signed_in", "{answer}");
        answer["session"].as_str().unwrap().to_owned()
    }
}

pub struct Lab {
    pub control: Control,
    pub relay: Relay,
    pub pbx: Pbx,
}

pub fn lab(http: &str) -> Lab {
    lab_with(&[("http", http)])
}

pub fn lab_with(sections: &[(&str, &str)]) -> Lab {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, sections);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    Lab { control, relay, pbx }
}

impl Lab {
    pub fn browser(&self, number: u16) -> Browser {
        Browser::new(&self.relay, self.control.net.browser(number))
    }

    /// The server calls a number; where it hears the answers.
    pub fn invite(&self, number: &str, name: &str) -> UdpSocket {
        let (pbx, sip) = (self.control.net.pbx(), self.control.net.sip());
        let head = format!(
            "INVITE sip:{number}@{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {pbx};branch=z9hG4bK{name};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:7000@{pbx}>;tag={name}\r\nTo: <sip:{number}@{sip}>\r\nCall-ID: {name}@pbx\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:7000@{pbx}>\r\nContent-Length: 0\r\n\r\n"
        );
        let invite = self.pbx.with_sdp(&head, &self.pbx.sdp());
        let socket = UdpSocket::bind((pbx.ip(), 0)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.send_to(invite.as_bytes(), sip).unwrap();
        socket
    }

    pub fn is_clean(&self) {
        self.control.wait_until_idle();
        self.relay.wait_until_empty();
        until("no dialog is left", || self.pbx.state().talking.is_empty());
    }
}

/// What a caller hears in the end.
pub fn final_answer(caller: &UdpSocket) -> String {
    let mut room = vec![0; 4096];
    loop {
        let length = caller.recv(&mut room).unwrap();
        let text = String::from_utf8(room[..length].to_vec()).unwrap();
        if !text.starts_with("SIP/2.0 1") {
            return text;
        }
    }
}

#[test]
fn only_the_sub_protocol_from_pages_of_ours_is_let_in() {
    let control = Control::start(Net::new(), &[("http", "origins = ['https://shop.example']")]);
    assert_eq!(connect(&control, &[]).err(), Some(400));
    assert_eq!(connect(&control, &[("Sec-WebSocket-Protocol", "sip")]).err(), Some(400));
    assert_eq!(connect(&control, &[PROTOCOL, ("Origin", "https://evil.example")]).err(), Some(403));
    assert!(connect(&control, &[PROTOCOL, ("Origin", "https://shop.example")]).is_ok());
    assert_eq!(control.send("GET", "/v1/socket", &[], b"").status, 426);
}

#[test]
fn a_customer_calls_and_every_message_has_its_answer() {
    let lab = lab("anonymous = ['1000']");
    let mut page = Page::open(&lab.control);
    let early = page.ask(&json!({ "type": "stats", "ref": 0, "call": "1" }));
    assert_eq!(early["code"], "not_signed_in");
    page.sign_in(json!({}));
    let mut browser = lab.browser(1);
    let offer = browser.offer("actpass");
    page.ask(&json!({ "type": "call", "ref": 1, "to": "2000", "sdp": offer }));
    assert_eq!(page.hear("error")["code"], "destination");
    let calling = page.ask(&json!({ "type": "call", "ref": 2, "to": "1000", "sdp": offer }));
    assert_eq!(calling["type"], "calling", "{calling}");
    let call = calling["call"].clone();
    let answer = page.hear("answer");
    assert_eq!((&answer["ref"], &answer["call"]), (&2.into(), &call));
    page.say(&json!({ "type": "candidate", "call": call, "fragment": browser.fragment() }));
    browser.connect(answer["sdp"].as_str().unwrap());
    assert_eq!(page.event("connected")["call"], call);
    let stats = page.ask(&json!({ "type": "stats", "ref": "s", "call": call }));
    assert_eq!(stats["stats"]["state"], "connected", "{stats}");
    assert_eq!(page.ask(&json!({ "type": "ping", "ref": 3 }))["type"], "pong");
    for (number, (word, code)) in [
        (json!({ "type": "dtmf", "call": call, "digits": "12x" }), "digits"),
        (json!({ "type": "info", "call": call, "content_type": "a", "body": "" }), "info"),
        (json!({ "type": "transfer", "call": call }), "transfer"),
        (json!({ "type": "transfer", "call": call, "to": "a b" }), "destination"),
        (json!({ "type": "candidate", "call": call, "fragment": "nonsense" }), "fragment"),
        (json!({ "type": "hangup", "call": "ffff" }), "unknown_call"),
        (json!({ "type": "hangup", "call": "no name" }), "unknown_call"),
        (json!({ "type": "offer", "call": call, "sdp": "nonsense" }), "offer"),
        (json!({ "type": "call", "to": "1000", "sdp": "nonsense" }), "offer"),
        (json!({ "type": "call", "to": "1000", "sdp": offer, "data": { "Via": "x" } }), "data"),
        (json!({ "type": "sign_in" }), "signed_in"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut word = word;
        word["ref"] = format!("bad {number}").into();
        let mut answer = page.ask(&word);
        if answer["type"] == "calling" {
            answer = page.hear("error");
        }
        assert_eq!((&answer["type"], &answer["code"]), (&"error".into(), &code.into()), "{word}: {answer}");
    }
    let other = Page::open(&lab.control);
    let mut other = other;
    other.sign_in(json!({}));
    let foreign = other.ask(&json!({ "type": "hangup", "ref": 1, "call": call }));
    assert_eq!(foreign["code"], "unknown_call", "a call is its session's");
    assert_eq!(page.ask(&json!({ "type": "hangup", "ref": 9, "call": call }))["type"], "ok");
    assert_eq!(page.event("ended")["cause"], "hang_up");
    lab.is_clean();
}

#[test]
fn an_agent_is_rung_takes_a_call_or_does_not() {
    let lab = lab("");
    let (mut page, mut second) = (Page::open(&lab.control), Page::open(&lab.control));
    let stranger = page.ask(&json!({ "type": "sign_in", "ref": 1, "number": "2000" }));
    assert_eq!(stranger["code"], "token", "{stranger}");
    page.sign_in(json!({ "number": "2000", "token": TOKEN }));
    second.sign_in(json!({ "number": "2000", "token": TOKEN }));
    lab.invite("2000", "first");
    let incoming = page.hear("incoming");
    assert_eq!((&incoming["from"], &incoming["to"]), (&"7000".into(), &"2000".into()));
    assert_eq!(second.hear("incoming")["call"], incoming["call"]);
    let mut browser = lab.browser(1);
    let answer = page.ask(
        &json!({ "type": "accept", "ref": 2, "call": incoming["call"], "sdp": browser.offer("actpass") }),
    );
    assert_eq!(answer["type"], "answer", "{answer}");
    assert_eq!(second.hear("taken")["call"], incoming["call"]);
    browser.connect(answer["sdp"].as_str().unwrap());
    page.say(&json!({ "type": "hangup", "call": incoming["call"] }));
    page.event("ended");
    let caller = lab.invite("2000", "second");
    for page in [&mut page, &mut second] {
        let incoming = page.hear("incoming");
        let answer =
            page.ask(&json!({ "type": "decline", "ref": 3, "call": incoming["call"], "status": 603 }));
        assert_eq!(answer["type"], "ok", "{answer}");
    }
    assert!(final_answer(&caller).starts_with("SIP/2.0 603 "));
}

#[test]
fn a_connection_that_drops_comes_back_and_nothing_is_lost_or_done_twice() {
    let lab = lab("anonymous = ['*']");
    let mut page = Page::open(&lab.control);
    let session = page.sign_in(json!({}));
    let mut browser = lab.browser(1);
    let word = json!({ "type": "call", "ref": "c", "to": "late", "sdp": browser.offer("actpass") });
    let calling = page.ask(&word);
    let seq = page.seq;
    drop(page);
    until("the called side has answered", || lab.pbx.state().acknowledged.len() == 1);
    let mut page = Page::open(&lab.control);
    page.seq = seq;
    let back = page.ask(&json!({ "type": "sign_in", "ref": "b", "session": session, "seq": seq }));
    assert_eq!((&back["session"], &back["resumed"]), (&session.clone().into(), &true.into()), "{back}");
    // A page cannot know whether its last request was heard.
    page.say(&word);
    let answer = page.hear("answer");
    assert_eq!(answer["call"], calling["call"]);
    browser.connect(answer["sdp"].as_str().unwrap());
    page.event("connected");
    assert_eq!(lab.pbx.heard("INVITE").len(), 1, "it does not call twice");
    let mut third = Page::open(&lab.control);
    third.seq = page.seq;
    third.ask(&json!({ "type": "sign_in", "ref": "b", "session": session, "seq": page.seq }));
    assert_eq!(page.next(), None, "one connection at a time");
    third.say(&json!({ "type": "sign_out" }));
    lab.is_clean();
    let mut late = Page::open(&lab.control);
    for (session, seq) in [(session.as_str(), 0), ("nonsense", 0)] {
        let answer = late.ask(&json!({ "type": "sign_in", "ref": "x", "session": session, "seq": seq }));
        assert_eq!(answer["code"], "unknown_session");
    }
    let metrics = lab.control.send("GET", "/metrics", &[], b"").text();
    assert!(metrics.contains("sallyport_browser_messages_total{outcome=\"resumed\"} 2"), "{metrics}");
}

#[test]
fn who_stays_away_is_signed_out_and_its_calls_end() {
    let lab = lab_with(&[("http", "anonymous = ['*']"), ("agents", "grace_s = 1")]);
    let mut page = Page::open(&lab.control);
    page.sign_in(json!({}));
    let mut browser = lab.browser(1);
    page.say(&json!({ "type": "call", "ref": 1, "to": "1000", "sdp": browser.offer("actpass") }));
    page.hear("calling");
    let answer = page.hear("answer");
    browser.connect(answer["sdp"].as_str().unwrap());
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(page.ask(&json!({ "type": "ping", "ref": 2 }))["type"], "pong", "who is there stays");
    drop(page);
    lab.is_clean();
    let metrics = lab.control.send("GET", "/metrics", &[], b"").text();
    assert!(metrics.contains("sallyport_browser_messages_total{outcome=\"lost\"} 1"), "{metrics}");
}

#[test]
fn what_is_no_message_is_counted_and_ends_the_connection_in_the_end() {
    let control = Control::start(Net::new(), &[]);
    let mut page = Page::open(&control);
    for text in ["", "{", "[]", "{\"type\":\"dance\"}", "{\"type\":\"call\"}"] {
        page.socket.send(Message::Text(text.into())).unwrap();
        assert_eq!(page.hear("error")["code"], "message", "{text}");
    }
    page.socket.send(Message::Binary(vec![0, 1, 2].into())).unwrap();
    assert_eq!(page.hear("error")["code"], "message");
    assert_eq!(page.ask(&json!({ "type": "ping", "ref": 1 }))["type"], "pong");
    let metrics = control.send("GET", "/metrics", &[], b"").text();
    assert!(metrics.contains("sallyport_browser_messages_total{outcome=\"bad\"} 6"), "{metrics}");
    for _ in 0..20 {
        let _ = page.socket.send(Message::Text("{".into()));
    }
    while page.next().is_some() {}
    let mut long = Page::open(&control);
    let _ = long.socket.send(Message::Text("x".repeat(70_000).into()));
    assert_eq!(long.next(), None);
    let mut silent = Page::open(&control);
    silent.socket.get_mut().set_read_timeout(Some(Duration::from_secs(14))).unwrap();
    assert_eq!(silent.next(), None, "who does not sign in has no place for long");
}
