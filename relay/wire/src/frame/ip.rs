//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use super::{array, byte, ether, udp, word};
use crate::checksum::Sum;
use crate::{Malformed, Short};

/// Octets of an IPv4 header without options.
pub(super) const V4: usize = 20;
/// Octets of an IPv6 header.
pub(super) const V6: usize = 40;

const HOP_LIMIT: u8 = 64;
/// IPv4's "more fragments" bit and fragment offset.
const FRAGMENT: u16 = 0x3fff;
/// IPv6's fragment header.
const FRAGMENT_HEADER: u8 = 44;

/// What a header says.
pub(super) struct Network {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Where the UDP datagram lies in the frame.
    pub datagram: Range<usize>,
}

pub(super) fn parse_v4(frame: &[u8], at: usize) -> Result<Network, Malformed> {
    let first = byte(frame, at)?;
    if first >> 4 != 4 {
        return Err(Malformed::Version);
    }
    let header = usize::from(first & 0x0f) * 4;
    let total = usize::from(word(frame, at + 2)?);
    if header < V4 || total < header || at + total > frame.len() {
        return Err(Malformed::Length);
    }
    if word(frame, at + 6)? & FRAGMENT != 0 {
        return Err(Malformed::Fragment);
    }
    if byte(frame, at + 9)? != udp::PROTOCOL {
        return Err(Malformed::NotUdp);
    }
    Ok(Network {
        source: IpAddr::from(array::<4>(frame, at + 12)?),
        destination: IpAddr::from(array::<4>(frame, at + 16)?),
        datagram: at + header..at + total,
    })
}

pub(super) fn parse_v6(frame: &[u8], at: usize) -> Result<Network, Malformed> {
    if byte(frame, at)? >> 4 != 6 {
        return Err(Malformed::Version);
    }
    let end = at + V6 + usize::from(word(frame, at + 4)?);
    if end > frame.len() {
        return Err(Malformed::Length);
    }
    match byte(frame, at + 6)? {
        udp::PROTOCOL => {}
        FRAGMENT_HEADER => return Err(Malformed::Fragment),
        _ => return Err(Malformed::NotUdp),
    }
    Ok(Network {
        source: IpAddr::from(array::<16>(frame, at + 8)?),
        destination: IpAddr::from(array::<16>(frame, at + 24)?),
        datagram: at + V6..end,
    })
}

/// Which part of a datagram an IPv4 packet is.
pub(super) struct Place {
    pub identification: [u8; 2],
    /// Flags, and the offset in units of eight octets.
    pub flags: u16,
}

impl Place {
    /// Don't fragment: with it the identification may stay zero (RFC 6864 section 4.1).
    const WHOLE: Self = Self { identification: [0; 2], flags: 0x4000 };
}

/// Source and destination, of one family.
pub(super) enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Addresses {
    pub(super) fn new(source: IpAddr, destination: IpAddr) -> Result<Self, Short> {
        match (source, destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Ok(Self::V4(from, to)),
            (IpAddr::V6(from), IpAddr::V6(to)) => Ok(Self::V6(from, to)),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Err(Short),
        }
    }

    pub(super) fn header_len(&self) -> usize {
        match self {
            Self::V4(..) => V4,
            Self::V6(..) => V6,
        }
    }

    pub(super) fn ethertype(&self) -> u16 {
        match self {
            Self::V4(..) => ether::IPV4,
            Self::V6(..) => ether::IPV6,
        }
    }

    /// What the length field says for a datagram: IPv4 counts its header, IPv6 does not.
    pub(super) fn length_field(&self, datagram_len: u16) -> Result<u16, Short> {
        match self {
            Self::V4(..) => datagram_len.checked_add(V4 as u16).ok_or(Short),
            Self::V6(..) => Ok(datagram_len),
        }
    }

    /// The sum over the addresses, a part of UDP's checksum.
    pub(super) fn sum(&self) -> Sum {
        match self {
            Self::V4(from, to) => Sum::default().add_bytes(&from.octets()).add_bytes(&to.octets()),
            Self::V6(from, to) => Sum::default().add_bytes(&from.octets()).add_bytes(&to.octets()),
        }
    }

    /// Fills `header`, which has [`Self::header_len`] octets; returns the sum over the addresses, a part of UDP's checksum.
    pub(super) fn emit(&self, header: &mut [u8], dscp: u8, length: u16) -> Sum {
        self.emit_placed(header, dscp, length, Place::WHOLE)
    }

    /// As [`Self::emit`]; `place` is said by IPv4 only.
    pub(super) fn emit_placed(&self, header: &mut [u8], dscp: u8, length: u16, place: Place) -> Sum {
        let traffic_class = (dscp & 0x3f) << 2;
        header.fill(0);
        match self {
            Self::V4(from, to) => {
                header[0] = 0x45;
                header[1] = traffic_class;
                header[2..4].copy_from_slice(&length.to_be_bytes());
                header[4..6].copy_from_slice(&place.identification);
                header[6..8].copy_from_slice(&place.flags.to_be_bytes());
                header[8] = HOP_LIMIT;
                header[9] = udp::PROTOCOL;
                header[12..16].copy_from_slice(&from.octets());
                header[16..20].copy_from_slice(&to.octets());
                let sum = Sum::default().add_bytes(header).finish();
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                Sum::default().add_bytes(&header[12..])
            }
            Self::V6(from, to) => {
                header[0] = 0x60 | traffic_class >> 4;
                header[1] = traffic_class << 4;
                header[4..6].copy_from_slice(&length.to_be_bytes());
                header[6] = udp::PROTOCOL;
                header[7] = HOP_LIMIT;
                header[8..24].copy_from_slice(&from.octets());
                header[24..40].copy_from_slice(&to.octets());
                Sum::default().add_bytes(&header[8..])
            }
        }
    }
}
