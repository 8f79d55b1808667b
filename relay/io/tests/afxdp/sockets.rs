//! The UDP port on links that do not carry all that is sent: the kernel cuts.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use sallyport_io::{Egress, FrameSize, HEADROOM, Port, UdpPort};

use crate::lab::{Lab, Place};

/// Fragments that the kernel in the middle has made, of both families.
fn fragments(lab: &Lab) -> [u64; 2] {
    let read = |name: &str| {
        lab.within(Place::Middle, || std::fs::read_to_string(format!("/proc/thread-self/net/{name}")))
    };
    let snmp = read("snmp").unwrap();
    let mut lines = snmp.lines().filter(|line| line.starts_with("Ip:")).map(|line| line.split(' '));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let v4 = names.zip(values).find(|(name, _)| *name == "FragCreates").unwrap().1.parse().unwrap();
    let snmp6 = read("snmp6").unwrap();
    let v6 = snmp6.lines().find_map(|line| line.strip_prefix("Ip6FragCreates")).unwrap();
    [v4, v6.trim().parse().unwrap()]
}

/// The middle's port, bound in zone 2 to both families, and the server's sockets.
fn port(lab: &Lab) -> (UdpPort, [(SocketAddr, UdpSocket); 2]) {
    let mut port = UdpPort::with_frames(128, FrameSize::Ordinary).unwrap();
    port.merge();
    port.limit(2, 1500);
    let ends =
        [("10.77.2.2:0", "10.77.2.1:9000"), ("[fd77:2::2]:0", "[fd77:2::1]:9000")].map(|(ours, theirs)| {
            let local = lab.within(Place::Middle, || port.bind(2, ours.parse().unwrap())).unwrap();
            (local, lab.socket(Place::Server, theirs))
        });
    (port, ends)
}

/// Sends three datagrams of that length at once, and checks that they arrive.
fn send(port: &mut UdpPort, (local, server): &(SocketAddr, UdpSocket), length: usize) {
    let egress = Egress { zone: 2, local: *local, remote: server.local_addr().unwrap(), link: None };
    for n in 0..3 {
        let frame = port.allocate().unwrap();
        port.buffer(&frame)[HEADROOM..HEADROOM + length].fill(n);
        port.transmit(frame, HEADROOM..HEADROOM + length, &egress).unwrap();
    }
    port.flush().unwrap();
    assert_eq!((port.pending(), port.counters().refused), (0, 0), "{length} octets from {local}");
    let until = Instant::now() + Duration::from_secs(5);
    for n in 0..3 {
        let mut octets = [9; 2000];
        while server.recv(&mut octets).ok() != Some(length) {
            assert!(Instant::now() < until, "datagram {n} of {length} octets from {local}");
        }
        assert_eq!(octets[..length], vec![n; length]);
    }
}

#[test]
fn the_kernel_cuts_what_sockets_send_above_the_mtu() {
    let Some(lab) = Lab::new(1) else { return };
    let (mut port, [v4, v6]) = port(&lab);
    let mut cut = [0, 0];
    assert_eq!(fragments(&lab), cut);
    for (at, end, whole) in [(0, &v4, 1472), (1, &v6, 1452)] {
        send(&mut port, end, whole);
        assert_eq!((fragments(&lab), port.counters().fragmented[1]), (cut, 6 * at as u64));
        for longer in [whole + 1, 1700] {
            send(&mut port, end, longer);
            cut[at] += 6;
        }
        assert_eq!(fragments(&lab), cut, "two fragments each");
        assert_eq!(port.counters().fragmented, [0, 6 * (at as u64 + 1)]);
    }
    assert!(port.counters().merged_out >= 6, "what fits is still sent as one: {:?}", port.counters());
}

/// A message that says that a packet of `port`'s was too long for a link: type and code, MTU, and how that packet began.
fn too_long(local: SocketAddr, remote: SocketAddr, mtu: u16) -> Vec<u8> {
    let mut message = Vec::new();
    let udp =
        [local.port().to_be_bytes(), remote.port().to_be_bytes(), 1480u16.to_be_bytes(), [0, 0]].concat();
    match (local.ip(), remote.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            message.extend([3, 4, 0, 0, 0, 0]);
            message.extend(mtu.to_be_bytes());
            message.extend([0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, 17, 0, 0]);
            message.extend(from.octets().into_iter().chain(to.octets()));
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            message.extend([2, 0, 0, 0]);
            message.extend(u32::from(mtu).to_be_bytes());
            message.extend([0x60, 0, 0, 0, 5, 0xc8, 17, 64]);
            message.extend(from.octets().into_iter().chain(to.octets()));
        }
        _ => unreachable!("of one family"),
    }
    message.extend(udp);
    if local.is_ipv4() {
        let sum = sallyport_wire::checksum::Sum::default().add_bytes(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

#[test]
fn nobody_makes_sockets_send_smaller_pieces_by_saying_that_a_link_is_narrow() {
    let Some(lab) = Lab::new(1) else { return };
    let (mut port, ends) = port(&lab);
    for (end, length, mtu) in [(&ends[0], 1472, 600), (&ends[1], 1452, 1280)] {
        let (local, remote) = (end.0, end.1.local_addr().unwrap());
        send(&mut port, end, length);
        let (family, protocol) = if local.is_ipv4() {
            (AddressFamily::Inet, SockProtocol::Icmp)
        } else {
            (AddressFamily::Inet6, SockProtocol::IcmpV6)
        };
        let raw = || socket(family, SockType::Raw, SockFlag::empty(), protocol).unwrap();
        let raw: OwnedFd = lab.within(Place::Server, raw);
        let to = SockaddrStorage::from(SocketAddr::new(local.ip(), 0));
        for _ in 0..3 {
            sendto(raw.as_raw_fd(), &too_long(local, remote, mtu), &to, MsgFlags::empty()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
        send(&mut port, end, length);
        assert_eq!(fragments(&lab), [0, 0], "{local}");
    }
}
