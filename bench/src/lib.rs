//! The latency harness, `bench try`, and what the stories need.

#![forbid(unsafe_code)]

pub mod judge;
pub mod labs;
pub mod load;
pub mod ng;
pub mod pair;
pub mod path;
pub mod scene;
pub mod setup;
pub mod trial;
