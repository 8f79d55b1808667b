//! The crypto suites: bursts of packets sealed and opened in place, by one of three backends.
//!
//! A [`Suite`] holds the session keys of one context in the form that its backend wants, inline and at most 512 octets
//! long. A [`Desc`] says what is to be done to one packet under it; [`protect`] and [`unprotect`] take a slice of them,
//! mixed as they come.
//!
//! | [`Backend`] | AEAD_AES_GCM | AES_CM_HMAC_SHA1_80 and _32 |
//! |---|---|---|
//! | `Portable` | ring | RustCrypto's aes and the compression function of its sha1, from keyed states |
//! | `Shani` | AES-NI and PCLMULQDQ | AES-NI, SHA-NI with two packets interleaved |
//! | `Avx512` | VAES and VPCLMULQDQ, one fused pass a packet | VAES, SHA-1 of sixteen packets side by side |
//!
//! No branch and no address depends on a key, on plain text or on where a tag differs. Keys are wiped on drop. Unsafe
//! code is here only; it rests on two promises: a `Desc` keeps its offsets inside its packet (they are checked when it
//! is made), and a suite for a backend exists only where [`Backend::is_supported`].

#[cfg(target_arch = "x86_64")]
mod avx512;
mod batch;
#[cfg(target_arch = "x86_64")]
mod keys;
mod portable;
mod select;
mod session;
#[cfg(target_arch = "x86_64")]
mod shani;
#[cfg(test)]
pub(crate) mod vectors;

use crate::KeyError;
use crate::rtcp::{CLEAR, ENCRYPTED, INDEX_WORD};

pub use batch::Batch;
pub use select::{Backend, Selection, Unsupported, force, selected, self_test};
pub(crate) use session::RtcpSuite;

/// The tag is wrong, or the packet does not fit the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// Packets of a burst at the most: one bit each in the mask that comes back.
pub const BURST: usize = 64;

/// How many packets ahead of the one at work keys are fetched into the cache.
pub const AHEAD: usize = 4;

/// Octets of keystream under one index of AES_CM: behind 2^16 blocks the counter would run into the next index (RFC 3711
/// section 4.1.1).
const STREAM_MAX: usize = 16 << 16;

/// Octets of a packet at the most, far more than UDP carries: offsets are kept in 32 bits, numbers of blocks in 24.
const PACKET_MAX: usize = 1 << 24;

/// Session keys of one context, inline.
pub struct Suite(Keys);

enum Keys {
    #[cfg(target_arch = "x86_64")]
    Gcm(keys::GcmKeys),
    #[cfg(target_arch = "x86_64")]
    AesCm(keys::CmKeys),
    /// With tags of 32 bits: said here, where the line is that tells the suites apart.
    #[cfg(target_arch = "x86_64")]
    AesCmShort(keys::CmKeys),
    /// ring's key is longer than 512 octets.
    PortableGcm(Box<portable::Gcm>),
    PortableAesCm(portable::AesCm),
    PortableAesCmShort(portable::AesCm),
}

/// Tags, by their octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// HMAC-SHA1 cut to 32 bits, of SRTP only.
    HmacSha1_32 = 4,
    /// HMAC-SHA1 cut to 80 bits.
    HmacSha1_80 = 10,
    /// That of GCM.
    Gcm = 16,
}

impl Tag {
    /// Octets.
    #[inline]
    pub const fn octets(self) -> usize {
        self as usize
    }

    const fn is_gcm(self) -> bool {
        matches!(self, Self::Gcm)
    }

    /// Whether a packet of this length, clear up to `header`, can be sealed (the tag not being there yet).
    #[inline]
    pub(crate) const fn takes(self, header: usize, length: usize) -> bool {
        length < PACKET_MAX - 64 && fits(self, length, header, length)
    }

    /// Where the index word lies in an SRTCP packet of `length` octets: behind the tag with GCM, before it with AES-CM.
    #[inline]
    pub(crate) const fn rtcp_index_at(self, length: usize) -> Option<usize> {
        let behind = if self.is_gcm() { 0 } else { self.octets() };
        length.checked_sub(behind + INDEX_WORD)
    }
}

/// Key block: the tag of the enumeration hides in it.
const _: () = assert!(size_of::<Suite>() <= 512);

impl Suite {
    /// AEAD_AES_128_GCM or AEAD_AES_256_GCM (RFC 7714), by the length of the session key.
    ///
    /// # Errors
    /// [`KeyError`] where the key has neither 16 nor 32 octets, or the machine lacks what the backend needs.
    pub fn gcm(backend: Backend, key: &[u8], salt: &[u8; 12]) -> Result<Self, KeyError> {
        Ok(Self(match backend {
            Backend::Portable => Keys::PortableGcm(Box::new(portable::Gcm::new(key, salt)?)),
            #[cfg(target_arch = "x86_64")]
            Backend::Shani | Backend::Avx512 => Keys::Gcm(keys::GcmKeys::new(backend, key, salt)?),
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Shani | Backend::Avx512 => return Err(KeyError),
        }))
    }

    /// AES_CM_128_HMAC_SHA1_80 (RFC 3711) or AES_256_CM_HMAC_SHA1_80 (RFC 6188), by the length of the session key.
    ///
    /// # Errors
    /// [`KeyError`] where the key has neither 16 nor 32 octets, or the machine lacks what the backend needs.
    pub fn aes_cm(backend: Backend, key: &[u8], mac: &[u8; 20], salt: &[u8; 14]) -> Result<Self, KeyError> {
        Ok(Self(match backend {
            Backend::Portable => Keys::PortableAesCm(portable::AesCm::new(key, mac, salt)?),
            #[cfg(target_arch = "x86_64")]
            Backend::Shani | Backend::Avx512 => Keys::AesCm(keys::CmKeys::new(backend, key, mac, salt)?),
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Shani | Backend::Avx512 => return Err(KeyError),
        }))
    }

    /// AES_CM_128_HMAC_SHA1_32 or AES_256_CM_HMAC_SHA1_32, for SRTP: their SRTCP is that of [`Suite::aes_cm`].
    ///
    /// # Errors
    /// As [`Suite::aes_cm`].
    pub fn aes_cm_short(
        backend: Backend,
        key: &[u8],
        mac: &[u8; 20],
        salt: &[u8; 14],
    ) -> Result<Self, KeyError> {
        Ok(Self(match backend {
            Backend::Portable => Keys::PortableAesCmShort(portable::AesCm::new(key, mac, salt)?),
            #[cfg(target_arch = "x86_64")]
            Backend::Shani | Backend::Avx512 => Keys::AesCmShort(keys::CmKeys::new(backend, key, mac, salt)?),
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Shani | Backend::Avx512 => return Err(KeyError),
        }))
    }

    /// The backend that the keys are for.
    pub const fn backend(&self) -> Backend {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Keys::Gcm(keys) => keys.backend(),
            #[cfg(target_arch = "x86_64")]
            Keys::AesCm(keys) | Keys::AesCmShort(keys) => keys.backend(),
            Keys::PortableGcm(_) | Keys::PortableAesCm(_) | Keys::PortableAesCmShort(_) => Backend::Portable,
        }
    }

    /// What its packets end with.
    #[inline]
    pub const fn tag(&self) -> Tag {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Keys::Gcm(_) => Tag::Gcm,
            #[cfg(target_arch = "x86_64")]
            Keys::AesCm(_) => Tag::HmacSha1_80,
            #[cfg(target_arch = "x86_64")]
            Keys::AesCmShort(_) => Tag::HmacSha1_32,
            Keys::PortableGcm(_) => Tag::Gcm,
            Keys::PortableAesCm(_) => Tag::HmacSha1_80,
            Keys::PortableAesCmShort(_) => Tag::HmacSha1_32,
        }
    }

    /// Fetches the keys of the portable backend into the cache. A hint.
    fn prefetch_keys(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            let (from, octets) = match &self.0 {
                Keys::PortableGcm(keys) => {
                    (std::ptr::from_ref(&**keys).cast::<u8>(), size_of::<portable::Gcm>())
                }
                Keys::PortableAesCm(keys) | Keys::PortableAesCmShort(keys) => {
                    (std::ptr::from_ref(keys).cast(), size_of::<portable::AesCm>())
                }
                Keys::Gcm(_) | Keys::AesCm(_) | Keys::AesCmShort(_) => return,
            };
            for line in (0..octets).step_by(64) {
                shani::prefetch_line(from.wrapping_add(line));
            }
        }
    }

    /// Fetches the line into the cache that making a descriptor will read. A hint.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        shani::prefetch_line(std::ptr::from_ref(self).cast::<u8>().wrapping_add(size_of::<Self>() - 1));
    }

    /// Octets of a tag.
    #[inline]
    pub const fn tag_len(&self) -> usize {
        self.tag().octets()
    }
}

/// Fetches the line into the cache that something begins in. A hint.
#[inline]
pub(crate) fn prefetch_start<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    shani::prefetch_line(std::ptr::from_ref(what).cast());
    let _ = what;
}

/// Fetches all of something into the cache. A hint.
#[inline]
pub fn prefetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of::<T>()).step_by(64) {
        shani::prefetch_line(std::ptr::from_ref(what).cast::<u8>().wrapping_add(line));
    }
    let _ = what;
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rtp,
    Rtcp,
}

/// One packet of a burst and what is known of it.
///
/// ```text
///   RTP          | header (clear) | payload |                tag |
///   RTCP, GCM    | eight octets   | reports | tag | index word   |
///   RTCP, AES-CM | eight octets   | reports | index word | tag   |
///                0              from       to                    packet.len()
/// ```
pub struct Desc<'a> {
    suite: &'a Suite,
    packet: &'a mut [u8],
    from: u32,
    to: u32,
    ssrc: u32,
    kind: Kind,
    tag: Tag,
    index: u64,
}

impl<'a> Desc<'a> {
    /// An RTP packet, clear up to `header`, with the tag (or room for it) in its last [`Suite::tag_len`] octets.
    ///
    /// # Errors
    /// [`Refused`] where the lengths do not fit, or there is more to encrypt than one index allows.
    #[inline]
    pub fn rtp(
        suite: &'a Suite,
        packet: &'a mut [u8],
        header: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<Self, Refused> {
        let tag = suite.tag();
        let to = packet.len().wrapping_sub(tag.octets());
        if !fits(tag, packet.len(), header, to) {
            return Err(Refused);
        }
        Ok(Self { suite, packet, from: header as u32, to: to as u32, ssrc, kind: Kind::Rtp, tag, index })
    }

    /// An RTCP compound to be sealed, with room for tag and index word, which it writes.
    ///
    /// # Errors
    /// As [`Desc::rtp`].
    pub fn sealing_rtcp(
        suite: &'a Suite,
        packet: &'a mut [u8],
        ssrc: u32,
        index: u32,
    ) -> Result<Self, Refused> {
        let at = suite.tag().rtcp_index_at(packet.len()).ok_or(Refused)?;
        let desc = Self::opening_rtcp(suite, packet, ssrc, index)?;
        let word = desc.packet.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(Refused)?;
        *word = (index | ENCRYPTED).to_be_bytes();
        Ok(desc)
    }

    /// An SRTCP packet to be opened, whose index word says `index`.
    ///
    /// # Errors
    /// As [`Desc::rtp`].
    pub fn opening_rtcp(
        suite: &'a Suite,
        packet: &'a mut [u8],
        ssrc: u32,
        index: u32,
    ) -> Result<Self, Refused> {
        let tag = suite.tag();
        let to = packet.len().wrapping_sub(tag.octets() + INDEX_WORD);
        if !fits(tag, packet.len(), CLEAR, to) {
            return Err(Refused);
        }
        let (from, to, index) = (CLEAR as u32, to as u32, u64::from(index));
        Ok(Self { suite, packet, from, to, ssrc, kind: Kind::Rtcp, tag, index })
    }

    const fn from(&self) -> usize {
        self.from as usize
    }

    const fn to(&self) -> usize {
        self.to as usize
    }

    /// SRTCP's index word.
    const fn word(&self) -> [u8; INDEX_WORD] {
        (self.index as u32 | ENCRYPTED).to_be_bytes()
    }

    /// SSRC and index as they stand in the first twelve octets of GCM's nonce, before the salt (RFC 7714 sections 8.1
    /// and 9.1): a number of 96 bits.
    const fn nonce(&self) -> u128 {
        (self.ssrc as u128) << 48 | (self.index & 0xffff_ffff_ffff) as u128
    }

    /// How many octets the tag of AES-CM covers; behind them RTP has the rollover counter, which is not sent.
    const fn authenticated(&self) -> usize {
        match self.kind {
            Kind::Rtp => self.to(),
            Kind::Rtcp => self.to() + INDEX_WORD,
        }
    }

    /// The rollover counter.
    const fn roc(&self) -> Option<[u8; 4]> {
        match self.kind {
            Kind::Rtp => Some(((self.index >> 16) as u32).to_be_bytes()),
            Kind::Rtcp => None,
        }
    }
}

/// The unsafe code of the backends counts on it: `from <= to`, and `to` lies within the packet by what the kind has behind
/// it, that difference having been taken without a check before.
#[inline]
const fn fits(tag: Tag, length: usize, from: usize, to: usize) -> bool {
    length <= PACKET_MAX && to <= length && from <= to && (tag.is_gcm() || to - from <= STREAM_MAX)
}

/// What a backend does to a burst of at most [`BURST`] packets. Bit n of the answer: packet n was refused.
trait Burst {
    /// Encrypts and writes tags.
    fn protect(self, burst: &mut [Desc<'_>], ahead: usize) -> u64;

    /// Verifies and decrypts.
    fn unprotect(self, burst: &mut [Desc<'_>], ahead: usize) -> u64;
}

/// Encrypts packets in place and writes their tags. Bit n of the answer: packet n was refused; it is as before but for
/// the octets of its tag. A burst of more than [`BURST`] is refused as a whole.
#[must_use]
pub fn protect(burst: &mut [Desc<'_>]) -> u64 {
    protect_ahead(burst, AHEAD)
}

/// Verifies the tags of packets and decrypts them in place. Bit n of the answer: the tag of packet n is wrong; with GCM
/// what was encrypted is undefined then (verifying and decrypting is one pass), with AES-CM it is as before. A burst of
/// more than [`BURST`] is refused as a whole.
#[must_use]
pub fn unprotect(burst: &mut [Desc<'_>]) -> u64 {
    unprotect_ahead(burst, AHEAD)
}

/// [`protect`], with keys fetched into the cache `ahead` packets early; `usize::MAX` for not at all.
#[doc(hidden)]
#[must_use]
pub fn protect_ahead(burst: &mut [Desc<'_>], ahead: usize) -> u64 {
    match backend_of(burst) {
        Some(Backend::Portable) => portable::Portable.protect(burst, ahead),
        #[cfg(target_arch = "x86_64")]
        Some(Backend::Shani) => shani::Shani.protect(burst, ahead),
        #[cfg(target_arch = "x86_64")]
        Some(Backend::Avx512) => avx512::Avx512.protect(burst, ahead),
        #[cfg(not(target_arch = "x86_64"))]
        Some(Backend::Shani | Backend::Avx512) => u64::MAX,
        None if burst.is_empty() => 0,
        None => u64::MAX,
    }
}

/// [`unprotect`], with keys fetched into the cache `ahead` packets early; `usize::MAX` for not at all.
#[doc(hidden)]
#[must_use]
pub fn unprotect_ahead(burst: &mut [Desc<'_>], ahead: usize) -> u64 {
    match backend_of(burst) {
        Some(Backend::Portable) => portable::Portable.unprotect(burst, ahead),
        #[cfg(target_arch = "x86_64")]
        Some(Backend::Shani) => shani::Shani.unprotect(burst, ahead),
        #[cfg(target_arch = "x86_64")]
        Some(Backend::Avx512) => avx512::Avx512.unprotect(burst, ahead),
        #[cfg(not(target_arch = "x86_64"))]
        Some(Backend::Shani | Backend::Avx512) => u64::MAX,
        None if burst.is_empty() => 0,
        None => u64::MAX,
    }
}

/// The backend of a burst is that of its first packet: both SIMD backends have the same keys, and none minds single
/// packets of another.
fn backend_of(burst: &[Desc<'_>]) -> Option<Backend> {
    burst.first().filter(|_| burst.len() <= BURST).map(|first| first.suite.backend())
}

/// Encrypts one packet. When refused, the octets before its tag are as before.
pub(crate) fn protect_one(desc: Desc<'_>) -> Result<(), Refused> {
    if protect(&mut [desc]) == 0 { Ok(()) } else { Err(Refused) }
}

/// Verifies and decrypts one packet.
pub(crate) fn unprotect_one(desc: Desc<'_>) -> Result<(), Refused> {
    if unprotect(&mut [desc]) == 0 { Ok(()) } else { Err(Refused) }
}
