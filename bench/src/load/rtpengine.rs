//! rtpengine (Debian's, in userspace) as a target, set up over its NG protocol as Kamailio would: SDES-SRTP outside, RTP
//! inside.

use std::net::SocketAddr;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sallyport_lab::Namespace;
use sallyport_lab::ng::{Client, Value};
use sallyport_plan::{KeyMaterial, Profile};

use super::drive::End;
use super::mix::Mix;
use super::net::{INSIDE, OUTSIDE, Row};
use super::target::{Middle, Target, call, keys};

/// Its NG port, on the appliance's inside address.
const NG: u16 = 2223;

/// A running rtpengine.
pub struct Rtpengine {
    program: Middle,
    ng: Client,
    mix: Mix,
}

impl Rtpengine {
    /// Starts one with as many threads as the others have workers.
    ///
    /// # Errors
    /// Where it is not installed, or does not answer.
    pub fn start(row: &Row, mix: Mix) -> anyhow::Result<Self> {
        let arguments = [
            "--foreground".to_owned(),
            "--log-stderr".into(),
            "--log-level=2".into(),
            "--table=-1".into(),
            "--no-fallback".into(),
            format!("--num-threads={}", row.workers),
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
        let server = SocketAddr::new(INSIDE.parse()?, NG);
        let ng = Client::new(&Namespace::named(row.namespace("d")), server)?;
        let mut rtpengine = Self { program, ng, mix };
        let Self { program, ng, .. } = &mut rtpengine;
        program.wait(|| ng.is_there().then_some(()))?;
        Ok(rtpengine)
    }
}

fn sdp(address: SocketAddr, profile: &str, crypto: &str, mix: Mix) -> String {
    let (ip, port) = (address.ip(), address.port());
    let (payload_type, rtpmap) = (mix.payload_type(), mix.rtpmap());
    let kind = if mix == Mix::Video { "video" } else { "audio" };
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm={kind} {port} {profile} {payload_type}\r\n\
         a=rtpmap:{payload_type} {rtpmap}\r\n{crypto}a=sendrecv\r\n"
    )
}

/// Address and port of the medium.
fn media(sdp: &str) -> Option<SocketAddr> {
    let line = |start: &str| sdp.lines().find_map(|line| line.strip_prefix(start));
    let ip = line("c=IN IP4 ")?.trim().parse().ok()?;
    let port = line("m=audio ").or_else(|| line("m=video "))?.split(' ').next()?.parse().ok()?;
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
            let call = call(at, "aes-cm", self.mix)?;
            let id = format!("call-{at}");
            let both = [("call-id", Value::Text(&id)), ("from-tag", Value::Text("browser"))];
            let replace = Value::List(&["origin"]);
            let flags = Value::List(&["trust-address", "SDES-no-AES_256_CM_HMAC_SHA1_80"]);
            let offer = sdp(call.browser, "RTP/SAVP", &inline(&call.from_browser), self.mix);
            let toward_inside = [
                ("command", Value::Text("offer")),
                ("sdp", Value::Text(&offer)),
                ("direction", Value::List(&["outside", "inside"])),
                ("transport-protocol", Value::Text("RTP/AVP")),
                ("ICE", Value::Text("remove")),
                ("rtcp-mux", Value::List(&["demux"])),
                ("replace", replace),
                ("flags", flags),
            ];
            let offered = self.ng.ask_sdp(&[both.as_slice(), &toward_inside].concat())?;
            let answer = sdp(call.agent, "RTP/AVP", "", self.mix);
            let back = [
                ("command", Value::Text("answer")),
                ("sdp", Value::Text(&answer)),
                ("to-tag", Value::Text("agent")),
                ("replace", replace),
                ("flags", flags),
            ];
            let answered = self.ng.ask_sdp(&[both.as_slice(), &back].concat())?;
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
        for mix in [Mix::G711, Mix::Opus, Mix::Video] {
            let sdp = sdp("10.0.0.1:4000".parse().unwrap(), "RTP/SAVP", "", mix);
            assert_eq!(media(&sdp), Some("10.0.0.1:4000".parse().unwrap()), "{mix}");
        }
        let key = KeyMaterial::new(Profile::AesCm128HmacSha1_80, &[7; 16], &[8; 14]).unwrap();
        assert!(key_of(&inline(&key)).unwrap() == key);
    }
}
