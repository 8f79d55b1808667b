//! A question to a STUN server: how do I look from there?

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail};
use sallyport_wire::stun::{BINDING, Builder, Class, Message};

/// Asks from a fresh socket of the calling thread's namespace.
///
/// # Errors
/// Where no right answer comes within a second.
pub fn mapped(server: SocketAddr) -> anyhow::Result<SocketAddr> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    ask(&UdpSocket::bind(any)?, server)
}

/// Asks from this socket; three times, as the first packet may wait for ARP longer than its buffer does.
///
/// # Errors
/// Where no right answer comes within a second.
pub fn ask(socket: &UdpSocket, server: SocketAddr) -> anyhow::Result<SocketAddr> {
    let id = *b"sallyportlab";
    let mut request = [0; 20];
    let builder = Builder::new(&mut request, Class::Request, BINDING, id);
    let length = builder.map_err(|_| anyhow::anyhow!("no room for a request"))?.finish();
    socket.set_read_timeout(Some(Duration::from_millis(333)))?;
    let mut answer = [0; 1500];
    for _ in 0..3 {
        socket.send_to(&request[..length], server).context("cannot send to the STUN server")?;
        let Ok((length, from)) = socket.recv_from(&mut answer) else { continue };
        let Ok(message) = Message::parse(&answer[..length]) else { continue };
        if from == server && message.class() == Class::Success && message.transaction_id() == id {
            return message.xor_mapped_address().context("the answer names no address");
        }
    }
    bail!("no answer from the STUN server")
}
