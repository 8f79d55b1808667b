//! Flows of a direction in the room that they need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;

use sallyport_plan::{FlowKey, Zone};

/// A flow in 40 octets; [`FlowKey`] has 68, most of them for scopes of IPv6 addresses. In words: they are compared and put
/// together in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    local: [u64; 2],
    remote: [u64; 2],
    /// From the lowest bits on: the local port, the remote one, the families, the zone.
    rest: NonZeroU64,
}

/// Where in `rest` it says that the local address is IPv6; the remote one's bit is the next.
const WIDE: u32 = 32;
/// Where the zone is.
const ZONE: u32 = 40;

const _: () = assert!(size_of::<Option<Path>>() == 40);

impl Path {
    /// `None` where an address has a scope or a flow label.
    #[inline]
    pub fn of(flow: &FlowKey) -> Option<Self> {
        let ((local, local_wide), (remote, remote_wide)) = (words(&flow.local)?, words(&flow.remote)?);
        let ports = u64::from(flow.local.port()) | u64::from(flow.remote.port()) << 16;
        let wide = u64::from(local_wide) << WIDE | u64::from(remote_wide) << (WIDE + 1);
        let rest = NonZeroU64::new(ports | wide | (flow.zone as u64) << ZONE)?;
        Some(Self { local, remote, rest })
    }

    /// The flow.
    #[inline]
    pub fn flow(&self) -> FlowKey {
        let rest = self.rest.get();
        let wide = |at: u32| rest >> at & 1 == 1;
        FlowKey {
            zone: if rest >> ZONE == Zone::Outside as u64 { Zone::Outside } else { Zone::Inside },
            local: address(self.local, wide(WIDE), (rest & 0xffff) as u16),
            remote: address(self.remote, wide(WIDE + 1), (rest >> 16 & 0xffff) as u16),
        }
    }
}

/// An address of IPv4 as its number, one of IPv6 in two halves; and whether it is one.
#[inline]
fn words(address: &SocketAddr) -> Option<([u64; 2], bool)> {
    match address {
        SocketAddr::V4(v4) => Some(([v4.ip().to_bits().into(), 0], false)),
        SocketAddr::V6(v6) if v6.scope_id() == 0 && v6.flowinfo() == 0 => {
            let [a, b, c, d, e, f, g, h, rest @ ..] = v6.ip().octets();
            Some(([u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(rest)], true))
        }
        SocketAddr::V6(_) => None,
    }
}

#[inline]
fn address([high, low]: [u64; 2], wide: bool, port: u16) -> SocketAddr {
    let ip = if wide {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits((high & 0xffff_ffff) as u32))
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    #[test]
    fn a_path_is_its_flow() {
        let addresses = ["10.0.0.1:5000", "[::ffff:10.0.0.1]:5000", "[a00:1::]:5000", "[2001:db8::7]:1"];
        let flows: Vec<FlowKey> = [Zone::Inside, Zone::Outside]
            .into_iter()
            .flat_map(|zone| addresses.map(|local| addresses.map(|remote| (zone, local, remote))))
            .flatten()
            .map(|(zone, local, remote)| FlowKey {
                zone,
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
            })
            .collect();
        for one in &flows {
            assert_eq!(Path::of(one).unwrap().flow(), *one);
            for other in &flows {
                assert_eq!(Path::of(one) == Path::of(other), one == other, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn scopes_are_not_lost() {
        let plain = flow_to(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 0, 0));
        assert!(Path::of(&plain).is_some());
        for (label, scope) in [(0, 3), (3, 0)] {
            assert_eq!(Path::of(&flow_to(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, label, scope))), None);
        }
    }

    fn flow_to(remote: SocketAddrV6) -> FlowKey {
        FlowKey { zone: Zone::Inside, local: "[fe80::1]:1".parse().unwrap(), remote: remote.into() }
    }
}
