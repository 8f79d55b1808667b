//! When a worker sleeps, and on what.
//!
//! A sleeper that is woken by each packet costs its sender an interrupt between processors for each. While packets come
//! densely it is cheaper for both, and early enough for voice, to look again a little later: as network cards do, which
//! moderate their interrupts. So an adaptive worker sleeps on everything while packets are rare, and so is there at once, and
//! takes naps of a fixed length while they are not.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use sallyport_core::Now;

use crate::config::Poll;

/// Names of what it sleeps on.
const WAKE: u64 = 0;
const PORT: u64 = 1;
/// Microseconds that a worker sleeps at the most.
const LONGEST: u64 = 100_000;
/// Length of a nap in microseconds.
const NAP: u64 = 100;
/// Packets that a nap must promise, or it is not worth the delay.
const WORTH: u64 = 2;
/// Over how many microseconds packets are counted to tell how densely they come.
const WINDOW: u64 = 1_000;
/// How late the system may end a nap, in nanoseconds; by default it takes the liberty of 50 us.
const SLACK_NS: u64 = 1_000;

/// A worker's sleep.
pub struct Sleeper {
    everything: Epoll,
    wake: Arc<EventFd>,
    poll: Poll,
    density: Density,
}

/// How densely packets come.
#[derive(Debug, Default)]
struct Density {
    since: Now,
    packets: u64,
    dense: bool,
}

impl Density {
    /// Whether a nap is worth it, `packets` having come since the last question.
    fn is_worth(&mut self, packets: u64, now: Now) -> bool {
        self.packets += packets;
        let passed = now.since(self.since);
        if passed >= WINDOW {
            self.dense = self.packets * NAP >= WORTH * passed;
            (self.since, self.packets) = (now, 0);
        }
        self.dense
    }
}

impl Sleeper {
    /// Sleeps on a worker's wake and on its port's descriptors, which are the same for its life.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(wake: Arc<EventFd>, port: &[BorrowedFd<'_>], poll: Poll) -> io::Result<Self> {
        let everything = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        everything.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        for descriptor in port {
            everything.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, PORT))?;
        }
        Ok(Self { everything, wake, poll, density: Density::default() })
    }

    /// To be called once by the thread that sleeps.
    pub fn settle(&self) {
        // Naps would be half as long again, which is no reason to fail.
        let _ = nix::sys::prctl::set_timerslack(SLACK_NS);
    }

    /// Sleeps until something comes, or until `due`. `packets` came since the last time; `patient`: nothing waits to be
    /// done.
    ///
    /// # Errors
    /// What the system says.
    pub fn sleep(&mut self, packets: u64, patient: bool, due: Option<Now>, now: Now) -> io::Result<()> {
        let longest = if patient { LONGEST } else { 1_000 };
        let left = due.map_or(longest, |due| due.since(now).min(longest));
        match self.poll {
            Poll::Busy => Ok(()),
            Poll::Adaptive if self.density.is_worth(packets, now) => self.nap(left.min(NAP)),
            Poll::Adaptive | Poll::Sleep => self.wait(left),
        }
    }

    /// Only orders and other workers' packets wake it.
    fn nap(&self, micros: u64) -> io::Result<()> {
        let mut wake = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut wake, Some(TimeSpec::from_duration(Duration::from_micros(micros))), None) {
            Ok(0) | Err(Errno::EINTR) => Ok(()),
            Ok(_) => {
                self.woken();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn wait(&self, micros: u64) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 4];
        let timeout = EpollTimeout::try_from(micros.div_ceil(1000)).unwrap_or(EpollTimeout::ZERO);
        match self.everything.wait(&mut events, timeout) {
            Ok(ready) => {
                if events.iter().take(ready).any(|event| event.data() == WAKE) {
                    self.woken();
                }
                Ok(())
            }
            Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn woken(&self) {
        // Non-blocking, and nobody else reads it.
        let _ = self.wake.read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_are_for_dense_packets_only() {
        let mut density = Density::default();
        let mut at = Now(0);
        let mut run = |every: u64, count: u64| {
            let mut worth = false;
            for _ in 0..count {
                at = at.plus(every);
                worth = density.is_worth(1, at);
            }
            worth
        };
        // One call both ways, then 200 packets a window's thousandth, then silence.
        assert!(!run(10_000, 20));
        assert!(run(5, 1_000));
        assert!(!run(20_000, 1));
        assert!(!run(60, 1_000), "less than two in a nap");
        assert!(run(40, 1_000), "more than two");
    }
}
