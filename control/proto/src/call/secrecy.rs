//! Keys of the inside's leg by `a=crypto` (RFC 4568), required or where both sides have them (RFC 8643). Sound and picture have
//! each its own: a section that cannot be encrypted as it has to be is refused, and where that is the sound so is the call.

use std::time::Instant;

use sallyport_plan::{Direction as DirectionPlan, DirectionIndex, KeyMaterial, Medium, Plan, Protection};
use serde::{Deserialize, Serialize};

use super::Call;
use super::plan::{INWARD, Keys, OUTWARD, VIDEO_INWARD, VIDEO_OUTWARD};
use super::video::Saying;
use crate::api::EndCause;
use crate::random::Random;
use crate::sdp::{Crypto, InsideAnswer, InsideProfile, Keying, VideoSection};
use crate::settings::Srtp;

/// Ours and theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    ours: Crypto,
    theirs: Crypto,
}

/// What a record has of a section's keys: the tags of ours and of theirs, and ours that is sealed with as soon as the far end has
/// it, where that is another one than the plan's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    tags: (u32, u32),
    next: Option<KeyMaterial>,
}

/// What was said of keys of one section of the dialog.
#[derive(Debug, Default)]
pub(super) struct Sdes {
    /// Ours that an answer may choose from.
    offered: Vec<Crypto>,
    /// What holds; `None`: media is plain.
    pair: Option<Pair>,
    /// Ours that is sealed with until the far end is known to have that of the pair.
    still: Option<Crypto>,
    /// The profile that offer and answer came to.
    settled: Option<InsideProfile>,
}

impl Sdes {
    /// Keys for the plan; `None`: media is plain.
    pub fn keys(&self) -> Option<Keys> {
        let Pair { ours, theirs } = self.pair.as_ref()?;
        let send = self.still.as_ref().unwrap_or(ours);
        Some(Keys { receive: theirs.key.clone(), send: send.key.clone() })
    }

    /// What offer and answer came to.
    pub fn settle(&mut self, pair: Option<Pair>, profile: InsideProfile) {
        (self.pair, self.still, self.settled) = (pair, None, Some(profile));
    }

    /// What we seal with.
    fn sealing(&self) -> Option<Crypto> {
        self.still.clone().or_else(|| self.pair.as_ref().map(|pair| pair.ours.clone()))
    }

    /// Seals with `former` until the far end has the new key; whether that is so.
    fn seal_still(&mut self, former: Option<Crypto>) -> bool {
        let other = |former: &Crypto| self.pair.as_ref().is_some_and(|pair| pair.ours != *former);
        self.still = former.filter(other);
        self.still.is_some()
    }

    /// What the record has of it.
    pub fn noted(&self) -> Option<Noted> {
        let Pair { ours, theirs } = self.pair.as_ref()?;
        Some(Noted { tags: (ours.tag, theirs.tag), next: self.still.as_ref().map(|_| ours.key.clone()) })
    }

    /// Those of a former control: keys from the plan, the rest from the record.
    fn restored(
        plan: &Plan,
        (inward, outward): (DirectionIndex, DirectionIndex),
        noted: Option<Noted>,
        profile: InsideProfile,
    ) -> Self {
        let direction = |index| plan.directions.iter().find(|direction| direction.index == index);
        let key = |side: fn(&DirectionPlan) -> Option<&Protection>, index| match side(direction(index)?) {
            Some(Protection::Srtp(key)) => Some(key.clone()),
            Some(Protection::Plain) | None => None,
        };
        let ours = key(|direction| direction.seal.as_ref(), inward);
        let theirs = key(|direction| direction.open.as_ref(), outward);
        let (pair, still) = match (ours, theirs, noted) {
            (Some(sealing), Some(theirs), Some(Noted { tags: (our, their), next })) => {
                let still = next.as_ref().map(|_| Crypto { tag: our, key: sealing.clone() });
                let ours = Crypto { tag: our, key: next.unwrap_or(sealing) };
                (Some(Pair { ours, theirs: Crypto { tag: their, key: theirs } }), still)
            }
            _ => (None, None),
        };
        let offered = pair.iter().map(|pair| pair.ours.clone()).collect();
        Self { offered, pair, still, settled: Some(profile) }
    }

    fn ours(&self) -> impl Iterator<Item = &Crypto> {
        self.offered.iter().chain(self.pair.iter().map(|pair| &pair.ours)).chain(&self.still)
    }
}

/// Both sections'.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub sound: Sdes,
    pub picture: Sdes,
}

impl Secrets {
    /// Those of a former control. A picture that there was none of has none.
    pub fn restored(
        plan: &Plan,
        [sound, picture]: [Option<Noted>; 2],
        (answer, film): (&InsideAnswer, Option<InsideProfile>),
    ) -> Self {
        let of_film = |profile| Sdes::restored(plan, (VIDEO_INWARD, VIDEO_OUTWARD), picture, profile);
        Self {
            sound: Sdes::restored(plan, (INWARD, OUTWARD), sound, answer.keying.profile),
            picture: film.map(of_film).unwrap_or_default(),
        }
    }

    fn of(&self, medium: Medium) -> &Sdes {
        if medium == Medium::Video { &self.picture } else { &self.sound }
    }

    fn of_mut(&mut self, medium: Medium) -> &mut Sdes {
        if medium == Medium::Video { &mut self.picture } else { &mut self.sound }
    }

    /// What we seal with, sound and picture.
    pub fn sealing(&self) -> [Option<Crypto>; 2] {
        [self.sound.sealing(), self.picture.sealing()]
    }

    /// Seals with the former keys until [`Secrets::far_end_has_keys`]: the far end can open what is sealed with a new key only
    /// once it has read our answer. Whether one is new.
    pub fn seal_still(&mut self, [sound, picture]: [Option<Crypto>; 2]) -> bool {
        self.sound.seal_still(sound) | self.picture.seal_still(picture)
    }

    /// Whether a new key is still kept back.
    pub fn keep_back(&self) -> bool {
        self.sound.still.is_some() || self.picture.still.is_some()
    }

    /// The far end has our new keys; whether one is new.
    pub fn far_end_has_keys(&mut self) -> bool {
        self.sound.still.take().is_some() | self.picture.still.take().is_some()
    }

    fn have_any(&self) -> bool {
        self.sound.pair.is_some() || self.picture.pair.is_some()
    }

    /// Whether a key of theirs is one of ours, of whichever section: both directions under one key would be two streams
    /// under one keystream.
    fn are_ours(&self, theirs: &Crypto) -> bool {
        self.sound.ours().chain(self.picture.ours()).any(|ours| ours.key == theirs.key)
    }
}

/// Keys of the two sections as they are to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    pub sound: Option<Pair>,
    pub picture: Option<Pair>,
}

/// Profile and keys of an offer that begins a session.
pub(super) fn first_lines(policy: Srtp, offered: &mut Vec<Crypto>, random: &mut Random) -> Keying {
    if offered.is_empty() && policy != Srtp::Off {
        *offered = Crypto::offer(|_| true, random);
    }
    let profile = match policy {
        Srtp::Off | Srtp::Optional => InsideProfile::Avp,
        Srtp::Required => InsideProfile::Savp,
    };
    Keying { profile, crypto: offered.clone(), flaw: None }
}

/// Why an offer cannot be answered by this policy.
pub(super) fn objection(policy: Srtp, offer: &Keying) -> Option<&'static str> {
    match policy {
        Srtp::Off if offer.profile.is_secure() => Some("RTP/SAVP is not served here"),
        Srtp::Off => None,
        Srtp::Optional | Srtp::Required if !offer.crypto.is_empty() => None,
        Srtp::Optional if !offer.profile.is_secure() => None,
        Srtp::Optional | Srtp::Required => {
            Some(offer.flaw.map_or("media has to be encrypted: there is no a=crypto", |flaw| flaw.text()))
        }
    }
}

/// What a section of an answer takes of our offer.
///
/// # Errors
/// [`EndCause::Protocol`]: it takes what was not offered, or nothing where something is required.
fn taken(policy: Srtp, offered: &[Crypto], answer: &Keying) -> Result<Option<Pair>, EndCause> {
    let fault = |text: &str| Err(EndCause::Protocol(text.into()));
    let pair = answer.crypto.iter().find_map(|theirs| {
        let same = |ours: &&Crypto| ours.tag == theirs.tag && ours.key.profile() == theirs.key.profile();
        offered.iter().find(same).map(|ours| Pair { ours: ours.clone(), theirs: theirs.clone() })
    });
    match pair {
        Some(pair) if offered.iter().any(|ours| ours.key == pair.theirs.key) => {
            fault("the inside sends our own key back")
        }
        Some(pair) => Ok(Some(pair)),
        None if answer.profile.is_secure() || (!offered.is_empty() && !answer.crypto.is_empty()) => {
            fault("the inside answers with another a=crypto than those offered")
        }
        None if policy == Srtp::Required => fault("the inside does not encrypt its media, which is required"),
        None => Ok(None),
    }
}

/// What an answer takes of the keys that were offered of each section. A picture that takes what it cannot is out of it.
///
/// # Errors
/// Those of the sound, by [`taken`].
pub(super) fn all_taken(
    policy: Srtp,
    [sound, picture]: [&[Crypto]; 2],
    answer: &mut InsideAnswer,
) -> Result<Agreement, EndCause> {
    let film = answer.video.as_ref().map(|video| taken(policy, picture, &video.keying));
    // A key of the one section that comes back in the other is ours as well.
    let echoed = |theirs: &[Crypto], ours: &[Crypto]| {
        theirs.iter().any(|theirs| ours.iter().any(|ours| ours.key == theirs.key))
    };
    if echoed(&answer.keying.crypto, picture) {
        return Err(EndCause::Protocol("the inside sends our own key back".into()));
    }
    answer.video.take_if(|video| matches!(film, Some(Err(_))) || echoed(&video.keying.crypto, sound));
    let picture = film.and_then(Result::ok).flatten().filter(|_| answer.video.is_some());
    Ok(Agreement { sound: taken(policy, sound, &answer.keying)?, picture })
}

impl Call {
    /// The far end can open what is sealed under our new key.
    pub(super) fn far_end_has_key(&mut self, now: Instant) {
        self.deadlines.rekeyed = None;
        if self.inside.sdes.far_end_has_keys() {
            self.replan(now);
        }
    }

    /// What was encrypted before the configuration changed may stay so.
    fn srtp(&self) -> Srtp {
        match self.settings.sip.policy.srtp {
            Srtp::Off if self.inside.sdes.have_any() => Srtp::Optional,
            policy => policy,
        }
    }

    /// What the first offer of the dialog says of a section.
    pub(super) fn first_lines(&mut self, medium: Medium) -> Keying {
        let policy = self.srtp();
        first_lines(policy, &mut self.inside.sdes.of_mut(medium).offered, &mut self.random)
    }

    /// What our next description says of a section: what holds, so that it stays as it is where nobody wants it otherwise.
    pub(super) fn lines(&mut self, medium: Medium) -> Keying {
        let answered = self.inside.answered;
        let sdes = self.inside.sdes.of_mut(medium);
        let Some(profile) = sdes.settled else { return self.first_lines(medium) };
        let lines: Vec<Crypto> = sdes.pair.iter().map(|pair| pair.ours.clone()).collect();
        // While our INVITE rings another fork may still choose from its offer.
        sdes.offered.retain(|line| !answered && !lines.contains(line));
        sdes.offered.extend(lines.iter().cloned());
        Keying { profile, crypto: lines, flaw: None }
    }

    /// Our section of the picture with its keys.
    pub(super) fn film_says(&mut self, saying: Saying) -> Option<VideoSection> {
        let mut video = self.video.says(saying)?;
        video.keying = self.lines(Medium::Video);
        Some(video)
    }

    /// What an answer to our offer takes of it.
    pub(super) fn taken_keys(&self, answer: &mut InsideAnswer) -> Result<Agreement, EndCause> {
        let Secrets { sound, picture } = &self.inside.sdes;
        all_taken(self.srtp(), [&sound.offered, &picture.offered], answer)
    }

    /// What becomes of the keys in an offer of theirs. A picture whose keys cannot be used is out of it.
    pub(super) fn answered_keys(&mut self, offer: &mut InsideAnswer) -> Result<Agreement, EndCause> {
        let film = offer.video.take();
        let picture = film.as_ref().map(|film| self.answered(Medium::Video, &film.keying));
        offer.video = film.filter(|_| matches!(picture, Some(Ok(_))));
        let picture = picture.and_then(Result::ok).flatten();
        Ok(Agreement { sound: self.answered(Medium::Audio, &offer.keying)?, picture })
    }

    /// The first line that we know wins. A key that stays keeps ours; another one gets another of ours, since most who
    /// change theirs begin to count anew in both directions.
    fn answered(&mut self, medium: Medium, offer: &Keying) -> Result<Option<Pair>, EndCause> {
        if let Some(text) = objection(self.srtp(), offer) {
            return Err(EndCause::Protocol(text.into()));
        }
        let Some(theirs) = offer.crypto.first().filter(|_| self.srtp() != Srtp::Off) else { return Ok(None) };
        if self.inside.sdes.are_ours(theirs) {
            return Err(EndCause::Protocol("the inside offers our own key".into()));
        }
        if let Some(pair) = self.inside.sdes.of(medium).pair.as_ref().filter(|pair| pair.theirs == *theirs) {
            return Ok(Some(pair.clone()));
        }
        let ours = Crypto::fresh(theirs.tag, theirs.key.profile(), &mut self.random);
        let ours = ours.ok_or_else(|| EndCause::Protocol("no key for this suite".into()))?;
        Ok(Some(Pair { ours, theirs: theirs.clone() }))
    }
}
