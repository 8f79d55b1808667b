//! SIP as plain data, and the calling side of a dialog (RFC 3261).

mod dialog;
mod digest;
pub mod header;
mod message;

pub use dialog::{ALLOW, Dialog, SUPPORTED};
pub(crate) use digest::fields;
pub use digest::{Account, Attempts, Challenge, Credentials};
pub use message::{Method, Request, Response, TransactionId};
