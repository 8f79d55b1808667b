//! Octets in and out: one UDP socket, listeners of TCP and TLS, connections by peer, browsers' WebSocket connections.

mod listen;
mod stream;
pub mod tls;
pub mod websocket;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Task;
use super::peers::Place;
use crate::config::Transport;
use crate::message::{ConnectionId, Visitor};
use tls::Tls;

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
    /// Nothing could be sent there, and why.
    Unreachable(Target, String),
    /// Where the configured server of this index is served.
    Resolved(usize, Vec<Place>),
}

/// Addresses whose connections are always taken, however many strangers have.
pub type Trusted = Arc<RwLock<HashSet<IpAddr>>>;

/// All sockets.
pub struct Transports {
    udp: Arc<UdpSocket>,
    local: SocketAddr,
    tls_local: SocketAddr,
    tls: Tls,
    names: HashMap<SocketAddr, String>,
    arrived: Sender<Arrival>,
    connections: HashMap<Target, Sender<Vec<u8>>>,
}

impl Transports {
    /// Binds UDP and TCP on one address, TLS on another; gives the tasks that listen there as well.
    ///
    /// # Errors
    /// What the system says of it.
    pub async fn bind(
        listen: SocketAddr,
        (tls, tls_listen): (Tls, Option<SocketAddr>),
        trusted: Trusted,
        arrived: Sender<Arrival>,
    ) -> io::Result<(Self, Vec<Task>)> {
        let udp = Arc::new(UdpSocket::bind(listen).await?);
        listen::hear_errors(&udp);
        let local = udp.local_addr()?;
        let tcp = TcpListener::bind(local).await?;
        let mut tasks: Vec<Task> = vec![
            ("SIP over UDP", Box::pin(listen::receive(udp.clone(), arrived.clone()))),
            ("SIP over TCP", Box::pin(listen::accept(tcp, None, trusted.clone(), arrived.clone()))),
        ];
        let mut tls_local = local;
        if let Some(address) = tls_listen {
            let listener = TcpListener::bind(address).await?;
            tls_local = listener.local_addr()?;
            let task = listen::accept(listener, Some(tls.clone()), trusted, arrived.clone());
            tasks.push(("SIP over TLS", Box::pin(task)));
        }
        let (names, connections) = (HashMap::new(), HashMap::new());
        Ok((Self { udp, local, tls_local, tls, names, arrived, connections }, tasks))
    }

    /// Whom to expect by TLS at an address; an address of which nothing is said must prove to be itself.
    pub fn expect(&mut self, address: SocketAddr, name: &str) {
        self.names.insert(address, name.to_owned());
    }

    /// Where we are heard by a transport.
    pub fn local(&self, kind: Transport) -> SocketAddr {
        if kind == Transport::Tls { self.tls_local } else { self.local }
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
            Transport::Udp => self.datagram(&octets, target.address),
            Transport::Tcp | Transport::Tls => self.connection(target).try_send(octets).is_ok(),
            Transport::Ws | Transport::Wss => {
                self.connections.get(&target).is_some_and(|writer| writer.try_send(octets).is_ok())
            }
        }
    }

    fn datagram(&self, octets: &[u8], to: SocketAddr) -> bool {
        match self.udp.try_send_to(octets, to) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // Perhaps of a former datagram, which the system tells with the next one.
            Err(_) => self.udp.try_send_to(octets, to).is_ok(),
        }
    }

    /// The connection to a peer: the one there is, or a new one.
    fn connection(&mut self, target: Target) -> &Sender<Vec<u8>> {
        if self.connections.get(&target).is_some_and(Sender::is_closed) {
            self.connections.remove(&target);
        }
        self.connections.entry(target).or_insert_with(|| {
            let (writer, outbox) = channel(WAITING);
            let name = self.names.get(&target.address).cloned();
            let name = name.unwrap_or_else(|| target.address.ip().to_string());
            let tls = (target.kind == Transport::Tls).then(|| (self.tls.clone(), name));
            tokio::spawn(connect(self.local, target, tls, outbox, self.arrived.clone()));
            writer
        })
    }
}

async fn connect(
    local: SocketAddr,
    target: Target,
    tls: Option<(Tls, String)>,
    outbox: Receiver<Vec<u8>>,
    arrived: Sender<Arrival>,
) {
    let peer = target.address;
    let attempt = async {
        let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if !local.ip().is_unspecified() && local.is_ipv4() == peer.is_ipv4() {
            socket.bind(SocketAddr::new(local.ip(), 0))?;
        }
        socket.connect(peer).await
    };
    let stream = match tokio::time::timeout(CONNECT_PATIENCE, attempt).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("connecting took too long".to_owned()),
    };
    let failed = match (stream, tls) {
        (Err(reason), _) => reason,
        (Ok(stream), None) => return stream::follow(stream, target, outbox, &arrived, true).await,
        (Ok(stream), Some((tls, name))) => match tls.connect(stream, &name).await {
            Ok(stream) => return stream::follow(stream, target, outbox, &arrived, true).await,
            Err(reason) => reason,
        },
    };
    drop(outbox);
    let _ = arrived.send(Arrival::Unreachable(target, failed)).await;
    let _ = arrived.send(Arrival::Gone(target)).await;
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
        let trusted = Trusted::default();
        trusted.write().unwrap().insert("127.0.0.3".parse().unwrap());
        let tls = Tls::load(&crate::config::SipTls::default()).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let (mut transports, tasks) = Transports::bind(listen, (tls, None), trusted, arrived).await.unwrap();
        tasks.into_iter().for_each(|(_, task)| drop(tokio::spawn(task)));
        let local = transports.local(Transport::Tcp);
        tokio::spawn(async move {
            while let Some(arrival) = arrivals.recv().await {
                match arrival {
                    Arrival::Connected(peer, writer) => transports.connected(peer, writer),
                    Arrival::Gone(peer) => transports.gone(peer),
                    _ => {}
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
