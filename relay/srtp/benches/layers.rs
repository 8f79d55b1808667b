//! What the layers above the suites cost: `seal_burst` and `open_burst` (parse, index, replay, crypto, commit) beside the
//! bare suites, both over many directions in random order.
//!
//! `cargo bench -p sallyport-srtp --bench layers`

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails as a test does")]

use std::hint::black_box;
use std::time::Instant;

use sallyport_plan::{KeyMaterial, Profile};
use sallyport_srtp::suites::{Batch, Desc, Suite, selected};
use sallyport_srtp::{Kind, OpenJob, Opener, Openers, SealJob, Sealer, Sealers, open_burst, seal_burst};
use sallyport_wire::PacketBuf;

/// Packets of a burst: what a worker meets under load, and what it meets without.
const BURSTS: [usize; 4] = [32, 8, 4, 1];
const FRAME: usize = 2048;
const OFFSET: usize = 256 + 42;
const HEADER: usize = 12;

struct Pool {
    openers: Vec<Opener>,
    sealers: Vec<Sealer>,
    suites: Vec<Suite>,
}

impl Openers for Pool {
    fn opener(&self, number: u32) -> Option<&Opener> {
        self.openers.get(number as usize)
    }

    fn opener_mut(&mut self, number: u32) -> Option<&mut Opener> {
        self.openers.get_mut(number as usize)
    }
}

impl Sealers for Pool {
    fn sealer(&self, number: u32) -> Option<&Sealer> {
        self.sealers.get(number as usize)
    }

    fn sealer_mut(&mut self, number: u32) -> Option<&mut Sealer> {
        self.sealers.get_mut(number as usize)
    }
}

impl Pool {
    fn new(profile: Profile, count: usize) -> Self {
        let key = KeyMaterial::new(profile, &[7; 16], &vec![9; profile.salt_len()]).expect("its lengths");
        let suite = || {
            if profile == Profile::AeadAes128Gcm {
                Suite::gcm(selected().backend, &[7; 16], &[9; 12])
            } else {
                Suite::aes_cm(selected().backend, &[7; 16], &[8; 20], &[9; 14])
            }
        };
        Self {
            openers: (0..count).map(|_| Opener::new(&key).expect("its lengths")).collect(),
            sealers: (0..count).map(|_| Sealer::new(&key).expect("its lengths")).collect(),
            suites: (0..count).map(|_| suite().expect("its lengths")).collect(),
        }
    }
}

fn packets(frames: &mut [u8], payload: usize, sequence: u16) {
    for frame in frames.chunks_exact_mut(FRAME) {
        frame[OFFSET..OFFSET + HEADER].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        frame[OFFSET + 2..OFFSET + 4].copy_from_slice(&sequence.to_be_bytes());
        frame[OFFSET + HEADER..OFFSET + HEADER + payload].fill(0x5a);
    }
}

fn bufs(frames: &mut [u8], length: usize) -> Vec<PacketBuf<'_>> {
    let frames = frames.chunks_exact_mut(FRAME);
    frames.map(|frame| PacketBuf::new(frame, OFFSET..OFFSET + length).expect("a frame holds it")).collect()
}

/// ns a packet of sealing and opening by the layers, then by the suites.
fn turn(pool: &mut Pool, order: &[u32], burst: usize, payload: usize, sequence: u16) -> [f64; 4] {
    let mut frames = vec![0; burst * FRAME];
    let mut spent = [0u128; 4];
    let tag = pool.suites[0].tag_len();
    for which in order.chunks_exact(burst) {
        packets(&mut frames, payload, sequence);
        let mut bufs = bufs(&mut frames, HEADER + payload);
        let start = Instant::now();
        let jobs = which.iter().zip(black_box(&mut bufs));
        let mut jobs: Vec<_> = jobs.map(|(number, buf)| SealJob::new(*number, Kind::Rtp, buf)).collect();
        seal_burst(pool, &mut jobs);
        spent[0] += start.elapsed().as_nanos();
        assert!(jobs.iter().all(|job| job.outcome.is_ok()));
        let start = Instant::now();
        let jobs = which.iter().zip(black_box(&mut bufs));
        let mut jobs: Vec<_> = jobs.map(|(number, buf)| OpenJob::new(*number, Kind::Rtp, buf)).collect();
        open_burst(pool, &mut jobs);
        spent[1] += start.elapsed().as_nanos();
        assert!(jobs.iter().all(|job| job.outcome.is_ok()));
    }
    for which in order.chunks_exact(burst) {
        packets(&mut frames, payload, sequence);
        for (at, open) in [(2, false), (3, true)] {
            let start = Instant::now();
            let mut batch = Batch::new();
            for (frame, number) in black_box(&mut frames).chunks_exact_mut(FRAME).zip(which) {
                let packet = &mut frame[OFFSET..OFFSET + HEADER + payload + tag];
                let desc =
                    Desc::rtp(&pool.suites[*number as usize], packet, HEADER, 0x0102_0304, sequence.into());
                assert!(batch.push(desc.unwrap_or_else(|_| panic!("fits"))).is_ok());
            }
            let refused = if open { batch.unprotect() } else { batch.protect() };
            spent[at] += start.elapsed().as_nanos();
            assert_eq!(refused, 0);
        }
    }
    let count = order.len() / burst * burst;
    spent.map(|spent| spent as f64 / count as f64)
}

fn shuffled(count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut state = 1u64;
    for at in (1..count).rev() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        order.swap(at, ((state >> 33) % (at as u64 + 1)) as usize);
    }
    order
}

/// ns a compound of SRTCP, whose keys are expanded for each: sealing, opening.
fn compounds(profile: Profile) -> [f64; 2] {
    let mut pool = Pool::new(profile, 1);
    let mut frame = [0; FRAME];
    let (mut sealing, mut opening) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        frame[OFFSET..OFFSET + 8].copy_from_slice(&[0x81, 200, 0, 12, 1, 2, 3, 4]);
        let mut buf = PacketBuf::new(&mut frame, OFFSET..OFFSET + 52).expect("a frame holds it");
        let start = Instant::now();
        assert!(pool.sealers[0].seal_rtcp(black_box(&mut buf)).is_ok());
        sealing.push(start.elapsed().as_nanos() as f64);
        let start = Instant::now();
        assert!(pool.openers[0].open_rtcp(black_box(&mut buf)).is_ok());
        opening.push(start.elapsed().as_nanos() as f64);
    }
    [sealing, opening].map(|mut spent| {
        spent.sort_by(f64::total_cmp);
        spent[spent.len() / 2]
    })
}

fn main() {
    println!(
        "backend {}; a direction here: opener {} octets, sealer {}",
        selected().backend.name(),
        size_of::<Opener>(),
        size_of::<Sealer>()
    );
    println!(
        "{:36}{:>12}{:>12}{:>12}{:>12}",
        "ns a packet, 160 octets", "seal_burst", "open_burst", "protect", "unprotect"
    );
    for profile in [Profile::AeadAes128Gcm, Profile::AesCm128HmacSha1_80] {
        let sizes = [64, 1_024, 10_016].map(|directions| (directions, BURSTS[0]));
        for (directions, burst) in sizes.into_iter().chain(BURSTS[1..].iter().map(|burst| (64, *burst))) {
            let mut pool = Pool::new(profile, directions);
            let order = shuffled(directions);
            let turns = (1..).take((200_000 / directions).clamp(20, 2_000));
            let mut columns = [const { Vec::new() }; 4];
            for sequence in turns {
                for (column, spent) in columns.iter_mut().zip(turn(&mut pool, &order, burst, 160, sequence)) {
                    column.push(spent);
                }
            }
            let name = if profile == Profile::AeadAes128Gcm { "GCM" } else { "AES-CM" };
            print!("{:36}", format!("{name}, {directions} directions, by {burst}"));
            for mut column in columns {
                column.sort_by(f64::total_cmp);
                print!("{:>12.1}", column[column.len() / 2]);
            }
            println!();
        }
    }
    for (name, profile) in [("GCM", Profile::AeadAes128Gcm), ("AES-CM", Profile::AesCm128HmacSha1_80)] {
        let [seal, open] = compounds(profile);
        println!("{:36}{seal:>12.0}{open:>12.0}", format!("{name}, a compound of SRTCP"));
    }
}
