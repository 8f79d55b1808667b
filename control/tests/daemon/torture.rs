//! The torture tests of RFC 4475 and RFC 5118: one table of verdicts, four ways to get there. After each message the daemon
//! must still answer, and at the end nothing must be left.

mod rfc4475;
mod rfc5118;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::harness::{Control, Net, until};
use super::sip::stream_from;
use super::websocket::Browser;

/// What a message comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A final answer with this status.
    Status(u16),
    /// It is understood: an answer that is none of those to broken messages.
    Heard,
    /// No answer.
    Silence,
    /// No answer yet: its end is waited for.
    Unfinished,
}

/// A message and its verdicts.
pub struct Case {
    name: String,
    octets: Vec<u8>,
    /// What a stream has as another message.
    trailing: Vec<u8>,
    datagram: Verdict,
    stream: Verdict,
    browser: Verdict,
    /// Nobody knows where the next message begins on a stream.
    breaks: bool,
}

impl Case {
    /// `text` has plain line ends.
    pub fn new(name: &str, text: &str, verdict: Verdict) -> Self {
        // What goes to the calls from browsers is judged by them.
        let browser = if matches!(verdict, Verdict::Status(480 | 481)) { Verdict::Heard } else { verdict };
        Self {
            name: name.into(),
            octets: text.replace('\n', "\r\n").into_bytes(),
            trailing: Vec::new(),
            datagram: verdict,
            stream: verdict,
            browser,
            breaks: false,
        }
    }

    pub fn body(self, text: &str) -> Self {
        self.octets(text.replace('\n', "\r\n").as_bytes())
    }

    pub fn octets(mut self, body: &[u8]) -> Self {
        self.length(body.len());
        self.octets.extend_from_slice(body);
        self
    }

    fn length(&mut self, length: usize) {
        let mark = b"{length}";
        if let Some(at) = self.octets.windows(mark.len()).position(|part| part == mark) {
            self.octets.splice(at..at + mark.len(), length.to_string().into_bytes());
        }
    }

    pub fn browser(mut self, verdict: Verdict) -> Self {
        self.browser = verdict;
        self
    }

    pub fn stream(mut self, verdict: Verdict) -> Self {
        self.stream = verdict;
        self
    }

    pub fn breaks(mut self) -> Self {
        self.breaks = true;
        self
    }

    pub fn trailing(mut self, text: &str) -> Self {
        let text = text.replace('\n', "\r\n");
        let length = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        self.trailing = text.replace("{length}", &length.to_string()).into_bytes();
        self
    }

    fn all(&self) -> Vec<u8> {
        [self.octets.as_slice(), &self.trailing].concat()
    }

    /// Judges the answers that came.
    fn judge(&self, verdict: Verdict, answers: &[String]) {
        let name = &self.name;
        let finals: Vec<&String> = answers.iter().filter(|answer| !answer.starts_with("SIP/2.0 1")).collect();
        match verdict {
            Verdict::Silence | Verdict::Unfinished => assert!(finals.is_empty(), "{name}: {answers:?}"),
            Verdict::Status(status) => {
                let right =
                    finals.first().is_some_and(|answer| answer.starts_with(&format!("SIP/2.0 {status} ")));
                assert!(right, "{name}: not {status} but {answers:?}");
            }
            Verdict::Heard => {
                let broken = ["400", "405", "406", "415", "416", "420", "482", "483", "505"];
                let status = finals.first().and_then(|answer| answer.get(8..11)).unwrap_or("none");
                assert!(status != "none" && !broken.contains(&status), "{name}: {answers:?}");
            }
        }
        // Stamped with where it came from, whatever else is wrong with it (RFC 3581).
        for answer in finals {
            assert!(answer.contains(";received=127."), "{name}: {answer}");
        }
    }
}

fn cases() -> Vec<Case> {
    let mut all = rfc4475::cases();
    all.extend(rfc5118::cases());
    for case in &mut all {
        case.length(0);
    }
    all
}

#[test]
fn the_table_holds_every_message_once() {
    let names: std::collections::HashSet<String> = cases().into_iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases().len());
    assert_eq!((rfc4475::cases().len(), rfc5118::cases().len()), (49, 12));
}

fn sentinel(branch: &str) -> String {
    format!(
        "OPTIONS sip:s@s SIP/2.0\r\nVia: SIP/2.0/UDP s;branch=z9hG4bKsentinel{branch}\r\nFrom: <sip:s@s>;tag=s\r\nTo: <sip:s@s>\r\n\
         Call-ID: sentinel{branch}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Whether an answer is the one to a sentinel.
fn is_sentinel(answer: &str) -> bool {
    answer.contains("Call-ID: sentinel")
}

/// After all of it: nothing runs, nothing is kept, and a stranger's question is answered.
fn nothing_is_left(control: &Control, descriptors: usize) {
    control.wait_until_idle();
    until("descriptors are given back", || control.descriptors() <= descriptors);
    let log = control.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Messages out of octets that were read from a stream.
fn cut(pending: &mut Vec<u8>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
        found.push(String::from_utf8_lossy(&pending[..end]).into_owned());
        pending.drain(..end + 4);
    }
    found
}

/// What comes on a stream until the sentinel's answer, its end, or nothing for a while.
fn read_until_sentinel(stream: &mut TcpStream, patience: Duration) -> (Vec<String>, bool) {
    stream.set_read_timeout(Some(patience)).unwrap();
    let (mut answers, mut pending, mut room) = (Vec::new(), Vec::new(), [0; 8192]);
    loop {
        match stream.read(&mut room) {
            Ok(0) => return (answers, true),
            Ok(length) => {
                pending.extend_from_slice(&room[..length]);
                for answer in cut(&mut pending) {
                    if is_sentinel(&answer) {
                        return (answers, false);
                    }
                    answers.push(answer);
                }
            }
            Err(error) => return (answers, error.kind() == std::io::ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn torture_by_datagrams() {
    let control = Control::start(Net::new(), &[]);
    let before = control.descriptors();
    for (number, case) in cases().iter().enumerate() {
        let socket = UdpSocket::bind((control.net.pbx().ip(), 0)).unwrap();
        socket.connect(control.net.sip()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        socket.send(&case.all()).unwrap();
        let mut answers = Vec::new();
        let mut room = [0; 65_536];
        if !matches!(case.datagram, Verdict::Silence) {
            let length = socket.recv(&mut room).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            answers.push(String::from_utf8_lossy(&room[..length]).into_owned());
        }
        socket.send(sentinel(&format!("u{number}")).as_bytes()).unwrap();
        loop {
            let length = socket.recv(&mut room).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let answer = String::from_utf8_lossy(&room[..length]).into_owned();
            if is_sentinel(&answer) {
                break;
            }
            answers.push(answer);
        }
        case.judge(case.datagram, &answers);
    }
    nothing_is_left(&control, before);
}

/// Sends a case on a stream, in pieces, and judges what comes.
fn on_a_stream(control: &Control, from: SocketAddr, case: &Case, number: usize, piece: usize) {
    let mut stream = stream_from(from.ip(), control.net.sip());
    stream.set_nodelay(true).unwrap();
    for part in case.all().chunks(piece) {
        // It may have been closed by now.
        if stream.write_all(part).is_err() {
            break;
        }
    }
    if case.stream == Verdict::Unfinished {
        let (answers, closed) = read_until_sentinel(&mut stream, Duration::from_millis(300));
        assert!(!closed, "{}: it is waited for", case.name);
        case.judge(case.stream, &answers);
        return;
    }
    let patience = Duration::from_secs(3);
    if case.breaks {
        let (answers, closed) = read_until_sentinel(&mut stream, patience);
        assert!(closed, "{}: the stream cannot be followed", case.name);
        case.judge(case.stream, &answers);
        return;
    }
    // The calls answer by and by: an answer that is expected is waited for before the sentinel is sent.
    let (mut answers, mut room) = (Vec::new(), [0; 8192]);
    stream.set_read_timeout(Some(patience)).unwrap();
    if case.stream != Verdict::Silence {
        let length = stream.read(&mut room).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        answers.extend(cut(&mut room[..length].to_vec()));
    }
    stream.write_all(sentinel(&format!("t{piece}x{number}")).as_bytes()).unwrap();
    let (more, closed) = read_until_sentinel(&mut stream, patience);
    assert!(!closed, "{}: the stream goes on", case.name);
    answers.extend(more);
    case.judge(case.stream, &answers);
}

#[test]
fn torture_by_a_stream_octet_by_octet() {
    let control = Control::start(Net::new(), &[]);
    let before = control.descriptors();
    for (number, case) in cases().iter().enumerate() {
        on_a_stream(&control, control.net.pbx(), case, number, 1);
    }
    nothing_is_left(&control, before);
}

/// The value of Call-ID, whichever way it is written.
fn call_id(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim();
        (name.eq_ignore_ascii_case("Call-ID") || name.eq_ignore_ascii_case("i")).then(|| value.trim())
    })
}

#[test]
fn torture_by_a_stream_all_at_once() {
    let control = Control::start(Net::new(), &[]);
    let before = control.descriptors();
    let all = cases();
    let sound: Vec<&Case> =
        all.iter().filter(|case| !case.breaks && case.stream != Verdict::Unfinished).collect();
    let mut stream = stream_from(control.net.pbx().ip(), control.net.sip());
    let octets: Vec<u8> = sound.iter().flat_map(|case| case.all()).collect();
    stream.write_all(&octets).unwrap();
    // Until nothing comes any more, then a sentinel: the stream is followed to its end.
    let (mut answers, closed) = read_until_sentinel(&mut stream, Duration::from_secs(1));
    assert!(!closed, "the stream goes on");
    stream.write_all(sentinel("pipe").as_bytes()).unwrap();
    let (more, closed) = read_until_sentinel(&mut stream, Duration::from_secs(3));
    assert!(!closed);
    answers.extend(more);
    for case in sound {
        let text = String::from_utf8_lossy(&case.octets).into_owned();
        let own: Vec<String> =
            answers.iter().filter(|answer| call_id(answer) == call_id(&text)).cloned().collect();
        case.judge(case.stream, &own);
    }
    drop(stream);
    nothing_is_left(&control, before);
}

#[test]
fn torture_by_websocket() {
    let control = Control::start(Net::new(), &[]);
    let before = control.descriptors();
    for (number, case) in cases().iter().enumerate() {
        let mut browser = Browser::open(&control);
        browser.send_octets(&case.all());
        let mut answers = Vec::new();
        if case.browser != Verdict::Silence {
            // The calls answer by and by: until the final answer.
            while answers.last().is_none_or(|answer: &String| answer.starts_with("SIP/2.0 1")) {
                answers.push(browser.hear().unwrap_or_else(|| panic!("{}: no answer", case.name)));
            }
        }
        browser.send(&sentinel(&format!("w{number}")));
        loop {
            let answer = browser.hear().unwrap_or_else(|| panic!("{}: no answer to the next", case.name));
            if is_sentinel(&answer) {
                break;
            }
            answers.push(answer);
        }
        case.judge(case.browser, &answers);
    }
    nothing_is_left(&control, before);
}
