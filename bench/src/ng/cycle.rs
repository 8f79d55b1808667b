//! One cycle: the offer, answer and delete of a call, as Kamailio's rtpengine module words them.

use clap::ValueEnum;
use sallyport_lab::ng::{Value, message};

use crate::load::net::AGENT;

/// Who calls whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A browser (DTLS-SRTP, ICE) calls telephony (RTP).
    Browser,
    /// Telephony calls a browser.
    Called,
    /// Telephony with SDES calls telephony without: the relay carries media before the answer is told.
    Sdes,
    /// Telephony calls telephony.
    Plain,
}

/// The requests of a cycle, in order.
pub const STEPS: [&str; 3] = ["offer", "answer", "delete"];

const KEY: &str = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n";

/// As Chromium writes it, audio only.
fn browser(setup: &str) -> String {
    let fingerprint = ["7B"; 32].join(":");
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=extmap-allow-mixed\r\n\
         a=msid-semantic: WMS stream\r\nm=audio 40000 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n\
         c=IN IP4 198.51.100.2\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
         a=candidate:1467250027 1 udp 2122260223 198.51.100.2 40000 typ host generation 0 network-id 1\r\n\
         a=candidate:435653019 1 tcp 1518280447 198.51.100.2 9 typ host tcptype active generation 0 network-id 1\r\n\
         a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\na=mid:0\r\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:2 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
         a=sendrecv\r\na=msid:stream track\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:111 opus/48000/2\r\n\
         a=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\n\
         a=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\n\
         a=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n\
         a=ssrc:3735928559 cname:bench\r\na=ssrc:3735928559 msid:stream track\r\n"
    )
}

fn telephone(port: u16, profile: &str, more: &str) -> String {
    format!(
        "v=0\r\no=telephone 17 1 IN IP4 {AGENT}\r\ns=call\r\nc=IN IP4 {AGENT}\r\nt=0 0\r\nm=audio {port} {profile} 0 8 101\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n\
         a=ptime:20\r\na=sendrecv\r\n{more}"
    )
}

type Fields<'a> = Vec<(&'a str, Value<'a>)>;

fn inward<'a>() -> Fields<'a> {
    vec![
        ("ICE", Value::Text("remove")),
        ("transport-protocol", Value::Text("RTP/AVP")),
        ("rtcp-mux", Value::List(&["demux"])),
        ("direction", Value::List(&["external", "internal"])),
    ]
}

fn outward<'a>() -> Fields<'a> {
    vec![
        ("ICE", Value::Text("force")),
        ("transport-protocol", Value::Text("UDP/TLS/RTP/SAVPF")),
        ("rtcp-mux", Value::List(&["offer"])),
        ("flags", Value::List(&["generate-mid"])),
        ("direction", Value::List(&["internal", "external"])),
    ]
}

fn across<'a>(profile: &'a str) -> Fields<'a> {
    vec![("transport-protocol", Value::Text(profile)), ("direction", Value::List(&["internal", "internal"]))]
}

impl Kind {
    /// Request `step` of cycle `number`, as octets.
    pub fn request(self, number: u64, step: usize, cookie: &str) -> String {
        // Far ends of their own, so that no two calls at once share a flow.
        let port = 20_000 + 4 * u16::try_from(number % 10_000).unwrap_or_default();
        let (sdp, toward) = match (self, step) {
            (Self::Browser, 0) => (browser("actpass"), inward()),
            (Self::Browser, _) => (telephone(port, "RTP/AVP", ""), Vec::new()),
            (Self::Called, 0) => (telephone(port, "RTP/AVP", ""), outward()),
            (Self::Called, _) => (browser("active"), Vec::new()),
            (Self::Sdes, 0) => (telephone(port, "RTP/SAVP", KEY), across("RTP/AVP")),
            (Self::Plain, 0) => (telephone(port, "RTP/AVP", ""), across("RTP/AVP")),
            (Self::Sdes | Self::Plain, _) => (telephone(port + 2, "RTP/AVP", ""), Vec::new()),
        };
        let call = format!("{number}-bench@{AGENT}");
        let branch = format!("z9hG4bK{number}");
        let mut fields = vec![
            ("command", Value::Text(STEPS.get(step).copied().unwrap_or("delete"))),
            ("call-id", Value::Text(&call)),
            ("from-tag", Value::Text("caller")),
            ("received-from", Value::List(&["IP4", AGENT])),
            ("via-branch", Value::Text(&branch)),
        ];
        if step > 0 {
            fields.push(("to-tag", Value::Text("called")));
        }
        if step < 2 {
            fields.push(("supports", Value::List(&["load limit"])));
            fields.push(("replace", Value::List(&["origin"])));
            fields.push(("sdp", Value::Text(&sdp)));
            fields.extend(toward);
        }
        message(cookie, &fields)
    }
}
