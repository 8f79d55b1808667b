use super::*;

const FIRST: u16 = START + 1;

fn at(ms: u64) -> Now {
    Now(ms * 1000)
}

fn put(
    stream: &mut Stream,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    clock: u32,
    now: Now,
) -> Result<Place, Reason> {
    stream.place(&Numbers { ssrc, sequence, timestamp, clock, event: false }, now)
}

fn stream() -> Stream {
    Stream::new([0, 1])
}

#[test]
fn losses_and_reordering_stay_as_they_are() {
    let mut stream = stream();
    let mut out = |sequence: u16| put(&mut stream, 1, sequence, 0, 8000, at(0)).unwrap().sequence;
    assert_eq!([out(100), out(101), out(105), out(103)], [0, 1, 5, 3].map(|n| FIRST + n));
    assert_eq!(stream.lost(), 2);
}

#[test]
fn first_numbers_lie_far_below_a_rollover() {
    for name in [[0, 0], [0x2f, 0xff], [0x30, 0], [0xff, 0xff]] {
        let mut stream = Stream::new(name);
        let place = put(&mut stream, 1, 0xfffe, 9, 8000, at(0)).unwrap();
        assert!((START..0x4000).contains(&place.sequence), "{place:?}");
        assert_eq!(place.timestamp, 9);
        let mut out =
            |sequence: u16| put(&mut stream, 1, sequence, 9, 8000, at(0)).map(|place| place.sequence);
        assert_eq!(out(1), Ok(place.sequence + 3));
        assert_eq!(out(0xfffe - 124), Ok(place.sequence - 124), "overtaken first packets leave");
    }
}

#[test]
fn a_new_source_goes_on_where_the_old_one_was() {
    let mut stream = stream();
    put(&mut stream, 1, 10, 1600, 8000, at(0)).unwrap();
    let place = put(&mut stream, 2, 60000, 77, 8000, at(100)).unwrap();
    assert_eq!(place, Place { sequence: FIRST + 1, timestamp: 1600 + 800 });
    assert_eq!(put(&mut stream, 2, 59999, 0, 8000, at(100)), Err(Reason::Late));
    let place = put(&mut stream, 2, 60001, 77 + 160, 8000, at(120)).unwrap();
    assert_eq!(place, Place { sequence: FIRST + 2, timestamp: 2560 });
}

#[test]
fn edges_between_loss_and_restart() {
    for (step, follows) in
        [(1000, true), (1001, false), (-127, true), (-128, false), (32767, false), (i16::MIN, false)]
    {
        let mut stream = stream();
        put(&mut stream, 1, 30000, 0, 8000, at(0)).unwrap();
        let sequence = 30000u16.wrapping_add_signed(step);
        let first = put(&mut stream, 1, sequence, 0, 8000, at(20));
        if follows {
            assert_eq!(first.unwrap().sequence, FIRST.wrapping_add_signed(step), "step {step}");
            continue;
        }
        assert_eq!(first, Err(Reason::OutOfSequence), "step {step}");
        let second = put(&mut stream, 1, sequence.wrapping_add(1), 77, 8000, at(40)).unwrap();
        assert_eq!(second, Place { sequence: FIRST + 1, timestamp: 77 }, "step {step}: its clock went on");
    }
}

#[test]
fn a_straggler_disturbs_nothing() {
    for far in [10_000 - 128, 10_000 - 1000, 10_000 + 1001, 10_000 + 32_768u16] {
        let mut stream = stream();
        for n in 0..10u16 {
            let sent = put(&mut stream, 1, 10_000 + n, u32::from(n) * 160, 8000, at(u64::from(n) * 20));
            assert_eq!(sent.unwrap(), Place { sequence: FIRST + n, timestamp: u32::from(n) * 160 });
            // Each overtakes one that is far away: never are two of those in sequence without one of the others between.
            let straggler = put(&mut stream, 1, far + n, 9_000_000, 8000, at(u64::from(n) * 20));
            assert_eq!(straggler, Err(Reason::OutOfSequence), "{far} + {n}");
        }
        assert_eq!(stream.lost(), 0);
    }
}

#[test]
fn a_straggler_of_the_source_before_does_not_bring_it_back() {
    let mut stream = stream();
    put(&mut stream, 1, 10, 0, 8000, at(0)).unwrap();
    put(&mut stream, 2, 500, 9000, 8000, at(20)).unwrap();
    assert_eq!(put(&mut stream, 1, 11, 160, 8000, at(30)), Err(Reason::OutOfSequence));
    assert_eq!(
        put(&mut stream, 2, 501, 9160, 8000, at(40)).unwrap(),
        Place { sequence: FIRST + 2, timestamp: 320 }
    );
    assert_eq!(put(&mut stream, 1, 12, 320, 8000, at(50)), Err(Reason::OutOfSequence), "none between");
    let back = put(&mut stream, 1, 13, 480, 8000, at(60)).unwrap();
    assert_eq!(back, Place { sequence: FIRST + 3, timestamp: 480 }, "two in sequence do");
}

#[test]
fn timestamps_that_no_time_explains_are_rebased() {
    // Step of the source after 60 ms in units, and what leaves.
    for (step, leaves) in [
        (480, 480),
        (80_480, 80_480),
        (80_481, 480),
        (-8000, -8000),
        (-8001, 480),
        (0x7fff_0000, 480),
        (-0x7fff_0000, 480),
    ] {
        let mut stream = stream();
        put(&mut stream, 1, 10, 100_000, 8000, at(0)).unwrap();
        let next = put(&mut stream, 1, 11, 100_000u32.wrapping_add_signed(step), 8000, at(60)).unwrap();
        let timestamp = 100_000u32.wrapping_add_signed(leaves);
        assert_eq!(next, Place { sequence: FIRST + 1, timestamp }, "{step}");
        let rebased = step != leaves;
        let late = put(&mut stream, 1, 9, 99_840, 8000, at(60)).map(|place| place.sequence);
        assert_eq!(late, if rebased { Err(Reason::Late) } else { Ok(FIRST - 1) }, "{step}");
    }
}

#[test]
fn a_long_silence_is_explained_by_its_time() {
    for hours in [1, 70, 80, 150u64] {
        let mut stream = stream();
        put(&mut stream, 1, 10, 0, 8000, at(0)).unwrap();
        let passed = hours * 3_600_000;
        let timestamp = ((passed * 8) & 0xffff_ffff) as u32;
        let place = put(&mut stream, 1, 11, timestamp, 8000, at(passed)).unwrap();
        assert_eq!(place, Place { sequence: FIRST + 1, timestamp }, "{hours} h");
    }
}

#[test]
fn another_clock_in_the_same_source_goes_on_by_the_time_in_its_units() {
    let mut stream = stream();
    put(&mut stream, 1, 10, 1600, 8000, at(0)).unwrap();
    // A sender that counts as RFC 7160 asks is followed, and its losses stay.
    let place = put(&mut stream, 1, 12, 1600 + 1920, 48_000, at(40)).unwrap();
    assert_eq!(place, Place { sequence: FIRST + 2, timestamp: 3520 });
    assert_eq!(put(&mut stream, 1, 11, 1760, 8000, at(41)).unwrap().sequence, FIRST + 1);
    // One that takes another clock's time is not.
    let place = put(&mut stream, 1, 13, 77, 8000, at(60)).unwrap();
    assert_eq!(place, Place { sequence: FIRST + 3, timestamp: 3520 + 160 });
    assert_eq!(put(&mut stream, 1, 14, 77 + 160, 8000, at(80)).unwrap().timestamp, 3520 + 320);
}

#[test]
fn an_event_keeps_its_timestamp_whatever_happens() {
    let event = |stream: &mut Stream, ssrc, sequence, timestamp, ms| {
        let packet = Numbers { ssrc, sequence, timestamp, clock: 8000, event: true };
        stream.place(&packet, at(ms)).map(|place| (place.sequence - FIRST, place.timestamp))
    };
    let mut stream = stream();
    put(&mut stream, 1, 10, 1600, 8000, at(0)).unwrap();
    assert_eq!(event(&mut stream, 1, 11, 1760, 20), Ok((1, 1760)));
    assert_eq!(
        put(&mut stream, 1, 12, 1920, 8000, at(40)).unwrap().timestamp,
        1920,
        "sound goes on beside it"
    );
    assert_eq!(event(&mut stream, 1, 13, 1760, 60), Ok((3, 1760)));
    // The source numbers its packets anew in the middle of it, twenty seconds later.
    assert_eq!(event(&mut stream, 1, 5000, 1760, 20_000), Err(Reason::OutOfSequence));
    assert_eq!(event(&mut stream, 1, 5001, 1760, 20_020), Ok((4, 1760)));
    // Events that count on a clock of their own leave at the sound's, all packets of one alike.
    assert_eq!(event(&mut stream, 1, 5002, 0x7000_0000, 20_040), Ok((5, 1920 + 160_000)));
    assert_eq!(event(&mut stream, 1, 5003, 0x7000_0000, 20_060), Ok((6, 1920 + 160_000)));
    assert_eq!(event(&mut stream, 1, 5003, 0x7000_0000, 20_060), Ok((6, 1920 + 160_000)), "a copy too");
    let sound = put(&mut stream, 1, 5004, 1920 + 160_160, 8000, at(20_060)).unwrap();
    assert_eq!(
        sound,
        Place { sequence: FIRST + 7, timestamp: 1920 + 160_160 },
        "the sound's clock is not theirs"
    );
    // Another source begins with one: what follows has its clock.
    assert_eq!(event(&mut stream, 2, 9, 50, 20_160), Ok((8, 1920 + 160_960)));
    assert_eq!(put(&mut stream, 2, 10, 50 + 960, 8000, at(20_280)).unwrap().timestamp, 1920 + 161_920);
}

#[test]
fn packets_that_were_held_leave_no_gap_and_are_no_loss() {
    let mut stream = stream();
    put(&mut stream, 1, 10, 100, 8000, at(0)).unwrap();
    for n in 11..5000 {
        stream.hold(1, n);
    }
    let place = put(&mut stream, 1, 5000, 800_100, 8000, at(90_000)).unwrap();
    assert_eq!(place, Place { sequence: FIRST + 1, timestamp: 800_100 });
    assert_eq!((stream.lost(), stream.source()), (0, Some(1)));
    stream.hold(2, 7);
    assert_eq!(stream.source(), None, "the new source has no place yet");
    let place = put(&mut stream, 2, 8, 0, 8000, at(90_020)).unwrap();
    assert_eq!(place, Place { sequence: FIRST + 2, timestamp: 800_260 });
}

#[test]
fn foreign_payload_types_disturb_nothing() {
    let mut stream = stream();
    put(&mut stream, 1, 10, 0, 8000, at(0)).unwrap();
    stream.skip(1, 11);
    stream.skip(9, 40_000);
    assert_eq!(put(&mut stream, 1, 12, 0, 8000, at(40)).unwrap().sequence, FIRST + 2);
    assert_eq!((stream.lost(), stream.source()), (0, Some(1)));
}

#[test]
fn a_long_run_of_foreign_payload_types_leaves_no_gap() {
    for skipped in [1001, 32_768, 40_000, 65_535, 200_000u32] {
        let mut stream = stream();
        put(&mut stream, 1, 10, 0, 8000, at(0)).unwrap();
        for n in 1..=skipped {
            stream.skip(1, ((10 + n) & 0xffff) as u16);
        }
        let next = ((11 + skipped) & 0xffff) as u16;
        let place = put(&mut stream, 1, next, skipped * 160, 8000, at(u64::from(skipped) * 20)).unwrap();
        assert_eq!(place, Place { sequence: FIRST + 1, timestamp: skipped * 160 }, "{skipped}");
        assert_eq!(stream.lost(), 0);
    }
}

#[test]
fn wraps_without_a_step() {
    let mut stream = stream();
    for n in 0..140_000u32 {
        let place = put(&mut stream, 1, (n & 0xffff) as u16, n * 160, 8000, at(u64::from(n) * 20)).unwrap();
        assert_eq!(place, Place { sequence: low(n + u32::from(FIRST)), timestamp: n * 160 });
    }
    assert_eq!(stream.lost(), 0);
    assert_eq!(
        stream.origin(),
        Some(Origin {
            source: 1,
            offset: u32::from(FIRST),
            floor: u32::from(START) - 126,
            last: 139_999 + u32::from(FIRST),
        })
    );
}

#[test]
fn goes_on_behind_a_checkpoint() {
    let mut stream = stream();
    put(&mut stream, 1, 10, 100, 8000, at(0)).unwrap();
    let kept = stream.checkpoint();
    let mut next = Stream::new([0, 1]);
    next.restore(&kept, 500, at(1000));
    assert_eq!((next.source(), next.origin()), (Some(1), None));
    let place = put(&mut next, 1, 60_000, 420, 8000, at(1020)).unwrap();
    assert_eq!(place, Place { sequence: FIRST + 501, timestamp: 420 }, "the same source keeps its clock");
    let mut other = Stream::new([0, 1]);
    other.restore(&kept, 500, at(1000));
    let place = put(&mut other, 2, 60_000, 420, 8000, at(1020)).unwrap();
    assert_eq!(place, Place { sequence: FIRST + 501, timestamp: 260 });
    let mut unused = Stream::new([0, 1]);
    unused.restore(&Stream::new([0, 1]).checkpoint(), 500, at(0));
    assert_eq!(
        put(&mut unused, 2, 7, 8, 8000, at(0)).unwrap(),
        Place { sequence: FIRST + 500, timestamp: 8 }
    );
}
