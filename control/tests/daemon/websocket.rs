//! SIP over WebSocket (RFC 7118): who is let in, and what is heard there.

use std::net::TcpStream;
use std::time::Duration;

use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::WebSocket;
use tungstenite::{Error, Message};

use super::harness::{Control, Net, SOON, until};
use super::pbx::line;

/// A browser's connection.
pub struct Browser(WebSocket<TcpStream>);

/// Opens a connection with headers beside `Sec-WebSocket-Protocol`; the status where it is refused.
fn connect(control: &Control, headers: &[(&'static str, &'static str)]) -> Result<Browser, u16> {
    connect_at(control, "/sip", headers)
}

fn connect_at(
    control: &Control,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<Browser, u16> {
    let mut request = format!("ws://{}{path}", control.net.http()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let stream = TcpStream::connect(control.net.http()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, answer)) => {
            assert_eq!(answer.headers()["sec-websocket-protocol"], "sip");
            Ok(Browser(socket))
        }
        Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

impl Browser {
    pub fn open(control: &Control) -> Self {
        connect(control, &[("Sec-WebSocket-Protocol", "sip")]).expect("let in")
    }

    /// At a path with what the browser shows.
    pub fn open_at(control: &Control, path: &str) -> Self {
        connect_at(control, path, &[("Sec-WebSocket-Protocol", "sip")]).expect("let in")
    }

    pub fn send(&mut self, text: &str) {
        self.0.send(Message::Text(text.into())).unwrap();
    }

    /// Text where it is text.
    pub fn send_octets(&mut self, octets: &[u8]) {
        match std::str::from_utf8(octets) {
            Ok(text) => self.send(text),
            Err(_) => self.0.send(Message::Binary(octets.to_vec().into())).unwrap(),
        }
    }

    pub fn hear(&mut self) -> Option<String> {
        loop {
            match self.0.read().ok()? {
                Message::Text(text) => return Some(text.to_string()),
                Message::Binary(octets) => return Some(String::from_utf8(octets.to_vec()).unwrap()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}

/// As a browser's library writes it: no address that means anything, no length.
fn request(method: &str, branch: &str, more: &str) -> String {
    format!(
        "{method} sip:example.com SIP/2.0\r\nVia: SIP/2.0/WS df7jal23ls0d.invalid;branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.com>;tag=a1\r\nTo: <sip:alice@example.com>\r\nCall-ID: {branch}@browser\r\nCSeq: 1 {method}\r\n\
         Contact: <sip:alice@df7jal23ls0d.invalid;transport=ws>\r\n{more}\r\n"
    )
}

#[test]
fn only_the_sub_protocol_sip_from_pages_of_ours_is_let_in() {
    let control = Control::start(Net::new(), &[("http", "origins = ['https://shop.example']")]);
    const SIP: (&str, &str) = ("Sec-WebSocket-Protocol", "sip");
    assert_eq!(connect(&control, &[]).err(), Some(400));
    assert_eq!(connect(&control, &[("Sec-WebSocket-Protocol", "chat, xmpp")]).err(), Some(400));
    assert_eq!(connect(&control, &[SIP, ("Origin", "https://evil.example")]).err(), Some(403));
    assert!(connect(&control, &[SIP, ("Origin", "https://shop.example")]).is_ok());
    assert!(connect(&control, &[("Sec-WebSocket-Protocol", "chat, sip")]).is_ok());
    let plain = control.send("GET", "/sip", &[], b"");
    assert_eq!(plain.status, 426);
    assert_eq!(plain.header("upgrade"), "websocket");
    plain.problem();
}

#[test]
fn each_message_is_judged_and_answered_on_its_connection() {
    let control = Control::start(Net::new(), &[]);
    let mut browser = Browser::open(&control);
    let cases: &[(&str, &str, &str)] = &[
        ("REGISTER", "Expires: 600\r\n", "401"),
        ("INVITE", "", "488"),
        ("CANCEL", "", "481"),
        ("PUBLISH", "", "405"),
        ("OPTIONS", "Content-Length: zero\r\n", "400"),
        ("OPTIONS", "Content-Length: 7\r\n", "400"),
        ("OPTIONS", "Require: wings\r\n", "420"),
    ];
    for (number, (method, more, status)) in cases.iter().enumerate() {
        browser.send(&request(method, &format!("b{number}"), more));
        let answer = browser.hear().expect("an answer");
        assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{method} {more}{answer}");
        assert!(line(&answer, "Via").starts_with("SIP/2.0/WS df7jal23ls0d.invalid;"), "{answer}");
        assert_eq!(line(&answer, "Call-ID"), format!("b{number}@browser"));
        if *method == "INVITE" {
            let to = format!("To: {}\r\n", line(&answer, "To"));
            let ack = request("ACK", "b1", "").replace("To: <sip:alice@example.com>\r\n", &to);
            browser.send(&ack);
        }
    }
    browser.send("\r\n\r\n");
    assert_eq!(browser.hear().as_deref(), Some("\r\n"), "a ping is answered");
    browser.send("this is not SIP\r\n\r\n");
    browser.0.send(Message::Binary(request("REGISTER", "binary", "").into_bytes().into())).unwrap();
    assert!(
        browser.hear().unwrap().starts_with("SIP/2.0 401 "),
        "garbage is dropped, the next message heard"
    );
    browser.0.send(Message::Ping("are you there".into())).unwrap();
    loop {
        if let Message::Pong(octets) = browser.0.read().unwrap() {
            assert_eq!(&octets[..], b"are you there");
            break;
        }
    }
}

#[test]
fn what_is_too_long_ends_the_connection_and_no_other() {
    let control = Control::start(Net::new(), &[]);
    let (mut good, mut bad) = (Browser::open(&control), Browser::open(&control));
    let _ = bad.0.send(Message::Text("x".repeat(70_000).into()));
    assert_eq!(bad.hear(), None);
    good.send(&request("REGISTER", "r", ""));
    assert!(good.hear().unwrap().starts_with("SIP/2.0 401 "));
}

#[test]
fn connections_cost_nothing_once_they_are_gone() {
    let control = Control::start(Net::new(), &[]);
    Browser::open(&control).send(&request("REGISTER", "warm", ""));
    std::thread::sleep(Duration::from_millis(200));
    let before = control.descriptors();
    for round in 0..300 {
        let mut browser = Browser::open(&control);
        browser.send(&request("REGISTER", &format!("r{round}"), ""));
        assert!(browser.hear().unwrap().starts_with("SIP/2.0 401 "));
    }
    until("descriptors and places are given back", || control.descriptors() <= before);
    assert!(connect(&control, &[("Sec-WebSocket-Protocol", "sip")]).is_ok());
}
