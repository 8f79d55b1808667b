//! AEAD_AES_128_GCM (RFC 7714), by ring.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::Refused;
use crate::KeyError;
use crate::rtcp::{CLEAR, ENCRYPTED, INDEX_WORD};

/// Octets of a tag.
pub const TAG: usize = 16;
/// Octets of the associated data of SRTCP: the clear header and the index word (section 9.2).
const RTCP_AAD: usize = CLEAR + INDEX_WORD;

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

    pub fn seal_rtp(&self, packet: &mut [u8], header: usize, ssrc: u32, index: u64) -> Result<(), Refused> {
        let (body, tag) = packet.split_last_chunk_mut::<TAG>().ok_or(Refused)?;
        let (header, payload) = body.split_at_mut_checked(header).ok_or(Refused)?;
        let nonce = self.nonce(ssrc, index);
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
        tag.copy_from_slice(sealed.map_err(|_| Refused)?.as_ref());
        Ok(())
    }

    pub fn open_rtp(&self, packet: &mut [u8], header: usize, ssrc: u32, index: u64) -> Result<(), Refused> {
        let (header, sealed) = packet.split_at_mut_checked(header).ok_or(Refused)?;
        let opened = self.key.open_in_place(self.nonce(ssrc, index), Aad::from(&*header), sealed);
        opened.map(|_| ()).map_err(|_| Refused)
    }

    fn rtcp_aad(header: &[u8], index: u32) -> Result<[u8; RTCP_AAD], Refused> {
        let mut aad = [0; RTCP_AAD];
        aad[..CLEAR].copy_from_slice(header.get(..CLEAR).ok_or(Refused)?);
        aad[CLEAR..].copy_from_slice(&(index | ENCRYPTED).to_be_bytes());
        Ok(aad)
    }

    pub fn seal_rtcp(&self, packet: &mut [u8], length: usize, ssrc: u32, index: u32) -> Result<(), Refused> {
        let aad = Self::rtcp_aad(packet, index)?;
        let (compound, rest) = packet.split_at_mut_checked(length).ok_or(Refused)?;
        let payload = compound.get_mut(CLEAR..).ok_or(Refused)?;
        let nonce = self.nonce(ssrc, u64::from(index));
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), payload).map_err(|_| Refused)?;
        rest.get_mut(..TAG).ok_or(Refused)?.copy_from_slice(tag.as_ref());
        rest.get_mut(TAG..).ok_or(Refused)?.copy_from_slice(&(index | ENCRYPTED).to_be_bytes());
        Ok(())
    }

    pub fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<(), Refused> {
        let aad = Self::rtcp_aad(packet, index)?;
        let end = packet.len().checked_sub(INDEX_WORD).ok_or(Refused)?;
        let sealed = packet.get_mut(CLEAR..end).ok_or(Refused)?;
        let opened = self.key.open_in_place(self.nonce(ssrc, u64::from(index)), Aad::from(aad), sealed);
        opened.map(|_| ()).map_err(|_| Refused)
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suites::tests::hex;

    /// Session key and salt of RFC 7714 sections 16 and 17.
    fn suite() -> Gcm {
        let key = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0fu128.to_be_bytes();
        Gcm::new(&key, b"Quid pro quo").unwrap()
    }

    /// Section 16.1: SSRC, ROC 0 and sequence number as in the packet.
    #[test]
    fn srtp_matches_the_rfc() {
        let plain = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 \
                         69736120 696e2070 61727465 73207472 6573");
        let sealed = hex("8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 \
                          0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce");
        let mut packet = plain.clone();
        packet.resize(plain.len() + TAG, 0);
        suite().seal_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap();
        assert_eq!(packet, sealed);
        suite().open_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap();
        assert_eq!(packet[..plain.len()], plain);
    }

    /// Section 17.1: index 0x5d4, encrypted.
    #[test]
    fn srtcp_matches_the_rfc() {
        let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 \
                         deadbeef deadbeef deadbeef deadbeef deadbeef");
        let sealed = hex("81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d \
                          c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4");
        let mut packet = plain.clone();
        packet.resize(plain.len() + TAG + INDEX_WORD, 0);
        suite().seal_rtcp(&mut packet, plain.len(), 0x4d61_7273, 0x5d4).unwrap();
        assert_eq!(packet, sealed);
        suite().open_rtcp(&mut packet, 0x4d61_7273, 0x5d4).unwrap();
        assert_eq!(packet[..plain.len()], plain);
    }

    /// Section 17.3: authenticated, not encrypted. The tag covers the E bit, so it cannot be set by force.
    #[test]
    fn an_authenticated_compound_is_no_encrypted_one() {
        let mut packet = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 \
                              deadbeef deadbeef deadbeef deadbeef deadbeef 841dd968 3dd78ec9 2ae58790 125f62b3 800005d4");
        assert_eq!(suite().open_rtcp(&mut packet, 0x4d61_7273, 0x5d4), Err(Refused));
    }
}
