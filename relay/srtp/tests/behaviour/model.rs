//! The opener against a slow obvious model, over random histories.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sallyport_plan::Profile;
use sallyport_srtp::{INDEX_MAX, OpenError, WINDOW};

use crate::packets::*;

/// A receiver that remembers everything and tries every turn.
struct Model {
    seen: BTreeSet<u64>,
}

impl Model {
    /// The nearest index with this sequence number; of two as near the one in the highest's own turn.
    fn guess(&self, sequence: u16) -> Option<u64> {
        let highest = *self.seen.last()?;
        let turn = highest >> 16;
        let turns = (turn.saturating_sub(2)..=turn + 2).map(|turn| (turn << 16) | u64::from(sequence));
        turns.min_by_key(|index| (index.abs_diff(highest), index >> 16 != turn))
    }

    /// A packet of the peer's: its true index, unless it is forged.
    fn open(&mut self, sequence: u16, truth: Option<u64>) -> Result<u64, OpenError> {
        let index = self.guess(sequence).unwrap_or(u64::from(sequence));
        if let Some(highest) = self.seen.last() {
            if index > INDEX_MAX || index + WINDOW <= *highest {
                return Err(OpenError::TooOld);
            }
            if self.seen.contains(&index) {
                return Err(OpenError::Replay);
            }
        }
        if truth != Some(index) {
            return Err(OpenError::Tag);
        }
        self.seen.insert(index);
        Ok(index)
    }
}

/// One packet on the wire.
#[derive(Debug, Clone)]
struct Arrival {
    /// How far the peer goes on before it.
    advance: u64,
    /// How far it was overtaken.
    late: u64,
    /// Whether its tag is forged.
    forged: bool,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let advance = prop_oneof![6 => 0u64..3, 2 => 0u64..200, 1 => 0u64..40_000, 1 => 0u64..70_000];
    let late = prop_oneof![6 => Just(0u64), 3 => 0u64..4, 2 => 100u64..140, 1 => 0u64..70_000];
    (advance, late, prop::bool::weighted(0.1)).prop_map(|(advance, late, forged)| Arrival {
        advance,
        late,
        forged,
    })
}

fn agrees(profile: Profile, start: u64, arrivals: &[Arrival]) -> Result<(), TestCaseError> {
    let ssrc = 77;
    let key = key(profile, 3);
    let mut opener = opener_at(&key, ssrc, start);
    let mut model = Model { seen: BTreeSet::from([start]) };
    let mut sent = start;
    for arrival in arrivals {
        sent = (sent + arrival.advance).min(INDEX_MAX);
        let index = sent.saturating_sub(arrival.late);
        let mut packet = sealed_at(&key, ssrc, index, b"payload");
        if arrival.forged {
            packet[14] ^= 4;
        }
        let expected = model.open(index as u16, (!arrival.forged).then_some(index));
        prop_assert_eq!(open_index(&mut opener, &packet), expected);
        let state = opener.checkpoint().sources[0];
        prop_assert_eq!(state.rtp.map(|window| window.highest()), model.seen.last().copied());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_opener_agrees_with_the_model(
        gcm in any::<bool>(),
        start in prop_oneof![0u64..100, 32_700..32_800u64, 65_400..65_600u64, (INDEX_MAX - 80_000)..=INDEX_MAX, 0..INDEX_MAX],
        arrivals in proptest::collection::vec(arrival(), 1..200),
    ) {
        agrees(PROFILES[usize::from(gcm)], start, &arrivals)?;
    }
}
