//! Our offer to telephony, and what telephony says.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use sallyport_plan::PortPair;
use sdp_types::{Media, Session};
use serde::{Deserialize, Serialize};

use super::OFFER_MAX;
use super::codec::{Chosen, Codec, Kind, codecs, rtpmaps};
use super::crypto::{Crypto, Flaw};
use super::direction::Direction;

/// `a=crypto` lines that are looked at.
const CRYPTO_MAX: usize = 32;

/// What we offer inside; its text is made anew with each version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideOffer {
    /// Session id.
    pub session: u64,
    /// Our RTP and RTCP addresses.
    pub rtp: SocketAddr,
    /// Our RTCP address.
    pub rtcp: SocketAddr,
    /// Codecs under our payload types, as we prefer them.
    pub codecs: Vec<Codec>,
}

/// Profile of the audio inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InsideProfile {
    /// RTP/AVP (RFC 3551): plain, or encrypted where both sides have keys (RFC 8643).
    #[default]
    Avp,
    /// RTP/AVPF (RFC 4585): the same with early feedback.
    Avpf,
    /// RTP/SAVP (RFC 3711).
    Savp,
    /// RTP/SAVPF (RFC 5124).
    Savpf,
}

impl InsideProfile {
    const ALL: [Self; 4] = [Self::Avp, Self::Avpf, Self::Savp, Self::Savpf];

    /// As in an `m=` line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avp => "RTP/AVP",
            Self::Avpf => "RTP/AVPF",
            Self::Savp => "RTP/SAVP",
            Self::Savpf => "RTP/SAVPF",
        }
    }

    /// Whether media must be encrypted.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Savp | Self::Savpf)
    }
}

/// What a description of ours says of keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct Secrecy<'a> {
    /// Profile.
    pub profile: InsideProfile,
    /// Keys of what we send, as we prefer them; an answer has one.
    pub crypto: &'a [Crypto],
}

/// What telephony said of its side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideAnswer {
    /// Where it wants RTP.
    pub rtp: SocketAddr,
    /// Where it wants RTCP (RFC 3605), else one port above.
    pub rtcp: SocketAddr,
    /// Codecs under its payload types, first the one that it prefers.
    pub codecs: Vec<Codec>,
    /// Its direction; inactive where its address is unspecified (the old way to hold).
    pub direction: Direction,
    /// All its sections in order: `None` for the audio, else kind, profile and formats of one that we refuse.
    pub layout: Vec<Option<String>>,
    /// Profile of the audio.
    pub profile: InsideProfile,
    /// Keys of what it sends, as it prefers them. Not for records: keys are in plans only.
    #[serde(skip)]
    pub crypto: Vec<Crypto>,
    /// What is wrong with the first of its keys that cannot be used.
    #[serde(skip)]
    pub flaw: Option<Flaw>,
}

impl InsideOffer {
    /// Offers the codecs that browser and telephony may share, telephony's own first.
    pub fn new(session: u64, ports: PortPair, browser: &[Codec]) -> Self {
        let offered = |kind: &Kind| browser.iter().any(|codec| codec.kind == *kind);
        let codec = |kind: Kind| Codec { kind, payload_type: kind.inside_type() };
        let codecs = Kind::ALL.into_iter().filter(offered).map(codec).collect();
        Self { session, rtp: ports.rtp, rtcp: ports.rtcp, codecs }
    }

    /// Takes over the payload types of an offer, as its answer should (RFC 3264 section 6.1).
    pub fn speak_as(&mut self, offered: &[Codec]) {
        for own in &mut self.codecs {
            let theirs = offered.iter().find(|codec| codec.kind == own.kind);
            own.payload_type = theirs.map_or(own.payload_type, |codec| codec.payload_type);
        }
        // Ours that the offer lacks must not stand under a number of its.
        self.codecs.retain(|own| offered.iter().any(|codec| codec.kind == own.kind));
    }

    /// The text with these codecs. `layout` is that of the session so far: an answer, or a later offer, has as many
    /// sections in the same order (RFC 3264 sections 6 and 8); empty for the first offer.
    pub fn text(
        &self,
        version: u32,
        codecs: &[Codec],
        direction: Direction,
        layout: &[Option<String>],
        secrecy: Secrecy<'_>,
    ) -> String {
        let Self { session, rtp, .. } = self;
        let family = if rtp.is_ipv4() { "IP4" } else { "IP6" };
        let ip = rtp.ip();
        let mut text = format!(
            "v=0\r\no=- {session} {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n"
        );
        if layout.is_empty() {
            self.audio(&mut text, codecs, direction, secrecy);
        }
        for section in layout {
            match section {
                None => self.audio(&mut text, codecs, direction, secrecy),
                Some(refused) => {
                    let (kind, rest) = refused.split_once(' ').unwrap_or((refused, "RTP/AVP 0"));
                    let _ = write!(text, "m={kind} 0 {rest}\r\n");
                }
            }
        }
        text
    }

    fn audio(&self, text: &mut String, codecs: &[Codec], direction: Direction, secrecy: Secrecy<'_>) {
        let Self { rtp, rtcp, .. } = self;
        let family = if rtp.is_ipv4() { "IP4" } else { "IP6" };
        let types: Vec<String> = codecs.iter().map(|codec| codec.payload_type.to_string()).collect();
        let _ = write!(
            text,
            "m=audio {} {} {}\r\na=rtcp:{} IN {family} {}\r\n",
            rtp.port(),
            secrecy.profile.name(),
            types.join(" "),
            rtcp.port(),
            rtcp.ip(),
        );
        for crypto in secrecy.crypto {
            let _ = write!(text, "a=crypto:{}\r\n", *crypto.text());
        }
        for codec in codecs {
            let _ = write!(text, "a=rtpmap:{} {}\r\n", codec.payload_type, codec.kind.rtpmap());
            if !codec.kind.is_sound() {
                let _ = write!(text, "a=fmtp:{} 0-16\r\n", codec.payload_type);
            }
        }
        let _ = write!(text, "a=ptime:20\r\na={}\r\n", direction.name());
    }

    /// The codecs of the call: every sound that all three sides have, in front the one that runs already, or else the one
    /// that the answer prefers; behind them the events on their clocks. `None` where that first one is missing.
    pub fn choose(
        &self,
        answer: &InsideAnswer,
        outside: &[Codec],
        running: Option<Kind>,
    ) -> Option<Vec<Chosen>> {
        let choose = |kind: Kind| {
            let of = |codecs: &[Codec]| {
                codecs.iter().find(|codec| codec.kind == kind).map(|codec| codec.payload_type)
            };
            let (outside, from_inside) = (of(outside)?, of(&self.codecs)?);
            Some(Chosen { kind, outside, from_inside, to_inside: of(&answer.codecs)? })
        };
        let mut kinds: Vec<Kind> = Vec::new();
        for codec in &answer.codecs {
            if !kinds.contains(&codec.kind) {
                kinds.push(codec.kind);
            }
        }
        let sounds = kinds.iter().filter(|kind| kind.is_sound()).filter_map(|kind| choose(*kind));
        let mut chosen: Vec<Chosen> = sounds.collect();
        let first = match running {
            Some(kind) => chosen.iter().position(|codec| codec.kind == kind)?,
            None => 0,
        };
        let clocks: Vec<Kind> = chosen.iter().map(|codec| codec.kind.events()).collect();
        chosen.get_mut(..=first)?.rotate_right(1);
        let events = kinds.iter().filter(|kind| !kind.is_sound() && clocks.contains(kind));
        chosen.extend(events.filter_map(|kind| choose(*kind)));
        Some(chosen)
    }
}

impl InsideAnswer {
    /// Reads an answer, or an offer in the middle of a call.
    ///
    /// # Errors
    /// One sentence for people, browsers' among them: it quotes nothing of the inside.
    pub fn parse(octets: &[u8]) -> Result<Self, String> {
        if octets.len() > OFFER_MAX {
            return Err("the session description inside is too long".into());
        }
        let session = Session::parse(octets).map_err(|_| "the session description inside cannot be read")?;
        let usable = |media: &Media| media.media == "audio" && media.port != 0;
        let at = session.medias.iter().position(usable).ok_or("the inside refuses audio")?;
        let media = session.medias.get(at).ok_or("the inside refuses audio")?;
        let profile = InsideProfile::ALL.into_iter().find(|profile| profile.name() == media.proto);
        let profile = profile.ok_or("the inside wants another profile than RTP/AVP or RTP/SAVP")?;
        let lines = media.attributes.iter().filter(|attribute| attribute.attribute == "crypto");
        let lines =
            lines.take(CRYPTO_MAX).map(|line| Crypto::parse(line.value.as_deref().unwrap_or_default()));
        let (mut crypto, mut flaw) = (Vec::new(), None);
        for line in lines {
            match line {
                Ok(line) => crypto.push(line),
                Err(found) => flaw = flaw.or(Some(found)),
            }
        }
        let connection = media.connections.first().or(session.connection.as_ref());
        let connection = connection.ok_or("the inside names no address")?;
        let address = connection.connection_address.split('/').next().unwrap_or_default();
        let ip: IpAddr = address.parse().map_err(|_| "the inside names no usable address")?;
        let rtp = SocketAddr::new(ip, media.port);
        let attribute = |name: &str| {
            let found = media.attributes.iter().find(|attribute| attribute.attribute == name);
            found.map(|attribute| attribute.value.clone().unwrap_or_default())
        };
        let rtcp = rtcp(attribute("rtcp"), rtp).ok_or("the inside names no usable RTCP port")?;
        let maps = media.attributes.iter().filter(|attribute| attribute.attribute == "rtpmap");
        let maps = rtpmaps(maps.map(|attribute| attribute.value.as_deref().unwrap_or_default()));
        let all = media.attributes.iter().chain(&session.attributes);
        let said = all.clone().find_map(|attribute| Direction::of(&attribute.attribute)).unwrap_or_default();
        let direction = if ip.is_unspecified() { Direction::Inactive } else { said };
        let section = |media: &Media| format!("{} {} {}", media.media, media.proto, media.fmt);
        let sections = session.medias.iter().enumerate();
        let layout = sections.map(|(here, media)| (here != at).then(|| section(media))).collect();
        let codecs = codecs(&media.fmt, &maps);
        Ok(Self { rtp, rtcp, codecs, direction, layout, profile, crypto, flaw })
    }

    /// Whether it says where media goes; the old way to hold does not.
    pub fn has_address(&self) -> bool {
        !self.rtp.ip().is_unspecified()
    }
}

/// `a=rtcp:PORT [IN IP4 ADDRESS]` (RFC 3605), else one port above.
fn rtcp(attribute: Option<String>, rtp: SocketAddr) -> Option<SocketAddr> {
    let Some(text) = attribute else { return Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?)) };
    let mut words = text.split_whitespace();
    let port = words.next()?.parse().ok().filter(|port| *port != 0)?;
    let ip = match words.nth(2) {
        Some(address) => address.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified()),
        None => None,
    };
    Some(SocketAddr::new(ip.unwrap_or(rtp.ip()), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> InsideOffer {
        let port = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let ports = PortPair { rtp: port(20_000), rtcp: port(20_001) };
        InsideOffer::new(7, ports, &browser())
    }

    fn browser() -> Vec<Codec> {
        let codec = |kind, payload_type| Codec { kind, payload_type };
        vec![
            codec(Kind::Opus, 111),
            codec(Kind::Pcmu, 0),
            codec(Kind::Pcma, 8),
            codec(Kind::Event48000, 110),
            codec(Kind::Event8000, 126),
        ]
    }

    fn answer(formats: &str, more: &str) -> InsideAnswer {
        let text = format!(
            "v=0\r\no=- 1 1 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nm=audio 30000 RTP/AVP {formats}\r\n\
             a=rtpmap:96 telephone-event/8000\r\na=rtpmap:97 opus/48000/2\r\n{more}"
        );
        InsideAnswer::parse(text.as_bytes()).unwrap()
    }

    fn kinds(chosen: &[Chosen]) -> Vec<Kind> {
        chosen.iter().map(|codec| codec.kind).collect()
    }

    #[test]
    fn an_answer_with_several_codecs_maps_them_all() {
        let chosen = ours().choose(&answer("8 96 0 97 8", ""), &browser(), None).unwrap();
        assert_eq!(kinds(&chosen), [Kind::Pcma, Kind::Pcmu, Kind::Opus, Kind::Event8000]);
        let opus = chosen[2];
        assert_eq!((opus.outside, opus.from_inside, opus.to_inside), (111, 107, 97));
        assert_eq!(chosen[3].to_inside, 96);
    }

    #[test]
    fn the_running_codec_stays_in_front_or_there_is_no_choice() {
        let ours = ours();
        let chosen = ours.choose(&answer("8 0", ""), &browser(), Some(Kind::Pcmu)).unwrap();
        assert_eq!(kinds(&chosen), [Kind::Pcmu, Kind::Pcma]);
        assert_eq!(ours.choose(&answer("8", ""), &browser(), Some(Kind::Pcmu)), None);
        assert_eq!(ours.choose(&answer("18 96", ""), &browser(), None), None);
    }

    #[test]
    fn an_rtcp_attribute_may_name_less_than_an_address() {
        for (more, expected) in [
            ("", "10.0.0.5:30001"),
            ("a=rtcp:30009\r\n", "10.0.0.5:30009"),
            ("a=rtcp:30009 IN IP4 10.0.0.6\r\n", "10.0.0.6:30009"),
            ("a=rtcp:30009 IN IP4 0.0.0.0\r\n", "10.0.0.5:30009"),
        ] {
            assert_eq!(answer("0", more).rtcp.to_string(), expected, "{more}");
        }
    }

    #[test]
    fn every_section_of_an_offer_has_one_in_the_answer() {
        let offer = answer("0", "m=video 30002 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n");
        assert_eq!(offer.layout, [None, Some("video RTP/AVP 99".to_owned())]);
        let text = ours().text(2, &browser()[1..2], Direction::SendRecv, &offer.layout, Secrecy::default());
        let sections: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
        assert_eq!(sections, ["m=audio 20000 RTP/AVP 0", "m=video 0 RTP/AVP 99"]);
    }
}
