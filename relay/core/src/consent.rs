//! ICE on a nominated pair, kept alive without control: answers checks, sends our own, ends what is not consented any more
//! (RFC 7675, RFC 8445 sections 7 and 11).

use std::ops::RangeInclusive;

use hmac::{Hmac, KeyInit, Mac};
use sallyport_plan::{Consent as Plan, IceRole};
use sallyport_wire::PacketBuf;
use sallyport_wire::stun::{self, Builder, Class, Message, TransactionId};
use sha1::{Digest, Sha1};

use crate::Now;
use crate::reason::Reason;

/// Consent lapses this long after the last answered check (RFC 7675 section 5.1).
pub const LAPSE: u64 = 30_000_000;
/// Checks are sent 0.8 to 1.2 times this apart.
const INTERVAL: u64 = 5_000_000;
/// Checks whose answers are waited for.
const PENDING: usize = 8;
/// Priority that our checks name: of a peer-reflexive candidate (RFC 8445 section 5.1.2.1).
const PRIORITY: u32 = (110 << 24) | (65535 << 8) | 255;
/// Octets that a check or an answer has at the most: two user fragments of 256 characters, and 100 for all else.
pub const MESSAGE_MAX: usize = 640;
/// Characters of a user fragment and of a password (RFC 8839 section 5.4).
const UFRAG: RangeInclusive<usize> = 4..=256;
const PASSWORD: RangeInclusive<usize> = 22..=256;

/// Unpredictable numbers from a seed: SHA-1 of seed and counter.
pub struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl Random {
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    fn next(&mut self) -> [u8; 20] {
        self.counter += 1;
        Sha1::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes()).finalize().into()
    }

    fn transaction(&mut self) -> TransactionId {
        let mut id = TransactionId::default();
        id.copy_from_slice(&self.next()[..12]);
        id
    }

    /// Part of a whole, 65536ths.
    pub fn part(&mut self) -> u16 {
        let [high, low, ..] = self.next();
        u16::from_be_bytes([high, low])
    }

    /// The time to the next check.
    fn interval(&mut self) -> u64 {
        let part = u64::from(self.part());
        INTERVAL * 4 / 5 + INTERVAL * 2 / 5 * part / 65536
    }
}

/// What a STUN message on the pair was.
pub enum Met {
    /// A check of the peer; the answer lies in the buffer.
    Answered,
    /// The answer to a check of ours.
    Confirmed,
    /// Not the relay's business: control's agent knows.
    Foreign,
    /// Dead.
    Bad(Reason),
}

/// The state of one pair. Checks are seconds apart: passwords key HMAC anew for each, and take no room in between.
pub struct Consent {
    plan: Plan,
    pending: [Option<TransactionId>; PENDING],
    at: usize,
    confirmed: Now,
    due: Now,
    lapsed: bool,
}

impl Consent {
    /// Begins with the consent that the nomination was; `None` for credentials that ICE does not know.
    pub fn new(plan: Plan, now: Now) -> Option<Self> {
        let fits = |text: &String, characters: RangeInclusive<usize>| characters.contains(&text.len());
        let ufrags = fits(&plan.local_ufrag, UFRAG) && fits(&plan.remote_ufrag, UFRAG);
        let passwords = fits(&plan.local_pwd, PASSWORD) && fits(&plan.remote_pwd, PASSWORD);
        if !ufrags || !passwords {
            return None;
        }
        Some(Self { plan, pending: [None; PENDING], at: 0, confirmed: now, due: now, lapsed: false })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn due(&self) -> Now {
        self.due
    }

    pub fn has_lapsed(&self) -> bool {
        self.lapsed
    }

    /// Looks at a STUN message that came on the pair; an answer is written over it.
    pub fn meet(&mut self, buf: &mut PacketBuf<'_>, now: Now) -> Met {
        let Ok(message) = Message::parse(buf.packet()) else { return Met::Bad(Reason::Malformed) };
        if message.method() != stun::BINDING || message.has_right_fingerprint() == Some(false) {
            return Met::Bad(Reason::Malformed);
        }
        match message.class() {
            Class::Request => self.request(buf),
            Class::Success => self.success(buf, now),
            Class::Indication => Met::Confirmed,
            Class::Error => Met::Foreign,
        }
    }

    fn request(&self, buf: &mut PacketBuf<'_>) -> Met {
        let Ok(message) = Message::parse(buf.packet()) else { return Met::Bad(Reason::Malformed) };
        if !message.attribute(stun::USERNAME).is_some_and(|name| self.is_ours(name)) {
            // Another generation of credentials: an ICE restart, perhaps.
            return Met::Foreign;
        }
        let Some(ours) = keyed(&self.plan.local_pwd).filter(|ours| verify(&message, ours)) else {
            return Met::Bad(Reason::StunIntegrity);
        };
        if self.lapsed {
            return Met::Bad(Reason::ConsentLost);
        }
        let conflict = match self.plan.role {
            IceRole::Controlling(_) => message.attribute(stun::ICE_CONTROLLING).is_some(),
            IceRole::Controlled(_) => message.attribute(stun::ICE_CONTROLLED).is_some(),
        };
        if conflict {
            return Met::Foreign;
        }
        let id = message.transaction_id();
        match self.answer(id, &ours, buf) {
            Some(()) => Met::Answered,
            None => Met::Bad(Reason::NoRoom),
        }
    }

    /// Whether a check names this pair: our user fragment, a colon, theirs (RFC 8445 section 7.2.2).
    fn is_ours(&self, name: &[u8]) -> bool {
        let rest =
            name.strip_prefix(self.plan.local_ufrag.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
        rest == Some(self.plan.remote_ufrag.as_bytes())
    }

    fn answer(&self, id: TransactionId, ours: &Hmac<Sha1>, buf: &mut PacketBuf<'_>) -> Option<()> {
        let mut room = [0; 128];
        let length = Builder::new(&mut room, Class::Success, stun::BINDING, id)
            .and_then(|builder| builder.xor_mapped_address(self.plan.flow.remote))
            .and_then(|builder| builder.integrity(|bytes| tag(ours, &[bytes])))
            .and_then(Builder::fingerprint)
            .ok()?;
        let have = buf.len();
        if have < length {
            buf.grow_tail(length - have).ok()?;
        } else {
            buf.shrink_tail(have - length).ok()?;
        }
        buf.packet_mut().copy_from_slice(room.get(..length)?);
        Some(())
    }

    fn success(&mut self, buf: &PacketBuf<'_>, now: Now) -> Met {
        let Ok(message) = Message::parse(buf.packet()) else { return Met::Bad(Reason::Malformed) };
        let id = Some(message.transaction_id());
        let Some(place) = self.pending.iter().position(|pending| *pending == id) else { return Met::Foreign };
        if !keyed(&self.plan.remote_pwd).is_some_and(|theirs| verify(&message, &theirs)) {
            return Met::Bad(Reason::StunIntegrity);
        }
        self.pending[place] = None;
        self.confirmed = now;
        Met::Confirmed
    }

    /// Whether consent lapses now; once true, it stays so.
    pub fn lapse(&mut self, now: Now) -> bool {
        let lapses = !self.lapsed && now.since(self.confirmed) >= LAPSE;
        self.lapsed |= lapses;
        lapses
    }

    /// Writes the next check into `room` and sets when the one after it is due; its length.
    pub fn check(&mut self, random: &mut Random, room: &mut [u8; MESSAGE_MAX], now: Now) -> Option<usize> {
        let lapse = self.confirmed.plus(LAPSE);
        self.due = now.plus(random.interval()).min(lapse.max(now.plus(1)));
        let theirs = keyed(&self.plan.remote_pwd)?;
        let id = random.transaction();
        self.pending[self.at] = Some(id);
        self.at = (self.at + 1) % PENDING;
        let (role, tie_breaker) = match self.plan.role {
            IceRole::Controlling(tie_breaker) => (stun::ICE_CONTROLLING, tie_breaker),
            IceRole::Controlled(tie_breaker) => (stun::ICE_CONTROLLED, tie_breaker),
        };
        let username = [self.plan.remote_ufrag.as_bytes(), b":", self.plan.local_ufrag.as_bytes()];
        Builder::new(room, Class::Request, stun::BINDING, id)
            .and_then(|builder| builder.attribute(stun::USERNAME, &username))
            .and_then(|builder| builder.attribute(stun::PRIORITY, &[&PRIORITY.to_be_bytes()]))
            .and_then(|builder| builder.attribute(role, &[&tie_breaker.to_be_bytes()]))
            .and_then(|builder| builder.integrity(|bytes| tag(&theirs, &[bytes])))
            .and_then(Builder::fingerprint)
            .ok()
    }
}

/// HMAC under a password; one of any length is a key.
fn keyed(password: &str) -> Option<Hmac<Sha1>> {
    <Hmac<Sha1> as KeyInit>::new_from_slice(password.as_bytes()).ok()
}

fn tag(key: &Hmac<Sha1>, pieces: &[&[u8]]) -> [u8; 20] {
    let mut mac = key.clone();
    for piece in pieces {
        mac.update(piece);
    }
    mac.finalize().into_bytes().into()
}

fn verify(message: &Message<'_>, key: &Hmac<Sha1>) -> bool {
    // Both sides are hashed once more, so that the time of comparing tells nothing of the tag.
    message.has_integrity(|pieces| tag(key, pieces), |a, b| tag(key, &[a]) == tag(key, &[b]))
}
