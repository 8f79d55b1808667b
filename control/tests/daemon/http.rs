//! The HTTP surface: every wrong request gets its right answer, and leaves nothing behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::harness::{Answer, Control, Net, Pairs, TOKEN, head, until};
use super::pbx::Pbx;
use super::relay::Relay;

const SDP: (&str, &str) = ("Content-Type", "application/sdp");
const FRAGMENT: (&str, &str) = ("Content-Type", "application/trickle-ice-sdpfrag");
const BEARER: (&str, &str) = ("Authorization", "Bearer a token for the tests");
const NOBODY: &str = "/v1/calls/00000000000000000000000000000000";

fn start(sections: &[(&str, &str)]) -> (Control, Relay, Pbx) {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, sections);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    (control, relay, pbx)
}

/// A sound offer, but for what is cut out or put in its place.
fn offer(changes: &[(&str, &str)]) -> String {
    let mut text = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 0 126\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef01234567\r\n\
        a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
        a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:126 telephone-event/8000\r\n"
        .to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

#[test]
fn every_wrong_request_is_answered_by_a_problem() {
    let (control, relay, pbx) = start(&[]);
    let good = offer(&[]);
    let large = "a".repeat(64 * 1024 + 1);
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16);
    let cases: &[Case<'_>] = &[
        ("GET", "/", &[], b"", 404),
        ("GET", "/v1", &[BEARER], b"", 404),
        ("POST", "/v2/calls?to=1000", &[BEARER, SDP], good.as_bytes(), 404),
        ("PUT", "/v1/calls", &[BEARER], b"", 405),
        ("DELETE", "/v1/calls", &[BEARER], b"", 405),
        ("POST", "/v1/status", &[BEARER], b"", 405),
        ("OPTIONS", "/v1/calls", &[], b"", 405),
        ("POST", "/healthz", &[], b"", 405),
        ("POST", "/v1/calls", &[BEARER, SDP], good.as_bytes(), 400),
        ("POST", "/v1/calls?to=", &[BEARER, SDP], good.as_bytes(), 400),
        ("POST", "/v1/calls?to=%0d%0aX:%20y", &[BEARER, SDP], good.as_bytes(), 400),
        ("POST", "/v1/calls?to=a%20b", &[BEARER, SDP], good.as_bytes(), 400),
        ("POST", "/v1/calls?to=%ff", &[BEARER, SDP], good.as_bytes(), 400),
        ("POST", "/v1/calls?to=http://x", &[BEARER, SDP], good.as_bytes(), 400),
        ("POST", "/v1/calls?to=1000&to=2000", &[BEARER, SDP], good.as_bytes(), 400),
        ("POST", "/v1/calls?to=1000", &[BEARER], good.as_bytes(), 415),
        ("POST", "/v1/calls?to=1000", &[BEARER, ("Content-Type", "application/json")], b"{}", 415),
        ("POST", "/v1/calls?to=1000", &[BEARER, SDP], large.as_bytes(), 413),
        ("POST", "/v1/calls?to=1000", &[BEARER, SDP], b"\xff\xfe", 400),
        ("POST", "/v1/calls?to=1000", &[BEARER, SDP], b"", 400),
        ("POST", "/v1/calls?to=1000", &[BEARER, SDP], b"{\"type\":\"offer\"}", 400),
        ("POST", "/v1/calls?to=1000", &[SDP], good.as_bytes(), 401),
        ("POST", "/v1/calls?to=1000", &[SDP, ("Authorization", "Bearer no")], good.as_bytes(), 401),
        ("POST", "/v1/calls?to=1000", &[SDP, ("Authorization", "Basic YTpi")], good.as_bytes(), 401),
        ("GET", "/v1/calls", &[], b"", 401),
        ("GET", "/v1/status", &[], b"", 401),
        ("GET", "/v1/status", &[("Authorization", "Bearer ")], b"", 401),
        ("GET", NOBODY, &[], b"", 404),
        ("GET", "/v1/calls/xyz", &[], b"", 404),
        ("GET", "/v1/calls/%ff", &[], b"", 404),
        ("DELETE", NOBODY, &[], b"", 404),
        ("DELETE", "/v1/calls/0", &[], b"", 404),
        ("PATCH", NOBODY, &[FRAGMENT], b"a=mid:0\r\n", 404),
        ("PATCH", NOBODY, &[SDP], b"a=mid:0\r\n", 415),
        ("PATCH", NOBODY, &[FRAGMENT], large.as_bytes(), 413),
        ("GET", "/v1/calls/00000000000000000000000000000000/events", &[], b"", 404),
    ];
    for (method, path, headers, body, expected) in cases {
        let answer = control.send(method, path, headers, body);
        let problem = answer.problem();
        assert_eq!(answer.status, *expected, "{method} {path}: {problem}");
        if answer.status == 401 {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        if answer.status == 405 {
            assert!(!answer.header("allow").is_empty(), "{method} {path} has no Allow");
        }
    }
    control.wait_until_idle();
    relay.wait_until_empty();
    assert!(pbx.state().requests.is_empty(), "nobody was called");
}

#[test]
fn offers_that_cannot_be_served_are_refused_by_their_flaw() {
    let (control, relay, pbx) = start(&[]);
    let cases: &[(Pairs, u16, &str)] = &[
        (&[("m=audio", "m=video")], 422, "audio"),
        (&[("UDP/TLS/RTP/SAVPF", "RTP/AVP")], 422, "DTLS-SRTP"),
        (&[("a=fingerprint:sha-256", "a=fingerprint:md5")], 422, "fingerprint"),
        (&[("a=ice-ufrag:abcd\r\n", "")], 422, "ice"),
        (&[("a=ice-pwd:0123456789abcdef01234567", "a=ice-pwd:short")], 422, "ice"),
        (&[("a=rtcp-mux\r\n", "")], 422, "rtcp-mux"),
        (&[("SAVPF 0 126", "SAVPF 18 126"), ("rtpmap:0 PCMU", "rtpmap:18 G729")], 422, "codec"),
        (&[("v=0", "v=zero")], 400, "SDP"),
        (&[("m=audio 9", "m=audio nine")], 400, "SDP"),
    ];
    for (changes, status, word) in cases {
        let answer = control.call("1000", &offer(changes));
        let problem = answer.problem();
        assert_eq!(answer.status, *status, "{changes:?}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.to_lowercase().contains(&word.to_lowercase()), "{changes:?}: {detail}");
    }
    control.wait_until_idle();
    relay.wait_until_empty();
    assert!(pbx.state().requests.is_empty(), "nobody was called");
}

#[test]
fn octets_that_are_no_http_end_their_connection_only() {
    let (control, _relay, _pbx) = start(&[]);
    let garbage: [&[u8]; 6] = [
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/calls HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/calls HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
    ];
    for octets in garbage {
        let mut stream = TcpStream::connect(control.net.http()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(octets).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let before = control.descriptors();
    let idle: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(control.net.http()).unwrap()).collect();
    assert_eq!(control.send("GET", "/healthz", &[], b"").status, 200);
    drop(idle);
    until("descriptors are given back", || control.descriptors() <= before);
}

#[test]
fn only_allowed_origins_may_use_the_api() {
    let (control, _relay, _pbx) = start(&[("http", "origins = ['https://shop.example']")]);
    let preflight = |origin| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization,content-type"),
        ];
        control.send("OPTIONS", "/v1/calls?to=1000", &headers, b"")
    };
    let allowed = preflight("https://shop.example");
    assert!(matches!(allowed.status, 200 | 204), "{allowed:?}");
    assert_eq!(allowed.header("access-control-allow-origin"), "https://shop.example");
    for method in ["POST", "PATCH", "DELETE", "GET"] {
        assert!(allowed.header("access-control-allow-methods").contains(method));
    }
    for header in ["authorization", "content-type", "if-match"] {
        assert!(allowed.header("access-control-allow-headers").to_lowercase().contains(header));
    }
    let foreign = preflight("https://evil.example");
    assert_eq!(foreign.header("access-control-allow-origin"), "");
    let answer = control.send("GET", NOBODY, &[("Origin", "https://shop.example")], b"");
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://shop.example",
        "problems can be read as well"
    );
    let exposed = answer.header("access-control-expose-headers").to_lowercase();
    assert!(exposed.contains("location") && exposed.contains("etag"), "{exposed}");
    assert_eq!(answer.header("vary").to_lowercase(), "origin");
}

#[test]
fn the_document_describes_every_path() {
    let (control, _relay, _pbx) = start(&[]);
    let document = control.send("GET", "/v1/openapi.json", &[], b"");
    assert_eq!((document.status, document.header("content-type")), (200, "application/json"));
    let document = document.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let expected = [
        ("/v1/calls", &["get", "post"][..]),
        ("/v1/calls/{id}", &["delete", "get", "patch"]),
        ("/v1/calls/{id}/events", &["get"]),
        ("/v1/calls/{id}/claim", &["post"]),
        ("/v1/sessions/{id}/token", &["put"]),
        ("/v1/socket", &["get"]),
        ("/hanging/sign-in", &["get", "post"]),
        ("/hanging/{session}", &["delete", "get", "post"]),
        ("/v1/status", &["get"]),
        ("/metrics", &["get"]),
        ("/healthz", &["get"]),
        ("/readyz", &["get"]),
    ];
    for (path, methods) in expected {
        let operations = document["paths"][path].as_object().unwrap_or_else(|| panic!("{path} is missing"));
        for method in methods {
            assert!(operations[*method]["responses"].is_object(), "{method} {path}");
        }
    }
    assert!(document["components"]["schemas"]["Problem"]["properties"]["sip_status"].is_object());
}

#[test]
fn status_and_metrics_tell_what_the_relay_says() {
    let (control, relay, _pbx) = start(&[]);
    let status = control.status();
    assert_eq!(status["relay"]["connected"], true);
    assert_eq!(status["relay"]["counters"]["forward_rtp"], 42);
    let interfaces = &status["relay"]["interfaces"];
    assert_eq!(
        (&interfaces[0]["zone"], &interfaces[0]["browsers"]),
        (&"outside".into(), &serde_json::Value::Null)
    );
    assert!(interfaces[0]["hashes_ports"].is_boolean() && status["relay"]["srtp"].is_string());
    assert_eq!(status["calls"], serde_json::json!({ "setup": 0, "active": 0 }));
    assert!(status["version"].is_string() && status["uptime_s"].is_u64());
    let metrics = control.send("GET", "/metrics", &[], b"");
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let text = metrics.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("sallyport_relay_connected 1\n"), "{text}");
    assert!(text.lines().any(|line| line.contains("forward_rtp") && line.ends_with(" 42")), "{text}");
    relay.stop(true);
    until("the relay's end is seen", || control.status()["relay"]["connected"] == false);
    assert!(control.send("GET", "/metrics", &[], b"").text().contains("sallyport_relay_connected 0\n"));
}

#[test]
fn without_a_relay_nothing_is_promised() {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, &[("http", "anonymous = ['1000']")]);
    let unready = |answer: &Answer| {
        assert_eq!(answer.status, 503);
        answer.problem();
    };
    assert_eq!(control.send("GET", "/healthz", &[], b"").status, 200);
    unready(&control.send("GET", "/readyz", &[], b""));
    unready(&control.send("POST", "/v1/calls?to=1000", &[SDP], offer(&[]).as_bytes()));
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    relay.stop(true);
    until("the relay's end is seen", || control.send("GET", "/readyz", &[], b"").status == 503);
    relay.listen();
    control.wait_until_ready();
    assert!(pbx.state().requests.is_empty());
}

#[test]
fn a_relay_of_another_version_is_not_obeyed() {
    let net = Net::new();
    let control = Control::start(net, &[]);
    let relay = Relay::with_version(&control.socket(), &control.net, Some(sallyport_plan::VERSION + 1));
    until("it has been tried twice", || relay.connections() > 1);
    assert_eq!(control.send("GET", "/readyz", &[], b"").status, 503);
    assert!(control.log().contains("version"), "the log says why");
}

#[test]
fn a_relay_that_babbles_is_left_and_tried_again() {
    let (control, relay, _pbx) = start(&[]);
    relay.babble(&[0xff; 64]);
    until("it is connected to anew", || relay.connections() > 1);
    control.wait_until_ready();
}

#[test]
fn open_destinations_need_no_token_and_no_log_names_one() {
    let (control, _relay, _pbx) = start(&[("http", "anonymous = ['busy']")]);
    let answer = control.send("POST", "/v1/calls?to=busy", &[SDP], offer(&[]).as_bytes());
    assert_eq!((answer.status, answer.problem()["sip_status"].as_u64()), (502, Some(486)));
    assert_eq!(control.send("POST", "/v1/calls?to=busy2", &[SDP], offer(&[]).as_bytes()).status, 401);
    assert!(!control.log().contains(TOKEN));
}

#[test]
fn https_is_served_where_a_certificate_is_given() {
    use boring::ssl::{SslConnector, SslMethod, SslVerifyMode};
    let folder = tempfile::TempDir::new().unwrap();
    let (certificate, key) = super::lifecycle::certificate(folder.path());
    let lines = format!("certificate = '{certificate}'\nkey = '{key}'");
    let control = Control::start_in(Net::new(), folder, &[("http", &lines)]);
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    let stream = TcpStream::connect(control.net.http()).unwrap();
    let mut stream = builder.build().connect("localhost", stream).unwrap();
    stream.write_all(&head("GET", "/healthz", &[], 0)).unwrap();
    let answer = super::harness::answer(&mut stream);
    assert_eq!(answer.status, 200);
    let mut plain = TcpStream::connect(control.net.http()).unwrap();
    plain.write_all(&head("GET", "/healthz", &[], 0)).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut octets = Vec::new();
    let _ = plain.read_to_end(&mut octets);
    assert!(!octets.starts_with(b"HTTP/"), "no plain HTTP there");
}
