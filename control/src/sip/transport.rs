//! Octets in and out: one UDP socket, a TCP listener, TCP connections by peer.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};

use super::Task;
use super::framing::{Frame, frame};
use super::guard::MESSAGE_MAX;
use crate::config::Transport;

/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(4);
/// How long a peer may take to read what is written.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection that ends waits for one more answer.
const LAST_WORD: Duration = Duration::from_millis(50);
/// A connection without a message ends after this, one that never had a whole message much sooner.
const IDLE: Duration = Duration::from_secs(600);
const FIRST: Duration = Duration::from_secs(10);
/// Messages that wait for a slow peer.
const WAITING: usize = 64;
/// Connections that strangers may hold open at once.
const CONNECTIONS: usize = 512;
/// Messages that wait for the task that reads them; beyond, datagrams are lost and streams stand still.
pub const ARRIVALS: usize = 1024;
/// After an error of a listening socket: out of descriptors, most likely, and none is free a moment later.
const PAUSE: Duration = Duration::from_millis(100);
/// After an error of the datagram socket.
const BREATH: Duration = Duration::from_millis(5);

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Address and port.
    pub address: SocketAddr,
    /// By what.
    pub kind: Transport,
}

/// What came in.
#[derive(Debug)]
pub enum Arrival {
    /// A message; `framed` where a stream's Content-Length cut it out.
    Message {
        /// Its octets.
        octets: Vec<u8>,
        /// Where it came from, and where answers go.
        source: Target,
        /// Whether it came on a stream.
        framed: bool,
    },
    /// A connection that somebody else made: answers go back on it.
    Connected(SocketAddr, Sender<Vec<u8>>),
    /// It is gone.
    Gone(SocketAddr),
    /// Nothing could be sent there.
    Unreachable(SocketAddr),
}

/// All sockets.
pub struct Transports {
    udp: Arc<UdpSocket>,
    local: SocketAddr,
    arrived: Sender<Arrival>,
    connections: HashMap<SocketAddr, Sender<Vec<u8>>>,
}

impl Transports {
    /// Binds UDP and TCP on one address; gives the tasks that listen there as well. Connections of `server` are always
    /// taken, however many strangers have.
    ///
    /// # Errors
    /// What the system says of it.
    pub async fn bind(
        listen: SocketAddr,
        server: Option<IpAddr>,
        arrived: Sender<Arrival>,
    ) -> io::Result<(Self, Vec<Task>)> {
        let udp = Arc::new(UdpSocket::bind(listen).await?);
        let local = udp.local_addr()?;
        let tcp = TcpListener::bind(local).await?;
        let tasks: Vec<Task> = vec![
            ("SIP over UDP", Box::pin(receive(udp.clone(), arrived.clone()))),
            ("SIP over TCP", Box::pin(accept(tcp, server, arrived.clone()))),
        ];
        Ok((Self { udp, local, arrived, connections: HashMap::new() }, tasks))
    }

    /// Where we are heard.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Takes note of a connection.
    pub fn connected(&mut self, peer: SocketAddr, writer: Sender<Vec<u8>>) {
        self.connections.insert(peer, writer);
    }

    /// Forgets a connection.
    pub fn gone(&mut self, peer: SocketAddr) {
        self.connections.remove(&peer);
    }

    /// Sends; what cannot be sent by TCP comes back as [`Arrival::Unreachable`]. Whether the system took it.
    pub fn send(&mut self, octets: Vec<u8>, target: Target) -> bool {
        match target.kind {
            Transport::Udp => self.udp.try_send_to(&octets, target.address).is_ok(),
            Transport::Tcp => {
                let writer = self.connections.entry(target.address).or_insert_with(|| {
                    let (writer, outbox) = channel(WAITING);
                    tokio::spawn(connect(self.local, target.address, outbox, self.arrived.clone()));
                    writer
                });
                writer.try_send(octets).is_ok()
            }
        }
    }
}

async fn receive(udp: Arc<UdpSocket>, arrived: Sender<Arrival>) {
    let mut room = vec![0; MESSAGE_MAX + 1];
    loop {
        let Ok((n, address)) = udp.recv_from(&mut room).await else {
            // Mostly of a datagram that could not be delivered: the socket goes on.
            tokio::time::sleep(BREATH).await;
            continue;
        };
        let source = Target { address, kind: Transport::Udp };
        let octets = room[..n].to_vec();
        match arrived.try_send(Arrival::Message { octets, source, framed: false }) {
            // What is lost is sent again.
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Closed(_)) => return,
        }
    }
}

async fn accept(tcp: TcpListener, server: Option<IpAddr>, arrived: Sender<Arrival>) {
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let mut complained = false;
    loop {
        let (stream, peer) = match tcp.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(%error, "a SIP connection cannot be accepted; trying on");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        complained = false;
        let place = places.clone().try_acquire_owned().ok();
        if place.is_none() && server != Some(peer.ip()) {
            continue;
        }
        let (writer, outbox) = channel(WAITING);
        if arrived.send(Arrival::Connected(peer, writer)).await.is_err() {
            return;
        }
        let arrived = arrived.clone();
        tokio::spawn(async move {
            follow(stream, peer, outbox, &arrived).await;
            drop(place);
        });
    }
}

async fn connect(
    local: SocketAddr,
    peer: SocketAddr,
    outbox: tokio::sync::mpsc::Receiver<Vec<u8>>,
    arrived: Sender<Arrival>,
) {
    let attempt = async {
        let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if !local.ip().is_unspecified() && local.is_ipv4() == peer.is_ipv4() {
            socket.bind(SocketAddr::new(local.ip(), 0))?;
        }
        socket.connect(peer).await
    };
    match tokio::time::timeout(CONNECT_PATIENCE, attempt).await {
        Ok(Ok(stream)) => follow(stream, peer, outbox, &arrived).await,
        _ => {
            let _ = arrived.send(Arrival::Unreachable(peer)).await;
            let _ = arrived.send(Arrival::Gone(peer)).await;
        }
    }
}

/// Reads messages and writes answers until either side ends.
async fn follow(
    mut stream: TcpStream,
    peer: SocketAddr,
    mut outbox: tokio::sync::mpsc::Receiver<Vec<u8>>,
    arrived: &Sender<Arrival>,
) {
    let mut pending = Vec::new();
    let mut piece = [0; 8192];
    let mut patience = FIRST;
    loop {
        let goes_on = tokio::select! {
            octets = outbox.recv() => match octets {
                Some(octets) => {
                    // Ours, or an answer of ours: it is in use.
                    patience = IDLE;
                    write(&mut stream, &octets).await
                }
                None => false,
            },
            read = tokio::time::timeout(patience, stream.read(&mut piece)) => match read {
                Ok(Ok(n)) if n > 0 => {
                    pending.extend_from_slice(&piece[..n]);
                    let goes_on = cut(&mut pending, &mut stream, peer, arrived).await;
                    // Half a message may not take long either.
                    patience = if pending.is_empty() { IDLE } else { FIRST };
                    goes_on
                }
                _ => false,
            },
        };
        if !goes_on {
            // The answer to what could not be followed is still to leave.
            while let Ok(Some(octets)) = tokio::time::timeout(LAST_WORD, outbox.recv()).await {
                if !write(&mut stream, &octets).await {
                    break;
                }
            }
            let _ = arrived.send(Arrival::Gone(peer)).await;
            return;
        }
    }
}

/// Writes to a peer that is given some time to read; whether it did.
async fn write(stream: &mut TcpStream, octets: &[u8]) -> bool {
    matches!(tokio::time::timeout(WRITE_PATIENCE, stream.write_all(octets)).await, Ok(Ok(())))
}

/// Takes whole messages off the front; whether the stream can be followed on.
async fn cut(
    pending: &mut Vec<u8>,
    stream: &mut TcpStream,
    peer: SocketAddr,
    arrived: &Sender<Arrival>,
) -> bool {
    let source = Target { address: peer, kind: Transport::Tcp };
    while !pending.is_empty() {
        match frame(pending) {
            Frame::Partial => return true,
            Frame::Blank { used, ping } => {
                pending.drain(..used.min(pending.len()));
                if ping && !write(stream, b"\r\n").await {
                    return false;
                }
            }
            Frame::Message(length) => {
                let octets = pending.drain(..length.min(pending.len())).collect();
                if arrived.send(Arrival::Message { octets, source, framed: true }).await.is_err() {
                    return false;
                }
            }
            Frame::Broken(head) => {
                let octets: Vec<u8> = pending.drain(..head.unwrap_or(0).min(pending.len())).collect();
                if !octets.is_empty() {
                    let _ = arrived.send(Arrival::Message { octets, source, framed: true }).await;
                }
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn from(address: &str, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
        socket.connect(to).await.unwrap()
    }

    /// Whether a connection is served: a ping is answered, or else the connection ends.
    async fn is_served(stream: &mut TcpStream) -> bool {
        let mut pong = [0; 2];
        let asked = stream.write_all(b"\r\n\r\n").await.is_ok();
        asked && stream.read_exact(&mut pong).await.is_ok()
    }

    #[tokio::test]
    async fn our_server_is_served_however_many_strangers_are() {
        let (arrived, mut arrivals) = channel(ARRIVALS);
        let server = "127.0.0.3".parse().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let (mut transports, tasks) = Transports::bind(listen, Some(server), arrived).await.unwrap();
        tasks.into_iter().for_each(|(_, task)| drop(tokio::spawn(task)));
        let local = transports.local();
        tokio::spawn(async move {
            while let Some(arrival) = arrivals.recv().await {
                match arrival {
                    Arrival::Connected(peer, writer) => transports.connected(peer, writer),
                    Arrival::Gone(peer) => transports.gone(peer),
                    Arrival::Message { .. } | Arrival::Unreachable(_) => {}
                }
            }
        });
        let mut crowd = Vec::new();
        for _ in 0..CONNECTIONS {
            crowd.push(from("127.0.0.2", local).await);
        }
        assert!(is_served(crowd.last_mut().unwrap()).await);
        assert!(!is_served(&mut from("127.0.0.2", local).await).await, "one too many");
        assert!(is_served(&mut from("127.0.0.3", local).await).await);
        crowd.clear();
        let mut served = false;
        for _ in 0..100 {
            served = served || is_served(&mut from("127.0.0.2", local).await).await;
            tokio::time::sleep(Duration::from_millis(if served { 0 } else { 20 })).await;
        }
        assert!(served, "places are given back");
    }
}
