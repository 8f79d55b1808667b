//! Browsers that UDP does not reach: their media comes by a TCP connection (RFC 6544).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sallyport_bench::load::target::MEDIA;
use sallyport_bench::scene::Scene;
use sallyport_lab::Place;
use sallyport_lab::appliance::{Setup, Way};
use sallyport_lab::browser::Stats;
use sallyport_lab::tone;
use sallyport_plan::{Consent, FlowKey, IceRole, Zone};
use sallyport_wire::stun::{BINDING, Builder, Class, Message, USERNAME};

use crate::bare::{Bare, Browser, TCP, World, worlds};
use crate::stage::{judge, possible, tail, until};
use crate::telephone::Phone;

const RTP: u16 = 40;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a browser may take to come by another connection: Chromium needs three seconds to look after its own, and an ICE
/// agent that is told nothing takes twenty to give a pair up.
const AGAIN: Duration = Duration::from_secs(12);
/// The customer's router lets no UDP through.
pub const NO_UDP: &str = "add table ip cut
    add chain ip cut through { type filter hook forward priority -10; }
    add rule ip cut through meta l4proto udp drop
";

pub fn connectable(setup: &mut Setup) {
    setup.stun = None;
    let port = toml::Table::from_iter([("tcp".to_owned(), i64::from(TCP).into())]);
    setup.more.insert("outside".into(), port.into());
}

/// Five seconds of talk after the call has come up, judged at both ends; the browser's view of it.
#[track_caller]
fn talks(scene: &Scene) -> Stats {
    scene.browser.record().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    judge(&scene.browser.recorded().unwrap(), tone::AGENT, tone::BROWSER);
    scene.browser.stats().unwrap()
}

fn protocols(stats: &Stats) -> [&str; 2] {
    [&stats.local, &stats.remote].map(|end| end.protocol.as_deref().unwrap_or_default())
}

/// Chromium behind a router that drops all UDP.
fn a_browser_talks_by_tcp(way: Way) {
    let scene = Scene::set_with(way, &mut |_| (), connectable).unwrap();
    scene.lab.namespace(Place::Nat).nft(NO_UDP).unwrap();
    let before = scene.snapshot().unwrap();
    scene.call().unwrap();
    let stats = talks(&scene);
    assert_eq!(protocols(&stats), ["tcp"; 2], "{stats:?}");
    assert_eq!((stats.remote.port, stats.lost), (Some(TCP), 0), "{stats:?}");
    assert_eq!(scene.browser.hang_up().unwrap(), 204);
    scene.agent.process().wait_for_words("terminated", PATIENCE).unwrap();
    judge(&scene.agent.heard().unwrap(), tone::BROWSER, tone::AGENT);
    let after = scene.snapshot().unwrap();
    let grew = |name: &str| after.status.counter(name) - before.status.counter(name);
    assert!(grew("tcp_received") > 240 && grew("tcp_sent") > 240, "{:?}", after.status.counters());
    assert!(grew("forward_rtp") > 480, "{:?}", after.status.counters());
    for name in
        ["drop_tcp_full", "drop_tcp_late", "drop_tcp_gone", "drop_stray_overflow", "drop_transmit_full"]
    {
        assert_eq!(grew(name), 0, "{name}");
    }
    scene.browser.stop();
}

#[test]
fn a_browser_that_udp_does_not_reach_talks_by_tcp_by_native_xdp() {
    if possible() {
        a_browser_talks_by_tcp(Way::Xdp);
    }
}

#[test]
fn a_browser_that_udp_does_not_reach_talks_by_tcp_by_sockets() {
    if possible() {
        a_browser_talks_by_tcp(Way::Socket);
    }
}

/// Both ways are offered, and UDP is better.
#[test]
fn where_udp_works_it_is_used() {
    if !possible() {
        return;
    }
    let scene = Scene::set_with(Way::Xdp, &mut |_| (), connectable).unwrap();
    let (answered, _) = scene.call().unwrap();
    let offered =
        answered.answer.lines().filter(|line| line.contains(" tcp ") && line.contains("tcptype passive"));
    assert_eq!(offered.count(), 2, "the appliance's own address and its public one: {}", answered.answer);
    let stats = talks(&scene);
    assert_eq!(protocols(&stats), ["udp"; 2], "{stats:?}");
    scene.browser.stop();
}

/// Something between cuts the connection: the browser comes by another one.
#[test]
fn a_browser_whose_connection_is_cut_comes_by_another() {
    if !possible() {
        return;
    }
    let scene = Scene::set_with(Way::Socket, &mut |_| (), connectable).unwrap();
    let nat = scene.lab.namespace(Place::Nat);
    nat.nft(NO_UDP).unwrap();
    scene.call().unwrap();
    let port = talks(&scene).local.port.unwrap();
    let cut = |end: &str| format!("add rule ip cut through tcp {end} {port} reject with tcp reset\n");
    nat.nft(&(cut("sport") + &cut("dport"))).unwrap();
    let received = scene.browser.stats().unwrap().received;
    until("media comes by another connection", AGAIN, || {
        let stats = scene.browser.stats().unwrap();
        stats.received > received + 100
    });
    let stats = talks(&scene);
    assert_eq!((protocols(&stats), stats.local.port == Some(port)), (["tcp"; 2], false), "{stats:?}");
    let heard = tail(&scene.agent.heard().unwrap(), 4);
    judge(&heard, tone::BROWSER, tone::AGENT);
    scene.browser.stop();
}

/// A browser's end of a TCP connection.
struct Wire {
    stream: TcpStream,
    flow: FlowKey,
}

impl Wire {
    fn connect(bare: &Bare, world: World) -> Self {
        let port = SocketAddr::new(world.outside, TCP);
        let stream = bare.row.within("o", || Ok(TcpStream::connect(port)?)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let remote = stream.local_addr().unwrap();
        Self { stream, flow: FlowKey { zone: Zone::Outside, local: port, remote } }
    }

    fn say(&mut self, datagram: &[u8]) {
        let length = u16::try_from(datagram.len()).unwrap().to_be_bytes();
        self.stream.write_all(&[&length, datagram].concat()).unwrap();
    }

    fn hear(&mut self) -> Vec<u8> {
        let mut header = [0; 2];
        self.stream.read_exact(&mut header).unwrap();
        let mut datagram = vec![0; usize::from(u16::from_be_bytes(header))];
        self.stream.read_exact(&mut datagram).unwrap();
        datagram
    }

    /// The next RTP packet: the relay's own checks and reports come between.
    fn hear_media(&mut self) -> Vec<u8> {
        loop {
            let datagram = self.hear();
            if datagram[0] >= 128 && !(192..=223).contains(&datagram[1]) {
                return datagram;
            }
        }
    }

    fn is_over(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0; 4096]), Ok(1..))
    }
}

fn check() -> Vec<u8> {
    let mut room = [0; 128];
    let builder = Builder::new(&mut room, Class::Request, BINDING, *b"transaction!").unwrap();
    let length = builder.attribute(USERNAME, &[b"ours:theirs"]).unwrap().finish();
    room[..length].to_vec()
}

/// A connection that was asked for by a check, and that control has answered.
fn met(bare: &mut Bare, world: World) -> Wire {
    let mut wire = Wire::connect(bare, world);
    wire.say(&check());
    assert_eq!(bare.client.punt().unwrap(), (wire.flow, None, check()));
    bare.client.say(wire.flow, b"\x01\x01an answer").unwrap();
    assert_eq!(wire.hear(), b"\x01\x01an answer");
    wire
}

/// A call between a connection and a telephone.
struct Talk {
    browser: Browser,
    phone: Phone,
    wire: Wire,
    version: u32,
}

impl Talk {
    fn begin(bare: &mut Bare, at: usize, world: World) -> Self {
        let wire = met(bare, world);
        let WireEnds { local, remote } = WireEnds::of(&wire);
        let browser = Browser::new(bare, at, Zone::Outside, local, remote, world.inside);
        let phone = SocketAddr::new(world.agent, 41_000 + u16::try_from(at).unwrap());
        let phone = Phone::new(bare.socket("i", phone), browser.ports);
        let mut talk = Self { browser, phone, wire, version: 0 };
        talk.install(bare);
        talk
    }

    /// The next version of the plan, by the connection of now.
    fn install(&mut self, bare: &mut Bare) {
        self.version += 1;
        let WireEnds { local, remote } = WireEnds::of(&self.wire);
        self.browser.flow = FlowKey { zone: Zone::Outside, local, remote };
        self.browser.call.browser = remote;
        let mut plan = self.browser.plan(self.phone.address());
        plan.version = self.version;
        let text = |text: &str| text.to_owned();
        plan.consents = vec![Consent {
            flow: self.browser.flow,
            local_ufrag: text("ours"),
            local_pwd: text("our-password-of-22-chars"),
            remote_ufrag: text("theirs"),
            remote_pwd: text("their-password-of-some-characters"),
            role: IceRole::Controlled(1),
        }];
        bare.client.install_plan(plan).unwrap();
        let asked = Message::parse(&self.wire.hear()).map(|check| check.class()).unwrap();
        assert_eq!(asked, Class::Request, "consent is asked for");
    }

    fn both_speak(&mut self) {
        for nth in 0..RTP {
            let (payload, sealed) = self.browser.sealed();
            self.wire.say(&sealed);
            assert_eq!(self.phone.hear(), payload, "packet {nth}");
            let spoken = self.phone.speak();
            let sealed = self.wire.hear_media();
            assert_eq!(self.browser.opened(sealed), spoken, "packet {nth}");
        }
    }
}

struct WireEnds {
    local: SocketAddr,
    remote: SocketAddr,
}

impl WireEnds {
    fn of(wire: &Wire) -> Self {
        Self { local: wire.flow.local, remote: wire.flow.remote }
    }
}

/// Connections that want no good, all at once; that many.
fn flood(bare: &Bare, world: World) -> (Vec<TcpStream>, u64) {
    let port = SocketAddr::new(world.outside, TCP);
    let connect = || Ok((0..120).map(|_| TcpStream::connect(port)).collect::<Result<Vec<_>, _>>()?);
    let mut streams: Vec<TcpStream> = bare.row.within("o", connect).unwrap();
    let openings: [&[u8]; 6] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 0],
        &[0],
        &[0xff; 4000],
        &[&[0, 172, 0x80, 0][..], &[1; 170]].concat(),
    ];
    for (stream, opening) in streams.iter_mut().zip(openings.into_iter().cycle()) {
        // Some are closed by now.
        let _ = stream.write_all(opening);
    }
    let count = streams.len() as u64;
    (streams, count)
}

fn connections(path: &str) {
    let mut bare = Bare::connectable(path, 2);
    let mut talks: Vec<Talk> = Vec::new();
    for (nth, world) in worlds().into_iter().enumerate() {
        let before = bare.counters();
        let mut talk = Talk::begin(&mut bare, nth, world);
        let handshake = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        talk.wire.say(&handshake);
        let expected = (talk.wire.flow, Some(talk.browser.call.id), handshake.to_vec());
        assert_eq!(bare.client.punt().unwrap(), expected);
        talk.both_speak();
        // Nothing of UDP is heard on the flow, be it the same addresses and ports.
        talk.browser.speak();
        talk.browser.flow.local.set_port(MEDIA);
        talk.browser.speak();
        let (streams, count) = flood(&bare, world);
        talk.both_speak();
        until("the flood is over", 2 * PATIENCE, || {
            let grew = bare.grown(&before);
            let refused = grew("tcp_refused_source") + grew("tcp_refused_full");
            refused + grew("tcp_ended_stranger") + grew("tcp_ended_silent") + grew("tcp_evicted") == count
        });
        drop(streams);
        talk.both_speak();
        let grew = bare.grown(&before);
        assert_eq!((grew("tcp_accepted") - grew("tcp_closed"), grew("drop_tcp_full")), (1, 0));
        assert_eq!(grew("forward_rtp"), 6 * u64::from(RTP));
        talks.push(talk);
    }
    comes_by_another(&mut bare, &mut talks);
    // With the relay the connections are gone, and the calls are not.
    std::thread::sleep(Duration::from_millis(1100));
    bare.kill_relay();
    for talk in &mut talks {
        while !talk.wire.is_over() {}
    }
    comes_by_another(&mut bare, &mut talks);
    bare.end(talks.iter().map(|talk| talk.browser.call.id));
}

/// The connection of each call ends: what is sent by it is counted, and another one takes its place.
fn comes_by_another(bare: &mut Bare, talks: &mut [Talk]) {
    for (talk, world) in talks.iter_mut().zip(worlds()) {
        let _ = talk.wire.stream.shutdown(std::net::Shutdown::Both);
        let before = bare.counters();
        until("packets are lost", PATIENCE, || {
            talk.phone.speak();
            bare.grown(&before)("drop_tcp_gone") > 3
        });
        talk.wire = met(bare, world);
        talk.install(bare);
        talk.both_speak();
    }
}

#[test]
fn connections_carry_calls_and_strangers_get_nothing_by_native_xdp() {
    if possible() {
        connections("xdp");
    }
}

#[test]
fn connections_carry_calls_and_strangers_get_nothing_by_sockets() {
    if possible() {
        connections("socket");
    }
}
