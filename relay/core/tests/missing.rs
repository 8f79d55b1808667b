//! What a browser's picture loses on its way is asked for from here (RFC 4585 section 6.2.1), whatever the inside asks for.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use common::{Bench, Out};
use proptest::prelude::*;
use sallyport_core::Reason;
use sallyport_plan::{Format, Mute, Plan, Profile, Protection, Pt, PtMap};
use sallyport_wire::rtcp;
use table::world::*;

const GCM: Profile = Profile::AeadAes128Gcm;
/// SSRCs of the browser's stream and of its retransmissions, and their payload type.
const BROWSER: u32 = 5;
const BROWSER_AGAIN: u32 = 6;
const RTX: u8 = 97;

fn with(nack: bool, rtx: bool) -> Plan {
    let mut plan = plan(Some(GCM), paths());
    plan.directions[0].extensions.nack = nack;
    if rtx {
        let map = PtMap { from: Pt(RTX), to: Pt(0), format: Format::Rtx(Pt(0)) };
        plan.directions[0].payload_types.push(map);
    }
    plan
}

struct Call {
    bench: Bench,
    browser: Peer,
    again: u16,
    /// What it has sent, as it keeps it.
    sealed: BTreeMap<u16, Vec<u8>>,
}

/// What a compound of ours wants: packets, and whether a picture.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    lost: Vec<u16>,
    picture: bool,
}

impl Call {
    fn new(plan: Plan) -> Self {
        let mut bench = Bench::new(2, 4);
        bench.core.install(plan, bench.now).unwrap();
        let browser = Peer::new(&key(GCM, FROM_BROWSER), &key(GCM, TO_BROWSER));
        Self { bench, browser, again: 900, sealed: BTreeMap::new() }
    }

    fn packet(number: u16) -> Rtp {
        g711(BROWSER, number, u32::from(number.wrapping_sub(65_000)) * 160)
    }

    /// The browser sends a packet, and it gets lost.
    fn lose(&mut self, number: u16) {
        let sealed = self.browser.seal(&Self::packet(number).bytes());
        self.sealed.insert(number, sealed);
    }

    /// The same, or once more, and it arrives.
    fn speak(&mut self, number: u16) -> Out {
        if !self.sealed.contains_key(&number) {
            self.lose(number);
        }
        self.bench.send(paths().outside, &self.sealed[&number])
    }

    fn send(&mut self, packet: &Rtp) -> Out {
        let sealed = self.browser.seal(&packet.bytes());
        self.bench.send(paths().outside, &sealed)
    }

    /// The browser sends one again.
    fn repeat(&mut self, number: u16) -> Out {
        self.again = self.again.wrapping_add(1);
        let of = Self::packet(number);
        let payload = [&of.sequence.to_be_bytes()[..], &of.payload].concat();
        self.send(&Rtp { payload_type: RTX, ssrc: BROWSER_AGAIN, sequence: self.again, payload, ..of })
    }

    /// What the browser is asked for now.
    fn asked(&mut self) -> Vec<Asked> {
        let sent = self.bench.reports();
        let outside = sent.iter().filter(|(to, _)| *to == paths().outside);
        outside.filter_map(|(_, bytes)| Self::read(&self.browser.open_rtcp(bytes))).collect()
    }

    fn read(bytes: &[u8]) -> Option<Asked> {
        let mut asked = Asked { lost: vec![], picture: false };
        for packet in rtcp::compound(bytes).map(Result::unwrap) {
            let body = &bytes[packet.body()];
            match (packet.packet_type, packet.count) {
                (rtcp::RTPFB, 1) => {
                    let names = [&OUTSIDE_SSRC.to_be_bytes()[..], &BROWSER.to_be_bytes()].concat();
                    assert_eq!(body[..8], names);
                    for entry in body[8..].chunks_exact(4) {
                        let number = |at: usize| u16::from_be_bytes([entry[at], entry[at + 1]]);
                        let behind = (0..16u16).filter(|bit| number(2) >> bit & 1 == 1);
                        asked.lost.push(number(0));
                        asked.lost.extend(behind.map(|bit| number(0).wrapping_add(bit + 1)));
                    }
                }
                (rtcp::PSFB, 1) => asked.picture = true,
                _ => {}
            }
        }
        Some(asked).filter(|asked| asked.picture || !asked.lost.is_empty())
    }
}

fn number(out: Out) -> u16 {
    let bytes = out.forwarded();
    u16::from_be_bytes([bytes[2], bytes[3]])
}

fn lost(numbers: &[u16]) -> Vec<Asked> {
    vec![Asked { lost: numbers.to_vec(), picture: false }]
}

#[test]
fn what_is_missing_is_asked_for_and_leaves_in_its_place() {
    for rtx in [true, false] {
        let mut call = Call::new(with(true, rtx));
        let first = number(call.speak(65_534));
        call.speak(2);
        assert_eq!(call.asked(), [], "it may have been overtaken");
        call.bench.elapse(5_000);
        assert_eq!(number(call.speak(1)), first.wrapping_add(3));
        call.bench.elapse(5_000);
        assert_eq!(call.asked(), lost(&[65_535, 0]));
        for (at, missing) in [(1, 65_535u16), (2, 0)] {
            let filled = if rtx { call.repeat(missing) } else { call.speak(missing) };
            let filled = filled.forwarded();
            assert_eq!(u16::from_be_bytes([filled[2], filled[3]]), first.wrapping_add(at));
            assert_eq!(filled[12..], Call::packet(missing).payload);
        }
        call.bench.elapse(900_000);
        assert_eq!(call.asked(), [], "once is enough");
        assert_eq!(call.bench.counter("nack_asked"), 2);
        assert_eq!(call.bench.counter("continuity_broken"), 0);
        assert_eq!(call.bench.report(0).lost, 0);
    }
}

#[test]
fn nobody_is_asked_who_sends_nothing_again_or_is_on_hold() {
    let mut call = Call::new(with(false, true));
    call.speak(1);
    call.speak(3);
    call.bench.elapse(100_000);
    assert_eq!(call.asked(), []);
    let mut call = Call::new(with(true, true));
    call.speak(1);
    call.speak(3);
    let mut held = Plan { version: 2, ..with(true, true) };
    held.directions[0].mute = Mute::Held;
    call.bench.core.install(held, call.bench.now).unwrap();
    call.bench.elapse(100_000);
    assert_eq!(call.asked(), []);
    assert_eq!(call.speak(6), Out::Drop(Reason::Held));
    call.bench.elapse(100_000);
    assert_eq!(call.asked(), []);
    call.bench.core.install(Plan { version: 3, ..with(true, true) }, call.bench.now).unwrap();
    call.speak(7);
    call.speak(9);
    call.bench.elapse(10_000);
    assert_eq!(call.asked(), lost(&[8]), "from the next gap on");
}

#[test]
fn what_never_comes_is_given_up_and_a_picture_asked_for() {
    let mut call = Call::new(with(true, true));
    call.speak(1);
    call.speak(4);
    let (mut times, mut pictures) = (0, 0);
    for _ in 0..300 {
        call.bench.elapse(5_000);
        for asked in call.asked() {
            assert!(asked.picture || asked.lost == [2, 3]);
            times += usize::from(!asked.picture);
            pictures += usize::from(asked.picture);
        }
    }
    assert_eq!((times, pictures), (8, 1));
    assert_eq!((call.bench.counter("nack_asked"), call.bench.counter("nack_given_up")), (16, 2));
    assert_eq!(call.repeat(2), Out::Drop(Reason::Repeated), "too late");
}

#[test]
fn what_this_leg_does_not_carry_is_not_missing() {
    let mut call = Call::new(with(true, true));
    call.speak(1);
    let other = Rtp { payload_type: 55, ..Call::packet(2) };
    assert_eq!(call.send(&other), Out::Drop(Reason::PayloadType));
    call.speak(3);
    call.bench.elapse(100_000);
    assert_eq!(call.asked(), []);
}

#[test]
fn the_inside_need_not_ask_for_what_is_asked_for_already() {
    let mut call = Call::new(with(true, true));
    let first = number(call.speak(1));
    call.speak(3);
    let asks = nack(2, INSIDE_SSRC, &[(first.wrapping_add(1), 0)]);
    assert_eq!(call.bench.send(paths().rtcp, &asks), Out::Answered);
    assert_eq!((call.bench.counter("nack_limited"), call.bench.counter("nack_forwarded")), (1, 0));
    // What got lost behind us is another matter.
    let asks = nack(2, INSIDE_SSRC, &[(first, 0)]);
    let out = call.bench.send(paths().rtcp, &asks).forwarded();
    assert_eq!(Call::read(&call.browser.open_rtcp(&out)).unwrap().lost, [1]);
}

/// At the bandwidth of pictures a round trip is longer than the window in which a sound's packets may be late.
#[test]
fn a_retransmission_fills_a_gap_of_hundreds_of_packets_ago() {
    for sealed in [false, true] {
        let mut plan = with(true, true);
        if sealed {
            plan.directions[0].seal = Some(Protection::Srtp(key(GCM, TO_AGENT)));
        }
        let mut call = Call::new(plan);
        let first = number(call.speak(1));
        for n in 3..=403 {
            call.bench.elapse(500);
            call.speak(n);
        }
        let out = call.repeat(2);
        if sealed {
            // A receiver of SRTP takes nothing from so far behind (RFC 3711 section 3.3.2).
            assert_eq!(out, Out::Drop(Reason::Repeated));
        } else {
            assert_eq!(number(out), first.wrapping_add(1));
        }
        assert_eq!(call.repeat(2), Out::Drop(Reason::Repeated));
        assert_eq!(call.bench.counter("continuity_broken"), 0);
        assert_eq!(call.bench.counter("drop_index_reuse"), 0);
        assert_eq!(number(call.speak(404)), first.wrapping_add(403));
    }
}

#[test]
fn no_retransmission_is_where_a_stream_goes_on_behind_a_hold() {
    let mut call = Call::new(with(false, true));
    let first = number(call.speak(10));
    call.speak(12);
    let mut held = Plan { version: 2, ..with(false, true) };
    held.directions[0].mute = Mute::Held;
    call.bench.core.install(held, call.bench.now).unwrap();
    assert_eq!(call.speak(13), Out::Drop(Reason::Held));
    call.bench.core.install(Plan { version: 3, ..with(false, true) }, call.bench.now).unwrap();
    assert_eq!(call.repeat(11), Out::Drop(Reason::Repeated));
    assert_eq!(number(call.speak(15)), first.wrapping_add(3), "the hold leaves no gap");
    assert_eq!(call.repeat(14), Out::Drop(Reason::Repeated), "what was before it is gone");
    // The same after a restart of ours.
    let kept = call.bench.core.checkpoint_of(sallyport_plan::CallId(1)).unwrap();
    let mut next = Call::new(with(false, true));
    (next.browser, next.sealed) = (call.browser, call.sealed);
    next.bench.core.restore(&kept, |_| 1024, next.bench.now);
    next.again = call.again;
    assert_eq!(next.repeat(14), Out::Drop(Reason::Repeated));
    assert_eq!(number(next.speak(16)), first.wrapping_add(3 + 1024 + 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A tenth of what the browser sends is lost, retransmissions among it, and some is overtaken: all arrives once, in its
    /// place, and no packet is asked for that has come.
    #[test]
    fn a_stream_that_loses_a_tenth_arrives_whole(chances in prop::collection::vec(0u8..20, 300..600), rtx: bool) {
        let mut call = Call::new(with(true, rtx));
        let mut chances = chances.into_iter().cycle();
        let mut lose = || chances.next().unwrap() < 2;
        let first = number(call.speak(0));
        let mut heard: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        let mut came = BTreeSet::from([0]);
        let mut hear = |out: Out| {
            let bytes = out.forwarded();
            let place = u16::from_be_bytes([bytes[2], bytes[3]]).wrapping_sub(first);
            assert!(heard.insert(place, bytes[12..].to_vec()).is_none(), "{place} came twice");
        };
        let mut under_way: Vec<(u64, u16)> = Vec::new();
        for n in 1..=600u16 {
            call.bench.elapse(2_000);
            call.lose(n);
            // No gap behind the last ones: nobody would know of it.
            if n > 400 || !lose() {
                came.insert(n);
                hear(call.speak(n));
            }
            for asked in call.asked() {
                prop_assert!(!asked.picture && asked.lost.iter().all(|number| !came.contains(number)));
                under_way.extend(asked.lost.iter().map(|number| (call.bench.now.0 + 30_000, *number)));
            }
            let now = call.bench.now.0;
            for (_, number) in under_way.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
                // Of a packet as it left the browser's index must be recent (RFC 3711 section 3.3.2).
                if n > 400 || !rtx || !lose() {
                    came.insert(number);
                    let out = if rtx { call.repeat(number) } else { call.speak(number) };
                    hear(out);
                }
            }
        }
        prop_assert_eq!(heard.len(), 600);
        for (place, payload) in heard {
            prop_assert_eq!(payload, Call::packet(place).payload);
        }
        prop_assert_eq!(call.bench.counter("continuity_broken"), 0);
        prop_assert_eq!(call.bench.counter("nack_given_up"), 0);
    }
}
