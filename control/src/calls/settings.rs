//! What calls begun now share: our addresses, our side of SIP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport_plan::{Status, Zone};
use sallyport_proto::sdp::Kind;
use sallyport_proto::{
    Assertion, CandidateKind, Dtmf, LocalCandidate, Policy, Settings, SipSettings, Srtp, Timeouts,
};

use super::Calls;
use crate::config::{self, DtmfMode, Ice, Identity, Redirect, Transport};

impl Calls {
    /// What all calls begun now share.
    pub(super) fn settings(&self, status: &Status) -> Arc<Settings> {
        let config = &self.config;
        // Without a server we are our own.
        let server = self.sip.toward().unwrap_or(self.sip.local());
        let domain = self.sip_domain();
        let contact = format!("sip:{}@{}", config.sip.user, self.sip_place());
        Arc::new(Settings {
            candidates: self.candidates(status),
            own: own(status, self.sip.local()),
            ice_lite: config.outside.ice == Ice::Lite,
            fingerprint: self.identity.fingerprint(),
            toward: server.ip(),
            video: config.sip.video,
            sip: SipSettings {
                domain,
                user: config.sip.user.clone(),
                password: config.sip.password.clone(),
                display_name: config.sip.display_name.clone(),
                contact,
                user_agent: concat!("sallyport/", env!("CARGO_PKG_VERSION")).into(),
                policy: Policy {
                    follow_redirects: config.sip.redirect == Redirect::Follow,
                    trust_identity: config.sip.trust_identity,
                    assert_identity: match config.sip.assert_identity {
                        Identity::None => Assertion::None,
                        Identity::Asserted => Assertion::Asserted,
                        Identity::Preferred => Assertion::Preferred,
                    },
                    pass_headers: config.sip.pass_headers.clone(),
                    info_types: config.sip.pass_types.clone(),
                    // What cannot be read was refused when the configuration was.
                    codecs: config.sip.spoken().unwrap_or_else(|_| Kind::SPOKEN.to_vec()),
                    audio_level: config.sip.audio_level,
                    dtmf: match config.sip.dtmf {
                        DtmfMode::Auto => Dtmf::Auto,
                        DtmfMode::Rfc4733 => Dtmf::Rfc4733,
                        DtmfMode::Info => Dtmf::Info,
                        DtmfMode::Both => Dtmf::Both,
                    },
                    srtp: match config.inside.srtp {
                        config::Srtp::Off => Srtp::Off,
                        config::Srtp::Optional => Srtp::Optional,
                        config::Srtp::Required => Srtp::Required,
                    },
                    strict_source: config.inside.strict_source,
                },
            },
            recording: config.recording.settings(),
            timeouts: Timeouts {
                ring: Duration::from_secs(config.sip.ring_timeout_s.into()),
                ..Timeouts::default()
            },
        })
    }

    /// Host part of our URIs. Without a server we are our own.
    pub(super) fn sip_domain(&self) -> String {
        let sip = &self.config.sip;
        let named = sip.domain.is_empty().then(|| sip.domain_of_server()).flatten();
        match named {
            Some(name) => name,
            None if sip.domain.is_empty() => host(self.sip.toward().unwrap_or(self.sip.local())),
            None => sip.domain.clone(),
        }
    }

    /// Where SIP finds us: host, port and transport of our Contact.
    pub(super) fn sip_place(&self) -> String {
        let kind = self.config.sip.transport();
        let transport = match kind {
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
            _ => "",
        };
        format!("{}{transport}", self.sip.local_by(kind))
    }

    /// Where browsers may reach us: what the Internet sees first.
    pub(super) fn candidates(&self, status: &Status) -> Vec<LocalCandidate> {
        let mut found = Vec::new();
        for base in media(status) {
            let advertised =
                self.config.outside.advertised.iter().filter(|ip| ip.is_ipv4() == base.is_ipv4());
            found.extend(advertised.map(|ip| LocalCandidate {
                address: SocketAddr::new(*ip, base.port()),
                base,
                kind: CandidateKind::Advertised,
                zone: Zone::Outside,
                tcp: false,
            }));
        }
        let seen = self.stun.mapped().filter(|(base, address)| base != address);
        let known = |address: &SocketAddr| found.iter().any(|have: &LocalCandidate| have.address == *address);
        let fresh: Vec<_> = seen.filter(|(_, address)| !known(address)).collect();
        found.extend(fresh.into_iter().map(|(base, address)| LocalCandidate {
            address,
            base,
            kind: CandidateKind::ServerReflexive,
            zone: Zone::Outside,
            tcp: false,
        }));
        let host =
            |zone, base| LocalCandidate { address: base, base, kind: CandidateKind::Host, zone, tcp: false };
        found.extend(media(status).into_iter().map(|base| host(Zone::Outside, base)));
        found.extend(inside(status).into_iter().map(|base| host(Zone::Inside, base)));
        // A STUN server tells how UDP looks from outside; of TCP only a fixed translation is known.
        for base in connectable(status) {
            let own = LocalCandidate { tcp: true, ..host(Zone::Outside, base) };
            let advertised = self.config.outside.advertised.iter();
            let advertised = advertised.filter(|ip| ip.is_ipv4() == base.is_ipv4());
            found.extend(advertised.map(|ip| LocalCandidate {
                address: SocketAddr::new(*ip, base.port()),
                kind: CandidateKind::Advertised,
                ..own
            }));
            found.push(own);
        }
        found
    }

    /// Begins to ask the STUN server, where there is one and a relay to ask through.
    pub(super) fn ask_stun(&mut self) {
        if let Some(status) = &self.status {
            self.stun.ask(&media(status), Instant::now());
        }
    }
}

/// Our media addresses outside, with the one port.
fn media(status: &Status) -> Vec<SocketAddr> {
    let outside = status.interfaces.iter().filter(|interface| interface.zone == Zone::Outside);
    outside
        .flat_map(|interface| interface.addresses.iter().map(|ip| SocketAddr::new(*ip, interface.port_min)))
        .collect()
}

/// Our media addresses outside with the TCP port, where the relay has one.
fn connectable(status: &Status) -> Vec<SocketAddr> {
    let outside = status.interfaces.iter().filter(|interface| interface.zone == Zone::Outside);
    let ported = outside.filter_map(|interface| Some((interface, interface.tcp?)));
    ported
        .flat_map(|(interface, port)| interface.addresses.iter().map(move |ip| SocketAddr::new(*ip, port)))
        .collect()
}

/// Our media addresses for browsers inside, where the relay serves them.
fn inside(status: &Status) -> Vec<SocketAddr> {
    let interfaces = status.interfaces.iter().filter(|interface| interface.zone == Zone::Inside);
    let ported = interfaces.filter_map(|interface| Some((interface, interface.browsers?)));
    ported
        .flat_map(|(interface, port)| interface.addresses.iter().map(move |ip| SocketAddr::new(*ip, port)))
        .collect()
}

/// Addresses that no browser has: ours of both sides.
pub(super) fn own(status: &Status, sip: SocketAddr) -> Vec<IpAddr> {
    let all = status.interfaces.iter().flat_map(|interface| interface.addresses.iter().copied());
    all.chain([sip.ip()]).collect()
}

/// A host part for a URI.
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}
