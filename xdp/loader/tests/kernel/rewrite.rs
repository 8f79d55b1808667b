//! Plain media between plain peers: frames through the kernel's own test run, octet by octet, beside the translator's, and on
//! cables.

mod agreement;
mod cable;
mod golden;
mod world;
