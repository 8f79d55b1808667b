//! Broken requests: an error answer in rtpengine's words, and nothing left behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;

use sallyport_plan::Refusal;
use sallyport_proto::ng::{Form, Value, frame};

use super::browser::Browser;
use super::harness::{Control, Net, SOON, until};
use super::ng::{Lab, inward, lab, request, text, to};

/// The next answer on a stream.
fn hear(stream: &mut TcpStream) -> Value {
    let mut room = [0; 4096];
    let length = stream.read(&mut room).unwrap();
    frame::datagram(&room[..length]).unwrap().body.unwrap()
}

fn connect(lab: &Lab) -> TcpStream {
    let stream = TcpStream::connect(lab.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

#[test]
fn what_is_broken_is_answered_and_leaves_nothing() {
    let lab = lab("");
    let offer = Browser::new(&lab.relay, lab.browser(1)).offer("actpass");
    for cut in (0..offer.len()).step_by(7) {
        let answer = lab.ask(&request("offer", "cut", inward(&offer[..cut])));
        assert!(["ok", "error"].contains(&text(&answer, "result")), "{answer:?}");
        lab.ask(&request("delete", "cut", vec![]));
    }
    for (strange, reason) in [
        (offer.replace("a=rtcp-mux\r\n", ""), "rtcp-mux"),
        (offer.replace("sha-256", "sha-1"), ""),
        (offer.replace("m=audio", "m=image"), "No audio or video"),
        (offer.replace("m=audio", "m=video"), "No codec"),
        (offer.replace("UDP/TLS/RTP/SAVPF", "DCCP/TLS/RTP/SAVPF"), "transport protocol"),
    ] {
        let error = lab.error(&request("offer", "strange", inward(&strange)));
        assert!(error.contains(reason), "{error}");
    }
    let both = lab.error(&request("offer", "both", vec![("sdp", Value::text(&offer))]));
    assert!(both.contains("Both sides are WebRTC"), "{both}");
    assert_eq!(lab.error(&request("answer", "nobody", to("two", inward(&offer)))), "Unknown call-id");
    assert_eq!(lab.error(&request("query", "nobody", vec![])), "Unknown call-id");
    lab.relay.state().refuse_reserve = Some(Refusal::NoPorts);
    assert_eq!(lab.error(&request("offer", "full", inward(&offer))), "Ran out of ports");
    lab.is_clean();
}

#[test]
fn dictionaries_of_the_wrong_kind_are_refused_in_rtpengines_words() {
    let lab = lab("");
    let before = lab.control.descriptors();
    let deep =
        |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let phone = lab.phone(30_000);
    let sdp = format!("3:sdp{}:{phone}", phone.len());
    for (number, (body, reason)) in [
        (String::new(), "no payload"),
        ("rubbish".into(), "Invalid NG data format"),
        ("i1e".into(), "Invalid NG data format"),
        ("le".into(), "Invalid NG data format"),
        ("5:hello".into(), "Invalid NG data format"),
        ("d".into(), "Could not decode bencode dictionary"),
        ("d7:command4:ping".into(), "Could not decode bencode dictionary"),
        ("d7:command4:pingeX".into(), "Could not decode bencode dictionary"),
        ("d7:command4:ping7:command4:pinge".into(), "Could not decode bencode dictionary"),
        ("d7:command999999999:pinge".into(), "Could not decode bencode dictionary"),
        ("di1e4:pinge".into(), "Could not decode bencode dictionary"),
        (format!("d7:command4:ping5:flags{}e", deep("l", "e", 2000)), "too deep"),
        (format!("d7:command4:ping1:a{}e", deep("d1:a", "e", 2000)), "ecode"),
        ("{\"command\":".into(), "Failed to parse JSON document"),
        ("{\"command\":\"ping\",}".into(), "Failed to parse JSON document"),
        ("{\"command\":1e400}".into(), "Failed to parse JSON document"),
        (format!("{{\"command\":{}}}", deep("[", "]", 10_000)), "JSON"),
        ("de".into(), "no key \"command\""),
        ("d7:commandi7ee".into(), "no key \"command\""),
        ("d7:commandl4:pingee".into(), "no key \"command\""),
        ("d7:command5:dancee".into(), "Unrecognized command"),
        ("d7:command15:start recordinge".into(), "Unrecognized command"),
        ("d7:command10:play mediae".into(), "Unrecognized command"),
        ("d7:command0:e".into(), "Unrecognized command"),
        ("d7:command5:offere".into(), "No SDP body in message"),
        ("d7:call-id1:a7:command5:offer8:from-tag1:b3:sdpi3ee".into(), "No SDP body in message"),
        ("d7:call-id1:a7:command5:offer8:from-tag1:b3:sdp2:\u{7f}\u{7f}e".into(), "Failed to parse SDP"),
        (format!("d7:command5:offer8:from-tag1:b{sdp}e"), "No call-id in message"),
        (format!("d7:call-idle7:command5:offer8:from-tag1:b{sdp}e"), "No call-id in message"),
        (format!("d7:call-id1:a7:command5:offer8:from-tagde{sdp}e"), "No from-tag in message"),
        (
            format!("d7:call-id600:{}7:command5:offer8:from-tag1:b{sdp}e", "c".repeat(600)),
            "call-id is too long",
        ),
        (format!("d7:call-id1:a7:command6:answer8:from-tag1:b{sdp}e"), "No to-tag in message"),
        (format!("d7:call-id1:a7:command6:answer8:from-tag1:b{sdp}6:to-tag1:ce"), "Unknown call-id"),
        ("d7:command6:deletee".into(), "No call-id in message"),
        ("d7:command5:querye".into(), "No call-id in message"),
    ]
    .into_iter()
    .enumerate()
    {
        let cookie = format!("odd_{number}");
        let answer = lab.exchange(format!("{cookie} {body}").as_bytes(), &cookie);
        assert_eq!(text(&answer, "result"), "error", "{body}");
        assert!(text(&answer, "error-reason").contains(reason), "{body}: {answer:?}");
    }
    lab.is_clean();
    until("no descriptor is left", || lab.control.descriptors() <= before);
}

#[test]
fn flags_of_the_wrong_kind_are_as_if_they_were_not_there() {
    let lab = lab("");
    let odd = [
        Value::Int(7),
        Value::text("\u{1}\u{2}"),
        Value::List(vec![Value::Int(1)]),
        Value::dict([("a", Value::Int(1))]),
    ];
    let names = [
        "flags",
        "replace",
        "direction",
        "rtcp-mux",
        "SDES",
        "codec",
        "received-from",
        "supports",
        "via-branch",
        "address-family",
        "ICE",
        "DTLS",
        "delete-delay",
        "rtpp-flags",
        "never heard of",
        "transport-protocol",
    ];
    for value in odd {
        let members = names.iter().map(|name| (*name, value.clone()));
        let members = members.chain([("sdp", Value::text(lab.phone(30_000)))]).collect();
        let offer = lab.sdp(&request("offer", "odd", members));
        assert!(offer.contains(" RTP/AVP 0 8 101\r\n"), "{offer}");
        let deleted = lab.ask(&request("delete", "odd", vec![("delete-delay", Value::text("soon"))]));
        assert_eq!(text(&deleted, "result"), "ok");
        lab.is_clean();
    }
}

#[test]
fn what_is_too_long_is_answered_by_every_way_in() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("ng");
    let lab = lab("");
    let large = |octets: usize| format!("{}a=x:{}\r\n", lab.phone(30_000), "y".repeat(octets));
    // As much as a datagram can hold is carried.
    let sdp = lab.sdp(&request("offer", "udp", vec![("sdp", Value::text(large(64_000)))]));
    assert!(sdp.len() > 64_000);
    lab.ask(&request("delete", "udp", vec![]));
    let sections = format!("{}{}", lab.phone(30_000), "m=audio 9 RTP/AVP 0\r\n".repeat(1000));
    let reason = lab.error(&request("offer", "udp", vec![("sdp", Value::text(sections))]));
    assert!(reason.contains("Failed to parse SDP"), "{reason}");
    // A stream takes a megabyte, and says no to its SDP; what is longer ends it.
    let message = |octets: usize| {
        frame::emit(
            b"long",
            Form::Bencode,
            &request("offer", "tcp", vec![("sdp", Value::text(large(octets)))]),
        )
    };
    let mut stream = connect(&lab);
    stream.write_all(&message(1_000_000)).unwrap();
    assert!(text(&hear(&mut stream), "error-reason").contains("longer than"));
    stream.write_all(b"next d7:command4:pinge").unwrap();
    assert_eq!(text(&hear(&mut stream), "result"), "pong", "the stream goes on");
    // It may be closed before all is sent: the answer is there already.
    let _ = stream.write_all(&message(3_000_000));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty() || String::from_utf8_lossy(&rest).contains("Message too long"));
    // Half a message, and the client is gone.
    let mut stream = connect(&lab);
    stream.write_all(&message(1000)[..500]).unwrap();
    drop(stream);
    lab.is_clean();
    drop(lab);

    let net = Net::new();
    let control = Control::start(net, &[("ng", &format!("listen = ['unix:{}']", path.display()))]);
    let client = UnixDatagram::bind(folder.path().join("client")).unwrap();
    client.connect(&path).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.send(&[b"long d3:sdp100000:".as_slice(), &vec![b'x'; 100_000]].concat()).unwrap();
    let mut room = [0; 1000];
    let length = client.recv(&mut room).unwrap();
    assert!(String::from_utf8_lossy(&room[..length]).contains("Message too long"));
    client.send(b"next d7:command4:pinge").unwrap();
    let length = client.recv(&mut room).unwrap();
    assert_eq!(&room[..length], b"next d6:result4:ponge");
    drop(control);
}

#[test]
fn a_call_goes_on_after_broken_answers_and_offers() {
    let lab = lab("");
    let phone = lab.phone(30_000);
    let plain = |sdp: &str| vec![("sdp", Value::text(sdp))];
    lab.sdp(&request("offer", "sturdy", plain(&phone)));
    for broken in [
        "v=0".to_owned(),
        phone[..phone.find("m=audio").unwrap() + 10].to_owned(),
        phone.replace("RTP/AVP", "RTP/SAVP"),
        phone.replace("IP4 ", "IP6 "),
        phone.replace("m=audio", "m=video"),
        phone.replace("RTP/AVP 0 8 101", "RTP/AVP 101"),
    ] {
        let answer = lab.ask(&request("answer", "sturdy", to("two", plain(&broken))));
        assert_eq!(text(&answer, "result"), "error", "{broken}");
        assert!(lab.relay.state().plans.is_empty(), "nothing came of {broken}");
    }
    lab.sdp(&request("answer", "sturdy", to("two", plain(&lab.phone(40_000)))));
    let version = || lab.relay.state().plans.values().next().map(|plan| plan.version);
    assert_eq!(version(), Some(1));
    for cut in (1..phone.len()).step_by(11) {
        lab.ask(&request("offer", "sturdy", to("two", plain(&phone[..cut]))));
    }
    assert_eq!(version(), Some(1), "offers alone change nothing");
    lab.sdp(&request("offer", "sturdy", to("two", plain(&phone))));
    lab.sdp(&request("answer", "sturdy", to("two", plain(&lab.phone(40_002)))));
    assert_eq!(version(), Some(2));
    assert_eq!(lab.relay.state().ports.len(), 1);
    lab.ask(&request("delete", "sturdy", vec![]));
    lab.is_clean();
}
