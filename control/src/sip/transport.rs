//! Octets in and out: one UDP socket, a TCP listener, connections by peer, browsers' WebSocket connections.

mod stream;
pub mod websocket;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Task;
use super::guard::MESSAGE_MAX;
use crate::config::Transport;
use crate::message::{ConnectionId, Visitor};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// Address and port.
    pub address: SocketAddr,
    /// By what.
    pub kind: Transport,
    /// Over this connection and no other: a browser's.
    pub connection: Option<ConnectionId>,
}

impl Target {
    /// A place of telephony's side.
    pub const fn new(address: SocketAddr, kind: Transport) -> Self {
        Self { address, kind, connection: None }
    }
}

/// What came in.
#[derive(Debug)]
pub enum Arrival {
    /// A message.
    Message {
        /// Its octets.
        octets: Vec<u8>,
        /// Where it came from, and where answers go.
        source: Target,
    },
    /// A connection that somebody else made: answers go back on it.
    Connected(Target, Sender<Vec<u8>>),
    /// A browser made one; the address is what counts as one client.
    Entered(Target, Sender<Vec<u8>>, Visitor),
    /// It is gone.
    Gone(Target),
    /// Nothing could be sent there.
    Unreachable(Target),
}

/// All sockets.
pub struct Transports {
    udp: Arc<UdpSocket>,
    local: SocketAddr,
    arrived: Sender<Arrival>,
    connections: HashMap<Target, Sender<Vec<u8>>>,
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
    pub fn connected(&mut self, peer: Target, writer: Sender<Vec<u8>>) {
        self.connections.insert(peer, writer);
    }

    /// Forgets a connection, unless the same peer has made another.
    pub fn gone(&mut self, peer: Target) {
        if self.connections.get(&peer).is_some_and(Sender::is_closed) {
            self.connections.remove(&peer);
        }
    }

    /// Sends; what cannot be sent by a connection that is yet to be made comes back as [`Arrival::Unreachable`]. Whether
    /// the system, or the connection, took it.
    pub fn send(&mut self, octets: Vec<u8>, target: Target) -> bool {
        match target.kind {
            Transport::Udp => self.udp.try_send_to(&octets, target.address).is_ok(),
            Transport::Tcp => self.connection(target).try_send(octets).is_ok(),
            Transport::Ws | Transport::Wss => {
                self.connections.get(&target).is_some_and(|writer| writer.try_send(octets).is_ok())
            }
            Transport::Tls => false,
        }
    }

    /// The connection to a peer: the one there is, or a new one.
    fn connection(&mut self, target: Target) -> &Sender<Vec<u8>> {
        if self.connections.get(&target).is_some_and(Sender::is_closed) {
            self.connections.remove(&target);
        }
        self.connections.entry(target).or_insert_with(|| {
            let (writer, outbox) = channel(WAITING);
            tokio::spawn(connect(self.local, target, outbox, self.arrived.clone()));
            writer
        })
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
        let source = Target::new(address, Transport::Udp);
        let octets = room[..n].to_vec();
        match arrived.try_send(Arrival::Message { octets, source }) {
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
        let peer = Target::new(peer, Transport::Tcp);
        if arrived.send(Arrival::Connected(peer, writer)).await.is_err() {
            return;
        }
        let arrived = arrived.clone();
        tokio::spawn(async move {
            stream::follow(stream, peer, outbox, &arrived).await;
            drop(place);
        });
    }
}

async fn connect(local: SocketAddr, target: Target, outbox: Receiver<Vec<u8>>, arrived: Sender<Arrival>) {
    let peer = target.address;
    let attempt = async {
        let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if !local.ip().is_unspecified() && local.is_ipv4() == peer.is_ipv4() {
            socket.bind(SocketAddr::new(local.ip(), 0))?;
        }
        socket.connect(peer).await
    };
    match tokio::time::timeout(CONNECT_PATIENCE, attempt).await {
        Ok(Ok(stream)) => stream::follow(stream, target, outbox, &arrived).await,
        _ => {
            drop(outbox);
            let _ = arrived.send(Arrival::Unreachable(target)).await;
            let _ = arrived.send(Arrival::Gone(target)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

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
                    Arrival::Message { .. } | Arrival::Entered(..) | Arrival::Unreachable(_) => {}
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
