//! Packets that are kept for a while, to be sent again when their receiver asks for them (RFC 4585 section 6.2.1), and
//! retransmissions as RFC 4588 has them, both ways.
//!
//! A direction whose plan asks for it keeps what it sends in a ring: the last 256 packets, of 128 KiB, of a second. All memory
//! is taken when the direction is installed. What is sent again is a retransmission under its own SSRC, payload type, sequence
//! number and index; where the peer knows none it is the sealed packet, octet for octet, so that no index ever has two payloads.
//!
//! ```text
//!   | RTP header: own SSRC, type, sequence | original sequence number | payload without its padding |
//! ```

use arrayvec::ArrayVec;
use sallyport_plan::Resend;
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::{self, Header};

use crate::Now;
use crate::reason::Reason;

/// Packets and octets that a ring has room for; powers of two.
const PACKETS: usize = 256;
const OCTETS: usize = 128 * 1024;
/// Milliseconds for which a packet is worth sending again.
const HELD: u32 = 1000;
/// Milliseconds between two answers about one packet: the round trip, within these bounds, or where it is not known the third.
const PATIENCE: [u32; 3] = [10, 200, 50];
/// Octets that may be sent again at once; beyond, half of what the stream sends.
const CREDIT: u32 = 64 * 1024;
/// Octets that a packet has at the most which is sent again.
pub const RESEND_ROOM: usize = 2048;
/// Octets of a packet of four octets of padding.
const PADDING: usize = 12 + 4;
/// Octets of the original sequence number.
const OSN: usize = 2;
/// Payload types that may be sent again.
const TYPES: usize = 32;

/// What becomes of a packet that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is to be sent again.
    Again,
    /// It was just sent again, or too much was.
    Enough,
    /// It is not here.
    Gone,
}

/// Octets of a ring.
#[cfg(test)]
pub const RING: usize = size_of::<Ring>() + PACKETS * size_of::<Entry>() + OCTETS;

/// A packet that is kept; times in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    kept: u32,
    /// When it left last.
    left: u32,
    /// Where it begins, counted over all that was ever kept.
    start: u32,
    /// Octets; 0 where there is none.
    length: u16,
    sequence: u16,
}

/// How packets leave again.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Same,
    Rtx { ssrc: u32, types: ArrayVec<(u8, u8), TYPES> },
}

/// What one direction has sent lately.
pub struct Ring {
    form: Form,
    entries: Box<[Entry]>,
    octets: Box<[u8]>,
    /// Octets ever kept; where the next packet begins.
    written: u32,
    /// Octets that may be sent again.
    credit: u32,
}

impl Ring {
    /// A ring as the plan asks for it; takes its memory here.
    pub fn new(resend: &Resend) -> Option<Self> {
        Some(Self {
            form: Form::new(resend)?,
            entries: vec![Entry::default(); PACKETS].into(),
            octets: vec![0; OCTETS].into(),
            written: 0,
            credit: CREDIT,
        })
    }

    /// Goes on as a newer plan asks for it; `false` where it has to begin anew.
    pub fn follow(&mut self, resend: &Resend) -> bool {
        let Some(form) = Form::new(resend) else { return false };
        let fits = (form == Form::Same) == self.keeps_sealed();
        if fits {
            self.form = form;
        }
        fits
    }

    /// Whether packets are kept as they leave, not as they are before they are sealed.
    pub fn keeps_sealed(&self) -> bool {
        self.form == Form::Same
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.fill(Entry::default());
    }

    /// Keeps a packet; the first one under its number stays.
    pub fn keep(&mut self, packet: &[u8], now: Now) {
        let (Ok(header), Ok(length)) = (Header::parse(packet), u16::try_from(packet.len())) else { return };
        let known = |types: &ArrayVec<(u8, u8), TYPES>| {
            types.iter().any(|(first, _)| *first == header.payload_type())
        };
        let wanted =
            matches!(&self.form, Form::Same) || matches!(&self.form, Form::Rtx { types, .. } if known(types));
        if !wanted || packet.len() + OSN > RESEND_ROOM {
            return;
        }
        let (sequence, now) = (header.sequence(), millis(now));
        let Some(entry) = self.entries.get_mut(usize::from(sequence) % PACKETS) else { return };
        let newer = entry.sequence.wrapping_sub(sequence).cast_signed() >= 0;
        if entry.length > 0 && now.wrapping_sub(entry.kept) <= HELD && newer {
            return;
        }
        let mut at = self.written as usize % OCTETS;
        if at + packet.len() > OCTETS {
            self.written = self.written.wrapping_add((OCTETS - at) as u32);
            at = 0;
        }
        let Some(room) = self.octets.get_mut(at..at + packet.len()) else { return };
        room.copy_from_slice(packet);
        // As if it had left long ago: the first answer waits for nothing.
        *entry = Entry { kept: now, left: now.wrapping_sub(HELD), start: self.written, length, sequence };
        self.written = self.written.wrapping_add(u32::from(length));
        self.credit = (self.credit + u32::from(length) / 2).min(CREDIT);
    }

    /// A packet is asked for; `round_trip` to who asks, microseconds. One that is to be sent again counts as sent.
    pub fn ask(&mut self, sequence: u16, round_trip: Option<u32>, now: Now) -> Asked {
        let Some(entry) = self.find(sequence, now) else { return Asked::Gone };
        let [least, most, unknown] = PATIENCE;
        let patience = round_trip.map_or(unknown, |micros| (micros / 1000).clamp(least, most));
        let now = millis(now);
        if now.wrapping_sub(entry.left) < patience {
            return Asked::Enough;
        }
        let Some(credit) = self.credit.checked_sub(u32::from(entry.length)) else { return Asked::Enough };
        self.credit = credit;
        if let Some(entry) = self.entries.get_mut(usize::from(sequence) % PACKETS) {
            entry.left = now;
        }
        Asked::Again
    }

    /// Writes a packet as it is to leave again; `sequence`: of the next retransmission. Its length, and whether it is to be
    /// sealed; `None` where it is gone.
    pub fn write(
        &self,
        number: u16,
        sequence: u16,
        room: &mut [u8; RESEND_ROOM],
        now: Now,
    ) -> Option<(usize, bool)> {
        let entry = self.find(number, now)?;
        let at = entry.start as usize % OCTETS;
        let packet = self.octets.get(at..at + usize::from(entry.length))?;
        match &self.form {
            Form::Same => {
                room.get_mut(..packet.len())?.copy_from_slice(packet);
                Some((packet.len(), false))
            }
            Form::Rtx { ssrc, types } => {
                let payload_type = packet.get(1)? & 0x7f;
                let (_, again) = types.iter().find(|(first, _)| *first == payload_type)?;
                let length = wrap(packet, (*ssrc, *again, sequence), room)?;
                Some((length, true))
            }
        }
    }

    /// Writes a retransmission that repeats nothing, as senders do that probe a path: padding only. Its length; `None` where
    /// packets leave again as they left.
    pub fn pad(&self, sequence: u16, timestamp: u32, room: &mut [u8; RESEND_ROOM]) -> Option<usize> {
        let Form::Rtx { ssrc, types } = &self.form else { return None };
        let (_, payload_type) = types.first()?;
        let packet = room.get_mut(..PADDING)?;
        packet.fill(0);
        packet[0] = 0xa0;
        packet[PADDING - 1] = 4;
        rtp::set_payload_type(packet, *payload_type);
        rtp::set_sequence(packet, sequence);
        rtp::set_timestamp(packet, timestamp);
        rtp::set_ssrc(packet, *ssrc);
        Some(PADDING)
    }

    fn find(&self, sequence: u16, now: Now) -> Option<Entry> {
        let entry = self.entries.get(usize::from(sequence) % PACKETS).copied()?;
        let whole = self.written.wrapping_sub(entry.start) as usize <= OCTETS;
        let fresh = millis(now).wrapping_sub(entry.kept) <= HELD;
        (entry.length > 0 && entry.sequence == sequence && whole && fresh).then_some(entry)
    }
}

impl Form {
    fn new(resend: &Resend) -> Option<Self> {
        match resend {
            Resend::Never => None,
            Resend::Same => Some(Self::Same),
            Resend::Rtx { ssrc, payload_types } => {
                let types = payload_types.iter().map(|(first, again)| (first.0, again.0)).take(TYPES);
                Some(Self::Rtx { ssrc: ssrc.0, types: types.collect() })
            }
        }
    }
}

/// Writes the retransmission of a packet (RFC 4588 section 4): SSRC, payload type and sequence number of its own, the
/// original's number in front of the payload, no padding.
fn wrap(packet: &[u8], (ssrc, payload_type, sequence): (u32, u8, u16), room: &mut [u8]) -> Option<usize> {
    let header = Header::parse(packet).ok()?;
    let (head, end) = (header.header_len(), packet.len() - header.padding_len().ok()?);
    room.get_mut(..head)?.copy_from_slice(packet.get(..head)?);
    room.get_mut(head..head + OSN)?.copy_from_slice(&header.sequence().to_be_bytes());
    room.get_mut(head + OSN..end + OSN)?.copy_from_slice(packet.get(head..end)?);
    let written = room.get_mut(..end + OSN)?;
    *written.first_mut()? &= !0x20;
    rtp::set_payload_type(written, payload_type);
    rtp::set_sequence(written, sequence);
    rtp::set_ssrc(written, ssrc);
    Some(end + OSN)
}

/// Makes of an open retransmission, in place, the packet that it repeats, of this source and type.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::Repeated`] where it repeats nothing: padding that probes the path.
pub fn unwrap(buf: &mut PacketBuf<'_>, source: u32, payload_type: u8) -> Result<(), Reason> {
    let header = Header::parse(buf.packet()).map_err(|_| Reason::Malformed)?;
    let padding = header.padding_len().map_err(|_| Reason::Malformed)?;
    let head = header.header_len();
    if header.payload_len() - padding <= OSN {
        return Err(Reason::Repeated);
    }
    let number = buf.packet().get(head..).and_then(<[u8]>::first_chunk).copied().ok_or(Reason::Malformed)?;
    buf.packet_mut().copy_within(..head, OSN);
    buf.shrink_head(OSN).map_err(|_| Reason::Malformed)?;
    let packet = buf.packet_mut();
    rtp::set_sequence(packet, u16::from_be_bytes(number));
    rtp::set_payload_type(packet, payload_type);
    rtp::set_ssrc(packet, source);
    Ok(())
}

fn millis(now: Now) -> u32 {
    ((now.0 / 1000) & 0xffff_ffff) as u32
}
