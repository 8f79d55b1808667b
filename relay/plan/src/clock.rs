//! Clock rates of RTP timestamps.

use serde::{Deserialize, Serialize};

/// Units of a timestamp a second (RFC 3550 section 5.1): the rates of RFC 3551 section 6 and those registered since for
/// sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Clock {
    Hz8000,
    Hz11025,
    Hz12000,
    Hz16000,
    Hz22050,
    Hz24000,
    Hz32000,
    Hz44100,
    Hz48000,
    Hz90000,
}

impl Clock {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Hz8000,
        Self::Hz11025,
        Self::Hz12000,
        Self::Hz16000,
        Self::Hz22050,
        Self::Hz24000,
        Self::Hz32000,
        Self::Hz44100,
        Self::Hz48000,
        Self::Hz90000,
    ];

    /// In Hz.
    pub const fn hz(self) -> u32 {
        match self {
            Self::Hz8000 => 8000,
            Self::Hz11025 => 11_025,
            Self::Hz12000 => 12_000,
            Self::Hz16000 => 16_000,
            Self::Hz22050 => 22_050,
            Self::Hz24000 => 24_000,
            Self::Hz32000 => 32_000,
            Self::Hz44100 => 44_100,
            Self::Hz48000 => 48_000,
            Self::Hz90000 => 90_000,
        }
    }

    /// The clock of this rate in Hz; `None` for one that is not in use.
    pub fn of(hz: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|clock| clock.hz() == hz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_found_by_their_rates() {
        for (at, clock) in Clock::ALL.into_iter().enumerate() {
            assert_eq!((clock as usize, Clock::of(clock.hz())), (at, Some(clock)));
        }
        assert_eq!(Clock::of(8001), None);
    }
}
