//! RTP packets, sealed and opened in place.
//!
//! ```text
//!   | header, CSRC list, extension | payload, padding | tag |      AES_CM_128_HMAC_SHA1_80: tag over all of it and the ROC
//!   |        authenticated         |    encrypted     |     |      AEAD_AES_128_GCM: the header is the associated data
//! ```

use sallyport_wire::rtp::Header;
use sallyport_wire::{Malformed, PacketBuf};

use crate::index::{HALF_TURN, INDEX_MAX, guess};
use crate::opener::{OpenError, Opened, Opener, commit, judge};
use crate::replay::{Judgement, Window};
use crate::sealer::{SealError, Sealer};
use crate::suites::{Desc, protect_one, unprotect_one};

impl Opener {
    /// Verifies, decrypts in place and takes the tag off (RFC 3711 section 3.3, RFC 7714 section 8).
    ///
    /// After [`OpenError::Tag`] the payload is undefined under AEAD_AES_128_GCM (decrypting and verifying is one pass)
    /// and untouched under AES_CM_128_HMAC_SHA1_80; after any other error the packet is as before.
    ///
    /// # Errors
    /// [`OpenError`]; the state is as before.
    pub fn open_rtp(&mut self, buf: &mut PacketBuf<'_>) -> Result<Opened, OpenError> {
        let header = Header::parse(buf.packet()).map_err(|error| match error {
            Malformed::Short => OpenError::Short,
            Malformed::Length
            | Malformed::Version
            | Malformed::Fragment
            | Malformed::NotUdp
            | Malformed::Invalid => OpenError::Malformed,
        })?;
        let (ssrc, sequence, header_len) = (header.ssrc(), header.sequence(), header.header_len());
        let tag = self.rtp.tag_len();
        if buf.len() < header_len + tag {
            return Err(OpenError::Short);
        }
        let index = match self.seen(ssrc)?.rtp {
            None => u64::from(sequence),
            Some(window) => {
                let index = guess(window.highest(), sequence).ok_or(OpenError::TooOld)?;
                judge(&window, index)?;
                index
            }
        };
        let desc = Desc::rtp(&self.rtp, buf.packet_mut(), header_len, ssrc, index);
        desc.and_then(unprotect_one).map_err(|_| OpenError::Tag)?;
        buf.shrink_tail(tag).map_err(|_| OpenError::Short)?;
        self.update(ssrc, |seen| commit(&mut seen.rtp, index));
        Ok(Opened { ssrc, index, sequence })
    }
}

impl Sealer {
    /// Encrypts in place and adds the tag. The index is the one that the peer will guess; late packets may be sealed as
    /// long as their index is within the window and was not sealed.
    ///
    /// # Errors
    /// [`SealError`]; packet and state are as before.
    pub fn seal_rtp(&mut self, buf: &mut PacketBuf<'_>) -> Result<(), SealError> {
        let header = Header::parse(buf.packet()).map_err(|_| SealError::Malformed)?;
        let (ssrc, sequence, header_len) = (header.ssrc(), header.sequence(), header.header_len());
        let index = match self.used(ssrc)?.rtp {
            None => u64::from(sequence),
            Some(window) => next_index(&window, sequence)?,
        };
        let tag = self.rtp.tag_len();
        buf.grow_tail(tag).map_err(|_| SealError::Room)?;
        let desc = Desc::rtp(&self.rtp, buf.packet_mut(), header_len, ssrc, index);
        if desc.and_then(protect_one).is_err() {
            buf.shrink_tail(tag).map_err(|_| SealError::Room)?;
            return Err(SealError::Malformed);
        }
        self.update(ssrc, |used| commit(&mut used.rtp, index));
        Ok(())
    }
}

fn next_index(window: &Window, sequence: u16) -> Result<u64, SealError> {
    let highest = window.highest();
    if highest >= INDEX_MAX {
        return Err(SealError::Exhausted);
    }
    let index = guess(highest, sequence).ok_or(SealError::Exhausted)?;
    match window.judge(index) {
        // In the first turn only: a peer by the letter of the RFC would guess the turn before it.
        Judgement::New if index > highest + HALF_TURN => Err(SealError::IndexReuse),
        Judgement::New => Ok(index),
        Judgement::Seen | Judgement::Old => Err(SealError::IndexReuse),
    }
}
