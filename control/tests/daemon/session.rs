//! A browser that is signed in over HTTP and reads its events; a telephone inside that calls it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

use super::harness::{Answer, Control, SOON};
use super::pbx::{Pbx, line};

/// One event: its number, name and data.
pub type News = (u64, String, Value);

/// The browser.
pub struct Session {
    pub id: String,
    events: Receiver<News>,
    stream: TcpStream,
}

/// Signs in with this body and these headers.
pub fn sign_in(control: &Control, body: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend_from_slice(headers);
    control.send("POST", "/v1/sessions", &all, body.as_bytes())
}

impl Session {
    /// Signs in with a token of the whole API.
    pub fn agent(control: &Control, number: &str) -> Self {
        let body = format!("{{\"number\":\"{number}\"}}");
        let token = format!("Bearer {}", super::harness::TOKEN);
        Self::of(control, &sign_in(control, &body, &[("Authorization", &token)]))
    }

    /// From the answer to a sign-in.
    pub fn of(control: &Control, answer: &Answer) -> Self {
        assert_eq!(answer.status, 201, "{}", answer.text());
        let session = answer.json();
        let id = session["id"].as_str().unwrap().to_owned();
        assert_eq!(answer.header("location"), format!("/v1/sessions/{id}"));
        Self::read(control, &id, None)
    }

    /// Reads the events of a session behind one.
    pub fn read(control: &Control, id: &str, last: Option<u64>) -> Self {
        let mut stream = TcpStream::connect(control.net.http()).unwrap();
        let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        let head =
            format!("GET /v1/sessions/{id}/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let (told, events) = channel();
        let reader = BufReader::new(stream.try_clone().unwrap());
        std::thread::spawn(move || {
            let (mut number, mut name) = (0, String::new());
            for line in reader.lines().map_while(Result::ok) {
                if let Some(text) = line.strip_prefix("id: ") {
                    number = text.parse().unwrap();
                } else if let Some(text) = line.strip_prefix("event: ") {
                    text.clone_into(&mut name);
                } else if let Some(text) = line.strip_prefix("data: ") {
                    let data = serde_json::from_str(text).unwrap();
                    if told.send((number, name.clone(), data)).is_err() {
                        return;
                    }
                }
            }
        });
        Self { id: id.to_owned(), events, stream }
    }

    /// The next event of this name, all others passed over.
    pub fn hears(&self, name: &str) -> (u64, Value) {
        loop {
            match self.events.recv_timeout(SOON) {
                Ok((number, found, data)) if found == name => return (number, data),
                Ok(_) => {}
                Err(error) => panic!("no event {name}: {error}"),
            }
        }
    }

    /// Nothing more comes, for the stream ends.
    pub fn is_over(&self) {
        while let Ok((_, name, _)) = self.events.recv_timeout(SOON) {
            assert!(["signed_out", "registration", "ended", "taken"].contains(&name.as_str()), "{name}");
        }
        assert_eq!(self.events.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
    }

    /// Goes away without a word.
    pub fn leaves(&self) {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// A request of this browser.
    pub fn ask(&self, control: &Control, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        let headers = [("Sallyport-Session", self.id.as_str()), ("Content-Type", kind)];
        control.send(method, path, &headers, body.as_bytes())
    }
}

/// A telephone inside.
pub struct Phone {
    socket: UdpSocket,
    to: SocketAddr,
    pub invite: String,
}

impl Phone {
    /// Calls a number.
    pub fn calls(control: &Control, pbx: &Pbx, number: &str) -> Self {
        let socket = UdpSocket::bind((control.net.pbx().ip(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (local, to) = (socket.local_addr().unwrap(), control.net.sip());
        let invite = format!(
            "INVITE sip:{number}@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{number}{};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:7000@pbx>;tag=phone\r\nTo: <sip:{number}@{to}>\r\n\
             Call-ID: {}-{number}@phone\r\nCSeq: 1 INVITE\r\nContact: <sip:7000@{local}>\r\nContent-Length: 0\r\n\r\n",
            local.port(),
            local.port(),
        );
        let invite = pbx.with_sdp(&invite, &pbx.sdp());
        socket.send_to(invite.as_bytes(), to).unwrap();
        Self { socket, to, invite }
    }

    /// The next answer to the INVITE with a final status, or with this one.
    pub fn hears(&self, status: u16) -> String {
        let mut room = vec![0; 8192];
        loop {
            let length = self.socket.recv(&mut room).unwrap();
            let text = std::str::from_utf8(&room[..length]).unwrap();
            let Some(rest) = text.strip_prefix("SIP/2.0 ") else { continue };
            let found: u16 = rest[..3].parse().unwrap();
            if found == status || (found >= 200 && line(text, "CSeq").ends_with("INVITE")) {
                assert_eq!(found, status, "{text}");
                return text.to_owned();
            }
        }
    }

    /// Acknowledges an answer; one to a 2xx is a transaction of its own.
    pub fn acknowledges(&self, answer: &str) {
        let tag = line(answer, "To").split("tag=").nth(1).unwrap();
        let ack = self.invite.replace("INVITE", "ACK");
        let ack = ack.replacen(">\r\nCall-ID", &format!(">;tag={tag}\r\nCall-ID"), 1);
        let own = if answer.starts_with("SIP/2.0 2") { "branch=z9hG4bKack" } else { "branch=z9hG4bK" };
        let (head, _) = ack.split_once("Content-Type").unwrap();
        let text = format!("{}Content-Length: 0\r\n\r\n", head.replace("branch=z9hG4bK", own));
        self.socket.send_to(text.as_bytes(), self.to).unwrap();
    }

    /// Takes the BYE that comes.
    pub fn is_hung_up(&self) {
        let mut room = vec![0; 8192];
        loop {
            let length = self.socket.recv(&mut room).unwrap();
            let text = std::str::from_utf8(&room[..length]).unwrap();
            if text.starts_with("BYE ") {
                let reply = super::pbx::answer(text, "200 OK", "", &[]);
                self.socket.send_to(reply.as_bytes(), self.to).unwrap();
                return;
            }
        }
    }
}
