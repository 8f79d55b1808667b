//! Real packets over veth: sockets on both sides, whose kernel verifies checksums, and nobody but the program between.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use sallyport_abi::{Egress, FlowKey, INSIDE, OUTSIDE, Target};
use sallyport_xdp::{Attachment, Kernel, Options, Rewrite};

use crate::frames::{address, rtp};
use crate::lab::{Lab, index, run, wait};

/// A peer: zone, our address, its address, its device and ours.
struct Peer {
    zone: u8,
    local: &'static str,
    bind: &'static str,
    device: &'static str,
    ours: &'static str,
}

const fn peer(zone: u8, local: &'static str, bind: &'static str) -> Peer {
    let (device, ours) = if zone == INSIDE { ("i1", "i0") } else { ("o1", "o0") };
    Peer { zone, local, bind, device, ours }
}

/// Hardware address of a device of this thread's namespace; sysfs would tell of the one that it was mounted in.
fn hardware(device: &str) -> [u8; 6] {
    let shown = run(&format!("ip -o link show dev {device}")).unwrap();
    let text = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    let octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap());
    octets.collect::<Vec<_>>().try_into().unwrap()
}

fn steer(
    kernel: &mut Kernel,
    from: (&Peer, SocketAddr),
    to: (&Peer, SocketAddr),
    egress: &Egress,
    tally: u32,
) {
    let key = FlowKey::new(from.0.zone, address(from.0.local), from.1);
    let target = Target::new(&key, address(to.0.local), to.1, egress).unwrap();
    let rewrite = Rewrite { rtp: target, rtcp: target, payload_types: [1, 0] };
    kernel.steer_flow(&key, 1, 1, Some((&rewrite, tally))).unwrap();
}

/// How packets leave, and what veth wants of its other end for that: a program of its own where the driver sends them
/// back, GRO where they are redirected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Back,
    Redirected,
}

fn talk(attachment: Attachment, way: Way, one: &Peer, other: &Peer) {
    let Some(lab) = Lab::new() else { return };
    let gro = if way == Way::Back { "off" } else { "on" };
    for device in [one.device, other.device] {
        // Checksums are finished by the sender, as on a wire.
        lab.peer(|| run(&format!("ethtool -K {device} tx off gro {gro}"))).unwrap();
    }
    // All passes: it knows no media.
    let mut passing = Kernel::load(&Options { pins: lab.folder().join("other"), max_flows: 2 }).unwrap();
    if (attachment, way) == (Attachment::Native, Way::Back) {
        lab.peer(|| passing.attach(index(one.device), INSIDE, Some(Attachment::Native))).unwrap();
    }
    let sockets = [one, other].map(|peer| lab.peer(|| UdpSocket::bind(peer.bind).unwrap()));
    let remotes = [&sockets[0], &sockets[1]].map(|socket| socket.local_addr().unwrap());
    let mut kernel = lab.kernel();
    lab.appliance(|| {
        for (device, zone) in [("o0", OUTSIDE), ("i0", INSIDE)] {
            kernel.attach(index(device), zone, Some(attachment)).unwrap();
        }
    });
    for peer in [one, other] {
        let local = address(peer.local);
        kernel.set_media(peer.zone, local.ip(), 10_000..=29_999, None).unwrap();
    }
    let egress = |peer: &Peer| Egress {
        ifindex: lab.appliance(|| index(peer.ours)),
        source_mac: lab.appliance(|| hardware(peer.ours)),
        destination_mac: lab.peer(|| hardware(peer.device)),
        dscp: 0,
        back: way == Way::Back,
        mtu: 1500,
    };
    let egresses = [egress(one), egress(other)];
    steer(&mut kernel, (one, remotes[0]), (other, remotes[1]), &egresses[1], 0);
    steer(&mut kernel, (other, remotes[1]), (one, remotes[0]), &egresses[0], 1);

    for (from, to) in [(0, 1), (1, 0)] {
        let (peers, mut room) = ([one, other], [0; 512]);
        sockets[to].set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut heard = || {
            sockets[from].send_to(&rtp(160), peers[from].local).unwrap();
            sockets[to].recv_from(&mut room).ok()
        };
        // The first ones may be lost while the neighbours of the sender find each other.
        wait("the first packet", || heard().is_some());
        for _ in 0..20 {
            assert_eq!(heard(), Some((172, address(peers[to].local))));
        }
        assert_eq!(room[..172], rtp(160));
    }
    let counted: Vec<u64> = (0..2).map(|place| kernel.tally(place).unwrap().packets).collect();
    assert!(counted.iter().all(|packets| *packets >= 21), "{counted:?}");
    let counters = kernel.counters();
    let count = |name: &str| counters.iter().find(|(counter, _)| *counter == name).unwrap().1;
    assert_eq!(count("rewrite_rtp"), counted.iter().sum::<u64>());
    assert_eq!((count("redirect_flow"), count("drop_no_socket")), (0, 0));
    kernel.detach_all();
    passing.detach_all();
}

const BOTH: [Attachment; 2] = [Attachment::Native, Attachment::Generic];

fn on_one_interface(one: &Peer, other: &Peer) {
    for attachment in BOTH {
        for way in [Way::Back, Way::Redirected] {
            talk(attachment, way, one, other);
        }
    }
}

#[test]
fn peers_of_one_interface_talk_v4() {
    on_one_interface(
        &peer(INSIDE, "10.0.0.1:20000", "10.0.0.9:0"),
        &peer(INSIDE, "10.0.0.1:20002", "10.0.0.9:0"),
    );
}

#[test]
fn peers_of_one_interface_talk_v6() {
    on_one_interface(
        &peer(INSIDE, "[fd00::1]:20000", "[fd00::9]:0"),
        &peer(INSIDE, "[fd00::1]:20002", "[fd00::9]:0"),
    );
}

#[test]
fn peers_of_two_interfaces_talk() {
    let one = peer(OUTSIDE, "192.0.2.1:10000", "192.0.2.9:0");
    let other = peer(INSIDE, "10.0.0.1:20000", "10.0.0.9:0");
    BOTH.into_iter().for_each(|attachment| talk(attachment, Way::Redirected, &one, &other));
}
