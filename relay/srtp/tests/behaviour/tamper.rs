//! Every bit of a packet counts, and no length or first octet does harm.

use sallyport_plan::{KeyMaterial, Profile};
use sallyport_srtp::{KeyError, OpenError, Opener, Sealer};

use crate::packets::*;

const SSRC: u32 = 0x0a0b_0c0d;

/// CSRC list, extension, padding: every part that a packet can have.
fn full_rtp(sequence: u16) -> Vec<u8> {
    let mut packet = rtp(SSRC, sequence, &[]);
    packet[0] |= 0x20 | 0x10 | 2;
    packet.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    packet.extend([0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0]);
    packet.extend(*b"twenty octets of it.");
    packet.extend([0, 0, 3]);
    packet
}

/// Tries a changed packet: it must be refused and move nothing. With AES-CM the tag comes first, so a refused packet is
/// also as it was.
fn refused(profile: Profile, opener: &mut Opener, changed: &[u8], rtcp: bool) {
    use sallyport_wire::PacketBuf;
    let before = opener.checkpoint();
    let mut bytes = changed.to_vec();
    let mut buf = PacketBuf::new(&mut bytes, 0..changed.len()).unwrap();
    let result =
        if rtcp { opener.open_rtcp(&mut buf).map(|_| ()) } else { opener.open_rtp(&mut buf).map(|_| ()) };
    assert!(result.is_err(), "opened: {changed:02x?}");
    assert_eq!(buf.len(), changed.len());
    assert_eq!(opener.checkpoint(), before);
    if profile.salt_len() == 14 {
        assert_eq!(bytes, changed, "decrypted before it was verified");
    }
}

#[test]
fn every_bit_of_an_rtp_packet_counts() {
    for profile in ALL {
        let (mut sealer, mut opener) = pair(profile);
        open(&mut opener, &seal(&mut sealer, &full_rtp(1)).unwrap()).unwrap();
        let plain = full_rtp(2);
        let sealed = seal(&mut sealer, &plain).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            refused(profile, &mut opener, &changed, false);
        }
        assert_eq!(open(&mut opener, &sealed).unwrap().1, plain);
    }
}

#[test]
fn every_bit_of_an_rtcp_compound_counts() {
    for profile in ALL {
        let (mut sealer, mut opener) = pair(profile);
        open_rtcp(&mut opener, &seal_rtcp(&mut sealer, &rtcp(SSRC, 3)).unwrap()).unwrap();
        let plain = rtcp(SSRC, 7);
        let sealed = seal_rtcp(&mut sealer, &plain).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            refused(profile, &mut opener, &changed, true);
        }
        assert_eq!(open_rtcp(&mut opener, &sealed), Ok((1, plain)));
    }
}

/// Cut, lengthened, without a tag, with that of another source, key, index or suite.
#[test]
fn a_tag_fits_one_packet_only() {
    for profile in ALL {
        let (mut sealer, mut opener) = pair(profile);
        open(&mut opener, &seal(&mut sealer, &full_rtp(1)).unwrap()).unwrap();
        let sealed = seal(&mut sealer, &full_rtp(2)).unwrap();
        let tag = sealed.len() - full_rtp(2).len();
        let end = sealed.len() - tag;
        let with_tag_of = |other: &[u8]| [&sealed[..end], &other[other.len() - tag..]].concat();
        let other_index = seal(&mut sealer, &full_rtp(3)).unwrap();
        let mut other = full_rtp(2);
        other[11] ^= 1;
        let other_source = seal(&mut sealer, &other).unwrap();
        let mut former = Sealer::new(&key(profile, 2)).unwrap();
        let other_key = seal(&mut former, &full_rtp(2)).unwrap();
        let foreign = ALL.into_iter().find(|other| *other != profile).unwrap();
        let other_suite = seal(&mut Sealer::new(&key(foreign, 1)).unwrap(), &full_rtp(2)).unwrap();
        let changed = [
            with_tag_of(&other_index),
            with_tag_of(&other_source),
            with_tag_of(&other_key),
            with_tag_of(&[0; 16]),
            [&sealed[..], &[0]].concat(),
            full_rtp(2),
            other_key,
            other_suite,
        ];
        for changed in changed.iter().map(Vec::as_slice).chain((0..sealed.len()).map(|end| &sealed[..end])) {
            refused(profile, &mut opener, changed, false);
        }
        assert!(open(&mut opener, &sealed).is_ok());
    }
}

/// Keys come decoded from a message, so their lengths are not to be trusted.
#[test]
fn a_key_that_does_not_fit_its_profile_is_refused() {
    for (at, profile) in ALL.into_iter().enumerate() {
        let right = (profile.key_len(), profile.salt_len());
        for (key, salt) in
            [(0, 0), (15, right.1), (17, right.1), (32, right.1), (16, right.1 - 1), (16, 16), right]
        {
            let bytes = postcard::to_allocvec(&(at as u8, vec![1u8; key], vec![2u8; salt])).unwrap();
            let master: KeyMaterial = postcard::from_bytes(&bytes).unwrap();
            let expected = if (key, salt) == right { Ok(()) } else { Err(KeyError) };
            assert_eq!(Opener::new(&master).map(|_| ()), expected);
            assert_eq!(Sealer::new(&master).map(|_| ()), expected);
        }
    }
}

#[test]
fn random_tags_never_fit() {
    for profile in ALL {
        let (mut sealer, mut opener) = pair(profile);
        let sealed = seal(&mut sealer, &full_rtp(2)).unwrap();
        let end = full_rtp(2).len();
        let mut random = Random(11);
        for _ in 0..20_000 {
            let forged = [&sealed[..end], &random.octets(sealed.len() - end)].concat();
            assert_eq!(open_index(&mut opener, &forged), Err(OpenError::Tag));
        }
        assert!(open(&mut opener, &sealed).is_ok());
    }
}

/// Every length up to 128 under every first octet, against an opener that knows the source and one that does not.
#[test]
fn no_length_and_no_first_octet_does_harm() {
    for profile in ALL {
        let (mut sealer, mut known) = pair(profile);
        open(&mut known, &seal(&mut sealer, &full_rtp(1)).unwrap()).unwrap();
        open_rtcp(&mut known, &seal_rtcp(&mut sealer, &rtcp(SSRC, 3)).unwrap()).unwrap();
        let mut fresh = Opener::new(&key(profile, 1)).unwrap();
        let before = known.checkpoint();
        let mut packet = seal(&mut sealer, &rtp(SSRC, 2, &[0xff; 128])).unwrap();
        packet.truncate(128);
        for first in 0..=255 {
            packet[0] = first;
            for length in 0..=128 {
                for opener in [&mut known, &mut fresh] {
                    let rtp = open_index(opener, &packet[..length]).unwrap_err();
                    assert!(length >= 12 || rtp == OpenError::Short);
                    let rtcp = open_rtcp(opener, &packet[..length]).unwrap_err();
                    assert!(length >= 22 || rtcp == OpenError::Short);
                    let version_2 = first >> 6 == 2;
                    assert!(version_2 || length < 12 || rtp == OpenError::Malformed);
                    assert!(version_2 || length < 28 || rtcp == OpenError::Malformed);
                }
            }
        }
        assert_eq!(known.checkpoint(), before);
        assert_eq!(fresh.checkpoint().sources, []);
        let next = seal(&mut sealer, &full_rtp(3)).unwrap();
        assert!(open(&mut known, &next).is_ok());
    }
}
