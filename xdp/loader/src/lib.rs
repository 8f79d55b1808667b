//! Loads, attaches, pins and reads the kernel program of `xdp/bpf`.
//!
//! [`Kernel`] is the relay's: it owns the program and writes the maps. [`Inspector`] is for anybody who may open the pins:
//! it reads, and needs no relay. Maps and links are pinned in a bpffs of our own, so that packets go on meeting the program
//! while the relay is restarted.
//!
//! A restart, in order: [`Kernel::load`] adopts the pinned maps; [`Kernel::attach`] puts the new program into the pinned
//! links, without a gap; [`Kernel::set_media`] and [`Kernel::register`] write what is ours now;
//! [`Kernel::forget_former`] takes away what a former relay served and this one does not.
//!
//! The pins live in the mount namespace of the process that mounts them: `ip netns exec` makes a new one and loses them at
//! its end, `nsenter --net` does not.

#![forbid(unsafe_code)]

use std::path::Path;

mod attach;
mod error;
mod inspector;
mod kernel;
mod maps;
mod pins;
mod rewrite;

pub use attach::Attachment;
pub use error::{InspectError, LoadError, MapError};
pub use inspector::{Inspector, Interface, Media};
pub use kernel::{Kernel, Options};
pub use rewrite::Rewrite;

/// Takes down what a relay left at work under `pins`: program, maps and flows end. A folder that is not there is no error.
///
/// # Errors
/// [`LoadError::Pins`].
pub fn clear(pins: &Path) -> Result<(), LoadError> {
    if !pins.is_dir() {
        return Ok(());
    }
    let pins = pins::Pins::open(pins);
    pins.remove_links(|_, _| true)?;
    pins.remove_maps()
}

/// The kernel program as clang built it.
pub static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sallyport.bpf.o"));

/// Its name in the object.
pub const PROGRAM_NAME: &str = "sallyport";
