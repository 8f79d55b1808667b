//! Offers as browsers write them, answered; and what nobody writes, refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as the test does")]

use proptest::prelude::*;

use super::*;
use crate::sdp::{InsideAnswer, InsideOffer, parse_fragment};
use sallyport_plan::PortPair;

/// Chromium 140: audio and video, both with all their codecs and header extensions, candidates gathered.
const CHROMIUM: &str = "v=0\r\no=- 7614219274584779017 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n\
a=extmap-allow-mixed\r\na=msid-semantic: WMS 2b6d9a71-fd2c-4b79-a1b5-0a8d5c7f31c0\r\n\
m=audio 54321 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\nc=IN IP4 198.51.100.7\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
a=candidate:3813442613 1 udp 2122260223 192.168.1.23 54321 typ host generation 0 network-id 1 network-cost 10\r\n\
a=candidate:2099174189 1 udp 1686052607 198.51.100.7 54321 typ srflx raddr 192.168.1.23 rport 54321 generation 0 network-id 1\r\n\
a=candidate:1027155233 1 udp 2122194687 f3f1d5c6-3f4a-4e8a-9e58-8c9a1dd1f7b5.local 61023 typ host generation 0 network-id 2\r\n\
a=candidate:3205105077 1 tcp 1518280447 192.168.1.23 9 typ host tcptype active generation 0 network-id 1 network-cost 10\r\n\
a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=ice-options:trickle\r\n\
a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
a=setup:actpass\r\na=mid:0\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sendrecv\r\n\
a=msid:2b6d9a71-fd2c-4b79-a1b5-0a8d5c7f31c0 6f1b9c3a-5a3b-4a4b-9d6e-1f7f0f8d7a11\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n\
a=ssrc:3570614608 cname:4TOk42mSjXCkVIa6\r\n\
a=ssrc:3570614608 msid:2b6d9a71-fd2c-4b79-a1b5-0a8d5c7f31c0 6f1b9c3a-5a3b-4a4b-9d6e-1f7f0f8d7a11\r\n\
m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:EsAw\r\n\
a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=ice-options:trickle\r\n\
a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
a=setup:actpass\r\na=mid:1\r\na=extmap:14 urn:ietf:params:rtp-hdrext:toffset\r\na=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
a=rtpmap:103 H264/90000\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
a=rtpmap:104 rtx/90000\r\na=fmtp:104 apt=103\r\n\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:EsAw\r\n\
a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=ice-options:trickle\r\n\
a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
a=setup:actpass\r\na=mid:2\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

/// Firefox ESR 140: the fingerprint of the session, long user fragments, an end of candidates, direction last.
const FIREFOX: &str = "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 4611731400430051336 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
a=sendrecv\r\n\
a=fingerprint:sha-256 0F:CE:E6:D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52\r\n\
a=group:BUNDLE 0\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n\
m=audio 45678 UDP/TLS/RTP/SAVPF 109 9 0 8 101\r\nc=IN IP4 198.51.100.8\r\n\
a=candidate:0 1 UDP 2122252543 bb5a1e3c-0a3c-4d9d-8b0c-c8a1b7e6e1ad.local 45678 typ host\r\n\
a=candidate:1 1 TCP 2105524479 bb5a1e3c-0a3c-4d9d-8b0c-c8a1b7e6e1ad.local 9 typ host tcptype active\r\n\
a=candidate:2 1 UDP 1686052863 198.51.100.8 45678 typ srflx raddr 0.0.0.0 rport 0\r\n\
a=sendrecv\r\na=end-of-candidates\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level\r\na=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1\r\na=fmtp:101 0-15\r\n\
a=ice-pwd:6c3f0f9d7d1b4a6a8f2e5b9c0d1e2f3a\r\na=ice-ufrag:b7a1c9d2\r\na=mid:0\r\n\
a=msid:{0b3c2c1e-8d5f-4b7e-9a6d-2f1e0c9b8a7d} {d7c6b5a4-9382-4716-a5b4-c3d2e1f0a9b8}\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=rtcp-mux\r\n\
a=rtpmap:109 opus/48000/2\r\na=rtpmap:9 G722/8000/1\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:101 telephone-event/8000/1\r\na=setup:actpass\r\na=ssrc:1732450612 cname:{e5f4d3c2-b1a0-4f9e-8d7c-6b5a49382716}\r\n";

fn answer(offer: &BrowserOffer, inside: &str) -> String {
    let port = |port| std::net::SocketAddr::from(([10, 0, 0, 1], port));
    let own = InsideOffer::new(
        1,
        PortPair { rtp: port(20_000), rtcp: port(20_001) },
        &offer.codecs,
        &Kind::SPOKEN,
        true,
    );
    let text = format!(
        "v=0\r\no=- 1 1 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nm=audio 30000 RTP/AVP {inside}\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=rtpmap:107 opus/48000/2\r\na=rtpmap:102 telephone-event/48000\r\n"
    );
    let chosen = own.choose(&InsideAnswer::parse(text.as_bytes()).unwrap(), &offer.codecs, None).unwrap();
    let candidates = ["candidate:1 1 udp 2130706431 192.0.2.1 10000 typ host".to_owned()];
    let parts = AnswerParts {
        session: (9, 1),
        ufrag: "0123456789abcdef",
        password: "0123456789abcdef0123456789abcdef",
        candidates: &candidates,
        lite: false,
        fingerprint: &[0xab; 32],
        ssrc: 5,
        cname: "c",
        chosen: &chosen,
        direction: Direction::SendRecv,
        video: None,
    };
    browser_answer(offer, &parts)
}

/// What RFC 8829 and 9143 ask of any answer: the sections of the offer in their order, and only one of them taken.
fn is_proper(answer: &str, mids: &[&str], taken: &str) {
    let session = Session::parse(answer.as_bytes()).unwrap();
    let own: Vec<_> = session.medias.iter().map(|media| value(media, "mid").unwrap()).collect();
    assert_eq!(own, mids);
    for media in &session.medias {
        let is_taken = value(media, "mid").as_deref() == Some(taken);
        assert_eq!(media.port != 0, is_taken, "{answer}");
        if !is_taken {
            continue;
        }
        assert_eq!((media.media.as_str(), media.proto.as_str()), ("audio", "UDP/TLS/RTP/SAVPF"));
        for name in ["ice-ufrag", "ice-pwd", "fingerprint", "setup", "rtcp-mux", "candidate", "ssrc"] {
            assert!(value(media, name).is_some(), "{name} is missing: {answer}");
        }
        let mapped: Vec<&str> =
            values(media, "rtpmap").map(|map| map.split(' ').next().unwrap_or_default()).collect();
        assert_eq!(mapped.join(" "), media.fmt, "every format is named");
    }
    assert_eq!(session_value(&session, "group"), Some(format!("BUNDLE {taken}")));
}

#[test]
fn chromium_is_answered() {
    let offer = BrowserOffer::parse(CHROMIUM).unwrap();
    assert_eq!((offer.ufrag.as_str(), offer.password.as_str()), ("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1"));
    assert_eq!((offer.fingerprint[0], offer.fingerprint[31]), (0xd2, 0x0f));
    assert_eq!((offer.setup, offer.lite, offer.direction), (Setup::ActPass, false, Direction::SendRecv));
    let kinds: Vec<_> = offer.codecs.iter().map(|codec| (codec.kind, codec.payload_type)).collect();
    let expected = [
        (Kind::Opus, 111),
        (Kind::G722, 9),
        (Kind::Pcmu, 0),
        (Kind::Pcma, 8),
        (Kind::Noise, 13),
        (Kind::Event48000, 110),
        (Kind::Event8000, 126),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(offer.candidates.len(), 4);
    let text = answer(&offer, "8 0 101");
    is_proper(&text, &["0", "1", "2"], "0");
    assert!(text.contains("m=audio 9 UDP/TLS/RTP/SAVPF 8 0 126\r\n"), "{text}");
    assert!(text.contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "{text}");
    assert!(text.contains("a=setup:passive\r\n") && text.contains("a=sendrecv\r\n"));
    assert!(!text.contains("extmap"), "no header extension is agreed on");
    let text = answer(&offer, "107 102");
    assert!(text.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 110\r\n"), "{text}");
    let text = answer(&offer, "9 101");
    assert!(text.contains("m=audio 9 UDP/TLS/RTP/SAVPF 9 126\r\n"), "{text}");
}

#[test]
fn firefox_is_answered() {
    let offer = BrowserOffer::parse(FIREFOX).unwrap();
    assert_eq!((offer.ufrag.as_str(), offer.password.len()), ("b7a1c9d2", 32));
    assert_eq!((offer.fingerprint[0], offer.fingerprint[31]), (0x0f, 0x52), "that of the session");
    let kinds: Vec<_> = offer.codecs.iter().map(|codec| (codec.kind, codec.payload_type)).collect();
    let wide = [(Kind::Opus, 109), (Kind::G722, 9)];
    let narrow = [(Kind::Pcmu, 0), (Kind::Pcma, 8), (Kind::Event8000, 101)];
    assert_eq!(kinds, [&wide[..], &narrow].concat());
    let text = answer(&offer, "0 101");
    is_proper(&text, &["0"], "0");
    assert!(text.contains("m=audio 9 UDP/TLS/RTP/SAVPF 0 101\r\n"), "{text}");
}

/// Video first, audio within the bundle only: no port, and no transport of its own (RFC 9143 section 7.1.3).
fn bundle_only() -> String {
    let transport = [
        "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789abcdef01234567",
        "a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F",
        "a=setup:active",
        "a=rtcp-mux",
        "a=candidate:1 1 udp 2130706431 198.51.100.7 4000 typ host",
    ];
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE v a\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\n{}\r\na=mid:v\r\na=rtpmap:96 VP8/90000\r\n\
         m=audio 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=bundle-only\r\na=mid:a\r\na=rtpmap:0 PCMU/8000\r\n",
        transport.join("\r\n")
    )
}

#[test]
fn audio_within_a_bundle_only_is_taken() {
    let text = bundle_only();
    let offer = BrowserOffer::parse(&text).unwrap();
    assert_eq!((offer.ufrag.as_str(), offer.setup, offer.candidates.len()), ("abcd", Setup::Active, 1));
    is_proper(&answer(&offer, "0"), &["v", "a"], "a");
    for (from, to) in
        [("a=bundle-only\r\n", ""), ("BUNDLE v a", "BUNDLE v"), ("group:BUNDLE v a", "group:LS v a")]
    {
        assert_eq!(BrowserOffer::parse(&text.replace(from, to)), Err(OfferError::NoAudio), "{to}");
    }
}

#[test]
fn each_flaw_has_its_name() {
    let long = format!("a=ice-ufrag:{}\r\n", "x".repeat(UFRAG_MAX + 1));
    let cases: [(&str, &str, OfferError); 10] = [
        ("m=audio 54321", "m=audio 0", OfferError::NoAudio),
        ("54321 UDP/TLS/RTP/SAVPF", "54321 RTP/AVP", OfferError::NotDtlsSrtp("RTP/AVP".into())),
        ("fingerprint:sha-256", "fingerprint:sha-1", OfferError::NoFingerprint),
        ("fingerprint:sha-256 D2:", "fingerprint:sha-256 D2", OfferError::NoFingerprint),
        ("a=ice-ufrag:EsAw\r\n", "a=ice-ufrag:Es w\r\n", OfferError::NoIceCredentials),
        ("a=ice-ufrag:EsAw\r\n", &long, OfferError::LongUfrag),
        ("a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n", "", OfferError::NoIceCredentials),
        ("a=setup:actpass", "a=setup:holdconn", OfferError::Setup("holdconn".into())),
        ("a=rtcp-mux\r\n", "", OfferError::NoRtcpMux),
        ("SAVPF 111 63 9 0 8 13 110 126", "SAVPF 63 13 110 126", OfferError::NoCodec),
    ];
    for (from, to, expected) in cases {
        assert_eq!(BrowserOffer::parse(&CHROMIUM.replace(from, to)), Err(expected), "{to}");
    }
    let sdes = FIREFOX.replace("a=fingerprint:sha-256", "a=x:").replace("a=mid:0", "a=crypto:1 x inline:y");
    assert_eq!(BrowserOffer::parse(&sdes), Err(OfferError::SdesOnly));
    assert_eq!(BrowserOffer::parse(&"v=0\r\n".repeat(20_000)), Err(OfferError::TooLong));
}

/// Real offers with lines left out, doubled, swapped and bitten.
fn bitten() -> impl Strategy<Value = String> {
    let line = (any::<prop::sample::Index>(), 0..6_u8, ".{0,12}");
    (prop::sample::select(vec![CHROMIUM, FIREFOX]), proptest::collection::vec(line, 1..12)).prop_map(
        |(offer, bites)| {
            let mut lines: Vec<String> = offer.lines().map(str::to_owned).collect();
            for (at, how, text) in bites {
                let at = at.index(lines.len());
                match how {
                    0 if lines.len() > 1 => drop(lines.remove(at)),
                    1 => lines.insert(at, lines[at].clone()),
                    2 => lines.swap(0, at),
                    3 => lines[at].push_str(&text),
                    4 => lines[at] = lines[at].chars().rev().collect(),
                    _ => lines[at] = format!("{}{text}", lines[at].chars().take(9).collect::<String>()),
                }
            }
            lines.join("\r\n") + "\r\n"
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics(text in "(.|[\\r\\n:= ]){0,400}", octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = BrowserOffer::parse(&text);
        let _ = parse_fragment(&text);
        let _ = InsideAnswer::parse(text.as_bytes());
        let _ = InsideAnswer::parse(&octets);
    }

    #[test]
    fn a_bitten_offer_is_refused_or_answered_properly(text in bitten()) {
        if let Ok(offer) = BrowserOffer::parse(&text) {
            prop_assert!(offer.ufrag.len() <= UFRAG_MAX);
            prop_assert!(offer.codecs.iter().any(|codec| codec.kind.is_sound()));
            let kind = offer.codecs.iter().find(|codec| codec.kind.is_sound()).map(|codec| codec.kind);
            let inside = match kind { Some(Kind::Opus) => "107", Some(Kind::Pcma) => "8", _ => "0" };
            let text = answer(&offer, inside);
            prop_assert!(Session::parse(text.as_bytes()).is_ok(), "{}", text);
        }
        let _ = InsideAnswer::parse(text.as_bytes());
    }

    #[test]
    fn bitten_candidates_never_panic(line in "candidate:[0-9a-z.: ]{0,80}", more in any::<u16>()) {
        let sound = format!("candidate:1 1 udp {more} 198.51.100.7 {more} typ host {line}");
        for line in [line, sound] {
            let _ = is::Candidate::from_sdp_string(&line);
        }
    }
}
