//! Which direction seals what: no key and SSRC has ever two owners, and none comes back after it was given up.
//!
//! A sealer starts at index 0 of its key. Were a key and SSRC that sealed before installed again, in another direction or
//! after a pause, two payloads would leave under one index (RFC 3711 section 9.1). The ledger remembers all that a running
//! call has ever sealed with; a removed call's entries go with it.

use std::collections::HashMap;

use sallyport_plan::{CallId, Direction, DirectionIndex, KeyMaterial, Plan, Protection, Refusal};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// Keys and SSRCs that one call may use up.
const CALL_MAX: usize = 1024;

/// Tells keys apart: the first octets of a digest of key and salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// The name of a key.
    pub fn of(key: &KeyMaterial) -> Self {
        let digest: [u8; 20] = Sha1::new().chain_update(key.key()).chain_update(key.salt()).finalize().into();
        Self(digest.first_chunk().copied().unwrap_or_default())
    }

    /// The name of the key of one side of a direction, where it has one.
    pub fn of_side(side: Option<&Protection>) -> Option<Self> {
        match side {
            Some(Protection::Srtp(key)) => Some(Self::of(key)),
            Some(Protection::Plain) | None => None,
        }
    }
}

/// Owners by key and SSRC, and the other way round.
#[derive(Debug, Default)]
pub struct Ledger {
    owners: HashMap<(KeyId, u32), (CallId, DirectionIndex)>,
    calls: HashMap<CallId, Vec<(KeyId, u32)>>,
}

impl Ledger {
    /// Checks a plan against all that was sealed; `running` are the directions that it replaces.
    ///
    /// # Errors
    /// [`Refusal::KeyReuse`]; [`Refusal::TooLarge`] where the call has used up more keys than anyone needs.
    pub fn admit(&self, plan: &Plan, running: &[&Direction]) -> Result<(), Refusal> {
        for direction in &plan.directions {
            let Some(key) = KeyId::of_side(direction.seal.as_ref()) else { continue };
            for ssrc in direction.sealed() {
                match self.owners.get(&(key, ssrc.0)) {
                    None => {}
                    // The sealer that used it runs on: it knows its indices.
                    Some(owner) if *owner == (plan.call, direction.index) && runs_on(direction, running) => {}
                    Some(_) => return Err(Refusal::KeyReuse),
                }
            }
        }
        let used = self.calls.get(&plan.call).map_or(0, Vec::len);
        if used > CALL_MAX { Err(Refusal::TooLarge) } else { Ok(()) }
    }

    /// Enters what an admitted plan seals with.
    pub fn enter(&mut self, plan: &Plan) {
        for direction in &plan.directions {
            let Some(key) = KeyId::of_side(direction.seal.as_ref()) else { continue };
            for ssrc in direction.sealed() {
                let entry = (key, ssrc.0);
                if self.owners.insert(entry, (plan.call, direction.index)).is_none() {
                    self.calls.entry(plan.call).or_default().push(entry);
                }
            }
        }
    }

    /// Forgets a call.
    pub fn remove(&mut self, call: CallId) {
        for entry in self.calls.remove(&call).unwrap_or_default() {
            self.owners.remove(&entry);
        }
    }
}

fn runs_on(direction: &Direction, running: &[&Direction]) -> bool {
    let former = running.iter().find(|former| former.index == direction.index);
    former.is_some_and(|former| former.seal == direction.seal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sallyport_plan::{Digits, Extensions, FlowKey, Medium, Mute, Passage, Profile, Resend, Ssrc, Zone};
    use std::net::SocketAddr;

    fn direction(index: u8, key: u8, ssrc: u32) -> Direction {
        let address = SocketAddr::from(([192, 0, 2, 1], 10000));
        let flow = FlowKey { zone: Zone::Outside, local: address, remote: address };
        let key = KeyMaterial::new(Profile::AeadAes128Gcm, &[key; 16], &[0; 12]).unwrap();
        Direction {
            index: DirectionIndex(index),
            medium: Medium::Audio,
            ingress: vec![flow],
            open: None,
            seal: Some(Protection::Srtp(key)),
            rtp: flow,
            rtcp: flow,
            passage: Passage::Translated,
            ssrc: Ssrc(ssrc),
            payload_types: vec![],
            extensions: Extensions::default(),
            digits: Digits::Pass,
            resend: Resend::Never,
            fork: None,
            learns: false,
            reverse: DirectionIndex(index),
            mute: Mute::Open,
        }
    }

    fn plan(call: u128, directions: &[(u8, u8, u32)]) -> Plan {
        let directions = directions.iter().map(|(index, key, ssrc)| direction(*index, *key, *ssrc)).collect();
        Plan { call: CallId(call), version: 1, directions, consents: vec![], record: vec![] }
    }

    /// Each plan replaces the one before; the last one's outcome.
    fn history(plans: &[&[(u8, u8, u32)]]) -> Result<(), Refusal> {
        let (mut ledger, mut running, mut outcome) = (Ledger::default(), Vec::new(), Ok(()));
        for directions in plans {
            assert_eq!(outcome, Ok(()), "only the last may be refused");
            let plan = plan(1, directions);
            outcome = ledger.admit(&plan, &running.iter().collect::<Vec<_>>());
            ledger.enter(&plan);
            running = plan.directions;
        }
        outcome
    }

    #[test]
    fn a_key_and_ssrc_stay_with_their_direction() {
        let bundle: &[_] = &[(0, 1, 10), (1, 1, 11)];
        assert_eq!(history(&[bundle, bundle]), Ok(()));
        assert_eq!(history(&[bundle, &[(0, 1, 11), (1, 1, 10)]]), Err(Refusal::KeyReuse), "swapped");
        assert_eq!(history(&[bundle, &[(0, 1, 10)], bundle]), Err(Refusal::KeyReuse), "taken up again");
        assert_eq!(history(&[bundle, &[(0, 1, 10)], &[(0, 1, 10), (1, 1, 12)]]), Ok(()), "a new SSRC");
        assert_eq!(
            history(&[&[(0, 1, 10)], &[(0, 2, 10)], &[(0, 1, 10)]]),
            Err(Refusal::KeyReuse),
            "an old key"
        );
        assert_eq!(history(&[&[(0, 1, 10)], &[(0, 1, 20)], &[(0, 1, 10)]]), Ok(()), "its sealer runs on");
    }

    #[test]
    fn calls_are_kept_apart_and_forgotten() {
        let mut ledger = Ledger::default();
        ledger.enter(&plan(1, &[(0, 1, 10)]));
        assert_eq!(ledger.admit(&plan(2, &[(0, 1, 10)]), &[]), Err(Refusal::KeyReuse));
        ledger.remove(CallId(1));
        assert_eq!(ledger.admit(&plan(2, &[(0, 1, 10)]), &[]), Ok(()));
        assert!(ledger.owners.is_empty() && ledger.calls.is_empty());
    }

    #[test]
    fn a_call_does_not_use_up_keys_without_end() {
        let mut ledger = Ledger::default();
        let refused = (0..5000u32).find(|n| {
            let plan = plan(1, &[(0, 1, *n)]);
            let admitted = ledger.admit(&plan, &[]);
            ledger.enter(&plan);
            admitted == Err(Refusal::TooLarge)
        });
        assert_eq!(refused, Some(1025));
    }
}
