//! The sealing side: no two payloads under one index, whatever is asked for, also over a crash.

use std::collections::HashSet;

use proptest::prelude::*;
use sallyport_plan::Profile;
use sallyport_srtp::{INDEX_MAX, RTCP_INDEX_MAX, SOURCES, SealError, Sealer};
use sallyport_wire::PacketBuf;

use crate::packets::*;

const SSRC: u32 = 0x8765_4321;

fn at(sealer: &mut Sealer, sequence: u16) -> Result<Vec<u8>, SealError> {
    seal(sealer, &rtp(SSRC, sequence, b"payload"))
}

#[test]
fn a_second_payload_under_one_sequence_is_refused() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let first = seal(&mut sealer, &rtp(SSRC, 9, b"one payload")).unwrap();
        let before = sealer.checkpoint();
        assert_eq!(seal(&mut sealer, &rtp(SSRC, 9, b"another one")), Err(SealError::IndexReuse));
        // Not even the same payload: a cut-through would have to prove that it is the same.
        assert_eq!(seal(&mut sealer, &rtp(SSRC, 9, b"one payload")), Err(SealError::IndexReuse));
        assert_eq!(sealer.checkpoint(), before);
        assert!(open(&mut opener, &first).is_ok());
    }
}

#[test]
fn late_packets_are_sealed_once_and_within_the_window() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        for sequence in [65_000u16, 65_500, 65_500 - 127, 10, 65_535] {
            let sealed = at(&mut sealer, sequence).unwrap();
            assert!(open(&mut opener, &sealed).is_ok(), "the peer follows to {sequence}");
        }
        for sequence in [65_535, 10, 65_000, 65_536 - 118, 9, 200] {
            let fresh = matches!(sequence, 9 | 200);
            assert_eq!(at(&mut sealer, sequence as u16).is_ok(), fresh, "{sequence}");
        }
    }
}

#[test]
fn going_back_is_refused_on_both_sides_of_a_wrap() {
    for profile in PROFILES {
        let mut sealer = sealer_at(&key(profile, 1), SSRC, Some(0x3_0000), 0);
        for sequence in [0u16, 0xffff, 0xff80, 0x8001, 0x8000] {
            let expected = if sequence == 0x8000 { Ok(()) } else { Err(SealError::IndexReuse) };
            assert_eq!(at(&mut sealer, sequence).map(|_| ()), expected, "{sequence:#x}");
        }
    }
}

/// A peer by the letter of RFC 3711 appendix A would take it for a packet of the turn before the first.
#[test]
fn no_jump_over_more_than_half_a_turn() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        assert!(open(&mut opener, &at(&mut sealer, 0).unwrap()).is_ok());
        assert_eq!(at(&mut sealer, 0xffff), Err(SealError::IndexReuse));
        assert_eq!(at(&mut sealer, 0x8001), Err(SealError::IndexReuse));
        assert!(open(&mut opener, &at(&mut sealer, 0x8000).unwrap()).is_ok());
        assert!(open(&mut opener, &at(&mut sealer, 0xffff).unwrap()).is_ok());
        assert_eq!(open_index(&mut opener, &at(&mut sealer, 0).unwrap()), Ok(0x1_0000));
    }
}

#[test]
fn a_key_is_used_up_behind_48_bits() {
    for profile in PROFILES {
        let key = key(profile, 1);
        let mut sealer = sealer_at(&key, SSRC, Some(INDEX_MAX - 2), 0);
        let mut opener = opener_at(&key, SSRC, INDEX_MAX - 2);
        for index in [INDEX_MAX - 1, INDEX_MAX] {
            let sealed = at(&mut sealer, index as u16).unwrap();
            assert_eq!(open_index(&mut opener, &sealed), Ok(index));
        }
        for sequence in [0, 1, 100, 0x7fff, 0x8000, 0xfff0, 0xffff] {
            assert_eq!(at(&mut sealer, sequence), Err(SealError::Exhausted), "{sequence:#x}");
        }
        // Jumping over the end is no way around it.
        let mut sealer = sealer_at(&key, SSRC, Some(INDEX_MAX - 2), 0);
        assert_eq!(at(&mut sealer, 5), Err(SealError::Exhausted));
        let mut sealer = Sealer::new(&key).unwrap();
        sealer.restore(&sealer_at(&key, SSRC, Some(INDEX_MAX - 2), 0).checkpoint(), 1000);
        assert_eq!(at(&mut sealer, 0xffff), Err(SealError::Exhausted));
    }
}

#[test]
fn a_key_is_used_up_behind_31_bits_of_srtcp() {
    for profile in PROFILES {
        let key = key(profile, 1);
        let mut sealer = sealer_at(&key, SSRC, None, RTCP_INDEX_MAX);
        assert!(seal_rtcp(&mut sealer, &rtcp(SSRC, 3)).is_ok());
        assert_eq!(seal_rtcp(&mut sealer, &rtcp(SSRC, 3)), Err(SealError::Exhausted));
        let state = sealer.checkpoint();
        let mut next = Sealer::new(&key).unwrap();
        next.restore(&state, u32::MAX);
        assert_eq!(seal_rtcp(&mut next, &rtcp(SSRC, 3)), Err(SealError::Exhausted));
        assert!(at(&mut next, 1).is_ok());
    }
}

#[test]
fn a_ninth_source_is_refused_and_nothing_is_forgotten() {
    for profile in PROFILES {
        let (mut sealer, _) = pair(profile);
        for ssrc in 0..SOURCES as u32 {
            seal(&mut sealer, &rtp(ssrc, 1, b"payload")).unwrap();
        }
        assert_eq!(seal(&mut sealer, &rtp(99, 1, b"payload")), Err(SealError::Sources));
        assert_eq!(seal_rtcp(&mut sealer, &rtcp(99, 1)), Err(SealError::Sources));
        for ssrc in 0..SOURCES as u32 {
            assert_eq!(seal(&mut sealer, &rtp(ssrc, 1, b"another")), Err(SealError::IndexReuse));
        }
        // Nor does a state with too many make room.
        let mut next = Sealer::new(&key(profile, 1)).unwrap();
        let mut state = sealer.checkpoint();
        state.sources.push(sealer_at(&key(profile, 1), 99, Some(7), 0).checkpoint().sources[0]);
        next.restore(&state, 0);
        assert_eq!(seal(&mut next, &rtp(99, 8, b"payload")), Err(SealError::Sources));
    }
}

#[test]
fn without_room_for_the_tag_nothing_changes() {
    for profile in PROFILES {
        let (mut sealer, _) = pair(profile);
        for plain in [rtp(SSRC, 4, b"payload"), rtcp(SSRC, 2)] {
            let mut bytes = plain.clone();
            bytes.resize(plain.len() + 9, 0);
            let mut buf = PacketBuf::new(&mut bytes, 0..plain.len()).unwrap();
            assert_eq!(sealer.seal_rtp(&mut buf), Err(SealError::Room));
            assert_eq!(sealer.seal_rtcp(&mut buf), Err(SealError::Room));
            assert_eq!(buf.packet(), plain);
        }
        assert_eq!(sealer.checkpoint().sources, []);
    }
}

#[test]
fn what_is_no_packet_is_refused() {
    let (mut sealer, _) = pair(Profile::AesCm128HmacSha1_80);
    let mut version = rtp(SSRC, 1, b"payload");
    version[0] = 0x40;
    let mut extension = rtp(SSRC, 1, b"payload");
    extension[0] |= 0x10;
    let long = rtp(SSRC, 1, &vec![0; (1 << 20) + 1]);
    for packet in [&[][..], &version[..11], &version, &extension, &long] {
        assert_eq!(seal(&mut sealer, packet), Err(SealError::Malformed));
    }
    for packet in [&[][..], &rtcp(SSRC, 0)[..7], &version] {
        assert_eq!(seal_rtcp(&mut sealer, packet), Err(SealError::Malformed));
    }
    assert_eq!(sealer.checkpoint().sources, []);
}

#[test]
fn restoring_over_a_running_sealer_takes_nothing_back() {
    for profile in PROFILES {
        let (mut sealer, _) = pair(profile);
        at(&mut sealer, 10).unwrap();
        seal_rtcp(&mut sealer, &rtcp(SSRC, 1)).unwrap();
        let old = sealer.checkpoint();
        (11..50).for_each(|sequence| assert!(at(&mut sealer, sequence).is_ok()));
        (0..5).for_each(|_| assert!(seal_rtcp(&mut sealer, &rtcp(SSRC, 1)).is_ok()));
        sealer.restore(&old, 3);
        assert_eq!(at(&mut sealer, 49), Err(SealError::IndexReuse));
        assert!(at(&mut sealer, 50).is_ok());
        assert_eq!(sealer.checkpoint().sources[0].rtcp, 6);
    }
}

#[test]
fn corrupt_states_are_survived() {
    for profile in PROFILES {
        for (rtp, rtcp_next) in [(u64::MAX, u32::MAX), (INDEX_MAX + 1, 1 << 31)] {
            let mut sealer = sealer_at(&key(profile, 1), SSRC, Some(rtp), rtcp_next);
            assert_eq!(at(&mut sealer, 1), Err(SealError::Exhausted));
            assert_eq!(seal_rtcp(&mut sealer, &rtcp(SSRC, 1)), Err(SealError::Exhausted));
            let mut opener = opener_at(&key(profile, 1), SSRC, rtp);
            assert!(open(&mut opener, &sealed_at(&key(profile, 1), SSRC, 5, b"payload")).is_err());
        }
    }
}

/// What may happen to a sealer.
#[derive(Debug, Clone)]
enum Step {
    /// Seal this far from the last sequence.
    Near(i16),
    /// Seal this sequence.
    Any(u16),
    /// Seal RTCP.
    Report,
    /// Keep a checkpoint, as is due at the latest after `AHEAD` packets.
    Keep,
    /// Crash and go on behind the last checkpoint.
    Crash,
}

const AHEAD: u32 = 40;

fn step() -> impl Strategy<Value = (bool, Step)> {
    let step = prop_oneof![
        12 => (-3i16..6).prop_map(Step::Near),
        3 => (-200i16..200).prop_map(Step::Near),
        1 => any::<i16>().prop_map(Step::Near),
        1 => any::<u16>().prop_map(Step::Any),
        3 => Just(Step::Report),
        2 => Just(Step::Keep),
        1 => Just(Step::Crash),
    ];
    (any::<bool>(), step)
}

/// What leaves for a payload of zeros: the keystream, which shows the index.
fn keystream(sealer: &mut Sealer, ssrc: u32, sequence: u16) -> Result<Vec<u8>, SealError> {
    seal(sealer, &rtp(ssrc, sequence, &[0; 16])).map(|sealed| sealed[12..28].to_vec())
}

/// A packet may move the highest index by more than one, so a checkpoint is due by indices, not by packets.
fn no_keystream_leaves_twice(
    profile: Profile,
    start: u64,
    steps: Vec<(bool, Step)>,
) -> Result<(), TestCaseError> {
    let key = key(profile, 1);
    let mut sealer = sealer_at(&key, 1, Some(start), 0);
    sealer.restore(&sealer_at(&key, 2, Some(start), 0).checkpoint(), 0);
    let mut kept = sealer.checkpoint();
    let mut left = HashSet::new();
    let highest = |sealer: &Sealer, ssrc: u32| {
        let state = sealer.checkpoint();
        let source = state.sources.iter().find(|source| source.ssrc == ssrc).copied();
        source.map_or((0, 0), |source| (source.rtp.unwrap_or(0), source.rtcp))
    };
    for (other, step) in steps {
        let ssrc = 1 + u32::from(other);
        let last = highest(&sealer, ssrc).0;
        let sealed = match step {
            Step::Near(by) => keystream(&mut sealer, ssrc, (last as u16).wrapping_add_signed(by)),
            Step::Any(sequence) => keystream(&mut sealer, ssrc, sequence),
            Step::Report => {
                let plain = [&rtcp(ssrc, 0)[..], &[0; 16]].concat();
                seal_rtcp(&mut sealer, &plain).map(|sealed| sealed[8..24].to_vec())
            }
            Step::Keep => {
                kept = sealer.checkpoint();
                continue;
            }
            Step::Crash => {
                sealer = Sealer::new(&key).unwrap();
                sealer.restore(&kept, AHEAD);
                kept = sealer.checkpoint();
                continue;
            }
        };
        if let Ok(stream) = sealed {
            prop_assert!(left.insert(stream), "a keystream left twice");
        }
        let due = [1, 2].iter().any(|ssrc| {
            let (now, then) =
                (highest(&sealer, *ssrc), kept.sources.iter().find(|source| source.ssrc == *ssrc));
            then.is_none_or(|then| {
                now.0 - then.rtp.unwrap_or(0) > u64::from(AHEAD) || now.1 - then.rtcp > AHEAD
            })
        });
        if due {
            kept = sealer.checkpoint();
        }
    }
    prop_assert!(!left.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_keystream_leaves_twice_whatever_happens(
        gcm in any::<bool>(),
        start in prop_oneof![Just(0u64), Just(65_500), Just(0x7fff), Just(INDEX_MAX - 70_000), 0..1u64 << 40],
        steps in proptest::collection::vec(step(), 20..300),
    ) {
        no_keystream_leaves_twice(PROFILES[usize::from(gcm)], start, steps)?;
    }
}
