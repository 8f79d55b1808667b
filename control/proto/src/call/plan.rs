//! From what both legs agreed on to a plan: a pure function.

use sallyport_plan::{
    CallId, Consent, Direction, DirectionIndex, FlowKey, KeyMaterial, Medium, Mute, Passage, Plan,
    Protection, Pt, PtMap, Refusal, Ssrc, Zone,
};

use crate::sdp::{Chosen, Direction as SoundDirection, InsideAnswer, InsideOffer};

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
    /// What the browser does with the sound.
    pub direction: SoundDirection,
    /// SSRC announced outside and inside.
    pub ssrc: (u32, u32),
    /// What a new control needs.
    pub record: Vec<u8>,
}

/// Direction from the browser inward.
pub const INWARD: DirectionIndex = DirectionIndex(0);
/// Direction from the inside to the browser.
pub const OUTWARD: DirectionIndex = DirectionIndex(1);

/// Builds the plan and checks it.
///
/// # Errors
/// What [`Plan::validate`] says.
pub fn build(parts: Parts<'_>) -> Result<Plan, Refusal> {
    let Parts { call, version, outside, consent, keys, inside, answer, chosen, direction, ssrc, .. } = parts;
    let (inside_open, inside_seal) = match parts.inside_keys {
        Some(keys) => (Protection::Srtp(keys.receive), Protection::Srtp(keys.send)),
        None => (Protection::Plain, Protection::Plain),
    };
    let inner = |local, remote| FlowKey { zone: Zone::Inside, local, remote };
    let (rtp, rtcp) = (inner(inside.rtp, answer.rtp), inner(inside.rtcp, answer.rtcp));
    let map = |from: fn(&Chosen) -> u8, to: fn(&Chosen) -> u8| {
        chosen.iter().map(|codec| PtMap { from: Pt(from(codec)), to: Pt(to(codec)) }).collect::<Vec<_>>()
    };
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
        payload_types: map(|codec| codec.outside, |codec| codec.to_inside),
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
        payload_types: map(|codec| codec.from_inside, |codec| codec.outside),
        reverse: INWARD,
        mute: mute(answer.direction.sends() && direction.receives()),
    };
    let consents = consent.into_iter().collect();
    let plan = Plan { call, version, directions: vec![inward, outward], consents, record: parts.record };
    plan.validate()?;
    Ok(plan)
}
