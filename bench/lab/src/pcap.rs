//! Reads capture files (draft-ietf-opsawg-pcap): both byte orders, microseconds and nanoseconds, Ethernet only.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use sallyport_wire::frame;

/// Link type of Ethernet.
const ETHERNET: u32 = 1;

/// A UDP datagram as captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// DSCP of its IP header (RFC 2474).
    pub dscp: u8,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// Every UDP datagram of a capture file, in its order; other frames and fragments are left out. An unfinished last record,
/// which a capture that is being written may have, is no error.
///
/// # Errors
/// Where it is no capture of Ethernet frames.
pub fn datagrams(file: &[u8]) -> anyhow::Result<Vec<Captured>> {
    let (header, mut rest) = file.split_at_checked(24).context("too short for a capture file")?;
    let order = Order::of(header)?;
    let link = order.u32_at(header, 20).unwrap_or_default() & 0x0fff_ffff;
    if link != ETHERNET {
        bail!("link type {link} is not Ethernet");
    }
    let mut found = Vec::new();
    while let Some((record, tail)) = rest.split_at_checked(16) {
        let field = |at| order.u32_at(record, at).unwrap_or_default();
        let Some((bytes, tail)) = tail.split_at_checked(field(8) as usize) else { break };
        rest = tail;
        let at_ns = u64::from(field(0)) * 1_000_000_000 + u64::from(field(4)) * order.unit_ns;
        if let Ok(datagram) = frame::parse(bytes) {
            let payload = bytes.get(datagram.payload).unwrap_or_default().to_vec();
            found.push(Captured {
                dscp: dscp(bytes),
                at_ns,
                source: datagram.source,
                destination: datagram.destination,
                payload,
            });
        }
    }
    Ok(found)
}

/// DSCP of an Ethernet frame without tags.
fn dscp(frame: &[u8]) -> u8 {
    match frame.get(12..16) {
        Some([8, 0, _, tos]) => tos >> 2,
        Some([0x86, 0xdd, high, low]) => (high << 4 | low >> 4) >> 2,
        _ => 0,
    }
}

/// How numbers are written.
struct Order {
    big: bool,
    unit_ns: u64,
}

impl Order {
    fn of(header: &[u8]) -> anyhow::Result<Self> {
        let (big, unit_ns) = match header[..4] {
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, 1000),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, 1),
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, 1000),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, 1),
            _ => bail!("not a capture file"),
        };
        Ok(Self { big, unit_ns })
    }

    fn u32_at(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let four = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if self.big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sallyport_wire::PacketBuf;
    use sallyport_wire::frame::{HEADERS_MAX, Link};

    /// An Ethernet frame around a payload.
    pub fn frame(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADERS_MAX + payload.len()];
        bytes[HEADERS_MAX..].copy_from_slice(payload);
        let end = bytes.len();
        let mut buf = PacketBuf::new(&mut bytes, HEADERS_MAX..end).unwrap();
        let link = Link { source_mac: [2; 6], destination_mac: [4; 6], vlan: None, dscp: 0 };
        frame::emit(&mut buf, &link, source.parse().unwrap(), destination.parse().unwrap()).unwrap();
        buf.packet().to_vec()
    }

    fn file(big: bool, nano: bool, records: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
        let number = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let magic = if nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut bytes = number(magic).to_vec();
        // version 2.4, zone, accuracy, snap length
        bytes.extend(if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
        bytes.extend([0; 8]);
        bytes.extend(number(65_535));
        bytes.extend(number(ETHERNET));
        for (seconds, part, frame) in records {
            let length = u32::try_from(frame.len()).unwrap();
            [*seconds, *part, length, length].iter().for_each(|value| bytes.extend(number(*value)));
            bytes.extend(frame);
        }
        bytes
    }

    #[test]
    fn all_four_forms_are_read() {
        let frame = frame("10.0.0.1:1000", "10.0.0.2:2000", b"hello");
        for (big, nano) in [(false, false), (false, true), (true, false), (true, true)] {
            let arp = vec![0xff; 60];
            let bytes = file(big, nano, &[(7, 9, arp), (7, 9, frame.clone())]);
            let found = datagrams(&bytes).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].at_ns, 7_000_000_000 + if nano { 9 } else { 9000 });
            assert_eq!(found[0].payload, b"hello");
            assert_eq!(found[0].destination, "10.0.0.2:2000".parse().unwrap());
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_no_panic() {
        let frame = frame("[fd20::1]:1000", "[fd20::5]:2000", b"hello");
        let bytes = file(false, true, &[(1, 1, frame.clone()), (1, 2, frame)]);
        let whole = bytes.len();
        for end in 0..=whole {
            let expected = if end == whole { 2 } else { usize::from(end >= 24 + (whole - 24) / 2) };
            assert_eq!(datagrams(&bytes[..end]).map_or(0, |found| found.len()), expected, "{end}");
        }
        assert!(datagrams(&[0; 64]).is_err());
    }
}
