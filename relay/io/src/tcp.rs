//! TCP connections of browsers that UDP does not reach: ICE-TCP, passive (RFC 6544), datagrams framed by RFC 4571.
//!
//! A connection is what a 5-tuple of UDP is otherwise, and knows nothing of calls: whose it is, its user says by sending
//! something back. Strangers have little of it: nothing of theirs is heard before a STUN binding request, which has to be answered
//! within seconds, and they are few, of one source and in all. What is sent waits a moment at the most.

mod framing;
mod guests;
mod outgoing;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use sallyport_wire::demux;
use sallyport_wire::stun::{self, Class};

use crate::udp;
use framing::{Piece, Unframer};
use guests::{Guests, Refused, Ticket};
use outgoing::{Gone, Outgoing};

/// Octets of the longest frame that is taken: what an Ethernet would carry. Longer ones are passed over.
pub const TCP_FRAME_MAX: usize = 1500;
/// Octets that one look reads of one connection: whoever sends without end takes turns with all others.
const READ: usize = 2 << 10;
/// Octets of the shortest frame that is taken: no protocol that comes here has less than RTP's header.
const FRAME_MIN: usize = 12;
/// Connections that one look takes, and events that it sees.
const LOOK: usize = 64;
/// Connections that the system holds for us until we look.
const BACKLOG: i32 = 256;
/// Unsent octets that the system holds of a connection: ten packets of voice. The rest waits with us, where it gets too old.
const UNSENT: u32 = 2048;
/// How long data may be on its way unacknowledged before the system gives the connection up, in milliseconds.
const UNACKNOWLEDGED: u32 = 20_000;
/// How long nobody is let in after the system had no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// How often ages are looked at.
const ROUND: Duration = Duration::from_millis(250);
/// Listeners have names from here on.
const LISTENERS: u64 = 1 << 32;

/// Our address and port, and the browser's.
pub type Pair = (SocketAddr, SocketAddr);

/// What connections are granted.
#[derive(Debug, Clone, Copy)]
pub struct TcpLimits {
    /// Connections at once.
    pub total: usize,
    /// Of one IPv4 address or IPv6 /64.
    pub of_source: usize,
    /// Connections that were not answered yet; the oldest makes room for another.
    pub unanswered: usize,
    /// Of one IPv4 address or IPv6 /64; another one is refused.
    pub unanswered_of_source: usize,
    /// How long one may be without an answer.
    pub patience: Duration,
    /// How long one that was answered may be without a frame, or without another answer.
    pub idle: Duration,
    /// How long one may take nothing of what is sent.
    pub stuck: Duration,
}

impl TcpLimits {
    /// For so many calls: a call that moves has two for a while.
    pub fn of_calls(calls: usize) -> Self {
        Self {
            total: 2 * calls + 256,
            of_source: 512,
            unanswered: 256,
            unanswered_of_source: 32,
            patience: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            stuck: Duration::from_secs(10),
        }
    }
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Connections taken.
    pub accepted: u64,
    /// Connections that have ended.
    pub closed: u64,
    /// Refused: there are enough, or no descriptor is left.
    pub refused_full: u64,
    /// Refused: there are enough of their source.
    pub refused_source: u64,
    /// Made room for another one before they were answered.
    pub evicted: u64,
    /// Closed: what came first was neither a STUN binding request with a user name nor media.
    pub stranger: u64,
    /// Closed: nothing came in time.
    pub silent: u64,
    /// Closed: nobody answered what came.
    pub unanswered: u64,
    /// Closed: nothing came, or nobody answered, any more.
    pub idle: u64,
    /// Closed: took nothing of what was sent.
    pub stuck: u64,
    /// Frames handed to the user.
    pub received: u64,
    /// Frames passed over: media before the first check.
    pub early: u64,
    /// Frames passed over: too long.
    pub too_long: u64,
    /// Frames passed over: too short for anything. Null packets are none.
    pub too_short: u64,
    /// Frames given to the system.
    pub sent: u64,
    /// Dropped: the connection has no room.
    pub full: u64,
    /// Dropped: waited too long for the connection to take more.
    pub late: u64,
    /// Dropped: there is no such connection any more.
    pub gone: u64,
}

impl TcpCounters {
    /// Names and values, names in snake case.
    pub fn named(&self) -> [(&'static str, u64); 18] {
        [
            ("tcp_accepted", self.accepted),
            ("tcp_closed", self.closed),
            ("tcp_refused_full", self.refused_full),
            ("tcp_refused_source", self.refused_source),
            ("tcp_evicted", self.evicted),
            ("tcp_ended_stranger", self.stranger),
            ("tcp_ended_silent", self.silent),
            ("tcp_ended_unanswered", self.unanswered),
            ("tcp_ended_idle", self.idle),
            ("tcp_ended_stuck", self.stuck),
            ("tcp_received", self.received),
            ("tcp_sent", self.sent),
            ("drop_tcp_early", self.early),
            ("drop_tcp_too_long", self.too_long),
            ("drop_tcp_too_short", self.too_short),
            ("drop_tcp_full", self.full),
            ("drop_tcp_late", self.late),
            ("drop_tcp_gone", self.gone),
        ]
    }
}

/// One connection.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    pair: Pair,
    unframer: Unframer,
    outgoing: Outgoing,
    opened: Instant,
    /// When the last frame came.
    heard: Option<Instant>,
    /// When something was last sent back.
    answered: Option<Instant>,
    /// Held until then.
    ticket: Option<Ticket>,
    /// Whether the system tells when it takes more.
    writable: bool,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Closed,
    Evicted,
    Stranger,
    Silent,
    Unanswered,
    Idle,
    Stuck,
}

/// All TCP connections, of any number of listeners. Nothing here blocks.
#[derive(Debug)]
pub struct TcpConnections {
    epoll: Epoll,
    listeners: Vec<(TcpListener, u8)>,
    slots: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    by_pair: HashMap<Pair, usize>,
    guests: Guests,
    limits: TcpLimits,
    counters: TcpCounters,
    room: Box<[u8]>,
    /// Pairs whose connection has ended after it had been answered, until their user has heard of it.
    ended: VecDeque<Pair>,
    /// Until when nobody is let in.
    paused: Option<Instant>,
    /// When ages are looked at.
    round: Option<Instant>,
}

impl TcpConnections {
    /// Without a listener yet.
    ///
    /// # Errors
    /// The system's, where it has no descriptor left.
    pub fn new(limits: TcpLimits) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            listeners: Vec::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            by_pair: HashMap::new(),
            guests: Guests::new(&limits),
            limits,
            counters: TcpCounters::default(),
            room: vec![0; 2 + TCP_FRAME_MAX + READ].into_boxed_slice(),
            ended: VecDeque::new(),
            paused: None,
            round: None,
        })
    }

    /// Lets connections in at an address, by one interface only where one is named; what leaves by them bears the DSCP. Port 0
    /// lets the system choose. Returns the address.
    ///
    /// # Errors
    /// The system's (address in use, not ours).
    pub fn listen(
        &mut self,
        address: SocketAddr,
        device: Option<&OsString>,
        dscp: u8,
    ) -> io::Result<SocketAddr> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        if let Some(device) = device {
            setsockopt(&socket, sockopt::BindToDevice, device)?;
        }
        // Connections of a former relay must not keep the next one out.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        let listener = TcpListener::from(socket);
        let local = listener.local_addr()?;
        let name = LISTENERS + self.listeners.len() as u64;
        self.epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, name))?;
        self.listeners.push((listener, dscp));
        Ok(local)
    }

    /// Readable while there is something to do.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// When [`TcpConnections::poll`] is due, whatever comes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.paused, self.round].into_iter().flatten().min()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> TcpCounters {
        self.counters
    }

    /// Lets connections in, hands their frames to `each` and sends what waits, each for a bounded time; while
    /// [`TcpConnections::descriptor`] is readable there is more.
    ///
    /// # Errors
    /// The system's, where nothing can be heard at all.
    pub fn poll(&mut self, now: Instant, each: &mut dyn FnMut(&Pair, &[u8])) -> io::Result<()> {
        self.grow_older(now);
        let mut events = [EpollEvent::empty(); LOOK];
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
        for event in events.get(..ready).unwrap_or_default() {
            match usize::try_from(event.data() % LISTENERS).unwrap_or(usize::MAX) {
                at if event.data() >= LISTENERS => self.accept(at, now),
                at => self.serve(at, event.events(), now, each),
            }
        }
        Ok(())
    }

    /// Sends a datagram by the connection of a pair: at once, or within a moment, or not at all, which is counted. Whoever is
    /// sent something counts as known.
    pub fn send(&mut self, pair: &Pair, datagram: &[u8], now: Instant) {
        let found = self.by_pair.get(pair).copied();
        let Some((at, connection)) = found.and_then(|at| Some((at, self.slots.get_mut(at)?.as_mut()?)))
        else {
            self.counters.gone += 1;
            return;
        };
        connection.answered = Some(now);
        if let Some(ticket) = connection.ticket.take() {
            self.guests.answered(pair.1.ip(), ticket);
        }
        let outcome = connection.outgoing.send(&mut connection.stream, datagram, now);
        self.account(at, outcome);
    }

    /// Whether a pair has a connection.
    pub fn has(&self, pair: &Pair) -> bool {
        self.by_pair.contains_key(pair)
    }

    /// The next pair whose connection has ended, of those that were sent something. To be asked behind each
    /// [`TcpConnections::poll`] and [`TcpConnections::send`].
    pub fn poll_ended(&mut self) -> Option<Pair> {
        self.ended.pop_front()
    }

    /// Counts what became of frames, and listens for room where some wait.
    fn account(&mut self, at: usize, outcome: io::Result<Gone>) {
        let Some(connection) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        let Ok(gone) = outcome else { return self.end(at, End::Closed) };
        self.counters.sent += gone.sent;
        self.counters.full += gone.full;
        self.counters.late += gone.late;
        let waits = connection.outgoing.waits();
        if waits != connection.writable {
            let mut event = EpollEvent::new(interest(waits), at as u64);
            connection.writable = waits;
            if self.epoll.modify(&connection.stream, &mut event).is_err() {
                self.end(at, End::Closed);
            }
        }
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        let Some((listener, dscp)) = self.listeners.get(listener) else { return };
        let dscp = *dscp;
        let mut arrived = Vec::new();
        for _ in 0..LOOK {
            match listener.accept() {
                Ok((stream, _)) => arrived.push(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Whoever gave up before we looked.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.counters.refused_full += 1;
                    self.pause(Some(now + PAUSE));
                    break;
                }
            }
        }
        for stream in arrived {
            self.admit(stream, dscp, now);
        }
    }

    fn admit(&mut self, stream: TcpStream, dscp: u8, now: Instant) {
        let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else { return };
        match self.guests.room(remote.ip()) {
            Ok(None) => {}
            Ok(Some(oldest)) => self.end(oldest, End::Evicted),
            Err(refused) => {
                match refused {
                    Refused::Full => self.counters.refused_full += 1,
                    Refused::Source => self.counters.refused_source += 1,
                }
                return reset(&stream);
            }
        }
        self.counters.accepted += 1;
        let at = self.vacant.pop().unwrap_or(self.slots.len());
        let fit = fit_out(&stream, local.is_ipv4(), dscp);
        let added =
            fit.and_then(|()| Ok(self.epoll.add(&stream, EpollEvent::new(interest(false), at as u64))?));
        let connection = Connection {
            stream,
            pair: (local, remote),
            unframer: Unframer::default(),
            outgoing: Outgoing::default(),
            opened: now,
            heard: None,
            answered: None,
            ticket: Some(self.guests.enter(remote.ip(), at)),
            writable: false,
        };
        if at == self.slots.len() {
            self.slots.push(None);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some(connection);
        }
        self.by_pair.insert((local, remote), at);
        self.round.get_or_insert(now + ROUND);
        if added.is_err() {
            self.end(at, End::Closed);
        }
    }

    /// Reads and writes as far as the system says it is possible.
    fn serve(&mut self, at: usize, ready: EpollFlags, now: Instant, each: &mut dyn FnMut(&Pair, &[u8])) {
        if ready.contains(EpollFlags::EPOLLOUT)
            && let Some(connection) = self.slots.get_mut(at).and_then(Option::as_mut)
        {
            let outcome = connection.outgoing.flush(&mut connection.stream, now);
            self.account(at, outcome);
        }
        let read = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP;
        if ready.intersects(read)
            && let Some(end) = self.read(at, now, each)
        {
            self.end(at, end);
        }
    }

    /// Reads once; why the connection ends, if it does.
    fn read(&mut self, at: usize, now: Instant, each: &mut dyn FnMut(&Pair, &[u8])) -> Option<End> {
        let connection = self.slots.get_mut(at)?.as_mut()?;
        let carried = connection.unframer.carried();
        let kept = carried.len();
        self.room.get_mut(..kept)?.copy_from_slice(carried);
        let read = match connection.stream.read(self.room.get_mut(kept..kept + READ)?) {
            Ok(0) => return Some(End::Closed),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return None;
            }
            Err(_) => return Some(End::Closed),
        };
        let mut octets = self.room.get(..kept + read)?;
        while let Some(piece) = connection.unframer.next(&mut octets, TCP_FRAME_MAX) {
            let frame = match piece {
                Piece::Frame(frame) => frame,
                Piece::TooLong if connection.heard.is_some() => {
                    self.counters.too_long += 1;
                    continue;
                }
                Piece::TooLong => return Some(End::Stranger),
            };
            if connection.heard.is_none() && !is_check(frame) {
                if !is_media(frame) {
                    return Some(End::Stranger);
                }
                // Chromium does so where a connection takes another one's place.
                self.counters.early += 1;
                continue;
            }
            connection.heard = Some(now);
            if frame.len() >= FRAME_MIN {
                self.counters.received += 1;
                each(&connection.pair, frame);
            } else {
                self.counters.too_short += u64::from(!frame.is_empty());
            }
        }
        connection.unframer.keep(octets);
        None
    }

    fn end(&mut self, at: usize, end: End) {
        let Some(connection) = self.slots.get_mut(at).and_then(Option::take) else { return };
        // Closing alone would do, but for events that were fetched already: their slot is empty then.
        let _ = self.epoll.delete(&connection.stream);
        // A successor from the same address may have its place by now.
        if self.by_pair.get(&connection.pair) == Some(&at) {
            self.by_pair.remove(&connection.pair);
        }
        self.vacant.push(at);
        self.guests.leave(connection.pair.1.ip(), connection.ticket);
        self.counters.closed += 1;
        if connection.answered.is_some() {
            self.ended.push_back(connection.pair);
        }
        match end {
            End::Closed => {}
            End::Evicted => self.counters.evicted += 1,
            End::Stranger => self.counters.stranger += 1,
            End::Silent => self.counters.silent += 1,
            End::Unanswered => self.counters.unanswered += 1,
            End::Idle => self.counters.idle += 1,
            End::Stuck => self.counters.stuck += 1,
        }
        if !matches!(end, End::Closed) {
            reset(&connection.stream);
        }
    }

    /// Ends what is too old.
    fn grow_older(&mut self, now: Instant) {
        if self.paused.is_some_and(|until| until <= now) {
            self.pause(None);
        }
        if self.round.is_none_or(|round| round > now) {
            return;
        }
        for at in 0..self.slots.len() {
            let connection = self.slots.get(at).and_then(Option::as_ref);
            if let Some(end) = connection.and_then(|connection| connection.ends(&self.limits, now)) {
                self.end(at, end);
            }
        }
        self.round = (!self.by_pair.is_empty()).then(|| now + ROUND);
    }

    /// Lets nobody in until then, or everybody again.
    fn pause(&mut self, until: Option<Instant>) {
        self.paused = until;
        let events = if until.is_some() { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
        for (at, (listener, _)) in self.listeners.iter().enumerate() {
            let mut event = EpollEvent::new(events, LISTENERS + at as u64);
            // It was added before; a failure lets it be as it is.
            let _ = self.epoll.modify(listener, &mut event);
        }
    }
}

impl Connection {
    /// Why it has to end now, if it has.
    fn ends(&self, limits: &TcpLimits, now: Instant) -> Option<End> {
        let past = |since: Instant, longest: Duration| now.saturating_duration_since(since) >= longest;
        let Some(answered) = self.answered else {
            let end = if self.heard.is_some() { End::Unanswered } else { End::Silent };
            return past(self.opened, limits.patience).then_some(end);
        };
        if self.outgoing.stuck().is_some_and(|since| past(since, limits.stuck)) {
            return Some(End::Stuck);
        }
        let quiet = past(answered, limits.idle) || past(self.heard.unwrap_or(self.opened), limits.idle);
        quiet.then_some(End::Idle)
    }
}

/// What the system is to tell of a connection.
fn interest(writable: bool) -> EpollFlags {
    let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
    if writable { events | EpollFlags::EPOLLOUT } else { events }
}

/// Whether it asks who we are as ICE does (RFC 8445 section 7.2.2).
fn is_check(frame: &[u8]) -> bool {
    stun::Message::parse(frame).is_ok_and(|message| {
        message.class() == Class::Request
            && message.method() == stun::BINDING
            && message.attribute(stun::USERNAME).is_some()
    })
}

/// Whether it could be what a browser sends to one whom it knows.
fn is_media(frame: &[u8]) -> bool {
    matches!(demux::classify(frame), demux::Kind::Dtls | demux::Kind::Rtp | demux::Kind::Rtcp)
}

/// Options of a connection: packets leave at once, and do not pile up in the system.
fn fit_out(stream: &TcpStream, v4: bool, dscp: u8) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED)?;
    udp::set_unsent(stream.as_fd(), UNSENT)?;
    udp::set_dscp(stream.as_fd(), v4, dscp)
}

/// Closed by a reset: what we close first would stay with the system for a minute.
fn reset(stream: &TcpStream) {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = setsockopt(stream, sockopt::Linger, &now);
}

#[cfg(test)]
mod tests;
