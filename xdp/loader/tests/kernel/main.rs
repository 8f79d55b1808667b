//! The program in the running kernel: frame by frame in its test run, on cables, over restarts, and its layout.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by them")]

mod agreement;
mod cable;
mod cases;
mod frames;
mod lab;
mod layout;
mod program;
mod restart;
mod rewrite;
mod runner;
