//! Several workers on sockets: the kernel brings each its own calls, and what comes to the wrong one reaches its owner.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use sallyport_bench::load::drive::Keys;
use sallyport_bench::load::mix::Mix;
use sallyport_bench::load::net::{BROWSER, INSIDE, OUTSIDE, Row, Shape};
use sallyport_bench::load::relay::{LoadCall, RelayClient, plan};
use sallyport_bench::load::target::{FIRST, MEDIA, Middle, call, keys};
use sallyport_io::steer;
use sallyport_lab::appliance::programs;
use sallyport_plan::PortPair;
use sallyport_srtp::RTP_OVERHEAD;
use sallyport_wire::PacketBuf;

use crate::stage::possible;

const WORKERS: u32 = 3;
const CALLS: usize = 24;
/// Packets of each call, each way.
const PACKETS: u16 = 10;
/// RTP header and 20 ms of G.711.
const PACKET: usize = 12 + 160;

/// A relay on sockets with several workers between a browsers' and an agents' side; gone when dropped.
struct Scene {
    row: Row,
    relay: Middle,
    client: RelayClient,
    folder: PathBuf,
}

impl Scene {
    fn set() -> Self {
        let row = Row::make(Shape::default()).unwrap();
        let folder = std::env::temp_dir().join(&row.name);
        fs::create_dir_all(&folder).unwrap();
        let (config, socket) = (folder.join("relay.toml"), folder.join("relay.sock"));
        let text = format!(
            "[outside]\ninterface = 'out0'\nport = {MEDIA}\n[inside]\ninterface = 'in0'\nports = [{FIRST}, 65000]\n\
             [relay]\npath = 'socket'\nworkers = {WORKERS}\nsocket = '{}'\npins = '{}'\n[log]\nfilter = 'warn'\n",
            socket.display(),
            folder.join("bpf").display(),
        );
        fs::write(&config, text).unwrap();
        let program = programs().unwrap().join("sallyport-relay");
        let arguments = ["--config".to_owned(), config.display().to_string()];
        let mut relay = Middle::start(&row, &program.display().to_string(), &arguments).unwrap();
        let client = relay.wait(|| RelayClient::connect(&socket).ok()).unwrap().0;
        Self { row, relay, client, folder }
    }

    fn counters(&mut self) -> BTreeMap<String, u64> {
        let status = self.client.status().unwrap();
        status.counters.into_iter().map(|counter| (counter.name, counter.value)).collect()
    }

    fn socket(&self, side: &str, address: SocketAddr) -> UdpSocket {
        let socket = self.row.within(side, || Ok(UdpSocket::bind(address)?)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.relay.end();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Both ends of a call.
struct Ends {
    call: LoadCall,
    ports: PortPair,
    browser: UdpSocket,
    agent: UdpSocket,
    keys: Keys,
    sequence: u16,
}

impl Ends {
    fn place(scene: &mut Scene, at: usize) -> Self {
        let call = call(at, "aes-cm", Mix::G711).unwrap();
        let ports = scene.client.reserve(call.id, INSIDE.parse::<IpAddr>().unwrap()).unwrap();
        scene.client.install(&call, media(), ports).unwrap();
        let (browser, agent) = (scene.socket("o", call.browser), scene.socket("i", call.agent));
        let keys = keys(&call.from_browser, &call.to_browser).unwrap();
        Self { call, ports, browser, agent, keys, sequence: 0 }
    }

    /// The worker that hears the browser from this address.
    fn hearer(address: SocketAddr) -> u32 {
        steer(address, WORKERS)
    }

    /// Sends packets both ways; each must arrive, and verify.
    fn talk(&mut self) {
        for _ in 0..PACKETS {
            self.sequence += 1;
            let mut octets = vec![0xd5; PACKET + RTP_OVERHEAD];
            octets[..2].copy_from_slice(&[0x80, 0]);
            octets[2..4].copy_from_slice(&self.sequence.to_be_bytes());
            self.agent.send_to(&octets[..PACKET], self.ports.rtp).unwrap();
            let mut packet = PacketBuf::new(&mut octets, 0..PACKET).unwrap();
            self.keys.seal.seal_rtp(&mut packet).unwrap();
            self.browser.send_to(packet.packet(), media()).unwrap();
        }
        for _ in 0..PACKETS {
            let mut octets = [0; 2048];
            let (length, from) = self.agent.recv_from(&mut octets).unwrap();
            assert_eq!((length, from), (PACKET, self.ports.rtp));
            let (length, from) = self.browser.recv_from(&mut octets).unwrap();
            assert_eq!(from, media());
            let mut packet = PacketBuf::new(&mut octets, 0..length).unwrap();
            self.keys.open.open_rtp(&mut packet).unwrap();
        }
    }
}

fn media() -> SocketAddr {
    SocketAddr::new(OUTSIDE.parse().unwrap(), MEDIA)
}

/// Packets that each worker has received.
fn received(counters: &BTreeMap<String, u64>) -> Vec<u64> {
    (0..WORKERS).map(|worker| counters[&format!("received_by_worker_{worker}")]).collect()
}

#[test]
fn workers_on_sockets_share_the_load_and_strays_reach_their_owner() {
    if !possible() {
        return;
    }
    let mut scene = Scene::set();
    let mut calls: Vec<Ends> = (0..CALLS).map(|at| Ends::place(&mut scene, at)).collect();
    calls.iter_mut().for_each(Ends::talk);

    // Both ways of a call come to the worker that the browser's address is steered to, and to no other.
    let mut expected = vec![0; WORKERS as usize];
    for ends in &calls {
        expected[Ends::hearer(ends.call.browser) as usize] += 2 * u64::from(PACKETS);
    }
    let before = scene.counters();
    assert_eq!(received(&before), expected);
    assert!(expected.iter().all(|count| *count > 0), "{expected:?}");
    assert_eq!((before["strays"], before["drop_unknown_flow"]), (0, 0));

    // A browser moves to an address that another worker hears: its call stays with its owner.
    let ends = &mut calls[0];
    let (owner, ip) = (Ends::hearer(ends.call.browser), BROWSER.parse().unwrap());
    let moved = (50_000..).map(|port| SocketAddr::new(ip, port));
    ends.call.browser = moved.into_iter().find(|address| Ends::hearer(*address) != owner).unwrap();
    ends.browser = scene.socket("o", ends.call.browser);
    let mut second = plan(&ends.call, media(), ends.ports);
    second.version = 2;
    scene.client.install_plan(second).unwrap();
    ends.talk();
    let after = scene.counters();
    assert_eq!(after["strays"], u64::from(PACKETS));
    assert_eq!((after["drop_unknown_flow"], after["drop_stray_overflow"]), (0, 0));

    for ends in &calls {
        scene.client.remove(ends.call.id).unwrap();
    }
    let status = scene.client.status().unwrap();
    assert_eq!((status.calls, status.ports, status.flows, status.frames.1), (0, 0, 0, 0));
    // The ports are free for others again, whichever worker had them.
    for ends in &calls {
        let freed = scene.row.within("d", || Ok(UdpSocket::bind(ends.ports.rtp).is_ok()));
        assert!(freed.unwrap(), "a worker still has the sockets of a call that ended");
    }
}
