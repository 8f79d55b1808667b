//! One section of the session: it has the same place in what both sides say.

use std::net::SocketAddr;

use sallyport_plan::{FlowKey, Medium, PortPair, Protection as Seal, Zone};

use super::super::flags::{Flags, Protection};
use super::super::peer::{Format, Peer, Said};
use super::side::{Keys, Side};
use crate::random::Random;
use crate::sdp::{Agreed, ChosenVideo, Crypto, Extension, Extensions, choose_video, renumbered};

/// What we answer an offer of keys, with the keys that follow.
type Answered = (Crypto, Keys);

/// What one side has of a section.
#[derive(Debug, Default)]
pub struct End {
    /// The stream that we send it.
    pub ssrc: u32,
    /// Our ports for it, inside.
    pub ports: Option<PortPair>,
    /// What it said last and both agreed on.
    pub said: Option<Said>,
    /// RTP and RTCP on one port.
    pub mux: bool,
    /// Whether we offered that.
    pub mux_offered: bool,
    /// Name of the section.
    pub mid: Option<String>,
    /// Name of its profile.
    pub profile_name: Option<String>,
    /// Keys that we offered it, or answered with.
    pub crypto: Vec<Crypto>,
    /// Keys in use from the SDP.
    pub sdes: Option<Keys>,
    /// Header extensions and feedback on bandwidth in use, outside.
    pub agreed: Agreed,
}

/// A section with sound or a picture.
#[derive(Debug)]
pub struct Section {
    /// Its place.
    pub at: usize,
    /// Which of the two.
    pub medium: Medium,
    /// By side.
    pub ends: [End; 2],
    /// SSRC of retransmissions outside.
    pub rtx: u32,
    /// Of a picture between a browser and telephony: the formats in use.
    pub chosen: Vec<ChosenVideo>,
    /// Whether the last exchange left it one. Once there was one it only pauses: its streams stay what they are.
    pub live: bool,
    /// What the browser is offered of telephony's picture.
    offered: Vec<ChosenVideo>,
    /// What the browser is offered of header extensions.
    extensions: Agreed,
    /// Payload types of telephony's sound that the browser has for something else, and what it is shown instead.
    renumbered: Vec<(u8, u8)>,
}

impl Section {
    pub fn new(at: usize, medium: Medium, random: &mut Random) -> Self {
        let mut end = || End { ssrc: random.u32(), ..End::default() };
        let ends = [end(), end()];
        Self {
            at,
            medium,
            ends,
            rtx: random.u32(),
            chosen: Vec::new(),
            live: false,
            offered: Vec::new(),
            extensions: Agreed::default(),
            renumbered: Vec::new(),
        }
    }

    /// Whether there are ports wherever they are needed.
    pub fn has_ports(&self, sides: &[Side; 2]) -> bool {
        self.lacks_ports(sides) == 0
    }

    /// Port pairs that it needs yet.
    pub fn lacks_ports(&self, sides: &[Side; 2]) -> u8 {
        let lacks = |(end, side): (&End, &Side)| side.zone == Zone::Inside && end.ports.is_none();
        self.ends.iter().zip(sides).map(|both| u8::from(lacks(both))).sum()
    }

    /// Whether the relay has it.
    pub fn is_installed(&self, sides: &[Side; 2]) -> bool {
        self.flows(0, sides).is_some() && self.flows(1, sides).is_some()
    }

    /// Where a side's RTP and RTCP go.
    pub fn remote(&self, at: usize, sides: &[Side; 2]) -> Option<(SocketAddr, SocketAddr)> {
        let (end, side) = (self.ends.get(at)?, sides.get(at)?);
        let said = end.said.as_ref()?;
        if let Some(flow) = side.nominated() {
            return Some((flow.remote, flow.remote));
        }
        let rtp = said.rtp?;
        Some((rtp, if end.mux { rtp } else { said.rtcp? }))
    }

    /// Flows of a side's RTP and RTCP; `None` while there is no path.
    pub fn flows(&self, at: usize, sides: &[Side; 2]) -> Option<(FlowKey, FlowKey)> {
        let (end, side) = (self.ends.get(at)?, sides.get(at)?);
        end.said.as_ref()?;
        if side.zone == Zone::Outside {
            return side.nominated().map(|flow| (flow, flow));
        }
        let (ports, (rtp, rtcp)) = (end.ports?, self.remote(at, sides)?);
        let flow = |local, remote| FlowKey { zone: Zone::Inside, local, remote };
        let first = flow(ports.rtp, rtp);
        Some((first, if end.mux { first } else { flow(ports.rtcp, rtcp) }))
    }

    /// How packets come from a side and go to it; `None` before there are keys.
    pub fn protections(&self, at: usize, sides: &[Side; 2]) -> (Option<Seal>, Option<Seal>) {
        let (Some(end), Some(side)) = (self.ends.get(at), sides.get(at)) else { return (None, None) };
        let keys = match side.profile.protection {
            Protection::Plain => return (Some(Seal::Plain), Some(Seal::Plain)),
            Protection::Sdes => end.sdes.as_ref(),
            Protection::Dtls => side.outside.as_ref().and_then(|outside| outside.keys.as_ref()),
        };
        let seal = |key: &sallyport_plan::KeyMaterial| Seal::Srtp(key.clone());
        (keys.map(|keys| seal(&keys.receive)), keys.map(|keys| seal(&keys.send)))
    }

    /// Prepares what side `to` is offered of what the other one said. `taken`: numbers that other sections have outside.
    ///
    /// # Errors
    /// `error-reason`.
    pub fn offer(
        &mut self,
        to: usize,
        (peer, said): (&Peer, &Said),
        (sides, flags): (&[Side; 2], &Flags),
        taken: &[u8],
        random: &mut Random,
    ) -> Result<(), String> {
        let outside = sides[to].zone == Zone::Outside;
        let former: Vec<Format> =
            self.ends[to].said.as_ref().map(|said| said.formats.clone()).unwrap_or_default();
        let end = &mut self.ends[to];
        if sides[to].profile.protection == Protection::Sdes && end.crypto.is_empty() {
            end.crypto = Crypto::offer(|suite| flags.sdes.allows(suite), random);
            if end.crypto.is_empty() {
                return Err("No SDES suite is left".into());
            }
        }
        if outside || flags.generate_mid {
            end.mid.get_or_insert_with(|| peer.name(self.at));
        }
        end.mux_offered = outside
            || flags.mux.offer
            || flags.mux.require
            || (said.mux && !flags.mux.demux && !flags.mux.reject);
        if end.profile_name.is_none() {
            let own = flags.profile.is_none() && said.profile.protection == sides[to].profile.protection;
            let name = if own { peer.profile_name(self.at) } else { &sides[to].profile_name };
            end.profile_name = Some(name.to_owned());
        }
        (self.offered, self.renumbered) = (Vec::new(), Vec::new());
        if outside && self.medium == Medium::Video {
            self.offered = under_former_numbers(&said.film, &former, taken);
        } else if outside {
            self.renumbered = shifted(&said.formats, &former, taken, true);
        }
        Ok(())
    }

    /// `beside` a picture sections are named, and their sender is told what arrives.
    pub fn offer_extensions(&mut self, to: usize, sound: &[u8], beside: bool) {
        self.extensions = Agreed::default();
        if !beside {
            return;
        }
        let film = self.offered.iter().map(|one| one.outside.payload_type);
        let name = self.ends[to].mid.clone().unwrap_or_default();
        let former = &self.ends[to].agreed;
        // What an id means does not change in a session (RFC 8285 section 6).
        let settled = former.extensions != Extensions::default();
        self.extensions =
            if settled { former.clone() } else { Agreed::offered(&name, film.chain(sound.iter().copied())) };
    }

    /// Header extensions that the offer has.
    pub const fn extensions(&self) -> &Agreed {
        &self.extensions
    }

    /// The browser's picture as it is offered.
    pub fn offered(&self) -> &[ChosenVideo] {
        &self.offered
    }

    /// Numbers of sound as the other side sees them; `outward`: that is a browser.
    pub fn numbers(&self, formats: &[Format], outward: bool) -> Vec<(u8, u8)> {
        let shown = |number: u8| {
            let pair =
                self.renumbered.iter().find(|(own, shown)| number == if outward { *own } else { *shown });
            pair.map_or(number, |(own, shown)| if outward { *shown } else { *own })
        };
        formats.iter().map(|format| (format.payload_type, shown(format.payload_type))).collect()
    }

    /// Both sides have spoken: side `by` offered.
    ///
    /// # Errors
    /// `error-reason`; the section has no keys, or no format, that both know.
    pub fn agree(
        &mut self,
        (by, peer): (usize, &Peer),
        (offer, answer): (&Said, &Said),
        (sides, flags): (&[Side; 2], [&Flags; 2]),
        random: &mut Random,
    ) -> Result<(), String> {
        let film = sides.iter().position(|side| side.zone == Zone::Outside);
        let film = film.filter(|_| self.medium == Medium::Video);
        let chosen = film.map(|browser| self.choose(browser == by, offer, answer));
        if chosen.as_ref().is_some_and(Vec::is_empty) {
            return Err("No codec is left".into());
        }
        let (one, other) = self.keys((by, sides), offer, answer, random)?;
        self.chosen = chosen.unwrap_or_default();
        if let Some((ours, keys)) = one {
            self.ends[by].crypto = vec![ours];
            self.ends[by].sdes = Some(keys);
        }
        self.ends[1 - by].sdes = other.or(self.ends[1 - by].sdes.take());
        let [theirs, flags] = flags;
        let passes =
            theirs.mux.accept || theirs.mux.demux || theirs.mux.require || flags.mux.accept || answer.mux;
        let is_outside = |at: usize| sides[at].zone == Zone::Outside;
        let reject = theirs.mux.reject || flags.mux.reject;
        let one = &mut self.ends[by];
        one.mux = is_outside(by) || (offer.mux && !reject && (passes || is_outside(1 - by)));
        one.mid = peer.mid(self.at).map(str::to_owned).or(one.mid.take());
        one.profile_name = Some(peer.profile_name(self.at).to_owned());
        let other = &mut self.ends[1 - by];
        other.mux = is_outside(1 - by) || (other.mux_offered && answer.mux);
        for (end, said) in self.ends.iter_mut().zip(if by == 0 { [offer, answer] } else { [answer, offer] }) {
            end.settle(said.clone());
        }
        Ok(())
    }

    /// Formats of a picture that all know; `offers`: the browser's is the offer.
    fn choose(&self, offers: bool, offer: &Said, answer: &Said) -> Vec<ChosenVideo> {
        if offers {
            let shown: Vec<Format> = offer.film.iter().map(Format::without_sets).collect();
            return choose_video(&shown, &answer.film, &offer.film);
        }
        let taken = |format: &Format| {
            let one = self.offered.iter().find(|one| one.outside.is_alike(format))?;
            Some(ChosenVideo { outside: format.clone(), ..one.clone() })
        };
        answer.film.iter().filter_map(taken).collect()
    }

    /// Ours and the keys of the end that offered, and the keys of the other one, where they are in the SDP.
    fn keys(
        &self,
        (by, sides): (usize, &[Side; 2]),
        offer: &Said,
        answer: &Said,
        random: &mut Random,
    ) -> Result<(Option<Answered>, Option<Keys>), String> {
        let is_sdes = |at: usize| sides[at].profile.protection == Protection::Sdes;
        let same = |ours: &Crypto, theirs: &Crypto| {
            ours.tag == theirs.tag && ours.key.profile() == theirs.key.profile()
        };
        let mut other = None;
        if is_sdes(1 - by) {
            let matching = answer.crypto.iter().find_map(|theirs| {
                let ours = self.ends[1 - by].crypto.iter().find(|ours| same(ours, theirs))?;
                Some(Keys { receive: theirs.key.clone(), send: ours.key.clone() })
            });
            other = Some(matching.ok_or("The answer's a=crypto is none of those offered")?);
        }
        if !is_sdes(by) {
            return Ok((None, other));
        }
        let theirs = offer.crypto.first().ok_or("No usable a=crypto")?;
        let ours = self.ends[by].crypto.iter().find(|ours| same(ours, theirs)).cloned();
        let ours = ours.or_else(|| Crypto::fresh(theirs.tag, theirs.key.profile(), random));
        let ours = ours.ok_or("No usable a=crypto")?;
        let keys = Keys { receive: theirs.key.clone(), send: ours.key.clone() };
        Ok((Some((ours, keys)), other))
    }

    /// Sound of telephony under numbers that the browser's sections do not have; what it has no number for is left out.
    pub fn shift(&mut self, answer: &mut Said, offer: &Said, taken: &[u8]) {
        self.renumbered = shifted(&answer.formats, &offer.formats, taken, false);
        let shown = |format: &Format| self.renumbered.iter().any(|(own, _)| *own == format.payload_type);
        answer.formats.retain(|format| !taken.contains(&format.payload_type) || shown(format));
    }

    /// What is agreed with the browser of header extensions, beside a picture that has agreed on `film`.
    pub fn agree_extensions(&mut self, browser: usize, we_offered: bool, film: Option<&Agreed>) -> Agreed {
        let Some(said) = &self.ends[browser].said else { return Agreed::default() };
        let ours = |extension| {
            !we_offered || self.extensions.extensions.id(extension) == said.agreed.extensions.id(extension)
        };
        let wanted = |extension| match (extension, film) {
            (Extension::Mid, None) | (Extension::TransportWide, None) => self.medium == Medium::Video,
            (Extension::Mid, Some(film)) => film.mid.is_some() && said.bundled,
            (Extension::TransportWide, Some(film)) => film.is_transport_wide(),
            (Extension::AudioLevel | Extension::AbsSendTime, _) => false,
        };
        let agreed = said.agreed.only(|extension| wanted(extension) && ours(extension));
        self.ends[browser].agreed = agreed.clone();
        agreed
    }
}

impl End {
    /// Takes over what the side said.
    fn settle(&mut self, mut said: Said) {
        if let Some(former) = self.said.as_ref().filter(|_| said.rtp.is_none()) {
            // On hold without an address: packets of before are still its own.
            (said.rtp, said.rtcp) = (former.rtp, former.rtcp);
        }
        self.said = Some(said);
    }
}

/// Telephony's formats as a browser is offered them: under the numbers that it has for them already, else under free ones.
fn under_former_numbers(film: &[Format], former: &[Format], taken: &[u8]) -> Vec<ChosenVideo> {
    let numbers = former.iter().flat_map(|format| [Some(format.payload_type), format.rtx]).flatten();
    let mut offered = renumbered(film, taken.iter().copied().chain(numbers).collect());
    for one in &mut offered {
        if let Some(known) = former.iter().find(|known| known.is_alike(&one.outside)) {
            (one.outside.payload_type, one.outside.rtx) = (known.payload_type, known.rtx);
        }
    }
    offered
}

/// Numbers of telephony's sound that are taken, with what a browser sees instead: its own number of that codec, else, where it is
/// `offered`, a free one.
fn shifted(formats: &[Format], own: &[Format], taken: &[u8], offered: bool) -> Vec<(u8, u8)> {
    let mut used: Vec<u8> = taken.iter().copied().chain(formats.iter().map(|one| one.payload_type)).collect();
    let mut shift = |format: &Format| {
        let known =
            own.iter().find(|own| !own.name.is_empty() && own.name.eq_ignore_ascii_case(&format.name));
        let known = known.map(|own| own.payload_type).filter(|number| !taken.contains(number));
        let free = || (96..=127).find(|number| offered && !used.contains(number));
        let number = known.or_else(free)?;
        used.push(number);
        Some((format.payload_type, number))
    };
    formats.iter().filter(|format| taken.contains(&format.payload_type)).filter_map(&mut shift).collect()
}
