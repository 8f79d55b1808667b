//! The backend for AVX-512 with VAES and VPCLMULQDQ: four blocks of AES or GHASH in a register, SHA-1 of sixteen packets
//! side by side.

mod cm;
mod gcm;
mod sha1;

use core::arch::x86_64::*;

use super::keys::{RoundKey, Rounds};
use super::shani::{foreign, prefetch};
use super::{Burst, Desc, Keys};

/// See the module. Its burst begins with a packet whose keys are for it, so the machine has what it needs.
pub struct Avx512;

impl Burst for Avx512 {
    fn protect(self, burst: &mut [Desc<'_>], ahead: usize) -> u64 {
        // SAFETY: the first packet's keys are for this backend, so the machine has what it needs.
        unsafe { run::<false>(burst, ahead) }
    }

    fn unprotect(self, burst: &mut [Desc<'_>], ahead: usize) -> u64 {
        // SAFETY: as above.
        unsafe { run::<true>(burst, ahead) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2,sha")]
fn run<const OPEN: bool>(burst: &mut [Desc<'_>], ahead: usize) -> u64 {
    let (mut refused, mut cm) = (0, 0);
    for at in 0..burst.len() {
        prefetch(burst, at, ahead);
        let desc = &mut burst[at];
        let suite = desc.suite;
        match &suite.0 {
            Keys::Gcm(keys) if keys.rounds == Rounds::Ten => {
                refused |= u64::from(!gcm::packet::<10, OPEN>(keys, desc)) << at;
            }
            Keys::Gcm(keys) => refused |= u64::from(!gcm::packet::<14, OPEN>(keys, desc)) << at,
            Keys::AesCm(keys) | Keys::AesCmShort(keys) => {
                if !OPEN {
                    cm::crypt::<false>(keys, desc);
                }
                cm |= 1 << at;
            }
            Keys::PortableGcm(_) | Keys::PortableAesCm(_) | Keys::PortableAesCmShort(_) => {
                refused |= foreign::<OPEN>(desc) << at;
            }
        }
    }
    if cm != 0 {
        refused |= cm::tags::<OPEN>(burst, cm);
    }
    refused
}

/// The octets of each block in reverse.
#[target_feature(enable = "avx512bw")]
#[inline]
fn reverse(blocks: __m512i) -> __m512i {
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(order))
}

/// Round key `at`, four times.
#[target_feature(enable = "avx512f")]
#[inline]
fn round_key(low: &[RoundKey; 11], high: &[RoundKey; 4], at: usize) -> __m512i {
    let octets = if at < 11 { &low[at] } else { &high[at - 11] };
    // SAFETY: sixteen octets, at any alignment.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(octets.as_ptr().cast()) })
}

/// AES on `N` times four blocks.
#[target_feature(enable = "avx512f,vaes")]
#[inline]
fn aes<const ROUNDS: usize, const N: usize>(
    low: &[RoundKey; 11],
    high: &[RoundKey; 4],
    mut blocks: [__m512i; N],
) -> [__m512i; N] {
    let key = round_key(low, high, 0);
    for block in &mut blocks {
        *block = _mm512_xor_si512(*block, key);
    }
    rounds::<ROUNDS, N>(low, high, blocks)
}

/// The keystream of `4 * N` counter blocks whose counters begin with `FIRST`, 0 or 1, on top of that of `base`, whose
/// lowest four bits (and fifth, where the last counter has it) are zero; `base` is in AES's order, so no carry is needed.
#[target_feature(enable = "avx512f,vaes")]
#[inline]
fn keystream<const ROUNDS: usize, const N: usize, const FIRST: i32>(
    low: &[RoundKey; 11],
    high: &[RoundKey; 4],
    base: __m512i,
) -> [__m512i; N] {
    let key = round_key(low, high, 0);
    let mut blocks = [base; N];
    for (at, block) in blocks.iter_mut().enumerate() {
        let count = |lane| (4 * at as i32 + lane + FIRST) << 24;
        let counts =
            _mm512_set_epi32(count(3), 0, 0, 0, count(2), 0, 0, 0, count(1), 0, 0, 0, count(0), 0, 0, 0);
        *block = _mm512_ternarylogic_epi64::<0x96>(*block, key, counts);
    }
    rounds::<ROUNDS, N>(low, high, blocks)
}

/// All rounds of AES behind the first key.
#[target_feature(enable = "avx512f,vaes")]
#[inline]
fn rounds<const ROUNDS: usize, const N: usize>(
    low: &[RoundKey; 11],
    high: &[RoundKey; 4],
    mut blocks: [__m512i; N],
) -> [__m512i; N] {
    for round in 1..ROUNDS {
        let key = round_key(low, high, round);
        for block in &mut blocks {
            *block = _mm512_aesenc_epi128(*block, key);
        }
    }
    let key = round_key(low, high, ROUNDS);
    for block in &mut blocks {
        *block = _mm512_aesenclast_epi128(*block, key);
    }
    blocks
}

/// Counter blocks, `4 * N` of them, from `first` in GHASH's order (the counter is dword 0), in AES's order.
#[target_feature(enable = "avx512bw")]
#[inline]
fn counters<const N: usize>(first: __m512i) -> [__m512i; N] {
    let mut blocks = [first; N];
    for (at, block) in blocks.iter_mut().enumerate() {
        let at = 4 * at as i32;
        let steps = _mm512_set_epi32(0, 0, 0, at + 3, 0, 0, 0, at + 2, 0, 0, 0, at + 1, 0, 0, 0, at);
        *block = reverse(_mm512_add_epi32(*block, steps));
    }
    blocks
}

/// A number, as a block in GHASH's order.
#[target_feature(enable = "sse2")]
#[inline]
fn block(number: u128) -> __m128i {
    _mm_set_epi64x(((number >> 64) as u64).cast_signed(), (number as u64).cast_signed())
}

/// Bits of a mask for the octets of vector `at` of a run of `length` (below 256): all, some or none.
#[target_feature(enable = "bmi2")]
#[inline]
fn octets_of(length: usize, at: usize) -> u64 {
    // `bzhi` looks at eight bits of the count and clears nothing where it is 64 or more.
    _bzhi_u64(u64::MAX, length.saturating_sub(64 * at) as u32)
}
