//! What is sent: how often, how much, in which bursts.
//!
//! Everything is a function of the call and the frame's number, so that every run and every target gets the same packets.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use sallyport_plan::{Clock, Medium};

/// RTP header without extensions.
const HEADER: usize = 12;
/// Differs by nothing but this from other seeds.
const SEED: u64 = 0x5a11_9000_7100_0001;

/// Packets of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Mix {
    /// G.711, 20 ms: 50 packets a second of 160 octets.
    #[default]
    G711,
    /// Opus, 20 ms, variable rate: 50 packets a second of 60 to 120 octets.
    Opus,
    /// Video: 30 frames a second, each a burst of 8 to 12 packets of 1,100 to 1,200 octets.
    Video,
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::G711 => "g711",
            Self::Opus => "opus",
            Self::Video => "video",
        })
    }
}

impl Mix {
    /// Time between frames of one call.
    pub const fn interval(self) -> Duration {
        match self {
            Self::G711 | Self::Opus => Duration::from_millis(20),
            Self::Video => Duration::from_nanos(33_333_333),
        }
    }

    /// RTP clock ticks between frames.
    pub const fn ticks(self) -> u32 {
        match self {
            Self::G711 => 160,
            Self::Opus => 960,
            Self::Video => 3000,
        }
    }

    /// Clock of its timestamps.
    pub const fn clock(self) -> Clock {
        match self {
            Self::G711 => Clock::Hz8000,
            Self::Opus => Clock::Hz48000,
            Self::Video => Clock::Hz90000,
        }
    }

    /// RTP payload type.
    pub const fn payload_type(self) -> u8 {
        match self {
            Self::G711 => 0,
            Self::Opus => 111,
            Self::Video => 96,
        }
    }

    /// What SDP calls it.
    pub const fn rtpmap(self) -> &'static str {
        match self {
            Self::G711 => "PCMU/8000",
            Self::Opus => "opus/48000/2",
            Self::Video => "VP8/90000",
        }
    }

    /// What a plan calls it.
    pub const fn medium(self) -> Medium {
        match self {
            Self::G711 | Self::Opus => Medium::Audio,
            Self::Video => Medium::Video,
        }
    }

    /// Packets of a frame; they are due at once.
    pub fn packets(self, call: usize, frame: u64) -> usize {
        match self {
            Self::G711 | Self::Opus => 1,
            Self::Video => 8 + draw(call, frame, u64::MAX, 5),
        }
    }

    /// Octets of a packet with its RTP header, before protection.
    pub fn length(self, call: usize, frame: u64, packet: usize) -> usize {
        HEADER
            + match self {
                Self::G711 => 160,
                Self::Opus => 60 + draw(call, frame, packet as u64, 61),
                Self::Video => 1100 + draw(call, frame, packet as u64, 101),
            }
    }

    /// Packets a second of one call, each way, on average.
    pub const fn rate(self) -> u32 {
        match self {
            Self::G711 | Self::Opus => 50,
            Self::Video => 300,
        }
    }
}

/// A number below `below` that depends on all of it and looks random (splitmix64).
#[allow(clippy::cast_possible_truncation)]
fn draw(call: usize, frame: u64, packet: u64, below: u64) -> usize {
    let mut state = SEED;
    for part in [call as u64, frame, packet] {
        state = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    (state % below) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(mix: Mix) -> Vec<usize> {
        let frames = (0..20).flat_map(|call| (0..100).map(move |frame| (call, frame)));
        frames
            .flat_map(|(call, frame)| {
                (0..mix.packets(call, frame)).map(move |packet| mix.length(call, frame, packet))
            })
            .collect()
    }

    #[test]
    fn sizes_fill_their_range_and_nothing_else() {
        for (mix, lowest, highest) in [(Mix::G711, 172, 172), (Mix::Opus, 72, 132), (Mix::Video, 1112, 1212)]
        {
            let lengths = lengths(mix);
            assert_eq!(
                (lengths.iter().min(), lengths.iter().max()),
                (Some(&lowest), Some(&highest)),
                "{mix}"
            );
        }
    }

    #[test]
    fn the_rate_is_what_the_frames_make() {
        for mix in [Mix::G711, Mix::Opus, Mix::Video] {
            let frames = 2000.0;
            let rate = lengths(mix).len() as f64 / frames / mix.interval().as_secs_f64();
            assert!((rate / f64::from(mix.rate()) - 1.0).abs() < 0.02, "{mix}: {rate}");
        }
    }

    #[test]
    fn every_run_gets_the_same_and_every_call_its_own() {
        assert_eq!(lengths(Mix::Opus), lengths(Mix::Opus));
        let of = |call| (0..50).map(|frame| Mix::Opus.length(call, frame, 0)).collect::<Vec<_>>();
        assert_ne!(of(1), of(2));
    }
}
