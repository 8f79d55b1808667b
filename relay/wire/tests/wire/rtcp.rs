//! RTCP compounds: what each type demands, and a model.

use proptest::prelude::*;
use sallyport_wire::Malformed;
use sallyport_wire::rtcp::{APP, BYE, PSFB, Packet, RR, RTPFB, SDES, SR, XR, compound};

/// One packet: header and body; the length is the body's.
fn packet(first: u8, packet_type: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len().is_multiple_of(4), "whole words");
    let mut bytes = vec![first, packet_type];
    bytes.extend(((body.len() / 4) as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// What the iterator says of one packet alone.
fn one(first: u8, packet_type: u8, body: &[u8]) -> Result<(), Malformed> {
    let bytes = packet(first, packet_type, body);
    let mut walk = compound(&bytes);
    let packet = walk.next().unwrap().map(|packet| assert_eq!(packet.range, 0..bytes.len()));
    assert_eq!(walk.next(), None);
    packet
}

const LENGTH: Result<(), Malformed> = Err(Malformed::Length);

#[test]
fn a_count_demands_its_octets() {
    for count in 0..=31u8 {
        let n = usize::from(count);
        // A chunk is a source and a word with the null octet, which the last may lack.
        let chunks = (8 * n).saturating_sub(4);
        for (packet_type, least) in [(SR, 24 + 24 * n), (RR, 4 + 24 * n), (BYE, 4 * n), (SDES, chunks)] {
            assert_eq!(one(0x80 | count, packet_type, &vec![0; least]), Ok(()));
            assert_eq!(one(0x80 | count, packet_type, &vec![0; least + 4]), Ok(()));
            if least > 0 {
                assert_eq!(
                    one(0x80 | count, packet_type, &vec![0; least - 4]),
                    LENGTH,
                    "{packet_type} {count}"
                );
            }
        }
    }
    for (packet_type, least) in [(APP, 8), (RTPFB, 8), (PSFB, 8), (XR, 4)] {
        assert_eq!(one(0x80, packet_type, &vec![0; least]), Ok(()));
        assert_eq!(one(0x80, packet_type, &vec![0; least - 4]), LENGTH);
    }
    assert_eq!(one(0x9f, 195, &[]), Ok(()), "a type that is not known here");
}

#[test]
fn sdes_items_stay_within_the_packet() {
    let cases: [(u8, &[u8], bool); 10] = [
        (1, &[0, 0, 0, 1, 1, 2, b'a', b'b', 0, 0, 0, 0], true),
        (1, &[0, 0, 0, 1, 1, 1, b'a', 0], true),
        (1, &[0, 0, 0, 1, 1, 2, b'a', b'b'], true), // no null octet, at the end
        (1, &[0, 0, 0, 1, 1, 3, b'a', b'b'], false), // text past the end
        (1, &[0, 0, 0, 1, 1, 1, b'a', 2], false),   // a type without a length
        (1, &[0, 0, 0, 1, 1, 0, 2, 0], true),       // empty items
        (2, &[0, 0, 0, 1, 1, 1, b'a', 0, 0, 0, 0, 2, 0, 0, 0, 0], true),
        (2, &[0, 0, 0, 1, 0, 9, 9, 9, 0, 0, 0, 2, 1, 2, b'a', b'b'], true), // behind a null octet nothing is read
        (2, &[0, 0, 0, 1, 1, 1, b'a', 0], false),                           // one chunk too few
        (2, &[0, 0, 0, 1, 1, 1, b'a', 0, 0, 0, 0, 2, 1, 255, 0, 0], false),
    ];
    for (count, body, fits) in cases {
        assert_eq!(one(0x80 | count, SDES, body).is_ok(), fits, "{body:?}");
    }
}

#[test]
fn a_reason_for_leaving_stays_within_the_packet() {
    assert_eq!(one(0x81, BYE, &[0, 0, 0, 1, 3, b'e', b'n', b'd']), Ok(()));
    assert_eq!(one(0x81, BYE, &[0, 0, 0, 1, 2, b'e', b'n', 0]), Ok(()));
    assert_eq!(one(0x81, BYE, &[0, 0, 0, 1, 4, b'e', b'n', b'd']), LENGTH);
    assert_eq!(one(0x80, BYE, &[0, 0, 0, 0]), Ok(()), "nobody leaves, without a reason");
}

#[test]
fn padding_is_whole_words_at_the_end_of_the_compound() {
    let cases: [(&[u8], Option<usize>); 7] = [
        (&[0, 0, 0, 7, 0, 0, 0, 4], Some(4)),
        (&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8], Some(8)),
        (&[0, 0, 0, 7, 0, 0, 0, 0], None),
        (&[0, 0, 0, 7, 0, 0, 0, 3], None),
        (&[0, 0, 0, 7, 0, 0, 0, 8], None), // into what the type demands
        (&[0, 0, 0, 7, 0, 0, 0, 12], None),
        (&[0, 0, 0, 7, 0, 0, 0, 252], None),
    ];
    for (body, expected) in cases {
        let bytes = packet(0xa0, RR, body);
        let read = compound(&bytes).next().unwrap().ok();
        assert_eq!(read.as_ref().map(|packet| packet.padding), expected, "{body:?}");
        if let Some(read) = read {
            assert_eq!(&bytes[read.body()], &[0, 0, 0, 7]);
        }
    }
    let mut first = packet(0xa0, RR, &[0, 0, 0, 7, 0, 0, 0, 4]);
    first.extend(packet(0x80, RR, &[0, 0, 0, 7]));
    assert_eq!(compound(&first).next(), Some(Err(Malformed::Length)), "only the last may be padded");
}

#[test]
fn what_follows_a_broken_packet_is_not_read() {
    let mut bytes = packet(0x80, RR, &[0, 0, 0, 7]);
    bytes.extend(packet(0x81, RR, &[0, 0, 0, 7]));
    bytes.extend(packet(0x80, RR, &[0, 0, 0, 7]));
    let read: Vec<_> = compound(&bytes).map(|packet| packet.map(|packet| packet.range)).collect();
    assert_eq!(read, [Ok(0..8), Err(Malformed::Length)]);
    bytes.truncate(8 + 3);
    assert_eq!(compound(&bytes).last(), Some(Err(Malformed::Short)), "a tail shorter than a header");
}

/// A well-formed packet of any type: first octet, type, body.
fn well_formed() -> impl Strategy<Value = (u8, u8, Vec<u8>)> {
    let report = (0u8..4, prop_oneof![Just((SR, 24)), Just((RR, 4))], 0usize..3).prop_flat_map(
        |(count, kind, more)| {
            let length = kind.1 + 24 * usize::from(count) + 4 * more;
            prop::collection::vec(any::<u8>(), length).prop_map(move |body| (0x80 | count, kind.0, body))
        },
    );
    let feedback = (0u8..32, prop::sample::select(vec![APP, RTPFB, PSFB]), 2usize..10).prop_flat_map(
        |(count, packet_type, words)| {
            prop::collection::vec(any::<u8>(), words * 4)
                .prop_map(move |body| (0x80 | count, packet_type, body))
        },
    );
    let chunk = (any::<u32>(), prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..3));
    let description = prop::collection::vec(chunk, 0..4).prop_map(|chunks| {
        let mut body = Vec::new();
        for (ssrc, items) in &chunks {
            body.extend(ssrc.to_be_bytes());
            for (at, text) in items.iter().enumerate() {
                body.extend([at as u8 + 1, text.len() as u8]);
                body.extend(text);
            }
            body.push(0);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        (0x80 | chunks.len() as u8, SDES, body)
    });
    prop_oneof![report, feedback, description]
}

proptest! {
    #[test]
    fn a_compound_is_its_packets(packets in prop::collection::vec(well_formed(), 1..6)) {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (first, packet_type, body) in &packets {
            let start = bytes.len();
            bytes.extend(packet(*first, *packet_type, body));
            expected.push(Packet {
                packet_type: *packet_type,
                count: first & 0x1f,
                range: start..bytes.len(),
                padding: 0,
            });
        }
        let read: Result<Vec<_>, _> = compound(&bytes).collect();
        prop_assert_eq!(read.as_ref(), Ok(&expected));
        for (packet, (_, _, body)) in expected.iter().zip(&packets) {
            prop_assert_eq!(&bytes[packet.body()], &body[..]);
        }
        for cut in 1..bytes.len() {
            let whole = expected.iter().any(|packet| packet.range.end == cut);
            prop_assert_eq!(compound(&bytes[..cut]).all(|packet| packet.is_ok()), whole);
        }
    }
}
