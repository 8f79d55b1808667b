//! Key derivation (RFC 3711 section 4.3, key derivation rate 0). Both profiles use AES in counter mode (RFC 7714
//! section 11 for AEAD, whose shorter salt is padded with zeros on the right).

use aes::Aes128Enc;
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
    let mut cipher = Ctr128BE::<Aes128Enc>::new_from_slices(master.key(), &iv[..]).map_err(|_| KeyError)?;
    let mut out = Zeroizing::new([0u8; N]);
    cipher.apply_keystream(&mut out[..]);
    Ok(out)
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
}
