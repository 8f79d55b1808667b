//! What a receiver asks of a sender between reports (RFC 4585, RFC 5104): for a picture, for lost packets.
//!
//! Lost packets that are kept here are sent again from here ([`crate::resend`]). All else goes on to whoever sends the stream,
//! under the names that it has there. A wish for a picture leaves in both its forms, since what the other leg has agreed to is
//! not known here: PLI, and FIR with a number of its own. The bandwidth that a receiver wants (REMB,
//! draft-alvestrand-rmcat-remb, or TMMBR) goes on as REMB where the sender knows that; transport-wide feedback speaks of one
//! leg's path and ends here.

use arrayvec::ArrayVec;
use sallyport_wire::rtcp::{PSFB, Packet, RTPFB};

use crate::rtcp::{Out, put, word};
use crate::stream::{Origin, is_before};

/// Formats of feedback: generic NACK (RFC 4585 section 6.2.1), PLI (section 6.3.1), FIR (RFC 5104 section 4.3.1).
const NACK: u8 = 1;
const PLI: u8 = 1;
const FIR: u8 = 4;
/// TMMBR (RFC 5104 section 4.2.1), its answer (section 4.2.2), and what the application defines (RFC 4585 section 6.4), such as REMB.
const TMMBR: u8 = 3;
const TMMBN: u8 = 4;
const APPLICATION: u8 = 15;
const REMB: &[u8] = b"REMB";
/// Lost packets that one compound can ask for; what is beyond is asked for again.
pub const LOST: usize = 256;

/// What one compound asks for.
#[derive(Debug, Default)]
pub struct Wishes {
    /// A whole picture.
    pub picture: bool,
    /// Packets, by the sequence numbers of their sender.
    lost: ArrayVec<u16, LOST>,
    /// No more than so many bits a second.
    limit: Option<u64>,
    /// Who said so by TMMBR, and waits for an answer.
    pub bound: Option<Bound>,
}

/// A bound of bandwidth as a receiver told it by TMMBR: who it is, and exponent, mantissa and overhead in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    owner: u32,
    value: u32,
}

impl Bound {
    /// Writes the answer of who sends (RFC 5104 section 4.2.2): a leg has one receiver, so that what it wants last bounds.
    pub fn write(self, out: &mut Out, own_ssrc: u32) -> Option<()> {
        let answer = out.grow(20)?;
        answer[..4].copy_from_slice(&[0x80 | TMMBN, RTPFB, 0, 4]);
        [own_ssrc, 0, self.owner, self.value]
            .iter()
            .zip([4, 8, 12, 16])
            .for_each(|(word, at)| put(answer, at, *word));
        Some(())
    }
}

impl Wishes {
    /// Packets that their sender is asked for.
    pub fn lost(&self) -> usize {
        self.lost.len()
    }

    /// A picture, and nothing else.
    pub fn for_picture() -> Self {
        Self { picture: true, ..Self::default() }
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        !self.picture && self.lost.is_empty() && self.limit.is_none()
    }

    /// Forgets the wish for less bandwidth, where the sender does not know REMB.
    pub fn forget_limit(&mut self) {
        self.limit = None;
    }

    /// Reads one packet of a compound; `own`: the stream of ours that it may be about, and how its sender knows it. `answer`:
    /// whether a lost packet, by our number, is none that its sender has to be asked for.
    pub fn read(
        &mut self,
        bytes: &[u8],
        packet: &Packet,
        (own, origin): (u32, Origin),
        answer: &mut impl FnMut(u16) -> bool,
    ) {
        let body = bytes.get(packet.body()).unwrap_or_default();
        match (packet.packet_type, packet.count) {
            (PSFB, PLI) => self.picture |= word(body, 4) == own,
            (PSFB, FIR) => {
                let entries = body.get(8..).unwrap_or_default().chunks_exact(8);
                self.picture |= entries.into_iter().any(|entry| word(entry, 0) == own);
            }
            (RTPFB, NACK) if word(body, 4) == own => {
                for entry in body.get(8..).unwrap_or_default().chunks_exact(4) {
                    self.miss(word(entry, 0), origin, answer);
                }
            }
            (RTPFB, TMMBR) => {
                let entries = body.get(8..).unwrap_or_default().chunks_exact(8);
                for entry in entries.filter(|entry| word(entry, 0) == own) {
                    self.limit_to(word(entry, 4) >> 9, 17);
                    self.bound = Some(Bound { owner: word(body, 0), value: word(entry, 4) });
                }
            }
            (PSFB, APPLICATION) if body.get(8..12) == Some(REMB) => {
                let named = body.get(16..).unwrap_or_default().chunks_exact(4);
                if named
                    .take(usize::from(body.get(12).copied().unwrap_or(0)))
                    .any(|ssrc| word(ssrc, 0) == own)
                {
                    self.limit_to(word(body, 12) & 0x00ff_ffff, 18);
                }
            }
            _ => {}
        }
    }

    /// Takes note of a bound: six bits of exponent, then a mantissa. The least of several counts.
    fn limit_to(&mut self, value: u32, mantissa: u32) {
        let bits = u64::from(value & ((1 << mantissa) - 1)) << (value >> mantissa & 0x3f).min(40);
        self.limit = Some(self.limit.map_or(bits, |limit| limit.min(bits)));
    }

    /// A packet and those of the sixteen behind it whose bits are set.
    fn miss(&mut self, entry: u32, origin: Origin, answer: &mut impl FnMut(u16) -> bool) {
        let (first, behind) = ((entry >> 16) as u16, entry & 0xffff);
        let named = (0..=16u16).filter(|at| *at == 0 || behind >> (at - 1) & 1 == 1);
        for sequence in named.map(|at| first.wrapping_add(at)) {
            if answer(sequence) {
                continue;
            }
            let back = ((origin.last & 0xffff) as u16).wrapping_sub(sequence);
            let extended = origin.last.wrapping_sub(u32::from(back));
            // Of former sources nobody has the packets any more, and others were never sent.
            if back < 0x8000 && !is_before(extended, origin.floor) {
                let _ = self.lost.try_push((extended.wrapping_sub(origin.offset) & 0xffff) as u16);
            }
        }
    }

    /// Writes what is asked for: by whom, of whom, and the number of the next FIR.
    pub fn write(&self, out: &mut Out, own_ssrc: u32, source: u32, number: u8) -> Option<()> {
        if self.picture {
            let pli = out.grow(12)?;
            pli[..4].copy_from_slice(&[0x80 | PLI, PSFB, 0, 2]);
            put(pli, 4, own_ssrc);
            put(pli, 8, source);
            let fir = out.grow(20)?;
            fir[..4].copy_from_slice(&[0x80 | FIR, PSFB, 0, 4]);
            put(fir, 4, own_ssrc);
            put(fir, 12, source);
            fir[16] = number;
        }
        if let Some(limit) = self.limit {
            let exponent = (u64::BITS - limit.leading_zeros()).saturating_sub(18);
            let remb = out.grow(24)?;
            remb[..4].copy_from_slice(&[0x80 | APPLICATION, PSFB, 0, 5]);
            put(remb, 4, own_ssrc);
            remb[12..16].copy_from_slice(REMB);
            put(remb, 16, 1 << 24 | exponent << 18 | u32::try_from(limit >> exponent).unwrap_or(0));
            put(remb, 20, source);
        }
        let entries = self.entries();
        if entries.is_empty() {
            return Some(());
        }
        let nack = out.grow(12 + 4 * entries.len())?;
        let words = u16::try_from(2 + entries.len()).ok()?;
        nack[..2].copy_from_slice(&[0x80 | NACK, RTPFB]);
        nack[2..4].copy_from_slice(&words.to_be_bytes());
        put(nack, 4, own_ssrc);
        put(nack, 8, source);
        for (at, entry) in entries.iter().enumerate() {
            put(nack, 12 + 4 * at, *entry);
        }
        Some(())
    }

    /// As few entries as the order of the numbers allows.
    fn entries(&self) -> ArrayVec<u32, LOST> {
        let mut entries = ArrayVec::<u32, LOST>::new();
        for sequence in &self.lost {
            if let Some(last) = entries.last_mut() {
                let behind = sequence.wrapping_sub((*last >> 16) as u16);
                if (1..=16).contains(&behind) {
                    *last |= 1 << (behind - 1);
                    continue;
                }
            }
            entries.push(u32::from(*sequence) << 16);
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { source: 9, offset: 0x0001_0003, floor: 0x0001_ff00, last: 0x0002_0010 };

    fn asked(entries: &[u32]) -> Vec<u32> {
        let mut wishes = Wishes::default();
        entries.iter().for_each(|entry| wishes.miss(*entry, ORIGIN, &mut |sequence| sequence == 0x0008));
        wishes.entries().to_vec()
    }

    #[test]
    fn lost_packets_have_their_sender_s_numbers() {
        assert_eq!(asked(&[0x0005_0000]), [0x0002_0000]);
        // Across the wrap of both numbers, and with bits behind.
        assert_eq!(asked(&[0xfffe_8005]), [0xfffb_8005]);
        assert_eq!(asked(&[0x0005_0000, 0x0007_0000]), [0x0002_0002], "together");
        assert_eq!(asked(&[0xff01_0001, 0xfeff_0003]), [0xfefe_0001, 0xfefd_0001], "nothing below the floor");
        assert_eq!(asked(&[0x0010_0001]), [0x000d_0000], "nothing that was not sent");
        assert_eq!(asked(&[0x7000_ffff]), []);
        assert_eq!(asked(&[0x0007_0003]), [0x0004_0002], "what is here need not be asked for");
    }
}
