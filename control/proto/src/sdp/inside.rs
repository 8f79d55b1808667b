//! Our offer to telephony, and what telephony says.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use sallyport_plan::PortPair;
use sdp_types::Session;
use serde::{Deserialize, Serialize};

use super::OFFER_MAX;
use super::codec::{Chosen, Codec, Kind, codecs, rtpmaps};
use super::direction::Direction;

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
}

impl InsideOffer {
    /// Offers the codecs that browser and telephony may share, telephony's own first.
    pub fn new(session: u64, ports: PortPair, browser: &[Codec]) -> Self {
        let offered = |kind: &Kind| browser.iter().any(|codec| codec.kind == *kind);
        let codec = |kind: Kind| Codec { kind, payload_type: kind.inside_type() };
        let codecs = Kind::ALL.into_iter().filter(offered).map(codec).collect();
        Self { session, rtp: ports.rtp, rtcp: ports.rtcp, codecs }
    }

    /// The text, for an offer of all codecs or an answer with the `chosen` ones.
    pub fn text(&self, version: u32, chosen: Option<&[Chosen]>, direction: Direction) -> String {
        let Self { session, rtp, rtcp, .. } = self;
        let family = if rtp.is_ipv4() { "IP4" } else { "IP6" };
        let ip = rtp.ip();
        let codecs: Vec<Codec> = match chosen {
            None => self.codecs.clone(),
            Some(chosen) => {
                let own = |chosen: &Chosen| Codec { kind: chosen.kind, payload_type: chosen.from_inside };
                chosen.iter().map(own).collect()
            }
        };
        let types: Vec<String> = codecs.iter().map(|codec| codec.payload_type.to_string()).collect();
        let mut text = format!(
            "v=0\r\no=- {session} {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
             m=audio {} RTP/AVP {}\r\na=rtcp:{} IN {family} {ip}\r\n",
            rtp.port(),
            types.join(" "),
            rtcp.port(),
        );
        for codec in codecs {
            let _ = write!(text, "a=rtpmap:{} {}\r\n", codec.payload_type, codec.kind.rtpmap());
            if !codec.kind.is_sound() {
                let _ = write!(text, "a=fmtp:{} 0-16\r\n", codec.payload_type);
            }
        }
        let _ = write!(text, "a=ptime:20\r\na={}\r\n", direction.name());
        text
    }

    /// The codecs of the call: the sound that the answer prefers, and the events on its clock where all three sides have
    /// them; `None` where there is no sound in common.
    pub fn choose(&self, answer: &InsideAnswer, outside: &[Codec]) -> Option<Vec<Chosen>> {
        let choose = |kind: Kind| {
            let of = |codecs: &[Codec]| {
                codecs.iter().find(|codec| codec.kind == kind).map(|codec| codec.payload_type)
            };
            Some(Chosen {
                kind,
                outside: of(outside)?,
                from_inside: of(&self.codecs)?,
                to_inside: of(&answer.codecs)?,
            })
        };
        let sound = answer
            .codecs
            .iter()
            .filter(|codec| codec.kind.is_sound())
            .find_map(|codec| choose(codec.kind))?;
        Some([Some(sound), choose(sound.kind.events())].into_iter().flatten().collect())
    }
}

impl InsideAnswer {
    /// Reads an answer, or an offer in the middle of a call.
    ///
    /// # Errors
    /// One sentence for people.
    pub fn parse(octets: &[u8]) -> Result<Self, String> {
        if octets.len() > OFFER_MAX {
            return Err("the session description inside is too long".into());
        }
        let session =
            Session::parse(octets).map_err(|error| format!("the session description inside: {error}"))?;
        let audio = session.medias.iter().find(|media| media.media == "audio" && media.port != 0);
        let media = audio.ok_or("the inside refuses audio")?;
        if media.proto != "RTP/AVP" && media.proto != "RTP/AVPF" {
            return Err(format!("the inside answers with profile {}", media.proto));
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
        Ok(Self { rtp, rtcp, codecs: codecs(&media.fmt, &maps), direction })
    }
}

/// `a=rtcp:PORT [IN IP4 ADDRESS]` (RFC 3605), else one port above.
fn rtcp(attribute: Option<String>, rtp: SocketAddr) -> Option<SocketAddr> {
    let Some(text) = attribute else { return Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?)) };
    let mut words = text.split_whitespace();
    let port = words.next()?.parse().ok()?;
    let ip = match words.nth(2) {
        Some(address) => address.parse().ok()?,
        None => rtp.ip(),
    };
    Some(SocketAddr::new(ip, port))
}
