//! One side's SDP as the other side is to see it: our addresses, our keys, nothing that was agreed with one side only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::flags::{Profile, Protection, Replace};
use super::peer::{Format, Head};
use super::sdp::{Line, Sdp, push};
use crate::random::hex;
use crate::sdp::{Crypto, Direction};

/// Attributes that belong to one leg, or that we write ourselves.
const LEG_ONLY: &[&str] = &[
    "candidate",
    "end-of-candidates",
    "remote-candidates",
    "ice-ufrag",
    "ice-pwd",
    "ice-options",
    "ice-lite",
    "ice-mismatch",
    "ice-pacing",
    "fingerprint",
    "setup",
    "tls-id",
    "connection",
    "crypto",
    "rtcp",
    "rtcp-mux",
    "rtcp-mux-only",
    "rtcp-rsize",
    "rtcp-xr",
    "extmap",
    "extmap-allow-mixed",
    "mid",
    "group",
    "ssrc",
    "ssrc-group",
    "msid",
    "msid-semantic",
    "bundle-only",
    "rid",
    "simulcast",
    "identity",
    "sendrecv",
    "sendonly",
    "recvonly",
    "inactive",
    "zrtp-hash",
    "key-mgmt",
];

/// ICE as we show it.
#[derive(Debug)]
pub struct LocalIce<'a> {
    /// Our user fragment.
    pub ufrag: &'a str,
    /// Our password.
    pub password: &'a str,
    /// Our candidates, each beginning with `candidate:`.
    pub candidates: &'a [String],
    /// Answers checks only.
    pub lite: bool,
    /// SHA-256 over our certificate.
    pub fingerprint: &'a [u8; 32],
    /// Value of `a=setup`.
    pub setup: &'static str,
    /// The stream that we send.
    pub ssrc: u32,
    /// Whether sections are bundled.
    pub bundle: bool,
}

/// What a side is shown.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Sections, as the side itself wrote them where it is an answer.
    pub heads: &'a [Head],
    /// The one with audio.
    pub audio: usize,
    /// Whether there is none any more.
    pub refused: bool,
    /// Profile of the audio section.
    pub profile: Profile,
    /// Its name, which may be an older one for the same.
    pub profile_name: &'a str,
    /// Where we want RTP and RTCP; outside: what the first candidate says.
    pub ports: Option<(SocketAddr, SocketAddr)>,
    /// Whether `a=rtcp-mux` is said.
    pub mux: bool,
    /// Whether `a=rtcp` names a port of its own.
    pub own_rtcp: bool,
    /// Leave `a=rtcp` out.
    pub no_rtcp: bool,
    /// Codecs that stay.
    pub formats: &'a [&'a Format],
    /// Who sends, seen from us.
    pub direction: Direction,
    /// ICE and DTLS, outside.
    pub ice: Option<LocalIce<'a>>,
    /// Keys in the SDP.
    pub crypto: &'a [Crypto],
    /// Name of the audio section.
    pub mid: Option<&'a str>,
    /// What else is replaced.
    pub replace: Replace,
}

/// Writes it: session of `sdp` and its section `from`, as far as they mean something to the other side.
pub fn emit(sdp: &Sdp, from: usize, shown: &Shown<'_>) -> String {
    let anywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9);
    let (rtp, rtcp) = shown.ports.unwrap_or((anywhere, anywhere));
    let mut text = String::new();
    session(&mut text, sdp, shown, rtp.ip());
    for (at, head) in shown.heads.iter().enumerate() {
        let section = sdp.sections.get(from).filter(|_| at == shown.audio && !shown.refused);
        if let Some(section) = section {
            let types: Vec<String> =
                shown.formats.iter().map(|format| format.payload_type.to_string()).collect();
            push(&mut text, 'm', &format!("audio {} {} {}", rtp.port(), shown.profile_name, types.join(" ")));
            kept(&mut text, &section.lines, shown);
            leg(&mut text, shown, rtp, rtcp);
        } else {
            refuse(&mut text, head);
        }
    }
    text
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IP4" } else { "IP6" }
}

/// Session lines in the order of RFC 8866 section 5, with one connection for all sections.
fn session(text: &mut String, sdp: &Sdp, shown: &Shown<'_>, ip: IpAddr) {
    let connection = format!("IN {} {ip}", family(ip));
    let mut connected = false;
    for line in &sdp.session {
        if !connected && matches!(line.kind, 'b' | 't' | 'r' | 'z' | 'k' | 'a') {
            connected = true;
            push(text, 'c', &connection);
        }
        match line.kind {
            'o' => push(text, 'o', &origin(&line.value, shown.replace, ip)),
            's' if shown.replace.session_name => push(text, 's', "-"),
            // Bandwidth was meant for what is seen with the old profile; keys in the clear are nobody's.
            'c' | 'k' => {}
            'a' => keep(text, line, shown),
            kind => push(text, kind, &line.value),
        }
    }
    if !connected {
        push(text, 'c', &connection);
    }
    if let Some(ice) = &shown.ice {
        if let Some(mid) = shown.mid.filter(|_| ice.bundle && !shown.refused) {
            push(text, 'a', &format!("group:BUNDLE {mid}"));
        }
        if ice.lite {
            push(text, 'a', "ice-lite");
        }
        push(text, 'a', "msid-semantic: WMS sallyport");
    }
}

/// `o=user id version IN IP4 address`.
fn origin(value: &str, replace: Replace, ip: IpAddr) -> String {
    let words: Vec<&str> = value.split(' ').collect();
    let [user, id, version, net, kind, address] = words.as_slice() else { return value.to_owned() };
    let user = if replace.username || replace.origin_full { "-" } else { user };
    if replace.origin || replace.origin_full {
        format!("{user} {id} {version} IN {} {ip}", family(ip))
    } else {
        format!("{user} {id} {version} {net} {kind} {address}")
    }
}

fn keep(text: &mut String, line: &Line, shown: &Shown<'_>) {
    let Some((name, _)) = line.attribute() else { return };
    // Feedback on congestion needs a header extension, which does not pass.
    let feedback = name == "rtcp-fb" && (!shown.profile.feedback || line.value.ends_with("transport-cc"));
    if !LEG_ONLY.contains(&name) && !feedback {
        push(text, line.kind, &line.value);
    }
}

/// Attributes of the section that mean something on both legs.
fn kept(text: &mut String, lines: &[Line], shown: &Shown<'_>) {
    for line in lines {
        match (line.kind, line.attribute()) {
            ('i' | 'b', _) => push(text, line.kind, &line.value),
            ('a', Some(("rtpmap" | "fmtp" | "rtcp-fb", value))) => {
                let number = value.split(' ').next().unwrap_or_default();
                let stays = number == "*"
                    || shown.formats.iter().any(|format| number.parse() == Ok(format.payload_type));
                if stays {
                    keep(text, line, shown);
                }
            }
            ('a', _) => keep(text, line, shown),
            _ => {}
        }
    }
}

/// What is ours on this leg.
fn leg(text: &mut String, shown: &Shown<'_>, rtp: SocketAddr, rtcp: SocketAddr) {
    push(text, 'a', shown.direction.name());
    if let Some(mid) = shown.mid {
        push(text, 'a', &format!("mid:{mid}"));
    }
    if !shown.no_rtcp {
        let port = if shown.own_rtcp { rtcp.port() } else { rtp.port() };
        push(text, 'a', &format!("rtcp:{port}"));
    }
    if shown.mux {
        push(text, 'a', "rtcp-mux");
    }
    if shown.profile.protection == Protection::Sdes {
        for crypto in shown.crypto {
            let value = zeroize::Zeroizing::new(format!("crypto:{}", *crypto.text()));
            push(text, 'a', &value);
        }
    }
    let Some(ice) = &shown.ice else { return };
    push(text, 'a', &format!("ice-ufrag:{}", ice.ufrag));
    push(text, 'a', &format!("ice-pwd:{}", ice.password));
    let digits = hex(ice.fingerprint).to_uppercase();
    let pairs: Vec<&str> = (0..32).filter_map(|at| digits.get(2 * at..2 * at + 2)).collect();
    push(text, 'a', &format!("fingerprint:sha-256 {}", pairs.join(":")));
    push(text, 'a', &format!("setup:{}", ice.setup));
    push(text, 'a', "msid:sallyport audio");
    push(text, 'a', &format!("ssrc:{} cname:{:08x}", ice.ssrc, ice.ssrc));
    for candidate in ice.candidates {
        push(text, 'a', candidate);
    }
    push(text, 'a', "end-of-candidates");
}

fn refuse(text: &mut String, head: &Head) {
    push(text, 'm', &format!("{} 0 {} {}", head.medium, head.profile, head.formats));
    if let Some(mid) = &head.mid {
        push(text, 'a', &format!("mid:{mid}"));
    }
    push(text, 'a', "inactive");
}
