//! Calls under the signalling of somebody else, who speaks rtpengine's NG protocol.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use sallyport_plan::{Mute, Profile, Protection, Refusal, Zone};
use sallyport_proto::ng::{Form, Value, frame};

use super::browser::{Browser, value};
use super::harness::{Control, Net, SOON, until};
use super::relay::Relay;

/// A client with nothing but sockets, the daemon, and the relay that it plays.
pub struct Lab {
    pub control: Control,
    pub relay: Relay,
    client: UdpSocket,
    cookie: std::cell::Cell<u32>,
}

/// Starts it with more lines for `[ng]`.
pub fn lab(lines: &str) -> Lab {
    let net = Net::new();
    let at = address(&net);
    let client = UdpSocket::bind((net.http().ip(), 0)).unwrap();
    let section = format!("listen = ['{at}']\n{lines}");
    let control = Control::start(net, &[("ng", &section)]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    client.connect(at).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    Lab { control, relay, client, cookie: std::cell::Cell::new(0) }
}

fn address(net: &Net) -> SocketAddr {
    SocketAddr::new(net.http().ip(), 2223)
}

pub fn texts(words: &[&str]) -> Value {
    Value::List(words.iter().map(Value::text).collect())
}

/// Members that every request of a call has.
pub fn request<'a>(command: &'a str, call: &'a str, more: Vec<(&'a str, Value)>) -> Value {
    let own =
        [("command", Value::text(command)), ("call-id", Value::text(call)), ("from-tag", Value::text("one"))];
    Value::dict(own.into_iter().chain(more))
}

/// Kamailio's flags toward telephony.
pub fn inward<'a>(sdp: &str) -> Vec<(&'a str, Value)> {
    vec![
        ("sdp", Value::text(sdp)),
        ("ICE", Value::text("remove")),
        ("transport-protocol", Value::text("RTP/AVP")),
        ("rtcp-mux", texts(&["demux"])),
        ("flags", texts(&["trust-address", "no-such-flag"])),
        ("replace", texts(&["origin", "session-connection"])),
        ("direction", texts(&["external", "internal"])),
    ]
}

/// Kamailio's flags toward a browser.
pub fn outward<'a>(sdp: &str) -> Vec<(&'a str, Value)> {
    vec![
        ("sdp", Value::text(sdp)),
        ("ICE", Value::text("force")),
        ("transport-protocol", Value::text("UDP/TLS/RTP/SAVPF")),
        ("rtcp-mux", texts(&["offer", "require"])),
        ("flags", texts(&["generate-mid"])),
        ("replace", texts(&["origin"])),
        ("direction", texts(&["priv", "pub"])),
    ]
}

/// With the tag of the one who answers.
pub fn to(tag: &str, mut members: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    members.push(("to-tag", Value::text(tag)));
    members
}

impl Lab {
    fn next(&self) -> String {
        self.cookie.set(self.cookie.get() + 1);
        format!("test_{}", self.cookie.get())
    }

    pub fn ask(&self, message: &Value) -> Value {
        let cookie = self.next();
        self.exchange(&frame::emit(cookie.as_bytes(), Form::Bencode, message), &cookie)
    }

    pub fn exchange(&self, octets: &[u8], cookie: &str) -> Value {
        self.client.send(octets).unwrap();
        let mut room = vec![0; 65_536];
        let length = self.client.recv(&mut room).expect("an answer");
        let frame = frame::datagram(&room[..length]).unwrap();
        assert_eq!(frame.cookie, cookie.as_bytes());
        frame.body.unwrap()
    }

    /// The SDP of an answer that is none of an error.
    pub fn sdp(&self, message: &Value) -> String {
        let answer = self.ask(message);
        assert_eq!(text(&answer, "result"), "ok", "{}", text(&answer, "error-reason"));
        text(&answer, "sdp").to_owned()
    }

    pub fn error(&self, message: &Value) -> String {
        let answer = self.ask(message);
        assert_eq!(text(&answer, "result"), "error", "{}", text(&answer, "sdp"));
        text(&answer, "error-reason").to_owned()
    }

    /// Where NG is heard.
    pub fn address(&self) -> SocketAddr {
        address(&self.control.net)
    }

    /// Pings so far, of whomever.
    pub fn heard(&self) -> i64 {
        let statistics = self.ask(&Value::dict([("command", Value::text("statistics"))]));
        let pings = |all: &Value| all.get("controlstatistics")?.get("totalpingcount")?.as_int();
        statistics.get("statistics").and_then(pings).unwrap_or(0)
    }

    /// Nothing is left anywhere.
    pub fn is_clean(&self) {
        self.control.wait_until_idle();
        self.relay.wait_until_empty();
        assert_eq!(
            self.ask(&Value::dict([("command", Value::text("list"))])).get("calls"),
            Some(&Value::List(vec![]))
        );
    }

    pub fn browser(&self, number: u16) -> SocketAddr {
        self.control.net.browser(number)
    }

    /// What a telephone says.
    pub fn phone(&self, port: u16) -> String {
        let ip = self.control.net.pbx().ip();
        format!(
            "v=0\r\no=phone 17 1 IN IP4 {ip}\r\ns=call\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 8 101\r\n\
             a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n\
             a=ptime:20\r\na=sendrecv\r\n"
        )
    }
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn every_listener_answers_in_the_form_it_was_asked_in() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("ng");
    let net = Net::new();
    let at = address(&net);
    let section = format!("listen = ['{at}', 'unix:{}']", path.display());
    let control = Control::start(net, &[("ng", &section)]);
    let client = UdpSocket::bind((at.ip(), 0)).unwrap();
    client.connect(at).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let mut room = [0; 1000];
    for (question, answer) in [
        (&b"1 d7:command4:pinge"[..], &b"1 d6:result4:ponge"[..]),
        (b"2 {\"command\":\"ping\"}", b"2 {\"result\":\"pong\"}"),
        (b"3 d7:command4:danee", b"3 d12:error-reason20:Unrecognized command6:result5:errore"),
        (b"4 d7:command", b"4 d12:error-reason35:Could not decode bencode dictionary6:result5:errore"),
        (b"5 rubbish", b"5 d12:error-reason22:Invalid NG data format6:result5:errore"),
        (b"6 ", b"6 d12:error-reason25:Invalid data (no payload)6:result5:errore"),
        (b"7 {\"command\":", b"7 {\"error-reason\":\"Failed to parse JSON document\",\"result\":\"error\"}"),
    ] {
        client.send(question).unwrap();
        let length = client.recv(&mut room).unwrap();
        assert_eq!(String::from_utf8_lossy(&room[..length]), String::from_utf8_lossy(answer));
    }
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"a d7:command4:pinge\nb {\"command\":").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all(b"\"ping\"}").unwrap();
    let expected = b"a d6:result4:pongeb {\"result\":\"pong\"}";
    let mut read = vec![0; expected.len()];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read, expected);
    let local = std::os::unix::net::UnixDatagram::bind(folder.path().join("client")).unwrap();
    local.connect(&path).unwrap();
    local.set_read_timeout(Some(SOON)).unwrap();
    local.send(b"u d7:command4:pinge").unwrap();
    let length = local.recv(&mut room).unwrap();
    assert_eq!(&room[..length], b"u d6:result4:ponge");
    drop(control);
}

#[test]
fn a_browser_calls_telephony_holds_and_goes() {
    let lab = lab("");
    let mut browser = Browser::new(&lab.relay, lab.browser(1));
    let offer = browser.offer("actpass");
    let inside = lab.sdp(&request("offer", "web@test", inward(&offer)));
    let port: u16 = value(&inside, "m=audio ").split(' ').next().unwrap().parse().unwrap();
    let ports = lab.relay.state().ports.values().next().unwrap()[0];
    assert_eq!((port, value(&inside, "a=rtcp:")), (ports.rtp.port(), ports.rtcp.port().to_string().as_str()));
    assert_eq!(value(&inside, "c=IN IP4 "), ports.rtp.ip().to_string());
    assert!(
        inside.contains(" RTP/AVP 111 0 8 110 126\r\n") && inside.contains("a=rtpmap:111 opus/48000/2\r\n"),
        "{inside}"
    );
    for strange in
        ["ice-", "candidate", "fingerprint", "setup", "mux", "BUNDLE", "extmap", "ssrc", "mid:", "127.0.0.1"]
    {
        assert!(!inside.contains(strange), "{strange} in {inside}");
    }
    let answer = lab.sdp(&request("answer", "web@test", to("two", inward(&lab.phone(30_000)))));
    for needed in [
        "a=rtcp-mux\r\n",
        "a=group:BUNDLE 0\r\n",
        "a=mid:0\r\n",
        "a=setup:passive\r\n",
        "typ host",
        " UDP/TLS/RTP/SAVPF 0 8 101\r\n",
    ] {
        assert!(answer.contains(needed), "{needed} in {answer}");
    }
    let done = browser.connect(&answer);
    let call = lab.control.ask("GET", "/v1/calls").json()[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/calls/{call}");
    until("the call is connected", || lab.control.ask("GET", &path).json()["state"] == "connected");
    {
        let state = lab.relay.state();
        let plan = state.plans.values().next().unwrap();
        let [inward, outward] = plan.directions.as_slice() else { panic!("two directions") };
        assert_eq!(inward.open, Some(Protection::Srtp(done.send)));
        assert_eq!(outward.seal, Some(Protection::Srtp(done.receive)));
        assert_eq!((&inward.seal, &outward.open), (&Some(Protection::Plain), &Some(Protection::Plain)));
        assert_eq!((inward.rtp.remote.port(), inward.rtcp.remote.port()), (30_000, 30_001));
        assert_eq!(outward.ingress.len(), 2);
        assert!(inward.payload_types.iter().any(|map| (map.from.0, map.to.0) == (0, 0)));
        assert!(inward.payload_types.iter().any(|map| (map.from.0, map.to.0) == (126, 101)));
        assert_eq!(plan.consents.len(), 1);
    }
    holds(&lab, &browser);
    let told = lab.ask(&request("delete", "web@test", vec![]));
    assert_eq!((text(&told, "result"), text(&told, "warning")), ("ok", ""));
    assert!(browser.hears_a_record(), "the browser is told by close_notify");
    lab.is_clean();
    assert!(!text(&lab.ask(&request("delete", "web@test", vec![])), "warning").is_empty());
    assert_eq!(lab.control.log().matches("no-such-flag").count(), 1, "told once");
}

/// Telephony holds and moves; the browser's side stays as it is.
fn holds(lab: &Lab, browser: &Browser) {
    let hold = lab.phone(30_010).replace("sendrecv", "sendonly").replace(" 17 1 ", " 17 2 ");
    let swapped = |sdp: &str, more: Vec<(&'static str, Value)>| {
        let mut members = more;
        members.push(("from-tag", Value::text("two")));
        members.push(("to-tag", Value::text("one")));
        members[0] = ("sdp", Value::text(sdp));
        members
    };
    let offered = lab.sdp(&request("offer", "web@test", swapped(&hold, outward(""))));
    assert!(offered.contains("a=sendonly\r\n") && offered.contains("a=mid:0\r\n"), "{offered}");
    let held = browser.offer("active").replace("sendrecv", "recvonly").replace("111 0 8 110 126", "0");
    let answered = lab.sdp(&request("answer", "web@test", swapped(&held, inward(""))));
    assert!(answered.contains("a=recvonly\r\n") && answered.contains(" RTP/AVP 0\r\n"), "{answered}");
    until("the new plan runs", || {
        let state = lab.relay.state();
        let plan = state.plans.values().next().unwrap();
        plan.directions[0].rtp.remote.port() == 30_010
            && plan.directions[0].mute == Mute::Held
            && plan.directions[1].mute == Mute::Open
            && plan.directions[0].open.is_some()
    });
}

#[test]
fn a_browser_starts_over_with_other_credentials_and_another_certificate() {
    let lab = lab("");
    let mut first = Browser::new(&lab.relay, lab.browser(1));
    lab.sdp(&request("offer", "anew", inward(&first.offer("actpass"))));
    let before = lab.sdp(&request("answer", "anew", to("two", inward(&lab.phone(30_000)))));
    let old = first.connect(&before);
    let opens = |key| {
        let state = lab.relay.state();
        state.plans.values().next().is_some_and(|plan| plan.directions[0].open == Some(Protection::Srtp(key)))
    };
    until("keys are in the plan", || opens(old.send.clone()));
    let mut second = Browser::new(&lab.relay, lab.browser(2));
    lab.sdp(&request("offer", "anew", to("two", inward(&second.offer("actpass")))));
    let after = lab.sdp(&request("answer", "anew", to("two", inward(&lab.phone(30_000)))));
    assert_ne!(value(&before, "a=ice-ufrag:"), value(&after, "a=ice-ufrag:"), "ICE starts over");
    let new = second.connect(&after);
    until("the new keys are in the plan", || opens(new.send.clone()));
    let flow = lab.relay.state().plans.values().next().unwrap().consents[0].flow;
    assert_eq!(flow.remote, second.address);
    lab.ask(&request("delete", "anew", vec![]));
    lab.is_clean();
}

#[test]
fn telephony_calls_a_browser() {
    let lab = lab("");
    let mut browser = Browser::called(&lab.relay, lab.browser(1));
    let offer = lab.sdp(&request("offer", "tel@test", outward(&lab.phone(30_000))));
    for needed in [
        " UDP/TLS/RTP/SAVPF 0 8 101\r\n",
        "a=setup:actpass\r\n",
        "a=rtcp-mux\r\n",
        "a=mid:0\r\n",
        "a=group:BUNDLE 0\r\n",
        "a=ice-ufrag:",
        "a=fingerprint:sha-256 ",
        "typ host",
        "a=sendrecv\r\n",
    ] {
        assert!(offer.contains(needed), "{needed} in {offer}");
    }
    assert_eq!(value(&offer, "c=IN IP4 "), lab.control.net.media().ip().to_string());
    let answer = browser.offer("active").replace("111 0 8 110 126", "8 126");
    let inside = lab.sdp(&request("answer", "tel@test", to("two", inward(&answer))));
    assert!(inside.contains(" RTP/AVP 8 126\r\n") && !inside.contains("mid:"), "{inside}");
    let done = browser.connect(&offer);
    assert_eq!(done.profile, Profile::AeadAes128Gcm);
    until("keys are in the plan", || {
        let state = lab.relay.state();
        let plan = state.plans.values().next();
        plan.is_some_and(|plan| plan.directions[0].seal == Some(Protection::Srtp(done.receive.clone())))
    });
    lab.ask(&request("delete", "tel@test", vec![]));
    lab.is_clean();
}

#[test]
fn telephony_calls_telephony() {
    let lab = lab("");
    let plain = |sdp: String| vec![("sdp", Value::text(sdp)), ("replace", texts(&["origin"]))];
    let offer = lab.sdp(&request("offer", "plain", plain(lab.phone(30_000))));
    assert!(
        offer.contains(" RTP/AVP 0 8 101\r\n") && !offer.contains(&lab.control.net.pbx().ip().to_string()),
        "{offer}"
    );
    let answer = lab.sdp(&request("answer", "plain", to("two", plain(lab.phone(40_000)))));
    {
        // The answer was not told before the relay carried it.
        let state = lab.relay.state();
        let plan = state.plans.values().next().expect("a plan");
        let flows: Vec<_> = plan.directions.iter().map(|one| (one.rtp.zone, one.rtp.remote.port())).collect();
        assert_eq!(flows, [(Zone::Inside, 40_000), (Zone::Inside, 30_000)]);
        let ours = plan.directions[0].ingress[0].local.port().to_string();
        assert_eq!(value(&answer, "m=audio ").split(' ').next(), Some(ours.as_str()));
    }
    lab.relay.state().refuse_install = Some(Refusal::Unreachable);
    let moved = lab.phone(30_020);
    lab.sdp(&request("offer", "plain", to("two", plain(moved.clone()))));
    let reason = lab.error(&request("answer", "plain", to("two", plain(lab.phone(40_000)))));
    assert!(reason.contains("no route"), "{reason}");
    lab.is_clean();
    assert_eq!(lab.error(&request("answer", "plain", to("two", plain(moved)))), "Unknown call-id");
}

#[test]
fn a_request_that_comes_again_does_nothing_twice() {
    let lab = lab("");
    let message = request("offer", "again", outward(&lab.phone(30_000)));
    let octets = frame::emit(b"again", Form::Json, &message);
    let answers: Vec<Value> = (0..3).map(|_| lab.exchange(&octets, "again")).collect();
    assert!(answers.windows(2).all(|two| two[0] == two[1]));
    assert_eq!(lab.relay.state().ports.len(), 1);
    let delete = frame::emit(b"gone", Form::Bencode, &request("delete", "again", vec![]));
    let gone = lab.exchange(&delete, "gone");
    assert_eq!((text(&gone, "result"), gone.get("warning")), ("ok", None));
    assert_eq!(lab.exchange(&delete, "gone"), gone, "not: unknown call");
    lab.is_clean();
}

#[test]
fn a_thousand_calls_leave_nothing() {
    let lab = lab("");
    let browser = Browser::new(&lab.relay, lab.browser(1));
    let web = browser.offer("actpass");
    let before = lab.control.descriptors();
    // More by hand: `NG_CYCLES=100000`, which tells memory and rate as well.
    let cycles: u32 = std::env::var("NG_CYCLES").map_or(1000, |cycles| cycles.parse().unwrap());
    let begun = std::time::Instant::now();
    for number in 0..cycles {
        if number % 10_000 == 9_999 {
            println!("{} cycles, {:?}, {} KiB", number + 1, begun.elapsed(), lab.control.resident());
        }
        let call = format!("cycle-{number}");
        let (offer, answer) = if number % 2 == 0 {
            (inward(&web), inward(&lab.phone(30_000)))
        } else {
            (outward(&lab.phone(30_000)), inward(&web.replace("actpass", "active")))
        };
        lab.sdp(&request("offer", &call, offer));
        lab.sdp(&request("answer", &call, to("two", answer)));
        assert_eq!(text(&lab.ask(&request("delete", &call, vec![])), "result"), "ok");
    }
    lab.is_clean();
    assert!(lab.control.descriptors() <= before);
}

#[test]
fn calls_that_nobody_answers_end_by_themselves() {
    let lab = lab("answer_timeout_s = 5");
    lab.sdp(&request("offer", "silent", outward(&lab.phone(30_000))));
    assert_eq!(
        lab.ask(&Value::dict([("command", Value::text("list"))])).get("calls"),
        Some(&texts(&["silent"]))
    );
    lab.is_clean();
}

#[test]
fn a_deleted_call_may_stay_a_while_and_is_revived_by_an_offer() {
    let lab = lab("");
    let delayed = |seconds| vec![("delete-delay", Value::Int(seconds))];
    lab.sdp(&request("offer", "late", outward(&lab.phone(30_000))));
    lab.ask(&request("delete", "late", delayed(600)));
    assert_eq!(lab.relay.state().ports.len(), 1, "not yet");
    lab.sdp(&request("offer", "late", outward(&lab.phone(30_002))));
    assert_eq!(lab.relay.state().ports.len(), 1, "the same call");
    lab.ask(&request("delete", "late", delayed(1)));
    lab.is_clean();
}

#[test]
fn what_comes_after_a_refused_branch_may_be_of_another_kind() {
    let lab = lab("");
    lab.sdp(&request("offer", "serial", outward(&lab.phone(30_000))));
    let plain = vec![("sdp", Value::text(lab.phone(30_000)))];
    let offer = lab.sdp(&request("offer", "serial", plain));
    assert!(offer.contains(" RTP/AVP "), "{offer}");
    until("the first one is gone", || lab.relay.state().ports.len() == 1);
    let early =
        lab.sdp(&request("answer", "serial", to("two", vec![("sdp", Value::text(lab.phone(40_000)))])));
    let late =
        lab.sdp(&request("answer", "serial", to("three", vec![("sdp", Value::text(lab.phone(40_002)))])));
    assert_eq!(value(&early, "m=audio "), value(&late, "m=audio "));
    until("the second answer counts", || {
        lab.relay.state().plans.values().next().unwrap().directions[0].rtp.remote.port() == 40_002
    });
    lab.ask(&request("delete", "serial", vec![]));
    lab.is_clean();
}

#[test]
fn branches_of_one_invite_are_calls_of_their_own() {
    let lab = lab("");
    let branch = |name: &str, mut members: Vec<(&'static str, Value)>| {
        members.push(("via-branch", Value::text(name)));
        members
    };
    let phone = lab.phone(30_000);
    lab.sdp(&request("offer", "fork", branch("b1", outward(&phone))));
    lab.sdp(&request("offer", "fork", branch("b2", outward(&phone))));
    assert_eq!(lab.relay.state().ports.len(), 2);
    let answer = Browser::new(&lab.relay, lab.browser(1)).offer("active");
    lab.sdp(&request("answer", "fork", branch("b2", to("two", inward(&answer)))));
    lab.ask(&request("delete", "fork", branch("b1", vec![])));
    until("one is left", || lab.relay.state().ports.len() == 1);
    let query = lab.ask(&request("query", "fork", vec![]));
    assert!(query.get("tags").unwrap().get("two").is_some(), "{query:?}");
    lab.ask(&request("delete", "fork", vec![]));
    lab.is_clean();
}

#[test]
fn a_new_control_goes_on_with_calls_of_ng() {
    let mut lab = lab("");
    let mut browser = Browser::new(&lab.relay, lab.browser(1));
    lab.sdp(&request("offer", "web", inward(&browser.offer("actpass"))));
    let answer = lab.sdp(&request("answer", "web", to("two", inward(&lab.phone(30_000)))));
    browser.connect(&answer);
    until("keys are in the plan", || {
        lab.relay.state().plans.values().next().is_some_and(|plan| plan.directions[0].open.is_some())
    });
    lab.control.restart();
    lab.control.wait_until_ready();
    until("the call is adopted", || {
        let calls = lab.control.ask("GET", "/v1/calls").json();
        calls[0]["state"] == "connected" && calls[0]["to"] == "ng:web"
    });
    let moved = lab.sdp(&request("offer", "web", to("two", inward(&browser.offer("actpass")))));
    assert!(moved.contains(" RTP/AVP "), "{moved}");
    let again = lab.sdp(&request("answer", "web", to("two", inward(&lab.phone(30_050)))));
    for name in ["a=ice-ufrag:", "a=fingerprint:"] {
        assert_eq!(value(&again, name), value(&answer, name), "ICE and DTLS go on");
    }
    until("the new plan runs", || {
        lab.relay.state().plans.values().next().unwrap().directions[0].rtp.remote.port() == 30_050
    });
    assert_eq!(text(&lab.ask(&request("delete", "web", vec![])), "result"), "ok");
    lab.is_clean();
}

#[test]
fn strangers_are_not_heard() {
    let lab = lab("peers = ['192.0.2.0/24']");
    lab.client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    lab.client.send(b"1 d7:command4:pinge").unwrap();
    assert!(lab.client.recv(&mut [0; 100]).is_err());
    let mut stream = TcpStream::connect(address(&lab.control.net)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(stream.read(&mut [0; 100]).unwrap_or(0), 0, "closed");
}
