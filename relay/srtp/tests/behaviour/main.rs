//! What the crate promises, through its public face: indices, egress guard, tampering, models, independent oracles.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod burst;
mod egress;
mod indices;
mod model;
mod oracle;
mod packets;
mod tamper;

#[test]
fn under_every_backend() {
    packets::in_other_backends("under_every_backend");
}
