//! Processes of a lab: each in a process group of its own, inside a namespace, its words in a file.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::state::State;

/// How long a process has to end when asked, unless it says otherwise.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a process is looked at while something is awaited.
const GLANCE: Duration = Duration::from_millis(10);

/// A process as the lab's state holds it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    farewell: Signal,
    patience: Duration,
}

impl Running {
    pub(crate) fn farewell(&self) -> Signal {
        self.farewell
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// How it ended, if it has. It is not reaped here: until then nobody else can have its id.
    fn outcome(&self) -> Option<WaitStatus> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(self.pid()), flags).ok().filter(|status| *status != WaitStatus::StillAlive)
    }

    fn ended(&self) -> bool {
        self.outcome().is_some()
    }

    /// Asks it to end, waits, then ends its whole group.
    pub(crate) fn end(&mut self, signal: Signal, patience: Duration) {
        let until = Instant::now() + patience;
        if !self.ended() {
            let _ = kill(self.pid(), signal);
        }
        while !self.ended() && Instant::now() < until {
            thread::sleep(GLANCE);
        }
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// How a process is to be started and ended.
#[derive(Debug)]
pub struct Program {
    /// Names its log, `NAME.log` in the lab's folder.
    pub name: String,
    /// What to run; see [`crate::Namespace::command`].
    pub command: Command,
    /// Asks it to end.
    pub farewell: Signal,
    /// How long it may then take.
    pub patience: Duration,
}

impl Program {
    /// A program that ends on SIGTERM.
    pub fn new(name: impl Into<String>, command: Command) -> Self {
        Self { name: name.into(), command, farewell: Signal::SIGTERM, patience: PATIENCE }
    }
}

/// A process of a lab. It ends with the lab, or by [`Process::stop`]; dropping this handle does nothing.
#[derive(Debug, Clone)]
pub struct Process {
    state: Arc<State>,
    name: String,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    /// Where it does not start, or the lab is gone.
    pub(crate) fn start(state: &Arc<State>, program: Program) -> anyhow::Result<Self> {
        let mut inner = state.open()?;
        let Program { name, mut command, farewell, patience } = program;
        let log = state.folder().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("{name} does not start"))?;
        let pid = child.id();
        inner.running.push(Running { child, farewell, patience });
        drop(inner);
        Ok(Self { state: state.clone(), name, pid, log })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its words are.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its last words.
    pub fn last_words(&self, lines: usize) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        let Ok(inner) = self.state.open() else { return false };
        inner.running.iter().any(|running| running.child.id() == self.pid && !running.ended())
    }

    /// Waits until it has ended by itself; its exit status.
    ///
    /// # Errors
    /// With its last words where it does not end in time, or by a signal.
    pub fn wait_ended(&self, patience: Duration) -> anyhow::Result<i32> {
        let until = Instant::now() + patience;
        loop {
            let inner = self.state.open()?;
            let mine = inner.running.iter().find(|running| running.child.id() == self.pid);
            match mine.and_then(Running::outcome) {
                Some(WaitStatus::Exited(_, status)) => return Ok(status),
                Some(other) => bail!("{} ended otherwise: {other:?}", self.name),
                None if Instant::now() > until => {
                    bail!(
                        "{} has not ended after {} s:\n{}",
                        self.name,
                        patience.as_secs(),
                        self.last_words(20)
                    );
                }
                None => {}
            }
            drop(inner);
            thread::sleep(GLANCE);
        }
    }

    /// Waits until `ready` says something.
    ///
    /// # Errors
    /// With the process's last words where it ends before, or `patience` does.
    pub fn wait_for<T>(&self, patience: Duration, mut ready: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let until = Instant::now() + patience;
        loop {
            if let Some(found) = ready() {
                return Ok(found);
            }
            if !self.is_running() {
                bail!("{} has ended:\n{}", self.name, self.last_words(20));
            }
            if Instant::now() > until {
                bail!("{} is not ready after {} s:\n{}", self.name, patience.as_secs(), self.last_words(20));
            }
            thread::sleep(GLANCE);
        }
    }

    /// Waits until its log holds `text`.
    ///
    /// # Errors
    /// As [`Process::wait_for`].
    pub fn wait_for_words(&self, text: &str, patience: Duration) -> anyhow::Result<()> {
        let said = || fs::read(&self.log).is_ok_and(|log| String::from_utf8_lossy(&log).contains(text));
        self.wait_for(patience, || said().then_some(()))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        if !self.is_running() {
            bail!("{} has ended", self.name);
        }
        kill(Pid::from_raw(self.pid.cast_signed()), signal)
            .with_context(|| format!("{} has ended", self.name))
    }

    /// Sends a signal to it and to all processes that it started.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal_all(&self, signal: Signal) -> anyhow::Result<()> {
        if !self.is_running() {
            bail!("{} has ended", self.name);
        }
        killpg(Pid::from_raw(self.pid.cast_signed()), signal)
            .with_context(|| format!("{} has ended", self.name))
    }

    /// Ends it, as its program says.
    pub fn stop(&self) {
        let Ok(mut inner) = self.state.open() else { return };
        let at = inner.running.iter().position(|running| running.child.id() == self.pid);
        let Some(at) = at else { return };
        let mut running = inner.running.remove(at);
        // The lab can be removed meanwhile by a signal: this group is then ended here all the same.
        drop(inner);
        running.end(running.farewell, running.patience);
    }
}
