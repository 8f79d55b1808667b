//! Feedback as a reader of the draft understands it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use sallyport_wire::rtcp;

/// What one packet of feedback says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    first: u16,
    number: u8,
    /// Of each packet, when it arrived: units of 250 us since the reader's zero.
    arrived: Vec<Option<i64>>,
}

/// Reads feedback as section 3.1 of the draft tells it, and nothing of how it was written.
fn read(bytes: &[u8]) -> Read {
    let packets: Vec<_> = rtcp::compound(bytes).collect::<Result<_, _>>().unwrap();
    assert_eq!((packets.len(), packets[0].packet_type, packets[0].count), (1, 205, 15));
    let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (first, count) = (half(12), usize::from(half(14)));
    let reference = i64::from(i32::from_be_bytes([bytes[16], bytes[17], bytes[18], 0]) >> 8);
    let (mut at, mut symbols) = (20, Vec::new());
    while symbols.len() < count {
        let chunk = half(at);
        at += 2;
        match chunk >> 14 {
            0 | 1 => symbols.extend(std::iter::repeat_n(chunk >> 13 & 3, usize::from(chunk & 0x1fff))),
            2 => symbols.extend((0..14).rev().map(|bit| chunk >> bit & 1)),
            _ => symbols.extend((0..7).rev().map(|pair| chunk >> (2 * pair) & 3)),
        }
    }
    // Only a vector may say more than there are, by null bits.
    assert!(symbols[count..].iter().all(|symbol| *symbol == 0) && symbols.len() < count + 14);
    let mut time = reference * 256;
    let arrived = symbols[..count].iter().map(|symbol| {
        let delta = match symbol {
            0 => return None,
            1 => {
                at += 1;
                i64::from(bytes[at - 1])
            }
            2 => {
                at += 2;
                i64::from(half(at - 2).cast_signed())
            }
            _ => panic!("a reserved symbol"),
        };
        time += delta;
        Some(time)
    });
    let arrived = arrived.collect();
    assert!(bytes.len() - at < 4 && bytes[at..].iter().all(|octet| *octet == 0), "padding to a word");
    Read { first, number: bytes[19], arrived }
}

fn all(arrivals: &mut Arrivals) -> Vec<Read> {
    let mut room = [0xee; FEEDBACK_MAX];
    std::iter::from_fn(|| arrivals.write(7, &mut room).map(|length| read(&room[..length]))).collect()
}

#[test]
fn the_octets_are_those_of_the_draft() {
    let mut arrivals = Arrivals::default();
    for (sequence, at) in [(0xfffe, 64_000), (0xffff, 64_250), (1, 65_000), (2, 200_000)] {
        arrivals.arrive(sequence, 0xaabb_ccdd, Now(at));
    }
    let mut room = [0xee; FEEDBACK_MAX];
    let length = arrivals.write(0x0102_0304, &mut room).unwrap();
    let expected = [
        &b"\x8f\xcd\0\x06\x01\x02\x03\x04\xaa\xbb\xcc\xdd"[..],
        // From 65534 on five; 64 ms after zero; the first report; two bits each: 1 1 0 1 2.
        b"\xff\xfe\0\x05\0\0\x01\0\xd4\x60",
        // 0, 250 us, 750 us, 135 ms.
        b"\0\x01\x03\x02\x1c\0",
    ]
    .concat();
    assert_eq!(room[..length], expected);
    assert_eq!(arrivals.write(1, &mut room), None, "once");
}

#[test]
fn what_was_lost_in_front_is_told_and_what_came_late_is_told_again() {
    let mut arrivals = Arrivals::default();
    arrivals.arrive(10, 1, Now(1_000_000));
    assert_eq!(all(&mut arrivals)[0].arrived, [Some(4000)]);
    arrivals.arrive(13, 1, Now(1_100_000));
    let told = all(&mut arrivals);
    assert_eq!((told[0].first, told[0].number), (11, 1));
    assert_eq!(told[0].arrived, [None, None, Some(4400)]);
    arrivals.arrive(12, 1, Now(1_150_000));
    let told = all(&mut arrivals);
    assert_eq!((told[0].first, told[0].arrived.as_slice()), (12, &[Some(4600), Some(4400)][..]));
    assert_eq!(all(&mut arrivals), []);
}

#[test]
fn a_long_silence_begins_another_packet() {
    let mut arrivals = Arrivals::default();
    arrivals.arrive(1, 1, Now(0));
    arrivals.arrive(2, 1, Now(60_000_000));
    let told = all(&mut arrivals);
    assert_eq!(told.len(), 2);
    assert_eq!((told[1].first, told[1].arrived[0]), (2, Some(240_000)));
}

#[test]
fn far_jumps_and_stragglers_cost_no_more_than_the_room() {
    let mut arrivals = Arrivals::default();
    arrivals.arrive(0, 1, Now(1000));
    arrivals.arrive(30_000, 1, Now(2000));
    arrivals.arrive(1, 1, Now(3000));
    let told = all(&mut arrivals);
    let lengths: usize = told.iter().map(|read| read.arrived.len()).sum();
    assert_eq!((lengths, told[0].first), (KEPT, 30_001 - KEPT as u16));
    assert_eq!(told.last().unwrap().arrived.last(), Some(&Some(8)));
    assert_eq!(told.iter().flat_map(|read| &read.arrived).flatten().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Every arrival is told at its time, every loss before the last arrival too, whatever the order; all fits.
    #[test]
    fn what_is_told_is_what_arrived(
        start in any::<u16>(),
        steps in prop::collection::vec(
            (prop_oneof![8 => 1..4i64, 1 => 1..40i64, 1 => -5..0i64], prop_oneof![9 => 0..3000u64, 1 => 0..9_000_000u64], 0..40u8),
            1..300,
        ),
    ) {
        let mut arrivals = Arrivals::default();
        let (mut model, mut told) = (BTreeMap::<i64, i64>::new(), BTreeMap::<i64, Option<i64>>::new());
        let (mut place, mut now, mut first) = (0, 5_000_000, true);
        let mut number = 0;
        let mut tell = |arrivals: &mut Arrivals, highest: i64, told: &mut BTreeMap<_, _>| {
            for read in all(arrivals) {
                assert_eq!(read.number, number);
                number = number.wrapping_add(1);
                let offset = read.first.wrapping_sub(start).wrapping_sub((highest & 0xffff) as u16).cast_signed();
                for (at, arrived) in read.arrived.iter().enumerate() {
                    told.insert(highest + i64::from(offset) + at as i64, *arrived);
                }
            }
        };
        let mut highest = 0;
        for (step, pause, report) in steps {
            if !first { place += step; }
            first = false;
            now += pause;
            arrivals.arrive(start.wrapping_add((place & 0xffff) as u16), 1, Now(now));
            model.insert(place, (now / TICK) as i64);
            highest = highest.max(place);
            if report == 0 || highest - told.keys().next_back().copied().unwrap_or(0) > 400 {
                tell(&mut arrivals, highest, &mut told);
            }
        }
        tell(&mut arrivals, highest, &mut told);
        let lowest = *model.keys().next().unwrap();
        for at in lowest..=highest {
            if let Some(told) = told.get(&at) {
                prop_assert_eq!(told, &model.get(&at).copied(), "{}", at);
            } else {
                // Before the first one that came, only what came is known.
                prop_assert!(at < 0 && !model.contains_key(&at), "{} is not told", at);
            }
        }
    }
}
