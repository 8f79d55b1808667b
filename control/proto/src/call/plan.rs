//! From what both legs agreed on to a plan: a pure function.

use sallyport_plan::{
    CallId, Clock, Consent, Digits, Direction, DirectionIndex, FlowKey, Format, KeyMaterial, Medium, Mute,
    Passage, Plan, Protection, Pt, PtMap, Refusal, Ssrc, Zone,
};

use super::video::Film;
use crate::sdp::{Chosen, ChosenVideo, Direction as SoundDirection, InsideAnswer, InsideOffer};
use crate::settings::Dtmf;

/// Keys of a leg.
#[derive(Debug, Clone)]
pub struct Keys {
    /// What the peer sends us under.
    pub receive: KeyMaterial,
    /// What we send the peer under.
    pub send: KeyMaterial,
}

/// What a plan is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The call.
    pub call: CallId,
    /// Version of the plan.
    pub version: u32,
    /// The nominated pair.
    pub outside: FlowKey,
    /// How it is kept alive.
    pub consent: Option<Consent>,
    /// Keys, once the handshake has ended.
    pub keys: Option<&'a Keys>,
    /// Keys inside; `None`: media is plain there.
    pub inside_keys: Option<Keys>,
    /// Our side inside.
    pub inside: &'a InsideOffer,
    /// The other side inside.
    pub answer: &'a InsideAnswer,
    /// Codecs of the call.
    pub chosen: &'a [Chosen],
    /// How the browser's digits go inside.
    pub dtmf: Dtmf,
    /// What the browser does with the sound.
    pub direction: SoundDirection,
    /// SSRC announced outside and inside.
    pub ssrc: (u32, u32),
    /// The picture, where there is one.
    pub video: Option<Film<'a>>,
    /// What a new control needs.
    pub record: Vec<u8>,
}

/// Direction from the browser inward.
pub const INWARD: DirectionIndex = DirectionIndex(0);
/// Direction from the inside to the browser.
pub const OUTWARD: DirectionIndex = DirectionIndex(1);
/// The same of the picture.
pub const VIDEO_INWARD: DirectionIndex = DirectionIndex(2);
/// The same of the picture.
pub const VIDEO_OUTWARD: DirectionIndex = DirectionIndex(3);

/// Builds the plan and checks it.
///
/// # Errors
/// What [`Plan::validate`] says.
pub fn build(parts: Parts<'_>) -> Result<Plan, Refusal> {
    let Parts { call, version, outside, consent, keys, inside, answer, chosen, direction, .. } = parts;
    let Parts { dtmf, ssrc, video, record, .. } = parts;
    let (inside_open, inside_seal) = match parts.inside_keys {
        Some(keys) => (Protection::Srtp(keys.receive), Protection::Srtp(keys.send)),
        None => (Protection::Plain, Protection::Plain),
    };
    let inner = |local, remote| FlowKey { zone: Zone::Inside, local, remote };
    let (rtp, rtcp) = (inner(inside.rtp, answer.rtp), inner(inside.rtcp, answer.rtcp));
    let mute = |open: bool| if open { Mute::Open } else { Mute::Held };
    let inward = Direction {
        index: INWARD,
        medium: Medium::Audio,
        ingress: vec![outside],
        open: keys.map(|keys| Protection::Srtp(keys.receive.clone())),
        seal: Some(inside_seal),
        rtp,
        rtcp,
        passage: Passage::Translated,
        ssrc: Ssrc(ssrc.1),
        payload_types: maps(chosen.iter().map(Chosen::inward)),
        digits: digits(dtmf, chosen, answer.direction.receives() && direction.sends()),
        reverse: OUTWARD,
        mute: mute(answer.direction.receives() && direction.sends()),
    };
    let outward = Direction {
        index: OUTWARD,
        medium: Medium::Audio,
        ingress: vec![rtp, rtcp],
        open: Some(inside_open),
        seal: keys.map(|keys| Protection::Srtp(keys.send.clone())),
        rtp: outside,
        rtcp: outside,
        passage: Passage::Translated,
        ssrc: Ssrc(ssrc.0),
        payload_types: maps(chosen.iter().filter_map(Chosen::outward)),
        digits: Digits::Pass,
        reverse: INWARD,
        mute: mute(answer.direction.sends() && direction.receives()),
    };
    let consents = consent.into_iter().collect();
    let mut directions = vec![inward, outward];
    if let Some(film) = video {
        directions.extend(picture([&directions[0], &directions[1]], &film));
    }
    let plan = Plan { call, version, directions, consents, record };
    plan.validate()?;
    Ok(plan)
}

/// The picture's directions: within the sound's bundle outside, on its own ports inside.
fn picture([inward, outward]: [&Direction; 2], film: &Film<'_>) -> [Direction; 2] {
    let inner = |local, remote| FlowKey { zone: Zone::Inside, local, remote };
    let (rtp, rtcp) = (inner(film.ports.0, film.theirs.0), inner(film.ports.1, film.theirs.1));
    let format = Format::Media(Clock::Hz90000);
    let map = |numbers: fn(&ChosenVideo) -> (u8, u8)| {
        let numbers = film.chosen.iter().map(numbers);
        numbers.map(|(from, to)| PtMap { from: Pt(from), to: Pt(to), format }).collect::<Vec<_>>()
    };
    let mute = |open: bool| if open { Mute::Open } else { Mute::Held };
    [
        Direction {
            index: VIDEO_INWARD,
            medium: Medium::Video,
            seal: Some(Protection::Plain),
            rtp,
            rtcp,
            ssrc: Ssrc(film.ssrc.1),
            payload_types: map(|one| (one.outside.payload_type, one.to_inside)),
            digits: Digits::Pass,
            reverse: VIDEO_OUTWARD,
            mute: mute(film.open.0),
            ..inward.clone()
        },
        Direction {
            index: VIDEO_OUTWARD,
            medium: Medium::Video,
            ingress: vec![rtp, rtcp],
            open: Some(Protection::Plain),
            ssrc: Ssrc(film.ssrc.0),
            payload_types: map(|one| (one.from_inside.payload_type, one.outside.payload_type)),
            reverse: VIDEO_INWARD,
            mute: mute(film.open.1),
            ..outward.clone()
        },
    ]
}

/// What becomes of the browser's digits; `open`: the inside wants to hear media.
fn digits(dtmf: Dtmf, chosen: &[Chosen], open: bool) -> Digits {
    let taken = chosen.iter().any(|codec| codec.kind.is_event() && codec.inside.is_some());
    match dtmf {
        Dtmf::Rfc4733 => Digits::Pass,
        Dtmf::Auto if taken && open => Digits::Pass,
        Dtmf::Both if taken => Digits::PassAndTell,
        Dtmf::Auto | Dtmf::Both | Dtmf::Info => Digits::Tell,
    }
}

/// One for each payload type that arrives; the first that names it counts.
fn maps(all: impl Iterator<Item = PtMap>) -> Vec<PtMap> {
    let mut maps: Vec<PtMap> = Vec::new();
    for map in all {
        if maps.iter().all(|have| have.from != map.from) {
            maps.push(map);
        }
    }
    maps
}
