//! The program in the running kernel: frame by frame in its test run, on cables, over restarts, and its layout.

mod agreement;
mod cable;
mod cases;
mod frames;
mod lab;
mod layout;
mod program;
mod restart;
mod runner;
