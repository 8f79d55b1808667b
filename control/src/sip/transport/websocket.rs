//! Browsers' connections (RFC 7118): each WebSocket message is one SIP message, and answers leave the way it came.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use super::{Arrival, FIRST, Target, WAITING, WRITE_PATIENCE};
use crate::config::Transport;
use crate::message::{ConnectionId, Visitor};

/// Connections that browsers may hold open at once, and those of one client: an address, of IPv6 a /64.
const CONNECTIONS: usize = 4096;
const CONNECTIONS_OF_CLIENT: usize = 256;
/// How often a browser is pinged (RFC 6455 section 5.5.2): more often than NATs and proxies forget.
const PING: Duration = Duration::from_secs(25);
/// A connection that says nothing, not even that a ping came, ends after this.
const SILENCE: Duration = Duration::from_secs(60);

/// Lets browsers in, so many at once.
#[derive(Debug, Clone)]
pub struct Gate {
    arrived: Sender<Arrival>,
    next: Arc<AtomicU64>,
    places: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection that was let in; its place is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    gate: Gate,
    id: ConnectionId,
    visitor: Visitor,
}

impl Gate {
    /// Nobody is in yet; what they say goes to `arrived`.
    pub fn new(arrived: Sender<Arrival>) -> Self {
        Self { arrived, next: Arc::default(), places: Arc::default() }
    }

    /// Lets one more connection of a client in; `None` where there are enough.
    pub fn enter(&self, visitor: Visitor) -> Option<Place> {
        let client = visitor.client;
        let mut places = self.places();
        let full = places.values().sum::<usize>() >= CONNECTIONS;
        let own = places.get(&client).copied().unwrap_or_default();
        if full || own >= CONNECTIONS_OF_CLIENT {
            return None;
        }
        places.insert(client, own + 1);
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        Some(Place { gate: self.clone(), id, visitor })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.gate.places();
        if let Some(own) = places.get_mut(&self.visitor.client) {
            *own -= 1;
            if *own == 0 {
                places.remove(&self.visitor.client);
            }
        }
    }
}

impl Place {
    /// Reads messages and writes answers until either side ends. `secure`: within TLS.
    pub async fn follow(self, mut socket: WebSocket, peer: SocketAddr, secure: bool) {
        let kind = if secure { Transport::Wss } else { Transport::Ws };
        let source = Target { address: peer, kind, connection: Some(self.id) };
        let (writer, mut outbox) = channel(WAITING);
        if self.gate.arrived.send(Arrival::Entered(source, writer, self.visitor.clone())).await.is_err() {
            return;
        }
        self.converse(&mut socket, source, &mut outbox).await;
        // Whoever looks up the connection now sees that it is closed.
        drop(outbox);
        let _ = tokio::time::timeout(WRITE_PATIENCE, socket.send(Message::Close(None))).await;
        let _ = self.gate.arrived.send(Arrival::Gone(source)).await;
    }

    async fn converse(&self, socket: &mut WebSocket, source: Target, outbox: &mut Receiver<Vec<u8>>) {
        let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
        let mut deadline = Instant::now() + FIRST;
        let mut spoken = false;
        loop {
            let goes_on = tokio::select! {
                octets = outbox.recv() => match octets {
                    Some(octets) => write(socket, carried(octets)).await,
                    None => false,
                },
                _ = ping.tick() => write(socket, Message::Ping(Vec::new().into())).await,
                () = tokio::time::sleep_until(deadline) => false,
                message = socket.recv() => match message {
                    Some(Ok(message)) => {
                        spoken |= matches!(message, Message::Text(_) | Message::Binary(_));
                        if spoken {
                            deadline = Instant::now() + SILENCE;
                        }
                        self.hear(socket, source, message).await
                    }
                    _ => false,
                },
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Takes one message; whether the connection goes on.
    async fn hear(&self, socket: &mut WebSocket, source: Target, message: Message) -> bool {
        let octets: Vec<u8> = match message {
            Message::Text(text) => text.as_bytes().to_vec(),
            Message::Binary(octets) => octets.to_vec(),
            Message::Ping(_) | Message::Pong(_) => return true,
            Message::Close(_) => return false,
        };
        if octets.iter().all(|octet| matches!(octet, b'\r' | b'\n')) {
            // RFC 5626 section 3.5.1: two line ends ask for one.
            return octets != b"\r\n\r\n" || write(socket, Message::Text("\r\n".into())).await;
        }
        self.gate.arrived.send(Arrival::Message { octets, source }).await.is_ok()
    }
}

/// Text where it is text: browsers' libraries read both, but some only log the one (RFC 7118 section 4.2).
fn carried(octets: Vec<u8>) -> Message {
    match String::from_utf8(octets) {
        Ok(text) => Message::Text(text.into()),
        Err(error) => Message::Binary(error.into_bytes().into()),
    }
}

/// Writes to a browser that is given some time to read; whether it did.
async fn write(socket: &mut WebSocket, message: Message) -> bool {
    matches!(tokio::time::timeout(WRITE_PATIENCE, socket.send(message)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_by_client_and_given_back() {
        let (arrived, _arrivals) = channel(1);
        let gate = Gate::new(arrived);
        let client = |number: u32| Visitor {
            client: std::net::Ipv4Addr::from_bits(number).into(),
            zone: sallyport_plan::Zone::Outside,
            token: None,
            password: String::new(),
        };
        let mut held: Vec<Place> =
            (0..CONNECTIONS_OF_CLIENT).map(|_| gate.enter(client(0)).expect("a place")).collect();
        assert!(gate.enter(client(0)).is_none(), "one client has enough");
        let others = CONNECTIONS - CONNECTIONS_OF_CLIENT;
        held.extend((0..others).map(|at| gate.enter(client(1 + at as u32)).expect("a place")));
        assert!(gate.enter(client(9999)).is_none(), "all are taken");
        let ids: std::collections::HashSet<_> = held.iter().map(|place| place.id).collect();
        assert_eq!(ids.len(), held.len(), "no number is given twice");
        held.clear();
        assert!(gate.places().is_empty());
        assert!(gate.enter(client(0)).is_some());
    }
}
