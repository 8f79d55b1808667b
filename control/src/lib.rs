//! The control plane daemon: everything that parses what strangers send on HTTP, SIP, ICE and DTLS. No capabilities.
//!
//! One task owns all calls ([`calls`]); HTTP ([`http`]), SIP ([`sip`]) and the relay ([`downlink`]) talk to it by
//! [`message`]s. The calls themselves are state machines of `sallyport-proto`.

#![deny(unsafe_code)]

pub mod calls;
pub mod config;
pub mod daemon;
pub mod downlink;
#[allow(unsafe_code)]
pub mod dtls;
pub mod gateway;
pub mod http;
pub mod identity;
pub mod message;
pub mod metrics;
pub mod ng;
mod places;
pub mod quality;
pub mod random;
pub mod sip;
pub mod stun;
