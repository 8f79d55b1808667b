//! The media truth of one call.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::clock::Clock;
use crate::extension::Extensions;
use crate::flow::{FlowKey, Zone};
use crate::fork::Fork;
use crate::id::CallId;
use crate::key::{KeyMaterial, Protection};
use crate::message::Refusal;

/// Synchronization source (RFC 3550 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ssrc(pub u32);

/// RTP payload type, 0..=127.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pt(pub u8);

/// One payload type and what it becomes on the other leg. A type without an entry is dropped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtMap {
    /// As it arrives.
    pub from: Pt,
    /// As it leaves.
    pub to: Pt,
    /// What it carries.
    pub format: Format,
}

/// What a payload type carries, as far as timestamps and durations depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Sound, comfort noise or pictures, whose timestamps count on this clock on both legs: nothing is transcoded.
    Media(Clock),
    /// Named events (RFC 4733): timestamps are the sound's, durations are counted on a clock of each leg.
    Event {
        /// Clock of the leg from which they come.
        from: Clock,
        /// Clock of the leg on which they leave.
        to: Clock,
    },
    /// Retransmissions (RFC 4588) of packets that arrive as this type: what they repeat is taken out and leaves as that does,
    /// once. Such an entry's `to` is not used.
    Rtx(Pt),
}

impl Format {
    /// Whether the payload leaves as it came.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Event { from, to } if from == to) || matches!(self, Self::Media(_))
    }
}

/// Kind of medium (RFC 8866 section 5.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Medium {
    /// `m=audio`
    Audio,
    /// `m=video`
    Video,
}

/// Names a direction within its call; stays the same over all versions of the plan, and with it the stream's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DirectionIndex(pub u8);

/// Whether a direction lets media pass (RFC 3264 section 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mute {
    /// Media passes.
    Open,
    /// Media is dropped and counted as held; RTCP passes.
    Held,
}

/// What becomes of the named events (RFC 4733) that a direction carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Digits {
    /// They leave as the other media does.
    Pass,
    /// They end here, also while the direction is held: control is told of each digit.
    Tell,
    /// Both.
    PassAndTell,
}

/// How a direction sends packets once more that its receiver asks for by NACK (RFC 4585 section 6.2.1). It keeps the last ones
/// for that; what it does not have any more the sender is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resend {
    /// It keeps none: the sender is asked.
    Never,
    /// As they left, octet for octet.
    Same,
    /// As retransmissions (RFC 4588).
    Rtx {
        /// SSRC of the stream of retransmissions, announced to the peer.
        ssrc: Ssrc,
        /// Payload types as packets leave first, and as they leave again; at most 32. Others are not kept.
        payload_types: Vec<(Pt, Pt)>,
    },
}

/// What becomes of the streams that a direction carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Passage {
    /// They leave as one stream of our own: SSRC, sequence numbers, timestamps and reports are rewritten.
    Translated,
    /// They leave as they came, RTP and RTCP alike; only addresses change. Between plain peers that speak of the same payload
    /// types ([`Direction::may_be_transparent`]), both ways or neither. The kernel forwards such packets itself where it can.
    Transparent,
}

/// One one-way translation: open, rewrite, seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Name within the call.
    pub index: DirectionIndex,
    /// What kind of medium it carries.
    pub medium: Medium,
    /// Whose packets feed it: one flow where RTP and RTCP share a port (RFC 5761), two where they do not. Directions of a
    /// bundle (RFC 8843) have the same ones: see [`Direction::may_share_with`].
    pub ingress: Vec<FlowKey>,
    /// Whether its peer may turn out to send from another port of the same address: what comes from there is heard once it has
    /// shown to be the peer's, and control is told ([`crate::Event::Source`]). Of flows inside only.
    pub learns: bool,
    /// How packets arrive. `None` until the handshake has ended: media is then dropped as early.
    pub open: Option<Protection>,
    /// How packets leave. `None` until the handshake has ended.
    pub seal: Option<Protection>,
    /// Where RTP goes.
    pub rtp: FlowKey,
    /// Where RTCP goes; equal to `rtp` on a leg with rtcp-mux.
    pub rtcp: FlowKey,
    /// What becomes of the streams.
    pub passage: Passage,
    /// SSRC of the outgoing stream: announced to the peer, kept for the life of the call. A transparent direction does not
    /// use it.
    pub ssrc: Ssrc,
    /// Payload types, at most 32.
    pub payload_types: Vec<PtMap>,
    /// What becomes of header extensions.
    pub extensions: Extensions,
    /// What becomes of named events among the payload types.
    pub digits: Digits,
    /// What is sent again.
    pub resend: Resend,
    /// The direction that runs the other way; its streams give RTCP report blocks their names.
    pub reverse: DirectionIndex,
    /// Whether media passes.
    pub mute: Mute,
    /// Where copies of what leaves go.
    pub fork: Option<Fork>,
}

impl Direction {
    /// Flows that lead to it, and the same of any port where it learns from which one its peer sends.
    pub fn flows(&self) -> impl Iterator<Item = FlowKey> + '_ {
        let any = self.ingress.iter().filter(|_| self.learns).map(|flow| flow.of_any_port());
        self.ingress.iter().copied().chain(any)
    }

    /// Whether its packets could leave as they came: plain on both sides, no payload type becomes another, no event another
    /// clock's, nobody is told of digits, and nobody gets copies.
    pub fn may_be_transparent(&self) -> bool {
        let plain = |side: &Option<Protection>| matches!(side, Some(Protection::Plain));
        let kept = |map: &PtMap| map.from == map.to && map.format.is_kept();
        let pass = self.digits == Digits::Pass
            && self.extensions == Extensions::default()
            && self.resend == Resend::Never
            && self.fork.is_none();
        pass && plain(&self.open) && plain(&self.seal) && self.payload_types.iter().all(kept)
    }

    /// SSRCs that it seals: its stream's, and that of its retransmissions.
    pub fn sealed(&self) -> impl Iterator<Item = Ssrc> + '_ {
        let again = if let Resend::Rtx { ssrc, .. } = &self.resend { Some(*ssrc) } else { None };
        core::iter::once(self.ssrc).chain(again)
    }

    /// Whether both may be fed by the same flows, as media of a bundle are (RFC 8843 section 9.2): one context opens what
    /// comes, and then the payload type tells whose it is.
    pub fn may_share_with(&self, other: &Self) -> bool {
        let types = |direction: &Self, payload_type| {
            direction.payload_types.iter().any(|map| map.from == payload_type)
        };
        let translated = |direction: &Self| direction.passage == Passage::Translated;
        self.ingress == other.ingress
            && self.open == other.open
            && self.ssrc != other.ssrc
            && translated(self)
            && translated(other)
            && !self.payload_types.iter().any(|map| types(other, map.from))
    }
}

/// Our role in ICE with its tie-breaker (RFC 8445 section 7.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IceRole {
    /// We nominate.
    Controlling(u64),
    /// The peer nominates.
    Controlled(u64),
}

/// ICE on a nominated pair, as the relay keeps it alive without control (RFC 7675).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// The nominated pair.
    pub flow: FlowKey,
    /// Our user fragment.
    pub local_ufrag: String,
    /// Our password: keys the checks that we answer.
    pub local_pwd: String,
    /// The peer's user fragment.
    pub remote_ufrag: String,
    /// The peer's password: keys the checks that we send.
    pub remote_pwd: String,
    /// Our role.
    pub role: IceRole,
}

/// The passwords are wiped.
impl Drop for Consent {
    fn drop(&mut self) {
        self.local_pwd.zeroize();
        self.remote_pwd.zeroize();
    }
}

impl fmt::Debug for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consent").field("flow", &self.flow).field("role", &self.role).finish_non_exhaustive()
    }
}

/// The whole media truth of one call at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The call.
    pub call: CallId,
    /// Grows by at least one with each change; the relay refuses one that does not.
    pub version: u32,
    /// At most 16; none before anything can pass, never again after that.
    pub directions: Vec<Direction>,
    /// At most 8, one per nominated pair.
    pub consents: Vec<Consent>,
    /// Opaque to the relay, at most [`Plan::RECORD_MAX`] octets: what a new control needs to go on with the call.
    pub record: Vec<u8>,
}

impl Plan {
    /// Octets that a record may have.
    pub const RECORD_MAX: usize = 32 * 1024;
    /// Directions that a plan may have.
    pub const DIRECTIONS_MAX: usize = 16;

    /// A plan of a call that has no media yet: the relay only keeps its record.
    pub const fn silent(call: CallId, version: u32, record: Vec<u8>) -> Self {
        Self { call, version, directions: Vec::new(), consents: Vec::new(), record }
    }

    /// Whether the relay has nothing to do for it but to keep its record.
    pub fn is_silent(&self) -> bool {
        self.directions.is_empty() && self.consents.is_empty()
    }

    /// Checks all that can be checked without knowing other calls. Control calls it before it sends a plan, the relay
    /// before it obeys one.
    ///
    /// # Errors
    /// The first [`Refusal`] found: too large, a name used twice, a flow of two directions that no bundle has, a broken key, a reverse
    /// that does not exist, a transparent direction that has to change its packets or whose reverse does, or two directions
    /// that would seal under one key and SSRC, or one that would seal under a key that a peer seals under.
    pub fn validate(&self) -> Result<(), Refusal> {
        if self.record.len() > Self::RECORD_MAX
            || self.directions.len() > Self::DIRECTIONS_MAX
            || self.consents.len() > 8
        {
            return Err(Refusal::TooLarge);
        }
        for (at, direction) in self.directions.iter().enumerate() {
            self.validate_direction(direction)?;
            for other in &self.directions[..at] {
                conflict(direction, other)?;
            }
        }
        if is_echoed(&self.directions) { Err(Refusal::KeyReuse) } else { Ok(()) }
    }

    fn validate_direction(&self, direction: &Direction) -> Result<(), Refusal> {
        if direction.ingress.is_empty() || direction.ingress.len() > 2 || direction.payload_types.len() > 32 {
            return Err(Refusal::Malformed);
        }
        if direction.payload_types.iter().any(|map| map.from.0 > 127 || map.to.0 > 127) {
            return Err(Refusal::Malformed);
        }
        if direction.learns && direction.ingress.iter().any(|flow| flow.zone != Zone::Inside) {
            return Err(Refusal::Malformed);
        }
        if !direction.extensions.is_well_formed() {
            return Err(Refusal::Malformed);
        }
        let repeated = |of: Pt| {
            let mut all = direction.payload_types.iter();
            all.any(|map| map.from == of && !matches!(map.format, Format::Rtx(_)))
        };
        let repeats = direction
            .payload_types
            .iter()
            .filter_map(|map| if let Format::Rtx(of) = map.format { Some(of) } else { None });
        if !repeats.into_iter().all(repeated) {
            return Err(Refusal::Malformed);
        }
        if let Resend::Rtx { ssrc, payload_types } = &direction.resend
            && (*ssrc == direction.ssrc
                || payload_types.len() > 32
                || payload_types.iter().any(|(first, again)| first.0 > 127 || again.0 > 127))
        {
            return Err(Refusal::Malformed);
        }
        let reverse = self.directions.iter().find(|other| other.index == direction.reverse);
        // Reports of the one speak of the other's stream: both are known by the same names, or neither is.
        if reverse.is_none_or(|reverse| reverse.passage != direction.passage) {
            return Err(Refusal::Malformed);
        }
        if direction.passage == Passage::Transparent && !direction.may_be_transparent() {
            return Err(Refusal::Malformed);
        }
        if direction.fork.as_ref().is_some_and(|fork| !fork.is_well_formed()) {
            return Err(Refusal::Malformed);
        }
        for protection in [&direction.open, &direction.seal].into_iter().flatten() {
            if let Protection::Srtp(key) = protection
                && !key.is_well_formed()
            {
                return Err(Refusal::Malformed);
            }
        }
        Ok(())
    }
}

fn conflict(one: &Direction, other: &Direction) -> Result<(), Refusal> {
    if one.index == other.index {
        return Err(Refusal::Malformed);
    }
    if one.ingress.iter().any(|flow| other.ingress.contains(flow)) && !one.may_share_with(other) {
        return Err(Refusal::FlowTaken);
    }
    match (&one.seal, &other.seal) {
        (Some(Protection::Srtp(a)), Some(Protection::Srtp(b))) if a == b => {
            let shared = one.sealed().any(|ssrc| other.sealed().any(|also| also == ssrc));
            if shared { Err(Refusal::KeyReuse) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// Whether something is sealed under a key that a peer seals under: one keystream for two streams, should their SSRCs ever
/// meet, and nobody makes such a key by honest means (RFC 4568 section 7: each direction has its own).
fn is_echoed(directions: &[Direction]) -> bool {
    const fn srtp(side: &Option<Protection>) -> Option<&KeyMaterial> {
        match side {
            Some(Protection::Srtp(key)) => Some(key),
            Some(Protection::Plain) | None => None,
        }
    }
    let opened = |key: &KeyMaterial| directions.iter().any(|direction| srtp(&direction.open) == Some(key));
    directions.iter().filter_map(|direction| srtp(&direction.seal)).any(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Profile;
    use alloc::vec;
    use core::net::SocketAddr;

    fn flow(port: u16) -> FlowKey {
        let local = SocketAddr::from(([192, 0, 2, 1], 10000));
        FlowKey { zone: Zone::Outside, local, remote: SocketAddr::from(([198, 51, 100, 7], port)) }
    }

    fn map(from: u8, to: u8) -> PtMap {
        PtMap { from: Pt(from), to: Pt(to), format: Format::Media(Clock::Hz8000) }
    }

    fn direction(index: u8, reverse: u8, port: u16) -> Direction {
        let key = KeyMaterial::new(Profile::AeadAes128Gcm, &[index; 16], &[0; 12]).unwrap();
        Direction {
            index: DirectionIndex(index),
            medium: Medium::Audio,
            ingress: vec![flow(port)],
            open: Some(Protection::Plain),
            seal: Some(Protection::Srtp(key)),
            rtp: flow(port),
            rtcp: flow(port),
            passage: Passage::Translated,
            ssrc: Ssrc(7),
            payload_types: vec![map(0, 0)],
            extensions: Extensions::default(),
            digits: Digits::Pass,
            resend: Resend::Never,
            learns: false,
            reverse: DirectionIndex(reverse),
            mute: Mute::Open,
            fork: None,
        }
    }

    fn plan() -> Plan {
        let directions = vec![direction(0, 1, 4000), direction(1, 0, 4002)];
        Plan { call: CallId(1), version: 1, directions, consents: vec![], record: vec![] }
    }

    #[test]
    fn a_sound_plan_passes() {
        assert_eq!(plan().validate(), Ok(()));
    }

    #[test]
    fn one_key_and_ssrc_sealed_twice_is_refused() {
        let mut plan = plan();
        plan.directions[1].seal = plan.directions[0].seal.clone();
        assert_eq!(plan.validate(), Err(Refusal::KeyReuse));
        plan.directions[1].ssrc = Ssrc(8);
        assert_eq!(plan.validate(), Ok(()));
    }

    #[test]
    fn retransmissions_have_a_stream_of_their_own() {
        let rtx = |ssrc| Resend::Rtx { ssrc: Ssrc(ssrc), payload_types: vec![(Pt(0), Pt(97))] };
        let mut plan = plan();
        plan.directions[0].resend = rtx(9);
        assert_eq!(plan.validate(), Ok(()));
        plan.directions[1].seal = plan.directions[0].seal.clone();
        plan.directions[1].ssrc = Ssrc(9);
        assert_eq!(plan.validate(), Err(Refusal::KeyReuse), "one key and SSRC");
        plan.directions[1].ssrc = Ssrc(8);
        plan.directions[1].resend = rtx(9);
        assert_eq!(plan.validate(), Err(Refusal::KeyReuse), "nor two of retransmissions");
        plan.directions[1].resend = rtx(10);
        assert_eq!(plan.validate(), Ok(()));
        plan.directions[1].resend = rtx(8);
        assert_eq!(plan.validate(), Err(Refusal::Malformed), "its own");
        plan.directions[1].resend = Resend::Rtx { ssrc: Ssrc(10), payload_types: vec![(Pt(0), Pt(128))] };
        assert_eq!(plan.validate(), Err(Refusal::Malformed));
        let rtx = |from, of| PtMap { from: Pt(from), to: Pt(0), format: Format::Rtx(Pt(of)) };
        for (of, wanted) in [(0, Ok(())), (97, Err(Refusal::Malformed)), (5, Err(Refusal::Malformed))] {
            plan.directions[1].resend = Resend::Same;
            plan.directions[1].payload_types = vec![map(0, 0), rtx(97, of)];
            assert_eq!(plan.validate(), wanted, "{of}");
        }
        plan.directions[1].payload_types = vec![map(0, 0)];
        plan.directions[1].seal = Some(Protection::Plain);
        assert!(!plan.directions[1].may_be_transparent(), "what passes by the kernel nobody keeps");
    }

    /// Each way has its own key: not that of the way back, nor that of the other leg, nor one that a peer sent back to us.
    #[test]
    fn a_key_that_a_peer_seals_under_is_none_of_ours() {
        for (open, seal) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut plan = plan();
            plan.directions[open].open = plan.directions[seal].seal.clone();
            assert_eq!(plan.validate(), Err(Refusal::KeyReuse), "{open} {seal}");
            plan.directions[seal].ssrc = Ssrc(99);
            assert_eq!(plan.validate(), Err(Refusal::KeyReuse), "whatever the SSRC");
        }
        let mut bundle = plan();
        bundle.directions[0].open =
            Some(Protection::Srtp(KeyMaterial::new(Profile::AeadAes128Gcm, &[9; 16], &[0; 12]).unwrap()));
        bundle.directions[1].open = bundle.directions[0].open.clone();
        assert_eq!(bundle.validate(), Ok(()), "one peer may seal several streams under its key");
    }

    #[test]
    fn one_flow_cannot_feed_two_directions() {
        let mut plan = plan();
        plan.directions[1].ingress = plan.directions[0].ingress.clone();
        assert_eq!(plan.validate(), Err(Refusal::FlowTaken));
    }

    #[test]
    fn directions_of_a_bundle_share_their_flow() {
        let mut bundle = plan();
        bundle.directions.push(Direction {
            index: DirectionIndex(2),
            medium: Medium::Video,
            ssrc: Ssrc(8),
            payload_types: vec![PtMap { from: Pt(96), to: Pt(97), format: Format::Media(Clock::Hz90000) }],
            ..bundle.directions[0].clone()
        });
        assert_eq!(bundle.validate(), Ok(()));
        let spoilt: [fn(&mut Direction); 5] = [
            |video| video.payload_types[0].from = Pt(0),
            |video| video.open = None,
            |video| video.open = video.seal.clone(),
            |video| video.ingress.push(flow(4001)),
            |video| video.ssrc = Ssrc(7),
        ];
        for (nth, spoil) in spoilt.into_iter().enumerate() {
            let mut bad = bundle.clone();
            spoil(&mut bad.directions[2]);
            assert_eq!(bad.validate(), Err(Refusal::FlowTaken), "{nth}");
        }
    }

    #[test]
    fn malformed_plans_are_refused() {
        let mut reverse = plan();
        reverse.directions[0].reverse = DirectionIndex(9);
        let mut twice = plan();
        twice.directions[1].index = DirectionIndex(0);
        let mut no_flow = plan();
        no_flow.directions[0].ingress.clear();
        let mut pt = plan();
        pt.directions[0].payload_types[0].to = Pt(128);
        for bad in [reverse, twice, no_flow, pt] {
            assert_eq!(bad.validate(), Err(Refusal::Malformed));
        }
        let mut large = plan();
        large.record = vec![0; Plan::RECORD_MAX + 1];
        assert_eq!(large.validate(), Err(Refusal::TooLarge));
    }

    #[test]
    fn only_what_leaves_as_it_came_is_transparent() {
        let mut sound = plan();
        for direction in &mut sound.directions {
            direction.passage = Passage::Transparent;
            direction.seal = Some(Protection::Plain);
        }
        assert_eq!(sound.validate(), Ok(()));
        let spoilt: [fn(&mut Direction); 7] = [
            |direction| direction.open = None,
            |direction| direction.seal = None,
            |direction| direction.seal = plan().directions[0].seal.clone(),
            |direction| direction.payload_types.push(map(96, 101)),
            |direction| {
                let format = Format::Event { from: Clock::Hz48000, to: Clock::Hz8000 };
                direction.payload_types.push(PtMap { format, ..map(101, 101) });
            },
            |direction| direction.digits = Digits::PassAndTell,
            |direction| direction.passage = Passage::Translated,
        ];
        for (nth, spoil) in spoilt.into_iter().enumerate() {
            for at in 0..2 {
                let mut bad = sound.clone();
                spoil(&mut bad.directions[at]);
                assert_eq!(bad.validate(), Err(Refusal::Malformed), "{nth} of {at}");
            }
        }
        sound.directions[0].mute = Mute::Held;
        assert_eq!(sound.validate(), Ok(()), "a held stream keeps its names");
    }

    #[test]
    fn call_ids_read_back_what_they_print() {
        let id = CallId(0x0123_4567_89ab_cdef);
        assert_eq!(alloc::format!("{id}").parse(), Ok(id));
        assert!("+1".parse::<CallId>().is_err());
        assert!("".parse::<CallId>().is_err());
    }
}
