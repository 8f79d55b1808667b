//! Digits that control has a direction send: named events in the stream that the agent hears anyway.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Bench, Out};
use sallyport_core::{Digit, Reason};
use sallyport_plan::{CallId, Mute, Plan, Profile};
use sallyport_wire::rtp::Header;
use table::world::*;

const PROFILE: Profile = Profile::AeadAes128Gcm;
const BROWSER: u32 = 0xb0b0_0001;
const EVENT_TYPE: u8 = 101;

fn digits(codes: &[u8]) -> Vec<Digit> {
    codes.iter().map(|event| Digit { event: *event, duration: 100 }).collect()
}

impl Bench {
    /// Packets of digits that are due by now.
    fn dialled(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while self.core.poll_dial().is_some_and(|at| at <= self.now) {
            self.core.handle_dials(self.now, &mut |flow, bytes| {
                assert_eq!(*flow, paths().rtp);
                sent.push(bytes.to_vec());
            });
        }
        sent
    }
}

/// All that left inside, in order: sequence numbers and one SSRC without a gap. Events: code, packets, ends, durations at 8 kHz.
fn events(sent: &[Vec<u8>]) -> Vec<(u8, usize, usize, u16)> {
    let mut events: Vec<(u32, (u8, usize, usize, u16))> = Vec::new();
    let first = Header::parse(&sent[0]).unwrap().sequence();
    for (at, bytes) in sent.iter().enumerate() {
        let header = Header::parse(bytes).unwrap();
        assert_eq!((header.ssrc(), header.sequence()), (INSIDE_SSRC, first.wrapping_add(at as u16)));
        if header.payload_type() != EVENT_TYPE {
            continue;
        }
        let block = &bytes[12..];
        let duration = u16::from_be_bytes([block[2], block[3]]);
        let begins = events.last().is_none_or(|(timestamp, _)| *timestamp != header.timestamp());
        assert_eq!(bytes[1] & 0x80 != 0, begins, "a marker where one begins");
        if begins {
            events.push((header.timestamp(), (block[0], 0, 0, 0)));
        }
        let (_, event) = events.last_mut().unwrap();
        assert!(event.0 == block[0] && duration >= event.3);
        *event = (event.0, event.1 + 1, event.2 + usize::from(block[1] & 0x80 != 0), duration);
    }
    events.into_iter().map(|(_, event)| event).collect()
}

#[test]
fn digits_of_control_leave_in_the_stream_and_sound_is_held_meanwhile() {
    for sealed in [false, true] {
        let mut bench = Bench::new(1, 2);
        let plan = if sealed { plan_sealed_inside(PROFILE) } else { plan(Some(PROFILE), paths()) };
        bench.core.install(plan, bench.now).unwrap();
        let mut browser = Peer::new(&key(PROFILE, FROM_BROWSER), &key(PROFILE, TO_BROWSER));
        let mut agent = Peer::new(&key(PROFILE, FROM_AGENT), &key(PROFILE, TO_AGENT));
        let mut heard: Vec<Vec<u8>> = Vec::new();
        let mut held = 0;
        for n in 0..100u16 {
            bench.elapse(10_000);
            if n == 21 {
                bench.core.dial(CallId(1), INWARD, &digits(&[1, 11]), bench.now);
            }
            if n == 60 {
                bench.core.dial(CallId(1), INWARD, &digits(&[5]), bench.now);
            }
            let mut open = |bytes: &[u8]| if sealed { agent.open(bytes) } else { bytes.to_vec() };
            heard.extend(bench.dialled().iter().map(|bytes| open(bytes)));
            if n % 2 == 0 {
                let spoken = g711(BROWSER, 500 + n / 2, 80 * u32::from(n));
                match bench.send(paths().outside, &browser.seal(&spoken.bytes())) {
                    Out::Rtp(_, bytes) => {
                        let bytes = open(&bytes);
                        let timestamp = Header::parse(&bytes).unwrap().timestamp();
                        assert_eq!(timestamp, 80 * u32::from(n), "the source's own, {n}");
                        heard.push(bytes);
                    }
                    out => {
                        assert_eq!(out, Out::Drop(Reason::Held));
                        held += 1;
                    }
                }
            }
        }
        assert_eq!(events(&heard), [(1, 7, 3, 800), (11, 7, 3, 800), (5, 7, 3, 800)]);
        assert!((18..=21).contains(&held), "120 ms of each digit: {held}");
        let report = bench.report(0);
        assert_eq!((report.packets, report.lost), (heard.len() as u64, 0));
        let counters = ["continuity_broken", "digit_lost", "event_rtp"].map(|name| bench.counter(name));
        assert_eq!(counters, [0, 0, 21]);
    }
}

#[test]
fn a_browser_that_is_silent_does_not_keep_digits_back() {
    let mut bench = Bench::new(1, 2);
    bench.core.install(plan(Some(PROFILE), paths()), bench.now).unwrap();
    bench.core.dial(CallId(1), INWARD, &digits(&[9]), bench.now);
    let mut heard = Vec::new();
    for _ in 0..40 {
        heard.extend(bench.dialled());
        bench.elapse(5000);
    }
    assert_eq!(events(&heard), [(9, 7, 3, 800)]);
    // Its first packet goes on behind them, as late as it is.
    let mut browser = Peer::new(&key(PROFILE, FROM_BROWSER), &key(PROFILE, TO_BROWSER));
    let spoken = g711(BROWSER, 7, 0x8000_0000);
    heard.push(bench.send(paths().outside, &browser.seal(&spoken.bytes())).forwarded());
    let timestamp = |at: usize| Header::parse(&heard[at]).unwrap().timestamp();
    assert_eq!(timestamp(7).wrapping_sub(timestamp(0)), 200 * 8);
    events(&heard);
    assert_eq!(bench.core.poll_dial(), None);
}

#[test]
fn digits_that_cannot_leave_are_counted() {
    let mut bench = Bench::new(1, 2);
    let held = |version, mute| {
        let mut plan = Plan { version, ..plan(Some(PROFILE), paths()) };
        plan.directions[0].mute = mute;
        plan
    };
    bench.core.install(held(1, Mute::Open), bench.now).unwrap();
    bench.core.dial(CallId(1), INWARD, &digits(&[1; 100]), bench.now);
    assert_eq!(bench.counter("digit_lost"), 36, "so many may wait");
    assert_eq!(bench.dialled().len(), 1);
    bench.core.install(held(2, Mute::Held), bench.now).unwrap();
    bench.elapse(20_000);
    assert_eq!((bench.dialled().len(), bench.counter("digit_lost")), (0, 100));
    assert_eq!(bench.core.poll_dial(), None);
    // Sound goes on when it may, and digits do.
    bench.core.install(held(3, Mute::Open), bench.now).unwrap();
    let mut browser = Peer::new(&key(PROFILE, FROM_BROWSER), &key(PROFILE, TO_BROWSER));
    let spoken = |sequence| g711(BROWSER, sequence, 160 * u32::from(sequence)).bytes();
    bench.send(paths().outside, &browser.seal(&spoken(1))).forwarded();
    bench.core.dial(CallId(1), INWARD, &digits(&[2]), bench.now);
    assert_eq!(bench.dialled().len(), 1);
    // One of another call, a direction without events, and a call that ends meanwhile.
    bench.core.dial(CallId(2), INWARD, &digits(&[2]), bench.now);
    assert_eq!(bench.counter("digit_lost"), 101);
    bench.core.remove(CallId(1), bench.now);
    bench.elapse(20_000);
    assert_eq!((bench.dialled().len(), bench.core.poll_dial()), (0, None));
}
