//! Three network namespaces in a row: outside, the appliance, inside.

use std::fs::{self, File};
use std::process::Command;
use std::thread;

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use sallyport_wire::frame::Link;

/// Addresses of the row.
pub const BROWSER: &str = "198.51.100.2";
/// The appliance's outside.
pub const OUTSIDE: &str = "198.51.100.1";
/// The appliance's inside.
pub const INSIDE: &str = "10.77.0.1";
/// The agent.
pub const AGENT: &str = "10.77.0.2";

/// Suffix of the namespace that bridges stand in.
pub const TAPS: &str = "t";
/// RX and TX queues of every interface where nothing else was asked for.
const QUEUES: u32 = 4;

/// One side of the appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Browsers.
    Outside,
    /// Agents.
    Inside,
}

impl Side {
    /// Suffix of the namespace at the far end.
    pub const fn far(self) -> &'static str {
        match self {
            Self::Outside => "o",
            Self::Inside => "i",
        }
    }

    /// Interface at the far end.
    pub const fn far_interface(self) -> &'static str {
        match self {
            Self::Outside => "wan0",
            Self::Inside => "lan0",
        }
    }

    /// Address at the far end.
    pub const fn far_address(self) -> &'static str {
        match self {
            Self::Outside => BROWSER,
            Self::Inside => AGENT,
        }
    }

    /// The appliance's interface.
    pub const fn near_interface(self) -> &'static str {
        match self {
            Self::Outside => "out0",
            Self::Inside => "in0",
        }
    }

    /// The bridge's port toward the appliance, where there is a bridge.
    pub const fn tap(self) -> &'static str {
        match self {
            Self::Outside => "out0-tap",
            Self::Inside => "in0-tap",
        }
    }

    /// The appliance's address.
    pub const fn near_address(self) -> &'static str {
        match self {
            Self::Outside => OUTSIDE,
            Self::Inside => INSIDE,
        }
    }

    /// Number of the zone.
    pub const fn zone(self) -> u8 {
        match self {
            Self::Outside => 1,
            Self::Inside => 2,
        }
    }

    const fn far_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, self.zone(), 1]
    }

    const fn near_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, self.zone(), 2]
    }

    /// What a frame from the far end to the appliance needs below IP.
    pub const fn link(self) -> Link {
        Link { source_mac: self.far_mac(), destination_mac: self.near_mac(), vlan: None, dscp: 0 }
    }

    /// What a frame of the appliance needs below IP.
    pub const fn back_link(self) -> Link {
        Link { source_mac: self.near_mac(), destination_mac: self.far_mac(), vlan: None, dscp: 0 }
    }
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// How a row is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shape {
    /// Workers that targets have, each with a queue of every interface; `None`: one, that serves all queues.
    pub workers: Option<u32>,
    /// Whether a bridge stands in each cable, for captures: a tap at the appliance itself would see nothing of AF_XDP.
    pub taps: bool,
}

/// The row; gone when dropped.
pub struct Row {
    /// Common part of the names.
    pub name: String,
    /// RX and TX queues of every interface.
    pub queues: u32,
    /// Workers that targets have.
    pub workers: u32,
}

impl Row {
    /// Makes namespaces, links, addresses and routes.
    ///
    /// # Errors
    /// What `ip` or `ethtool` says.
    pub fn make(shape: Shape) -> anyhow::Result<Self> {
        let row = Self {
            name: format!("sp-b{}", std::process::id()),
            queues: shape.workers.unwrap_or(QUEUES),
            workers: shape.workers.unwrap_or(1),
        };
        let taps = shape.taps.then_some(TAPS);
        for side in ["o", "d", "i"].into_iter().chain(taps) {
            run(&format!("ip netns add {}", row.namespace(side)))?;
            run(&format!("ip -n {} link set lo up", row.namespace(side)))?;
        }
        for side in [Side::Outside, Side::Inside] {
            match taps {
                Some(_) => row.tapped_link(side)?,
                None => row.link(side)?,
            }
            row.addresses(side)?;
        }
        let (outside, inside) = (row.namespace("o"), row.namespace("i"));
        run(&format!("ip -n {outside} route add default via {OUTSIDE}"))?;
        run(&format!("ip -n {inside} route add default via {INSIDE}"))?;
        Ok(row)
    }

    /// Name of one of the namespaces: `o`, `d`, `i` or [`TAPS`].
    pub fn namespace(&self, side: &str) -> String {
        format!("{}{side}", self.name)
    }

    /// Processors that targets run on: as many as they have workers, where there are so many; the generator has the first.
    pub fn processors(&self) -> String {
        // This thread may be kept on one, so that what the library says of parallelism would be wrong.
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let highest = online.trim().rsplit(['-', ',']).next().and_then(|last| last.parse().ok());
        let last = self.workers.min(highest.unwrap_or(1)).max(1);
        if last == 1 { "1".into() } else { format!("1-{last}") }
    }

    fn link(&self, side: Side) -> anyhow::Result<()> {
        let (peer, dmz) = (self.namespace(side.far()), self.namespace("d"));
        let (theirs, ours) = (side.far_interface(), side.near_interface());
        let (far, near) = (text(side.far_mac()), text(side.near_mac()));
        self.cable((&peer, theirs, &format!("address {far}")), (&dmz, ours, &format!("address {near}")))
    }

    /// One veth pair; of each end its namespace, its name and what else `ip` is to know.
    fn cable(&self, one: (&str, &str, &str), other: (&str, &str, &str)) -> anyhow::Result<()> {
        let queues = format!("numrxqueues {0} numtxqueues {0}", self.queues);
        let end = |(namespace, name, more)| format!("{name} netns {namespace} {more} {queues}");
        run(&format!("ip link add {} type veth peer name {}", end(one), end(other)))?;
        for (namespace, interface, _) in [one, other] {
            run(&format!("ip -n {namespace} link set {interface} up"))?;
            // A local sender's frames must reach XDP with finished checksums.
            run(&format!("nsenter --net=/run/netns/{namespace} ethtool -K {interface} tx off"))?;
        }
        Ok(())
    }

    /// Two cables with a bridge between them.
    fn tapped_link(&self, side: Side) -> anyhow::Result<()> {
        let (peer, dmz, taps) = (self.namespace(side.far()), self.namespace("d"), self.namespace(TAPS));
        let (theirs, ours) = (side.far_interface(), side.near_interface());
        let (far, near) = (text(side.far_mac()), text(side.near_mac()));
        let (there, here, bridge) = (format!("{theirs}-tap"), side.tap(), format!("{theirs}-br"));
        self.cable((&peer, theirs, &format!("address {far}")), (&taps, &there, ""))?;
        self.cable((&dmz, ours, &format!("address {near}")), (&taps, here, ""))?;
        run(&format!("ip -n {taps} link add {bridge} type bridge stp_state 0"))?;
        run(&format!("ip -n {taps} link set {bridge} up"))?;
        run(&format!("ip -n {taps} link set {there} master {bridge}"))?;
        run(&format!("ip -n {taps} link set {here} master {bridge}"))
    }

    fn addresses(&self, side: Side) -> anyhow::Result<()> {
        let (peer, dmz) = (self.namespace(side.far()), self.namespace("d"));
        run(&format!("ip -n {peer} addr add {}/24 dev {}", side.far_address(), side.far_interface()))?;
        run(&format!("ip -n {dmz} addr add {}/24 dev {}", side.near_address(), side.near_interface()))
    }

    /// Lets the appliance's kernel forward, or not: the floor is what the wire does alone.
    ///
    /// # Errors
    /// What `sysctl` says.
    pub fn forward(&self, on: bool) -> anyhow::Result<()> {
        let dmz = self.namespace("d");
        run(&format!("nsenter --net=/run/netns/{dmz} sysctl -qw net.ipv4.ip_forward={}", u8::from(on)))
    }

    /// Runs `make` in one of the namespaces; sockets made there stay there.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or `make` fails.
    pub fn within<T: Send>(
        &self,
        side: &str,
        make: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let path = format!("/run/netns/{}", self.namespace(side));
        let file = File::open(&path).with_context(|| path.clone())?;
        thread::scope(|scope| {
            let entered = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                make()
            });
            entered.join().unwrap_or_else(|_| bail!("a thread panicked"))
        })
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        for side in ["o", "d", "i", TAPS] {
            let _ = run(&format!("ip netns del {}", self.namespace(side)));
        }
    }
}

fn run(command: &str) -> anyhow::Result<()> {
    let mut words = command.split_whitespace();
    let program = words.next().context("an empty command")?;
    let output =
        Command::new(program).args(words).output().with_context(|| format!("{program} does not run"))?;
    if !output.status.success() {
        bail!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
