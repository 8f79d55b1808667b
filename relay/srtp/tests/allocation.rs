//! Nothing is allocated per packet: neither for one that passes nor for one that is refused.
#![allow(unsafe_code)]

#[path = "behaviour/packets.rs"]
mod packets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sallyport_srtp::{Kind, OpenError, OpenJob, Opener, Openers, SealJob, Sealers, open_burst, seal_burst};
use sallyport_srtp::{RTCP_OVERHEAD, SOURCES, SealError, Sealer};
use sallyport_wire::PacketBuf;

use packets::{PROFILES, key, pair, rtcp, rtp, seal, sealed_at};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed on to the system's allocator as it is; counting touches a thread-local that needs neither
// allocation nor destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of this thread in `work`.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 3]))), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn packets_that_pass_allocate_nothing() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let (media, report) = (rtp(5, 0, &[7; 160]), rtcp(5, 20));
        let mut bytes = [0; 512];
        let count = allocations(|| {
            for sequence in 0..2000u16 {
                bytes[..media.len()].copy_from_slice(&media);
                bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
                let mut buf = PacketBuf::new(&mut bytes, 0..media.len()).unwrap();
                sealer.seal_rtp(&mut buf).unwrap();
                opener.open_rtp(&mut buf).unwrap();
                bytes[..report.len()].copy_from_slice(&report);
                let mut buf = PacketBuf::new(&mut bytes, 0..report.len()).unwrap();
                sealer.seal_rtcp(&mut buf).unwrap();
                opener.open_rtcp(&mut buf).unwrap();
            }
        });
        assert_eq!(count, 0);
    }
}

struct Pool(Opener, Sealer);

impl Openers for Pool {
    fn opener(&self, _: u32) -> Option<&Opener> {
        Some(&self.0)
    }

    fn opener_mut(&mut self, _: u32) -> Option<&mut Opener> {
        Some(&mut self.0)
    }
}

impl Sealers for Pool {
    fn sealer(&self, _: u32) -> Option<&Sealer> {
        Some(&self.1)
    }

    fn sealer_mut(&mut self, _: u32) -> Option<&mut Sealer> {
        Some(&mut self.1)
    }
}

#[test]
fn bursts_allocate_nothing() {
    for profile in PROFILES {
        let (sealer, opener) = pair(profile);
        let mut pool = Pool(opener, sealer);
        let plain: Vec<_> = (0..64).map(|n| rtp(n / 9, n as u16, &vec![7; 9 * n as usize])).collect();
        let mut octets: Vec<_> = plain.iter().map(|plain| [&plain[..], &[0; 20]].concat()).collect();
        let bufs = octets.iter_mut().zip(&plain);
        let mut bufs: Vec<_> =
            bufs.map(|(octets, plain)| PacketBuf::new(octets, 0..plain.len()).unwrap()).collect();
        let mut jobs: Vec<_> = bufs.iter_mut().map(|buf| SealJob::new(0, Kind::Rtp, buf)).collect();
        assert_eq!(allocations(|| seal_burst(&mut pool, &mut jobs)), 0);
        assert!(jobs.iter().all(|job| job.outcome.is_ok()));
        let mut jobs: Vec<_> = bufs.iter_mut().map(|buf| OpenJob::new(0, Kind::Rtp, buf)).collect();
        assert_eq!(allocations(|| open_burst(&mut pool, &mut jobs)), 0);
        assert!(jobs.iter().all(|job| job.outcome.is_ok()));
    }
}

#[test]
fn packets_that_are_refused_allocate_nothing() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = pair(profile);
        let good = seal(&mut sealer, &rtp(5, 9, &[7; 160])).unwrap();
        let mut forged = good.clone();
        forged[40] ^= 1;
        let plain = rtp(5, 9, &[7; 160]);
        let mut bytes = [0; 512];
        let mut try_open = |packet: &[u8], expected: Result<(), OpenError>| {
            bytes[..packet.len()].copy_from_slice(packet);
            let mut buf = PacketBuf::new(&mut bytes, 0..packet.len()).unwrap();
            assert_eq!(opener.open_rtp(&mut buf).map(|_| ()), expected);
        };
        let count = allocations(|| {
            try_open(&forged, Err(OpenError::Tag));
            try_open(&good, Ok(()));
            try_open(&good, Err(OpenError::Replay));
            try_open(&good[..20], Err(OpenError::Short));
            try_open(&[0; 40], Err(OpenError::Malformed));
        });
        assert_eq!(count, 0);
        let mut bytes = [0; 512];
        let count = allocations(|| {
            bytes[..plain.len()].copy_from_slice(&plain);
            let mut buf = PacketBuf::new(&mut bytes, 0..plain.len()).unwrap();
            assert_eq!(sealer.seal_rtp(&mut buf), Err(SealError::IndexReuse));
            let mut buf =
                PacketBuf::new(&mut bytes[..plain.len() + RTCP_OVERHEAD - 15], 0..plain.len()).unwrap();
            assert_eq!(sealer.seal_rtcp(&mut buf), Err(SealError::Room));
        });
        assert_eq!(count, 0);
    }
}

#[test]
fn new_sources_and_forgotten_ones_allocate_nothing() {
    for profile in PROFILES {
        let key = key(profile, 1);
        let (mut opener, mut sealer) = (Opener::new(&key).unwrap(), Sealer::new(&key).unwrap());
        let mut sent: Vec<_> =
            (0..3 * SOURCES as u32).map(|ssrc| sealed_at(&key, ssrc, 7, b"payload")).collect();
        let mut plain: Vec<_> =
            (0..SOURCES as u32).map(|ssrc| [&rtp(ssrc, 7, b"")[..], &[0; 16]].concat()).collect();
        let count = allocations(|| {
            for packet in &mut sent {
                let end = packet.len();
                assert!(opener.open_rtp(&mut PacketBuf::new(packet, 0..end).unwrap()).is_ok());
            }
            for packet in &mut plain {
                assert!(sealer.seal_rtp(&mut PacketBuf::new(packet, 0..12).unwrap()).is_ok());
            }
        });
        assert_eq!(count, 0);
        assert_eq!(opener.checkpoint().sources.len(), SOURCES);
    }
}
