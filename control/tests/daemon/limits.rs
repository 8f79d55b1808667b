//! What strangers may take: time, connections, descriptors, calls.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::browser::Browser;
use super::harness::{Control, Net, head, until};
use super::pbx::Pbx;
use super::relay::Relay;

const SDP: (&str, &str) = ("Content-Type", "application/sdp");

fn lab(sections: &[(&str, &str)]) -> (Control, Relay, Pbx) {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, sections);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    (control, relay, pbx)
}

/// Reads until the other side ends; how long that took, and what came.
fn ended(mut stream: TcpStream) -> (Duration, String) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let begun = Instant::now();
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    let reset = read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
    assert!(read.is_ok() || reset, "the connection is ended: {read:?}");
    (begun.elapsed(), String::from_utf8_lossy(&all).into_owned())
}

#[test]
fn slow_heads_slow_bodies_and_silence_end_in_time() {
    let control = Control::start(Net::new(), &[("http", "anonymous = ['*']")]);
    let open = |octets: &[u8]| {
        let mut stream = TcpStream::connect(control.net.http()).unwrap();
        stream.write_all(octets).unwrap();
        stream
    };
    let silent = open(b"");
    let half = open(b"GET /healthz HTTP/1.1\r\nHost: x\r\n");
    let mut body = open(&head("POST", "/v1/calls?to=1000", &[SDP], 1000));
    body.write_all(b"v=0\r\n").unwrap();
    let idle = open(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::scope(|scope| {
        let ends = [silent, half, body, idle].map(|stream| scope.spawn(move || ended(stream)));
        for (number, end) in ends.into_iter().enumerate() {
            let (time, text) = end.join().unwrap();
            assert!((5..15).contains(&time.as_secs()), "{number}: {time:?}");
            match number {
                2 => assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("too long"), "{text}"),
                3 => assert!(text.starts_with("HTTP/1.1 200 "), "{text}"),
                _ => assert!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{number}: {text}"),
            }
        }
    });
    assert_eq!(control.send("GET", "/healthz", &[], b"").status, 200);
}

/// Sets how many descriptors the daemon may have.
fn allow(control: &Control, descriptors: usize) {
    let limit = format!("--nofile={descriptors}:");
    let pid = control.pid().to_string();
    let set = std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
    assert!(set.success());
}

#[test]
fn out_of_descriptors_it_waits_and_goes_on_when_there_are_some() {
    let folder = tempfile::TempDir::new().unwrap();
    let (certificate, key) = super::lifecycle::certificate(folder.path());
    let plain = Control::start(Net::new(), &[]);
    let lines = format!("certificate = '{certificate}'\nkey = '{key}'");
    let tls = Control::start_in(Net::new(), folder, &[("http", &lines)]);
    for control in [&plain, &tls] {
        allow(control, control.descriptors() + 4);
        let crowd = |to: SocketAddr| (0..12).map(|_| TcpStream::connect(to).unwrap()).collect::<Vec<_>>();
        let crowds = [crowd(control.net.http()), crowd(control.net.sip())];
        until("it says so", || control.log().contains("cannot be accepted"));
        let before = control.busy();
        std::thread::sleep(Duration::from_secs(1));
        let spent = control.busy() - before;
        assert!(spent < Duration::from_millis(500), "it waits and does not spin: {spent:?}");
        let log = control.log();
        assert!(log.lines().filter(|line| line.contains("cannot be accepted")).count() <= 2, "{log}");
        drop(crowds);
        allow(control, 1024);
        until("SIP is served again", || {
            let mut stream = TcpStream::connect(control.net.sip()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            stream.write_all(b"\r\n\r\n").unwrap();
            let mut pong = [0; 2];
            stream.read_exact(&mut pong).is_ok()
        });
    }
    until("HTTP is served again", || plain.send("GET", "/healthz", &[], b"").status == 200);
    use boring::ssl::{SslConnector, SslMethod, SslVerifyMode};
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    let stream = TcpStream::connect(tls.net.http()).unwrap();
    let mut stream = builder.build().connect("localhost", stream).unwrap();
    stream.write_all(&head("GET", "/healthz", &[], 0)).unwrap();
    assert_eq!(super::harness::answer(&mut stream).status, 200);
}

#[test]
fn calls_are_limited_in_all_and_by_client() {
    let lines = "anonymous = ['1000']\nmax_calls = 3\nmax_anonymous_calls = 2\nproxies = ['127.0.0.1']";
    let (control, relay, _pbx) = lab(&[("http", lines)]);
    let offer = |number| Browser::new(&relay, control.net.browser(number)).offer("actpass");
    let stranger = |number| control.send("POST", "/v1/calls?to=1000", &[SDP], offer(number).as_bytes());
    let paths: Vec<String> = (1..3)
        .map(|number| {
            let created = stranger(number);
            assert_eq!(created.status, 201, "{}", created.text());
            created.header("location").to_owned()
        })
        .collect();
    let refused = stranger(3);
    assert_eq!((refused.status, refused.header("retry-after")), (429, "30"));
    assert_eq!(refused.problem()["type"], "urn:sallyport:too_many_calls");
    assert_eq!(refused.problem()["retry_after"], 30);
    let known = control.call("1000", &offer(4));
    assert_eq!(known.status, 201, "who has a token is not counted so");
    let full = control.call("1000", &offer(5));
    assert_eq!((full.status, full.header("retry-after")), (503, "5"));
    assert_eq!(full.problem()["type"], "urn:sallyport:full");
    assert_eq!(control.ask("DELETE", &paths[0]).status, 204);
    until("there is room again", || stranger(6).status == 201);
}

#[test]
fn metrics_can_be_kept_for_those_with_a_token_or_for_nobody() {
    for (line, open, token) in
        [("metrics = 'token'", 401, 200), ("metrics = 'off'", 404, 404), ("metrics = 'local'", 200, 200)]
    {
        let control = Control::start(Net::new(), &[("http", line)]);
        assert_eq!(control.send("GET", "/metrics", &[], b"").status, open, "{line}");
        assert_eq!(control.ask("GET", "/metrics").status, token, "{line}");
    }
}
