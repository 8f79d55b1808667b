//! HMAC-SHA1 of sixteen packets side by side: lane n of every register belongs to packet n.

use core::arch::x86_64::*;

use super::super::keys::CmKeys;
use super::super::shani::{blocks_of, packet_of, sha1::settle};
use super::super::{Desc, Keys};
use super::octets_of;

/// Packets side by side.
pub const LANES: usize = 16;

/// The end of a packet: what does not fill a block, the rollover counter, the padding.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tail([u8; 128]);

/// What is to be hashed in each lane.
struct Lanes {
    packets: [*const u8; LANES],
    /// Blocks that lie whole in the packet.
    whole: [usize; LANES],
    /// Blocks with those of the tail.
    blocks: [usize; LANES],
    keys: [*const CmKeys; LANES],
    tails: [Tail; LANES],
}

/// Writes the tags of 1 to 16 packets, or compares them: bit n set where packet n was refused.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi2")]
pub fn tags<const OPEN: bool>(burst: &mut [Desc<'_>], places: &[u32]) -> u64 {
    let mut lanes = Lanes {
        packets: [std::ptr::null(); LANES],
        whole: [0; LANES],
        blocks: [0; LANES],
        keys: [std::ptr::null(); LANES],
        tails: [Tail([0; 128]); LANES],
    };
    for (lane, place) in places.iter().enumerate().take(LANES) {
        let desc = &burst[packet_of(*place)];
        let (Keys::AesCm(keys) | Keys::AesCmShort(keys)) = &desc.suite.0 else { return 0 };
        lanes.set::<OPEN>(lane, blocks_of(*place), desc, keys);
    }
    // Idle lanes hash nothing, under the keys of the first.
    for lane in places.len()..LANES {
        lanes.keys[lane] = lanes.keys[0];
    }
    // SAFETY: all lanes have keys, and those with blocks have packets, which live in the burst and do not change.
    let tags = unsafe { lanes.hash() };
    let mut refused = 0;
    for (lane, place) in places.iter().enumerate().take(LANES) {
        let at = packet_of(*place);
        refused |= settle::<OPEN>(&mut burst[at], tags.first[PLACES[lane]], tags.last[lane]) << at;
    }
    refused
}

/// The first twelve octets of each lane's tag: eight, in the order of [`PLACES`], and four.
#[repr(C, align(64))]
struct Tags {
    first: [[u8; 8]; LANES],
    last: [[u8; 4]; LANES],
}

/// Where the words of a lane are when two rows of words have been interleaved within quarters of a register.
const PLACES: [usize; LANES] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];

impl Lanes {
    #[target_feature(enable = "avx512f,avx512bw,bmi2")]
    #[inline]
    fn set<const OPEN: bool>(&mut self, lane: usize, blocks: usize, desc: &Desc<'_>, keys: &CmKeys) {
        let octets = &desc.packet[..desc.authenticated()];
        let (whole, rest) = octets.as_chunks::<64>();
        self.packets[lane] = octets.as_ptr();
        self.whole[lane] = whole.len();
        self.blocks[lane] = blocks;
        self.keys[lane] = keys;
        let tail = &mut self.tails[lane].0;
        // SAFETY: the mask has a bit for each octet of `rest`; the tail has two blocks, aligned.
        unsafe {
            let octets = _mm512_maskz_loadu_epi8(octets_of(rest.len(), 0), rest.as_ptr().cast());
            _mm512_store_si512(tail.as_mut_ptr().cast(), octets);
        }
        let (behind, roc) = match desc.roc() {
            Some(roc) => (0x80 << 32 | u64::from(u32::from_le_bytes(roc)), 4),
            None => (0x80, 0),
        };
        tail[rest.len()..rest.len() + 8].copy_from_slice(&behind.to_le_bytes());
        let bits = 8 * (64 + octets.len() + roc) as u64;
        let end = 64 * (blocks - whole.len()).clamp(1, 2);
        tail[end - 8..end].copy_from_slice(&bits.to_be_bytes());
    }

    /// Block `at` of a lane; of one that has fewer, its tail.
    #[inline]
    fn block(&self, lane: usize, at: usize) -> *const u8 {
        let tail = self.tails[lane].0.as_ptr();
        if at < self.whole[lane] {
            self.packets[lane].wrapping_add(64 * at)
        } else {
            tail.wrapping_add(64 * (at - self.whole[lane]).min(1))
        }
    }

    /// The tags of all lanes.
    ///
    /// # Safety
    /// Every lane's keys can be read, and of its packet 64 * `whole` octets.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn hash(&self) -> Tags {
        // SAFETY: the keys begin with 64 octets of states, salt and tag.
        let rows = unsafe { transposed(self.keys.map(<*const CmKeys>::cast)) };
        let mut state = [rows[0], rows[1], rows[2], rows[3], rows[4]];
        let mut outer = [rows[5], rows[6], rows[7], rows[8], rows[9]];
        let swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
        let most = self.blocks.into_iter().max().unwrap_or(0);
        for at in 0..most {
            let mut active = 0;
            let mut octets = [std::ptr::null(); LANES];
            for (lane, octets) in octets.iter_mut().enumerate() {
                active |= u16::from(at < self.blocks[lane]) << lane;
                *octets = self.block(lane, at);
            }
            // SAFETY: each is a block of the packet or of the tail.
            let mut words = unsafe { transposed(octets) };
            for word in &mut words {
                *word = _mm512_shuffle_epi8(*word, swap);
            }
            compress::<true>(&mut state, words, active);
        }
        let zero = _mm512_setzero_si512();
        let mut words = [zero; LANES];
        words[..5].copy_from_slice(&state);
        words[5] = _mm512_set1_epi32(i32::MIN);
        words[15] = _mm512_set1_epi32(8 * (64 + 20));
        compress::<false>(&mut outer, words, u16::MAX);
        let [a, b, c] = [0, 1, 2].map(|at| _mm512_shuffle_epi8(outer[at], swap));
        let mut tags = Tags { first: [[0; 8]; LANES], last: [[0; 4]; LANES] };
        // SAFETY: two registers fit the one array, one fits the other.
        unsafe {
            let first = tags.first.as_mut_ptr().cast::<__m512i>();
            _mm512_storeu_si512(first, _mm512_unpacklo_epi32(a, b));
            _mm512_storeu_si512(first.add(1), _mm512_unpackhi_epi32(a, b));
            _mm512_storeu_si512(tags.last.as_mut_ptr().cast(), c);
        }
        tags
    }
}

/// Row n of the answer: dword n of the 64 octets at each address.
///
/// # Safety
/// 64 octets can be read at each address.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transposed(at: [*const u8; LANES]) -> [__m512i; LANES] {
    let mut rows = [_mm512_setzero_si512(); LANES];
    for (row, at) in rows.iter_mut().zip(at) {
        // SAFETY: the caller's promise; at any alignment.
        *row = unsafe { _mm512_loadu_si512(at.cast()) };
    }
    let mut pairs = rows;
    for n in 0..8 {
        pairs[2 * n] = _mm512_unpacklo_epi32(rows[2 * n], rows[2 * n + 1]);
        pairs[2 * n + 1] = _mm512_unpackhi_epi32(rows[2 * n], rows[2 * n + 1]);
    }
    let mut fours = pairs;
    for n in 0..4 {
        fours[4 * n] = _mm512_unpacklo_epi64(pairs[4 * n], pairs[4 * n + 2]);
        fours[4 * n + 1] = _mm512_unpackhi_epi64(pairs[4 * n], pairs[4 * n + 2]);
        fours[4 * n + 2] = _mm512_unpacklo_epi64(pairs[4 * n + 1], pairs[4 * n + 3]);
        fours[4 * n + 3] = _mm512_unpackhi_epi64(pairs[4 * n + 1], pairs[4 * n + 3]);
    }
    let mut out = fours;
    for n in 0..4 {
        // Column n, n + 4, n + 8 and n + 12 of four rows each.
        let even = _mm512_shuffle_i32x4::<0x88>(fours[n], fours[4 + n]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(fours[n], fours[4 + n]);
        let even_behind = _mm512_shuffle_i32x4::<0x88>(fours[8 + n], fours[12 + n]);
        let odd_behind = _mm512_shuffle_i32x4::<0xdd>(fours[8 + n], fours[12 + n]);
        out[n] = _mm512_shuffle_i32x4::<0x88>(even, even_behind);
        out[n + 8] = _mm512_shuffle_i32x4::<0xdd>(even, even_behind);
        out[n + 4] = _mm512_shuffle_i32x4::<0x88>(odd, odd_behind);
        out[n + 12] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_behind);
    }
    out
}

/// One round; the names of the words turn from one to the next.
macro_rules! round {
    ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:literal, $k:ident, $w:expr) => {
        $e = _mm512_add_epi32($e, _mm512_add_epi32($k, $w));
        $e = _mm512_add_epi32($e, _mm512_ternarylogic_epi32::<$f>($b, $c, $d));
        $e = _mm512_add_epi32($e, _mm512_rol_epi32::<5>($a));
        $b = _mm512_rol_epi32::<30>($b);
    };
}

/// The next word of the schedule, in the place of the one sixteen before.
macro_rules! word {
    ($w:ident, $t:literal) => {{
        let x = _mm512_ternarylogic_epi32::<0x96>($w[($t + 13) & 15], $w[($t + 8) & 15], $w[($t + 2) & 15]);
        $w[$t & 15] = _mm512_rol_epi32::<1>(_mm512_xor_si512(x, $w[$t & 15]));
        $w[$t & 15]
    }};
}

/// Five rounds, after which the names are where they were. `$get` says what word $t is.
macro_rules! five {
    ($get:ident, $w:ident, $f:literal, $k:ident, [$a:ident $b:ident $c:ident $d:ident $e:ident],
     $t0:literal $t1:literal $t2:literal $t3:literal $t4:literal) => {
        round!($a, $b, $c, $d, $e, $f, $k, $get!($w, $t0));
        round!($e, $a, $b, $c, $d, $f, $k, $get!($w, $t1));
        round!($d, $e, $a, $b, $c, $f, $k, $get!($w, $t2));
        round!($c, $d, $e, $a, $b, $f, $k, $get!($w, $t3));
        round!($b, $c, $d, $e, $a, $f, $k, $get!($w, $t4));
    };
}

macro_rules! given {
    ($w:ident, $t:literal) => {
        $w[$t]
    };
}

/// The compression function on sixteen lanes, of which those in `active` move; twice, so that both are inlined. All eighty rounds are written out: as a
/// loop they would go through memory.
#[target_feature(enable = "avx512f")]
#[inline]
fn compress<const INNER: bool>(state: &mut [__m512i; 5], words: [__m512i; LANES], active: u16) {
    let mut w = words;
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    let k = _mm512_set1_epi32(0x5a82_7999);
    five!(given, w, 0xca, k, [a b c d e], 0 1 2 3 4);
    five!(given, w, 0xca, k, [a b c d e], 5 6 7 8 9);
    five!(given, w, 0xca, k, [a b c d e], 10 11 12 13 14);
    round!(a, b, c, d, e, 0xca, k, w[15]);
    round!(e, a, b, c, d, 0xca, k, word!(w, 16));
    round!(d, e, a, b, c, 0xca, k, word!(w, 17));
    round!(c, d, e, a, b, 0xca, k, word!(w, 18));
    round!(b, c, d, e, a, 0xca, k, word!(w, 19));
    let k = _mm512_set1_epi32(0x6ed9_eba1);
    five!(word, w, 0x96, k, [a b c d e], 20 21 22 23 24);
    five!(word, w, 0x96, k, [a b c d e], 25 26 27 28 29);
    five!(word, w, 0x96, k, [a b c d e], 30 31 32 33 34);
    five!(word, w, 0x96, k, [a b c d e], 35 36 37 38 39);
    let k = _mm512_set1_epi32(0x8f1b_bcdc_u32.cast_signed());
    five!(word, w, 0xe8, k, [a b c d e], 40 41 42 43 44);
    five!(word, w, 0xe8, k, [a b c d e], 45 46 47 48 49);
    five!(word, w, 0xe8, k, [a b c d e], 50 51 52 53 54);
    five!(word, w, 0xe8, k, [a b c d e], 55 56 57 58 59);
    let k = _mm512_set1_epi32(0xca62_c1d6_u32.cast_signed());
    five!(word, w, 0x96, k, [a b c d e], 60 61 62 63 64);
    five!(word, w, 0x96, k, [a b c d e], 65 66 67 68 69);
    five!(word, w, 0x96, k, [a b c d e], 70 71 72 73 74);
    five!(word, w, 0x96, k, [a b c d e], 75 76 77 78 79);
    for (state, word) in state.iter_mut().zip([a, b, c, d, e]) {
        *state = _mm512_mask_add_epi32(*state, active, *state, word);
    }
}
