//! The port of a worker, whichever kind it is.

use std::io;
use std::net::SocketAddr;

use sallyport_io::{AfXdpPort, Port, UdpPort};

/// AF_XDP or sockets: the same code runs on both.
pub enum Edge {
    /// Frames lent by the kernel.
    AfXdp(Box<AfXdpPort>),
    /// Datagrams of UDP sockets.
    Udp(Box<UdpPort>),
}

impl Edge {
    /// The port.
    pub fn port(&mut self) -> &mut dyn Port {
        match self {
            Self::AfXdp(port) => port.as_mut(),
            Self::Udp(port) => port.as_mut(),
        }
    }

    /// Sockets of a zone that are opened from now on hear and send by this interface only. AF_XDP sockets are bound to theirs
    /// anyway.
    pub fn belong(&mut self, zone: u8, interface: &str) {
        if let Self::Udp(port) = self {
            port.belong(zone, interface);
        }
    }

    /// Opens a socket on each address; none where one fails. AF_XDP needs none: XDP takes the packets first.
    ///
    /// # Errors
    /// What the system says of the first socket that failed.
    pub fn bind(&mut self, zone: u8, addresses: &[SocketAddr]) -> io::Result<()> {
        let Self::Udp(port) = self else { return Ok(()) };
        for (at, address) in addresses.iter().enumerate() {
            if let Err(error) = port.bind(zone, *address).map(|_| ()) {
                for opened in &addresses[..at] {
                    port.unbind(*opened);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Closes the sockets on these addresses.
    pub fn unbind(&mut self, addresses: &[SocketAddr]) {
        if let Self::Udp(port) = self {
            for address in addresses {
                port.unbind(*address);
            }
        }
    }
}
