//! Frames, octet by octet: an implementation of its own, so that it can disagree with the program.

use std::net::{IpAddr, SocketAddr};

/// Octets of the Ethernet header.
pub const ETHERNET: usize = 14;
/// Where the UDP header lies, without tag and options.
pub const UDP_V4: usize = ETHERNET + 20;
pub const UDP_V6: usize = ETHERNET + 40;

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Ethernet, IP and UDP around a payload. Checksums are zero: nobody looks at them.
pub fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (address(from), address(to));
    let length = u16::try_from(payload.len() + 8).unwrap();
    let mut datagram = Vec::new();
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    ip(from.ip(), to.ip(), 17, &datagram)
}

/// The frame of [`udp`] with its checksums, as a sender on the wire has them.
pub fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    let v4 = frame[12..14] == [8, 0];
    let (addresses, at) = if v4 { (ETHERNET + 12, UDP_V4) } else { (ETHERNET + 8, UDP_V6) };
    if v4 {
        frame[ETHERNET + 10..ETHERNET + 12].fill(0);
        let sum = !sum(&frame[ETHERNET..UDP_V4]);
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let end = at + usize::from(u16::from_be_bytes([frame[at + 4], frame[at + 5]]));
    frame[at + 6..at + 8].fill(0);
    let pseudo = [&frame[addresses..at], &[0, 17], &frame[at + 4..at + 6]].concat();
    let sum = match !sum(&[&pseudo, &frame[at..end]].concat()) {
        0 => 0xffff,
        sum => sum,
    };
    frame[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The ones' complement sum of RFC 1071, word by word as it is written there.
fn sum(octets: &[u8]) -> u16 {
    octets.chunks(2).fold(0, |sum, word| {
        let word = u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// Ethernet and IP around the octets of a protocol.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((length + 20).to_be_bytes());
            frame.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("two families"),
    }
    frame.extend(body);
    frame
}

/// The frame with other octets at an offset.
pub fn with(mut frame: Vec<u8>, offset: usize, octets: &[u8]) -> Vec<u8> {
    frame[offset..offset + octets.len()].copy_from_slice(octets);
    frame
}

/// The frame with a tag: 0x8100 for 802.1Q, 0x88a8 for 802.1ad.
pub fn tagged(mut frame: Vec<u8>, ethertype: u16, control: u16) -> Vec<u8> {
    let [a, b] = ethertype.to_be_bytes();
    let [c, d] = control.to_be_bytes();
    frame.splice(12..12, [a, b, c, d]);
    frame
}

/// The IPv4 frame with so many words of options (no-operation).
pub fn options(mut frame: Vec<u8>, words: u8) -> Vec<u8> {
    let octets = usize::from(words) * 4;
    frame[ETHERNET] += words;
    let total = u16::from_be_bytes([frame[16], frame[17]]) + u16::from(words) * 4;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame.splice(UDP_V4..UDP_V4, vec![1; octets]);
    frame
}

/// The IPv4 frame as a fragment: offset in units of eight octets, and whether more follow.
pub fn fragment_v4(frame: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    let field = offset | if more { 0x2000 } else { 0 };
    with(frame, ETHERNET + 6, &field.to_be_bytes())
}

/// The IPv6 frame as a fragment.
pub fn fragment_v6(frame: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    extended(frame, 44, &[0, high, low, 0, 0, 0, 9])
}

/// The IPv6 frame with an extension header: its number, and its octets behind the first.
pub fn extended(mut frame: Vec<u8>, header: u8, rest: &[u8]) -> Vec<u8> {
    let next = std::mem::replace(&mut frame[ETHERNET + 6], header);
    let added = u16::try_from(rest.len() + 1).unwrap();
    let length = u16::from_be_bytes([frame[18], frame[19]]) + added;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    let mut octets = vec![next];
    octets.extend(rest);
    frame.splice(UDP_V6..UDP_V6, octets);
    frame
}

/// An RTP packet of PCMU with so many octets of payload.
pub fn rtp(octets: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef];
    packet.resize(12 + octets, 0xd5);
    packet
}

/// The first octets of a DTLS ClientHello.
pub fn dtls() -> Vec<u8> {
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40];
    record.resize(53, 1);
    record
}

/// A STUN message of a type with so many octets of attributes (RFC 8489 section 5).
pub fn stun(kind: u16, attributes: u16) -> Vec<u8> {
    let mut message = kind.to_be_bytes().to_vec();
    message.extend(attributes.to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend(*b"transactions");
    message.extend(vec![0; usize::from(attributes)]);
    message
}
