//! Header extensions (RFC 8285), and what is said beside them of bandwidth: `a=extmap`, `a=rtcp-fb` (RFC 4585).

use std::fmt::Write;

use sallyport_plan::Mid;
use sdp_types::{Bandwidth, Media, Session};
use serde::{Deserialize, Serialize};

use super::values;

/// Characters that the name of a section may have in an extension.
const NAME_MAX: usize = 16;
/// Payload types of a section that are looked at.
const TYPES: usize = 32;

/// An extension that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extension {
    /// The section of a stream (RFC 9143 section 15).
    Mid,
    /// How loud a packet is (RFC 6464).
    AudioLevel,
    /// When a packet left its sender.
    AbsSendTime,
    /// Transport-wide sequence numbers (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportWide,
}

impl Extension {
    const ALL: [Self; 4] = [Self::Mid, Self::AudioLevel, Self::AbsSendTime, Self::TransportWide];
    /// Those that mean the same on both legs.
    pub const CARRIED: [Self; 2] = [Self::AudioLevel, Self::AbsSendTime];

    const fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportWide => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
        }
    }
}

/// Extensions of one section with their ids, which are the same both ways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extensions(Vec<(Extension, u8)>);

impl Extensions {
    /// Those of a section that we know. What its writer only sends or only receives is left out.
    pub fn read(media: &Media) -> Self {
        let mut found = Self::default();
        for value in values(media, "extmap") {
            let mut words = value.split_whitespace();
            let (Some(id), Some(uri)) = (words.next(), words.next()) else { continue };
            let id = id.strip_suffix("/sendrecv").unwrap_or(id).parse().ok().filter(|id| *id != 0);
            let known = Extension::ALL.into_iter().find(|extension| extension.uri() == uri);
            if let (Some(id), Some(extension)) = (id, known)
                && found.id(extension).is_none()
                && found.0.iter().all(|(_, taken)| *taken != id)
            {
                found.0.push((extension, id));
            }
        }
        found
    }

    /// Those of these kinds, in this order, under ids of our own.
    pub fn numbered(kinds: impl Iterator<Item = Extension>) -> Self {
        Self(kinds.zip(1..).collect())
    }

    /// The id of one.
    pub fn id(&self, extension: Extension) -> Option<u8> {
        self.0.iter().find(|(have, _)| *have == extension).map(|(_, id)| *id)
    }

    /// Those that are wanted.
    pub fn only(&self, wanted: impl Fn(Extension) -> bool) -> Self {
        Self(self.0.iter().copied().filter(|(extension, _)| wanted(*extension)).collect())
    }

    /// Lines of `a=extmap`. We number no packets ourselves.
    pub fn write(&self, text: &mut String) {
        for (extension, id) in &self.0 {
            let direction = if *extension == Extension::TransportWide { "/recvonly" } else { "" };
            let _ = write!(text, "a=extmap:{id}{direction} {}\r\n", extension.uri());
        }
    }
}

/// What a section of a browser says of extensions and bandwidth, or what is agreed on of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Extensions.
    pub extensions: Extensions,
    /// Name of the section, where an extension can say it.
    pub mid: Option<String>,
    /// Payload types of which the receiver tells when which packet arrived.
    transport_cc: Vec<u8>,
    /// Payload types of which the receiver tells the bandwidth that it wants.
    remb: Vec<u8>,
    /// Whether it sends again what a NACK asks for.
    nack: bool,
}

impl Agreed {
    /// Of a section whose name may be needed.
    pub fn read(media: &Media) -> Self {
        let types = || media.fmt.split_whitespace().filter_map(|text| text.parse::<u8>().ok()).take(TYPES);
        let of = |feedback: &str| {
            let named = |payload_type: &u8| {
                values(media, "rtcp-fb").any(|value| {
                    let (whose, what) = value.split_once(' ').unwrap_or_default();
                    what.trim() == feedback && (whose == "*" || whose.parse() == Ok(*payload_type))
                })
            };
            types().filter(named).collect::<Vec<u8>>()
        };
        // Feedback alone is no whole compound (RFC 5506).
        let reduced = values(media, "rtcp-rsize").next().is_some();
        let mid = values(media, "mid").next().filter(|mid| (1..=NAME_MAX).contains(&mid.len()));
        Self {
            extensions: Extensions::read(media),
            mid: mid.map(str::to_owned),
            transport_cc: if reduced { of("transport-cc") } else { Vec::new() },
            remb: of("goog-remb"),
            nack: !of("nack").is_empty(),
        }
    }

    /// What we offer a browser of a section of a bundle with this name and these payload types: to name it, and to tell what
    /// arrives.
    pub fn offered(name: &str, types: impl Iterator<Item = u8>) -> Self {
        let named = (1..=NAME_MAX).contains(&name.len());
        Self {
            extensions: Extensions::numbered([Extension::Mid, Extension::TransportWide].into_iter())
                .only(|extension| named || extension != Extension::Mid),
            mid: named.then(|| name.to_owned()),
            transport_cc: types.collect(),
            ..Self::default()
        }
    }

    /// What names the section in what leaves.
    pub fn name(&self) -> Option<Mid> {
        let id = self.extensions.id(Extension::Mid)?;
        Some(Mid { id, name: self.mid.clone()? })
    }

    /// The id of transport-wide sequence numbers, where arrivals can be fed back.
    pub fn transport_wide(&self) -> Option<u8> {
        self.extensions.id(Extension::TransportWide).filter(|_| !self.transport_cc.is_empty())
    }

    /// Whether there is one.
    pub fn is_transport_wide(&self) -> bool {
        self.transport_wide().is_some()
    }

    /// Whether the browser knows REMB.
    pub fn knows_remb(&self) -> bool {
        !self.remb.is_empty()
    }

    /// Whether the browser sends again what a NACK asks for (RFC 4585 section 4.2).
    pub const fn knows_nack(&self) -> bool {
        self.nack
    }

    /// What is left of it where only these are wanted.
    pub fn only(&self, wanted: impl Fn(Extension) -> bool) -> Self {
        let transport_wide = self.is_transport_wide() && wanted(Extension::TransportWide);
        let named = self.mid.is_some();
        let left = |extension| match extension {
            Extension::TransportWide => transport_wide,
            Extension::Mid => named && wanted(Extension::Mid),
            other => wanted(other),
        };
        let transport_cc = if transport_wide { self.transport_cc.clone() } else { Vec::new() };
        Self { extensions: self.extensions.only(left), transport_cc, ..self.clone() }
    }

    /// Its lines, of these payload types.
    pub fn write(&self, text: &mut String, types: impl Iterator<Item = u8>) {
        self.extensions.write(text);
        for payload_type in types {
            for (told, name) in [(&self.transport_cc, "transport-cc"), (&self.remb, "goog-remb")] {
                if told.contains(&payload_type) {
                    let _ = write!(text, "a=rtcp-fb:{payload_type} {name}\r\n");
                }
            }
        }
    }
}

/// More than this is no limit; browsers keep such figures in 32 bits.
const BANDWIDTH_MAX: u64 = 2_000_000_000;

/// Bits a second that the writer of a section wants to receive, headers left out where it tells (`b=TIAS`, RFC 3890; `b=AS`, RFC
/// 8866 section 5.8): its own line, or the session's.
pub fn bandwidth(session: &Session, media: &Media) -> Option<u64> {
    let of = |all: &[Bandwidth]| {
        let bits = |line: &Bandwidth| match line.bwtype.as_str() {
            "TIAS" => Some(line.bandwidth),
            "AS" => line.bandwidth.checked_mul(1000),
            _ => None,
        };
        all.iter().filter_map(bits).filter(|bits| (1..=BANDWIDTH_MAX).contains(bits)).min()
    };
    of(&media.bandwidths).or_else(|| of(&session.bandwidths))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(lines: &str) -> Media {
        let text = format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n{lines}"
        );
        sdp_types::Session::parse(text.as_bytes()).unwrap().medias.remove(0)
    }

    #[test]
    fn what_is_known_and_goes_both_ways_is_read_once() {
        let read = Extensions::read(&media(
            "a=extmap:1/recvonly urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
             a=extmap:2 urn:ietf:params:rtp-hdrext:toffset\r\n\
             a=extmap:3/sendrecv urn:ietf:params:rtp-hdrext:ssrc-audio-level vad=on\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
             a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:0 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:256 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:x\r\na=extmap\r\n\
             a=extmap:255 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n",
        ));
        assert_eq!(read.0, [(Extension::AudioLevel, 3), (Extension::AbsSendTime, 255)]);
    }

    #[test]
    fn the_least_bandwidth_of_the_nearest_lines_counts() {
        for (of_session, of_media, expected) in [
            ("", "", None),
            ("b=AS:500\r\n", "", Some(500_000)),
            ("b=AS:500\r\n", "b=TIAS:640000\r\nb=AS:700\r\nb=CT:1\r\n", Some(640_000)),
            ("", "b=AS:0\r\n", None),
            ("", "b=AS:18446744073709551615\r\n", None),
        ] {
            let text = format!(
                "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\n{of_session}t=0 0\r\nm=video 9 RTP/AVP 96\r\n{of_media}"
            );
            let session = Session::parse(text.as_bytes()).unwrap();
            assert_eq!(bandwidth(&session, &session.medias[0]), expected, "{text}");
        }
    }

    #[test]
    fn arrivals_are_fed_back_where_all_that_needs_is_offered() {
        let wide = "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n";
        assert!(!Agreed::read(&media("a=rtcp-fb:96 nack pli\r\n")).knows_nack());
        assert!(Agreed::read(&media("a=rtcp-fb:96 nack\r\n")).knows_nack());
        let all = format!("{wide}a=rtcp-fb:96 transport-cc\r\na=rtcp-fb:* goog-remb\r\na=rtcp-rsize\r\n");
        let read = Agreed::read(&media(&all));
        assert!(read.is_transport_wide());
        let mut text = String::new();
        read.only(|_| true).write(&mut text, [96, 97].into_iter());
        let expected = all.replace("a=extmap:3 ", "a=extmap:3/recvonly ");
        assert_eq!(
            text,
            expected.replace(":* goog-remb\r\na=rtcp-rsize", ":96 goog-remb\r\na=rtcp-fb:97 goog-remb")
        );
        assert!(!read.only(|extension| extension != Extension::TransportWide).is_transport_wide());
        for missing in [wide, "a=rtcp-fb:96 transport-cc\r\n", "a=rtcp-rsize\r\n"] {
            let read = Agreed::read(&media(&all.replace(missing, "")));
            assert!(!read.is_transport_wide(), "{missing}");
            let mut text = String::new();
            read.only(|_| true).write(&mut text, [96].into_iter());
            assert_eq!(text, "a=rtcp-fb:96 goog-remb\r\n", "{missing}");
        }
    }
}
