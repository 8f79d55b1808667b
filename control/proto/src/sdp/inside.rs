//! Our offer to telephony, and what telephony says.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use sallyport_plan::PortPair;
use sdp_types::{Media, Session};
use serde::{Deserialize, Serialize};

use super::OFFER_MAX;
use super::codec::{Chosen, Codec, Inward, Kind, codecs, rtpmaps};
use super::direction::Direction;
use super::extension::{Extensions, bandwidth};
use super::keying::{InsideProfile, Keying};
use super::values;
use super::video::{VideoSection, describe, formats, list};

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
    /// Header extensions of the sound that we speak of.
    pub extensions: Extensions,
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
    /// Header extensions of its sound.
    pub extensions: Extensions,
    /// Its video, where it has any that it wants.
    pub video: Option<VideoSection>,
    /// All its sections in order.
    pub layout: Vec<MediaLine>,
    /// What it says of encrypting its sound.
    pub keying: Keying,
    /// Whether it has a picture that it wants, of use or not.
    pub shows: bool,
}

/// What a section of the session is to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaLine {
    /// The sound of the call.
    Audio,
    /// The picture of the call; kind, profile and formats, should we refuse it.
    Video(String),
    /// One that we refuse: kind, profile and formats.
    Refused(String),
}

impl InsideOffer {
    /// Offers the codecs that browser and telephony may share, in the order of `spoken`. With `events`, named events as well, for a
    /// browser that knows them on whatever clock: at 8 kHz, which all telephony knows, and on the clock of each codec.
    pub fn new(session: u64, ports: PortPair, browser: &[Codec], spoken: &[Kind], events: bool) -> Self {
        let has = |kind: Kind| browser.iter().any(|codec| codec.kind == kind);
        let events = events && browser.iter().any(|codec| codec.kind.is_event());
        let fast = spoken.contains(&Kind::Opus) && has(Kind::Opus);
        let of_events = [(Kind::Event8000, events), (Kind::Event48000, events && fast)];
        let of_events = of_events.into_iter().filter_map(|(kind, offered)| offered.then_some(kind));
        let codec = |kind: Kind| Codec { kind, payload_type: kind.inside_type() };
        let spoken = spoken.iter().copied().filter(|kind| has(*kind));
        let codecs = spoken.chain(of_events).map(codec).collect();
        Self { session, rtp: ports.rtp, rtcp: ports.rtcp, codecs, extensions: Extensions::default() }
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

    /// The text with these codecs, and with our video. `layout` is that of the session so far: an answer, or a later offer,
    /// has as many sections in the same order (RFC 3264 sections 6 and 8); empty for the first offer.
    pub fn text(
        &self,
        version: u32,
        codecs: &[Codec],
        direction: Direction,
        video: Option<&VideoSection>,
        layout: &[MediaLine],
        keying: &Keying,
    ) -> String {
        let Self { session, rtp, .. } = self;
        let family = if rtp.is_ipv4() { "IP4" } else { "IP6" };
        let ip = rtp.ip();
        let mut text = format!(
            "v=0\r\no=- {session} {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n"
        );
        if layout.is_empty() {
            self.audio(&mut text, codecs, direction, keying);
            video.into_iter().for_each(|video| video.write(&mut text));
        }
        for section in layout {
            match (section, video) {
                (MediaLine::Audio, _) => self.audio(&mut text, codecs, direction, keying),
                (MediaLine::Video(_), Some(video)) => video.write(&mut text),
                (MediaLine::Video(refused) | MediaLine::Refused(refused), _) => {
                    let (kind, rest) = refused.split_once(' ').unwrap_or((refused, "RTP/AVP 0"));
                    let _ = write!(text, "m={kind} 0 {rest}\r\n");
                }
            }
        }
        text
    }

    fn audio(&self, text: &mut String, codecs: &[Codec], direction: Direction, keying: &Keying) {
        let types: Vec<String> = codecs.iter().map(|codec| codec.payload_type.to_string()).collect();
        head(text, ("audio", keying.profile), (self.rtp, self.rtcp), &types.join(" "));
        keying.write(text);
        for codec in codecs {
            let _ = write!(text, "a=rtpmap:{} {}\r\n", codec.payload_type, codec.kind.rtpmap());
            if codec.kind.is_event() {
                let _ = write!(text, "a=fmtp:{} 0-16\r\n", codec.payload_type);
            }
        }
        self.extensions.write(text);
        let _ = write!(text, "a=ptime:20\r\na={}\r\n", direction.name());
    }

    /// The codecs of the call: every sound that all three sides have, in front the one that runs already, or else the one
    /// that the answer prefers; behind them comfort noise, where it is on the clock of that one, and the browser's named events.
    /// `None` where that first one is missing.
    pub fn choose(
        &self,
        answer: &InsideAnswer,
        outside: &[Codec],
        running: Option<Kind>,
    ) -> Option<Vec<Chosen>> {
        let of = |codecs: &[Codec], kind: Kind| {
            codecs.iter().find(|codec| codec.kind == kind).map(|codec| codec.payload_type)
        };
        let inside =
            |kind: Kind| Some(Inward { kind, from: of(&self.codecs, kind)?, to: of(&answer.codecs, kind)? });
        let mut chosen: Vec<Chosen> = Vec::new();
        for kind in answer.codecs.iter().map(|codec| codec.kind).filter(|kind| kind.is_sound()) {
            if let (Some(outside), Some(inside)) = (of(outside, kind), inside(kind))
                && chosen.iter().all(|had| had.kind != kind)
            {
                chosen.push(Chosen { kind, outside, inside: Some(inside) });
            }
        }
        let first = match running {
            Some(kind) => chosen.iter().position(|codec| codec.kind == kind)?,
            None => 0,
        };
        chosen.get_mut(..=first)?.rotate_right(1);
        let clock = chosen.first()?.kind.clock();
        let noise = Kind::Noise;
        if let (true, Some(outside), Some(inside)) =
            (clock == noise.clock(), of(outside, noise), inside(noise))
        {
            chosen.push(Chosen { kind: noise, outside, inside: Some(inside) });
        }
        // One type of events for the browser, on the clock of what it speaks: Chromium would take the slowest of several, and
        // count by the other clock. Whichever the inside sends becomes that one.
        let events = chosen.first()?.kind.events();
        let heard = events.iter().find_map(|kind| Some((*kind, of(outside, *kind)?)));
        if let Some((kind, outside)) = heard {
            let both: Vec<Chosen> = events
                .iter()
                .filter_map(|event| Some(Chosen { kind, outside, inside: Some(inside(*event)?) }))
                .collect();
            if both.is_empty() {
                chosen.push(Chosen { kind, outside, inside: None });
            }
            chosen.extend(both);
        }
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
        let keying =
            Keying::read(media).ok_or("the inside wants another profile than RTP/AVP or RTP/SAVP")?;
        let (rtp, rtcp, direction) = place(&session, media)?;
        let maps = rtpmaps(values(media, "rtpmap"));
        let film = session.medias.iter().position(|media| media.media == "video" && media.port != 0);
        // Of one that makes no sense the sound still does.
        let video = film.and_then(|at| VideoSection::read(&session, session.medias.get(at)?));
        let line = |(here, media): (usize, &Media)| {
            let text = format!("{} {} {}", media.media, media.proto, media.fmt);
            match here {
                here if here == at => MediaLine::Audio,
                here if Some(here) == film && video.is_some() => MediaLine::Video(text),
                _ => MediaLine::Refused(text),
            }
        };
        let layout = session.medias.iter().enumerate().map(line).collect();
        let codecs = codecs(&media.fmt, &maps);
        Ok(Self {
            rtp,
            rtcp,
            codecs,
            direction,
            extensions: Extensions::read(media),
            video,
            layout,
            keying,
            shows: film.is_some(),
        })
    }

    /// Why media cannot go where it says: to several at once, or to the machine that it is read on. An unspecified address is
    /// the old way to hold. `ours`: our own address there; on one machine all may have such.
    ///
    /// # Errors
    /// One sentence for people.
    pub fn reach(&mut self, ours: IpAddr) -> Result<(), &'static str> {
        let is_usable = |address: &SocketAddr| {
            let ip = address.ip().to_canonical();
            let broadcast = ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
            !ip.is_multicast() && !broadcast && (!ip.is_loopback() || ours.is_loopback())
        };
        // Of a picture that cannot go anywhere the sound still does.
        self.video.take_if(|video| !is_usable(&video.rtp) || !is_usable(&video.rtcp));
        if is_usable(&self.rtp) && is_usable(&self.rtcp) {
            Ok(())
        } else {
            Err("the inside names an address that no media can go to (loopback, multicast or broadcast)")
        }
    }

    /// Whether it says where media goes; the old way to hold does not.
    pub fn has_address(&self) -> bool {
        !self.rtp.ip().is_unspecified()
    }
}

impl VideoSection {
    /// `None` where nothing in it is of use.
    fn read(session: &Session, media: &Media) -> Option<Self> {
        let keying = Keying::read(media)?;
        let (rtp, rtcp, direction) = place(session, media).ok()?;
        let formats = formats(&media.fmt, values(media, "rtpmap"), values(media, "fmtp"));
        let asks = values(media, "rtcp-fb").any(|feedback| {
            let words = feedback.split_once(' ').map(|(_, words)| words.trim());
            words.is_some_and(|words| {
                ["nack pli", "ccm fir"].iter().any(|asks| words.eq_ignore_ascii_case(asks))
            })
        });
        let most = bandwidth(session, media);
        (!formats.is_empty()).then_some(Self { rtp, rtcp, formats, direction, asks, most, keying })
    }

    fn write(&self, text: &mut String) {
        let Self { rtp, rtcp, formats, direction, keying, .. } = self;
        head(text, ("video", keying.profile), (*rtp, *rtcp), &list(formats));
        keying.write(text);
        // Telephony knows these words under RTP/AVP as well, though they are AVPF's (RFC 4585, RFC 5104).
        describe(text, formats, &["nack pli", "ccm fir"]);
        let _ = write!(text, "a={}\r\n", direction.name());
    }
}

/// The line of a section of ours, and where we want its RTCP (RFC 3605).
fn head(
    text: &mut String,
    (medium, profile): (&str, InsideProfile),
    (rtp, rtcp): (SocketAddr, SocketAddr),
    types: &str,
) {
    let (port, profile) = (rtp.port(), profile.name());
    let family = if rtp.is_ipv4() { "IP4" } else { "IP6" };
    let _ = write!(text, "m={medium} {port} {profile} {types}\r\n");
    let _ = write!(text, "a=rtcp:{} IN {family} {}\r\n", rtcp.port(), rtcp.ip());
}

/// Where a section's writer wants RTP and RTCP, and what it does with the medium.
pub(crate) fn place(session: &Session, media: &Media) -> Result<(SocketAddr, SocketAddr, Direction), String> {
    let connection = media.connections.first().or(session.connection.as_ref());
    let connection = connection.ok_or("the inside names no address")?;
    let address = connection.connection_address.split('/').next().unwrap_or_default();
    let ip: IpAddr = address.parse().map_err(|_| "the inside names no usable address")?;
    let rtp = SocketAddr::new(ip, media.port);
    let attribute = values(media, "rtcp").next().map(str::to_owned);
    let rtcp = rtcp(attribute, rtp).ok_or("the inside names no usable RTCP port")?;
    let mut all = media.attributes.iter().chain(&session.attributes);
    let said = all.find_map(|attribute| Direction::of(&attribute.attribute)).unwrap_or_default();
    Ok((rtp, rtcp, if ip.is_unspecified() { Direction::Inactive } else { said }))
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
    use sallyport_plan::{Clock, Format, Pt, PtMap};

    use super::*;

    fn ours() -> InsideOffer {
        let port = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let ports = PortPair { rtp: port(20_000), rtcp: port(20_001) };
        InsideOffer::new(7, ports, &browser(), &Kind::SPOKEN, true)
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
        assert_eq!((opus.outside, opus.inside), (111, Some(Inward { kind: Kind::Opus, from: 107, to: 97 })));
        assert_eq!(chosen[3].inside.unwrap().to, 96);
    }

    #[test]
    fn events_run_on_the_clock_of_the_sound_outside_and_on_any_inside() {
        let events = |formats: &str, more: &str, browser: &[Codec]| {
            let chosen = ours().choose(&answer(formats, more), browser, None).unwrap();
            let event = |codec: &Chosen| codec.kind.is_event().then_some((codec.outside, codec.inside));
            chosen.iter().filter_map(event).collect::<Vec<_>>()
        };
        let slow = Some(Inward { kind: Kind::Event8000, from: 101, to: 96 });
        let fast = Some(Inward { kind: Kind::Event48000, from: 102, to: 98 });
        let both = "a=rtpmap:98 telephone-event/48000\r\n";
        assert_eq!(events("97 96", "", &browser()), [(110, slow)], "Opus outside counts at 48 kHz");
        assert_eq!(events("97 0 96 98", both, &browser()), [(110, fast), (110, slow)]);
        assert_eq!(events("0 97 96 98", both, &browser()), [(126, slow), (126, fast)]);
        assert_eq!(events("0", "", &browser()), [(126, None)], "the inside has none");
        let firefox = [&browser()[..3], &browser()[4..]].concat();
        assert_eq!(events("97 96 98", both, &firefox), [(126, fast), (126, slow)], "it knows 8 kHz only");
        assert_eq!(events("0 96", "", &browser()[..3]), [], "the browser has none");
    }

    #[test]
    fn events_are_offered_at_8_khz_and_on_the_clocks_of_the_codecs() {
        let port = SocketAddr::from(([10, 0, 0, 1], 20_000));
        let offered = |browser: &[Codec], events: bool| {
            let offer =
                InsideOffer::new(7, PortPair { rtp: port, rtcp: port }, browser, &Kind::SPOKEN, events);
            let numbers = offer.codecs.iter().filter(|codec| codec.kind.is_event());
            numbers.map(|codec| codec.payload_type).collect::<Vec<_>>()
        };
        assert_eq!(offered(&browser(), true), [101, 102]);
        assert_eq!(offered(&[browser()[1], browser()[3]], true), [101], "G.711 and events at 48 kHz");
        assert_eq!(offered(&browser()[..3], true), [0u8; 0], "the browser has none");
        assert_eq!(offered(&browser(), false), [0u8; 0], "digits go by INFO");
    }

    #[test]
    fn codecs_are_offered_as_the_configuration_prefers_them() {
        let port = SocketAddr::from(([10, 0, 0, 1], 20_000));
        let all = Kind::ALL.map(|kind| Codec { kind, payload_type: 96 });
        let offered = |spoken: &[Kind]| {
            let offer = InsideOffer::new(7, PortPair { rtp: port, rtcp: port }, &all, spoken, true);
            offer.codecs.iter().map(|codec| codec.payload_type).collect::<Vec<_>>()
        };
        assert_eq!(offered(&Kind::SPOKEN), [0, 8, 9, 107, 101, 102]);
        assert_eq!(offered(&[Kind::G722, Kind::Noise, Kind::Pcma]), [9, 13, 8, 101]);
    }

    #[test]
    fn comfort_noise_runs_beside_what_counts_at_8_khz() {
        let numbers = |kinds: &[Kind]| -> Vec<Codec> {
            kinds.iter().map(|kind| Codec { kind: *kind, payload_type: kind.inside_type() }).collect()
        };
        let own = InsideOffer { codecs: numbers(&[Kind::G722, Kind::Opus, Kind::Noise]), ..ours() };
        let browser = numbers(&[Kind::Opus, Kind::G722, Kind::Noise]);
        let of = |formats: &str, browser: &[Codec]| {
            kinds(&own.choose(&answer(formats, ""), browser, None).unwrap())
        };
        assert_eq!(of("13 9", &browser), [Kind::G722, Kind::Noise]);
        assert_eq!(of("97 13", &browser), [Kind::Opus]);
        assert_eq!(of("9 97 13", &browser), [Kind::G722, Kind::Opus, Kind::Noise]);
        assert_eq!(of("9", &browser), [Kind::G722], "the inside has none");
        assert_eq!(of("9 13", &browser[..2]), [Kind::G722], "the browser has none");
        let chosen = own.choose(&answer("9 13", ""), &browser, None).unwrap();
        let noise = PtMap { from: Pt(13), to: Pt(13), format: Format::Media(Clock::Hz8000) };
        assert_eq!((chosen[1].inward(), chosen[1].outward()), (noise, Some(noise)));
    }

    #[test]
    fn the_running_codec_stays_in_front_or_there_is_no_choice() {
        let ours = ours();
        let chosen = ours.choose(&answer("8 0", ""), &browser(), Some(Kind::Pcmu)).unwrap();
        assert_eq!(kinds(&chosen), [Kind::Pcmu, Kind::Pcma, Kind::Event8000]);
        assert_eq!(chosen[2].inside, None);
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
        let more = "m=application 30004 TCP/BFCP *\r\nm=video 30002 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n";
        let offer = answer("0", more);
        let [refused, video] = ["application TCP/BFCP *", "video RTP/AVP 99"].map(str::to_owned);
        assert_eq!(offer.layout, [MediaLine::Audio, MediaLine::Refused(refused), MediaLine::Video(video)]);
        let film = offer.video.as_ref().map(|film| VideoSection {
            rtp: "10.0.0.1:20002".parse().unwrap(),
            rtcp: "10.0.0.1:20003".parse().unwrap(),
            ..film.clone()
        });
        for (ours_too, last) in [(None, "m=video 0 RTP/AVP 99"), (film.as_ref(), "m=video 20002 RTP/AVP 99")]
        {
            let text = ours().text(
                2,
                &browser()[1..2],
                Direction::SendRecv,
                ours_too,
                &offer.layout,
                &Keying::default(),
            );
            let sections: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
            assert_eq!(sections, ["m=audio 20000 RTP/AVP 0", "m=application 0 TCP/BFCP *", last]);
        }
    }

    #[test]
    fn video_that_makes_no_sense_is_refused_and_the_sound_stays() {
        for more in [
            "m=video 0 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n",
            "m=video 30002 UDP/TLS/RTP/SAVPF 99\r\na=rtpmap:99 H264/90000\r\n",
            "m=video 30002 RTP/AVP 34\r\n",
            "m=video 30002 RTP/AVP 99\r\nc=IN IP4 somewhere\r\na=rtpmap:99 VP8/90000\r\n",
            "m=video 65535 RTP/AVP 99\r\na=rtpmap:99 VP8/90000\r\n",
        ] {
            let offer = answer("0", more);
            assert_eq!(offer.video, None, "{more}");
            assert!(matches!(offer.layout[1], MediaLine::Refused(_)), "{more}");
        }
        let held = answer("0", "m=video 30002 RTP/AVP 99\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:99 VP8/90000\r\n");
        assert_eq!(held.video.unwrap().direction, Direction::Inactive);
    }
}
