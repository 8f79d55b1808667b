//! Ethernet frames that carry UDP, and back.
//!
//! ```text
//!   | Ethernet 14 | 802.1Q 4? | IPv4 20..60 or IPv6 40 | UDP 8 | payload | padding? |
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Range;

use crate::checksum::Sum;
use crate::{Malformed, PacketBuf, Short};

/// Octets of the longest headers that [`emit`] writes.
pub const HEADERS_MAX: usize = ETHERNET + VLAN + IPV6 + UDP;

const ETHERNET: usize = 14;
const VLAN: usize = 4;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const PROTOCOL_UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;

/// A UDP datagram inside a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// VLAN identifier, where the frame has an 802.1Q tag.
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
    let destination_mac = array(frame, 0)?;
    let source_mac = array(frame, 6)?;
    let mut ethertype = word(frame, 12)?;
    let mut at = ETHERNET;
    let mut vlan = None;
    if ethertype == 0x8100 {
        vlan = Some(word(frame, 14)? & 0x0fff);
        ethertype = word(frame, 16)?;
        at += VLAN;
    }
    let (source, destination, udp, end) = match ethertype {
        0x0800 => ipv4(frame, at)?,
        0x86dd => ipv6(frame, at)?,
        _ => return Err(Malformed::NotUdp),
    };
    let length = usize::from(word(frame, udp + 4)?);
    if length < UDP || udp + length > end {
        return Err(Malformed::Length);
    }
    Ok(Datagram {
        vlan,
        source_mac,
        destination_mac,
        source: SocketAddr::new(source, word(frame, udp)?),
        destination: SocketAddr::new(destination, word(frame, udp + 2)?),
        payload: udp + UDP..udp + length,
    })
}

/// Source, destination, where UDP begins, where the packet ends.
type Network = (IpAddr, IpAddr, usize, usize);

fn ipv4(frame: &[u8], at: usize) -> Result<Network, Malformed> {
    let first = byte(frame, at)?;
    let header = usize::from(first & 0x0f) * 4;
    let total = usize::from(word(frame, at + 2)?);
    if first >> 4 != 4 || header < IPV4 || total < header || at + total > frame.len() {
        return Err(Malformed::Length);
    }
    // More fragments, or an offset.
    if word(frame, at + 6)? & 0x3fff != 0 {
        return Err(Malformed::Fragment);
    }
    if byte(frame, at + 9)? != PROTOCOL_UDP {
        return Err(Malformed::NotUdp);
    }
    let source: [u8; 4] = array(frame, at + 12)?;
    let destination: [u8; 4] = array(frame, at + 16)?;
    Ok((Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into(), at + header, at + total))
}

fn ipv6(frame: &[u8], at: usize) -> Result<Network, Malformed> {
    let end = at + IPV6 + usize::from(word(frame, at + 4)?);
    if byte(frame, at)? >> 4 != 6 || end > frame.len() {
        return Err(Malformed::Length);
    }
    match byte(frame, at + 6)? {
        PROTOCOL_UDP => {}
        44 => return Err(Malformed::Fragment),
        _ => return Err(Malformed::NotUdp),
    }
    let source: [u8; 16] = array(frame, at + 8)?;
    let destination: [u8; 16] = array(frame, at + 24)?;
    Ok((Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into(), at + IPV6, end))
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

/// Puts UDP, IP and Ethernet headers in front of the payload in `buf`, with complete checksums.
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
    let ip = match (source.ip(), destination.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => IPV4,
        (IpAddr::V6(_), IpAddr::V6(_)) => IPV6,
        _ => return Err(Short),
    };
    let ethernet = if link.vlan.is_some() { ETHERNET + VLAN } else { ETHERNET };
    let udp_length = u16::try_from(buf.len() + UDP).map_err(|_| Short)?;
    let ip_length = u16::try_from(buf.len() + UDP + IPV4).map_err(|_| Short)?;
    buf.grow_head(ethernet + ip + UDP)?;
    let (headers, rest) = buf.packet_mut().split_at_mut(ethernet);
    emit_ethernet(headers, link, ip == IPV4);
    let (header, datagram) = rest.split_at_mut(ip);
    let pseudo = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => emit_ipv4(header, from, to, link.dscp, ip_length),
        (IpAddr::V6(from), IpAddr::V6(to)) => emit_ipv6(header, from, to, link.dscp, udp_length),
        _ => return Err(Short),
    };
    datagram[0..2].copy_from_slice(&source.port().to_be_bytes());
    datagram[2..4].copy_from_slice(&destination.port().to_be_bytes());
    datagram[4..6].copy_from_slice(&udp_length.to_be_bytes());
    datagram[6..8].fill(0);
    let sum = pseudo.add_word(u16::from(PROTOCOL_UDP)).add_word(udp_length).add(datagram).finish();
    // Zero stands for "no checksum" (RFC 768).
    let sum = if sum == 0 { 0xffff } else { sum };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

fn emit_ethernet(header: &mut [u8], link: &Link, is_ipv4: bool) {
    let ethertype: [u8; 2] = if is_ipv4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    header[0..6].copy_from_slice(&link.destination_mac);
    header[6..12].copy_from_slice(&link.source_mac);
    if let Some(vlan) = link.vlan {
        header[12..14].copy_from_slice(&[0x81, 0x00]);
        header[14..16].copy_from_slice(&(vlan & 0x0fff).to_be_bytes());
        header[16..18].copy_from_slice(&ethertype);
    } else {
        header[12..14].copy_from_slice(&ethertype);
    }
}

fn emit_ipv4(header: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, dscp: u8, length: u16) -> Sum {
    header.fill(0);
    header[0] = 0x45;
    header[1] = dscp << 2;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    // Don't fragment: with it the identification may stay zero (RFC 6864 section 4.1).
    header[6] = 0x40;
    header[8] = HOP_LIMIT;
    header[9] = PROTOCOL_UDP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum = Sum::default().add(header).finish();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Sum::default().add(&from.octets()).add(&to.octets())
}

fn emit_ipv6(header: &mut [u8], from: Ipv6Addr, to: Ipv6Addr, dscp: u8, length: u16) -> Sum {
    header.fill(0);
    header[0] = 0x60 | (dscp >> 2);
    header[1] = dscp << 6;
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6] = PROTOCOL_UDP;
    header[7] = HOP_LIMIT;
    header[8..24].copy_from_slice(&from.octets());
    header[24..40].copy_from_slice(&to.octets());
    Sum::default().add(&from.octets()).add(&to.octets())
}
