//! Frame in, frame out.

use aya::maps::{HashMap, Map, MapData};
use sallyport_abi::Counter::{RewriteRtcp, RewriteRtp};
use sallyport_abi::{Egress, FRAME_MAX, FlowKey, FlowValue, INSIDE, Target, map};
use sallyport_xdp::Attachment;

use super::world::{ACROSS, MACS, MTU, Path, Phone, Sent, TRAFFIC_CLASS, V4, V6, World, key, sent_by};
use crate::cases;
use crate::frames::{ETHERNET, UDP_V4, UDP_V6, address, dtls, options, rtp, stun, summed, tagged, udp, with};
use crate::lab::{Lab, index};

/// A sender report without blocks and a source description: 28 and 12 octets.
fn rtcp() -> Vec<u8> {
    let mut compound = vec![0x80, 200, 0, 6];
    compound.extend([0xab; 24]);
    compound.extend([0x81, 202, 0, 2, 7, 7, 7, 7, 1, 1, b'x', 0]);
    compound
}

/// The frame that has to leave, octet by octet.
fn leaves((_, local, remote): Path, payload: &[u8]) -> Vec<u8> {
    let mut frame = udp(local, remote, payload);
    frame[..6].copy_from_slice(&MACS.1);
    frame[6..12].copy_from_slice(&MACS.0);
    if frame[12..14] == [8, 0] {
        frame[ETHERNET + 1] = TRAFFIC_CLASS;
        frame[ETHERNET + 4..ETHERNET + 9].copy_from_slice(&[0, 0, 0x40, 0, 64]);
    } else {
        frame[ETHERNET..ETHERNET + 2].copy_from_slice(&[0x60 | TRAFFIC_CLASS >> 4, TRAFFIC_CLASS << 4]);
    }
    summed(frame)
}

/// Runs `work` with the program and such a call.
fn with_world(phones: &[Phone; 2], work: impl FnOnce(&mut World) + Send) {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut world = World::new(&lab, phones);
        work(&mut world);
        world.runner.kernel.detach_all();
    });
}

#[test]
fn rtp_and_rtcp_leave_with_the_headers_of_the_other_side() {
    for phones in [V4, V6] {
        with_world(&phones, |world| {
            let [one, other] = phones;
            let (rtp, rtcp) = (rtp(160), rtcp());
            for (what, from, payload, to, counter) in [
                ("rtp", one.rtp, &rtp, other.rtp, RewriteRtp),
                ("rtcp", one.rtcp, &rtcp, other.rtcp, RewriteRtcp),
                ("rtp, muxed", other.rtp, &rtp, one.rtp, RewriteRtp),
                ("rtcp, muxed", other.rtp, &rtcp, one.rtcp, RewriteRtcp),
                ("rtp by the port of rtcp", one.rtcp, &rtp, other.rtp, RewriteRtp),
                ("rtcp by the port of rtp", one.rtp, &rtcp, other.rtcp, RewriteRtcp),
            ] {
                let frame = summed(sent_by(from, payload));
                assert_eq!(world.run(what, &frame), Sent::Back(counter, leaves(to, payload)), "{what}");
            }
            let tallies = world.tallies().map(|tally| (tally.packets, tally.octets));
            assert_eq!(tallies, [(1, 160), (1, 160), (1, 160)]);
            let flows = world.runner.kernel.flows();
            let flow = flows.iter().find(|(flow, _)| *flow == key(other.rtp)).unwrap().1;
            assert_eq!((flow.packets, flow.bytes), (2, 172 + 40), "all that arrived");
        });
    }
}

#[test]
fn across_interfaces_a_packet_is_redirected() {
    with_world(&ACROSS, |world| {
        let frame = summed(sent_by(ACROSS[0].rtp, &rtp(160)));
        let out = leaves(ACROSS[1].rtp, &rtp(160));
        assert_eq!(world.run("across", &frame), Sent::Across(RewriteRtp, out));
    });
}

#[test]
fn what_other_senders_put_into_their_headers_is_gone() {
    with_world(&V4, |world| {
        let from = sent_by(V4[0].rtp, &rtp(20));
        let out = Sent::Back(RewriteRtp, leaves(V4[1].rtp, &rtp(20)));
        for (what, at, octets) in [
            ("time to live", 8, &[1u8][..]),
            ("dscp and ecn", 1, &[0x03]),
            ("identification", 4, &[9, 9]),
            ("don't fragment", 6, &[0x40]),
        ] {
            let frame = summed(with(from.clone(), ETHERNET + at, octets));
            assert_eq!(world.run(what, &frame), out, "{what}");
        }
        let padded = [summed(from), vec![0; 9]].concat();
        assert_eq!(world.run("padding of the interface", &padded), out);
        // What IP has behind UDP goes too.
        let shorter = with(udp("10.0.0.8:4000", "10.0.0.1:21000", &rtp(40)), UDP_V4 + 4, &[0, 40]);
        assert_eq!(world.run("udp ends before ip", &summed(shorter)), out);
    });
    with_world(&V6, |world| {
        let frame = with(summed(sent_by(V6[0].rtp, &rtp(20))), ETHERNET, &[0x6f, 0xf1, 2, 3]);
        let frame = with(frame, ETHERNET + 7, &[1]);
        let out = leaves(V6[1].rtp, &rtp(20));
        assert_eq!(world.run("traffic class, flow label, hop limit", &frame), Sent::Back(RewriteRtp, out));
    });
}

#[test]
fn udp_checksums_are_changed_by_what_changes() {
    with_world(&V4, |world| {
        let none = sent_by(V4[0].rtp, &rtp(160));
        let out = with(leaves(V4[1].rtp, &rtp(160)), UDP_V4 + 6, &[0, 0]);
        assert_eq!(world.run("none stays none", &none), Sent::Back(RewriteRtp, out));
        // Every value that a checksum can have, 0xffff for zero among them.
        let mut payload = rtp(160);
        for word in (0..=u16::MAX).step_by(251).chain([u16::MAX]) {
            payload[100..102].copy_from_slice(&word.to_be_bytes());
            let frame = summed(sent_by(V4[0].rtp, &payload));
            let sent = world.run("checksums", &frame);
            assert_eq!(sent, Sent::Back(RewriteRtp, leaves(V4[1].rtp, &payload)), "{word}");
        }
        // Damage on the way is still seen by the receiver.
        let mut damaged = summed(sent_by(V4[0].rtp, &rtp(160)));
        *damaged.last_mut().unwrap() ^= 1;
        let Sent::Back(_, out) = world.run("damaged", &damaged) else { panic!("not sent") };
        assert_ne!(summed(out.clone()), out);
    });
    with_world(&V6, |world| {
        let none = sent_by(V6[0].rtp, &rtp(160));
        assert_eq!(world.run("none is not for IPv6", &none), Sent::Worker);
        let zero = (0..=u16::MAX).map(|word| with(rtp(160), 100, &word.to_be_bytes()));
        let payload =
            zero.into_iter().find(|payload| leaves(V6[1].rtp, payload)[UDP_V6 + 6..][..2] == [0xff; 2]);
        let payload = payload.unwrap();
        let sent = world.run("zero is 0xffff", &summed(sent_by(V6[0].rtp, &payload)));
        assert_eq!(sent, Sent::Back(RewriteRtp, leaves(V6[1].rtp, &payload)));
    });
}

#[test]
fn payload_is_counted_without_headers_and_padding() {
    with_world(&V4, |world| {
        let base = |first: u8| with(rtp(60), 0, &[first]);
        let extended = with(base(0x90), 12, &[0xbe, 0xde, 0, 2]);
        let padded = with(base(0xa0), 71, &[4]);
        let all = with(with(base(0xb1), 16, &[0xbe, 0xde, 0, 1]), 71, &[48]);
        let mut sum = 0;
        for (what, payload, octets) in [
            ("contributing sources", base(0x8f), 0),
            ("an extension", extended, 48),
            ("padding", padded, 56),
            ("all of them", all, 0),
            ("nothing but a header", rtp(0), 0),
            ("the marker", with(rtp(60), 1, &[0xe5]), 60),
            ("type 127", with(rtp(60), 1, &[127]), 60),
        ] {
            sum += octets;
            let sent = world.run(what, &summed(sent_by(V4[0].rtp, &payload)));
            assert_eq!(sent, Sent::Back(RewriteRtp, leaves(V4[1].rtp, &payload)), "{what}");
            assert_eq!(world.tallies()[0].octets, sum, "{what}");
        }
    });
}

/// Packets that the worker gets: it knows a reason for each, or a way.
fn exceptions() -> Vec<(&'static str, Vec<u8>)> {
    let first = |octet: u8| with(rtp(20), 0, &[octet]);
    let report = |at: usize, octets: &[u8]| with(rtcp(), at, octets);
    let empty = |count: usize| [0x80, 204, 0, 0].repeat(count);
    vec![
        ("nothing", vec![]),
        ("one octet", vec![0x80]),
        ("eleven octets", rtp(0)[..11].to_vec()),
        ("version 1", first(0x40)),
        ("version 3", first(0xc0)),
        ("stun", stun(1, 8)),
        ("dtls", dtls()),
        ("a type that was not agreed on", with(rtp(20), 1, &[18])),
        ("another, with the marker", with(rtp(20), 1, &[0x80 | 64])),
        ("sources beyond the packet", first(0x89)),
        ("an extension beyond the packet", with(first(0x90), 12, &[0xbe, 0xde, 0, 5])),
        ("an extension without length", with(rtp(2), 0, &[0x90])),
        ("padding of none", with(first(0xa0), 31, &[0])),
        ("padding beyond the payload", with(first(0xa0), 31, &[21])),
        ("rtcp of three octets", rtcp()[..3].to_vec()),
        ("rtcp beyond the datagram", rtcp()[..24].to_vec()),
        ("rtcp with an octet behind", [rtcp(), vec![0x80]].concat()),
        ("rtcp with four octets of nothing behind", [rtcp(), vec![0; 4]].concat()),
        ("rtcp of another version within", report(28, &[0x41])),
        ("rtcp whose length wraps", report(2, &[0xff, 0xff])),
        ("a long compound", empty(9)),
    ]
}

#[test]
fn what_is_not_of_the_usual_shape_goes_to_the_worker() {
    for phones in [V4, V6] {
        with_world(&phones, |world| {
            for (what, payload) in exceptions() {
                let frame = summed(sent_by(phones[1].rtp, &payload));
                assert_eq!(world.run(what, &frame), Sent::Worker, "{what}");
            }
            let whole = summed(sent_by(phones[0].rtp, &rtp(20)));
            assert_eq!(world.run("a tag", &tagged(whole, 0x8100, 7)), Sent::Worker);
            let eight = summed(sent_by(phones[0].rtcp, &[0x80, 204, 0, 0].repeat(8)));
            assert!(matches!(world.run("eight packets", &eight), Sent::Back(..)));
        });
    }
    with_world(&V4, |world| {
        // Five words of options are as long as an IPv6 header is longer.
        for words in [1, 5, 10] {
            let frame = options(sent_by(V4[0].rtp, &rtp(20)), words);
            assert_eq!(world.run("options", &frame), Sent::Worker, "{words}");
        }
    });
}

#[test]
fn what_the_next_link_carries_is_rewritten_and_the_worker_cuts_what_is_longer() {
    for (phones, headers) in [(V4, UDP_V4 + 8), (V6, UDP_V6 + 8)] {
        with_world(&phones, |world| {
            let most = ETHERNET + usize::from(MTU) - headers - 12;
            let longer = summed(sent_by(phones[0].rtp, &rtp(most + 1)));
            assert_eq!(world.run("longer", &longer), Sent::Worker);
            let payload = rtp(most);
            let frame = summed(sent_by(phones[0].rtp, &payload));
            assert_eq!(world.run("longest", &frame), Sent::Back(RewriteRtp, leaves(phones[1].rtp, &payload)));
        });
    }
}

/// Jumbo frames, where the next link carries them as well.
#[test]
fn what_may_lie_in_several_buffers_is_the_worker_s() {
    with_world(&V4, |world| {
        world.runner.kernel.set_frame_max(3776);
        world.runner.kernel.attach(index("i0"), INSIDE, Some(Attachment::Native)).unwrap();
        let flow = key(V4[0].rtp);
        let macs = ([4; 6], [6; 6]);
        let egress = Egress {
            ifindex: 1,
            source_mac: macs.0,
            destination_mac: macs.1,
            dscp: 0,
            back: true,
            mtu: 9000,
        };
        let to = Target::new(&flow, address(V4[1].rtp.1), address(V4[1].rtp.2), &egress).unwrap();
        let rewrite = sallyport_xdp::Rewrite { rtp: to, rtcp: to, payload_types: [1, 0] };
        world.runner.kernel.steer_flow(&flow, 0x0100_0001, 1, Some((&rewrite, 0))).unwrap();
        let most = FRAME_MAX as usize - UDP_V4 - 8 - 12;
        for (octets, back) in [(most, true), (most + 1, false), (3500, false)] {
            let sent = world.run("long", &summed(sent_by(V4[0].rtp, &rtp(octets))));
            assert_eq!((matches!(sent, Sent::Back(..)), sent == Sent::Worker), (back, !back), "{octets}");
        }
    });
}

/// A next hop changes, then the flow goes to the worker: counters go on, and with another owner they begin anew.
#[test]
fn a_flow_is_steered_anew_and_goes_on_counting() {
    with_world(&V4, |world| {
        let (flow, frame) = (key(V4[0].rtp), summed(sent_by(V4[0].rtp, &rtp(160))));
        world.run("before", &frame);
        let egress = Egress {
            ifindex: 1,
            source_mac: [4; 6],
            destination_mac: [6; 6],
            dscp: 0,
            back: false,
            mtu: 1500,
        };
        let to = Target::new(&flow, address(V4[1].rtp.1), address(V4[1].rtp.2), &egress).unwrap();
        let rewrite = sallyport_xdp::Rewrite { rtp: to, rtcp: to, payload_types: [1, 0] };
        world.runner.kernel.steer_flow(&flow, 0x0100_0001, 1, Some((&rewrite, 0))).unwrap();
        let Sent::Across(_, out) = world.run("another next hop", &frame) else { panic!("not across") };
        assert_eq!((&out[..6], &out[6..12]), (&[6; 6][..], &[4; 6][..]));
        assert_eq!(world.tallies()[0].packets, 2);
        world.runner.kernel.steer_flow(&flow, 0x0100_0001, 1, None).unwrap();
        assert_eq!(world.run("to the worker", &frame), Sent::Worker);
        let counted = |world: &World| {
            let flows = world.runner.kernel.flows();
            flows.iter().find(|(found, _)| *found == flow).unwrap().1.packets
        };
        assert_eq!(counted(world), 3);
        world.runner.kernel.steer_flow(&flow, 0x0100_0001, 2, None).unwrap();
        assert_eq!(counted(world), 0);
        world.runner.kernel.clear_tally(0).unwrap();
        assert_eq!((world.tallies()[0].packets, world.runner.kernel.tallies().unwrap()), (0, 32));
    });
}

/// Memory of a flow that is taken away is another's at once. Whoever still reads it must not send a packet of the one to the
/// other's peer.
#[test]
fn an_entry_that_became_another_flow_s_is_not_obeyed() {
    with_world(&V4, |world| {
        let frame = summed(sent_by(V4[0].rtp, &rtp(160)));
        let flow = key(V4[0].rtp);
        let map = Map::HashMap(MapData::from_pin(world.pins.join(map::FLOWS)).unwrap());
        let mut flows = HashMap::<_, FlowKey, FlowValue>::try_from(map).unwrap();
        let right = flows.get(&flow, 0).unwrap();
        assert_eq!(right.key, flow);
        let octets = size_of::<FlowKey>();
        for at in (0..octets).filter(|at| !(1..4).contains(at)) {
            let other = changed(&flow, at);
            flows.insert(flow, FlowValue { key: other, ..right }, 0).unwrap();
            assert_eq!(world.run("another flow's", &frame), Sent::Stale, "octet {at}");
        }
        flows.insert(flow, right, 0).unwrap();
        assert!(matches!(world.run("its own", &frame), Sent::Back(..)));
        assert_eq!(world.tallies()[0].packets, 1);
    });
}

/// The key with one octet changed.
fn changed(key: &FlowKey, at: usize) -> FlowKey {
    let mut key = *key;
    let place = match at {
        0..4 => &mut key.zone,
        4..6 => &mut key.local_port[at - 4],
        6..8 => &mut key.remote_port[at - 6],
        8..24 => &mut key.local_address[at - 8],
        _ => &mut key.remote_address[at - 24],
    };
    *place ^= 0x10;
    key
}

/// Flows of the table meet their fates beside rewritten ones, and nobody else's packet is ever rewritten.
#[test]
fn other_flows_meet_their_fates_beside_rewritten_ones() {
    with_world(&V4, |world| {
        world.runner.kernel.set_punt_rate(1000, 1000).unwrap();
        for case in cases::all() {
            let fate = world.runner.run(case.name, case.by, case.queue, &case.frame);
            assert_eq!(fate, case.fate, "{}", case.name);
        }
    });
}
