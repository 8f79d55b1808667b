//! The kernel sends on what the translator would forward, and the same octets; all else it leaves to the translator.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sallyport_core::{Limits, Now, Payload, Translator, Verdict};
use sallyport_plan::{
    CallId, Clock, Digits, Direction, DirectionIndex, Extensions, FlowKey, Format, Medium, Mute, Passage,
    Plan, Protection, Pt, PtMap, Resend, Ssrc, Zone,
};
use sallyport_wire::PacketBuf;
use sallyport_wire::frame::{self, Link};

use super::world::{MACS, Path, Phone, Sent, TRAFFIC_CLASS, TYPES, V4, V6, World, sent_by};
use crate::frames::{address, rtp, summed, with};
use crate::lab::Lab;
use sallyport_abi::Counter;

fn flow((_, local, remote): Path) -> FlowKey {
    FlowKey { zone: Zone::Inside, local: address(local), remote: address(remote) }
}

fn translator(phones: &[Phone; 2]) -> Translator {
    let direction = |index: u8, from: &Phone, to: &Phone| {
        let mut ingress = vec![flow(from.rtp), flow(from.rtcp)];
        ingress.dedup();
        Direction {
            index: DirectionIndex(index),
            medium: Medium::Audio,
            ingress,
            open: Some(Protection::Plain),
            seal: Some(Protection::Plain),
            rtp: flow(to.rtp),
            rtcp: flow(to.rtcp),
            passage: Passage::Transparent,
            ssrc: Ssrc(0),
            payload_types: TYPES
                .map(|kind| PtMap { from: Pt(kind), to: Pt(kind), format: Format::Media(Clock::Hz8000) })
                .to_vec(),
            extensions: Extensions::default(),
            digits: Digits::Pass,
            resend: Resend::Never,
            fork: None,
            learns: false,
            reverse: DirectionIndex(1 - index),
            mute: Mute::Open,
        }
    };
    let directions = vec![direction(0, &phones[0], &phones[1]), direction(1, &phones[1], &phones[0])];
    let plan = Plan { call: CallId(1), version: 1, directions, consents: vec![], record: vec![] };
    let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [0; 32]);
    core.install(plan, Now(0)).unwrap();
    core
}

/// What the worker would send for a frame, as the kernel's counter names it; `None` where the translator drops it.
fn by_the_worker(core: &mut Translator, octets: &[u8]) -> Option<(Counter, Vec<u8>)> {
    let datagram = frame::parse(octets).unwrap();
    let from = FlowKey { zone: Zone::Inside, local: datagram.destination, remote: datagram.source };
    let mut room = [vec![0; 128], octets[datagram.payload.clone()].to_vec(), vec![0; 64]].concat();
    let mut buf = PacketBuf::new(&mut room, 128..128 + datagram.payload.len()).unwrap();
    let tag = core.lookup(&from).unwrap();
    let Verdict::Forward(cleared) = core.translate(tag, &from, &mut buf, Now(1)) else { return None };
    let to = *cleared.egress();
    let link = Link { source_mac: MACS.0, destination_mac: MACS.1, vlan: None, dscp: TRAFFIC_CLASS >> 2 };
    frame::emit(&mut buf, &link, to.local, to.remote).unwrap();
    let counter = match cleared.payload() {
        Payload::Rtp => Counter::RewriteRtp,
        Payload::Rtcp => Counter::RewriteRtcp,
    };
    Some((counter, buf.packet().to_vec()))
}

fn bases() -> Vec<Vec<u8>> {
    let report = [vec![0x81, 200, 0, 12], vec![7; 48]].concat();
    let described = [report.clone(), vec![0x81, 202, 0, 2, 7, 7, 7, 7, 1, 1, b'x', 0]].concat();
    let extended = with(with(rtp(40), 0, &[0xb2]), 20, &[0xbe, 0xde, 0, 2]);
    vec![rtp(160), rtp(3), with(extended, 51, &[3]), report, described, [0x80, 203, 0, 0].repeat(7)]
}

fn agree(phones: &'static [Phone; 2]) {
    let Some(lab) = Lab::quiet() else { return };
    let froms = [phones[0].rtp, phones[0].rtcp, phones[1].rtp];
    let bases = bases();
    let strategy = (
        0..froms.len(),
        0..bases.len(),
        prop::collection::vec((0usize..60, any::<u8>()), 0..4),
        prop::option::of(0usize..70),
        prop::option::of(any::<u8>()),
    );
    lab.appliance(|| {
        let world = RefCell::new((World::new(&lab, phones), translator(phones), [0u32; 3]));
        let config = Config { cases: 6000, failure_persistence: None, ..Config::default() };
        let done = TestRunner::new(config).run(&strategy, |(from, base, changes, cut, first)| {
            let mut payload = bases[base].clone();
            payload.truncate(cut.unwrap_or(usize::MAX));
            for (at, octet) in changes {
                if let Some(place) = payload.get_mut(at) {
                    *place = octet;
                }
            }
            if let (Some(octet), Some(place)) = (first, payload.first_mut()) {
                *place = 0x80 | octet & 0x3f;
            }
            let frame = summed(sent_by(froms[from], &payload));
            let (world, core, seen) = &mut *world.borrow_mut();
            let wanted = by_the_worker(core, &frame);
            match world.run("mutated", &frame) {
                Sent::Back(counter, out) => {
                    seen[usize::from(counter == Counter::RewriteRtcp)] += 1;
                    prop_assert_eq!(Some((counter, out)), wanted);
                }
                Sent::Worker => {
                    seen[2] += 1;
                    prop_assert_eq!(None, wanted, "the kernel could have done it");
                }
                other => prop_assert!(false, "{:?}: there is no other interface, and no other flow", other),
            }
            Ok(())
        });
        done.unwrap();
        let (world, _, seen) = world.into_inner();
        assert!(seen.iter().all(|count| *count > 300), "{seen:?}: the test says little");
        world.runner.kernel.detach_all();
    });
}

#[test]
fn kernel_and_translator_send_the_same_octets_v4() {
    agree(&V4);
}

#[test]
fn kernel_and_translator_send_the_same_octets_v6() {
    agree(&V6);
}
