//! The daemon as a process, between a relay, a SIP server and browsers that the tests play themselves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

mod agents;
mod browser;
mod calls;
mod client;
mod expiry;
mod gateway;
mod hanging;
mod harness;
mod http;
mod kamailio;
mod lifecycle;
mod limits;
mod middle;
mod ng;
mod ng_broken;
mod ng_told;
mod ng_video;
mod outage;
mod pbx;
mod peers;
mod recording;
mod registrar;
mod relay;
mod sdes;
mod session;
mod sip;
mod socket;
mod socket_calls;
mod starting_over;
mod torture;
mod websocket;
