//! AES-GCM with AES-NI and PCLMULQDQ: eight blocks side by side, GHASH with one reduction for up to eight.
//!
//! Blocks are counted as the cipher does: block 0 is the last of the associated data under GHASH and the mask of the tag
//! under AES (counter 1); payload starts with block 1. Behind the payload comes the block of the lengths.

use core::arch::x86_64::*;

use super::super::keys::{GcmKeys, multiply, reduce, to_octets, to_vector};
use super::super::{Desc, Kind};
use super::{aes, reverse};

/// Blocks side by side.
const GROUP: usize = 8;

/// A sum of products, not reduced.
struct Sum {
    low: __m128i,
    middle: __m128i,
    high: __m128i,
}

impl Sum {
    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    fn new() -> Self {
        let zero = _mm_setzero_si128();
        Self { low: zero, middle: zero, high: zero }
    }

    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    fn add(&mut self, x: __m128i, h: __m128i) {
        self.low = _mm_xor_si128(self.low, _mm_clmulepi64_si128::<0x00>(x, h));
        self.high = _mm_xor_si128(self.high, _mm_clmulepi64_si128::<0x11>(x, h));
        let middle = _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(x, h), _mm_clmulepi64_si128::<0x10>(x, h));
        self.middle = _mm_xor_si128(self.middle, middle);
    }

    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    fn reduced(self) -> __m128i {
        reduce(
            _mm_xor_si128(self.low, _mm_slli_si128::<8>(self.middle)),
            _mm_xor_si128(self.high, _mm_srli_si128::<8>(self.middle)),
        )
    }
}

/// H^n, n from 1 to 16.
#[target_feature(enable = "pclmulqdq,avx")]
#[inline]
fn power(keys: &GcmKeys, n: usize) -> __m128i {
    to_vector(&keys.powers[16 - n])
}

/// Up to sixteen octets, zeros behind them, in GHASH's order.
#[target_feature(enable = "ssse3,avx")]
#[inline]
fn padded(octets: &[u8]) -> __m128i {
    let mut block = [0; 16];
    block[..octets.len()].copy_from_slice(octets);
    reverse(to_vector(&block))
}

/// The associated data up to its last block, and that block xored onto it, not yet multiplied.
#[target_feature(enable = "pclmulqdq,ssse3,avx")]
fn associated(keys: &GcmKeys, desc: &Desc<'_>) -> __m128i {
    match desc.kind {
        Kind::Rtp => {
            let mut sum = _mm_setzero_si128();
            let mut octets = &desc.packet[..desc.from()];
            while let Some((block, rest)) = octets.split_first_chunk().filter(|(_, rest)| !rest.is_empty()) {
                sum = multiply(_mm_xor_si128(sum, reverse(to_vector(block))), power(keys, 1));
                octets = rest;
            }
            _mm_xor_si128(sum, padded(octets))
        }
        Kind::Rtcp => {
            let mut octets = [0; 12];
            octets[..8].copy_from_slice(&desc.packet[..8]);
            octets[8..].copy_from_slice(&desc.word());
            padded(&octets)
        }
    }
}

/// The nonce with a zero counter, as a number.
#[inline]
fn nonce(keys: &GcmKeys, desc: &Desc<'_>) -> u128 {
    let mut salt = [0; 16];
    salt[..12].copy_from_slice(&keys.salt);
    u128::from_be_bytes(salt) ^ desc.nonce() << 32
}

/// Seals or opens one packet; false where its tag is wrong.
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx")]
pub fn packet<const ROUNDS: usize, const OPEN: bool>(keys: &GcmKeys, desc: &mut Desc<'_>) -> bool {
    let iv = nonce(keys, desc);
    let iv = _mm_set_epi64x(((iv >> 64) as u64).cast_signed(), (iv as u64).cast_signed());
    let (from, to) = (desc.from(), desc.to());
    let mut carried = associated(keys, desc);
    let lengths = _mm_set_epi64x(8 * from_in_aad(desc) as i64, 8 * (to - from) as i64);
    let mut mask = _mm_setzero_si128();
    let (payload, tag) = desc.packet[from..].split_at_mut(to - from);
    // What GHASH takes: the associated data, the payload, the lengths.
    let items = payload.len().div_ceil(16) + 2;
    let mut payload = payload;
    let mut pending: Option<[__m128i; GROUP]> = None;
    for start in (0..items).step_by(GROUP) {
        let count = GROUP.min(items - start);
        let mut blocks = [iv; GROUP];
        for (at, block) in blocks.iter_mut().enumerate() {
            *block = reverse(_mm_add_epi32(*block, _mm_cvtsi32_si128((start + at + 1) as i32)));
        }
        let stream = aes::<ROUNDS, GROUP>(&keys.low, &keys.high, blocks);
        if let Some(items) = pending.take() {
            carried = absorb(keys, items, carried);
        }
        if let (1.., Some((group, _))) = (start, payload.split_first_chunk_mut::<{ 16 * GROUP }>()) {
            pending = Some(whole_group::<OPEN>(group, &stream));
            payload = &mut payload[16 * GROUP..];
            continue;
        }
        let mut sum = Sum::new();
        let mut at = 0;
        if start == 0 {
            mask = stream[0];
            sum.add(carried, power(keys, count));
            carried = _mm_setzero_si128();
            at = 1;
        }
        let (these, rest) = payload.split_at_mut(payload.len().min(16 * (GROUP - at)));
        payload = rest;
        let (whole, part) = these.as_chunks_mut::<16>();
        for octets in whole {
            let item = crypt::<OPEN>(octets, stream[at]);
            sum.add(_mm_xor_si128(item, carried), power(keys, count - at));
            carried = _mm_setzero_si128();
            at += 1;
        }
        if !part.is_empty() {
            let item = crypt_part::<OPEN>(part, stream[at]);
            sum.add(_mm_xor_si128(item, carried), power(keys, count - at));
            carried = _mm_setzero_si128();
            at += 1;
        }
        if at < count {
            sum.add(_mm_xor_si128(lengths, carried), power(keys, 1));
        }
        carried = sum.reduced();
    }
    settle::<OPEN>(tag, _mm_xor_si128(reverse(carried), mask))
}

/// Eight whole blocks of payload; what GHASH takes of them.
#[target_feature(enable = "pclmulqdq,ssse3,avx")]
#[inline]
fn whole_group<const OPEN: bool>(
    octets: &mut [u8; 16 * GROUP],
    stream: &[__m128i; GROUP],
) -> [__m128i; GROUP] {
    let mut items = *stream;
    for (at, item) in items.iter_mut().enumerate() {
        if let Some(octets) = octets[16 * at..].first_chunk_mut() {
            *item = crypt::<OPEN>(octets, *item);
        }
    }
    items
}

/// Takes eight blocks into GHASH. It comes a group behind the cipher, so that the processor can do both at once.
#[target_feature(enable = "pclmulqdq,ssse3,avx")]
#[inline]
fn absorb(keys: &GcmKeys, mut items: [__m128i; GROUP], carried: __m128i) -> __m128i {
    items[0] = _mm_xor_si128(items[0], carried);
    let mut sum = Sum::new();
    for (at, item) in items.into_iter().enumerate() {
        sum.add(item, power(keys, GROUP - at));
    }
    sum.reduced()
}

/// Octets of associated data.
const fn from_in_aad(desc: &Desc<'_>) -> usize {
    match desc.kind {
        Kind::Rtp => desc.from(),
        Kind::Rtcp => 12,
    }
}

/// One block; what GHASH takes of it.
#[target_feature(enable = "ssse3,avx")]
#[inline]
fn crypt<const OPEN: bool>(octets: &mut [u8; 16], stream: __m128i) -> __m128i {
    let before = to_vector(octets);
    let after = _mm_xor_si128(before, stream);
    *octets = to_octets(after);
    reverse(if OPEN { before } else { after })
}

/// The last block, where it is not whole.
#[target_feature(enable = "ssse3,avx")]
fn crypt_part<const OPEN: bool>(octets: &mut [u8], stream: __m128i) -> __m128i {
    let mut block = [0; 16];
    block[..octets.len()].copy_from_slice(octets);
    let before = to_vector(&block);
    block = to_octets(_mm_xor_si128(before, stream));
    octets.copy_from_slice(&block[..octets.len()]);
    if OPEN { reverse(before) } else { padded(octets) }
}

/// Writes the tag, or compares it as a whole; false where they differ.
#[target_feature(enable = "sse4.1,avx")]
#[inline]
fn settle<const OPEN: bool>(octets: &mut [u8], tag: __m128i) -> bool {
    let Some(octets) = octets.first_chunk_mut::<16>() else { return false };
    if OPEN {
        let differ = _mm_xor_si128(to_vector(octets), tag);
        _mm_testz_si128(differ, differ) == 1
    } else {
        *octets = to_octets(tag);
        true
    }
}
