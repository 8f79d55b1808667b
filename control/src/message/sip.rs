//! What SIP tells the owner of the calls.

use std::net::IpAddr;

use sallyport_plan::{CallId, Zone};
use sallyport_proto::sip::{Request, Response, TransactionId};

/// Numbers a browser's WebSocket connection; no number is given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Who opened a WebSocket connection, as far as its request tells.
#[derive(Clone)]
pub struct Visitor {
    /// As one client is counted.
    pub client: IpAddr,
    /// At which interface.
    pub zone: Zone,
    /// A bearer token.
    pub token: Option<String>,
    /// A number's password of digest authentication; may be empty.
    pub password: String,
}

impl std::fmt::Debug for Visitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visitor").field("zone", &self.zone).finish_non_exhaustive()
    }
}

/// Which way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From telephony: by UDP, TCP or TLS.
    Sip,
    /// From a browser, over its WebSocket connection (RFC 7118).
    WebSocket(ConnectionId),
}

/// What SIP reports.
#[derive(Debug)]
pub enum SipEvent {
    /// A response to a request of ours.
    Response {
        /// Whose.
        call: CallId,
        /// Of which request.
        transaction: TransactionId,
        /// The response.
        response: Response,
    },
    /// No answer in time.
    Timeout {
        /// Whose.
        call: CallId,
        /// Of which request.
        transaction: TransactionId,
    },
    /// The request could not be sent.
    TransportError {
        /// Whose.
        call: CallId,
        /// Of which request.
        transaction: TransactionId,
    },
    /// An INVITE, not finally answered yet, was cancelled: it is to be answered 487. The CANCEL has its answer.
    Cancelled {
        /// Our number for the INVITE.
        transaction: TransactionId,
        /// Its Call-ID.
        call_id: String,
    },
    /// A request within a dialog, an INVITE of the inside, or an ACK to a 2xx.
    Request {
        /// Which way it came.
        source: Source,
        /// Our number for it.
        transaction: TransactionId,
        /// The request.
        request: Request,
    },
    /// A browser opened a WebSocket connection.
    Opened {
        /// Which.
        connection: ConnectionId,
        /// Whose.
        visitor: Visitor,
    },
    /// A request without a tag in To that came over WebSocket. CANCEL is none of these: see [`SipEvent::Cancelled`].
    Gateway {
        /// Over which connection.
        connection: ConnectionId,
        /// Our number for it.
        transaction: TransactionId,
        /// The request.
        request: Request,
    },
    /// A SIP server died that had answered before, or one came back: what it holds of our numbers is uncertain.
    PeersChanged,
    /// A WebSocket connection is gone. What was under way over it has been told before.
    Gone {
        /// Which.
        connection: ConnectionId,
    },
}
