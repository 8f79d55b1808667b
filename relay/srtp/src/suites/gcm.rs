//! AEAD_AES_128_GCM (RFC 7714), by ring.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{BadTag, ENCRYPTED, RTCP_CLEAR};
use crate::KeyError;

/// Octets of a tag.
pub const TAG: usize = 16;
/// Octets of the associated data of SRTCP: the clear header and the index word (section 9.2).
const RTCP_AAD: usize = RTCP_CLEAR + 4;

/// Session key and salt.
pub struct Gcm {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Gcm {
    pub fn new(key: &[u8; 16], salt: &[u8; 12]) -> Result<Self, KeyError> {
        let key = UnboundKey::new(&AES_128_GCM, key).map_err(|_| KeyError)?;
        Ok(Self { key: LessSafeKey::new(key), salt: *salt })
    }

    /// IV = salt xor (0 | SSRC | index in 48 bits), section 8.1; for SRTCP the index has 32 bits, section 9.1.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut iv = self.salt;
        for (octet, from) in iv[2..6].iter_mut().zip(ssrc.to_be_bytes()) {
            *octet ^= from;
        }
        for (octet, from) in iv[6..12].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *octet ^= from;
        }
        Nonce::assume_unique_for_key(iv)
    }

    pub fn seal_rtp(&self, packet: &mut [u8], header: usize, ssrc: u32, index: u64) -> Result<(), BadTag> {
        let (body, tag) = packet.split_last_chunk_mut::<TAG>().ok_or(BadTag)?;
        let (header, payload) = body.split_at_mut_checked(header).ok_or(BadTag)?;
        let nonce = self.nonce(ssrc, index);
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
        tag.copy_from_slice(sealed.map_err(|_| BadTag)?.as_ref());
        Ok(())
    }

    pub fn open_rtp(&self, packet: &mut [u8], header: usize, ssrc: u32, index: u64) -> Result<(), BadTag> {
        let (header, sealed) = packet.split_at_mut_checked(header).ok_or(BadTag)?;
        let opened = self.key.open_in_place(self.nonce(ssrc, index), Aad::from(&*header), sealed);
        opened.map(|_| ()).map_err(|_| BadTag)
    }

    fn rtcp_aad(header: &[u8], index: u32) -> Result<[u8; RTCP_AAD], BadTag> {
        let mut aad = [0; RTCP_AAD];
        aad[..RTCP_CLEAR].copy_from_slice(header.get(..RTCP_CLEAR).ok_or(BadTag)?);
        aad[RTCP_CLEAR..].copy_from_slice(&(index | ENCRYPTED).to_be_bytes());
        Ok(aad)
    }

    pub fn seal_rtcp(&self, packet: &mut [u8], length: usize, ssrc: u32, index: u32) -> Result<(), BadTag> {
        let aad = Self::rtcp_aad(packet, index)?;
        let (compound, rest) = packet.split_at_mut_checked(length).ok_or(BadTag)?;
        let payload = compound.get_mut(RTCP_CLEAR..).ok_or(BadTag)?;
        let nonce = self.nonce(ssrc, u64::from(index));
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), payload).map_err(|_| BadTag)?;
        rest.get_mut(..TAG).ok_or(BadTag)?.copy_from_slice(tag.as_ref());
        rest.get_mut(TAG..).ok_or(BadTag)?.copy_from_slice(&(index | ENCRYPTED).to_be_bytes());
        Ok(())
    }

    pub fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<(), BadTag> {
        let aad = Self::rtcp_aad(packet, index)?;
        let end = packet.len().checked_sub(4).ok_or(BadTag)?;
        let sealed = packet.get_mut(RTCP_CLEAR..end).ok_or(BadTag)?;
        let opened = self.key.open_in_place(self.nonce(ssrc, u64::from(index)), Aad::from(aad), sealed);
        opened.map(|_| ()).map_err(|_| BadTag)
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}
