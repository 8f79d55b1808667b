//! Ethernet II and one 802.1Q tag.

use super::{Link, array, word};
use crate::Malformed;

/// Octets of the header without a tag.
pub(super) const HEADER: usize = 14;
/// Octets of a tag.
pub(super) const TAG: usize = 4;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
/// The identifier's bits in a tag; the others are a priority.
const IDENTIFIER: u16 = 0x0fff;

/// What the header says.
pub(super) struct Header {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    pub vlan: Option<u16>,
    pub ethertype: u16,
    /// Where the network layer begins.
    pub end: usize,
}

pub(super) fn parse(frame: &[u8]) -> Result<Header, Malformed> {
    let (destination_mac, source_mac) = (array(frame, 0)?, array(frame, 6)?);
    let ethertype = word(frame, 12)?;
    if ethertype != VLAN {
        return Ok(Header { destination_mac, source_mac, vlan: None, ethertype, end: HEADER });
    }
    let vlan = Some(word(frame, 14)? & IDENTIFIER);
    Ok(Header { destination_mac, source_mac, vlan, ethertype: word(frame, 16)?, end: HEADER + TAG })
}

/// Octets that [`emit`] fills.
pub(super) fn len(link: &Link) -> usize {
    if link.vlan.is_some() { HEADER + TAG } else { HEADER }
}

/// Fills `header`, which has [`len`] octets.
pub(super) fn emit(header: &mut [u8], link: &Link, ethertype: u16) {
    header[0..6].copy_from_slice(&link.destination_mac);
    header[6..12].copy_from_slice(&link.source_mac);
    match link.vlan {
        None => header[12..14].copy_from_slice(&ethertype.to_be_bytes()),
        Some(vlan) => {
            header[12..14].copy_from_slice(&VLAN.to_be_bytes());
            header[14..16].copy_from_slice(&(vlan & IDENTIFIER).to_be_bytes());
            header[16..18].copy_from_slice(&ethertype.to_be_bytes());
        }
    }
}
