//! AES-GCM in one fused pass a packet.
//!
//! Blocks are counted as the cipher does: block 0 is the last of the associated data under GHASH and the mask of the tag
//! under AES (counter 1); payload starts with block 1. So vector 0 begins 16 octets before the payload, of which it
//! touches none. Behind the payload the block of the lengths takes the next place, and the sum of up to sixteen products
//! is reduced once.

use core::arch::x86_64::*;

use super::super::keys::{GcmKeys, multiply, reduce, to_vector};
use super::super::shani::reverse as reverse_one;
use super::super::{Desc, Kind};
use super::{aes, block, counters, keystream, octets_of, reverse};

/// A sum of products in four lanes, not reduced.
struct Sum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Sum {
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    fn new(x: __m512i, h: __m512i) -> Self {
        Self {
            low: _mm512_clmulepi64_epi128::<0x00>(x, h),
            high: _mm512_clmulepi64_epi128::<0x11>(x, h),
            middle: _mm512_xor_si512(
                _mm512_clmulepi64_epi128::<0x01>(x, h),
                _mm512_clmulepi64_epi128::<0x10>(x, h),
            ),
        }
    }

    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    fn add(&mut self, x: __m512i, h: __m512i) {
        let xor = |a, b, c| _mm512_ternarylogic_epi64::<0x96>(a, b, c);
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(x, h));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(x, h));
        self.middle =
            xor(self.middle, _mm512_clmulepi64_epi128::<0x01>(x, h), _mm512_clmulepi64_epi128::<0x10>(x, h));
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq")]
    #[inline]
    fn reduced(self) -> __m128i {
        let low = _mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(self.middle));
        let high = _mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(self.middle));
        reduce(across(low), across(high))
    }
}

/// The four lanes xored.
#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
fn across(vector: __m512i) -> __m128i {
    let half = _mm256_xor_si256(_mm512_castsi512_si256(vector), _mm512_extracti64x4_epi64::<1>(vector));
    _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
}

/// H^n down to H^(n-3), n from 1 to 16. Below H^1 follow octets of the round keys, which meet only zeros.
#[target_feature(enable = "avx512f")]
#[inline]
fn powers(keys: &GcmKeys, n: usize) -> __m512i {
    debug_assert!((1..=16).contains(&n));
    let at = std::mem::offset_of!(GcmKeys, powers) + 16 * (16 - n);
    // SAFETY: `at` is 304 at the most, so the 64 octets end within the 512 of the keys, all of which are initialised
    // integers.
    unsafe { _mm512_loadu_si512(std::ptr::from_ref(keys).cast::<u8>().add(at).cast()) }
}

/// What is left of a packet to be worked on.
#[derive(Clone, Copy)]
struct Part {
    /// Of the next block 0: 16 octets before the payload at first.
    at: *mut u8,
    /// Octets from there to the end of the payload.
    left: usize,
    /// Of the next vector, the octets that are payload.
    first: u64,
    /// The nonce with the next counter (of a short packet with none), in four lanes, in GHASH's order.
    counter: __m512i,
    /// What is to be xored onto the next block under GHASH.
    carried: __m128i,
    /// The block of the lengths, in GHASH's order.
    lengths: __m128i,
}

/// Seals or opens one packet; false where its tag is wrong.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
#[inline(never)]
pub fn packet<const ROUNDS: usize, const OPEN: bool>(keys: &GcmKeys, desc: &mut Desc<'_>) -> bool {
    let (from, to) = (desc.from(), desc.to());
    let (associated, carried) = match desc.kind {
        Kind::Rtp => (from, header(keys, &desc.packet[..from])),
        Kind::Rtcp => (12, rtcp_header(desc)),
    };
    // SAFETY: twelve octets of salt are read.
    let salt = unsafe { _mm_maskz_loadu_epi8(0x0fff, keys.salt.as_ptr().cast()) };
    let nonce = _mm_xor_si128(reverse_one(salt), block(desc.nonce() << 32));
    let packet = desc.packet.as_mut_ptr();
    let mut part = Part {
        at: packet.wrapping_add(from).wrapping_sub(16),
        left: to - from + 16,
        first: !0xffff,
        counter: _mm512_broadcast_i32x4(nonce),
        carried,
        lengths: _mm_set_epi64x(8 * associated as i64, 8 * (to - from) as i64),
    };
    // SAFETY: `left` octets from `at` are the payload and the 16 before it that the mask `first` excludes, and the packet
    // is ours alone.
    let (carried, mask) = unsafe {
        if part.left < 256 {
            tail::<ROUNDS, OPEN, false>(keys, part)
        } else {
            part.counter = _mm512_add_epi32(part.counter, _mm512_broadcast_i32x4(_mm_cvtsi32_si128(1)));
            groups::<ROUNDS, OPEN>(keys, part)
        }
    };
    let tag = _mm_xor_si128(reverse_one(carried), mask);
    // SAFETY: a packet for GCM has the 16 octets of the tag behind `to`.
    unsafe {
        let at = packet.add(to).cast::<__m128i>();
        if OPEN {
            let differ = _mm_xor_si128(_mm_loadu_si128(at), tag);
            _mm_testz_si128(differ, differ) == 1
        } else {
            _mm_storeu_si128(at, tag);
            true
        }
    }
}

/// SRTCP's associated data: its eight clear octets and the index word.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn rtcp_header(desc: &Desc<'_>) -> __m128i {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&desc.packet[..8]);
    octets[8..12].copy_from_slice(&desc.word());
    reverse_one(to_vector(&octets))
}

/// The associated data of RTP up to its last block, and that block xored onto it, not yet multiplied.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq,bmi2")]
#[inline]
fn header(keys: &GcmKeys, octets: &[u8]) -> __m128i {
    if octets.len() <= 16 { last_of_header(octets) } else { long_header(keys, octets) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
#[inline]
fn last_of_header(octets: &[u8]) -> __m128i {
    let mask = _bzhi_u32(0xffff, octets.len() as u32) as u16;
    // SAFETY: the mask has a bit for each octet that is there.
    reverse_one(unsafe { _mm_maskz_loadu_epi8(mask, octets.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq,bmi2")]
#[inline(never)]
fn long_header(keys: &GcmKeys, octets: &[u8]) -> __m128i {
    let mut sum = _mm_setzero_si128();
    let mut octets = octets;
    while octets.len() > 16 {
        let blocks = ((octets.len() - 1) / 16).min(16);
        sum = absorb(keys, sum, &octets[..16 * blocks]);
        octets = &octets[16 * blocks..];
    }
    _mm_xor_si128(sum, last_of_header(octets))
}

/// Takes 1 to 16 whole blocks into GHASH.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq,bmi2")]
#[inline]
fn absorb(keys: &GcmKeys, carried: __m128i, octets: &[u8]) -> __m128i {
    let count = octets.len() / 16;
    let mut carried = _mm512_zextsi128_si512(carried);
    let mut sum: Option<Sum> = None;
    for (at, octets) in octets.chunks(64).enumerate() {
        let mask = octets_of(octets.len(), 0);
        // SAFETY: the mask has a bit for each octet that is there.
        let blocks = reverse(unsafe { _mm512_maskz_loadu_epi8(mask, octets.as_ptr().cast()) });
        let blocks = _mm512_xor_si512(blocks, carried);
        carried = _mm512_setzero_si512();
        let powers = powers(keys, count - 4 * at);
        match &mut sum {
            Some(sum) => sum.add(blocks, powers),
            None => sum = Some(Sum::new(blocks, powers)),
        }
    }
    sum.map_or(_mm_setzero_si128(), |sum| sum.reduced())
}

/// A long packet: whole groups of sixteen blocks, then the tail. What is carried out of it, and the mask of the tag.
///
/// # Safety
/// `at` has `left` octets, but for those that `first` excludes; nobody else has them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
#[inline(never)]
unsafe fn groups<const ROUNDS: usize, const OPEN: bool>(
    keys: &GcmKeys,
    mut part: Part,
) -> (__m128i, __m128i) {
    let mut mask = None;
    let powers = [16, 12, 8, 4].map(|n| powers(keys, n));
    while part.left >= 256 {
        let stream = aes::<ROUNDS, 4>(&keys.low, &keys.high, counters(part.counter));
        mask.get_or_insert(_mm512_castsi512_si128(stream[0]));
        let mut sum: Option<Sum> = None;
        for (n, (stream, powers)) in stream.into_iter().zip(powers).enumerate() {
            let octets = part.at.wrapping_add(64 * n);
            // SAFETY: 256 octets are there, of the first vector those of `first`.
            let item = unsafe { crypt::<OPEN>(octets, stream, if n == 0 { part.first } else { !0 }) };
            match &mut sum {
                Some(sum) => sum.add(item, powers),
                None => {
                    let first = _mm512_xor_si512(item, _mm512_zextsi128_si512(part.carried));
                    sum = Some(Sum::new(first, powers));
                }
            }
        }
        part.carried = sum.map_or(part.carried, |sum| sum.reduced());
        part.first = !0;
        part.left -= 256;
        part.at = part.at.wrapping_add(256);
        part.counter = _mm512_add_epi32(part.counter, _mm512_broadcast_i32x4(_mm_cvtsi32_si128(16)));
    }
    // SAFETY: what is left of what was there.
    let (carried, stream) = unsafe { tail::<ROUNDS, OPEN, true>(keys, part) };
    (carried, mask.unwrap_or(stream))
}

/// Encrypts or decrypts the octets in `mask`; what GHASH takes of them.
///
/// # Safety
/// The octets in `mask` of the 64 are there, and nobody else has them.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn crypt<const OPEN: bool>(at: *mut u8, stream: __m512i, mask: u64) -> __m512i {
    // SAFETY: the caller's promise.
    let before = unsafe { _mm512_maskz_loadu_epi8(mask, at.cast()) };
    let after = _mm512_xor_si512(before, _mm512_maskz_mov_epi8(mask, stream));
    // SAFETY: as above.
    unsafe { _mm512_mask_storeu_epi8(at.cast(), mask, after) };
    reverse(if OPEN { before } else { after })
}

/// What is left, fewer than 256 octets, and the lengths; of a `LONG` packet or of one that has no more (told apart so that
/// each is inlined in its place). What is carried out of it, and the first block of stream, which
/// in a short packet is the mask of the tag.
///
/// # Safety
/// As [`groups`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
#[inline]
unsafe fn tail<const ROUNDS: usize, const OPEN: bool, const LONG: bool>(
    keys: &GcmKeys,
    part: Part,
) -> (__m128i, __m128i) {
    // SAFETY: the caller's promise; so many vectors hold all that is left.
    unsafe {
        match (part.left + 15) / 64 {
            0 => vectors::<ROUNDS, OPEN, LONG, 1>(keys, part),
            1 => vectors::<ROUNDS, OPEN, LONG, 2>(keys, part),
            2 => vectors::<ROUNDS, OPEN, LONG, 3>(keys, part),
            _ => vectors::<ROUNDS, OPEN, LONG, 4>(keys, part),
        }
    }
}

/// # Safety
/// As [`tail`], and `N` vectors hold what is left.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
#[inline]
unsafe fn vectors<const ROUNDS: usize, const OPEN: bool, const LONG: bool, const N: usize>(
    keys: &GcmKeys,
    part: Part,
) -> (__m128i, __m128i) {
    let stream = if LONG {
        aes::<ROUNDS, N>(&keys.low, &keys.high, counters(part.counter))
    } else {
        keystream::<ROUNDS, N, 1>(&keys.low, &keys.high, reverse(part.counter))
    };
    let blocks = part.left.div_ceil(16);
    // With sixteen blocks there is no place left for the lengths.
    let count = if N == 4 { (blocks + 1).min(16) } else { blocks + 1 };
    let mut sum: Option<Sum> = None;
    for (n, stream) in stream.into_iter().enumerate() {
        let mut mask = if n + 2 < N { !0 } else { octets_of(part.left, n) };
        if n == 0 {
            mask &= if LONG { part.first } else { !0xffff };
        }
        // SAFETY: the mask is that of octets that are left, and of the first vector those of `first`.
        let mut item = unsafe { crypt::<OPEN>(part.at.wrapping_add(64 * n), stream, mask) };
        if n == 0 {
            item = _mm512_xor_si512(item, _mm512_zextsi128_si512(part.carried));
        }
        if n + 1 == N {
            // The lane behind the last block; none where that is the sixteenth.
            let lane = (0b11u32 << (2 * (blocks - 4 * n))) as u8;
            item = _mm512_xor_si512(item, _mm512_maskz_broadcast_i64x2(lane, part.lengths));
        }
        let powers = powers(keys, count - 4 * n);
        match &mut sum {
            Some(sum) => sum.add(item, powers),
            None => sum = Some(Sum::new(item, powers)),
        }
    }
    let mut carried = sum.map_or(part.carried, |sum| sum.reduced());
    if N == 4 && blocks == 16 {
        carried = multiply(_mm_xor_si128(carried, part.lengths), to_vector(&keys.powers[15]));
    }
    (carried, _mm512_castsi512_si128(stream[0]))
}
