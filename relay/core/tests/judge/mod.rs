//! Debian's libsrtp 2.5 (package libsrtp2-dev) as the receiver of what the relay seals.

use std::ffi::c_int;

use sallyport_plan::KeyMaterial;

#[path = "../../../srtp/tests/foreign/mod.rs"]
mod foreign;

use foreign::{ANY_INBOUND, Session, session, srtp_dealloc, srtp_unprotect};

/// Where the library was refused a packet for having come before: `srtp_err_status_replay_fail`.
pub const REPLAY: c_int = 9;

/// One receiving session, with the replay window that browsers have.
pub struct Judge(Session);

impl Judge {
    pub fn new(master: &KeyMaterial) -> Self {
        Self(session(master, ANY_INBOUND))
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
