//! The generated types with names of ours, and what makes them easy to use.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::generated;

/// In front of every redirected frame: magic, direction, epoch, kind; in the byte order of the host.
pub type Meta = generated::sallyport_meta;
/// Whose packet: zone, ports and addresses.
pub type FlowKey = generated::sallyport_flow_key;
/// Direction, epoch and counters of a flow, and what becomes of its packets.
pub type FlowValue = generated::sallyport_flow_value;
/// Where packets of a flow leave to, where the kernel sends them on itself.
pub type Target = generated::sallyport_target;
/// What the kernel sent on of a flow: RTP packets and octets of their payload, on one CPU.
pub type Tally = generated::sallyport_tally;
/// A media address of a zone.
pub type MediaKey = generated::sallyport_media_key;
/// Its ports.
pub type MediaValue = generated::sallyport_media_value;
/// Zone and place in the socket map of an interface.
pub type InterfaceValue = generated::sallyport_interface_value;
/// A source of STUN: an IPv4 address, or the first 64 bits of an IPv6 address.
pub type Source = generated::sallyport_source;
/// Token bucket of a source.
pub type Bucket = generated::sallyport_bucket;
/// What the program is told.
pub type Settings = generated::sallyport_settings;

/// Zone of the browsers.
#[allow(clippy::cast_possible_truncation)]
pub const OUTSIDE: u8 = generated::SALLYPORT_OUTSIDE as u8;
/// Zone of the enterprise.
#[allow(clippy::cast_possible_truncation)]
pub const INSIDE: u8 = generated::SALLYPORT_INSIDE as u8;

/// The 16 octets of an address, IPv4 mapped (RFC 4291 section 2.5.5.2).
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

impl FlowKey {
    /// The key of packets from `remote` to `local` that come in by `zone` ([`OUTSIDE`], [`INSIDE`]). Scope and flow label
    /// of IPv6 are no part of it.
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
        SocketAddr::new(address(self.local_address), u16::from_be_bytes(self.local_port))
    }

    /// The peer's address and port.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(address(self.remote_address), u16::from_be_bytes(self.remote_port))
    }
}

/// What a frame needs below IP, and which interface it leaves by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Egress {
    /// Index of the interface.
    pub ifindex: u32,
    /// Its hardware address.
    pub source_mac: [u8; 6],
    /// The next hop's.
    pub destination_mac: [u8; 6],
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: u8,
    /// Whether the driver sends packets back by the interface that they came in by (`XDP_TX`); else they are redirected.
    pub back: bool,
    /// Octets of the longest IP packet that may leave by it.
    pub mtu: u16,
}

impl Target {
    /// Packets of the flow `key` leave from `source` to `destination`. `None` where these are not all of one family: the
    /// program changes addresses, not headers.
    pub fn new(key: &FlowKey, source: SocketAddr, destination: SocketAddr, egress: &Egress) -> Option<Self> {
        let family = key.local().is_ipv4();
        if [key.remote(), source, destination].iter().any(|address| address.is_ipv4() != family) {
            return None;
        }
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&egress.destination_mac);
        macs[6..].copy_from_slice(&egress.source_mac);
        let mut target = Self {
            source: octets(source.ip()),
            destination: octets(destination.ip()),
            source_port: source.port().to_be_bytes(),
            destination_port: destination.port().to_be_bytes(),
            macs,
            ifindex: egress.ifindex,
            checksum: 0,
            traffic_class: (egress.dscp & 0x3f) << 2,
            back: egress.back.into(),
            mtu: egress.mtu,
            pad: [0; 2],
        };
        target.checksum = target.difference(key).to_be();
        Some(target)
    }

    /// The ones' complement sum of all that comes to UDP's pseudo header and ports less all that goes.
    fn difference(&self, key: &FlowKey) -> u16 {
        let comes = [&self.source[..], &self.destination, &self.source_port, &self.destination_port];
        let goes = [&key.remote_address[..], &key.local_address, &key.remote_port, &key.local_port];
        let words = |parts: [&[u8]; 4]| parts.map(|part| part.as_chunks::<2>().0.to_vec()).concat();
        let comes = words(comes).into_iter().map(u16::from_be_bytes);
        let goes = words(goes).into_iter().map(|word| !u16::from_be_bytes(word));
        let sum = comes.chain(goes).map(u64::from).sum::<u64>();
        let folded = std::iter::successors(Some(sum), |sum| Some((sum >> 16) + (sum & 0xffff)));
        folded.into_iter().find_map(|sum| u16::try_from(sum).ok()).unwrap_or_default()
    }

    /// Our address and port that packets leave from.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(address(self.source), u16::from_be_bytes(self.source_port))
    }

    /// The peer's address and port that they leave to.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(address(self.destination), u16::from_be_bytes(self.destination_port))
    }
}

impl MediaKey {
    /// The key of a media address.
    pub fn new(zone: u8, address: IpAddr) -> Self {
        Self { zone, pad: [0; 3], address: octets(address) }
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        address(self.address)
    }
}

// SAFETY: these types are generated from C structs of integers and octet arrays whose padding is an explicit field (the
// header asserts their sizes), so any octets are a valid value and no octet of one is uninitialised.
mod pod {
    use super::{Bucket, FlowKey, FlowValue, InterfaceValue, MediaKey, MediaValue, Settings, Source, Tally};

    // SAFETY: as above.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Tally {}
    // SAFETY: as above.
    unsafe impl aya::Pod for MediaKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for MediaValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InterfaceValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Source {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Bucket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Settings {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counter, MAPS};

    #[test]
    fn keys_read_back_what_they_were_made_of() {
        for (local, remote) in
            [("192.0.2.1:10000", "198.51.100.2:4000"), ("[2001:db8::1]:10000", "[2001:db8::2]:4000")]
        {
            let key = FlowKey::new(OUTSIDE, local.parse().unwrap(), remote.parse().unwrap());
            assert_eq!((key.local().to_string(), key.remote().to_string()), (local.into(), remote.into()));
            let address = key.local().ip();
            assert_eq!(MediaKey::new(INSIDE, address).address(), address);
        }
    }

    #[test]
    fn keys_have_the_octets_that_the_program_compares() {
        let key = FlowKey::new(INSIDE, "192.0.2.1:258".parse().unwrap(), "198.51.100.2:772".parse().unwrap());
        assert_eq!((key.zone, key.pad), (2, [0; 3]));
        assert_eq!((key.local_port, key.remote_port), ([1, 2], [3, 4]));
        assert_eq!(key.local_address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(key.remote_address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 2]);
    }

    #[test]
    fn keys_differ_by_zone_address_and_port() {
        let base = FlowKey::new(1, "192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let others = [
            FlowKey::new(2, base.local(), base.remote()),
            FlowKey::new(1, base.remote(), base.local()),
            FlowKey::new(1, "192.0.2.1:3".parse().unwrap(), base.remote()),
            FlowKey::new(1, base.local(), "192.0.2.2:3".parse().unwrap()),
            FlowKey::new(1, base.local(), "192.0.2.3:2".parse().unwrap()),
        ];
        for other in others {
            assert_ne!(base, other);
        }
    }

    const EGRESS: Egress =
        Egress { ifindex: 7, source_mac: [1; 6], destination_mac: [2; 6], dscp: 46, back: true, mtu: 1500 };

    #[test]
    fn targets_have_the_octets_that_leave() {
        let key = FlowKey::new(INSIDE, "10.0.0.1:20000".parse().unwrap(), "10.0.0.9:4000".parse().unwrap());
        let (source, destination) = ("10.0.0.1:20002", "10.0.0.8:5000");
        let to = Target::new(&key, source.parse().unwrap(), destination.parse().unwrap(), &EGRESS).unwrap();
        assert_eq!(
            (to.source().to_string(), to.destination().to_string()),
            (source.into(), destination.into())
        );
        assert_eq!(to.macs, [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
        assert_eq!((to.ifindex, to.traffic_class, to.back, to.mtu), (7, 0xb8, 1, 1500));
        // New ports and destination less the old ones: 20002 + 5000 + 8 - 4000 - 20000 - 9 = 1001.
        assert_eq!(u16::from_be(to.checksum), 1001);
        let same = Target::new(&key, key.remote(), key.local(), &EGRESS).unwrap();
        assert_eq!(same.checksum, 0xffff, "nothing, in ones' complement");
    }

    #[test]
    fn targets_are_of_the_flow_s_family() {
        let (v4, v6) = ("10.0.0.1:1".parse().unwrap(), "[fd00::1]:1".parse().unwrap());
        for (local, source, destination, there) in [
            (v4, v4, v4, true),
            (v6, v6, v6, true),
            (v4, v6, v6, false),
            (v6, v4, v6, false),
            (v4, v4, v6, false),
        ] {
            let key = FlowKey::new(INSIDE, local, local);
            assert_eq!(Target::new(&key, source, destination, &EGRESS).is_some(), there);
        }
    }

    #[test]
    fn counters_are_named_once_and_say_what_becomes_of_the_packet() {
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, index);
            let name = counter.name();
            let kinds = ["pass_", "redirect_", "rewrite_", "punt_", "drop_"];
            assert!(kinds.iter().any(|kind| name.starts_with(kind)), "{name}");
            assert!(counter.text().ends_with('.'), "{name}");
            assert_eq!(Counter::ALL.iter().filter(|other| other.name() == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn map_names_fit_the_kernel_s_fifteen_octets() {
        for name in MAPS {
            assert!(name.len() <= 15, "{name}");
        }
    }
}
