//! rtpengine's NG protocol: listeners, and the answers to what Kamailio or OpenSIPS asks. Calls are begun and ended by the
//! owner of all calls ([`crate::calls`]), as those of REST are.

mod ask;
mod listen;
mod report;
mod section;
mod service;

pub use ask::{Ask, Described};
pub use listen::{Listeners, bind};
pub use section::{Address, Network, Section};
pub use service::Service;
