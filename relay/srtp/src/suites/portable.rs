//! The portable backend: ring for AES-GCM; RustCrypto's aes, ctr and the compression function of its sha1 for AES-CM
//! with HMAC-SHA1 (RFC 3711 sections 4.1.1 and 4.2.1). It is also what the other backends are compared with.

use std::mem::ManuallyDrop;

use aes::{Aes128Enc, Aes256Enc};
use ctr::cipher::{
    BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper,
};
use ctr::{CtrCore, flavors};
use ring::aead::{self, AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha1::block_api::compress;
use zeroize::Zeroize;

use super::{Burst, Desc, Keys, Kind, Refused, Tag, protect_one, unprotect_one};
use crate::KeyError;
use crate::rtcp::{CLEAR, INDEX_WORD};

/// Octets of a tag of GCM.
const GCM_TAG: usize = Tag::Gcm.octets();
/// Octets of the longest tag of AES-CM.
const CM_TAG: usize = Tag::HmacSha1_80.octets();

/// See the module.
pub struct Portable;

impl Burst for Portable {
    fn protect(self, burst: &mut [Desc<'_>], ahead: usize) -> u64 {
        run(burst, ahead, |desc| match &desc.suite.0 {
            Keys::PortableGcm(keys) => keys.seal(desc),
            Keys::PortableAesCm(keys) | Keys::PortableAesCmShort(keys) => keys.seal(desc),
            #[cfg(target_arch = "x86_64")]
            Keys::Gcm(_) | Keys::AesCm(_) | Keys::AesCmShort(_) => protect_one(desc.again()),
        })
    }

    fn unprotect(self, burst: &mut [Desc<'_>], ahead: usize) -> u64 {
        run(burst, ahead, |desc| match &desc.suite.0 {
            Keys::PortableGcm(keys) => keys.open(desc),
            Keys::PortableAesCm(keys) | Keys::PortableAesCmShort(keys) => keys.open(desc),
            #[cfg(target_arch = "x86_64")]
            Keys::Gcm(_) | Keys::AesCm(_) | Keys::AesCmShort(_) => unprotect_one(desc.again()),
        })
    }
}

fn run(burst: &mut [Desc<'_>], ahead: usize, one: impl Fn(&mut Desc<'_>) -> Result<(), Refused>) -> u64 {
    let mut refused = 0;
    for at in 0..burst.len() {
        if let Some(next) = burst.get(at.saturating_add(ahead)) {
            next.suite.prefetch_keys();
        }
        if let Some(desc) = burst.get_mut(at) {
            refused |= u64::from(one(desc).is_err()) << at;
        }
    }
    refused
}

impl Desc<'_> {
    /// The same once more, for another backend.
    pub(super) fn again(&mut self) -> Desc<'_> {
        Desc { packet: &mut *self.packet, ..*self }
    }
}

/// AES-GCM by ring.
pub struct Gcm {
    key: ManuallyDrop<LessSafeKey>,
    salt: [u8; 12],
}

impl Gcm {
    pub fn new(key: &[u8], salt: &[u8; 12]) -> Result<Self, KeyError> {
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return Err(KeyError),
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| KeyError)?;
        Ok(Self { key: ManuallyDrop::new(LessSafeKey::new(key)), salt: *salt })
    }

    fn nonce(&self, desc: &Desc<'_>) -> Nonce {
        let mut iv = self.salt;
        for (octet, from) in iv.iter_mut().zip(&desc.nonce().to_be_bytes()[4..]) {
            *octet ^= from;
        }
        Nonce::assume_unique_for_key(iv)
    }

    /// SRTCP's associated data: the clear header and the index word (RFC 7714 section 9.2).
    fn rtcp_aad(desc: &Desc<'_>) -> Result<[u8; CLEAR + INDEX_WORD], Refused> {
        let mut aad = [0; CLEAR + INDEX_WORD];
        aad[..CLEAR].copy_from_slice(desc.packet.get(..CLEAR).ok_or(Refused)?);
        aad[CLEAR..].copy_from_slice(&desc.word());
        Ok(aad)
    }

    fn seal(&self, desc: &mut Desc<'_>) -> Result<(), Refused> {
        let (nonce, from, to) = (self.nonce(desc), desc.from(), desc.to());
        let rtcp = Self::rtcp_aad(desc);
        let (body, rest) = desc.packet.split_at_mut_checked(to).ok_or(Refused)?;
        let (header, payload) = body.split_at_mut_checked(from).ok_or(Refused)?;
        let sealed = match desc.kind {
            Kind::Rtp => self.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload),
            Kind::Rtcp => self.key.seal_in_place_separate_tag(nonce, Aad::from(rtcp?), payload),
        };
        let tag = sealed.map_err(|_| Refused)?;
        rest.get_mut(..GCM_TAG).ok_or(Refused)?.copy_from_slice(tag.as_ref());
        Ok(())
    }

    fn open(&self, desc: &mut Desc<'_>) -> Result<(), Refused> {
        let (nonce, from, to) = (self.nonce(desc), desc.from(), desc.to());
        let rtcp = Self::rtcp_aad(desc);
        let (body, rest) = desc.packet.split_at_mut_checked(to).ok_or(Refused)?;
        let (header, payload) = body.split_at_mut_checked(from).ok_or(Refused)?;
        let tag = aead::Tag::from(*rest.first_chunk::<GCM_TAG>().ok_or(Refused)?);
        let opened = match desc.kind {
            Kind::Rtp => self.key.open_in_place_separate_tag(nonce, Aad::from(&*header), tag, payload, 0..),
            Kind::Rtcp => self.key.open_in_place_separate_tag(nonce, Aad::from(rtcp?), tag, payload, 0..),
        };
        opened.map(|_| ()).map_err(|_| Refused)
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        const { assert!(!std::mem::needs_drop::<LessSafeKey>()) };
        let octets = std::ptr::from_mut(&mut self.key).cast::<u8>();
        for at in 0..size_of::<LessSafeKey>() {
            // SAFETY: the octets lie in the key, which is borrowed uniquely, needs no drop (asserted above) and is
            // neither used nor dropped behind this.
            unsafe { octets.add(at).write_volatile(0) };
        }
        self.salt.zeroize();
    }
}

enum Cipher {
    Aes128(Aes128Enc),
    Aes256(Aes256Enc),
}

/// AES-CM with HMAC-SHA1: the HMAC states are keyed once.
pub struct AesCm {
    cipher: Cipher,
    inner: [u32; 5],
    outer: [u32; 5],
    salt: [u8; 14],
}

impl AesCm {
    pub fn new(key: &[u8], mac: &[u8; 20], salt: &[u8; 14]) -> Result<Self, KeyError> {
        let cipher = match key.len() {
            16 => Cipher::Aes128(Aes128Enc::new_from_slice(key).map_err(|_| KeyError)?),
            32 => Cipher::Aes256(Aes256Enc::new_from_slice(key).map_err(|_| KeyError)?),
            _ => return Err(KeyError),
        };
        let [inner, outer] = hmac_states(mac);
        Ok(Self { cipher, inner, outer, salt: *salt })
    }

    /// IV = salt * 2^16 xor SSRC * 2^64 xor index * 2^16 (section 4.1.1).
    fn crypt(&self, desc: &mut Desc<'_>) -> Result<(), Refused> {
        let mut iv = (desc.nonce() << 16).to_be_bytes();
        for (octet, salt) in iv.iter_mut().zip(self.salt) {
            *octet ^= salt;
        }
        let (from, to) = (desc.from(), desc.to());
        let bytes = desc.packet.get_mut(from..to).ok_or(Refused)?;
        match &self.cipher {
            Cipher::Aes128(cipher) => keystream(cipher, iv, bytes),
            Cipher::Aes256(cipher) => keystream(cipher, iv, bytes),
        }
    }

    /// The longest tag; a shorter one is its beginning.
    fn tag(&self, desc: &Desc<'_>) -> Result<[u8; CM_TAG], Refused> {
        let body = desc.packet.get(..desc.authenticated()).ok_or(Refused)?;
        let (blocks, rest) = body.as_chunks::<64>();
        let mut state = self.inner;
        compress(&mut state, blocks);
        let mut tail = [0; 128];
        tail[..rest.len()].copy_from_slice(rest);
        let mut end = rest.len();
        if let Some(roc) = desc.roc() {
            tail[end..end + 4].copy_from_slice(&roc);
            end += 4;
        }
        tail[end] = 0x80;
        let bits = 8 * (64 + body.len() - rest.len() + end) as u64;
        let length = if end + 9 <= 64 { 64 } else { 128 };
        tail[length - 8..length].copy_from_slice(&bits.to_be_bytes());
        compress(&mut state, tail[..length].as_chunks().0);
        let mut outer = self.outer;
        compress(&mut outer, &[outer_block(state)]);
        let mut tag = [0; CM_TAG];
        for (octets, word) in tag.chunks_mut(4).zip(outer) {
            octets.copy_from_slice(&word.to_be_bytes()[..octets.len()]);
        }
        Ok(tag)
    }

    fn seal(&self, desc: &mut Desc<'_>) -> Result<(), Refused> {
        self.crypt(desc)?;
        let tag = self.tag(desc)?;
        let at = desc.authenticated();
        for (octet, tag) in desc.packet.get_mut(at..).ok_or(Refused)?.iter_mut().zip(tag) {
            *octet = tag;
        }
        Ok(())
    }

    fn open(&self, desc: &mut Desc<'_>) -> Result<(), Refused> {
        let sent = desc.packet.get(desc.authenticated()..).filter(|sent| sent.len() == desc.tag.octets());
        let mut differ = 0;
        for (octet, sent) in self.tag(desc)?.iter().zip(sent.ok_or(Refused)?) {
            differ |= octet ^ sent;
        }
        if std::hint::black_box(differ) != 0 {
            return Err(Refused);
        }
        self.crypt(desc)
    }
}

impl Drop for AesCm {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
        self.salt.zeroize();
    }
}

fn keystream<C>(cipher: &C, iv: [u8; 16], bytes: &mut [u8]) -> Result<(), Refused>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = ctr::cipher::consts::U16>,
{
    let core = CtrCore::<&C, flavors::Ctr128BE>::inner_iv_init(cipher, &iv.into());
    StreamCipherCoreWrapper::from_core(core).try_apply_keystream(bytes).map_err(|_| Refused)
}

/// The states of SHA-1 behind the inner and the outer key block of HMAC.
pub fn hmac_states(key: &[u8; 20]) -> [[u32; 5]; 2] {
    [0x36, 0x5c].map(|pad| {
        let mut block = [[pad; 64]];
        for (octet, key) in block[0].iter_mut().zip(key) {
            *octet ^= key;
        }
        let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        compress(&mut state, &block);
        block.zeroize();
        state
    })
}

/// The one block that the outer hash takes behind its key: the inner digest and padding to 64 + 20 octets.
fn outer_block(digest: [u32; 5]) -> [u8; 64] {
    let mut block = [0; 64];
    for (octets, word) in block.chunks_mut(4).zip(digest) {
        octets.copy_from_slice(&word.to_be_bytes());
    }
    block[20] = 0x80;
    block[56..].copy_from_slice(&(8 * (64 + 20) as u64).to_be_bytes());
    block
}
