//! Another proxy's signalling, our media: a call set up over rtpengine's NG protocol, with media through the real path.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sallyport_lab::appliance::Way;
use sallyport_lab::caller::Caller;
use sallyport_lab::net::{AGENT, BROWSER};
use sallyport_lab::ng::{Client, Value};
use sallyport_lab::{Options, Place};

use crate::stage::{Stage, possible, until};

const NG: &str = "127.0.0.1:2223";

fn field<'a>(name: &'a str, value: &'a str) -> (&'a str, Value<'a>) {
    (name, Value::Text(value))
}

const CALL: [(&str, Value<'_>); 2] =
    [("call-id", Value::Text("story")), ("from-tag", Value::Text("browser"))];

/// What an agent answers that wants media at a port.
pub fn telephone(port: u16) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {AGENT}\r\ns=-\r\nc=IN IP4 {AGENT}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )
}

/// The agent sends back what it hears; the browser connects as it was answered, sends a second of sound and hears it.
pub fn both_hear(caller: &mut Caller, answered: &str, agent: &UdpSocket, name: &str) {
    agent.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (heard, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut room = [0; 2048];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, from)) = agent.recv_from(&mut room) else { continue };
                heard.fetch_add(1, Ordering::Relaxed);
                let _: Result<usize, _> =
                    agent.send_to(&room[..length], SocketAddr::new(from.ip(), from.port()));
            }
        });
        let talk = caller
            .connect(answered, Duration::from_secs(10))
            .and_then(|mut media| caller.talk(&mut media, 50));
        over.store(true, Ordering::Relaxed);
        let talk = talk.unwrap();
        assert!(talk.heard >= 45 && talk.broken == 0, "{name}: {talk:?}");
    });
    assert!(heard.into_inner() >= 45, "{name}");
}

/// Offer and answer, as a proxy sends them: what the browser is to be answered.
fn signal(client: &mut Client, offer: &str, port: u16) -> String {
    let direction = ("direction", Value::List(&["external", "internal"]));
    let toward_inside = [
        field("command", "offer"),
        field("sdp", offer),
        field("transport-protocol", "RTP/AVP"),
        field("ICE", "remove"),
        ("rtcp-mux", Value::List(&["demux"])),
        direction,
    ];
    let offered = client.ask_sdp(&[CALL.as_slice(), &toward_inside].concat()).unwrap();
    assert!(
        offered.contains("RTP/AVP") && !offered.contains("fingerprint") && !offered.contains("candidate"),
        "{offered}"
    );
    let answer = telephone(port);
    let back = [
        field("command", "answer"),
        field("sdp", &answer),
        field("to-tag", "agent"),
        field("transport-protocol", "UDP/TLS/RTP/SAVPF"),
        field("ICE", "force"),
    ];
    client.ask_sdp(&[CALL.as_slice(), &back].concat()).unwrap()
}

fn talk(way: Way) {
    let stage = Stage::set(way, Options::default(), |setup| {
        setup.more = toml::toml! {
            [ng]
            listen = ["127.0.0.1:2223"]
        };
    });
    let mut client = Client::new(&stage.lab.namespace(Place::Dmz), NG.parse().unwrap()).unwrap();
    assert!(client.is_there());
    let agent =
        stage.lab.namespace(Place::Enterprise).within(|| UdpSocket::bind((AGENT, 0)).unwrap()).unwrap();
    let mut caller = Caller::new(&stage.lab, Place::Browser, IpAddr::V4(BROWSER)).unwrap();
    let port = agent.local_addr().unwrap().port();
    let answered = signal(&mut client, &caller.offer("actpass"), port);
    both_hear(&mut caller, &answered, &agent, &way.to_string());
    assert_eq!(stage.status().calls(), 1);
    let deleted = client.ask(&[CALL.as_slice(), &[field("command", "delete")]].concat()).unwrap();
    assert!(deleted.contains("6:result2:ok"), "{deleted}");
    until("everything is released", Duration::from_secs(5), || {
        stage.appliance.status().unwrap().holds_nothing()
    });
}

#[test]
fn media_flows_under_another_proxys_signalling_by_native_xdp() {
    if possible() {
        talk(Way::Xdp);
    }
}

#[test]
fn media_flows_under_another_proxys_signalling_by_sockets() {
    if possible() {
        talk(Way::Socket);
    }
}
