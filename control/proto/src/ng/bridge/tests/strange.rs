//! Requests that were changed on their way: whatever comes, there is an answer, and a call that ends leaves nothing.

use super::*;
use proptest::prelude::*;

/// What happens to octets: some are changed, cut out, or doubled.
#[derive(Debug, Clone)]
enum Harm {
    Change(usize, u8),
    Cut(usize, usize),
    Double(usize, usize),
    Word(usize, &'static str),
}

/// Pieces that parsers trip over.
const WORDS: [&str; 14] = [
    "\r\n",
    "\n",
    "=",
    ":",
    " ",
    "0",
    "4294967296",
    "-1",
    "IN IP4 0.0.0.0",
    "IN IP6 ::",
    "m=audio 1 RTP/AVP 0\r\n",
    "a=rtcp:",
    "a=crypto:1 AEAD_AES_128_GCM inline:AAAA\r\n",
    "\u{0}",
];

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, octet)| Harm::Change(at, octet)),
        (any::<usize>(), 0..60_usize).prop_map(|(at, length)| Harm::Cut(at, length)),
        (any::<usize>(), 0..200_usize).prop_map(|(at, length)| Harm::Double(at, length)),
        (any::<usize>(), proptest::sample::select(WORDS.as_slice()))
            .prop_map(|(at, word)| Harm::Word(at, word)),
    ]
}

fn harmed(text: &str, harms: &[Harm]) -> Vec<u8> {
    let mut octets = text.as_bytes().to_vec();
    for harm in harms {
        let length = octets.len().max(1);
        match *harm {
            Harm::Change(at, octet) => {
                if let Some(old) = octets.get_mut(at % length) {
                    *old = octet;
                }
            }
            Harm::Cut(at, count) => {
                let at = (at % length).min(octets.len());
                octets.drain(at..(at + count).min(octets.len()));
            }
            Harm::Double(at, count) => {
                let at = (at % length).min(octets.len());
                let piece = octets[at..(at + count).min(octets.len())].to_vec();
                octets.splice(at..at, piece);
            }
            Harm::Word(at, word) => {
                let at = (at % length).min(octets.len());
                octets.splice(at..at, word.bytes());
            }
        }
    }
    octets
}

/// As octets on the wire, and read again: `None` where they are no request any more.
fn wire(verb: &str, sdp: &str, flags: &str, harms: &[Harm]) -> Option<Request> {
    let mut octets = Vec::new();
    let mut pairs = vec![
        ("command", Value::text(verb)),
        ("call-id", Value::text("c")),
        ("from-tag", Value::text("a")),
        ("sdp", Value::Text(harmed(sdp, harms))),
        ("flags", Value::List(flags.split(' ').map(Value::text).collect())),
    ];
    if verb == "answer" {
        pairs.push(("to-tag", Value::text("b")));
    }
    bencode::emit(&Value::dict(pairs), &mut octets);
    Request::parse(&bencode::parse(&octets).unwrap().0).ok()
}

/// Reserves, installs and hangs up as the relay and the owner of the calls do. What is said to the client, and whether
/// what was taken is given back.
fn drive(bridge: &mut Bridge) -> usize {
    let mut said = 0;
    while let Some(command) = bridge.poll_command() {
        match command {
            Command::Reserve { toward, pairs } => {
                let ip =
                    if toward.is_ipv4() { "10.0.0.1".parse().unwrap() } else { "fd00::1".parse().unwrap() };
                let at = |port| std::net::SocketAddr::new(ip, port);
                let taken = bridge.sections.iter().flat_map(|section| &section.ends);
                let taken = u16::try_from(taken.filter(|end| end.ports.is_some()).count()).unwrap();
                let pair = |number: u8| {
                    let port = 20_000 + 2 * (taken + u16::from(number));
                    PortPair { rtp: at(port), rtcp: at(port + 1) }
                };
                bridge.handle(Instant::now(), Input::Reserved((0..pairs).map(pair).collect()));
            }
            Command::Install(plan) => {
                assert_eq!(plan.validate(), Ok(()));
                bridge.handle(Instant::now(), Input::Installed(plan.version));
            }
            Command::Answer(text) => {
                said += 1;
                assert!(Sdp::parse(&text).is_ok(), "what we say is an SDP: {text}");
                assert!(text.lines().all(|line| line.len() > 1 && line.as_bytes()[1] == b'='), "{text}");
            }
            Command::Fail(failure) => {
                said += 1;
                assert!(!failure.text.is_empty());
            }
            _ => {}
        }
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn harmed_offers_and_answers_are_answered_once_and_the_call_can_be_deleted(
        which in 0..4_u8,
        offer in proptest::collection::vec(harm(), 0..4),
        answer in proptest::collection::vec(harm(), 0..4),
        again in proptest::collection::vec(harm(), 0..4),
    ) {
        let (first, flags, second) = match which {
            0 => (WEB, "RTP/AVP ICE=remove rtcp-mux-demux", video::FILM_PHONE),
            1 => (video::FILM_PHONE, "UDP/TLS/RTP/SAVPF ICE=force", WEB),
            2 => (video::FILM_PHONE, "RTP/AVP", video::FILM_PHONE),
            _ => (PHONE, "RTP/AVP", PHONE),
        };
        let Some(request) = wire("offer", first, flags, &offer) else { return Ok(()) };
        let when = (Instant::now(), 0);
        let Ok(mut bridge) = Bridge::new(CallId(1), settings(), Arc::default(), Seed([9; 32]), when, &request) else {
            return Ok(());
        };
        prop_assert_eq!(drive(&mut bridge), 1, "the offer");
        for (verb, sdp, harms) in [("answer", second, &answer), ("offer", first, &again), ("answer", second, &again)] {
            let Some(request) = wire(verb, sdp, flags, harms) else { continue };
            bridge.request(Instant::now(), &request);
            prop_assert_eq!(drive(&mut bridge), 1, "{} after the offer", verb);
        }
        bridge.delete(Instant::now(), Duration::ZERO);
        let last = commands(&mut bridge);
        // A call that ended before has said so then.
        prop_assert!(last.is_empty() || (last.contains(&Command::Remove) && last.last() == Some(&Command::Ended)));
        prop_assert_eq!(bridge.poll_timeout(), None);
    }

    #[test]
    fn harmed_dictionaries_are_requests_or_errors(harms in proptest::collection::vec(harm(), 1..6)) {
        let mut octets = b"cookie ".to_vec();
        let whole = request_text();
        octets.extend(harmed(&whole, &harms));
        if let Some(frame) = crate::ng::frame::datagram(&octets)
            && let Ok(value) = &frame.body
        {
            let _ = Request::parse(value);
        }
        let _ = crate::ng::frame::stream(&octets);
    }
}

/// As Kamailio writes it.
fn request_text() -> String {
    let mut octets = Vec::new();
    let list = |words: &[&str]| Value::List(words.iter().map(Value::text).collect());
    let message = Value::dict([
        ("supports", list(&["load limit"])),
        ("sdp", Value::text(PHONE)),
        ("ICE", Value::text("remove")),
        ("flags", list(&["trust-address"])),
        ("replace", list(&["origin", "session-connection"])),
        ("rtcp-mux", list(&["demux"])),
        ("codec", Value::dict([("strip", list(&["all"])), ("except", list(&["PCMA"]))])),
        ("delete-delay", Value::Int(5)),
        ("transport-protocol", Value::text("RTP/AVP")),
        ("call-id", Value::text("a@b")),
        ("received-from", list(&["IP4", "192.0.2.1"])),
        ("from-tag", Value::text("abc")),
        ("command", Value::text("offer")),
    ]);
    bencode::emit(&message, &mut octets);
    String::from_utf8(octets).unwrap()
}
