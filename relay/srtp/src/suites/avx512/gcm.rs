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
use super::{aes, block, counters, octets_of, reverse};

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

/// What is known of a packet while its payload is worked on.
struct Work<'a> {
    keys: &'a GcmKeys,
    /// Of the next block 0: 16 octets before the payload at first.
    at: *mut u8,
    /// Octets from there to the end of the payload.
    left: usize,
    /// Of the next vector, the octets that are payload.
    first: u64,
    /// Next counter block, in four lanes.
    counter: __m512i,
    /// What is to be xored onto the next block under GHASH.
    carried: __m128i,
    /// The block of the lengths, in GHASH's order.
    lengths: __m128i,
}

/// Seals or opens one packet; false where its tag is wrong.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
#[inline]
pub fn packet<const ROUNDS: usize, const OPEN: bool>(keys: &GcmKeys, desc: &mut Desc<'_>) -> bool {
    let (from, to) = (desc.from(), desc.to());
    let associated = if desc.kind == Kind::Rtp { from } else { 12 };
    // SAFETY: twelve octets of salt are read.
    let salt = unsafe { _mm_maskz_loadu_epi8(0x0fff, keys.salt.as_ptr().cast()) };
    let nonce = _mm_xor_si128(reverse_one(salt), block(desc.nonce() << 32 | 1));
    let carried = if desc.kind == Kind::Rtp { header(keys, &desc.packet[..from]) } else { rtcp_header(desc) };
    let packet = desc.packet.as_mut_ptr();
    let mut work = Work {
        keys,
        at: packet.wrapping_add(from).wrapping_sub(16),
        left: to - from + 16,
        first: !0xffff,
        counter: _mm512_broadcast_i32x4(nonce),
        carried,
        lengths: block(((8 * associated) as u128) << 64 | (8 * (to - from)) as u128),
    };
    // SAFETY: `left` octets from `at` are the payload and the 16 before it that the mask `first` excludes, and the packet
    // is ours alone.
    let mask = unsafe {
        if work.left < 256 {
            work.tail::<ROUNDS, OPEN>()
        } else {
            let mask = work.groups::<ROUNDS, OPEN>();
            work.tail::<ROUNDS, OPEN>();
            mask
        }
    };
    let tag = _mm_xor_si128(reverse_one(work.carried), mask);
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
    let mut sum = _mm_setzero_si128();
    let mut octets = octets;
    while octets.len() > 16 {
        let blocks = ((octets.len() - 1) / 16).min(16);
        sum = absorb(keys, sum, &octets[..16 * blocks]);
        octets = &octets[16 * blocks..];
    }
    let mask = _bzhi_u32(0xffff, octets.len() as u32) as u16;
    // SAFETY: the mask has a bit for each octet that is there.
    _mm_xor_si128(sum, reverse_one(unsafe { _mm_maskz_loadu_epi8(mask, octets.as_ptr().cast()) }))
}

/// Takes 1 to 16 whole blocks into GHASH.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq,bmi2")]
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

impl Work<'_> {
    /// All whole groups of sixteen blocks; the mask of the tag, which is in the first.
    ///
    /// # Safety
    /// `at` has `left` octets, 256 at the least, but for those that `first` excludes; nobody else has them.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    unsafe fn groups<const ROUNDS: usize, const OPEN: bool>(&mut self) -> __m128i {
        let mut mask = None;
        let powers = [16, 12, 8, 4].map(|n| powers(self.keys, n));
        while self.left >= 256 {
            let stream = aes::<ROUNDS, 4>(&self.keys.low, &self.keys.high, counters(self.counter));
            mask.get_or_insert(_mm512_castsi512_si128(stream[0]));
            // SAFETY: 256 octets are there, of the first vector those of `first`.
            let items: [__m512i; 4] = unsafe {
                let items = self.crypt::<OPEN>(stream[0], 0, self.first);
                let items = [items, self.crypt::<OPEN>(stream[1], 1, !0)];
                [
                    items[0],
                    items[1],
                    self.crypt::<OPEN>(stream[2], 2, !0),
                    self.crypt::<OPEN>(stream[3], 3, !0),
                ]
            };
            let first = _mm512_xor_si512(items[0], _mm512_zextsi128_si512(self.carried));
            let mut sum = Sum::new(first, powers[0]);
            for (item, powers) in items.into_iter().zip(powers).skip(1) {
                sum.add(item, powers);
            }
            self.carried = sum.reduced();
            self.first = !0;
            self.left -= 256;
            self.at = self.at.wrapping_add(256);
            let sixteen = _mm512_broadcast_i32x4(_mm_cvtsi32_si128(16));
            self.counter = _mm512_add_epi32(self.counter, sixteen);
        }
        mask.unwrap_or(_mm_setzero_si128())
    }

    /// Encrypts or decrypts what of vector `at` is in `mask`; what GHASH takes of it.
    ///
    /// # Safety
    /// The octets in `mask` of the 64 from 64 * `at` on are there, and nobody else has them.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn crypt<const OPEN: bool>(&self, stream: __m512i, at: usize, mask: u64) -> __m512i {
        let octets = self.at.wrapping_add(64 * at).cast::<i8>();
        // SAFETY: the caller's promise.
        let before = unsafe { _mm512_maskz_loadu_epi8(mask, octets) };
        let after = _mm512_xor_si512(before, _mm512_maskz_mov_epi8(mask, stream));
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_epi8(octets, mask, after) };
        reverse(if OPEN { before } else { after })
    }

    /// What is left, fewer than 256 octets, and the lengths; the first four octets of stream, which in the first group
    /// are the mask of the tag.
    ///
    /// # Safety
    /// As [`Work::groups`], without the least.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    #[inline]
    unsafe fn tail<const ROUNDS: usize, const OPEN: bool>(&mut self) -> __m128i {
        // SAFETY: the caller's promise; the vectors that are named hold all of `left`.
        unsafe {
            match (self.left + 15) / 64 {
                0 => self.vectors::<ROUNDS, OPEN, 1>(),
                1 => self.vectors::<ROUNDS, OPEN, 2>(),
                2 => self.vectors::<ROUNDS, OPEN, 3>(),
                _ => self.vectors::<ROUNDS, OPEN, 4>(),
            }
        }
    }

    /// # Safety
    /// As [`Work::tail`], and `N` vectors hold what is left.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    #[inline]
    unsafe fn vectors<const ROUNDS: usize, const OPEN: bool, const N: usize>(&mut self) -> __m128i {
        let stream = aes::<ROUNDS, N>(&self.keys.low, &self.keys.high, counters(self.counter));
        let blocks = self.left.div_ceil(16);
        // With sixteen blocks there is no place left for the lengths.
        let count = (blocks + 1).min(16);
        let mut sum: Option<Sum> = None;
        for (at, stream) in stream.into_iter().enumerate() {
            let mut mask = if at + 2 < N { !0 } else { octets_of(self.left, at) };
            if at == 0 {
                mask &= self.first;
            }
            // SAFETY: the mask is that of octets that are left, and of the first vector those of `first`.
            let mut item = unsafe { self.crypt::<OPEN>(stream, at, mask) };
            if at == 0 {
                item = _mm512_xor_si512(item, _mm512_zextsi128_si512(self.carried));
            }
            if at + 1 == N {
                // The lane behind the last block; none where that is the sixteenth.
                let lane = (0b11u32 << (2 * (blocks - 4 * at))) as u8;
                item = _mm512_xor_si512(item, _mm512_maskz_broadcast_i64x2(lane, self.lengths));
            }
            let powers = powers(self.keys, count - 4 * at);
            match &mut sum {
                Some(sum) => sum.add(item, powers),
                None => sum = Some(Sum::new(item, powers)),
            }
        }
        self.carried = sum.map_or(self.carried, |sum| sum.reduced());
        if blocks == 16 {
            self.carried =
                multiply(_mm_xor_si128(self.carried, self.lengths), to_vector(&self.keys.powers[15]));
        }
        _mm512_castsi512_si128(stream[0])
    }
}
