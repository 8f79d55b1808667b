//! The browser's offer, and our answer to it.

use std::fmt::Write;

use sdp_types::{Media, Session};
use serde::{Deserialize, Serialize};

use super::OFFER_MAX;
use super::codec::{Chosen, Codec, Kind, codecs, rtpmaps};
use super::direction::Direction;
use super::extension::Agreed;
use super::values;
use super::video::{ChosenVideo, VideoFormat, describe, describe_rtx, formats, list};
use crate::error::OfferError;
use crate::random::hex;

/// Characters of a browser's user fragment: USERNAME of our checks is `theirs:ours`, and the agent takes 128 octets of it.
pub const UFRAG_MAX: usize = 128 - 1 - super::OUR_UFRAG;

/// `a=setup` (RFC 4145 section 4, RFC 5763 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setup {
    /// The browser takes either role.
    ActPass,
    /// The browser sends the ClientHello.
    Active,
    /// We send the ClientHello.
    Passive,
}

/// One section of the offer, as much as the answer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    kind: String,
    proto: String,
    formats: String,
    mid: Option<String>,
}

/// What a browser offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserOffer {
    sections: Vec<Section>,
    audio: usize,
    /// Video that shares the sound's transport.
    pub video: Option<BrowserVideo>,
    /// Whether its sections are a bundle.
    pub bundled: bool,
    /// The browser's user fragment.
    pub ufrag: String,
    /// The browser's password.
    pub password: String,
    /// SHA-256 over the browser's certificate.
    pub fingerprint: [u8; 32],
    /// Who sends the ClientHello.
    pub setup: Setup,
    /// Codecs that we know, as the browser prefers them.
    pub codecs: Vec<Codec>,
    /// Values of `a=candidate`, each beginning with `candidate:`.
    pub candidates: Vec<String>,
    /// Whether the browser uses ICE lite.
    pub lite: bool,
    /// Direction of the audio section.
    pub direction: Direction,
    /// What that section says of header extensions.
    pub says: Agreed,
}

/// Video that a browser offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserVideo {
    at: usize,
    /// Formats that pass, as the browser prefers them.
    pub formats: Vec<VideoFormat>,
    /// What the browser does with the picture.
    pub direction: Direction,
    /// What the section says of header extensions and bandwidth.
    pub says: Agreed,
}

/// Our answer to a browser's video.
#[derive(Debug)]
pub struct AnswerVideo<'a> {
    /// SSRC of the stream that we will send.
    pub ssrc: u32,
    /// SSRC of its retransmissions.
    pub rtx: u32,
    /// Formats of the call.
    pub chosen: &'a [ChosenVideo],
    /// The same as the inside wants to receive them.
    pub theirs: &'a [VideoFormat],
    /// What we are ready for.
    pub direction: Direction,
    /// Bits a second that the inside wants at the most.
    pub most: Option<u64>,
    /// Header extensions and feedback on bandwidth.
    pub agreed: &'a Agreed,
}

/// What our answer, or our offer, says beside what the other side settles.
#[derive(Debug)]
pub struct AnswerParts<'a> {
    /// Session id, and the version that grows with each answer.
    pub session: (u64, u32),
    /// Our user fragment.
    pub ufrag: &'a str,
    /// Our password.
    pub password: &'a str,
    /// Our candidates, each beginning with `candidate:`.
    pub candidates: &'a [String],
    /// Whether we use ICE lite.
    pub lite: bool,
    /// SHA-256 over our certificate.
    pub fingerprint: &'a [u8; 32],
    /// SSRC of the stream that we will send.
    pub ssrc: u32,
    /// CNAME of that stream.
    pub cname: &'a str,
    /// Codecs of the call.
    pub chosen: &'a [Chosen],
    /// What we are ready for.
    pub direction: Direction,
    /// Header extensions.
    pub agreed: &'a Agreed,
    /// Video, where the call has any.
    pub video: Option<AnswerVideo<'a>>,
}

impl Section {
    fn refuse(&self, text: &mut String) {
        let Self { kind, proto, formats, mid } = self;
        let _ = write!(text, "m={kind} 0 {proto} {formats}\r\nc=IN IP4 0.0.0.0\r\n");
        if let Some(mid) = mid {
            let _ = write!(text, "a=mid:{mid}\r\n");
        }
        text.push_str("a=inactive\r\n");
    }
}

impl BrowserOffer {
    /// Reads an offer.
    ///
    /// # Errors
    /// [`OfferError`] says what it lacks.
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        if text.len() > OFFER_MAX {
            return Err(OfferError::TooLong);
        }
        let session =
            Session::parse(text.as_bytes()).map_err(|error| OfferError::Malformed(error.to_string()))?;
        let bundle = bundle(&session);
        let audio = session.medias.iter().position(|media| is_usable(media, &bundle));
        let audio = audio.ok_or(OfferError::NoAudio)?;
        let media = session.medias.get(audio).ok_or(OfferError::NoAudio)?;
        // What belongs to the transport may stand in the section that the bundle is tagged by only (RFC 8843 section 7.1.3).
        let carrier = carrier(&session, &bundle, media);
        let find = |name: &str| {
            value(media, name).or_else(|| value(carrier, name)).or_else(|| session_value(&session, name))
        };
        check_profile(media, find("fingerprint").is_some())?;
        if find("rtcp-mux").is_none() {
            return Err(OfferError::NoRtcpMux);
        }
        let ufrag = find("ice-ufrag").filter(|text| is_ice(text, 4)).ok_or(OfferError::NoIceCredentials)?;
        let password = find("ice-pwd").filter(|text| is_ice(text, 22)).ok_or(OfferError::NoIceCredentials)?;
        if ufrag.len() > UFRAG_MAX {
            return Err(OfferError::LongUfrag);
        }
        let formats = codecs(&media.fmt, &rtpmaps(values(media, "rtpmap")));
        if !formats.iter().any(|codec| codec.kind.is_sound()) {
            return Err(OfferError::NoCodec);
        }
        Ok(Self {
            fingerprint: fingerprint([media, carrier], &session).ok_or(OfferError::NoFingerprint)?,
            setup: setup(find("setup"))?,
            codecs: formats,
            candidates: candidates(media, carrier),
            lite: session_value(&session, "ice-lite").is_some(),
            direction: direction(media),
            says: Agreed::read(media),
            video: video(&session, &bundle, media),
            bundled: !bundle.is_empty(),
            sections: session.medias.iter().map(section).collect(),
            ufrag,
            password,
            audio,
        })
    }

    /// Numbers that its sections have taken: what they mean does not change (RFC 3264 section 8.3.2).
    pub fn numbers(&self) -> Vec<u8> {
        let formats = self.sections.iter().flat_map(|section| section.formats.split_whitespace());
        formats.filter_map(|text| text.parse().ok()).collect()
    }

    /// Payload type of a codec at the browser.
    pub fn payload_type(&self, kind: Kind) -> Option<u8> {
        self.codecs.iter().find(|codec| codec.kind == kind).map(|codec| codec.payload_type)
    }
}

/// The mids of `a=group:BUNDLE`, the tagged one first.
fn bundle(session: &Session) -> Vec<String> {
    let group = session_value(session, "group").unwrap_or_default();
    let mut words = group.split_whitespace();
    if words.next() == Some("BUNDLE") { words.map(str::to_owned).collect() } else { Vec::new() }
}

/// Audio that is offered.
fn is_usable(media: &Media, bundle: &[String]) -> bool {
    media.media == "audio" && is_offered(media, bundle)
}

/// By a port, or within a bundle only (RFC 8843 section 6).
fn is_offered(media: &Media, bundle: &[String]) -> bool {
    media.port != 0 || (value(media, "bundle-only").is_some() && is_within(media, bundle))
}

fn is_within(media: &Media, bundle: &[String]) -> bool {
    value(media, "mid").is_some_and(|mid| bundle.contains(&mid))
}

/// The first video within the sound's bundle that has a format that passes.
fn video(session: &Session, bundle: &[String], audio: &Media) -> Option<BrowserVideo> {
    let mut sections = session.medias.iter().enumerate().filter(|_| is_within(audio, bundle));
    sections.find_map(|(at, media)| {
        let shares = media.media == "video" && is_offered(media, bundle) && is_within(media, bundle);
        let mut formats = formats(&media.fmt, values(media, "rtpmap"), values(media, "fmtp"));
        // Within a bundle a number is one format's only (RFC 8843 section 9.1): what the sound has is not the picture's.
        let sounds = |number: u8| audio.fmt.split_whitespace().any(|text| text.parse() == Ok(number));
        formats.retain_mut(|format| {
            format.rtx.take_if(|rtx| sounds(*rtx));
            !sounds(format.payload_type)
        });
        let found = shares && media.proto == audio.proto && !formats.is_empty();
        found.then(|| BrowserVideo { at, formats, direction: direction(media), says: Agreed::read(media) })
    })
}

/// The section whose transport the audio shares: the bundle's tagged one, else its own.
fn carrier<'a>(session: &'a Session, bundle: &[String], audio: &'a Media) -> &'a Media {
    let tagged = bundle.first().filter(|_| is_within(audio, bundle));
    let found = tagged.and_then(|tag| {
        session.medias.iter().find(|media| value(media, "mid").as_ref() == Some(tag) && media.port != 0)
    });
    found.unwrap_or(audio)
}

fn candidates(audio: &Media, carrier: &Media) -> Vec<String> {
    let own = values(audio, "candidate").next().is_some();
    let of = if own { audio } else { carrier };
    values(of, "candidate").map(|value| format!("candidate:{value}")).collect()
}

fn section(media: &Media) -> Section {
    Section {
        kind: media.media.clone(),
        proto: media.proto.clone(),
        formats: media.fmt.clone(),
        mid: value(media, "mid"),
    }
}

fn value(media: &Media, name: &str) -> Option<String> {
    values(media, name).next().map(str::to_owned)
}

fn session_value(session: &Session, name: &str) -> Option<String> {
    let found = session.attributes.iter().find(|attribute| attribute.attribute == name)?;
    Some(found.value.clone().unwrap_or_default())
}

fn check_profile(media: &Media, has_fingerprint: bool) -> Result<(), OfferError> {
    if !has_fingerprint && values(media, "crypto").next().is_some() {
        return Err(OfferError::SdesOnly);
    }
    let known = ["UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP"];
    if known.contains(&media.proto.as_str()) {
        Ok(())
    } else {
        Err(OfferError::NotDtlsSrtp(media.proto.clone()))
    }
}

/// RFC 8839 section 5.4: ice-char, so long at least and 256 at the most.
fn is_ice(text: &str, least: usize) -> bool {
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'+' || octet == b'/';
    (least..=256).contains(&text.len()) && text.bytes().all(octet)
}

fn setup(text: Option<String>) -> Result<Setup, OfferError> {
    match text.as_deref() {
        None | Some("actpass") => Ok(Setup::ActPass),
        Some("active") => Ok(Setup::Active),
        Some("passive") => Ok(Setup::Passive),
        Some(other) => Err(OfferError::Setup(other.to_owned())),
    }
}

fn direction(media: &Media) -> Direction {
    media.attributes.iter().find_map(|attribute| Direction::of(&attribute.attribute)).unwrap_or_default()
}

/// The fingerprint with SHA-256 (RFC 8122 section 5).
fn fingerprint(medias: [&Media; 2], session: &Session) -> Option<[u8; 32]> {
    let own = medias.into_iter().flat_map(|media| values(media, "fingerprint")).map(str::to_owned);
    let all: Vec<String> = own.chain(session_value(session, "fingerprint")).collect();
    all.iter().find_map(|text| {
        let (hash, digits) = text.split_once(' ')?;
        hash.eq_ignore_ascii_case("sha-256").then_some(())?;
        let octets: Option<Vec<u8>> =
            digits.trim().split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
        octets?.try_into().ok()
    })
}

/// Our answer: same sections in the same order, audio and the call's video taken, all others refused by port 0.
pub fn browser_answer(offer: &BrowserOffer, parts: &AnswerParts<'_>) -> String {
    let (id, version) = parts.session;
    let mut text = format!("v=0\r\no=- {id} {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let video = offer.video.as_ref().zip(parts.video.as_ref());
    let taken = |at: usize| at == offer.audio || video.is_some_and(|(offered, _)| offered.at == at);
    let sections = offer.sections.iter().enumerate().filter(|(at, _)| taken(*at));
    let mids: Vec<&str> = sections.filter_map(|(_, section)| section.mid.as_deref()).collect();
    if !mids.is_empty() && offer.bundled {
        let _ = write!(text, "a=group:BUNDLE {}\r\n", mids.join(" "));
    }
    if parts.lite {
        text.push_str("a=ice-lite\r\n");
    }
    text.push_str("a=msid-semantic: WMS sallyport\r\n");
    let setup = if offer.setup == Setup::Passive { "active" } else { "passive" };
    for (at, section) in offer.sections.iter().enumerate() {
        if at == offer.audio {
            audio(&mut text, section, (setup, offer.direction.answer(parts.direction)), parts);
        } else if let Some((offered, ours)) = video.filter(|(offered, _)| offered.at == at) {
            let direction = offered.direction.answer(ours.direction);
            film(&mut text, section, (setup, direction), (parts, ours));
        } else {
            section.refuse(&mut text);
        }
    }
    text
}

/// A later offer of ours: the sections of the session as they are, and behind them one of video (RFC 3264 section 8.1). `active`:
/// we sent the ClientHello. `None` where the session is no bundle, or there is no video to offer.
pub fn browser_reoffer(current: &BrowserOffer, active: bool, parts: &AnswerParts<'_>) -> Option<String> {
    let (id, version) = parts.session;
    let video = parts.video.as_ref()?;
    let audio_mid = current.sections.get(current.audio)?.mid.as_ref().filter(|_| current.bundled)?;
    let used = |mid: &String| current.sections.iter().any(|section| section.mid.as_ref() == Some(mid));
    let mid = (1..=current.sections.len() + 1).map(|number| number.to_string()).find(|mid| !used(mid))?;
    let mut text = format!(
        "v=0\r\no=- {id} {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {audio_mid} {mid}\r\n"
    );
    if parts.lite {
        text.push_str("a=ice-lite\r\n");
    }
    text.push_str("a=msid-semantic: WMS sallyport\r\n");
    let setup = if active { "active" } else { "passive" };
    for (at, section) in current.sections.iter().enumerate() {
        if at == current.audio {
            audio(&mut text, section, (setup, parts.direction), parts);
        } else {
            section.refuse(&mut text);
        }
    }
    let proto = current.sections.get(current.audio)?.proto.clone();
    let section = Section { kind: "video".into(), proto, formats: String::new(), mid: Some(mid) };
    film(&mut text, &section, (setup, video.direction), (parts, video));
    Some(text)
}

/// An offer of ours: one audio section, perhaps one of video beside it, which a browser answers as any other browser's.
pub fn browser_offer(parts: &AnswerParts<'_>) -> String {
    let (id, version) = parts.session;
    let mids = if parts.video.is_some() { "0 1" } else { "0" };
    let mut text =
        format!("v=0\r\no=- {id} {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\n");
    if parts.lite {
        text.push_str("a=ice-lite\r\n");
    }
    text.push_str("a=msid-semantic: WMS sallyport\r\n");
    let section = |kind: &str, mid: &str| Section {
        kind: kind.to_owned(),
        proto: "UDP/TLS/RTP/SAVPF".to_owned(),
        formats: String::new(),
        mid: Some(mid.to_owned()),
    };
    audio(&mut text, &section("audio", "0"), ("actpass", parts.direction), parts);
    if let Some(video) = &parts.video {
        film(&mut text, &section("video", "1"), ("actpass", video.direction), (parts, video));
    }
    text
}

fn audio(
    text: &mut String,
    section: &Section,
    (setup, direction): (&str, Direction),
    parts: &AnswerParts<'_>,
) {
    // Events that the inside sends under several types are one type here.
    let mut codecs: Vec<&Chosen> = Vec::new();
    for chosen in parts.chosen {
        if codecs.iter().all(|had| had.outside != chosen.outside) {
            codecs.push(chosen);
        }
    }
    let types: Vec<String> = codecs.iter().map(|chosen| chosen.outside.to_string()).collect();
    transport(text, section, (&types.join(" "), None), setup, parts);
    let _ = write!(text, "a={}\r\na=rtcp-mux\r\n", direction.name());
    for chosen in &codecs {
        let _ = write!(text, "a=rtpmap:{} {}\r\n", chosen.outside, chosen.kind.rtpmap());
        match chosen.kind {
            Kind::Event8000 | Kind::Event48000 => {
                let _ = write!(text, "a=fmtp:{} 0-16\r\n", chosen.outside);
            }
            Kind::Opus => {
                let _ = write!(text, "a=fmtp:{} minptime=10;useinbandfec=1\r\n", chosen.outside);
            }
            Kind::Pcmu | Kind::Pcma | Kind::G722 | Kind::Noise => {}
        }
    }
    text.push_str("a=ptime:20\r\n");
    if parts.agreed.is_transport_wide() {
        text.push_str("a=rtcp-rsize\r\n");
    }
    parts.agreed.write(text, codecs.iter().map(|chosen| chosen.outside));
    stream(text, "audio", parts.ssrc, parts.cname);
    ways(text, parts);
}

/// Video: of its transport it says what the audio says, for browsers that look there.
fn film(
    text: &mut String,
    section: &Section,
    (setup, direction): (&str, Direction),
    (parts, video): (&AnswerParts<'_>, &AnswerVideo<'_>),
) {
    let toward = |chosen: &ChosenVideo| {
        let theirs = video.theirs.iter().find(|theirs| theirs.payload_type == chosen.to_inside);
        theirs.map_or_else(|| chosen.outside.clone(), |theirs| chosen.outside.toward(theirs))
    };
    let formats: Vec<VideoFormat> = video.chosen.iter().map(toward).collect();
    let again: String = formats.iter().filter_map(|format| Some(format!(" {}", format.rtx?))).collect();
    transport(text, section, (&(list(&formats) + &again), video.most), setup, parts);
    let _ = write!(text, "a={}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n", direction.name());
    describe(text, &formats, &["ccm fir", "nack", "nack pli"]);
    describe_rtx(text, &formats);
    video.agreed.write(text, formats.iter().map(|format| format.payload_type));
    if !again.is_empty() {
        let _ = write!(text, "a=ssrc-group:FID {} {}\r\n", video.ssrc, video.rtx);
    }
    stream(text, "video", video.ssrc, parts.cname);
    if !again.is_empty() {
        sources(text, "video", video.rtx, parts.cname);
    }
    ways(text, parts);
}

/// The line of a section, and what says where and who we are.
fn transport(
    text: &mut String,
    section: &Section,
    (formats, most): (&str, Option<u64>),
    setup: &str,
    parts: &AnswerParts<'_>,
) {
    let Section { kind, proto, mid, .. } = section;
    // Port 9 and no address: candidates say where we are (RFC 8839 section 4.3.1.2).
    let _ = write!(text, "m={kind} 9 {proto} {formats}\r\nc=IN IP4 0.0.0.0\r\n");
    if let Some(bits) = most {
        // Chromium knows the one, Firefox both.
        let _ = write!(text, "b=AS:{}\r\nb=TIAS:{bits}\r\n", bits.div_ceil(1000));
    }
    text.push_str("a=rtcp:9 IN IP4 0.0.0.0\r\n");
    if let Some(mid) = mid {
        let _ = write!(text, "a=mid:{mid}\r\n");
    }
    let _ = write!(
        text,
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\n",
        parts.ufrag, parts.password
    );
    let digits = hex(parts.fingerprint).to_uppercase();
    let pairs: Vec<&str> = (0..32).filter_map(|at| digits.get(2 * at..2 * at + 2)).collect();
    let _ = write!(text, "a=fingerprint:sha-256 {}\r\na=setup:{setup}\r\n", pairs.join(":"));
}

/// The stream that we send.
fn stream(text: &mut String, track: &str, ssrc: u32, cname: &str) {
    let _ = write!(text, "a=msid:sallyport {track}\r\n");
    sources(text, track, ssrc, cname);
}

/// One SSRC of it (RFC 5576).
fn sources(text: &mut String, track: &str, ssrc: u32, cname: &str) {
    let _ = write!(text, "a=ssrc:{ssrc} cname:{cname}\r\na=ssrc:{ssrc} msid:sallyport {track}\r\n");
}

fn ways(text: &mut String, parts: &AnswerParts<'_>) {
    for candidate in parts.candidates {
        let _ = write!(text, "a={candidate}\r\n");
    }
    text.push_str("a=end-of-candidates\r\n");
}

#[cfg(test)]
mod tests;
