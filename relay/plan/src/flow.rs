//! Whose packets are whose: zones and 5-tuples.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Side of the appliance that an interface belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Zone {
    /// Browsers: ICE, DTLS-SRTP, one UDP port.
    Outside = 1,
    /// Telephony: SIP, RTP, a port pair per medium; and browsers inside, on one UDP port of their own.
    Inside = 2,
}

/// Whose packet this is: zone and 5-tuple. The protocol is UDP, unless `local` has the port outside that is for TCP
/// ([`crate::InterfaceStatus::tcp`]). As an egress it says where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowKey {
    /// Zone of the ingress (or egress) interface.
    pub zone: Zone,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

impl FlowKey {
    /// The same peer at any port, which no peer has: 0.
    #[must_use]
    pub const fn of_any_port(self) -> Self {
        Self { remote: SocketAddr::new(self.remote.ip(), 0), ..self }
    }
}
