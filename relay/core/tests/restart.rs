//! A relay that starts again goes on behind all that its predecessor can have sent.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use std::collections::BTreeSet;

use common::{Bench, Out};
use sallyport_core::{Checkpoint, Limits, Reason, Translator};
use sallyport_plan::{CallId, Plan, Profile};
use table::world::*;

const AHEAD: u16 = 8192;
const PROFILES: [Profile; 2] = [Profile::AesCm128HmacSha1_80, Profile::AeadAes128Gcm];

/// A call that the browser follows over the restart.
struct Call {
    bench: Bench,
    browser: Peer,
    profile: Profile,
    sequence: u16,
    leaving: BTreeSet<Vec<u8>>,
}

impl Call {
    fn new(profile: Profile) -> Self {
        let mut bench = Bench::new(4, 8);
        bench.core.install(plan(Some(profile), paths()), bench.now).unwrap();
        let browser = Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER));
        Self { bench, browser, profile, sequence: 65_000, leaving: BTreeSet::new() }
    }

    fn checkpoint(&self) -> Checkpoint {
        self.bench.core.checkpoint_of(CallId(1)).unwrap()
    }

    /// The agent talks, the browser hears it; sequence and timestamp as it hears them.
    fn talk(&mut self, packets: u32) -> Vec<(u16, u32)> {
        let mut heard = Vec::new();
        for _ in 0..packets {
            self.bench.elapse(20_000);
            self.sequence = self.sequence.wrapping_add(1);
            let spoken = g711(2, self.sequence, u32::from(self.sequence) * 160);
            let sealed = self.bench.send(paths().rtp, &spoken.bytes()).forwarded();
            let fresh = self.leaving.insert(sealed[..12].to_vec());
            assert!(fresh, "two payloads under one sequence number");
            let plain = self.browser.open(&sealed);
            assert_eq!(plain[12..], spoken.bytes()[12..]);
            let timestamp = u32::from_be_bytes(plain[4..8].try_into().unwrap());
            heard.push((u16::from_be_bytes([plain[2], plain[3]]), timestamp));
        }
        heard
    }

    /// The agent reports; SRTCP indices are told apart by the browser's replay window.
    fn report(&mut self, times: usize) {
        for _ in 0..times {
            let sealed = self.bench.send(paths().rtcp, &receiver_report(2, &[])).forwarded();
            self.browser.open_rtcp(&sealed);
        }
    }

    /// The relay dies; the next one has the plan and the checkpoint.
    fn restart(&mut self, checkpoint: &Checkpoint) {
        self.bench.core = Translator::new(0, Limits { calls: 4, directions: 8 }, [99; 32]);
        self.bench.now = sallyport_core::Now(5);
        let plan = Plan { version: 9, ..plan(Some(self.profile), paths()) };
        self.bench.core.install(plan, self.bench.now).unwrap();
        self.bench.core.restore(checkpoint, |_| AHEAD, self.bench.now);
    }
}

#[test]
fn no_index_is_used_again_and_the_browser_hears_on() {
    for profile in PROFILES {
        let mut call = Call::new(profile);
        call.talk(3000);
        call.report(5);
        let checkpoint = call.checkpoint();
        let last = call.talk(200).pop().unwrap();
        call.report(7);
        call.restart(&checkpoint);
        let next = call.talk(1).remove(0);
        call.report(3);
        let (at, _) = *call.talk(500).last().unwrap();
        assert_eq!(next.0, last.0.wrapping_sub(200).wrapping_add(AHEAD + 1));
        assert_eq!(next.1, last.1.wrapping_add(160), "the same source keeps its clock");
        assert_eq!(at, next.0.wrapping_add(500));
    }
}

#[test]
fn over_every_rollover_the_browser_follows() {
    let mut call = Call::new(Profile::AeadAes128Gcm);
    for _ in 0..12 {
        call.talk(900);
        let checkpoint = call.checkpoint();
        call.talk(100);
        call.restart(&checkpoint);
        // Sequence numbers come round after 65,536; the headers alone do not tell indices apart any more.
        call.leaving.clear();
    }
    call.talk(100);
}

#[test]
fn a_checkpoint_from_before_the_first_packet_is_enough() {
    for profile in PROFILES {
        let mut call = Call::new(profile);
        let checkpoint = call.checkpoint();
        call.talk(50);
        call.report(4);
        call.restart(&checkpoint);
        call.talk(50);
        call.report(4);
    }
}

#[test]
fn a_checkpoint_from_before_the_keys_is_enough() {
    let profile = Profile::AeadAes128Gcm;
    let mut call = Call::new(profile);
    call.bench = Bench::new(4, 8);
    call.bench.core.install(plan(None, paths()), call.bench.now).unwrap();
    assert_eq!(call.bench.send(paths().rtp, &g711(2, 9, 9).bytes()), Out::Drop(Reason::Early));
    let checkpoint = call.checkpoint();
    call.bench.core.install(Plan { version: 2, ..plan(Some(profile), paths()) }, call.bench.now).unwrap();
    call.talk(50);
    call.report(4);
    call.restart(&checkpoint);
    call.talk(50);
    call.report(4);
}

#[test]
fn a_direction_that_the_checkpoint_does_not_know_jumps_too() {
    let mut call = Call::new(Profile::AesCm128HmacSha1_80);
    call.talk(50);
    call.report(4);
    call.restart(&Checkpoint { call: CallId(1), directions: vec![] });
    call.talk(50);
    call.report(4);
}

#[test]
fn what_was_opened_before_the_checkpoint_stays_opened() {
    for profile in PROFILES {
        let mut call = Call::new(profile);
        let old: Vec<_> = (1..=100).map(|n| call.browser.seal(&g711(1, n, 0).bytes())).collect();
        let report = call.browser.seal_rtcp(&receiver_report(1, &[]));
        for packet in old.iter().chain([&report]) {
            call.bench.send(paths().outside, packet).forwarded();
        }
        let checkpoint = call.checkpoint();
        call.restart(&checkpoint);
        for packet in old.iter().chain([&report]) {
            assert_eq!(call.bench.send(paths().outside, packet), Out::Drop(Reason::Replay));
        }
        let next = call.browser.seal(&g711(1, 101, 0).bytes());
        let plain = call.bench.send(paths().outside, &next).forwarded();
        assert_eq!(plain[2..4], (INWARD_START + 100 + AHEAD).to_be_bytes());
    }
}

#[test]
fn a_checkpoint_of_other_keys_or_of_another_call_does_no_harm() {
    let mut call = Call::new(Profile::AeadAes128Gcm);
    call.talk(10);
    let mut checkpoint = call.checkpoint();
    let mut fresh = Call::new(Profile::AesCm128HmacSha1_80);
    fresh.restart(&checkpoint);
    fresh.talk(20);
    let next = fresh.browser.seal(&g711(1, 7, 0).bytes());
    fresh.bench.send(paths().outside, &next).forwarded();
    checkpoint.call = CallId(77);
    fresh.bench.core.restore(&checkpoint, |_| AHEAD, fresh.bench.now);
    fresh.talk(20);
}

#[test]
fn a_checkpoint_survives_its_wire_format_without_a_key_octet() {
    let mut call = Call::new(Profile::AeadAes128Gcm);
    call.talk(10);
    let checkpoint = call.checkpoint();
    let bytes = postcard::to_allocvec(&checkpoint).unwrap();
    assert_eq!(postcard::from_bytes::<Checkpoint>(&bytes).unwrap(), checkpoint);
    for octet in [FROM_BROWSER, TO_BROWSER] {
        assert!(!bytes.windows(4).any(|window| window == [octet; 4]));
        assert!(!bytes.windows(4).any(|window| window == [!octet; 4]));
    }
}
