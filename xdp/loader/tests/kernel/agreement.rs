//! Program and userspace read frames alike: what the one sends on the other can parse, and the other way round.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sallyport_abi::Counter::{DropRateLimited, DropSource, DropTooLong, DropUnknownFlow};
use sallyport_abi::{FRAME_MAX, INSIDE, OUTSIDE};
use sallyport_wire::frame;

use crate::cases;
use crate::frames::address;
use crate::lab::Lab;
use crate::runner::{By, FLOWS, Fate, MEDIA, Runner};

/// Fates that fit what userspace makes of the frame.
fn check(by: By, octets: &[u8], fate: Fate) -> Result<(), TestCaseError> {
    let zone = if by == By::Inside { INSIDE } else { OUTSIDE };
    let parsed = frame::parse(octets);
    let media = parsed.as_ref().ok().filter(|datagram| {
        let to = datagram.destination;
        MEDIA.iter().any(|(media_zone, media, ports, browsers)| {
            let port = ports.contains(&to.port()) || *browsers == Some(to.port());
            *media_zone == zone && to.ip().to_string() == *media && port
        })
    });
    let Some(datagram) = media else {
        let sent = matches!(fate, Fate::Flow(..) | Fate::Punt);
        let judged =
            [DropSource, DropUnknownFlow, DropRateLimited, DropTooLong].map(Fate::Drop).contains(&fate);
        prop_assert!(!sent && !judged, "{:?} of {:?}", fate, parsed);
        return Ok(());
    };
    let flow = FLOWS.iter().find(|(flow_zone, local, remote, ..)| {
        (*flow_zone, address(local), address(remote)) == (zone, datagram.destination, datagram.source)
    });
    let wanted = match flow {
        _ if octets.len() > FRAME_MAX as usize => fate == Fate::Drop(DropTooLong),
        Some((.., direction, epoch)) => fate == Fate::Flow(*direction, *epoch),
        None if matches!(fate, Fate::Punt | Fate::Drop(DropRateLimited)) => {
            let payload = &octets[datagram.payload.clone()];
            let heard = datagram.destination.port() == if zone == OUTSIDE { 10_000 } else { 10_001 };
            heard && payload.len() >= 20 && payload[0] < 4 && payload[4..8] == [0x21, 0x12, 0xa4, 0x42]
        }
        None => [DropSource, DropUnknownFlow].map(Fate::Drop).contains(&fate),
    };
    prop_assert!(wanted, "{:?} of {:?}", fate, parsed);
    Ok(())
}

#[test]
fn program_and_userspace_agree_on_mutated_frames() {
    let Some(lab) = Lab::quiet() else { return };
    // Frames of the table that are no longer than an interface's, with octets of the headers changed, cut and padded.
    let bases: Vec<_> = cases::all().into_iter().filter(|case| case.frame.len() < 512).collect();
    let strategy = (
        0..bases.len(),
        prop::collection::vec((12usize..80, any::<u8>()), 0..4),
        prop::option::of(14usize..120),
        0usize..32,
    );
    lab.appliance(|| {
        let runner = RefCell::new(Runner::new(&lab));
        let (sent, other) = (Cell::new(0), Cell::new(0));
        let cases = 12_000;
        let mut tests = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let done = tests.run(&strategy, |(base, changes, cut, padding)| {
            let mut octets = bases[base].frame.clone();
            octets.truncate(cut.unwrap_or(usize::MAX));
            octets.resize(octets.len() + padding, 0);
            for (at, octet) in changes {
                if let Some(place) = octets.get_mut(at) {
                    *place = octet;
                }
            }
            if bases[base].by == By::Unknown {
                return Ok(());
            }
            let fate = runner.borrow_mut().run("mutated", bases[base].by, 0, &octets);
            match fate {
                Fate::Flow(..) | Fate::Punt => sent.set(sent.get() + 1),
                Fate::Pass(_) | Fate::Drop(_) => other.set(other.get() + 1),
            }
            check(bases[base].by, &octets, fate)
        });
        done.unwrap();
        let (sent, other) = (sent.get(), other.get());
        assert!(sent > 500 && other > 500, "sent {sent}, not {other}: the test says little");
        runner.into_inner().kernel.detach_all();
    });
}
