//! From what both legs agreed on to a plan: a pure function.

use sallyport_plan::{
    CallId, Consent, Digits, Direction, DirectionIndex, ExtensionMap, Extensions, FlowKey, Fork, KeyMaterial,
    Medium, Mute, Passage, Plan, Protection, PtMap, Refusal, Resend, Ssrc, Zone,
};

use super::digits;
use super::video::Film;
use crate::sdp::{
    Agreed, Chosen, Direction as SoundDirection, Extension, InsideAnswer, InsideOffer, payload_types,
};
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
    /// That of another connection of the browser, which has no keys yet.
    pub beside: Option<FlowKey>,
    /// How it is kept alive.
    pub consent: Option<Consent>,
    /// Keys, once the handshake has ended.
    pub keys: Option<&'a Keys>,
    /// Keys inside; `None`: media is plain there.
    pub inside_keys: Option<Keys>,
    /// The same of the picture.
    pub film_keys: Option<Keys>,
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
    /// What is agreed with the browser of the sound's header extensions.
    pub agreed: &'a Agreed,
    /// The picture, where there is one.
    pub video: Option<Film<'a>>,
    /// Whether the inside is heard from other ports than it signals.
    pub learns: bool,
    /// Where copies of the sound go, of the browser's and of the inside's.
    pub forks: [Option<Fork>; 2],
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
    let Parts { dtmf, ssrc, video, record, forks: [inward_fork, outward_fork], .. } = parts;
    let (inside_open, inside_seal) = protection(parts.inside_keys);
    let taken = chosen.iter().any(|codec| codec.kind.is_event() && codec.inside.is_some());
    let inner = |local, remote| FlowKey { zone: Zone::Inside, local, remote };
    let (rtp, rtcp) = (inner(inside.rtp, answer.rtp), inner(inside.rtcp, answer.rtcp));
    let mute = |open: bool| if open { Mute::Open } else { Mute::Held };
    // Numbers are those of the bundle, so that its first section hears them all.
    let transport_wide = video.as_ref().and_then(|film| film.agreed.transport_wide());
    let carried = |outward| carried(parts.agreed, (inside, answer), outward);
    let inward = Direction {
        index: INWARD,
        medium: Medium::Audio,
        ingress: std::iter::once(outside).chain(parts.beside).collect(),
        open: keys.map(|keys| Protection::Srtp(keys.receive.clone())),
        seal: Some(inside_seal),
        rtp,
        rtcp,
        passage: Passage::Translated,
        ssrc: Ssrc(ssrc.1),
        payload_types: maps(chosen.iter().map(Chosen::inward)),
        extensions: Extensions { carried: carried(false), transport_wide, ..Extensions::default() },
        digits: digits::inward(dtmf, taken, answer.direction.receives() && direction.sends()),
        resend: Resend::Never,
        fork: inward_fork,
        learns: false,
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
        extensions: Extensions { carried: carried(true), mid: parts.agreed.name(), ..Extensions::default() },
        // Browsers play them, and tell no page.
        digits: if taken { Digits::PassAndTell } else { Digits::Pass },
        resend: Resend::Never,
        fork: outward_fork,
        learns: parts.learns,
        reverse: INWARD,
        mute: mute(answer.direction.sends() && direction.receives()),
    };
    let consents = consent.into_iter().collect();
    let mut directions = vec![inward, outward];
    if let Some(film) = video {
        directions.extend(picture([&directions[0], &directions[1]], &film, parts.film_keys));
    }
    let plan = Plan { call, version, directions, consents, record };
    plan.validate()?;
    Ok(plan)
}

/// How packets of the inside are opened, and sealed for it.
fn protection(keys: Option<Keys>) -> (Protection, Protection) {
    match keys {
        Some(keys) => (Protection::Srtp(keys.receive), Protection::Srtp(keys.send)),
        None => (Protection::Plain, Protection::Plain),
    }
}

/// Header extensions that both legs know, under the ids of each.
fn carried(agreed: &Agreed, inside: (&InsideOffer, &InsideAnswer), outward: bool) -> Vec<ExtensionMap> {
    let map = |kind: Extension| {
        let ids = (agreed.extensions.id(kind)?, inside_extension(inside.0, inside.1, kind)?);
        let (from, to) = if outward { (ids.1, ids.0) } else { ids };
        Some(ExtensionMap { from, to })
    };
    Extension::CARRIED.into_iter().filter_map(map).collect()
}

/// The picture's directions: within the sound's bundle outside, on its own ports inside.
fn picture([inward, outward]: [&Direction; 2], film: &Film<'_>, keys: Option<Keys>) -> [Direction; 2] {
    let (open, seal) = protection(keys);
    let inner = |local, remote| FlowKey { zone: Zone::Inside, local, remote };
    let (rtp, rtcp) = (inner(film.ports.0, film.theirs.0), inner(film.ports.1, film.theirs.1));
    let mute = |open: bool| if open { Mute::Open } else { Mute::Held };
    let (inward_types, outward_types, resend) = payload_types(film.chosen, film.rtx);
    [
        Direction {
            index: VIDEO_INWARD,
            medium: Medium::Video,
            seal: Some(seal),
            rtp,
            rtcp,
            ssrc: Ssrc(film.ssrc.1),
            payload_types: inward_types,
            extensions: Extensions {
                transport_wide: inward.extensions.transport_wide,
                nack: film.agreed.knows_nack(),
                ..Extensions::default()
            },
            digits: Digits::Pass,
            resend: Resend::Never,
            fork: None,
            reverse: VIDEO_OUTWARD,
            mute: mute(film.open.0),
            ..inward.clone()
        },
        Direction {
            index: VIDEO_OUTWARD,
            medium: Medium::Video,
            ingress: vec![rtp, rtcp],
            open: Some(open),
            ssrc: Ssrc(film.ssrc.0),
            extensions: Extensions {
                mid: film.agreed.name(),
                remb: film.agreed.knows_remb(),
                ..Extensions::default()
            },
            payload_types: outward_types,
            digits: Digits::Pass,
            resend,
            fork: None,
            reverse: VIDEO_INWARD,
            mute: mute(film.open.1),
            ..outward.clone()
        },
    ]
}

/// The id of a header extension that both we and the inside speak of.
pub fn inside_extension(ours: &InsideOffer, theirs: &InsideAnswer, extension: Extension) -> Option<u8> {
    ours.extensions.id(extension).filter(|id| theirs.extensions.id(extension) == Some(*id))
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
