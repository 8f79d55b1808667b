//! The port of a worker, whichever kind it is.

use std::io;
use std::net::{SocketAddr, UdpSocket};

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

    /// Gives up the sockets on these addresses, with what they have received.
    pub fn part(&mut self, addresses: &[SocketAddr]) -> Vec<UdpSocket> {
        let Self::Udp(port) = self else { return Vec::new() };
        addresses.iter().filter_map(|address| port.part(*address)).collect()
    }

    /// Takes over sockets of a zone; those that it cannot take are closed.
    ///
    /// # Errors
    /// What the system says of the first such.
    pub fn adopt(&mut self, zone: u8, sockets: Vec<UdpSocket>) -> io::Result<()> {
        let Self::Udp(port) = self else { return Ok(()) };
        sockets.into_iter().try_for_each(|socket| port.adopt(zone, socket).map(drop))
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
