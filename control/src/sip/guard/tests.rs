use super::*;
use rsipstack::sip::SipMessage;

/// A sound request; `{method}` and lines may be put in its place.
fn message(method: &str, change: &[(&str, &str)], extra: &str, body: &str) -> String {
    let mut lines = vec![
        format!("{method} sip:bob@example.com SIP/2.0"),
        "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1;rport".into(),
        "Max-Forwards: 70".into(),
        "From: <sip:alice@example.com>;tag=a1".into(),
        "To: <sip:bob@example.com>".into(),
        "Call-ID: c1".into(),
        format!("CSeq: 1 {method}"),
        format!("Content-Length: {}", body.len()),
    ];
    for (start, with) in change {
        lines.retain_mut(|line| {
            if line.starts_with(start) {
                (*with).clone_into(line);
            }
            !line.is_empty()
        });
    }
    format!("{}\r\n{extra}\r\n{body}", lines.join("\r\n"))
}

fn status(raw: &[u8], framed: bool) -> u16 {
    judged(raw, if framed { Way::Stream } else { Way::Datagram })
}

fn judged(raw: &[u8], way: Way) -> u16 {
    match guard(raw, way) {
        Verdict::Accept(_) => 0,
        Verdict::Reply(reply) => reply.status,
        Verdict::Drop(_) => 1,
    }
}

#[test]
fn each_rule_has_its_answer() {
    let two_lengths = "Content-Length: 3\r\n";
    let cases: &[(&str, String, bool, u16)] = &[
        ("sound", message("INVITE", &[], "", "v=0\r\n"), false, 0),
        ("sound on a stream", message("OPTIONS", &[], "", ""), true, 0),
        ("unknown method", message("DANCE", &[], "", ""), false, 405),
        ("known but unwanted method", message("REGISTER", &[], "", ""), false, 405),
        ("method in small letters", message("invite", &[], "", ""), false, 405),
        ("version", message("INVITE", &[("INVITE", "INVITE sip:b@c SIP/7.0")], "", ""), false, 505),
        ("no version", message("INVITE", &[("INVITE", "INVITE sip:b@c")], "", ""), false, 400),
        ("two blanks", message("INVITE", &[("INVITE", "INVITE  sip:b@c SIP/2.0")], "", ""), false, 400),
        ("scheme", message("INVITE", &[("INVITE", "INVITE http://b SIP/2.0")], "", ""), false, 416),
        ("tel", message("INVITE", &[("INVITE", "INVITE tel:+1 SIP/2.0")], "", ""), false, 0),
        (
            "length beyond datagram",
            message("INVITE", &[("Content-L", "Content-Length: 99")], "", "v"),
            false,
            400,
        ),
        ("two lengths", message("INVITE", &[], two_lengths, "v=0"), false, 400),
        (
            "length is no number",
            message("INVITE", &[("Content-L", "Content-Length: +3")], "", "v=0"),
            false,
            400,
        ),
        ("no length on a stream", message("INVITE", &[("Content-L", "")], "", ""), true, 400),
        ("no To", message("INVITE", &[("To", "")], "", ""), false, 400),
        (
            "no From tag, as in RFC 2543",
            message("INVITE", &[("From", "From: <sip:a@b;tag=x>")], "", ""),
            false,
            0,
        ),
        ("no hops left", message("INVITE", &[("Max", "Max-Forwards: 0")], "", ""), false, 483),
        ("no hops needed", message("OPTIONS", &[("Max", "Max-Forwards: 0")], "", ""), false, 0),
        ("unreadable body", message("INVITE", &[], "Content-Type: text/x\r\n", "x"), false, 415),
        ("unacceptable answer", message("INVITE", &[], "Accept: text/x\r\n", ""), false, 406),
        ("two Call-IDs", message("INVITE", &[], "i: c2\r\n", ""), false, 400),
        ("CSeq of another method", message("INVITE", &[("CSeq", "CSeq: 1 BYE")], "", ""), false, 400),
        ("CSeq too large", message("INVITE", &[("CSeq", "CSeq: 2147483648 INVITE")], "", ""), false, 400),
        ("Max-Forwards", message("INVITE", &[("Max", "Max-Forwards: many")], "", ""), false, 400),
        ("line without colon", message("INVITE", &[], "what is this\r\n", ""), false, 400),
        ("control character", message("INVITE", &[], "Subject: a\u{7}b\r\n", ""), false, 400),
        ("folded line", message("INVITE", &[], "Subject: a\r\n b\r\n", ""), false, 0),
        ("too many headers", message("INVITE", &[], &"X: y\r\n".repeat(120), ""), false, 400),
        ("extension", message("INVITE", &[], "Require: wings\r\n", ""), false, 420),
        ("extensions that we know", message("INVITE", &[], "Require: 100rel, Replaces\r\n", ""), false, 0),
        ("extension in ACK is passed over", message("ACK", &[], "Require: wings\r\n", ""), false, 0),
        ("broken ACK is not answered", message("ACK", &[("To", "")], "", ""), false, 1),
        ("no Via", message("INVITE", &[("Via", "")], "", ""), false, 1),
        ("not SIP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), false, 1),
        ("no end", "INVITE sip:b@c SIP/2.0\r\nVia: x\r\n".into(), false, 1),
        ("nothing", String::new(), false, 1),
    ];
    for (name, text, framed, expected) in cases {
        assert_eq!(status(text.as_bytes(), *framed), *expected, "{name}");
    }
}

#[test]
fn browsers_may_register_and_need_no_length() {
    let register = message("REGISTER", &[("Content-L", "")], "", "");
    for (way, expected) in [(Way::Datagram, 405), (Way::Stream, 400), (Way::WebSocket, 0)] {
        assert_eq!(judged(register.as_bytes(), way), expected, "{way:?}");
    }
    let publish = message("PUBLISH", &[], "", "");
    let Verdict::Reply(reply) = guard(publish.as_bytes(), Way::WebSocket) else { panic!("accepted") };
    let answer = String::from_utf8(reply.octets("192.0.2.1:5".parse().unwrap())).unwrap();
    assert!(answer.contains("\r\nAllow: ") && answer.contains(", REGISTER\r\n"), "{answer}");
}

#[test]
fn only_what_we_do_not_know_is_unsupported() {
    let text = message("INVITE", &[], "Require: timer, wings\r\nRequire: tail\r\n", "");
    let Verdict::Reply(reply) = guard(text.as_bytes(), Way::Datagram) else { panic!("accepted") };
    let answer = String::from_utf8(reply.octets("192.0.2.1:5".parse().unwrap())).unwrap();
    assert!(
        answer.starts_with("SIP/2.0 420 ") && answer.contains("\r\nUnsupported: wings, tail\r\n"),
        "{answer}"
    );
}

#[test]
fn responses_are_checked_and_never_answered() {
    let response = |start: &str, cseq: &str| {
        message("INVITE", &[("INVITE", start), ("CSeq", cseq)], "", "").into_bytes()
    };
    assert_eq!(status(&response("SIP/2.0 200 OK", "CSeq: 1 INVITE"), false), 0);
    assert_eq!(status(&response("SIP/2.0 299 ", "CSeq: 1 DANCE"), false), 0);
    for bad in ["SIP/7.0 200 OK", "SIP/2.0 20 OK", "SIP/2.0 700 OK", "SIP/2.0 +20 OK"] {
        assert_eq!(status(&response(bad, "CSeq: 1 INVITE"), false), 1, "{bad}");
    }
    assert_eq!(status(&response("SIP/2.0 200 OK", "CSeq: x INVITE"), false), 1);
}

/// Accepted octets as the stack's parser sees them.
fn parsed(raw: &[u8]) -> SipMessage {
    match guard(raw, Way::Datagram) {
        Verdict::Accept(octets) => SipMessage::try_from(&octets[..]).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn body(message: &SipMessage) -> &[u8] {
    match message {
        SipMessage::Request(request) => &request.body,
        SipMessage::Response(response) => &response.body,
    }
}

#[test]
fn a_datagram_without_a_length_keeps_its_body() {
    let text = message("INVITE", &[("Content-L", "")], "", "v=0\r\no=- 1 1 IN IP4 x\r\n");
    let alone = SipMessage::try_from(text.as_bytes()).unwrap();
    assert_eq!(body(&alone).len(), 0, "the stack has learnt it: the rule can go");
    assert_eq!(body(&parsed(text.as_bytes())), b"v=0\r\no=- 1 1 IN IP4 x\r\n");
}

#[test]
fn a_latin_1_line_costs_no_other_header() {
    let mut raw = message("INVITE", &[], "", "").into_bytes();
    let at = raw.windows(5).position(|five| five == b"From:").unwrap();
    raw.splice(at..at, b"Subject: caf\xe9\r\n".iter().copied());
    let count = |message: &SipMessage| match message {
        SipMessage::Request(request) => request.headers.len(),
        SipMessage::Response(_) => 0,
    };
    let alone = SipMessage::try_from(&raw[..]).unwrap();
    let guarded = parsed(&raw);
    assert!(count(&alone) < count(&guarded), "the stack has learnt it: the rule can go");
    assert!(guarded.to_string().contains("Subject: café"));
}

#[test]
fn what_follows_the_announced_body_is_cut_off() {
    let text = message("INVITE", &[("Content-L", "Content-Length: 2")], "", "v=0\r\n");
    let Verdict::Accept(octets) = guard(text.as_bytes(), Way::Datagram) else { panic!("refused") };
    assert!(octets.ends_with(b"\r\n\r\nv="));
}

#[test]
fn long_messages_are_dropped() {
    let long = message("INVITE", &[], "", &"x".repeat(MESSAGE_MAX));
    assert!(matches!(guard(long.as_bytes(), Way::Datagram), Verdict::Drop(Flaw::TooLong)));
    let head = message("INVITE", &[], &format!("X: {}\r\n", "y".repeat(20_000)), "");
    assert!(matches!(guard(head.as_bytes(), Way::Datagram), Verdict::Drop(Flaw::TooLong)));
}

#[test]
fn an_answer_names_the_source_and_tags_to() {
    let text = message("DANCE", &[], "v: SIP/2.0/UDP far.example;branch=z9hG4bK0\r\n", "");
    let Verdict::Reply(reply) = guard(text.as_bytes(), Way::Datagram) else { panic!("accepted") };
    let answer = String::from_utf8(reply.octets("198.51.100.9:6000".parse().unwrap())).unwrap();
    assert!(answer.starts_with("SIP/2.0 405 Method Not Allowed\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1;rport=6000;received=198.51.100.9\r\nVia: SIP/2.0/UDP far.example;branch=z9hG4bK0\r\n"), "{answer}");
    assert!(answer.contains("To: <sip:bob@example.com>;tag="));
    assert!(answer.contains("\r\nAllow: INVITE, ACK,"));
    assert!(answer.contains("\r\nCSeq: 1 DANCE\r\n") && answer.ends_with("Content-Length: 0\r\n\r\n"));
    assert!(matches!(guard(answer.as_bytes(), Way::Stream), Verdict::Accept(_)));
}

#[test]
fn no_octets_make_it_panic() {
    let sound = message("INVITE", &[], "", "v=0\r\n").into_bytes();
    for at in 0..sound.len() {
        for octet in [0, b'\r', b'\n', b' ', b':', b';', b'>', 0xff] {
            let mut raw = sound.clone();
            raw[at] = octet;
            for way in [Way::Datagram, Way::Stream, Way::WebSocket] {
                match guard(&raw, way) {
                    Verdict::Accept(octets) => drop(SipMessage::try_from(&octets[..])),
                    Verdict::Reply(reply) => drop(reply.octets(SocketAddr::from(([192, 0, 2, 1], 5060)))),
                    Verdict::Drop(_) => {}
                }
            }
        }
        guard(&sound[..at], Way::Datagram);
    }
}
