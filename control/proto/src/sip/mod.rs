//! SIP as plain data, and the calling side of a dialog (RFC 3261).

pub(crate) mod header;
mod message;

pub use message::{Method, Request, Response, TransactionId};
