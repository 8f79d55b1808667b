//! What the XDP program puts in front of a frame that it redirects (`bpf_xdp_adjust_meta`).
//!
//! These values are contract 2's (`xdp/abi`), which this crate must not depend on; the relay, which joins both, has the
//! test that compares them.

/// First word of the metadata: it is ours.
pub const META_MAGIC: u32 = 0x5350_5254;

/// A flow was hit: direction and epoch are valid.
pub const META_FLOW: u32 = 1;

/// No flow was hit; STUN of an unknown source, for control.
pub const META_PUNT: u32 = 2;

/// Octets of the metadata: magic, direction, epoch, kind; four words in the byte order of the host.
pub const META_LEN: usize = 16;

/// Takes the metadata off the octets right in front of a frame, `None` where there is none: direction and epoch of a
/// flow. The magic is zeroed, so that the next packet in this buffer cannot inherit it.
pub(crate) fn take(headroom: &mut [u8]) -> Option<(u32, u32)> {
    let meta = headroom.last_chunk_mut::<META_LEN>()?;
    let word = |at: usize| u32::from_ne_bytes([meta[at], meta[at + 1], meta[at + 2], meta[at + 3]]);
    let (magic, direction, epoch, kind) = (word(0), word(4), word(8), word(12));
    meta[..4].fill(0);
    (magic == META_MAGIC && kind == META_FLOW).then_some((direction, epoch))
}

/// Zeroes a magic that headers or a payload may have left where the next metadata is expected.
pub(crate) fn clear(headroom: &mut [u8]) {
    if let Some(meta) = headroom.last_chunk_mut::<META_LEN>() {
        meta[..4].fill(0);
    }
}
