//! Packets that begin where memory begins or end where it ends: an octet read or written outside is a fault.
#![allow(unsafe_code)]

use sallyport_srtp::suites::{Backend, protect, unprotect};

use crate::support::*;

const PAGE: usize = 4096;

/// One page between two that nobody may touch.
struct Guarded(*mut libc::c_void);

impl Guarded {
    fn new() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping of three pages, wherever there is room.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 3 * PAGE, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        // SAFETY: the middle one of the three.
        let opened = unsafe { libc::mprotect(at.byte_add(PAGE), PAGE, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(opened, 0);
        Self(at)
    }

    fn page(&mut self) -> &mut [u8] {
        // SAFETY: the middle page can be read and written, is zeroed, and is borrowed through `self` only.
        unsafe { std::slice::from_raw_parts_mut(self.0.byte_add(PAGE).cast(), PAGE) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: what was mapped, once.
        unsafe { libc::munmap(self.0, 3 * PAGE) };
    }
}

#[test]
fn nothing_outside_is_touched() {
    let mut random = Random(8);
    let mut guarded = Guarded::new();
    for backend in backends() {
        for form in FORMS {
            let (suite, portable) = (form.suite(backend, 12), form.suite(Backend::Portable, 12));
            for size in (0..330).chain([511, 512, 513, 1199, 1200, 1500]) {
                let header = [12, 0, 20, 31, 72][size % 5];
                let rtp = Case::rtp(&mut random, form, header, size);
                for case in [rtp, Case::rtcp(&mut random, form, size)] {
                    let (expected, length) = (case.sealed(&portable), case.octets.len());
                    for range in [0..length, PAGE - length..PAGE] {
                        let packet = &mut guarded.page()[range];
                        packet.copy_from_slice(&case.octets);
                        assert_eq!(protect(&mut [case.desc(&suite, packet, true).unwrap()]), 0);
                        assert_eq!(*packet, expected);
                        assert_eq!(unprotect(&mut [case.desc(&suite, packet, false).unwrap()]), 0);
                    }
                }
            }
        }
    }
}

/// The same in bursts of sixteen, where SHA-1 works on all side by side: each at the end of a page of its own.
#[test]
fn nothing_outside_is_touched_by_a_burst() {
    let mut random = Random(9);
    let mut pages: Vec<Guarded> = (0..16).map(|_| Guarded::new()).collect();
    for backend in backends() {
        for form in FORMS {
            let suite = form.suite(backend, 13);
            for size in (0..140).chain([160, 500, 1200]) {
                for spread in [0, 70] {
                    let cases: Vec<_> =
                        (0..16).map(|at| Case::rtp(&mut random, form, 12, size + at * spread)).collect();
                    let packets = cases.iter().zip(&mut pages);
                    let mut packets: Vec<_> = packets
                        .map(|(case, page)| {
                            let packet = &mut page.page()[PAGE - case.octets.len()..];
                            packet.copy_from_slice(&case.octets);
                            packet
                        })
                        .collect();
                    for open in [false, true] {
                        let burst = cases.iter().zip(&mut packets);
                        let mut burst: Vec<_> =
                            burst.map(|(case, packet)| case.desc(&suite, packet, !open).unwrap()).collect();
                        assert_eq!(if open { unprotect(&mut burst) } else { protect(&mut burst) }, 0);
                    }
                }
            }
        }
    }
}
