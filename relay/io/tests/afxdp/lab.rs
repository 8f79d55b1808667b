//! Three network namespaces in a row: client, appliance in the middle, server; and the ports of the appliance.
//!
//! ```text
//!   client c0 10.77.1.1 -- 10.77.1.2 d0 | middle | d1 10.77.2.2 -- 10.77.2.1 s0 server     (IPv6: fd77:1::, fd77:2::)
//! ```

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use sallyport_io::{
    AfXdpPort, Burst, Egress, FrameSize, Mode, OpenError, Port, Queue, Received, TransmitError,
};
use sallyport_wire::frame::Link;

pub const CLIENT_MAC: [u8; 6] = [2, 0x77, 0, 0, 1, 1];
pub const OUTSIDE_MAC: [u8; 6] = [2, 0x77, 0, 0, 1, 2];
pub const SERVER_MAC: [u8; 6] = [2, 0x77, 0, 0, 2, 1];
pub const INSIDE_MAC: [u8; 6] = [2, 0x77, 0, 0, 2, 2];

/// Where the server listens.
const SERVICE: u16 = 9000;

/// One lab at a time: they are timed.
static ONE: Mutex<()> = Mutex::new(());
static LABS: AtomicU32 = AtomicU32::new(0);

pub struct Lab {
    name: String,
    queues: u32,
    program: PathBuf,
    /// MTU that ports are told of.
    pub mtu: Cell<u32>,
    _one: MutexGuard<'static, ()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Client,
    Middle,
    Server,
}

/// Says why a test cannot run; in CI that is a failure.
fn skip(reason: &str) -> Option<Lab> {
    eprintln!("SKIPPED: {reason}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI: {reason}");
    None
}

fn run(line: &str) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let output =
        Command::new(words.next().unwrap()).args(words).output().map_err(|e| format!("{line}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)))
}

impl Lab {
    /// Builds the lab with so many queues on each interface; `None` where this machine cannot.
    pub fn new(queues: u32) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return skip("network namespaces and XDP need root");
        }
        for tool in ["clang --version", "ip netns list", "ethtool --version"] {
            if let Err(error) = run(tool) {
                return skip(&error);
            }
        }
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("sp-i{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let program = std::env::temp_dir().join(format!("{name}.o"));
        let lab = Self { name, queues, program, mtu: Cell::new(1500), _one: one };
        // With the tools there, all else has to work: a skip here would hide a broken test.
        lab.build().unwrap();
        Some(lab)
    }

    pub fn namespace(&self, place: Place) -> String {
        format!("{}-{}", self.name, format!("{place:?}").to_lowercase())
    }

    fn build(&self) -> Result<(), String> {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/afxdp/redirect.c");
        let target = self.program.display();
        let include = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        run(&format!("clang -O2 -g -Wall -Werror -target bpf -I{include} -c {source} -o {target}"))?;
        for place in [Place::Client, Place::Middle, Place::Server] {
            run(&format!("ip netns add {}", self.namespace(place)))?;
            run(&format!("ip -n {} link set lo up", self.namespace(place)))?;
        }
        self.cable(1, "d0", OUTSIDE_MAC, Place::Client, "c0", CLIENT_MAC)?;
        self.cable(2, "d1", INSIDE_MAC, Place::Server, "s0", SERVER_MAC)
    }

    fn cable(
        &self,
        net: u8,
        ours: &str,
        our_mac: [u8; 6],
        far: Place,
        theirs: &str,
        their_mac: [u8; 6],
    ) -> Result<(), String> {
        let (middle, far) = (self.namespace(Place::Middle), self.namespace(far));
        let (our_mac, their_mac) = (text(our_mac), text(their_mac));
        let queues = format!("numrxqueues {0} numtxqueues {0}", self.queues);
        run(&format!(
            "ip -n {middle} link add {ours} {queues} address {our_mac} type veth \
             peer name {theirs} netns {far} {queues} address {their_mac}"
        ))?;
        for (namespace, device, host, other, mac) in
            [(&middle, ours, 2, 1, &their_mac), (&far, theirs, 1, 2, &our_mac)]
        {
            run(&format!("ip -n {namespace} addr add 10.77.{net}.{host}/24 dev {device}"))?;
            run(&format!("ip -n {namespace} addr add fd77:{net}::{host}/64 dev {device} nodad"))?;
            run(&format!("ip -n {namespace} link set {device} up"))?;
            for address in [format!("10.77.{net}.{other}"), format!("fd77:{net}::{other}")] {
                run(&format!("ip -n {namespace} neigh replace {address} lladdr {mac} dev {device}"))?;
            }
        }
        Ok(())
    }

    /// Makes the cables carry longer packets, or shorter ones.
    pub fn carry(&self, mtu: u32) {
        for (place, device) in
            [(Place::Client, "c0"), (Place::Middle, "d0"), (Place::Middle, "d1"), (Place::Server, "s0")]
        {
            self.command(place, &format!("ip link set {device} mtu {mtu}"));
        }
        self.mtu.set(mtu);
    }

    /// Runs a command line of `ip` or another tool in a namespace.
    pub fn command(&self, place: Place, line: &str) {
        run(&format!("ip netns exec {} {line}", self.namespace(place))).unwrap();
    }

    /// Runs `work` with this thread in a namespace.
    pub fn within<T>(&self, place: Place, work: impl FnOnce() -> T) -> T {
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        let away = File::open(format!("/run/netns/{}", self.namespace(place))).unwrap();
        setns(away, CloneFlags::CLONE_NEWNET).unwrap();
        let result = work();
        setns(home, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }

    pub fn socket(&self, place: Place, address: &str) -> UdpSocket {
        let socket = self.within(place, || UdpSocket::bind(address)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// A queue of `d0` (zone 1) or `d1` (zone 2).
    pub fn queue(&self, device: &str, queue: u32, mode: Mode) -> Queue {
        let ifindex = self.within(Place::Middle, || if_nametoindex(device)).unwrap();
        Queue { ifindex, queue, zone: if device == "d0" { 1 } else { 2 }, mode, mtu: self.mtu.get() }
    }

    /// Opens a port in the middle.
    pub fn open(&self, queues: &[Queue], frames: u32) -> Result<AfXdpPort, OpenError> {
        self.within(Place::Middle, || AfXdpPort::open(queues, frames, FrameSize::of_mtu(self.mtu.get())))
    }

    /// A port and the program on the client's interface, for frames that its sockets cannot make.
    pub fn client_port(&self) -> (AfXdpPort, Ebpf) {
        let ifindex = self.within(Place::Client, || if_nametoindex("c0")).unwrap();
        let queue = Queue { ifindex, queue: 0, zone: 1, mode: Mode::Native, mtu: 1500 };
        let port =
            self.within(Place::Client, || AfXdpPort::open(&[queue], 256, FrameSize::Ordinary)).unwrap();
        let program = self.attach(Place::Client, ifindex, Mode::Native, std::slice::from_ref(&port));
        (port, program)
    }

    /// Attaches the program to both interfaces and opens a port for each queue.
    pub fn appliance(&self, mode: Mode, frames: u32) -> Appliance {
        let ports: Vec<AfXdpPort> = (0..self.queues)
            .map(|queue| {
                let both = [self.queue("d0", queue, mode), self.queue("d1", queue, mode)];
                self.open(&both, frames).unwrap()
            })
            .collect();
        let programs = ["d0", "d1"]
            .map(|device| self.attach(Place::Middle, self.queue(device, 0, mode).ifindex, mode, &ports));
        Appliance {
            ports,
            _programs: programs,
            clients: HashMap::new(),
            burst: Burst::new(),
            seen: Vec::new(),
        }
    }

    fn attach(&self, place: Place, index: u32, mode: Mode, ports: &[AfXdpPort]) -> Ebpf {
        let mut object = Ebpf::load(&fs::read(&self.program).unwrap()).unwrap();
        let mut sockets = XskMap::try_from(object.map_mut("sockets").unwrap()).unwrap();
        for (ifindex, queue, socket) in ports.iter().flat_map(AfXdpPort::sockets) {
            if ifindex == index {
                sockets.set(queue, socket, 0).unwrap();
            }
        }
        let program: &mut Xdp = object.program_mut("redirect").unwrap().try_into().unwrap();
        program.load().unwrap();
        let mode = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        self.within(place, || program.attach_to_if_index(index, mode)).unwrap();
        object
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.program);
        for place in [Place::Client, Place::Middle, Place::Server] {
            let _ = run(&format!("ip netns del {}", self.namespace(place)));
        }
    }
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// What a test wants to know of a datagram that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub port: usize,
    pub zone: u8,
    pub local: SocketAddr,
    pub tag: Option<(u32, u32)>,
    pub source_mac: Option<[u8; 6]>,
    pub vlan: Option<u16>,
}

/// Forwards between client and server, as a relay would.
pub struct Appliance {
    pub ports: Vec<AfXdpPort>,
    _programs: [Ebpf; 2],
    /// By port number of ours: whom answers go to.
    pub clients: HashMap<u16, SocketAddr>,
    burst: Burst,
    pub seen: Vec<Seen>,
}

impl Appliance {
    /// Receives one burst by each port and forwards it; returns how many datagrams came in.
    pub fn pump(&mut self) -> usize {
        let mut total = 0;
        for at in 0..self.ports.len() {
            let mut burst = std::mem::take(&mut self.burst);
            total += self.ports[at].receive(&mut burst).unwrap();
            for received in burst.drain() {
                let Received { zone, local, tag, source_mac, vlan, .. } = received;
                self.seen.push(Seen { port: at, zone, local, tag, source_mac, vlan });
                let (frame, payload, egress) = self.route(received);
                match self.ports[at].transmit(frame, payload, &egress) {
                    Ok(()) | Err(TransmitError::Full) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            self.burst = burst;
            self.ports[at].flush().unwrap();
        }
        total
    }

    fn route(&mut self, received: Received) -> (sallyport_io::Frame, std::ops::Range<usize>, Egress) {
        let port = received.local.port();
        let v4 = received.local.is_ipv4();
        let host = |net: u8, host: u8| -> IpAddr {
            if v4 { format!("10.77.{net}.{host}") } else { format!("fd77:{net}::{host}") }.parse().unwrap()
        };
        let egress = if received.zone == 1 {
            self.clients.insert(port, received.remote);
            let link = Link { source_mac: INSIDE_MAC, destination_mac: SERVER_MAC, vlan: None, dscp: 46 };
            let (local, remote) = ((host(2, 2), port).into(), (host(2, 1), SERVICE).into());
            Egress { zone: 2, local, remote, link: Some(link) }
        } else {
            let vlan = received.vlan;
            let link = Link { source_mac: OUTSIDE_MAC, destination_mac: CLIENT_MAC, vlan, dscp: 0 };
            let local = (host(1, 2), port).into();
            Egress { zone: 1, local, remote: self.clients[&port], link: Some(link) }
        };
        (received.frame, received.payload, egress)
    }

    /// Pumps until `done` says so. Panics after some seconds.
    pub fn pump_until(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(10);
        while !done() {
            if self.pump() == 0 {
                std::thread::yield_now();
            }
            assert!(
                Instant::now() < until,
                "{what}: {:?}",
                self.ports.iter().map(Port::frames).collect::<Vec<_>>()
            );
        }
    }

    /// Waits until nothing is on its way, then checks that every frame is free or waits for a packet.
    pub fn settle(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        while self.pump() > 0 || self.ports.iter().any(|port| port.frames().transmit > 0) {
            assert!(Instant::now() < until, "transmissions do not complete");
        }
        for port in &self.ports {
            let count = port.frames();
            assert_eq!((count.missing(), count.lost, count.held, count.transmit), (0, 0, 0, 0), "{count:?}");
            assert_eq!(count.fill + count.receive + count.free, count.total);
            assert_eq!(count.fill + count.receive, count.total / 2, "stocked again: {count:?}");
            assert_eq!((port.counters().corrupt, port.counters().errors), (0, 0));
        }
    }
}

/// A client's sockets and the server.
pub struct Peers {
    pub clients: Vec<UdpSocket>,
    server: UdpSocket,
    next: u32,
}

impl Peers {
    /// `count` client sockets of one family, client `n` connected to port 4000 + n of the appliance.
    pub fn new(lab: &Lab, v4: bool, count: u16) -> Self {
        let [client, ours, server] = if v4 {
            ["10.77.1.1:0", "10.77.1.2", "10.77.2.1:9000"]
        } else {
            ["[fd77:1::1]:0", "fd77:1::2", "[fd77:2::1]:9000"]
        };
        let ours: IpAddr = ours.parse().unwrap();
        let clients = (0..count).map(|n| {
            let socket = lab.socket(Place::Client, client);
            socket.connect((ours, 4000 + n)).unwrap();
            socket
        });
        Self { clients: clients.collect(), server: lab.socket(Place::Server, server), next: 0 }
    }

    /// Sends a serial number by each client, and waits until the server has them all, each with the appliance's inner
    /// address as its source; then until each client has its own back. `length`: octets of each datagram.
    pub fn exchange(&mut self, appliance: &mut Appliance, length: usize) {
        let mut bytes = vec![0x5a; length];
        for (n, client) in self.clients.iter().enumerate() {
            bytes[..4].copy_from_slice(&(self.next + u32::try_from(n).unwrap()).to_be_bytes());
            client.send(&bytes).unwrap();
        }
        let count = self.clients.len();
        let mut asked: HashMap<u32, SocketAddr> = HashMap::new();
        let server = &self.server;
        appliance.pump_until("to the server", || {
            let mut answer = [0; 9000];
            while let Ok((received, from)) = server.recv_from(&mut answer) {
                assert_eq!((received, &answer[4..received]), (length, &bytes[4..]));
                let serial = u32::from_be_bytes(answer[..4].try_into().unwrap());
                assert!(asked.insert(serial, from).is_none(), "doubled");
                server.send_to(&answer[..received], from).unwrap();
            }
            asked.len() == count
        });
        let mut answered = vec![false; count];
        appliance.pump_until("to the client", || {
            for (n, client) in self.clients.iter().enumerate() {
                let mut answer = [0; 9000];
                if let Ok(received) = client.recv(&mut answer) {
                    let serial = self.next + u32::try_from(n).unwrap();
                    assert_eq!((received, &answer[..4]), (length, &serial.to_be_bytes()[..]));
                    assert_eq!(usize::from(asked[&serial].port()), 4000 + n);
                    assert!(!std::mem::replace(&mut answered[n], true), "doubled");
                }
            }
            answered.iter().all(|answered| *answered)
        });
        self.next += u32::try_from(count).unwrap();
    }
}
