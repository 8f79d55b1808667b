//! What waits to be sent by sockets, and how much of it goes out with one system call.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::pool::place;
use crate::udp::{self, Refused};

/// An accepted datagram.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Slot of its socket.
    pub slot: usize,
    /// Keeps datagrams of one socket in order.
    pub sequence: u64,
    /// Its frame.
    pub index: u32,
    /// Its octets in the frame.
    pub octets: Range<usize>,
    /// Where to.
    pub remote: SocketAddr,
}

impl Queued {
    /// Its octets in the buffers of all frames, which have `size` each.
    fn range(&self, size: usize) -> Range<usize> {
        let start = place(self.index, size).start;
        start + self.octets.start..start + self.octets.end
    }
}

/// What became of datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// Sent or refused: done with.
    pub done: usize,
    /// Refused.
    pub refused: u64,
    /// Sent as parts of one payload.
    pub merged: u64,
}

/// The buffers of all frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffers<'a> {
    pub octets: &'a [u8],
    /// Octets of a frame.
    pub size: usize,
}

/// Sends `run`, datagrams of one socket in order, until the system takes no more. The system may be given several of no more
/// than `merges` octets as one payload; that becomes 0 where it cannot cut them up.
pub(crate) fn send(fd: BorrowedFd<'_>, buffers: Buffers<'_>, run: &[Queued], merges: &mut usize) -> Sent {
    let mut sent = Sent::default();
    // Up to here one by one, because the system does not take them together.
    let mut apart = 0;
    while let Some(rest) = run.get(sent.done..).filter(|rest| !rest.is_empty()) {
        let together = if sent.done >= apart { *merges } else { 0 };
        let rest = if sent.done < apart { &rest[..apart - sent.done] } else { rest };
        match send_some(fd, buffers, rest, together) {
            Ok((taken, merged)) => {
                sent.done += taken.clamp(1, rest.len());
                sent.merged += merged;
            }
            Err(Refused { error, datagrams }) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS) => break,
                Some(libc::EINTR) => {}
                error if datagrams > 1 => {
                    // EIO: the interface does no checksums, before 6.11. Else it is about these: the interface's MTU is another now.
                    *merges = if error == Some(libc::EIO) { 0 } else { *merges };
                    apart = sent.done + datagrams;
                }
                // This datagram cannot be sent (no route, too long); the next may go elsewhere.
                _ => {
                    sent.refused += 1;
                    sent.done += 1;
                }
            },
        }
    }
    sent
}

/// One system call; how many were taken, and how many of those as parts of one payload.
fn send_some(
    fd: BorrowedFd<'_>,
    buffers: Buffers<'_>,
    run: &[Queued],
    together: usize,
) -> Result<(usize, u64), Refused> {
    if let [queued] = run {
        // Each of most sockets, inside, has one packet to send: the plainest call is the fastest.
        let octets = buffers.octets.get(queued.range(buffers.size)).unwrap_or_default();
        let one = |error: io::Error| Refused { error, datagrams: 1 };
        return udp::send_one(fd, octets, queued.remote).map(|()| (1, 0)).map_err(one);
    }
    let datagrams = run.iter().map(|queued| (queued.range(buffers.size), queued.remote));
    udp::send(fd, buffers.octets, datagrams, together)
}
