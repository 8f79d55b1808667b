//! Calls as state machines, sans-IO.
//!
//! A [`Call`] joins a browser's leg (offer/answer over HTTP, ICE, DTLS-SRTP) to a SIP leg inside. It opens no socket,
//! reads no clock and draws no random number: what happens comes in as [`Input`] with the time, what is to be done
//! comes out as [`Command`], and every secret is derived from the [`Seed`] it began with.
//!
//! ```text
//! loop {
//!     call.handle(now, input) or call.handle_timeout(now);
//!     while let Some(command) = call.poll_command() { .. }
//!     wait for the next input, or until call.poll_timeout();
//! }
//! ```

#![forbid(unsafe_code)]

mod api;
mod call;
mod error;
pub mod gateway;
pub mod ng;
pub mod quality;
mod random;
mod registration;
mod relayed;
pub mod sdp;
mod settings;
pub mod sip;
mod sources;

pub use api::{
    CallEvent, CallFailure, CallState, CallView, Command, DtlsRole, DtlsStart, EndCause, Input, Party,
    Placing, Recorded, Replaces, StepState, Transfer,
};
pub use call::{Call, Wanted, wanted};
pub use error::{AcceptError, FragmentError, OfferError, RestoreError};
pub use random::Seed;
pub use registration::{Registration, RegistrationCommand, RegistrationSettings, RegistrationState};
pub use settings::{
    Assertion, CandidateKind, Dtmf, LocalCandidate, Policy, RecordingSettings, Settings, SipSettings, Srtp,
    Timeouts,
};
