//! Network namespaces and real peers.
#![forbid(unsafe_code)]
pub mod tone;
pub mod wav;
