//! SIP over UDP, TCP, TLS and WebSocket: messages in and out, transactions (RFC 3261 sections 17 and 18). What they mean is the calls'.
//!
//! Every message passes the [`guard`] before a parser sees it. The transactions are ours: they carry typed requests of
//! calls under the calls' own numbers, which rsipstack's endpoint, that owns its transports and tasks, does not offer;
//! its parser reads the messages.

mod client;
mod codec;
pub mod framing;
pub mod guard;
mod head;
mod outside;
mod peers;
mod resolve;
mod server;
mod stack;
mod syntax;
mod timers;
mod transport;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use sallyport_plan::CallId;
use sallyport_proto::sip::{Request, Response, TransactionId};
use tokio::sync::mpsc::{UnboundedSender, channel, unbounded_channel};
use tokio::sync::watch;

use crate::config::{Config, Transport};
use crate::message::{ConnectionId, Handle};
use crate::ng::Network;
pub use guard::{AGENT, MESSAGE_MAX};
pub use peers::PeerState;
use peers::Peers;
pub use stack::View;
use stack::{Rules, Stack, Todo};
use transport::tls::Tls;
pub use transport::websocket::{Gate, Place};
use transport::{Transports, Trusted};

/// Asks the SIP task to send.
#[derive(Debug, Clone)]
pub struct Sender {
    todo: UnboundedSender<Todo>,
    local: SocketAddr,
    tls_local: SocketAddr,
    view: watch::Receiver<View>,
}

/// A task that lives as long as the process, with its name.
pub type Task = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

/// SIP as it was bound: whom to ask, and the tasks that serve it.
pub struct Bound {
    /// Asks the task to send.
    pub sender: Sender,
    /// Lets browsers' WebSocket connections in.
    pub gate: Gate,
    /// To be run.
    pub tasks: Vec<Task>,
}

/// Listens on `listen` by UDP and TCP, and by TLS where that is configured.
///
/// # Errors
/// What the system says of an address, or what is wrong with a file.
pub async fn bind(config: &Config, listen: SocketAddr, calls: Handle) -> anyhow::Result<Bound> {
    let sip = &config.sip;
    let (arrived, arrivals) = channel(transport::ARRIVALS);
    let trusted = Trusted::default();
    let tls = Tls::load(&sip.tls)?;
    let (transports, mut tasks) =
        Transports::bind(listen, (tls, sip.tls.listen), trusted.clone(), arrived.clone()).await?;
    let (local, tls_local) = (transports.local(Transport::Udp), transports.local(Transport::Tls));
    let servers = sip.servers().map_err(anyhow::Error::msg)?;
    let mut accept = sip.accepted().map_err(anyhow::Error::msg)?;
    // Recorders leave and move like anybody else.
    accept.extend(config.recording.address().map(Network::from));
    let interval = (sip.probe_s > 0).then(|| Duration::from_secs(sip.probe_s.into()));
    let peers = Peers::new(&servers, sip.transport(), interval, Instant::now());
    for (index, server) in servers.into_iter().enumerate().filter(|(_, server)| server.name.is_some()) {
        let lookup = resolve::Lookup::new(sip.dns, local.ip())?;
        tasks.push((
            "the lookup of a SIP server",
            Box::pin(lookup.follow(index, server, sip.transport, arrived.clone())),
        ));
    }
    let (todo, work) = unbounded_channel();
    let (viewed, view) = watch::channel(View::default());
    let stack = Stack::new(transports, Rules { peers, accept, trusted }, calls, viewed);
    // Of their own, so that however much browsers say telephony is heard.
    let (entered, browsers) = channel(transport::ARRIVALS);
    tasks.push(("SIP", Box::pin(stack.run(work, arrivals, browsers))));
    Ok(Bound { sender: Sender { todo, local, tls_local, view }, gate: Gate::new(entered), tasks })
}

impl Sender {
    /// Where SIP is heard.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Where SIP is heard by a transport.
    pub fn local_by(&self, kind: Transport) -> SocketAddr {
        if kind == Transport::Tls { self.tls_local } else { self.local }
    }

    /// Where the next call will go, as far as anybody can tell: the first peer that lives, else the first.
    pub fn toward(&self) -> Option<SocketAddr> {
        let view = self.view.borrow();
        let usable = view.peers.iter().find(|peer| peer.alive != Some(false));
        usable.or(view.peers.first()).map(|peer| peer.address)
    }

    /// What is known of our peers, and what was refused.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    fn tell(&self, todo: Todo) {
        // The task ends with the process only.
        let _ = self.todo.send(todo);
    }

    /// Sends a request in a transaction of its own; what comes of it is told to the owner of the calls.
    pub fn request(&self, call: CallId, transaction: TransactionId, request: Request) {
        self.tell(Todo::Request { call, transaction, request, over: None });
    }

    /// As [`Self::request`], to the browser at the other end of a connection, whatever the URIs say.
    pub fn request_over(
        &self,
        connection: ConnectionId,
        call: CallId,
        transaction: TransactionId,
        request: Request,
    ) {
        self.tell(Todo::Request { call, transaction, request, over: Some(connection) });
    }

    /// Cancels an INVITE, whichever way that went.
    pub fn cancel(&self, call: CallId, invite: TransactionId, request: Request) {
        self.tell(Todo::Cancel { call, invite, request });
    }

    /// Sends an ACK to a 2xx.
    pub fn ack(&self, request: Request) {
        self.tell(Todo::Ack { request, over: None });
    }

    /// As [`Self::ack`], to the browser at the other end of a connection.
    pub fn ack_over(&self, connection: ConnectionId, request: Request) {
        self.tell(Todo::Ack { request, over: Some(connection) });
    }

    /// Answers a request, the way that it came.
    pub fn reply(&self, transaction: TransactionId, response: Response) {
        self.tell(Todo::Reply { transaction, response });
    }
}

/// Whether a To or From has a tag outside of its brackets.
fn has_tag(value: &str) -> bool {
    codec::parameter(value, "tag").is_some()
}
