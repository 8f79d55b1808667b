//! Header extensions against the examples of RFC 8285 and a slow, obvious model.

use proptest::prelude::*;
use sallyport_wire::extension::{Form, WRITTEN_MAX, Written, elements, replace};
use sallyport_wire::rtp::Header;
use sallyport_wire::{Malformed, PacketBuf};

use super::hex;

type Element = (u8, Vec<u8>);

/// A packet with so many CSRCs, this extension (profile and octets, whole words) and this payload.
fn packet(csrcs: u8, extension: Option<(u16, &[u8])>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | csrcs | if extension.is_some() { 0x10 } else { 0 }, 0x6f, 1, 2];
    bytes.extend([3, 4, 5, 6, 7, 8, 9, 10]);
    (0..csrcs * 4).for_each(|octet| bytes.push(0xc0 ^ octet));
    if let Some((profile, block)) = extension {
        bytes.extend(profile.to_be_bytes());
        bytes.extend((block.len() as u16 / 4).to_be_bytes());
        bytes.extend(block);
    }
    bytes.extend(payload);
    bytes
}

fn read(packet: &[u8]) -> Result<Vec<Element>, Malformed> {
    elements(&Header::parse(packet).unwrap()).map(|one| one.map(|(id, data)| (id, data.to_vec()))).collect()
}

/// As the RFC tells it, octet by octet.
fn slow(profile: u16, block: &[u8]) -> Option<Vec<Element>> {
    let (mut found, mut octets) = (Vec::new(), block.iter().copied());
    let two = match profile {
        0xbede => false,
        0x1000..=0x100f => true,
        _ => return Some(found),
    };
    while let Some(first) = octets.next() {
        if first == 0 {
            continue;
        }
        let (id, length) = if two {
            (first, octets.next()?)
        } else {
            if first / 16 == 15 || first / 16 == 0 {
                break;
            }
            (first / 16, first % 16 + 1)
        };
        let mut data = Vec::new();
        for _ in 0..length {
            data.push(octets.next()?);
        }
        found.push((id, data));
    }
    Some(found)
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // Section 4.2: three elements of 1, 2 and 4 octets, and padding between them.
    let one = hex("10 aa 21 bb bb 00 00 33 cc cc cc cc");
    let expected = vec![(1, vec![0xaa]), (2, vec![0xbb; 2]), (3, vec![0xcc; 4])];
    assert_eq!(read(&packet(0, Some((0xbede, &one)), &[])), Ok(expected));
    // Section 4.3: of 0, 1 and 4 octets.
    let two = hex("01 00 02 01 bb 00 03 04 cc cc cc cc");
    let expected = vec![(1, vec![]), (2, vec![0xbb]), (3, vec![0xcc; 4])];
    assert_eq!(read(&packet(2, Some((0x1005, &two)), &[])), Ok(expected));
}

#[test]
fn nothing_counts_behind_what_is_reserved_and_other_profiles_have_no_elements() {
    for end in ["f0", "05"] {
        let block = hex(&format!("10 aa {end} 20 bb 00 00 00"));
        assert_eq!(read(&packet(0, Some((0xbede, &block)), &[])), Ok(vec![(1, vec![0xaa])]), "{end}");
    }
    assert_eq!(read(&packet(0, Some((0xabac, &[0x10, 1, 0, 0])), &[])), Ok(vec![]));
    assert_eq!(read(&packet(0, None, &[0xbe, 0xde, 0, 1, 0x10, 1, 0, 0])), Ok(vec![]));
    assert_eq!(read(&packet(0, Some((0xbede, &[])), &[])), Ok(vec![]));
}

#[test]
fn lengths_that_do_not_fit_are_errors() {
    assert_eq!(read(&packet(0, Some((0xbede, &[0x10, 1, 0x2f, 0])), &[9; 40])), Err(Malformed::Length));
    assert_eq!(read(&packet(0, Some((0x1000, &[1, 3, 0, 0])), &[9; 40])), Err(Malformed::Length));
    assert_eq!(read(&packet(0, Some((0x1000, &[1, 1, 0, 7])), &[9; 40])), Err(Malformed::Short));
}

#[test]
fn what_a_form_cannot_say_is_left_out() {
    let mut one = Written::new(Form::OneByte);
    for (id, length) in [(0, 1), (15, 1), (1, 0), (1, 17), (200, 1)] {
        assert!(!one.push(id, &vec![7; length]), "{id} {length}");
    }
    assert!(one.is_empty());
    assert!(one.push(14, &[7; 16]) && !one.is_empty());
    assert_eq!(one.octets()[..6], [0xbe, 0xde, 0, 5, 0xef, 7]);
    let mut two = Written::new(Form::TwoByte);
    assert!(!two.push(0, &[1]) && !two.push(1, &[0; 256]) && !two.push(1, &[0; WRITTEN_MAX]));
    assert!(two.push(255, &[]));
    assert_eq!(two.octets(), hex("1000 0001 ff00 0000"));
}

#[test]
fn without_room_in_front_a_packet_stays_as_it_was() {
    let mut bytes = packet(1, None, &[1, 2, 3]);
    let before = bytes.clone();
    let end = bytes.len();
    let mut buf = PacketBuf::new(&mut bytes, 0..end).unwrap();
    assert!(replace(&mut buf, &[0xbe, 0xde, 0, 0]).is_err());
    assert_eq!(buf.packet(), before);
}

fn some_elements() -> impl Strategy<Value = Vec<Element>> {
    let data = prop::collection::vec(any::<u8>(), 0..20);
    prop::collection::vec((any::<u8>().prop_map(|id| id % 20), data), 0..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_read_as_the_slow_way_reads_them(
        profile in prop_oneof![Just(0xbede), 0x0ff8..0x1018u16, any::<u16>()],
        words in prop::collection::vec(prop_oneof![Just([0; 4]), any::<[u8; 4]>()], 0..12),
        csrcs in 0..16u8,
        payload in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let block = words.concat();
        let packet = packet(csrcs, Some((profile, &block)), &payload);
        prop_assert_eq!(read(&packet).ok(), slow(profile, &block));
    }

    #[test]
    fn what_is_written_is_read_again_and_all_else_stays(
        before in some_elements(),
        wanted in some_elements(),
        two in any::<bool>(),
        csrcs in 0..16u8,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let form = if two { Form::TwoByte } else { Form::OneByte };
        let write = |elements: &[Element]| {
            let mut written = Written::new(form);
            let kept: Vec<Element> =
                elements.iter().filter(|(id, data)| written.push(*id, data)).cloned().collect();
            let octets = if written.is_empty() { vec![] } else { written.octets().to_vec() };
            (octets, kept)
        };
        let ((old, _), (new, kept)) = (write(&before), write(&wanted));
        let old = (!old.is_empty()).then(|| (u16::from_be_bytes([old[0], old[1]]), &old[4..]));
        let original = packet(csrcs, old, &payload);
        let mut bytes = [&[0xee; WRITTEN_MAX][..], &original].concat();
        let end = bytes.len();
        let mut buf = PacketBuf::new(&mut bytes, WRITTEN_MAX..end).unwrap();
        replace(&mut buf, &new).unwrap();
        let expected = (!new.is_empty()).then(|| (u16::from_be_bytes([new[0], new[1]]), &new[4..]));
        prop_assert_eq!(buf.packet(), packet(csrcs, expected, &payload));
        prop_assert_eq!(read(buf.packet()), Ok(kept));
        prop_assert_eq!(buf.range().end, end, "the payload stays where it was");
    }
}
