//! The backend for AES-NI, PCLMULQDQ and SHA-NI: registers of 128 bits.

pub mod gcm;
pub mod sha1;

use core::arch::x86_64::*;

use super::keys::{CmKeys, RoundKey, Rounds, to_octets, to_vector};
use super::portable::Portable;
use super::{Burst, Desc, Keys};

/// See the module. Its packets are those of suites whose keys are for a SIMD backend, so what it needs is there.
pub struct Shani;

impl Burst for Shani {
    fn protect(self, burst: &mut [Desc<'_>], ahead: usize) -> u64 {
        // SAFETY: the first packet's keys are for this backend, so the machine has what it needs.
        unsafe { run::<false>(burst, ahead) }
    }

    fn unprotect(self, burst: &mut [Desc<'_>], ahead: usize) -> u64 {
        // SAFETY: as above.
        unsafe { run::<true>(burst, ahead) }
    }
}

#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,sha,avx")]
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
                    crypt(keys, desc);
                }
                cm |= 1 << at;
            }
            Keys::PortableGcm(_) | Keys::PortableAesCm(_) | Keys::PortableAesCmShort(_) => {
                refused |= foreign::<OPEN>(desc) << at;
            }
        }
    }
    if cm != 0 {
        refused |= tags::<OPEN>(burst, cm);
    }
    refused
}

/// A packet of the portable backend in our burst.
#[cold]
pub fn foreign<const OPEN: bool>(desc: &mut Desc<'_>) -> u64 {
    let mut one = [desc.again()];
    if OPEN { Portable.unprotect(&mut one, 0) } else { Portable.protect(&mut one, 0) }
}

/// Fetches the keys of the packet `ahead` of `at`: those lines of the block that it will read.
#[inline]
pub fn prefetch(burst: &[Desc<'_>], at: usize, ahead: usize) {
    let Some(next) = burst.get(at.saturating_add(ahead)) else { return };
    let block = std::ptr::from_ref(next.suite).cast::<u8>();
    let line = |at: usize| prefetch_line(block.wrapping_add(64 * at));
    if next.tag.is_gcm() {
        // The powers H^4 to H^1, the round keys; with more than two blocks H^8 to H^5, with more than six all.
        let octets = next.to - next.from;
        [4, 5, 6, 7].into_iter().for_each(line);
        if octets > 32 {
            line(3);
            if octets > 96 {
                [1, 2].into_iter().for_each(line);
            }
        }
    } else {
        [0, 1, 2, 3].into_iter().for_each(line);
    }
}

/// Fetches one line.
#[inline]
pub fn prefetch_line(at: *const u8) {
    // SAFETY: a hint that reads nothing, wherever it points.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// Writes the tags of the packets that the bits of `which` name, or compares them and decrypts those that are right.
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,sha,avx")]
fn tags<const OPEN: bool>(burst: &mut [Desc<'_>], which: u64) -> u64 {
    let order = Order::new(burst, which);
    let mut refused = 0;
    for pair in order.places().chunks(2) {
        refused |= sha1::tags::<OPEN>(burst, pair);
    }
    let mut right = if OPEN { which & !refused } else { 0 };
    while right != 0 {
        let desc = &mut burst[right.trailing_zeros() as usize];
        right &= right - 1;
        let suite = desc.suite;
        if let Keys::AesCm(keys) | Keys::AesCmShort(keys) = &suite.0 {
            crypt(keys, desc);
        }
    }
    refused
}

/// Encrypts or decrypts the payload of a packet of AES-CM.
#[target_feature(enable = "aes,ssse3,avx")]
fn crypt(keys: &CmKeys, desc: &mut Desc<'_>) {
    let (iv, from, to) = (cm_iv(keys, desc), desc.from(), desc.to());
    let bytes = &mut desc.packet[from..to];
    match keys.rounds {
        Rounds::Ten => keystream::<10>(&keys.low, &keys.high, iv, bytes),
        Rounds::Fourteen => keystream::<14>(&keys.low, &keys.high, iv, bytes),
    }
}

/// The first counter block of AES-CM as a number, whose lowest 16 bits count.
#[target_feature(enable = "sse2,avx")]
#[inline]
pub fn cm_iv(keys: &CmKeys, desc: &Desc<'_>) -> u128 {
    u128::from_be_bytes(keys.salt) ^ (desc.nonce() << 16)
}

/// Round key `at`.
#[target_feature(enable = "sse2,avx")]
#[inline]
fn round_key(low: &[RoundKey; 11], high: &[RoundKey; 4], at: usize) -> __m128i {
    let octets = if at < 11 { &low[at] } else { &high[at - 11] };
    // SAFETY: sixteen octets, at any alignment.
    unsafe { _mm_loadu_si128(octets.as_ptr().cast()) }
}

/// AES on `N` blocks side by side.
#[target_feature(enable = "aes,avx")]
#[inline]
pub fn aes<const ROUNDS: usize, const N: usize>(
    low: &[RoundKey; 11],
    high: &[RoundKey; 4],
    mut blocks: [__m128i; N],
) -> [__m128i; N] {
    let key = round_key(low, high, 0);
    for block in &mut blocks {
        *block = _mm_xor_si128(*block, key);
    }
    for round in 1..ROUNDS {
        let key = round_key(low, high, round);
        for block in &mut blocks {
            *block = _mm_aesenc_si128(*block, key);
        }
    }
    let key = round_key(low, high, ROUNDS);
    for block in &mut blocks {
        *block = _mm_aesenclast_si128(*block, key);
    }
    blocks
}

/// The octets of a vector in reverse.
#[target_feature(enable = "ssse3,avx")]
#[inline]
pub fn reverse(vector: __m128i) -> __m128i {
    _mm_shuffle_epi8(vector, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
}

/// Keystream of counter mode from this block on, xored in: eight blocks side by side, which fills AES's pipeline, then
/// four or eight for what is left.
#[target_feature(enable = "aes,ssse3,avx")]
#[inline]
fn keystream<const ROUNDS: usize>(low: &[RoundKey; 11], high: &[RoundKey; 4], iv: u128, bytes: &mut [u8]) {
    let mut iv = _mm_set_epi64x(((iv >> 64) as u64).cast_signed(), (iv as u64).cast_signed());
    for bytes in bytes.chunks_mut(128) {
        if bytes.len() > 64 {
            blocks_of_stream::<ROUNDS, 8>(low, high, iv, bytes);
        } else {
            blocks_of_stream::<ROUNDS, 4>(low, high, iv, bytes);
        }
        iv = _mm_add_epi32(iv, _mm_cvtsi32_si128(8));
    }
}

/// `N` blocks or fewer.
#[target_feature(enable = "aes,ssse3,avx")]
#[inline]
fn blocks_of_stream<const ROUNDS: usize, const N: usize>(
    low: &[RoundKey; 11],
    high: &[RoundKey; 4],
    iv: __m128i,
    bytes: &mut [u8],
) {
    let mut blocks = [iv; N];
    for (at, block) in blocks.iter_mut().enumerate() {
        *block = reverse(_mm_add_epi32(*block, _mm_cvtsi32_si128(at as i32)));
    }
    let stream = aes::<ROUNDS, N>(low, high, blocks);
    let (whole, rest) = bytes.as_chunks_mut::<16>();
    if let Ok(whole) = <&mut [[u8; 16]; N]>::try_from(&mut *whole) {
        for (octets, stream) in whole.iter_mut().zip(stream) {
            *octets = to_octets(_mm_xor_si128(to_vector(octets), stream));
        }
        return;
    }
    for (octets, stream) in whole.iter_mut().zip(&stream) {
        *octets = to_octets(_mm_xor_si128(to_vector(octets), *stream));
    }
    if let (false, Some(stream)) = (rest.is_empty(), stream.get(whole.len())) {
        let mut block = [0; 16];
        block[..rest.len()].copy_from_slice(rest);
        block = to_octets(_mm_xor_si128(to_vector(&block), *stream));
        rest.copy_from_slice(&block[..rest.len()]);
    }
}

/// The packets of a burst in order of their number of SHA-1 blocks, so that those hashed together are as long.
pub struct Order {
    places: [u32; super::BURST],
    count: usize,
}

impl Order {
    /// Of the packets that the bits of `which` name, the longest first.
    #[inline]
    pub fn new(burst: &[Desc<'_>], mut which: u64) -> Self {
        let mut order = Self { places: [0; super::BURST], count: 0 };
        let (mut in_order, mut last) = (true, u32::MAX);
        for place in &mut order.places {
            if which == 0 {
                break;
            }
            let at = which.trailing_zeros();
            which &= which - 1;
            *place = (blocks(&burst[at as usize]) as u32) << 8 | at;
            in_order &= *place >> 8 <= last;
            last = *place >> 8;
            order.count += 1;
        }
        if !in_order {
            order.places[..order.count].sort_unstable_by_key(|place| std::cmp::Reverse(*place));
        }
        order
    }

    /// In order.
    #[inline]
    pub fn places(&self) -> &[u32] {
        &self.places[..self.count]
    }
}

/// Which packet a place of an [`Order`] is.
pub const fn packet_of(place: u32) -> usize {
    (place & 0xff) as usize
}

/// How many blocks it has.
pub const fn blocks_of(place: u32) -> usize {
    (place >> 8) as usize
}

/// Blocks of SHA-1 that a packet and its padding fill.
#[inline]
pub fn blocks(desc: &Desc<'_>) -> usize {
    let roc = if desc.roc().is_some() { 4 } else { 0 };
    (desc.authenticated() + roc + 8) / 64 + 1
}
