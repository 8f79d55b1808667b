//! Stories, end to end: real peers in namespaces, the released programs between them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

mod agents;
mod bare;
mod calls;
mod control;
mod digits;
mod hairpin;
mod inside;
mod intruders;
mod jssip;
mod kamailio;
mod many;
mod ng;
mod options;
mod plain;
mod relay;
mod sockets;
mod stage;
mod web;
mod worlds;
