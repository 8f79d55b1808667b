//! Audio and video of one bundle: one flow outside, ports of their own inside (RFC 8843).

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::Bench;
use proptest::prelude::*;
use sallyport_core::{CoreEvent, Inbound, Verdict};
use sallyport_plan::{
    CallId, Clock, Direction, DirectionIndex, FlowKey, Format, Medium, Plan, Profile, Pt, PtMap, Refusal,
    Ssrc,
};
use sallyport_wire::PacketBuf;
use table::world::*;

const GCM: Profile = Profile::AeadAes128Gcm;
/// Video's SSRCs, inside and outside.
const INSIDE_VIDEO: u32 = INSIDE_SSRC + 0x100;
const OUTSIDE_VIDEO: u32 = OUTSIDE_SSRC + 0x100;
/// The browser's own sources.
const SOUND: u32 = 5;
const PICTURE: u32 = 6;

fn moved(mut flow: FlowKey) -> FlowKey {
    flow.local.set_port(flow.local.port() + 2);
    flow.remote.set_port(flow.remote.port() + 2);
    flow
}

/// Opus and G.711 as ever, and VP8 as 96 outside, 99 inside.
fn bundle() -> Plan {
    let mut plan = plan_with_consent(Some(GCM), paths());
    let [inward, outward] = [plan.directions[0].clone(), plan.directions[1].clone()];
    let map = |from, to| vec![PtMap { from: Pt(from), to: Pt(to), format: Format::Media(Clock::Hz90000) }];
    plan.directions.push(Direction {
        index: DirectionIndex(2),
        medium: Medium::Video,
        rtp: moved(inward.rtp),
        rtcp: moved(inward.rtcp),
        ssrc: Ssrc(INSIDE_VIDEO),
        payload_types: map(96, 99),
        reverse: DirectionIndex(3),
        ..inward
    });
    plan.directions.push(Direction {
        index: DirectionIndex(3),
        medium: Medium::Video,
        ingress: outward.ingress.iter().map(|flow| moved(*flow)).collect(),
        ssrc: Ssrc(OUTSIDE_VIDEO),
        payload_types: map(99, 96),
        reverse: DirectionIndex(2),
        ..outward
    });
    plan
}

fn bench() -> Bench {
    let mut bench = Bench::new(2, 8);
    bench.core.install(bundle(), bench.now).unwrap();
    bench
}

fn browser() -> Peer {
    Peer::new(&key(GCM, FROM_BROWSER), &key(GCM, TO_BROWSER))
}

fn picture(ssrc: u32, payload_type: u8, sequence: u16, timestamp: u32) -> Rtp {
    Rtp { payload_type, ..g711(ssrc, sequence, timestamp) }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn one_flow_leads_to_the_first_and_all_are_told_apart_by_payload_type() {
    let mut bench = Bench::new(2, 8);
    let changes = bench.core.install(bundle(), bench.now).unwrap();
    assert_eq!(changes.insert.len(), 5, "one outside, four inside");
    let mut browser = browser();
    let sound = bench.send(paths().outside, &browser.seal(&g711(SOUND, 100, 0).bytes())).forwarded();
    let seen = bench.send(paths().outside, &browser.seal(&picture(PICTURE, 96, 7, 0).bytes())).forwarded();
    assert_eq!((word(&sound, 8), sound[1]), (INSIDE_SSRC, 0));
    assert_eq!((word(&seen, 8), seen[1]), (INSIDE_VIDEO, 99));
    let back = bench.send(moved(paths().rtp), &picture(9, 99, 1, 0).bytes()).forwarded();
    let back = browser.open(&back);
    assert_eq!((word(&back, 8), back[1]), (OUTSIDE_VIDEO, 96));
    let packets: Vec<u64> = bench.core.report(CallId(1)).unwrap().iter().map(|one| one.packets).collect();
    assert_eq!(packets, [1, 0, 1, 1]);
}

#[test]
fn what_goes_where() {
    let mut bench = bench();
    let mut browser = browser();
    let outside = paths().outside;
    let egress = |bench: &mut Bench, bytes: &[u8]| {
        let mut room = [vec![0; HEAD], bytes.to_vec(), vec![0; TAIL]].concat();
        let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
        let tag = bench.core.lookup(&outside).unwrap();
        match bench.core.translate(tag, &outside, &mut buf, bench.now) {
            Verdict::Forward(cleared) => Ok((*cleared.egress(), buf.packet().to_vec())),
            other => Err(other),
        }
    };
    let report = browser.seal_rtcp(&receiver_report(PICTURE, &[Block { ssrc: OUTSIDE_VIDEO, highest: 1 }]));
    // Nothing has been sent outside yet: the block says nothing, and its subject tells whose it is.
    assert_eq!(egress(&mut bench, &report).unwrap().0, moved(paths().rtcp));
    assert_eq!(
        egress(&mut bench, &browser.seal(&picture(PICTURE, 96, 7, 0).bytes())).unwrap().0,
        moved(paths().rtp)
    );
    let report = browser.seal_rtcp(&sender_report(PICTURE, 90, &[]));
    let (to, sent) = egress(&mut bench, &report).unwrap();
    assert_eq!((to, word(&sent, 4)), (moved(paths().rtcp), INSIDE_VIDEO), "by who sends it");
    assert_eq!(egress(&mut bench, &browser.seal(&g711(SOUND, 1, 0).bytes())).unwrap().0, paths().rtp);
    let report = browser.seal_rtcp(&sender_report(SOUND, 8, &[]));
    assert_eq!(egress(&mut bench, &report).unwrap().0, paths().rtcp);
    // What is nobody's is the first one's to count.
    let unknown = browser.seal(&picture(77, 50, 1, 0).bytes());
    assert!(egress(&mut bench, &unknown).is_err());
    let reports = bench.core.report(CallId(1)).unwrap();
    assert_eq!((reports[0].drops.len(), reports[2].drops.len()), (1, 0));
}

/// Control asks for a picture, and hears of those who do.
#[test]
fn a_picture_is_asked_for_by_control_and_told_to_it() {
    let mut bench = bench();
    let mut browser = browser();
    let ask = |bench: &mut Bench, index| {
        let mut sent = Vec::new();
        let (call, now) = (CallId(1), bench.now);
        bench
            .core
            .ask_picture(call, DirectionIndex(index), now, &mut |to, bytes| sent.push((*to, bytes.to_vec())));
        sent
    };
    assert_eq!(ask(&mut bench, 2), [], "there is nobody to ask yet");
    bench.send(paths().outside, &browser.seal(&picture(PICTURE, 96, 7, 0).bytes())).forwarded();
    let sent = ask(&mut bench, 2);
    assert_eq!((sent.len(), sent[0].0), (1, paths().outside));
    let heard = browser.open_rtcp(&sent[0].1);
    let tail = [description(OUTSIDE_VIDEO, "22220102"), picture_loss(OUTSIDE_VIDEO, PICTURE)].concat();
    let whole = [receiver_report(OUTSIDE_VIDEO, &[]), tail, full_picture(OUTSIDE_VIDEO, PICTURE, 1)].concat();
    assert_eq!(heard, whole);
    assert_eq!(ask(&mut bench, 2), [], "not again so soon");
    assert_eq!((ask(&mut bench, 9), bench.events()), (Vec::new(), Vec::new()));
    bench.elapse(500_000);
    assert_eq!(ask(&mut bench, 2).len(), 1);
    // The browser asks: it leaves, and is told; what came too soon is not.
    let back = bench.send(moved(paths().rtp), &picture(9, 99, 1, 0).bytes()).forwarded();
    browser.open(&back);
    let wish = [receiver_report(PICTURE, &[]), picture_loss(PICTURE, OUTSIDE_VIDEO)].concat();
    bench.send(paths().outside, &browser.seal_rtcp(&wish)).forwarded();
    bench.send(paths().outside, &browser.seal_rtcp(&wish)).forwarded();
    assert_eq!(bench.events(), [CoreEvent::Picture { call: CallId(1), direction: DirectionIndex(2) }]);
}

#[test]
fn nothing_is_opened_twice_whoever_it_is_for() {
    let mut bench = bench();
    let mut browser = browser();
    let sealed: Vec<Vec<u8>> = (0..40)
        .map(|n| match n % 2 {
            0 => browser.seal(&g711(SOUND, n, 0).bytes()),
            _ => browser.seal(&picture(PICTURE, 96, n, 0).bytes()),
        })
        .collect();
    sealed.iter().for_each(|packet| drop(bench.send(paths().outside, packet).forwarded()));
    let before = bench.core.report(CallId(1)).unwrap();
    for packet in &sealed {
        bench.send(paths().outside, packet);
    }
    let after = bench.core.report(CallId(1)).unwrap();
    assert_eq!(before[0].packets + before[2].packets, 40);
    assert_eq!((after[0].packets, after[2].packets), (before[0].packets, before[2].packets));
    assert_eq!(after[0].drops[0].value, 40);
    // A plan that would have another direction open what this one has opened.
    let mut swapped = Plan { version: 2, ..bundle() };
    swapped.directions.swap(0, 2);
    assert_eq!(bench.core.install(swapped, bench.now), Err(Refusal::Malformed));
    let mut without = Plan { version: 2, ..plan_with_consent(Some(GCM), paths()) };
    assert!(bench.core.install(without.clone(), bench.now).is_ok(), "video ends");
    without.version = 3;
    assert_eq!(bench.core.directions(), 2);
    let removed = bench.core.remove(CallId(1), bench.now).unwrap();
    assert_eq!((removed.flows.len(), bench.core.directions()), (3, 0));
}

proptest! {
    #[test]
    fn a_mixed_burst_is_its_packets_one_by_one(kinds in prop::collection::vec(0u8..5, 1..64)) {
        let [mut one, mut all] = [bench(), bench()];
        let mut browser = browser();
        let packets: Vec<Vec<u8>> = (0u16..).zip(&kinds).map(|(n, kind)| match kind {
            0 => browser.seal(&g711(SOUND, n, 0).bytes()),
            1 => browser.seal(&picture(PICTURE, 96, n, 0).bytes()),
            2 => browser.seal(&picture(PICTURE, 97, n, 0).bytes()),
            3 => browser.seal_rtcp(&sender_report(PICTURE, 0, &[])),
            _ => browser.seal_rtcp(&receiver_report(1, &[Block { ssrc: OUTSIDE_SSRC, highest: 1 }])),
        }).collect();
        let outside = paths().outside;
        let room = |bytes: &Vec<u8>| [vec![0; HEAD], bytes.clone(), vec![0; TAIL]].concat();
        let mut singly = Vec::new();
        for bytes in &packets {
            let mut room = room(bytes);
            let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
            let tag = one.core.lookup(&outside).unwrap();
            let verdict = one.core.translate(tag, &outside, &mut buf, one.now);
            singly.push((verdict, buf.packet().to_vec()));
        }
        let mut rooms: Vec<Vec<u8>> = packets.iter().map(room).collect();
        let mut bufs: Vec<PacketBuf<'_>> = rooms.iter_mut().zip(&packets)
            .map(|(room, bytes)| PacketBuf::new(room, HEAD..HEAD + bytes.len()).unwrap()).collect();
        let tag = all.core.lookup(&outside);
        let mut burst: Vec<Inbound<'_, '_>> =
            bufs.iter_mut().map(|buf| Inbound::new(outside, tag, buf)).collect();
        let now = all.now;
        all.core.translate_burst(&mut burst, now);
        for (packet, (verdict, bytes)) in burst.iter().zip(&singly) {
            prop_assert_eq!(&packet.verdict, verdict);
            prop_assert_eq!(packet.buf.packet(), bytes.as_slice());
        }
        prop_assert_eq!(one.core.report(CallId(1)), all.core.report(CallId(1)));
    }
}
