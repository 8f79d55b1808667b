//! AES-CM with HMAC-SHA1.

use core::arch::x86_64::*;

use super::super::keys::{CmKeys, RoundKey, Rounds};
use super::super::shani::{Order, cm_iv, packet_of, sha1 as shani};
use super::super::{Desc, Keys};
use super::{aes, block, counters, octets_of, sha1};

/// From this many packets on sixteen lanes are faster than pairs, though some are idle.
const LANES_PAY: usize = 9;

/// Encrypts or decrypts the payload.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,bmi2")]
#[inline]
pub fn crypt(keys: &CmKeys, desc: &mut Desc<'_>) {
    let iv = _mm512_broadcast_i32x4(block(cm_iv(keys, desc)));
    let (from, to) = (desc.from(), desc.to());
    let bytes = &mut desc.packet[from..to];
    match keys.rounds {
        Rounds::Ten => keystream::<10>(&keys.low, &keys.high, iv, bytes),
        Rounds::Fourteen => keystream::<14>(&keys.low, &keys.high, iv, bytes),
    }
}

/// Keystream of counter mode from this block on, xored in.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,bmi2")]
#[inline]
fn keystream<const ROUNDS: usize>(low: &[RoundKey; 11], high: &[RoundKey; 4], iv: __m512i, bytes: &mut [u8]) {
    let mut iv = iv;
    let (groups, bytes) = bytes.as_chunks_mut::<256>();
    for group in groups {
        vectors::<ROUNDS, 4, true>(low, high, iv, group);
        iv = _mm512_add_epi32(iv, _mm512_broadcast_i32x4(_mm_cvtsi32_si128(16)));
    }
    match bytes.len().div_ceil(64) {
        0 => {}
        1 => vectors::<ROUNDS, 1, false>(low, high, iv, bytes),
        2 => vectors::<ROUNDS, 2, false>(low, high, iv, bytes),
        3 => vectors::<ROUNDS, 3, false>(low, high, iv, bytes),
        _ => vectors::<ROUNDS, 4, false>(low, high, iv, bytes),
    }
}

/// As much as `N` vectors hold; `WHOLE` where all are full.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,bmi2")]
#[inline]
fn vectors<const ROUNDS: usize, const N: usize, const WHOLE: bool>(
    low: &[RoundKey; 11],
    high: &[RoundKey; 4],
    iv: __m512i,
    bytes: &mut [u8],
) {
    let stream = aes::<ROUNDS, N>(low, high, counters(iv));
    assert!(if WHOLE { bytes.len() == 64 * N } else { bytes.len() < 256 });
    let at = bytes.as_mut_ptr().cast::<i8>();
    for (n, stream) in stream.into_iter().enumerate() {
        let mask = if WHOLE { !0 } else { octets_of(bytes.len(), n) };
        let at = at.wrapping_add(64 * n);
        // SAFETY: the mask has a bit for each octet of `bytes` from 64 * n on.
        unsafe {
            let octets = _mm512_maskz_loadu_epi8(mask, at);
            _mm512_mask_storeu_epi8(at, mask, _mm512_xor_si512(octets, stream));
        }
    }
}

/// Writes the tags of the packets that the bits of `which` name, or compares them and decrypts those that are right.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,bmi2,sha")]
pub fn tags<const OPEN: bool>(burst: &mut [Desc<'_>], which: u64) -> u64 {
    let mut order = Order::new(burst, which);
    let mut refused = 0;
    let mut rest = order.sorted();
    while rest.len() >= LANES_PAY {
        let (lanes, others) = rest.split_at(rest.len().min(sha1::LANES));
        refused |= sha1::tags::<OPEN>(burst, lanes);
        rest = others;
    }
    for pair in rest.chunks(2) {
        refused |= shani::tags::<OPEN>(burst, pair);
    }
    if OPEN {
        for place in order.sorted() {
            let at = packet_of(*place);
            let desc = &mut burst[at];
            let suite = desc.suite;
            if let (Keys::AesCm(keys), 0) = (&suite.0, refused >> at & 1) {
                crypt(keys, desc);
            }
        }
    }
    refused
}
