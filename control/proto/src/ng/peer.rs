//! What a side says of its sound and its pictures.

use std::net::{IpAddr, SocketAddr};

use sallyport_plan::Medium;
use serde::{Deserialize, Serialize};

use super::flags::{Flags, Profile, Protection};
use super::sdp::{Line, Sdp, Section};
/// A codec under its payload type, with its name as in `a=rtpmap`; empty where nothing says.
pub use crate::sdp::VideoFormat as Format;
use crate::sdp::{Agreed, Crypto, Direction, Setup, video_formats};

/// Payload types that a plan may map.
const FORMATS_MAX: usize = 32;
/// Candidates that are looked at.
const CANDIDATES_MAX: usize = 64;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What a side says of its sound, or of a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Which of the two.
    pub medium: Medium,
    /// Profile, by what is really there: a fingerprint makes `RTP/SAVPF` DTLS.
    pub profile: Profile,
    /// Where it wants RTP; `None` where it says nowhere (`0.0.0.0`).
    pub rtp: Option<SocketAddr>,
    /// Where it wants RTCP while the two have a port each.
    pub rtcp: Option<SocketAddr>,
    /// RTP and RTCP on one port.
    pub mux: bool,
    /// Codecs; those of sound without parameters. What repairs a picture's stream is left out.
    pub formats: Vec<Format>,
    /// Who sends; inactive where it says no address (the old way to hold).
    pub direction: Direction,
    /// Of a picture those that may pass between a browser and telephony.
    #[serde(skip)]
    pub film: Vec<Format>,
    /// Whether it is a browser's within the bundle of the main section.
    #[serde(skip)]
    pub bundled: bool,
    /// What it says of header extensions and bandwidth, where it is a browser's.
    #[serde(skip)]
    pub agreed: Agreed,
    /// Keys.
    #[serde(skip)]
    pub crypto: Vec<Crypto>,
}

/// What a side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// All sections.
    pub heads: Vec<Head>,
    /// What each says; `None` where it is refused, or cannot be carried.
    pub said: Vec<Option<Said>>,
    /// The one that decides where the side is: the first sound, else the first picture. `None` where all are refused.
    pub main: Option<usize>,
    /// Whether `a=group:BUNDLE` was there.
    pub bundled: bool,
    /// SHA-256 over its certificate.
    pub fingerprint: Option<[u8; 32]>,
    /// ICE.
    pub ice: Option<IceParameters>,
    /// Who sends the ClientHello.
    pub setup: Option<Setup>,
}

impl Peer {
    /// Reads an SDP. A section with a flaw counts as refused, unless it is the main one.
    ///
    /// # Errors
    /// `error-reason`.
    pub fn read(sdp: &Sdp, flags: &Flags) -> Result<Self, String> {
        let bundle = bundle(sdp);
        let is = |section: &&Section, name: &str| section.medium == name && is_offered(section, &bundle);
        let of = |name: &str| sdp.sections.iter().position(|section| is(&section, name));
        let main = of("audio").or_else(|| of("video"));
        if main.is_none() && sdp.sections.iter().all(|section| medium(section).is_none()) {
            return Err("No audio or video section in SDP: nothing else is carried".into());
        }
        let first = main.and_then(|at| sdp.sections.get(at));
        let carrier = first.map(|first| carrier(sdp, &bundle, first));
        let mut said = Vec::with_capacity(sdp.sections.len());
        for (at, section) in sdp.sections.iter().enumerate() {
            let read = match (medium(section), first, carrier) {
                (Some(medium), Some(first), Some(carrier)) if is_offered(section, &bundle) => {
                    let shares = within(section, &bundle) && within(first, &bundle);
                    let carrier = if shares { carrier } else { section };
                    read(sdp, (section, carrier), medium, flags)
                        .map(|said| Some(Said { bundled: shares, ..said }))
                }
                _ => Ok(None),
            };
            said.push(if main == Some(at) { read? } else { read.ok().flatten() });
        }
        distinguish(&mut said, sdp, main);
        let lines = first.zip(carrier);
        let setup = lines.and_then(|(first, carrier)| find(sdp, first, carrier, "setup"));
        Ok(Self {
            heads: sdp.sections.iter().map(head).collect(),
            said,
            main,
            bundled: !bundle.is_empty(),
            fingerprint: lines.and_then(|(first, carrier)| fingerprint(sdp, first, carrier)),
            ice: lines.and_then(|(first, carrier)| ice(sdp, first, carrier)),
            setup: self::setup(setup)?,
        })
    }

    /// What a section says.
    pub fn at(&self, at: usize) -> Option<&Said> {
        self.said.get(at)?.as_ref()
    }

    /// What the main section says.
    pub fn first(&self) -> Option<&Said> {
        self.at(self.main?)
    }

    /// `a=mid` of a section.
    pub fn mid(&self, at: usize) -> Option<&str> {
        self.heads.get(at)?.mid.as_deref()
    }

    /// Profile of a section, as it was written.
    pub fn profile_name(&self, at: usize) -> &str {
        self.heads.get(at).map_or("RTP/AVP", |head| &head.profile)
    }

    /// A name for a section that has none: its place, or what no other section is called.
    pub fn name(&self, at: usize) -> String {
        let place = at.to_string();
        let used = self.heads.iter().any(|head| head.mid.as_ref() == Some(&place));
        self.mid(at).map_or(if used { format!("m{at}") } else { place }, str::to_owned)
    }

    /// Payload types that sections of this medium have taken.
    pub fn numbers(&self, medium: Medium) -> Vec<u8> {
        let of = |said: &&Said| said.medium == medium;
        let heads =
            self.heads.iter().zip(&self.said).filter(|(_, said)| said.as_ref().is_some_and(|said| of(&said)));
        heads
            .flat_map(|(head, _)| head.formats.split_whitespace())
            .filter_map(|text| text.parse().ok())
            .collect()
    }
}

fn medium(section: &Section) -> Option<Medium> {
    match section.medium.as_str() {
        "audio" => Some(Medium::Audio),
        "video" => Some(Medium::Video),
        _ => None,
    }
}

/// The mids of `a=group:BUNDLE`, the tagged one first.
fn bundle(sdp: &Sdp) -> Vec<&str> {
    let groups = super::sdp::values(&sdp.session, "group");
    let mids = groups.into_iter().find_map(|group| group.strip_prefix("BUNDLE"));
    mids.map(|mids| mids.split_whitespace().collect()).unwrap_or_default()
}

fn within(section: &Section, bundle: &[&str]) -> bool {
    super::sdp::values(&section.lines, "mid").first().is_some_and(|mid| bundle.contains(mid))
}

/// By a port, or within a bundle only (RFC 8843 section 6).
fn is_offered(section: &Section, bundle: &[&str]) -> bool {
    let only = || !super::sdp::values(&section.lines, "bundle-only").is_empty() && within(section, bundle);
    section.port != 0 || only()
}

/// The section whose transport the first one shares: the bundle's tagged one (RFC 8843 section 7.1.3), else its own.
fn carrier<'a>(sdp: &'a Sdp, bundle: &[&str], first: &'a Section) -> &'a Section {
    let tag = bundle.first().filter(|_| within(first, bundle));
    let is = |section: &&Section| {
        section.port != 0 && super::sdp::values(&section.lines, "mid").first() == tag && tag.is_some()
    };
    sdp.sections.iter().find(is).unwrap_or(first)
}

/// An attribute of the section, else of its transport, else of the session.
fn find<'a>(sdp: &'a Sdp, section: &'a Section, carrier: &'a Section, name: &str) -> Option<&'a str> {
    let own = super::sdp::values(&section.lines, name).first().copied();
    own.or_else(|| sdp.value(carrier, name))
}

fn read(
    sdp: &Sdp,
    (section, carrier): (&Section, &Section),
    medium: Medium,
    flags: &Flags,
) -> Result<Said, String> {
    let profile = profile(sdp, section, fingerprint(sdp, section, carrier).is_some())?;
    let browser = profile.protection == Protection::Dtls;
    let ip = address(sdp, section, flags)?;
    let open = (section.port != 0 && !ip.is_unspecified()).then_some(());
    let rtp = open.map(|()| SocketAddr::new(ip, section.port));
    let rtcp = match rtp {
        Some(rtp) => Some(rtcp(sdp.value(section, "rtcp"), rtp).ok_or("Failed to parse SDP: a=rtcp")?),
        None => None,
    };
    let direction = direction(&section.lines).or_else(|| direction(&sdp.session)).unwrap_or_default();
    let held = rtp.is_none() && !browser;
    let film = if medium == Medium::Video { film(section) } else { Vec::new() };
    Ok(Said {
        medium,
        profile,
        rtp,
        rtcp,
        mux: find(sdp, section, carrier, "rtcp-mux").is_some(),
        formats: if medium == Medium::Video && browser {
            film.clone()
        } else {
            formats(section, medium, &film)
        },
        direction: if held { Direction::Inactive } else { direction },
        film,
        bundled: false,
        agreed: if browser { Agreed::read(&section.media()) } else { Agreed::default() },
        crypto: sdp
            .values(section, "crypto")
            .into_iter()
            .filter_map(|line| Crypto::parse(line).ok())
            .collect(),
    })
}

/// Within a bundle a number is one format's only (RFC 8843 section 9.1): what the main section has is not another's.
fn distinguish(said: &mut [Option<Said>], sdp: &Sdp, main: Option<usize>) {
    let Some(first) = main.and_then(|at| sdp.sections.get(at)) else { return };
    let taken = |number: u8| first.formats.split_whitespace().any(|text| text.parse() == Ok(number));
    let others = said.iter_mut().enumerate().filter(|(at, _)| main != Some(*at));
    for said in others.filter_map(|(_, said)| said.as_mut()).filter(|said| said.bundled) {
        for formats in [&mut said.formats, &mut said.film] {
            formats.retain_mut(|format| {
                format.rtx.take_if(|rtx| taken(*rtx));
                !taken(format.payload_type)
            });
        }
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

/// Encodings that pass between a browser and telephony.
fn film(section: &Section) -> Vec<Format> {
    let of = |name| super::sdp::values(&section.lines, name).into_iter();
    video_formats(&section.formats, of("rtpmap"), of("fmtp"))
}

/// All that it has under names of at most 64 characters; of a picture no repair, and parameters where `film` has them.
fn formats(section: &Section, medium: Medium, film: &[Format]) -> Vec<Format> {
    let maps = super::sdp::values(&section.lines, "rtpmap");
    let name = |payload_type: u8| {
        let mapped = maps.iter().find_map(|map| {
            let (number, name) = map.split_once(' ')?;
            (number.trim().parse() == Ok(payload_type)).then(|| name.trim().to_owned())
        });
        mapped.filter(|name| name.len() <= 64).unwrap_or_else(|| by_number(payload_type).to_owned())
    };
    let format = |payload_type: u8| {
        let known = film.iter().find(|format| format.payload_type == payload_type);
        let parameters = known.map(|format| format.without_sets().parameters).unwrap_or_default();
        Format { payload_type, name: name(payload_type), parameters, rtx: None }
    };
    let types = section.formats.split_whitespace().filter_map(|text| text.parse().ok());
    let passes = |format: &Format| medium == Medium::Audio || !is_repair(&format.name);
    let types = types.filter(|payload_type: &u8| *payload_type < 128);
    types.map(format).filter(passes).take(FORMATS_MAX).collect()
}

/// Retransmissions, RED and FEC: they belong to the stream of one leg.
fn is_repair(name: &str) -> bool {
    let name = name.split('/').next().unwrap_or_default().to_ascii_lowercase();
    name == "rtx" || name == "red" || name.contains("fec")
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
        31 => "H261/90000",
        34 => "H263/90000",
        _ => "",
    }
}

/// RFC 8839 section 5.4: ice-char, so long at least and 256 at the most.
fn is_ice(text: &str, least: usize) -> bool {
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'+' || octet == b'/';
    (least..=256).contains(&text.len()) && text.bytes().all(octet)
}

fn ice(sdp: &Sdp, section: &Section, carrier: &Section) -> Option<IceParameters> {
    let find = |name| find(sdp, section, carrier, name);
    let ufrag = find("ice-ufrag").filter(|text| is_ice(text, 4))?;
    let password = find("ice-pwd").filter(|text| is_ice(text, 22))?;
    let own = super::sdp::values(&section.lines, "candidate");
    let candidates = if own.is_empty() { super::sdp::values(&carrier.lines, "candidate") } else { own };
    Some(IceParameters {
        ufrag: ufrag.to_owned(),
        password: password.to_owned(),
        candidates: candidates
            .into_iter()
            .take(CANDIDATES_MAX)
            .map(|value| format!("candidate:{value}"))
            .collect(),
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
fn fingerprint(sdp: &Sdp, section: &Section, carrier: &Section) -> Option<[u8; 32]> {
    let own = super::sdp::values(&section.lines, "fingerprint");
    let all = if own.is_empty() { sdp.values(carrier, "fingerprint") } else { own };
    all.into_iter().find_map(|text| {
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
        let peer = peer.first().unwrap();
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
                .map(|peer| peer.first().unwrap().rtcp)
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
        let held = held.first().unwrap();
        assert_eq!((held.rtp, held.direction), (None, Direction::Inactive));
        let refused = read("c=IN IP4 192.0.2.7\r\nm=audio 0 RTP/AVP 0\r\n").unwrap();
        assert!(refused.main.is_none() && refused.said == [None]);
    }

    #[test]
    fn what_is_not_carried_is_told() {
        for (audio, reason) in [
            ("c=IN IP4 192.0.2.7\r\nm=image 4000 udptl t38\r\n", "No audio or video section"),
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
        let read =
            |flags: &Flags| Peer::read(&Sdp::parse(text).unwrap(), flags).unwrap().first().unwrap().rtp;
        assert_eq!(read(&flags), "10.0.0.1:4000".parse().ok());
        flags.sip_source = true;
        assert_eq!(read(&flags), "192.0.2.9:4000".parse().ok());
    }
}
