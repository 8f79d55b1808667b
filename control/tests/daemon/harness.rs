//! Starting the daemon, and speaking HTTP to it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Headers of a case, as name and value.
pub type Pairs = &'static [(&'static str, &'static str)];

/// A token of the whole API.
pub const TOKEN: &str = "a token for the tests";
/// As long as anything may take.
pub const SOON: Duration = Duration::from_secs(10);

/// Addresses of one test: everything is loopback, nothing is shared with another test or process.
pub struct Net {
    second: u8,
    third: u8,
    _mark: UdpSocket,
}

impl Net {
    pub fn new() -> Self {
        // Test processes run beside each other: a socket of its own marks a net as taken.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_mul(7);
        loop {
            let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let part = |number: u32| u8::try_from(number).unwrap();
            let (second, third) = (100 + part(number % 120), 1 + part(number / 120 % 250));
            if let Ok(mark) = UdpSocket::bind((Ipv4Addr::new(127, second, third, 250), 9)) {
                return Self { second, third, _mark: mark };
            }
        }
    }

    fn at(&self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, self.second, self.third, host)), port)
    }

    pub fn http(&self) -> SocketAddr {
        self.at(1, 8080)
    }

    pub fn sip(&self) -> SocketAddr {
        self.at(1, 5060)
    }

    /// The outside media port.
    pub fn media(&self) -> SocketAddr {
        self.at(2, 10000)
    }

    /// Our media address inside.
    pub fn inside(&self) -> IpAddr {
        self.at(3, 0).ip()
    }

    pub fn pbx(&self) -> SocketAddr {
        self.at(4, 5060)
    }

    pub fn stun(&self) -> SocketAddr {
        self.at(5, 3478)
    }

    /// Browsers, by number.
    pub fn browser(&self, number: u16) -> SocketAddr {
        self.at(6, 40_000 + number)
    }
}

/// The daemon.
pub struct Control {
    child: Child,
    pub net: Net,
    pub folder: TempDir,
}

impl Control {
    /// Starts it with more lines for its configuration, by section.
    pub fn start(net: Net, sections: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        Self::start_in(net, folder, sections)
    }

    pub fn start_in(net: Net, folder: TempDir, sections: &[(&str, &str)]) -> Self {
        std::fs::write(folder.path().join("sallyport.toml"), configuration(&net, folder.path(), sections))
            .unwrap();
        let mut control = Self { child: spawn(folder.path()), net, folder };
        control.wait_until_healthy();
        control
    }

    /// The relay's socket.
    pub fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("relay.sock")
    }

    fn wait_until_healthy(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(self.net.http()).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}: {}", self.log());
            }
            assert!(begun.elapsed() < SOON, "the daemon does not serve: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it and starts another with the same configuration.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.folder.path());
        self.wait_until_healthy();
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for it to end by itself.
    pub fn ended(&mut self, patience: Duration) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Descriptors that the process holds.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Memory that it holds, KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that the process has spent.
    pub fn busy(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// A request with the token.
    pub fn ask(&self, method: &str, path: &str) -> Answer {
        let token = format!("Bearer {TOKEN}");
        request(self.net.http(), method, path, &[("Authorization", &token)], b"")
    }

    /// A request as anybody could make it.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(self.net.http(), method, path, headers, body)
    }

    /// Begins a call with this offer; returns when it is answered or refused.
    pub fn call(&self, to: &str, offer: &str) -> Answer {
        let token = format!("Bearer {TOKEN}");
        let headers = [("Content-Type", "application/sdp"), ("Authorization", token.as_str())];
        self.send("POST", &format!("/v1/calls?to={to}"), &headers, offer.as_bytes())
    }

    /// State of the appliance.
    pub fn status(&self) -> Value {
        let answer = self.ask("GET", "/v1/status");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits until new calls are taken.
    pub fn wait_until_ready(&self) {
        until("the daemon is ready", || self.send("GET", "/readyz", &[], b"").status == 200);
    }

    /// Waits until no call is left.
    pub fn wait_until_idle(&self) {
        until("no call is left", || {
            let calls = &self.status()["calls"];
            calls["setup"] == 0 && calls["active"] == 0
        });
        assert_eq!(self.ask("GET", "/v1/calls").json(), serde_json::json!([]));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the daemon\n{}", self.log());
            return;
        }
        for line in self.log().lines() {
            let quiet = line.contains(" DEBUG ") || line.contains(" TRACE ");
            assert!(quiet || !line.contains("127."), "an address above debug level: {line}");
            assert!(!line.contains("panicked"), "{line}");
        }
    }
}

/// Waits for something that takes a moment.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < SOON, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn spawn(folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_sallyport-control"))
        .arg("--config")
        .arg(folder.join("sallyport.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The configuration file: what every test needs, and what this one adds.
pub fn configuration(net: &Net, folder: &Path, sections: &[(&str, &str)]) -> String {
    let socket = folder.join("relay.sock");
    // A test may name servers of its own.
    let named = sections.iter().any(|(name, lines)| *name == "sip" && lines.contains("server = "));
    let server = if named { String::new() } else { format!("\nserver = '{}'", net.pbx()) };
    let base = [
        ("outside", "interface = 'lo'".to_owned()),
        ("inside", "interface = 'lo'".to_owned()),
        ("relay", format!("socket = '{}'", socket.display())),
        ("http", format!("listen = ['{}']\ntokens = ['{TOKEN}', 'another token']", net.http())),
        ("sip", format!("listen = '{}'{server}", net.sip())),
        ("recording", String::new()),
        ("ng", String::new()),
        ("agents", String::new()),
        ("identity", String::new()),
        ("log", "filter = 'debug'".to_owned()),
    ];
    let section = |(name, lines): (&str, String)| {
        let more: Vec<&str> =
            sections.iter().filter(|(more, _)| *more == name).map(|(_, lines)| *lines).collect();
        format!("[{name}]\n{lines}\n{}\n", more.join("\n"))
    };
    base.map(section).concat()
}

/// An answer of HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The problem document, checked (RFC 9457).
    pub fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }
}

/// One request on a connection of its own.
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    // A server that refuses early may close before it has read all.
    let _ = stream.write_all(&head(method, path, headers, body.len())).and_then(|()| stream.write_all(body));
    answer(&mut stream)
}

/// Head of a request that wants the connection closed afterwards.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if length > 0 { format!("Content-Length: {length}\r\n") } else { String::new() };
    format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{lines}{length}\r\n").into_bytes()
}

/// Reads an answer to the end of the connection.
pub fn answer(stream: &mut impl Read) -> Answer {
    let mut all = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = std::str::from_utf8(&all[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pair =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: HashMap<String, String> = lines.filter_map(pair).collect();
    let mut body = all[end..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = unchunked(&body);
    }
    Answer { status, headers, body }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let chunk = &rest[end + 2..];
        body.extend_from_slice(chunk.get(..length).unwrap_or(chunk));
        rest = chunk.get(length + 2..).unwrap_or_default();
        if length == 0 {
            break;
        }
    }
    body
}
