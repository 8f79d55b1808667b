//! Bursts of mixed suites, keys and sizes: each packet as if it were alone.

use sallyport_srtp::suites::{BURST, Backend, Suite, protect, unprotect};

use crate::support::*;

fn random_case(random: &mut Random, form: Form) -> Case {
    let payload = match random.below(4) {
        0 => random.below(1400),
        1 => 160,
        _ => random.below(200),
    };
    if random.one_in(6) {
        Case::rtcp(random, form, payload as usize)
    } else {
        let header = [12, 12, 12, 16, 20, 24, 72][random.below(7) as usize];
        Case::rtp(random, form, header, payload as usize)
    }
}

/// Seals and opens a burst, with some packets changed in between.
fn burst_agrees(random: &mut Random, suites: &[(Form, Suite, Suite)], count: usize) {
    let cases: Vec<(usize, Case)> = (0..count)
        .map(|_| {
            let which = random.below(suites.len() as u64) as usize;
            (which, random_case(random, suites[which].0))
        })
        .collect();
    let mut octets: Vec<Vec<u8>> = cases.iter().map(|(_, case)| case.octets.clone()).collect();
    let mut burst: Vec<_> = cases
        .iter()
        .zip(&mut octets)
        .map(|((which, case), octets)| case.desc(&suites[*which].1, octets, true).unwrap())
        .collect();
    assert_eq!(protect(&mut burst), 0);
    for ((which, case), octets) in cases.iter().zip(&octets) {
        assert_eq!(*octets, case.sealed(&suites[*which].2));
    }
    let mut bad = 0u64;
    for (at, octets) in octets.iter_mut().enumerate() {
        if random.one_in(5) {
            // Not the index word of SRTCP: what it says is what the caller reads.
            let octet = random.below(octets.len() as u64 - 4) as usize;
            octets[octet] ^= 1 << random.below(8);
            bad |= 1 << at;
        }
    }
    let mut burst: Vec<_> = cases
        .iter()
        .zip(&mut octets)
        .map(|((which, case), octets)| case.desc(&suites[*which].1, octets, false).unwrap())
        .collect();
    assert_eq!(unprotect(&mut burst), bad);
    for (at, ((which, case), octets)) in cases.iter().zip(&octets).enumerate() {
        if bad >> at & 1 == 0 {
            let plain = case.plain(suites[*which].0);
            assert_eq!(&octets[..plain.len()], plain);
        }
    }
}

#[test]
fn of_every_length() {
    let mut random = Random(1);
    for backend in backends() {
        let suites: Vec<_> = (0..24)
            .map(|seed| {
                let form = FORMS[seed as usize % 4];
                (form, form.suite(backend, seed), form.suite(Backend::Portable, seed))
            })
            .collect();
        for count in (1..=BURST).chain([BURST; 20]) {
            burst_agrees(&mut random, &suites, count);
        }
    }
}

/// Of one suite only, so that all lanes are taken.
#[test]
fn of_one_suite() {
    let mut random = Random(2);
    for backend in backends() {
        for form in FORMS {
            let suites: Vec<_> = (0..9)
                .map(|seed| (form, form.suite(backend, seed), form.suite(Backend::Portable, seed)))
                .collect();
            for count in 1..=BURST {
                burst_agrees(&mut random, &suites, count);
            }
        }
    }
}

/// Keys for several backends in one burst: cannot happen but while an option changes.
#[test]
fn of_several_backends() {
    let mut random = Random(3);
    let backends = backends();
    for _ in 0..100 {
        let suites: Vec<_> = (0..12)
            .map(|seed| {
                let form = FORMS[random.below(4) as usize];
                let backend = backends[random.below(backends.len() as u64) as usize];
                (form, form.suite(backend, seed), form.suite(Backend::Portable, seed))
            })
            .collect();
        let count = 1 + random.below(BURST as u64) as usize;
        burst_agrees(&mut random, &suites, count);
    }
}

#[test]
fn of_nothing_or_too_much() {
    for backend in backends() {
        for form in FORMS {
            assert_eq!((protect(&mut []), unprotect(&mut [])), (0, 0));
            let suite = form.suite(backend, 1);
            let case = Case::rtp(&mut Random(4), form, 12, 20);
            let mut octets = vec![case.octets.clone(); BURST + 1];
            let mut burst: Vec<_> =
                octets.iter_mut().map(|octets| case.desc(&suite, octets, true).unwrap()).collect();
            assert_eq!(protect(&mut burst), u64::MAX);
            assert!(octets.iter().all(|octets| *octets == case.octets));
        }
    }
}
