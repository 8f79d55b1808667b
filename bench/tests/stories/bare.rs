//! The relay alone between two namespaces, with the test as its control; IPv4 and IPv6 on both sides.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_bench::load::drive::Keys;
use sallyport_bench::load::mix::Mix;
use sallyport_bench::load::net::{Row, Shape};
use sallyport_bench::load::relay::{LoadCall, RelayClient, plan};
use sallyport_bench::load::target::{FIRST, MEDIA, Middle, call, keys};
use sallyport_lab::appliance::programs;
use sallyport_plan::{FlowKey, Plan, PortPair, Status, Zone};
use sallyport_srtp::{RTCP_OVERHEAD, RTP_OVERHEAD};
use sallyport_wire::PacketBuf;

use crate::stage::until;

/// The port for browsers inside.
pub const BROWSERS: u16 = 10_001;
/// The TCP port outside, of [`Bare::connectable`].
pub const TCP: u16 = 443;
/// RTP header and 20 ms of G.711.
const PACKET: usize = 12 + 160;

/// Our addresses and the far ends' of one IP version.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub outside: IpAddr,
    pub inside: IpAddr,
    pub browser: IpAddr,
    pub agent: IpAddr,
    /// Of somebody inside behind a router.
    pub routed: IpAddr,
}

/// IPv4 and IPv6.
pub fn worlds() -> [World; 2] {
    let world = |[outside, inside, browser, agent, routed]: [&str; 5]| {
        let ip = |text: &str| text.parse().unwrap();
        World {
            outside: ip(outside),
            inside: ip(inside),
            browser: ip(browser),
            agent: ip(agent),
            routed: ip(routed),
        }
    };
    [
        world(["198.51.100.1", "10.77.0.1", "198.51.100.2", "10.77.0.2", "10.99.0.7"]),
        world(["2001:db8:1::1", "fd77::1", "2001:db8:1::2", "fd77::2", "fd99::7"]),
    ]
}

/// A relay between both sides; gone when dropped, in this order: the program must have ended before its pins go.
pub struct Bare {
    pub client: RelayClient,
    socket: PathBuf,
    _relay: Middle,
    _folder: Folder,
    pub row: Row,
}

/// What the relay writes to; gone when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let pins = self.0.join("bpf");
        let _ = sallyport_xdp::clear(&pins);
        let _ = nix::mount::umount(&pins);
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Bare {
    /// Starts it on `path` with so many workers.
    pub fn set(path: &str, workers: u32) -> Self {
        Self::set_with(path, workers, "").unwrap()
    }

    /// As [`Bare::set`], with more lines of `[relay]`; an error where the relay does not come up.
    pub fn set_with(path: &str, workers: u32, more: &str) -> anyhow::Result<Self> {
        Self::start(path, workers, ["", more], false)
    }

    /// As [`Bare::set`], under a supervisor, with a TCP port outside.
    pub fn connectable(path: &str, workers: u32) -> Self {
        Self::start(path, workers, [&format!("tcp = {TCP}"), ""], true).unwrap()
    }

    /// As [`Bare::set`], under a supervisor that starts a relay anew; in control's place stands nobody.
    pub fn supervised(path: &str, workers: u32) -> Self {
        Self::start(path, workers, ["", ""], true).unwrap()
    }

    /// `more`: lines of `[outside]` and of `[relay]`.
    fn start(path: &str, workers: u32, more: [&str; 2], supervised: bool) -> anyhow::Result<Self> {
        let row = Row::make(Shape { workers: Some(workers), taps: false }).unwrap();
        let [v4, v6] = worlds();
        let ends = [
            ("o", "wan0", v6.browser),
            ("d", "out0", v6.outside),
            ("d", "in0", v6.inside),
            ("i", "lan0", v6.agent),
        ];
        for (at, (side, interface, address)) in ends.into_iter().enumerate() {
            // Neighbours are asked from these; the system's own would be tentative for a while.
            ip(&row, side, &format!("-6 addr flush dev {interface} scope link"));
            ip(&row, side, &format!("addr add fe80::{}/64 dev {interface} nodad", at + 1));
            ip(&row, side, &format!("addr add {address}/64 dev {interface} nodad"));
        }
        // A router inside, in the agent's namespace, and a network behind it.
        for world in [v4, v6] {
            let length = if world.agent.is_ipv4() { 32 } else { 128 };
            ip(&row, "i", &format!("addr add {}/{length} dev lo", world.routed));
            ip(&row, "d", &format!("route add {}/{length} via {}", world.routed, world.agent));
        }
        let guard = Folder(std::env::temp_dir().join(&row.name));
        let folder = &guard.0;
        fs::create_dir_all(folder).unwrap();
        let (config, socket) = (folder.join("relay.toml"), folder.join("relay.sock"));
        let [outside, relay] = more;
        let text = format!(
            "[outside]\ninterface = 'out0'\nport = {MEDIA}\n{outside}\n[inside]\ninterface = 'in0'\nports = [{FIRST}, 65000]\n\
             browsers = {BROWSERS}\n[relay]\npath = '{path}'\nworkers = {workers}\nsocket = '{}'\npins = '{}'\n{relay}\n\
             [log]\nfilter = 'warn'\n",
            socket.display(),
            folder.join("bpf").display(),
        );
        fs::write(&config, text).unwrap();
        let mut arguments = vec!["--config".to_owned(), config.display().to_string()];
        let program = if supervised {
            arguments.insert(0, "run".into());
            supervisor(folder)
        } else {
            programs().unwrap().join("sallyport-relay")
        };
        let mut relay = Middle::start(&row, &program.display().to_string(), &arguments).unwrap();
        let (client, status) = relay.wait(|| RelayClient::connect(&socket).ok())?;
        // The drivers of these cables do not offer it.
        assert!(!status.interfaces.iter().any(|interface| interface.hashes_ports), "{:?}", status.interfaces);
        let mut told =
            status.interfaces.iter().map(|interface| (interface.path.as_str(), interface.browsers));
        assert!(told.by_ref().eq([(path, None), (path, Some(BROWSERS))]), "{:?}", status.interfaces);
        assert_eq!(status.workers, workers);
        Ok(Self { client, socket, _relay: relay, _folder: guard, row })
    }

    /// Kills the relay, and waits for one that carries as many calls.
    pub fn kill_relay(&mut self) {
        let calls = self.client.status().unwrap().calls;
        let listed = Command::new("ip").args(["netns", "pids", &self.row.namespace("d")]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let is_relay = |pid: &&str| {
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            program.file_name().is_some_and(|name| name == "sallyport-relay")
        };
        let pid = listed.lines().find(is_relay).unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        until("the next relay goes on", Duration::from_secs(10), || {
            let Ok((client, status)) = RelayClient::connect(&self.socket) else { return false };
            self.client = client;
            status.calls == calls
        });
    }

    /// Every counter of now.
    pub fn counters(&mut self) -> BTreeMap<String, u64> {
        let status = self.client.status().unwrap();
        status.counters.into_iter().map(|counter| (counter.name, counter.value)).collect()
    }

    /// What has grown since, by counter.
    pub fn grown(&mut self, before: &BTreeMap<String, u64>) -> impl Fn(&str) -> u64 + use<> {
        let (before, after) = (before.clone(), self.counters());
        move |name: &str| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0)
    }

    /// A socket in one of the namespaces.
    pub fn socket(&self, side: &str, address: SocketAddr) -> UdpSocket {
        let socket = self.row.within(side, || Ok(UdpSocket::bind(address)?)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    /// IP packets that have come to the far end inside.
    pub fn arrived_inside(&self) -> u64 {
        let read = || Ok(fs::read_to_string("/proc/thread-self/net/dev")?);
        let text = self.row.within("i", read).unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("lan0:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Ends a call, and everything has to be given back with the last.
    pub fn end(mut self, calls: impl IntoIterator<Item = sallyport_plan::CallId>) {
        for call in calls {
            self.client.remove(call).unwrap();
        }
        let Status { calls, ports, flows, frames, .. } = self.client.status().unwrap();
        assert_eq!((calls, ports, flows, frames.1), (0, 0, 0, 0));
    }
}

/// The supervisor, in a folder with a control that does nothing.
fn supervisor(folder: &Path) -> PathBuf {
    let programs = programs().unwrap();
    let (own, control) = (folder.join("sallyport"), folder.join("sallyport-control"));
    fs::copy(programs.join("sallyport"), &own).unwrap();
    std::os::unix::fs::symlink(programs.join("sallyport-relay"), folder.join("sallyport-relay")).unwrap();
    fs::write(&control, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&control, fs::Permissions::from_mode(0o755)).unwrap();
    own
}

fn ip(row: &Row, side: &str, line: &str) {
    let namespace = row.namespace(side);
    let done = Command::new("ip").args(["-n", &namespace]).args(line.split_whitespace()).status();
    assert!(done.unwrap().success(), "ip -n {namespace} {line}");
}

/// A browser's call: where it is, where it sends to, and its keys.
pub struct Browser {
    pub call: LoadCall,
    pub flow: FlowKey,
    pub ports: PortPair,
    pub socket: UdpSocket,
    keys: Keys,
    sequence: u16,
}

impl Browser {
    /// The `at`th browser, at `remote`, whose call sends from `local`; its inside leg is reserved, and nothing installed.
    pub fn new(
        bare: &mut Bare,
        at: usize,
        zone: Zone,
        local: SocketAddr,
        remote: SocketAddr,
        family: IpAddr,
    ) -> Self {
        let mut call = call(at, "aes-cm", Mix::G711).unwrap();
        call.browser = remote;
        let ports = bare.client.reserve(call.id, family).unwrap();
        let socket = bare.socket(if zone == Zone::Outside { "o" } else { "i" }, remote);
        let keys = keys(&call.from_browser, &call.to_browser).unwrap();
        Self { call, flow: FlowKey { zone, local, remote }, ports, socket, keys, sequence: 0 }
    }

    /// The plan of its call, whose plain leg is with `far` and the port above.
    pub fn plan(&mut self, far: SocketAddr) -> Plan {
        self.call.agent = far;
        let mut plan = plan(&self.call, self.flow.local, self.ports);
        for direction in &mut plan.directions {
            let paths = direction.ingress.iter_mut().chain([&mut direction.rtp, &mut direction.rtcp]);
            for path in paths.filter(|path| path.local == self.flow.local) {
                path.zone = self.flow.zone;
            }
        }
        plan
    }

    /// A packet of its stream, open: RTP.
    fn packet(&mut self) -> Vec<u8> {
        self.sequence += 1;
        let mut octets = vec![0xd5; PACKET];
        octets[..2].copy_from_slice(&[0x80, 0]);
        octets[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        octets[4..8].copy_from_slice(&(u32::from(self.sequence) * 160).to_be_bytes());
        octets[8..12].copy_from_slice(&[9; 4]);
        octets[12..14].copy_from_slice(&self.sequence.to_be_bytes());
        octets
    }

    /// Sends an RTP packet; its payload.
    pub fn speak(&mut self) -> Vec<u8> {
        let (payload, sealed) = self.sealed();
        self.socket.send_to(&sealed, self.flow.local).unwrap();
        payload
    }

    /// The next RTP packet: its payload, and all of it as it is sent.
    pub fn sealed(&mut self) -> (Vec<u8>, Vec<u8>) {
        let packet = self.packet();
        let mut octets = [packet.clone(), vec![0; RTP_OVERHEAD]].concat();
        let mut buf = PacketBuf::new(&mut octets, 0..PACKET).unwrap();
        self.keys.seal.seal_rtp(&mut buf).unwrap();
        (packet[12..].to_vec(), buf.packet().to_vec())
    }

    /// Sends a receiver report without blocks and a source description.
    pub fn report(&mut self) {
        let packet =
            [&[0x80, 201, 0, 1][..], &[9; 4], &[0x81, 202, 0, 2], &[9; 4], &[1, 1, b'x', 0]].concat();
        let mut octets = [packet.clone(), vec![0; RTCP_OVERHEAD]].concat();
        let mut buf = PacketBuf::new(&mut octets, 0..packet.len()).unwrap();
        self.keys.seal.seal_rtcp(&mut buf).unwrap();
        self.socket.send_to(buf.packet(), self.flow.local).unwrap();
    }

    /// The next datagram, from where the call sends.
    pub fn hear(&self) -> Vec<u8> {
        let mut octets = [0; 2048];
        let (length, from) = self.socket.recv_from(&mut octets).unwrap();
        assert_eq!(from, self.flow.local);
        octets[..length].to_vec()
    }

    /// Opens the next datagram: the payload of RTP, all of RTCP.
    pub fn hear_media(&mut self) -> Vec<u8> {
        let octets = self.hear();
        self.opened(octets)
    }

    /// Opens a datagram: the payload of RTP, all of RTCP.
    pub fn opened(&mut self, mut octets: Vec<u8>) -> Vec<u8> {
        let length = octets.len();
        let rtcp = (192..=223).contains(&octets[1]);
        let mut buf = PacketBuf::new(&mut octets, 0..length).unwrap();
        if rtcp {
            self.keys.open.open_rtcp(&mut buf).unwrap();
            return buf.packet().to_vec();
        }
        self.keys.open.open_rtp(&mut buf).unwrap();
        buf.packet()[12..].to_vec()
    }

    /// Whether nothing more has come.
    pub fn is_quiet(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let quiet = self.socket.recv_from(&mut [0; 2048]).is_err();
        self.socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        quiet
    }
}
