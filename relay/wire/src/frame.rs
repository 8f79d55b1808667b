//! Ethernet frames that carry UDP, and back.
//!
//! ```text
//!   | Ethernet 14 | 802.1Q 4? | IPv4 20..60 or IPv6 40 | UDP 8 | payload | padding? |
//! ```

mod ether;
mod fragment;
mod ip;
mod udp;

use core::net::SocketAddr;
use core::ops::Range;

use crate::{Malformed, PacketBuf, Short};

pub use fragment::{Cut, FRAGMENT_HEADERS_MAX, Fragment, emit_fragment, emit_udp};

/// Octets of the longest headers that [`emit`] writes.
pub const HEADERS_MAX: usize = ether::HEADER + ether::TAG + ip::V6 + udp::HEADER;

/// A UDP datagram inside a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// VLAN identifier, where the frame has an 802.1Q tag; 0 where the tag holds a priority only.
    pub vlan: Option<u16>,
    /// Link-layer source.
    pub source_mac: [u8; 6],
    /// Link-layer destination.
    pub destination_mac: [u8; 6],
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Where the UDP payload lies in the frame.
    pub payload: Range<usize>,
}

/// What a frame needs below IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Our hardware address.
    pub source_mac: [u8; 6],
    /// The next hop's hardware address.
    pub destination_mac: [u8; 6],
    /// VLAN identifier, where the frame is to have an 802.1Q tag.
    pub vlan: Option<u16>,
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: u8,
}

/// Reads a frame: Ethernet with one 802.1Q tag at the most, IPv4 (options pass, fragments do not) or IPv6 without extension
/// headers, UDP. Checksums are not verified: a local sender's frames carry unfinished ones.
///
/// # Errors
/// [`Malformed`] for all that is not such a frame, or whose lengths contradict each other.
pub fn parse(frame: &[u8]) -> Result<Datagram, Malformed> {
    let link = ether::parse(frame)?;
    let network = match link.ethertype {
        ether::IPV4 => ip::parse_v4(frame, link.end)?,
        ether::IPV6 => ip::parse_v6(frame, link.end)?,
        _ => return Err(Malformed::NotUdp),
    };
    let (ports, payload) = udp::parse(frame, network.datagram)?;
    Ok(Datagram {
        vlan: link.vlan,
        source_mac: link.source_mac,
        destination_mac: link.destination_mac,
        source: SocketAddr::new(network.source, ports.0),
        destination: SocketAddr::new(network.destination, ports.1),
        payload,
    })
}

/// Puts UDP, IP and Ethernet headers in front of the payload in `buf`, with complete checksums. Hop limit 64, flow label 0,
/// don't fragment.
///
/// # Errors
/// [`Short`] where the headroom is too small, the payload too long for UDP, or the addresses are of two families;
/// `buf` is then as before.
pub fn emit(
    buf: &mut PacketBuf<'_>,
    link: &Link,
    source: SocketAddr,
    destination: SocketAddr,
) -> Result<(), Short> {
    let addresses = ip::Addresses::new(source.ip(), destination.ip())?;
    let datagram_len =
        buf.len().checked_add(udp::HEADER).and_then(|len| u16::try_from(len).ok()).ok_or(Short)?;
    let length = addresses.length_field(datagram_len)?;
    let ethernet = ether::len(link);
    buf.grow_head(ethernet + addresses.header_len() + udp::HEADER)?;
    let (frame, packet) = buf.packet_mut().split_at_mut(ethernet);
    let (header, datagram) = packet.split_at_mut(addresses.header_len());
    ether::emit(frame, link, addresses.ethertype());
    let pseudo = addresses.emit(header, link.dscp, length);
    udp::emit(datagram, (source.port(), destination.port()), datagram_len, pseudo);
    Ok(())
}

fn byte(frame: &[u8], at: usize) -> Result<u8, Malformed> {
    frame.get(at).copied().ok_or(Malformed::Short)
}

fn word(frame: &[u8], at: usize) -> Result<u16, Malformed> {
    array(frame, at).map(u16::from_be_bytes)
}

fn array<const N: usize>(frame: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    frame.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Malformed::Short)
}
