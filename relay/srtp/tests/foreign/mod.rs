//! Debian's libsrtp 2.5 (package libsrtp2-dev): its types, and sessions of it. Of the crates that ask it each uses a part.
#![allow(dead_code)]

use std::ffi::{c_int, c_uchar, c_ulong, c_void};
use std::ptr;
use std::sync::Once;

use sallyport_plan::{KeyMaterial, Profile};

/// `srtp_crypto_policy_t`.
#[repr(C)]
#[derive(Default)]
pub struct CryptoPolicy {
    cipher_type: u32,
    cipher_key_len: c_int,
    auth_type: u32,
    auth_key_len: c_int,
    auth_tag_len: c_int,
    sec_serv: c_int,
}

/// `srtp_policy_t`, with its `srtp_ssrc_t` spread out.
#[repr(C)]
pub struct Policy {
    ssrc_type: c_int,
    ssrc: u32,
    rtp: CryptoPolicy,
    rtcp: CryptoPolicy,
    key: *mut c_uchar,
    keys: *mut c_void,
    num_master_keys: c_ulong,
    deprecated_ekt: *mut c_void,
    window_size: c_ulong,
    allow_repeat_tx: c_int,
    enc_xtn_hdr: *mut c_int,
    enc_xtn_hdr_count: c_int,
    next: *mut Policy,
}

/// A session of the library.
pub type Session = *mut c_void;
#[link(name = "srtp2")]
unsafe extern "C" {
    pub fn srtp_init() -> c_int;
    pub fn srtp_create(session: *mut Session, policy: *const Policy) -> c_int;
    pub fn srtp_dealloc(session: Session) -> c_int;
    pub fn srtp_crypto_policy_set_rtp_default(policy: *mut CryptoPolicy);
    pub fn srtp_crypto_policy_set_aes_gcm_128_16_auth(policy: *mut CryptoPolicy);
    pub fn srtp_crypto_policy_set_aes_gcm_256_16_auth(policy: *mut CryptoPolicy);
    pub fn srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80(policy: *mut CryptoPolicy);
    pub fn srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32(policy: *mut CryptoPolicy);
    pub fn srtp_crypto_policy_set_aes_cm_256_hmac_sha1_32(policy: *mut CryptoPolicy);
    pub fn srtp_protect(session: Session, packet: *mut c_void, length: *mut c_int) -> c_int;
    pub fn srtp_unprotect(session: Session, packet: *mut c_void, length: *mut c_int) -> c_int;
    pub fn srtp_protect_rtcp(session: Session, packet: *mut c_void, length: *mut c_int) -> c_int;
    pub fn srtp_unprotect_rtcp(session: Session, packet: *mut c_void, length: *mut c_int) -> c_int;
}

/// `ssrc_any_inbound` and `ssrc_any_outbound`.
pub const ANY_INBOUND: c_int = 2;
pub const ANY_OUTBOUND: c_int = 3;

static LIBRARY: Once = Once::new();

/// A session under a master key, with the replay window that browsers have.
pub fn session(master: &KeyMaterial, ssrc_type: c_int) -> Session {
    // SAFETY: called once.
    LIBRARY.call_once(|| assert_eq!(unsafe { srtp_init() }, 0));
    let (mut rtp, mut rtcp) = (CryptoPolicy::default(), CryptoPolicy::default());
    for (policy, preset) in [&mut rtp, &mut rtcp].into_iter().zip(presets(master.profile())) {
        // SAFETY: each writes the six fields of the policy that it is given.
        unsafe { preset(policy) };
    }
    let mut key = [master.key(), master.salt()].concat();
    let policy = Policy {
        ssrc_type,
        ssrc: 0,
        rtp,
        rtcp,
        key: key.as_mut_ptr(),
        keys: ptr::null_mut(),
        num_master_keys: 0,
        deprecated_ekt: ptr::null_mut(),
        window_size: 128,
        allow_repeat_tx: 0,
        enc_xtn_hdr: ptr::null_mut(),
        enc_xtn_hdr_count: 0,
        next: ptr::null_mut(),
    };
    let mut session = ptr::null_mut();
    // SAFETY: the policy has the layout of the library's header, its key the length of its suite; both are copied.
    assert_eq!(unsafe { srtp_create(&raw mut session, &raw const policy) }, 0);
    session
}

type Preset = unsafe extern "C" fn(*mut CryptoPolicy);

/// The policies of SRTP and SRTCP: short tags are for the former only.
fn presets(profile: Profile) -> [Preset; 2] {
    match profile {
        Profile::AesCm128HmacSha1_80 => [srtp_crypto_policy_set_rtp_default; 2],
        Profile::AeadAes128Gcm => [srtp_crypto_policy_set_aes_gcm_128_16_auth; 2],
        Profile::AeadAes256Gcm => [srtp_crypto_policy_set_aes_gcm_256_16_auth; 2],
        Profile::AesCm256HmacSha1_80 => [srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80; 2],
        Profile::AesCm128HmacSha1_32 => {
            [srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32, srtp_crypto_policy_set_rtp_default]
        }
        Profile::AesCm256HmacSha1_32 => {
            [srtp_crypto_policy_set_aes_cm_256_hmac_sha1_32, srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80]
        }
    }
}
