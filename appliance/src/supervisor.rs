//! A child process that is started, listened to, restarted and ended.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::holder::{Holder, Said};

/// First descriptor that a child inherits (sd_listen_fds(3)).
const FIRST_DESCRIPTOR: i32 = 3;
/// The pause before a restart doubles up to this while the child dies young.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a child may take to end that nobody ended before.
const FAREWELL: Duration = Duration::from_secs(2);
/// A child that lived this long did not die young.
const GROWN_UP: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// What people call it.
    pub name: &'static str,
    /// Its file.
    pub file: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment beyond ours.
    pub environment: Vec<(&'static str, String)>,
}

/// A program, its process while there is one, and its descriptor store.
pub struct Supervised {
    program: Program,
    holder: Holder,
    child: Option<Child>,
    started: Instant,
    delay: Duration,
    pause: Duration,
    restart_at: Option<Instant>,
}

/// What happened to a child.
#[derive(Debug)]
pub enum Happened {
    /// It said something.
    Said(Said),
    /// It ended; it starts again after this pause.
    Ended(ExitStatus, Duration),
    /// It runs again.
    Restarted,
    /// It cannot be started.
    Failed(io::Error),
}

impl Drop for Supervised {
    /// However the supervisor leaves, nobody stays behind.
    fn drop(&mut self) {
        self.end(Signal::SIGTERM, FAREWELL);
    }
}

impl Supervised {
    /// Starts the program; `delay` is the pause before a restart.
    ///
    /// # Errors
    /// What the system says of the program or the socket.
    pub fn start(program: Program, folder: &Path, delay: Duration) -> io::Result<Self> {
        let holder = Holder::open(&folder.join(format!("{}.notify", program.name)))?;
        let started = Instant::now();
        let mut supervised =
            Self { program, holder, child: None, started, delay, pause: delay, restart_at: None };
        supervised.spawn()?;
        Ok(supervised)
    }

    /// What people call it.
    pub fn name(&self) -> &'static str {
        self.program.name
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn spawn(&mut self) -> io::Result<()> {
        // The shell becomes the program, so LISTEN_PID is right: nobody can know a pid before there is one.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(&self.program.file);
        command.args(&self.program.arguments).stdin(Stdio::null());
        command.env("NOTIFY_SOCKET", self.holder.path()).envs(self.program.environment.iter().cloned());
        let stored = self.holder.store();
        let names: Vec<&str> = stored.iter().map(|stored| stored.name.as_str()).collect();
        // Unset rather than empty where nothing is stored: an empty list of names reads as one name.
        for name in ["LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        if !stored.is_empty() {
            command.env("LISTEN_FDS", stored.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let descriptors: io::Result<Vec<OwnedFd>> =
            stored.iter().map(|stored| stored.descriptor.try_clone()).collect();
        let mappings = descriptors?
            .into_iter()
            .zip(FIRST_DESCRIPTOR..)
            .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
            .collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        // Ctrl-C belongs to us: children are ended in order, not by the terminal.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.child = Some(command.spawn()?);
        self.started = Instant::now();
        self.restart_at = None;
        Ok(())
    }

    /// Looks at the child: what it said, whether it ended, whether it is to be started again.
    pub fn poll(&mut self) -> Vec<Happened> {
        let mut happened = Vec::new();
        let said = self.holder.poll();
        if said != Said::default() {
            happened.push(Happened::Said(said));
        }
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            self.child = None;
            let young = self.started.elapsed() < GROWN_UP;
            let pause = if young { self.pause } else { self.delay };
            self.pause = (pause * 2).min(PAUSE_MAX.max(self.delay));
            self.restart_at = Some(Instant::now() + pause);
            happened.push(Happened::Ended(status, pause));
        }
        if self.restart_at.is_some_and(|at| Instant::now() >= at) {
            happened.push(match self.spawn() {
                Ok(()) => Happened::Restarted,
                Err(error) => {
                    self.restart_at = Some(Instant::now() + self.pause);
                    Happened::Failed(error)
                }
            });
        }
        happened
    }

    /// Sends `signal` and waits; kills what is still there after `patience`.
    pub fn end(&mut self, signal: Signal, patience: Duration) {
        self.restart_at = None;
        let Some(mut child) = self.child.take() else { return };
        let pid = i32::try_from(child.id()).map(Pid::from_raw);
        if let Ok(pid) = pid {
            let _ = kill(pid, signal);
        }
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &'static str, script: &str) -> Program {
        let arguments = vec!["-c".into(), script.into()];
        Program { name, file: "/bin/sh".into(), arguments, environment: vec![] }
    }

    fn wait_for(supervised: &mut Supervised, mut wanted: impl FnMut(&Happened) -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if supervised.poll().iter().any(&mut wanted) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    #[test]
    fn a_dead_child_starts_again_after_its_pause() {
        let folder = std::env::temp_dir();
        let mut child =
            Supervised::start(shell("mortal", "exit 3"), &folder, Duration::from_millis(5)).unwrap();
        assert!(wait_for(
            &mut child,
            |h| matches!(h, Happened::Ended(status, _) if status.code() == Some(3))
        ));
        assert!(wait_for(&mut child, |h| matches!(h, Happened::Restarted)));
        child.end(Signal::SIGTERM, Duration::from_secs(1));
        assert!(child.pid().is_none() && child.poll().is_empty());
    }

    #[test]
    fn a_deaf_child_is_killed() {
        let folder = std::env::temp_dir();
        let script = "trap '' TERM; while :; do sleep 1; done";
        let mut child = Supervised::start(shell("deaf", script), &folder, Duration::from_secs(1)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        child.end(Signal::SIGTERM, Duration::from_millis(200));
        assert!(begun.elapsed() < Duration::from_secs(5) && child.pid().is_none());
    }
}
