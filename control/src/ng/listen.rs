//! Sockets of the NG protocol: UDP, TCP, datagrams of this machine.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use sallyport_proto::ng::frame::{self, Streamed};
use sallyport_proto::ng::{DecodeError, Frame, Replies, Seen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram};
use tokio::sync::Semaphore;

use super::section::{Address, Network, Section};
use super::service::Service;
use crate::message::Handle;

/// Requests that are answered at once; more are not taken, their clients ask again.
const AT_ONCE: usize = 1024;
/// Octets that UDP can carry, over either version of IP.
const REPLY_MAX: usize = 65_487;
/// Connections at once.
const CONNECTIONS: usize = 64;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(3600);

/// Who asked, and by which cookie.
type Key = (String, Vec<u8>);

/// What all listeners share.
struct Shared {
    service: Service,
    peers: Vec<Network>,
    replies: Mutex<Replies<Key>>,
    room: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// One listener at work.
pub type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Bound sockets, not yet served.
pub struct Listeners {
    shared: Arc<Shared>,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    unix: Vec<UnixDatagram>,
}

/// Binds all addresses of `[ng]`; there may be none.
///
/// # Errors
/// What the system says of an address.
pub async fn bind(section: &Section, calls: Handle) -> anyhow::Result<Listeners> {
    let shared = Shared {
        service: Service::new(section, calls),
        peers: section.networks().map_err(anyhow::Error::msg)?,
        replies: Mutex::default(),
        room: Arc::new(Semaphore::new(AT_ONCE)),
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
    };
    let mut listeners =
        Listeners { shared: Arc::new(shared), udp: Vec::new(), tcp: Vec::new(), unix: Vec::new() };
    for address in section.addresses().map_err(anyhow::Error::msg)? {
        let named = || format!("{address}");
        match &address {
            Address::Udp(at) => listeners.udp.push(UdpSocket::bind(at).await.with_context(named)?),
            Address::Tcp(at) => listeners.tcp.push(TcpListener::bind(at).await.with_context(named)?),
            Address::Unix(path) => listeners.unix.push(local(path).with_context(named)?),
        }
    }
    Ok(listeners)
}

/// A socket of a control before us is in the way; any other file stays.
fn local(path: &Path) -> std::io::Result<UnixDatagram> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(socket)
}

impl Listeners {
    /// What serves as long as the process lives.
    pub fn tasks(self) -> Vec<(&'static str, Task)> {
        let mut tasks: Vec<(&'static str, Task)> = Vec::new();
        for socket in self.udp {
            tasks.push(("NG by UDP", Box::pin(datagrams(Arc::new(socket), self.shared.clone()))));
        }
        for listener in self.tcp {
            tasks.push(("NG by TCP", Box::pin(accept(listener, self.shared.clone()))));
        }
        for socket in self.unix {
            tasks.push((
                "NG by a local socket",
                Box::pin(local_datagrams(Arc::new(socket), self.shared.clone())),
            ));
        }
        tasks
    }
}

impl Shared {
    /// Loopback is this machine; where that is not enough, sockets have modes.
    fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if self.peers.is_empty() { ip.is_loopback() } else { self.peers.iter().any(|peer| peer.contains(ip)) }
    }

    /// What is to be sent for a frame; `None` while its first coming is under way.
    async fn reply(&self, from: String, proxy: &str, frame: &Frame) -> Option<Vec<u8>> {
        let key = (from, frame.cookie.clone());
        let seen =
            self.replies.lock().unwrap_or_else(PoisonError::into_inner).ask(key.clone(), Instant::now());
        match seen {
            Seen::UnderWay => None,
            Seen::Answered(reply) => Some(reply),
            Seen::First => {
                let value = self.service.serve(proxy, frame).await;
                let reply = frame::emit(&frame.cookie, frame.form, &value);
                self.replies.lock().unwrap_or_else(PoisonError::into_inner).answer(&key, &reply);
                Some(reply)
            }
        }
    }
}

async fn datagrams(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut room = vec![0; frame::DATAGRAM_MAX + 1];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut room).await else {
            // An ICMP error of a client that has gone.
            continue;
        };
        if !shared.admits(from.ip()) {
            tracing::debug!(%from, "NG request of a stranger");
            continue;
        }
        let Some(frame) = frame::datagram(room.get(..length).unwrap_or_default()) else { continue };
        let Ok(permit) = shared.room.clone().try_acquire_owned() else { continue };
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            if let Some(mut reply) = shared.reply(from.to_string(), &from.ip().to_string(), &frame).await {
                if reply.len() > REPLY_MAX {
                    reply = frame::emit(&frame.cookie, frame.form, &Service::broken(DecodeError::TooLong));
                }
                if let Err(error) = socket.send_to(&reply, from).await {
                    tracing::debug!(%error, octets = reply.len(), "NG reply not sent");
                }
            }
            drop(permit);
        });
    }
}

async fn local_datagrams(socket: Arc<UnixDatagram>, shared: Arc<Shared>) {
    let mut room = vec![0; frame::DATAGRAM_MAX + 1];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut room).await else { continue };
        // A client without a name cannot be answered.
        let Some(path) = from.as_pathname().map(Path::to_path_buf) else { continue };
        let Some(frame) = frame::datagram(room.get(..length).unwrap_or_default()) else { continue };
        let Ok(permit) = shared.room.clone().try_acquire_owned() else { continue };
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            let name = path.display().to_string();
            if let Some(reply) = shared.reply(name.clone(), &name, &frame).await {
                let _ = socket.send_to(&reply, &path).await;
            }
            drop(permit);
        });
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // No descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if !shared.admits(from.ip()) {
            tracing::debug!(%from, "NG connection of a stranger");
            continue;
        }
        let Ok(permit) = shared.connections.clone().try_acquire_owned() else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Err(error) = follow(stream, from, &shared).await {
                tracing::debug!(%from, %error, "NG connection ended");
            }
            drop(permit);
        });
    }
}

/// Message after message, each answered before the next is read.
async fn follow(mut stream: TcpStream, from: SocketAddr, shared: &Shared) -> anyhow::Result<()> {
    let mut pending: Vec<u8> = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let n = tokio::time::timeout(IDLE, stream.read(&mut piece)).await??;
        if n == 0 {
            return Ok(());
        }
        pending.extend_from_slice(piece.get(..n).unwrap_or_default());
        loop {
            let (frame, used) = match frame::stream(&pending) {
                Streamed::Message(frame, used) => (frame, used),
                Streamed::Part => break,
                Streamed::Broken(error, frame) => {
                    if let Some(frame) = frame {
                        let reply = frame::emit(&frame.cookie, frame.form, &Service::broken(error));
                        stream.write_all(&reply).await?;
                    }
                    return Err(error.into());
                }
            };
            pending.drain(..used);
            // A client that connected anew may ask again: the connection's port does not count.
            let proxy = from.ip().to_string();
            if let Some(reply) = shared.reply(proxy.clone(), &proxy, &frame).await {
                stream.write_all(&reply).await?;
            }
        }
    }
}
