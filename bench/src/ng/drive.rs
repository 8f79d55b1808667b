//! Cycles, so many at once: each request is sent when the one before it was answered.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use sallyport_lab::ng::field;

use super::cycle::{Kind, STEPS};

/// Kamailio's own: after this a request is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// And so often.
const TRIES: u8 = 5;
/// Nanoseconds: 1 us to 60 s.
const RANGE_NS: (u64, u64) = (1_000, 60_000_000_000);

/// What is to be done.
pub struct Load {
    /// Cycles in all.
    pub cycles: u64,
    /// Cycles a second; `None`: each as soon as there is room.
    pub rate: Option<f64>,
    /// Cycles at once.
    pub window: usize,
    /// In turn.
    pub kinds: Vec<Kind>,
}

/// What came of it.
pub struct Outcome {
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// From a request to its reply, ns, by step. A first request that could not be sent when it was due counts from then.
    pub latency: [Histogram<u64>; 3],
    /// Replies that told an error, by their words.
    pub errors: BTreeMap<String, u64>,
    /// Requests that were sent again.
    pub again: u64,
    /// Requests that nobody answered.
    pub unanswered: u64,
}

/// A cycle under way.
struct Slot {
    number: u64,
    step: usize,
    cookie: String,
    message: String,
    due: Instant,
    sent: Instant,
    tries: u8,
}

/// Sends and hears.
pub struct Driver<'a> {
    socket: &'a UdpSocket,
    load: &'a Load,
    slots: Vec<Option<Slot>>,
    idle: Vec<usize>,
    begun: u64,
    done: u64,
    requests: u64,
    outcome: Outcome,
}

impl<'a> Driver<'a> {
    /// By a connected socket that does not block.
    ///
    /// # Errors
    /// None that occurs.
    pub fn new(socket: &'a UdpSocket, load: &'a Load) -> anyhow::Result<Self> {
        let latency = || Histogram::new_with_bounds(RANGE_NS.0, RANGE_NS.1, 3);
        Ok(Self {
            socket,
            load,
            slots: (0..load.window).map(|_| None).collect(),
            idle: (0..load.window).collect(),
            begun: 0,
            done: 0,
            requests: 0,
            outcome: Outcome {
                elapsed: Duration::ZERO,
                latency: [latency()?, latency()?, latency()?],
                errors: BTreeMap::new(),
                again: 0,
                unanswered: 0,
            },
        })
    }

    /// Goes through all cycles; tells `progress` how many are over, every `every`.
    ///
    /// # Errors
    /// What the socket says.
    pub fn run(mut self, every: u64, mut progress: impl FnMut(u64)) -> anyhow::Result<Outcome> {
        let begin = Instant::now();
        let (mut told, mut looked) = (0, begin);
        let mut room = vec![0; 65_536];
        while self.done < self.load.cycles {
            let wait = self.begin(begin);
            self.wait(wait)?;
            while let Ok(length) = self.socket.recv(&mut room) {
                let answer = String::from_utf8_lossy(room.get(..length).unwrap_or_default());
                self.hear(&answer);
            }
            if looked.elapsed() > AGAIN / 10 {
                looked = Instant::now();
                self.send_again();
            }
            if self.done / every > told {
                told = self.done / every;
                progress(self.done);
            }
        }
        self.outcome.elapsed = begin.elapsed();
        Ok(self.outcome)
    }

    /// Begins what is due, and says how long there is nothing more to begin.
    fn begin(&mut self, begin: Instant) -> Duration {
        while self.begun < self.load.cycles
            && let Some(at) = self.idle.last().copied()
        {
            let now = Instant::now();
            #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 cycles")]
            let due =
                self.load.rate.map_or(now, |rate| begin + Duration::from_secs_f64(self.begun as f64 / rate));
            if due > now {
                return (due - now).min(AGAIN / 10);
            }
            self.idle.pop();
            let slot = Slot {
                number: self.begun,
                step: 0,
                cookie: String::new(),
                message: String::new(),
                due,
                sent: now,
                tries: 0,
            };
            self.begun += 1;
            self.ask(at, slot);
        }
        AGAIN / 10
    }

    fn wait(&self, most: Duration) -> anyhow::Result<()> {
        let mut descriptors = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut descriptors, Some(TimeSpec::from_duration(most)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends the request of a slot's step.
    fn ask(&mut self, at: usize, mut slot: Slot) {
        self.requests += 1;
        slot.cookie = format!("{at}_{}", self.requests);
        let turn = usize::try_from(slot.number).unwrap_or_default() % self.load.kinds.len().max(1);
        let kind = self.load.kinds.get(turn).copied().unwrap_or(Kind::Browser);
        slot.message = kind.request(slot.number, slot.step, &slot.cookie);
        slot.tries = 1;
        // What the socket does not take is sent again as if it had been lost.
        let _ = self.socket.send(slot.message.as_bytes());
        slot.sent = Instant::now();
        if let Some(room) = self.slots.get_mut(at) {
            *room = Some(slot);
        }
    }

    fn hear(&mut self, answer: &str) {
        let Some((cookie, body)) = answer.split_once(' ') else { return };
        let Some(at) = cookie.split('_').next().and_then(|at| at.parse::<usize>().ok()) else { return };
        // A second answer to a request that was sent twice finds another cookie here.
        let Some(slot) = self.slots.get_mut(at).and_then(|slot| slot.take_if(|slot| slot.cookie == cookie))
        else {
            return;
        };
        let nanoseconds = u64::try_from(slot.due.elapsed().as_nanos()).unwrap_or(RANGE_NS.1);
        if let Some(latency) = self.outcome.latency.get_mut(slot.step) {
            let _ = latency.record(nanoseconds.clamp(RANGE_NS.0, RANGE_NS.1));
        }
        if !body.contains("6:result2:ok") {
            let reason = field(body, "error-reason").unwrap_or_else(|| body.chars().take(80).collect());
            *self.outcome.errors.entry(reason).or_default() += 1;
        }
        self.next(at, slot);
    }

    fn next(&mut self, at: usize, mut slot: Slot) {
        if slot.step + 1 < STEPS.len() {
            slot.step += 1;
            slot.due = Instant::now();
            self.ask(at, slot);
        } else {
            self.done += 1;
            self.idle.push(at);
        }
    }

    fn send_again(&mut self) {
        for at in 0..self.slots.len() {
            let late = |slot: &mut Slot| slot.sent.elapsed() > AGAIN;
            let Some(mut slot) = self.slots.get_mut(at).and_then(|slot| slot.take_if(late)) else { continue };
            if slot.tries >= TRIES {
                self.outcome.unanswered += 1;
                self.next(at, slot);
                continue;
            }
            self.outcome.again += 1;
            let _ = self.socket.send(slot.message.as_bytes());
            slot.tries += 1;
            slot.sent = Instant::now();
            if let Some(room) = self.slots.get_mut(at) {
                *room = Some(slot);
            }
        }
    }
}
