//! Contract 2: what the kernel program and userspace share.
//!
//! One C header (`include/sallyport.h`) holds every struct, constant, counter and map name; the Rust side is generated
//! from it with assertions of size and offset, so the two cannot drift. Values are what an engineer may read: keys never
//! enter a map.

#[allow(dead_code, missing_docs, non_camel_case_types, non_upper_case_globals, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/layouts.rs"));
}
mod lists {
    use crate::generated;

    include!(concat!(env!("OUT_DIR"), "/lists.rs"));
}
mod types;

pub use generated::{
    SALLYPORT_ABI_VERSION as VERSION, SALLYPORT_ACTION_REDIRECT as ACTION_REDIRECT,
    SALLYPORT_ACTION_REWRITE as ACTION_REWRITE, SALLYPORT_BUCKETS_MAX as BUCKETS_MAX,
    SALLYPORT_FRAME_MAX as FRAME_MAX, SALLYPORT_INTERFACES_MAX as INTERFACES_MAX,
    SALLYPORT_MEDIA_MAX as MEDIA_MAX, SALLYPORT_META_FLOW as META_FLOW, SALLYPORT_META_MAGIC as META_MAGIC,
    SALLYPORT_META_PUNT as META_PUNT, SALLYPORT_QUEUES_MAX as QUEUES_MAX, SALLYPORT_XSKS_MAX as XSKS_MAX,
};
pub use lists::{Counter, MAPS, map};
pub use types::{
    Bucket, Egress, FlowKey, FlowValue, INSIDE, InterfaceValue, MediaKey, MediaValue, Meta, OUTSIDE,
    Settings, Source, Tally, Target,
};
