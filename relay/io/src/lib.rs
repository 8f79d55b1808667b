//! The edge: datagrams in and out, by AF_XDP or by ordinary sockets, behind one trait.
//!
//! A [`Port`] belongs to one worker. What comes in lies in a [`Frame`] that has exactly one owner at any time: the system
//! or the port's user; [`FrameCount`] says who has how many. The user takes a [`Burst`], looks at [`Port::buffer`], and
//! gives each frame back by [`Port::transmit`] or [`Port::release`]; nothing is copied and nothing allocated per packet.
//!
//! - [`AfXdpPort`]: one UMEM over one AF_XDP socket per interface. Received frames carry the [`Received::tag`] that the
//!   XDP program put in front of them; transmitted ones get their headers here and need [`Egress::link`].
//! - [`UdpPort`]: `recvmmsg` and `sendmmsg` over sockets that are bound and unbound while it runs; several ports may share
//!   an address, and [`steer()`] tells which of them hears whom.
//! - [`MemoryPort`]: no system at all; a test holds the [`Wire`] at its other end.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod afxdp;
mod engine;
mod hashing;
mod identify;
mod memory;
mod meta;
mod open;
mod outbox;
mod pool;
mod port;
mod ring;
mod sockets;
mod steer;
mod tcp;
#[cfg(test)]
mod testing;
#[allow(unsafe_code)]
mod udp;

pub use hashing::hash_ports;
pub use memory::{Incoming, MemoryPort, Outgoing, Wire};
pub use meta::{META_FLOW, META_LEN, META_MAGIC, META_PUNT};
pub use open::{AfXdpPort, Mode, OpenError, Queue};
pub use pool::Frame;
pub use port::{
    Burst, Counters, Egress, FRAME_SIZE, FrameCount, FrameSize, HEADROOM, Port, Received, TransmitError,
};
pub use sockets::UdpPort;
pub use steer::steer;
pub use tcp::{Pair, TCP_FRAME_MAX, TcpConnections, TcpCounters, TcpLimits};
