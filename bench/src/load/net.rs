//! Three network namespaces in a row: outside, the appliance, inside.

use std::fs::File;
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

/// RX and TX queues of every interface.
pub const QUEUES: u32 = 4;

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

/// The row; gone when dropped.
pub struct Row {
    /// Common part of the names.
    pub name: String,
}

impl Row {
    /// Makes namespaces, links with four queues, addresses and routes.
    ///
    /// # Errors
    /// What `ip` or `ethtool` says.
    pub fn make() -> anyhow::Result<Self> {
        let row = Self { name: format!("sp-b{}", std::process::id()) };
        for side in ["o", "d", "i"] {
            run(&format!("ip netns add {}", row.namespace(side)))?;
            run(&format!("ip -n {} link set lo up", row.namespace(side)))?;
        }
        row.link(Side::Outside)?;
        row.link(Side::Inside)?;
        let (outside, inside) = (row.namespace("o"), row.namespace("i"));
        run(&format!("ip -n {outside} route add default via {OUTSIDE}"))?;
        run(&format!("ip -n {inside} route add default via {INSIDE}"))?;
        Ok(row)
    }

    /// Name of one of the namespaces: `o`, `d` or `i`.
    pub fn namespace(&self, side: &str) -> String {
        format!("{}{side}", self.name)
    }

    fn link(&self, side: Side) -> anyhow::Result<()> {
        let (peer, dmz) = (self.namespace(side.far()), self.namespace("d"));
        let (theirs, ours) = (side.far_interface(), side.near_interface());
        let (far, near) = (text(side.far_mac()), text(side.near_mac()));
        let queues = format!("numrxqueues {QUEUES} numtxqueues {QUEUES}");
        run(&format!(
            "ip link add {theirs} netns {peer} address {far} {queues} type veth peer name {ours} netns {dmz} \
             address {near} {queues}"
        ))?;
        let ends = [(&peer, theirs, side.far_address()), (&dmz, ours, side.near_address())];
        for (namespace, interface, address) in ends {
            run(&format!("ip -n {namespace} addr add {address}/24 dev {interface}"))?;
            run(&format!("ip -n {namespace} link set {interface} up"))?;
            // A local sender's frames must reach XDP with finished checksums.
            run(&format!("nsenter --net=/run/netns/{namespace} ethtool -K {interface} tx off"))?;
        }
        Ok(())
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
        for side in ["o", "d", "i"] {
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
