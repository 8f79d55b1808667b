//! Network namespaces and real peers: a browser behind a NAT, a STUN server, an appliance behind a 1:1 NAT, a SIP agent.
//!
//! A [`Lab`] is the network; [`browser`], [`caller`], [`agent`] and [`appliance`] start in it; [`capture`] listens on its cables and
//! [`tone`] to what was heard. Needs root. Everything a lab starts ends with it.

#![forbid(unsafe_code)]

pub mod agent;
pub mod aiortc;
pub mod appliance;
pub mod browser;
pub mod caller;
pub mod capture;
pub mod film;
pub mod http;
pub mod linphone;
mod namespace;
pub mod net;
pub mod ng;
pub mod pcap;
pub mod phone;
mod process;
pub mod registrar;
pub mod secret;
pub mod sipp;
pub mod softphone;
pub mod speaker;
mod state;
pub mod stun;
pub mod tone;
pub mod trouble;
pub mod visitor;
pub mod wav;

pub use namespace::Namespace;
pub use net::{Lab, Options, Place};
pub use process::{Process, Program};
pub use state::{FOLDER, Standing, remove, standing, sweep};

/// Whether a program can be found by its name.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|folder| folder.join(program).is_file())
}
