//! The media of a recording session (RFC 7866 section 7.1): two sections that we send, one a direction of the sound.

use std::fmt::Write;
use std::net::SocketAddr;

use sallyport_plan::{FlowKey, Fork, PortPair, Zone};
use sdp_types::{Media, Session};

use super::metadata::LABELS;
use crate::sdp::{Chosen, Kind, OFFER_MAX, place};

/// Sections that a description of the recorder may have, and octets of the line of one that is refused: both are in the call's record.
const SECTIONS: usize = 8;
const REFUSAL: usize = 100;

/// Payload types and codecs of either direction, the browser's first.
pub type Spoken = [Vec<(u8, Kind)>; 2];

/// What leaves on either direction: payload types and codecs, the browser's first.
pub fn spoken(chosen: &[Chosen]) -> Spoken {
    let inward = chosen.iter().filter_map(|one| one.inside.map(|inside| (inside.to, inside.kind)));
    let outward = chosen.iter().filter(|one| one.inside.is_some()).map(|one| (one.outside, one.kind));
    [once(inward), once(outward)]
}

fn once(all: impl Iterator<Item = (u8, Kind)>) -> Vec<(u8, Kind)> {
    let mut kept: Vec<(u8, Kind)> = Vec::new();
    for one in all {
        if kept.iter().all(|have| have.0 != one.0) {
            kept.push(one);
        }
    }
    kept
}

/// The sections of an offer of ours, without what stands above them; `refused` are those of the recorder's that we did not take, which
/// have to stay in their places (RFC 3264 section 8).
pub fn sections(spoken: &Spoken, ports: &[PortPair; 2], refused: &[String]) -> String {
    let mut text = String::new();
    for ((codecs, pair), label) in spoken.iter().zip(ports).zip(LABELS) {
        section(&mut text, ("RTP/AVP", "sendonly"), codecs.iter(), pair, label);
    }
    for line in refused {
        let _ = write!(text, "m={line}\r\n");
    }
    text
}

fn section<'a>(
    text: &mut String,
    (profile, direction): (&str, &str),
    codecs: impl Iterator<Item = &'a (u8, Kind)> + Clone,
    pair: &PortPair,
    label: u8,
) {
    let types: Vec<String> = codecs.clone().map(|(payload_type, _)| payload_type.to_string()).collect();
    let (port, rtcp) = (pair.rtp.port(), pair.rtcp.port());
    let _ = write!(text, "m=audio {port} {profile} {}\r\na=rtcp:{rtcp}\r\n", types.join(" "));
    for (payload_type, kind) in codecs {
        let _ = write!(text, "a=rtpmap:{payload_type} {}\r\n", kind.rtpmap());
        if kind.is_event() {
            let _ = write!(text, "a=fmtp:{payload_type} 0-16\r\n");
        }
    }
    let _ = write!(text, "a={direction}\r\na=label:{label}\r\n");
}

/// The whole description.
pub fn description(session: u64, version: u32, ports: &[PortPair; 2], sections: &str) -> String {
    let ip = ports[0].rtp.ip();
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- {session} {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n{sections}"
    )
}

/// What a description of the recorder comes to.
#[derive(Debug)]
pub struct Heard {
    /// Where it wants the copies of either direction; `None` for one that it does not want, or not now.
    pub forks: [Option<Fork>; 2],
    /// The sections of our answer, where it is an offer (RFC 3264 section 6): as many, in the same order.
    pub answer: String,
    /// Its sections beyond ours, as we refuse them.
    pub refused: Vec<String>,
    /// How many it has.
    pub sections: usize,
}

/// Reads what the recorder says of its media, by the codecs and ports that the copies have.
///
/// # Errors
/// One sentence for people: it cannot be read, or wants what the call does not have.
pub fn heard(octets: &[u8], spoken: &Spoken, ports: &[PortPair; 2]) -> Result<Heard, &'static str> {
    if octets.len() > OFFER_MAX {
        return Err("the recorder's session description is too long");
    }
    let session = Session::parse(octets).map_err(|_| "the recorder's session description cannot be read")?;
    if session.medias.len() > SECTIONS {
        return Err("the recorder's session description has too many sections");
    }
    let mut heard = Heard {
        forks: [None; 2],
        answer: String::new(),
        refused: Vec::new(),
        sections: session.medias.len(),
    };
    for (at, media) in session.medias.iter().enumerate() {
        let (Some(spoken), Some(pair), Some(fork)) = (spoken.get(at), ports.get(at), heard.forks.get_mut(at))
        else {
            let line = refusal(media)?;
            let _ = write!(heard.answer, "m={line}\r\n");
            heard.refused.push(line);
            continue;
        };
        if media.media != "audio" || media.port == 0 {
            let _ = write!(heard.answer, "m={}\r\n", refusal(media)?);
            continue;
        }
        *fork = self::fork(&session, media, spoken, pair)?;
        let direction = if fork.is_some() { "sendonly" } else { "inactive" };
        let taken = spoken.iter().filter(|(payload_type, _)| takes(media, *payload_type));
        let label = LABELS.get(at).copied().unwrap_or_default();
        section(&mut heard.answer, (&media.proto, direction), taken, pair, label);
    }
    Ok(heard)
}

/// The line of a section that is refused: one format has to stand there, and says nothing (RFC 3264 section 6).
fn refusal(media: &Media) -> Result<String, &'static str> {
    let format = media.fmt.split_whitespace().next().unwrap_or("0");
    let line = format!("{} 0 {} {format}", media.media, media.proto);
    if line.len() <= REFUSAL { Ok(line) } else { Err("the recorder's session description cannot be read") }
}

fn takes(media: &Media, payload_type: u8) -> bool {
    media.fmt.split_whitespace().any(|text| text.parse() == Ok(payload_type))
}

fn fork(
    session: &Session,
    media: &Media,
    spoken: &[(u8, Kind)],
    pair: &PortPair,
) -> Result<Option<Fork>, &'static str> {
    if !["RTP/AVP", "RTP/AVPF"].contains(&media.proto.as_str()) {
        return Err("the recorder wants another profile than RTP/AVP");
    }
    let (rtp, rtcp, direction) = place(session, media).map_err(|_| "the recorder names no usable address")?;
    if !spoken.first().is_some_and(|(payload_type, _)| takes(media, *payload_type)) {
        return Err("the recorder does not take the codec of the call");
    }
    if !direction.receives() {
        return Ok(None);
    }
    let usable = |to: &SocketAddr| {
        let ip = to.ip();
        let family = ip.is_ipv4() == pair.rtp.is_ipv4();
        family && !ip.is_multicast() && (!ip.is_loopback() || pair.rtp.ip().is_loopback())
    };
    if !usable(&rtp) || !usable(&rtcp) {
        return Err("the recorder names an address that copies cannot go to");
    }
    Ok(Some(to(pair, rtp, rtcp)))
}

/// Copies from a pair of ours to the recorder's addresses.
pub fn to(pair: &PortPair, rtp: SocketAddr, rtcp: SocketAddr) -> Fork {
    let path = |local, remote| FlowKey { zone: Zone::Inside, local, remote };
    Fork { rtp: path(pair.rtp, rtp), rtcp: path(pair.rtcp, rtcp) }
}
