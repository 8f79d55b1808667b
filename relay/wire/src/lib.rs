//! Bytes to headers and back: Ethernet, IP, UDP, RTP, RTCP, STUN.
//!
//! Every parser takes any octets: it checks each length once, says [`Malformed`] or hands out a view, and never panics.
//! Nothing here allocates, copies more than a header, or keeps state.

#![no_std]
#![forbid(unsafe_code)]

mod buf;
pub mod checksum;
pub mod demux;
pub mod extension;
pub mod frame;
pub mod rtcp;
pub mod rtp;
mod site;
pub mod stun;

use core::fmt;

pub use buf::{PacketBuf, Short};
pub use site::site;

/// Why bytes are not what they were read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Fewer octets than the fixed part needs.
    Short,
    /// A length field contradicts the octets that are there.
    Length,
    /// A version that this is not.
    Version,
    /// A fragment of a datagram.
    Fragment,
    /// Another protocol than UDP over IPv4 or IPv6.
    NotUdp,
    /// Anything else that the RFC forbids.
    Invalid,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "too few octets for the fixed part",
            Self::Length => "a length field contradicts the octets that are there",
            Self::Version => "another version",
            Self::Fragment => "a fragment",
            Self::NotUdp => "not UDP over IPv4 or IPv6",
            Self::Invalid => "forbidden contents",
        })
    }
}

impl core::error::Error for Malformed {}
