//! Codecs that both sides may know. Nothing is transcoded: what the inside chooses is what the browser gets.

use sallyport_plan::{Clock, Format, Pt, PtMap};
use serde::{Deserialize, Serialize};

/// What we know of a codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// G.711 mu-law (RFC 3551).
    Pcmu,
    /// G.711 A-law (RFC 3551).
    Pcma,
    /// Opus (RFC 7587).
    Opus,
    /// Named events at 8 kHz (RFC 4733).
    Event8000,
    /// Named events at 48 kHz (RFC 4733).
    Event48000,
    /// G.722, whose timestamps count at 8 kHz (RFC 3551 section 4.5.2).
    G722,
    /// Comfort noise beside a codec at 8 kHz (RFC 3389).
    Noise,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Pcmu, Self::Pcma, Self::G722, Self::Opus, Self::Noise, Self::Event8000, Self::Event48000];
    /// What is spoken inside unless the configuration says otherwise, the preferred one first. Comfort noise is not among them:
    /// browsers that are offered it fall silent between words.
    pub const SPOKEN: [Self; 4] = [Self::Pcmu, Self::Pcma, Self::G722, Self::Opus];

    /// Encoding, clock and channels as in `a=rtpmap`.
    pub const fn rtpmap(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU/8000",
            Self::Pcma => "PCMA/8000",
            Self::Opus => "opus/48000/2",
            Self::Event8000 => "telephone-event/8000",
            Self::Event48000 => "telephone-event/48000",
            Self::G722 => "G722/8000",
            Self::Noise => "CN/8000",
        }
    }

    /// Name of the encoding, as `PCMU`.
    pub fn name(self) -> &'static str {
        self.rtpmap().split_once('/').map_or(self.rtpmap(), |(name, _)| name)
    }

    /// By [`Self::name`]; named events have none of their own.
    pub fn named(name: &str) -> Option<Self> {
        let alike = |kind: &Self| !kind.is_event() && kind.name().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(alike)
    }

    /// Payload type in our offers inside.
    pub const fn inside_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
            Self::Opus => 107,
            Self::Event8000 => 101,
            Self::Event48000 => 102,
            Self::G722 => 9,
            Self::Noise => 13,
        }
    }

    /// Clock of its timestamps, or of its durations (Opus: RFC 7587 section 4.1).
    pub const fn clock(self) -> Clock {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 | Self::Noise | Self::Event8000 => Clock::Hz8000,
            Self::Opus | Self::Event48000 => Clock::Hz48000,
        }
    }

    /// Whether it carries speech: a call needs one such.
    pub const fn is_sound(self) -> bool {
        matches!(self, Self::Pcmu | Self::Pcma | Self::G722 | Self::Opus)
    }

    /// Whether it carries named events (RFC 4733).
    pub const fn is_event(self) -> bool {
        matches!(self, Self::Event8000 | Self::Event48000)
    }

    /// The named events that may run beside a codec: first those on its clock.
    pub const fn events(self) -> [Self; 2] {
        match self {
            Self::Opus | Self::Event48000 => [Self::Event48000, Self::Event8000],
            Self::Pcmu | Self::Pcma | Self::G722 | Self::Noise | Self::Event8000 => {
                [Self::Event8000, Self::Event48000]
            }
        }
    }

    /// By the value of `a=rtpmap` behind the payload type.
    pub fn of_rtpmap(text: &str) -> Option<Self> {
        let text = text.trim();
        let alike = |kind: &Self| {
            let own = kind.rtpmap();
            own.eq_ignore_ascii_case(text)
                || text.strip_suffix("/1").is_some_and(|text| own.eq_ignore_ascii_case(text))
        };
        Self::ALL.into_iter().find(alike)
    }

    /// By a static payload type (RFC 3551 section 6).
    pub const fn of_static(payload_type: u8) -> Option<Self> {
        match payload_type {
            0 => Some(Self::Pcmu),
            8 => Some(Self::Pcma),
            9 => Some(Self::G722),
            13 => Some(Self::Noise),
            _ => None,
        }
    }
}

/// A codec under a payload type of one leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codec {
    /// Which.
    pub kind: Kind,
    /// Its payload type there.
    pub payload_type: u8,
}

/// One codec of a call under the payload types of both legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Which, as the browser knows it.
    pub kind: Kind,
    /// As the browser sends and receives it.
    pub outside: u8,
    /// As it goes inside; `None` for named events that the inside does not take: they end in the relay, and digits go by INFO.
    pub inside: Option<Inward>,
}

/// A codec of a call inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inward {
    /// Which: the browser's, but for named events, which may run on another clock here.
    pub kind: Kind,
    /// As the inside sends it to us.
    pub from: u8,
    /// As the inside wants to receive it.
    pub to: u8,
}

impl Chosen {
    /// What becomes of it on its way inward.
    pub fn inward(&self) -> PtMap {
        let to = self.inside.map_or((self.outside, self.kind), |inside| (inside.to, inside.kind));
        self.map((self.outside, self.kind), to)
    }

    /// What becomes of it on its way to the browser.
    pub fn outward(&self) -> Option<PtMap> {
        let inside = self.inside?;
        Some(self.map((inside.from, inside.kind), (self.outside, self.kind)))
    }

    fn map(&self, from: (u8, Kind), to: (u8, Kind)) -> PtMap {
        let format = if self.kind.is_event() {
            Format::Event { from: from.1.clock(), to: to.1.clock() }
        } else {
            Format::Media(self.kind.clock())
        };
        PtMap { from: Pt(from.0), to: Pt(to.0), format }
    }
}

/// The codecs that a section describes, in its order.
pub fn codecs(formats: &str, rtpmaps: &[(u8, String)]) -> Vec<Codec> {
    let kind = |payload_type: u8| {
        let mapped = rtpmaps.iter().find(|(have, _)| *have == payload_type);
        mapped.map_or_else(|| Kind::of_static(payload_type), |(_, text)| Kind::of_rtpmap(text))
    };
    let types = formats
        .split_whitespace()
        .filter_map(|text| text.parse().ok().filter(|payload_type| *payload_type < 128));
    types.filter_map(|payload_type| Some(Codec { kind: kind(payload_type)?, payload_type })).collect()
}

/// `a=rtpmap` values as payload type and encoding.
pub fn rtpmaps<'a>(values: impl Iterator<Item = &'a str>) -> Vec<(u8, String)> {
    let split = |value: &str| {
        let (payload_type, encoding) = value.split_once(' ')?;
        Some((payload_type.trim().parse().ok()?, encoding.trim().to_owned()))
    };
    values.filter_map(split).collect()
}
