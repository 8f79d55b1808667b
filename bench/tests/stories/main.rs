//! Stories, end to end: real peers in namespaces, the released programs between them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

mod calls;
mod control;
mod intruders;
mod jssip;
mod kamailio;
mod many;
mod ng;
mod plain;
mod relay;
mod sockets;
mod stage;
mod worlds;
