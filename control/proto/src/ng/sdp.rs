//! An SDP as lines in sections: what is not understood is kept as it is.

use std::fmt::Write;

use sdp_types::{Attribute, Media};

use crate::sdp::OFFER_MAX;

/// Sections that an SDP may have.
const SECTIONS_MAX: usize = 16;
/// Characters of the formats of a section.
const FORMATS_MAX: usize = 512;

/// `kind=value`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The letter.
    pub kind: char,
    /// What follows `=`.
    pub value: String,
}

impl Line {
    /// Name and value of an attribute; empty where it has none.
    pub fn attribute(&self) -> Option<(&str, &str)> {
        (self.kind == 'a').then(|| self.value.split_once(':').unwrap_or((&self.value, "")))
    }
}

/// From one `m=` line to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// `audio`, `video`, ...
    pub medium: String,
    /// 0: refused.
    pub port: u16,
    /// The profile.
    pub profile: String,
    /// Payload types or other formats.
    pub formats: String,
    /// What follows.
    pub lines: Vec<Line>,
}

impl Section {
    /// The same as a library's, for what is read of calls of ours in the same way.
    pub fn media(&self) -> Media {
        let attribute = |line: &Line| {
            let (attribute, value) = line.attribute()?;
            let value = line.value.contains(':').then(|| value.to_owned());
            Some(Attribute { attribute: attribute.to_owned(), value })
        };
        Media {
            media: self.medium.clone(),
            port: self.port,
            num_ports: None,
            proto: self.profile.clone(),
            fmt: self.formats.clone(),
            media_title: None,
            connections: Vec::new(),
            bandwidths: Vec::new(),
            key: None,
            attributes: self.lines.iter().filter_map(attribute).collect(),
        }
    }
}

/// A session description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sdp {
    /// What stands before the first `m=`.
    pub session: Vec<Line>,
    /// The rest.
    pub sections: Vec<Section>,
}

impl Sdp {
    /// Takes an SDP apart.
    ///
    /// # Errors
    /// `error-reason`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > OFFER_MAX {
            return Err(format!("Failed to parse SDP: longer than {OFFER_MAX} octets"));
        }
        let mut sdp = Self { session: Vec::new(), sections: Vec::new() };
        for (at, text) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line = line(text).ok_or_else(|| format!("Failed to parse SDP: line {}", at + 1))?;
            if line.kind == 'm' {
                let section = section(&line.value).filter(|_| sdp.sections.len() < SECTIONS_MAX);
                sdp.sections.push(section.ok_or_else(|| format!("Failed to parse SDP: line {}", at + 1))?);
            } else if let Some(section) = sdp.sections.last_mut() {
                section.lines.push(line);
            } else {
                sdp.session.push(line);
            }
        }
        let begins = sdp.session.first().is_some_and(|line| line.kind == 'v' && line.value == "0");
        let origin = sdp.session.iter().any(|line| line.kind == 'o' && line.value.split(' ').count() == 6);
        match (begins && origin, sdp.sections.is_empty()) {
            (true, false) => Ok(sdp),
            (true, true) => Err("Incomplete SDP specification: no media section".into()),
            (false, _) => Err("Failed to parse SDP: no v=0 and o= in front".into()),
        }
    }

    /// Values of an attribute of a section, else of the session.
    pub fn values<'a>(&'a self, section: &'a Section, name: &str) -> Vec<&'a str> {
        let own = values(&section.lines, name);
        if own.is_empty() { values(&self.session, name) } else { own }
    }

    /// The first of them.
    pub fn value<'a>(&'a self, section: &'a Section, name: &str) -> Option<&'a str> {
        self.values(section, name).first().copied()
    }
}

/// Values of an attribute.
pub fn values<'a>(lines: &'a [Line], name: &str) -> Vec<&'a str> {
    let attributes = lines.iter().filter_map(Line::attribute);
    attributes.filter(|(own, _)| *own == name).map(|(_, value)| value).collect()
}

/// Adds a line.
pub fn push(text: &mut String, kind: char, value: &str) {
    let _ = write!(text, "{kind}={value}\r\n");
}

fn line(text: &str) -> Option<Line> {
    let (kind, value) = text.split_once('=')?;
    let kind = kind.parse::<char>().ok().filter(char::is_ascii_lowercase)?;
    // What other line ends are hidden in a line would become lines of their own on the other side.
    let value = value.trim_end();
    (!value.contains(['\r', '\n', '\0'])).then(|| Line { kind, value: value.to_owned() })
}

fn section(value: &str) -> Option<Section> {
    let mut words = value.splitn(4, ' ');
    let (medium, port, profile, formats) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let port = port.split('/').next()?.parse().ok()?;
    let sound = |text: &str| {
        !text.is_empty() && text.len() < 64 && text.bytes().all(|octet| octet.is_ascii_graphic())
    };
    let sound = sound(medium) && sound(profile) && !formats.trim().is_empty() && formats.len() <= FORMATS_MAX;
    sound.then(|| Section {
        medium: medium.to_owned(),
        port,
        profile: profile.to_owned(),
        formats: formats.trim().to_owned(),
        lines: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\na=sendonly\r\n\
        m=audio 4000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\nm=video 0 RTP/AVP 99\r\n";

    #[test]
    fn lines_fall_into_sections() {
        let sdp = Sdp::parse(TEXT).unwrap();
        assert_eq!((sdp.session.len(), sdp.sections.len()), (6, 2));
        let audio = &sdp.sections[0];
        assert_eq!((audio.port, audio.formats.as_str(), audio.lines.len()), (4000, "0 8", 2));
        assert_eq!(sdp.value(audio, "ptime"), Some("20"));
        assert_eq!(sdp.value(audio, "sendonly"), Some(""));
        assert_eq!(sdp.value(audio, "recvonly"), None);
    }

    #[test]
    fn what_is_no_sdp_is_refused() {
        for text in [
            "",
            "hello",
            "v=0\r\n",
            "m=audio 1 RTP/AVP 0\r\n",
            "v=0\r\no=x\r\nm=audio 1 RTP/AVP 0\r\n",
            "v=1\r\no=- 1 1 IN IP4 1.2.3.4\r\nm=audio 1 RTP/AVP 0\r\n",
        ] {
            assert!(Sdp::parse(text).is_err(), "{text}");
        }
        for wrong in
            ["m=audio 70000 RTP/AVP 0", "m=audio x RTP/AVP 0", "m=audio 1 RTP/AVP", "m=audio 1", "A=b", "no"]
        {
            assert!(Sdp::parse(&format!("{TEXT}{wrong}\r\n")).is_err(), "{wrong}");
        }
        assert!(Sdp::parse(&format!("{TEXT}a=x\ry\r\n")).is_err(), "a line in a line");
        assert!(Sdp::parse(&format!("{TEXT}{}", "m=audio 1 RTP/AVP 0\r\n".repeat(20))).is_err());
        assert!(Sdp::parse(&format!("{TEXT}a={}\r\n", "x".repeat(1 << 20))).unwrap_err().contains("longer"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_no_harm(text in "\\PC{0,200}", cut in 0..TEXT.len()) {
            let _ = Sdp::parse(&text);
            let _ = Sdp::parse(&TEXT[..cut]);
        }
    }
}
