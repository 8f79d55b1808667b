//! The calling side: browsers on an open loop, each call at its scheduled moment, whatever has become of those before.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_lab::Namespace;
use sallyport_lab::caller::Caller;

use super::phone::since;
use crate::load::net::{OUTSIDE, Row};

/// How long an answer over HTTP may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long ICE and DTLS may take.
const CONNECT: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Calls in all.
    pub calls: usize,
    /// Calls a second.
    pub rate: f64,
    /// How long each stands before it is hung up.
    pub hold: Duration,
    /// Whether ICE and DTLS are done, or signalling only.
    pub media: bool,
    /// Port of the API at the appliance's outside address.
    pub port: u16,
    /// Its bearer token.
    pub token: &'static str,
}

/// One call as its browser saw it, ns since the run's begin.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Its number.
    pub number: usize,
    /// When it was due.
    pub due: u64,
    /// When its offer was sent.
    pub sent: u64,
    /// When its answer was there.
    pub answered: u64,
    /// When ICE and DTLS were done.
    pub connected: Option<u64>,
}

/// Addresses that browsers have, in turn: checks of strangers are limited by source.
pub const ADDRESSES: u8 = 200;

/// Where the browser of a call is.
pub fn address(number: usize) -> IpAddr {
    let last = u8::try_from(number % usize::from(ADDRESSES)).unwrap_or_default();
    IpAddr::from([198, 51, 100, 10 + last])
}

/// Places calls until there is none left: what came of them, and what went wrong.
pub fn serve(row: &Row, load: &Load, next: &AtomicUsize, begin: Instant) -> (Vec<Seen>, Vec<String>) {
    let (mut seen, mut faults) = (Vec::new(), Vec::new());
    let mut line = None;
    let namespace = Namespace::named(row.namespace("o"));
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.calls {
            return (seen, faults);
        }
        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 calls")]
        let due = begin + Duration::from_secs_f64(number as f64 / load.rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let due = u64::try_from(due.duration_since(begin).as_nanos()).unwrap_or(u64::MAX);
        match call(&namespace, load, &mut line, (number, due), begin) {
            Ok(call) => seen.push(call),
            Err(error) => {
                line = None;
                faults.push(format!("{error:#}"));
            }
        }
    }
}

fn call(
    namespace: &Namespace,
    load: &Load,
    line: &mut Option<Line>,
    (number, due): (usize, u64),
    begin: Instant,
) -> anyhow::Result<Seen> {
    let address = address(number);
    let mut caller = Caller::at(namespace.clone(), address)?;
    let offer = caller.offer("actpass");
    if line.is_none() {
        *line = Some(Line::open(namespace, load)?);
    }
    let line = line.as_mut().context("no connection")?;
    let sent = since(begin);
    let answer = line.ask("POST", &format!("/v1/calls?to=c{number}"), &offer)?;
    let answered = since(begin);
    anyhow::ensure!(answer.status == 201, "POST answers {}: {}", answer.status, answer.body);
    let outcome =
        if load.media { caller.connect(&answer.body, CONNECT).map(|_| Some(since(begin))) } else { Ok(None) };
    std::thread::sleep(load.hold);
    let ended = line.ask("DELETE", &answer.location, "")?;
    let connected = outcome?;
    anyhow::ensure!(ended.status == 204, "DELETE answers {}", ended.status);
    Ok(Seen { number, due, sent, answered, connected })
}

/// A connection that is kept.
struct Line {
    stream: TcpStream,
    host: String,
    token: &'static str,
}

struct Answer {
    status: u16,
    location: String,
    body: String,
}

impl Line {
    fn open(namespace: &Namespace, load: &Load) -> anyhow::Result<Self> {
        let host = format!("{OUTSIDE}:{}", load.port);
        let stream = namespace.within(|| TcpStream::connect(&host))??;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host, token: load.token })
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            self.host,
            self.token,
            body.len()
        );
        self.stream.write_all(request.as_bytes())?;
        let mut octets = Vec::new();
        let mut piece = [0; 8192];
        loop {
            let length = self.stream.read(&mut piece).context("no answer over HTTP")?;
            if length == 0 {
                bail!("the connection ended without an answer");
            }
            octets.extend_from_slice(piece.get(..length).unwrap_or_default());
            if let Some(answer) = whole(&String::from_utf8_lossy(&octets)) {
                return Ok(answer);
            }
        }
    }
}

/// An answer, when all of it is there.
fn whole(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |wanted: &str| {
        let split = head.lines().filter_map(|line| line.split_once(':'));
        split
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim().to_owned())
            .next()
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = body.get(..length)?.to_owned();
    Some(Answer { status, location: header("location").unwrap_or_default(), body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let text = "HTTP/1.1 201 Created\r\nlocation: /v1/calls/1\r\nContent-Length: 3\r\n\r\nabc";
        assert!(whole(&text[..text.len() - 1]).is_none());
        let answer = whole(text).unwrap();
        assert_eq!(
            (answer.status, answer.location.as_str(), answer.body.as_str()),
            (201, "/v1/calls/1", "abc")
        );
        assert_eq!(whole("HTTP/1.1 204 No Content\r\n\r\n").unwrap().status, 204);
    }
}
