//! Kamailio itself, with its rtpengine module, in front of us: the configuration of `docs/kamailio.md` as it stands there.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sallyport_plan::Protection;

use super::browser::Browser;
use super::harness::{SOON, until};
use super::ng::{Lab, lab};

/// The guide; its configuration is what runs.
const GUIDE: &str = include_str!("../../../docs/kamailio.md");

struct Kamailio {
    child: Child,
    log: PathBuf,
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // Its main process ends its workers.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of Kamailio\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Program and modules, where they are installed.
fn installed() -> Option<(PathBuf, PathBuf)> {
    let program =
        std::env::var_os("KAMAILIO").map_or_else(|| PathBuf::from("/usr/sbin/kamailio"), PathBuf::from);
    let modules = std::env::var_os("KAMAILIO_MODULES").map(PathBuf::from).or_else(|| {
        let places = std::fs::read_dir("/usr/lib").ok()?;
        let place = |entry: std::fs::DirEntry| entry.path().join("kamailio/modules");
        places.filter_map(Result::ok).map(place).find(|path| path.join("rtpengine.so").exists())
    })?;
    (program.exists() && modules.join("rtpengine.so").exists()).then_some((program, modules))
}

/// The guide's configuration with the addresses of this test.
fn configuration(modules: &Path, lab: &Lab) -> String {
    let begin = GUIDE.find("#!KAMAILIO").unwrap();
    let end = begin + GUIDE[begin..].find("```").unwrap();
    let text = GUIDE[begin..end]
        .replace("10.0.0.1:5060", &proxy(lab).to_string())
        .replace("10.0.0.5:5060", &lab.control.net.pbx().to_string())
        .replace("127.0.0.1:2223", &lab.address().to_string());
    text.replacen("loadmodule", &format!("mpath=\"{}/\"\nloadmodule", modules.display()), 1)
}

fn proxy(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.control.net.stun().ip(), 5060)
}

fn start(lab: &Lab, (program, modules): &(PathBuf, PathBuf)) -> Kamailio {
    let folder = lab.control.folder.path();
    std::fs::write(folder.join("kamailio.cfg"), configuration(modules, lab)).unwrap();
    let log = folder.join("kamailio.log");
    let file = File::create(&log).unwrap();
    let child = Command::new(program)
        .args(["-DD", "-E", "-m", "32", "-f"])
        .arg(folder.join("kamailio.cfg"))
        .arg("-w")
        .arg(folder)
        .arg("-Y")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let kamailio = Kamailio { child, log };
    until("Kamailio has found us", || lab.control.ask("GET", "/healthz").status == 200 && lab.heard() > 0);
    kamailio
}

/// One end of SIP, as simple as can be.
struct Agent {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Agent {
    fn new(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self { socket, address }
    }

    /// The next message that begins so; others are passed over.
    fn hear(&self, start: &str) -> String {
        let mut room = [0; 65_536];
        loop {
            let length = self.socket.recv(&mut room).unwrap_or_else(|error| panic!("{start}: {error}"));
            let text = String::from_utf8_lossy(&room[..length]).into_owned();
            if text.starts_with(start) {
                return text;
            }
            assert!(!text.starts_with("SIP/2.0 4") && !text.starts_with("SIP/2.0 5"), "{text}");
        }
    }

    fn send(&self, to: SocketAddr, text: &str) {
        self.socket.send_to(text.as_bytes(), to).unwrap();
    }

    /// A request of the dialog `call`.
    fn request(&self, (method, number): (&str, u32), lab: &Lab, call: &str, more: &str, body: &str) {
        let (proxy, own) = (proxy(lab), self.address);
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        self.send(
            proxy,
            &format!(
                "{method} sip:1000@{} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{call}{method}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:a@{own}>;tag=one{call}\r\nTo: <sip:1000@{proxy}>{more}\
                 Call-ID: {call}@test\r\nCSeq: {number} {method}\r\nContact: <sip:a@{own}>\r\n{kind}\
                 Content-Length: {}\r\n\r\n{body}",
                lab.control.net.pbx(),
                body.len()
            ),
        );
    }

    /// Answers a request with 200.
    fn accept(&self, lab: &Lab, request: &str, body: &str) {
        let head = request.split("\r\n\r\n").next().unwrap();
        let kept = ["Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"];
        let copied: String = head
            .lines()
            .filter(|line| kept.iter().any(|name| line.starts_with(name)))
            .map(|line| format!("{line}\r\n"))
            .collect();
        let to = head.lines().find(|line| line.starts_with("To:")).unwrap();
        let to = if to.contains("tag=") { to.to_owned() } else { format!("{to};tag=two") };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        self.send(
            proxy(lab),
            &format!(
                "SIP/2.0 200 OK\r\n{copied}{to}\r\nContact: <sip:1000@{}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
                self.address,
                body.len()
            ),
        );
    }
}

fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}

/// A call through Kamailio from its INVITE to the answer: what the called one was offered, what the caller was answered.
fn call(lab: &Lab, ends: (&Agent, &Agent), name: &str, offer: &str, answer: &str) -> (String, String) {
    let (caller, called) = ends;
    caller.request(("INVITE", 1), lab, name, "\r\n", offer);
    let invite = called.hear("INVITE ");
    called.accept(lab, &invite, answer);
    let success = caller.hear("SIP/2.0 200");
    let route: String = success
        .lines()
        .filter_map(|line| line.strip_prefix("Record-Route:"))
        .map(|route| format!("Route:{route}\r\n"))
        .collect();
    caller.request(("ACK", 1), lab, name, &format!(";tag=two\r\n{route}"), "");
    called.hear("ACK ");
    (body(&invite).to_owned(), body(&success).to_owned())
}

fn hang_up(lab: &Lab, (caller, called): (&Agent, &Agent), name: &str) {
    let route = format!("Route: <sip:{};lr>\r\n", proxy(lab));
    caller.request(("BYE", 2), lab, name, &format!(";tag=two\r\n{route}"), "");
    let bye = called.hear("BYE ");
    called.accept(lab, &bye, "");
    caller.hear("SIP/2.0 200");
    lab.is_clean();
}

fn has_keys(lab: &Lab, wanted: &Protection) -> bool {
    let state = lab.relay.state();
    let plan = state.plans.values().next();
    plan.is_some_and(|plan| plan.directions.iter().any(|direction| direction.seal.as_ref() == Some(wanted)))
}

#[test]
fn kamailio_drives_calls_both_ways() {
    let Some(found) = installed() else {
        assert!(std::env::var_os("CI").is_none(), "kamailio is not installed");
        println!("SKIPPED: kamailio is not installed");
        return;
    };
    let lab = lab("");
    let _kamailio = start(&lab, &found);
    let (caller, called) = (Agent::new(lab.browser(5000)), Agent::new(lab.control.net.pbx()));

    let mut browser = Browser::new(&lab.relay, lab.browser(1));
    let (inside, answer) =
        call(&lab, (&caller, &called), "web", &browser.offer("actpass"), &lab.phone(30_000));
    assert!(inside.contains(" RTP/AVP 111 0 8 110 126\r\n") && !inside.contains("ice-ufrag"), "{inside}");
    let done = browser.connect(&answer);
    until("keys are in the plan", || has_keys(&lab, &Protection::Srtp(done.receive.clone())));
    hang_up(&lab, (&caller, &called), "web");

    let mut browser = Browser::called(&lab.relay, lab.browser(2));
    let (offer, answer) = call(&lab, (&caller, &called), "tel", &lab.phone(30_000), &browser.offer("active"));
    assert!(offer.contains(" UDP/TLS/RTP/SAVPF 0 8 101\r\n"), "{offer}");
    assert!(answer.contains(" RTP/AVP ") && !answer.contains("fingerprint"), "{answer}");
    let done = browser.connect(&offer);
    until("keys are in the plan", || has_keys(&lab, &Protection::Srtp(done.receive.clone())));
    hang_up(&lab, (&caller, &called), "tel");
}
