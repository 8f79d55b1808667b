//! The made-up world: six network namespaces and the cables between them.
//!
//! ```text
//!  browser ── nat ──────────── internet ─────────── dmznat ───────── dmz ──────── enterprise
//!  .77.10    masquerades as    router, STUN at      1:1:             the          SIP agent
//!            198.51.100.10     192.0.2.10           203.0.113.7 =    appliance    10.20.0.5
//!                                                   172.20.0.7
//! ```
//!
//! The appliance's outside address is private, as behind a cloud provider's or a firewall's 1:1 NAT; nobody else reaches
//! the enterprise, nor it them. [`Options::agent`] adds a second browser: with [`Agents::Inside`] behind a NAT of the
//! enterprise (`agent` - `agentnat` - `enterprise`, with a second STUN server at 10.20.0.5), with [`Agents::Outside`] behind
//! one on the Internet. With [`Options::ipv6`] each cable also carries IPv6, routed and not translated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::namespace::Namespace;
use crate::process::{Process, Program};
use crate::state::State;

/// The browser's address, behind its NAT.
pub const BROWSER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 10);
/// What the Internet sees of the browser.
pub const BROWSER_PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The STUN server.
pub const STUN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), 3478);
/// What the Internet sees of the appliance.
pub const APPLIANCE_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// The appliance's outside address.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 7);
/// The appliance's inside address.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// The agent's address.
pub const AGENT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 5);
/// The STUN server inside, of [`Agents::Inside`].
pub const STUN_INSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(AGENT), 3478);
/// What the enterprise sees of an agent's browser with [`Agents::Inside`].
pub const AGENT_NAT_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 10);
/// What the Internet sees of an agent's browser with [`Agents::Outside`].
pub const AGENT_NAT_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 101, 10);
/// The appliance's outside address with [`Options::ipv6`]; the Internet sees the same.
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x172, 0, 0, 0, 0, 7);
/// The appliance's inside address with [`Options::ipv6`].
pub const INSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1);
/// The agent's address with [`Options::ipv6`].
pub const AGENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 5);

/// Name of the appliance's outside interface.
pub const OUTSIDE_INTERFACE: &str = "outside";
/// Name of the appliance's inside interface.
pub const INSIDE_INTERFACE: &str = "inside";
/// The far end of the appliance's outside cable, in [`Place::DmzNat`].
pub const OUTSIDE_PEER: &str = "lan0";
/// The far end of the appliance's inside cable, in [`Place::Enterprise`].
pub const INSIDE_PEER: &str = "eth0";

/// A namespace's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The customer's machine.
    Browser,
    /// The customer's router.
    Nat,
    /// A router that knows all public networks, and the STUN server.
    Internet,
    /// What translates the appliance's addresses.
    DmzNat,
    /// The appliance.
    Dmz,
    /// SIP server, agents.
    Enterprise,
    /// The router before an agent's browser.
    AgentNat,
    /// An agent's machine with a browser.
    Agent,
}

impl Place {
    /// Those of every world, from outside to inside.
    pub const ALL: [Self; 6] =
        [Self::Browser, Self::Nat, Self::Internet, Self::DmzNat, Self::Dmz, Self::Enterprise];

    /// Part of the namespace's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Nat => "nat",
            Self::Internet => "internet",
            Self::DmzNat => "dmznat",
            Self::Dmz => "dmz",
            Self::Enterprise => "enterprise",
            Self::AgentNat => "agentnat",
            Self::Agent => "agent",
        }
    }

    const fn is_router(self) -> bool {
        matches!(self, Self::Nat | Self::Internet | Self::DmzNat | Self::AgentNat)
    }
}

/// What kind of world.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// IPv6 on every cable too. Browsers prefer it, so their calls then meet no NAT.
    pub ipv6: bool,
    /// RX and TX queues of the appliance's cables.
    pub queues: u32,
    /// Where there is a second browser, an agent's; it has IPv4 only.
    pub agent: Option<Agents>,
}

/// Where an agent's browser is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agents {
    /// Behind a NAT of the enterprise: deployment B.
    Inside,
    /// Behind a NAT on the Internet: deployment C.
    Outside,
}

impl Default for Options {
    fn default() -> Self {
        Self { ipv6: false, queues: 4, agent: None }
    }
}

/// One end of a cable: where, interface, addresses with prefix length, default routes.
struct End {
    place: Place,
    interface: &'static str,
    addresses: [&'static str; 2],
    gateways: [&'static str; 2],
}

const fn end(
    place: Place,
    interface: &'static str,
    addresses: [&'static str; 2],
    gateways: [&'static str; 2],
) -> End {
    End { place, interface, addresses, gateways }
}

/// Cables, from outside to inside. Queues as in [`Options`] where the appliance is at one end.
const CABLES: [[End; 2]; 5] = [
    [
        end(
            Place::Browser,
            "eth0",
            ["192.168.77.10/24", "2001:db8:77::10/64"],
            ["192.168.77.1", "2001:db8:77::1"],
        ),
        end(Place::Nat, "lan0", ["192.168.77.1/24", "2001:db8:77::1/64"], ["", ""]),
    ],
    [
        end(
            Place::Nat,
            "wan0",
            ["198.51.100.10/24", "2001:db8:51::10/64"],
            ["198.51.100.1", "2001:db8:51::1"],
        ),
        end(Place::Internet, "nat0", ["198.51.100.1/24", "2001:db8:51::1/64"], ["", ""]),
    ],
    [
        end(Place::Internet, "dmz0", ["203.0.113.1/24", "2001:db8:113::1/64"], ["", ""]),
        end(
            Place::DmzNat,
            "wan0",
            ["203.0.113.7/24", "2001:db8:113::2/64"],
            ["203.0.113.1", "2001:db8:113::1"],
        ),
    ],
    [
        end(Place::DmzNat, OUTSIDE_PEER, ["172.20.0.1/24", "2001:db8:172::1/64"], ["", ""]),
        end(
            Place::Dmz,
            OUTSIDE_INTERFACE,
            ["172.20.0.7/24", "2001:db8:172::7/64"],
            ["172.20.0.1", "2001:db8:172::1"],
        ),
    ],
    [
        end(Place::Dmz, INSIDE_INTERFACE, ["10.20.0.1/24", "fd20::1/64"], ["", ""]),
        end(Place::Enterprise, INSIDE_PEER, ["10.20.0.5/24", "fd20::5/64"], ["", ""]),
    ],
];

/// The cables of a second browser, its own one last.
const AGENT_INSIDE: [End; 2] = [
    end(Place::Enterprise, "lan1", ["10.30.0.1/24", ""], ["", ""]),
    end(Place::AgentNat, "wan0", ["10.30.0.10/24", ""], ["10.30.0.1", ""]),
];
const AGENT_OUTSIDE: [End; 2] = [
    end(Place::Internet, "nat1", ["198.51.101.1/24", ""], ["", ""]),
    end(Place::AgentNat, "wan0", ["198.51.101.10/24", ""], ["198.51.101.1", ""]),
];
const AGENT_CABLE: [End; 2] = [
    end(Place::AgentNat, "lan0", ["192.168.88.1/24", ""], ["", ""]),
    end(Place::Agent, "eth0", ["192.168.88.10/24", ""], ["192.168.88.1", ""]),
];

/// The customer's router: one public address, filters what it was not asked for.
const NAT: &str = "
table ip nat {
    chain after { type nat hook postrouting priority srcnat
        oifname wan0 masquerade
    }
}
table ip filter {
    chain through { type filter hook forward priority filter
        iifname wan0 ct state new drop
    }
    # Accepted, a stranger's packet would take the browser's port: the mapping would differ by destination.
    chain input { type filter hook input priority filter
        iifname wan0 ct state new drop
    }
}
";

/// 1:1: the appliance's private address and its public one, all ports, both ways.
const ONE_TO_ONE: &str = "
table ip nat {
    chain before { type nat hook prerouting priority dstnat
        iifname wan0 ip daddr 203.0.113.7 dnat to 172.20.0.7
    }
    chain after { type nat hook postrouting priority srcnat
        oifname wan0 ip saddr 172.20.0.7 snat to 203.0.113.7
    }
}
";

/// A world of its own. Everything in it ends with it.
#[derive(Debug)]
pub struct Lab {
    state: Arc<State>,
    options: Options,
}

impl Lab {
    /// Builds the world and starts its STUN server. Needs root.
    ///
    /// # Errors
    /// What is missing, or what a tool says.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        needs()?;
        // From here on a failure drops the lab, which removes what was made.
        let lab = Self { state: State::create()?, options };
        {
            // A signal waits until nothing is half made.
            let _open = lab.state.open()?;
            lab.build()?;
        }
        lab.start_stun("stun", Place::Internet, STUN).context("the STUN server does not start")?;
        if options.agent == Some(Agents::Inside) {
            let inside = lab.start_stun("stun-inside", Place::Enterprise, STUN_INSIDE);
            inside.context("the STUN server inside does not start")?;
        }
        Ok(lab)
    }

    /// Its name, by which `bench lab` knows it.
    pub fn name(&self) -> &str {
        self.state.name()
    }

    /// Where logs, recordings and captures lie.
    pub fn folder(&self) -> &Path {
        self.state.folder()
    }

    /// Whether there is IPv6.
    pub fn ipv6(&self) -> bool {
        self.options.ipv6
    }

    /// A namespace of it.
    pub fn namespace(&self, place: Place) -> Namespace {
        Namespace::named(format!("{}-{}", self.state.name(), place.name()))
    }

    /// Starts a process; its command comes from [`Namespace::command`].
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(&self, program: Program) -> anyhow::Result<Process> {
        Process::start(&self.state, program)
    }

    /// Leaves it all standing after this process; `bench lab clean NAME` removes it.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(self) -> anyhow::Result<()> {
        self.state.keep()
    }

    fn build(&self) -> anyhow::Result<()> {
        for place in Place::ALL {
            let namespace = self.namespace(place);
            namespace.create()?;
            self.settle(place, &namespace)?;
        }
        for cable in &CABLES {
            self.lay(cable)?;
        }
        // The same public network for every address that browsers see, without an interface of its own.
        self.namespace(Place::Internet).ip(&format!("address add {}/32 dev lo\n", STUN.ip()))?;
        if self.options.ipv6 {
            let routes = [
                (Place::Internet, "route add 2001:db8:77::/64 via 2001:db8:51::10\n"),
                (Place::Internet, "route add 2001:db8:172::/64 via 2001:db8:113::2\n"),
            ];
            for (place, route) in routes {
                self.namespace(place).ip(route)?;
            }
        }
        if let Some(agents) = self.options.agent {
            self.build_agent(agents)?;
        }
        self.namespace(Place::Nat).nft(NAT)?;
        self.namespace(Place::DmzNat).nft(ONE_TO_ONE)
    }

    fn build_agent(&self, agents: Agents) -> anyhow::Result<()> {
        for place in [Place::AgentNat, Place::Agent] {
            let namespace = self.namespace(place);
            namespace.create()?;
            self.settle(place, &namespace)?;
        }
        self.lay(if agents == Agents::Inside { &AGENT_INSIDE } else { &AGENT_OUTSIDE })?;
        self.lay(&AGENT_CABLE)?;
        if agents == Agents::Inside {
            self.namespace(Place::Enterprise).run("sysctl -qw net.ipv4.ip_forward=1")?;
            self.namespace(Place::Dmz).ip(&format!("route add 10.30.0.0/24 via {AGENT}\n"))?;
        }
        self.namespace(Place::AgentNat).nft(NAT)
    }

    fn settle(&self, place: Place, namespace: &Namespace) -> anyhow::Result<()> {
        let forward = u8::from(place.is_router());
        let no_ipv6 = u8::from(!self.options.ipv6);
        namespace.ip("link set lo up\n")?;
        namespace.run(&format!(
            "sysctl -qw net.ipv4.ip_forward={forward} net.ipv6.conf.all.forwarding={forward} \
             net.ipv6.conf.all.disable_ipv6={no_ipv6} net.ipv6.conf.default.disable_ipv6={no_ipv6} \
             net.ipv6.conf.default.accept_dad=0"
        ))
    }

    fn lay(&self, [outer, inner]: &[End; 2]) -> anyhow::Result<()> {
        let appliance = outer.place == Place::Dmz || inner.place == Place::Dmz;
        let queues = if appliance { self.options.queues } else { 1 };
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        let far = self.namespace(inner.place);
        self.namespace(outer.place).ip(&format!(
            "link add {} {queues} type veth peer name {} netns {} {queues}\n",
            outer.interface,
            inner.interface,
            far.name()
        ))?;
        // Both ends are up before the routes: a cable without its other end has no link.
        for end in [outer, inner] {
            self.namespace(end.place).ip(&format!("link set {} up\n", end.interface))?;
            self.tune(end)?;
        }
        for end in [outer, inner] {
            self.namespace(end.place).ip(&self.addresses(end))?;
        }
        Ok(())
    }

    fn addresses(&self, end: &End) -> String {
        let families = if self.options.ipv6 { 2 } else { 1 };
        let mut lines = String::new();
        let both = end.addresses.iter().zip(end.gateways).take(families);
        for (address, gateway) in both.filter(|(address, _)| !address.is_empty()) {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            lines += &format!("address add {address} dev {} {nodad}\n", end.interface);
            if !gateway.is_empty() {
                lines += &format!("route add default via {gateway}\n");
            }
        }
        lines
    }

    /// Without checksum offload: XDP and AF_XDP would see unfinished checksums. Without segmentation offload: they would
    /// see frames longer than the MTU. With GRO at the appliance's far ends: that brings up NAPI there, without which
    /// frames that XDP redirects to the cable are lost.
    fn tune(&self, end: &End) -> anyhow::Result<()> {
        let gro = if end.place == Place::Dmz { "off" } else { "on" };
        let line = format!("ethtool -K {} tx off rx off tso off gso off gro {gro}", end.interface);
        self.namespace(end.place).run(&line)
    }

    fn start_stun(&self, name: &'static str, place: Place, at: SocketAddr) -> anyhow::Result<()> {
        let folder = self.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        let mut command = self.namespace(place).command("turnserver");
        command.args([
            "-n",
            "--stun-only",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--no-rfc5780",
            "--log-file=stdout",
        ]);
        command.arg(format!("--listening-ip={}", at.ip())).arg(format!("--listening-port={}", at.port()));
        command.arg(format!("--userdb={}", folder.join("turndb").display()));
        command.arg(format!("--pidfile={}", folder.join("pid").display()));
        let process = self.start(Program::new(name, command))?;
        let inside = self.namespace(place);
        let patience = std::time::Duration::from_secs(10);
        process.wait_for(patience, || inside.within(|| crate::stun::mapped(at).ok()).ok().flatten())?;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.state.remove();
    }
}

/// Programs that the world is made with.
const TOOLS: [&str; 6] = ["ip", "nsenter", "nft", "ethtool", "sysctl", "turnserver"];

fn needs() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces, address translation and XDP need root");
    }
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !crate::installed(tool)).collect();
    if !missing.is_empty() {
        bail!("missing programs: {}; .ci/install installs them", missing.join(", "));
    }
    Ok(())
}
