//! Real packets over veth: what reaches AF_XDP sockets, with what in front, and what the kernel gets.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sallyport_abi::{FRAME_MAX, FlowKey, META_FLOW, META_MAGIC, META_PUNT, Meta, OUTSIDE};
use sallyport_io::{AfXdpPort, Burst, FrameSize, Mode, Port, Queue};
use sallyport_xdp::{Attachment, Kernel};

use crate::frames::{ETHERNET, address, rtp, stun};
use crate::lab::{Lab, QUEUES, index, wait};

/// Flows of a run; enough that each queue has some.
const FLOWS: u32 = 24;
/// Packets of each.
const PACKETS: u32 = 10;

struct Cable {
    media: &'static str,
    peer: &'static str,
    headers: usize,
}

const V4: Cable = Cable { media: "192.0.2.1:10000", peer: "192.0.2.9:0", headers: ETHERNET + 20 + 8 };
const V6: Cable = Cable { media: "[2001:db8::1]:10000", peer: "[2001:db8::9]:0", headers: ETHERNET + 40 + 8 };

fn count(kernel: &Kernel, name: &str) -> u64 {
    kernel.counters().into_iter().find(|(counter, _)| *counter == name).unwrap().1
}

/// Attaches in one mode, with an AF_XDP socket on every queue.
fn attach(kernel: &mut Kernel, attachment: Attachment, size: FrameSize) -> AfXdpPort {
    kernel.set_frame_max(u32::try_from(size.packet_max()).unwrap());
    let ifindex = index("o0");
    assert_eq!(kernel.attach(ifindex, OUTSIDE, Some(attachment)).unwrap(), attachment);
    let mode = match attachment {
        Attachment::Native => Mode::Native,
        Attachment::Generic => Mode::Generic,
    };
    let queues: Vec<Queue> =
        (0..QUEUES).map(|queue| Queue { ifindex, queue, zone: OUTSIDE, mode, mtu: 9000 }).collect();
    let port = AfXdpPort::open(&queues, 2048, size).unwrap();
    for (ifindex, queue, socket) in port.sockets() {
        kernel.register(ifindex, queue, socket).unwrap();
    }
    for cable in [V4, V6] {
        let media = address(cable.media);
        kernel.set_media(OUTSIDE, media.ip(), media.port()..=media.port(), Some(media.port())).unwrap();
    }
    port
}

/// Direction, epoch and kind as they lie in front of a frame that was received; the magic is taken already.
fn words(port: &mut AfXdpPort, received: &sallyport_io::Received, headers: usize) -> [u32; 4] {
    let start = received.payload.start - headers - 16;
    let octets = &port.buffer(&received.frame)[start..start + 16];
    std::array::from_fn(|nth| u32::from_ne_bytes(octets[nth * 4..nth * 4 + 4].try_into().unwrap()))
}

/// Receives until `wanted` datagrams came: how many by sender, each with the metadata of its flow.
fn receive(port: &mut AfXdpPort, cable: &Cable, flows: &BTreeMap<SocketAddr, u32>, wanted: u32) {
    let (mut burst, mut seen) = (Burst::new(), BTreeMap::<SocketAddr, u32>::new());
    wait("reception", || {
        port.receive(&mut burst).unwrap();
        for received in burst.drain() {
            let [magic, direction, epoch, kind] = words(port, &received, cable.headers);
            assert_eq!((received.local, magic), (address(cable.media), 0));
            match flows.get(&received.remote) {
                Some(flow) => {
                    assert_eq!(received.tag, Some((*flow, !*flow)));
                    assert_eq!((direction, epoch, kind), (*flow, !*flow, META_FLOW));
                    assert_eq!(port.buffer(&received.frame)[received.payload.clone()], rtp(160));
                }
                None => {
                    assert_eq!((received.tag, direction, epoch, kind), (None, 0, 0, META_PUNT));
                    assert_eq!(port.buffer(&received.frame)[received.payload.clone()], stun(1, 8));
                }
            }
            *seen.entry(received.remote).or_default() += 1;
            port.release(received.frame);
        }
        port.flush().unwrap();
        seen.values().sum::<u32>() >= wanted
    });
    assert_eq!(seen.values().sum::<u32>(), wanted);
    assert!(flows.keys().all(|flow| seen[flow] == PACKETS), "{seen:?}");
}

fn metadata_arrives(attachment: Attachment, cable: &Cable) {
    let Some(lab) = Lab::new() else { return };
    let mut kernel = lab.kernel();
    let mut port = lab.appliance(|| attach(&mut kernel, attachment, FrameSize::Ordinary));
    let sockets: Vec<UdpSocket> =
        lab.peer(|| (0..FLOWS).map(|_| UdpSocket::bind(cable.peer).unwrap()).collect());
    let stranger = lab.peer(|| UdpSocket::bind(cable.peer).unwrap());
    let mut flows = BTreeMap::new();
    for (socket, direction) in sockets.iter().zip(0x0100_0000..) {
        let remote = socket.local_addr().unwrap();
        kernel
            .insert_flow(&FlowKey::new(OUTSIDE, address(cable.media), remote), direction, !direction)
            .unwrap();
        flows.insert(remote, direction);
    }
    for _ in 0..PACKETS {
        for socket in &sockets {
            socket.send_to(&rtp(160), cable.media).unwrap();
        }
        stranger.send_to(&stun(1, 8), cable.media).unwrap();
        stranger.send_to(&rtp(160), cable.media).unwrap();
    }
    receive(&mut port, cable, &flows, (FLOWS + 1) * PACKETS);
    let wanted = [
        ("redirect_flow", FLOWS * PACKETS),
        ("punt_stun", PACKETS),
        ("drop_unknown_flow", PACKETS),
        ("drop_no_socket", 0),
    ];
    for (name, packets) in wanted {
        assert_eq!(count(&kernel, name), u64::from(packets), "{name}");
    }
    for (key, value) in kernel.flows() {
        assert_eq!(
            (value.packets, value.bytes),
            (PACKETS.into(), u64::from(PACKETS) * 172),
            "{}",
            key.remote()
        );
    }
    kernel.detach_all();
}

#[test]
fn metadata_arrives_native_v4() {
    metadata_arrives(Attachment::Native, &V4);
}

#[test]
fn metadata_arrives_native_v6() {
    metadata_arrives(Attachment::Native, &V6);
}

#[test]
fn metadata_arrives_generic_v4() {
    metadata_arrives(Attachment::Generic, &V4);
}

#[test]
fn metadata_arrives_generic_v6() {
    metadata_arrives(Attachment::Generic, &V6);
}

static SERIAL: AtomicU64 = AtomicU64::new(1 << 32);

/// Whether a datagram to `to` reaches `socket`, which listens there.
pub fn reaches(sender: &UdpSocket, socket: &UdpSocket, to: SocketAddr) -> bool {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    sender.send_to(&serial, to).unwrap();
    let mut octets = [0; 16];
    loop {
        match socket.recv_from(&mut octets) {
            Ok((length, _)) if octets[..length] == serial => return true,
            // One that came too late for the question that it was sent for.
            Ok((length, _)) => assert_eq!(length, serial.len()),
            Err(_) => return false,
        }
    }
}

fn only_media_is_taken(attachment: Attachment, cable: &Cable) {
    let Some(lab) = Lab::new() else { return };
    let media = address(cable.media);
    let service = SocketAddr::new(media.ip(), 5353);
    let sender = lab.peer(|| UdpSocket::bind(cable.peer).unwrap());
    let [media_socket, service_socket] =
        [media, service].map(|address| lab.appliance(|| UdpSocket::bind(address).unwrap()));
    wait("a datagram before the program", || reaches(&sender, &media_socket, media));

    let mut kernel = lab.kernel();
    let port = lab.appliance(|| attach(&mut kernel, attachment, FrameSize::Ordinary));
    wait("a datagram that is not media", || reaches(&sender, &service_socket, service));
    assert!(!reaches(&sender, &media_socket, media), "media, of nobody");
    assert_eq!(count(&kernel, "drop_unknown_flow"), 1);
    // ARP or ND from the start, and TCP on the very port.
    lab.command("ip neigh flush dev o0");
    let listener = lab.appliance(|| TcpListener::bind(media).unwrap());
    let mut there = lab.peer(|| TcpStream::connect(media).unwrap());
    let (mut here, _) = listener.accept().unwrap();
    here.write_all(b"hello").unwrap();
    let mut octets = [0; 5];
    there.read_exact(&mut octets).unwrap();
    assert_eq!(&octets, b"hello");

    // Its socket closes: dropped and counted, never the kernel's.
    drop(port);
    kernel.insert_flow(&FlowKey::new(OUTSIDE, media, sender.local_addr().unwrap()), 1, 1).unwrap();
    assert!(!reaches(&sender, &media_socket, media), "media, without a socket");
    assert_eq!((count(&kernel, "drop_no_socket"), count(&kernel, "redirect_flow")), (1, 0));

    kernel.detach_all();
    wait("the end of the program", || reaches(&sender, &media_socket, media));
}

#[test]
fn only_media_is_taken_native_v4() {
    only_media_is_taken(Attachment::Native, &V4);
}

#[test]
fn only_media_is_taken_native_v6() {
    only_media_is_taken(Attachment::Native, &V6);
}

#[test]
fn only_media_is_taken_generic_v4() {
    only_media_is_taken(Attachment::Generic, &V4);
}

#[test]
fn only_media_is_taken_generic_v6() {
    only_media_is_taken(Attachment::Generic, &V6);
}

/// The contract between program and userspace's ports, which must not know each other.
#[test]
fn frames_fit_those_of_the_ports() {
    assert_eq!(FRAME_MAX as usize, FrameSize::Ordinary.packet_max());
    assert_eq!(size_of::<Meta>(), sallyport_io::META_LEN);
    let theirs = [sallyport_io::META_MAGIC, sallyport_io::META_FLOW, sallyport_io::META_PUNT];
    assert_eq!([META_MAGIC, META_FLOW, META_PUNT], theirs);
}

/// A frame as long as there is room for, and one octet more.
#[test]
fn the_longest_frame_arrives() {
    let Some(lab) = Lab::new() else { return };
    lab.command("ip link set o0 mtu 9000");
    lab.peer(|| crate::lab::run("ip link set o1 mtu 9000").unwrap());
    let sizes = [FrameSize::Ordinary, FrameSize::Long];
    let all = sizes.map(|size| [(Attachment::Native, size), (Attachment::Generic, size)]).concat();
    for (attachment, size) in all {
        let mut kernel = lab.kernel();
        let mut port = lab.appliance(|| attach(&mut kernel, attachment, size));
        let sender = lab.peer(|| UdpSocket::bind(V4.peer).unwrap());
        let key = FlowKey::new(OUTSIDE, address(V4.media), sender.local_addr().unwrap());
        kernel.insert_flow(&key, 5, 6).unwrap();
        let most = size.packet_max() - V4.headers;
        for length in [most + 1, 8900, most] {
            sender.send_to(&vec![0x80; length], V4.media).unwrap();
        }
        let mut burst = Burst::new();
        wait("reception", || port.receive(&mut burst).unwrap() > 0);
        let received: Vec<_> = burst.drain().collect();
        assert_eq!(received.len(), 1);
        assert_eq!((received[0].payload.len(), received[0].tag), (most, Some((5, 6))));
        for received in received {
            port.release(received.frame);
        }
        assert_eq!((count(&kernel, "drop_too_long"), count(&kernel, "redirect_flow")), (2, 1));
        assert_eq!((port.counters().truncated, port.counters().kernel_dropped), (0, 0));
        kernel.detach_all();
        wait("the end of the program", || !lab.command("ip link show dev o0").contains("xdp"));
    }
}
