//! AF_XDP's system calls and shared memory: the kernel's documentation networking/af_xdp and its header `linux/if_xdp.h`.
//!
//! All `unsafe` of the AF_XDP port is here; what to do with the rings is decided in `engine`, how to open them in `open`.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::engine::{Chunks, KernelCounters, Socket};
use crate::port::HEADROOM;
use crate::ring::{Descriptor, Memory};

/// Octets that the kernel leaves free in front of each received frame by itself (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM: usize = 256;

/// Octets of a huge page on most machines. Others refuse the mapping, and have ordinary pages.
const HUGE_PAGE: usize = 2 << 20;

/// Packets that one call may have the driver take up, polling busily.
const BUSY_BUDGET: libc::c_int = 64;
/// Microseconds that a call may wait for the driver, polling busily: it is asked again at once.
const BUSY_WAIT: libc::c_int = 1;

/// Socket option: descriptors that one `sendto` takes in copy mode. Since Linux 6.17; too new for `libc`.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Flag of a binding: packets longer than a frame come in several. Since Linux 6.6; too new for `libc`.
const XDP_USE_SG: u16 = 1 << 4;

/// How sockets of one memory are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct How {
    /// The kernel copies, even where the driver could work on the memory itself.
    pub copy: bool,
    /// Packets may come in several parts.
    pub parts: bool,
}

/// A shared mapping, unmapped on drop.
#[derive(Debug)]
struct Mapping {
    base: NonNull<c_void>,
    length: usize,
}

// SAFETY: the mapping is memory of the process, not of a thread; its owner decides who touches it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps at least `length` anonymous octets, zeroed, in huge pages where the system has them: set aside, or of its own
    /// accord (transparent ones). Thousands of frames in small pages cost more in looking up addresses than the rest of
    /// receiving does. Also tells whether there are any.
    fn anonymous(length: usize) -> io::Result<(Self, bool)> {
        let huge = length.checked_next_multiple_of(HUGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        if let Ok(mapping) = Self::map(huge, None, shared | libc::MAP_HUGETLB) {
            return Ok((mapping, true));
        }
        // Shared pages would be huge only where shared memory is set up so.
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if let Ok(mapping) = Self::map(huge, None, private)
            && mapping.advise(libc::MADV_HUGEPAGE)
            // After a fork a private page would be copied on write, and the kernel would go on with the other copy.
            && mapping.advise(libc::MADV_DONTFORK)
            && mapping.advise(libc::MADV_POPULATE_WRITE)
        {
            return Ok((mapping, true));
        }
        Ok((Self::map(length, None, shared)?, false))
    }

    /// Gives the kernel an advice on all of the mapping; whether it took it.
    fn advise(&self, advice: libc::c_int) -> bool {
        // SAFETY: none of the advices given here changes an octet of the mapping, which is ours and whole.
        unsafe { libc::madvise(self.base.as_ptr(), self.length, advice) == 0 }
    }

    /// Maps `length` octets of a socket's ring at an offset.
    fn new(length: usize, fd: BorrowedFd<'_>, offset: u64) -> io::Result<Self> {
        Self::map(length, Some((fd, offset)), libc::MAP_SHARED | libc::MAP_POPULATE)
    }

    fn map(length: usize, of: Option<(BorrowedFd<'_>, u64)>, flags: libc::c_int) -> io::Result<Self> {
        let (fd, offset) = of.map_or((-1, 0), |(fd, offset)| (fd.as_raw_fd(), offset));
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory that is in use.
        let base = unsafe {
            libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, length })
    }

    /// Pointer to `count` values of `T` at an offset, where they lie within the mapping and are aligned.
    fn at<T>(&self, offset: u64, count: usize) -> io::Result<NonNull<T>> {
        let wrong = || {
            io::Error::new(io::ErrorKind::InvalidData, "the kernel's ring layout does not fit its mapping")
        };
        let offset = usize::try_from(offset).map_err(|_| wrong())?;
        let end = count.checked_mul(size_of::<T>()).and_then(|octets| octets.checked_add(offset));
        if end.is_none_or(|end| end > self.length) || !offset.is_multiple_of(align_of::<T>()) {
            return Err(wrong());
        }
        // SAFETY: the offset is within the mapping, as just checked.
        Ok(unsafe { self.base.byte_add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whole, and pointers into it live only in structures that own it.
        unsafe { libc::munmap(self.base.as_ptr(), self.length) };
    }
}

/// The octets of all frames. The kernel pins the pages while a socket uses them, so the order of dropping is free.
#[derive(Debug)]
pub(crate) struct Umem {
    mapping: Mapping,
    base: NonNull<u8>,
    frames: u32,
    /// Octets of a frame.
    size: usize,
    huge: bool,
    /// By frame, the last turn of [`Chunks::chunks`] that lent it.
    lent: Box<[u32]>,
    turn: u32,
}

// SAFETY: `base` points into the mapping, which may move between threads and is owned by the same structure.
unsafe impl Send for Umem {}

impl Umem {
    /// Maps zeroed memory for `frames` frames of `size` octets, which no core dump will hold: it carries media in the clear.
    pub fn new(frames: u32, size: usize) -> io::Result<Self> {
        let length = (frames as usize).checked_mul(size).ok_or(io::ErrorKind::OutOfMemory)?;
        let (mapping, huge) = Mapping::anonymous(length)?;
        let base = mapping.at(0, length)?;
        // It may be refused.
        mapping.advise(libc::MADV_DONTDUMP);
        let lent = vec![0; frames as usize].into_boxed_slice();
        Ok(Self { mapping, base, frames, size, huge, lent, turn: 0 })
    }

    /// Whether it lies in huge pages, as far as the system has them.
    pub fn is_huge(&self) -> bool {
        self.huge
    }
}

impl Chunks for Umem {
    fn chunk(&mut self, index: u32) -> &mut [u8] {
        if index >= self.frames {
            return &mut [];
        }
        // SAFETY: the chunk lies in the mapping, which lives as long as `self`, and is initialised (zeroes at first).
        // No other reference to it exists, since this one borrows all of `self`; the kernel does not touch it, since
        // the engine asks only for chunks that its pool says are not the kernel's.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(index as usize * self.size).as_ptr(), self.size)
        }
    }

    fn chunks<'a>(&'a mut self, names: &[Option<u32>], each: &mut dyn FnMut(&'a mut [u8])) {
        self.turn = self.turn.wrapping_add(1);
        if self.turn == 0 {
            // The marks of 2^32 turns ago must not look like this one's.
            self.lent.fill(0);
            self.turn = 1;
        }
        for name in names {
            let lent = name.and_then(|index| Some((index, self.lent.get_mut(index as usize)?)));
            let Some((index, lent)) = lent.filter(|(_, lent)| **lent != self.turn) else {
                each(&mut []);
                continue;
            };
            *lent = self.turn;
            // SAFETY: there are as many marks as frames, so the chunk lies in the mapping, which lives as long as `self`,
            // and is initialised. The references handed out here borrow all of `self`, and the mark says that none of them
            // is to this chunk yet; the kernel does not touch it, since the engine asks only for chunks that its pool says
            // are not the kernel's.
            each(unsafe {
                let chunk = self.base.add(index as usize * self.size);
                std::slice::from_raw_parts_mut(chunk.as_ptr(), self.size)
            });
        }
    }

    fn frame_size(&self) -> usize {
        self.size
    }

    fn fetch(&self, address: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let at = self.base.as_ptr().cast::<i8>().wrapping_add(usize::try_from(address).unwrap_or(0));
            // The program's metadata lie in front of a packet, its headers and the beginning of its payload behind.
            for line in [at.wrapping_sub(64), at, at.wrapping_add(64)] {
                // SAFETY: a hint that reads nothing, wherever it points.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
            }
        }
        let _ = address;
    }
}

/// Which side of a ring is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Producer,
    Consumer,
}

/// One mapped ring with entries of type `T`.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    /// Owns what the pointers point into.
    _mapping: Mapping,
    ours: NonNull<AtomicU32>,
    theirs: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
}

// SAFETY: the pointers point into the mapping, which may move between threads and is owned by the same structure; the
// entries are plain numbers.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    fn new(
        fd: BorrowedFd<'_>,
        page: u64,
        layout: &libc::xdp_ring_offset,
        size: u32,
        side: Side,
    ) -> io::Result<Self> {
        let length = usize::try_from(layout.desc).map_err(|_| io::ErrorKind::InvalidData)?;
        let mapping = Mapping::new(length + size as usize * size_of::<T>(), fd, page)?;
        let (ours, theirs) = match side {
            Side::Producer => (layout.producer, layout.consumer),
            Side::Consumer => (layout.consumer, layout.producer),
        };
        Ok(Self {
            ours: mapping.at(ours, 1)?,
            theirs: mapping.at(theirs, 1)?,
            flags: mapping.at(layout.flags, 1)?,
            entries: mapping.at(layout.desc, size as usize)?,
            size,
            _mapping: mapping,
        })
    }

    fn entry(&self, slot: u32) -> NonNull<T> {
        // SAFETY: the size is a power of two, so the masked slot is below it, and `new` checked that so many entries
        // lie in the mapping.
        unsafe { self.entries.add((slot & (self.size - 1)) as usize) }
    }
}

impl<T: Copy> Memory for Ring<T> {
    type Entry = T;

    fn size(&self) -> u32 {
        self.size
    }

    fn theirs(&self) -> u32 {
        // SAFETY: `new` checked place and alignment; both sides access the word atomically only.
        unsafe { self.theirs.as_ref() }.load(Ordering::Acquire)
    }

    fn publish(&mut self, ours: u32) {
        // SAFETY: as in `theirs`.
        unsafe { self.ours.as_ref() }.store(ours, Ordering::Release);
    }

    fn read(&self, slot: u32) -> T {
        // SAFETY: the place is valid; the other side does not write to a slot between our acquiring its cursor and our
        // publishing ours, and `T` is a plain number or a structure of such: any bits are valid.
        unsafe { self.entry(slot).read() }
    }

    fn write(&mut self, slot: u32, entry: T) {
        // SAFETY: the place is valid; the other side does not look at a slot before we publish our cursor behind it.
        unsafe { self.entry(slot).write(entry) }
    }

    fn wants_wakeup(&self) -> bool {
        // SAFETY: as in `theirs`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Structures of the kernel that are plain numbers.
///
/// # Safety
/// Any bits are a valid value.
unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: integers only, by its definition in `linux/if_xdp.h`.
unsafe impl Plain for libc::xdp_umem_reg {}
// SAFETY: integers only, by its definition in `linux/if_xdp.h`.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: integers only, by its definition in `linux/if_xdp.h`.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: integers only, by its definition in `linux/if_xdp.h`.
unsafe impl Plain for libc::xdp_options {}

/// Sizes of a socket's rings, powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub fill: u32,
    pub completion: u32,
    pub receive: u32,
    pub transmit: u32,
}

/// The four rings of a socket.
#[derive(Debug)]
pub(crate) struct Rings {
    pub fill: Ring<u64>,
    pub completion: Ring<u64>,
    pub receive: Ring<Descriptor>,
    pub transmit: Ring<Descriptor>,
}

/// An AF_XDP socket.
#[derive(Debug)]
pub(crate) struct Xsk {
    fd: OwnedFd,
}

impl Xsk {
    /// A socket without memory or rings. Needs CAP_NET_RAW.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, valid, and nobody else's.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    fn set<T: Plain>(&self, option: libc::c_int, value: T) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel reads `length` octets of a live value.
        let result = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_XDP, option, (&raw const value).cast(), length)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn get<T: Plain>(&self, option: libc::c_int) -> io::Result<T> {
        // SAFETY: any bits are a valid `T`.
        let mut value: T = unsafe { std::mem::zeroed() };
        let mut length =
            libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel writes at most `length` octets to a live value for which any bits are valid.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_XDP,
                option,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
    }

    /// Makes the memory this socket's. ENOBUFS: above the limit of locked memory, without CAP_IPC_LOCK.
    pub fn register(&self, umem: &Umem) -> io::Result<()> {
        let chunk_size = u32::try_from(umem.size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let headroom = u32::try_from(HEADROOM - KERNEL_HEADROOM).map_err(|_| io::ErrorKind::InvalidInput)?;
        let addr = umem.base.as_ptr().expose_provenance() as u64;
        let registration = libc::xdp_umem_reg {
            addr,
            len: umem.mapping.length as u64,
            chunk_size,
            headroom,
            flags: 0,
            tx_metadata_len: 0,
        };
        self.set(libc::XDP_UMEM_REG, registration)
    }

    /// Creates and maps the rings.
    pub fn rings(&self, sizes: Sizes) -> io::Result<Rings> {
        self.set(libc::XDP_UMEM_FILL_RING, sizes.fill)?;
        self.set(libc::XDP_UMEM_COMPLETION_RING, sizes.completion)?;
        self.set(libc::XDP_RX_RING, sizes.receive)?;
        self.set(libc::XDP_TX_RING, sizes.transmit)?;
        // Only older kernels refuse it, and then take 32 at a time.
        let _ = self.set(XDP_MAX_TX_SKB_BUDGET, sizes.transmit.min(256));
        let at: libc::xdp_mmap_offsets = self.get(libc::XDP_MMAP_OFFSETS)?;
        let fd = self.fd.as_fd();
        let page = |offset: libc::off_t| offset.unsigned_abs();
        Ok(Rings {
            fill: Ring::new(fd, libc::XDP_UMEM_PGOFF_FILL_RING, &at.fr, sizes.fill, Side::Producer)?,
            completion: Ring::new(
                fd,
                libc::XDP_UMEM_PGOFF_COMPLETION_RING,
                &at.cr,
                sizes.completion,
                Side::Consumer,
            )?,
            receive: Ring::new(fd, page(libc::XDP_PGOFF_RX_RING), &at.rx, sizes.receive, Side::Consumer)?,
            transmit: Ring::new(fd, page(libc::XDP_PGOFF_TX_RING), &at.tx, sizes.transmit, Side::Producer)?,
        })
    }

    /// Binds to a queue, once. `first`: the socket that registered the memory, where it was another; its flags hold then.
    pub fn bind(&self, ifindex: u32, queue: u32, how: How, first: Option<&Self>) -> io::Result<()> {
        let copy = if how.copy { libc::XDP_COPY } else { 0 };
        let parts = if how.parts { XDP_USE_SG } else { 0 };
        let (flags, shared) = match first {
            Some(first) => (libc::XDP_SHARED_UMEM, first.fd.as_raw_fd()),
            None => (libc::XDP_USE_NEED_WAKEUP | copy | parts, 0),
        };
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let address = libc::sockaddr_xdp {
            sxdp_family: u16::try_from(libc::AF_XDP).map_err(|_| invalid())?,
            sxdp_flags: flags,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: u32::try_from(shared).map_err(|_| invalid())?,
        };
        let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| invalid())?;
        // SAFETY: the kernel reads `length` octets of a live address of the socket's family.
        let result = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Has the driver's queue taken up by our own calls instead of by interrupts; whether the driver does that.
    pub fn poll_busily(&self) -> bool {
        let fd = self.fd.as_raw_fd();
        let set = |option: libc::c_int, value: libc::c_int| {
            let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
            // SAFETY: the kernel reads `length` octets of a live integer.
            unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const value).cast(), length) == 0 }
        };
        let set = set(libc::SO_PREFER_BUSY_POLL, 1)
            && set(libc::SO_BUSY_POLL, BUSY_WAIT)
            && set(libc::SO_BUSY_POLL_BUDGET, BUSY_BUDGET);
        set && self.napi() != 0
    }

    /// The driver's queue, by the kernel's number; 0 where it tells none.
    fn napi(&self) -> libc::c_int {
        let mut value: libc::c_int = 0;
        let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
        // SAFETY: the kernel writes at most `length` octets to a live integer.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_INCOMING_NAPI_ID,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        if result == 0 { value } else { 0 }
    }

    /// Whether the driver works on the memory itself.
    pub fn zero_copy(&self) -> bool {
        let options = self.get::<libc::xdp_options>(libc::XDP_OPTIONS);
        options.is_ok_and(|options| options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }
}

impl Socket for Xsk {
    type Addresses = Ring<u64>;
    type Descriptors = Ring<Descriptor>;

    fn kick(&self) -> io::Result<()> {
        // SAFETY: no octets and no address are passed.
        let result =
            unsafe { libc::sendto(self.fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn wake(&self) {
        // An error says that nothing can be received now; the next call tries again.
        // SAFETY: no octets are asked for and no address.
        let _ = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
    }

    fn counters(&self) -> KernelCounters {
        let Ok(counted) = self.get::<libc::xdp_statistics>(libc::XDP_STATISTICS) else {
            return KernelCounters::default();
        };
        KernelCounters {
            starved: counted.rx_fill_ring_empty_descs,
            dropped: counted.rx_dropped + counted.rx_ring_full,
            invalid: counted.rx_invalid_descs + counted.tx_invalid_descs,
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What `ETHTOOL_GRXFH` and `ETHTOOL_SRXFH` take: by which fields of a kind of flow a card chooses the RX queue.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct HashFields {
    pub command: u32,
    pub kind: u32,
    pub fields: u64,
}

/// Asks or tells the card of an interface.
///
/// # Errors
/// The system's; `InvalidInput` for what cannot be the name of an interface.
pub(crate) fn hash_fields(interface: &str, request: &mut HashFields) -> io::Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    // Any socket of the network namespace will do.
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    // SAFETY: an integer array and a union of integers and a pointer, for all of which zeroes are valid.
    let mut asked: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= asked.ifr_name.len() || interface.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in asked.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    asked.ifr_ifru.ifru_data = ptr::from_mut(request).cast();
    // SAFETY: the name ends with a null, and `request` has the size that the kernel reads and writes for the two commands that
    // it is made with; both outlive the call. For these commands the kernel takes the structure as it was before it grew.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut asked) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::FRAME_SIZE;

    #[test]
    fn several_chunks_are_lent_in_the_order_asked_for_and_none_twice() {
        let mut umem = Umem::new(4, FRAME_SIZE).unwrap();
        for frame in 0..4u8 {
            umem.chunk(frame.into()).fill(frame);
        }
        // The second time around as well, and when the turns begin anew.
        for turn in [0, 1, u32::MAX - 1, u32::MAX] {
            umem.turn = turn;
            let mut seen = Vec::new();
            let names = [Some(3), Some(0), None, Some(4), Some(2), Some(0), Some(u32::MAX)];
            umem.chunks(&names, &mut |octets| seen.push((octets.len(), octets.first().copied())));
            let whole = |frame| (FRAME_SIZE, Some(frame));
            let wanted = [whole(3), whole(0), (0, None), (0, None), whole(2), (0, None), (0, None)];
            assert_eq!(seen, wanted, "turn {turn}");
        }
    }
}
