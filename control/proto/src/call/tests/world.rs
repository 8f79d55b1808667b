//! What calls are made of in the tests: settings, descriptions, an INVITE.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use is::IceCreds;
use sallyport_plan::Zone;

use crate::api::Placing;
use crate::settings::{CandidateKind, LocalCandidate, Policy, Settings, SipSettings, Timeouts};
use crate::sip::{Method, Request, TransactionId};

pub const FINGERPRINT: [u8; 32] = [0xab; 32];

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn media() -> SocketAddr {
    address("192.0.2.1:10000")
}

pub fn settings(password: &str) -> Arc<Settings> {
    let base = media();
    Arc::new(Settings {
        candidates: vec![LocalCandidate {
            address: base,
            base,
            kind: CandidateKind::Host,
            zone: Zone::Outside,
            tcp: false,
        }],
        own: vec![IpAddr::from([10, 0, 0, 1])],
        ice_lite: false,
        video: true,
        fingerprint: [1; 32],
        toward: IpAddr::from([10, 0, 0, 5]),
        sip: SipSettings {
            domain: "pbx".into(),
            user: "sallyport".into(),
            password: password.into(),
            display_name: String::new(),
            contact: "sip:sallyport@10.0.0.1:5060".into(),
            user_agent: "test".into(),
            policy: policy(),
        },
        recording: None,
        timeouts: Timeouts::default(),
    })
}

/// All that may pass does.
fn policy() -> Policy {
    Policy {
        follow_redirects: true,
        trust_identity: true,
        pass_headers: vec!["X-Data".into()],
        info_types: vec!["application/json".into()],
        ..Policy::default()
    }
}

/// A customer calls 1000.
pub fn placing() -> Placing {
    Placing { to: "1000".into(), from: None, zone: Zone::Outside, route: Vec::new(), headers: Vec::new() }
}

/// A browser's offer with these credentials of ICE.
pub fn offer(creds: &IceCreds, more: &str) -> String {
    let digits: Vec<String> = FINGERPRINT.iter().map(|octet| format!("{octet:02X}")).collect();
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0{}\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8 110 126\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n\
         a=fingerprint:sha-256 {}\r\na=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\na=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n{more}",
        if more.contains("a=mid:1") { " 1" } else { "" },
        creds.ufrag,
        creds.pass,
        digits.join(":"),
    )
}

/// What the called side says of its media.
pub fn sdp(ip: &str, formats: &str, more: &str) -> Vec<u8> {
    format!(
        "v=0\r\no=pbx 1 1 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 30000 RTP/AVP {formats}\r\n\
         a=rtpmap:101 telephone-event/8000\r\n{more}"
    )
    .into_bytes()
}

/// Number of the INVITE of a call from the inside.
pub const INVITE: TransactionId = TransactionId(70);

/// An INVITE of the inside.
pub fn invite(body: &[u8], headers: &[(&str, &str)]) -> Request {
    Request {
        method: Method::Invite,
        uri: "sip:2000@10.0.0.1:5060".into(),
        from: "\"Anna\" <sip:1000@pbx>;tag=pbx".into(),
        to: "<sip:2000@pbx>".into(),
        call_id: "c1".into(),
        cseq: 5,
        route: Vec::new(),
        record_route: vec!["<sip:10.0.0.5;lr>".into()],
        contact: Some("<sip:anna@10.0.0.9>".into()),
        content_type: None,
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        body: body.to_vec(),
    }
}
