//! AES-CM with HMAC-SHA1.

use core::arch::x86_64::*;

use super::super::keys::{CmKeys, RoundKey, Rounds};
use super::super::shani::{Order, cm_iv, sha1 as shani};
use super::super::{Desc, Keys};
use super::{block, octets_of, reverse, sha1};

/// From this many packets on sixteen lanes are faster than pairs, though some are idle.
const LANES_PAY: usize = 9;

/// Encrypts or decrypts the payload. (Two of them, so that each is inlined in its place.)
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,bmi2")]
#[inline]
pub fn crypt<const OPEN: bool>(keys: &CmKeys, desc: &mut Desc<'_>) {
    let iv = _mm512_broadcast_i32x4(block(cm_iv(keys, desc)));
    let (from, to) = (desc.from(), desc.to());
    let bytes = &mut desc.packet[from..to];
    match keys.rounds {
        Rounds::Ten => keystream::<10, OPEN>(&keys.low, &keys.high, iv, bytes),
        Rounds::Fourteen => keystream::<14, OPEN>(&keys.low, &keys.high, iv, bytes),
    }
}

/// Keystream of counter mode from this block on, xored in.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,bmi2")]
#[inline]
fn keystream<const ROUNDS: usize, const OPEN: bool>(
    low: &[RoundKey; 11],
    high: &[RoundKey; 4],
    iv: __m512i,
    bytes: &mut [u8],
) {
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

/// As much as `N` vectors hold, the last of them not empty; `WHOLE` where that one is full too.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,bmi2")]
#[inline]
fn vectors<const ROUNDS: usize, const N: usize, const WHOLE: bool>(
    low: &[RoundKey; 11],
    high: &[RoundKey; 4],
    iv: __m512i,
    bytes: &mut [u8],
) {
    let last = bytes.len().wrapping_sub(64 * (N - 1));
    assert!(if WHOLE { last == 64 } else { last <= 64 });
    // The lowest 16 bits of the first block are zero, and groups begin with a multiple of sixteen.
    let stream = super::keystream::<ROUNDS, N, 0>(low, high, reverse(iv));
    let at = bytes.as_mut_ptr().cast::<i8>();
    for (n, stream) in stream.into_iter().enumerate() {
        let mask = if WHOLE || n + 1 < N { !0 } else { octets_of(last, 0) };
        let at = at.wrapping_add(64 * n);
        // SAFETY: the vectors before the last are within `bytes`, and of that one the mask has what is.
        unsafe {
            let octets = _mm512_maskz_loadu_epi8(mask, at);
            _mm512_mask_storeu_epi8(at, mask, _mm512_xor_si512(octets, stream));
        }
    }
}

/// Writes the tags of the packets that the bits of `which` name, or compares them and decrypts those that are right.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,bmi2,sha")]
pub fn tags<const OPEN: bool>(burst: &mut [Desc<'_>], which: u64) -> u64 {
    let order = Order::new(burst, which);
    let mut refused = 0;
    let mut rest = order.places();
    while rest.len() >= LANES_PAY {
        let (lanes, others) = rest.split_at(rest.len().min(sha1::LANES));
        refused |= sha1::tags::<OPEN>(burst, lanes);
        rest = others;
    }
    for pair in rest.chunks(2) {
        refused |= shani::tags::<OPEN>(burst, pair);
    }
    let mut right = if OPEN { which & !refused } else { 0 };
    while right != 0 {
        let desc = &mut burst[right.trailing_zeros() as usize];
        right &= right - 1;
        let suite = desc.suite;
        if let Keys::AesCm(keys) | Keys::AesCmShort(keys) = &suite.0 {
            crypt::<true>(keys, desc);
        }
    }
    refused
}
