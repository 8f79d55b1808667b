//! Messages out of a stream (RFC 3261 section 18.3, keep-alives of RFC 5626 section 4.4.1).

use super::guard::MESSAGE_MAX;
use super::head::{self, Head};

/// What the front of a stream's buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Not enough yet.
    Partial,
    /// Blank lines: this many octets, to be answered by one if it was a ping.
    Blank {
        /// Octets to skip.
        used: usize,
        /// Whether it asks for an answer.
        ping: bool,
    },
    /// A message of this many octets.
    Message(usize),
    /// The stream cannot be followed any further; the octets of the head, if there is one, can still be answered.
    Broken(Option<usize>),
}

/// Looks at the front of the buffer.
pub fn frame(buffer: &[u8]) -> Frame {
    let blank = buffer.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
    if blank > 0 {
        // The second half of a ping may still be under way.
        let waiting = blank == buffer.len() && blank % 2 == 1;
        return if waiting { Frame::Partial } else { Frame::Blank { used: blank, ping: blank >= 4 } };
    }
    let Some(end) = head::end(buffer) else {
        return if buffer.len() >= head::HEAD_MAX { Frame::Broken(None) } else { Frame::Partial };
    };
    let (head, _) = Head::parse(buffer.get(..end - 4).unwrap_or_default());
    let mut lengths = head.values("Content-Length");
    let length = lengths.next().and_then(|text| text.parse::<usize>().ok());
    // Of two nobody knows which is right (RFC 4475 section 3.3.9).
    let length = length.filter(|_| lengths.next().is_none());
    match length.map(|length| length.saturating_add(end)) {
        None => Frame::Broken(Some(end)),
        Some(total) if total > MESSAGE_MAX => Frame::Broken(Some(end)),
        Some(total) if total > buffer.len() => Frame::Partial,
        Some(total) => Frame::Message(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_into_messages() {
        let head = "OPTIONS sip:a SIP/2.0\r\nl: 3\r\n\r\n";
        let text = format!("{head}abc\r\n\r\n{head}");
        for cut in 0..head.len() + 3 {
            assert_eq!(frame(&text.as_bytes()[..cut]), Frame::Partial, "{cut}");
        }
        assert_eq!(frame(text.as_bytes()), Frame::Message(head.len() + 3));
        let rest = &text.as_bytes()[head.len() + 3..];
        assert_eq!(frame(rest), Frame::Blank { used: 4, ping: true });
        assert_eq!(frame(b"\r\n"), Frame::Blank { used: 2, ping: false });
        assert_eq!(frame(b"\r"), Frame::Partial);
    }

    #[test]
    fn what_cannot_be_followed_ends_the_stream() {
        let without = b"OPTIONS sip:a SIP/2.0\r\nTo: x\r\n\r\n";
        assert_eq!(frame(without), Frame::Broken(Some(without.len())));
        let large = b"OPTIONS sip:a SIP/2.0\r\nl: 99999999\r\n\r\n";
        assert_eq!(frame(large), Frame::Broken(Some(large.len())));
        let negative = b"OPTIONS sip:a SIP/2.0\r\nl: -1\r\n\r\n";
        assert_eq!(frame(negative), Frame::Broken(Some(negative.len())));
        let twice = b"OPTIONS sip:a SIP/2.0\r\nl: 3\r\nContent-Length: 5\r\n\r\nabcde";
        assert_eq!(frame(twice), Frame::Broken(Some(twice.len() - 5)));
        assert_eq!(frame(&vec![b'x'; head::HEAD_MAX]), Frame::Broken(None));
    }
}
