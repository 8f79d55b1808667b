//! RTP headers: extension, CSRC and padding at their edges, and a model.

use proptest::prelude::*;
use sallyport_wire::rtp::{
    FIXED, Header, set_payload_type, set_sequence, set_ssrc, set_timestamp, strip_extension,
};
use sallyport_wire::{Malformed, PacketBuf};

/// A packet as its parts.
#[derive(Debug, Clone)]
struct Parts {
    marker: bool,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    csrc: Vec<u32>,
    /// Profile and words.
    extension: Option<(u16, Vec<u32>)>,
    payload: Vec<u8>,
    /// Octets of padding, the last of which is their count.
    padding: u8,
}

impl Parts {
    fn head(&self, with_extension: bool) -> Vec<u8> {
        let extension = u8::from(with_extension && self.extension.is_some()) << 4;
        let padding = u8::from(self.padding > 0) << 5;
        let mut bytes = vec![0x80 | padding | extension | self.csrc.len() as u8];
        bytes.push(u8::from(self.marker) << 7 | self.payload_type);
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(self.csrc.iter().flat_map(|csrc| csrc.to_be_bytes()));
        bytes
    }

    fn body(&self) -> Vec<u8> {
        let mut bytes = self.payload.clone();
        if self.padding > 0 {
            bytes.extend(vec![0; usize::from(self.padding) - 1]);
            bytes.push(self.padding);
        }
        bytes
    }

    fn packet(&self) -> Vec<u8> {
        let mut bytes = self.head(true);
        if let Some((profile, words)) = &self.extension {
            bytes.extend(profile.to_be_bytes());
            bytes.extend((words.len() as u16).to_be_bytes());
            bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        }
        bytes.extend(self.body());
        bytes
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    let extension = prop::option::of((any::<u16>(), prop::collection::vec(any::<u32>(), 0..6)));
    let fixed = (any::<bool>(), 0u8..128, any::<u16>(), any::<u32>(), any::<u32>());
    let lists = (prop::collection::vec(any::<u32>(), 0..16), extension);
    let body = (prop::collection::vec(any::<u8>(), 0..40), any::<u8>());
    (fixed, lists, body).prop_map(|(fixed, (csrc, extension), (payload, padding))| {
        let (marker, payload_type, sequence, timestamp, ssrc) = fixed;
        Parts { marker, payload_type, sequence, timestamp, ssrc, csrc, extension, payload, padding }
    })
}

proptest! {
    #[test]
    fn every_part_is_read_back(parts in parts()) {
        let packet = parts.packet();
        let header = Header::parse(&packet).unwrap();
        prop_assert_eq!((header.marker(), header.payload_type()), (parts.marker, parts.payload_type));
        prop_assert_eq!((header.sequence(), header.timestamp()), (parts.sequence, parts.timestamp));
        prop_assert_eq!((header.ssrc(), header.csrc_count()), (parts.ssrc, parts.csrc.len()));
        prop_assert_eq!(header.has_extension(), parts.extension.is_some());
        prop_assert_eq!(header.has_padding(), parts.padding > 0);
        prop_assert_eq!(header.padding_len(), Ok(usize::from(parts.padding)));
        prop_assert_eq!(&packet[header.header_len()..], &parts.body()[..]);
        prop_assert_eq!(header.payload_len(), parts.body().len());
        prop_assert_eq!(&packet[..header.fixed_len()], &parts.head(true)[..]);
    }

    #[test]
    fn stripping_takes_the_extension_and_nothing_else(parts in parts(), room in 0usize..8) {
        let mut bytes = vec![0xee; room];
        bytes.extend(parts.packet());
        let end = bytes.len();
        let mut buf = PacketBuf::new(&mut bytes, room..end).unwrap();
        strip_extension(&mut buf).unwrap();
        let mut expected = parts.head(false);
        expected.extend(parts.body());
        prop_assert_eq!(buf.packet(), &expected[..]);
        prop_assert_eq!(buf.range().end, end);
        strip_extension(&mut buf).unwrap();
        prop_assert_eq!(buf.packet(), &expected[..], "a second time changes nothing");
    }

    #[test]
    fn a_header_cut_short_is_refused(parts in parts()) {
        let packet = parts.packet();
        let header_len = Header::parse(&packet).unwrap().header_len();
        for cut in 0..header_len {
            let expected = if cut < FIXED { Malformed::Short } else { Malformed::Length };
            prop_assert_eq!(Header::parse(&packet[..cut]).unwrap_err(), expected);
            let mut bytes = packet[..cut].to_vec();
            let mut buf = PacketBuf::new(&mut bytes, 0..cut).unwrap();
            prop_assert_eq!(strip_extension(&mut buf), Err(expected));
            prop_assert_eq!(buf.packet(), &packet[..cut]);
        }
    }

    #[test]
    fn setters_set_what_getters_read(
        parts in parts(),
        payload_type: u8,
        sequence: u16,
        timestamp: u32,
        ssrc: u32,
    ) {
        let mut packet = parts.packet();
        set_payload_type(&mut packet, payload_type);
        set_sequence(&mut packet, sequence);
        set_timestamp(&mut packet, timestamp);
        set_ssrc(&mut packet, ssrc);
        let changed = Parts { payload_type: payload_type & 0x7f, sequence, timestamp, ssrc, ..parts };
        prop_assert_eq!(packet, changed.packet());
    }
}

/// Twelve octets and `tail`, with `first` in front.
fn packet(first: u8, tail: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; FIXED];
    packet[0] = first;
    packet.extend(tail);
    packet
}

#[test]
fn extension_edges() {
    let empty = packet(0x90, &[0xbe, 0xde, 0, 0]);
    let header = Header::parse(&empty).unwrap();
    assert_eq!((header.header_len(), header.payload_len(), header.fixed_len()), (16, 0, 12));
    let missing = packet(0x90, &[]);
    assert_eq!(Header::parse(&missing).unwrap_err(), Malformed::Length);
    let cut = packet(0x90, &[0xbe, 0xde, 0]);
    assert_eq!(Header::parse(&cut).unwrap_err(), Malformed::Length);
    let longer = packet(0x90, &[0xbe, 0xde, 0, 1, 1, 2, 3]);
    assert_eq!(Header::parse(&longer).unwrap_err(), Malformed::Length);
    let longest = packet(0x90, &[0xbe, 0xde, 0xff, 0xff]);
    assert_eq!(Header::parse(&longest).unwrap_err(), Malformed::Length);
    let mut full = packet(0x9f, &[9; 60]);
    full.extend([0x10, 0x00, 0xff, 0xff]);
    full.extend(vec![7; 65_535 * 4]);
    assert_eq!(Header::parse(&full).unwrap().header_len(), 12 + 60 + 4 + 65_535 * 4);
}

#[test]
fn csrc_edges() {
    assert_eq!(Header::parse(&packet(0x8f, &[0; 60])).unwrap().payload_len(), 0);
    assert_eq!(Header::parse(&packet(0x8f, &[0; 59])).unwrap_err(), Malformed::Length);
    // The extension begins behind the list, not behind the fixed header.
    let both = packet(0x91, &[0, 0, 0xff, 0xff, 0xbe, 0xde, 0, 0, 5]);
    assert_eq!(Header::parse(&both).unwrap().header_len(), 20);
}

#[test]
fn padding_edges() {
    let of = |packet: &[u8]| Header::parse(packet).unwrap().padding_len();
    assert_eq!(of(&packet(0x80, &[1, 2, 200])), Ok(0), "no padding bit, no count");
    assert_eq!(of(&packet(0xa0, &[1, 2, 3])), Ok(3), "nothing but padding");
    assert_eq!(of(&packet(0xa0, &[1, 2, 4])), Err(Malformed::Length), "into the header");
    assert_eq!(of(&packet(0xa0, &[1, 2, 0])), Err(Malformed::Length), "the count counts itself");
    assert_eq!(of(&packet(0xa0, &[])), Err(Malformed::Length), "no payload to hold the count");
    let mut in_header = packet(0xb0, &[0xbe, 0xde, 0, 1, 0, 0, 0, 1]);
    assert_eq!(of(&in_header), Err(Malformed::Length), "the last octet is the extension's");
    in_header.push(1);
    assert_eq!(of(&in_header), Ok(1));
}

#[test]
fn only_version_2_is_rtp() {
    for first in 0..=255u8 {
        let parsed = Header::parse(&packet(first & 0xe0, &[1])).map(|_| ());
        let expected = if first >> 6 == 2 { Ok(()) } else { Err(Malformed::Version) };
        assert_eq!(parsed, expected, "{first:#x}");
    }
}

#[test]
fn setters_leave_what_is_too_short_alone() {
    for length in 0..12 {
        let mut bytes = vec![0x80; length];
        set_ssrc(&mut bytes, 0);
        assert_eq!(bytes, vec![0x80; length]);
        set_timestamp(&mut bytes, 0);
        set_sequence(&mut bytes, 0);
        set_payload_type(&mut bytes, 0);
        let reached = [1, 2, 4, 8].into_iter().filter(|end| *end <= length).max().unwrap_or(0);
        assert!(bytes[reached..].iter().all(|octet| *octet == 0x80), "{length}");
    }
}
