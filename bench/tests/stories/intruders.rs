//! Whoever has no business here: strangers, forgers, replayers, and media before the handshake. Not one packet passes,
//! each is counted under its reason.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use sallyport_lab::appliance::{MEDIA_PORT, Status, Way};
use sallyport_lab::caller::{Caller, Media};
use sallyport_lab::capture::{Capture, is_rtp};
use sallyport_lab::net::{AGENT, APPLIANCE_PUBLIC, BROWSER, INSIDE, INSIDE_PEER, OUTSIDE_PEER};
use sallyport_lab::{Options, Place};

use crate::stage::{Stage, grown, possible};

/// A router of the Internet, who attacks.
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Packets of each kind.
const MANY: u64 = 50;

/// What an attacker without keys would send as media: well-formed RTP.
fn forged_rtp(sequence: u64) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef];
    packet[2..4].copy_from_slice(&u16::try_from(sequence).unwrap().to_be_bytes());
    packet.resize(12 + 160 + 16, 0x55);
    packet
}

fn stranger(stage: &Stage, place: Place, address: Ipv4Addr) -> UdpSocket {
    stage.lab.namespace(place).within(|| UdpSocket::bind((address, 0)).unwrap()).unwrap()
}

/// Counters of drops and of forwarded media that have moved, but for those that come and go with ICE itself.
fn moved(before: &Status, after: &Status) -> Vec<(String, u64)> {
    let all = grown(before, after);
    all.into_iter().filter(|(name, _)| name.contains("drop_") || name.starts_with("forward_")).collect()
}

fn expect(before: &Status, after: &Status, expected: &[(&str, u64)], what: &str) {
    let expected: Vec<(String, u64)> =
        expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    assert_eq!(moved(before, after), expected, "{what}");
}

/// Forgers and replayers on the call's own 5-tuple; the state after that.
fn forge_and_replay(stage: &Stage, caller: &Caller, media: &mut Media, talked: &Status) -> Status {
    let peer = media.peer();
    // Every octet of header, payload and tag is under the tag.
    for at in 0..MANY {
        let mut packet = media.seal().unwrap();
        let octet = usize::try_from(at).unwrap() * (packet.len() - 13) / usize::try_from(MANY).unwrap() + 12;
        packet[octet] ^= 1;
        caller.socket().send_to(&packet, peer).unwrap();
    }
    let forged = stage.status();
    expect(talked, &forged, &[("drop_bad_tag", MANY)], "forged tags");

    // Replays: one of them was new once.
    let packet = media.seal().unwrap();
    for _ in 0..=MANY {
        caller.socket().send_to(&packet, peer).unwrap();
    }
    let replayed = stage.status();
    // The agent echoes what it got.
    expect(&forged, &replayed, &[("drop_replay", MANY), ("forward_rtp", 2)], "replays");
    replayed
}

fn are_kept_out(way: Way) {
    let stage = Stage::set(way, Options::default(), |_| ());
    let tap = |place, interface, name| {
        Capture::start(&stage.lab, &stage.lab.namespace(place), interface, name).unwrap()
    };
    let outside = tap(Place::DmzNat, OUTSIDE_PEER, "outside");
    let inside = tap(Place::Enterprise, INSIDE_PEER, "inside");
    let unknown = if way == Way::Socket { "drop_unknown_flow" } else { "xdp_drop_unknown_flow" };
    let appliance = SocketAddr::from((APPLIANCE_PUBLIC, MEDIA_PORT));

    // Strangers outside: media, DTLS, anything.
    let socket = stranger(&stage, Place::Internet, STRANGER);
    let start = stage.status();
    for at in 0..MANY {
        socket.send_to(&forged_rtp(at), appliance).unwrap();
        socket.send_to(&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1], appliance).unwrap();
        socket.send_to(b"hello?", appliance).unwrap();
    }
    let strangers = stage.status();
    expect(&start, &strangers, &[(unknown, 3 * MANY)], "strangers");

    // A nominated pair is no handshake.
    let mut caller = Caller::new(&stage.lab, Place::Browser, IpAddr::V4(BROWSER)).unwrap();
    let placed = caller.call(&stage.appliance, "1000").unwrap();
    let peer = caller.nominate(&placed.answer, Duration::from_secs(10)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let nominated = stage.status();
    for at in 0..MANY {
        caller.socket().send_to(&forged_rtp(at), peer).unwrap();
    }
    let early = stage.status();
    expect(&nominated, &early, &[("drop_early", MANY)], "media before the handshake");

    // A real call.
    let mut media = caller.connect(&placed.answer, Duration::from_secs(10)).unwrap();
    let connected = stage.status();
    let talk = caller.talk(&mut media, 50).unwrap();
    assert_eq!((talk.sent, talk.heard, talk.broken), (50, 50, 0));
    let talked = stage.status();
    expect(&connected, &talked, &[("forward_rtp", 100)], "the call itself");

    let replayed = forge_and_replay(&stage, &caller, &mut media, &talked);

    // Inside, someone else than the agent knows the port.
    let so_far = inside.so_far().unwrap();
    let port =
        so_far.iter().find(|packet| is_rtp(packet) && packet.source.ip() == INSIDE).unwrap().source.port();
    let neighbour = stranger(&stage, Place::Enterprise, AGENT);
    for at in 0..MANY {
        neighbour.send_to(&forged_rtp(at), (INSIDE, port)).unwrap();
    }
    let neighbours = stage.status();
    // From the agent's address, but not its port, while the agent speaks.
    expect(&replayed, &neighbours, &[("drop_unlatched", MANY)], "a neighbour inside");

    // What the cables say: the agent got the call's 51 packets, the stranger got nothing.
    let to_agent =
        inside.stop().unwrap().into_iter().filter(|packet| packet.source.ip() == INSIDE && is_rtp(packet));
    assert_eq!(to_agent.count(), 51);
    let to_stranger =
        outside.stop().unwrap().into_iter().filter(|packet| packet.destination.ip() == STRANGER);
    assert_eq!(to_stranger.count(), 0);
}

#[test]
fn nobody_without_business_passes_native_xdp() {
    if possible() {
        are_kept_out(Way::Xdp);
    }
}

#[test]
fn nobody_without_business_passes_generic_xdp() {
    if possible() {
        are_kept_out(Way::Generic);
    }
}

#[test]
fn nobody_without_business_passes_sockets() {
    if possible() {
        are_kept_out(Way::Socket);
    }
}
