//! What a new control needs to go on with a bridge; keys and ICE passwords are in the plan only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sallyport_plan::{Plan, PortPair, Profile as SrtpProfile, Protection as Seal, Zone};
use serde::{Deserialize, Serialize};

use super::super::flags::{Profile, Protection};
use super::super::peer::Peer;
use super::side::{Keys, Outside, Side};
use super::{Bridge, BridgeSettings, Deadlines};
use crate::api::{DtlsRole, StepState};
use crate::call::ice::Ice;
use crate::error::RestoreError;
use crate::random::{Random, Seed};
use crate::relayed::Relayed;
use crate::settings::Settings;

/// Version of the form; none that [`crate::Call`] writes.
const VERSION: u8 = 0x82;

/// The part of a bridge that cannot be told from its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    call_id: String,
    branch: Option<String>,
    created: u64,
    sides: [SideRecord; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SideRecord {
    tag: String,
    zone: Zone,
    profile: Profile,
    profile_name: String,
    ssrc: u32,
    ports: Option<PortPair>,
    peer: Option<Peer>,
    mux: bool,
    mid: Option<String>,
    active: bool,
    srtp: Option<SrtpProfile>,
    identity: Option<[u8; 32]>,
}

impl Record {
    /// Of a bridge as it stands.
    pub fn of(bridge: &Bridge) -> Self {
        let side = |side: &Side| SideRecord {
            tag: side.tag.clone(),
            zone: side.zone,
            profile: side.profile,
            profile_name: side.profile_name.clone(),
            ssrc: side.ssrc,
            ports: side.ports,
            peer: side.peer.clone(),
            mux: side.mux,
            mid: side.mid.clone(),
            active: side.outside.as_ref().is_some_and(|outside| outside.role == DtlsRole::Active),
            srtp: side.outside.as_ref().and_then(|outside| outside.profile),
            identity: side.outside.as_ref().map(|outside| outside.identity),
        };
        Self {
            call_id: bridge.call_id.clone(),
            branch: bridge.branch.clone(),
            created: bridge.created,
            sides: [side(&bridge.sides[0]), side(&bridge.sides[1])],
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
        let Record { call_id, branch, created, sides } = Record::decode(&plan.record)?;
        let mut random = Random::new(seed);
        let [one, other] = sides;
        let sides =
            [side(plan, 0, one, &settings, &mut random)?, side(plan, 1, other, &settings, &mut random)?];
        let version = plan.version;
        Ok(Self {
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
            offered: None,
            answered: true,
            waiting: None,
            relayed: Relayed { sent: version, installed: version, complete: true, ..Relayed::default() },
            deadlines: Deadlines::default(),
            connected: true,
            past: Vec::new(),
            cause: None,
            over: false,
        })
    }
}

/// A side with what the plan says of it: direction `at` comes from it, the other one goes to it.
fn side(
    plan: &Plan,
    at: usize,
    record: SideRecord,
    settings: &Settings,
    random: &mut Random,
) -> Result<Side, RestoreError> {
    let [from, to] = [plan.directions.get(at), plan.directions.get(1 - at)];
    let (Some(from), Some(to)) = (from, to) else { return Err(RestoreError::Contradiction) };
    let keys = match (&from.open, &to.seal) {
        (Some(Seal::Srtp(receive)), Some(Seal::Srtp(send))) => {
            Some(Keys { receive: receive.clone(), send: send.clone() })
        }
        (Some(Seal::Plain), Some(Seal::Plain)) => None,
        // A handshake that was under way died with the old control.
        _ => return Err(RestoreError::Contradiction),
    };
    let mut side = Side::new(&record.tag, record.zone, record.profile, &record.profile_name, random);
    side.ssrc = record.ssrc;
    side.ports = record.ports;
    side.mux = record.mux;
    side.mid = record.mid;
    match record.profile.protection {
        Protection::Dtls => {
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
            outside.fingerprint = record.peer.as_ref().and_then(|peer| peer.fingerprint);
            outside.keys = Some(keys.ok_or(RestoreError::Contradiction)?);
            outside.profile = record.srtp;
            side.outside = Some(Box::new(outside));
        }
        Protection::Sdes => side.sdes = Some(keys.ok_or(RestoreError::Contradiction)?),
        Protection::Plain => {}
    }
    side.peer = record.peer;
    Ok(side)
}
