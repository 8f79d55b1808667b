//! Two calls whose plain legs point at each other: what the one sends inside is the other's, and no cable sees it.

use std::net::SocketAddr;

use sallyport_bench::load::net::Side;
use sallyport_bench::load::station::Station;
use sallyport_bench::load::target::MEDIA;
use sallyport_io::steer;
use sallyport_plan::{
    CallId, Clock, Digits, Direction, DirectionIndex, Extensions, FlowKey, Format, Medium, Mute, Passage,
    Plan, PortPair, Protection, Pt, PtMap, Refusal, Resend, Ssrc, Zone,
};

use crate::bare::{BROWSERS, Bare, Browser, World, worlds};
use crate::stage::possible;

/// RTP packets and RTCP compounds each way.
const RTP: u16 = 40;
const RTCP: u16 = 3;
/// Times that a packet is passed on at the most.
const HAIRPINS_MAX: u64 = 8;

/// A browser outside whose packets `worker` of `workers` hears on sockets.
fn browser(bare: &mut Bare, at: usize, world: World, worker: u32, workers: u32) -> Browser {
    let first = 30_000 + 1000 * u16::try_from(at).unwrap();
    let mut remotes = (first..).map(|port| SocketAddr::new(world.browser, port));
    let remote = remotes.find(|remote| steer(*remote, workers) == worker).unwrap();
    Browser::new(bare, at, Zone::Outside, SocketAddr::new(world.outside, MEDIA), remote, world.inside)
}

/// All of the one's media comes to the other, in order.
fn talks(one: &mut Browser, other: &mut Browser) {
    for nth in 0..RTP {
        let spoken = one.speak();
        assert_eq!(other.hear_media(), spoken, "packet {nth}");
    }
    for _ in 0..RTCP {
        one.report();
        let heard = other.hear_media();
        assert_eq!(heard[..2], [0x80, 201], "a receiver report");
        assert_eq!(
            heard[4..8],
            other.call.outside_ssrc.to_be_bytes(),
            "under the name that the browser knows"
        );
    }
}

fn both_hear_each_other(path: &str, workers: u32) {
    let mut bare = Bare::set(path, workers);
    for (at, world) in worlds().into_iter().enumerate() {
        let mut one = browser(&mut bare, 2 * at, world, 0, workers);
        let mut other = browser(&mut bare, 2 * at + 1, world, workers - 1, workers);
        let (first, second) = (one.plan(other.ports.rtp), other.plan(one.ports.rtp));
        bare.client.install_plan(first).unwrap();
        bare.client.install_plan(second).unwrap();
        let (before, arrived) = (bare.counters(), bare.arrived_inside());
        talks(&mut one, &mut other);
        talks(&mut other, &mut one);
        let grew = bare.grown(&before);
        let all = 2 * u64::from(RTP + RTCP);
        // Each leaves one flow and comes to the other; what leaves on a cable is what the browsers heard.
        assert_eq!((grew("received"), grew("hairpins"), grew("sent")), (all, all, all));
        assert_eq!((grew("forward_rtp"), grew("forward_rtcp")), (4 * u64::from(RTP), 4 * u64::from(RTCP)));
        // On XDP a queue may bring a browser's packets to the other worker, too.
        let strays = grew("strays");
        assert!(
            strays == if workers > 1 { all } else { 0 } || (path != "socket" && strays > all),
            "{strays}"
        );
        assert_eq!(grew("drop_unknown_flow") + grew("drop_no_link") + grew("drop_hairpin_loop"), 0);
        assert!(bare.arrived_inside() - arrived < u64::from(RTP), "media left by the inside's cable");
        for call in [one.call.id, other.call.id] {
            let report = bare.client.report(call).unwrap();
            assert!(report.iter().all(|direction| direction.packets == u64::from(RTP)), "{report:?}");
        }
        if path != "socket" {
            // What only we feed is not in the kernel.
            assert_eq!(bare.client.status().unwrap().flows, 2);
            assert_eq!(grew("xdp_redirect_flow"), all);
        }
        for call in [one.call.id, other.call.id] {
            bare.client.remove(call).unwrap();
        }
    }
    bare.end([]);
}

#[test]
fn two_calls_of_ours_hear_each_other_by_native_xdp() {
    if possible() {
        both_hear_each_other("xdp", 1);
        both_hear_each_other("xdp", 2);
    }
}

#[test]
fn two_calls_of_ours_hear_each_other_by_generic_xdp() {
    if possible() {
        both_hear_each_other("generic", 2);
    }
}

#[test]
fn two_calls_of_ours_hear_each_other_by_sockets() {
    if possible() {
        both_hear_each_other("socket", 1);
        both_hear_each_other("socket", 2);
    }
}

/// A call between plain peers that asks for no translation: from `near` to `far`, with the pair that each of them knows.
fn plain(call: u128, [near, far]: [(PortPair, SocketAddr); 2]) -> Plan {
    let flows = |(pair, remote): (PortPair, SocketAddr)| {
        let above = SocketAddr::new(remote.ip(), remote.port() + 1);
        let flow = |local, remote| FlowKey { zone: Zone::Inside, local, remote };
        [flow(pair.rtp, remote), flow(pair.rtcp, above)]
    };
    let direction = |index, reverse, from: [FlowKey; 2], [rtp, rtcp]: [FlowKey; 2]| Direction {
        index: DirectionIndex(index),
        medium: Medium::Audio,
        ingress: from.to_vec(),
        open: Some(Protection::Plain),
        seal: Some(Protection::Plain),
        rtp,
        rtcp,
        passage: Passage::Transparent,
        ssrc: Ssrc(1),
        payload_types: vec![PtMap { from: Pt(0), to: Pt(0), format: Format::Media(Clock::Hz8000) }],
        extensions: Extensions::default(),
        digits: Digits::Pass,
        resend: Resend::Never,
        fork: None,
        learns: false,
        reverse: DirectionIndex(reverse),
        mute: Mute::Open,
    };
    let (near, far) = (flows(near), flows(far));
    let directions = vec![direction(0, 1, near, far), direction(1, 0, far, near)];
    Plan { call: CallId(call), version: 1, directions, consents: vec![], record: vec![] }
}

/// Between telephones whose calls point at each other the kernel sends nothing on by itself, and all leaves as it came.
fn plain_calls_hear_each_other(path: &str) {
    let mut bare = Bare::set(path, 2);
    for (at, world) in worlds().into_iter().enumerate() {
        let call = |nth: u128| 10 * (at as u128 + 1) + nth;
        let mut pairs = |call| bare.client.reserve_pairs(CallId(call), world.inside, 2).unwrap();
        let (first, second) = (pairs(call(0)), pairs(call(1)));
        let phones = [4000, 4010].map(|port| bare.socket("i", SocketAddr::new(world.agent, port)));
        let [one, other] = phones.each_ref().map(|phone| phone.local_addr().unwrap());
        let plans = [
            plain(call(0), [(first[0], one), (first[1], second[1].rtp)]),
            plain(call(1), [(second[0], other), (second[1], first[1].rtp)]),
        ];
        for plan in plans {
            bare.client.install_plan(plan).unwrap();
        }
        let before = bare.counters();
        let ways = [(0, 1, first[0].rtp, second[0].rtp), (1, 0, second[0].rtp, first[0].rtp)];
        for (from, to, toward, source) in ways {
            for sequence in 0..RTP {
                let mut packet = vec![0x80; 172];
                packet[1..4].copy_from_slice(&[0, 0, sequence as u8]);
                phones[from].send_to(&packet, toward).unwrap();
                let mut room = [0; 2048];
                let (length, sender) = phones[to].recv_from(&mut room).unwrap();
                assert_eq!((&room[..length], sender), (&packet[..], source));
            }
        }
        let grew = bare.grown(&before);
        assert_eq!((grew("hairpins"), grew("sent")), (2 * u64::from(RTP), 2 * u64::from(RTP)));
        assert_eq!(grew("xdp_rewrite_rtp"), 0);
        for call in [call(0), call(1)].map(CallId) {
            let report = bare.client.report(call).unwrap();
            assert!(report.iter().all(|direction| direction.packets == u64::from(RTP)), "{report:?}");
            bare.client.remove(call).unwrap();
        }
    }
    bare.end([]);
}

#[test]
fn plain_calls_of_ours_hear_each_other_by_native_xdp() {
    if possible() {
        plain_calls_hear_each_other("xdp");
    }
}

#[test]
fn plain_calls_of_ours_hear_each_other_by_sockets() {
    if possible() {
        plain_calls_hear_each_other("socket");
    }
}

/// Plans can lead a packet in a circle, or to nobody: it dies, and is counted.
fn circles_and_dead_ends(path: &str) {
    let mut bare = Bare::set(path, 2);
    let [world, _] = worlds();
    let mut one = browser(&mut bare, 0, world, 0, 2);
    let mut other = browser(&mut bare, 1, world, 1, 2);
    let first = one.plan(other.ports.rtp);
    bare.client.install_plan(first).unwrap();
    let before = bare.counters();
    for _ in 0..RTP {
        one.speak();
    }
    assert!(one.is_quiet() && other.is_quiet());
    let grew = bare.grown(&before);
    assert_eq!((grew("hairpins"), grew("drop_unknown_flow"), grew("sent")), (RTP.into(), RTP.into(), 0));

    // What comes from inside goes back there, on both calls.
    let circle = |browser: &mut Browser, far| {
        let mut plan = browser.plan(far);
        let (rtp, rtcp) = (plan.directions[0].rtp, plan.directions[0].rtcp);
        let outward = &mut plan.directions[1];
        (outward.rtp, outward.rtcp, outward.seal) = (rtp, rtcp, Some(Protection::Plain));
        plan.version = 2;
        plan
    };
    let (first, second) = (circle(&mut one, other.ports.rtp), circle(&mut other, one.ports.rtp));
    bare.client.install_plan(first).unwrap();
    bare.client.install_plan(second).unwrap();
    let before = bare.counters();
    for _ in 0..RTP {
        one.speak();
    }
    assert!(one.is_quiet() && other.is_quiet());
    let grew = bare.grown(&before);
    // Each call hears the other's browser and its own circle in turn, two sources: one that comes back may be a straggler.
    let (loops, stragglers) = (grew("drop_hairpin_loop"), grew("drop_out_of_sequence"));
    assert!(loops > 0, "{stragglers} stragglers alone");
    assert_eq!((loops + stragglers, grew("sent")), (RTP.into(), 0));
    let steps = grew("hairpins");
    assert!((loops * HAIRPINS_MAX..=u64::from(RTP) * HAIRPINS_MAX).contains(&steps), "{steps}");
    bare.end([one.call.id, other.call.id]);
}

#[test]
fn circles_and_dead_ends_end_by_native_xdp() {
    if possible() {
        circles_and_dead_ends("xdp");
    }
}

#[test]
fn circles_and_dead_ends_end_by_sockets() {
    if possible() {
        circles_and_dead_ends("socket");
    }
}

/// Who bears our own address on a cable is not taken for us.
fn nobody_speaks_for_us(path: &str) {
    let mut bare = Bare::set(path, 1);
    let [_, world] = worlds();
    let mut one = browser(&mut bare, 0, world, 0, 1);
    let other = browser(&mut bare, 1, world, 0, 1);
    let plan = one.plan(other.ports.rtp);
    bare.client.install_plan(plan).unwrap();
    let mut station = Station::open(&bare.row, Side::Inside).unwrap();
    let before = bare.counters();
    for sequence in 0..RTP {
        let sent = station.send(0, (other.ports.rtp, one.ports.rtp), 172, |packet| {
            let octets = packet.packet_mut();
            octets.fill(0);
            octets[0] = 0x80;
            octets[2..4].copy_from_slice(&sequence.to_be_bytes());
            true
        });
        assert!(sent);
        station.flush();
    }
    assert!(one.is_quiet());
    let grew = bare.grown(&before);
    assert_eq!((grew("sent"), grew("hairpins")), (0, 0));
    let dropped = if path == "socket" { "drop_unknown_flow" } else { "xdp_drop_source" };
    assert_eq!(grew(dropped), u64::from(RTP), "they came, and died");
    drop(station);
    bare.end([one.call.id, other.call.id]);
}

#[test]
fn nobody_speaks_for_us_by_native_xdp() {
    if possible() {
        nobody_speaks_for_us("xdp");
    }
}

#[test]
fn nobody_speaks_for_us_by_sockets() {
    if possible() {
        nobody_speaks_for_us("socket");
    }
}

/// To ourselves only from a pair to another pair, inside.
#[test]
fn plans_that_lead_elsewhere_to_us_are_refused() {
    if !possible() {
        return;
    }
    let mut bare = Bare::set("socket", 1);
    let [world, _] = worlds();
    let mut one = browser(&mut bare, 0, world, 0, 1);
    let far = |ip, port| SocketAddr::new(ip, port);
    let mut refused = |plan: Plan| {
        let error = bare.client.install_plan(plan).unwrap_err().to_string();
        assert!(error.contains(Refusal::NotOurs.text()), "{error}");
    };
    for far in [
        far(world.inside, 19_998),
        far(world.inside, BROWSERS),
        far(world.outside, MEDIA),
        far(world.outside, 20_000),
        one.ports.rtp,
    ] {
        refused(one.plan(far));
    }
    // A browser's leg never leads to a pair, on either side.
    for zone in [Zone::Outside, Zone::Inside] {
        let mut plan = one.plan(far(world.agent, 4000));
        let local = if zone == Zone::Outside { one.flow.local } else { far(world.inside, BROWSERS) };
        let browser = FlowKey { zone, local, remote: far(world.inside, 20_100) };
        plan.directions[0].ingress = vec![browser];
        refused(plan);
    }
    let mut plan = one.plan(far(world.inside, 20_100));
    plan.directions.retain(|direction| direction.index == DirectionIndex(0));
    plan.directions[0].reverse = DirectionIndex(0);
    bare.client.install_plan(plan).unwrap();
    bare.end([one.call.id]);
}
