//! The generated types with names of ours, and what makes them easy to use.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::generated;

/// In front of every redirected frame.
pub type Meta = generated::sallyport_meta;
/// Whose packet: zone, ports and addresses.
pub type FlowKey = generated::sallyport_flow_key;
/// Direction and counters of a flow.
pub type FlowValue = generated::sallyport_flow_value;
/// A media address of a zone.
pub type MediaKey = generated::sallyport_media_key;
/// Its ports.
pub type MediaValue = generated::sallyport_media_value;
/// Zone and place in the socket map of an interface.
pub type InterfaceValue = generated::sallyport_interface_value;
/// Tokens of a source.
pub type Bucket = generated::sallyport_bucket;
/// What the program is told.
pub type Settings = generated::sallyport_settings;

/// Names of the maps, which are also the names of their pins.
pub mod map {
    /// Flow key to flow value.
    pub const FLOWS: &str = "flows";
    /// Media key to media value.
    pub const MEDIA: &str = "media";
    /// Interface index to interface value.
    pub const INTERFACES: &str = "interfaces";
    /// Place to AF_XDP socket.
    pub const SOCKETS: &str = "sockets";
    /// Source address to tokens.
    pub const BUCKETS: &str = "buckets";
    /// Counter to packets, per CPU.
    pub const COUNTERS: &str = "counters";
    /// One entry.
    pub const SETTINGS: &str = "settings";
}

/// All maps.
pub const MAPS: [&str; 7] =
    [map::FLOWS, map::MEDIA, map::INTERFACES, map::SOCKETS, map::BUCKETS, map::COUNTERS, map::SETTINGS];

/// Names of the counters by index; a test holds them against the header.
pub const COUNTERS: [&str; generated::SALLYPORT_COUNTER_MAX as usize] = [
    "pass_interface",
    "pass_not_udp",
    "pass_not_media",
    "redirect_flow",
    "redirect_punt",
    "drop_unknown_flow",
    "drop_rate_limited",
    "drop_malformed",
    "drop_fragment",
    "drop_no_socket",
    "drop_no_room",
];

/// The 16 octets of an address, IPv4 mapped.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl FlowKey {
    /// The key of packets from `remote` to `local` that come in by `zone`.
    pub fn new(zone: u8, local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            zone,
            pad: [0; 3],
            local_port: local.port().to_be_bytes(),
            remote_port: remote.port().to_be_bytes(),
            local_address: octets(local.ip()),
            remote_address: octets(remote.ip()),
        }
    }

    /// Our address and port.
    pub fn local(&self) -> SocketAddr {
        address(self.local_address, self.local_port)
    }

    /// The peer's address and port.
    pub fn remote(&self) -> SocketAddr {
        address(self.remote_address, self.remote_port)
    }
}

fn address(octets: [u8; 16], port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), u16::from_be_bytes(port))
}

impl MediaKey {
    /// The key of a media address.
    pub fn new(zone: u8, address: IpAddr) -> Self {
        Self { zone, pad: [0; 3], address: octets(address) }
    }
}

// SAFETY: these types are generated from C structs of integers and octet arrays whose padding is an explicit field (the
// header asserts their sizes), so any octets are a valid value and no octet of one is uninitialised.
mod pod {
    use super::{Bucket, FlowKey, FlowValue, InterfaceValue, MediaKey, MediaValue, Settings};

    // SAFETY: as above.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for MediaKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for MediaValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InterfaceValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Bucket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Settings {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_what_they_were_made_of() {
        for (local, remote) in
            [("192.0.2.1:10000", "198.51.100.2:4000"), ("[2001:db8::1]:10000", "[2001:db8::2]:4000")]
        {
            let key = FlowKey::new(1, local.parse().unwrap(), remote.parse().unwrap());
            assert_eq!((key.local().to_string(), key.remote().to_string()), (local.into(), remote.into()));
        }
    }

    #[test]
    fn counter_names_are_the_header_s_in_its_order() {
        let header = include_str!("../include/sallyport.h");
        let named: Vec<&str> = header
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("X(")?.split(')').next()?.split(", ").nth(1))
            .collect();
        assert_eq!(named, COUNTERS);
    }

    #[test]
    fn map_names_are_the_program_s() {
        let maps = include_str!("../../bpf/maps.h");
        for name in MAPS {
            assert!(maps.contains(&format!("}} {name} SEC(\".maps\")")), "{name}");
        }
    }
}
