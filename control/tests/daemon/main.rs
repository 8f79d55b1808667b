//! The daemon as a process, between a relay, a SIP server and browsers that the tests play themselves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

mod browser;
mod calls;
mod harness;
mod http;
mod kamailio;
mod lifecycle;
mod limits;
mod ng;
mod ng_broken;
mod ng_told;
mod outage;
mod pbx;
mod peers;
mod relay;
mod sip;
mod torture;
mod websocket;
