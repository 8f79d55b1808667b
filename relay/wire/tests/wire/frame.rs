//! Frames: golden octets, every refusal, and there and back.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use sallyport_wire::frame::{Datagram, HEADERS_MAX, Link, emit, parse};
use sallyport_wire::{Malformed, PacketBuf, Short};

use crate::checksum::slow;
use crate::hex;

const LINK: Link =
    Link { source_mac: [2, 0, 0, 0, 0, 1], destination_mac: [2, 0, 0, 0, 0, 2], vlan: None, dscp: 46 };

/// "hello" from 192.0.2.1:4000 to 198.51.100.2:5004, tagged with VLAN 7.
const V4: &str = "020000000002 020000000001 8100 0007 0800
    45b8 0021 0000 4000 4011 4ddd c0000201 c6336402
    0fa0 138c 000d ac9e 68656c6c6f";
/// "hello" from [2001:db8::1]:4000 to [2001:db8::2]:5004, untagged.
const V6: &str = "020000000002 020000000001 86dd
    6b800000 000d 11 40 20010db8000000000000000000000001 20010db8000000000000000000000002
    0fa0 138c 000d 3d61 68656c6c6f";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The frame that carries `payload`.
fn framed(link: &Link, payload: &[u8], from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>, Short> {
    let mut bytes = vec![0xee; HEADERS_MAX];
    bytes.extend(payload);
    let end = bytes.len();
    let mut buf = PacketBuf::new(&mut bytes, HEADERS_MAX..end)?;
    emit(&mut buf, link, from, to)?;
    Ok(buf.packet().to_vec())
}

#[test]
fn emits_the_golden_frames() {
    let v4 = framed(
        &Link { vlan: Some(7), ..LINK },
        b"hello",
        address("192.0.2.1:4000"),
        address("198.51.100.2:5004"),
    );
    assert_eq!(v4, Ok(hex(V4)));
    let v6 = framed(&LINK, b"hello", address("[2001:db8::1]:4000"), address("[2001:db8::2]:5004"));
    assert_eq!(v6, Ok(hex(V6)));
}

#[test]
fn parses_the_golden_frames() {
    let frame = hex(V4);
    let expected = Datagram {
        vlan: Some(7),
        source_mac: LINK.source_mac,
        destination_mac: LINK.destination_mac,
        source: address("192.0.2.1:4000"),
        destination: address("198.51.100.2:5004"),
        payload: 46..51,
    };
    assert_eq!(parse(&frame), Ok(expected));
    let datagram = parse(&hex(V6)).unwrap();
    assert_eq!((datagram.vlan, datagram.payload), (None, 62..67));
    assert_eq!(datagram.source, address("[2001:db8::1]:4000"));
    assert_eq!(datagram.destination, address("[2001:db8::2]:5004"));
}

#[test]
fn every_cut_is_refused() {
    for frame in [hex(V4), hex(V6)] {
        for cut in 0..frame.len() {
            let error = parse(&frame[..cut]).unwrap_err();
            assert!(matches!(error, Malformed::Short | Malformed::Length), "{cut}: {error}");
        }
    }
}

/// Places and what they hold instead.
type Changes = &'static [(usize, u8)];

/// The frame with other octets at some places.
fn with(frame: &str, changes: Changes) -> Result<Datagram, Malformed> {
    let mut frame = hex(frame);
    for (at, octet) in changes {
        frame[*at] = *octet;
    }
    parse(&frame)
}

#[test]
fn what_is_not_ours_is_refused_by_name() {
    let cases: [(&str, Changes, Malformed); 18] = [
        (V4, &[(12, 0x88), (13, 0xa8)], Malformed::NotUdp), // 802.1ad
        (V4, &[(16, 0x81), (17, 0x00)], Malformed::NotUdp), // a second tag
        (V6, &[(12, 0x08), (13, 0x06)], Malformed::NotUdp), // ARP
        (V4, &[(18, 0x65)], Malformed::Version),
        (V4, &[(18, 0x44)], Malformed::Length),   // four words of header
        (V4, &[(18, 0x49)], Malformed::Length),   // a header longer than the packet
        (V4, &[(21, 19)], Malformed::Length),     // a packet shorter than the header
        (V4, &[(21, 0x22)], Malformed::Length),   // a packet longer than the frame
        (V4, &[(24, 0x20)], Malformed::Fragment), // more fragments
        (V4, &[(25, 0x01)], Malformed::Fragment), // an offset
        (V4, &[(27, 6)], Malformed::NotUdp),      // TCP
        (V4, &[(43, 7)], Malformed::Length),      // a datagram shorter than its header
        (V4, &[(43, 14)], Malformed::Length),     // a datagram longer than the packet
        (V6, &[(14, 0x4b)], Malformed::Version),
        (V6, &[(19, 14)], Malformed::Length),
        (V6, &[(20, 44)], Malformed::Fragment),
        (V6, &[(20, 0)], Malformed::NotUdp),          // hop-by-hop options
        (V6, &[(18, 0), (19, 0)], Malformed::Length), // a jumbogram
    ];
    for (frame, changes, expected) in cases {
        assert_eq!(with(frame, changes), Err(expected), "{changes:?}");
    }
}

#[test]
fn what_parses_does_so_by_its_lengths() {
    let padded = hex(V4).into_iter().chain([0; 9]).collect::<Vec<u8>>();
    assert_eq!(parse(&padded).unwrap().payload, 46..51);
    assert_eq!(with(V4, &[(43, 12)]).unwrap().payload, 46..50, "a datagram shorter than its packet");
    assert_eq!(with(V4, &[(43, 8)]).unwrap().payload, 46..46, "no payload");
    assert_eq!(with(V4, &[(14, 0xe0), (15, 0)]).unwrap().vlan, Some(0), "a priority only");
    assert!(with(V4, &[(24, 0xc0)]).is_ok(), "the reserved flag is not a fragment");
    let mut options = hex(V4);
    options[18] = 0x46;
    options[21] += 4;
    options.splice(38..38, [1, 1, 1, 0]);
    let datagram = parse(&options).unwrap();
    assert_eq!((datagram.payload, datagram.source.port()), (50..55, 4000));
}

#[test]
fn what_does_not_fit_leaves_the_packet_as_it_was() {
    let (v4, v6) = (address("192.0.2.1:1"), address("[2001:db8::1]:1"));
    for (room, link, from, to) in [
        (41, LINK, v4, v4),
        (45, Link { vlan: Some(1), ..LINK }, v4, v4),
        (61, LINK, v6, v6),
        (HEADERS_MAX - 1, Link { vlan: Some(1), ..LINK }, v6, v6),
        (HEADERS_MAX, LINK, v4, v6),
        (HEADERS_MAX, LINK, v6, v4),
    ] {
        let mut bytes = vec![0xee; room + 3];
        let mut buf = PacketBuf::new(&mut bytes, room..room + 3).unwrap();
        assert_eq!(emit(&mut buf, &link, from, to), Err(Short), "{room}");
        assert_eq!(buf.range(), room..room + 3);
        assert!(bytes.iter().all(|octet| *octet == 0xee));
    }
}

#[test]
fn the_longest_payloads_fit_and_no_longer_ones() {
    for (host, longest) in [("192.0.2.1:1", 65_535 - 20 - 8), ("[2001:db8::1]:1", 65_535 - 8)] {
        let host = address(host);
        let frame = framed(&LINK, &vec![1; longest], host, host).unwrap();
        assert_eq!(parse(&frame).unwrap().payload.len(), longest);
        assert_eq!(framed(&LINK, &vec![1; longest + 1], host, host), Err(Short));
    }
}

/// UDP's checksum is 0xffff where it comes out as zero: there, zero means none.
#[test]
fn a_checksum_of_zero_is_sent_as_ones() {
    for host in ["192.0.2.1:9", "[2001:db8::1]:9"] {
        let host = address(host);
        let at = if host.is_ipv4() { 40 } else { 60 };
        let frame = framed(&LINK, &[0, 0], host, host).unwrap();
        let zero = framed(&LINK, &frame[at..at + 2], host, host).unwrap();
        assert_eq!(zero[at..at + 2], [0xff, 0xff]);
    }
}

fn link() -> impl Strategy<Value = Link> {
    (any::<[u8; 6]>(), any::<[u8; 6]>(), prop::option::of(any::<u16>()), any::<u8>()).prop_map(
        |(source_mac, destination_mac, vlan, dscp)| Link { source_mac, destination_mac, vlan, dscp },
    )
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(from, to)| (from.into(), to.into())),
        any::<([u8; 16], [u8; 16])>().prop_map(|(from, to)| (from.into(), to.into())),
    ]
}

/// Both checksums of an emitted frame, by the slow sum over header and pseudo-header.
fn checksums_are_right(frame: &[u8], network: usize, is_ipv4: bool) -> bool {
    let (header, addresses) = if is_ipv4 { (20, 12..20) } else { (40, 8..40) };
    let (ip, datagram) = frame[network..].split_at(header);
    let mut pseudo = ip[addresses].to_vec();
    pseudo.extend((datagram.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 17]);
    pseudo.extend(datagram);
    let declared = [datagram[6], datagram[7]];
    (!is_ipv4 || slow(ip) == 0) && declared != [0, 0] && slow(&pseudo) == 0
}

proptest! {
    #[test]
    fn what_is_emitted_parses_back(
        link in link(),
        hosts in addresses(),
        ports: (u16, u16),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        padding in 0usize..20,
    ) {
        let (from, to) = (SocketAddr::new(hosts.0, ports.0), SocketAddr::new(hosts.1, ports.1));
        let mut frame = framed(&link, &payload, from, to).unwrap();
        let network = if link.vlan.is_some() { 18 } else { 14 };
        prop_assert!(checksums_are_right(&frame, network, from.is_ipv4()));
        let traffic_class = u16::from_be_bytes([frame[network], frame[network + 1]]) >> if from.is_ipv4() { 0 } else { 4 };
        prop_assert_eq!(traffic_class as u8, link.dscp << 2);
        frame.extend(vec![0; padding]);
        let datagram = parse(&frame).unwrap();
        prop_assert_eq!(&frame[datagram.payload.clone()], &payload[..]);
        prop_assert_eq!(datagram.vlan, link.vlan.map(|vlan| vlan & 0x0fff));
        prop_assert_eq!((datagram.source, datagram.destination), (from, to));
        prop_assert_eq!(datagram.source_mac, link.source_mac);
        prop_assert_eq!(datagram.destination_mac, link.destination_mac);
    }
}
