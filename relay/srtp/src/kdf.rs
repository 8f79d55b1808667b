//! Key derivation (RFC 3711 section 4.3, key derivation rate 0). All profiles use AES in counter mode with a key of their
//! own length (RFC 6188 section 3 for 256 bits; RFC 7714 section 11 for AEAD, whose shorter salt is padded with zeros on
//! the right).

use aes::{Aes128Enc, Aes256Enc};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use sallyport_plan::KeyMaterial;
use zeroize::Zeroizing;

use crate::KeyError;

/// What a session key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// Where the label lies in the salt's 112 bits: before the 48 bits of an index that is always 0 here.
const LABEL_AT: usize = 7;

/// Derives `N` octets under a label.
pub fn derive<const N: usize>(master: &KeyMaterial, label: Label) -> Result<Zeroizing<[u8; N]>, KeyError> {
    let mut iv = Zeroizing::new([0u8; 16]);
    let salt = master.salt();
    iv.get_mut(..salt.len()).ok_or(KeyError)?.copy_from_slice(salt);
    iv[LABEL_AT] ^= label as u8;
    let mut out = Zeroizing::new([0u8; N]);
    match master.key().len() {
        32 => apply::<Ctr128BE<Aes256Enc>>(master.key(), &iv, &mut out[..])?,
        _ => apply::<Ctr128BE<Aes128Enc>>(master.key(), &iv, &mut out[..])?,
    }
    Ok(out)
}

fn apply<C: KeyIvInit + StreamCipher>(key: &[u8], iv: &[u8; 16], out: &mut [u8]) -> Result<(), KeyError> {
    C::new_from_slices(key, iv).map_err(|_| KeyError)?.apply_keystream(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suites::vectors::hex;
    use sallyport_plan::Profile;

    /// RFC 3711 appendix B.3.
    #[test]
    fn matches_the_rfc() {
        let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
        let master = KeyMaterial::new(Profile::AesCm128HmacSha1_80, &key, &salt).unwrap();
        let cipher = derive::<16>(&master, Label::RtpEncryption).unwrap();
        assert_eq!(cipher[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
        let salt = derive::<14>(&master, Label::RtpSalt).unwrap();
        assert_eq!(salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
        let auth = derive::<94>(&master, Label::RtpAuthentication).unwrap();
        let expected = "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE \
                        E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25 \
                        6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2";
        assert_eq!(auth[..], hex(expected));
    }
    /// RFC 6188 section 7.4.
    #[test]
    fn matches_the_rfc_for_256_bits() {
        let key = hex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6");
        let salt = hex("3b04803de51ee7c96423ab5b78d2");
        let master = KeyMaterial::new(Profile::AesCm256HmacSha1_80, &key, &salt).unwrap();
        let cipher = derive::<32>(&master, Label::RtpEncryption).unwrap();
        assert_eq!(cipher[..], hex("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"));
        let salt = derive::<14>(&master, Label::RtpSalt).unwrap();
        assert_eq!(salt[..], hex("fa31791685ca444a9e07c6c64e93"));
        let auth = derive::<20>(&master, Label::RtpAuthentication).unwrap();
        assert_eq!(auth[..], hex("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"));
    }
}
