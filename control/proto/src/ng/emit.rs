//! One side's SDP as the other side is to see it: our addresses, our keys, nothing that was agreed with one side only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::flags::{Profile, Replace};
use super::peer::{Format, Head};
use super::sdp::{Line, Sdp, Section, push};
use crate::random::hex;
use crate::sdp::{Agreed, Crypto, Direction, describe, describe_rtx};

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

/// ICE and DTLS as we show them.
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
    /// CNAME of all streams.
    pub cname: u32,
    /// Whether sections are bundled.
    pub bundle: bool,
}

/// A section that is carried.
#[derive(Debug)]
pub struct ShownSection<'a> {
    /// Its profile, which may be an older name for the same.
    pub profile: &'a str,
    /// Where we want RTP and RTCP; outside: what the first candidate says.
    pub ports: (SocketAddr, SocketAddr),
    /// Whether `a=rtcp-mux` is said.
    pub mux: bool,
    /// Whether `a=rtcp` names a port of its own.
    pub own_rtcp: bool,
    /// Codecs that stay, as they were written and under the numbers that they have here.
    pub formats: Vec<(u8, u8)>,
    /// Of a picture between a browser and telephony: what is said of its formats instead.
    pub film: Option<Vec<Format>>,
    /// Who sends, seen from us.
    pub direction: Direction,
    /// Keys in the SDP.
    pub crypto: &'a [Crypto],
    /// Its name.
    pub mid: Option<&'a str>,
    /// The stream that we send, and that of its retransmissions, outside.
    pub ssrc: (u32, u32),
    /// Header extensions and feedback on bandwidth, outside.
    pub agreed: Agreed,
}

/// What a side is shown.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Sections, as the side itself wrote them where it is an answer.
    pub heads: &'a [Head],
    /// What becomes of them; `None`: refused.
    pub sections: Vec<Option<ShownSection<'a>>>,
    /// ICE and DTLS, outside.
    pub ice: Option<LocalIce<'a>>,
    /// Leave `a=rtcp` out.
    pub no_rtcp: bool,
    /// What else is replaced.
    pub replace: Replace,
}

/// Writes it: `sdp`, as far as it means something to the other side.
pub fn emit(sdp: &Sdp, shown: &Shown<'_>) -> String {
    let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ip = shown.sections.iter().flatten().next().map_or(anywhere, |section| section.ports.0.ip());
    let mut text = String::new();
    session(&mut text, sdp, shown, ip);
    for (at, head) in shown.heads.iter().enumerate() {
        let section = shown.sections.get(at).and_then(Option::as_ref);
        if let Some((section, from)) = section.zip(sdp.sections.get(at)) {
            let types: Vec<String> = match &section.film {
                Some(film) => {
                    let again = film.iter().filter_map(|format| format.rtx);
                    film.iter()
                        .map(|format| format.payload_type)
                        .chain(again)
                        .map(|number| number.to_string())
                        .collect()
                }
                None => section.formats.iter().map(|(_, number)| number.to_string()).collect(),
            };
            let port = section.ports.0.port();
            push(&mut text, 'm', &format!("{} {port} {} {}", from.medium, section.profile, types.join(" ")));
            if section.ports.0.ip() != ip {
                push(&mut text, 'c', &connection(section.ports.0.ip()));
            }
            kept(&mut text, from, section);
            leg(&mut text, &from.medium, section, shown);
        } else {
            refuse(&mut text, head);
        }
    }
    text
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IP4" } else { "IP6" }
}

fn connection(ip: IpAddr) -> String {
    format!("IN {} {ip}", family(ip))
}

/// Session lines in the order of RFC 8866 section 5, with one connection for all sections.
fn session(text: &mut String, sdp: &Sdp, shown: &Shown<'_>, ip: IpAddr) {
    let connection = connection(ip);
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
            'a' => keep(text, line, true),
            kind => push(text, kind, &line.value),
        }
    }
    if !connected {
        push(text, 'c', &connection);
    }
    if let Some(ice) = &shown.ice {
        let mids: Vec<&str> = shown.sections.iter().flatten().filter_map(|section| section.mid).collect();
        if ice.bundle && !mids.is_empty() {
            push(text, 'a', &format!("group:BUNDLE {}", mids.join(" ")));
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

fn keep(text: &mut String, line: &Line, feedback: bool) {
    let Some((name, _)) = line.attribute() else { return };
    // Feedback on congestion needs a header extension, which does not pass.
    let of_feedback = name == "rtcp-fb" && (!feedback || line.value.ends_with("transport-cc"));
    if !LEG_ONLY.contains(&name) && !of_feedback {
        push(text, line.kind, &line.value);
    }
}

/// Attributes of the section that mean something on both legs.
fn kept(text: &mut String, from: &Section, shown: &ShownSection<'_>) {
    let early = |name| Profile::of(name).is_some_and(|profile| profile.feedback);
    // Who says so with a profile that has none means it.
    let feedback = early(shown.profile) || !early(&from.profile);
    for line in &from.lines {
        match (line.kind, line.attribute()) {
            ('i' | 'b', _) => push(text, line.kind, &line.value),
            ('a', Some(("rtpmap" | "fmtp" | "rtcp-fb", _))) if shown.film.is_some() => {}
            ('a', Some((name @ ("rtpmap" | "fmtp" | "rtcp-fb"), value))) => {
                let (number, rest) = value.split_once(' ').unwrap_or((value, ""));
                let here = shown.formats.iter().find(|(own, _)| number.parse() == Ok(*own));
                match here {
                    Some((own, here)) if own != here => {
                        let value = format!("{name}:{here} {rest}");
                        keep(text, &Line { kind: 'a', value }, feedback);
                    }
                    Some(_) => keep(text, line, feedback),
                    None if number == "*" => keep(text, line, feedback),
                    None => {}
                }
            }
            ('a', _) => keep(text, line, feedback),
            _ => {}
        }
    }
}

/// What is ours on this leg.
fn leg(text: &mut String, medium: &str, section: &ShownSection<'_>, shown: &Shown<'_>) {
    let (rtp, rtcp) = section.ports;
    if let Some(film) = &section.film {
        // Telephony knows these words under RTP/AVP as well, though they are AVPF's (RFC 4585, RFC 5104).
        let outside: &[&str] = &["ccm fir", "nack", "nack pli"];
        describe(text, film, if shown.ice.is_some() { outside } else { &["nack pli", "ccm fir"] });
        describe_rtx(text, film);
    }
    push(text, 'a', section.direction.name());
    if let Some(mid) = section.mid {
        push(text, 'a', &format!("mid:{mid}"));
    }
    if !shown.no_rtcp {
        let port = if section.own_rtcp { rtcp.port() } else { rtp.port() };
        push(text, 'a', &format!("rtcp:{port}"));
    }
    if section.mux {
        push(text, 'a', "rtcp-mux");
    }
    for crypto in section.crypto {
        let value = zeroize::Zeroizing::new(format!("crypto:{}", *crypto.text()));
        push(text, 'a', &value);
    }
    if let Some(ice) = &shown.ice {
        bandwidth(text, section);
        transport(text, ice);
        streams(text, medium, section, ice.cname);
        for candidate in ice.candidates {
            push(text, 'a', candidate);
        }
        push(text, 'a', "end-of-candidates");
    }
}

/// Header extensions, and what is fed back of bandwidth.
fn bandwidth(text: &mut String, section: &ShownSection<'_>) {
    if section.film.is_some() || section.agreed.is_transport_wide() {
        push(text, 'a', "rtcp-rsize");
    }
    let film = section.film.iter().flatten().map(|format| format.payload_type);
    let sound = section.formats.iter().map(|(_, number)| *number).filter(|_| section.film.is_none());
    section.agreed.write(text, film.chain(sound));
}

/// Each section says it, for browsers that look there.
fn transport(text: &mut String, ice: &LocalIce<'_>) {
    push(text, 'a', &format!("ice-ufrag:{}", ice.ufrag));
    push(text, 'a', &format!("ice-pwd:{}", ice.password));
    let digits = hex(ice.fingerprint).to_uppercase();
    let pairs: Vec<&str> = (0..32).filter_map(|at| digits.get(2 * at..2 * at + 2)).collect();
    push(text, 'a', &format!("fingerprint:sha-256 {}", pairs.join(":")));
    push(text, 'a', &format!("setup:{}", ice.setup));
}

/// The streams that we send (RFC 5576, RFC 4588).
fn streams(text: &mut String, medium: &str, section: &ShownSection<'_>, cname: u32) {
    let (ssrc, rtx) = section.ssrc;
    let again = section.film.iter().flatten().any(|format| format.rtx.is_some());
    push(text, 'a', &format!("msid:sallyport {medium}"));
    if again {
        push(text, 'a', &format!("ssrc-group:FID {ssrc} {rtx}"));
    }
    for ssrc in [Some(ssrc), again.then_some(rtx)].into_iter().flatten() {
        push(text, 'a', &format!("ssrc:{ssrc} cname:{cname:08x}"));
    }
}

fn refuse(text: &mut String, head: &Head) {
    push(text, 'm', &format!("{} 0 {} {}", head.medium, head.profile, head.formats));
    if let Some(mid) = &head.mid {
        push(text, 'a', &format!("mid:{mid}"));
    }
    push(text, 'a', "inactive");
}
