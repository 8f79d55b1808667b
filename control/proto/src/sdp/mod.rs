//! SDP both ways: the browser's offer and answer, our offer and the answers inside.

mod fragment;

pub use fragment::parse_fragment;

/// Octets that an SDP or a fragment of one may have.
pub const OFFER_MAX: usize = 64 * 1024;
