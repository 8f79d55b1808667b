//! The vectors of the RFCs, through every backend.

use super::*;

/// Octets of a vector; spaces are for the reader.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn backends() -> impl Iterator<Item = Backend> {
    Backend::ALL.into_iter().filter(|backend| backend.is_supported())
}

/// Keystream under source and index, by what comes of zeros.
fn stream(suite: &Suite, ssrc: u32, index: u64, length: usize) -> Vec<u8> {
    let mut octets = vec![0; length + suite.tag_len()];
    protect_one(Desc::rtp(suite, &mut octets, 0, ssrc, index).unwrap()).unwrap();
    octets.truncate(length);
    octets
}

/// RFC 3711 appendix B.2: session key, salt, SSRC 0, ROC 0, sequence 0. The last of its blocks are those with the
/// counters 0xfeff to 0xff01.
#[test]
fn keystream_matches_the_rfc() {
    let key = hex("2B7E151628AED2A6ABF7158809CF4F3C");
    let salt = *hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").first_chunk().unwrap();
    let first = hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB \
                     41E95B3BB0A2E8DD477901E4FCA894C0");
    let last = hex("EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE \
                    6A2CC3787889374FBEB4C81B17BA6C44");
    for backend in backends() {
        let suite = Suite::aes_cm(backend, &key, &[0; 20], &salt).unwrap();
        assert_eq!(stream(&suite, 0, 0, 48), first);
        assert_eq!(stream(&suite, 0, 0, 0xff02 * 16)[0xfeff * 16..], last);
    }
}

/// RFC 6188 section 7.1: the same with a key of 256 bits.
#[test]
fn keystream_of_256_bits_matches_the_rfc() {
    let key = hex("57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98");
    let salt = *hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd").first_chunk().unwrap();
    let first = hex("92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac \
                     63c4868b7096d88421b563b8c94c9a31");
    for backend in backends() {
        let suite = Suite::aes_cm(backend, &key, &[0; 20], &salt).unwrap();
        assert_eq!(stream(&suite, 0, 0, 48), first);
    }
}

/// RFC 3711 section 4.1.1: one block more would be keystream of the next index.
#[test]
fn keystreams_of_two_indices_never_meet() {
    for backend in backends() {
        let suite = Suite::aes_cm(backend, &[7; 16], &[8; 20], &[9; 14]).unwrap();
        let mut longest = vec![0; STREAM_MAX + 1 + 10];
        assert!(matches!(Desc::rtp(&suite, &mut longest, 0, 1, 1), Err(Refused)));
        assert!(longest.iter().all(|octet| *octet == 0));
        let longest = stream(&suite, 1, 1, STREAM_MAX);
        let next = stream(&suite, 1, 2, 16);
        assert!(longest.chunks(16).all(|block| block != next));
    }
}

/// RFC 2202 section 3, test case 1, cut to 80 bits: an HMAC key of 20 octets; what RTP has behind it is the rollover
/// counter, so the last four octets of the message must be one.
#[test]
fn hmac_matches_the_rfc() {
    for backend in backends() {
        let suite = Suite::aes_cm(backend, &[1; 16], &[0x0b; 20], &[0; 14]).unwrap();
        let mut octets = [&b"Hi T"[..], &[0; 10]].concat();
        let index = u64::from(u32::from_be_bytes(*b"here")) << 16;
        protect_one(Desc::rtp(&suite, &mut octets, 4, 0, index).unwrap()).unwrap();
        assert_eq!(octets[4..], hex("b617318655057264e28b"));
        // Cut to 32 bits, which is all that RFC 3711 section 4.2 says of it.
        let suite = Suite::aes_cm_short(backend, &[1; 16], &[0x0b; 20], &[0; 14]).unwrap();
        let mut octets = [&b"Hi T"[..], &[0; 4]].concat();
        protect_one(Desc::rtp(&suite, &mut octets, 4, 0, index).unwrap()).unwrap();
        assert_eq!(octets[4..], hex("b6173186"));
    }
}

/// Session keys and salt of RFC 7714 sections 16 and 17.
fn gcm(backend: Backend, length: usize) -> Suite {
    let key: Vec<u8> = (0..32).collect();
    Suite::gcm(backend, &key[..length], b"Quid pro quo").unwrap()
}

/// Sections 16.1 and 16.2: SSRC, ROC 0 and sequence number as in the packet.
#[test]
fn srtp_matches_the_rfc() {
    let plain = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 \
                     69736120 696e2070 61727465 73207472 6573");
    let sealed = [
        (
            16,
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 \
             0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            32,
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 \
             9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ];
    for (length, sealed) in sealed {
        for suite in backends().map(|backend| gcm(backend, length)) {
            let mut packet = plain.clone();
            packet.resize(plain.len() + suite.tag_len(), 0);
            protect_one(Desc::rtp(&suite, &mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap()).unwrap();
            assert_eq!(packet, hex(sealed));
            unprotect_one(Desc::rtp(&suite, &mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap()).unwrap();
            assert_eq!(packet[..plain.len()], plain);
        }
    }
}

/// Sections 17.1 and 17.2: index 0x5d4, encrypted.
#[test]
fn srtcp_matches_the_rfc() {
    let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 \
                     deadbeef deadbeef deadbeef deadbeef deadbeef");
    let sealed = [
        (
            16,
            "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d \
             c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        ),
        (
            32,
            "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 \
             a2eaa5c1 110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
        ),
    ];
    for (length, sealed) in sealed {
        for suite in backends().map(|backend| gcm(backend, length)) {
            let mut packet = plain.clone();
            packet.resize(plain.len() + suite.tag_len() + INDEX_WORD, 0);
            protect_one(Desc::sealing_rtcp(&suite, &mut packet, 0x4d61_7273, 0x5d4).unwrap()).unwrap();
            assert_eq!(packet, hex(sealed));
            unprotect_one(Desc::opening_rtcp(&suite, &mut packet, 0x4d61_7273, 0x5d4).unwrap()).unwrap();
            assert_eq!(packet[..plain.len()], plain);
        }
    }
}

/// Section 17.3: authenticated, not encrypted. The tag covers the E bit, so it cannot be set by force.
#[test]
fn an_authenticated_compound_is_no_encrypted_one() {
    let packet = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 \
                      deadbeef deadbeef deadbeef deadbeef deadbeef 841dd968 3dd78ec9 2ae58790 125f62b3 800005d4");
    for backend in backends() {
        let (suite, mut packet) = (gcm(backend, 16), packet.clone());
        let desc = Desc::opening_rtcp(&suite, &mut packet, 0x4d61_7273, 0x5d4).unwrap();
        assert_eq!(unprotect_one(desc), Err(Refused));
    }
}

/// What a drop leaves of a key: nothing.
#[test]
fn keys_are_wiped() {
    use std::mem::MaybeUninit;
    for backend in backends() {
        for gcm in [true, false] {
            let suite = if gcm {
                Suite::gcm(backend, &[0xa7; 32], &[0xa7; 12])
            } else {
                Suite::aes_cm(backend, &[0xa7; 32], &[0xa7; 20], &[0xa7; 14])
            };
            let mut place = MaybeUninit::new(suite.unwrap());
            if let (true, Backend::Portable) = (gcm, backend) {
                continue; // Its key is in a box, gone with the drop.
            }
            let octets = place.as_ptr().cast::<u8>();
            // SAFETY: initialised, and dropped once.
            unsafe { place.assume_init_drop() };
            // SAFETY: round keys and states are arrays of integers within the place; they are read as they were left.
            let left =
                [80, 112, 144, 176].map(|at| unsafe { octets.add(at).cast::<[u8; 16]>().read_volatile() });
            assert_eq!(left, [[0; 16]; 4], "{backend:?} gcm {gcm}");
        }
    }
}
