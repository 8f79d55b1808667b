//! STUN: the vectors of RFC 5769, building and reading back, and what each check refuses.

use std::net::SocketAddr;

use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sallyport_wire::stun::{
    self, BINDING, Builder, Class, ERROR_CODE, FINGERPRINT, HEADER, MESSAGE_INTEGRITY, Message, is_stun,
};
use sallyport_wire::{Malformed, Short};
use sha1::Sha1;

use crate::hex;

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const ID: stun::TransactionId = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

/// Section 2.1.
const REQUEST: &str = "00010058 2112a442 b7e7a701bc34d686fa87dfae
    80220010 5354554e207465737420636c69656e74
    00240004 6e0001ff
    80290008 932ff9b151263b36
    00060009 6576746a3a68367659 202020
    00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004 e57a3bcf";
/// Section 2.2.
const RESPONSE_V4: &str = "0101003c 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f72 20
    00200008 0001a147e112a643
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004 c07d4c96";
/// Section 2.3.
const RESPONSE_V6: &str = "01010048 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f72 20
    00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
    80280004 c8fb0b4c";

fn hmac(key: &[u8], pieces: &[&[u8]]) -> [u8; 20] {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    for piece in pieces {
        mac.update(piece);
    }
    mac.finalize().into_bytes().into()
}

fn is_signed(message: &Message<'_>, key: &[u8]) -> bool {
    message.has_integrity(|pieces| hmac(key, pieces), |left, right| left == right)
}

#[test]
fn the_request_of_rfc_5769() {
    let bytes = hex(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method(), message.transaction_id()), (Class::Request, BINDING, ID));
    assert_eq!(message.attribute(stun::USERNAME), Some(&b"evtj:h6vY"[..]));
    assert_eq!(message.attribute(stun::PRIORITY), Some(&0x6e00_01ffu32.to_be_bytes()[..]));
    assert_eq!(message.attribute(stun::ICE_CONTROLLED), Some(&0x932f_f9b1_5126_3b36u64.to_be_bytes()[..]));
    assert_eq!(
        (message.attribute(stun::ICE_CONTROLLING), message.attribute(stun::USE_CANDIDATE)),
        (None, None)
    );
    assert_eq!(message.has_right_fingerprint(), Some(true));
    assert!(is_signed(&message, PASSWORD));
    assert!(!is_signed(&message, b"VOkJxbRl1RmTxUk/WvJxBT"));
}

#[test]
fn the_responses_of_rfc_5769() {
    let v4: SocketAddr = "192.0.2.1:32853".parse().unwrap();
    let v6: SocketAddr = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
    for (digits, address) in [(RESPONSE_V4, v4), (RESPONSE_V6, v6)] {
        let bytes = hex(digits);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(
            (message.class(), message.method(), message.transaction_id()),
            (Class::Success, BINDING, ID)
        );
        assert_eq!(message.xor_mapped_address(), Some(address));
        assert_eq!(message.has_right_fingerprint(), Some(true));
        assert!(is_signed(&message, PASSWORD));
        let mut room = [0xee; 128];
        let length = Builder::new(&mut room, Class::Success, BINDING, ID)
            .unwrap()
            .attribute(0x8022, &[b"test", b" ", b"vector"])
            .unwrap()
            .xor_mapped_address(address)
            .unwrap()
            .finish();
        // The vectors pad with blanks.
        let mut expected = bytes[..length].to_vec();
        expected[2..4].copy_from_slice(&((length - HEADER) as u16).to_be_bytes());
        expected[HEADER + 4 + 11] = 0;
        assert_eq!(room[..length], expected);
    }
}

/// The request of section 2.1, built by us: all but the padding's blanks, and with them both tags, is the RFC's.
#[test]
fn a_request_is_built_as_rfc_5769_has_it() {
    let mut room = [0xee; 128];
    let length = Builder::new(&mut room, Class::Request, BINDING, ID)
        .unwrap()
        .attribute(0x8022, &[b"STUN test client"])
        .unwrap()
        .attribute(stun::PRIORITY, &[&0x6e00_01ffu32.to_be_bytes()])
        .unwrap()
        .attribute(stun::ICE_CONTROLLED, &[&0x932f_f9b1_5126_3b36u64.to_be_bytes()])
        .unwrap()
        .attribute(stun::USERNAME, &[b"evtj", b":", b"h6vY"])
        .unwrap()
        .integrity(|bytes| hmac(PASSWORD, &[bytes]))
        .unwrap()
        .fingerprint()
        .unwrap();
    let expected = hex(REQUEST);
    assert_eq!(length, expected.len());
    assert_eq!(room[..73], expected[..73]);
    assert_eq!(room[73..76], [0; 3]);
    let message = Message::parse(&room[..length]).unwrap();
    assert!(is_signed(&message, PASSWORD));
    assert_eq!(message.has_right_fingerprint(), Some(true));
}

#[test]
fn one_flipped_bit_fails_one_check_at_least() {
    let bytes = hex(REQUEST);
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        let holds = Message::parse(&bytes).is_ok_and(|message| message.has_right_fingerprint() == Some(true));
        assert!(!holds, "bit {bit}: fingerprint");
        // All before the tag's own end but the length field, which the HMAC takes as it has to be.
        let covered = bit / 8 < bytes.len() - 8 && !(16..32).contains(&bit);
        let holds = Message::parse(&bytes).is_ok_and(|message| is_signed(&message, PASSWORD));
        assert!(!(covered && holds), "bit {bit}: integrity");
    }
}

/// What follows MESSAGE-INTEGRITY is not authentic: an attacker may have added it.
#[test]
fn attributes_behind_the_integrity_are_not_found() {
    let mut room = [0; 128];
    let length = Builder::new(&mut room, Class::Request, BINDING, ID)
        .and_then(|builder| builder.attribute(stun::USERNAME, &[b"a:b"]))
        .and_then(|builder| builder.integrity(|bytes| hmac(PASSWORD, &[bytes])))
        .and_then(|builder| builder.attribute(stun::USE_CANDIDATE, &[]))
        .and_then(|builder| builder.attribute(stun::USERNAME, &[b"c:d"]))
        .and_then(Builder::fingerprint)
        .unwrap();
    let message = Message::parse(&room[..length]).unwrap();
    assert!(is_signed(&message, PASSWORD));
    assert_eq!(message.attribute(stun::USE_CANDIDATE), None);
    assert_eq!(message.attribute(stun::USERNAME), Some(&b"a:b"[..]));
    assert_eq!(message.attribute(MESSAGE_INTEGRITY).map(<[u8]>::len), Some(20));
    assert_eq!(message.attribute(FINGERPRINT).map(<[u8]>::len), Some(4));
    assert_eq!(message.has_right_fingerprint(), Some(true));
}

/// A message of one attribute without the builder's care.
fn raw(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut room = [0; 128];
    let length = Builder::new(&mut room, Class::Error, BINDING, ID)
        .and_then(|builder| builder.attribute(kind, &[value]))
        .unwrap()
        .finish();
    room[..length].to_vec()
}

#[test]
fn values_of_a_wrong_length_are_no_values() {
    for length in 0..24 {
        let value = vec![1; length];
        let tagged = raw(MESSAGE_INTEGRITY, &value);
        let message = Message::parse(&tagged).unwrap();
        let mut asked = false;
        let held = message.has_integrity(
            |_| [1; 20],
            |left, right| {
                asked = true;
                left == right
            },
        );
        assert_eq!((held, asked), (length == 20, length == 20));
        let marked = raw(FINGERPRINT, &value);
        assert_eq!(Message::parse(&marked).unwrap().has_right_fingerprint(), Some(false), "{length}");
        for (family, right) in [(1, 8), (2, 20), (3, usize::MAX)] {
            let mut value = vec![family; length];
            value.iter_mut().take(1).for_each(|octet| *octet = 0);
            let mapped = raw(stun::XOR_MAPPED_ADDRESS, &value);
            let address = Message::parse(&mapped).unwrap().xor_mapped_address();
            assert_eq!(address.is_some(), length == right, "family {family}, {length}");
        }
    }
    let bytes = raw(stun::USERNAME, b"");
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.attribute(stun::USERNAME), message.has_right_fingerprint()), (Some(&[][..]), None));
    assert!(!is_signed(&message, PASSWORD), "no tag at all");
}

#[test]
fn a_fingerprint_is_the_last_attribute() {
    let bytes = hex(REQUEST);
    let mut room = [0; 128];
    room[..bytes.len()].copy_from_slice(&bytes);
    room[bytes.len()..bytes.len() + 4].copy_from_slice(&[0x80, 0x22, 0, 0]);
    room[3] += 4;
    let message = Message::parse(&room[..bytes.len() + 4]).unwrap();
    assert_eq!(message.has_right_fingerprint(), Some(false));
}

#[test]
fn error_codes_are_between_300_and_699() {
    for code in 0..=800u16 {
        let mut room = [0; 64];
        let built = Builder::new(&mut room, Class::Error, BINDING, ID)
            .and_then(|builder| builder.error_code(code, "Role Conflict"))
            .map(Builder::finish);
        match built {
            Ok(length) => {
                let message = Message::parse(&room[..length]).unwrap();
                assert_eq!((message.class(), message.error_code()), (Class::Error, Some(code)));
            }
            Err(Short) => assert!(!(300..700).contains(&code)),
        }
    }
    let codes: [(&[u8], Option<u16>); 7] = [
        (&[0, 0, 4, 87], Some(487)),
        (&[0, 0, 0xfc, 1, b'x'], Some(401)), // the upper bits are reserved
        (&[0, 0, 2, 99], None),
        (&[0, 0, 7, 0], None),
        (&[0, 0, 4, 100], None),
        (&[0, 0, 4], None),
        (&[], None),
    ];
    for (value, expected) in codes {
        assert_eq!(Message::parse(&raw(ERROR_CODE, value)).unwrap().error_code(), expected, "{value:?}");
    }
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let bytes = hex(REQUEST);
    for cut in 0..bytes.len() {
        assert_eq!(Message::parse(&bytes[..cut]).unwrap_err(), Malformed::Invalid);
        assert!(!is_stun(&bytes[..cut]));
    }
    for (at, octet) in [(0, 4), (0, 0x40), (0, 0x80), (4, 0x20), (7, 0x43), (3, 0x57), (3, 0x54), (3, 0x5c)] {
        let mut bytes = bytes.clone();
        bytes[at] = octet;
        assert_eq!(Message::parse(&bytes).unwrap_err(), Malformed::Invalid, "{at}: {octet:#x}");
    }
    for (at, octet) in [(HEADER + 2, 0xff), (bytes.len() - 5, 5), (bytes.len() - 5, 0)] {
        let mut bytes = bytes.clone();
        bytes[at] = octet;
        assert_eq!(Message::parse(&bytes).unwrap_err(), Malformed::Length, "{at}: {octet:#x}");
    }
}

#[test]
fn what_does_not_fit_is_short() {
    let need = |room: usize| {
        let mut room = vec![0; room];
        Builder::new(&mut room, Class::Request, BINDING, ID)
            .and_then(|builder| builder.attribute(stun::USERNAME, &[b"ab:cd"]))
            .and_then(|builder| builder.integrity(|bytes| hmac(PASSWORD, &[bytes])))
            .and_then(Builder::fingerprint)
    };
    let all = HEADER + 12 + 24 + 8;
    for room in 0..all {
        assert_eq!(need(room), Err(Short), "{room}");
    }
    assert_eq!(need(all), Ok(all));
    let mut room = vec![0; 70_000];
    let long = Builder::new(&mut room, Class::Request, BINDING, ID)
        .and_then(|builder| builder.attribute(stun::USERNAME, &[&[0; 40_000]]))
        .and_then(|builder| builder.attribute(stun::USERNAME, &[&[0; 25_600]]));
    assert_eq!(long.err(), Some(Short), "longer than the length field says");
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(vec![Class::Request, Class::Indication, Class::Success, Class::Error])
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(
        class in class(),
        method in 0u16..0x100,
        id: stun::TransactionId,
        username in prop::collection::vec(any::<u8>(), 0..60),
        v4: ([u8; 4], u16),
        v6: ([u8; 16], u16),
        is_v4: bool,
        key in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let address = if is_v4 { SocketAddr::from(v4) } else { SocketAddr::from(v6) };
        let mut room = [0xee; 256];
        let length = Builder::new(&mut room, class, method, id)
            .and_then(|builder| builder.attribute(stun::USERNAME, &[&username]))
            .and_then(|builder| builder.xor_mapped_address(address))
            .and_then(|builder| builder.integrity(|bytes| hmac(&key, &[bytes])))
            .and_then(Builder::fingerprint)
            .unwrap();
        let message = Message::parse(&room[..length]).unwrap();
        prop_assert_eq!((message.class(), message.method(), message.transaction_id()), (class, method, id));
        prop_assert_eq!(message.attribute(stun::USERNAME), Some(&username[..]));
        prop_assert_eq!(message.xor_mapped_address(), Some(address));
        prop_assert!(is_signed(&message, &key));
        prop_assert_eq!(message.has_right_fingerprint(), Some(true));
    }
}
