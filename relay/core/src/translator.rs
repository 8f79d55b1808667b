//! All directions of one worker, and the way of a packet to its direction.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use arrayvec::ArrayVec;
use sallyport_plan::{CallId, Counter, DirectionIndex, DirectionReport, FlowKey, Medium, Zone};

use crate::Now;
use crate::arrivals;
use crate::checkpoint::Checkpoint;
use crate::consent::{Consent, MESSAGE_MAX, Random};
use crate::direction::{Direction, FEEDBACK_ROOM, Lost, REPORT_ROOM};
use crate::event::Digit;
use crate::feedback::Bound;
use crate::fork::{Copies, FORK_ROOM};
use crate::ledger::Ledger;
use crate::limit::{FLOW, Sources};
use crate::reports;
use crate::resend::RESEND_ROOM;
use crate::stats::Stats;
use crate::table::{DirectionId, Table, Tag};

/// Events that may wait. While they do, no further consent lapses: [`Translator::poll_timeout`] stays due.
pub(crate) const EVENTS: usize = 64;

/// Packets whose stay is kept in mind until they have left: those of a turn of a worker. What is beyond is not counted.
const LEAVING: usize = 512;

/// Packets that may be owed. What is beyond is asked for again.
const RESENDS: usize = 1024;

/// Reports that are looked after at once: packets wait meanwhile.
pub(crate) const REPORTS: usize = 32;
/// Feedback packets of one direction at a time.
const FEEDBACKS: usize = 4;

/// How much a translator takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls.
    pub calls: usize,
    /// Directions of all calls, at most 2^24.
    pub directions: usize,
}

/// What the kernel's flow map has to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowChanges {
    /// Flows that are to exist, with what they carry.
    pub insert: Vec<(FlowKey, Tag)>,
    /// Flows that are to go.
    pub remove: Vec<FlowKey>,
}

/// What a removed call leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its flows.
    pub flows: Vec<FlowKey>,
    /// Where it sent to.
    pub egress: Vec<FlowKey>,
    /// Its last statistics.
    pub reports: Vec<DirectionReport>,
    /// Goodbyes to its plain legs (RFC 3550 section 6.6), to be sent as they are.
    pub farewells: Vec<(FlowKey, Vec<u8>)>,
}

/// What happened by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreEvent {
    /// Consent lapsed: nothing is forwarded from or to that pair any more.
    ConsentLost {
        /// Which call.
        call: CallId,
        /// Which pair.
        flow: FlowKey,
    },
    /// A digit was sent as a named event on a direction whose digits are told of.
    Digit {
        /// Which call.
        call: CallId,
        /// Which direction.
        direction: DirectionIndex,
        /// Which digit, and for how long.
        digit: Digit,
    },
    /// A peer is heard from a port that its plan does not name.
    Source {
        /// Which call.
        call: CallId,
        /// The flow by which the packets come.
        flow: FlowKey,
    },
    /// Whoever sends on a direction wants a whole picture of the other side; the wish has left.
    Picture {
        /// Which call.
        call: CallId,
        /// Which direction.
        direction: DirectionIndex,
    },
}

/// What is owed to the receiver of a direction.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owed {
    /// A packet once more, by the number under which it left.
    Again(u16),
    /// A retransmission of nothing.
    Padding,
    /// An answer to a TMMBR.
    Bound(Bound),
}

/// A call as it runs.
pub(crate) struct Call {
    /// Version of its plan. What that says of directions and consents lies with them.
    pub version: u32,
    /// Slots in the order of the plan's directions.
    pub slots: Vec<usize>,
    pub consents: Vec<Consent>,
}

/// One worker's directions.
pub struct Translator {
    pub(crate) limits: Limits,
    pub(crate) table: Table,
    pub(crate) ledger: Ledger,
    pub(crate) calls: HashMap<CallId, Call>,
    pub(crate) due: BinaryHeap<Reverse<(Now, CallId, FlowKey)>>,
    /// Directions by when they may have to report.
    pub(crate) reports_due: BinaryHeap<Reverse<(Now, DirectionId, u32)>>,
    /// Directions by when they have packets of digits to send.
    pub(crate) dials_due: BinaryHeap<Reverse<(Now, DirectionId, u32)>>,
    /// Directions by when they have to feed back what arrived.
    feedback_due: BinaryHeap<Reverse<(Now, DirectionId, u32)>>,
    /// Directions by when they have to ask for what is missing.
    pub(crate) asks_due: BinaryHeap<Reverse<(Now, DirectionId, u32)>>,
    /// Directions that are between two keys, by when they are to be looked after.
    pub(crate) changes_due: BinaryHeap<Reverse<(Now, DirectionId, u32)>>,
    /// The NTP timestamp of `Now(0)`.
    epoch: u64,
    random: Random,
    pub(crate) sources: Sources,
    /// The port of browsers inside.
    browsers: Option<u16>,
    pub(crate) events: VecDeque<CoreEvent>,
    /// Slots of directions, one for each packet that was forwarded since the last burst came.
    pub(crate) leaving: ArrayVec<u32, LEAVING>,
    /// What directions owe their receivers.
    owed: VecDeque<(Tag, Owed)>,
    /// Whether what left last of that was a packet once more.
    repeats: bool,
    /// Copies of what has left, to be sent behind it.
    pub(crate) copies: Copies,
    pub(crate) stats: Stats,
}

impl Translator {
    /// An empty one. `seed` must be random: transaction ids of our checks come from it.
    pub fn new(worker: u8, limits: Limits, seed: [u8; 32]) -> Self {
        Self {
            limits,
            table: Table::new(worker),
            ledger: Ledger::default(),
            calls: HashMap::new(),
            due: BinaryHeap::new(),
            reports_due: BinaryHeap::new(),
            dials_due: BinaryHeap::new(),
            feedback_due: BinaryHeap::new(),
            asks_due: BinaryHeap::new(),
            changes_due: BinaryHeap::new(),
            epoch: 0,
            random: Random::new(seed),
            sources: Sources::new(),
            browsers: None,
            events: VecDeque::with_capacity(EVENTS),
            leaving: ArrayVec::new(),
            owed: VecDeque::with_capacity(RESENDS),
            repeats: false,
            copies: Copies::default(),
            stats: Stats::default(),
        }
    }

    /// The same, for which browsers may also be inside, at this port of ours: what comes to it is taken as what comes from
    /// outside is.
    #[must_use]
    pub fn with_browsers(self, port: Option<u16>) -> Self {
        Self { browsers: port, ..self }
    }

    /// The same, with the wall clock: `epoch` is the NTP timestamp of `Now(0)` (RFC 3550 section 4). Without it reports of
    /// ours tell time from there on.
    #[must_use]
    pub fn with_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// Whether a browser may be at the other end of such packets: ICE and DTLS have their place there.
    pub(crate) fn is_browsers(&self, flow: &FlowKey) -> bool {
        flow.zone == Zone::Outside || self.browsers == Some(flow.local.port())
    }

    /// Packets are about to be taken from where they came in: [`Translator::departed`] will speak of what is forwarded from now
    /// on.
    pub fn arriving(&mut self) {
        self.leaving.clear();
    }

    /// Whether RTP was forwarded since [`Translator::arriving`].
    pub fn has_forwarded(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// What was forwarded since [`Translator::arriving`] has left, `stay` nanoseconds after it.
    pub fn departed(&mut self, stay: u64) {
        for slot in self.leaving.drain(..) {
            if let Some(direction) = self.table.at_mut(slot as usize) {
                direction.quality.stay(stay);
            }
        }
    }

    /// The tag of a flow, for packets that come without one.
    pub fn lookup(&self, key: &FlowKey) -> Option<Tag> {
        let any = || self.table.lookup(&key.of_any_port());
        self.table.lookup(key).or_else(|| if key.zone == Zone::Inside { any() } else { None })
    }

    /// When [`Translator::handle_timeout`] wants to be called; `None` while no pair is kept alive.
    pub fn poll_timeout(&self) -> Option<Now> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Sends the checks that are due through `send`, and ends what has lapsed. Events may be waiting then.
    pub fn handle_timeout(&mut self, now: Now, send: &mut dyn FnMut(&FlowKey, &[u8])) {
        while let Some(Reverse((at, id, flow))) = self.due.peek().copied() {
            if at > now || self.events.len() == EVENTS {
                return;
            }
            self.due.pop();
            let consents =
                self.calls.get_mut(&id).map(|call| call.consents.as_mut_slice()).unwrap_or_default();
            // An entry that is not the pair's own due time belongs to a former version of the plan.
            let current =
                consents.iter_mut().find(|consent| consent.plan().flow == flow && consent.due() == at);
            let Some(consent) = current.filter(|consent| !consent.has_lapsed()) else { continue };
            if consent.lapse(now) {
                self.lapse(id);
                self.events.push_back(CoreEvent::ConsentLost { call: id, flow });
                continue;
            }
            let mut room = [0; MESSAGE_MAX];
            if let Some(length) = consent.check(&mut self.random, &mut room, now) {
                send(&flow, room.get(..length).unwrap_or_default());
            }
            let due = consent.due();
            self.due.push(Reverse((due, id, flow)));
        }
    }

    /// When [`Translator::handle_reports`] wants to be called; `None` where no direction may have to report, and none has a former
    /// key to be forgotten.
    pub fn poll_report(&self) -> Option<Now> {
        let due =
            [&self.reports_due, &self.feedback_due, &self.asks_due, &self.changes_due].map(BinaryHeap::peek);
        due.into_iter().flatten().map(|Reverse((at, ..))| *at).min()
    }

    /// Sends reports of our own through `send`, for directions whose senders are silent, feedback on what arrived and questions
    /// for what did not: those that are due, a few at once. Allocates nothing.
    pub fn handle_reports(&mut self, now: Now, send: &mut dyn FnMut(&FlowKey, &[u8])) {
        self.handle_asks(now, send);
        self.handle_changes(now);
        self.handle_feedback(now, send);
        for _ in 0..REPORTS {
            let Some(Reverse((at, direction, epoch))) = self.reports_due.peek().copied() else { return };
            if at > now {
                return;
            }
            self.reports_due.pop();
            // One that is gone reports no more.
            let Some(slot) = self.table.owned(Tag { direction, epoch }) else { continue };
            if !self.table.at_mut(slot).is_some_and(Direction::goes_on_reporting) {
                continue;
            }
            let next = reports::next(now, self.random.part());
            self.reports_due.push(Reverse((next, direction, epoch)));
            let mut room = [0; REPORT_ROOM];
            if let Some((to, length)) = self.write_report(slot, now, false, &mut room) {
                self.stats.reported += 1;
                send(&to, room.get(..length).unwrap_or_default());
            }
        }
    }

    fn handle_feedback(&mut self, now: Now, send: &mut dyn FnMut(&FlowKey, &[u8])) {
        for _ in 0..REPORTS {
            let Some(Reverse((at, direction, epoch))) = self.feedback_due.peek().copied() else { return };
            if at > now {
                return;
            }
            self.feedback_due.pop();
            let Some(slot) = self.table.owned(Tag { direction, epoch }) else { continue };
            if !self.table.at_mut(slot).is_some_and(Direction::goes_on_feeding_back) {
                continue;
            }
            self.feedback_due.push(Reverse((now.plus(arrivals::INTERVAL), direction, epoch)));
            let mut room = [0; FEEDBACK_ROOM];
            // What a sender makes of its numbers must not make more than a restart steps over; the rest waits for its turn.
            for _ in 0..FEEDBACKS {
                let Some((direction, Some(reverse))) = self.table.pair(slot) else { break };
                let Some((to, length)) = direction.feed_back(reverse, &mut room) else { break };
                self.stats.fed_back += 1;
                send(&to, room.get(..length).unwrap_or_default());
            }
        }
    }

    /// The next packet that its receiver is owed, as it is to be sent: one that it has lost, once more, or an answer. Where it
    /// goes and how long it is. To be asked for after each burst until there is none; [`Translator::resent`] where it has been
    /// sent. Allocates nothing.
    pub fn poll_resend(&mut self, now: Now, room: &mut [u8; RESEND_ROOM]) -> Option<(FlowKey, usize)> {
        while let Some((tag, owed)) = self.owed.pop_front() {
            let direction = self.table.owned(tag).and_then(|slot| self.table.at_mut(slot));
            let sent = direction.and_then(|direction| match owed {
                Owed::Again(number) => direction.resend(number, room, now),
                Owed::Padding => direction.announce(room, now),
                Owed::Bound(bound) => direction.notify(bound, now, room),
            });
            self.repeats = matches!(owed, Owed::Again(_));
            if sent.is_some() {
                return sent;
            }
            self.stats.declined += u64::from(self.repeats);
        }
        None
    }

    /// The packet that [`Translator::poll_resend`] gave last has been sent, or `sent` is false and it is lost.
    pub fn resent(&mut self, sent: bool) {
        match (self.repeats, sent) {
            (true, true) => self.stats.answered += 1,
            (true, false) => self.stats.declined += 1,
            (false, sent) => self.stats.reported += u64::from(sent),
        }
    }

    /// Whether copies wait to be sent.
    pub fn has_forks(&self) -> bool {
        !self.copies.is_empty()
    }

    /// The next copy of what has left, as it is to be sent: where it goes and how long it is. To be asked for after each burst
    /// until there is none. Allocates nothing.
    pub fn poll_fork(&mut self, room: &mut [u8; FORK_ROOM]) -> Option<(FlowKey, usize)> {
        self.copies.pop(room)
    }

    /// Takes note of what a compound of a direction asks of the one that runs the other way.
    pub(crate) fn resend_later(&mut self, slot: usize, lost: &Lost) {
        self.stats.limited += lost.limited;
        self.stats.forwarded += lost.forwarded;
        let reverse = self.table.at(slot).map(|direction| direction.reverse);
        let Some(tag) = reverse.and_then(|reverse| self.table.tag(reverse)) else { return };
        for number in &lost.again {
            self.stats.limited += u64::from(!self.owe(tag, Owed::Again(*number)));
        }
        if let Some(bound) = lost.bound {
            self.owe(tag, Owed::Bound(bound));
        }
    }

    /// Whether there was room for it.
    fn owe(&mut self, tag: Tag, owed: Owed) -> bool {
        let room = self.owed.len() < RESENDS;
        if room {
            self.owed.push_back((tag, owed));
        }
        room
    }

    /// Has a direction tell its sender what arrives from some time on, if it is to and does not yet. `leads`: whether its flow
    /// leads to it.
    pub(crate) fn begin_feedback(&mut self, slot: usize, leads: bool, now: Now) {
        if self.table.at_mut(slot).is_some_and(|direction| direction.begins_to_feed_back(leads))
            && let Some(Tag { direction, epoch }) = self.table.tag(slot)
        {
            // Not all at once.
            let first = now.plus(arrivals::INTERVAL * u64::from(self.random.part()) / 65_536);
            self.feedback_due.push(Reverse((first, direction, epoch)));
        }
    }

    /// Has a direction report from some time on, if it is to and does not yet.
    pub(crate) fn begin_reports(&mut self, slot: usize, now: Now) {
        if self.table.at_mut(slot).is_some_and(Direction::begins_to_report)
            && let Some(Tag { direction, epoch }) = self.table.tag(slot)
        {
            let first = reports::first(now, self.random.part());
            self.reports_due.push(Reverse((first, direction, epoch)));
        }
    }

    pub(crate) fn write_report(
        &mut self,
        slot: usize,
        now: Now,
        goodbye: bool,
        room: &mut [u8; REPORT_ROOM],
    ) -> Option<(FlowKey, usize)> {
        let passed = (u128::from(now.0) << 32) / 1_000_000;
        let ntp = self.epoch.wrapping_add(u64::try_from(passed).unwrap_or(0));
        let (direction, reverse) = self.table.pair(slot)?;
        direction.report(reverse, (now, ntp), goodbye, room)
    }

    /// No packet of the call goes from or to a pair whose consent has lapsed.
    pub(crate) fn lapse(&mut self, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        for at in &call.slots {
            if let Some(direction) = self.table.at_mut(*at) {
                let mut lapsed = call.consents.iter().filter(|consent| consent.has_lapsed());
                direction.lapsed = lapsed.any(|consent| direction.touches(&consent.plan().flow));
            }
        }
    }

    /// Tells control of digits that a direction has heard, as many as it may.
    pub(crate) fn tell_digits(&mut self, slot: usize, digits: [Option<Digit>; 2], now: Now) {
        let Some(cold) = self.table.at_mut(slot).map(|direction| &mut direction.cold) else { return };
        for digit in digits.into_iter().flatten() {
            if self.events.len() < EVENTS && cold.punts.take(FLOW, now) {
                let (call, direction) = (cold.call, cold.plan.index);
                self.events.push_back(CoreEvent::Digit { call, direction, digit });
            } else {
                self.stats.lose_digit();
            }
        }
    }

    /// Asks whoever sends on a direction for a whole picture through `send`, unless it was asked just now.
    pub fn ask_picture(
        &mut self,
        call: CallId,
        index: DirectionIndex,
        now: Now,
        send: &mut dyn FnMut(&FlowKey, &[u8]),
    ) {
        let Some(slot) = self.slot_of(call, index) else { return };
        let Some((direction, Some(back))) = self.table.pair(slot) else { return };
        let mut room = [0; REPORT_ROOM];
        if let Some((to, length)) = back.ask_picture(direction.stream.origin(), now, &mut room) {
            self.stats.reported += 1;
            send(&to, room.get(..length).unwrap_or_default());
        }
    }

    /// The slot of a call's direction.
    pub(crate) fn slot_of(&self, call: CallId, index: DirectionIndex) -> Option<usize> {
        let mut slots = self.calls.get(&call)?.slots.iter().copied();
        slots.find(|at| self.table.at(*at).is_some_and(|one| one.cold.plan.index == index))
    }

    /// Tells control that somebody wants a picture.
    pub(crate) fn tell_picture(&mut self, slot: usize) {
        let Some(cold) = self.table.at(slot).map(|direction| &direction.cold) else { return };
        if self.events.len() < EVENTS {
            self.events.push_back(CoreEvent::Picture { call: cold.call, direction: cold.plan.index });
        }
    }

    /// What happened by itself since the last time.
    pub fn poll_event(&mut self) -> Option<CoreEvent> {
        self.events.pop_front()
    }

    /// Statistics of a call, by direction.
    pub fn report(&self, call: CallId) -> Option<Vec<DirectionReport>> {
        let slots = &self.calls.get(&call)?.slots;
        Some(slots.iter().filter_map(|at| self.table.at(*at)).map(report).collect())
    }

    /// All calls, with the versions of their plans.
    pub fn calls(&self) -> impl Iterator<Item = (CallId, u32)> {
        self.calls.iter().map(|(id, call)| (*id, call.version))
    }

    /// Directions installed.
    pub fn directions(&self) -> usize {
        self.table.taken()
    }

    /// Every counter of this worker. A packet that is judged moves exactly one of them by one.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.stats.iter()
    }

    /// Indices of one call, for a restart; `None` for an unknown one.
    pub fn checkpoint_of(&self, call: CallId) -> Option<Checkpoint> {
        let slots = &self.calls.get(&call)?.slots;
        let directions = slots.iter().filter_map(|at| self.table.at(*at)).map(Direction::checkpoint);
        Some(Checkpoint { call, directions: directions.collect() })
    }

    /// Goes on behind a checkpoint of an installed call; to be called before its first packet. A direction's checkpoint may be
    /// as many packets old as `ahead` says of its medium, at most 2^14. One that the checkpoint does not know goes on as if
    /// all those packets had been its first.
    pub fn restore(&mut self, checkpoint: &Checkpoint, ahead: impl Fn(Medium) -> u16, now: Now) {
        let slots = self.calls.get(&checkpoint.call).map(|call| call.slots.clone()).unwrap_or_default();
        for at in slots {
            let Some(direction) = self.table.at_mut(at) else { continue };
            let index = direction.cold.plan.index;
            let ahead = ahead(direction.cold.plan.medium);
            let state = checkpoint.directions.iter().find(|state| state.index == index);
            if direction.restore(state, ahead, now)
                && let Some(tag) = self.table.tag(at)
            {
                self.owe(tag, Owed::Padding);
            }
        }
    }
}

fn report(direction: &Direction) -> DirectionReport {
    let plan = &direction.cold.plan;
    let drops = direction.cold.drops.iter().filter(|(_, value)| *value > 0);
    DirectionReport {
        index: plan.index,
        medium: plan.medium,
        from: plan.ingress.first().map_or(Zone::Outside, |flow| flow.zone),
        packets: direction.packets,
        octets: direction.octets,
        lost: direction.stream.lost(),
        drops: drops.map(|(name, value)| Counter { name: name.into(), value }).collect(),
        quality: direction.quality(),
    }
}
