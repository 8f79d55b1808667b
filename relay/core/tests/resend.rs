//! What a browser has lost is sent again from here (RFC 4585 section 6.2.1, RFC 4588), and what a browser sends again is taken
//! for what it repeats.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use common::{Bench, Out};
use proptest::prelude::*;
use sallyport_core::{Limits, Now, Reason, Translator, resent_within};
use sallyport_plan::{CallId, Format, Mute, Plan, Profile, Pt, PtMap, Refusal, Resend, Ssrc};
use table::world::*;

const PROFILES: [Profile; 2] = [Profile::AesCm128HmacSha1_80, Profile::AeadAes128Gcm];
const GCM: Profile = Profile::AeadAes128Gcm;
/// SSRCs of our retransmissions, of the browser's stream and of its retransmissions.
const AGAIN: u32 = OUTSIDE_SSRC + 0x200;
const BROWSER: u32 = 5;
const BROWSER_AGAIN: u32 = 6;
/// Payload type of retransmissions outside.
const RTX: u8 = 97;

fn rtx() -> Resend {
    Resend::Rtx { ssrc: Ssrc(AGAIN), payload_types: vec![(Pt(0), Pt(RTX))] }
}

fn with(profile: Profile, resend: Resend) -> Plan {
    let mut plan = plan_with_consent(Some(profile), paths());
    plan.directions[0].payload_types.push(PtMap { from: Pt(RTX), to: Pt(0), format: Format::Rtx(Pt(0)) });
    plan.directions[1].resend = resend;
    plan
}

struct Call {
    bench: Bench,
    browser: Peer,
    /// Sealed octets that left, by SSRC and sequence number.
    left: BTreeMap<(u32, u16), Vec<u8>>,
    sequence: u16,
    spoken: u32,
}

fn key_of(packet: &[u8]) -> (u32, u16) {
    (word(packet, 8), u16::from_be_bytes([packet[2], packet[3]]))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Call {
    fn new(profile: Profile, resend: Resend) -> Self {
        let mut bench = Bench::new(2, 4);
        bench.core.install(with(profile, resend), bench.now).unwrap();
        let browser = Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER));
        Self { bench, browser, left: BTreeMap::new(), sequence: 65_500, spoken: 0 }
    }

    /// No index has two payloads: what leaves under numbers that left before is what left then.
    fn leaves(&mut self, packet: &[u8]) {
        let before = self.left.insert(key_of(packet), packet.to_vec());
        assert!(before.is_none_or(|before| before == packet), "two payloads under one index");
    }

    /// The agent says something: the packet as it left, sealed.
    fn speak(&mut self) -> Vec<u8> {
        self.bench.elapse(5000);
        self.sequence = self.sequence.wrapping_add(1);
        self.spoken += 1;
        let mut spoken = g711(2, self.sequence, self.spoken * 40);
        // Some with all that a header can have.
        spoken.marker = self.sequence.is_multiple_of(3);
        spoken.padding = if self.sequence.is_multiple_of(4) { 4 } else { 0 };
        spoken.csrc = vec![7; usize::from(self.sequence % 2)];
        let sealed = self.bench.send(paths().rtp, &spoken.bytes()).forwarded();
        self.leaves(&sealed);
        sealed
    }

    fn ask(&mut self, lost: &[u16]) -> (Out, Vec<Vec<u8>>) {
        let entries: Vec<(u16, u16)> = lost.iter().map(|number| (*number, 0)).collect();
        let asks = self.browser.seal_rtcp(&nack(BROWSER, OUTSIDE_SSRC, &entries));
        let out = self.bench.send(paths().outside, &asks);
        let sent = self.bench.resends();
        assert!(sent.iter().all(|(to, _)| *to == paths().outside));
        let sent: Vec<Vec<u8>> = sent.into_iter().map(|(_, packet)| packet).collect();
        sent.iter().for_each(|packet| self.leaves(packet));
        (out, sent)
    }
}

/// The packet that a retransmission repeats, as its receiver makes it anew (RFC 4588 section 4).
fn repeated(packet: &[u8]) -> Vec<u8> {
    let head = 12 + 4 * usize::from(packet[0] & 15);
    let mut original = packet[..head].to_vec();
    original[1] &= 0x80;
    original[2..4].copy_from_slice(&packet[head..head + 2]);
    original[8..12].copy_from_slice(&OUTSIDE_SSRC.to_be_bytes());
    original.extend(&packet[head + 2..]);
    original
}

/// Without its padding, which retransmissions leave out.
fn bare(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] & 0x20 != 0 {
        packet.truncate(packet.len() - usize::from(*packet.last().unwrap()));
        packet[0] &= !0x20;
    }
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Of a stream whose packets are lost at random, each is there in the end, once, and the agent is asked for none.
    #[test]
    fn answers_bring_exactly_what_was_lost(lost in prop::collection::vec(any::<bool>(), 1..120), gcm: bool, same: bool) {
        let profile = PROFILES[usize::from(gcm)];
        let mut call = Call::new(profile, if same { Resend::Same } else { rtx() });
        let mut sound = Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER));
        let sealed: Vec<Vec<u8>> = lost.iter().map(|_| call.speak()).collect();
        let wanted: Vec<Vec<u8>> = sealed.iter().map(|packet| sound.open(packet)).collect();
        let came = sealed.iter().zip(&lost).filter(|(_, lost)| !**lost);
        let mut have: BTreeSet<Vec<u8>> = came.map(|(packet, _)| bare(call.browser.open(packet))).collect();
        let missing: Vec<u16> =
            wanted.iter().zip(&lost).filter(|(_, lost)| **lost).map(|(packet, _)| key_of(packet).1).collect();
        let (out, sent) = call.ask(&missing);
        prop_assert_eq!(out, Out::Answered);
        prop_assert_eq!(sent.len(), missing.len());
        for packet in &sent {
            let plain = call.browser.try_open(packet).expect("an index that the browser has not seen");
            let plain = bare(if same { plain } else { repeated(&plain) });
            prop_assert!(have.insert(plain), "none comes twice");
        }
        prop_assert_eq!(have, wanted.into_iter().map(bare).collect());
        prop_assert_eq!(call.bench.counter("nack_answered"), missing.len() as u64);
        prop_assert_eq!(call.bench.counter("nack_forwarded"), 0);
        prop_assert_eq!(call.bench.counter("continuity_broken"), 0);
    }

    /// Whatever is asked for, how often and when, with restarts and new keys between: no index has two payloads.
    #[test]
    fn no_index_has_two_payloads_whatever_is_asked_for(
        steps in prop::collection::vec((0u8..8, 0u16..300, 0u64..400), 1..150), gcm: bool, same: bool,
    ) {
        let profile = PROFILES[usize::from(gcm)];
        let resend = if same { Resend::Same } else { rtx() };
        let mut call = Call::new(profile, resend.clone());
        let mut kept = call.bench.core.checkpoint_of(CallId(1)).unwrap();
        let mut version = 1;
        for (what, back, wait) in steps {
            call.bench.elapse(wait * 1000);
            match what {
                0..=3 => drop(call.speak()),
                4 | 5 => {
                    let last = call.left.keys().filter(|(ssrc, _)| *ssrc == OUTSIDE_SSRC).map(|(_, n)| *n).max();
                    call.ask(&[last.unwrap_or(0).wrapping_sub(back), last.unwrap_or(0)]);
                }
                6 => kept = call.bench.core.checkpoint_of(CallId(1)).unwrap(),
                _ if back < 100 => {
                    call.bench.core = Translator::new(3, Limits { calls: 2, directions: 4 }, [7; 32]);
                    call.bench.core.install(with(profile, resend.clone()), call.bench.now).unwrap();
                    call.bench.core.restore(&kept, |_| 1024, call.bench.now);
                    version = 1;
                    kept = call.bench.core.checkpoint_of(CallId(1)).unwrap();
                }
                // Retransmissions go and come back with another plan.
                _ => {
                    for resend in [Resend::Never, resend.clone()] {
                        version += 1;
                        call.bench.core.install(Plan { version, ..with(profile, resend) }, call.bench.now).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_here_is_asked_of_its_sender() {
    let mut call = Call::new(GCM, rtx());
    let first = key_of(&call.speak()).1;
    for _ in 0..300 {
        call.speak();
    }
    let (out, sent) = call.ask(&[first, first + 299]);
    let forwarded = out.forwarded();
    assert_eq!(sent.len(), 1, "the ring has 256");
    assert_eq!(word(&forwarded, forwarded.len() - 4) >> 16, 65_501, "by the sender's number");
    assert_eq!((call.bench.counter("nack_answered"), call.bench.counter("nack_forwarded")), (1, 1));
    // What is too old is of no use to anybody, and never sent from here.
    call.bench.elapse(1_100_000);
    assert_eq!(call.ask(&[first + 298]).1.len(), 0);
    assert_eq!(call.bench.counter("nack_forwarded"), 2);
}

#[test]
fn without_a_ring_all_is_asked_of_the_sender() {
    let mut call = Call::new(GCM, Resend::Never);
    let number = key_of(&call.speak()).1;
    let (out, sent) = call.ask(&[number]);
    assert!(matches!(out, Out::Rtcp(..)) && sent.is_empty());
    assert_eq!((call.bench.counter("nack_answered"), call.bench.counter("nack_forwarded")), (0, 1));
}

#[test]
fn a_packet_is_sent_again_once_in_a_round_trip() {
    for resend in [rtx(), Resend::Same] {
        let mut call = Call::new(GCM, resend);
        let number = key_of(&call.speak()).1;
        assert_eq!(call.ask(&[number, number]).1.len(), 1);
        let (out, sent) = call.ask(&[number]);
        assert!(sent.is_empty() && out == Out::Answered, "nor is the sender asked");
        call.bench.elapse(50_000);
        assert_eq!(call.ask(&[number]).1.len(), 1);
        assert_eq!((call.bench.counter("nack_answered"), call.bench.counter("nack_limited")), (2, 2));
    }
}

#[test]
fn no_more_is_sent_again_than_half_of_the_stream_beside_a_burst() {
    let mut call = Call::new(GCM, rtx());
    let mut again = 0;
    let mut spoken = 0;
    for _ in 0..40_000 {
        let packet = call.speak();
        spoken += packet.len() as u64 - 16;
        call.bench.elapse(200_000);
        for _ in 0..4 {
            call.bench.elapse(200_000);
            let (_, sent) = call.ask(&[key_of(&packet).1]);
            again += sent.iter().map(|packet| packet.len() as u64 - 16 - 2).sum::<u64>();
        }
        if spoken > 200_000 {
            break;
        }
    }
    assert!(again <= spoken / 2 + 64 * 1024 && again > spoken / 2, "{again} of {spoken}");
    assert!(call.bench.counter("nack_limited") > 0);
}

/// A browser asks, as often as it can, for the smallest packets of a stream of large ones: what leaves within four seconds is
/// less than what a restart steps over.
#[test]
fn a_restart_steps_over_all_that_a_greedy_browser_can_have() {
    let mut call = Call::new(GCM, rtx());
    let mut times: Vec<Now> = Vec::new();
    let mut small = Vec::new();
    for n in 0..8000u32 {
        call.bench.elapse(500);
        let mut spoken = g711(2, (n & 0xffff) as u16, n * 40);
        if n % 2 == 0 {
            spoken.payload = vec![7; 1200];
        }
        let number = key_of(&call.bench.send(paths().rtp, &spoken.bytes()).forwarded()).1;
        if n % 2 == 1 {
            small.push(number);
        }
        if n % 20 == 19 {
            let lost = &small[small.len().saturating_sub(120)..];
            let sent = call.ask(lost).1.len();
            times.extend(std::iter::repeat_n(call.bench.now, sent));
        }
    }
    let most = resent_within(4_000_000);
    assert!(most < 8192);
    assert!(times.len() as u64 <= most && times.len() > 1024, "{} of {most}", times.len());
    assert!(call.bench.counter("nack_declined") > 0);
    assert_eq!(call.bench.counter("nack_answered"), times.len() as u64, "only what has left");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same of any stream, whatever is asked for and when, over plans that take retransmissions away and bring them back.
    #[test]
    fn no_span_has_more_retransmissions_than_are_stepped_over(
        steps in prop::collection::vec((0u8..16, 0u64..30_000, 1usize..250, 1usize..1200), 1..300),
    ) {
        let mut call = Call::new(GCM, rtx());
        let (mut numbers, mut times, mut version) = (Vec::new(), Vec::new(), 1);
        for (what, wait, many, length) in steps {
            call.bench.elapse(wait);
            if what == 0 {
                for resend in [Resend::Never, rtx()] {
                    version += 1;
                    call.bench.core.install(Plan { version, ..with(GCM, resend) }, call.bench.now).unwrap();
                }
            }
            for _ in 0..many {
                call.bench.elapse(100);
                call.sequence = call.sequence.wrapping_add(1);
                call.spoken += 1;
                let spoken = Rtp { payload: vec![7; length], ..g711(2, call.sequence, call.spoken * 40) };
                numbers.push(key_of(&call.bench.send(paths().rtp, &spoken.bytes()).forwarded()).1);
            }
            let lost = numbers[numbers.len().saturating_sub(250)..].to_vec();
            let sent = call.ask(&lost).1.len();
            times.extend(std::iter::repeat_n(call.bench.now.0, sent));
        }
        for (at, begin) in times.iter().enumerate() {
            for span in [0, 10_000, 1_000_000, 4_000_000] {
                let within = times[at..].iter().take_while(|time| *time - begin <= span).count() as u64;
                prop_assert!(within <= resent_within(span), "{within} within {span}");
            }
        }
    }
}

#[test]
fn a_flood_of_numbers_costs_no_more_than_a_compound_may_ask_for() {
    let mut call = Call::new(GCM, rtx());
    let numbers: Vec<u16> = (0..200).map(|_| key_of(&call.speak()).1).collect();
    // Each entry names seventeen, most of them nobody's; what is here lies behind all of them.
    let entries: Vec<(u16, u16)> =
        (0..100).map(|n| (numbers[0].wrapping_sub(20 * n + 300), 0xffff)).collect();
    let asked = [&entries[..], &[(numbers[199], 0)]].concat();
    let asks = call.browser.seal_rtcp(&nack(BROWSER, OUTSIDE_SSRC, &asked));
    assert_eq!(call.bench.send(paths().outside, &asks), Out::Answered);
    assert!(call.bench.resends().is_empty());
    assert_eq!(call.bench.counter("nack_limited"), 100 * 17 + 1 - 256);
}

#[test]
fn retransmissions_keep_their_ssrc_as_long_as_their_key() {
    let mut call = Call::new(GCM, rtx());
    let renamed = Resend::Rtx { ssrc: Ssrc(AGAIN + 1), payload_types: vec![(Pt(0), Pt(RTX))] };
    let plan = Plan { version: 2, ..with(GCM, renamed) };
    assert_eq!(call.bench.core.install(plan.clone(), call.bench.now), Err(Refusal::Malformed));
    let number = key_of(&call.speak()).1;
    assert_eq!(call.ask(&[number]).1.len(), 1, "what ran before runs on");
    let mut plan = plan;
    plan.directions[1].seal = Some(sallyport_plan::Protection::Srtp(key(GCM, 0x55)));
    assert!(call.bench.core.install(plan, call.bench.now).is_ok(), "another key, another stream");
}

/// Retransmissions may be as rare as restarts: their receiver follows however often the relay starts again between two.
#[test]
fn rare_retransmissions_are_opened_after_many_restarts() {
    for profile in PROFILES {
        let mut call = Call::new(profile, rtx());
        let first = key_of(&call.speak()).1;
        let sent = call.ask(&[first]).1;
        call.browser.open(&sent[0]);
        for _ in 0..9 {
            let kept = call.bench.core.checkpoint_of(CallId(1)).unwrap();
            call.bench.core = Translator::new(3, Limits { calls: 2, directions: 4 }, [7; 32]);
            call.bench.core.install(with(profile, rtx()), call.bench.now).unwrap();
            call.bench.core.restore(&kept, |_| 8192, call.bench.now);
            let told = call.bench.resends();
            assert_eq!(told.len(), 1);
            let (to, padding) = &told[0];
            assert_eq!((*to, key_of(padding).0), (paths().outside, AGAIN));
            let padding = call.browser.open(padding);
            assert_eq!((padding[0], padding[1] & 0x7f, &padding[12..]), (0xa0, RTX, &[0, 0, 0, 4][..]));
            assert_eq!(call.bench.counter("nack_answered"), 0);
        }
        let number = key_of(&call.speak()).1;
        let sent = call.ask(&[number]).1;
        assert!(call.browser.try_open(&sent[0]).is_some());
    }
}

#[test]
fn nothing_is_sent_again_without_consent_on_hold_or_of_a_call_that_is_gone() {
    let mut call = Call::new(GCM, rtx());
    let number = key_of(&call.speak()).1;
    let mut held = Plan { version: 2, ..with(GCM, rtx()) };
    held.directions[1].mute = Mute::Held;
    call.bench.core.install(held, call.bench.now).unwrap();
    assert!(call.ask(&[number]).1.is_empty());
    call.bench.core.install(Plan { version: 3, ..with(GCM, rtx()) }, call.bench.now).unwrap();
    call.bench.elapse(60_000);
    assert_eq!(call.ask(&[number]).1.len(), 1);
    // Asked for in time, but consent lapses, or the call ends, before it is sent.
    let number = key_of(&call.speak()).1;
    let asks = call.browser.seal_rtcp(&nack(BROWSER, OUTSIDE_SSRC, &[(number, 0)]));
    call.bench.send(paths().outside, &asks);
    let lapse = call.bench.now;
    while let Some(at) = call.bench.core.poll_timeout() {
        call.bench.now = at;
        call.bench.timeout();
    }
    call.bench.now = lapse;
    assert!(call.bench.resends().is_empty());
    let mut call = Call::new(GCM, rtx());
    let number = key_of(&call.speak()).1;
    let asks = call.browser.seal_rtcp(&nack(BROWSER, OUTSIDE_SSRC, &[(number, 0)]));
    call.bench.send(paths().outside, &asks);
    call.bench.core.remove(CallId(1), call.bench.now).unwrap();
    assert!(call.bench.resends().is_empty());
}

/// A browser's retransmission of a packet.
fn again(of: &Rtp, number: u16) -> Rtp {
    let payload = [&of.sequence.to_be_bytes()[..], &of.payload].concat();
    Rtp { payload_type: RTX, ssrc: BROWSER_AGAIN, sequence: number, payload, ..of.clone() }
}

#[test]
fn what_the_browser_sends_again_is_what_it_repeats() {
    let mut call = Call::new(GCM, rtx());
    let spoken: Vec<Rtp> =
        (0..40u16).map(|n| g711(BROWSER, 65_520u16.wrapping_add(n), u32::from(n) * 160)).collect();
    let lost = |n: usize| n % 7 == 3;
    let mut heard = BTreeMap::new();
    for (n, packet) in spoken.iter().enumerate().filter(|(n, _)| !lost(*n)) {
        let sealed = call.browser.seal(&packet.bytes());
        heard.insert(n, call.bench.send(paths().outside, &sealed).forwarded());
    }
    let before = call.bench.report(0).quality;
    let mut number = 9000;
    let mut resend = |call: &mut Call, packet: &Rtp| {
        number += 1;
        let sealed = call.browser.seal(&again(packet, number).bytes());
        call.bench.send(paths().outside, &sealed)
    };
    for (n, packet) in spoken.iter().enumerate().filter(|(n, _)| lost(*n)) {
        heard.insert(n, resend(&mut call, packet).forwarded());
        assert_eq!(resend(&mut call, packet), Out::Drop(Reason::Repeated), "a second time");
    }
    assert_eq!(resend(&mut call, &spoken[0]), Out::Drop(Reason::Repeated), "what had come");
    let empty = Rtp { payload: vec![], ..spoken[3].clone() };
    assert_eq!(resend(&mut call, &empty), Out::Drop(Reason::Repeated), "padding");
    // One stream, each once, in its place.
    let first = key_of(&heard[&0]).1;
    for (n, packet) in &heard {
        assert_eq!(key_of(packet), (INSIDE_SSRC, first.wrapping_add(*n as u16)));
        assert_eq!(packet[1] & 0x7f, 0);
        assert_eq!(packet[12..], spoken[*n].payload);
    }
    assert_eq!(heard.len(), 40);
    let after = call.bench.report(0).quality;
    assert_eq!((after.received, after.missed), (before.received, 0), "reports speak of the path");
    assert_eq!(call.bench.counter("rtx_recovered"), 6);
    assert_eq!(call.bench.counter("continuity_broken"), 0);
}

#[test]
fn retransmissions_of_nothing_that_is_known_end_here() {
    let mut call = Call::new(GCM, rtx());
    let early = again(&g711(BROWSER, 10, 0), 1);
    let sealed = call.browser.seal(&early.bytes());
    assert_eq!(
        call.bench.send(paths().outside, &sealed),
        Out::Drop(Reason::Repeated),
        "before the first packet"
    );
    let mut short = Rtp { payload: vec![1], ..early };
    short.sequence = 2;
    let sealed = call.browser.seal(&short.bytes());
    assert!(matches!(call.bench.send(paths().outside, &sealed), Out::Drop(Reason::Repeated)));
}
