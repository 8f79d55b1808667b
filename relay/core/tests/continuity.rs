//! Calls of 70,000 packets in which everything happens that has silenced calls elsewhere, at every position around the ends of
//! the sequence space of either side, judged by the library that browsers decrypt with: it refuses no packet, and hears no gap
//! in numbers or time but the hold.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod judge;
mod table;

use common::{Bench, Out};
use judge::{Judge, REPLAY};
use sallyport_core::Reason;
use sallyport_plan::{Mute, Plan, Profile};
use table::world::*;

const AGENT: u32 = 0xa9e2_0002;
const PACKETS: u32 = 70_000;
/// The incoming sequence wraps behind so many packets.
const INCOMING_WRAP: u32 = 30_000;
/// And the outgoing one behind so many.
const OUTGOING_WRAP: u32 = 65_536 - OUTWARD_START as u32;
/// Packets that come while the call is held.
const HELD: u32 = 25;
const FRAME: u64 = 20_000;

/// What happens in front of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The far end holds for half a second, and goes on as if nothing had been.
    Hold,
    /// It holds, and its device numbers its packets anew under the same SSRC.
    HoldAndRestart,
    /// A transfer: another source at another address, by a newer plan.
    Transfer,
    /// Another SSRC in the same place, as music begins.
    Source,
    /// The same SSRC numbers its packets anew in the middle of it: its first packet is in doubt.
    Restart,
    /// The same SSRC goes on with another clock's time.
    Clock,
    /// One packet of long ago.
    Straggler,
}

const TROUBLES: [Trouble; 7] = [
    Trouble::Hold,
    Trouble::HoldAndRestart,
    Trouble::Transfer,
    Trouble::Source,
    Trouble::Restart,
    Trouble::Clock,
    Trouble::Straggler,
];

/// Around the first packet, both wraps, and where the outgoing numbers reach their first half turn.
fn positions() -> Vec<u32> {
    let around = |at: u32| (at - 3..=at + 3).collect::<Vec<_>>();
    let half = 32_768 - u32::from(OUTWARD_START);
    [vec![0, 1, 2, 3, 4, 5, 6], around(half), around(INCOMING_WRAP), around(OUTGOING_WRAP)].concat()
}

struct Call {
    bench: Bench,
    judge: Judge,
    profile: Profile,
    version: u32,
    paths: Paths,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    /// Sequence, timestamp and time of the packet that was heard last.
    heard: Option<(u16, u32, u64)>,
    lost: u32,
}

impl Call {
    fn new(profile: Profile) -> Self {
        let mut bench = Bench::new(1, 2);
        bench.core.install(plan(Some(profile), paths()), bench.now).unwrap();
        Self {
            bench,
            judge: Judge::new(&key(profile, TO_BROWSER)),
            profile,
            version: 1,
            paths: paths(),
            ssrc: AGENT,
            sequence: (65_536 - INCOMING_WRAP) as u16,
            timestamp: 0xffff_0000,
            heard: None,
            lost: 0,
        }
    }

    fn install(&mut self, mute: Mute) {
        self.version += 1;
        let mut plan = Plan { version: self.version, ..plan(Some(self.profile), self.paths) };
        plan.directions[1].mute = mute;
        self.bench.core.install(plan, self.bench.now).unwrap();
    }

    /// The far end says something; what becomes of it.
    fn speak(&mut self) -> (Vec<u8>, Out) {
        self.bench.elapse(FRAME);
        let bytes = g711(self.ssrc, self.sequence, self.timestamp).bytes();
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        let out = self.bench.send(self.paths.rtp, &bytes);
        (bytes, out)
    }

    /// The browser hears it: the next number, and the time that has passed.
    fn is_heard(&mut self, what: &str) {
        let (said, out) = self.speak();
        let heard =
            self.judge.open(&out.forwarded()).unwrap_or_else(|status| panic!("{what}: refused {status}"));
        assert_eq!(heard[12..], said[12..], "{what}");
        assert_eq!(heard[8..12], OUTSIDE_SSRC.to_be_bytes(), "{what}");
        let (sequence, timestamp) =
            (u16::from_be_bytes([heard[2], heard[3]]), u32::from_be_bytes(heard[4..8].try_into().unwrap()));
        let now = self.bench.now.0;
        if let Some((last, latest, at)) = self.heard {
            assert_eq!(sequence, last.wrapping_add(1), "{what}: no gap in numbers");
            let passed = ((now - at) / 125) as u32;
            assert_eq!(timestamp.wrapping_sub(latest), passed, "{what}: the time that has passed");
        }
        self.heard = Some((sequence, timestamp, now));
    }

    fn happens(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Hold | Trouble::HoldAndRestart => {
                self.install(Mute::Held);
                for _ in 0..HELD {
                    assert_eq!(self.speak().1, Out::Drop(Reason::Held));
                }
                self.install(Mute::Open);
                if trouble == Trouble::HoldAndRestart {
                    self.sequence = self.sequence.wrapping_sub(20_000);
                }
            }
            Trouble::Transfer => {
                self.paths.rtp.remote.set_port(self.paths.rtp.remote.port() + 2);
                self.paths.rtcp.remote.set_port(self.paths.rtcp.remote.port() + 2);
                self.install(Mute::Open);
                self.another_source();
            }
            Trouble::Source => self.another_source(),
            Trouble::Restart if self.heard.is_some() => {
                self.sequence = self.sequence.wrapping_add(20_000);
                assert_eq!(self.speak().1, Out::Drop(Reason::OutOfSequence));
                self.lost += 1;
            }
            Trouble::Clock => self.timestamp = self.timestamp.wrapping_mul(5).wrapping_sub(1 << 30),
            Trouble::Straggler if self.heard.is_some() => {
                let old = g711(self.ssrc, self.sequence.wrapping_sub(700), self.timestamp).bytes();
                assert_eq!(self.bench.send(self.paths.rtp, &old), Out::Drop(Reason::OutOfSequence));
                self.lost += 1;
            }
            Trouble::Restart | Trouble::Straggler => {}
        }
    }

    fn another_source(&mut self) {
        self.ssrc += 1;
        self.sequence = self.sequence.wrapping_mul(31).wrapping_add(7);
        self.timestamp = self.timestamp.wrapping_mul(31).wrapping_add(7);
    }
}

/// Each trouble once in a call, and over all calls each trouble at each position.
fn calls(profile: Profile) {
    let positions = positions();
    for turn in 0..positions.len() {
        let mut call = Call::new(profile);
        let mut due: Vec<(u32, Trouble)> = TROUBLES
            .iter()
            .enumerate()
            .map(|(nth, trouble)| (positions[(turn + 4 * nth) % positions.len()], *trouble))
            .collect();
        due.sort_by_key(|(at, _)| *at);
        let mut due = due.into_iter().peekable();
        for at in 0..PACKETS {
            let mut what = format!("turn {turn}, packet {at}");
            while let Some((_, trouble)) = due.next_if(|(due, _)| *due == at) {
                what += &format!(", {trouble:?}");
                call.happens(trouble);
            }
            call.is_heard(&what);
        }
        let counter = |name| call.bench.counter(name);
        assert_eq!(
            (counter("continuity_broken"), counter("drop_index_reuse"), counter("drop_late")),
            (0, 0, 0)
        );
        assert_eq!(counter("forward_rtp"), u64::from(PACKETS));
        assert_eq!(counter("drop_out_of_sequence"), u64::from(call.lost));
    }
}

#[test]
fn no_trouble_anywhere_silences_a_browser_that_speaks_aes_cm() {
    calls(Profile::AesCm128HmacSha1_80);
}

#[test]
fn no_trouble_anywhere_silences_a_browser_that_speaks_gcm() {
    calls(Profile::AeadAes128Gcm);
}

#[test]
fn the_judge_hears_no_packet_twice() {
    let mut call = Call::new(Profile::AeadAes128Gcm);
    let (_, out) = call.speak();
    let bytes = out.forwarded();
    assert!(call.judge.open(&bytes).is_ok());
    assert_eq!(call.judge.open(&bytes), Err(REPLAY));
}
