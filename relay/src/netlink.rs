//! What the kernel knows of links, routes and neighbours, asked over rtnetlink (RFC 3549).

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// A hardware address.
pub type Mac = [u8; 6];

/// Where packets to an address go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Interface that they leave by.
    pub ifindex: u32,
    /// The gateway, or the address itself where it is on the link.
    pub next_hop: IpAddr,
}

/// A connection to rtnetlink.
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// RX queues that the interface was made with.
    ///
    /// # Errors
    /// What the kernel says; `NotFound` where it does not say how many.
    pub fn rx_queues(&mut self, ifindex: u32) -> io::Result<u32> {
        let queues = self.link(ifindex)?.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::NumRxQueues(n) => Some(n),
            _ => None,
        });
        queues.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Octets of the longest IP packet that the interface carries.
    ///
    /// # Errors
    /// What the kernel says; `NotFound` where it does not say how many.
    pub fn mtu(&mut self, ifindex: u32) -> io::Result<u32> {
        let mtu = self.link(ifindex)?.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(n) => Some(n),
            _ => None,
        });
        mtu.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Whether the interface is one end of a cable between two network namespaces.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_veth(&mut self, ifindex: u32) -> io::Result<bool> {
        let veth = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Veth));
        Ok(self.link(ifindex)?.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.iter().any(veth),
            _ => false,
        }))
    }

    fn link(&mut self, ifindex: u32) -> io::Result<Vec<LinkAttribute>> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        let answers = self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST)?;
        let link = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link.attributes),
            _ => None,
        });
        link.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The route to `address`.
    ///
    /// # Errors
    /// What the kernel says, such as `NetworkUnreachable`.
    pub fn route(&mut self, address: IpAddr) -> io::Result<Route> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(address);
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(address.into()));
        let answers = self.ask(RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST)?;
        answers
            .into_iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => read_route(&route, address),
                _ => None,
            })
            .ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    /// Every neighbour of the interface whose hardware address is known.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn neighbours(&mut self, ifindex: u32) -> io::Result<Vec<(IpAddr, Mac)>> {
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.ask(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(entry) if entry.header.ifindex == ifindex => {
                    read_neighbour(&entry)
                }
                _ => None,
            })
            .collect())
    }

    /// Asks the kernel to resolve `address` now (`NTF_USE`), as if it had a packet to send there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resolve(&mut self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = ifindex;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }));
        let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
        self.ask(RouteNetlinkMessage::NewNeighbour(message), flags).map(|_| ())
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let more_follows = flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut answers = Vec::new();
        while self.receive(more_follows, &mut answers)? {}
        Ok(answers)
    }

    /// Reads one datagram; whether more is to come.
    fn receive(&self, dump: bool, answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(false),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(false),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                _ => {}
            }
            let used = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(dump)
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn read_route(route: &RouteMessage, address: IpAddr) -> Option<Route> {
    let mut ifindex = None;
    let mut next_hop = address;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(v4)) => next_hop = IpAddr::V4(*v4),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => next_hop = IpAddr::V6(*v6),
            _ => {}
        }
    }
    ifindex.map(|ifindex| Route { ifindex, next_hop })
}

fn read_neighbour(entry: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    if matches!(entry.header.state, NeighbourState::Incomplete | NeighbourState::Failed) {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    address.zip(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn loopback_is_known_to_the_kernel() {
        let mut netlink = Netlink::open().unwrap();
        let route = netlink.route(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
        assert_eq!(route.next_hop, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(netlink.rx_queues(route.ifindex).unwrap() >= 1);
        assert!(netlink.rx_queues(u32::MAX >> 1).is_err());
        assert!(netlink.mtu(route.ifindex).unwrap() >= 1280);
        assert!(netlink.mtu(u32::MAX >> 1).is_err());
        assert!(!netlink.is_veth(route.ifindex).unwrap());
        assert_eq!(netlink.neighbours(route.ifindex).unwrap().iter().filter(|n| n.1 != [0; 6]).count(), 0);
    }
}
