//! HMAC-SHA1 by SHA-NI. One stream is a chain of dependent rounds; of two packets, block by block in turn, the processor
//! works on one while the other waits.

use core::arch::x86_64::*;

use super::super::keys::to_vector;
use super::super::{Desc, Keys, Tag};
use super::{blocks, packet_of};

/// Four rounds.
macro_rules! rounds {
    ($abcd:expr, $e:expr, $words:expr, $kind:literal) => {
        _mm_sha1rnds4_epu32::<$kind>($abcd, _mm_sha1nexte_epu32($e, $words))
    };
}

/// The next four words of the schedule, and four rounds with them.
macro_rules! next {
    ($a:ident, $b:ident, $w0:ident, $w1:ident, $w2:ident, $w3:ident, $w4:ident, $kind:literal) => {
        $w4 = _mm_sha1msg2_epu32(_mm_xor_si128(_mm_sha1msg1_epu32($w0, $w1), $w2), $w3);
        $b = rounds!($a, $b, $w4, $kind);
    };
}

/// A state: a to d in one register, a highest; e in the highest word of the other.
#[derive(Clone, Copy)]
struct State {
    abcd: __m128i,
    e: __m128i,
}

impl State {
    #[target_feature(enable = "sha,ssse3,sse4.1,avx")]
    #[inline]
    fn load(words: &[u32; 5]) -> Self {
        let [a, b, c, d, e] = words.map(u32::cast_signed);
        Self { abcd: _mm_set_epi32(a, b, c, d), e: _mm_set_epi32(e, 0, 0, 0) }
    }

    /// One block, its words with the first in the highest place.
    #[target_feature(enable = "sha,ssse3,sse4.1,avx")]
    #[inline]
    fn compress(&mut self, [mut w0, mut w1, mut w2, mut w3]: [__m128i; 4]) {
        let mut w4;
        let mut a = self.abcd;
        let mut b = _mm_sha1rnds4_epu32::<0>(a, _mm_add_epi32(self.e, w0));
        a = rounds!(b, a, w1, 0);
        b = rounds!(a, b, w2, 0);
        a = rounds!(b, a, w3, 0);
        next!(a, b, w0, w1, w2, w3, w4, 0);
        next!(b, a, w1, w2, w3, w4, w0, 1);
        next!(a, b, w2, w3, w4, w0, w1, 1);
        next!(b, a, w3, w4, w0, w1, w2, 1);
        next!(a, b, w4, w0, w1, w2, w3, 1);
        next!(b, a, w0, w1, w2, w3, w4, 1);
        next!(a, b, w1, w2, w3, w4, w0, 2);
        next!(b, a, w2, w3, w4, w0, w1, 2);
        next!(a, b, w3, w4, w0, w1, w2, 2);
        next!(b, a, w4, w0, w1, w2, w3, 2);
        next!(a, b, w0, w1, w2, w3, w4, 2);
        next!(b, a, w1, w2, w3, w4, w0, 3);
        next!(a, b, w2, w3, w4, w0, w1, 3);
        next!(b, a, w3, w4, w0, w1, w2, 3);
        next!(a, b, w4, w0, w1, w2, w3, 3);
        next!(b, a, w0, w1, w2, w3, w4, 3);
        self.abcd = _mm_add_epi32(self.abcd, a);
        self.e = _mm_sha1nexte_epu32(b, self.e);
    }

    /// A block of octets.
    #[target_feature(enable = "sha,ssse3,sse4.1,avx")]
    #[inline]
    fn update(&mut self, block: &[u8; 64]) {
        let swap = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
        let (words, _) = block.as_chunks::<16>();
        self.compress([0, 1, 2, 3].map(|at| _mm_shuffle_epi8(to_vector(&words[at]), swap)));
    }

    /// The outer hash over the inner digest that this state is; of its octets the first sixteen.
    #[target_feature(enable = "sha,ssse3,sse4.1,avx")]
    #[inline]
    fn finish(self, outer: &[u32; 5]) -> [u8; 16] {
        let mut state = Self::load(outer);
        // Behind the digest of five words the padding to 64 + 20 octets.
        let fifth = _mm_insert_epi32::<2>(self.e, i32::MIN);
        let length = _mm_set_epi32(0, 0, 0, 8 * (64 + 20));
        state.compress([self.abcd, fifth, _mm_setzero_si128(), length]);
        super::super::keys::to_octets(super::reverse(state.abcd))
    }
}

/// What SHA-1 takes of one packet: whole blocks where they lie, and one or two with the rest, the rollover counter and
/// the padding.
struct Message<'a> {
    whole: &'a [[u8; 64]],
    tail: [[u8; 64]; 2],
    blocks: usize,
}

impl<'a> Message<'a> {
    fn new(packet: &'a [u8], desc: &Desc<'_>) -> Self {
        let (whole, rest) = packet.as_chunks::<64>();
        let (blocks, mut tail) = (blocks(desc), [[0; 64]; 2]);
        let octets = tail.as_flattened_mut();
        octets[..rest.len()].copy_from_slice(rest);
        let mut end = rest.len();
        if let Some(roc) = desc.roc() {
            octets[end..end + 4].copy_from_slice(&roc);
            end += 4;
        }
        octets[end] = 0x80;
        let bits = 8 * (64 + 64 * whole.len() + end) as u64;
        let last = 64 * (blocks - whole.len());
        octets[last - 8..last].copy_from_slice(&bits.to_be_bytes());
        Self { whole, tail, blocks }
    }

    #[inline]
    fn block(&self, at: usize) -> &[u8; 64] {
        match at.checked_sub(self.whole.len()) {
            None => &self.whole[at],
            Some(behind) => &self.tail[behind & 1],
        }
    }
}

/// Writes the tags of one or two packets, or compares them: bit n set where packet n was refused.
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
pub fn tags<const OPEN: bool>(burst: &mut [Desc<'_>], places: &[u32]) -> u64 {
    let &[first, second] = places else {
        return places.first().map_or(0, |place| one::<OPEN>(burst, packet_of(*place)));
    };
    let (first, second) = (packet_of(first), packet_of(second));
    let ([x, y], (keys_x, keys_y)) = {
        let (x, y) = (&burst[first], &burst[second]);
        let (Keys::AesCm(keys_x) | Keys::AesCmShort(keys_x)) = &x.suite.0 else { return 0 };
        let (Keys::AesCm(keys_y) | Keys::AesCmShort(keys_y)) = &y.suite.0 else { return 0 };
        let x = Message::new(&x.packet[..x.authenticated()], x);
        let y = Message::new(&y.packet[..y.authenticated()], y);
        (inner_of_two([&x, &y], [&keys_x.inner, &keys_y.inner]), (keys_x, keys_y))
    };
    let (x, y) = (x.finish(&keys_x.outer), y.finish(&keys_y.outer));
    settle_one::<OPEN>(&mut burst[first], x) << first | settle_one::<OPEN>(&mut burst[second], y) << second
}

/// Clears the upper halves of the vector registers. SHA-NI's instructions know registers of 128 bits only, and the processor
/// keeps what lies above them at fifty times the cost; the compiler, which copies octets by wider registers, does not see that.
#[target_feature(enable = "avx")]
#[inline]
fn clean() {
    _mm256_zeroupper();
}

/// Of two messages, the first being the longer or as long.
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
#[inline]
fn inner_of_two([x, y]: [&Message<'_>; 2], [inner_x, inner_y]: [&[u32; 5]; 2]) -> [State; 2] {
    clean();
    let (mut state_x, mut state_y) = (State::load(inner_x), State::load(inner_y));
    for at in 0..y.blocks.min(x.blocks) {
        state_x.update(x.block(at));
        state_y.update(y.block(at));
    }
    for at in y.blocks..x.blocks {
        state_x.update(x.block(at));
    }
    for at in x.blocks..y.blocks {
        state_y.update(y.block(at));
    }
    [state_x, state_y]
}

#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn one<const OPEN: bool>(burst: &mut [Desc<'_>], at: usize) -> u64 {
    let desc = &mut burst[at];
    let suite = desc.suite;
    let (Keys::AesCm(keys) | Keys::AesCmShort(keys)) = &suite.0 else { return 0 };
    let message = Message::new(&desc.packet[..desc.authenticated()], desc);
    clean();
    let mut state = State::load(&keys.inner);
    for block in 0..message.blocks {
        state.update(message.block(block));
    }
    settle_one::<OPEN>(desc, state.finish(&keys.outer)) << at
}

#[inline]
fn settle_one<const OPEN: bool>(desc: &mut Desc<'_>, digest: [u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = digest;
    settle::<OPEN>(desc, [a, b, c, d, e, f, g, h], [i, j, k, l])
}

/// Writes a tag, or compares it, without a branch on where they differ: 1 where they do. Of twelve octets it takes ten,
/// or four.
#[inline]
pub fn settle<const OPEN: bool>(desc: &mut Desc<'_>, first: [u8; 8], last: [u8; 4]) -> u64 {
    let at = desc.authenticated();
    debug_assert!(!desc.tag.is_gcm() && at + desc.tag.octets() == desc.packet.len());
    if desc.tag == Tag::HmacSha1_32 {
        return settle_short::<OPEN>(desc, at, first);
    }
    // SAFETY: a packet for AES-CM with tags of 80 bits ends with the ten octets of one, behind what it covers.
    let tag = unsafe { &mut *desc.packet.as_mut_ptr().add(at).cast::<[u8; 10]>() };
    let [l0, l1, _, _] = last;
    if OPEN {
        let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9] = *tag;
        let first = u64::from_ne_bytes(first) ^ u64::from_ne_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        let last = u16::from_ne_bytes([l0, l1]) ^ u16::from_ne_bytes([t8, t9]);
        u64::from(first | u64::from(last) != 0)
    } else {
        tag[..8].copy_from_slice(&first);
        tag[8..].copy_from_slice(&[l0, l1]);
        0
    }
}

/// The same with four octets, at `at`.
#[inline]
fn settle_short<const OPEN: bool>(desc: &mut Desc<'_>, at: usize, first: [u8; 8]) -> u64 {
    let [f0, f1, f2, f3, ..] = first;
    let Some(tag) = desc.packet.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) else { return 1 };
    if OPEN {
        u64::from(u32::from_ne_bytes(*tag) ^ u32::from_ne_bytes([f0, f1, f2, f3]) != 0)
    } else {
        *tag = [f0, f1, f2, f3];
        0
    }
}
