//! Offers and answers on their way from one side to the other.

use std::net::IpAddr;
use std::time::Instant;

use sallyport_plan::{Medium, Zone};

use super::super::emit::{LocalIce, Shown, ShownSection, emit};
use super::super::flags::{DtlsChoice, Flags, IceChoice, Profile, Protection};
use super::super::peer::{Format, Head, Peer, Said};
use super::super::request::{Request, Verb};
use super::super::sdp::Sdp;
use super::section::Section;
use super::side::{Outside, Side, role};
use super::{Bridge, BridgeSettings, Offered, SECTIONS_MAX, Waiting};
use crate::api::Command;
use crate::relayed::Relayed;
use crate::sdp::ChosenVideo;

/// Where both sides are and how their media is protected.
///
/// # Errors
/// `error-reason` for what is not carried.
pub fn sides(options: &BridgeSettings, request: &Request, peer: &Peer) -> Result<[Side; 2], String> {
    let flags = &request.flags;
    let refused = "All sections are refused: nothing is carried";
    let (main, offered) = peer.main.zip(peer.first().map(|said| said.profile)).ok_or(refused)?;
    let named = |at: usize| flags.direction.get(at).and_then(|name| zone(options, name));
    let wanted = wanted_profile(flags, offered, named(1));
    let profiles = [offered, wanted];
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
    let one = Side::new(&request.from_tag, zone_of(offered), offered, peer.profile_name(main));
    let other = Side::new(request.to_tag.as_deref().unwrap_or_default(), zone_of(wanted), wanted, name);
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

/// Takes out the codecs that are not to pass; a section that has none left counts as refused.
///
/// # Errors
/// `error-reason` where the main section has none left.
pub fn strip(peer: &mut Peer, flags: &Flags) -> Result<(), String> {
    for (at, slot) in peer.said.iter_mut().enumerate() {
        let Some(said) = slot else { continue };
        for formats in [&mut said.formats, &mut said.film] {
            formats.retain(|format| flags.codec.keeps(&format.name));
        }
        let left = said.formats.iter().any(|format| {
            let name = format.name.to_ascii_lowercase();
            !name.starts_with("telephone-event/") && !name.starts_with("cn/")
        });
        if !left && peer.main == Some(at) {
            return Err("No codec is left".into());
        }
        slot.take_if(|_| !left);
    }
    Ok(())
}

/// Keeps the sections that pass; of one that does not the others still do, unless it is the main one.
fn keep(peer: &mut Peer, mut passes: impl FnMut(usize, &Said) -> Result<(), String>) -> Result<(), String> {
    for at in 0..peer.said.len() {
        match peer.at(at).map_or(Ok(()), |said| passes(at, said)) {
            Err(reason) if peer.main == Some(at) => return Err(reason),
            Err(_) => peer.said[at] = None,
            Ok(()) => {}
        }
    }
    Ok(())
}

impl Bridge {
    /// How many port pairs the sections of an offer need yet, and of which family.
    pub(super) fn wanted_ports(&self, peer: &Peer, flags: &Flags) -> Result<(IpAddr, u8), String> {
        let offered = self.sections.iter().filter(|section| peer.at(section.at).is_some());
        let pairs = offered.map(|section| section.lacks_ports(&self.sides)).sum();
        let ends = self.sections.iter().flat_map(|section| &section.ends);
        if let Some(ports) = ends.filter_map(|end| end.ports).next() {
            return Ok((ports.rtp.ip(), pairs));
        }
        let any = |ipv4: bool| if ipv4 { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([0; 16]) };
        let default = self.settings.toward;
        let offerer = peer.first().and_then(|said| said.rtp).map_or(default, |rtp| rtp.ip());
        let other = flags.ipv4.map(any);
        match (self.sides[0].zone, self.sides[1].zone) {
            (Zone::Inside, Zone::Outside) => Ok((offerer, pairs)),
            (Zone::Outside, _) => Ok((other.unwrap_or(default), pairs)),
            (Zone::Inside, Zone::Inside) => {
                if other.is_some_and(|other| other.is_ipv4() != offerer.is_ipv4()) {
                    return Err("Both sides inside have to use one address family".into());
                }
                Ok((offerer, pairs))
            }
        }
    }

    /// Whether what a side says can be carried.
    pub(super) fn check(&self, at: usize, peer: &mut Peer) -> Result<(), String> {
        if peer.main.is_none() {
            return Ok(());
        }
        let side = &self.sides[at];
        let names: Vec<String> = peer.heads.iter().map(|head| head.profile.clone()).collect();
        let (main, ice, certified) = (peer.main, peer.ice.is_some(), peer.fingerprint.is_some());
        keep(peer, |place, said| {
            let known = self.sections.iter().find(|section| section.at == place);
            if known.is_some_and(|section| section.medium != said.medium) {
                return Err("A section has become another's".into());
            }
            if said.profile.protection != side.profile.protection {
                let name = names.get(place).map(String::as_str).unwrap_or_default();
                return Err(format!("Transport protocol {name} does not fit {}", side.profile.name()));
            }
            match side.profile.protection {
                Protection::Dtls if !ice => Err("No usable a=ice-ufrag and a=ice-pwd".into()),
                Protection::Dtls if !certified => Err("No usable a=fingerprint: sha-256 is needed".into()),
                Protection::Dtls if !said.mux => {
                    Err("No a=rtcp-mux: the external interface has one port".into())
                }
                Protection::Dtls if main != Some(place) && !said.bundled => Err("No BUNDLE".into()),
                Protection::Sdes if said.crypto.is_empty() => Err("No usable a=crypto".into()),
                Protection::Dtls => Ok(()),
                Protection::Sdes | Protection::Plain => self.fits_ports((place, at), said),
            }
        })
    }

    fn fits_ports(&self, (place, at): (usize, usize), said: &Said) -> Result<(), String> {
        let section = self.sections.iter().find(|section| section.at == place);
        let fits = match (said.rtp, section.and_then(|section| section.ends[at].ports)) {
            (Some(rtp), Some(ports)) => rtp.is_ipv4() == ports.rtp.is_ipv4(),
            _ => true,
        };
        if fits { Ok(()) } else { Err("Address family differs from that of our ports".into()) }
    }

    /// Sections that an offer has for the first time get a place here. Between a browser and telephony there is one sound and one
    /// picture: payload types are all that tells what comes by the one path.
    pub(super) fn take_up(&mut self, peer: &mut Peer) -> Result<(), String> {
        let Self { sections, sides, settings, random, .. } = self;
        let browser = sides.iter().any(|side| side.zone == Zone::Outside);
        keep(peer, |at, said| {
            if browser && said.medium == Medium::Video && said.film.is_empty() {
                return Err("No codec is left".into());
            }
            if sections.iter().any(|section| section.at == at) {
                return Ok(());
            }
            let full = sections.len() >= SECTIONS_MAX || (said.medium == Medium::Video && !settings.video);
            if full || (browser && sections.iter().any(|section| section.medium == said.medium)) {
                return Err("No more sections are carried".into());
            }
            sections.push(Section::new(at, said.medium, random));
            Ok(())
        })
    }

    /// Whether an offer can go on where an earlier one was not answered: what comes next may be of another kind, as after
    /// a refused branch. Broken ones go on and are told why.
    pub fn fits(&self, request: &Request) -> bool {
        let offers_again =
            request.verb == Verb::Offer && !self.answered && request.from_tag == self.sides[0].tag;
        if !offers_again || self.waiting.is_some() {
            return true;
        }
        let read = Sdp::parse(&request.sdp).and_then(|sdp| Peer::read(&sdp, &request.flags));
        let Some(peer) = read.ok().filter(|peer| peer.main.is_some()) else { return true };
        let wanted = sides(&self.options, request, &peer);
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
    pub(super) fn offer(&mut self, request: &Request, now: Instant) -> Result<(), String> {
        let by = self.offerer(request);
        let sdp = Sdp::parse(&request.sdp)?;
        let mut peer = Peer::read(&sdp, &request.flags)?;
        strip(&mut peer, &request.flags)?;
        self.check(by, &mut peer)?;
        self.take_up(&mut peer)?;
        let (toward, pairs) = self.wanted_ports(&peer, &request.flags)?;
        if self.sides[by].tag.is_empty() {
            self.sides[by].tag.clone_from(&request.from_tag);
        }
        let former = self.offered.replace(Offered { by, sdp, peer, flags: request.flags.clone() });
        if pairs > 0 && !self.relayed.away {
            self.waiting = Some(Waiting::Ports);
            self.deadlines.relay = Some(now + self.settings.timeouts.relay);
            self.commands.push_back(Command::Reserve { toward, pairs });
            return Ok(());
        }
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
        let offered = self.offered.take().ok_or("There is no offer")?;
        let shown = self.prepare(&offered).map(|()| self.shown_offer(&offered));
        self.offered = Some(offered);
        shown
    }

    fn prepare(&mut self, offered: &Offered) -> Result<(), String> {
        let Offered { by, peer, flags, .. } = offered;
        let to = 1 - by;
        let Self { sections, sides, settings, random, .. } = self;
        let outside = sides[to].zone == Zone::Outside;
        if outside && sides[to].outside.is_none() {
            // The offerer controls (RFC 8445 section 6.1.1).
            let controlling = !settings.ice_lite;
            sides[to].outside = Some(Box::new(Outside::new(settings, controlling, random)));
        }
        // What the browser has for its picture its sound cannot have, nor the other way round.
        let mut taken: Vec<u8> = Vec::new();
        for section in sections.iter().filter(|section| section.medium == Medium::Video) {
            let formats = section.ends[to].said.iter().flat_map(|said| &said.formats);
            taken.extend(formats.flat_map(|format| [Some(format.payload_type), format.rtx]).flatten());
        }
        let mut sound = Vec::new();
        for medium in [Medium::Audio, Medium::Video] {
            for section in sections.iter_mut().filter(|section| section.medium == medium) {
                let Some(said) = peer.at(section.at).filter(|_| section.has_ports(sides)) else { continue };
                section.offer(to, (peer, said), (sides, flags), &taken, random)?;
                if medium == Medium::Audio {
                    sound.extend(section.numbers(&said.formats, outside).iter().map(|(_, number)| *number));
                }
            }
            taken.clone_from(&sound);
        }
        let film = outside && sections.iter().any(|section| !section.offered().is_empty());
        for section in sections.iter_mut() {
            let numbers = if section.medium == Medium::Audio { sound.as_slice() } else { &[] };
            section.offer_extensions(to, numbers, film);
        }
        Ok(())
    }

    fn shown_offer(&self, offered: &Offered) -> String {
        let Offered { by, sdp, peer, flags } = offered;
        let side = &self.sides[1 - by];
        let heads: Vec<Head> = peer.heads.iter().cloned().map(|head| Head { mid: None, ..head }).collect();
        let section = |at: usize| {
            let said = peer.at(at)?;
            let section = self.sections.iter().find(|section| section.at == at)?;
            let end = &section.ends[1 - by];
            let shown = self.section(section, 1 - by, said).filter(|_| section.has_ports(&self.sides))?;
            let film = match (shown.film, side.zone) {
                (Some(_), Zone::Outside) => Some(formats(section.offered(), |one| one.outside.clone())),
                (film, _) => film,
            };
            Some(ShownSection {
                profile: end.profile_name.as_deref().unwrap_or(&side.profile_name),
                mux: end.mux_offered,
                own_rtcp: side.zone == Zone::Inside && !flags.mux.require,
                agreed: section.extensions().clone(),
                film,
                ..shown
            })
        };
        let sections = (0..heads.len()).map(section).collect();
        let (no_rtcp, replace) = (flags.no_rtcp_attribute, flags.replace);
        let ice = self.local_ice(side, true, |_| "actpass");
        emit(sdp, &Shown { heads: &heads, sections, ice, no_rtcp, replace })
    }

    /// What offers and answers to side `to` have in common.
    fn section<'a>(&'a self, section: &'a Section, to: usize, said: &Said) -> Option<ShownSection<'a>> {
        let (side, end) = (&self.sides[to], &section.ends[to]);
        let outside = side.zone == Zone::Outside;
        let first = side.outside.as_deref().and_then(|outside| address(outside.candidates.first()?));
        let ports = end.ports.map(|ports| (ports.rtp, ports.rtcp)).or_else(|| first.map(|at| (at, at)));
        let between = outside || self.sides[1 - to].zone == Zone::Outside;
        let film = || said.film.iter().map(|one| Format { rtx: None, ..one.without_sets() }).collect();
        Some(ShownSection {
            profile: &side.profile_name,
            ports: ports?,
            mux: end.mux,
            own_rtcp: side.zone == Zone::Inside && !end.mux,
            formats: section.numbers(&said.formats, outside),
            film: (between && section.medium == Medium::Video).then(film),
            direction: said.direction,
            crypto: if side.profile.protection == Protection::Sdes { &end.crypto } else { &[] },
            mid: end.mid.as_deref(),
            ssrc: (end.ssrc, section.rtx),
            agreed: end.agreed.clone(),
        })
    }

    fn local_ice<'a>(
        &'a self,
        side: &'a Side,
        bundle: bool,
        setup: impl Fn(&Outside) -> &'static str,
    ) -> Option<LocalIce<'a>> {
        let outside = side.outside.as_deref()?;
        let at = self.sides.iter().position(|own| own.zone == Zone::Outside).unwrap_or_default();
        Some(LocalIce {
            ufrag: &outside.local.0,
            password: &outside.local.1,
            candidates: &outside.candidates,
            lite: outside.ice.as_ref().is_some_and(crate::call::ice::Ice::is_lite),
            fingerprint: &outside.identity,
            setup: setup(outside),
            cname: self.sections.first().map_or(0, |section| section.ends[at].ssrc),
            bundle,
        })
    }

    /// An answer.
    pub(super) fn answer(&mut self, request: &Request, now: Instant) -> Result<(), String> {
        let by = self.offered.as_ref().ok_or("There is no offer to answer")?.by;
        let sdp = Sdp::parse(&request.sdp)?;
        let mut peer = Peer::read(&sdp, &request.flags)?;
        strip(&mut peer, &request.flags)?;
        self.check(1 - by, &mut peer)?;
        if let Some(tag) = &request.to_tag {
            self.sides[1 - by].tag.clone_from(tag);
        }
        if let Some(offered) = self.offered.take() {
            let agreed = self.agree(&offered, &mut peer, &request.flags);
            self.offered = Some(offered);
            agreed?;
        }
        let text = self.show_answer(&sdp, &peer, &request.flags);
        self.answered = true;
        // Should the plan be refused, the end of the call tells so.
        self.waiting = Some(Waiting::Plan(u32::MAX, text.clone()));
        if peer.main.is_some() {
            self.begin_ice(now);
        }
        self.replan(now);
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
    fn agree(&mut self, offered: &Offered, answer: &mut Peer, flags: &Flags) -> Result<(), String> {
        let (by, offer, theirs) = (offered.by, &offered.peer, &offered.flags);
        let Self { sections, sides, random, .. } = self;
        let browser = sides.iter().position(|side| side.zone == Zone::Outside);
        let pictures = if browser == Some(by) { offer.numbers(Medium::Video) } else { Vec::new() };
        // The main one first: where that cannot be, nothing has changed.
        let mut order: Vec<&mut Section> = sections.iter_mut().collect();
        order.sort_by_key(|section| answer.main != Some(section.at));
        for section in order {
            let at = section.at;
            let there = offer.at(at).filter(|_| section.has_ports(sides));
            let Some((one, other)) = there.zip(answer.said.get_mut(at).and_then(Option::as_mut)) else {
                section.live = false;
                continue;
            };
            if !pictures.is_empty() && section.medium == Medium::Audio {
                section.shift(other, one, &pictures);
            }
            let agreed = section.agree((by, offer), (one, other), (sides, [theirs, flags]), random);
            section.live = agreed.is_ok();
            match agreed {
                Err(reason) if answer.main == Some(at) => return Err(reason),
                Err(_) => answer.said[at] = None,
                Ok(()) => {}
            }
        }
        let active = [theirs.dtls, flags.dtls].contains(&DtlsChoice::Active);
        if answer.main.is_some() {
            self.settle(by, offer, (active, true));
            self.settle(1 - by, answer, (false, false));
        }
        if let Some(browser) = browser {
            self.agree_extensions(browser, browser != by);
        }
        Ok(())
    }

    fn agree_extensions(&mut self, browser: usize, we_offered: bool) {
        let mut film = None;
        for medium in [Medium::Video, Medium::Audio] {
            for section in self.sections.iter_mut().filter(|section| section.medium == medium && section.live)
            {
                let agreed = section.agree_extensions(browser, we_offered, film.as_ref());
                if medium == Medium::Video {
                    film = Some(agreed);
                }
            }
        }
    }

    /// Takes over what a side said of its transport; `active`: we send the ClientHello where it lets us choose.
    fn settle(&mut self, at: usize, peer: &Peer, (active, offered): (bool, bool)) {
        let Self { sides, settings, random, .. } = self;
        let side = &mut sides[at];
        if side.zone != Zone::Outside {
            return;
        }
        let outside = side.outside.get_or_insert_with(|| Box::new(Outside::new(settings, false, random)));
        if let Some(ice) = &peer.ice {
            if outside.is_restart(ice) && offered {
                outside.restart(settings, ice.lite && !settings.ice_lite, random);
            }
            outside.meet(ice);
        }
        if let Some(fingerprint) = peer.fingerprint {
            outside.expect(fingerprint, role(peer.setup, active), settings.fingerprint);
        }
    }

    /// The answer as the offerer is to see it.
    fn show_answer(&self, sdp: &Sdp, answer: &Peer, flags: &Flags) -> String {
        let Some(offered) = &self.offered else { return String::new() };
        let (by, offer) = (offered.by, &offered.peer);
        let outside = self.sides[by].zone == Zone::Outside;
        let section = |at: usize| {
            let said = answer.at(at)?;
            let section = self.sections.iter().find(|section| section.at == at && section.live)?;
            let shown = self.section(section, by, said)?;
            let film = shown.film.is_some().then(|| {
                formats(&section.chosen, |one| match outside {
                    true => one.outside.clone(),
                    false => Format { rtx: None, ..one.from_inside.without_sets() },
                })
            });
            // An answer has the offer's own.
            Some(ShownSection { profile: offer.profile_name(at), film, ..shown })
        };
        let sections = (0..offer.heads.len()).map(section).collect();
        let (no_rtcp, replace) = (flags.no_rtcp_attribute, flags.replace);
        let ice = self.local_ice(&self.sides[by], offer.bundled, Outside::setup);
        emit(sdp, &Shown { heads: &offer.heads, sections, ice, no_rtcp, replace })
    }
}

fn formats(chosen: &[ChosenVideo], of: impl Fn(&ChosenVideo) -> Format) -> Vec<Format> {
    chosen.iter().map(of).collect()
}

/// Address and port of a candidate.
fn address(candidate: &str) -> Option<std::net::SocketAddr> {
    let words: Vec<&str> = candidate.split(' ').collect();
    Some(std::net::SocketAddr::new(words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?))
}
