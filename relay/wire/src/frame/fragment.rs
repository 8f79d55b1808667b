//! Datagrams longer than a link carries: fragments of IPv4 (RFC 791 section 3.2) and IPv6 (RFC 8200 section 4.5).

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;

use super::{HEADERS_MAX, Link, ether, ip, udp};
use crate::{PacketBuf, Short};

/// Octets of IPv6's fragment header.
const V6_HEADER: usize = 8;
/// Where fragments begin, offsets count in these.
const UNIT: usize = 8;
/// IPv6's fragment header among the protocols of IP.
const NEXT_HEADER: u8 = 44;

/// Octets of the longest headers that [`emit_fragment`] writes.
pub const FRAGMENT_HEADERS_MAX: usize = HEADERS_MAX + V6_HEADER;

/// How a UDP datagram, header and payload, is cut into fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    datagram: usize,
    /// Octets of each fragment but the last, a multiple of eight.
    piece: usize,
}

impl Cut {
    /// For a datagram with so many octets of UDP payload to `destination`, by a link whose IP packets have `mtu` octets at the
    /// most. `None` where it fits as it is. Of an MTU that carries no fragment at all, fragments have eight octets each.
    pub fn new(payload: usize, destination: IpAddr, mtu: usize) -> Option<Self> {
        let datagram = payload.checked_add(udp::HEADER)?;
        let (header, fragment) = match destination {
            IpAddr::V4(_) => (ip::V4, 0),
            IpAddr::V6(_) => (ip::V6, V6_HEADER),
        };
        if datagram <= mtu.saturating_sub(header) {
            return None;
        }
        let room = mtu.saturating_sub(header + fragment) / UNIT * UNIT;
        Some(Self { datagram, piece: room.max(UNIT) })
    }

    /// Fragments that it takes.
    pub fn count(&self) -> usize {
        self.datagram.div_ceil(self.piece)
    }

    /// The octets of the datagram that go into the `nth` fragment, counted from 0; none behind the last.
    pub fn range(&self, nth: usize) -> Range<usize> {
        let start = nth.saturating_mul(self.piece).min(self.datagram);
        start..start.saturating_add(self.piece).min(self.datagram)
    }

    /// What the header of the `nth` fragment says, of a datagram with that identification.
    ///
    /// # Errors
    /// [`Short`] where it begins beyond what IP can tell, which is below 65,536.
    pub fn fragment(&self, nth: usize, identification: u32) -> Result<Fragment, Short> {
        let Range { start, end } = self.range(nth);
        let offset = u16::try_from(start).map_err(|_| Short)?;
        Ok(Fragment { identification, offset, more: end < self.datagram })
    }
}

/// What the headers of a fragment say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The same in all fragments of a datagram, another one in the next; IPv4 has its lower 16 bits.
    pub identification: u32,
    /// Where its octets begin in the datagram; a multiple of eight.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
}

/// Puts a UDP header in front of the payload in `buf`, with a checksum over all of the datagram, which may be cut then.
///
/// # Errors
/// As [`super::emit`]; `buf` is then as before.
pub fn emit_udp(buf: &mut PacketBuf<'_>, source: SocketAddr, destination: SocketAddr) -> Result<(), Short> {
    let addresses = ip::Addresses::new(source.ip(), destination.ip())?;
    let length = buf.len().checked_add(udp::HEADER).and_then(|len| u16::try_from(len).ok()).ok_or(Short)?;
    addresses.length_field(length)?;
    buf.grow_head(udp::HEADER)?;
    udp::emit(buf.packet_mut(), (source.port(), destination.port()), length, addresses.sum());
    Ok(())
}

/// Puts IP and Ethernet headers in front of the octets in `buf`, a part of a UDP datagram. Routers may cut it further where it
/// is IPv4. A fragment that is all of its datagram (offset 0, none follow) is IPv4's ordinary header without "don't fragment",
/// and of IPv6 an atomic fragment (RFC 6946).
///
/// # Errors
/// [`Short`] as of [`super::emit`]; `buf` is then as before.
pub fn emit_fragment(
    buf: &mut PacketBuf<'_>,
    link: &Link,
    source: IpAddr,
    destination: IpAddr,
    fragment: Fragment,
) -> Result<(), Short> {
    let addresses = ip::Addresses::new(source, destination)?;
    let extension = if source.is_ipv6() { V6_HEADER } else { 0 };
    let octets = u16::try_from(buf.len() + extension).map_err(|_| Short)?;
    let length = addresses.length_field(octets)?;
    let ethernet = ether::len(link);
    buf.grow_head(ethernet + addresses.header_len() + extension)?;
    let (frame, packet) = buf.packet_mut().split_at_mut(ethernet);
    let (header, rest) = packet.split_at_mut(addresses.header_len());
    ether::emit(frame, link, addresses.ethertype());
    let more = u16::from(fragment.more);
    if source.is_ipv6() {
        addresses.emit(header, link.dscp, length);
        header[6] = NEXT_HEADER;
        rest[0] = udp::PROTOCOL;
        rest[1] = 0;
        rest[2..4].copy_from_slice(&(fragment.offset & !7 | more).to_be_bytes());
        rest[4..8].copy_from_slice(&fragment.identification.to_be_bytes());
    } else {
        let [_, _, high, low] = fragment.identification.to_be_bytes();
        let place = ip::Place { identification: [high, low], flags: (fragment.offset >> 3) | more << 13 };
        addresses.emit_placed(header, link.dscp, length, place);
    }
    Ok(())
}
