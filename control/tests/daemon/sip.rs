//! What strangers get by SIP, over UDP and TCP alike.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use super::harness::{Control, Net, Pairs};
use super::pbx::line;

/// One way to the daemon.
enum Way {
    Datagram(UdpSocket),
    Stream(TcpStream),
}

impl Way {
    fn datagram(control: &Control) -> Self {
        let socket = UdpSocket::bind((control.net.pbx().ip(), 0)).unwrap();
        socket.connect(control.net.sip()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        Self::Datagram(socket)
    }

    fn stream(control: &Control) -> Self {
        // From the server's address: strangers' calls are refused.
        let stream = stream_from(control.net.pbx().ip(), control.net.sip());
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        Self::Stream(stream)
    }

    fn send(&mut self, octets: &[u8]) {
        match self {
            Self::Datagram(socket) => assert_eq!(socket.send(octets).unwrap(), octets.len()),
            Self::Stream(stream) => stream.write_all(octets).unwrap(),
        }
    }

    fn hear(&mut self) -> Option<String> {
        let mut room = vec![0; 8192];
        let length = match self {
            Self::Datagram(socket) => socket.recv(&mut room).ok()?,
            Self::Stream(stream) => stream.read(&mut room).ok().filter(|length| *length > 0)?,
        };
        Some(String::from_utf8(room[..length].to_vec()).unwrap())
    }

    /// Hears nothing for a while.
    fn is_silent(&mut self) -> bool {
        let brief = Some(Duration::from_millis(300));
        match self {
            Self::Datagram(socket) => socket.set_read_timeout(brief).unwrap(),
            Self::Stream(stream) => stream.set_read_timeout(brief).unwrap(),
        }
        self.hear().is_none()
    }
}

/// A connection from an address of one's choice.
pub fn stream_from(from: IpAddr, to: SocketAddr) -> TcpStream {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (SocketAddr::new(from, 0), to) else { unreachable!() };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(from)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    TcpStream::from(socket)
}

fn request(method: &str, branch: &str, changes: &[(&str, &str)]) -> String {
    let mut text = format!(
        "{method} sip:sallyport@example.com SIP/2.0\r\nVia: SIP/2.0/UDP far.example:5062;rport;branch=z9hG4bK{branch}\r\n\
         Via: SIP/2.0/UDP farther.example;branch=z9hG4bKfar\r\nMax-Forwards: 70\r\nFrom: \"A;tag=no\" <sip:a@far.example>;tag=a1\r\n\
         To: <sip:sallyport@example.com>\r\nCall-ID: {branch}@far\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    );
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    text
}

#[test]
fn strangers_get_their_answers_by_either_way() {
    let control = Control::start(Net::new(), &[]);
    let cases: &[(&str, Pairs, &str)] = &[
        ("OPTIONS", &[], "200"),
        ("INVITE", &[], "4"),
        ("BYE", &[], "481"),
        ("BYE", &[("example.com>\r\nCall", "example.com>;tag=x\r\nCall")], "481"),
        ("INFO", &[("example.com>\r\nCall", "example.com>;tag=x\r\nCall")], "481"),
        ("CANCEL", &[], "481"),
        ("UPDATE", &[], "481"),
        ("REGISTER", &[], "405"),
        ("DANCE", &[], "405"),
        ("OPTIONS", &[("SIP/2.0\r\nVia", "SIP/3.0\r\nVia")], "505"),
        ("OPTIONS", &[("Content-Length: 0", "Content-Length: zero")], "400"),
        ("OPTIONS", &[("Content-Length: 0", "Content-Length: 0\r\nl: 0")], "400"),
        ("OPTIONS", &[("Max-Forwards: 70", "no colon here")], "400"),
        ("OPTIONS", &[("1 OPTIONS", "1 INVITE")], "400"),
        ("OPTIONS", &[("Max-Forwards: 70", "Require: wings")], "420"),
        ("OPTIONS", &[("sip:sallyport", "mailto:sallyport")], "416"),
        ("OPTIONS", &[("sip:sallyport@example.com", "sip:@@")], "400"),
    ];
    for open in [Way::datagram, Way::stream] {
        for (number, (method, changes, status)) in cases.iter().enumerate() {
            let mut way = open(&control);
            let asked = request(method, &format!("b{number}"), changes);
            way.send(asked.as_bytes());
            let answer = way.hear().unwrap_or_else(|| panic!("no answer to {asked}"));
            assert!(answer.starts_with(&format!("SIP/2.0 {status}")), "{asked}\n{answer}");
            let vias: Vec<&str> = answer.lines().filter(|line| line.starts_with("Via: ")).collect();
            assert!(vias[0].contains(";received=127.") && vias[0].contains(";rport="), "{answer}");
            assert_eq!(vias[1], "Via: SIP/2.0/UDP farther.example;branch=z9hG4bKfar");
            assert!(line(&answer, "To").contains(";tag="), "{answer}");
            if matches!(*status, "405") || *method == "OPTIONS" && *status == "200" {
                assert!(line(&answer, "Allow").contains("INVITE"));
            }
            if *method == "INVITE" {
                let ack = request(
                    "ACK",
                    &format!("b{number}"),
                    &[("To: <sip:sallyport@example.com>", &format!("To: {}", line(&answer, "To")))],
                );
                way.send(ack.as_bytes());
                assert!(way.is_silent(), "an acknowledged refusal is not sent again");
            }
        }
    }
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_a_refusal_is_repeated_until_its_ack() {
    let control = Control::start(Net::new(), &[]);
    let mut way = Way::datagram(&control);
    let options = request("OPTIONS", "same", &[]);
    way.send(options.as_bytes());
    let first = way.hear().unwrap();
    way.send(options.as_bytes());
    assert_eq!(way.hear().unwrap(), first);
    let invite = request("INVITE", "again", &[]);
    way.send(invite.as_bytes());
    let refusal = way.hear().unwrap();
    assert_eq!(way.hear().unwrap(), refusal, "sent again by itself (Timer G)");
    way.send(invite.as_bytes());
    assert_eq!(way.hear().unwrap(), refusal);
    let to = format!("To: {}", line(&refusal, "To"));
    way.send(request("ACK", "again", &[("To: <sip:sallyport@example.com>", &to)]).as_bytes());
    assert!(way.is_silent());
}

#[test]
fn what_cannot_be_answered_is_dropped_and_the_next_message_heard() {
    let control = Control::start(Net::new(), &[]);
    let no_via = request(
        "OPTIONS",
        "x",
        &[("Via: SIP/2.0/UDP far", "Xia: SIP/2.0/UDP far"), ("Via: SIP/2.0/UDP farther", "Xia: x")],
    );
    let garbage: Vec<Vec<u8>> = vec![
        b"\r\n\r\n".to_vec(),
        Vec::new(),
        vec![0; 2000],
        vec![0xff; 60_000],
        b"SIP/2.0 200 OK\r\n\r\n".to_vec(),
        request("ACK", "broken", &[("CSeq: 1 ACK", "CSeq: ACK")]).into_bytes(),
        no_via.into_bytes(),
        request("OPTIONS", "x", &[])
            .replace("OPTIONS sip:sallyport@example.com SIP/2.0", "SIP/2.0 200 OK")
            .into_bytes(),
    ];
    let mut way = Way::datagram(&control);
    for octets in &garbage {
        way.send(octets);
    }
    way.send(request("OPTIONS", "after", &[]).as_bytes());
    assert_eq!(
        line(&way.hear().unwrap(), "Call-ID"),
        "after@far",
        "the first answer is to the first sound message"
    );
    assert!(way.is_silent());
}

#[test]
fn a_datagram_without_a_length_and_with_latin_1_is_read() {
    let control = Control::start(Net::new(), &[]);
    let mut way = Way::datagram(&control);
    let text =
        request("OPTIONS", "latin", &[("Content-Length: 0\r\n", ""), ("Max-Forwards: 70", "Subject: caf@")]);
    let octets: Vec<u8> =
        text.replace("caf@", "caf\u{1}").bytes().map(|octet| if octet == 1 { 0xe9 } else { octet }).collect();
    way.send(&octets);
    assert!(way.hear().unwrap().starts_with("SIP/2.0 200 "));
}

#[test]
fn streams_are_cut_answered_and_closed_where_they_cannot_be_followed() {
    let control = Control::start(Net::new(), &[]);
    let mut way = Way::stream(&control);
    let one = request("OPTIONS", "one", &[("Content-Length: 0\r\n\r\n", "l: 5\r\n\r\nhello")]);
    let two = request("OPTIONS", "two", &[]);
    for piece in format!("\r\n{one}\r\n\r\n{two}").as_bytes().chunks(7) {
        way.send(piece);
    }
    let mut all = String::new();
    while !all.contains("two@far") {
        all.push_str(&way.hear().expect("more"));
    }
    assert!(all.contains("Call-ID: one@far"), "two answers: {all}");
    assert!(all.starts_with("\r\n") || all.contains("\r\n\r\n\r\n"), "and a pong: {all}");
    let mut lost = Way::stream(&control);
    lost.send(request("OPTIONS", "lost", &[("Content-Length: 0\r\n", "")]).as_bytes());
    assert!(lost.hear().unwrap().starts_with("SIP/2.0 400 "));
    let Way::Stream(mut stream) = lost else { unreachable!() };
    assert_eq!(
        stream.read(&mut [0; 16]).unwrap_or(0),
        0,
        "closed: nobody knows where the next message begins"
    );
    let mut endless = Way::stream(&control);
    endless.send(&[b'x'; 20_000]);
    let Way::Stream(mut stream) = endless else { unreachable!() };
    assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    let mut still = Way::stream(&control);
    still.send(two.as_bytes());
    assert!(still.hear().unwrap().starts_with("SIP/2.0 200 "));
}

#[test]
fn many_strangers_cost_no_descriptors() {
    let control = Control::start(Net::new(), &[]);
    let before = control.descriptors();
    for round in 0..200 {
        let mut way = Way::stream(&control);
        way.send(request("OPTIONS", &format!("r{round}"), &[]).as_bytes());
        assert!(way.hear().unwrap().starts_with("SIP/2.0 200 "));
    }
    super::harness::until("descriptors are given back", || control.descriptors() <= before);
}
