//! What becomes of header extensions (RFC 8285).

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// A header extension (RFC 8285) that both legs have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionMap {
    /// Its id as it arrives, 1 to 255.
    pub from: u8,
    /// Its id as it leaves.
    pub to: u8,
}

/// The name of a section outside (RFC 9143 section 15): what leaves bears it until its receiver has reported on the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mid {
    /// Id of the extension, 1 to 255.
    pub id: u8,
    /// The value of `a=mid`, 1 to 16 octets.
    pub name: String,
}

/// Header extensions of a direction. What is not named here is taken out; all of this is for translated directions only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extensions {
    /// Carried as they are under the other leg's ids, at most 8.
    pub carried: Vec<ExtensionMap>,
    /// Added to what leaves.
    pub mid: Option<Mid>,
    /// The id of transport-wide sequence numbers as they arrive (draft-holmer-rmcat-transport-wide-cc-extensions-01): their
    /// sender is told when which packet arrived. In a bundle the first direction's id is that of all.
    pub transport_wide: Option<u8>,
    /// Whether the bandwidth that a receiver wants of a stream (REMB, TMMBR) leaves with the direction's RTCP, as REMB.
    pub remb: bool,
    /// Whether its sender sends again what a NACK asks for (RFC 4585 section 6.2.1): it is asked for what is missing.
    pub nack: bool,
}

impl Extensions {
    /// Whether ids and lengths are what they may be.
    pub(crate) fn is_well_formed(&self) -> bool {
        let mid = self.mid.as_ref().is_none_or(|mid| mid.id != 0 && (1..=16).contains(&mid.name.len()));
        let ids = self.carried.iter().all(|map| map.from != 0 && map.to != 0);
        mid && ids && self.carried.len() <= 8 && self.transport_wide != Some(0)
    }
}
