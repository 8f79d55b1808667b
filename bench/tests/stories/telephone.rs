//! A telephone's end of a plain leg, as a socket.

use std::net::{SocketAddr, UdpSocket};

use sallyport_plan::PortPair;

/// The telephone's end of a plain leg.
pub struct Phone {
    rtp: UdpSocket,
    toward: PortPair,
    sequence: u16,
}

impl Phone {
    pub fn new(rtp: UdpSocket, toward: PortPair) -> Self {
        Self { rtp, toward, sequence: 0 }
    }

    pub fn address(&self) -> SocketAddr {
        self.rtp.local_addr().unwrap()
    }

    /// Sends 20 ms of sound; its payload.
    pub fn speak(&mut self) -> Vec<u8> {
        self.sequence += 1;
        let mut packet = vec![0x80, 0];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend((u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend([7; 4]);
        packet.extend([self.sequence as u8; 160]);
        self.rtp.send_to(&packet, self.toward.rtp).unwrap();
        packet[12..].to_vec()
    }

    /// The next payload that comes, from where ours goes to.
    pub fn hear(&self) -> Vec<u8> {
        let mut room = [0; 2048];
        let (length, from) = self.rtp.recv_from(&mut room).unwrap();
        assert_eq!(from, self.toward.rtp);
        room[12..length].to_vec()
    }
}
