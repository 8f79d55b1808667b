//! Header extensions over the translator: mapped as a slow model says, names of sections, feedback on arrivals, bandwidth.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Bench, Out};
use proptest::prelude::*;
use sallyport_core::{Limits, Now, Reason, Translator, Verdict};
use sallyport_plan::{CallId, ExtensionMap, Extensions, Mid, Plan, Profile, Refusal};
use sallyport_wire::rtp::Header;
use sallyport_wire::{PacketBuf, rtcp};
use table::world::*;

const GCM: Profile = Profile::AeadAes128Gcm;
const BROWSER: u32 = 0xb0b0_0001;
/// Room in front of packets, as ports leave it.
const FRONT: usize = 320;

fn with(inward: Extensions, outward: Extensions) -> Plan {
    let mut plan = plan(Some(GCM), paths());
    (plan.directions[0].extensions, plan.directions[1].extensions) = (inward, outward);
    plan
}

fn browser() -> Peer {
    Peer::new(&key(GCM, FROM_BROWSER), &key(GCM, TO_BROWSER))
}

fn carried(maps: &[(u8, u8)]) -> Extensions {
    let carried = maps.iter().map(|(from, to)| ExtensionMap { from: *from, to: *to }).collect();
    Extensions { carried, ..Extensions::default() }
}

fn mid(id: u8, name: &str) -> Option<Mid> {
    Some(Mid { id, name: name.into() })
}

/// A packet with this extension: profile, then whole words.
fn extended(rtp: &Rtp, extension: Option<(u16, &[u8])>) -> Vec<u8> {
    let mut bytes = Rtp { extension: None, ..rtp.clone() }.bytes();
    if let Some((profile, block)) = extension {
        bytes[0] |= 0x10;
        let words = (block.len() / 4) as u16;
        let head = [profile.to_be_bytes(), words.to_be_bytes()].concat();
        let at = 12 + 4 * rtp.csrc.len();
        bytes.splice(at..at, [head, block.to_vec()].concat());
    }
    bytes
}

/// The elements of a packet as RFC 8285 tells it, octet by octet; `None` where it makes no sense.
fn elements(profile: u16, block: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let two = profile >> 4 == 0x100;
    if !two && profile != 0xbede {
        return Some(vec![]);
    }
    let (mut found, mut octets) = (vec![], block.iter().copied());
    while let Some(first) = octets.next() {
        let (id, length) = match (two, first) {
            (_, 0) => continue,
            (true, id) => (id, octets.next()?),
            (false, first) if first >> 4 == 0 || first >> 4 == 15 => break,
            (false, first) => (first >> 4, (first & 15) + 1),
        };
        let data: Vec<u8> = octets.by_ref().take(length.into()).collect();
        if data.len() < length.into() {
            return None;
        }
        found.push((id, data));
    }
    Some(found)
}

/// What must leave: known elements under their other ids, in the one form of the direction.
fn model(maps: &[(u8, u8)], extension: Option<(u16, &[u8])>) -> Option<(u16, Vec<u8>)> {
    let (profile, block) = extension?;
    let two = maps.iter().any(|(_, to)| *to > 14);
    let mut out = vec![];
    for (id, data) in elements(profile, block)? {
        let Some((_, to)) = maps.iter().find(|(from, _)| *from == id) else { continue };
        let fits = if two { true } else { (1..=16).contains(&data.len()) };
        let head = if two {
            vec![*to, data.len() as u8]
        } else {
            vec![to << 4 | (data.len() as u8).wrapping_sub(1)]
        };
        if fits && out.len() + head.len() + data.len() <= 124 {
            out.extend([head, data].concat());
        }
    }
    if out.is_empty() {
        return None;
    }
    out.resize(out.len().next_multiple_of(4), 0);
    Some((if two { 0x1000 } else { 0xbede }, out))
}

fn forward(core: &mut Translator, bytes: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut room = [vec![0xee; FRONT], bytes.to_vec(), vec![0xee; TAIL]].concat();
    let mut buf = PacketBuf::new(&mut room, FRONT..FRONT + bytes.len()).unwrap();
    let tag = core.lookup(&paths().rtp).unwrap();
    match core.translate(tag, &paths().rtp, &mut buf, Now(1)) {
        Verdict::Forward(_) => Ok(buf.packet().to_vec()),
        Verdict::Drop(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn counter(core: &Translator, name: &str) -> u64 {
    core.counters().find(|(have, _)| *have == name).unwrap().1
}

fn some_packet() -> impl Strategy<Value = Rtp> {
    let csrc = prop::collection::vec(any::<u32>(), 0..16);
    let payload = prop::collection::vec(any::<u8>(), 0..60);
    (csrc, payload, 0..40u8, any::<bool>()).prop_map(|(csrc, payload, padding, marker)| Rtp {
        csrc,
        payload,
        padding,
        marker,
        ..g711(BROWSER, 500, 8000)
    })
}

/// Octets of elements, mostly sound, in either form.
fn some_extension() -> impl Strategy<Value = Option<(u16, Vec<u8>)>> {
    let element = (1..17u8, prop::collection::vec(any::<u8>(), 0..18), 0..3usize);
    let sound = (any::<bool>(), prop::collection::vec(element, 0..7)).prop_map(|(two, elements)| {
        let mut block = vec![];
        for (id, data, padding) in elements {
            let fits = two || (id < 16 && (1..=16).contains(&data.len()));
            if fits {
                let head =
                    if two { vec![id, data.len() as u8] } else { vec![id << 4 | (data.len() as u8 - 1)] };
                block.extend([head, data, vec![0; padding]].concat());
            }
        }
        block.resize(block.len().next_multiple_of(4), 0);
        (if two { 0x1003 } else { 0xbede }, block)
    });
    let any = (
        prop_oneof![Just(0xbede_u16), Just(0x1000), any::<u16>()],
        prop::collection::vec(any::<[u8; 4]>(), 0..9),
    )
        .prop_map(|(profile, words)| (profile, words.concat()));
    prop_oneof![1 => Just(None), 6 => sound.prop_map(Some), 3 => any.prop_map(Some)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn extensions_leave_as_the_slow_way_maps_them(
        packets in prop::collection::vec((some_packet(), some_extension()), 1..5),
        maps in prop::collection::btree_map(1..17u8, prop_oneof![6 => 1..15u8, 1 => 15..=255u8], 0..6),
        protected in any::<bool>(),
    ) {
        let maps: Vec<(u8, u8)> = maps.into_iter().collect();
        let mut plan = with(Extensions::default(), carried(&maps));
        if !protected {
            plan.directions[1].seal = Some(sallyport_plan::Protection::Plain);
        }
        let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
        core.install(plan, Now(0)).unwrap();
        let (mut peer, mut broken) = (browser(), 0);
        for (at, (rtp, extension)) in packets.into_iter().enumerate() {
            let rtp = Rtp { sequence: 500 + at as u16, timestamp: 8000 + 160 * at as u32, ..rtp };
            let extension = extension.as_ref().map(|(profile, block)| (*profile, block.as_slice()));
            let sent = forward(&mut core, &extended(&rtp, extension));
            let sent = match protected {
                true => peer.open(&sent.unwrap()),
                false => sent.unwrap(),
            };
            let header = Header::parse(&sent).unwrap();
            let expected = model(&maps, extension);
            let leaves = rtp.leaves(header.ssrc(), header.sequence(), header.timestamp());
            let expected = expected.as_ref().map(|(profile, block)| (*profile, block.as_slice()));
            prop_assert_eq!(&sent, &extended(&leaves, expected), "CSRCs, padding, marker and payload stay");
            broken += u64::from(extension.is_some_and(|(profile, block)| elements(profile, block).is_none()));
            prop_assert_eq!(counter(&core, "extension_malformed"), broken);
        }
    }
}

#[test]
fn nothing_is_agreed_on_so_all_is_taken_out() {
    let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
    core.install(with(Extensions::default(), Extensions::default()), Now(0)).unwrap();
    let mut peer = browser();
    let rtp = Rtp { csrc: vec![1, 2], padding: 3, ..g711(7, 1, 0) };
    let sent = forward(&mut core, &extended(&rtp, Some((0xbede, &[0x10, 0x85, 0, 0])))).unwrap();
    let sent = peer.open(&sent);
    assert_eq!((sent.len(), sent[0]), (12 + 8 + 16 + 3, 0xa2));
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let none = Extensions::default;
    for flaw in [
        carried(&[(0, 1)]),
        carried(&[(1, 0)]),
        carried(&[(1, 1); 9]),
        Extensions { mid: mid(0, "a"), ..none() },
        Extensions { mid: mid(1, ""), ..none() },
        Extensions { mid: mid(1, "seventeen-letters"), ..none() },
        Extensions { transport_wide: Some(0), ..none() },
    ] {
        assert_eq!(with(flaw.clone(), none()).validate(), Err(Refusal::Malformed), "{flaw:?}");
    }
}

#[test]
fn a_section_is_named_until_its_receiver_has_reported() {
    let named = Extensions { mid: mid(4, "v1"), ..carried(&[(1, 2)]) };
    let mut bench = Bench::new(1, 2);
    bench.core.install(with(Extensions::default(), named.clone()), bench.now).unwrap();
    let mut peer = browser();
    let say = |bench: &mut Bench, peer: &mut Peer, level: Option<&[u8]>| {
        bench.elapse(20_000);
        let sequence = 1 + bench.report(1).packets as u16;
        let rtp = extended(&g711(7, sequence, u32::from(sequence) * 160), level.map(|block| (0xbede, block)));
        let sent = forward(&mut bench.core, &rtp).unwrap();
        let sent = peer.open(&sent);
        let words = usize::from(sent[0] & 0x10 != 0) * (sent.len() - 28);
        sent[12..12 + words].to_vec()
    };
    let name = b"\xbe\xde\0\x01\x41v1\0";
    assert_eq!(say(&mut bench, &mut peer, None), name);
    assert_eq!(say(&mut bench, &mut peer, Some(&[0x10, 0x85, 0, 0])), b"\xbe\xde\0\x02\x41v1\x20\x85\0\0\0");
    assert_eq!(say(&mut bench, &mut peer, Some(&[0x1f, 0x85, 0, 0])), name, "what came is malformed");
    assert_eq!(bench.counter("extension_malformed"), 1);
    // A report on another stream says nothing.
    for (ssrc, silent) in [(1, false), (OUTSIDE_SSRC, true)] {
        let report = peer.seal_rtcp(&receiver_report(BROWSER, &[Block { ssrc, highest: 1 }]));
        let _ = bench.send(paths().outside, &report);
        assert_eq!(say(&mut bench, &mut peer, None).is_empty(), silent);
    }
    assert_eq!(say(&mut bench, &mut peer, Some(&[0x10, 0x85, 0, 0])), b"\xbe\xde\0\x01\x20\x85\0\0");
    // The same name again changes nothing; another does.
    for (version, name, silent) in [(2, "v1", true), (3, "v2", false)] {
        let named = Extensions { mid: mid(4, name), ..named.clone() };
        bench.core.install(Plan { version, ..with(Extensions::default(), named) }, bench.now).unwrap();
        assert_eq!(say(&mut bench, &mut peer, None).is_empty(), silent);
    }
}

/// First sequence number, and which of the packets from there on arrived.
fn arrived(feedback: &[u8]) -> (u16, Vec<bool>) {
    let half = |at: usize| u16::from_be_bytes([feedback[at], feedback[at + 1]]);
    let (mut at, mut found) = (20, vec![]);
    while found.len() < usize::from(half(14)) {
        let chunk = half(at);
        match chunk >> 14 {
            0 | 1 => found.extend(std::iter::repeat_n(chunk >> 13 != 0, usize::from(chunk & 0x1fff))),
            2 => found.extend((0..14).rev().map(|bit| chunk >> bit & 1 != 0)),
            _ => found.extend((0..7).rev().map(|pair| chunk >> (2 * pair) & 3 != 0)),
        }
        at += 2;
    }
    found.truncate(half(14).into());
    (half(12), found)
}

#[test]
fn a_sender_is_told_ten_times_a_second_what_arrived() {
    let wide = Extensions { transport_wide: Some(3), ..Extensions::default() };
    let mut bench = Bench::new(1, 2);
    bench.core.install(with(wide.clone(), Extensions::default()), bench.now).unwrap();
    let mut peer = browser();
    let (mut told, mut packets) = (vec![], 0);
    for n in 0..500u16 {
        bench.elapse(20_000);
        let wide = n.wrapping_add(65_500).to_be_bytes();
        let rtp =
            extended(&g711(BROWSER, n, u32::from(n) * 160), Some((0xbede, &[0x31, wide[0], wide[1], 0])));
        let sealed = peer.seal(&rtp);
        if n % 10 != 3 {
            let Out::Rtp(_, sent) = bench.send(paths().outside, &sealed) else { panic!("{n}") };
            assert_eq!(sent[0], 0x80, "it ends here");
        }
        for (to, bytes) in bench.reports() {
            if to == paths().outside {
                let bytes = peer.open_rtcp(&bytes);
                let kinds: Vec<_> = rtcp::compound(&bytes).map(|one| one.unwrap()).collect();
                if kinds[0].packet_type == rtcp::RTPFB {
                    assert_eq!((kinds.len(), kinds[0].count), (1, 15));
                    assert_eq!(bytes[4..12], [OUTSIDE_SSRC.to_be_bytes(), BROWSER.to_be_bytes()].concat());
                    packets += 1;
                    let (first, some) = arrived(&bytes);
                    assert_eq!(first, (told.len() as u16).wrapping_add(65_500), "one behind the other");
                    told.extend(some);
                }
            }
        }
    }
    assert!((98..=101).contains(&packets), "{packets} in ten seconds");
    assert!(told.len() > 490 && told.iter().enumerate().all(|(n, came)| *came == (n % 10 != 3)));
    assert_eq!(bench.counter("feedback_rtcp"), packets);
    // Silence is not reported, and a plan without ends it.
    let silent = |bench: &mut Bench| {
        bench.reports();
        let before = bench.counter("feedback_rtcp");
        (0..50).for_each(|_| {
            bench.elapse(20_000);
            bench.reports();
        });
        bench.counter("feedback_rtcp") - before
    };
    assert!(silent(&mut bench) <= 1);
    let none = with(Extensions::default(), Extensions::default());
    bench.core.install(Plan { version: 2, ..none }, bench.now).unwrap();
    let sealed = peer.seal(&extended(&g711(BROWSER, 500, 80_000), Some((0xbede, &[0x31, 9, 9, 0]))));
    bench.send(paths().outside, &sealed).forwarded();
    assert_eq!(silent(&mut bench), 0);
    let again = Plan { version: 3, ..with(wide, Extensions::default()) };
    bench.core.install(again, bench.now).unwrap();
    let sealed = peer.seal(&extended(&g711(BROWSER, 501, 80_160), Some((0xbede, &[0x31, 9, 9, 0]))));
    bench.send(paths().outside, &sealed).forwarded();
    assert_eq!(silent(&mut bench), 1);
}

#[test]
fn nothing_is_fed_back_before_there_are_keys_or_for_what_cannot_be_opened() {
    let wide = Extensions { transport_wide: Some(3), ..Extensions::default() };
    let mut bench = Bench::new(1, 2);
    bench.core.install(with(wide, Extensions::default()), bench.now).unwrap();
    let mut stranger = Peer::new(&key(GCM, 0x77), &key(GCM, 0x77));
    let rtp = extended(&g711(BROWSER, 1, 160), Some((0xbede, &[0x31, 0, 1, 0])));
    assert_eq!(bench.send(paths().outside, &stranger.seal(&rtp)), Out::Drop(Reason::BadTag));
    // Numbers of one octet are none.
    let rtp = extended(&g711(BROWSER, 1, 160), Some((0xbede, &[0x30, 1, 0, 0])));
    bench.send(paths().outside, &browser().seal(&rtp)).forwarded();
    bench.elapse(200_000);
    assert_eq!(bench.reports(), []);
    assert_eq!(bench.core.report(CallId(1)).unwrap()[0].packets, 1);
}

#[test]
fn the_bandwidth_that_the_inside_wants_leaves_as_remb_where_that_is_known() {
    let remb = Extensions { remb: true, ..Extensions::default() };
    let source = || g711(BROWSER, 1, 160).bytes();
    let feedback = |format: u8, kind: u8, media: u32, rest: &[u8]| {
        let words = 2 + rest.len() as u8 / 4;
        [&[0x80 | format, kind, 0, words, 0, 0, 0, 9][..], &media.to_be_bytes(), rest].concat()
    };
    let own = INSIDE_SSRC.to_be_bytes();
    // 500,000 = 125,000 * 2^2; behind it is the overhead of a packet.
    let tmmbr = |ssrc: [u8; 4], exponent: u32, mantissa: u32| {
        [ssrc, (exponent << 26 | mantissa << 9 | 40).to_be_bytes()].concat()
    };
    let given = [&b"REMB\x02"[..], &[0x0b, 0x0d, 0x40], &[0xde, 0xad, 0, 0], &own].concat();
    // Exponents 1 and 2, mantissas 250,000 and 200,000.
    let cases = [
        (feedback(3, rtcp::RTPFB, 0, &tmmbr(own, 2, 125_000)), Some([0x01, 0x07, 0xd0, 0x90])),
        (feedback(15, rtcp::PSFB, 0, &given), Some([0x01, 0x0b, 0x0d, 0x40])),
        (feedback(3, rtcp::RTPFB, 0, &tmmbr([1; 4], 2, 125_000)), None),
        (feedback(15, rtcp::PSFB, 0, &[&b"REMB\x01\0\0\x01"[..], &[9; 4]].concat()), None),
        (feedback(15, rtcp::PSFB, 0, &[&b"XXXX\x01\0\0\x01"[..], &own].concat()), None),
    ];
    for (sent, expected) in cases {
        for known in [true, false] {
            let mut bench = Bench::new(1, 2);
            let outward = if known { remb.clone() } else { Extensions::default() };
            bench.core.install(with(Extensions::default(), outward), bench.now).unwrap();
            let mut peer = browser();
            bench.send(paths().outside, &peer.seal(&source())).forwarded();
            let out = bench.send(paths().rtcp, &sent);
            // Who asks by TMMBR hears what bounds now, whether its wish can go on or not (RFC 5104 section 4.2.2).
            let answers = bench.resends();
            let answered = expected.is_some() && sent[1] == rtcp::RTPFB;
            assert_eq!(answers.len(), usize::from(answered));
            if let Some((to, bytes)) = answers.first() {
                let last = rtcp::compound(bytes).last().unwrap().unwrap();
                let ours =
                    [&[0x84, 205, 0, 4][..], &INSIDE_SSRC.to_be_bytes(), &[0; 4], &[0, 0, 0, 9]].concat();
                assert_eq!(
                    (*to, &bytes[last.range.clone()]),
                    (paths().rtcp, &[&ours[..], &sent[16..20]].concat()[..])
                );
            }
            let Some(expected) = expected.filter(|_| known) else {
                let ends = if answered { Out::Answered } else { Out::Drop(Reason::RtcpEmpty) };
                assert_eq!(out, ends);
                continue;
            };
            let out = peer.open_rtcp(&out.forwarded());
            let last = rtcp::compound(&out).last().unwrap().unwrap();
            let written = &out[last.range];
            assert_eq!(written[..8], [&[0x8f, 206, 0, 5][..], &OUTSIDE_SSRC.to_be_bytes()].concat());
            assert_eq!(written[8..], [&b"\0\0\0\0REMB"[..], &expected, &BROWSER.to_be_bytes()].concat());
        }
    }
}
