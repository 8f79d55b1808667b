//! Debian's libsrtp 2.5 (package libsrtp2-dev) as the receiver of what the relay seals.

use std::ffi::{c_int, c_uchar, c_ulong, c_void};
use std::ptr;
use std::sync::Once;

use sallyport_plan::{KeyMaterial, Profile};

/// `srtp_crypto_policy_t`.
#[repr(C)]
#[derive(Default)]
struct CryptoPolicy {
    cipher_type: u32,
    cipher_key_len: c_int,
    auth_type: u32,
    auth_key_len: c_int,
    auth_tag_len: c_int,
    sec_serv: c_int,
}

/// `srtp_policy_t`, with its `srtp_ssrc_t` spread out.
#[repr(C)]
struct Policy {
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

#[link(name = "srtp2")]
unsafe extern "C" {
    fn srtp_init() -> c_int;
    fn srtp_create(session: *mut *mut c_void, policy: *const Policy) -> c_int;
    fn srtp_dealloc(session: *mut c_void) -> c_int;
    fn srtp_crypto_policy_set_rtp_default(policy: *mut CryptoPolicy);
    fn srtp_crypto_policy_set_aes_gcm_128_16_auth(policy: *mut CryptoPolicy);
    fn srtp_unprotect(session: *mut c_void, packet: *mut c_void, length: *mut c_int) -> c_int;
}

/// `ssrc_any_inbound`.
const ANY_INBOUND: c_int = 2;

/// Where the library was refused a packet for having come before: `srtp_err_status_replay_fail`.
pub const REPLAY: c_int = 9;

static LIBRARY: Once = Once::new();

/// One receiving session, with the replay window that browsers have.
pub struct Judge(*mut c_void);

impl Judge {
    pub fn new(master: &KeyMaterial) -> Self {
        // SAFETY: called once.
        LIBRARY.call_once(|| assert_eq!(unsafe { srtp_init() }, 0));
        let (mut rtp, mut rtcp) = (CryptoPolicy::default(), CryptoPolicy::default());
        for policy in [&mut rtp, &mut rtcp] {
            // SAFETY: either writes the six fields of the policy that it is given.
            unsafe {
                match master.profile() {
                    Profile::AesCm128HmacSha1_80 => srtp_crypto_policy_set_rtp_default(policy),
                    Profile::AeadAes128Gcm => srtp_crypto_policy_set_aes_gcm_128_16_auth(policy),
                    other => panic!("no judge of {other:?}"),
                }
            }
        }
        let mut key = [master.key(), master.salt()].concat();
        let policy = Policy {
            ssrc_type: ANY_INBOUND,
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
        Self(session)
    }

    /// The packet in the clear, or the status with which it was refused.
    pub fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>, c_int> {
        let mut bytes = packet.to_vec();
        let mut length = c_int::try_from(packet.len()).unwrap();
        // SAFETY: the session lives, and the buffer is as long as said.
        match unsafe { srtp_unprotect(self.0, bytes.as_mut_ptr().cast(), &raw mut length) } {
            0 => {
                bytes.truncate(usize::try_from(length).unwrap());
                Ok(bytes)
            }
            status => Err(status),
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        // SAFETY: the session was created by the library and is freed once.
        unsafe { srtp_dealloc(self.0) };
    }
}
