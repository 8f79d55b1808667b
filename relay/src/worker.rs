//! One worker: its port, its translator, its share of the calls. Nobody else touches either.

mod counts;
mod forks;
mod own;
mod passing;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;
use std::{io, thread};

use arrayvec::ArrayVec;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;
use sallyport_core::{Checkpoint, CoreEvent, Flows, Inbound, Now, Tag, Translator, Verdict};
use sallyport_io::{Burst, Egress, Frame, Received, TransmitError};
use sallyport_plan::{CallId, FlowKey, Plan, Zone};
use sallyport_wire::PacketBuf;
use sallyport_wire::frame::Link;

use crate::config::Poll;
use crate::edge::Edge;
use crate::hairpin::Own;
use crate::handoff::Handoff;
use crate::nexthop::Links;
use crate::orders::{Notice, Order};
use crate::residence::Residence;
use crate::sessions;
use crate::sleeper::Sleeper;
use counts::Counts;

/// How often indices are kept for a restart, in microseconds.
const CHECKPOINT_INTERVAL: u64 = 1_000_000;
/// Calls whose indices are kept in one turn.
const CHECKPOINTS: usize = 16;
/// Bursts that a worker takes before it looks at orders, strays and timers again: a flood must not starve those.
const BURSTS: usize = 8;
/// Strays that it takes at once, for the same reason.
const STRAYS: usize = 256;

/// The uplink's hold on a worker.
pub struct Handle {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Handle {
    /// Of a thread that obeys `orders` whenever `wake` wakes it.
    pub const fn new(orders: Sender<Order>, wake: Arc<EventFd>, thread: thread::JoinHandle<()>) -> Self {
        Self { orders, wake, thread: Some(thread) }
    }

    /// Hands over an order and wakes the worker.
    pub fn order(&self, order: Order) {
        // Both fail only when the worker is gone, and then the daemon is on its way down.
        let _ = self.orders.send(order);
        let _ = self.wake.write(1);
    }

    /// Whether the thread still runs.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the worker and waits for its end.
    pub fn stop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a worker is made of.
pub struct Worker {
    /// Which worker.
    pub index: u8,
    /// Its port.
    pub edge: Edge,
    /// Its share of the calls.
    pub translator: Translator,
    /// Which paths are no UDP by a cable.
    pub own: Own,
    /// Rings to and from the other workers.
    pub handoff: Handoff,
    /// Who has the TCP connections, by its place among the rings; none where nobody has.
    pub tcp: Option<u8>,
    /// Wakes this worker.
    pub wake: Arc<EventFd>,
    /// Whether packets are lent to the kernel with a header of ours (AF_XDP) or without (sockets).
    pub framed: bool,
    /// How it waits for packets.
    pub poll: Poll,
    /// Whether it keeps residence times.
    pub residence: bool,
    /// Processor that it stays on.
    pub processor: Option<usize>,
    /// The clock's zero, the same for all workers.
    pub epoch: Instant,
}

/// Starts a worker. `notify` says whether the uplink took the notice.
///
/// # Errors
/// What the system says of the thread.
pub fn spawn<N>(worker: Worker, notify: N) -> io::Result<Handle>
where
    N: Fn(Notice) -> bool + Send + 'static,
{
    let (orders, inbox) = std::sync::mpsc::channel();
    let wake = worker.wake.clone();
    let mut worker = worker;
    let running = Running {
        sleeper: Sleeper::new(worker.wake.clone(), &worker.edge.port().descriptors(), worker.poll)?,
        seen: 0,
        more: false,
        inbox,
        notify,
        links: Flows::default(),
        routes: Flows::default(),
        due: Vec::with_capacity(STRAYS.max(Burst::CAPACITY)),
        passed: Vec::with_capacity(STRAYS.max(Burst::CAPACITY)),
        counts: Counts::default(),
        kept: Now(0),
        unkept: Vec::new(),
        round: 0,
        residence: worker.residence.then(Box::default),
        arrived: worker.epoch,
        worker,
        stopped: false,
    };
    let name = format!("worker-{}", running.worker.index);
    let thread = thread::Builder::new().name(name).spawn(move || running.run())?;
    Ok(Handle::new(orders, wake, thread))
}

/// A packet of ours that is still to be judged.
struct Due {
    frame: Frame,
    payload: Range<usize>,
    key: FlowKey,
    tag: Option<Tag>,
    /// How often it was passed on from one leg of ours to another.
    hairpins: u8,
}

/// Where packets lie afterwards, and what becomes of them.
fn judge(
    worker: &mut Worker,
    due: &[Due],
    now: Now,
) -> ArrayVec<(Range<usize>, Verdict), { Burst::CAPACITY }> {
    let mut bufs: ArrayVec<PacketBuf<'_>, { Burst::CAPACITY }> = ArrayVec::new();
    let mut payloads = due.iter().map(|due| due.payload.clone());
    worker.edge.port().buffers(&mut due.iter().map(|due| &due.frame), &mut |octets| {
        bufs.extend(payloads.next().map(|payload| PacketBuf::clamped(octets, payload)));
    });
    let packets = due.iter().zip(&mut bufs);
    let mut packets: ArrayVec<Inbound<'_, '_>, { Burst::CAPACITY }> =
        packets.map(|(due, buf)| Inbound::new(due.key, due.tag, buf)).collect();
    worker.translator.translate_burst(&mut packets, now);
    packets.into_iter().map(|packet| (packet.buf.range(), packet.verdict)).collect()
}

struct Running<N> {
    sleeper: Sleeper,
    /// Packets received when it last slept.
    seen: u64,
    /// Whether there are probably more to receive at once.
    more: bool,
    worker: Worker,
    inbox: Receiver<Order>,
    notify: N,
    links: Flows<Link>,
    routes: Flows<Tag>,
    /// Empty between turns; kept for its room.
    due: Vec<Due>,
    /// The same, for what goes on to another leg of ours.
    passed: Vec<Due>,
    counts: Counts,
    kept: Now,
    /// Calls whose indices are still to be kept in this interval.
    unkept: Vec<CallId>,
    /// How many they were when it began.
    round: usize,
    residence: Option<Box<Residence>>,
    /// When the last burst was taken from the port.
    arrived: Instant,
    stopped: bool,
}

impl<N: Fn(Notice) -> bool> Running<N> {
    fn run(mut self) {
        self.settle();
        let mut burst = Burst::new();
        let mut left = None;
        while !self.stopped {
            if let Err(error) = self.sleep(left) {
                // A relay without one of its workers is worse than a relay that starts again and adopts its calls.
                tracing::error!(%error, worker = self.worker.index, "poll failed");
                std::process::abort();
            }
            self.obey();
            self.take_strays();
            self.receive(&mut burst);
            self.tick();
            left = self.flush();
        }
    }

    /// Hands all that was transmitted to the kernel; when that was, where anybody wanted to know.
    fn flush(&mut self) -> Option<Instant> {
        self.worker.handoff.wake_others();
        if self.worker.edge.port().flush().is_err() {
            self.counts.transmit_failed += 1;
        }
        let waits = self.residence.as_ref().is_some_and(|residence| residence.waits());
        let left = (waits || self.worker.translator.has_forwarded()).then(Instant::now)?;
        if let Some(residence) = self.residence.as_mut().filter(|_| waits) {
            residence.departed(left);
        }
        let stay = left.saturating_duration_since(self.arrived).as_nanos();
        self.worker.translator.departed(u64::try_from(stay).unwrap_or(u64::MAX));
        Some(left)
    }

    fn settle(&self) {
        self.sleeper.settle();
        let Some(processor) = self.worker.processor else { return };
        let mut own = CpuSet::new();
        if own.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &own)).is_err() {
            tracing::warn!(
                worker = self.worker.index,
                processor,
                "the worker cannot be kept on its processor"
            );
        }
    }

    fn now(&self) -> Now {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Now {
        let since = instant.saturating_duration_since(self.worker.epoch);
        Now(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Sleeps until a packet, an order, a stray or a timer is due. `left`: the clock just now, where it was read.
    fn sleep(&mut self, left: Option<Instant>) -> io::Result<()> {
        if self.more {
            return Ok(());
        }
        let packets = self.counts.received - std::mem::replace(&mut self.seen, self.counts.received);
        let patient = self.worker.edge.port().pending() == 0;
        let translator = &self.worker.translator;
        let own = [translator.poll_timeout(), translator.poll_report(), translator.poll_dial()];
        let timers = own.into_iter().chain([self.keeps_at()]);
        let due = timers.flatten().min();
        let now = self.at(left.unwrap_or_else(Instant::now));
        self.sleeper.sleep(packets, patient, due, now)
    }

    fn receive(&mut self, burst: &mut Burst) {
        self.more = false;
        for turn in 1..=BURSTS {
            self.arrived = Instant::now();
            self.worker.translator.arriving();
            let now = self.at(self.arrived);
            match self.worker.edge.port().receive(burst) {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => {
                    self.counts.receive_errors += 1;
                    return;
                }
            }
            if let Some(residence) = &mut self.residence {
                residence.arrived(Instant::now());
            }
            let full = burst.room() == 0;
            for received in burst.drain() {
                self.counts.received += 1;
                self.take(received);
            }
            self.translate(now);
            if !full {
                return;
            }
            self.more = turn == BURSTS;
            self.flush();
        }
    }

    /// Finds out whose a packet is: ours, or another worker's.
    fn take(&mut self, received: Received) {
        let Received { frame, zone, local, remote, payload, tag, .. } = received;
        let zone = if zone == Zone::Outside as u8 { Zone::Outside } else { Zone::Inside };
        let key = FlowKey { zone, local, remote };
        let tag =
            tag.map(|(direction, epoch)| Tag { direction: sallyport_core::DirectionId(direction), epoch });
        // What goes from one leg of ours to another never comes this way, whatever source address it bears.
        let tag = tag.or_else(|| if self.worker.own.is_hairpin(&key) { None } else { self.tag_of(&key) });
        if let Some(due) = self.keep_own(Due { frame, payload, key, tag, hairpins: 0 }) {
            self.due.push(due);
        }
    }

    /// Lets the translator judge all that is due, and what comes of it for other legs of ours, and does what it says.
    fn translate(&mut self, now: Now) {
        self.translate_due(now);
        // Each round passes on what the one before did, and no packet is passed on for ever.
        while !self.passed.is_empty() {
            std::mem::swap(&mut self.due, &mut self.passed);
            self.translate_due(now);
        }
        self.worker.handoff.wake_others();
    }

    fn translate_due(&mut self, now: Now) {
        let mut due = std::mem::take(&mut self.due);
        while !due.is_empty() {
            let some = due.len().min(Burst::CAPACITY);
            let judged = judge(&mut self.worker, due.get(..some).unwrap_or_default(), now);
            // All at once, so that the processor waits for several of them together.
            let links: ArrayVec<Option<Link>, { Burst::CAPACITY }> =
                judged.iter().map(|(_, verdict)| self.link(verdict)).collect();
            for ((due, (range, verdict)), link) in due.drain(..some).zip(judged).zip(links) {
                self.act(due, range, verdict, link);
            }
            self.send_forks();
        }
        self.due = due;
    }

    /// What a packet needs below IP to leave.
    fn link(&self, verdict: &Verdict) -> Option<Link> {
        let path = match verdict {
            Verdict::Forward(cleared) => cleared.egress(),
            Verdict::Reply(path) => path,
            Verdict::Punt(_) | Verdict::Consumed | Verdict::Heard | Verdict::Answered => return None,
            Verdict::Drop(_) => return None,
        };
        self.links.get(path).copied()
    }

    fn act(&mut self, due: Due, range: Range<usize>, verdict: Verdict, link: Option<Link>) {
        let Due { frame, key, hairpins, .. } = due;
        match verdict {
            Verdict::Forward(cleared) if self.worker.own.is_hairpin(cleared.egress()) => {
                self.counts.forwarded += 1;
                self.pass_on(frame, range, cleared.egress(), hairpins);
            }
            Verdict::Forward(cleared) => {
                self.counts.forwarded += 1;
                if let Some(residence) = &mut self.residence {
                    residence.forwarded(key.zone);
                }
                self.transmit(frame, range, *cleared.egress(), link);
            }
            Verdict::Reply(egress) => {
                self.counts.replied += 1;
                self.transmit(frame, range, egress, link);
            }
            Verdict::Punt(call) => {
                let port = self.worker.edge.port();
                let payload = port.buffer(&frame).get(range).unwrap_or_default().to_vec();
                port.release(frame);
                self.punt(Notice::Punt { path: key, call, payload });
            }
            Verdict::Consumed | Verdict::Heard | Verdict::Answered => self.worker.edge.port().release(frame),
            Verdict::Drop(_) => self.worker.edge.port().release(frame),
        }
    }

    fn punt(&mut self, notice: Notice) {
        if (self.notify)(notice) {
            self.counts.punted += 1;
        } else {
            self.counts.punt_overflow += 1;
        }
    }

    fn transmit(&mut self, frame: Frame, payload: Range<usize>, path: FlowKey, link: Option<Link>) {
        if self.worker.own.is_tcp(&path) {
            return self.hand_to_tcp(frame, payload, path);
        }
        let port = self.worker.edge.port();
        if self.worker.framed && link.is_none() {
            self.counts.no_link += 1;
            port.release(frame);
            return;
        }
        let egress = Egress { zone: path.zone as u8, local: path.local, remote: path.remote, link };
        match port.transmit(frame, payload, &egress) {
            Ok(()) => self.counts.sent += 1,
            Err(TransmitError::Full) => self.counts.transmit_full += 1,
            Err(_) => self.counts.transmit_failed += 1,
        }
    }

    /// Consent checks, reports and digits that are due, and what happened since.
    fn tick(&mut self) {
        let now = self.now();
        self.keep(now);
        let mut due: Vec<(FlowKey, Vec<u8>)> = Vec::new();
        let translator = &mut self.worker.translator;
        if translator.poll_timeout().is_some_and(|at| at <= now) {
            translator.handle_timeout(now, &mut |path, bytes| due.push((*path, bytes.to_vec())));
        }
        if translator.poll_report().is_some_and(|at| at <= now) {
            translator.handle_reports(now, &mut |path, bytes| due.push((*path, bytes.to_vec())));
        }
        if translator.poll_dial().is_some_and(|at| at <= now) {
            translator.handle_dials(now, &mut |path, bytes| due.push((*path, bytes.to_vec())));
        }
        self.send_all(due, now);
        self.send_forks();
        self.resend(now);
        while let Some(event) = self.worker.translator.poll_event() {
            match event {
                CoreEvent::ConsentLost { call, flow } => {
                    (self.notify)(Notice::ConsentLost { call, flow });
                }
                CoreEvent::Digit { call, direction, digit } => {
                    (self.notify)(Notice::Digit { call, direction, digit });
                }
                CoreEvent::Source { call, flow } => {
                    (self.notify)(Notice::Source { call, flow });
                }
                CoreEvent::Picture { call, direction } => {
                    (self.notify)(Notice::Picture { call, direction });
                }
            }
        }
    }

    /// When the next group of calls is due to have its indices kept.
    fn keeps_at(&self) -> Option<Now> {
        let done = self.round.saturating_sub(self.unkept.len()) as u64;
        let passed = done * CHECKPOINT_INTERVAL / (self.round as u64).max(1);
        (!self.unkept.is_empty()).then(|| self.kept.plus(passed))
    }

    /// Has the indices of each call kept once an interval, spread over it: all at once would hold up their packets.
    fn keep(&mut self, now: Now) {
        if self.unkept.is_empty() && now.since(self.kept) >= CHECKPOINT_INTERVAL {
            self.kept = now;
            self.unkept.extend(self.worker.translator.calls().map(|(call, _)| call));
            self.round = self.unkept.len();
        }
        if self.keeps_at().is_none_or(|at| at > now) {
            return;
        }
        let calls = self.unkept.drain(self.unkept.len().saturating_sub(CHECKPOINTS)..);
        let checkpoints: Vec<Checkpoint> =
            calls.filter_map(|call| self.worker.translator.checkpoint_of(call)).collect();
        if !checkpoints.is_empty() {
            (self.notify)(Notice::Checkpoint(checkpoints));
        }
    }

    fn obey(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Install { plan, links, checkpoint } => self.install(*plan, links, checkpoint.as_ref()),
                Order::Remove(call) => self.remove(call),
                Order::Links(links) => {
                    // Only what is ours: paths of other workers would never be forgotten here.
                    for (path, link) in links {
                        self.links.entry(path).and_modify(|known| *known = link);
                    }
                }
                Order::Learn(links) => self.links.extend(links),
                Order::Forget(paths) => {
                    for path in paths {
                        self.links.remove(&path);
                    }
                }
                Order::Routes { insert, remove } => {
                    for flow in remove {
                        self.routes.remove(&flow);
                    }
                    self.routes.extend(insert);
                }
                Order::Send { path, link, payload } => {
                    self.send(path, link, &payload);
                }
                Order::Bind { call, addresses } => self.bind(call, &addresses),
                Order::Unbind(addresses) => self.worker.edge.unbind(&addresses),
                Order::Part { call, addresses } => {
                    let sockets = self.worker.edge.part(&addresses);
                    (self.notify)(Notice::Parted { call, sockets });
                }
                Order::Adopt { call, sockets } => {
                    if self.worker.edge.adopt(Zone::Inside as u8, sockets).is_err() {
                        (self.notify)(Notice::Bound { call, bound: false });
                    }
                }
                Order::Picture { call, direction } => {
                    let (now, mut due) = (self.now(), Vec::new());
                    let translator = &mut self.worker.translator;
                    translator.ask_picture(call, direction, now, &mut |path, bytes| {
                        due.push((*path, bytes.to_vec()))
                    });
                    self.send_all(due, now);
                }
                Order::Dial { call, direction, digits } => {
                    let now = self.now();
                    self.worker.translator.dial(call, direction, &digits, now);
                }
                Order::Report(call) => {
                    let directions = self.worker.translator.report(call);
                    (self.notify)(Notice::Report { call, directions });
                }
                Order::Status(ticket) => self.status(ticket),
                Order::Stop => self.stopped = true,
            }
        }
    }

    fn install(&mut self, plan: Plan, links: Links, checkpoint: Option<&Checkpoint>) {
        let call = plan.call;
        let now = self.now();
        let changes = self.worker.translator.install(plan, now);
        if changes.is_ok() {
            self.links.extend(links);
            if let Some(checkpoint) = checkpoint {
                self.worker.translator.restore(checkpoint, sessions::ahead, now);
                // Kept before the first packet can come: should this relay die at once as well, the next one must not go
                // on from where this one did.
                let kept = self.worker.translator.checkpoint_of(call);
                (self.notify)(Notice::Checkpoint(kept.into_iter().collect()));
                // Of many calls more would be owed than there is room for.
                self.resend(now);
            }
        }
        (self.notify)(Notice::Installed { call, changes });
    }

    fn remove(&mut self, call: CallId) {
        let now = self.now();
        let mut removed = self.worker.translator.remove(call, now);
        if let Some(removed) = &mut removed {
            self.send_all(std::mem::take(&mut removed.farewells), now);
            for path in &removed.egress {
                self.links.remove(path);
            }
        }
        (self.notify)(Notice::Removed { call, removed });
    }

    fn bind(&mut self, call: CallId, addresses: &[SocketAddr]) {
        let bound = self.worker.edge.bind(Zone::Inside as u8, addresses).is_ok();
        (self.notify)(Notice::Bound { call, bound });
    }
}
