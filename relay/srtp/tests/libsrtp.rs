//! The same histories through this crate and through Debian's libsrtp 2.5 (package libsrtp2-dev): same verdicts, same
//! bytes, sealing and opening, SRTP and SRTCP.
//!
//! `SRTP_PACKETS=100000 cargo test --release -p sallyport-srtp --test libsrtp agrees -- --nocapture` runs so many packets a
//! profile, of SRTP and of SRTCP each: with six profiles more than the million that is promised. Otherwise it does 10,000.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as the test does")]

mod foreign;
#[path = "behaviour/packets.rs"]
mod packets;

use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sallyport_plan::{KeyMaterial, Profile};
use sallyport_srtp::{OpenError, Opener, SealError, Sealer};

use foreign::*;
use packets::{ALL, Random, key, open, open_rtcp, rtcp, rtp, seal, seal_rtcp};

type Transform = unsafe extern "C" fn(Session, *mut c_void, *mut c_int) -> c_int;

/// `SRTP_MAX_TRAILER_LEN` and the SRTCP index word.
const TRAILER: usize = 16 + 128 + 4;

/// What became of a packet, in words that both sides share.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Passed(Vec<u8>),
    /// Tag, version, header: libsrtp checks no version and leaves it to the tag.
    Broken,
    Replay,
    Old,
}

/// The library keeps state of its own: one test at a time.
static LIBRARY: Mutex<()> = Mutex::new(());

fn library() -> MutexGuard<'static, ()> {
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session of libsrtp in one direction.
struct Libsrtp(Session);

impl Libsrtp {
    fn new(master: &KeyMaterial, ssrc_type: c_int) -> Self {
        Self(session(master, ssrc_type))
    }

    fn run(&mut self, transform: Transform, packet: &[u8]) -> Verdict {
        let mut bytes = packet.to_vec();
        bytes.resize(packet.len() + TRAILER, 0);
        let mut length = c_int::try_from(packet.len()).unwrap();
        // SAFETY: the session lives, and the buffer has the room behind the packet that the library asks for.
        let status = unsafe { transform(self.0, bytes.as_mut_ptr().cast(), &raw mut length) };
        match status {
            0 => {
                bytes.truncate(usize::try_from(length).unwrap());
                Verdict::Passed(bytes)
            }
            9 => Verdict::Replay,
            10 => Verdict::Old,
            // bad_param (too short), auth_fail, cipher_fail, cant_check (E bit), parse_err (header)
            2 | 7 | 8 | 14 | 21 => Verdict::Broken,
            other => panic!("libsrtp said {other}"),
        }
    }
}

impl Drop for Libsrtp {
    fn drop(&mut self) {
        // SAFETY: made by `srtp_create`, dropped once.
        unsafe { srtp_dealloc(self.0) };
    }
}

fn sealed(result: Result<Vec<u8>, SealError>, theirs: &Verdict) -> Verdict {
    match result {
        Ok(packet) => Verdict::Passed(packet),
        // libsrtp tells what was sealed from what lies too far back; both are one to us.
        Err(SealError::IndexReuse) if *theirs == Verdict::Old => Verdict::Old,
        Err(SealError::IndexReuse) => Verdict::Replay,
        Err(error @ (SealError::Room | SealError::Malformed | SealError::Exhausted | SealError::Sources)) => {
            panic!("{error:?}")
        }
    }
}

fn opened(result: Result<Vec<u8>, OpenError>, theirs: &Verdict) -> Verdict {
    match result {
        Ok(packet) => Verdict::Passed(packet),
        Err(OpenError::Replay) => Verdict::Replay,
        Err(OpenError::TooOld) => Verdict::Old,
        Err(OpenError::Tag) => Verdict::Broken,
        // What we refuse for its form, before all else, may be an old packet too and be refused as such.
        Err(OpenError::Short | OpenError::Malformed | OpenError::NotEncrypted) => match theirs {
            Verdict::Replay | Verdict::Old => theirs.clone(),
            Verdict::Passed(_) | Verdict::Broken => Verdict::Broken,
        },
    }
}

/// One side by this crate, the other by libsrtp.
struct Both {
    sealer: Sealer,
    opener: Opener,
    protect: Libsrtp,
    unprotect: Libsrtp,
}

impl Both {
    fn new(profile: Profile, seed: u8) -> Self {
        let key = key(profile, seed);
        let (sealer, opener) = (Sealer::new(&key).unwrap(), Opener::new(&key).unwrap());
        Self {
            sealer,
            opener,
            protect: Libsrtp::new(&key, ANY_OUTBOUND),
            unprotect: Libsrtp::new(&key, ANY_INBOUND),
        }
    }

    fn seal(&mut self, plain: &[u8]) -> Verdict {
        let theirs = self.protect.run(srtp_protect, plain);
        let ours = sealed(seal(&mut self.sealer, plain), &theirs);
        assert_eq!(ours, theirs, "sealing {plain:02x?}");
        ours
    }

    fn open(&mut self, packet: &[u8]) -> Verdict {
        let theirs = self.unprotect.run(srtp_unprotect, packet);
        let ours = opened(open(&mut self.opener, packet).map(|(_, plain)| plain), &theirs);
        assert_eq!(ours, theirs, "opening {packet:02x?}");
        ours
    }

    fn seal_rtcp(&mut self, plain: &[u8]) -> Verdict {
        let theirs = self.protect.run(srtp_protect_rtcp, plain);
        let ours = sealed(seal_rtcp(&mut self.sealer, plain), &theirs);
        assert_eq!(ours, theirs, "sealing {plain:02x?}");
        ours
    }

    fn open_rtcp(&mut self, packet: &[u8]) -> Verdict {
        let theirs = self.unprotect.run(srtp_unprotect_rtcp, packet);
        let ours = opened(open_rtcp(&mut self.opener, packet).map(|(_, plain)| plain), &theirs);
        assert_eq!(ours, theirs, "opening {packet:02x?}");
        ours
    }
}

/// Packets a profile and direction.
fn packets() -> u64 {
    std::env::var("SRTP_PACKETS").map_or(10_000, |count| count.parse().unwrap())
}

/// What a network does: loses, doubles, overtakes, damages.
struct Network {
    held: Vec<Vec<u8>>,
    log: Vec<Vec<u8>>,
}

impl Network {
    fn new() -> Self {
        Self { held: Vec::new(), log: Vec::new() }
    }

    /// Takes a packet in; what comes out now.
    fn carry(&mut self, packet: Vec<u8>, random: &mut Random) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        if random.one_in(50) {
            let mut damaged = packet.clone();
            let at = random.below(damaged.len() as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
            out.push(damaged);
        }
        if random.one_in(50) {
            out.push(packet[..random.below(packet.len() as u64) as usize].to_vec());
        }
        if random.one_in(12) && self.held.len() < 200 {
            self.held.push(packet.clone());
        } else if !random.one_in(10) {
            out.push(packet.clone());
        }
        if random.one_in(12) && !self.held.is_empty() {
            out.push(self.held.swap_remove(random.below(self.held.len() as u64) as usize));
        }
        if random.one_in(15) && !self.log.is_empty() {
            out.push(self.log[random.below(self.log.len() as u64) as usize].clone());
        }
        if self.log.len() < 400 {
            self.log.push(packet);
        } else {
            let at = random.below(400) as usize;
            self.log[at] = packet;
        }
        out
    }
}

/// The next sequence number that a source asks to have sealed: mostly one on; or late, again, or after a gap.
fn next_sequence(last: u64, random: &mut Random) -> u64 {
    match random.below(40) {
        0..=29 => last + 1,
        30..=33 => last.saturating_sub(random.below(140)),
        34..=36 => last + random.below(200),
        37 => last + random.below(2000),
        38 => last + random.below(30_000),
        _ => last,
    }
}

/// What became of the packets of a history.
#[derive(Debug, Default)]
struct Tally {
    opened: u64,
    refused: u64,
    unsealed: u64,
}

impl Tally {
    fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed(_) => self.opened += 1,
            Verdict::Broken | Verdict::Replay | Verdict::Old => self.refused += 1,
        }
    }
}

/// Packets of one history. Losses add up, and behind half a turn a receiver has lost the stream for good: then both only
/// refuse, which is soon shown.
const HISTORY: u64 = 2_500;

#[test]
fn srtp_agrees_on_every_packet() {
    let _library = library();
    for (nth, profile) in (0..).zip(ALL) {
        let mut tally = Tally::default();
        for seed in 0..packets() / HISTORY {
            srtp_history(profile, Random(41 + seed + (nth << 32)), &mut tally);
        }
        println!("{}: {tally:?}", profile.name());
        assert!(tally.opened > packets() / 2);
        assert!(tally.refused > packets() / 20 && tally.unsealed > packets() / 40);
    }
}

fn srtp_history(profile: Profile, mut random: Random, tally: &mut Tally) {
    let mut both = Both::new(profile, random.next() as u8);
    let mut network = Network::new();
    // Starting below, at and above the middle, and just before a wrap. Nothing is late before the first: see
    // `only_libsrtp_seals_more_than_half_a_turn_ahead`.
    let sources = [(0x11, 5), (0x2222_2222, 0x7ff0), (0xffff_ffff, 0x8000), (4, 65_530)];
    let mut highest = [None; 4];
    for _ in 0..HISTORY {
        let at = random.below(4) as usize;
        let (ssrc, first) = sources[at];
        let index = highest[at].map_or(first, |last| next_sequence(last, &mut random).max(first));
        highest[at] = highest[at].max(Some(index));
        let longest = if random.one_in(10) { 1400 } else { 200 };
        let payload = random.below(longest) as usize;
        let plain = random.rtp(ssrc, index as u16, payload);
        let Verdict::Passed(packet) = both.seal(&plain) else {
            tally.unsealed += 1;
            continue;
        };
        for packet in network.carry(packet, &mut random) {
            tally.count(&both.open(&packet));
        }
    }
}

#[test]
fn srtcp_agrees_on_every_packet() {
    let _library = library();
    for (nth, profile) in (0..).zip(ALL) {
        let mut tally = Tally::default();
        for seed in 0..packets() / HISTORY {
            srtcp_history(profile, Random(51 + seed + (nth << 32)), &mut tally);
        }
        println!("{}: {tally:?}", profile.name());
        assert!(tally.opened > packets() / 2 && tally.refused > packets() / 20);
    }
}

fn srtcp_history(profile: Profile, mut random: Random, tally: &mut Tally) {
    let mut both = Both::new(profile, random.next() as u8);
    let mut network = Network::new();
    let ssrcs = [0x11, 0x2222_2222, 0xffff_ffff];
    for ssrc in ssrcs {
        // RFC 3711 section 3.4 starts at index 0, libsrtp at 1.
        seal_rtcp(&mut both.sealer, &rtcp(ssrc, 0)).unwrap();
    }
    for _ in 0..HISTORY {
        let ssrc = ssrcs[random.below(3) as usize];
        let longest = if random.one_in(10) { 300 } else { 40 };
        let plain = rtcp(ssrc, random.below(longest) as u16);
        let Verdict::Passed(packet) = both.seal_rtcp(&plain) else { panic!("a report was not sealed") };
        for packet in network.carry(packet, &mut random) {
            tally.count(&both.open_rtcp(&packet));
        }
    }
}

/// Histories that have gone wrong elsewhere: the same verdict on every packet.
#[test]
fn rollover_stories_agree() {
    let _library = library();
    let stories: [&[u64]; 8] = [
        // Reordered over the wrap.
        &[65_533, 65_535, 65_536, 65_537, 65_534, 65_538],
        // All before the wrap lost.
        &[65_536, 65_537, 65_538],
        // A loss that covers the wrap.
        &[60_000, 80_000, 80_001],
        // Gaps up to, at and over half a turn, and what follows.
        &[70_000, 70_000 + 0x8000, 70_001 + 0x1_0000],
        &[70_000, 70_001 + 0x8000, 70_002 + 0x8000, 70_003 + 0x1_0000],
        &[10, 50_000, 65_540, 100_000],
        // A late one from before the wrap, twice.
        &[65_500, 65_600, 65_520, 65_520, 65_700, 65_530],
        // In the first turn, from the far end.
        &[0, 65_535, 1, 65_536, 65_537],
    ];
    for profile in ALL {
        for story in stories {
            let mut both = Both::new(profile, 1);
            for index in story {
                both.open(&packets::sealed_at(&key(profile, 1), 9, *index, b"payload"));
            }
        }
    }
}

/// The one difference, on purpose: in the first turn libsrtp seals a packet more than half a turn ahead. A receiver that
/// follows RFC 3711 appendix A to the letter would not open it, and could lose the stream for good.
#[test]
fn only_libsrtp_seals_more_than_half_a_turn_ahead() {
    let _library = library();
    for profile in ALL {
        let mut both = Both::new(profile, 1);
        both.seal(&rtp(1, 2, b"payload"));
        let far = rtp(1, 65_534, b"payload");
        assert!(matches!(both.protect.run(srtp_protect, &far), Verdict::Passed(_)));
        assert_eq!(seal(&mut both.sealer, &far), Err(SealError::IndexReuse));
    }
}

#[test]
fn under_every_backend() {
    packets::in_other_backends("under_every_backend");
}
