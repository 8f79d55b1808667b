//! Loads, attaches, pins and reads the kernel program of `xdp/bpf`.
//!
//! [`Kernel`] is the relay's: it owns the program and writes the maps. [`Inspector`] is everybody's who may open the pins:
//! it reads, and needs no relay. Maps and links are pinned in a bpffs of our own, so that packets go on meeting the program
//! while the relay is restarted.

#![forbid(unsafe_code)]

mod inspector;
mod kernel;
mod pins;

pub use inspector::{InspectError, Inspector};
pub use kernel::{Attachment, Kernel, LoadError, MapError, Options};

/// The kernel program as clang built it.
pub static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sallyport.bpf.o"));

/// Its name in the object.
pub const PROGRAM_NAME: &str = "sallyport";
