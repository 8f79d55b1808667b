//! rtpengine (Debian's, in userspace) as a target, set up over its NG protocol as Kamailio would: SDES-SRTP outside, RTP
//! inside.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sallyport_plan::{KeyMaterial, Profile};

use super::drive::End;
use super::net::{INSIDE, OUTSIDE, Row};
use super::target::{Middle, Target, call, keys};

/// Its NG port, on the appliance's inside address.
const NG: u16 = 2223;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A running rtpengine.
pub struct Rtpengine {
    program: Middle,
    ng: UdpSocket,
    cookie: u64,
}

impl Rtpengine {
    /// Starts one with one worker thread, as it has one processor.
    ///
    /// # Errors
    /// Where it is not installed, or does not answer.
    pub fn start(row: &Row) -> anyhow::Result<Self> {
        let arguments = [
            "--foreground".to_owned(),
            "--log-stderr".into(),
            "--log-level=2".into(),
            "--table=-1".into(),
            "--no-fallback".into(),
            "--num-threads=1".into(),
            format!("--interface=outside/{OUTSIDE}"),
            format!("--interface=inside/{INSIDE}"),
            format!("--listen-ng={INSIDE}:{NG}"),
            "--port-min=20000".into(),
            "--port-max=65000".into(),
            // Calls that a step of the search leaves silent stay.
            "--timeout=3600".into(),
            "--silent-timeout=3600".into(),
            "--pidfile=/dev/null".into(),
        ];
        let program = Middle::start(row, "rtpengine", &arguments)?;
        // From the middle itself: the far ends belong to the load.
        let ng = row.within("d", || {
            let socket = UdpSocket::bind((INSIDE, 0))?;
            socket.connect((INSIDE, NG))?;
            Ok(socket)
        })?;
        ng.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut rtpengine = Self { program, ng, cookie: 0 };
        let (ng, mut tries) = (rtpengine.ng.try_clone()?, 0);
        rtpengine.program.wait(|| {
            tries += 1;
            ng.send(format!("ping{tries} d7:command4:pinge").as_bytes()).ok()?;
            let mut room = [0; 256];
            let length = ng.recv(&mut room).ok()?;
            String::from_utf8_lossy(&room[..length]).contains("pong").then_some(())
        })?;
        Ok(rtpengine)
    }

    /// One command; the SDP of its answer.
    fn ask(
        &mut self,
        command: &str,
        call: usize,
        more: &[(&str, Value<'_>)],
        sdp: &str,
    ) -> anyhow::Result<String> {
        self.cookie += 1;
        let cookie = format!("b{}", self.cookie);
        let id = format!("call-{call}");
        let mut fields: Vec<(&str, Value<'_>)> = more.to_vec();
        fields.extend([
            ("call-id", Value::Text(&id)),
            ("command", Value::Text(command)),
            ("from-tag", Value::Text("browser")),
            ("sdp", Value::Text(sdp)),
        ]);
        fields.sort_by_key(|(name, _)| *name);
        let body: String =
            fields.iter().map(|(name, value)| format!("{}{}", text(name), value.encode())).collect();
        self.ng.send(format!("{cookie} d{body}e").as_bytes())?;
        let until = std::time::Instant::now() + ANSWER;
        let mut room = vec![0; 65536];
        while std::time::Instant::now() < until {
            let Ok(length) = self.ng.recv(&mut room) else { continue };
            let answer = String::from_utf8_lossy(&room[..length]).into_owned();
            let Some(answer) = answer.strip_prefix(&cookie) else { continue };
            return field(answer, "sdp").with_context(|| format!("rtpengine answers {answer}"));
        }
        bail!("rtpengine does not answer")
    }
}

/// A bencoded value.
#[derive(Clone)]
enum Value<'a> {
    Text(&'a str),
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

/// A string of a bencoded dictionary, found by its name: the answers are another program's own, and short.
fn field(answer: &str, name: &str) -> Option<String> {
    let rest = answer.split_once(&text(name))?.1;
    let (length, rest) = rest.split_once(':')?;
    Some(rest.get(..length.parse().ok()?)?.to_owned())
}

fn sdp(address: SocketAddr, profile: &str, crypto: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} {profile} 0\r\n\
         a=rtpmap:0 PCMU/8000\r\n{crypto}a=sendrecv\r\n"
    )
}

/// Address and port of the medium.
fn media(sdp: &str) -> Option<SocketAddr> {
    let line = |start: &str| sdp.lines().find_map(|line| line.strip_prefix(start));
    let ip = line("c=IN IP4 ")?.trim().parse().ok()?;
    let port = line("m=audio ")?.split(' ').next()?.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

fn inline(key: &KeyMaterial) -> String {
    let octets = [key.key(), key.salt()].concat();
    format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}\r\n", STANDARD.encode(octets))
}

fn key_of(sdp: &str) -> Option<KeyMaterial> {
    let line = sdp.lines().find(|line| line.contains("AES_CM_128_HMAC_SHA1_80"))?;
    let inline = line.split_once("inline:")?.1.split(['|', ' ', '\r']).next()?;
    let octets = STANDARD.decode(inline).ok()?;
    let (key, salt) = octets.split_at_checked(16)?;
    KeyMaterial::new(Profile::AesCm128HmacSha1_80, key, salt)
}

impl Target for Rtpengine {
    fn name(&self) -> String {
        "rtpengine aes-cm".into()
    }

    fn extend(&mut self, ends: &mut Vec<End>, calls: usize) -> anyhow::Result<()> {
        for at in ends.len()..calls {
            let call = call(at, "aes-cm")?;
            let replace = Value::List(&["origin"]);
            let flags = Value::List(&["trust-address", "SDES-no-AES_256_CM_HMAC_SHA1_80"]);
            let toward_inside = [
                ("direction", Value::List(&["outside", "inside"])),
                ("transport-protocol", Value::Text("RTP/AVP")),
                ("ICE", Value::Text("remove")),
                ("rtcp-mux", Value::List(&["demux"])),
                ("replace", replace.clone()),
                ("flags", flags.clone()),
            ];
            let offer = sdp(call.browser, "RTP/SAVP", &inline(&call.from_browser));
            let offered = self.ask("offer", at, &toward_inside, &offer)?;
            let back = [("to-tag", Value::Text("agent")), ("replace", replace), ("flags", flags)];
            let answered = self.ask("answer", at, &back, &sdp(call.agent, "RTP/AVP", ""))?;
            let its_key = key_of(&answered).with_context(|| format!("no key in its answer: {answered}"))?;
            ends.push(End {
                browser: call.browser,
                agent: call.agent,
                toward_agent: media(&answered).context("no address in its answer")?,
                toward_browser: media(&offered).context("no address in its offer")?,
                keys: Some(keys(&call.from_browser, &its_key)?),
                sequence: 0,
            });
        }
        Ok(())
    }

    fn cost(&self) -> Option<(f64, u64)> {
        self.program.cost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_answers_is_read() {
        let answer = " d3:sdp20:v=0\r\nm=audio 7 X 0\r\n6:result2:oke";
        assert_eq!(field(answer, "sdp").as_deref(), Some("v=0\r\nm=audio 7 X 0\r\n"));
        assert_eq!(field(answer, "other"), None);
        let sdp = sdp("10.0.0.1:4000".parse().unwrap(), "RTP/SAVP", "");
        assert_eq!(media(&sdp), Some("10.0.0.1:4000".parse().unwrap()));
        let key = KeyMaterial::new(Profile::AesCm128HmacSha1_80, &[7; 16], &[8; 14]).unwrap();
        assert!(key_of(&inline(&key)).unwrap() == key);
    }
}
