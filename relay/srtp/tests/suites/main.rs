//! Every backend against the portable one and against the RFCs, packet by packet and in bursts.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod bursts;
mod differential;
mod guarded;
mod support;
mod tampered;
mod wycheproof;
