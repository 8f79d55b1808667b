//! Debian's Kamailio with its rtpengine module, by the configuration that the guide shows, between a browser's signalling and a
//! SIP agent; media through the real path.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use sallyport_lab::appliance::Way;
use sallyport_lab::caller::Caller;
use sallyport_lab::net::{AGENT, BROWSER, INSIDE};
use sallyport_lab::{Options, Place, Program};

use crate::ng::both_hear;
use crate::stage::{Stage, possible, until};

/// The guide; its configuration is what runs, but for the addresses of SIP.
const GUIDE: &str = include_str!("../../../docs/kamailio.md");
const PROGRAM: &str = "/usr/sbin/kamailio";
const SOON: Duration = Duration::from_secs(5);

fn modules() -> Option<PathBuf> {
    let places =
        std::fs::read_dir("/usr/lib").ok()?.flatten().map(|place| place.path().join("kamailio/modules"));
    places.into_iter().find(|path| path.join("rtpengine.so").exists())
}

fn proxy() -> SocketAddr {
    SocketAddr::from((INSIDE, 5062))
}

fn start(stage: &Stage, modules: &std::path::Path, called: SocketAddr) {
    let begin = GUIDE.find("#!KAMAILIO").unwrap();
    let text = &GUIDE[begin..begin + GUIDE[begin..].find("```").unwrap()];
    let text =
        text.replace("10.0.0.1:5060", &proxy().to_string()).replace("10.0.0.5:5060", &called.to_string());
    let text = text.replacen("loadmodule", &format!("mpath=\"{}/\"\nloadmodule", modules.display()), 1);
    let folder = stage.lab.folder();
    let config = folder.join("kamailio.cfg");
    std::fs::write(&config, text).unwrap();
    let mut command = stage.lab.namespace(Place::Dmz).command(PROGRAM);
    command.args(["-DD", "-E", "-m", "32", "-f"]).arg(&config).arg("-w").arg(folder).arg("-Y").arg(folder);
    let process = stage.lab.start(Program::new("kamailio", command)).unwrap();
    until("Kamailio answers", Duration::from_secs(10), || {
        assert!(process.is_running(), "{}", process.last_words(20));
        let probe =
            stage.lab.namespace(Place::Enterprise).within(|| UdpSocket::bind((AGENT, 0)).unwrap()).unwrap();
        probe.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let own = probe.local_addr().unwrap();
        let options = format!(
            "OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKprobe{1}\r\nMax-Forwards: 0\r\nFrom: <sip:p@{own}>;tag=p\r\n\
             To: <sip:{0}>\r\nCall-ID: probe@{own}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
            proxy(),
            own.port()
        );
        probe.send_to(options.as_bytes(), proxy()).is_ok() && probe.recv(&mut [0; 2000]).is_ok()
    });
}

/// One end of SIP, as simple as can be.
struct Agent(UdpSocket);

impl Agent {
    fn new(stage: &Stage, port: u16) -> Self {
        let socket = stage
            .lab
            .namespace(Place::Enterprise)
            .within(|| UdpSocket::bind((AGENT, port)).unwrap())
            .unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self(socket)
    }

    /// The next message that begins so; others are passed over.
    fn hear(&self, start: &str) -> String {
        let mut room = [0; 65_536];
        loop {
            let length = self.0.recv(&mut room).unwrap_or_else(|error| panic!("{start}: {error}"));
            let text = String::from_utf8_lossy(&room[..length]).into_owned();
            if text.starts_with(start) {
                return text;
            }
            assert!(!text.starts_with("SIP/2.0 4") && !text.starts_with("SIP/2.0 5"), "{text}");
        }
    }

    fn request(&self, (method, number): (&str, u32), target: SocketAddr, more: &str, body: &str) {
        let (own, proxy) = (self.0.local_addr().unwrap(), proxy());
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "{method} sip:1000@{target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKstory{method}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@{own}>;tag=one\r\nTo: <sip:1000@{proxy}>{more}Call-ID: story@test\r\nCSeq: {number} {method}\r\n\
             Contact: <sip:a@{own}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.send_to(text.as_bytes(), proxy).unwrap();
    }

    fn accept(&self, request: &str, body: &str) {
        let head = request.split("\r\n\r\n").next().unwrap();
        let kept = ["Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"];
        let kept = head.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
        let copied: String = kept.map(|line| format!("{line}\r\n")).collect();
        let to = head.lines().find(|line| line.starts_with("To:")).unwrap();
        let to = if to.contains("tag=") { to.to_owned() } else { format!("{to};tag=two") };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "SIP/2.0 200 OK\r\n{copied}{to}\r\nContact: <sip:1000@{}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            self.0.local_addr().unwrap(),
            body.len()
        );
        self.0.send_to(text.as_bytes(), proxy()).unwrap();
    }
}

fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn media_flows_while_kamailio_signals() {
    if !possible() {
        return;
    }
    let Some(modules) = modules().filter(|_| std::path::Path::new(PROGRAM).exists()) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "kamailio is not installed");
        eprintln!("SKIPPED: kamailio is not installed");
        return;
    };
    let stage = Stage::set(Way::Xdp, Options::default(), |setup| {
        setup.more = toml::toml! {
            [ng]
            listen = ["127.0.0.1:2223"]
        };
    });
    let (calling, called) = (Agent::new(&stage, 5091), Agent::new(&stage, 5090));
    let target = called.0.local_addr().unwrap();
    start(&stage, &modules, target);
    let media =
        stage.lab.namespace(Place::Enterprise).within(|| UdpSocket::bind((AGENT, 0)).unwrap()).unwrap();
    let port = media.local_addr().unwrap().port();
    let mut caller = Caller::new(&stage.lab, Place::Browser, IpAddr::V4(BROWSER)).unwrap();

    calling.request(("INVITE", 1), target, "\r\n", &caller.offer("actpass"));
    let invite = called.hear("INVITE ");
    assert!(body(&invite).contains(" RTP/AVP ") && !body(&invite).contains("fingerprint"), "{invite}");
    called.accept(&invite, &crate::ng::telephone(port));
    let success = calling.hear("SIP/2.0 200");
    let route = format!("Route: <sip:{};lr>\r\n", proxy());
    calling.request(("ACK", 1), target, &format!(";tag=two\r\n{route}"), "");
    called.hear("ACK ");
    both_hear(&mut caller, body(&success), &media, "Kamailio");
    assert_eq!(stage.status().calls(), 1);

    calling.request(("BYE", 2), target, &format!(";tag=two\r\n{route}"), "");
    called.accept(&called.hear("BYE "), "");
    calling.hear("SIP/2.0 200");
    until("everything is released", SOON, || stage.appliance.status().unwrap().holds_nothing());
}
