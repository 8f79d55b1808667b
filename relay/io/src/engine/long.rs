//! Packets that are longer than one frame or one link takes: put together as they come in, cut as they leave.

use std::ops::Range;

use sallyport_wire::frame::{self, Cut, Fragment, Link};
use sallyport_wire::{PacketBuf, Short};

use super::{Chunks, Engine, Part, Socket, name};
use crate::identify;
use crate::pool::Owner;
use crate::port::{Egress, HEADROOM, Received, TransmitError};

/// Fragments of one datagram at the most: of the longest frame by the shortest MTU that the Internet has (RFC 791: 576).
const FRAGMENTS: usize = 8;

/// Octets of payload above which an IPv4 datagram may meet a link on its way that does not carry it: 1,280 is what all carry
/// that carry IPv6 as well (RFC 8200 section 5).
const ANYWHERE: usize = 1280 - 28;

/// Whether routers are to cut a datagram with so much payload where a link asks for it. Without a word, as sockets do: we do not
/// hear what routers say, which anybody can forge.
pub(super) fn may_be_cut(payload: usize, egress: &Egress) -> bool {
    payload > ANYWHERE && egress.remote.is_ipv4()
}

/// Puts the headers in front of the payload of an IPv4 datagram that leaves uncut and may be cut on its way.
pub(super) fn emit_whole(packet: &mut PacketBuf<'_>, link: &Link, egress: &Egress) -> Result<(), Short> {
    let (source, destination) = (egress.local.ip(), egress.remote.ip());
    frame::emit_udp(packet, egress.local, egress.remote)?;
    let identification = identify::next(source, destination);
    let fragment = Fragment { identification, offset: 0, more: false };
    frame::emit_fragment(packet, link, source, destination, fragment)
}

impl<U: Chunks, S: Socket> Engine<U, S> {
    /// Adds a part to the packet that a socket receives in several; the datagram, once it is whole. One that does not fit into
    /// a frame is counted.
    pub(super) fn gather(&mut self, at: usize, part: Part, more: bool) -> Option<Received> {
        let mut whole = match self.channels[at].part.take() {
            None => part,
            Some(mut first) => {
                first.length = self.append(first, part);
                self.pool.reclaim(Owner::Fill(name(at)), part.index);
                first
            }
        };
        if more {
            // A length that makes no sense is found out by the next part, or at the end.
            whole.length = whole.length.filter(|length| whole.start.saturating_add(*length) <= self.size);
            self.channels[at].part = Some(whole);
            return None;
        }
        let Some(length) = whole.length else {
            self.counters.truncated += 1;
            self.pool.reclaim(Owner::Fill(name(at)), whole.index);
            return None;
        };
        self.read(at, whole.index, whole.start, length)
    }

    /// Copies a part behind the former ones; how many octets they are together, where they fit.
    fn append(&mut self, first: Part, part: Part) -> Option<usize> {
        let (had, more) = (first.length?, part.length?);
        let mut frames = [None, None];
        let mut at = frames.iter_mut();
        self.chunks.chunks(&[Some(first.index), Some(part.index)], &mut |octets| {
            if let Some(place) = at.next() {
                *place = Some(octets);
            }
        });
        let [Some(to), Some(from)] = frames else { return None };
        let from = from.get(part.start..part.start.checked_add(more)?)?;
        to.get_mut(first.start + had..)?.get_mut(..more)?.copy_from_slice(from);
        Some(had + more)
    }

    /// Puts a datagram on a transmit ring as fragments: the first in its own frame, each other in another one. All or none.
    pub(super) fn stage_cut(
        &mut self,
        at: usize,
        index: u32,
        payload: Range<usize>,
        egress: &Egress,
        link: &Link,
        cut: Cut,
    ) -> Result<(), TransmitError> {
        let count = cut.count();
        if count > FRAGMENTS {
            return Err(TransmitError::Short);
        }
        self.make_room(at, u32::try_from(count).unwrap_or(u32::MAX))?;
        let mut packet =
            PacketBuf::new(self.chunks.chunk(index), payload).map_err(|_| TransmitError::Short)?;
        frame::emit_udp(&mut packet, egress.local, egress.remote).map_err(|_| TransmitError::Short)?;
        let datagram = packet.range().start;
        let identification = identify::next(egress.local.ip(), egress.remote.ip());
        let mut staged = [(index, 0, 0); FRAGMENTS];
        for nth in 0..count {
            let headers = |packet: &mut PacketBuf<'_>| {
                let fragment = cut.fragment(nth, identification)?;
                frame::emit_fragment(packet, link, egress.local.ip(), egress.remote.ip(), fragment)
            };
            let range = cut.range(nth);
            let octets = datagram + range.start..datagram + range.end;
            match self.stage_fragment(at, index, nth > 0, octets, headers) {
                Ok(place) => staged[nth] = place,
                Err(error) => {
                    self.unstage(at, staged.get(1..nth).unwrap_or_default());
                    return Err(error);
                }
            }
        }
        for (nth, (frame, start, end)) in staged.iter().enumerate().take(count) {
            if let Err(error) = self.push(at, *frame, *start..*end) {
                self.unstage(at, staged.get(nth.max(1)..count).unwrap_or_default());
                // There was room for all.
                self.counters.corrupt += 1;
                return if nth == 0 { Err(error) } else { Ok(()) };
            }
        }
        self.counters.fragment(egress.zone);
        Ok(())
    }

    /// Writes headers in front of octets of a frame, there or, where they are to be copied, in another one. Answers with
    /// frame, start and end.
    fn stage_fragment(
        &mut self,
        at: usize,
        index: u32,
        copied: bool,
        octets: Range<usize>,
        headers: impl FnOnce(&mut PacketBuf<'_>) -> Result<(), Short>,
    ) -> Result<(u32, usize, usize), TransmitError> {
        let owner = Owner::Transmit(name(at));
        let (frame, octets) = if copied {
            let frame = self.take_frame(owner)?;
            let from = Part { index, start: octets.start, length: Some(octets.len()) };
            let to = Part { index: frame, start: HEADROOM, length: Some(0) };
            if self.append(to, from).is_none() {
                self.pool.reclaim(owner, frame);
                return Err(TransmitError::Short);
            }
            (frame, HEADROOM..HEADROOM + octets.len())
        } else {
            (index, octets)
        };
        let written = PacketBuf::new(self.chunks.chunk(frame), octets).and_then(|mut packet| {
            headers(&mut packet)?;
            Ok(packet.range())
        });
        match written {
            Ok(Range { start, end }) => Ok((frame, start, end)),
            Err(Short) => {
                if copied {
                    self.pool.reclaim(owner, frame);
                }
                Err(TransmitError::Short)
            }
        }
    }

    /// A frame for one more fragment.
    fn take_frame(&mut self, owner: Owner) -> Result<u32, TransmitError> {
        if self.pool.census().free == 0 {
            self.reap();
        }
        self.pool.take(owner).ok_or_else(|| {
            self.counters.starved += 1;
            TransmitError::Full
        })
    }

    /// Frees frames that were to hold fragments.
    fn unstage(&mut self, at: usize, staged: &[(u32, usize, usize)]) {
        for (frame, ..) in staged {
            self.pool.reclaim(Owner::Transmit(name(at)), *frame);
        }
    }
}

#[cfg(test)]
mod tests;
