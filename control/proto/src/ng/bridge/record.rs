//! What a new control needs to go on with a bridge; keys and ICE passwords are in the plan only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sallyport_plan::{Medium, Plan, PortPair, Profile as SrtpProfile, Protection as Seal, Zone};
use serde::{Deserialize, Serialize};

use super::super::flags::{Profile, Protection};
use super::super::peer::Said;
use super::section::{End, Section};
use super::side::{Keys, Outside, Side};
use super::{Bridge, BridgeSettings, Deadlines};
use crate::api::{DtlsRole, StepState};
use crate::call::ice::Ice;
use crate::error::RestoreError;
use crate::random::{Random, Seed};
use crate::relayed::Relayed;
use crate::sdp::{Agreed, ChosenVideo};
use crate::settings::Settings;
use crate::sources::Sources;

/// Version of the form; none that [`crate::Call`] writes.
const VERSION: u8 = 0x83;

/// The part of a bridge that cannot be told from its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    call_id: String,
    branch: Option<String>,
    created: u64,
    strict: bool,
    asymmetric: bool,
    sides: [SideRecord; 2],
    sections: Vec<SectionRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SideRecord {
    tag: String,
    zone: Zone,
    profile: Profile,
    profile_name: String,
    active: bool,
    srtp: Option<SrtpProfile>,
    identity: Option<[u8; 32]>,
    fingerprint: Option<[u8; 32]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SectionRecord {
    at: usize,
    medium: Medium,
    rtx: u32,
    chosen: Vec<ChosenVideo>,
    live: bool,
    ends: [EndRecord; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EndRecord {
    ssrc: u32,
    ports: Option<PortPair>,
    said: Option<Said>,
    mux: bool,
    mid: Option<String>,
    profile_name: Option<String>,
    agreed: Agreed,
}

impl Record {
    /// Of a bridge as it stands.
    pub fn of(bridge: &Bridge) -> Self {
        let side = |side: &Side| SideRecord {
            tag: side.tag.clone(),
            zone: side.zone,
            profile: side.profile,
            profile_name: side.profile_name.clone(),
            active: side.outside.as_ref().is_some_and(|outside| outside.role == DtlsRole::Active),
            srtp: side.outside.as_ref().and_then(|outside| outside.profile),
            identity: side.outside.as_ref().map(|outside| outside.identity),
            fingerprint: side.outside.as_ref().and_then(|outside| outside.fingerprint),
        };
        let end = |end: &End| EndRecord {
            ssrc: end.ssrc,
            ports: end.ports,
            said: end.said.clone(),
            mux: end.mux,
            mid: end.mid.clone(),
            profile_name: end.profile_name.clone(),
            agreed: end.agreed.clone(),
        };
        let section = |section: &Section| SectionRecord {
            at: section.at,
            medium: section.medium,
            rtx: section.rtx,
            chosen: section.chosen.clone(),
            live: section.live,
            ends: [end(&section.ends[0]), end(&section.ends[1])],
        };
        Self {
            call_id: bridge.call_id.clone(),
            branch: bridge.branch.clone(),
            created: bridge.created,
            strict: bridge.strict,
            asymmetric: bridge.asymmetric,
            sides: [side(&bridge.sides[0]), side(&bridge.sides[1])],
            sections: bridge.sections.iter().map(section).collect(),
        }
    }

    /// As octets: a version, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = vec![VERSION];
        // Plain data into a vector: there is nothing that could fail.
        octets.extend(postcard::to_allocvec(self).unwrap_or_default());
        octets
    }

    fn decode(octets: &[u8]) -> Result<Self, RestoreError> {
        match octets.split_first() {
            Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|_| RestoreError::Malformed),
            Some(_) => Err(RestoreError::Version),
            None => Err(RestoreError::Malformed),
        }
    }
}

impl Bridge {
    /// Whether a plan is a bridge's.
    pub fn is_record(record: &[u8]) -> bool {
        record.first() == Some(&VERSION)
    }

    /// Goes on with what the relay runs. ICE and DTLS are over by then; the relay keeps consent alive.
    ///
    /// # Errors
    /// [`RestoreError`]; such a call should be removed from the relay.
    pub fn restore(
        plan: &Plan,
        settings: Arc<Settings>,
        options: Arc<BridgeSettings>,
        seed: Seed,
    ) -> Result<Self, RestoreError> {
        let Record { call_id, branch, created, strict, asymmetric, sides, sections } =
            Record::decode(&plan.record)?;
        let mut random = Random::new(seed);
        let [one, other] = sides;
        let sides =
            [side(plan, 0, one, &settings, &mut random)?, side(plan, 1, other, &settings, &mut random)?];
        let sections: Result<Vec<Section>, RestoreError> = (0..)
            .zip(sections)
            .map(|(index, record)| section(plan, index, record, &sides, &mut random))
            .collect();
        let version = plan.version;
        let mut bridge = Self {
            id: plan.call,
            call_id,
            branch,
            created,
            begun: None,
            signalled: Duration::ZERO,
            settings,
            options,
            random,
            commands: VecDeque::new(),
            sides,
            sections: sections?,
            offered: None,
            answered: true,
            waiting: None,
            relayed: Relayed { sent: version, installed: version, complete: true, ..Relayed::default() },
            deadlines: Deadlines::default(),
            sources: Sources::default(),
            strict,
            asymmetric,
            connected: true,
            past: Vec::new(),
            cause: None,
            over: false,
        };
        bridge.sources = Sources::of(plan, &bridge.ends_inside());
        Ok(bridge)
    }
}

/// Keys of side `at` in section `index`: direction `2 * index + at` comes from it, the other one of the two goes to it. `None`
/// where the plan has no such directions.
fn keys(plan: &Plan, index: u8, at: u8) -> Option<Result<Option<Keys>, RestoreError>> {
    let of = |wanted: u8| plan.directions.iter().find(|direction| direction.index.0 == wanted);
    let (from, to) = (of(2 * index + at)?, of(2 * index + 1 - at)?);
    Some(match (&from.open, &to.seal) {
        (Some(Seal::Srtp(receive)), Some(Seal::Srtp(send))) => {
            Ok(Some(Keys { receive: receive.clone(), send: send.clone() }))
        }
        (Some(Seal::Plain), Some(Seal::Plain)) => Ok(None),
        // A handshake that was under way died with the old control.
        _ => Err(RestoreError::Contradiction),
    })
}

/// A side with what the plan says of it.
fn side(
    plan: &Plan,
    at: u8,
    record: SideRecord,
    settings: &Settings,
    random: &mut Random,
) -> Result<Side, RestoreError> {
    let mut side = Side::new(&record.tag, record.zone, record.profile, &record.profile_name);
    let any =
        (0..=u8::MAX / 2).find_map(|index| keys(plan, index, at)).ok_or(RestoreError::Contradiction)??;
    if record.profile.protection != Protection::Dtls {
        return Ok(side);
    }
    let consent = plan.consents.first().ok_or(RestoreError::Contradiction)?;
    let candidates = Ice::open(settings, Zone::Outside, false, random).lines().to_vec();
    let identity = record.identity.ok_or(RestoreError::Contradiction)?;
    let mut outside = Outside::bare(candidates, identity);
    outside.local = (consent.local_ufrag.clone(), consent.local_pwd.clone());
    outside.remote = (consent.remote_ufrag.clone(), consent.remote_pwd.clone());
    outside.nominated = Some(consent.flow);
    outside.consent = Some(consent.clone());
    outside.begun = true;
    outside.dtls = StepState::Connected;
    outside.dtls_begun = true;
    outside.role = if record.active { DtlsRole::Active } else { DtlsRole::Passive };
    outside.fingerprint = record.fingerprint;
    outside.keys = Some(any.ok_or(RestoreError::Contradiction)?);
    outside.profile = record.srtp;
    side.outside = Some(Box::new(outside));
    Ok(side)
}

/// A section; of one that the plan does not have the relay has given its ports to others.
fn section(
    plan: &Plan,
    index: u8,
    record: SectionRecord,
    sides: &[Side; 2],
    random: &mut Random,
) -> Result<Section, RestoreError> {
    let mut section = Section::new(record.at, record.medium, random);
    (section.rtx, section.chosen, section.live) = (record.rtx, record.chosen, record.live);
    for ((at, own), (end, side)) in (0..).zip(record.ends).zip(section.ends.iter_mut().zip(sides)) {
        let keys = keys(plan, index, at);
        (end.ssrc, end.said, end.mux) = (own.ssrc, own.said, own.mux);
        (end.mid, end.profile_name, end.agreed) = (own.mid, own.profile_name, own.agreed);
        end.ports = own.ports.filter(|_| keys.is_some());
        if let (Some(keys), Protection::Sdes) = (keys, side.profile.protection) {
            end.sdes = Some(keys?.ok_or(RestoreError::Contradiction)?);
        }
    }
    Ok(section)
}
