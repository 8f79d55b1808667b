//! One side of a bridge.

use std::net::SocketAddr;
use std::time::Instant;

use sallyport_plan::{
    Consent, FlowKey, KeyMaterial, PortPair, Profile as SrtpProfile, Protection as Seal, Zone,
};

use super::super::flags::{Profile, Protection};
use super::super::peer::{IceParameters, Peer};
use crate::api::{DtlsRole, StepState};
use crate::call::ice::Ice;
use crate::random::Random;
use crate::sdp::{Crypto, Setup};
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
    /// The stream that we send it.
    pub ssrc: u32,
    /// Our ports for it, inside.
    pub ports: Option<PortPair>,
    /// What it said last and both agreed on.
    pub peer: Option<Peer>,
    /// RTP and RTCP on one port.
    pub mux: bool,
    /// Whether we offered that.
    pub mux_offered: bool,
    /// Name of its audio section.
    pub mid: Option<String>,
    /// Outside only.
    pub outside: Option<Box<Outside>>,
    /// Keys that we offered it, or answered with.
    pub crypto: Vec<Crypto>,
    /// Keys in use from the SDP.
    pub sdes: Option<Keys>,
}

impl Side {
    /// A side that has said nothing.
    pub fn new(tag: &str, zone: Zone, profile: Profile, profile_name: &str, random: &mut Random) -> Self {
        Self {
            tag: tag.to_owned(),
            zone,
            profile,
            profile_name: profile_name.to_owned(),
            ssrc: random.u32(),
            ports: None,
            peer: None,
            mux: false,
            mux_offered: false,
            mid: None,
            outside: None,
            crypto: Vec::new(),
            sdes: None,
        }
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

    /// Where its RTP and RTCP go.
    pub fn remote(&self) -> Option<(SocketAddr, SocketAddr)> {
        if let Some(flow) = self.nominated() {
            return Some((flow.remote, flow.remote));
        }
        let peer = self.peer.as_ref()?;
        let rtp = peer.rtp?;
        Some((rtp, if self.mux { rtp } else { peer.rtcp? }))
    }

    /// Flows of its RTP and RTCP; `None` while there is no path.
    pub fn flows(&self) -> Option<(FlowKey, FlowKey)> {
        if self.zone == Zone::Outside {
            return self.nominated().map(|flow| (flow, flow));
        }
        let (ports, (rtp, rtcp)) = (self.ports?, self.remote()?);
        let flow = |local, remote| FlowKey { zone: Zone::Inside, local, remote };
        let first = flow(ports.rtp, rtp);
        Some((first, if self.mux { first } else { flow(ports.rtcp, rtcp) }))
    }

    /// How packets come from it and go to it; `None` before there are keys.
    pub fn protections(&self) -> (Option<Seal>, Option<Seal>) {
        let keys = match self.profile.protection {
            Protection::Plain => return (Some(Seal::Plain), Some(Seal::Plain)),
            Protection::Sdes => self.sdes.as_ref(),
            Protection::Dtls => self.outside.as_ref().and_then(|outside| outside.keys.as_ref()),
        };
        let seal = |key: &KeyMaterial| Seal::Srtp(key.clone());
        (keys.map(|keys| seal(&keys.receive)), keys.map(|keys| seal(&keys.send)))
    }
}
