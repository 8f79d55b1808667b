//! Offers and answers on their way from one side to the other.

use std::net::IpAddr;
use std::time::Instant;

use sallyport_plan::Zone;

use super::super::emit::{LocalIce, Shown, emit};
use super::super::flags::{DtlsChoice, Flags, IceChoice, Profile, Protection};
use super::super::peer::{Format, Head, Peer};
use super::super::request::{Request, Verb};
use super::super::sdp::Sdp;
use super::side::{Keys, Outside, Side, role};
use super::{Bridge, BridgeSettings, Offered, Waiting};
use crate::api::Command;
use crate::random::{Random, Seed};
use crate::relayed::Relayed;
use crate::sdp::Crypto;

/// Where both sides are and how their media is protected.
///
/// # Errors
/// `error-reason` for what is not carried.
pub fn sides(
    options: &BridgeSettings,
    request: &Request,
    peer: &Peer,
    random: &mut Random,
) -> Result<[Side; 2], String> {
    let flags = &request.flags;
    let named = |at: usize| flags.direction.get(at).and_then(|name| zone(options, name));
    let wanted = wanted_profile(flags, peer.profile, named(1));
    let profiles = [peer.profile, wanted];
    for (at, profile) in profiles.into_iter().enumerate() {
        let zone = zone_of(profile);
        if named(at).is_some_and(|named| named != zone) {
            return Err(match zone {
                Zone::Outside => "The internal interface carries no DTLS-SRTP".into(),
                Zone::Inside => "The external interface carries ICE and DTLS-SRTP only".into(),
            });
        }
    }
    if profiles.iter().all(|profile| profile.protection == Protection::Dtls) {
        return Err("Both sides are WebRTC: one of them has to be RTP/AVP or RTP/SAVP".into());
    }
    // Both are about what we offer; the offerer has what it offered.
    if wanted.protection == Protection::Dtls && flags.dtls == DtlsChoice::Off {
        return Err("DTLS is off, but the other side cannot do without".into());
    }
    let name =
        flags.profile.map_or(wanted, |profile| Profile { feedback: profile.feedback, ..profile }).name();
    let one = Side::new(&request.from_tag, zone_of(peer.profile), peer.profile, peer.profile_name(), random);
    let other =
        Side::new(request.to_tag.as_deref().unwrap_or_default(), zone_of(wanted), wanted, name, random);
    Ok([one, other])
}

/// What the other side is offered. `RTP/SAVPF` is the old name for a browser's profile: with ICE it means DTLS.
fn wanted_profile(flags: &Flags, offered: Profile, named: Option<Zone>) -> Profile {
    let wanted = flags.profile.unwrap_or(offered);
    let browser = flags.ice == IceChoice::Force || flags.sdes.off || named == Some(Zone::Outside);
    match wanted.protection {
        Protection::Sdes if browser => Profile { protection: Protection::Dtls, ..wanted },
        _ => wanted,
    }
}

const fn zone_of(profile: Profile) -> Zone {
    match profile.protection {
        Protection::Dtls => Zone::Outside,
        Protection::Plain | Protection::Sdes => Zone::Inside,
    }
}

/// The zone of a named interface.
fn zone(options: &BridgeSettings, name: &str) -> Option<Zone> {
    let is = |names: &[String]| names.iter().any(|own| own.eq_ignore_ascii_case(name));
    if is(&options.external) { Some(Zone::Outside) } else { is(&options.internal).then_some(Zone::Inside) }
}

/// Takes out the codecs that are not to pass.
///
/// # Errors
/// `error-reason` where none is left.
pub fn strip(peer: &mut Peer, flags: &Flags) -> Result<(), String> {
    peer.formats.retain(|format| flags.codec.keeps(&format.name));
    let sound = peer.formats.iter().any(|format| {
        let name = format.name.to_ascii_lowercase();
        !name.starts_with("telephone-event/") && !name.starts_with("cn/")
    });
    if sound || peer.refused { Ok(()) } else { Err("No codec is left".into()) }
}

impl Bridge {
    /// How many port pairs, and of which family.
    pub(super) fn wanted_ports(&self, peer: &Peer, flags: &Flags) -> Result<(IpAddr, u8), String> {
        let any = |ipv4: bool| if ipv4 { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([0; 16]) };
        let default = self.settings.toward;
        let offerer = peer.rtp.map_or(default, |rtp| rtp.ip());
        let other = flags.ipv4.map(any);
        match (self.sides[0].zone, self.sides[1].zone) {
            (Zone::Inside, Zone::Outside) => Ok((offerer, 1)),
            (Zone::Outside, _) => Ok((other.unwrap_or(default), 1)),
            (Zone::Inside, Zone::Inside) => {
                if other.is_some_and(|other| other.is_ipv4() != offerer.is_ipv4()) {
                    return Err("Both sides inside have to use one address family".into());
                }
                Ok((offerer, 2))
            }
        }
    }

    /// Whether what a side says can be carried.
    pub(super) fn check(&self, at: usize, peer: &Peer) -> Result<(), String> {
        let side = &self.sides[at];
        if peer.refused {
            return Ok(());
        }
        if peer.profile.protection != side.profile.protection {
            return Err(format!(
                "Transport protocol {} does not fit {}",
                peer.profile_name(),
                side.profile.name()
            ));
        }
        match side.profile.protection {
            Protection::Dtls if peer.ice.is_none() => Err("No usable a=ice-ufrag and a=ice-pwd".into()),
            Protection::Dtls if peer.fingerprint.is_none() => {
                Err("No usable a=fingerprint: sha-256 is needed".into())
            }
            Protection::Dtls if !peer.mux => Err("No a=rtcp-mux: the external interface has one port".into()),
            Protection::Sdes if peer.crypto.is_empty() => Err("No usable a=crypto".into()),
            Protection::Dtls => Ok(()),
            Protection::Sdes | Protection::Plain => {
                let fits = match (peer.rtp, side.ports) {
                    (Some(rtp), Some(ports)) => rtp.is_ipv4() == ports.rtp.is_ipv4(),
                    _ => true,
                };
                if fits { Ok(()) } else { Err("Address family differs from that of our ports".into()) }
            }
        }
    }

    /// Whether an offer can go on where an earlier one was not answered: what comes next may be of another kind, as after
    /// a refused branch. Broken ones go on and are told why.
    pub fn fits(&self, request: &Request) -> bool {
        let offers_again =
            request.verb == Verb::Offer && !self.answered && request.from_tag == self.sides[0].tag;
        if !offers_again || self.waiting.is_some() {
            return true;
        }
        let Ok(peer) = Sdp::parse(&request.sdp).and_then(|sdp| Peer::read(&sdp, &request.flags)) else {
            return true;
        };
        let mut random = Random::new(Seed([0; 32]));
        let wanted = sides(&self.options, request, &peer, &mut random);
        wanted.is_ok_and(|wanted| {
            wanted.iter().zip(&self.sides).all(|(new, old)| new.profile.protection == old.profile.protection)
        })
    }

    /// Who makes a later offer.
    fn offerer(&self, request: &Request) -> usize {
        let [one, other] = &self.sides;
        // An offerer that nobody knows is the one who has not spoken yet.
        usize::from(request.from_tag != one.tag && (request.from_tag == other.tag || other.tag.is_empty()))
    }

    /// A later offer.
    pub(super) fn offer(&mut self, request: &Request) -> Result<(), String> {
        let by = self.offerer(request);
        let sdp = Sdp::parse(&request.sdp)?;
        let mut peer = Peer::read(&sdp, &request.flags)?;
        strip(&mut peer, &request.flags)?;
        self.check(by, &peer)?;
        if self.sides[by].tag.is_empty() {
            self.sides[by].tag.clone_from(&request.from_tag);
        }
        let former = self.offered.replace(Offered { by, sdp, peer, flags: request.flags.clone() });
        match self.show_offer() {
            Ok(text) => {
                self.commands.push_back(Command::Answer(text));
                Ok(())
            }
            Err(reason) => {
                self.offered = former;
                Err(reason)
            }
        }
    }

    /// The offer as the other side is to see it.
    pub(super) fn show_offer(&mut self) -> Result<String, String> {
        let Some(offered) = &self.offered else { return Err("There is no offer".into()) };
        let Offered { by, sdp, peer, flags } = offered;
        let side = &mut self.sides[1 - by];
        let outside = side.zone == Zone::Outside;
        if outside && side.outside.is_none() {
            // The offerer controls (RFC 8445 section 6.1.1).
            let controlling = !self.settings.ice_lite;
            side.outside = Some(Box::new(Outside::new(&self.settings, controlling, &mut self.random)));
        }
        if side.profile.protection == Protection::Sdes && side.crypto.is_empty() {
            side.crypto = Crypto::offer(|suite| flags.sdes.allows(suite), &mut self.random);
            if side.crypto.is_empty() {
                return Err("No SDES suite is left".into());
            }
        }
        if outside || flags.generate_mid {
            let name = || peer.mid().unwrap_or("0").to_owned();
            side.mid.get_or_insert_with(name);
        }
        side.mux_offered = outside
            || flags.mux.offer
            || flags.mux.require
            || (peer.mux && !flags.mux.demux && !flags.mux.reject);
        let heads: Vec<Head> = peer.heads.iter().cloned().map(|head| Head { mid: None, ..head }).collect();
        let setup = |_: &Outside| "actpass";
        let parts = Parts {
            heads: &heads,
            audio: peer.audio,
            from: peer,
            mux: side.mux_offered,
            mux_only: flags.mux.require,
            bundle: true,
            name: None,
        };
        Ok(show(side, sdp, &parts, flags, setup))
    }

    /// An answer.
    pub(super) fn answer(&mut self, request: &Request, now: Instant) -> Result<(), String> {
        let by = self.offered.as_ref().ok_or("There is no offer to answer")?.by;
        let sdp = Sdp::parse(&request.sdp)?;
        let mut peer = Peer::read(&sdp, &request.flags)?;
        strip(&mut peer, &request.flags)?;
        self.check(1 - by, &peer)?;
        if let Some(tag) = &request.to_tag {
            self.sides[1 - by].tag.clone_from(tag);
        }
        if !peer.refused {
            self.agree(by, &peer, &request.flags)?;
        }
        let text = self.show_answer(by, &sdp, &peer, &request.flags);
        self.answered = true;
        // Should the plan be refused, the end of the call tells so.
        self.waiting = Some(Waiting::Plan(u32::MAX, text.clone()));
        if !peer.refused {
            self.begin_ice(now);
            self.replan(now);
        }
        if self.cause.is_some() {
            return Ok(());
        }
        // Inside there is nothing to wait for but the relay; a browser needs the answer to find its path first.
        let Relayed { sent, in_flight, stale, .. } = self.relayed;
        if self.is_plain() && in_flight {
            self.waiting = Some(Waiting::Plan(sent + u32::from(stale), text));
        } else {
            self.waiting = None;
            self.commands.push_back(Command::Answer(text));
        }
        Ok(())
    }

    /// Both sides have spoken: what they said holds from now on.
    fn agree(&mut self, by: usize, answer: &Peer, flags: &Flags) -> Result<(), String> {
        let Some(offered) = &self.offered else { return Err("There is no offer".into()) };
        let (offer, theirs) = (offered.peer.clone(), offered.flags.clone());
        self.agree_keys(by, &offer, answer)?;
        let passes =
            theirs.mux.accept || theirs.mux.demux || theirs.mux.require || flags.mux.accept || answer.mux;
        let other_outside = self.sides[1 - by].zone == Zone::Outside;
        let reject = theirs.mux.reject || flags.mux.reject;
        let active = [theirs.dtls, flags.dtls].contains(&DtlsChoice::Active);
        let one = &mut self.sides[by];
        one.mux = one.zone == Zone::Outside || (offer.mux && !reject && (passes || other_outside));
        one.mid = offer.mid().map(str::to_owned).or(one.mid.take());
        let other = &mut self.sides[1 - by];
        other.mux = other.zone == Zone::Outside || (other.mux_offered && answer.mux);
        for (at, peer) in [(by, offer), (1 - by, answer.clone())] {
            self.settle(at, peer, at == by && active);
        }
        Ok(())
    }

    fn agree_keys(&mut self, by: usize, offer: &Peer, answer: &Peer) -> Result<(), String> {
        let other = &self.sides[1 - by];
        if other.profile.protection == Protection::Sdes {
            let matching = answer.crypto.iter().find_map(|theirs| {
                let same =
                    |ours: &&Crypto| ours.tag == theirs.tag && ours.key.profile() == theirs.key.profile();
                let ours = other.crypto.iter().find(same)?;
                Some(Keys { receive: theirs.key.clone(), send: ours.key.clone() })
            });
            let keys = matching.ok_or("The answer's a=crypto is none of those offered")?;
            self.sides[1 - by].sdes = Some(keys);
        }
        let one = &mut self.sides[by];
        if one.profile.protection == Protection::Sdes {
            let theirs = offer.crypto.first().ok_or("No usable a=crypto")?;
            let same = |ours: &&Crypto| ours.tag == theirs.tag && ours.key.profile() == theirs.key.profile();
            let ours = one.crypto.iter().find(same).cloned();
            let ours = ours.or_else(|| Crypto::fresh(theirs.tag, theirs.key.profile(), &mut self.random));
            let ours = ours.ok_or("No usable a=crypto")?;
            one.sdes = Some(Keys { receive: theirs.key.clone(), send: ours.key.clone() });
            one.crypto = vec![ours];
        }
        Ok(())
    }

    /// Takes over what a side said; `active`: we send the ClientHello where it lets us choose.
    fn settle(&mut self, at: usize, mut peer: Peer, active: bool) {
        let side = &mut self.sides[at];
        if let Some(former) = &side.peer
            && peer.rtp.is_none()
        {
            // On hold without an address: packets of before are still its own.
            (peer.rtp, peer.rtcp) = (former.rtp, former.rtcp);
        }
        if side.zone == Zone::Outside {
            let outside = side
                .outside
                .get_or_insert_with(|| Box::new(Outside::new(&self.settings, false, &mut self.random)));
            if let Some(ice) = &peer.ice {
                let restarted =
                    outside.is_restart(ice) && self.offered.as_ref().is_some_and(|offered| offered.by == at);
                if restarted {
                    outside.restart(&self.settings, ice.lite && !self.settings.ice_lite, &mut self.random);
                }
                outside.meet(ice);
            }
            if let Some(fingerprint) = peer.fingerprint {
                outside.expect(fingerprint, role(peer.setup, active), self.settings.fingerprint);
            }
        }
        side.peer = Some(peer);
    }

    /// The answer as the offerer is to see it.
    fn show_answer(&self, by: usize, sdp: &Sdp, peer: &Peer, flags: &Flags) -> String {
        let side = &self.sides[by];
        let Some(offered) = &self.offered else { return String::new() };
        let parts = Parts {
            heads: &offered.peer.heads,
            audio: offered.peer.audio,
            from: peer,
            mux: side.mux,
            mux_only: side.mux,
            bundle: offered.peer.bundled,
            // An answer has the offer's own.
            name: Some(offered.peer.profile_name()),
        };
        show(side, sdp, &parts, flags, Outside::setup)
    }
}

/// What differs between offers and answers.
struct Parts<'a> {
    heads: &'a [Head],
    audio: usize,
    from: &'a Peer,
    mux: bool,
    mux_only: bool,
    bundle: bool,
    name: Option<&'a str>,
}

fn show(
    side: &Side,
    sdp: &Sdp,
    parts: &Parts<'_>,
    flags: &Flags,
    setup: impl Fn(&Outside) -> &'static str,
) -> String {
    let ice = side.outside.as_deref().map(|outside| LocalIce {
        ufrag: &outside.local.0,
        password: &outside.local.1,
        candidates: &outside.candidates,
        lite: outside.ice.as_ref().is_some_and(crate::call::ice::Ice::is_lite),
        fingerprint: &outside.identity,
        setup: setup(outside),
        ssrc: side.ssrc,
        bundle: parts.bundle,
    });
    let first = side.outside.as_deref().and_then(|outside| address(outside.candidates.first()?));
    let ports = side.ports.map(|ports| (ports.rtp, ports.rtcp)).or_else(|| first.map(|at| (at, at)));
    let formats: Vec<&Format> = parts.from.formats.iter().collect();
    emit(
        sdp,
        parts.from.audio,
        &Shown {
            heads: parts.heads,
            audio: parts.audio,
            refused: parts.from.refused,
            profile: side.profile,
            profile_name: parts.name.unwrap_or(&side.profile_name),
            ports,
            mux: parts.mux,
            own_rtcp: side.zone == Zone::Inside && !parts.mux_only,
            no_rtcp: flags.no_rtcp_attribute,
            formats: &formats,
            direction: parts.from.direction,
            ice,
            crypto: &side.crypto,
            mid: side.mid.as_deref(),
            replace: flags.replace,
        },
    )
}

/// Address and port of a candidate.
fn address(candidate: &str) -> Option<std::net::SocketAddr> {
    let words: Vec<&str> = candidate.split(' ').collect();
    Some(std::net::SocketAddr::new(words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?))
}
