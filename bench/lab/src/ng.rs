//! A client of rtpengine's NG protocol in bencode, as a proxy's module is one: asks rtpengine and Sallyport alike.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::Namespace;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A bencoded value.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// A string.
    Text(&'a str),
    /// A list of strings.
    List(&'a [&'a str]),
}

impl Value<'_> {
    fn encode(&self) -> String {
        match self {
            Self::Text(value) => text(value),
            Self::List(values) => format!("l{}e", values.iter().map(|value| text(value)).collect::<String>()),
        }
    }
}

fn text(value: &str) -> String {
    format!("{}:{value}", value.len())
}

/// A request: its cookie, then its fields as a dictionary.
pub fn message(cookie: &str, fields: &[(&str, Value<'_>)]) -> String {
    let mut fields = fields.to_vec();
    fields.sort_by_key(|(name, _)| *name);
    let body: String =
        fields.iter().map(|(name, value)| format!("{}{}", text(name), value.encode())).collect();
    format!("{cookie} d{body}e")
}

/// A string of a bencoded dictionary, found by its name: the answers are short, and another program's own.
pub fn field(answer: &str, name: &str) -> Option<String> {
    let rest = answer.split_once(&text(name))?.1;
    let (length, rest) = rest.split_once(':')?;
    Some(rest.get(..length.parse().ok()?)?.to_owned())
}

/// A client with a socket.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    cookie: u64,
}

impl Client {
    /// One that asks `server` from within a namespace.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(namespace: &Namespace, server: SocketAddr) -> anyhow::Result<Self> {
        let socket = namespace.within(|| {
            let socket = UdpSocket::bind((server.ip(), 0))?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            anyhow::Ok(socket)
        })??;
        Ok(Self { socket, cookie: 0 })
    }

    /// Whether it answers a ping at once.
    pub fn is_there(&mut self) -> bool {
        self.send(&[("command", Value::Text("ping"))]).is_ok()
            && self.answer(Duration::from_millis(200)).is_ok_and(|answer| answer.contains("pong"))
    }

    fn send(&mut self, fields: &[(&str, Value<'_>)]) -> anyhow::Result<()> {
        self.cookie += 1;
        self.socket.send(message(&format!("c{}", self.cookie), fields).as_bytes())?;
        Ok(())
    }

    fn answer(&self, patience: Duration) -> anyhow::Result<String> {
        let (until, cookie) = (Instant::now() + patience, format!("c{} ", self.cookie));
        let mut room = vec![0; 65536];
        while Instant::now() < until {
            let Ok(length) = self.socket.recv(&mut room) else { continue };
            let answer = String::from_utf8_lossy(&room[..length]).into_owned();
            if let Some(answer) = answer.strip_prefix(&cookie) {
                return Ok(answer.to_owned());
            }
        }
        bail!("no answer over NG")
    }

    /// One command; its whole answer.
    ///
    /// # Errors
    /// No answer.
    pub fn ask(&mut self, fields: &[(&str, Value<'_>)]) -> anyhow::Result<String> {
        self.send(fields)?;
        self.answer(ANSWER)
    }

    /// One command with an SDP; the SDP of its answer.
    ///
    /// # Errors
    /// No answer, or one without SDP, with its text.
    pub fn ask_sdp(&mut self, fields: &[(&str, Value<'_>)]) -> anyhow::Result<String> {
        let answer = self.ask(fields)?;
        field(&answer, "sdp").with_context(|| format!("over NG: {answer}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let answer = "d3:sdp20:v=0\r\nm=audio 7 X 0\r\n6:result2:oke";
        assert_eq!(field(answer, "sdp").as_deref(), Some("v=0\r\nm=audio 7 X 0\r\n"));
        assert_eq!(field(answer, "other"), None);
        assert_eq!(Value::List(&["a", "bc"]).encode(), "l1:a2:bce");
        let fields = [("sdp", Value::Text("v")), ("flags", Value::List(&["x"]))];
        assert_eq!(message("c1", &fields), "c1 d5:flagsl1:xe3:sdp1:ve");
    }
}
