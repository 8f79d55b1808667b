//! A second look at what leaves: one SSRC, sequence and timestamps never rewound. It knows nothing of how they came to be, and
//! what it counts must stay 0.

use sallyport_wire::rtp::FIXED;

use crate::stream::{BEHIND, JUMP, LATE};

/// What has left last on a leg.
#[derive(Debug, Clone, Copy)]
struct Left {
    ssrc: u32,
    /// The highest sequence number.
    sequence: u16,
    /// The latest timestamp of packets that were the highest when they left.
    timestamp: u32,
}

impl Left {
    /// Of the fixed header alone (RFC 3550 section 5.1): that it is one has been seen when it came.
    #[inline]
    fn of(packet: &[u8]) -> Option<Self> {
        let [_, _, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *packet.first_chunk::<FIXED>()?;
        let word = u32::from_be_bytes;
        let (sequence, timestamp) = (u16::from_be_bytes([s0, s1]), word([t0, t1, t2, t3]));
        Some(Self { ssrc: word([i0, i1, i2, i3]), sequence, timestamp })
    }
}

/// Follows the packets of one leg.
#[derive(Debug, Clone, Default)]
pub struct Continuity(Option<Left>);

impl Continuity {
    /// Whether a rewritten packet goes on with what has left: the same SSRC, a sequence number within a loss or the replay
    /// window of the highest one, a timestamp that is not rewound. `clock` in Hz, that of the packet; `None` for a named
    /// event, which has the timestamp of its beginning.
    pub fn follows(&mut self, packet: &[u8], clock: Option<u32>) -> bool {
        let Some(now) = Left::of(packet) else { return false };
        let Some(left) = self.0.replace(now) else { return true };
        let sequence = now.sequence.wrapping_sub(left.sequence).cast_signed();
        let timestamp = now.timestamp.wrapping_sub(left.timestamp).cast_signed();
        let advances = sequence > 0;
        let kept = Left {
            ssrc: now.ssrc,
            sequence: if advances { now.sequence } else { left.sequence },
            timestamp: if advances && timestamp > 0 { now.timestamp } else { left.timestamp },
        };
        self.0 = Some(kept);
        let behind = clock.map(|clock| i64::from(BEHIND * clock));
        let rewound = advances && behind.is_some_and(|behind| i64::from(timestamp) < -behind);
        now.ssrc == left.ssrc && (LATE + 1..=JUMP).contains(&sequence) && !rewound
    }

    /// Whether a packet of the past, which comes by retransmission, is of what has left: the same SSRC, a number behind the
    /// highest one by less than a jump.
    pub fn has_place(&self, packet: &[u8]) -> bool {
        let (Some(now), Some(left)) = (Left::of(packet), self.0) else { return false };
        now.ssrc == left.ssrc && left.sequence.wrapping_sub(now.sequence) < JUMP.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(ssrc: u32, sequence: u16, timestamp: u32) -> Vec<u8> {
        let head = [&[0x80, 0][..], &sequence.to_be_bytes(), &timestamp.to_be_bytes(), &ssrc.to_be_bytes()];
        head.concat()
    }

    #[test]
    fn each_break_is_seen_once() {
        let broken: [(u32, u16, u32); 6] = [
            (2, 11, 160),
            (1, 10 + 1001, 160),
            (1, 10u16.wrapping_sub(128), 160),
            (1, 0x8000, 160),
            (1, 11, 0xffff_0000),
            (1, 11, 0x8000_0001),
        ];
        for (ssrc, sequence, timestamp) in broken {
            let mut leg = Continuity::default();
            assert!(leg.follows(&packet(1, 10, 0), Some(8000)));
            assert!(
                !leg.follows(&packet(ssrc, sequence, timestamp), Some(8000)),
                "{ssrc} {sequence} {timestamp}"
            );
        }
    }

    #[test]
    fn losses_reordering_and_wraps_go_on() {
        let mut leg = Continuity::default();
        for (sequence, timestamp, clock) in [
            (65_500, 0xffff_ff00, Some(8000)),
            (964, 0x10_0000, Some(8000)),
            (900, 0x0f_0000, Some(8000)),
            (965, 0x10_0000 - 8000, Some(8000)),
            (966, 0x0e_0000, None),
            (967, 0x10_0100, Some(8000)),
        ] {
            assert!(leg.follows(&packet(7, sequence, timestamp), clock), "{sequence}");
        }
    }
}
