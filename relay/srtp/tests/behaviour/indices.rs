//! The opening side: index guess, rollover, replay, sources.

use sallyport_srtp::{INDEX_MAX, OpenError, Opener, RTCP_INDEX_MAX, SOURCES, Sealer};

use crate::packets::*;

const SSRC: u32 = 0x1234_5678;

/// The packets of a stream that starts at `first`, by position.
fn stream(sealer: &mut Sealer, first: u16, count: usize) -> Vec<Vec<u8>> {
    let sequences = (0..count).map(|n| first.wrapping_add(n as u16));
    sequences.map(|sequence| seal(sealer, &rtp(SSRC, sequence, b"payload")).unwrap()).collect()
}

#[test]
fn what_is_sealed_opens_and_is_as_it_was() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let mut random = Random(1);
        for sequence in 0..200 {
            let plain = random.rtp(SSRC, sequence, usize::from(sequence));
            let sealed = seal(&mut sealer, &plain).unwrap();
            let (opened, again) = open(&mut opener, &sealed).unwrap();
            assert_eq!((opened.ssrc, opened.index, opened.sequence), (SSRC, u64::from(sequence), sequence));
            assert_eq!(again, plain);
            let plain = rtcp(SSRC, sequence);
            let sealed = seal_rtcp(&mut sealer, &plain).unwrap();
            assert_eq!(open_rtcp(&mut opener, &sealed), Ok((u32::from(sequence), plain)));
        }
    }
}

/// Reordering over the wrap counts it once (the row that libre got wrong).
#[test]
fn reordering_over_the_wrap_counts_it_once() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let sent = stream(&mut sealer, 65533, 6);
        let arrived = [0, 2, 3, 4, 1, 5].map(|at: usize| open_index(&mut opener, &sent[at]).unwrap());
        assert_eq!(arrived, [65533, 65535, 65536, 65537, 65534, 65538]);
    }
}

/// Three wraps with one packet in ten lost, the rest shuffled in groups of 16: all that arrives opens, once.
#[test]
fn three_wraps_with_loss_and_reordering() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let mut random = Random(3);
        let first = 65_000u64;
        for group in 0..(3 * 65_536 / 16) {
            let mut indices: Vec<u64> = (0..16).map(|n| first + group * 16 + n).collect();
            let mut sent: Vec<_> = indices
                .drain(..)
                .map(|index| (index, seal(&mut sealer, &rtp(SSRC, index as u16, b"")).unwrap()))
                .collect();
            sent.retain(|_| !random.one_in(10));
            for at in (1..sent.len()).rev() {
                sent.swap(at, random.below(at as u64 + 1) as usize);
            }
            for (index, packet) in &sent {
                assert_eq!(open_index(&mut opener, packet), Ok(*index));
            }
            if group % 64 == 0 {
                for (_, packet) in &sent {
                    assert_eq!(open_index(&mut opener, packet), Err(OpenError::Replay));
                }
            }
        }
    }
}

#[test]
fn a_loss_over_the_wrap_is_bridged_up_to_half_a_turn() {
    for profile in PROFILES {
        let key = key(profile, 1);
        for (gap, expected) in [
            (1, Ok(66_001)),
            (20_000, Ok(86_000)),
            (0x8000, Ok(66_000 + 0x8000)),
            // Guessed a turn too low, below the window.
            (0x8001, Err(OpenError::TooOld)),
            // About a whole turn ahead: guessed near the highest, where the tag does not fit.
            (0xffff, Err(OpenError::Tag)),
            (0x1_0001, Err(OpenError::Tag)),
        ] {
            let mut opener = opener_at(&key, SSRC, 66_000);
            let before = opener.checkpoint();
            let result = open_index(&mut opener, &sealed_at(&key, SSRC, 66_000 + gap, b"payload"));
            assert_eq!(result, expected, "{profile:?} {gap}");
            assert!(result.is_ok() || opener.checkpoint() == before);
        }
    }
}

/// In the first turn there is no turn before: any sequence number may follow any other.
#[test]
fn in_the_first_turn_a_loss_may_be_longer() {
    for profile in PROFILES {
        let key = key(profile, 1);
        let mut opener = opener_at(&key, SSRC, 10);
        assert_eq!(open_index(&mut opener, &sealed_at(&key, SSRC, 50_000, b"payload")), Ok(50_000));
        assert_eq!(open_index(&mut opener, &sealed_at(&key, SSRC, 65_537, b"payload")), Ok(65_537));
    }
}

/// A receiver that missed all before the first wrap cannot know of it: why our streams start in the lower half.
#[test]
fn a_wrap_before_the_first_packet_heard_is_refused_by_the_tag() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let sent = stream(&mut sealer, 65_530, 12);
        assert_eq!(open_index(&mut opener, &sent[8]), Err(OpenError::Tag));
        assert_eq!(opener.checkpoint().sources, []);
        assert_eq!(open_index(&mut opener, &sent[3]), Ok(65_533));
        assert_eq!(open_index(&mut opener, &sent[8]), Ok(65_538));
    }
}

#[test]
fn every_packet_opens_once() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let sent = stream(&mut sealer, 65_000, 2000);
        for (at, packet) in sent.iter().enumerate() {
            assert!(open(&mut opener, packet).is_ok());
            assert_eq!(open(&mut opener, packet), Err(OpenError::Replay));
            if at >= 127 {
                assert_eq!(open(&mut opener, &sent[at - 127]), Err(OpenError::Replay));
            }
            if at >= 128 {
                assert_eq!(open(&mut opener, &sent[at - 128]), Err(OpenError::TooOld));
            }
        }
        let before = opener.checkpoint();
        assert!(sent.iter().all(|packet| open(&mut opener, packet).is_err()));
        assert_eq!(opener.checkpoint(), before);
    }
}

#[test]
fn a_late_packet_opens_within_the_window_only() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let sent = stream(&mut sealer, 65_500, 200);
        assert_eq!(open_index(&mut opener, &sent[0]), Ok(65_500));
        assert_eq!(open_index(&mut opener, &sent[150]), Ok(65_650));
        assert_eq!(open_index(&mut opener, &sent[150 - 127]), Ok(65_523));
        assert_eq!(open_index(&mut opener, &sent[150 - 128]), Err(OpenError::TooOld));
        assert_eq!(open_index(&mut opener, &sent[150 - 127]), Err(OpenError::Replay));
    }
}

/// Forged packets with sequence numbers chosen to drag the rollover counter along.
#[test]
fn the_rollover_counter_follows_verified_packets_only() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let sent = stream(&mut sealer, 40_000, 40_000);
        for (at, packet) in sent.iter().enumerate().step_by(1000) {
            let before = opener.checkpoint();
            for ahead in [1, 127, 128, 10_000, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let mut forged = packet.clone();
                let sequence = (40_000u16).wrapping_add(at as u16).wrapping_add(ahead);
                forged[2..4].copy_from_slice(&sequence.to_be_bytes());
                assert!(open(&mut opener, &forged).is_err());
            }
            assert_eq!(opener.checkpoint(), before);
            assert_eq!(open_index(&mut opener, packet), Ok(40_000 + at as u64));
        }
    }
}

#[test]
fn strangers_leave_no_trace() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let sent = stream(&mut sealer, 7, 2);
        open(&mut opener, &sent[0]).unwrap();
        let before = opener.checkpoint();
        let mut random = Random(5);
        for _ in 0..2000 {
            let mut forged = random.rtp(random.0 as u32, 0, 40);
            forged[0] &= !0x10;
            assert!(matches!(open(&mut opener, &forged), Err(OpenError::Tag | OpenError::Short)));
            let mut forged = rtcp(random.next() as u32, 10);
            let (at, last) = (forged.len() - 4, forged.len() - 14);
            forged[at] |= 0x80;
            forged[last] |= 0x80;
            assert_eq!(open_rtcp(&mut opener, &forged), Err(OpenError::Tag));
        }
        assert_eq!(opener.checkpoint(), before);
        assert_eq!(open_index(&mut opener, &sent[1]), Ok(8));
    }
}

/// A, B, A again: each source has its own rollover counter and window.
#[test]
fn sources_are_kept_apart() {
    for profile in PROFILES {
        let key = key(profile, 1);
        let mut opener = opener_at(&key, 1, 5 << 16);
        assert_eq!(open_index(&mut opener, &sealed_at(&key, 2, 9, b"b")), Ok(9));
        assert_eq!(open_index(&mut opener, &sealed_at(&key, 1, (5 << 16) + 1, b"a")), Ok((5 << 16) + 1));
        assert_eq!(open_index(&mut opener, &sealed_at(&key, 2, 9, b"b")), Err(OpenError::Replay));
        assert_eq!(open_index(&mut opener, &sealed_at(&key, 1, 5 << 16, b"a")), Err(OpenError::Replay));
    }
}

/// However many sources a peer uses: state is bounded, new ones are heard, and no packet of any opens twice.
#[test]
fn a_forgotten_source_cannot_be_replayed() {
    for profile in PROFILES {
        let key = key(profile, 1);
        let mut opener = Opener::new(&key).unwrap();
        let mut random = Random(7);
        let ssrcs: Vec<u32> = (0..300).map(|_| random.next() as u32).collect();
        let sent: Vec<_> = ssrcs.iter().map(|ssrc| sealed_at(&key, *ssrc, 100, b"payload")).collect();
        let heard = sent.iter().filter(|packet| open(&mut opener, packet).is_ok()).count();
        assert!(heard >= 290, "{heard} of 300 new sources heard");
        assert_eq!(opener.checkpoint().sources.len(), SOURCES);
        let mut restarted = Opener::new(&key).unwrap();
        restarted.restore(&opener.checkpoint());
        for packet in &sent {
            assert!(matches!(open(&mut opener, packet), Err(OpenError::Replay | OpenError::TooOld)));
            assert!(matches!(open(&mut restarted, packet), Err(OpenError::Replay | OpenError::TooOld)));
        }
    }
}

#[test]
fn a_forged_packet_evicts_nobody() {
    for profile in PROFILES {
        let key = key(profile, 1);
        let mut opener = Opener::new(&key).unwrap();
        for ssrc in 0..SOURCES as u32 {
            open(&mut opener, &sealed_at(&key, ssrc, 3, b"payload")).unwrap();
        }
        let mut forged = sealed_at(&key, 99, 3, b"payload");
        forged[20] ^= 1;
        assert_eq!(open_index(&mut opener, &forged), Err(OpenError::Tag));
        assert_eq!(open_index(&mut opener, &sealed_at(&key, 0, 3, b"payload")), Err(OpenError::Replay));
        assert_eq!(open_index(&mut opener, &sealed_at(&key, 0, 4, b"payload")), Ok(4));
    }
}

#[test]
fn a_restart_opens_nothing_twice() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let sent = stream(&mut sealer, 65_400, 300);
        let reports: Vec<_> = (0..20).map(|_| seal_rtcp(&mut sealer, &rtcp(SSRC, 4)).unwrap()).collect();
        sent.iter().step_by(2).for_each(|packet| assert!(open(&mut opener, packet).is_ok()));
        reports.iter().step_by(2).for_each(|packet| assert!(open_rtcp(&mut opener, packet).is_ok()));
        let bytes = postcard::to_allocvec(&opener.checkpoint()).unwrap();
        let mut next = Opener::new(&key(profile, 1)).unwrap();
        next.restore(&postcard::from_bytes(&bytes).unwrap());
        assert_eq!(next.checkpoint(), opener.checkpoint());
        for (at, packet) in sent.iter().enumerate() {
            assert_eq!(open(&mut next, packet).is_ok(), at % 2 == 1 && at >= 298 - 127, "{at}");
        }
        for (at, packet) in reports.iter().enumerate() {
            assert_eq!(open_rtcp(&mut next, packet).is_ok(), at % 2 == 1, "{at}");
        }
    }
}

/// Restoring an older checkpoint into an opener that runs takes nothing back.
#[test]
fn an_older_checkpoint_reopens_nothing() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let sent = stream(&mut sealer, 5, 40);
        open(&mut opener, &sent[3]).unwrap();
        let old = opener.checkpoint();
        sent[10..].iter().for_each(|packet| assert!(open(&mut opener, packet).is_ok()));
        opener.restore(&old);
        sent[10..].iter().for_each(|packet| assert_eq!(open(&mut opener, packet), Err(OpenError::Replay)));
        assert_eq!(open_index(&mut opener, &sent[4]), Ok(9));
    }
}

#[test]
fn the_last_index_opens_and_none_behind_it() {
    for profile in PROFILES {
        let key = key(profile, 1);
        let mut opener = opener_at(&key, SSRC, INDEX_MAX - 3);
        let last = sealed_at(&key, SSRC, INDEX_MAX, b"payload");
        assert_eq!(open_index(&mut opener, &last), Ok(INDEX_MAX));
        assert_eq!(open_index(&mut opener, &last), Err(OpenError::Replay));
        assert_eq!(open_index(&mut opener, &sealed_at(&key, SSRC, 0, b"payload")), Err(OpenError::TooOld));
        assert_eq!(
            open_index(&mut opener, &sealed_at(&key, SSRC, INDEX_MAX - 1, b"payload")),
            Ok(INDEX_MAX - 1)
        );
    }
}

#[test]
fn srtcp_has_a_window_of_its_own() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let sent: Vec<_> = (0..300).map(|_| seal_rtcp(&mut sealer, &rtcp(SSRC, 6)).unwrap()).collect();
        let mut index = |at: usize| open_rtcp(&mut opener, &sent[at]).map(|(index, _)| index);
        assert_eq!(index(5), Ok(5));
        assert_eq!(index(5), Err(OpenError::Replay));
        assert_eq!(index(200), Ok(200));
        assert_eq!(index(73), Ok(73));
        assert_eq!(index(73), Err(OpenError::Replay));
        assert_eq!(index(72), Err(OpenError::TooOld));
        assert_eq!(index(5), Err(OpenError::TooOld));
        let rtp = stream(&mut sealer, 5, 1);
        assert_eq!(open_index(&mut opener, &rtp[0]), Ok(5));
    }
}

#[test]
fn srtcp_ends_with_31_bits() {
    for profile in PROFILES {
        let key = key(profile, 1);
        let mut sealer = sealer_at(&key, SSRC, None, RTCP_INDEX_MAX);
        let sealed = seal_rtcp(&mut sealer, &rtcp(SSRC, 2)).unwrap();
        let mut opener = Opener::new(&key).unwrap();
        assert_eq!(open_rtcp(&mut opener, &sealed), Ok((RTCP_INDEX_MAX, rtcp(SSRC, 2))));
        assert_eq!(open_rtcp(&mut opener, &sealed), Err(OpenError::Replay));
    }
}

#[test]
fn srtcp_without_encryption_is_refused() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let mut sealed = seal_rtcp(&mut sealer, &rtcp(SSRC, 2)).unwrap();
        let at = if profile == PROFILES[0] { sealed.len() - 14 } else { sealed.len() - 4 };
        sealed[at] &= 0x7f;
        assert_eq!(open_rtcp(&mut opener, &sealed), Err(OpenError::NotEncrypted));
        sealed[at] |= 0x80;
        assert_eq!(open_rtcp(&mut opener, &sealed), Ok((0, rtcp(SSRC, 2))));
    }
}
