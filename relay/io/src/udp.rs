//! Many datagrams for one system call: `recvmmsg` and `sendmmsg`.
//!
//! All `unsafe` of the UDP port is here. Not `nix`'s wrappers: theirs keep the address length of the last datagram, so
//! that an IPv6 source after an IPv4 one would be cut.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Datagrams of one system call at most.
pub(crate) const BATCH: usize = 32;

/// A datagram in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// Octets in the slot.
    pub length: usize,
    /// Whether the datagram was longer than the slot.
    pub truncated: bool,
    /// Where it came from; `None` where the system named no address of a family that we know.
    pub source: Option<SocketAddr>,
}

/// Room for either family's address, aligned for both.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    /// No address.
    fn empty() -> Self {
        // SAFETY: integers only, for which zeroes are valid.
        unsafe { std::mem::zeroed() }
    }

    /// The system's form of an address and its length.
    fn new(address: SocketAddr) -> (Self, usize) {
        let mut name = Self::empty();
        match address {
            SocketAddr::V4(address) => {
                name.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                    sin_zero: [0; 8],
                };
                (name, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(address) => {
                name.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
                (name, size_of::<libc::sockaddr_in6>())
            }
        }
    }

    /// The address, where it is one of `length` octets.
    fn address(&self, length: usize) -> Option<SocketAddr> {
        // SAFETY: all fields are integers in fully initialised memory, so that any of them may be read.
        let (family, v4, v6) = unsafe { (self.family, self.v4, self.v6) };
        if family == libc::AF_INET as libc::sa_family_t && length >= size_of_val(&v4) {
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            return Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into());
        }
        if family == libc::AF_INET6 as libc::sa_family_t && length >= size_of_val(&v6) {
            let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
            return Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into());
        }
        None
    }
}

/// What the system calls point to; lives on the stack for one call.
struct Batch {
    names: [Name; BATCH],
    slices: [libc::iovec; BATCH],
    headers: [libc::mmsghdr; BATCH],
}

impl Batch {
    fn new() -> Self {
        let slice = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: integers and pointers, for which zeroes (null) are valid.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self { names: [Name::empty(); BATCH], slices: [slice; BATCH], headers: [header; BATCH] }
    }

    /// Sets message `at`. Pointers to `self` are set by [`Batch::link`], when nothing moves any more.
    fn set(&mut self, at: usize, base: *mut u8, octets: usize, name: Name, name_length: usize) {
        self.slices[at] = libc::iovec { iov_base: base.cast(), iov_len: octets };
        self.names[at] = name;
        self.headers[at].msg_hdr.msg_namelen = name_length as libc::socklen_t;
    }

    /// Points the first `count` headers to their names and slices.
    fn link(&mut self, count: usize) -> *mut libc::mmsghdr {
        for at in 0..count {
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = (&raw mut self.names[at]).cast();
            header.msg_iov = &raw mut self.slices[at];
            header.msg_iovlen = 1;
        }
        self.headers.as_mut_ptr()
    }
}

fn result(count: libc::c_int) -> io::Result<usize> {
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Receives datagrams, without waiting, into the ranges `slots` of `buffers`: at most [`BATCH`] or as many as there are
/// slots. Ranges outside the buffers end the list. `found` gets one entry per datagram, in the order of the slots.
///
/// # Errors
/// The system's, `WouldBlock` where nothing is there.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffers: &mut [u8],
    slots: impl Iterator<Item = Range<usize>>,
    found: &mut [Incoming; BATCH],
) -> io::Result<usize> {
    let mut batch = Batch::new();
    let mut count = 0;
    for slot in slots.take(BATCH) {
        let Some(slot) = buffers.get_mut(slot) else { break };
        batch.set(count, slot.as_mut_ptr(), slot.len(), Name::empty(), size_of::<Name>());
        count += 1;
    }
    let headers = batch.link(count);
    // SAFETY: `count` headers are set; each points to a name and a slice in `batch`, and through it to a part of
    // `buffers`, all of which outlive the call; `buffers` is borrowed mutably for it, and octets may take any value.
    let received = result(unsafe {
        libc::recvmmsg(fd.as_raw_fd(), headers, count as libc::c_uint, libc::MSG_DONTWAIT, ptr::null_mut())
    })?;
    for (at, incoming) in found.iter_mut().enumerate().take(received) {
        let header = &batch.headers[at];
        *incoming = Incoming {
            length: (header.msg_len as usize).min(batch.slices[at].iov_len),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            source: batch.names[at].address(header.msg_hdr.msg_namelen as usize),
        };
    }
    Ok(received.min(BATCH))
}

/// Sends datagrams, without waiting: the given ranges of `buffers`, each to its address; at most [`BATCH`]. A range
/// outside the buffers ends the list. Returns how many were taken, 1 at least.
///
/// # Errors
/// The system's about the first datagram, of which none was taken then.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    buffers: &[u8],
    datagrams: impl Iterator<Item = (Range<usize>, SocketAddr)>,
) -> io::Result<usize> {
    let mut batch = Batch::new();
    let mut count = 0;
    for (range, destination) in datagrams.take(BATCH) {
        let Some(octets) = buffers.get(range) else { break };
        let (name, length) = Name::new(destination);
        batch.set(count, octets.as_ptr().cast_mut(), octets.len(), name, length);
        count += 1;
    }
    let headers = batch.link(count);
    // SAFETY: as in `receive`; the kernel only reads what the slices point to, so that a shared borrow suffices.
    result(unsafe { libc::sendmmsg(fd.as_raw_fd(), headers, count as libc::c_uint, libc::MSG_DONTWAIT) })
}
