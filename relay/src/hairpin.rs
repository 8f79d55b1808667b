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

/// Our own media addresses inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    addresses: Vec<IpAddr>,
}

impl Own {
    /// Those of the inside interface.
    pub fn new(inside: &Interface) -> Self {
        Self { addresses: inside.addresses.clone() }
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

    #[test]
    fn only_our_addresses_inside_are_ours_inside() {
        let own = Own { addresses: ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).to_vec() };
        let path = |zone, remote: &str| FlowKey {
            zone,
            local: "10.0.0.1:20000".parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        assert!(own.is_hairpin(&path(Zone::Inside, "10.0.0.1:20002")));
        assert!(own.is_hairpin(&path(Zone::Inside, "[fd00::1]:20002")));
        assert!(!own.is_hairpin(&path(Zone::Inside, "10.0.0.2:20002")));
        assert!(!own.is_hairpin(&path(Zone::Outside, "10.0.0.1:20002")));
    }
}
