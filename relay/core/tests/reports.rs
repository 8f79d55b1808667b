//! Reports of our own, and what reports tell, with simulated time (RFC 3550 section 6).

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Bench, Out};
use sallyport_core::{Limits, Now, Translator};
use sallyport_plan::{CallId, Mute, Passage, Plan, Profile, Protection, Told};
use sallyport_wire::rtcp::{self, BYE, RR, SDES, SR};
use table::world::*;

const GCM: Profile = Profile::AeadAes128Gcm;
const SECOND: u64 = 1_000_000;
const BROWSER: u32 = 0xb0b0_0001;
const AGENT: u32 = 0xa9e2_0002;
/// 2026 in NTP's seconds.
const EPOCH: u64 = 3_976_214_400 << 32;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A call whose both ends talk; what the relay says by itself meanwhile, by when and to whom.
struct Call {
    bench: Bench,
    browser: Peer,
    sequence: u16,
    said: Vec<(Now, bool, Vec<u8>)>,
}

impl Call {
    fn new() -> Self {
        let mut bench = Bench::new(1, 2);
        bench.core = Translator::new(3, Limits { calls: 1, directions: 2 }, [7; 32]).with_epoch(EPOCH);
        bench.core.install(plan(Some(GCM), paths()), bench.now).unwrap();
        let browser = Peer::new(&key(GCM, FROM_BROWSER), &key(GCM, TO_BROWSER));
        Self { bench, browser, sequence: 60_000, said: vec![] }
    }

    /// Both talk for some seconds, of 50 packets each; of the agent's those are lost that `lost` says.
    fn talk(&mut self, seconds: u16, lost: impl Fn(u16) -> bool) {
        for n in 0..seconds * 50 {
            self.bench.elapse(20_000);
            self.sequence = self.sequence.wrapping_add(1);
            let timestamp = u32::from(self.sequence) * 160;
            let spoken = self.browser.seal(&g711(BROWSER, self.sequence, timestamp).bytes());
            self.bench.send(paths().outside, &spoken).forwarded();
            if !lost(n) {
                self.bench.send(paths().rtp, &g711(AGENT, self.sequence, timestamp).bytes()).forwarded();
            }
            self.listen();
        }
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 50 {
            self.bench.elapse(20_000);
            self.listen();
        }
    }

    fn listen(&mut self) {
        for (flow, bytes) in self.bench.reports() {
            let outside = flow == paths().outside;
            assert!(outside || flow == paths().rtcp);
            let bytes = if outside { self.browser.open_rtcp(&bytes) } else { bytes };
            self.said.push((self.bench.now, outside, bytes));
        }
    }

    /// Since the last time, to whoever is outside or inside.
    fn said(&mut self, outside: bool) -> Vec<(Now, Vec<u8>)> {
        let said = self.said.iter().filter(|(_, to, _)| *to == outside);
        let said = said.map(|(at, _, bytes)| (*at, bytes.clone())).collect();
        self.said.retain(|(_, to, _)| *to != outside);
        said
    }

    fn browser_reports(&mut self, report: &[u8]) -> Vec<u8> {
        let sealed = self.browser.seal_rtcp(report);
        self.bench.send(paths().outside, &sealed).forwarded()
    }

    fn agent_reports(&mut self, report: &[u8]) -> Vec<u8> {
        let sealed = self.bench.send(paths().rtcp, report).forwarded();
        self.browser.open_rtcp(&sealed)
    }
}

fn kinds(bytes: &[u8]) -> Vec<u8> {
    rtcp::compound(bytes).map(|packet| packet.unwrap().packet_type).collect()
}

#[test]
fn a_silent_leg_is_spoken_for_in_the_rfc_s_time() {
    let mut call = Call::new();
    let begin = call.bench.now;
    call.talk(600, |_| false);
    let told = call.said.len() as u64;
    for (outside, own, peer) in [(true, OUTSIDE_SSRC, BROWSER), (false, INSIDE_SSRC, AGENT)] {
        let said = call.said(outside);
        let mut gaps: Vec<u64> = said.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
        assert!((3_200_000..5_100_000).contains(&said[0].0.since(begin)));
        assert!(gaps.iter().all(|gap| (2 * SECOND..6_200_000).contains(gap)), "{gaps:?}");
        let mean = gaps.iter().sum::<u64>() / gaps.len() as u64;
        assert!((3_800_000..4_400_000).contains(&mean), "{mean}");
        gaps.sort_unstable();
        gaps.dedup();
        assert!(gaps.len() > 50, "at random");
        for (at, bytes) in said {
            assert_eq!(kinds(&bytes), [SR, SDES]);
            assert_eq!((bytes[0], word(&bytes, 4), word(&bytes, 28)), (0x81, own, peer));
            // Everybody has sent as many packets as 20 ms have passed, each of 16 octets.
            let packets = (at.since(begin) / 20_000) as u32;
            assert_eq!((word(&bytes, 20), word(&bytes, 24)), (packets, packets * 16));
            let ntp = u64::from_be_bytes(bytes[8..16].try_into().unwrap());
            assert_eq!(ntp, EPOCH + ((u128::from(at.0) << 32) / 1_000_000) as u64);
            assert_eq!(word(&bytes, 32), 0, "nothing is lost");
            let name = if outside { "22220002" } else { "11110001" };
            assert_eq!(bytes[52..], description(own, name));
        }
    }
    assert_eq!(call.bench.counter("report_rtcp"), told);
}

#[test]
fn timestamps_run_on_between_packets() {
    let mut call = Call::new();
    call.talk(1, |_| false);
    let last = u32::from(call.sequence) * 160;
    let left = call.bench.now;
    call.wait(6);
    let (at, bytes) = call.said(true).remove(0);
    assert_eq!(word(&bytes, 16), last + (at.since(left) * 8 / 1000) as u32);
    call.wait(60);
    assert!(call.said(true).len() <= 2, "who sends nothing and hears nothing has nothing to tell");
}

#[test]
fn blocks_tell_what_arrived_since_the_last_one() {
    let mut call = Call::new();
    call.talk(40, |n| n % 10 == 9);
    let blocks = call.said(false);
    let (_, last) = blocks.last().unwrap();
    let lost = word(last, 32) & 0x00ff_ffff;
    // What is lost is known with the next packet that comes.
    let expected = word(last, 36) - 60_000;
    assert_eq!(lost, (expected - 1) / 10);
    assert!(blocks.iter().skip(1).all(|(_, bytes)| (20..=30).contains(&bytes[32])), "a tenth of 256");
    assert_eq!(word(last, 44), 0, "the agent has sent no report");
    call.talk(20, |_| false);
    let (_, last) = call.said(false).pop().unwrap();
    assert_eq!((last[32], word(&last, 32) & 0x00ff_ffff >= lost), (0, true), "none since");
}

#[test]
fn who_reports_is_not_spoken_for() {
    let mut call = Call::new();
    for _ in 0..10 {
        call.talk(5, |_| false);
        call.agent_reports(&receiver_report(AGENT, &[]));
    }
    assert!(call.said(true).len() <= 1, "at the most one, before the agent's first");
    assert!(call.said(false).len() > 8, "the browser is silent");
    call.talk(12, |_| false);
    assert_eq!(call.said(true).len(), 0);
    call.talk(20, |_| false);
    assert!((3..=8).contains(&call.said(true).len()), "silent again");
}

#[test]
fn nothing_is_said_without_keys_without_media_or_as_a_stranger() {
    let mut call = Call::new();
    call.wait(60);
    assert_eq!(call.said, []);
    let mut early = Bench::new(1, 2);
    early.core.install(plan(None, paths()), early.now).unwrap();
    early.send(paths().rtp, &g711(AGENT, 1, 1).bytes());
    early.elapse(10 * SECOND);
    let said = early.reports();
    assert!(said.iter().all(|(flow, _)| *flow == paths().rtcp), "there are no keys for the browser");
    assert_eq!(said.len(), 1, "that something came is told, though it went nowhere");
    let mut plain = plan(None, paths());
    for direction in &mut plain.directions {
        (direction.open, direction.seal) = (Some(Protection::Plain), Some(Protection::Plain));
        direction.passage = Passage::Transparent;
        direction.payload_types.retain(|map| map.from == map.to);
    }
    let mut bench = Bench::new(1, 2);
    bench.core.install(plain, bench.now).unwrap();
    for n in 0..3000u16 {
        bench.elapse(20_000);
        bench.send(paths().rtp, &g711(AGENT, n, 1).bytes()).forwarded();
        assert_eq!(bench.reports(), []);
    }
}

#[test]
fn on_hold_the_receiver_still_reports() {
    let mut call = Call::new();
    let mut held = Plan { version: 2, ..plan(Some(GCM), paths()) };
    held.directions[1].mute = Mute::Held;
    call.bench.core.install(held, call.bench.now).unwrap();
    for n in 0..1000u16 {
        call.bench.elapse(20_000);
        call.bench.send(paths().rtp, &g711(AGENT, n, 1).bytes());
        call.listen();
    }
    let said = call.said(false);
    assert!(said.len() >= 3 && said.iter().all(|(_, bytes)| kinds(bytes) == [RR, SDES]));
    assert_eq!(call.said(true), []);
}

#[test]
fn round_trips_are_told_of_both_legs() {
    let mut call = Call::new();
    call.talk(8, |_| false);
    // The browser answers a report of ours 30 ms after it left, having kept it for 10.
    let (at, report) = call.said(true).pop().unwrap();
    let mut answer = receiver_report(BROWSER, &[Block { ssrc: OUTSIDE_SSRC, highest: word(&report, 36) }]);
    answer[24..28].copy_from_slice(&report[10..14]);
    answer[28..32].copy_from_slice(&(65_536u32 / 100).to_be_bytes());
    call.bench.now = Now(at.0 + 30_000).max(call.bench.now);
    let kept = (call.bench.now.since(at) - 20_000) * 65_536 / SECOND;
    answer[28..32].copy_from_slice(&(kept as u32).to_be_bytes());
    let forwarded = call.browser_reports(&answer);
    assert_eq!(kinds(&forwarded), [RR, SDES]);
    let trip = call.bench.report(0).quality.round_trip_us.unwrap();
    assert!((19_980..20_020).contains(&trip), "{trip}");
    assert_eq!(call.bench.report(1).quality.round_trip_us, None, "the agent has told nothing");
    let told = call.bench.report(1).quality.told;
    assert_eq!(told, Some(Told { fraction: 0x19, lost: 5, jitter_us: 9 * 125 }), "of what we sent there");
}

#[test]
fn answers_to_reports_reach_whose_reports_they_are() {
    let mut call = Call::new();
    call.talk(1, |_| false);
    let mut report = sender_report(AGENT, 9, &[]);
    report[8..16].copy_from_slice(&0x0102_0304_0506_0708u64.to_be_bytes());
    let heard = call.agent_reports(&report);
    assert_eq!(heard[8..16], report[8..16], "the agent's clock");
    let highest = u32::from(OUTWARD_START) + 10;
    let mut answer = receiver_report(BROWSER, &[Block { ssrc: OUTSIDE_SSRC, highest }]);
    answer[24..28].copy_from_slice(&report[10..14]);
    answer[31] = 77;
    call.bench.elapse(50_000);
    let heard = call.browser_reports(&answer);
    assert_eq!((word(&heard, 24), word(&heard, 28)), (0x0304_0506, 77), "goes on, and tells the agent");
    let trip = call.bench.report(0).quality.round_trip_us.unwrap();
    assert!((48_000..50_000).contains(&trip), "and us of the way to the browser: {trip}");
    answer[24..28].copy_from_slice(&[9; 4]);
    let heard = call.browser_reports(&answer);
    assert_eq!((word(&heard, 24), word(&heard, 28)), (0, 0), "what nobody sent is not answered");
}

#[test]
fn blocks_of_ours_answer_the_peer_s_last_report() {
    let mut call = Call::new();
    call.talk(1, |_| false);
    let mut report = sender_report(AGENT, 9, &[]);
    report[8..16].copy_from_slice(&0x0102_0304_0506_0708u64.to_be_bytes());
    call.agent_reports(&report);
    let begin = call.bench.now;
    call.talk(6, |_| false);
    let (at, bytes) = call.said(false).remove(0);
    let delay = at.since(begin) * 65_536 / SECOND;
    assert_eq!((word(&bytes, 44), word(&bytes, 48)), (0x0304_0506, delay as u32));
}

#[test]
fn losses_of_another_source_s_time_are_not_told_to_the_next() {
    let mut call = Call::new();
    call.talk(1, |_| false);
    let lost_of = |bytes: &[u8]| word(bytes, 12) & 0x00ff_ffff;
    let last = u32::from(OUTWARD_START) + 49;
    let report = |highest, lost: u8| {
        let mut report = receiver_report(BROWSER, &[Block { ssrc: OUTSIDE_SSRC, highest }]);
        report[15] = lost;
        report
    };
    assert_eq!(lost_of(&call.browser_reports(&report(last, 7))), 7);
    call.bench.send(paths().rtp, &g711(AGENT + 1, 9, 9).bytes()).forwarded();
    let heard = call.browser_reports(&report(last + 1, 9));
    assert_eq!((word(&heard, 8), lost_of(&heard)), (AGENT + 1, 2));
    assert_eq!(lost_of(&call.browser_reports(&report(last + 1, 12))), 5);
}

#[test]
fn a_goodbye_ends_the_plain_leg() {
    let mut call = Call::new();
    call.talk(1, |_| false);
    let farewells = call.bench.core.remove(CallId(1), call.bench.now).unwrap().farewells;
    let [(flow, bytes)] = farewells.as_slice() else { panic!("one plain leg: {farewells:?}") };
    assert_eq!((*flow, kinds(bytes)), (paths().rtcp, vec![SR, SDES, BYE]));
    assert_eq!(word(bytes, bytes.len() - 4), INSIDE_SSRC);
    let mut unused = Call::new();
    let farewells = unused.bench.core.remove(CallId(1), unused.bench.now).unwrap().farewells;
    assert_eq!(farewells, [], "nobody was greeted");
}

#[test]
fn a_removed_call_says_nothing_more_and_its_slot_s_next_owner_begins_anew() {
    let mut call = Call::new();
    call.talk(1, |_| false);
    call.bench.core.remove(CallId(1), call.bench.now).unwrap();
    call.wait(10);
    assert_eq!(call.said, []);
    assert_eq!(call.bench.core.poll_report(), None, "no timer is left");
    call.bench.core.install(plan(Some(GCM), paths()), call.bench.now).unwrap();
    assert!(call.bench.core.poll_report() >= Some(call.bench.now.plus(3 * SECOND)));
    assert!(matches!(call.bench.send(paths().rtcp, &receiver_report(1, &[])), Out::Rtcp(..)));
}
