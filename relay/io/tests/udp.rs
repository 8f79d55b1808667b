//! The UDP port against ordinary sockets on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sallyport_io::{Burst, Egress, FRAME_SIZE, Frame, HEADROOM, Port, TransmitError, UdpPort};

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
