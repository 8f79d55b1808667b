//! The thread that has the TCP connections of browsers that UDP does not reach (RFC 6544).
//!
//! It is to the workers what another worker is: what comes by a connection of a call goes over a ring to the worker that owns
//! the call, and what a worker sends there comes over one. What strangers do keeps this thread busy, and no media of others.
//! STUN of connections that belong to no call goes to control, as strangers' STUN by UDP does; a connection that control does
//! not answer ends within seconds. A connection that ends is a path that is lost: consent lapses (RFC 7675) unless the browser
//! comes by another one.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;
use std::{io, thread};

use nix::sys::eventfd::EventFd;
use sallyport_core::{Flows, Now, Sources, Tag};
use sallyport_io::{FrameCount, Pair, TcpConnections, TcpLimits};
use sallyport_plan::{Counter, FlowKey, Zone};
use sallyport_wire::stun;

use crate::config::Poll;
use crate::facts::Interface;
use crate::handoff::Handoff;
use crate::orders::{Notice, Order};
use crate::sleeper::Sleeper;
use crate::worker::Handle;

/// Frames of workers that are taken before connections are looked at again.
const OUTGOING: usize = 1024;

/// Opens the TCP port on each address of the outside interface; `None` where there is none.
///
/// # Errors
/// The system's: the port is taken, or not for us.
pub fn open(outside: &Interface, calls: usize) -> io::Result<Option<TcpConnections>> {
    let Some(port) = outside.tcp else { return Ok(None) };
    let mut connections = TcpConnections::new(TcpLimits::of_calls(calls))?;
    let device = OsString::from(&outside.name);
    for address in &outside.addresses {
        connections.listen((*address, port).into(), Some(&device), outside.dscp)?;
    }
    Ok(Some(connections))
}

/// Starts the thread. `handoff`: its ends of the rings. `notify` says whether the uplink took the notice.
///
/// # Errors
/// What the system says of the thread.
pub fn spawn<N>(
    connections: TcpConnections,
    handoff: Handoff,
    wake: Arc<EventFd>,
    epoch: Instant,
    notify: N,
) -> io::Result<Handle>
where
    N: Fn(Notice) -> bool + Send + 'static,
{
    let (orders, inbox) = std::sync::mpsc::channel();
    let running = Running {
        sleeper: Sleeper::new(wake.clone(), &[connections.descriptor()], Poll::Sleep)?,
        connections,
        inbox,
        epoch,
        stopped: false,
        judge: Judge {
            handoff,
            routes: Flows::default(),
            sources: Sources::new(),
            counts: Counts::default(),
            notify,
        },
    };
    let own = wake.clone();
    let thread = thread::Builder::new().name("tcp".into()).spawn(move || running.run(&own))?;
    Ok(Handle::new(orders, wake, thread))
}

/// Frames, by what became of them.
#[derive(Debug, Default)]
struct Counts {
    punted: u64,
    punt_overflow: u64,
    stray_overflow: u64,
    unknown: u64,
    limited: u64,
}

struct Running<N> {
    sleeper: Sleeper,
    connections: TcpConnections,
    inbox: Receiver<Order>,
    epoch: Instant,
    stopped: bool,
    judge: Judge<N>,
}

/// Decides whose a frame is.
struct Judge<N> {
    handoff: Handoff,
    /// Flows of calls that come by connections, and who owns them.
    routes: Flows<Tag>,
    sources: Sources,
    counts: Counts,
    notify: N,
}

const fn path((local, remote): Pair) -> FlowKey {
    FlowKey { zone: Zone::Outside, local, remote }
}

impl<N: Fn(Notice) -> bool> Running<N> {
    fn run(mut self, wake: &EventFd) {
        self.sleeper.settle();
        while !self.stopped {
            let due = self.connections.poll_timeout().map(|due| self.at(due));
            let now = self.at(Instant::now());
            let slept = self.sleeper.sleep(0, true, due, now);
            self.obey();
            self.take_outgoing(wake);
            let instant = Instant::now();
            let now = self.at(instant);
            let judge = &mut self.judge;
            let polled =
                self.connections.poll(instant, &mut |pair, frame| judge.take(path(*pair), frame, now));
            self.judge.handoff.wake_others();
            while let Some(pair) = self.connections.poll_ended() {
                let flow = path(pair);
                if self.judge.routes.contains_key(&flow) {
                    (self.judge.notify)(Notice::Disconnected(flow));
                }
            }
            if let Err(error) = slept.and(polled) {
                // As for a worker: a relay that starts again is better than one that is deaf by this way.
                tracing::error!(%error, "poll of the TCP connections failed");
                std::process::abort();
            }
        }
    }

    fn at(&self, instant: Instant) -> Now {
        let since = instant.saturating_duration_since(self.epoch);
        Now(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Sends what workers handed over.
    fn take_outgoing(&mut self, wake: &EventFd) {
        let (now, mut bytes) = (Instant::now(), Vec::new());
        for taken in 1..=OUTGOING {
            bytes.clear();
            let taken_up = self.judge.handoff.pop_whole(|piece| bytes.extend_from_slice(piece));
            let Some((_, key, _)) = taken_up else { break };
            self.connections.send(&(key.local, key.remote), &bytes, now);
            if taken == OUTGOING {
                // There may be more: the next sleep ends at once.
                let _ = wake.write(1);
            }
        }
    }

    fn obey(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Routes { insert, remove } => {
                    for flow in remove {
                        self.judge.routes.remove(&flow);
                    }
                    for (flow, tag) in insert {
                        self.judge.routes.insert(flow, tag);
                        // Ended meanwhile, or with a former relay.
                        if !self.connections.has(&(flow.local, flow.remote)) {
                            (self.judge.notify)(Notice::Disconnected(flow));
                        }
                    }
                }
                Order::Send { path, payload, .. } => {
                    self.connections.send(&(path.local, path.remote), &payload, Instant::now());
                }
                Order::Status(ticket) => self.status(ticket),
                Order::Stop => self.stopped = true,
                // Of calls, which are the workers'.
                Order::Install { .. }
                | Order::Remove(_)
                | Order::Links(_)
                | Order::Learn(_)
                | Order::Forget(_)
                | Order::Bind { .. }
                | Order::Unbind(_)
                | Order::Part { .. }
                | Order::Adopt { .. }
                | Order::Dial { .. }
                | Order::Picture { .. }
                | Order::Kept(_)
                | Order::Unkept(_)
                | Order::Report(_) => {}
            }
        }
    }

    fn status(&self, ticket: u64) {
        let Counts { punted, punt_overflow, stray_overflow, unknown, limited } = self.judge.counts;
        let own = [
            ("punted", punted),
            ("punt_overflow", punt_overflow),
            ("drop_stray_overflow", stray_overflow),
            ("drop_unknown_flow", unknown),
            ("drop_rate_limited", limited),
        ];
        let all = own.into_iter().chain(self.connections.counters().named());
        let counters = all.map(|(name, value)| Counter { name: name.into(), value }).collect();
        (self.judge.notify)(Notice::Status { ticket, counters, frames: FrameCount::default() });
    }
}

impl<N: Fn(Notice) -> bool> Judge<N> {
    fn take(&mut self, key: FlowKey, frame: &[u8], now: Now) {
        if let Some(tag) = self.routes.get(&key) {
            if !self.handoff.push(*tag, key, 0, frame) {
                self.counts.stray_overflow += 1;
            }
        } else if !stun::is_stun(frame) {
            self.counts.unknown += 1;
        } else if !self.sources.admit(key.remote.ip(), now) {
            self.counts.limited += 1;
        } else if (self.notify)(Notice::Punt { path: key, call: None, payload: frame.to_vec() }) {
            self.counts.punted += 1;
        } else {
            self.counts.punt_overflow += 1;
        }
    }
}
