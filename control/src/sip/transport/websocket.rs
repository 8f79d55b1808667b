//! Browsers' connections (RFC 7118): each WebSocket message is one SIP message, and answers leave the way it came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use super::{Arrival, FIRST, Target, WAITING, WRITE_PATIENCE};
use crate::config::Transport;
use crate::message::{ConnectionId, Visitor};
use crate::places::{self, Places};

/// How often a browser is pinged (RFC 6455 section 5.5.2): more often than NATs and proxies forget.
const PING: Duration = Duration::from_secs(25);
/// A connection that says nothing, not even that a ping came, ends after this.
const SILENCE: Duration = Duration::from_secs(60);

/// Lets browsers in, so many at once.
#[derive(Debug, Clone)]
pub struct Gate {
    arrived: Sender<Arrival>,
    next: Arc<AtomicU64>,
    places: Places,
}

/// A connection that was let in; its place is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    arrived: Sender<Arrival>,
    id: ConnectionId,
    visitor: Visitor,
    _place: places::Place,
}

impl Gate {
    /// Nobody is in yet; what they say goes to `arrived`.
    pub fn new(arrived: Sender<Arrival>) -> Self {
        Self { arrived, next: Arc::default(), places: Places::default() }
    }

    /// Lets one more connection of a client in; `None` where there are enough.
    pub fn enter(&self, visitor: Visitor) -> Option<Place> {
        let place = self.places.enter(visitor.client)?;
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        Some(Place { arrived: self.arrived.clone(), id, visitor, _place: place })
    }
}

impl Place {
    /// Reads messages and writes answers until either side ends. `secure`: within TLS.
    pub async fn follow(self, mut socket: WebSocket, peer: SocketAddr, secure: bool) {
        let kind = if secure { Transport::Wss } else { Transport::Ws };
        let source = Target { address: peer, kind, connection: Some(self.id) };
        let (writer, mut outbox) = channel(WAITING);
        if self.arrived.send(Arrival::Entered(source, writer, self.visitor.clone())).await.is_err() {
            return;
        }
        self.converse(&mut socket, source, &mut outbox).await;
        // Whoever looks up the connection now sees that it is closed.
        drop(outbox);
        let _ = tokio::time::timeout(WRITE_PATIENCE, socket.send(Message::Close(None))).await;
        let _ = self.arrived.send(Arrival::Gone(source)).await;
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
        self.arrived.send(Arrival::Message { octets, source }).await.is_ok()
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
    fn a_client_has_its_places_and_no_number_is_given_twice() {
        let (arrived, _arrivals) = channel(1);
        let gate = Gate::new(arrived);
        let visitor = || Visitor {
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            zone: sallyport_plan::Zone::Outside,
            token: None,
            password: String::new(),
        };
        let mut held: Vec<Place> =
            (0..places::OF_CLIENT).map(|_| gate.enter(visitor()).expect("a place")).collect();
        assert!(gate.enter(visitor()).is_none(), "the client has enough");
        let ids: std::collections::HashSet<_> = held.iter().map(|place| place.id).collect();
        assert_eq!(ids.len(), held.len());
        held.pop();
        assert!(gate.enter(visitor()).is_some_and(|place| !ids.contains(&place.id)));
    }
}
