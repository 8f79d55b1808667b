//! RTCP from one leg as the other leg must see it (RFC 3550 section 6).
//!
//! Reports are rewritten to the SSRCs, sequence numbers, timestamps and counts of the outgoing streams; source descriptions are
//! replaced by one of our own, because theirs name people and machines inside; wishes of receivers go on under other names
//! ([`crate::feedback`]); goodbyes and all else end here: what leaves on a leg is one stream for the life of the call. What
//! came in reduced size (RFC 5506) leaves behind an empty report, since the other leg may know whole compounds only.

use sallyport_wire::PacketBuf;
use sallyport_wire::rtcp::{self, REPORT_BLOCK, RR, SR};

use crate::feedback::{Bound, Wishes};
use crate::reason::Reason;
use crate::reports::{Reports, lost, put_lost, words};
use crate::stream::{Origin, is_before};

/// What is known of the two streams that a compound speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// SSRC of the stream that leaves toward the reader.
    pub own_ssrc: u32,
    /// SSRC that the sender of the compound sends with, where its stream has begun to leave.
    pub source: Option<u32>,
    /// What was added to its timestamps.
    pub timestamp_offset: u32,
    /// Packets and octets that have left, as far as 32 bits go.
    pub counts: [u32; 2],
    /// Whether the reader knows REMB.
    pub remb: bool,
    /// The stream that the sender of the compound receives from us: its SSRC there, how the reader knows it, and the reports
    /// that left on it.
    pub reverse: Option<(u32, Origin, &'a Reports)>,
}

/// Octets of a source description with a CNAME of eight digits.
pub const SDES: usize = 4 + 4 + 2 + 8 + 2;
/// Octets that a compound has at the most when it leaves.
const OUT_MAX: usize = 1500;

/// A compound that is being written.
pub struct Out {
    bytes: [u8; OUT_MAX],
    length: usize,
}

impl Out {
    const fn new() -> Self {
        Self { bytes: [0; OUT_MAX], length: 0 }
    }

    /// The next `octets`, all null; `None` where the compound becomes too long.
    pub fn grow(&mut self, octets: usize) -> Option<&mut [u8]> {
        let grown = self.bytes.get_mut(self.length..self.length + octets)?;
        self.length += octets;
        Some(grown)
    }
}

/// Rewrites a compound in place. `picture` is asked once where the compound asks for a picture: the number of the request to
/// send, `None` where there were too many; `answer` whether a packet that it has lost, by our number, is sent again from here.
/// How many packets the other leg is asked for. `bound` becomes what its sender wants by TMMBR.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::RtcpSource`] where it reports another source than the direction's,
/// [`Reason::RtcpEmpty`] where nothing of it is for the other leg, [`Reason::RateLimited`] where only a request that came too
/// soon was, [`Reason::NoRoom`].
pub fn rewrite(
    buf: &mut PacketBuf<'_>,
    names: &Names<'_>,
    picture: impl FnOnce() -> Option<u8>,
    mut answer: impl FnMut(u16) -> bool,
    bound: &mut Option<Bound>,
) -> Result<usize, Reason> {
    check(buf.packet())?;
    let (mut out, mut wishes) = (Out::new(), Wishes::default());
    let bytes = buf.packet();
    for packet in rtcp::compound(bytes).map_while(Result::ok) {
        match (packet.packet_type, names.reverse) {
            (SR | RR, _) => report(bytes, &packet, names, &mut out)?,
            (_, Some((own, origin, _))) => wishes.read(bytes, &packet, (own, origin), &mut answer),
            (_, None) => {}
        }
    }
    *bound = wishes.bound;
    if !names.remb {
        wishes.forget_limit();
    }
    let number = if wishes.picture { picture() } else { None };
    let too_soon = wishes.picture && number.is_none();
    wishes.picture &= !too_soon;
    if out.length == 0 {
        if wishes.is_empty() {
            return Err(if too_soon { Reason::RateLimited } else { Reason::RtcpEmpty });
        }
        let empty = out.grow(8).ok_or(Reason::NoRoom)?;
        empty[..4].copy_from_slice(&[0x80, RR, 0, 1]);
        put(empty, 4, names.own_ssrc);
    }
    describe(out.grow(SDES).ok_or(Reason::NoRoom)?, names.own_ssrc);
    if let Some((_, origin, _)) = names.reverse {
        let written = wishes.write(&mut out, names.own_ssrc, origin.source, number.unwrap_or(0));
        written.ok_or(Reason::NoRoom)?;
    }
    resize(buf, out.length)?;
    buf.packet_mut().copy_from_slice(&out.bytes[..out.length]);
    Ok(wishes.lost())
}

/// Writes a compound of our own that wants something: of whom, and the number of a request for a picture. Its length.
pub fn ask(wishes: &Wishes, (own_ssrc, source): (u32, u32), number: u8, room: &mut [u8]) -> Option<usize> {
    own(own_ssrc, room, |out| wishes.write(out, own_ssrc, source, number))
}

/// Writes a compound of our own that answers a TMMBR. Its length.
pub fn notify(bound: Bound, own_ssrc: u32, room: &mut [u8]) -> Option<usize> {
    own(own_ssrc, room, |out| bound.write(out, own_ssrc))
}

/// Writes a compound of our own: an empty report, a source description, and what `write` adds.
fn own(own_ssrc: u32, room: &mut [u8], write: impl FnOnce(&mut Out) -> Option<()>) -> Option<usize> {
    let mut out = Out::new();
    let empty = out.grow(8)?;
    empty[..4].copy_from_slice(&[0x80, RR, 0, 1]);
    put(empty, 4, own_ssrc);
    describe(out.grow(SDES)?, own_ssrc);
    write(&mut out)?;
    room.get_mut(..out.length)?.copy_from_slice(out.bytes.get(..out.length)?);
    Some(out.length)
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
    let Some(Ok(packet)) = rtcp::compound(bytes).next() else { return (None, None) };
    let length = packet.range.end;
    let reported = match packet.packet_type {
        SR => at(28).filter(|_| packet.count > 0 && length >= 28 + REPORT_BLOCK),
        RR => at(8).filter(|_| packet.count > 0 && length >= 8 + REPORT_BLOCK),
        // FIR names its sources behind (RFC 5104 section 4.3.1.1).
        rtcp::PSFB if at(8) == Some(0) => at(12).filter(|_| length >= 16),
        rtcp::RTPFB | rtcp::PSFB => at(8).filter(|_| length >= 12),
        _ => None,
    };
    (at(4).filter(|_| length >= 8), reported)
}

/// Every length is right before anything moves.
fn check(bytes: &[u8]) -> Result<(), Reason> {
    rtcp::compound(bytes).try_for_each(|packet| packet.map(|_| ())).map_err(|_| Reason::Malformed)
}

/// Writes one report as the reader must see it. Extensions of a profile behind the last block are left out.
fn report(bytes: &[u8], packet: &rtcp::Packet, names: &Names<'_>, out: &mut Out) -> Result<(), Reason> {
    let is_sender = packet.packet_type == SR;
    let fixed = if is_sender { 28 } else { 8 };
    let start = packet.range.start;
    if is_sender && names.source != Some(word(bytes, start + 4)) {
        return Err(Reason::RtcpSource);
    }
    let at = out.length;
    let head = out.grow(fixed).ok_or(Reason::NoRoom)?;
    head.copy_from_slice(bytes.get(start..start + fixed).ok_or(Reason::Malformed)?);
    put(head, 4, names.own_ssrc);
    if is_sender {
        let timestamp = word(head, 16).wrapping_add(names.timestamp_offset);
        let [packets, octets] = names.counts;
        [timestamp, packets, octets].iter().zip([16, 20, 24]).for_each(|(value, at)| put(head, at, *value));
    }
    let mut kept: u8 = 0;
    for block in 0..usize::from(packet.count) {
        let from = start + fixed + block * REPORT_BLOCK;
        let block = bytes.get(from..from + REPORT_BLOCK).ok_or(Reason::Malformed)?;
        let Some(translated) = translate(block, names) else { continue };
        out.grow(REPORT_BLOCK).ok_or(Reason::NoRoom)?.copy_from_slice(&translated);
        kept += 1;
    }
    let length = words(out.length - at);
    out.bytes[at] = 0x80 | kept;
    out.bytes[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// A report block as the reader knows its stream; `None` where it speaks of one that is not the reader's, or was not at the
/// time. Losses are those of the reader's time, and a report that it answers is one of the reader's own.
fn translate(block: &[u8], names: &Names<'_>) -> Option<[u8; REPORT_BLOCK]> {
    let (_, origin, reports) = names.reverse.filter(|(own, ..)| *own == word(block, 0))?;
    let highest = word(block, 8);
    if is_before(highest, origin.floor) {
        return None;
    }
    let mut block = *block.first_chunk::<REPORT_BLOCK>()?;
    let before = reports.lost_before(origin.source);
    let lost = lost(&block, 0).saturating_sub(before);
    put_lost(&mut block, 0, lost);
    put(&mut block, 0, origin.source);
    put(&mut block, 8, highest.wrapping_sub(origin.offset));
    if !reports.is_theirs(word(&block, 16)) {
        block[16..].fill(0);
    }
    Some(block)
}

/// A word of network order; 0 where there is none.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_be_bytes(*word))
}

/// Puts a word there, where there is room.
pub fn put(bytes: &mut [u8], at: usize, value: u32) {
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
pub fn describe(bytes: &mut [u8], ssrc: u32) {
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

    const ORIGIN: Origin = Origin { source: 9, offset: 3, floor: 0x0001_0000, last: 0x0001_0009 };

    fn names(reports: &Reports) -> Names<'_> {
        Names {
            own_ssrc: 0xaaaa_0001,
            source: Some(7),
            timestamp_offset: 1000,
            counts: [70, 11_200],
            remb: false,
            reverse: Some((0xbbbb_0001, ORIGIN, reports)),
        }
    }

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
        run_with(bytes, Some(5))
    }

    fn run_with(bytes: &[u8], number: Option<u8>) -> Result<Vec<u8>, Reason> {
        let mut room = bytes.to_vec();
        room.resize(bytes.len() + 64, 0);
        let mut buf = PacketBuf::new(&mut room, 0..bytes.len()).unwrap();
        rewrite(&mut buf, &names(&Reports::default()), || number, |lost| lost == 7, &mut None)?;
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
        assert_eq!((word(&out, 20), word(&out, 24)), (70, 11_200));
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

    #[test]
    fn a_wish_for_a_picture_leaves_in_both_forms_behind_an_empty_report() {
        let pli = [0x81, rtcp::PSFB, 0, 2, 0, 0, 0, 7, 0xbb, 0xbb, 0, 1];
        let fir =
            [&[0x84, rtcp::PSFB, 0, 4, 0, 0, 0, 7, 0, 0, 0, 0, 0xbb, 0xbb, 0, 1][..], &[3, 0, 0, 0]].concat();
        for wish in [&pli[..], &fir, &[&pli[..], &fir].concat()] {
            let out = run(wish).unwrap();
            assert!(check(&out).is_ok());
            assert_eq!((out.len(), &out[..8]), (8 + SDES + 12 + 20, &b"\x80\xc9\0\x01\xaa\xaa\0\x01"[..]));
            let asks = &out[8 + SDES..];
            assert_eq!(asks[..12], *b"\x81\xce\0\x02\xaa\xaa\0\x01\0\0\0\x09");
            assert_eq!(asks[12..], *b"\x84\xce\0\x04\xaa\xaa\0\x01\0\0\0\0\0\0\0\x09\x05\0\0\0");
            assert_eq!(run_with(wish, None), Err(Reason::RateLimited));
        }
        let whole = [&sender_report(7, &[])[..], &pli].concat();
        assert_eq!(run_with(&whole, None).unwrap().len(), 28 + SDES, "the report leaves without it");
    }

    #[test]
    fn what_is_asked_of_another_stream_or_of_the_path_ends_here() {
        let asks = |kind, format: u8, media: u32, rest: &[u8]| {
            let words = 2 + rest.len() as u8 / 4;
            [&[0x80 | format, kind, 0, words, 0, 0, 0, 7][..], &media.to_be_bytes(), rest].concat()
        };
        let empty = Err(Reason::RtcpEmpty);
        assert_eq!(run(&asks(rtcp::PSFB, 1, 0xdead, &[])), empty);
        assert_eq!(run(&asks(rtcp::PSFB, 4, 0xbbbb_0001, &[0, 0, 0xde, 0xad, 1, 0, 0, 0])), empty);
        assert_eq!(run(&asks(rtcp::RTPFB, 1, 0xdead, &[0, 5, 0, 0])), empty);
        assert_eq!(run(&asks(rtcp::RTPFB, 15, 0xbbbb_0001, &[0; 12])), empty, "transport-wide feedback");
        assert_eq!(run(&asks(rtcp::PSFB, 15, 0, b"REMB\x01\0\0\0\xbb\xbb\0\x01")), empty);
        assert_eq!(run(&asks(rtcp::XR, 0, 0, &[4, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0])), empty);
        let out = run(&asks(rtcp::RTPFB, 1, 0xbbbb_0001, &[0, 5, 0, 1])).unwrap();
        assert_eq!(out[8 + SDES..], *b"\x81\xcd\0\x03\xaa\xaa\0\x01\0\0\0\x09\0\x02\0\x01");
        assert_eq!(run(&asks(rtcp::RTPFB, 1, 0xbbbb_0001, &[0, 7, 0, 0])), empty, "it is answered from here");
    }
}
