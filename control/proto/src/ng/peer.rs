//! What a side says of its audio.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::flags::{Flags, Profile, Protection};
use super::sdp::{Line, Sdp, Section};
use crate::sdp::{Crypto, Direction, Setup};

/// Payload types that a plan may map.
const FORMATS_MAX: usize = 32;
/// Candidates that are looked at.
const CANDIDATES_MAX: usize = 64;

/// A codec under its payload type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Payload type.
    pub payload_type: u8,
    /// As in `a=rtpmap`; empty where nothing says.
    pub name: String,
}

/// ICE credentials and candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceParameters {
    /// User fragment.
    pub ufrag: String,
    /// Password.
    pub password: String,
    /// Values of `a=candidate`, each beginning with `candidate:`.
    pub candidates: Vec<String>,
    /// Answers checks only.
    pub lite: bool,
}

/// A section as it was written; the answer has the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// `audio`, `video`, ...
    pub medium: String,
    /// The profile.
    pub profile: String,
    /// Payload types or other formats.
    pub formats: String,
    /// `a=mid`.
    pub mid: Option<String>,
}

/// What a side says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// All sections.
    pub heads: Vec<Head>,
    /// The one with audio.
    pub audio: usize,
    /// Whether `a=group:BUNDLE` was there.
    pub bundled: bool,
    /// Profile, by what is really there: a fingerprint makes `RTP/SAVPF` DTLS.
    pub profile: Profile,
    /// Where it wants RTP; `None` where it says nowhere (`0.0.0.0`).
    pub rtp: Option<SocketAddr>,
    /// Where it wants RTCP while the two have a port each.
    pub rtcp: Option<SocketAddr>,
    /// Whether the port is 0: no audio.
    pub refused: bool,
    /// RTP and RTCP on one port.
    pub mux: bool,
    /// Codecs.
    pub formats: Vec<Format>,
    /// Who sends; inactive where it says no address (the old way to hold).
    pub direction: Direction,
    /// SHA-256 over its certificate.
    pub fingerprint: Option<[u8; 32]>,
    /// ICE.
    #[serde(skip)]
    pub ice: Option<IceParameters>,
    /// Who sends the ClientHello.
    #[serde(skip)]
    pub setup: Option<Setup>,
    /// Keys.
    #[serde(skip)]
    pub crypto: Vec<Crypto>,
}

impl Peer {
    /// Reads the audio section of an SDP.
    ///
    /// # Errors
    /// `error-reason`.
    pub fn read(sdp: &Sdp, flags: &Flags) -> Result<Self, String> {
        let audio = sdp.sections.iter().position(|section| section.medium == "audio" && section.port != 0);
        let refused = audio.is_none();
        let audio = audio.or_else(|| sdp.sections.iter().position(|section| section.medium == "audio"));
        let audio = audio.ok_or("No audio section in SDP: nothing else is carried")?;
        let section = sdp.sections.get(audio).ok_or("No audio section in SDP")?;
        let fingerprint = fingerprint(sdp, section);
        let profile = profile(sdp, section, fingerprint.is_some())?;
        let ip = address(sdp, section, flags)?;
        let open = (!refused && !ip.is_unspecified()).then_some(());
        let rtp = open.map(|()| SocketAddr::new(ip, section.port));
        let rtcp = match rtp {
            Some(rtp) => Some(rtcp(sdp.value(section, "rtcp"), rtp).ok_or("Failed to parse SDP: a=rtcp")?),
            None => None,
        };
        let direction = direction(&section.lines).or_else(|| direction(&sdp.session)).unwrap_or_default();
        let held = rtp.is_none() && profile.protection != Protection::Dtls;
        Ok(Self {
            heads: sdp.sections.iter().map(head).collect(),
            audio,
            bundled: sdp
                .session
                .iter()
                .any(|line| line.kind == 'a' && line.value.starts_with("group:BUNDLE")),
            profile,
            rtp,
            rtcp,
            refused,
            mux: sdp.value(section, "rtcp-mux").is_some(),
            formats: formats(section),
            direction: if held { Direction::Inactive } else { direction },
            fingerprint,
            ice: ice(sdp, section),
            setup: setup(sdp.value(section, "setup"))?,
            crypto: sdp
                .values(section, "crypto")
                .into_iter()
                .filter_map(|line| Crypto::parse(line).ok())
                .collect(),
        })
    }

    /// `a=mid` of the audio section.
    pub fn mid(&self) -> Option<&str> {
        self.heads.get(self.audio)?.mid.as_deref()
    }

    /// Profile of the audio section, as it was written.
    pub fn profile_name(&self) -> &str {
        self.heads.get(self.audio).map_or("RTP/AVP", |head| &head.profile)
    }
}

fn head(section: &Section) -> Head {
    let mid = super::sdp::values(&section.lines, "mid").first().map(|mid| (*mid).to_owned());
    Head {
        medium: section.medium.clone(),
        profile: section.profile.clone(),
        formats: section.formats.clone(),
        mid: mid.filter(|mid| mid.len() <= 64),
    }
}

/// RFC 5763 section 8 knows `RTP/SAVPF` with a fingerprint as well.
fn profile(sdp: &Sdp, section: &Section, has_fingerprint: bool) -> Result<Profile, String> {
    let profile = Profile::of(&section.profile)
        .ok_or_else(|| format!("Unknown transport protocol {}", section.profile))?;
    let keys = !sdp.values(section, "crypto").is_empty();
    Ok(match profile.protection {
        Protection::Sdes if has_fingerprint && !keys => Profile { protection: Protection::Dtls, ..profile },
        _ => profile,
    })
}

fn address(sdp: &Sdp, section: &Section, flags: &Flags) -> Result<IpAddr, String> {
    let connection =
        |lines: &[Line]| lines.iter().find(|line| line.kind == 'c').map(|line| line.value.clone());
    let written = connection(&section.lines).or_else(|| connection(&sdp.session));
    let written = written.ok_or("Incomplete SDP specification: no c= line")?;
    let mut words = written.split(' ');
    let (net, family, address) = (words.next(), words.next(), words.next().unwrap_or_default());
    if net != Some("IN") || !matches!(family, Some("IP4" | "IP6")) {
        return Err("Failed to parse SDP: c= line".into());
    }
    let address = address.split('/').next().unwrap_or_default();
    let ip: IpAddr = address.parse().map_err(|_| "Failed to parse SDP: c= line names no address")?;
    if ip.is_ipv4() != (family == Some("IP4")) {
        return Err("Failed to parse SDP: c= line names an address of the other family".into());
    }
    if ip.is_multicast() {
        return Err("Multicast is not carried".into());
    }
    let seen = flags.received_from.filter(|_| flags.sip_source && !ip.is_unspecified());
    Ok(seen.unwrap_or(ip))
}

/// `a=rtcp:PORT [IN IP4 ADDRESS]` (RFC 3605), else one port above.
fn rtcp(attribute: Option<&str>, rtp: SocketAddr) -> Option<SocketAddr> {
    let Some(text) = attribute else { return Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?)) };
    let mut words = text.split_whitespace();
    let port = words.next()?.parse().ok().filter(|port| *port != 0)?;
    let ip = match words.nth(2) {
        Some(address) => address.parse().ok()?,
        None => rtp.ip(),
    };
    let usable = ip.is_ipv4() == rtp.is_ipv4() && !ip.is_unspecified();
    Some(SocketAddr::new(if usable { ip } else { rtp.ip() }, port))
}

fn direction(lines: &[Line]) -> Option<Direction> {
    lines.iter().filter_map(Line::attribute).find_map(|(name, _)| Direction::of(name))
}

fn formats(section: &Section) -> Vec<Format> {
    let maps = super::sdp::values(&section.lines, "rtpmap");
    let name = |payload_type: u8| {
        let mapped = maps.iter().find_map(|map| {
            let (number, name) = map.split_once(' ')?;
            (number.trim().parse() == Ok(payload_type)).then(|| name.trim().to_owned())
        });
        mapped.filter(|name| name.len() <= 64).unwrap_or_else(|| by_number(payload_type).to_owned())
    };
    let types = section.formats.split_whitespace().filter_map(|text| text.parse().ok());
    let types = types.filter(|payload_type: &u8| *payload_type < 128).take(FORMATS_MAX);
    types.map(|payload_type| Format { payload_type, name: name(payload_type) }).collect()
}

/// Static payload types (RFC 3551 section 6).
const fn by_number(payload_type: u8) -> &'static str {
    match payload_type {
        0 => "PCMU/8000",
        3 => "GSM/8000",
        4 => "G723/8000",
        8 => "PCMA/8000",
        9 => "G722/8000",
        13 => "CN/8000",
        15 => "G728/8000",
        18 => "G729/8000",
        _ => "",
    }
}

/// RFC 8839 section 5.4: ice-char, so long at least and 256 at the most.
fn is_ice(text: &str, least: usize) -> bool {
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'+' || octet == b'/';
    (least..=256).contains(&text.len()) && text.bytes().all(octet)
}

fn ice(sdp: &Sdp, section: &Section) -> Option<IceParameters> {
    let ufrag = sdp.value(section, "ice-ufrag").filter(|text| is_ice(text, 4))?;
    let password = sdp.value(section, "ice-pwd").filter(|text| is_ice(text, 22))?;
    let candidates = super::sdp::values(&section.lines, "candidate").into_iter().take(CANDIDATES_MAX);
    Some(IceParameters {
        ufrag: ufrag.to_owned(),
        password: password.to_owned(),
        candidates: candidates.map(|value| format!("candidate:{value}")).collect(),
        lite: !super::sdp::values(&sdp.session, "ice-lite").is_empty(),
    })
}

fn setup(text: Option<&str>) -> Result<Option<Setup>, String> {
    match text {
        None => Ok(None),
        Some("actpass") => Ok(Some(Setup::ActPass)),
        Some("active") => Ok(Some(Setup::Active)),
        Some("passive") => Ok(Some(Setup::Passive)),
        Some(_) => Err("Failed to parse SDP: a=setup".into()),
    }
}

/// The fingerprint with SHA-256 (RFC 8122 section 5).
fn fingerprint(sdp: &Sdp, section: &Section) -> Option<[u8; 32]> {
    sdp.values(section, "fingerprint").into_iter().find_map(|text| {
        let (hash, digits) = text.split_once(' ')?;
        hash.eq_ignore_ascii_case("sha-256").then_some(())?;
        let octet = |pair: &str| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2);
        let octets: Option<Vec<u8>> = digits.trim().split(':').map(octet).collect();
        octets?.try_into().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(audio: &str) -> Result<Peer, String> {
        let text = format!("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n{audio}");
        Peer::read(&Sdp::parse(&text)?, &Flags::default())
    }

    #[test]
    fn a_telephone_is_read() {
        let peer = read("c=IN IP4 192.0.2.7\r\nm=audio 4000 RTP/AVP 0 9 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendonly\r\n").unwrap();
        assert_eq!(peer.rtp, "192.0.2.7:4000".parse().ok());
        assert_eq!(peer.rtcp, "192.0.2.7:4001".parse().ok());
        let names: Vec<&str> = peer.formats.iter().map(|format| format.name.as_str()).collect();
        assert_eq!(names, ["PCMU/8000", "G722/8000", "telephone-event/8000"]);
        assert_eq!(
            (peer.direction, peer.mux, peer.profile.protection),
            (Direction::SendOnly, false, Protection::Plain)
        );
    }

    #[test]
    fn rtcp_has_its_own_ways() {
        let rtcp = |line: &str| {
            read(&format!("c=IN IP6 2001:db8::1\r\nm=audio 4000 RTP/AVP 0\r\n{line}\r\n"))
                .map(|peer| peer.rtcp)
        };
        assert_eq!(rtcp("a=rtcp:5000"), Ok("[2001:db8::1]:5000".parse().ok()));
        assert_eq!(rtcp("a=rtcp:5000 IN IP6 2001:db8::2"), Ok("[2001:db8::2]:5000".parse().ok()));
        assert_eq!(rtcp("a=rtcp:5000 IN IP4 0.0.0.0"), Ok("[2001:db8::1]:5000".parse().ok()));
        assert_eq!(rtcp("a=rtcp-mux"), Ok("[2001:db8::1]:4001".parse().ok()));
        assert!(rtcp("a=rtcp:0").is_err() && rtcp("a=rtcp:x").is_err());
    }

    #[test]
    fn hold_and_refusal_have_no_address() {
        let held = read("c=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap();
        assert_eq!((held.rtp, held.direction, held.refused), (None, Direction::Inactive, false));
        let refused = read("c=IN IP4 192.0.2.7\r\nm=audio 0 RTP/AVP 0\r\n").unwrap();
        assert!(refused.refused && refused.rtp.is_none());
    }

    #[test]
    fn what_is_not_carried_is_told() {
        for (audio, reason) in [
            ("c=IN IP4 192.0.2.7\r\nm=video 4000 RTP/AVP 99\r\n", "No audio section"),
            ("m=audio 4000 RTP/AVP 0\r\n", "no c= line"),
            ("c=IN IP4 example.org\r\nm=audio 4000 RTP/AVP 0\r\n", "names no address"),
            ("c=IN IP6 192.0.2.7\r\nm=audio 4000 RTP/AVP 0\r\n", "other family"),
            ("c=ATM x y\r\nm=audio 4000 RTP/AVP 0\r\n", "c= line"),
            ("c=IN IP4 224.0.0.1/127\r\nm=audio 4000 RTP/AVP 0\r\n", "Multicast"),
            ("c=IN IP4 192.0.2.7\r\nm=audio 4000 TCP/MSRP *\r\n", "TCP/MSRP"),
            ("c=IN IP4 192.0.2.7\r\nm=audio 65535 RTP/AVP 0\r\n", "a=rtcp"),
        ] {
            let error = read(audio).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn the_source_of_the_message_counts_where_it_is_asked_for() {
        let text = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let mut flags = Flags { received_from: "192.0.2.9".parse().ok(), ..Flags::default() };
        let read = |flags: &Flags| Peer::read(&Sdp::parse(text).unwrap(), flags).unwrap().rtp;
        assert_eq!(read(&flags), "10.0.0.1:4000".parse().ok());
        flags.sip_source = true;
        assert_eq!(read(&flags), "192.0.2.9:4000".parse().ok());
    }
}
