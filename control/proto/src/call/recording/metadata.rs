//! What a recorder is told of a call beside its media (RFC 7865), and the body that both travel in (RFC 7866 section 9.1).

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Type of the metadata (RFC 9806).
const METADATA: &str = "application/rs-metadata+xml";

/// Names of what is recorded, the same for the whole recording: UUIDs as RFC 7865 section 6.10 writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    session: [u8; 16],
    /// Browser and far end.
    participants: [[u8; 16]; 2],
    /// What each sends.
    streams: [[u8; 16]; 2],
}

impl Ids {
    /// New ones.
    pub fn new(random: &mut Random) -> Self {
        let mut id = || {
            let mut id = [0; 16];
            let block = random.block();
            id.copy_from_slice(&block[..16]);
            // Version 4 (RFC 9562 section 5.4).
            id[6] = id[6] & 0x0f | 0x40;
            id[8] = id[8] & 0x3f | 0x80;
            id
        };
        let session = id();
        Self { session, participants: [id(), id()], streams: [id(), id()] }
    }
}

/// Who talks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// SIP URI.
    pub aor: String,
    /// Display name; may be empty.
    pub name: String,
}

/// What the recorder is told.
#[derive(Debug)]
pub struct Metadata<'a> {
    /// Names.
    pub ids: &'a Ids,
    /// Browser and far end.
    pub participants: [Participant; 2],
    /// When the call began, in milliseconds since the Unix epoch.
    pub begun: u64,
    /// Call-ID of the call inside.
    pub call_id: &'a str,
}

impl Metadata<'_> {
    /// A complete snapshot (RFC 7865 section 6): the session, both participants, and a stream of each, which has the label of its
    /// section in the SDP: 1 for the browser's, 2 for the far end's.
    pub fn xml(&self) -> String {
        let id = |octets: &[u8; 16]| STANDARD.encode(octets);
        let Ids { session, participants, streams } = self.ids;
        let (session, begun) = (id(session), date_time(self.begun));
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\r\n\
             <datamode>complete</datamode>\r\n<session session_id=\"{session}\">\r\n<sipSessionID>{}</sipSessionID>\r\n\
             <start-time>{begun}</start-time>\r\n</session>\r\n",
            escaped(self.call_id)
        );
        for (participant, about) in participants.iter().zip(&self.participants) {
            let name = match about.name.as_str() {
                "" => String::new(),
                name => format!("<name>{}</name>", escaped(name)),
            };
            let _ = write!(
                text,
                "<participant participant_id=\"{}\">\r\n<nameID aor=\"{}\">{name}</nameID>\r\n</participant>\r\n",
                id(participant),
                escaped(&about.aor)
            );
        }
        for (stream, label) in streams.iter().zip(LABELS) {
            let _ = write!(
                text,
                "<stream stream_id=\"{}\" session_id=\"{session}\">\r\n<label>{label}</label>\r\n</stream>\r\n",
                id(stream)
            );
        }
        let _ = write!(
            text,
            "<sessionrecordingassoc session_id=\"{session}\">\r\n<associate-time>{begun}</associate-time>\r\n\
             </sessionrecordingassoc>\r\n"
        );
        for participant in participants {
            let _ = write!(
                text,
                "<participantsessionassoc participant_id=\"{}\" session_id=\"{session}\">\r\n\
                 <associate-time>{begun}</associate-time>\r\n</participantsessionassoc>\r\n",
                id(participant)
            );
        }
        let [browser, far_end] = streams;
        for (participant, (send, recv)) in participants.iter().zip([(browser, far_end), (far_end, browser)]) {
            let _ = write!(
                text,
                "<participantstreamassoc participant_id=\"{}\">\r\n<send>{}</send>\r\n<recv>{}</recv>\r\n\
                 </participantstreamassoc>\r\n",
                id(participant),
                id(send),
                id(recv)
            );
        }
        text.push_str("</recording>\r\n");
        text
    }
}

/// Labels of the streams (RFC 4574): the browser's, the far end's.
pub const LABELS: [u8; 2] = [1, 2];

/// Description and metadata as one body; its type, and the octets (RFC 2046 section 5.1).
pub fn multipart(boundary: &str, sdp: &str, xml: &str) -> (String, Vec<u8>) {
    let body = format!(
        "--{boundary}\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--{boundary}\r\nContent-Type: {METADATA}\r\n\
         Content-Disposition: recording-session\r\n\r\n{xml}\r\n--{boundary}--\r\n"
    );
    (format!("multipart/mixed;boundary={boundary}"), body.into_bytes())
}

/// Text as XML has it between tags and in attributes; what XML 1.0 has no way to say is left out.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => {}
            other if other.is_control() => {}
            other => out.push(other),
        }
    }
    out
}

/// A time as XML Schema's dateTime, in UTC; milliseconds since the Unix epoch.
fn date_time(millis: u64) -> String {
    let (days, second) = (millis / 86_400_000, millis / 1000 % 86_400);
    // Years begin in March here, so that the leap day is their last one.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + turn;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;

    #[test]
    fn times_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_799_999, "2000-02-29T23:59:59Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (millis, text) in cases {
            assert_eq!(date_time(millis), text);
        }
    }

    #[test]
    fn what_people_are_called_is_no_markup() {
        let ids = Ids::new(&mut Random::new(Seed([1; 32])));
        let participant = |name: &str| Participant { aor: "sip:a&b@pbx".into(), name: name.to_owned() };
        let participants = [participant("<O'Hara & \"Sons\">\u{0}"), participant("")];
        let xml = Metadata { ids: &ids, participants, begun: 0, call_id: "a<b" }.xml();
        assert!(xml.contains("<name>&lt;O&apos;Hara &amp; &quot;Sons&quot;&gt;</name>"));
        assert!(xml.contains("<nameID aor=\"sip:a&amp;b@pbx\"></nameID>"));
        assert!(xml.contains("<sipSessionID>a&lt;b</sipSessionID>"));
        let tags = |name: &str| xml.matches(&format!("<{name}")).count();
        assert_eq!(
            ["session ", "participant ", "stream ", "participantstreamassoc "].map(tags),
            [1, 2, 2, 2],
            "{xml}"
        );
        assert!(!xml.contains('\u{0}'));
    }
}
