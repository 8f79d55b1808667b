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
mod client;
mod codecs;
mod control;
mod digits;
mod failover;
mod forks;
mod hairpin;
mod inside;
mod intruders;
mod jssip;
mod judges;
mod kamailio;
mod linphone;
mod long;
mod losses;
mod many;
mod ng;
mod options;
mod pbx;
mod pictures;
mod plain;
mod recording;
mod rekeying;
mod relay;
mod renewal;
mod reports;
mod sockets;
mod sources;
mod stage;
mod tcp;
mod telephone;
mod video;
mod web;
mod worlds;
