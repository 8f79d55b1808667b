//! The media of a recording session (RFC 7866 section 7.1): two sections that we send, one a direction of the sound.

use std::fmt::Write;
use std::net::SocketAddr;

use sallyport_plan::{FlowKey, Fork, PortPair, Zone};
use sdp_types::{Media, Session};

use super::metadata::LABELS;
use crate::sdp::{Chosen, Kind, OFFER_MAX, place};

/// What leaves on either direction: payload types and codecs, the browser's first.
pub fn spoken(chosen: &[Chosen]) -> [Vec<(u8, Kind)>; 2] {
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

/// The sections, without what stands above them.
pub fn sections(spoken: &[Vec<(u8, Kind)>; 2], ports: &[PortPair; 2]) -> String {
    let mut text = String::new();
    for ((codecs, pair), label) in spoken.iter().zip(ports).zip(LABELS) {
        let types: Vec<String> = codecs.iter().map(|(payload_type, _)| payload_type.to_string()).collect();
        let (port, rtcp) = (pair.rtp.port(), pair.rtcp.port());
        let _ = write!(text, "m=audio {port} RTP/AVP {}\r\na=rtcp:{rtcp}\r\n", types.join(" "));
        for (payload_type, kind) in codecs {
            let _ = write!(text, "a=rtpmap:{payload_type} {}\r\n", kind.rtpmap());
            if kind.is_event() {
                let _ = write!(text, "a=fmtp:{payload_type} 0-16\r\n");
            }
        }
        let _ = write!(text, "a=sendonly\r\na=label:{label}\r\n");
    }
    text
}

/// The whole description.
pub fn description(session: u64, version: u32, ports: &[PortPair; 2], sections: &str) -> String {
    let ip = ports[0].rtp.ip();
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- {session} {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n{sections}"
    )
}

/// Where the recorder wants the copies of either direction; `None` for one that it does not want, or not now.
///
/// # Errors
/// One sentence for people: it cannot be read, or wants what the call does not have.
pub fn wanted(
    octets: &[u8],
    spoken: &[Vec<(u8, Kind)>; 2],
    ports: &[PortPair; 2],
) -> Result<[Option<Fork>; 2], &'static str> {
    if octets.len() > OFFER_MAX {
        return Err("the recorder's session description is too long");
    }
    let session = Session::parse(octets).map_err(|_| "the recorder's session description cannot be read")?;
    let mut wanted = [None; 2];
    for (at, wanted) in wanted.iter_mut().enumerate() {
        let (Some(media), Some(spoken), Some(pair)) = (session.medias.get(at), spoken.get(at), ports.get(at))
        else {
            continue;
        };
        *wanted = fork(&session, media, spoken, pair)?;
    }
    Ok(wanted)
}

fn fork(
    session: &Session,
    media: &Media,
    spoken: &[(u8, Kind)],
    pair: &PortPair,
) -> Result<Option<Fork>, &'static str> {
    if media.media != "audio" || media.port == 0 {
        return Ok(None);
    }
    if !media.proto.starts_with("RTP/AVP") {
        return Err("the recorder wants another profile than RTP/AVP");
    }
    let (rtp, rtcp, direction) = place(session, media).map_err(|_| "the recorder names no usable address")?;
    if !direction.receives() {
        return Ok(None);
    }
    let takes = |payload_type: u8| {
        let mut types = media.fmt.split_whitespace();
        types.any(|text| text.parse() == Ok(payload_type))
    };
    if !spoken.first().is_some_and(|(payload_type, _)| takes(*payload_type)) {
        return Err("the recorder does not take the codec of the call");
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
