//! Media between two legs of our own: what one call sends to a port pair of another one's.
//!
//! Where two browsers talk through a SIP server or through us alone, each has a call of its own, and the plain legs of both
//! point at each other. Such packets go from flow to flow inside the relay, on every path alike: they never see a cable, and
//! none of what comes by a cable is taken for them, be it that it bears an address of ours.

use std::net::IpAddr;

use sallyport_plan::{FlowKey, Zone};

use crate::facts::Interface;

/// Times that a packet is passed on between legs of ours at the most: plans can lead it in a circle. As many as no sensible
/// chain of calls has.
pub const HAIRPINS_MAX: u8 = 8;

/// Our own media addresses inside, and what else says of a path that it is no path of UDP by a cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    addresses: Vec<IpAddr>,
    /// The TCP port outside.
    tcp: Option<u16>,
}

impl Own {
    /// Those of the inside interface, and the TCP port of the outside one.
    pub fn new([outside, inside]: &[Interface; 2]) -> Self {
        Self { addresses: inside.addresses.clone(), tcp: outside.tcp }
    }

    /// Whether what is sent by this path leaves by a TCP connection; likewise whether a flow is fed by one.
    pub fn is_tcp(&self, path: &FlowKey) -> bool {
        path.zone == Zone::Outside && self.tcp == Some(path.local.port())
    }

    /// Whether what is sent by this path comes back to us; likewise whether a flow is fed by ourselves alone.
    pub fn is_hairpin(&self, path: &FlowKey) -> bool {
        path.zone == Zone::Inside && self.addresses.contains(&path.remote.ip())
    }
}

/// The flow that a packet arrives by which was sent by this path.
pub const fn arrival(path: &FlowKey) -> FlowKey {
    FlowKey { zone: path.zone, local: path.remote, remote: path.local }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn only_our_addresses_inside_are_ours_inside() {
        let addresses = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).to_vec();
        let own = Own { addresses, tcp: Some(443) };
        let path = |zone, remote: &str| FlowKey {
            zone,
            local: "10.0.0.1:20000".parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        assert!(own.is_hairpin(&path(Zone::Inside, "10.0.0.1:20002")));
        assert!(own.is_hairpin(&path(Zone::Inside, "[fd00::1]:20002")));
        assert!(!own.is_hairpin(&path(Zone::Inside, "10.0.0.2:20002")));
        assert!(!own.is_hairpin(&path(Zone::Outside, "10.0.0.1:20002")));
        let from = |zone, port| FlowKey {
            local: SocketAddr::from(([192, 0, 2, 1], port)),
            ..path(zone, "198.51.100.7:443")
        };
        assert!(own.is_tcp(&from(Zone::Outside, 443)));
        assert!(!own.is_tcp(&from(Zone::Inside, 443)) && !own.is_tcp(&from(Zone::Outside, 10_000)));
        let none = Own { tcp: None, ..own };
        assert!(!none.is_tcp(&from(Zone::Outside, 443)));
    }
}
