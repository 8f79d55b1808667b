//! The UDP port against ordinary sockets on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use sallyport_io::{Burst, Egress, FRAME_SIZE, Frame, HEADROOM, Port, TransmitError, UdpPort, steer};

const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

fn any(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn peer(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

fn wait(descriptors: &[BorrowedFd<'_>]) -> bool {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    poll(&mut polled, PollTimeout::from(1000u16)).unwrap() > 0
}

/// Receives until `count` datagrams were handed to `each`, or nothing comes for a second.
fn receive(
    port: &mut UdpPort,
    count: usize,
    mut each: impl FnMut(&mut UdpPort, sallyport_io::Received),
) -> usize {
    let mut burst = Burst::new();
    let mut received = 0;
    while received < count && wait(&port.descriptors()) {
        received += port.receive(&mut burst).unwrap();
        for datagram in burst.drain() {
            each(port, datagram);
        }
    }
    received
}

fn fill(port: &mut UdpPort, payload: &[u8]) -> (Frame, Range<usize>) {
    let frame = port.allocate().unwrap();
    let range = HEADROOM..HEADROOM + payload.len();
    port.buffer(&frame)[range.clone()].copy_from_slice(payload);
    (frame, range)
}

#[test]
fn echoes_ten_thousand_datagrams_of_both_families_in_order() {
    let mut port = UdpPort::new(256).unwrap();
    for address in LOOPBACKS {
        let local = port.bind(1, any(address)).unwrap();
        let client = peer(address);
        client.connect(local).unwrap();
        let remote = client.local_addr().unwrap();
        for round in 0..500u32 {
            for n in 0..20 {
                client.send(&(round * 20 + n).to_be_bytes()).unwrap();
            }
            let received = receive(&mut port, 20, |port, datagram| {
                assert_eq!((datagram.zone, datagram.local, datagram.remote), (1, local, remote));
                assert_eq!((datagram.tag, datagram.source_mac, datagram.vlan), (None, None, None));
                assert!(datagram.payload.start >= HEADROOM);
                let egress = Egress { zone: 1, local, remote, link: None };
                port.transmit(datagram.frame, datagram.payload, &egress).unwrap();
            });
            assert_eq!((received, port.pending()), (20, 20));
            port.flush().unwrap();
            assert_eq!(port.pending(), 0);
            for n in 0..20 {
                let mut answer = [0; 8];
                assert_eq!(client.recv(&mut answer).unwrap(), 4);
                assert_eq!(answer[..4], (round * 20 + n).to_be_bytes());
            }
        }
        let count = port.frames();
        assert_eq!((count.missing(), count.held, count.transmit), (0, 0, 0), "{count:?}");
    }
    let counters = port.counters();
    assert_eq!((counters.received, counters.transmitted), (20_000, 20_000));
    assert_eq!((counters.refused, counters.truncated, counters.errors), (0, 0, 0));
}

#[test]
fn many_sockets_are_served_in_turn() {
    let mut port = UdpPort::new(512).unwrap();
    let locals: Vec<SocketAddr> = (0..100).map(|n| port.bind(2, any(LOOPBACKS[n % 2])).unwrap()).collect();
    let clients = LOOPBACKS.map(peer);
    for _ in 0..4 {
        for (n, local) in locals.iter().enumerate() {
            clients[n % 2].send_to(b"x", local).unwrap();
        }
    }
    let mut by_socket: HashMap<SocketAddr, usize> = HashMap::new();
    let received = receive(&mut port, 400, |port, datagram| {
        *by_socket.entry(datagram.local).or_default() += 1;
        port.release(datagram.frame);
    });
    assert_eq!(received, 400);
    assert_eq!(by_socket.len(), 100);
    assert!(by_socket.values().all(|count| *count == 4), "{by_socket:?}");
    assert_eq!(port.frames().missing(), 0);
}

#[test]
fn a_noisy_socket_does_not_silence_another() {
    let mut port = UdpPort::new(512).unwrap();
    let (noisy, quiet) = (port.bind(1, any(LOOPBACKS[0])).unwrap(), port.bind(2, any(LOOPBACKS[0])).unwrap());
    let client = peer(LOOPBACKS[0]);
    for _ in 0..150 {
        client.send_to(b"noise", noisy).unwrap();
    }
    client.send_to(b"call", quiet).unwrap();
    let mut burst = Burst::new();
    let mut calls = 0;
    // The noisy socket fills the first burst at the most, not the second.
    for _ in 0..2 {
        port.receive(&mut burst).unwrap();
        for datagram in burst.drain() {
            calls += usize::from(datagram.local == quiet);
            port.release(datagram.frame);
        }
    }
    assert_eq!(calls, 1);
}

#[test]
fn one_flush_serves_many_sockets_and_keeps_their_order() {
    let mut port = UdpPort::new(512).unwrap();
    let locals: Vec<SocketAddr> = (0..5).map(|n| port.bind(2, any(LOOPBACKS[n % 2])).unwrap()).collect();
    let clients = LOOPBACKS.map(peer);
    for n in 0..200u32 {
        let at = n as usize % 5;
        let (frame, range) = fill(&mut port, &n.to_be_bytes());
        let remote = clients[at % 2].local_addr().unwrap();
        port.transmit(frame, range, &Egress { zone: 2, local: locals[at], remote, link: None }).unwrap();
    }
    port.flush().unwrap();
    assert_eq!((port.pending(), port.frames().free + port.frames().fill), (0, 512));
    let mut last: HashMap<SocketAddr, u32> = HashMap::new();
    for client in &clients {
        let count = if client.local_addr().unwrap().is_ipv4() { 120 } else { 80 };
        for _ in 0..count {
            let mut bytes = [0; 4];
            let (_, from) = client.recv_from(&mut bytes).unwrap();
            let n = u32::from_be_bytes(bytes);
            assert_eq!(locals[n as usize % 5], from);
            if let Some(before) = last.insert(from, n) {
                assert_eq!(before + 5, n);
            }
        }
    }
    assert_eq!(last.len(), 5);
}

#[test]
fn sockets_come_and_go() {
    let mut port = UdpPort::new(64).unwrap();
    let client = peer(LOOPBACKS[0]);
    let remote = client.local_addr().unwrap();
    let local = port.bind(1, any(LOOPBACKS[0])).unwrap();
    assert_eq!(port.bind(1, local).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert!(UdpSocket::bind(local).is_err());
    let egress = Egress { zone: 1, local, remote, link: None };
    let (frame, range) = fill(&mut port, b"never");
    port.transmit(frame, range, &egress).unwrap();
    client.send_to(b"unheard", local).unwrap();
    assert!(port.unbind(local));
    assert!(!port.unbind(local));
    assert_eq!((port.pending(), port.counters().refused, port.bound().count()), (0, 1, 0));
    assert_eq!(port.receive(&mut Burst::new()).unwrap(), 0);
    let (frame, range) = fill(&mut port, b"nobody");
    assert_eq!(port.transmit(frame, range, &egress), Err(TransmitError::NoSocket));
    // The system has the address back, and the port takes it over again.
    assert_eq!(port.adopt(1, UdpSocket::bind(local).unwrap()).unwrap(), local);
    let other = port.bind(2, any(LOOPBACKS[0])).unwrap();
    assert_eq!(port.bound().collect::<HashMap<_, _>>(), HashMap::from([(1, local), (2, other)]));
    let (frame, range) = fill(&mut port, b"zone");
    assert_eq!(
        port.transmit(frame, range, &Egress { zone: 2, ..egress.clone() }),
        Err(TransmitError::NoSocket)
    );
    let (frame, range) = fill(&mut port, b"again");
    port.transmit(frame, range, &egress).unwrap();
    port.flush().unwrap();
    let mut bytes = [0; 16];
    assert_eq!(client.recv_from(&mut bytes).unwrap(), (5, local));
    assert_eq!((port.frames().missing(), port.frames().held), (0, 0));
}

#[test]
fn addresses_that_replies_could_leave_wrongly_are_refused() {
    let mut port = UdpPort::new(64).unwrap();
    for address in ["0.0.0.0:0", "[::]:0"] {
        assert_eq!(port.bind(1, any(address)).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        let socket = UdpSocket::bind(address).unwrap();
        assert_eq!(port.adopt(1, socket).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!(port.bound().count(), 0);
}

#[test]
fn datagrams_longer_than_a_frame_are_dropped_and_counted() {
    let mut port = UdpPort::new(64).unwrap();
    let local = port.bind(1, any(LOOPBACKS[0])).unwrap();
    let client = peer(LOOPBACKS[0]);
    let room = FRAME_SIZE - HEADROOM;
    client.send_to(&vec![1; room + 1], local).unwrap();
    client.send_to(&vec![2; room], local).unwrap();
    client.send_to(&[], local).unwrap();
    let mut lengths = Vec::new();
    receive(&mut port, 2, |port, datagram| {
        lengths.push(datagram.payload.len());
        assert!(port.buffer(&datagram.frame)[datagram.payload.clone()].iter().all(|octet| *octet == 2));
        port.release(datagram.frame);
    });
    assert_eq!((lengths, port.counters().truncated), (vec![room, 0], 1));
    assert_eq!((port.frames().missing(), port.frames().held), (0, 0));
}

#[test]
fn datagrams_that_cannot_be_sent_do_not_hold_up_the_others() {
    let mut port = UdpPort::new(64).unwrap();
    let local = port.bind(1, any(LOOPBACKS[0])).unwrap();
    let client = peer(LOOPBACKS[0]);
    let wrong = [any("[::1]:9"), any("255.255.255.255:9"), any("127.0.0.1:0")];
    let right = client.local_addr().unwrap();
    for remote in [right, wrong[0], wrong[1], right, wrong[2], right] {
        let (frame, range) = fill(&mut port, b"x");
        port.transmit(frame, range, &Egress { zone: 1, local, remote, link: None }).unwrap();
    }
    port.flush().unwrap();
    assert_eq!((port.pending(), port.counters().refused), (0, 3));
    let mut bytes = [0; 4];
    for _ in 0..3 {
        assert_eq!(client.recv_from(&mut bytes).unwrap(), (1, local));
    }
    assert_eq!((port.frames().missing(), port.frames().transmit), (0, 0));
}

#[test]
fn bad_ranges_and_foreign_frames_are_refused() {
    let (mut port, mut other) = (UdpPort::new(64).unwrap(), UdpPort::new(64).unwrap());
    let local = port.bind(1, any(LOOPBACKS[0])).unwrap();
    let egress = Egress { zone: 1, local, remote: local, link: None };
    #[expect(clippy::reversed_empty_ranges, reason = "a range that no caller should pass")]
    for range in [FRAME_SIZE - 1..FRAME_SIZE + 1, 9..8, usize::MAX - 1..usize::MAX] {
        let frame = port.allocate().unwrap();
        assert_eq!(port.transmit(frame, range, &egress), Err(TransmitError::Short));
    }
    let frame = other.allocate().unwrap();
    assert!(port.buffer(&frame).is_empty());
    assert_eq!(port.transmit(frame, HEADROOM..HEADROOM, &egress), Err(TransmitError::Foreign));
    assert_eq!((port.frames().missing(), port.frames().held, port.pending()), (0, 0, 0));
    assert_eq!((other.frames().lost, other.frames().missing()), (1, 1));
}

#[test]
fn overload_starves_and_recovers_without_losing_a_frame() {
    let mut port = UdpPort::new(32).unwrap();
    let local = port.bind(1, any(LOOPBACKS[0])).unwrap();
    let client = peer(LOOPBACKS[0]);
    for _ in 0..200 {
        client.send_to(&[7; 100], local).unwrap();
    }
    let mut burst = Burst::new();
    let mut held = Vec::new();
    for _ in 0..4 {
        port.receive(&mut burst).unwrap();
        held.extend(burst.drain().map(|datagram| datagram.frame));
    }
    assert_eq!((held.len(), port.frames().held), (32, 32));
    assert!(port.allocate().is_none() && port.counters().starved > 0);
    held.into_iter().for_each(|frame| port.release(frame));
    let rest = receive(&mut port, 168, |port, datagram| port.release(datagram.frame));
    assert_eq!(rest, 168, "what the socket had buffered is still there");
    assert_eq!((port.frames().missing(), port.frames().held), (0, 0));
}

/// A datagram that says which it is: its number, again and again.
fn numbered(n: u16, octets: usize) -> Vec<u8> {
    n.to_be_bytes().into_iter().cycle().take(octets).collect()
}

/// The port and the peer both merge: what one gives the system as one payload comes to the other as one, and datagrams
/// come out of it as they went in.
#[test]
fn runs_go_out_and_come_in_together_and_stay_what_they_were() {
    for address in LOOPBACKS {
        let (mut one, mut other) = (UdpPort::new(512).unwrap(), UdpPort::new(512).unwrap());
        one.merge();
        other.merge();
        let (local, remote) = (one.bind(1, any(address)).unwrap(), other.bind(1, any(address)).unwrap());
        // A run, with a shorter one at its end; one that is longer, an empty one, more than fit into one payload.
        let mut lengths = vec![1100; 30];
        lengths.extend([700, 1100, 1101, 0, 5, 5, FRAME_SIZE - HEADROOM]);
        lengths.extend([1200; 60]);
        for (n, octets) in lengths.iter().enumerate() {
            let (frame, range) = fill(&mut one, &numbered(n as u16, *octets));
            one.transmit(frame, range, &Egress { zone: 1, local, remote, link: None }).unwrap();
        }
        one.flush().unwrap();
        assert_eq!((one.pending(), one.counters().refused), (0, 0));
        assert!(one.counters().merged_out >= 80, "{:?}", one.counters());
        let mut n = 0;
        receive(&mut other, lengths.len(), |port, datagram| {
            assert_eq!((datagram.local, datagram.remote), (remote, local));
            let payload = &port.buffer(&datagram.frame)[datagram.payload.clone()];
            assert_eq!(payload, numbered(n, lengths[usize::from(n)]), "datagram {n}");
            n += 1;
            port.release(datagram.frame);
        });
        assert_eq!(usize::from(n), lengths.len());
        assert!(other.counters().merged_in >= 80, "{:?}", other.counters());
        assert_eq!(other.counters().received, u64::from(n));
        for port in [&one, &other] {
            assert_eq!((port.frames().missing(), port.frames().held, port.frames().transmit), (0, 0, 0));
        }
    }
}

/// One payload is more datagrams than a burst has room for: the rest waits, in order, and the descriptor stays readable.
#[test]
fn what_was_merged_beyond_a_burst_waits_for_the_next() {
    let (mut one, mut other) = (UdpPort::new(512).unwrap(), UdpPort::new(512).unwrap());
    one.merge();
    other.merge();
    let (local, remote) =
        (one.bind(1, any(LOOPBACKS[0])).unwrap(), other.bind(1, any(LOOPBACKS[0])).unwrap());
    for n in 0..192u16 {
        let (frame, range) = fill(&mut one, &numbered(n, 100));
        one.transmit(frame, range, &Egress { zone: 1, local, remote, link: None }).unwrap();
    }
    one.flush().unwrap();
    let (mut burst, mut n) = (Burst::new(), 0);
    while n < 192 {
        assert!(wait(&other.descriptors()), "{n} came");
        other.receive(&mut burst).unwrap();
        for datagram in burst.drain() {
            assert_eq!(other.buffer(&datagram.frame)[datagram.payload.clone()], numbered(n, 100));
            n += 1;
            other.release(datagram.frame);
        }
    }
    assert_eq!(other.receive(&mut burst).unwrap(), 0);
    let mut polled = [PollFd::new(other.descriptors()[0], PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::ZERO).unwrap(), 0, "nothing is left");
    assert_eq!((other.frames().missing(), other.frames().held), (0, 0));
}

/// Segments longer than a frame's room are dropped and counted one by one; the datagrams around them come through.
#[test]
fn merged_datagrams_longer_than_a_frame_are_dropped_and_counted() {
    let mut port = UdpPort::new(64).unwrap();
    port.merge();
    let local = port.bind(1, any(LOOPBACKS[0])).unwrap();
    let client = peer(LOOPBACKS[0]);
    setsockopt(&client, sockopt::UdpGsoSegment, &2000).unwrap();
    client.send_to(&[1; 7000], local).unwrap();
    setsockopt(&client, sockopt::UdpGsoSegment, &0).unwrap();
    client.send_to(&[2; 10], local).unwrap();
    let received = receive(&mut port, 1, |port, datagram| {
        assert_eq!(port.buffer(&datagram.frame)[datagram.payload.clone()], [2; 10]);
        port.release(datagram.frame);
    });
    assert_eq!((received, port.counters().truncated), (1, 4));
    assert_eq!((port.frames().missing(), port.frames().held), (0, 0));
}

/// Runs that the system does not take as one payload go one by one, and each is refused for itself only.
#[test]
fn a_run_that_cannot_be_sent_as_one_is_sent_one_by_one() {
    let mut port = UdpPort::new(64).unwrap();
    port.merge();
    let local = port.bind(1, any(LOOPBACKS[0])).unwrap();
    let client = peer(LOOPBACKS[0]);
    let right = client.local_addr().unwrap();
    for (n, remote) in [any("255.255.255.255:9"), right].into_iter().cycle().take(16).enumerate() {
        for _ in 0..2 {
            let (frame, range) = fill(&mut port, &[n as u8; 40]);
            port.transmit(frame, range, &Egress { zone: 1, local, remote, link: None }).unwrap();
        }
    }
    port.flush().unwrap();
    assert_eq!((port.pending(), port.counters().refused), (0, 16));
    for n in 0..16 {
        let mut bytes = [0; 64];
        assert_eq!(client.recv_from(&mut bytes).unwrap(), (40, local));
        assert_eq!(usize::from(bytes[0]), n / 2 * 2 + 1);
    }
    assert_eq!((port.frames().missing(), port.frames().transmit), (0, 0));
}

/// An error that an ICMP message brought to one socket hides neither what that socket has received nor others.
#[test]
fn an_error_of_one_socket_hides_no_datagram() {
    let mut port = UdpPort::new(64).unwrap();
    let socket = UdpSocket::bind(LOOPBACKS[0]).unwrap();
    let client = peer(LOOPBACKS[0]);
    // Connected sockets alone hear of errors.
    socket.connect(client.local_addr().unwrap()).unwrap();
    let nobody = UdpSocket::bind(LOOPBACKS[0]).unwrap().local_addr().unwrap();
    let local = port.adopt(1, socket).unwrap();
    let other = port.bind(1, any(LOOPBACKS[0])).unwrap();
    for round in 1..=20 {
        for to in [local, other] {
            client.send_to(b"x", to).unwrap();
        }
        let (frame, range) = fill(&mut port, b"refused");
        port.transmit(frame, range, &Egress { zone: 1, local, remote: nobody, link: None }).unwrap();
        port.flush().unwrap();
        client.send_to(b"x", local).unwrap();
        let received = receive(&mut port, 3, |port, datagram| port.release(datagram.frame));
        assert_eq!(received, 3, "round {round}, {:?}", port.counters());
    }
    assert_eq!((port.frames().missing(), port.frames().held, port.frames().transmit), (0, 0, 0));
}

/// Sends from many sources to an address that several ports share, and checks who hears whom.
#[test]
fn ports_that_share_an_address_hear_the_sources_that_are_theirs() {
    for (address, sharers) in LOOPBACKS.into_iter().flat_map(|address| [(address, 2), (address, 3)]) {
        let mut ports: Vec<UdpPort> = (0..sharers).map(|_| UdpPort::new(256).unwrap()).collect();
        let local = UdpPort::share(&mut ports, 1, any(address)).unwrap();
        assert!(UdpSocket::bind(local).is_err(), "nobody else gets the address");
        assert_eq!(
            UdpPort::new(64).unwrap().bind(1, local).unwrap_err().kind(),
            std::io::ErrorKind::AddrInUse
        );
        let clients: Vec<UdpSocket> = (0..64).map(|_| peer(address)).collect();
        for n in 0..4u8 {
            for client in &clients {
                client.send_to(&[n], local).unwrap();
            }
        }
        let mut heard = vec![0; sharers];
        let mut next: HashMap<SocketAddr, u8> = HashMap::new();
        for (at, port) in ports.iter_mut().enumerate() {
            let wanted =
                |client: &&UdpSocket| steer(client.local_addr().unwrap(), sharers as u32) as usize == at;
            let count = 4 * clients.iter().filter(wanted).count();
            heard[at] = receive(port, count, |port, datagram| {
                assert_eq!(steer(datagram.remote, sharers as u32) as usize, at);
                let n = next.entry(datagram.remote).or_default();
                assert_eq!(port.buffer(&datagram.frame)[datagram.payload.clone()], [*n]);
                *n += 1;
                let egress = Egress { zone: 1, local, remote: datagram.remote, link: None };
                port.transmit(datagram.frame, datagram.payload, &egress).unwrap();
            });
            port.flush().unwrap();
            assert_eq!(heard[at], count);
            assert_eq!(port.receive(&mut Burst::new()).unwrap(), 0);
        }
        assert_eq!(heard.iter().sum::<usize>(), 256);
        assert!(heard.iter().all(|count| *count > 0), "{heard:?}");
        for client in &clients {
            assert_eq!(client.recv_from(&mut [0; 4]).unwrap(), (1, local));
        }
    }
}

#[test]
fn an_address_that_somebody_has_is_not_shared() {
    let taken = UdpSocket::bind(LOOPBACKS[0]).unwrap();
    let mut ports = [UdpPort::new(64).unwrap(), UdpPort::new(64).unwrap()];
    let local = taken.local_addr().unwrap();
    assert_eq!(UdpPort::share(&mut ports, 1, local).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    // Not even with somebody who would share.
    setsockopt(&taken, sockopt::ReusePort, &true).unwrap();
    assert_eq!(UdpPort::share(&mut ports, 1, local).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(ports.iter().map(|port| port.bound().count()).sum::<usize>(), 0);
    drop(taken);
    assert_eq!(UdpPort::share(&mut ports, 1, local).unwrap(), local);
    assert_eq!(ports.iter().map(|port| port.bound().count()).sum::<usize>(), 2);
}

/// A socket changes its port with what it has received.
#[test]
fn a_socket_moves_with_what_it_has_received() {
    let (mut one, mut other) = (UdpPort::new(64).unwrap(), UdpPort::new(64).unwrap());
    let local = one.bind(2, any(LOOPBACKS[0])).unwrap();
    let client = peer(LOOPBACKS[0]);
    client.send_to(b"early", local).unwrap();
    let socket = one.part(local).unwrap();
    assert!(one.part(local).is_none() && !one.unbind(local));
    assert_eq!(one.receive(&mut Burst::new()).unwrap(), 0);
    assert_eq!(other.adopt(2, socket).unwrap(), local);
    client.send_to(b"later", local).unwrap();
    let mut payloads = Vec::new();
    receive(&mut other, 2, |port, datagram| {
        payloads.push(port.buffer(&datagram.frame)[datagram.payload.clone()].to_vec());
        port.release(datagram.frame);
    });
    assert_eq!(payloads, [b"early", b"later"]);
}

/// While one socket has more than can be served, the others are, and it gets half of every burst all the same.
#[test]
fn a_busy_socket_and_the_quiet_ones_share_each_burst() {
    let mut port = UdpPort::new(1024).unwrap();
    let busy = UdpPort::share(std::slice::from_mut(&mut port), 1, any(LOOPBACKS[0])).unwrap();
    let quiet: Vec<SocketAddr> = (0..300).map(|_| port.bind(2, any(LOOPBACKS[0])).unwrap()).collect();
    let client = peer(LOOPBACKS[0]);
    for _ in 0..400 {
        client.send_to(b"outside", busy).unwrap();
    }
    for local in &quiet {
        client.send_to(b"inside", local).unwrap();
    }
    let (mut burst, mut heard) = (Burst::new(), Vec::new());
    for _ in 0..6 {
        port.receive(&mut burst).unwrap();
        let outside = burst.drain().map(|datagram| {
            let outside = datagram.local == busy;
            port.release(datagram.frame);
            outside
        });
        let outside: Vec<bool> = outside.collect();
        heard.push((outside.len(), outside.iter().filter(|outside| **outside).count()));
    }
    // The first burst does not know yet who is busy.
    assert!(heard[1..].iter().all(|counts| *counts == (64, 32)), "{heard:?}");
}
