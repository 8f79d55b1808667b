//! SRTP and SRTCP, in place (RFC 3711, RFC 6188, RFC 7714).
//!
//! An [`Opener`] takes what a peer sealed under one master key, a [`Sealer`] seals what a peer will open. Both derive
//! their session keys up front and keep the state of up to [`SOURCES`] synchronization sources inline: after `new`
//! nothing is allocated but by `checkpoint`. [`open_burst`] and [`seal_burst`] take packets of many of them at once.
//!
//! Contract: an opener's state moves only behind a verified tag, and no packet is opened twice; a sealer never seals two
//! payloads under one index. What the crate is not: it knows no key exchange, no address and no clock; no MKI, no key
//! derivation rate, no header encryption.
//!
//! The crypto is in [`suites`]: the best backend that the processor has, if it passes its test on first use; a daemon asks
//! [`suites::selected`] at its start and raises an alarm where `failed` is set.
//!
//! Keys are wiped on drop: session keys in whatever form, HMAC states, salts, and all that key derivation leaves. Copies
//! that the compiler makes on the stack are out of reach. [`Opener`] and [`Sealer`] have no `Debug`.

#![deny(unsafe_code)]

mod burst;
mod index;
mod kdf;
mod opener;
mod replay;
mod rtcp;
mod rtp;
mod sealer;
mod sources;
#[allow(unsafe_code, reason = "SIMD; the one place for it")]
pub mod suites;

pub use burst::{Kind, OpenJob, Openers, SealJob, Sealers, open_burst, seal_burst};
pub use index::INDEX_MAX;
pub use opener::{OpenError, Opened, OpenedSource, Opener, OpenerState};
pub use replay::{WINDOW, Window};
pub use rtcp::RTCP_INDEX_MAX;
pub use sealer::{SealError, SealedSource, Sealer, SealerState};
pub use sources::SOURCES;
pub use suites::prefetch;

/// The master key does not fit its profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyError;

/// Octets that sealing adds to an RTP packet at the most.
pub const RTP_OVERHEAD: usize = 16;
/// Octets that sealing adds to an RTCP compound at the most.
pub const RTCP_OVERHEAD: usize = 20;
