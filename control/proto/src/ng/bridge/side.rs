//! One side of a bridge.

use std::time::Instant;

use sallyport_plan::{Consent, FlowKey, KeyMaterial, Profile as SrtpProfile, Zone};

use super::super::flags::Profile;
use super::super::peer::IceParameters;
use crate::api::{DtlsRole, StepState};
use crate::call::ice::Ice;
use crate::random::Random;
use crate::sdp::Setup;
use crate::settings::Settings;

/// Keys of a leg.
#[derive(Debug, Clone)]
pub struct Keys {
    /// What the side sends us.
    pub receive: KeyMaterial,
    /// What we send it.
    pub send: KeyMaterial,
}

/// What a browser's side has beside.
#[derive(Debug)]
pub struct Outside {
    /// The agent; `None` in a call that was adopted, until ICE starts again.
    pub ice: Option<Ice>,
    /// Our credentials.
    pub local: (String, String),
    /// Our candidates.
    pub candidates: Vec<String>,
    /// The browser's credentials; empty while they are not known.
    pub remote: (String, String),
    /// Whether checks may go out.
    pub begun: bool,
    /// The pair in use.
    pub nominated: Option<FlowKey>,
    /// How it is kept alive.
    pub consent: Option<Consent>,
    /// Where DTLS stands.
    pub dtls: StepState,
    /// Whether there is an association.
    pub dtls_begun: bool,
    /// Our role.
    pub role: DtlsRole,
    /// The certificate that the browser has to show.
    pub fingerprint: Option<[u8; 32]>,
    /// SHA-256 over ours in this association, which a former control may have made.
    pub identity: [u8; 32],
    /// What the handshake gave.
    pub keys: Option<Keys>,
    /// What it agreed on.
    pub profile: Option<SrtpProfile>,
}

impl Outside {
    /// With an agent of its own.
    pub fn new(settings: &Settings, controlling: bool, random: &mut Random) -> Self {
        let mut outside = Self::bare(Vec::new(), settings.fingerprint);
        outside.restart(settings, controlling, random);
        outside
    }

    /// Without an agent.
    pub fn bare(candidates: Vec<String>, identity: [u8; 32]) -> Self {
        Self {
            ice: None,
            local: (String::new(), String::new()),
            candidates,
            remote: (String::new(), String::new()),
            begun: false,
            nominated: None,
            consent: None,
            dtls: StepState::New,
            dtls_begun: false,
            role: DtlsRole::Passive,
            fingerprint: None,
            identity,
            keys: None,
            profile: None,
        }
    }

    /// Another agent under fresh credentials; the pair in use stays until there is a better one.
    pub fn restart(&mut self, settings: &Settings, controlling: bool, random: &mut Random) {
        let ice = Ice::open(settings, Zone::Outside, controlling, random);
        self.local = (ice.ufrag().to_owned(), ice.password().to_owned());
        self.candidates = ice.lines().to_vec();
        self.remote = (String::new(), String::new());
        self.begun = false;
        self.ice = Some(ice);
    }

    /// The browser's parameters, with the first or with later ones.
    pub fn meet(&mut self, ice: &IceParameters) {
        let remote = (ice.ufrag.clone(), ice.password.clone());
        if self.remote != remote
            && let Some(agent) = &mut self.ice
        {
            agent.meet(&ice.ufrag, &ice.password, &ice.candidates);
        } else if let Some(agent) = &mut self.ice {
            for candidate in &ice.candidates {
                agent.add(candidate);
            }
        }
        self.remote = remote;
    }

    /// Whether these are other credentials than before.
    pub fn is_restart(&self, ice: &IceParameters) -> bool {
        !self.remote.0.is_empty() && (self.remote.0 != ice.ufrag || self.remote.1 != ice.password)
    }

    /// Whether the pair in use is the present agent's.
    pub fn is_settled(&self) -> bool {
        self.nominated.is_some()
            && self.consent.as_ref().is_some_and(|consent| consent.local_ufrag == self.local.0)
    }

    /// The certificate and role that the browser has told. Another certificate means another association, in which ours is
    /// `identity`.
    pub fn expect(&mut self, fingerprint: [u8; 32], role: DtlsRole, identity: [u8; 32]) {
        if self.fingerprint != Some(fingerprint) {
            self.fingerprint = Some(fingerprint);
            self.identity = identity;
            self.dtls_begun = false;
            self.dtls = StepState::New;
            self.keys = None;
            self.role = role;
        }
    }

    /// Value of `a=setup` in an answer.
    pub const fn setup(&self) -> &'static str {
        match self.role {
            DtlsRole::Active => "active",
            DtlsRole::Passive => "passive",
        }
    }
}

/// Our role beside what the other one said; `active` where we may choose and are asked to.
pub const fn role(setup: Option<Setup>, active: bool) -> DtlsRole {
    match setup {
        Some(Setup::Passive) => DtlsRole::Active,
        Some(Setup::Active) => DtlsRole::Passive,
        Some(Setup::ActPass) | None => {
            if active {
                DtlsRole::Active
            } else {
                DtlsRole::Passive
            }
        }
    }
}

/// One side.
#[derive(Debug)]
pub struct Side {
    /// Its tag; empty while nobody has answered.
    pub tag: String,
    /// Where it is.
    pub zone: Zone,
    /// How its media is protected.
    pub profile: Profile,
    /// The profile's name in its SDP.
    pub profile_name: String,
    /// Outside only.
    pub outside: Option<Box<Outside>>,
}

impl Side {
    /// A side that has said nothing.
    pub fn new(tag: &str, zone: Zone, profile: Profile, profile_name: &str) -> Self {
        Self { tag: tag.to_owned(), zone, profile, profile_name: profile_name.to_owned(), outside: None }
    }

    /// The pair in use.
    pub fn nominated(&self) -> Option<FlowKey> {
        self.outside.as_ref()?.nominated
    }

    /// Whether there is a DTLS association.
    pub fn has_dtls(&self) -> bool {
        self.outside.as_ref().is_some_and(|outside| outside.dtls_begun)
    }

    /// When its agent wants to be woken.
    pub fn ice_due(&self) -> Option<Instant> {
        self.outside.as_ref().filter(|outside| outside.begun)?.ice.as_ref()?.due()
    }
}
