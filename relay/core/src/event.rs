//! Named events (RFC 4733): digits as packets of their own.

use sallyport_wire::rtp::Header;

/// Octets of one event (RFC 4733 section 2.3): the event, end bit and volume, and how long it has lasted.
const BLOCK: usize = 4;

/// Counts the durations of all events in an open packet anew, from one clock to another, both in Hz. What is longer than can be
/// said is said to be as long as can be: the event is still the one that began at its timestamp.
pub fn scale(packet: &mut [u8], from: u32, to: u32) {
    let Ok(header) = Header::parse(packet) else { return };
    let (at, padding) = (header.header_len(), header.padding_len().unwrap_or(0));
    let end = packet.len().saturating_sub(padding);
    for block in packet.get_mut(at..end).unwrap_or_default().chunks_exact_mut(BLOCK) {
        let [_, _, high, low] = block else { return };
        let duration = u64::from(u16::from_be_bytes([*high, *low]));
        // Half a unit more, so that an event that has just begun is not one of no duration (RFC 4733 section 2.3.5).
        let scaled = (duration * u64::from(to) + u64::from(from) / 2) / u64::from(from.max(1));
        [*high, *low] = u16::try_from(scaled).unwrap_or(u16::MAX).to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(duration: u16, from: u32, to: u32) -> u16 {
        let mut packet =
            [&[0x80, 101, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x8a][..], &duration.to_be_bytes()].concat();
        scale(&mut packet, from, to);
        assert_eq!(packet[12..14], [5, 0x8a], "the digit, the end bit and the volume stay");
        u16::from_be_bytes([packet[14], packet[15]])
    }

    #[test]
    fn durations_keep_their_length_in_time() {
        for (ms, at_48, at_8) in [(20, 960, 160), (100, 4800, 800), (1000, 48_000, 8000)] {
            assert_eq!((scaled(at_48, 48_000, 8000), scaled(at_8, 8000, 48_000)), (at_8, at_48), "{ms} ms");
        }
        assert_eq!((scaled(2, 48_000, 8000), scaled(3, 48_000, 8000)), (0, 1), "the nearest");
        assert_eq!(scaled(0xffff, 48_000, 8000), 10_923);
        assert_eq!(scaled(20_000, 8000, 48_000), 0xffff, "as long as can be said");
    }

    #[test]
    fn several_events_and_padding() {
        let mut packet = vec![0xa0, 101, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend([1, 0, 0x03, 0xc0, 2, 0, 0x07, 0x80, 0, 0, 0, 4]);
        scale(&mut packet, 48_000, 8000);
        assert_eq!(packet[12..], [1, 0, 0, 160, 2, 0, 1, 64, 0, 0, 0, 4]);
        let mut short = vec![0x80, 101, 0];
        scale(&mut short, 48_000, 8000);
        assert_eq!(short, [0x80, 101, 0]);
    }
}
