//! The daemon as a process, between a relay, a SIP server and browsers that the tests play themselves.

mod browser;
mod calls;
mod harness;
mod http;
mod lifecycle;
mod pbx;
mod relay;
mod sip;
