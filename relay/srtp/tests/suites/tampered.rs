//! Every octet counts, under every backend; and what does not fit is refused before it is touched.

use sallyport_srtp::suites::{Desc, protect, unprotect};

use crate::support::*;

#[test]
fn every_octet_of_a_packet_counts() {
    let mut random = Random(1);
    for backend in backends() {
        for form in FORMS {
            let suite = form.suite(backend, 1);
            let mut cases: Vec<_> = [0, 1, 20, 48, 52, 160, 241, 300]
                .map(|payload| Case::rtp(&mut random, form, 12 + 4 * (payload % 7), payload))
                .into();
            cases.extend([0, 24, 100].map(|payload| Case::rtcp(&mut random, form, payload)));
            for case in cases {
                let sealed = case.sealed(&suite);
                for at in 0..sealed.len() {
                    // The index word of SRTCP is read by the caller: what it says is what the descriptor has.
                    let word = case.header.is_none() && form.gcm && at + 4 >= sealed.len();
                    let mut changed = sealed.clone();
                    changed[at] ^= 1 << random.below(8);
                    let before = changed.clone();
                    assert_eq!(case.opens(&suite, &mut changed), word, "{backend:?} {form:?} octet {at}");
                    if !form.gcm {
                        assert_eq!(changed, before, "decrypted before it was verified");
                    }
                }
                let mut right = sealed;
                assert!(case.opens(&suite, &mut right));
            }
        }
    }
}

/// The tag depends on source and index, whatever the packet says of them.
#[test]
fn source_and_index_count() {
    let mut random = Random(2);
    for backend in backends() {
        for form in FORMS {
            let suite = form.suite(backend, 2);
            let case = Case::rtp(&mut random, form, 12, 33);
            let sealed = case.sealed(&suite);
            for bit in 16..48 {
                let other = Case { index: case.index ^ 1 << bit, ..case.clone() };
                assert!(!other.opens(&suite, &mut sealed.clone()), "{backend:?} {form:?} bit {bit}");
            }
            // AES-CM takes source and sequence from the octets of the header, which are authenticated.
            if form.gcm {
                for bit in 0..32 {
                    let other = Case { ssrc: case.ssrc ^ 1 << bit, ..case.clone() };
                    assert!(!other.opens(&suite, &mut sealed.clone()));
                    let other = Case { index: case.index ^ 1 << (bit % 16), ..case.clone() };
                    assert!(!other.opens(&suite, &mut sealed.clone()));
                }
            }
            let report = Case::rtcp(&mut random, form, 33);
            let sealed = report.sealed(&suite);
            for bit in 0..31 {
                let other = Case { index: report.index ^ 1 << bit, ..report.clone() };
                assert!(!form.gcm || !other.opens(&suite, &mut sealed.clone()));
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for backend in backends() {
        for form in FORMS {
            let suite = form.suite(backend, 3);
            assert_eq!(suite.tag_len(), form.tag());
            for length in 0..form.tag() + 12 {
                let mut octets = vec![7; length];
                assert!(Desc::rtp(&suite, &mut octets, 12, 1, 1).is_err());
                assert!(octets.iter().all(|octet| *octet == 7));
            }
            for length in 0..form.tag() + 12 {
                let mut octets = vec![7; length];
                assert!(Desc::sealing_rtcp(&suite, &mut octets, 1, 1).is_err());
                assert!(octets.iter().all(|octet| *octet == 7));
                assert!(Desc::opening_rtcp(&suite, &mut octets, 1, 1).is_err());
            }
            // Behind 2^16 blocks AES-CM would come to the keystream of the next index (RFC 3711 section 4.1.1).
            let mut octets = vec![7; 12 + (1 << 20) + 1 + form.tag()];
            assert_eq!(Desc::rtp(&suite, &mut octets, 12, 1, 1).is_ok(), form.gcm);
            assert!(Desc::rtp(&suite, &mut octets, usize::MAX, 1, 1).is_err());
            // Offsets and numbers of blocks are kept in less than a word.
            let mut octets = vec![7; (1 << 24) + 1];
            assert!(Desc::rtp(&suite, &mut octets, 1 << 24, 1, 1).is_err());
            let longest = &mut octets[..1 << 24];
            let header = longest.len() - form.tag();
            assert_eq!(protect(&mut [Desc::rtp(&suite, longest, header, 1, 1).unwrap()]), 0);
            assert_eq!(unprotect(&mut [Desc::rtp(&suite, longest, header, 1, 1).unwrap()]), 0);
            // A header only.
            let mut octets = vec![7; 12 + form.tag()];
            assert_eq!(protect(&mut [Desc::rtp(&suite, &mut octets, 12, 1, 1).unwrap()]), 0);
            assert_eq!(unprotect(&mut [Desc::rtp(&suite, &mut octets, 12, 1, 1).unwrap()]), 0);
        }
    }
}
