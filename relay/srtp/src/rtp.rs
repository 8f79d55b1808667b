//! RTP packets, sealed and opened in place.
//!
//! ```text
//!   | header, CSRC list, extension | payload, padding | tag |      AES_CM with HMAC_SHA1: tag over all of it and the ROC
//!   |        authenticated         |    encrypted     |     |      AEAD_AES_GCM: the header is the associated data
//! ```

use sallyport_wire::rtp::Header;
use sallyport_wire::{Malformed, PacketBuf};

use crate::burst::{Kind, Known, Plan};
use crate::index::{HALF_TURN, INDEX_MAX, guess};
use crate::opener::{OpenError, Opened, Opener, judge};
use crate::replay::{Judgement, Window};
use crate::sealer::{SealError, Sealer};

impl Opener {
    /// Verifies, decrypts in place and takes the tag off (RFC 3711 section 3.3, RFC 7714 section 8).
    ///
    /// After [`OpenError::Tag`] the payload is undefined under AEAD_AES_128_GCM (decrypting and verifying is one pass)
    /// and untouched under AES_CM_128_HMAC_SHA1_80; after any other error the packet is as before.
    ///
    /// # Errors
    /// [`OpenError`]; the state is as before.
    pub fn open_rtp(&mut self, buf: &mut PacketBuf<'_>) -> Result<Opened, OpenError> {
        self.open(Kind::Rtp, buf)
    }

    #[inline]
    pub(crate) fn plan_rtp(&self, packet: &[u8]) -> Result<(Plan, Known), OpenError> {
        let header = Header::parse(packet).map_err(|error| match error {
            Malformed::Short => OpenError::Short,
            Malformed::Length
            | Malformed::Version
            | Malformed::Fragment
            | Malformed::NotUdp
            | Malformed::Invalid => OpenError::Malformed,
        })?;
        let (ssrc, sequence, header_len) = (header.ssrc(), header.sequence(), header.header_len());
        if packet.len() < header_len + self.rtp.tag_len() {
            return Err(OpenError::Short);
        }
        let known = self.seen(ssrc)?.map(|seen| &seen.rtp);
        let index = match known.and_then(Option::as_ref) {
            None => u64::from(sequence),
            Some(window) => {
                let index = guess(window.highest(), sequence).ok_or(OpenError::TooOld)?;
                judge(window, index)?;
                index
            }
        };
        Ok((Plan { kind: Kind::Rtp, ssrc, index, header: header_len as u32 }, Known::of(known)))
    }
}

impl Sealer {
    /// Encrypts in place and adds the tag. The index is the one that the peer will guess; late packets may be sealed as
    /// long as their index is within the window and was not sealed.
    ///
    /// # Errors
    /// [`SealError`]; packet and state are as before.
    pub fn seal_rtp(&mut self, buf: &mut PacketBuf<'_>) -> Result<(), SealError> {
        self.seal(Kind::Rtp, buf)
    }

    #[inline]
    pub(crate) fn plan_rtp(&self, packet: &[u8]) -> Result<Plan, SealError> {
        let header = Header::parse(packet).map_err(|_| SealError::Malformed)?;
        let (ssrc, sequence) = (header.ssrc(), header.sequence());
        let index = match &self.used(ssrc)?.rtp {
            None => u64::from(sequence),
            Some(window) => next_index(window, sequence)?,
        };
        Ok(Plan { kind: Kind::Rtp, ssrc, index, header: header.header_len() as u32 })
    }
}

#[inline]
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
