//! Bytes to headers and back.

#![no_std]
#![forbid(unsafe_code)]

mod buf;

pub use buf::{PacketBuf, Short};
