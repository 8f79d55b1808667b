//! Many datagrams for one system call: `recvmmsg` and `sendmmsg`, and what the system merges and cuts up for us (`UDP_GRO`,
//! `UDP_SEGMENT`).
//!
//! All `unsafe` of the UDP port is here. Not `nix`'s wrappers: theirs keep the address length of the last datagram, so
//! that an IPv6 source after an IPv4 one would be cut.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Datagrams of one system call at most.
pub(crate) const BATCH: usize = 64;
/// Octets that the system may put behind a slot where it merges: a whole IP packet.
pub(crate) const SPILL: usize = 1 << 16;
/// Datagrams that the system cuts one payload into at most (`UDP_MAX_SEGMENTS` of kernels before 6.9).
const SEGMENTS: usize = 64;
/// Octets of such a payload at most: an IPv4 packet less its headers.
const MERGED: usize = 65_507;
/// Octets of a control message that holds an integer, with its header, aligned.
const CONTROL: usize = 24;

/// A datagram, or several of one source that the system merged, in a slot and the spill behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// Octets in all.
    pub length: usize,
    /// Octets of each datagram but the last, which may be shorter; 0 where this is one.
    pub segment: usize,
    /// Whether there were more octets than room.
    pub truncated: bool,
    /// Where it came from; `None` where the system named no address of a family that we know.
    pub source: Option<SocketAddr>,
}

/// Why the first datagrams of a batch were not taken.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What the system said.
    pub error: io::Error,
    /// How many datagrams it said that of: more than one were merged.
    pub datagrams: usize,
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

/// Room for one control message.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

impl Control {
    const EMPTY: Self = Self([0; CONTROL]);

    /// "Cut this payload into datagrams of so many octets."
    fn segment(octets: u16) -> Self {
        let mut control = Self::EMPTY;
        let header = size_of::<libc::cmsghdr>();
        control.0[..8].copy_from_slice(&(header + size_of::<u16>()).to_ne_bytes());
        control.0[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        control.0[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        control.0[16..18].copy_from_slice(&octets.to_ne_bytes());
        control
    }

    /// Octets of each datagram, where `length` octets say that several were merged; else 0.
    fn merged(&self, length: usize) -> usize {
        let word = |at: usize| self.0[at..].first_chunk().map(|octets| i32::from_ne_bytes(*octets));
        let ours = word(8) == Some(libc::SOL_UDP) && word(12) == Some(libc::UDP_GRO);
        let octets = word(16).filter(|_| length >= 20 && ours).unwrap_or(0);
        usize::try_from(octets).unwrap_or(0)
    }
}

const _: () =
    assert!(size_of::<libc::cmsghdr>() == 16 && size_of::<usize>() == 8, "Control is laid out for 64 bits");

/// What the system calls point to; lives on the stack for one call, which is why it is no larger than needed.
struct Batch<const N: usize> {
    names: [Name; N],
    slices: [[libc::iovec; 2]; N],
    controls: [Control; N],
    headers: [libc::mmsghdr; N],
}

impl<const N: usize> Batch<N> {
    fn new() -> Self {
        let slice = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: integers and pointers, for which zeroes (null) are valid.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            names: [Name::empty(); N],
            slices: [[slice; 2]; N],
            controls: [Control::EMPTY; N],
            headers: [header; N],
        }
    }
}

fn slice(octets: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() }
}

fn slice_mut(octets: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: octets.len() }
}

fn result(count: libc::c_int) -> io::Result<usize> {
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Receives datagrams, without waiting, into the ranges `slots` of `buffers`: at most `N` or as many as there are slots.
/// Ranges outside the buffers end the list. `found` gets one entry per slot that was used, in their order. Where `spill` is
/// not empty, what does not fit into slot `n` goes on in its `n`th [`SPILL`] octets.
///
/// Fewer than asked for: the system has no more.
///
/// # Errors
/// The system's, `WouldBlock` where nothing is there.
pub(crate) fn receive<const N: usize>(
    fd: BorrowedFd<'_>,
    buffers: &mut [u8],
    spill: &mut [u8],
    slots: impl Iterator<Item = Range<usize>>,
    found: &mut [Incoming],
) -> io::Result<usize> {
    let mut batch = Batch::<N>::new();
    let mut spills = spill.chunks_exact_mut(SPILL);
    let mut count = 0;
    for slot in slots.take(N.min(found.len())) {
        let Some(slot) = buffers.get_mut(slot) else { break };
        batch.slices[count][0] = slice_mut(slot);
        let header = &mut batch.headers[count].msg_hdr;
        header.msg_iovlen = 1;
        if let Some(spill) = spills.next() {
            batch.slices[count][1] = slice_mut(spill);
            header.msg_iovlen = 2;
            header.msg_control = (&raw mut batch.controls[count]).cast();
            header.msg_controllen = CONTROL;
        }
        header.msg_iov = batch.slices[count].as_mut_ptr();
        header.msg_name = (&raw mut batch.names[count]).cast();
        header.msg_namelen = size_of::<Name>() as libc::socklen_t;
        count += 1;
    }
    let headers = batch.headers.as_mut_ptr();
    // SAFETY: `count` headers are set; each points to a name, a control buffer and slices in `batch`, which does not move,
    // and through the slices to parts of `buffers` and `spill` that no other slice covers where the caller's ranges are
    // apart; all outlive the call, are borrowed mutably for it, and may take any octets.
    let received = result(unsafe {
        libc::recvmmsg(fd.as_raw_fd(), headers, count as libc::c_uint, libc::MSG_DONTWAIT, ptr::null_mut())
    })?;
    let received = received.min(count);
    for (at, incoming) in found.iter_mut().enumerate().take(received) {
        let header = &batch.headers[at];
        *incoming = Incoming {
            length: header.msg_len as usize,
            segment: batch.controls[at].merged(header.msg_hdr.msg_controllen),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            source: batch.names[at].address(header.msg_hdr.msg_namelen as usize),
        };
    }
    Ok(received)
}

/// Sends one datagram, without waiting.
///
/// # Errors
/// The system's.
pub(crate) fn send_one(fd: BorrowedFd<'_>, octets: &[u8], destination: SocketAddr) -> io::Result<()> {
    let (name, length) = Name::new(destination);
    // SAFETY: the system reads `octets`, and of `name` as many octets as its family has; both outlive the call.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            octets.as_ptr().cast(),
            octets.len(),
            libc::MSG_DONTWAIT,
            (&raw const name).cast(),
            length as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends datagrams, without waiting: the given ranges of `buffers`, each to its address; at most [`BATCH`]. A range
/// outside the buffers ends the list. Those of equal length, `merge` octets at the most, that go to one address one behind the
/// other are given to the system as one payload, which it cuts up as late as it can: it does not make fragments of them. Returns how many were taken, 1 at least, and how
/// many of them as parts of one payload.
///
/// # Errors
/// The system's about the first datagrams, of which none was taken then.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    buffers: &[u8],
    datagrams: impl Iterator<Item = (Range<usize>, SocketAddr)>,
    merge: usize,
) -> Result<(usize, u64), Refused> {
    let mut batch = Batch::<BATCH>::new();
    let mut slices = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    // Of each message: where to, octets of its first datagram, octets in all, datagrams.
    let mut runs: [Option<Run>; BATCH] = [None; BATCH];
    let (mut messages, mut count) = (0usize, 0);
    for (range, destination) in datagrams.take(BATCH) {
        let Some(octets) = buffers.get(range) else { break };
        slices[count] = slice(octets);
        let last = messages.checked_sub(1).and_then(|last| runs[last].as_mut());
        match last.filter(|run| run.takes(destination, octets.len(), merge)) {
            Some(run) => run.add(octets.len()),
            None => {
                runs[messages] = Some(Run::new(destination, octets.len(), count));
                messages += 1;
            }
        }
        count += 1;
    }
    for (at, run) in runs.iter().flatten().enumerate() {
        let (name, length) = Name::new(run.destination);
        batch.names[at] = name;
        let header = &mut batch.headers[at].msg_hdr;
        header.msg_name = (&raw mut batch.names[at]).cast();
        header.msg_namelen = length as libc::socklen_t;
        header.msg_iov = &raw mut slices[run.first];
        header.msg_iovlen = run.datagrams;
        if run.datagrams > 1 {
            batch.controls[at] = Control::segment(u16::try_from(run.segment).unwrap_or(u16::MAX));
            header.msg_control = (&raw mut batch.controls[at]).cast();
            header.msg_controllen = CONTROL;
        }
    }
    let headers = batch.headers.as_mut_ptr();
    // SAFETY: as in `receive`, with the slices of one message side by side in `slices`; the kernel only reads what they
    // point to, so that a shared borrow suffices.
    let sent = result(unsafe {
        libc::sendmmsg(fd.as_raw_fd(), headers, messages as libc::c_uint, libc::MSG_DONTWAIT)
    });
    let datagrams = |messages: usize| runs.iter().take(messages).flatten().map(|run| run.datagrams);
    let merged = |messages: usize| datagrams(messages).filter(|count| *count > 1).sum::<usize>() as u64;
    match sent {
        Ok(messages) => Ok((datagrams(messages).sum(), merged(messages))),
        Err(error) => Err(Refused { error, datagrams: datagrams(1).sum() }),
    }
}

/// Datagrams that make one message.
#[derive(Clone, Copy)]
struct Run {
    destination: SocketAddr,
    /// Place of its first slice.
    first: usize,
    /// Octets of its first datagram.
    segment: usize,
    octets: usize,
    datagrams: usize,
}

impl Run {
    fn new(destination: SocketAddr, octets: usize, first: usize) -> Self {
        Self { destination, first, segment: octets, octets, datagrams: 1 }
    }

    /// Whether a datagram may follow: all are as long as the first, which has `most` octets at the most, but the last may be
    /// shorter, and none is empty.
    fn takes(&self, destination: SocketAddr, octets: usize, most: usize) -> bool {
        let whole = self.octets == self.segment * self.datagrams;
        let fits = self.datagrams < SEGMENTS && self.octets + octets <= MERGED;
        self.destination == destination
            && whole
            && fits
            && self.segment <= most
            && (1..=self.segment).contains(&octets)
    }

    fn add(&mut self, octets: usize) {
        self.octets += octets;
        self.datagrams += 1;
    }
}

/// Lets the system merge datagrams of one flow that came one behind the other, for [`receive`] with a spill. It merges
/// those whose checksum it verified only.
///
/// # Errors
/// `ENOPROTOOPT` of kernels before 5.0.
pub(crate) fn set_merging(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(fd, libc::SOL_UDP, libc::UDP_GRO, &on)
}

/// Lets `program` choose which socket of the group that shares an address (`SO_REUSEPORT`) a datagram goes to: the one
/// that was bound in the place that it returns. It sees the UDP payload, and the IP header at `SKF_NET_OFF`.
///
/// # Errors
/// The system's: `EINVAL` for a program that may not run, or a socket that shares with none.
pub(crate) fn set_steering(fd: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Marks what leaves by a socket of an address of that family (`v4`) with a DSCP, 0 to 63 (RFC 2474).
///
/// # Errors
/// The system's.
pub(crate) fn set_dscp(fd: BorrowedFd<'_>, v4: bool, dscp: u8) -> io::Result<()> {
    let (level, name) =
        if v4 { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
    set_option(fd, level, name, &(libc::c_int::from(dscp & 0x3f) << 2))
}

/// Has the system cut what leaves by a socket of an address of that family (`v4`) and is longer than the interface's MTU.
/// Routers may cut IPv4 further. What is said of paths with a lower MTU is not listened to (`IP_PMTUDISC_OMIT`): anybody can
/// forge it, and make us send small pieces or nothing.
///
/// # Errors
/// The system's.
pub(crate) fn set_fragmenting(fd: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    let (level, name, value) = if v4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)
    };
    set_option(fd, level, name, &value)
}

/// Lets the system hold so many octets of a TCP connection that were not sent yet; more is refused until they are.
///
/// # Errors
/// The system's.
pub(crate) fn set_unsent(fd: BorrowedFd<'_>, octets: u32) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &octets)
}

fn set_option<T>(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the system reads the octets of `value`, and where that is a program the instructions that it points to; both
    // are borrowed by the caller for longer than the call.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    result(done).map(|_| ())
}
