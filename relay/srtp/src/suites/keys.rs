//! The key blocks of the SIMD backends; both use the same. Set-up, not the packet path.

use core::arch::x86_64::*;

use zeroize::{Zeroize, Zeroizing};

use super::Backend;
use super::portable::hmac_states;
use crate::KeyError;

/// Rounds of AES.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rounds {
    Ten = 10,
    Fourteen = 14,
}

/// Whose keys these are. The unused values hold the tag of the enumeration around the block.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Simd {
    Shani,
    Avx512,
}

impl Simd {
    fn of(backend: Backend) -> Result<Self, KeyError> {
        match backend {
            Backend::Shani if backend.is_supported() => Ok(Self::Shani),
            Backend::Avx512 if backend.is_supported() => Ok(Self::Avx512),
            Backend::Portable | Backend::Shani | Backend::Avx512 => Err(KeyError),
        }
    }

    const fn backend(self) -> Backend {
        match self {
            Self::Shani => Backend::Shani,
            Self::Avx512 => Backend::Avx512,
        }
    }
}

/// One round key.
pub type RoundKey = [u8; 16];

/// Eight lines: a packet under AES-128 reads the last three and, of the powers, a run that ends with the last.
#[repr(C, align(64))]
pub struct GcmKeys {
    /// Round keys 11 to 14.
    pub high: [RoundKey; 4],
    /// H^16 down to H^1, in the form of POLYVAL (RFC 8452 appendix A).
    pub powers: [[u8; 16]; 16],
    /// Round keys 0 to 10.
    pub low: [RoundKey; 11],
    pub salt: [u8; 12],
    pub rounds: Rounds,
    simd: Simd,
    _rest: [u8; 2],
}

const _: () = assert!(size_of::<GcmKeys>() == 512);

impl GcmKeys {
    pub fn new(backend: Backend, key: &[u8], salt: &[u8; 12]) -> Result<Self, KeyError> {
        let simd = Simd::of(backend)?;
        // SAFETY: both backends need avx, aes, pclmulqdq and ssse3, and this one is supported.
        let schedule = unsafe { expand(key) }?;
        let mut keys = Self {
            high: [[0; 16]; 4],
            powers: [[0; 16]; 16],
            low: [[0; 16]; 11],
            salt: *salt,
            rounds: schedule.rounds,
            simd,
            _rest: [0; 2],
        };
        schedule.copy_to(&mut keys.low, &mut keys.high);
        // SAFETY: as above.
        unsafe { powers(&schedule, &mut keys.powers) };
        Ok(keys)
    }

    pub const fn backend(&self) -> Backend {
        self.simd.backend()
    }
}

impl Drop for GcmKeys {
    fn drop(&mut self) {
        self.high.zeroize();
        self.powers.zeroize();
        self.low.zeroize();
        self.salt.zeroize();
    }
}

/// Four lines under AES-128, five under AES-256; HMAC reads the first only.
#[repr(C, align(64))]
pub struct CmKeys {
    /// State of SHA-1 behind HMAC's inner key block.
    pub inner: [u32; 5],
    /// State of SHA-1 behind its outer key block.
    pub outer: [u32; 5],
    /// 14 octets, then zeros: where the counter is.
    pub salt: [u8; 16],
    pub rounds: Rounds,
    simd: Simd,
    _rest: [u8; 6],
    /// Round keys 0 to 10.
    pub low: [RoundKey; 11],
    /// Round keys 11 to 14.
    pub high: [RoundKey; 4],
}

const _: () = assert!(size_of::<CmKeys>() == 320 && std::mem::offset_of!(CmKeys, low) == 64);

impl CmKeys {
    pub fn new(backend: Backend, key: &[u8], mac: &[u8; 20], salt: &[u8; 14]) -> Result<Self, KeyError> {
        let simd = Simd::of(backend)?;
        // SAFETY: both backends need avx, aes, pclmulqdq and ssse3, and this one is supported.
        let schedule = unsafe { expand(key) }?;
        let [inner, outer] = hmac_states(mac);
        let mut keys = Self {
            inner,
            outer,
            salt: [0; 16],
            rounds: schedule.rounds,
            simd,
            _rest: [0; 6],
            low: [[0; 16]; 11],
            high: [[0; 16]; 4],
        };
        keys.salt[..14].copy_from_slice(salt);
        schedule.copy_to(&mut keys.low, &mut keys.high);
        Ok(keys)
    }

    pub const fn backend(&self) -> Backend {
        self.simd.backend()
    }
}

impl Drop for CmKeys {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
        self.salt.zeroize();
        self.low.zeroize();
        self.high.zeroize();
    }
}

struct Schedule {
    keys: Zeroizing<[RoundKey; 15]>,
    rounds: Rounds,
}

impl Schedule {
    fn copy_to(&self, low: &mut [RoundKey; 11], high: &mut [RoundKey; 4]) {
        low.copy_from_slice(&self.keys[..11]);
        high.copy_from_slice(&self.keys[11..]);
    }
}

/// AES key expansion (FIPS 197 section 5.2), four octets at a time; the S-box is the one of `aeskeygenassist`.
#[target_feature(enable = "aes,avx")]
fn expand(key: &[u8]) -> Result<Schedule, KeyError> {
    let (words, rounds) = match key.len() {
        16 => (4, Rounds::Ten),
        32 => (8, Rounds::Fourteen),
        _ => return Err(KeyError),
    };
    let mut w = Zeroizing::new([0u32; 60]);
    for (word, octets) in w.iter_mut().zip(key.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*octets);
    }
    let mut constant = 1u32;
    for at in words..4 * (rounds as usize + 1) {
        let mut next = w[at - 1];
        if at % words == 0 {
            next = substitute(next).rotate_right(8) ^ constant;
            // Doubling in the field of AES; it comes to the modulus once only, behind 0x80.
            constant = if constant == 0x80 { 0x1b } else { constant << 1 };
        } else if words == 8 && at % 8 == 4 {
            next = substitute(next);
        }
        w[at] = w[at - words] ^ next;
    }
    let mut keys = Zeroizing::new([[0; 16]; 15]);
    for (octets, word) in keys.as_flattened_mut().as_chunks_mut::<4>().0.iter_mut().zip(*w) {
        *octets = word.to_le_bytes();
    }
    Ok(Schedule { keys, rounds })
}

/// The S-box on each octet of a word.
#[target_feature(enable = "aes,avx")]
fn substitute(word: u32) -> u32 {
    // Dword 0 of the answer is the S-box of dword 1.
    let spread = _mm_set1_epi32(word.cast_signed());
    _mm_cvtsi128_si32(_mm_aeskeygenassist_si128::<0>(spread)).cast_unsigned()
}

/// H = AES(0), then H^16 down to H^1.
#[target_feature(enable = "aes,pclmulqdq,ssse3,avx")]
fn powers(schedule: &Schedule, out: &mut [[u8; 16]; 16]) {
    let key = |at: usize| to_vector(&schedule.keys[at]);
    let rounds = schedule.rounds as usize;
    let mut block = key(0);
    for round in 1..rounds {
        block = _mm_aesenc_si128(block, key(round));
    }
    let mut octets = to_octets(_mm_aesenclast_si128(block, key(rounds)));
    // To POLYVAL's order, times x.
    let h = u128::from_be_bytes(octets);
    let carry = (h >> 127).wrapping_neg();
    let h = (h << 1) ^ (carry & 0xc200_0000_0000_0000_0000_0000_0000_0001);
    octets = h.to_le_bytes();
    let h = to_vector(&octets);
    let mut power = h;
    for out in out.iter_mut().rev() {
        *out = to_octets(power);
        power = multiply(power, h);
    }
    octets.zeroize();
}

/// A product in POLYVAL's field, divided by x^128.
#[target_feature(enable = "pclmulqdq,avx")]
pub fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let low = _mm_clmulepi64_si128::<0x00>(a, b);
    let high = _mm_clmulepi64_si128::<0x11>(a, b);
    let middle = _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(a, b), _mm_clmulepi64_si128::<0x10>(a, b));
    reduce(_mm_xor_si128(low, _mm_slli_si128::<8>(middle)), _mm_xor_si128(high, _mm_srli_si128::<8>(middle)))
}

/// Montgomery's reduction of 256 bits by POLYVAL's polynomial, 64 bits a step.
#[target_feature(enable = "pclmulqdq,avx")]
#[inline]
pub fn reduce(low: __m128i, high: __m128i) -> __m128i {
    let polynomial = _mm_set_epi64x(0xc200_0000_0000_0000_u64.cast_signed(), 0);
    let step = |x| _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(x), _mm_clmulepi64_si128::<0x10>(x, polynomial));
    _mm_xor_si128(high, step(step(low)))
}

#[target_feature(enable = "sse2,avx")]
#[inline]
pub fn to_vector(octets: &[u8; 16]) -> __m128i {
    // SAFETY: sixteen octets, at any alignment.
    unsafe { _mm_loadu_si128(octets.as_ptr().cast()) }
}

#[target_feature(enable = "sse2,avx")]
#[inline]
pub fn to_octets(vector: __m128i) -> [u8; 16] {
    let mut octets = [0; 16];
    // SAFETY: sixteen octets, at any alignment.
    unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), vector) };
    octets
}
