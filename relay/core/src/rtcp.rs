//! RTCP from one leg as the other leg must see it (RFC 3550 section 6).
//!
//! Reports are rewritten to the SSRCs, sequence numbers and timestamps of the outgoing streams; source descriptions are
//! replaced by one of our own, because theirs name people and machines inside; goodbyes and all else end here: what leaves
//! on a leg is one stream for the life of the call.

use sallyport_wire::PacketBuf;
use sallyport_wire::rtcp::{self, REPORT_BLOCK, RR, SR};

use crate::reason::Reason;
use crate::stream::{Origin, is_before};

/// What is known of the two streams that a compound speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// SSRC of the stream that leaves toward the reader.
    pub own_ssrc: u32,
    /// SSRC that the sender of the compound sends with, where its stream has begun to leave.
    pub source: Option<u32>,
    /// What was added to its timestamps.
    pub timestamp_offset: u32,
    /// The stream that the sender of the compound receives from us: its SSRC there, and how the reader knows it.
    pub reverse: Option<(u32, Origin)>,
}

/// Octets of a source description with a CNAME of eight digits.
const SDES: usize = 4 + 4 + 2 + 8 + 2;

/// Rewrites a compound in place.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::RtcpSource`] where it reports another source than the direction's,
/// [`Reason::RtcpEmpty`] where no report is left, [`Reason::NoRoom`].
pub fn rewrite(buf: &mut PacketBuf<'_>, names: &Names) -> Result<(), Reason> {
    check(buf.packet())?;
    let mut write = 0;
    let mut read = 0;
    let end = buf.len();
    while read < end {
        let bytes = buf.packet_mut();
        let (kind, length) = head(bytes, read).ok_or(Reason::Malformed)?;
        if kind == SR || kind == RR {
            write += report(bytes, read, write, names)?;
        }
        read += length;
    }
    if write == 0 {
        return Err(Reason::RtcpEmpty);
    }
    resize(buf, write + SDES)?;
    describe(&mut buf.packet_mut()[write..], names.own_ssrc);
    Ok(())
}

/// Judges a compound that leaves as it came: packets of version 2 whose lengths fill it. What they say is between its ends.
///
/// # Errors
/// [`Reason::Malformed`].
pub fn pass(bytes: &[u8]) -> Result<(), Reason> {
    if rtcp::is_framed(bytes) { Ok(()) } else { Err(Reason::Malformed) }
}

/// Who sends a compound, and the first source that it reports on or wants something of.
pub fn speakers(bytes: &[u8]) -> (Option<u32>, Option<u32>) {
    let at = |offset: usize| bytes.get(offset..)?.first_chunk().map(|word| u32::from_be_bytes(*word));
    let Some((kind, length)) = head(bytes, 0) else { return (None, None) };
    let reports = bytes.first().is_some_and(|first| first & 0x1f != 0);
    let reported = match kind {
        SR => at(28).filter(|_| reports && length >= 28 + REPORT_BLOCK),
        RR => at(8).filter(|_| reports && length >= 8 + REPORT_BLOCK),
        rtcp::RTPFB | rtcp::PSFB => at(8).filter(|_| length >= 12),
        _ => None,
    };
    (at(4).filter(|_| length >= 8), reported)
}

/// Every length is right before anything moves.
fn check(bytes: &[u8]) -> Result<(), Reason> {
    rtcp::compound(bytes).try_for_each(|packet| packet.map(|_| ())).map_err(|_| Reason::Malformed)
}

fn head(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let [_, kind, high, low] = *bytes.get(at..)?.first_chunk::<4>()?;
    Some((kind, (usize::from(u16::from_be_bytes([high, low])) + 1) * 4))
}

/// Moves one report from `read` to `write`, which lies at or before it; how long it became. Extensions of a profile behind
/// the last block are left out.
fn report(bytes: &mut [u8], read: usize, write: usize, names: &Names) -> Result<usize, Reason> {
    let (kind, _) = head(bytes, read).ok_or(Reason::Malformed)?;
    let fixed = if kind == SR { 28 } else { 8 };
    let count = usize::from(bytes[read] & 0x1f);
    if kind == SR && names.source != Some(word(bytes, read + 4)) {
        return Err(Reason::RtcpSource);
    }
    bytes.copy_within(read..read + fixed, write);
    put(bytes, write + 4, names.own_ssrc);
    if kind == SR {
        let timestamp = word(bytes, write + 16).wrapping_add(names.timestamp_offset);
        put(bytes, write + 16, timestamp);
    }
    let mut kept = 0;
    for block in 0..count {
        let from = read + fixed + block * REPORT_BLOCK;
        let Some((ssrc, highest)) = translate(word(bytes, from), word(bytes, from + 8), names) else {
            continue;
        };
        let to = write + fixed + kept * REPORT_BLOCK;
        bytes.copy_within(from..from + REPORT_BLOCK, to);
        put(bytes, to, ssrc);
        put(bytes, to + 8, highest);
        kept += 1;
    }
    let length = fixed + kept * REPORT_BLOCK;
    bytes[write] = 0x80 | u8::try_from(kept).unwrap_or(0);
    let words = u16::try_from(length / 4 - 1).unwrap_or(0);
    bytes[write + 2..write + 4].copy_from_slice(&words.to_be_bytes());
    Ok(length)
}

/// SSRC and highest sequence number of a report block as the reader knows them; `None` where the block speaks of a stream
/// that is not the reader's, or was not at the time.
fn translate(ssrc: u32, highest: u32, names: &Names) -> Option<(u32, u32)> {
    let (_, origin) = names.reverse.filter(|(own, _)| *own == ssrc)?;
    (!is_before(highest, origin.floor)).then(|| (origin.source, highest.wrapping_sub(origin.offset)))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_be_bytes(*word))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(word) = bytes.get_mut(at..at + 4) {
        word.copy_from_slice(&value.to_be_bytes());
    }
}

fn resize(buf: &mut PacketBuf<'_>, length: usize) -> Result<(), Reason> {
    let have = buf.len();
    let resized = if have < length { buf.grow_tail(length - have) } else { buf.shrink_tail(have - length) };
    resized.map_err(|_| Reason::NoRoom)
}

/// One chunk: the SSRC, CNAME = its eight hexadecimal digits, end of list.
fn describe(bytes: &mut [u8], ssrc: u32) {
    bytes.fill(0);
    bytes[..4].copy_from_slice(&[0x81, rtcp::SDES, 0, 4]);
    put(bytes, 4, ssrc);
    bytes[8..10].copy_from_slice(&[1, 8]);
    for (at, digit) in bytes[10..18].iter_mut().enumerate() {
        let nibble = (ssrc >> (28 - 4 * at)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        own_ssrc: 0xaaaa_0001,
        source: Some(7),
        timestamp_offset: 1000,
        reverse: Some((0xbbbb_0001, Origin { source: 9, offset: 3, floor: 0x0001_0000 })),
    };

    fn sender_report(ssrc: u32, blocks: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0x80 | blocks.len() as u8, SR, 0, (6 + 6 * blocks.len()) as u8];
        bytes.extend(ssrc.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(500u32.to_be_bytes());
        bytes.extend([0; 8]);
        for block in blocks {
            bytes.extend(block.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(0x0001_0005u32.to_be_bytes());
            bytes.extend([0; 12]);
        }
        bytes
    }

    fn run(bytes: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut room = bytes.to_vec();
        room.resize(bytes.len() + 64, 0);
        let mut buf = PacketBuf::new(&mut room, 0..bytes.len()).unwrap();
        rewrite(&mut buf, &NAMES)?;
        Ok(buf.packet().to_vec())
    }

    #[test]
    fn reports_speak_of_the_outgoing_streams() {
        let mut compound = sender_report(7, &[0xbbbb_0001, 0xdead]);
        compound.extend([0x81, rtcp::SDES, 0, 2, 0, 0, 0, 7, 1, 1, b'x', 0]);
        compound.extend([0x81, rtcp::BYE, 0, 1, 0, 0, 0, 7]);
        let out = run(&compound).unwrap();
        assert_eq!(out.len(), 28 + 24 + SDES);
        assert_eq!((out[0], out[1], out[3]), (0x81, SR, 12));
        assert_eq!((word(&out, 4), word(&out, 16)), (0xaaaa_0001, 1500));
        assert_eq!((word(&out, 28), word(&out, 36)), (9, 0x0001_0002));
        assert_eq!(&out[52..], b"\x81\xca\0\x04\xaa\xaa\0\x01\x01\x08aaaa0001\0\0");
        assert!(check(&out).is_ok());
    }

    #[test]
    fn what_does_not_belong_ends_here() {
        assert_eq!(run(&sender_report(8, &[])), Err(Reason::RtcpSource));
        assert_eq!(run(&[0x81, rtcp::BYE, 0, 1, 0, 0, 0, 7]), Err(Reason::RtcpEmpty));
        assert_eq!(run(&[0x81, rtcp::PSFB, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9]), Err(Reason::RtcpEmpty));
        assert_eq!(run(&[0x80, RR, 0, 9]), Err(Reason::Malformed));
    }
}
