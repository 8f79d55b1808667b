//! The AF_XDP port over veth pairs, with a program of the test's own in front and the kernel's UDP at both ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as the test does")]

mod lab;
mod sockets;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use lab::{CLIENT_MAC, Lab, Peers, Place};
use sallyport_io::{AfXdpPort, Burst, Egress, HEADROOM, Mode, OpenError, Port, TransmitError};
use sallyport_wire::frame::Link;

/// 10,000 datagrams of each family there and back, over four queues.
fn forwards(mode: Mode) {
    let Some(lab) = Lab::new(4) else { return };
    let mut appliance = lab.appliance(mode, 1024);
    for v4 in [true, false] {
        let mut peers = Peers::new(&lab, v4, 50);
        for _ in 0..200 {
            peers.exchange(&mut appliance, 172);
        }
        for length in [4, 1000, if v4 { 1472 } else { 1452 }] {
            peers.exchange(&mut appliance, length);
        }
        appliance.settle();
    }
    let seen = std::mem::take(&mut appliance.seen);
    assert_eq!(seen.len(), 2 * 2 * 203 * 50);
    for datagram in &seen {
        let tag = (u32::from(datagram.local.port()), u32::try_from(datagram.port).unwrap());
        assert_eq!(datagram.tag, Some(tag), "the direction is the port, the epoch is the queue");
        assert_eq!((datagram.zone == 1, datagram.vlan), (datagram.source_mac == Some(CLIENT_MAC), None));
    }
    let queues: HashSet<usize> = seen.iter().map(|datagram| datagram.port).collect();
    // A veth without its own NAPI counts its queues as one less than they are.
    let least = if mode == Mode::Native { 4 } else { 3 };
    assert!(queues.len() >= least, "traffic on every queue");
    for port in &appliance.ports {
        let counters = port.counters();
        assert_eq!((counters.received, counters.malformed), (counters.transmitted, 0));
        assert_eq!((counters.refused, counters.kernel_dropped), (0, 0));
        assert!(!port.zero_copy(), "veth has none");
    }
}

/// Datagrams that the next link does not carry as they are: the kernels at both ends put the fragments together.
fn cuts(mode: Mode) {
    let Some(lab) = Lab::new(2) else { return };
    for mtu in [1280, 1400, 1499] {
        lab.mtu.set(mtu);
        let mut appliance = lab.appliance(mode, 512);
        let mut cut = 0;
        for v4 in [true, false] {
            let mut peers = Peers::new(&lab, v4, 20);
            for length in [1000, if v4 { 1472 } else { 1452 }] {
                peers.exchange(&mut appliance, length);
            }
            cut += 20;
        }
        appliance.settle();
        let counted = appliance.ports.iter().map(|port| port.counters().fragmented);
        let counted = counted.reduce(|one, other| [one[0] + other[0], one[1] + other[1]]);
        assert_eq!(counted, Some([cut, cut]), "by an MTU of {mtu}");
    }
}

#[test]
fn datagrams_longer_than_the_next_link_carries_arrive_in_native_mode() {
    cuts(Mode::Native);
}

#[test]
fn datagrams_longer_than_the_next_link_carries_arrive_in_generic_mode() {
    cuts(Mode::Generic);
}

#[test]
fn ipv4_that_leaves_as_ipv6_is_cut_where_it_became_too_long() {
    let Some(lab) = Lab::new(1) else { return };
    let mut appliance = lab.appliance(Mode::Native, 512);
    let client = lab.socket(Place::Client, "10.77.1.1:4001");
    let server = lab.socket(Place::Server, "[fd77:2::1]:9000");
    for (length, cut) in [(1452, 0), (1453, 1), (1472, 2)] {
        let payload: Vec<u8> = (0..=250u8).cycle().take(length).collect();
        client.send_to(&payload, "10.77.1.2:4000").unwrap();
        let port = &mut appliance.ports[0];
        let received = one(port);
        let link =
            Link { source_mac: lab::INSIDE_MAC, destination_mac: lab::SERVER_MAC, vlan: None, dscp: 46 };
        let (local, remote) = ("[fd77:2::2]:4000".parse().unwrap(), "[fd77:2::1]:9000".parse().unwrap());
        let egress = Egress { zone: 2, local, remote, link: Some(link) };
        port.transmit(received.frame, received.payload, &egress).unwrap();
        port.flush().unwrap();
        let (mut answer, until) = ([0; 2000], Instant::now() + Duration::from_secs(5));
        let (octets, from) = loop {
            match server.recv_from(&mut answer) {
                Ok(received) => break received,
                Err(_) => assert!(Instant::now() < until, "{length} octets do not arrive"),
            }
        };
        assert_eq!((&answer[..octets], from), (&payload[..], local));
        assert_eq!(port.counters().fragmented, [0, cut]);
    }
    appliance.settle();
}

/// A link with jumbo frames: what a long frame takes passes, what is longer comes in parts and is counted.
fn carries_jumbo_frames(mode: Mode) {
    let Some(lab) = Lab::new(2) else { return };
    lab.carry(9000);
    let mut appliance = lab.appliance(mode, 512);
    // Headers of Ethernet and IP and the headroom take the rest of 4,096 octets.
    for (v4, most) in [(true, 4096 - 320 - 42), (false, 4096 - 320 - 62)] {
        let mut peers = Peers::new(&lab, v4, 20);
        for length in [172, 1500, 1800, 2100, 3600, most] {
            peers.exchange(&mut appliance, length);
        }
        for length in [most + 1, 8900] {
            peers.clients[0].send(&vec![1; length]).unwrap();
        }
        let dropped = |appliance: &lab::Appliance| -> u64 {
            appliance.ports.iter().map(|port| port.counters().truncated).sum()
        };
        let until = Instant::now() + Duration::from_secs(5);
        while dropped(&appliance) < if v4 { 2 } else { 4 } {
            assert_eq!(appliance.pump(), 0, "nothing of them is seen");
            assert!(Instant::now() < until, "{} are counted", dropped(&appliance));
        }
        peers.exchange(&mut appliance, most);
    }
    appliance.settle();
    assert!(appliance.ports.iter().all(|port| port.counters().malformed == 0));
}

#[test]
fn jumbo_frames_pass_as_far_as_they_fit_in_native_mode() {
    carries_jumbo_frames(Mode::Native);
}

#[test]
fn jumbo_frames_pass_as_far_as_they_fit_in_generic_mode() {
    carries_jumbo_frames(Mode::Generic);
}

#[test]
fn forwards_between_two_devices_in_native_mode() {
    forwards(Mode::Native);
}

#[test]
fn forwards_between_two_devices_in_generic_mode() {
    forwards(Mode::Generic);
}

#[test]
fn only_flows_have_a_tag() {
    for mode in [Mode::Native, Mode::Generic] {
        let Some(lab) = Lab::new(1) else { return };
        let mut appliance = lab.appliance(mode, 512);
        let client = lab.socket(Place::Client, "10.77.1.1:0");
        // More than the port has frames: buffers with old metadata are used again.
        for round in 0..400 {
            for (port, tag) in [(4900, None), (4000, Some((4000, 0))), (4901, None)] {
                client.send_to(b"x", ("10.77.1.2", port)).unwrap();
                let before = appliance.seen.len();
                let until = Instant::now() + Duration::from_secs(5);
                while appliance.seen.len() == before {
                    appliance.pump();
                    assert!(Instant::now() < until);
                }
                assert_eq!(appliance.seen.last().unwrap().tag, tag, "{mode:?} round {round} port {port}");
            }
        }
        appliance.settle();
    }
}

#[test]
fn frames_are_conserved_in_overload_and_after() {
    for mode in [Mode::Native, Mode::Generic] {
        let Some(lab) = Lab::new(1) else { return };
        let mut appliance = lab.appliance(mode, 512);
        let client = lab.socket(Place::Client, "10.77.1.1:0");
        // Nobody receives: the fill ring runs dry.
        for _ in 0..5000 {
            client.send_to(&[0; 172], ("10.77.1.2", 4000)).unwrap();
        }
        let port = &appliance.ports[0];
        assert!(port.counters().kernel_dropped + port.counters().kernel_starved > 0);
        assert_eq!(port.frames().missing(), 0);
        // Then a flood while it forwards: ten are sent for each visit of the forwarder.
        for _ in 0..3000 {
            for _ in 0..10 {
                client.send_to(&[0; 172], ("10.77.1.2", 4000)).unwrap();
            }
            appliance.pump();
            assert_eq!(appliance.ports[0].frames().missing(), 0);
        }
        appliance.settle();
        Peers::new(&lab, true, 20).exchange(&mut appliance, 172);
        Peers::new(&lab, false, 20).exchange(&mut appliance, 172);
        appliance.settle();
    }
}

#[test]
fn a_hoarding_user_starves_itself_only_until_it_releases() {
    let Some(lab) = Lab::new(1) else { return };
    let mut appliance = lab.appliance(Mode::Native, 512);
    let port = &mut appliance.ports[0];
    let hoard: Vec<_> = std::iter::from_fn(|| port.allocate()).collect();
    assert_eq!(hoard.len(), 256, "the other half waits for packets");
    assert_eq!((port.frames().free, port.frames().held, port.frames().missing()), (0, 256, 0));
    hoard.into_iter().for_each(|frame| port.release(frame));
    Peers::new(&lab, true, 20).exchange(&mut appliance, 172);
    appliance.settle();
}

/// Receives one datagram.
fn one(port: &mut AfXdpPort) -> sallyport_io::Received {
    let mut burst = Burst::new();
    let until = Instant::now() + Duration::from_secs(5);
    while port.receive(&mut burst).unwrap() == 0 {
        assert!(Instant::now() < until, "nothing came: {:?}", port.counters());
    }
    burst.drain().next().unwrap()
}

#[test]
fn vlan_tags_are_read_and_written() {
    let Some(lab) = Lab::new(1) else { return };
    let mut appliance = lab.appliance(Mode::Native, 512);
    let (mut client, _program) = lab.client_port();
    let (theirs, ours) = ("10.77.1.1:4001".parse().unwrap(), "10.77.1.2:4000".parse().unwrap());
    for vlan in [Some(7), None, Some(4095)] {
        let frame = client.allocate().unwrap();
        client.buffer(&frame)[HEADROOM..HEADROOM + 6].copy_from_slice(b"tagged");
        let link = Link { source_mac: CLIENT_MAC, destination_mac: lab::OUTSIDE_MAC, vlan, dscp: 46 };
        let egress = Egress { zone: 1, local: theirs, remote: ours, link: Some(link) };
        client.transmit(frame, HEADROOM..HEADROOM + 6, &egress).unwrap();
        client.flush().unwrap();
        let port = &mut appliance.ports[0];
        let received = one(port);
        assert_eq!((received.local, received.remote), (ours, theirs));
        assert_eq!((received.vlan, received.tag), (vlan, Some((4000, 0))));
        assert_eq!(port.buffer(&received.frame)[received.payload.clone()], *b"tagged");
        let link = Link { source_mac: lab::OUTSIDE_MAC, destination_mac: CLIENT_MAC, vlan, dscp: 0 };
        let egress = Egress { zone: 1, local: ours, remote: theirs, link: Some(link) };
        port.transmit(received.frame, received.payload, &egress).unwrap();
        port.flush().unwrap();
        let answer = one(&mut client);
        assert_eq!((answer.vlan, answer.local, answer.remote), (vlan, theirs, ours));
        assert_eq!(client.buffer(&answer.frame)[answer.payload.clone()], *b"tagged");
        client.release(answer.frame);
    }
    appliance.settle();
}

/// Transmits a datagram of the port's own to the server, or to nobody.
fn send(port: &mut AfXdpPort, octets: usize) -> Result<(), TransmitError> {
    let frame = port.allocate().unwrap();
    let link = Link { source_mac: [2; 6], destination_mac: [2, 0x77, 0, 0, 2, 1], vlan: None, dscp: 0 };
    let (local, remote) = ("10.77.2.2:4000".parse().unwrap(), "10.77.2.1:9000".parse().unwrap());
    port.transmit(frame, HEADROOM..HEADROOM + octets, &Egress { zone: 2, local, remote, link: Some(link) })
}

#[test]
fn an_interface_that_goes_down_keeps_its_packets_until_it_is_up() {
    let Some(lab) = Lab::new(1) else { return };
    let mut appliance = lab.appliance(Mode::Native, 512);
    let server = lab.socket(Place::Server, "10.77.2.1:9000");
    lab.command(Place::Middle, "ip link set d1 down");
    let port = &mut appliance.ports[0];
    for _ in 0..10 {
        send(port, 100).unwrap();
    }
    assert_eq!(port.flush().unwrap_err().kind(), std::io::ErrorKind::NetworkDown);
    assert_eq!((port.pending(), port.frames().transmit, port.frames().missing()), (10, 10, 0));
    let refused = std::iter::repeat_with(|| send(port, 100)).find_map(Result::err);
    assert_eq!(refused, Some(TransmitError::Io));
    let waiting = port.pending();
    lab.command(Place::Middle, "ip link set d1 up");
    let until = Instant::now() + Duration::from_secs(5);
    let mut arrived = 0;
    while arrived < waiting {
        let _ = appliance.ports[0].flush();
        arrived += std::iter::from_fn(|| server.recv(&mut [0; 200]).ok()).count();
        assert!(Instant::now() < until, "{arrived} of {waiting}");
    }
    appliance.settle();
}

#[test]
fn a_device_that_vanishes_is_an_error_and_no_crash() {
    let Some(lab) = Lab::new(1) else { return };
    let mut port = lab.open(&[lab.queue("d1", 0, Mode::Native)], 512).unwrap();
    send(&mut port, 100).unwrap();
    lab.command(Place::Middle, "ip link del d1");
    assert!(port.flush().is_err());
    assert_eq!((port.receive(&mut Burst::new()).unwrap(), port.frames().missing()), (0, 0));
}

#[test]
fn frames_longer_than_the_link_carries_come_back() {
    let Some(lab) = Lab::new(1) else { return };
    // As where somebody has given the interface another MTU meanwhile.
    lab.mtu.set(1700);
    let mut appliance = lab.appliance(Mode::Native, 512);
    let port = &mut appliance.ports[0];
    for _ in 0..600 {
        send(port, 1650).unwrap();
        port.flush().unwrap();
    }
    appliance.settle();
}

#[test]
fn opening_fails_with_the_reason() {
    let Some(lab) = Lab::new(2) else { return };
    let queue = lab.queue("d0", 0, Mode::Native);
    let missing = lab.queue("d0", 2, Mode::Native);
    let error = lab.open(&[queue, missing], 512).unwrap_err();
    assert!(matches!(error, OpenError::NoQueue { ifindex, queue: 2 } if ifindex == queue.ifindex), "{error}");
    let text = lab.within(Place::Middle, || error.to_string());
    assert!(text.starts_with("d0 has no queue 2"), "{text}");
    let nowhere = sallyport_io::Queue { ifindex: 4_000_000, ..queue };
    assert!(matches!(lab.open(&[nowhere], 512), Err(OpenError::NoInterface(4_000_000))));
    assert!(matches!(lab.open(&[], 512), Err(OpenError::Queues(0))));
    for frames in [0, 511, AfXdpPort::FRAMES_MAX + 1] {
        let error = lab.open(&[queue, lab.queue("d1", 0, Mode::Native)], frames).unwrap_err();
        assert!(matches!(error, OpenError::Frames { least: 512, .. }), "{error}");
    }
    let owner = lab.open(&[queue], 256).unwrap();
    let error = lab.open(&[queue], 256).unwrap_err();
    assert!(matches!(error, OpenError::Busy { queue: 0, .. }), "{error}");
    let listed: Vec<(u32, u32)> =
        owner.sockets().iter().map(|(ifindex, queue, _)| (*ifindex, *queue)).collect();
    assert_eq!((listed, owner.descriptors().len()), (vec![(queue.ifindex, 0)], 1));
}

#[test]
fn a_queue_can_be_opened_again_at_once() {
    let Some(lab) = Lab::new(1) else { return };
    for round in 0..30 {
        let mode = if round % 2 == 0 { Mode::Native } else { Mode::Generic };
        let both = [lab.queue("d0", 0, mode), lab.queue("d1", 0, mode)];
        let port = lab.open(&both, 512).unwrap();
        assert_eq!((port.frames().fill, port.frames().missing()), (256, 0));
    }
}
