//! The relay daemon: keeps the keys, owns the packet path, needs nobody for established calls.
//!
//! It joins the crates of `relay/` and `xdp/`: the translator ([`sallyport_core`]) on ports ([`sallyport_io`]) behind the
//! kernel program ([`sallyport_xdp`]), told what to do by control over a local socket ([`sallyport_plan`]).
//! One thread is the [`uplink`]; each [`worker`] owns one port and one translator and shares nothing.

#![forbid(unsafe_code)]

pub mod config;
pub mod daemon;
pub mod edge;
pub mod facts;
pub mod hairpin;
pub mod handoff;
pub mod link;
pub mod netdev;
pub mod netlink;
pub mod nexthop;
pub mod offload;
pub mod orders;
pub mod ports;
pub mod residence;
pub mod sessions;
pub mod sleeper;
pub mod tcp;
pub mod uplink;
pub mod worker;
