//! What the crate promises, through its public face: indices, egress guard, tampering, models, independent oracles.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod egress;
mod indices;
mod model;
mod oracle;
mod packets;
mod tamper;
