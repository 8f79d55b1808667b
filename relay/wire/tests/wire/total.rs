//! Every parser takes any octets: none panics, and what one says fits what the others say.

use proptest::prelude::*;
use sallyport_wire::demux::{Kind, classify};
use sallyport_wire::stun::{self, Builder, Message, is_stun};
use sallyport_wire::{PacketBuf, frame, rtcp, rtp};

use crate::hex;

/// Hands `bytes` to everything that parses, and checks that what is handed out lies within.
fn parse_all(bytes: &[u8]) {
    let kind = classify(bytes);
    if let Ok(header) = rtp::Header::parse(bytes) {
        assert!(matches!(kind, Kind::Rtp | Kind::Rtcp));
        assert!(header.fixed_len() <= header.header_len());
        assert_eq!(header.header_len() + header.payload_len(), bytes.len());
        assert!(
            header.padding_len().is_ok_and(|padding| padding <= header.payload_len()) || header.has_padding()
        );
    }
    strip(bytes);
    let mut end = 0;
    for packet in rtcp::compound(bytes).map_while(Result::ok) {
        assert_eq!(packet.range.start, end, "no octet between packets, none twice");
        end = packet.range.end;
        assert!(packet.range.start < packet.body().start && packet.body().end <= packet.range.end);
        assert!(bytes.get(packet.range).is_some());
    }
    assert!(rtcp::compound(bytes).count() <= bytes.len() / 4 + 1, "it ends");
    if let Ok(message) = Message::parse(bytes) {
        assert!(is_stun(bytes) && kind == Kind::Stun);
        read_all(&message, bytes);
    }
    if let Ok(datagram) = frame::parse(bytes) {
        assert!(datagram.payload.start >= 42 && bytes.get(datagram.payload).is_some());
    }
}

fn strip(bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    let mut buf = PacketBuf::new(&mut copy, 0..bytes.len()).unwrap();
    match rtp::strip_extension(&mut buf) {
        Ok(()) => assert!(!rtp::Header::parse(buf.packet()).unwrap().has_extension()),
        Err(_) => assert_eq!(buf.packet(), bytes),
    }
}

fn read_all(message: &Message<'_>, bytes: &[u8]) {
    for kind in [stun::USERNAME, stun::MESSAGE_INTEGRITY, stun::FINGERPRINT, stun::PRIORITY, 0, 0xffff] {
        assert!(message.attribute(kind).is_none_or(|value| stun::HEADER + 4 + value.len() <= bytes.len()));
    }
    let fingerprint = message.has_right_fingerprint();
    assert_eq!(fingerprint.is_some(), message.attribute(stun::FINGERPRINT).is_some());
    let tagged = message.has_integrity(|_| [0; 20], |_, _| true);
    assert!(!tagged || message.attribute(stun::MESSAGE_INTEGRITY).is_some());
    assert!(message.error_code().is_none_or(|code| (300..700).contains(&code)));
    assert!(message.xor_mapped_address().is_none() || message.attribute(stun::XOR_MAPPED_ADDRESS).is_some());
    let mut header = [0; stun::HEADER];
    Builder::new(&mut header, message.class(), message.method(), message.transaction_id()).unwrap();
    header[2..4].copy_from_slice(&bytes[2..4]);
    assert_eq!(header, bytes[..stun::HEADER], "class, method and transaction id are all there is");
}

/// Every length from 0 to 128 with every first octet, over several fillings.
#[test]
fn every_length_with_every_first_octet() {
    for filling in [0x00, 0x01, 0x7f, 0x80, 0xc8, 0xff] {
        let mut bytes = [filling; 128];
        for length in 0..=128 {
            for first in 0..=255 {
                if let Some(octet) = bytes.first_mut() {
                    *octet = first;
                }
                parse_all(&bytes[..length]);
            }
        }
    }
}

#[test]
fn kinds_go_by_the_first_two_octets() {
    for first in 0..=255u8 {
        for second in 0..=255u8 {
            let expected = match first {
                0..=3 => Kind::Stun,
                20..=63 => Kind::Dtls,
                128..=191 if (192..=223).contains(&second) => Kind::Rtcp,
                128..=191 => Kind::Rtp,
                4..=19 | 64..=127 | 192..=255 => Kind::Unknown,
            };
            assert_eq!(classify(&[first, second]), expected);
            assert_eq!(classify(&[first, second, 0xff]), expected);
        }
        // Without a second octet RTP and RTCP are one.
        let alone = if first < 128 { classify(&[first, 0]) } else { Kind::Unknown };
        assert_eq!(classify(&[first]), alone);
    }
    assert_eq!(classify(&[]), Kind::Unknown);
}

/// Well-formed packets of every kind, to be mutated.
fn seeds() -> Vec<Vec<u8>> {
    [
        // RTP: two CSRC, an extension of one word, padding of three.
        "b2ef1234 01020304 05060708 00000009 0000000a bede0001 10ff0000 aabb 000003",
        // SR with a block, SDES, BYE with a reason.
        "81c8000c 00000007 0102030405060708 00000009 0000000a 0000000b 00000009 00000000 0000000c 00000000 00000000
         00000000 81ca0003 00000007 01026162 00000000 81cb0002 00000007 03656e64",
        // RR, PSFB, padded XR.
        "80c90001 00000007 81ce0002 00000007 00000009 a0cf0002 00000007 00000004",
        // Binding request with USERNAME, ICE-CONTROLLING, MESSAGE-INTEGRITY, FINGERPRINT.
        "00010038 2112a442 000102030405060708090a0b 00060007 6162633a646566 00 802a0008 0011223344556677
         00080014 000102030405060708090a0b0c0d0e0f10111213 80280004 00000000",
        // Binding responses of both families and an error.
        "0101000c 2112a442 000102030405060708090a0b 00200008 0001a147 e112a643",
        "01010018 2112a442 000102030405060708090a0b 00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9",
        "01110008 2112a442 000102030405060708090a0b 00090004 00000457",
        // IPv4 with options in a VLAN; IPv6.
        "020000000002 020000000001 8100 0007 0800 46b80025 00004000 40110000 c0000201 c6336402 01010100
         0fa0138c 000d0000 68656c6c6f",
        "020000000002 020000000001 86dd 6b800000 000d1140 20010db8000000000000000000000001
         20010db8000000000000000000000002 0fa0138c 000d0000 68656c6c6f",
    ]
    .iter()
    .map(|digits| hex(digits))
    .collect()
}

#[test]
fn the_seeds_are_well_formed() {
    let seeds = seeds();
    assert_eq!(rtp::Header::parse(&seeds[0]).unwrap().padding_len(), Ok(3));
    assert!(seeds[1..3].iter().all(|seed| rtcp::compound(seed).filter(Result::is_ok).count() == 3));
    assert!(seeds[3..7].iter().all(|seed| Message::parse(seed).is_ok()));
    assert!(seeds[7..].iter().all(|seed| frame::parse(seed).is_ok()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_octets(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        parse_all(&bytes);
    }

    #[test]
    fn mutated_packets(
        seed in prop::sample::select(seeds()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        tail in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = seed;
        for (at, octet) in changes {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend(tail);
        parse_all(&bytes);
    }

    /// STUN whose header is right goes deeper than random octets do.
    #[test]
    fn random_attributes(kinds in prop::collection::vec((0u16..0x30, 0u16..24, any::<bool>()), 0..8), body: [u8; 64]) {
        let mut bytes = hex("01010000 2112a442 000102030405060708090a0b");
        for (kind, length, optional) in kinds {
            bytes.extend((kind | u16::from(optional) << 15).to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(&body[..usize::from(length).next_multiple_of(4)]);
        }
        let length = (bytes.len() - stun::HEADER) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        prop_assert!(Message::parse(&bytes).is_ok());
        parse_all(&bytes);
    }
}
