//! Fragments: golden octets, and whatever is cut is the same datagram when it is put together.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use sallyport_wire::frame::{
    Cut, FRAGMENT_HEADERS_MAX, Fragment, Link, emit, emit_fragment, emit_udp, parse,
};
use sallyport_wire::{Malformed, PacketBuf, Short};

use crate::checksum::slow;
use crate::hex;

const LINK: Link =
    Link { source_mac: [2, 0, 0, 0, 0, 1], destination_mac: [2, 0, 0, 0, 0, 2], vlan: None, dscp: 46 };

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The UDP datagram that carries `payload`.
fn datagram(payload: &[u8], from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![0xee; 8];
    bytes.extend(payload);
    let end = bytes.len();
    let mut buf = PacketBuf::new(&mut bytes, 8..end).unwrap();
    emit_udp(&mut buf, from, to).unwrap();
    buf.packet().to_vec()
}

/// The frame of a fragment with these octets.
fn framed(link: &Link, octets: &[u8], hosts: (IpAddr, IpAddr), fragment: Fragment) -> Result<Vec<u8>, Short> {
    let mut bytes = vec![0xee; FRAGMENT_HEADERS_MAX];
    bytes.extend(octets);
    let end = bytes.len();
    let mut buf = PacketBuf::new(&mut bytes, FRAGMENT_HEADERS_MAX..end)?;
    emit_fragment(&mut buf, link, hosts.0, hosts.1, fragment)?;
    Ok(buf.packet().to_vec())
}

#[test]
fn emits_the_golden_fragments() {
    let (from, to): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "198.51.100.2".parse().unwrap());
    let last = Fragment { identification: 0x0001_abcd, offset: 1480, more: false };
    let frame = framed(&LINK, b"hello", (from, to), last).unwrap();
    let golden = "020000000002 020000000001 0800 45b8 0019 abcd 00b9 4011 e15e c0000201 c6336402 68656c6c6f";
    assert_eq!(frame, hex(golden));
    assert_eq!(slow(&frame[14..34]), 0);
    let first = framed(&LINK, &[7; 8], (from, to), Fragment { offset: 0, more: true, ..last }).unwrap();
    assert_eq!(first[20..22], [0x20, 0], "more fragments, and nothing forbids to cut");
    let (from, to): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
    let frame = framed(&LINK, &[7; 8], (from, to), Fragment { more: true, ..last }).unwrap();
    let golden = "020000000002 020000000001 86dd 6b800000 0010 2c 40
        20010db8000000000000000000000001 20010db8000000000000000000000002
        11 00 05c9 0001abcd 0707070707070707";
    assert_eq!(frame, hex(golden));
}

#[test]
fn what_fits_is_not_cut_and_one_octet_more_is() {
    for (host, headers, each) in [("192.0.2.1", 28, 1480), ("2001:db8::1", 48, 1448)] {
        let host: IpAddr = host.parse().unwrap();
        assert_eq!(Cut::new(1500 - headers, host, 1500), None);
        let cut = Cut::new(1500 - headers + 1, host, 1500).unwrap();
        assert_eq!((cut.count(), cut.range(0)), (2, 0..each));
        assert_eq!(
            (cut.range(1), cut.range(2)),
            (each..1500 - headers + 9, 1500 - headers + 9..1500 - headers + 9)
        );
        // Octets that an MTU has beyond a multiple of eight stay unused, but by the last fragment.
        let cut = Cut::new(4000, host, 1283).unwrap();
        assert_eq!((cut.range(0).len() % 8, cut.count()), (0, 4));
        assert!(Cut::new(100, host, 0).is_some_and(|cut| cut.range(0).len() == 8));
        assert!(Cut::new(usize::MAX, host, 1500).is_none());
    }
}

#[test]
fn what_cannot_be_said_leaves_the_packet_as_it_was() {
    let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let fragment = Fragment { identification: 1, offset: 0, more: true };
    for (room, octets, hosts) in [
        (33, 8, (v4, v4)),
        (61, 8, (v6, v6)),
        (FRAGMENT_HEADERS_MAX, 8, (v4, v6)),
        (FRAGMENT_HEADERS_MAX, 65_528, (v6, v6)),
        (FRAGMENT_HEADERS_MAX, 65_516, (v4, v4)),
    ] {
        let mut bytes = vec![0xee; room + octets];
        let mut buf = PacketBuf::new(&mut bytes, room..room + octets).unwrap();
        assert_eq!(emit_fragment(&mut buf, &LINK, hosts.0, hosts.1, fragment), Err(Short));
        assert_eq!(buf.range(), room..room + octets);
        assert!(bytes.iter().all(|octet| *octet == 0xee));
    }
    let mut bytes = [0xee; 10];
    let mut buf = PacketBuf::new(&mut bytes, 7..10).unwrap();
    assert_eq!(emit_udp(&mut buf, address("192.0.2.1:1"), address("192.0.2.1:1")), Err(Short));
    assert_eq!(buf.range(), 7..10);
    let cut = Cut::new(70_000, v6, 1500).unwrap();
    assert_eq!(cut.fragment(46, 1), Err(Short), "it begins at 66,608");
}

fn hosts() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(from, to)| (from.into(), to.into())),
        any::<([u8; 16], [u8; 16])>().prop_map(|(from, to)| (from.into(), to.into())),
    ]
}

/// What a receiver reads of a fragment, by the RFCs: identification, offset, whether more follow, octets.
fn read(packet: &[u8]) -> (u32, usize, bool, Vec<u8>) {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    if packet[0] >> 4 == 4 {
        assert_eq!((packet[0], packet[9], usize::from(word(2))), (0x45, 17, packet.len()));
        assert_eq!(slow(&packet[..20]), 0);
        assert_eq!(word(6) & 0xc000, 0, "neither reserved nor don't fragment");
        let offset = usize::from(word(6) & 0x1fff) * 8;
        return (word(4).into(), offset, word(6) & 0x2000 != 0, packet[20..].to_vec());
    }
    assert_eq!((packet[6], packet[40], usize::from(word(4))), (44, 17, packet.len() - 40));
    assert_eq!(word(42) & 6, 0, "reserved");
    let identification = u32::from(word(44)) << 16 | u32::from(word(46));
    (identification, usize::from(word(42) & 0xfff8), word(42) & 1 != 0, packet[48..].to_vec())
}

proptest! {
    #[test]
    fn fragments_put_together_are_the_datagram(
        hosts in hosts(),
        ports: (u16, u16),
        payload in prop::collection::vec(any::<u8>(), 0..5000),
        mtu in 68usize..3000,
        identification: u32,
        tagged: bool,
    ) {
        let (from, to) = (SocketAddr::new(hosts.0, ports.0), SocketAddr::new(hosts.1, ports.1));
        let link = Link { vlan: tagged.then_some(7), ..LINK };
        let network = if tagged { 18 } else { 14 };
        let whole = datagram(&payload, from, to);
        let mut bytes = [vec![0; 70], payload.clone()].concat();
        let end = bytes.len();
        let mut buf = PacketBuf::new(&mut bytes, 70..end).unwrap();
        emit(&mut buf, &link, from, to).unwrap();
        let headers = network + if from.is_ipv4() { 20 } else { 40 };
        prop_assert_eq!(&buf.packet()[headers..], &whole[..], "the same datagram as an uncut one");
        let Some(cut) = Cut::new(payload.len(), hosts.1, mtu) else {
            prop_assert!(buf.packet().len() - network <= mtu);
            return Ok(());
        };
        prop_assert!(buf.packet().len() - network > mtu);
        let mut together = Vec::new();
        for nth in 0..cut.count() {
            let fragment = cut.fragment(nth, identification).unwrap();
            let frame = framed(&link, &whole[cut.range(nth)], hosts, fragment).unwrap();
            prop_assert_eq!(parse(&frame), Err(Malformed::Fragment));
            let packet = &frame[network..];
            prop_assert!(packet.len() <= mtu);
            let (id, offset, more, octets) = read(packet);
            prop_assert_eq!(id, if from.is_ipv4() { identification & 0xffff } else { identification });
            prop_assert_eq!((offset, more), (together.len(), nth + 1 < cut.count()));
            prop_assert!(!more || octets.len() % 8 == 0);
            together.extend(octets);
        }
        prop_assert_eq!(together, whole);
    }
}
