//! All suites against other libraries, put together by the letter of the RFCs: key derivation block by block with the
//! bare AES of RustCrypto, AES-GCM by RustCrypto's aes-gcm, HMAC-SHA1 by ring.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use ring::hmac;
use sallyport_plan::{KeyMaterial, Profile};
use sallyport_srtp::{INDEX_MAX, Opener, RTCP_INDEX_MAX};
use sallyport_wire::rtp::Header;

use crate::packets::*;

/// AES in counter mode: the keystream from this block on (RFC 3711 section 4.1.1).
fn keystream(key: &[u8], iv: u128, length: usize) -> Vec<u8> {
    let block = |n: u128| {
        let mut block = (iv.wrapping_add(n)).to_be_bytes().into();
        match key.len() {
            16 => Aes128::new_from_slice(key).unwrap().encrypt_block(&mut block),
            _ => Aes256::new_from_slice(key).unwrap().encrypt_block(&mut block),
        }
        block.to_vec()
    };
    (0..length.div_ceil(16)).flat_map(|n| block(n as u128)).take(length).collect()
}

/// The salt as a number of 112 bits.
fn number(salt: &[u8]) -> u128 {
    let mut octets = [0; 16];
    octets[2..2 + salt.len()].copy_from_slice(salt);
    u128::from_be_bytes(octets)
}

/// RFC 3711 section 4.3: x = salt xor (label in front of an index of 48 bits), then AES-CM from x * 2^16.
fn derive(master: &KeyMaterial, label: u8, length: usize) -> Vec<u8> {
    let x = number(master.salt()) ^ (u128::from(label) << 48);
    keystream(master.key(), x << 16, length)
}

fn xor(octets: &[u8], stream: &[u8]) -> Vec<u8> {
    octets.iter().zip(stream).map(|(octet, stream)| octet ^ stream).collect()
}

fn sha1(octets: usize, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    hmac::sign(&key, &parts.concat()).as_ref()[..octets].to_vec()
}

fn cm(master: &KeyMaterial, labels: [u8; 3], ssrc: u32, index: u64, octets: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let salt = number(&derive(master, labels[2], 14)) << 16;
    let iv = salt ^ (u128::from(ssrc) << 64) ^ (u128::from(index) << 16);
    let stream = keystream(&derive(master, labels[0], master.key().len()), iv, octets.len());
    (xor(octets, &stream), derive(master, labels[1], 20))
}

fn gcm(master: &KeyMaterial, labels: [u8; 2], ssrc: u32, index: u64, aad: &[u8], octets: &[u8]) -> Vec<u8> {
    let iv = [&[0, 0][..], &ssrc.to_be_bytes(), &index.to_be_bytes()[2..]].concat();
    let iv: [u8; 12] = xor(&iv, &derive(master, labels[1], 12)).try_into().unwrap();
    let (key, payload) = (derive(master, labels[0], master.key().len()), Payload { msg: octets, aad });
    match key.len() {
        16 => Aes128Gcm::new_from_slice(&key).unwrap().encrypt(&iv.into(), payload).unwrap(),
        _ => Aes256Gcm::new_from_slice(&key).unwrap().encrypt(&iv.into(), payload).unwrap(),
    }
}

fn oracle_rtp(master: &KeyMaterial, ssrc: u32, index: u64, plain: &[u8]) -> Vec<u8> {
    let (header, payload) = plain.split_at(Header::parse(plain).unwrap().header_len());
    match master.profile() {
        Profile::AesCm128HmacSha1_80
        | Profile::AesCm256HmacSha1_80
        | Profile::AesCm128HmacSha1_32
        | Profile::AesCm256HmacSha1_32 => {
            let short =
                matches!(master.profile(), Profile::AesCm128HmacSha1_32 | Profile::AesCm256HmacSha1_32);
            let (payload, mac) = cm(master, [0, 1, 2], ssrc, index, payload);
            let roc = ((index >> 16) as u32).to_be_bytes();
            let tag = sha1(if short { 4 } else { 10 }, &mac, &[header, &payload, &roc]);
            [header, &payload, &tag].concat()
        }
        Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
            [header, &gcm(master, [0, 2], ssrc, index, header, payload)].concat()
        }
    }
}

fn oracle_rtcp(master: &KeyMaterial, ssrc: u32, index: u32, plain: &[u8]) -> Vec<u8> {
    let (header, payload) = plain.split_at(8);
    let word = (index | 1 << 31).to_be_bytes();
    match master.profile() {
        Profile::AesCm128HmacSha1_80
        | Profile::AesCm256HmacSha1_80
        | Profile::AesCm128HmacSha1_32
        | Profile::AesCm256HmacSha1_32 => {
            let (payload, mac) = cm(master, [3, 4, 5], ssrc, u64::from(index), payload);
            let tag = sha1(10, &mac, &[header, &payload, &word]);
            [header, &payload, &word, &tag].concat()
        }
        Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
            let aad = [header, &word].concat();
            [header, &gcm(master, [3, 5], ssrc, u64::from(index), &aad, payload), &word].concat()
        }
    }
}

fn random_key(random: &mut Random, profile: Profile) -> KeyMaterial {
    let _ = key(profile, 0); // Sees to the backend.
    KeyMaterial::new(profile, &random.octets(profile.key_len()), &random.octets(profile.salt_len())).unwrap()
}

#[test]
fn rtp_agrees_with_other_libraries() {
    let mut random = Random(21);
    for profile in ALL {
        for length in (0..300).chain([576, 1200, 1400, 1500]) {
            let master = random_key(&mut random, profile);
            let bits = random.below(49) as u32;
            let (ssrc, index) = (random.next() as u32, random.next() & (INDEX_MAX >> bits));
            let plain = random.rtp(ssrc, index as u16, length);
            let expected = oracle_rtp(&master, ssrc, index, &plain);
            let mut sealer = sealer_at(&master, ssrc, index.checked_sub(1), 0);
            assert_eq!(seal(&mut sealer, &plain).unwrap(), expected);
            let mut opener = match index.checked_sub(1) {
                Some(last) => opener_at(&master, ssrc, last),
                None => Opener::new(&master).unwrap(),
            };
            let (opened, again) = open(&mut opener, &expected).unwrap();
            assert_eq!((opened.index, again), (index, plain));
        }
    }
}

#[test]
fn rtcp_agrees_with_other_libraries() {
    let mut random = Random(22);
    for profile in ALL {
        for words in (0..80).chain([200, 350]) {
            let master = random_key(&mut random, profile);
            let bits = random.below(32) as u32;
            let (ssrc, index) = (random.next() as u32, random.next() as u32 & (RTCP_INDEX_MAX >> bits));
            let plain = rtcp(ssrc, words);
            let expected = oracle_rtcp(&master, ssrc, index, &plain);
            let mut sealer = sealer_at(&master, ssrc, None, index);
            assert_eq!(seal_rtcp(&mut sealer, &plain).unwrap(), expected);
            let mut opener = opener_at(&master, ssrc, 0);
            assert_eq!(open_rtcp(&mut opener, &expected), Ok((index, plain)));
        }
    }
}
