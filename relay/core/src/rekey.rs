//! Another key in the middle of a direction: for a while the former one still opens what is under way.
//!
//! ```text
//!   plan with another key          first packet under it             + REORDER
//!   ─┬──────────────────────────────┬─────────────────────────────────┬─────────►
//!    │ the former key, then the new │ the new key, then the former    │ the new key
//!    └── at the latest + PATIENCE ──┴─────────────────────────────────┘
//! ```

use std::cmp::Reverse;

use arrayvec::ArrayVec;
use sallyport_plan::{Profile, Protection};
use sallyport_srtp::{OpenError, Opener, OpenerState};
use sallyport_wire::PacketBuf;

use crate::Now;
use crate::burst::{Step, Way};
use crate::direction::Direction;
use crate::ledger::KeyId;
use crate::packet::{Opening, Payload, open_reason};
use crate::table::Tag;
use crate::translator::Translator;

/// How long nothing need come under the new key: a far end has our answer when its 2xx arrives, which may be sent again for so
/// long (RFC 3261 section 13.3.1.4: 64 times T1).
const PATIENCE: u64 = 32_000_000;
/// How far packets are overtaken by the first one under the new key.
const REORDER: u64 = 500_000;
/// How often it is looked after former keys.
const INTERVAL: u64 = 250_000;
/// Wiped keys of which is known what they have opened.
const RETIRED: usize = 4;
/// Octets of a packet that may be tried under two keys: a failed try may leave anything in it.
const ROOM: usize = 4096;

/// A direction between two keys.
pub struct Change {
    pub opener: Box<Opener>,
    former: Box<Opener>,
    former_key: Option<Name>,
    /// Whether something was opened under the new key.
    met: bool,
    until: Now,
}

impl Change {
    /// Opens a packet under whichever key it was sealed, the likelier one first.
    fn open(&mut self, payload: Payload, buf: &mut PacketBuf<'_>, now: Now) -> Result<(), OpenError> {
        let mut room = [0; ROOM];
        // It is wiped by the timer: no packet waits for that.
        let copy = room.get_mut(..buf.len()).filter(|_| now < self.until);
        if let Some(copy) = copy {
            copy.copy_from_slice(buf.packet());
            let first = self.try_one(self.met, payload, buf, now);
            let Err(error) = first else { return Ok(()) };
            buf.packet_mut().copy_from_slice(copy);
            let second = self.try_one(!self.met, payload, buf, now);
            return second.map_err(|other| if telling(other) > telling(error) { other } else { error });
        }
        self.try_one(true, payload, buf, now)
    }

    fn try_one(
        &mut self,
        new: bool,
        payload: Payload,
        buf: &mut PacketBuf<'_>,
        now: Now,
    ) -> Result<(), OpenError> {
        let opener = if new { &mut self.opener } else { &mut self.former };
        match payload {
            Payload::Rtp => opener.open_rtp(buf).map(|_| ()),
            Payload::Rtcp => opener.open_rtcp(buf).map(|_| ()),
        }?;
        if new && !self.met {
            self.met = true;
            self.until = self.until.min(now.plus(REORDER));
        }
        Ok(())
    }
}

/// Which of two errors is the packet's: a replay is one, even if the other key knows nothing of it; what is of a wrong form under
/// one suite may be of a good one under the other.
const fn telling(error: OpenError) -> u8 {
    match error {
        OpenError::Short | OpenError::Malformed | OpenError::NotEncrypted => 0,
        OpenError::Tag => 1,
        OpenError::Replay | OpenError::TooOld => 2,
    }
}

/// A key and the suite that it is for.
type Name = (KeyId, Profile);

fn name(side: Option<&Protection>) -> Option<Name> {
    match side {
        Some(Protection::Srtp(key)) => Some((KeyId::of(key), key.profile())),
        Some(Protection::Plain) | None => None,
    }
}

/// What was opened under keys that are wiped: one that comes back opens nothing twice.
#[derive(Default)]
#[allow(clippy::box_collection, reason = "most directions have one key; a pointer is a third of a list")]
pub struct Retired(Option<Box<Vec<(Name, OpenerState)>>>);

impl Retired {
    /// Keeps the indices of an opener that is given up, the oldest of too many making room.
    fn keep(&mut self, name: Option<Name>, opener: &Opener) {
        let state = opener.checkpoint();
        let Some(name) = name.filter(|_| !state.sources.is_empty()) else { return };
        let all = self.0.get_or_insert_default();
        if all.len() == RETIRED {
            all.remove(0);
        }
        all.push((name, state));
    }

    fn take(&mut self, name: Option<Name>) -> Option<OpenerState> {
        let all = self.0.as_mut()?;
        let at = all.iter().position(|(other, _)| Some(*other) == name)?;
        Some(all.remove(at).1)
    }
}

impl Direction {
    /// Opens with another key from now on, and with the former one what is still under way. `goes_on`: packets come by the flows
    /// by which they came, and were opened here; those of another peer are none of the former key's.
    pub fn reopen(&mut self, open: Opening, key: Option<&Protection>, goes_on: bool, now: Now) {
        self.is_changing(now);
        let (wanted, running) = (name(key), name(self.cold.plan.open.as_ref()));
        // The one that packets come under first.
        let mut had = ArrayVec::<(Option<Name>, Box<Opener>), 2>::new();
        match std::mem::replace(&mut self.open, Opening::Waiting) {
            Opening::Srtp(opener) => had.push((running, opener)),
            Opening::Changing(change) => {
                let Change { opener, former, former_key, met, .. } = *change;
                had.extend([(running, opener), (former_key, former)]);
                if !met {
                    // A key that nobody has used yet is none that something is under way under.
                    had.swap(0, 1);
                }
            }
            Opening::Waiting | Opening::Plain => {}
        }
        self.open = match open {
            Opening::Srtp(mut opener) => {
                let back = had.iter().position(|(name, _)| *name == wanted);
                match back.map(|at| had.remove(at)) {
                    // One that comes back knows what it has opened.
                    Some((_, known)) => opener = known,
                    None => {
                        self.cold.retired.take(wanted).iter().for_each(|state| opener.restore(state));
                    }
                }
                if goes_on && back != Some(0) && !had.is_empty() {
                    let (former_key, former) = had.remove(0);
                    Opening::Changing(Box::new(Change {
                        opener,
                        former,
                        former_key,
                        met: false,
                        until: now.plus(PATIENCE),
                    }))
                } else {
                    Opening::Srtp(opener)
                }
            }
            other => other,
        };
        had.iter().for_each(|(name, opener)| self.cold.retired.keep(*name, opener));
    }

    /// Wipes a former key whose time is over; whether there is one yet.
    fn is_changing(&mut self, now: Now) -> bool {
        match std::mem::replace(&mut self.open, Opening::Waiting) {
            Opening::Changing(change) if change.until <= now => {
                self.cold.retired.keep(change.former_key, &change.former);
                self.open = Opening::Srtp(change.opener);
            }
            other => self.open = other,
        }
        matches!(self.open, Opening::Changing(_))
    }
}

impl Translator {
    /// Sees to it that a former key of a direction is forgotten in time.
    pub(crate) fn begin_change(&mut self, slot: usize, now: Now) {
        let Some(tag) = self.table.tag(slot) else { return };
        let Some(there) = self.table.at_mut(slot).filter(|there| matches!(there.open, Opening::Changing(_)))
        else {
            return;
        };
        if !std::mem::replace(&mut there.cold.rekeying, true) {
            self.changes_due.push(Reverse((now.plus(INTERVAL), tag.direction, tag.epoch)));
        }
    }

    /// Forgets former keys whose time is over.
    pub(crate) fn handle_changes(&mut self, now: Now) {
        while let Some(Reverse((at, direction, epoch))) = self.changes_due.peek().copied() {
            if at > now {
                return;
            }
            self.changes_due.pop();
            let slot = self.table.owned(Tag { direction, epoch });
            let Some(direction_there) = slot.and_then(|slot| self.table.at_mut(slot)) else { continue };
            direction_there.cold.rekeying = direction_there.is_changing(now);
            if direction_there.cold.rekeying {
                self.changes_due.push(Reverse((now.plus(INTERVAL), direction, epoch)));
            }
        }
    }

    /// Opens a packet where its direction is between two keys; `None` where it is not.
    pub(crate) fn open_changing(
        &mut self,
        way: &Way,
        buf: &mut PacketBuf<'_>,
        now: Now,
    ) -> Option<Result<Step, crate::Reason>> {
        let Opening::Changing(change) = &mut self.table.at_mut(way.slot as usize)?.open else { return None };
        Some(change.open(way.payload, buf, now).map(|()| Step::Open).map_err(open_reason))
    }
}
