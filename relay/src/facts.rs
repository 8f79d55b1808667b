//! The two interfaces as the system describes them.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use sallyport_plan::Zone;

use crate::config::{Config, ConfigError};
use crate::netlink::{Mac, Netlink};

/// One interface and what media it may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index in our network namespace.
    pub ifindex: u32,
    /// Its side.
    pub zone: Zone,
    /// Its hardware address; zeros where it has none.
    pub mac: Mac,
    /// Our media addresses on it.
    pub addresses: Vec<IpAddr>,
    /// RX queues that it was made with.
    pub queues: u32,
    /// Lowest media port.
    pub port_min: u16,
    /// Highest media port.
    pub port_max: u16,
    /// The port of the browsers on this side: outside the media port itself, inside apart from the others.
    pub browsers: Option<u16>,
    /// The TCP port of browsers that UDP does not reach.
    pub tcp: Option<u16>,
    /// DSCP of what leaves by it.
    pub dscp: u8,
    /// Octets of the longest IP packet that it carries.
    pub mtu: u32,
    /// A lower one that the configuration asks for: some link behind it carries no more.
    pub lower_mtu: Option<u32>,
    /// Whether its card spreads UDP over the queues by ports, too.
    pub hashes_ports: bool,
}

/// Reads both interfaces, outside first.
///
/// # Errors
/// [`ConfigError::Invalid`] where an interface does not exist or has no address that media could use.
pub fn read(config: &Config) -> Result<[Interface; 2], ConfigError> {
    let port = config.outside.port;
    let [low, high] = config.inside.ports;
    let outside = Wanted {
        name: &config.outside.interface,
        zone: Zone::Outside,
        addresses: &config.outside.addresses,
        ports: (port, port),
        browsers: Some(port),
        tcp: config.outside.tcp,
        dscp: config.outside.dscp.0,
        mtu: config.outside.mtu,
    };
    let inside = Wanted {
        name: &config.inside.interface,
        zone: Zone::Inside,
        addresses: &config.inside.addresses,
        ports: (low, high),
        browsers: config.inside.browsers,
        tcp: None,
        dscp: config.inside.dscp.0,
        mtu: config.inside.mtu,
    };
    Ok([outside.read()?, inside.read()?])
}

/// Processors that this process may run on: more workers would only wake each other up for smaller bursts.
pub fn processors() -> u32 {
    thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

struct Wanted<'a> {
    name: &'a str,
    zone: Zone,
    addresses: &'a [IpAddr],
    ports: (u16, u16),
    browsers: Option<u16>,
    tcp: Option<u16>,
    dscp: u8,
    mtu: Option<u32>,
}

/// What an Ethernet carries where nobody says otherwise.
const ETHERNET: u32 = 1500;

impl Wanted<'_> {
    fn read(&self) -> Result<Interface, ConfigError> {
        let invalid = |text: String| ConfigError::Invalid(format!("interface {}: {text}", self.name));
        let ifindex = if_nametoindex(self.name).map_err(|error| invalid(error.desc().into()))?;
        let (mac, found) = addresses(self.name).map_err(|error| invalid(error.desc().into()))?;
        let addresses = if self.addresses.is_empty() { found } else { self.addresses.to_vec() };
        if addresses.is_empty() {
            return Err(invalid("it has no address that media could use".into()));
        }
        let queues = Netlink::open().and_then(|mut netlink| netlink.rx_queues(ifindex));
        let mtu = Netlink::open().and_then(|mut netlink| netlink.mtu(ifindex)).unwrap_or(ETHERNET);
        if let Some(wanted) = self.mtu.filter(|wanted| *wanted > mtu) {
            tracing::warn!(
                interface = self.name,
                wanted,
                mtu,
                "the interface's MTU is lower than the configured one"
            );
        }
        Ok(Interface {
            name: self.name.into(),
            ifindex,
            zone: self.zone,
            mac,
            addresses,
            queues: queues.unwrap_or(1).max(1),
            port_min: self.ports.0,
            port_max: self.ports.1,
            browsers: self.browsers,
            tcp: self.tcp,
            dscp: self.dscp,
            mtu,
            lower_mtu: self.mtu.filter(|wanted| *wanted < mtu),
            hashes_ports: false,
        })
    }
}

/// The hardware address and all unicast addresses that are not link-local.
fn addresses(name: &str) -> nix::Result<(Mac, Vec<IpAddr>)> {
    let mut mac = Mac::default();
    let mut found = Vec::new();
    for entry in getifaddrs()?.filter(|entry| entry.interface_name == name) {
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            mac = link.addr().unwrap_or_default();
        } else if let Some(v4) = address.as_sockaddr_in() {
            found.push(IpAddr::V4(v4.ip()));
        } else if let Some(v6) = address.as_sockaddr_in6()
            && !v6.ip().is_unicast_link_local()
        {
            found.push(IpAddr::V6(v6.ip()));
        }
    }
    Ok((mac, found))
}

impl Interface {
    /// Octets of the longest IP packet that leaves by it uncut.
    pub fn egress_mtu(&self) -> u32 {
        self.lower_mtu.unwrap_or(self.mtu)
    }

    /// Asks the card to spread UDP over the RX queues by ports. One that does not is no worse than before.
    pub fn ask_to_hash_ports(&mut self) {
        let asked = sallyport_io::hash_ports(&self.name);
        self.hashes_ports = asked.is_ok();
        match asked {
            Ok(()) => tracing::info!(interface = self.name, "the card spreads UDP over its queues by ports"),
            Err(error) => tracing::debug!(interface = self.name, %error, "UDP is not spread by ports"),
        }
    }

    /// Whether `address` is one of our media addresses with one of its media ports, that of the browsers included.
    pub fn serves(&self, address: SocketAddr) -> bool {
        self.has_media_port(address) || self.is_browsers(address)
    }

    /// Whether `address` is one of our media addresses with a port between the lowest and the highest.
    pub fn has_media_port(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address.ip()) && (self.port_min..=self.port_max).contains(&address.port())
    }

    /// Whether `address` is one of our media addresses with the port of the browsers, be it that of UDP or that of TCP.
    pub fn is_browsers(&self, address: SocketAddr) -> bool {
        let is_theirs = self.browsers == Some(address.port()) || self.tcp == Some(address.port());
        is_theirs && self.addresses.contains(&address.ip())
    }
}

/// An interface that is not there, for tests.
#[cfg(test)]
pub fn imagined(zone: Zone, ifindex: u32) -> Interface {
    Interface {
        name: String::new(),
        ifindex,
        zone,
        mac: [2; 6],
        addresses: Vec::new(),
        queues: 1,
        port_min: 20_000,
        port_max: 20_100,
        browsers: None,
        tcp: None,
        dscp: 0,
        mtu: 1500,
        lower_mtu: None,
        hashes_ports: false,
    }
}
