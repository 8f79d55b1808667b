//! SRTP and SRTCP, in place (RFC 3711, RFC 7714).
//!
//! An [`Opener`] takes what a peer sealed under one master key, a [`Sealer`] seals what a peer will open. Both keep the
//! state of up to [`SOURCES`] synchronization sources inline; after `new` nothing is allocated.
//!
//! Contract: an opener's state moves only behind a verified tag; a sealer never seals two payloads under one index.
//! What it is not: it knows no key exchange, no address and no clock.
//!
//! Session keys are wiped on drop where the libraries can: the AES and HMAC states are; ring's GCM keys are not, and are
//! overwritten when the memory is used again.

#![forbid(unsafe_code)]

mod index;
mod kdf;
mod opener;
mod replay;
mod sealer;
mod sources;
mod suites;

pub use opener::{OpenError, Opened, OpenedSource, Opener, OpenerState};
pub use replay::Window;
pub use sealer::{SealError, SealedSource, Sealer, SealerState};
pub use sources::SOURCES;

/// The master key does not fit its profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyError;

/// Octets that sealing adds to an RTP packet at the most.
pub const RTP_OVERHEAD: usize = 16;
/// Octets that sealing adds to an RTCP compound at the most.
pub const RTCP_OVERHEAD: usize = 20;
