//! What protecting and unprotecting one packet costs, by backend, beside ring and RustCrypto in the same run.
//!
//! `cargo bench -p sallyport-srtp --bench suites -- [times] [sessions] [instructions]`, all three without a word.
//!
//! - **times**: medians of ns a packet, bursts of 32 under one key, frames 2,048 octets apart, descriptors made within the
//!   time but for the rows that say bare. Ratios are those of trials taken in turn.
//! - **sessions**: 10,000 keys in random order, fetched into the cache four packets ahead and not.
//! - **instructions**: exact, by single-stepping one burst; free of noise, the same on every run.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails as a test does")]

#[cfg(target_arch = "x86_64")]
mod stepping;

use std::hint::black_box;
use std::time::Instant;

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sallyport_srtp::suites::{AHEAD, Backend, Batch, Desc, Suite, protect_ahead, unprotect_ahead};

const BURST: usize = 32;
const FRAME: usize = 2048;
/// XDP's headroom, Ethernet, IPv4, UDP.
const OFFSET: usize = 256 + 42;
const HEADER: usize = 12;
const SIZES: [usize; 3] = [20, 160, 1200];
const SSRC: u32 = 0x1234_5678;
const INDEX: u64 = 0x1_0000;
const NEVER: usize = usize::MAX;

/// What to measure.
trait Candidate {
    fn tag(&self) -> usize;
    /// One burst, keys by the numbers in `which`.
    fn run(&self, frames: &mut [u8], which: &[u32], length: usize, open: bool);

    /// Ticks that one burst takes.
    fn time(&self, frames: &mut [u8], which: &[u32], length: usize, open: bool) -> u64 {
        let from = ticks();
        self.run(frames, which, length, open);
        ticks() - from
    }
}

/// A suite under one of our backends; one for each session.
struct Ours {
    suites: Vec<Suite>,
    ahead: usize,
}

impl Ours {
    fn new(backend: Backend, gcm: bool, sessions: usize, ahead: usize) -> Self {
        let one = || match gcm {
            true => Suite::gcm(backend, &[7; 16], &[9; 12]).expect("supported"),
            false => Suite::aes_cm(backend, &[7; 16], &[8; 20], &[9; 14]).expect("supported"),
        };
        Self { suites: (0..sessions).map(|_| one()).collect(), ahead }
    }

    fn burst<'a>(&'a self, frames: &'a mut [u8], which: &[u32], length: usize) -> Batch<'a> {
        let mut burst = Batch::new();
        for (at, (frame, suite)) in frames.chunks_exact_mut(FRAME).zip(which).enumerate() {
            if let Some(next) = which.get(at.saturating_add(2 * self.ahead.min(AHEAD))) {
                self.suites[*next as usize].prefetch();
            }
            let suite = &self.suites[*suite as usize];
            let packet = &mut frame[OFFSET..OFFSET + length];
            match Desc::rtp(suite, packet, HEADER, SSRC, INDEX) {
                Ok(desc) => assert!(burst.push(desc).is_ok()),
                Err(_) => panic!("fits"),
            }
        }
        burst
    }
}

/// The same with descriptors made outside the time: the bare crypto.
struct Ready(Ours);

impl Candidate for Ready {
    fn tag(&self) -> usize {
        self.0.tag()
    }

    fn run(&self, frames: &mut [u8], which: &[u32], length: usize, open: bool) {
        self.0.run(frames, which, length, open);
    }

    fn time(&self, frames: &mut [u8], which: &[u32], length: usize, open: bool) -> u64 {
        let mut burst = self.0.burst(frames, which, length);
        let descs = black_box(burst.descs());
        let from = ticks();
        let refused = if open { unprotect_ahead(descs, AHEAD) } else { protect_ahead(descs, AHEAD) };
        let spent = ticks() - from;
        assert_eq!(refused, 0);
        spent
    }
}

impl Candidate for Ours {
    fn tag(&self) -> usize {
        self.suites[0].tag_len()
    }

    fn run(&self, frames: &mut [u8], which: &[u32], length: usize, open: bool) {
        let mut burst = self.burst(frames, which, length);
        let refused = if open {
            unprotect_ahead(burst.descs(), self.ahead)
        } else {
            protect_ahead(burst.descs(), self.ahead)
        };
        assert_eq!(refused, 0);
    }
}

/// ring, its keys inline in one array.
struct Ring {
    keys: Vec<(LessSafeKey, [u8; 12])>,
    ahead: usize,
}

impl Ring {
    fn new(sessions: usize, ahead: usize) -> Self {
        let one = || (LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("16 octets")), [9; 12]);
        Self { keys: (0..sessions).map(|_| one()).collect(), ahead }
    }
}

impl Candidate for Ring {
    fn tag(&self) -> usize {
        16
    }

    fn run(&self, frames: &mut [u8], which: &[u32], length: usize, open: bool) {
        for (at, frame) in frames.chunks_exact_mut(FRAME).enumerate() {
            #[cfg(target_arch = "x86_64")]
            if let Some(next) = at.checked_add(self.ahead).and_then(|at| which.get(at)) {
                let block = std::ptr::from_ref(&self.keys[*next as usize]).cast::<i8>();
                for line in 0..size_of::<(LessSafeKey, [u8; 12])>().div_ceil(64) {
                    // SAFETY: a hint that reads nothing.
                    unsafe { std::arch::x86_64::_mm_prefetch::<3>(block.wrapping_add(64 * line)) };
                }
            }
            let (key, salt) = &self.keys[which[at] as usize];
            let mut iv = *salt;
            for (octet, from) in iv[2..6].iter_mut().zip(SSRC.to_be_bytes()) {
                *octet ^= from;
            }
            for (octet, from) in iv[6..].iter_mut().zip(&INDEX.to_be_bytes()[2..]) {
                *octet ^= from;
            }
            let nonce = Nonce::assume_unique_for_key(iv);
            let packet = &mut frame[OFFSET..OFFSET + length];
            let (header, rest) = packet.split_at_mut(HEADER);
            if open {
                key.open_in_place(nonce, Aad::from(&*header), rest).expect("the tag is right");
            } else {
                let (payload, tag) = rest.split_last_chunk_mut::<16>().expect("room");
                let made = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
                tag.copy_from_slice(made.expect("sealed").as_ref());
            }
        }
    }
}

/// The time of a core, in ticks of whatever it has.
#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: fences and a counter that every x86-64 has.
    unsafe {
        std::arch::x86_64::_mm_lfence();
        let ticks = std::arch::x86_64::_rdtsc();
        std::arch::x86_64::_mm_lfence();
        ticks
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

fn ns_per_tick() -> f64 {
    let (start, from) = (Instant::now(), ticks());
    while start.elapsed().as_millis() < 50 {}
    start.elapsed().as_nanos() as f64 / (ticks() - from) as f64
}

/// Frames for a burst, plain or as the candidate seals them.
fn frames(candidate: &dyn Candidate, payload: usize, open: bool) -> Vec<u8> {
    let mut frames = vec![0x5a; BURST * FRAME];
    for frame in frames.chunks_exact_mut(FRAME) {
        frame[OFFSET] = 0x80;
    }
    if open {
        candidate.run(&mut frames, &[0; BURST], HEADER + payload + candidate.tag(), false);
    }
    frames
}

/// One trial: ticks a packet, the frames being refilled outside the time.
fn trial(candidate: &dyn Candidate, fresh: &[u8], order: &[u32], payload: usize, open: bool) -> f64 {
    let length = HEADER + payload + candidate.tag();
    let mut work = fresh.to_vec();
    let (mut spent, mut packets) = (0, 0);
    for which in order.chunks_exact(BURST) {
        for (work, fresh) in work.chunks_exact_mut(FRAME).zip(fresh.chunks_exact(FRAME)) {
            work[OFFSET..OFFSET + length].copy_from_slice(&fresh[OFFSET..OFFSET + length]);
        }
        spent += candidate.time(black_box(&mut work), which, length, open);
        packets += BURST;
    }
    spent as f64 / packets as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Trials of all candidates in turn: the median of each, in ns a packet.
fn in_turn(
    candidates: &[(String, Box<dyn Candidate>)],
    order: &[u32],
    payload: usize,
    open: bool,
) -> Vec<f64> {
    let scale = ns_per_tick();
    let fresh: Vec<_> = candidates.iter().map(|(_, candidate)| frames(&**candidate, payload, open)).collect();
    let mut spent = vec![Vec::new(); candidates.len()];
    for turn in 0..12 {
        for (at, (_, candidate)) in candidates.iter().enumerate() {
            let ticks = trial(&**candidate, &fresh[at], order, payload, open);
            if turn > 0 {
                spent[at].push(ticks * scale);
            }
        }
    }
    spent.into_iter().map(median).collect()
}

fn supported() -> impl Iterator<Item = Backend> {
    Backend::ALL.into_iter().filter(|backend| backend.is_supported())
}

fn table(title: &str, candidates: &[(String, Box<dyn Candidate>)], order: &[u32]) {
    println!("\n{title}: ns a packet, and how many times faster than the first row");
    print!("{:28}", "");
    for open in ["protect", "unprotect"] {
        for size in SIZES {
            print!("{:>18}", format!("{open} {size}"));
        }
    }
    println!();
    let mut columns = Vec::new();
    for open in [false, true] {
        for size in SIZES {
            columns.push(in_turn(candidates, order, size, open));
        }
    }
    for (at, (name, _)) in candidates.iter().enumerate() {
        print!("{name:28}");
        for column in &columns {
            print!("{:>18}", format!("{:.1} ({:.2}x)", column[at], column[0] / column[at]));
        }
        println!();
    }
}

fn times() {
    let order = vec![0; 64 * BURST];
    let mut gcm: Vec<(String, Box<dyn Candidate>)> = vec![("ring".into(), Box::new(Ring::new(1, NEVER)))];
    let mut cm: Vec<(String, Box<dyn Candidate>)> = Vec::new();
    for backend in supported() {
        let name = |what: &str| format!("{}{what}", backend.name());
        let is_portable = backend == Backend::Portable;
        gcm.push((
            name(if is_portable { " (ring)" } else { "" }),
            Box::new(Ours::new(backend, true, 1, AHEAD)),
        ));
        let rustcrypto = name(if is_portable { " (RustCrypto)" } else { "" });
        cm.push((rustcrypto, Box::new(Ours::new(backend, false, 1, AHEAD))));
        if !is_portable {
            gcm.push((name(", bare"), Box::new(Ready(Ours::new(backend, true, 1, AHEAD)))));
            cm.push((name(", bare"), Box::new(Ready(Ours::new(backend, false, 1, AHEAD)))));
        }
    }
    table("AEAD_AES_128_GCM, one key", &gcm, &order);
    table("AES_CM_128_HMAC_SHA1_80, one key", &cm, &order);
}

/// Splitmix64.
fn shuffled(count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut state = 1u64;
    for at in (1..count).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        order.swap(at, ((mixed ^ (mixed >> 31)) % (at as u64 + 1)) as usize);
    }
    order
}

fn sessions() {
    const SESSIONS: usize = 10_000;
    let order = shuffled(SESSIONS);
    for gcm in [true, false] {
        let mut candidates: Vec<(String, Box<dyn Candidate>)> = Vec::new();
        if gcm {
            candidates.push(("ring, not fetched".into(), Box::new(Ring::new(SESSIONS, NEVER))));
            candidates.push(("ring, fetched 4 ahead".into(), Box::new(Ring::new(SESSIONS, AHEAD))));
        }
        for backend in supported().filter(|backend| !gcm || *backend != Backend::Portable) {
            for (word, ahead) in [("not fetched", NEVER), ("fetched 4 ahead", AHEAD)] {
                let name = format!("{}, {word}", backend.name());
                candidates.push((name, Box::new(Ours::new(backend, gcm, SESSIONS, ahead))));
            }
        }
        let suite = if gcm { "AEAD_AES_128_GCM" } else { "AES_CM_128_HMAC_SHA1_80" };
        table(&format!("{suite}, {SESSIONS} keys in random order"), &candidates, &order);
    }
}

#[cfg(target_arch = "x86_64")]
fn instructions() {
    println!("\ninstructions a packet in a burst of {BURST}, single-stepped");
    for backend in supported() {
        for gcm in [true, false] {
            print!("{:10}{:10}", backend.name(), if gcm { "GCM" } else { "AES-CM" });
            for open in [false, true] {
                for size in SIZES {
                    let ours = Ours::new(backend, gcm, 1, AHEAD);
                    let mut frames = frames(&ours, size, open);
                    let length = HEADER + size + ours.tag();
                    let mut burst = ours.burst(&mut frames, &[0; BURST], length);
                    let count = stepping::count(|| {
                        let run = if open { unprotect_ahead } else { protect_ahead };
                        assert_eq!(run(black_box(burst.descs()), AHEAD), 0);
                    });
                    let word = if open { "unprotect" } else { "protect" };
                    print!("  {word} {size}: {}", count / BURST as u64);
                }
            }
            println!();
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |word: &str| words.is_empty() || words.iter().any(|other| other == word);
    println!("{}", std::env::consts::ARCH);
    if let Ok(info) = std::fs::read_to_string("/proc/cpuinfo")
        && let Some(name) = info.lines().find(|line| line.starts_with("model name"))
    {
        println!("{name}");
    }
    if wanted("times") {
        times();
    }
    if wanted("sessions") {
        sessions();
    }
    #[cfg(target_arch = "x86_64")]
    if wanted("instructions") {
        instructions();
    }
}
