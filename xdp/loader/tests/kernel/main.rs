//! The program in the running kernel: frame by frame in its test run, on cables, over restarts, and its layout.

mod cases;
mod frames;
mod lab;
mod program;
mod runner;
