//! Bytes to headers and back.

#![no_std]
#![forbid(unsafe_code)]

mod buf;
pub mod checksum;
pub mod demux;
pub mod frame;
pub mod rtcp;
pub mod rtp;
pub mod stun;

pub use buf::{PacketBuf, Short};

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
