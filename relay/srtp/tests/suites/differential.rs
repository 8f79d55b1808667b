//! The same octets from every backend: all lengths, alignments, headers.

use sallyport_srtp::suites::{Backend, protect, unprotect};

use crate::support::*;

/// Seals and opens a case under a backend and compares with the portable one.
fn agrees(form: Form, backend: Backend, seed: u64, case: &Case) {
    let (ours, portable) = (form.suite(backend, seed), form.suite(Backend::Portable, seed));
    let expected = case.sealed(&portable);
    let mut sealed = case.sealed(&ours);
    let what = || format!("{backend:?} {form:?} header {:?} of {}", case.header, case.octets.len());
    assert_eq!(sealed, expected, "sealing, {}", what());
    assert!(case.opens(&ours, &mut sealed), "opening, {}", what());
    let plain = case.plain(form);
    assert_eq!(&sealed[..plain.len()], plain, "opened, {}", what());
}

#[test]
fn every_payload_length() {
    for backend in simd() {
        for form in FORMS {
            let mut random = Random(1);
            for payload in 0..=1500 {
                agrees(form, backend, 7, &Case::rtp(&mut random, form, 12, payload));
            }
        }
    }
}

#[test]
fn every_compound_length() {
    for backend in simd() {
        for form in FORMS {
            let mut random = Random(2);
            for payload in (0..=600).chain([1200, 1499, 1500]) {
                agrees(form, backend, 8, &Case::rtcp(&mut random, form, payload));
            }
        }
    }
}

/// Headers of any length, those of no RTP packet too: CSRC list and extensions are associated data.
#[test]
fn every_header_length() {
    for backend in simd() {
        for form in FORMS {
            let mut random = Random(3);
            for header in (0..=130).chain([255, 256, 257, 271, 272, 273, 288, 289, 300, 528, 529, 1000]) {
                for payload in [0, 1, 20, 63, 160, 224, 225, 240, 241, 500] {
                    agrees(form, backend, 9, &Case::rtp(&mut random, form, header, payload));
                }
            }
        }
    }
}

/// 64 kilooctets and more: the counters of blocks and lengths carry.
#[test]
fn long_packets() {
    for backend in simd() {
        for form in FORMS {
            let mut random = Random(4);
            for payload in [4000, 4079, 4080, 4081, 4096, 65_535, 70_000, (1 << 20) - 1, 1 << 20] {
                agrees(form, backend, 10, &Case::rtp(&mut random, form, 12, payload));
            }
        }
    }
}

/// Wherever the packet lies, it is sealed alike, and not an octet around it is touched.
#[test]
fn every_alignment() {
    let mut random = Random(5);
    for backend in simd() {
        for form in FORMS {
            let suite = form.suite(backend, 11);
            let portable = form.suite(Backend::Portable, 11);
            for payload in [0, 1, 20, 52, 160, 161, 241, 300] {
                let case = Case::rtp(&mut random, form, 12, payload);
                let expected = case.sealed(&portable);
                for offset in 0..=64 {
                    let mut room = vec![0xa5; offset + case.octets.len() + 80];
                    let range = offset..offset + case.octets.len();
                    room[range.clone()].copy_from_slice(&case.octets);
                    let desc = case.desc(&suite, &mut room[range.clone()], true).unwrap();
                    assert_eq!(protect(&mut [desc]), 0);
                    assert_eq!(room[range.clone()], expected);
                    let desc = case.desc(&suite, &mut room[range.clone()], false).unwrap();
                    assert_eq!(unprotect(&mut [desc]), 0);
                    assert_eq!(&room[range.clone()][..case.plain(form).len()], case.plain(form));
                    assert!(room[..offset].iter().all(|octet| *octet == 0xa5));
                    assert!(room[range.end..].iter().all(|octet| *octet == 0xa5));
                }
            }
        }
    }
}

/// Other keys, sources and indices each time.
#[test]
fn random_keys_and_nonces() {
    let mut random = Random(6);
    for backend in simd() {
        for form in FORMS {
            for _ in 0..400 {
                let seed = random.next();
                let (header, payload) = (12 + 4 * random.below(20) as usize, random.below(300) as usize);
                agrees(form, backend, seed, &Case::rtp(&mut random, form, header, payload));
            }
        }
    }
}
