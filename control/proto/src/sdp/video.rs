//! Video as it passes: formats that both sides name, under their own numbers (RFC 6184, RFC 7741, RFC 9628). What repairs a
//! stream stays on its leg and is not offered further: of it we speak retransmissions (RFC 4588), no FEC and no RED.

use std::fmt::Write;
use std::net::SocketAddr;

use sallyport_plan::{Clock, Format, Pt, PtMap, Resend, Ssrc};
use serde::{Deserialize, Serialize};

use super::codec::rtpmaps;
use super::direction::Direction;
use super::keying::Keying;

/// Formats of one side that are told to the other: INVITEs should not grow without bound.
const FORMATS: usize = 6;
/// Characters of a format's parameters that pass.
const PARAMETERS: usize = 256;
/// What retransmissions of them are called.
const RTX: &str = "rtx/90000";
/// Encodings that pass, on the clock of video.
const NAMES: [&str; 5] = ["VP8/90000", "H264/90000", "VP9/90000", "AV1/90000", "H265/90000"];

/// An encoding under a payload type of one leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoFormat {
    /// Encoding and clock as in `a=rtpmap`.
    pub name: String,
    /// Value of `a=fmtp` behind the payload type; may be empty.
    pub parameters: String,
    /// Its payload type there.
    pub payload_type: u8,
    /// That of its retransmissions there (RFC 4588), where its writer knows them.
    pub rtx: Option<u8>,
}

/// A video section of the inside: ours or theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoSection {
    /// Where its writer wants RTP.
    pub rtp: SocketAddr,
    /// Where its writer wants RTCP.
    pub rtcp: SocketAddr,
    /// Formats under the writer's payload types, as it prefers them.
    pub formats: Vec<VideoFormat>,
    /// What its writer does with the picture.
    pub direction: Direction,
    /// Whether its writer may be asked for a whole picture by RTCP (PLI or FIR).
    pub asks: bool,
    /// Bits a second that its writer wants to receive at the most.
    pub most: Option<u64>,
    /// What its writer says of encrypting it.
    pub keying: Keying,
}

/// One format of a call under the payload types of both legs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenVideo {
    /// As the browser sends and receives it, and with its parameters.
    pub outside: VideoFormat,
    /// As the inside sends it to us, and with the parameters that it is told.
    pub from_inside: VideoFormat,
    /// As the inside wants to receive it.
    pub to_inside: u8,
}

impl VideoFormat {
    /// A value of one of its parameters.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.parameters.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(have, _)| have.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The same without what only its writer can say: parameter sets of a stream (RFC 6184 section 8.2.2, RFC 7798 section 7.1).
    pub fn without_sets(&self) -> Self {
        let pairs = self.parameters.split(';').filter(|pair| !pair.trim_start().starts_with("sprop-"));
        Self { parameters: pairs.collect::<Vec<_>>().join(";"), ..self.clone() }
    }

    /// Whether what one calls this the other can decode: same encoding, and of H.264 the same profile and packetization
    /// (RFC 6184 section 8.2.2), of VP9 the same profile (RFC 9628 section 6).
    pub fn is_alike(&self, other: &Self) -> bool {
        let same = |name: &str, default: &str| {
            self.parameter(name).unwrap_or(default) == other.parameter(name).unwrap_or(default)
        };
        let profile = |format: &Self| {
            // profile_idc and the constraints that make it what it is; the level is the receiver's limit only.
            let octets = format.profile_level();
            let (idc, baseline) = (octets >> 16, octets & 0x4000 != 0);
            if idc == 0x42 { (0x42, false) } else { (idc, baseline) }
        };
        self.name.eq_ignore_ascii_case(&other.name)
            && match self.name.to_ascii_uppercase().as_str() {
                "H264/90000" => profile(self) == profile(other) && same("packetization-mode", "0"),
                "VP9/90000" => same("profile-id", "0"),
                "AV1/90000" => same("profile", "0"),
                _ => true,
            }
    }
}

/// Formats that pass, of a section with these formats and values of `a=rtpmap` and `a=fmtp`.
pub fn formats<'a>(
    list: &str,
    maps: impl Iterator<Item = &'a str>,
    parameters: impl Iterator<Item = &'a str>,
) -> Vec<VideoFormat> {
    let maps = rtpmaps(maps);
    let parameters = rtpmaps(parameters);
    let of = |all: &[(u8, String)], payload_type: u8| {
        all.iter().find(|(have, _)| *have == payload_type).map(|(_, text)| text.clone())
    };
    let types = list.split_whitespace().filter_map(|text| text.parse::<u8>().ok());
    let types: Vec<u8> = types.filter(|payload_type| *payload_type < 128).collect();
    let repeats = |rtx: u8, payload_type: u8| {
        let named = of(&maps, rtx).is_some_and(|name| name.eq_ignore_ascii_case(RTX));
        named && of(&parameters, rtx).is_some_and(|text| associated(&text) == Some(payload_type))
    };
    let mut found: Vec<VideoFormat> = Vec::new();
    for payload_type in types.iter().copied() {
        let Some(name) = of(&maps, payload_type) else { continue };
        let rtx = types.iter().copied().find(|rtx| repeats(*rtx, payload_type));
        let parameters = of(&parameters, payload_type).unwrap_or_default();
        let format = VideoFormat { name, parameters, payload_type, rtx };
        let known = NAMES.iter().any(|name| name.eq_ignore_ascii_case(&format.name));
        let sound =
            format.parameters.len() <= PARAMETERS && format.parameters.chars().all(|c| !c.is_control());
        if known && sound && !found.iter().any(|have| have.is_alike(&format)) {
            found.push(format);
        }
    }
    fewer(found)
}

/// The most of different encodings: a browser has one or two forms of each, but of H.264 up to eight, before it names others.
fn fewer(found: Vec<VideoFormat>) -> Vec<VideoFormat> {
    let before = |at: usize, format: &VideoFormat| {
        found.iter().take(at).filter(|other| other.name.eq_ignore_ascii_case(&format.name)).count()
    };
    let mut order: Vec<(usize, usize)> =
        found.iter().enumerate().map(|(at, format)| (before(at, format), at)).collect();
    order.sort_unstable();
    order.truncate(FORMATS);
    let kept = |at: usize| order.iter().any(|(_, kept)| *kept == at);
    found.iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, format)| format.clone()).collect()
}

/// The payload type that one of retransmissions belongs to (RFC 4588 section 8.6).
fn associated(parameters: &str) -> Option<u8> {
    let mut pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("apt"))?;
    value.trim().parse().ok()
}

/// The formats that all three sides have, as `theirs` prefers them; `ours` are those that the inside was offered.
pub fn choose(ours: &[VideoFormat], theirs: &[VideoFormat], outside: &[VideoFormat]) -> Vec<ChosenVideo> {
    let of = |formats: &[VideoFormat], like: &VideoFormat| {
        formats.iter().find(|format| format.is_alike(like)).cloned()
    };
    let choose = |to: &VideoFormat| {
        let (from_inside, outside) = (of(ours, to)?, of(outside, to)?);
        Some(ChosenVideo { outside, from_inside, to_inside: to.payload_type })
    };
    theirs.iter().filter_map(choose).collect()
}

/// Their formats under numbers that are not taken, as a browser may be offered them.
pub fn renumbered(theirs: &[VideoFormat], mut taken: Vec<u8>) -> Vec<ChosenVideo> {
    let mut renumber = |format: &VideoFormat| {
        // 64 to 95 look like RTCP on a port that both share (RFC 5761 section 4).
        let own = Some(format.payload_type).filter(|number| !(64..96).contains(number));
        let number = own.into_iter().chain(96..=127).find(|number| !taken.contains(number))?;
        taken.push(number);
        let outside = VideoFormat { payload_type: number, rtx: None, ..format.without_sets() };
        Some(ChosenVideo { outside, from_inside: format.clone(), to_inside: format.payload_type })
    };
    theirs.iter().filter_map(&mut renumber).collect()
}

/// Payload types of the picture inward and outward, and how packets that browsers lose leave again, under `rtx` as their SSRC:
/// retransmissions are between the browser and us.
pub fn payload_types(chosen: &[ChosenVideo], rtx: u32) -> (Vec<PtMap>, Vec<PtMap>, Resend) {
    let format = Format::Media(Clock::Hz90000);
    let map = |numbers: fn(&ChosenVideo) -> (u8, u8)| {
        let numbers = chosen.iter().map(numbers);
        numbers.map(|(from, to)| PtMap { from: Pt(from), to: Pt(to), format }).collect::<Vec<_>>()
    };
    let again = || chosen.iter().filter_map(|one| Some((one, one.outside.rtx?)));
    let mut inward = map(|one| (one.outside.payload_type, one.to_inside));
    inward.extend(again().map(|(one, rtx)| {
        let of = Pt(one.outside.payload_type);
        PtMap { from: Pt(rtx), to: Pt(one.to_inside), format: Format::Rtx(of) }
    }));
    let payload_types: Vec<_> = again().map(|(one, rtx)| (Pt(one.outside.payload_type), Pt(rtx))).collect();
    let resend =
        if payload_types.is_empty() { Resend::Same } else { Resend::Rtx { ssrc: Ssrc(rtx), payload_types } };
    (inward, map(|one| (one.from_inside.payload_type, one.outside.payload_type)), resend)
}

/// Lines of `a=rtpmap` and `a=fmtp`, with the feedback that we translate.
pub fn describe(text: &mut String, formats: &[VideoFormat], feedback: &[&str]) {
    for VideoFormat { name, parameters, payload_type, .. } in formats {
        let _ = write!(text, "a=rtpmap:{payload_type} {name}\r\n");
        if !parameters.is_empty() {
            let _ = write!(text, "a=fmtp:{payload_type} {parameters}\r\n");
        }
        for feedback in feedback {
            let _ = write!(text, "a=rtcp-fb:{payload_type} {feedback}\r\n");
        }
    }
}

/// Lines of `a=rtpmap` and `a=fmtp` of the retransmissions of formats that have any.
pub fn describe_rtx(text: &mut String, formats: &[VideoFormat]) {
    for (rtx, of) in formats.iter().filter_map(|format| Some((format.rtx?, format.payload_type))) {
        let _ = write!(text, "a=rtpmap:{rtx} {RTX}\r\na=fmtp:{rtx} apt={of}\r\n");
    }
}

/// Payload types as the line `m=` lists them.
pub fn list(formats: &[VideoFormat]) -> String {
    let types: Vec<String> = formats.iter().map(|format| format.payload_type.to_string()).collect();
    types.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(name: &str, parameters: &str, payload_type: u8) -> VideoFormat {
        VideoFormat { name: name.into(), parameters: parameters.into(), payload_type, rtx: None }
    }

    #[test]
    fn repair_formats_and_doubles_stay_behind() {
        let maps = [
            "96 VP8/90000",
            "97 rtx/90000",
            "98 VP9/90000",
            "100 VP9/90000",
            "102 H264/90000",
            "35 ulpfec/90000",
            "36 red/90000",
            "37 flexfec-03/90000",
            "38 rtx/90000",
            "39 rtx/90000",
        ];
        let parameters = [
            "97 apt=96",
            "38 apt=36",
            "39 rtx-time=500; APT=102",
            "98 profile-id=0",
            "100 profile-id=2",
            "102 profile-level-id=42e01f;packetization-mode=1",
        ];
        let found =
            formats("96 97 98 100 102 35 36 37 38 39 1000 x", maps.into_iter(), parameters.into_iter());
        let types: Vec<u8> = found.iter().map(|format| format.payload_type).collect();
        assert_eq!(types, [96, 98, 100, 102]);
        let again: Vec<Option<u8>> = found.iter().map(|format| format.rtx).collect();
        assert_eq!(again, [Some(97), None, None, Some(39)]);
        assert!(
            formats(
                "96",
                ["96 VP8/90000"].into_iter(),
                [format!("96 {}", "x".repeat(300)).as_str()].into_iter()
            )
            .is_empty()
        );
    }

    #[test]
    fn alike_is_what_the_other_can_decode() {
        let h264 = |parameters: &str| format("H264/90000", parameters, 102);
        let alike = [
            (
                h264("profile-level-id=42e01f;packetization-mode=1"),
                h264("packetization-mode=1; profile-level-id=42801F"),
            ),
            (
                h264("profile-level-id=640032;packetization-mode=1"),
                h264("profile-level-id=64001f;packetization-mode=1"),
            ),
            (h264(""), h264("packetization-mode=0;profile-level-id=42000a")),
            (format("VP8/90000", "max-fs=12288", 96), format("vp8/90000", "", 120)),
            (format("VP9/90000", "", 98), format("VP9/90000", "profile-id=0", 99)),
        ];
        let different = [
            (h264("profile-level-id=42e01f;packetization-mode=1"), h264("profile-level-id=42e01f")),
            (
                h264("profile-level-id=42e01f;packetization-mode=1"),
                h264("profile-level-id=64001f;packetization-mode=1"),
            ),
            (format("VP9/90000", "profile-id=2", 98), format("VP9/90000", "", 98)),
            (format("VP8/90000", "", 96), format("VP9/90000", "", 96)),
        ];
        for (one, other) in alike {
            assert!(one.is_alike(&other) && other.is_alike(&one), "{one:?} {other:?}");
        }
        for (one, other) in different {
            assert!(!one.is_alike(&other) && !other.is_alike(&one), "{one:?} {other:?}");
        }
    }

    #[test]
    fn every_encoding_is_told_before_the_second_form_of_another() {
        let line = |number: u8, mode: u8, profile: &str| {
            format!("{number} packetization-mode={mode};profile-level-id={profile}1f")
        };
        let h264 = ["4200", "42e0", "4d00", "f400", "6400"];
        let forms: Vec<String> = (0u8..)
            .zip(h264.iter().flat_map(|profile| [(1, profile), (0, profile)]))
            .map(|(at, (mode, profile))| line(100 + at, mode, profile))
            .collect();
        let mut maps = vec!["96 VP8/90000".to_owned()];
        maps.extend((100..110).map(|number| format!("{number} H264/90000")));
        maps.extend(["45 AV1/90000", "98 VP9/90000", "99 VP9/90000"].map(str::to_owned));
        let mut fmtp: Vec<&str> = forms.iter().map(String::as_str).collect();
        fmtp.extend(["98 profile-id=0", "99 profile-id=2"]);
        let list = "96 100 101 102 103 104 105 106 107 108 109 45 98 99";
        let found = formats(list, maps.iter().map(String::as_str), fmtp.into_iter());
        let types: Vec<u8> = found.iter().map(|format| format.payload_type).collect();
        assert_eq!(types, [96, 100, 101, 45, 98, 99], "of H.264 one of each packetization");
    }

    #[test]
    fn parameter_sets_are_their_writers() {
        let offered = "profile-level-id=42801F; sprop-parameter-sets=Z0IAKeK,aM48gA==;packetization-mode=1";
        let ours = format("H264/90000", offered, 99).without_sets();
        assert_eq!(ours.parameters, "profile-level-id=42801F;packetization-mode=1");
        assert_eq!(format("VP8/90000", "", 99).without_sets().parameters, "");
    }

    #[test]
    fn a_choice_has_the_numbers_of_all_sides() {
        let outside = [format("VP8/90000", "", 96), format("VP9/90000", "profile-id=0", 98)];
        let theirs =
            [format("H264/90000", "", 99), format("VP9/90000", "", 107), format("VP8/90000", "", 120)];
        let chosen = choose(&outside, &theirs, &outside);
        let types: Vec<_> = chosen
            .iter()
            .map(|one| (one.outside.payload_type, one.from_inside.payload_type, one.to_inside))
            .collect();
        assert_eq!(types, [(98, 98, 107), (96, 96, 120)]);
        assert!(choose(&outside[..1], &theirs[..2], &outside).is_empty());
    }
}
