use std::io::{Read, Write};
use std::net::Shutdown;

use sallyport_wire::stun::Builder;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn limits() -> TcpLimits {
    TcpLimits { unanswered: 4, ..TcpLimits::of_calls(10) }
}

/// Connections of loopback and the time that they believe in.
struct Host {
    connections: TcpConnections,
    address: SocketAddr,
    now: Instant,
    heard: Vec<(Pair, Vec<u8>)>,
}

impl Host {
    fn new(limits: TcpLimits) -> Self {
        let mut connections = TcpConnections::new(limits).unwrap();
        let address = connections.listen(SocketAddr::from(([127, 0, 0, 1], 0)), None, 46).unwrap();
        Self { connections, address, now: Instant::now(), heard: Vec::new() }
    }

    fn poll(&mut self) {
        let heard = &mut self.heard;
        let mut each = |pair: &Pair, frame: &[u8]| heard.push((*pair, frame.to_vec()));
        self.connections.poll(self.now, &mut each).unwrap();
    }

    /// Until the counters are so.
    #[track_caller]
    fn until(&mut self, done: impl Fn(&TcpCounters) -> bool) {
        let end = Instant::now() + SOON;
        while !done(&self.connections.counters) {
            assert!(Instant::now() < end, "{:?}", self.connections.counters);
            self.poll();
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// A browser that was answered.
    fn guest(&mut self) -> (TcpStream, Pair) {
        let mut stream = self.connect();
        stream.write_all(&framed(&check())).unwrap();
        let received = self.connections.counters.received;
        self.until(|counters| counters.received > received);
        let (pair, frame) = self.heard.pop().unwrap();
        assert_eq!((pair, frame), ((self.address, stream.local_addr().unwrap()), check()));
        self.connections.send(&pair, b"answer", self.now);
        assert_eq!(hear(&mut stream), b"answer");
        (stream, pair)
    }

    fn open(&self) -> usize {
        let counters = self.connections.counters;
        usize::try_from(counters.accepted - counters.closed).unwrap()
    }

    /// Nothing is left of anybody.
    fn is_empty(&self) -> bool {
        let TcpConnections { slots, vacant, by_pair, .. } = &self.connections;
        slots.iter().all(Option::is_none)
            && vacant.len() == slots.len()
            && by_pair.is_empty()
            && self.open() == 0
    }
}

fn check() -> Vec<u8> {
    let mut room = [0; 128];
    let builder = Builder::new(&mut room, Class::Request, stun::BINDING, *b"transaction!").unwrap();
    let length = builder.attribute(stun::USERNAME, &[b"ours:theirs"]).unwrap().finish();
    room[..length].to_vec()
}

fn framed(datagram: &[u8]) -> Vec<u8> {
    [&u16::try_from(datagram.len()).unwrap().to_be_bytes(), datagram].concat()
}

fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 2];
    stream.read_exact(&mut header).unwrap();
    let mut datagram = vec![0; usize::from(u16::from_be_bytes(header))];
    stream.read_exact(&mut datagram).unwrap();
    datagram
}

/// Whether the other end has ended it.
fn is_over(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0; 64]), Ok(1..))
}

#[test]
fn datagrams_go_both_ways_and_the_end_is_seen() {
    let mut host = Host::new(limits());
    let (mut stream, pair) = host.guest();
    let datagrams: Vec<Vec<u8>> = (FRAME_MIN..=TCP_FRAME_MAX).step_by(7).map(|n| vec![n as u8; n]).collect();
    let (before, count) = (host.connections.counters.received, datagrams.len() as u64);
    let octets: Vec<u8> = datagrams.iter().flat_map(|datagram| framed(datagram)).collect();
    let mut writer = stream.try_clone().unwrap();
    let thread =
        std::thread::spawn(move || octets.chunks(977).for_each(|some| writer.write_all(some).unwrap()));
    host.until(|counters| counters.received == before + count);
    thread.join().unwrap();
    assert!(host.heard.drain(..).map(|(_, frame)| frame).eq(datagrams.iter().cloned()));
    for datagram in &datagrams {
        host.connections.send(&pair, datagram, host.now);
        assert_eq!(&hear(&mut stream), datagram);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    host.until(|counters| counters.closed == 1);
    assert!(is_over(&mut stream) && host.is_empty());
    assert_eq!(host.connections.poll_ended(), Some(pair));
    assert!(host.connections.poll_ended().is_none() && !host.connections.has(&pair));
    host.connections.send(&pair, b"to nobody", host.now);
    assert_eq!(host.connections.counters.gone, 1);
}

#[test]
fn who_does_not_begin_with_a_check_is_shown_the_door() {
    let nameless = {
        let mut room = [0; 64];
        let length = Builder::new(&mut room, Class::Request, stun::BINDING, [7; 12]).unwrap().finish();
        framed(&room[..length])
    };
    let strangers: [&[u8]; 5] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0, 0], &[0xff, 0xff, 1], &framed(&[64; 172]), &nameless];
    let mut host = Host::new(limits());
    for (nth, octets) in strangers.into_iter().enumerate() {
        let mut stream = host.connect();
        stream.write_all(octets).unwrap();
        host.until(|counters| counters.stranger == nth as u64 + 1);
        assert!(is_over(&mut stream), "{nth}");
    }
    assert!(host.heard.is_empty() && host.is_empty());
    assert!(host.connections.poll_ended().is_none(), "nobody knew them");
}

/// As where a browser's connection takes the place of one that broke.
#[test]
fn media_before_the_check_is_passed_over_and_does_not_count_as_one() {
    let mut host = Host::new(limits());
    let mut streams = [host.connect(), host.connect()];
    for stream in &mut streams {
        let media = [vec![22, 254, 253, 0, 0, 0, 0], vec![0x80; 172], vec![0x80; 172]];
        media.iter().for_each(|media| stream.write_all(&framed(media)).unwrap());
    }
    host.until(|counters| counters.early == 6);
    streams[1].write_all(&framed(&check())).unwrap();
    host.until(|counters| counters.received == 1);
    let (pair, frame) = host.heard.pop().unwrap();
    assert_eq!(frame, check());
    host.connections.send(&pair, b"answer", host.now);
    assert_eq!(hear(&mut streams[1]), b"answer");
    host.now += limits().patience;
    host.until(|counters| counters.silent == 1);
    assert!(is_over(&mut streams[0]) && host.open() == 1);
}

#[test]
fn who_is_silent_half_a_frame_or_not_answered_ends_in_time() {
    let mut host = Host::new(limits());
    let mut silent = host.connect();
    let mut half = host.connect();
    half.write_all(&framed(&check())[..20]).unwrap();
    let mut unknown = host.connect();
    unknown.write_all(&framed(&check())).unwrap();
    host.until(|counters| counters.accepted == 3 && counters.received == 1);
    host.now += limits().patience - Duration::from_millis(1);
    host.poll();
    assert_eq!(host.open(), 3);
    host.now += ROUND;
    host.until(|counters| (counters.silent, counters.unanswered) == (2, 1));
    assert!([&mut silent, &mut half, &mut unknown].into_iter().all(is_over) && host.is_empty());
}

#[test]
fn who_was_answered_stays_while_both_sides_speak() {
    let mut host = Host::new(limits());
    let (mut stream, pair) = host.guest();
    for _ in 0..4 {
        host.now += limits().idle / 2;
        stream.write_all(&framed(b"we are here still")).unwrap();
        let received = host.connections.counters.received;
        host.until(|counters| counters.received > received);
        host.connections.send(&pair, b"so are we", host.now);
    }
    // Its word alone is not enough.
    for _ in 0..2 {
        host.now += limits().idle / 2;
        let _ = stream.write_all(&framed(b"we are here still"));
        std::thread::sleep(Duration::from_millis(20));
        host.poll();
    }
    host.until(|counters| counters.idle == 1);
    assert!(host.is_empty());
}

#[test]
fn frames_too_long_or_too_short_are_passed_over_and_null_packets_mean_nothing() {
    let mut host = Host::new(limits());
    let (mut stream, _) = host.guest();
    let long = [&[0xff, 0xff][..], &[7; 65_535], &[0, 0], &framed(b"one"), &framed(b"the next one")].concat();
    let mut writer = stream.try_clone().unwrap();
    let thread = std::thread::spawn(move || writer.write_all(&long).unwrap());
    host.until(|counters| counters.received == 2);
    thread.join().unwrap();
    assert_eq!(host.heard.pop().unwrap().1, b"the next one");
    let TcpCounters { too_long, too_short, .. } = host.connections.counters;
    assert_eq!((too_long, too_short, host.open()), (1, 1, 1));
    let zeros = vec![0; 1 << 20];
    let mut writer = stream.try_clone().unwrap();
    let thread = std::thread::spawn(move || writer.write_all(&zeros).unwrap());
    stream.write_all(&[]).unwrap();
    while !thread.is_finished() {
        host.poll();
    }
    thread.join().unwrap();
    assert_eq!((host.heard.len(), host.open()), (0, 1));
}

#[test]
fn who_does_not_read_loses_packets_then_the_connection_and_nobody_else_does() {
    let mut host = Host::new(limits());
    let (_sluggish, slow) = host.guest();
    let (mut lively, pair) = host.guest();
    let media = [0x80; 1200];
    let end = Instant::now() + SOON;
    while host.connections.counters.full == 0 && Instant::now() < end {
        host.connections.send(&slow, &media, host.now);
    }
    assert!(host.connections.counters.full > 0);
    host.connections.send(&pair, &media, host.now);
    assert_eq!(hear(&mut lively), media);
    host.now += limits().stuck;
    host.until(|counters| counters.stuck == 1);
    assert_eq!(host.open(), 1);
    host.connections.send(&pair, b"alive", host.now);
    assert_eq!(hear(&mut lively), b"alive");
}

#[test]
fn strangers_make_room_for_strangers_and_guests_for_nobody() {
    let mut host = Host::new(limits());
    let (mut guest, pair) = host.guest();
    let mut strangers: Vec<TcpStream> = (0..7).map(|_| host.connect()).collect();
    host.until(|counters| (counters.accepted, counters.evicted) == (8, 3));
    assert_eq!(host.open(), 5);
    for stranger in &mut strangers[..3] {
        assert!(is_over(stranger), "the oldest");
    }
    strangers[6].write_all(&framed(&check())).unwrap();
    let received = host.connections.counters.received;
    host.until(|counters| counters.received > received);
    host.connections.send(&pair, b"alive", host.now);
    assert_eq!(hear(&mut guest), b"alive");
}

#[test]
fn one_source_has_so_many_places() {
    let mut host = Host::new(TcpLimits { of_source: 3, ..limits() });
    let mut guests: Vec<_> = (0..3).map(|_| host.guest()).collect();
    let mut another = host.connect();
    host.until(|counters| counters.refused_source == 1);
    assert!(is_over(&mut another));
    drop(guests.pop());
    host.until(|counters| counters.closed == 1);
    guests.push(host.guest());
    assert_eq!(host.open(), 3);
}

#[test]
fn whoever_floods_takes_turns_with_all_others() {
    let mut host = Host::new(limits());
    let (mut flood, flooder) = host.guest();
    let (mut voice, speaker) = host.guest();
    let shortest = framed(&[0x80; FRAME_MIN]);
    flood.write_all(&shortest.repeat(4 * READ / shortest.len())).unwrap();
    voice.write_all(&framed(b"twenty milliseconds")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    host.poll();
    let of = |pair| host.heard.iter().filter(|(from, _)| *from == pair).count();
    assert_eq!(of(speaker), 1);
    assert!((1..=READ / FRAME_MIN).contains(&of(flooder)), "{}", of(flooder));
}
