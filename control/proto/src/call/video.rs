//! The picture of a call: a second medium within the browser's bundle, on ports of its own inside. It follows the sound, and
//! where anything about it does not fit it is left out; the sound goes on.

use std::net::SocketAddr;

use sallyport_plan::PortPair;
use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::sdp::{
    Agreed, AnswerVideo, BrowserOffer, Chosen, ChosenVideo, Direction, Extension, InsideProfile, Keying,
    VideoFormat, VideoSection, choose_video,
};

/// What a description of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saying {
    /// An offer.
    Offer,
    /// The answer to what the inside said last.
    Answer,
}

/// All that a call knows of its picture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Video {
    /// SSRC announced outside and inside.
    ssrc: (u32, u32),
    /// SSRC of retransmissions outside.
    rtx: u32,
    /// Our ports inside.
    ports: Option<(SocketAddr, SocketAddr)>,
    /// What the browser may use: what it offered, then what our answer has of it.
    outside: Vec<VideoFormat>,
    /// What we offered inside, or took of its offer.
    ours: Vec<VideoFormat>,
    /// What the inside said last of any use.
    theirs: Option<VideoSection>,
    chosen: Vec<ChosenVideo>,
    /// Whether the last exchange with the inside left it one.
    live: bool,
    /// What the browser does with the picture.
    direction: Direction,
    /// What the inside was told of that.
    told: Option<Direction>,
    /// Whether our last offer had it, and waits for its answer or has one.
    asked: bool,
    /// The inside took one that is of no use, or of none any more: it is to be offered away.
    away: bool,
    /// The inside wants one that the browser has not offered, and the browser was told.
    missed: bool,
    /// What is agreed with the browser of header extensions and bandwidth.
    agreed: Agreed,
}

/// What a plan needs of it.
#[derive(Debug, Clone, Copy)]
pub struct Film<'a> {
    /// Our RTP and RTCP addresses inside.
    pub ports: (SocketAddr, SocketAddr),
    /// Theirs.
    pub theirs: (SocketAddr, SocketAddr),
    /// Formats of the call.
    pub chosen: &'a [ChosenVideo],
    /// SSRC announced outside and inside.
    pub ssrc: (u32, u32),
    /// SSRC of retransmissions outside.
    pub rtx: u32,
    /// Whether the picture goes inward, and outward.
    pub open: (bool, bool),
    /// What is agreed with the browser of header extensions and bandwidth.
    pub agreed: &'a Agreed,
}

impl Video {
    pub fn new(random: &mut Random) -> Self {
        Self { ssrc: (random.u32(), random.u32()), rtx: random.u32(), ..Self::default() }
    }

    /// What the browser offers first.
    pub fn offered(&mut self, offer: &BrowserOffer) {
        (self.away, self.missed) = (false, false);
        if let Some(video) = &offer.video {
            (self.outside, self.direction) = (video.formats.clone(), video.direction);
        }
    }

    /// Whether the browser offers one.
    pub fn is_wanted(&self) -> bool {
        !self.outside.is_empty()
    }

    /// Ports inside; what we offer there is what the browser offered.
    pub fn reserved(&mut self, pair: Option<&PortPair>) {
        self.ports = pair.map(|pair| (pair.rtp, pair.rtcp));
        self.ours.clone_from(&self.outside);
    }

    /// Whether there are ports for it.
    pub fn has_ports(&self) -> bool {
        self.ports.is_some()
    }

    /// Those ports serve another picture.
    pub fn reserved_again(&mut self) {
        self.ours.clone_from(&self.outside);
    }

    /// The browser is held to the formats of the call.
    pub fn keep_to_the_call(&mut self) {
        let chosen = &self.chosen;
        self.outside.retain(|format| chosen.iter().any(|chosen| chosen.outside == *format));
    }

    /// There is none after all; one may be offered yet. What was asked of the inside may still be answered.
    pub fn forget(&mut self) {
        let Self { ssrc, rtx, ports, asked, .. } = *self;
        *self = Self { ssrc, rtx, ports, asked, direction: Direction::Inactive, ..Self::default() };
    }

    /// The relay goes: its successor knows only of ports that a plan has.
    pub fn lose_ports(&mut self) {
        if self.film().is_none() {
            self.ports = None;
        }
    }

    /// Another control goes on: a picture that was being added comes to nothing.
    pub fn restored(mut self) -> Self {
        if self.theirs.is_none() {
            self.forget();
        }
        self
    }

    /// Takes over the payload types of the inside's offer (RFC 3264 section 6.1).
    pub fn speak_as(&mut self, theirs: Option<&VideoSection>) {
        let formats = theirs.map_or(&self.outside, |theirs| &theirs.formats);
        self.ours = formats.iter().map(VideoFormat::without_sets).collect();
    }

    /// Follows what the inside said, and whether it shows anything at all; whether there is a picture now. Once there was
    /// one it only pauses: its streams stay what they are.
    pub fn follow(&mut self, said: Option<&VideoSection>, shows: bool) -> bool {
        self.live = said.is_some_and(|said| self.take_in(said));
        self.away = self.asked && shows && !self.live;
        self.live
    }

    fn take_in(&mut self, said: &VideoSection) -> bool {
        let chosen = choose_video(&self.ours, &said.formats, &self.outside);
        let held = said.rtp.ip().is_unspecified();
        if self.ports.is_none() || chosen.is_empty() || (held && self.theirs.is_none()) {
            return false;
        }
        let mut said = said.clone();
        if let Some(former) = self.theirs.as_ref().filter(|_| held) {
            (said.rtp, said.rtcp) = (former.rtp, former.rtcp);
        }
        (self.chosen, self.theirs) = (chosen, Some(said));
        true
    }

    /// Our section, without keys; `None` where it is refused, or not offered.
    pub fn says(&mut self, saying: Saying) -> Option<VideoSection> {
        let said = self.section(saying);
        self.asked = saying == Saying::Offer && said.is_some();
        // Our answer says itself what becomes of the picture.
        self.away &= saying == Saying::Offer;
        said
    }

    fn section(&mut self, saying: Saying) -> Option<VideoSection> {
        let (rtp, rtcp) = self.ports?;
        let settled = self.theirs.is_some();
        let formats: Vec<VideoFormat> = if settled {
            self.chosen.iter().map(|chosen| chosen.from_inside.toward(&chosen.outside)).collect()
        } else {
            self.ours.clone()
        };
        let direction = match (saying, &self.theirs) {
            (Saying::Offer, _) if self.away => return None,
            (Saying::Offer, _) => self.direction,
            (Saying::Answer, Some(theirs)) if self.live => theirs.direction.answer(self.direction),
            (Saying::Answer, _) => return None,
        };
        self.told = Some(self.direction);
        (!formats.is_empty()).then_some(VideoSection {
            rtp,
            rtcp,
            formats,
            direction,
            asks: true,
            most: None,
            keying: Keying::default(),
        })
    }

    /// The profile that the inside has for it.
    pub fn profile(&self) -> Option<InsideProfile> {
        self.theirs.as_ref().map(|theirs| theirs.keying.profile)
    }

    /// The inside offers one, or none; whether that is news for a browser that has none.
    pub fn is_missed(&mut self, offered: bool) -> bool {
        let missed = offered && !self.is_wanted();
        !std::mem::replace(&mut self.missed, missed) && missed
    }

    /// Whether the far end, which has a picture, did not say that it can be asked for one by RTCP.
    pub fn hears_no_wishes(&self) -> bool {
        self.live && self.theirs.as_ref().is_some_and(|theirs| !theirs.asks)
    }

    /// The inside refused to hear it now.
    pub fn was_not_heard(&mut self) {
        self.told = None;
    }

    /// Nothing comes of telling the inside that it is to have none.
    pub fn stays_as_it_is(&mut self) {
        self.away = false;
    }

    /// Whether the inside has to be told what the browser does with the picture, or that there is none.
    pub fn is_unsettled(&self) -> bool {
        self.away || (self.live && self.told != Some(self.direction))
    }

    /// Our answer to the browser, which holds it to the formats of the call.
    pub fn answers(&mut self, offer: &BrowserOffer) -> Option<AnswerVideo<'_>> {
        self.keep_to_the_call();
        self.agree(offer);
        self.answers_again(offer)
    }

    /// Takes what the browser offers of header extensions, where it gets a picture at all.
    pub fn agree(&mut self, offer: &BrowserOffer) {
        let wanted = |extension| matches!(extension, Extension::Mid | Extension::TransportWide);
        let said = offer.video.as_ref().filter(|_| self.answers_again(offer).is_some());
        self.agreed = said.map(|video| video.says.only(wanted)).unwrap_or_default();
    }

    /// Our offer to a browser of what the inside offers.
    pub fn offers<'a>(&'a self, formats: &'a [ChosenVideo]) -> Option<AnswerVideo<'a>> {
        let (direction, agreed) = (Direction::SendRecv, &self.agreed);
        let most = self.theirs.as_ref().and_then(|theirs| theirs.most);
        let (ssrc, rtx, theirs) = (self.ssrc.0, self.rtx, self.receives());
        let offered = AnswerVideo { most, ssrc, rtx, chosen: formats, theirs, direction, agreed };
        (!formats.is_empty()).then_some(offered)
    }

    /// The same, to a later offer.
    pub fn answers_again(&self, offer: &BrowserOffer) -> Option<AnswerVideo<'_>> {
        let offered = &offer.video.as_ref()?.formats;
        let known = self.chosen.iter().all(|chosen| offered.contains(&chosen.outside));
        let told = known && !self.chosen.is_empty() && !self.outside.is_empty();
        let direction = Direction::SendRecv;
        let Self { chosen, agreed, .. } = self;
        let most = self.theirs.as_ref().and_then(|theirs| theirs.most);
        let (ssrc, rtx, theirs) = (self.ssrc.0, self.rtx, self.receives());
        told.then_some(AnswerVideo { most, ssrc, rtx, chosen, theirs, direction, agreed })
    }

    /// What the inside wants to receive.
    fn receives(&self) -> &[VideoFormat] {
        self.theirs.as_ref().map_or(&[], |theirs| &theirs.formats)
    }

    /// The browser offers anew: under other numbers, or no picture any more. One that was refused stays refused.
    pub fn offered_again(&mut self, offer: &BrowserOffer) {
        self.direction = Direction::Inactive;
        let Some(video) = &offer.video else { return };
        let again = |format: &VideoFormat| video.formats.iter().find(|one| one.is_alike(format)).cloned();
        let same: Option<Vec<VideoFormat>> = self.outside.iter().map(again).collect();
        let Some(same) = same else { return };
        for chosen in &mut self.chosen {
            chosen.outside = again(&chosen.outside).unwrap_or_else(|| chosen.outside.clone());
        }
        (self.outside, self.direction) = (same, video.direction);
    }

    /// Whether a later offer would put the sound under a number that the picture has (RFC 8843 section 9.1).
    pub fn shares_a_number(&self, offer: &BrowserOffer, sound: &[Chosen]) -> bool {
        let mut next = self.clone();
        next.offered_again(offer);
        let formats = next.chosen.iter().map(|chosen| &chosen.outside);
        let numbers: Vec<u8> =
            formats.flat_map(|format| [Some(format.payload_type), format.rtx]).flatten().collect();
        sound.iter().any(|codec| numbers.contains(&codec.outside))
    }

    /// What a plan needs; `None` while there is no picture.
    pub fn film(&self) -> Option<Film<'_>> {
        let (ports, theirs) = (self.ports?, self.theirs.as_ref()?);
        let open = (
            self.live && theirs.direction.receives() && self.direction.sends(),
            self.live && theirs.direction.sends() && self.direction.receives(),
        );
        let there = !self.chosen.is_empty() && !self.outside.is_empty();
        there.then_some(Film {
            ports,
            theirs: (theirs.rtp, theirs.rtcp),
            chosen: &self.chosen,
            ssrc: self.ssrc,
            rtx: self.rtx,
            open,
            agreed: &self.agreed,
        })
    }

    /// The section outside, with what is agreed on of it.
    pub const fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// Encoding of the picture.
    pub fn name(&self) -> Option<&str> {
        self.film()?.chosen.first().map(|chosen| chosen.outside.name.as_str())
    }
}
