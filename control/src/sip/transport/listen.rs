//! Who speaks to us: datagrams and connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};

use super::tls::Tls;
use super::{Arrival, BREATH, CONNECTIONS, PAUSE, Target, Trusted, WAITING, stream};
use crate::config::Transport;
use crate::sip::guard::MESSAGE_MAX;

/// Reads datagrams, and what the network says of those that we sent.
pub async fn receive(udp: Arc<UdpSocket>, arrived: Sender<Arrival>) {
    let mut room = vec![0; MESSAGE_MAX + 1];
    loop {
        let Ok((n, address)) = udp.recv_from(&mut room).await else {
            // Of a datagram that could not be delivered: the socket goes on.
            for peer in undelivered(&udp) {
                let target = Target::new(peer, Transport::Udp);
                let _ =
                    arrived.try_send(Arrival::Unreachable(target, "no one listens there (ICMP)".to_owned()));
            }
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

/// Has the system tell which datagrams could not be delivered. Without it a dead peer is found by its silence.
pub fn hear_errors(udp: &UdpSocket) {
    let outcome = match udp.local_addr() {
        Ok(SocketAddr::V4(_)) => setsockopt(udp, sockopt::Ipv4RecvErr, &true),
        Ok(SocketAddr::V6(_)) => setsockopt(udp, sockopt::Ipv6RecvErr, &true),
        Err(_) => Ok(()),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "undelivered datagrams are not told");
    }
}

/// Where datagrams that could not be delivered were to go (ip(7): the error queue).
fn undelivered(udp: &UdpSocket) -> Vec<SocketAddr> {
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let mut found = Vec::new();
    let mut piece = [0; 64];
    let mut space = nix::cmsg_space!(nix::libc::sock_extended_err, nix::libc::sockaddr_in6);
    for _ in 0..64 {
        let mut room = [io::IoSliceMut::new(&mut piece)];
        let Ok(told) = recvmsg::<SockaddrStorage>(udp.as_raw_fd(), &mut room, Some(&mut space), flags) else {
            break;
        };
        let Some(to) = told.address else { continue };
        let v4 = to.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        found.extend(v4.or_else(|| to.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))));
    }
    found
}

/// Takes connections, those of strangers up to a number.
pub async fn accept(tcp: TcpListener, tls: Option<Tls>, trusted: Trusted, arrived: Sender<Arrival>) {
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
        let known = trusted.read().is_ok_and(|trusted| trusted.contains(&peer.ip()));
        if place.is_none() && !known {
            continue;
        }
        let (arrived, tls) = (arrived.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, Target::new(peer, Transport::Tcp), &arrived).await,
                Some(tls) => {
                    if let Some(stream) = tls.accept(stream).await {
                        serve(stream, Target::new(peer, Transport::Tls), &arrived).await;
                    }
                }
            }
            drop(place);
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, peer: Target, arrived: &Sender<Arrival>) {
    let (writer, outbox) = channel(WAITING);
    if arrived.send(Arrival::Connected(peer, writer)).await.is_ok() {
        stream::follow(stream, peer, outbox, arrived, false).await;
    }
}
