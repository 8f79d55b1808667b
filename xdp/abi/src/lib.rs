//! Contract 2: what the kernel program and userspace share.
//!
//! One C header (`include/sallyport.h`) holds every struct, constant, counter and map name; the Rust types are generated
//! from it with assertions of size and offset, so the two sides cannot drift. Values are what an engineer may read:
//! keys never enter a map.

#[allow(dead_code, missing_docs, non_camel_case_types, non_upper_case_globals, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/sallyport.rs"));
}
mod types;

pub use generated::{
    SALLYPORT_ABI_VERSION as VERSION, SALLYPORT_COUNTER_MAX as COUNTER_MAX, SALLYPORT_META_FLOW as META_FLOW,
    SALLYPORT_META_MAGIC as META_MAGIC, SALLYPORT_META_PUNT as META_PUNT, SALLYPORT_QUEUES_MAX as QUEUES_MAX,
    SALLYPORT_SOCKETS_MAX as SOCKETS_MAX,
};
pub use types::{
    Bucket, COUNTERS, FlowKey, FlowValue, InterfaceValue, MAPS, MediaKey, MediaValue, Meta, Settings, map,
};
