//! Three network namespaces in a row: outside, the appliance, inside.

use std::fs::File;
use std::net::UdpSocket;
use std::process::Command;
use std::thread;

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};

/// Addresses of the row.
pub const BROWSER: &str = "198.51.100.2";
/// The appliance's outside.
pub const OUTSIDE: &str = "198.51.100.1";
/// The appliance's inside.
pub const INSIDE: &str = "10.77.0.1";
/// The agent.
pub const AGENT: &str = "10.77.0.2";

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
        row.link("o", "wan0", BROWSER, "out0", OUTSIDE)?;
        row.link("i", "lan0", AGENT, "in0", INSIDE)?;
        let (outside, inside) = (row.namespace("o"), row.namespace("i"));
        run(&format!("ip -n {outside} route add default via {OUTSIDE}"))?;
        run(&format!("ip -n {inside} route add default via {INSIDE}"))?;
        Ok(row)
    }

    /// Name of one of the namespaces: `o`, `d` or `i`.
    pub fn namespace(&self, side: &str) -> String {
        format!("{}{side}", self.name)
    }

    fn link(&self, side: &str, theirs: &str, address: &str, ours: &str, own: &str) -> anyhow::Result<()> {
        let (peer, dmz) = (self.namespace(side), self.namespace("d"));
        let queues = "numrxqueues 4 numtxqueues 4";
        run(&format!(
            "ip link add {theirs} netns {peer} {queues} type veth peer name {ours} netns {dmz} {queues}"
        ))?;
        for (namespace, interface, address) in [(&peer, theirs, address), (&dmz, ours, own)] {
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

    /// `count` UDP sockets bound to `address` in one of the namespaces, from `port` on by `step`.
    ///
    /// # Errors
    /// What the system says of the sockets.
    pub fn sockets(
        &self,
        side: &str,
        address: &str,
        port: u16,
        step: u16,
        count: u16,
    ) -> anyhow::Result<Vec<UdpSocket>> {
        self.within(side, move || {
            (0..count).map(|n| Ok(UdpSocket::bind(format!("{address}:{}", port + n * step))?)).collect()
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
