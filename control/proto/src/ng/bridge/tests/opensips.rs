//! OpenSIPS's rtpengine module: requests as it writes them, octet by octet, in its order of keys.

use super::*;
use crate::ng::frame;

/// `length:text`.
fn text(value: &str) -> String {
    format!("{}:{value}", value.len())
}

/// A whole datagram: cookie `pid_number`, then the keys in the order in which the module adds them. First `sdp`, then what
/// flags with values become on the spot, then lists and transport, then who.
fn datagram(number: u32, sdp: &str, spot: &str, lists: &str, tags: &str, command: &str) -> Vec<u8> {
    let sdp = if sdp.is_empty() { String::new() } else { format!("3:sdp{}", text(sdp)) };
    format!(
        "4242_{number} d{sdp}{spot}{lists}7:call-id9:abc@a.org13:received-froml3:IP48:10.0.0.9e{tags}7:command{}e",
        text(command)
    )
    .into_bytes()
}

fn read(octets: &[u8]) -> Request {
    let frame = frame::datagram(octets).unwrap();
    assert!(frame.cookie.starts_with(b"4242_"));
    Request::parse(&frame.body.unwrap()).unwrap()
}

#[test]
fn a_call_between_browser_and_telephony_as_opensips_words_it() {
    // rtpengine_offer("replace-origin replace-session-connection ICE=remove RTP/AVP rtcp-mux-demux in-iface=external
    // out-iface=internal trust-address codec-strip-opus")
    let lists = "9:directionl8:external8:internale5:flagsl13:trust-address16:codec-strip-opuse\
        7:replacel6:origin18:session-connectione18:transport-protocol7:RTP/AVP8:rtcp-muxl5:demuxe";
    let offer = read(&datagram(0, WEB, "3:ICE6:remove", lists, "8:from-tag1:a", "offer"));
    assert_eq!(
        (offer.verb, offer.call_id.as_str(), offer.from_tag.as_str()),
        (Verb::Offer, "abc@a.org", "a")
    );
    assert!(offer.flags.unknown.is_empty() && offer.to_tag.is_none());
    let when = (Instant::now(), 0);
    let mut bridge = Bridge::new(CallId(1), settings(), Arc::default(), Seed([9; 32]), when, &offer).unwrap();
    assert!(matches!(bridge.poll_command(), Some(Command::Reserve { pairs: 2, .. })));
    let at = |port| std::net::SocketAddr::from(([10, 0, 0, 1], port));
    let pair = |port| PortPair { rtp: at(port), rtcp: at(port + 1) };
    bridge.handle(Instant::now(), Input::Reserved(vec![pair(20_000), pair(20_002)]));
    let inside = said(&mut bridge);
    assert!(
        inside.contains("m=audio 20000 RTP/AVP 9 0 8 110\r\n")
            && inside.contains("o=- 46117 2 IN IP4 10.0.0.1\r\n")
    );

    // rtpengine_answer("replace-origin DTLS=passive") of a reply: both tags, the caller's first.
    let lists = "7:replacel6:origine";
    let tags = "8:from-tag1:a6:to-tag1:b";
    let answer = read(&datagram(1, PHONE, "4:DTLS7:passive", lists, tags, "answer"));
    assert_eq!(bridge.is_meant(&answer).map(|rank| rank > 0), Some(true));
    bridge.request(Instant::now(), &answer);
    let outside = said(&mut bridge);
    assert!(
        outside.contains("a=setup:passive\r\n") && outside.contains("UDP/TLS/RTP/SAVPF 8 0 101\r\n"),
        "{outside}"
    );

    // rtpengine_delete() of a BYE by the called one: its tag, and no other.
    let delete = read(&datagram(2, "", "", "", "8:from-tag1:b", "delete"));
    assert_eq!(delete.verb, Verb::Delete);
    assert!(bridge.is_meant(&delete).is_some());
    bridge.delete(Instant::now(), Duration::ZERO);
    assert_eq!(commands(&mut bridge).last(), Some(&Command::Ended));
}

#[test]
fn its_other_spellings_are_understood() {
    // address-family=IP6 becomes a key with a space; via-branch=1, delete-delay=30, a flag with a value that it does not know.
    let lists = "5:flagsl12:generate-midee";
    let lists = lists.replace("ee", "e") + "18:transport-protocol17:UDP/TLS/RTP/SAVPF";
    let spot = "14:address family3:IP612:delete-delayi30e4:SDES3:off";
    let tags = "10:via-branch7:z9hG4bK8:from-tag1:a";
    let request = read(&datagram(3, PHONE, spot, &lists, tags, "offer"));
    assert_eq!((request.flags.ipv4, request.delete_delay), (Some(false), Some(30)));
    assert_eq!(request.via_branch.as_deref(), Some("z9hG4bK"));
    assert!(request.flags.sdes.off && request.flags.generate_mid && request.flags.unknown.is_empty());
    // An answer in an ACK: the module swaps the tags, so that the offerer's is in front again.
    let request = read(&datagram(4, WEB, "", "", "8:from-tag1:b6:to-tag1:a", "answer"));
    assert_eq!((request.from_tag.as_str(), request.to_tag.as_deref()), ("b", Some("a")));
    // Its ping, before anything else.
    let ping = frame::datagram(b"4242_5 d7:command4:pinge").unwrap();
    assert_eq!(Request::parse(&ping.body.unwrap()).unwrap().verb, Verb::Ping);
    let query = read(&datagram(6, "", "", "", "8:from-tag1:a6:to-tag1:b", "query"));
    assert_eq!(query.verb, Verb::Query);
}
