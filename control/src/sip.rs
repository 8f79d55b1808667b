//! SIP over UDP, TCP and WebSocket: messages in and out, transactions (RFC 3261 sections 17 and 18). What they mean is the calls'.
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
mod server;
mod stack;
mod transport;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use sallyport_plan::CallId;
use sallyport_proto::sip::{Request, Response, TransactionId};
use tokio::sync::mpsc::{UnboundedSender, channel, unbounded_channel};

use crate::config::Config;
use crate::message::{ConnectionId, Handle};
pub use guard::{AGENT, MESSAGE_MAX};
use stack::{Stack, Todo};
pub use transport::websocket::{Gate, Place};

/// Asks the SIP task to send.
#[derive(Debug, Clone)]
pub struct Sender {
    todo: UnboundedSender<Todo>,
    local: SocketAddr,
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

/// Listens on `listen` by UDP and TCP.
///
/// # Errors
/// What the system says of the address.
pub async fn bind(config: &Config, listen: SocketAddr, calls: Handle) -> anyhow::Result<Bound> {
    let (arrived, arrivals) = channel(transport::ARRIVALS);
    let (transports, mut tasks) =
        transport::Transports::bind(listen, config.sip.server.map(|server| server.ip()), arrived).await?;
    let local = transports.local();
    let (todo, work) = unbounded_channel();
    let server = config.sip.server.map(|address| transport::Target::new(address, config.sip.transport));
    let stack = Stack::new(transports, server, calls);
    // Of their own, so that however much browsers say telephony is heard.
    let (entered, browsers) = channel(transport::ARRIVALS);
    tasks.push(("SIP", Box::pin(stack.run(work, arrivals, browsers))));
    Ok(Bound { sender: Sender { todo, local }, gate: Gate::new(entered), tasks })
}

impl Sender {
    /// Where SIP is heard.
    pub fn local(&self) -> SocketAddr {
        self.local
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
