//! How well the packets of a direction arrive: what the relay counts, for whoever reads to divide.

use serde::{Deserialize, Serialize};

use crate::plan::{Pt, Ssrc};

/// Buckets of [`Quality::stays`].
pub const STAYS: usize = 16;

/// Quality of one direction since it was installed, over all sources that fed it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// RTP packets that came, duplicates included; those of payload types that are not carried too.
    pub received: u64,
    /// RTP packets that did not come before they were 64 sequence numbers overdue. The losses that the following are about.
    pub missed: u64,
    /// Losses in a row, each row counted once.
    pub runs: u32,
    /// Bursts: stretches that begin and end with a loss, of two losses or more, without 16 packets in a row that came (RFC 3611
    /// section 4.7.2, Gmin = 16).
    pub bursts: u32,
    /// Packets lost in bursts; all others were lost singly, in gaps.
    pub burst_lost: u32,
    /// Sequence numbers that bursts are long, in all.
    pub burst_packets: u32,
    /// Packets that were overtaken.
    pub reordered: u32,
    /// Packets that had come before. Of SRTP they are refused as replays and counted there instead.
    pub duplicates: u32,
    /// Interarrival jitter, microseconds (RFC 3550 section 6.4.1).
    pub jitter_us: u32,
    /// The source now; `None` before the first packet.
    pub source: Option<Ssrc>,
    /// Payload type of the last packet as it came; `None` before the first one.
    pub payload_type: Option<Pt>,
    /// Packets that left, by how long they stayed in the relay: up to 1, 2, 4, ... microseconds; in the last bucket all that
    /// stayed longer than 16 ms.
    pub stays: [u32; STAYS],
    /// Round trip between the relay and whoever sends the packets, microseconds, by the last report that told (RFC 3550
    /// section 6.4.1).
    pub round_trip_us: Option<u32>,
    /// What the receiver of the packets reported last.
    pub told: Option<Told>,
}

/// What a receiver reports of a stream (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Part lost since its report before, 256ths.
    pub fraction: u8,
    /// Packets lost since it began, negative where duplicates came.
    pub lost: i32,
    /// Its interarrival jitter, microseconds.
    pub jitter_us: u32,
}
