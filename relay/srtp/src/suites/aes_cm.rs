//! AES_CM_128_HMAC_SHA1_80 (RFC 3711 sections 4.1.1 and 4.2.1), by RustCrypto.

use aes::Aes128Enc;
use ctr::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::{CtrCore, flavors};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::Refused;
use crate::KeyError;
use crate::rtcp::{CLEAR, ENCRYPTED, INDEX_WORD};

/// Octets of a tag: 80 bits.
pub const TAG: usize = 10;

/// Octets of keystream under one index: behind 2^16 blocks the counter would run into the next index (section 4.1.1).
const STREAM_MAX: usize = 16 << 16;

/// Session keys, with the HMAC state keyed once.
pub struct AesCm {
    cipher: Aes128Enc,
    mac: Hmac<Sha1>,
    salt: [u8; 14],
}

impl AesCm {
    pub fn new(key: &[u8; 16], mac: &[u8; 20], salt: &[u8; 14]) -> Result<Self, KeyError> {
        let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(mac).map_err(|_| KeyError)?;
        Ok(Self { cipher: Aes128Enc::new(key.into()), mac, salt: *salt })
    }

    /// IV = salt * 2^16 xor SSRC * 2^64 xor index * 2^16 (section 4.1.1).
    fn crypt(&self, ssrc: u32, index: u64, bytes: &mut [u8]) -> Result<(), Refused> {
        if bytes.len() > STREAM_MAX {
            return Err(Refused);
        }
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        for (octet, from) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *octet ^= from;
        }
        for (octet, from) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *octet ^= from;
        }
        let core = CtrCore::<&Aes128Enc, flavors::Ctr128BE>::inner_iv_init(&self.cipher, &iv.into());
        let mut stream = StreamCipherCoreWrapper::from_core(core);
        stream.try_apply_keystream(bytes).map_err(|_| Refused)
    }

    fn tag(&self, authenticated: &[u8], roc: Option<u32>) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        mac.update(authenticated);
        if let Some(roc) = roc {
            mac.update(&roc.to_be_bytes());
        }
        mac
    }

    pub fn seal_rtp(&self, packet: &mut [u8], header: usize, ssrc: u32, index: u64) -> Result<(), Refused> {
        let (body, tag) = packet.split_last_chunk_mut::<TAG>().ok_or(Refused)?;
        self.crypt(ssrc, index, body.get_mut(header..).ok_or(Refused)?)?;
        let mac = self.tag(body, Some((index >> 16) as u32)).finalize().into_bytes();
        tag.copy_from_slice(&mac[..TAG]);
        Ok(())
    }

    pub fn open_rtp(&self, packet: &mut [u8], header: usize, ssrc: u32, index: u64) -> Result<(), Refused> {
        let (body, tag) = packet.split_last_chunk_mut::<TAG>().ok_or(Refused)?;
        self.tag(body, Some((index >> 16) as u32)).verify_truncated_left(tag).map_err(|_| Refused)?;
        self.crypt(ssrc, index, body.get_mut(header..).ok_or(Refused)?)
    }

    pub fn seal_rtcp(&self, packet: &mut [u8], length: usize, ssrc: u32, index: u32) -> Result<(), Refused> {
        let (body, tag) = packet.split_last_chunk_mut::<TAG>().ok_or(Refused)?;
        self.crypt(ssrc, u64::from(index), body.get_mut(CLEAR..length).ok_or(Refused)?)?;
        body.get_mut(length..).ok_or(Refused)?.copy_from_slice(&(index | ENCRYPTED).to_be_bytes());
        let mac = self.tag(body, None).finalize().into_bytes();
        tag.copy_from_slice(&mac[..TAG]);
        Ok(())
    }

    pub fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<(), Refused> {
        let (body, tag) = packet.split_last_chunk_mut::<TAG>().ok_or(Refused)?;
        self.tag(body, None).verify_truncated_left(tag).map_err(|_| Refused)?;
        let end = body.len().checked_sub(INDEX_WORD).ok_or(Refused)?;
        self.crypt(ssrc, u64::from(index), body.get_mut(CLEAR..end).ok_or(Refused)?)
    }
}

impl Drop for AesCm {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3711 appendix B.2: session key, salt, SSRC 0, ROC 0, sequence 0.
    #[test]
    fn keystream_matches_the_rfc() {
        let key = 0x2B7E_1516_28AE_D2A6_ABF7_1588_09CF_4F3Cu128.to_be_bytes();
        let mut salt = [0; 14];
        salt.copy_from_slice(&0xF0F1_F2F3_F4F5_F6F7_F8F9_FAFB_FCFD_0000u128.to_be_bytes()[..14]);
        let suite = AesCm::new(&key, &[0; 20], &salt).unwrap();
        let mut stream = [0; 48];
        suite.crypt(0, 0, &mut stream).unwrap();
        let expected = [
            0xE03E_AD09_35C9_5E80_E166_B16D_D92B_4EB4u128,
            0xD235_1316_2B02_D0F7_2A43_A2FE_4A5F_97AB,
            0x41E9_5B3B_B0A2_E8DD_4779_01E4_FCA8_94C0,
        ];
        for (block, expected) in stream.chunks(16).zip(expected) {
            assert_eq!(block, expected.to_be_bytes());
        }
    }

    /// Section 4.1.1: one block more would be keystream of the next index.
    #[test]
    fn keystreams_of_two_indices_never_meet() {
        let suite = AesCm::new(&[7; 16], &[8; 20], &[9; 14]).unwrap();
        let mut longest = vec![0; STREAM_MAX + 1];
        assert_eq!(suite.crypt(1, 1, &mut longest), Err(Refused));
        assert!(longest.iter().all(|octet| *octet == 0));
        suite.crypt(1, 1, &mut longest[..STREAM_MAX]).unwrap();
        let mut next = [0; 16];
        suite.crypt(1, 2, &mut next).unwrap();
        assert!(longest[..STREAM_MAX].chunks(16).all(|block| block != next));
    }
}
