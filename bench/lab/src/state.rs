//! What a lab leaves behind if nobody looks after it, and who looks after it.
//!
//! A lab owns namespaces `NAME-place` and a folder `/run/sallyport-lab/NAME`. It is removed when its [`crate::Lab`] is
//! dropped, also by a panic, and when SIGINT, SIGTERM or SIGHUP arrives. What a killed process left is removed by
//! [`sweep`], which knows dead owners by process id and start time.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::namespace::Namespace;
use crate::process::Running;

/// Where labs keep their files.
pub const FOLDER: &str = "/run/sallyport-lab";
/// All names begin so.
const PREFIX: &str = "sp-";
/// How long processes have to end when asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// Labs of this process, for the signal handler.
static LABS: Mutex<Vec<Weak<State>>> = Mutex::new(Vec::new());
static HANDLER: Once = Once::new();

/// A lab's belongings.
#[derive(Debug)]
pub struct State {
    name: String,
    folder: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// Removed or left to stand: nothing may be started any more.
    closed: bool,
    /// In the order in which they were started.
    pub(crate) running: Vec<Running>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Makes the folder of a new lab and sees to its end.
    ///
    /// # Errors
    /// What the system says.
    pub fn create() -> anyhow::Result<Arc<Self>> {
        catch_signals()?;
        let number = RandomState::new().build_hasher().finish() & 0xff_ffff;
        let name = format!("{PREFIX}{number:06x}");
        let folder = Path::new(FOLDER).join(&name);
        let made = fs::DirBuilder::new().mode(0o711).recursive(true).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(
            folder.join("owner"),
            owner(std::process::id()).context("this process has no start time")?,
        )?;
        let state = Arc::new(Self { name, folder, inner: Mutex::default() });
        lock(&LABS).push(Arc::downgrade(&state));
        Ok(state)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What runs, for changing.
    ///
    /// # Errors
    /// Where the lab has been removed.
    pub(crate) fn open(&self) -> anyhow::Result<MutexGuard<'_, Inner>> {
        let inner = lock(&self.inner);
        if inner.closed {
            bail!("the lab {} has been removed", self.name);
        }
        Ok(inner)
    }

    /// Ends all and removes it. Once; later calls do nothing.
    pub fn remove(&self) {
        let mut inner = lock(&self.inner);
        if std::mem::replace(&mut inner.closed, true) {
            return;
        }
        for running in inner.running.iter_mut().rev() {
            running.end(running.farewell(), running.patience());
        }
        erase(&self.name);
    }

    /// Leaves it standing after this process.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&self) -> anyhow::Result<()> {
        let mut inner = self.open()?;
        fs::write(self.folder.join("kept"), "")?;
        inner.closed = true;
        Ok(())
    }
}

/// Removes what lies in the system under a lab's name.
fn erase(name: &str) {
    let namespaces = Namespace::all(&format!("{name}-"));
    let pids = || namespaces.iter().flat_map(Namespace::pids);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for pid in pids() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && pids().next().is_some() {
            thread::sleep(Duration::from_millis(20));
        }
    }
    for namespace in &namespaces {
        if let Err(error) = namespace.delete() {
            eprintln!("lab: {error:#}");
        }
    }
    let folder = Path::new(FOLDER).join(name);
    for mount in mounts(&folder) {
        let _ = umount2(&mount, MntFlags::MNT_DETACH);
    }
    if let Err(error) = fs::remove_dir_all(&folder) {
        eprintln!("lab: {} cannot be removed: {error}", folder.display());
    }
}

/// Mount points under a folder, the deepest first.
fn mounts(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(folder)).collect();
    points.reverse();
    points
}

/// What stands in /run/sallyport-lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Whether the process that made it lives.
    pub alive: bool,
    /// Whether it was left on purpose.
    pub kept: bool,
}

/// All labs on this machine.
pub fn standing() -> Vec<Standing> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut labs: Vec<_> = names.filter(|name| name.starts_with(PREFIX)).map(examine).collect();
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    labs
}

/// Removes a lab whose owner is dead.
///
/// # Errors
/// Where it does not stand, or its owner lives.
pub fn remove(name: &str) -> anyhow::Result<()> {
    match standing().into_iter().find(|lab| lab.name == name) {
        None => bail!("no lab {name} stands"),
        Some(lab) if lab.alive => bail!("the lab {name} is in use: its process lives"),
        Some(_) => erase(name),
    }
    Ok(())
}

fn examine(name: String) -> Standing {
    let folder = Path::new(FOLDER).join(&name);
    let written = fs::read_to_string(folder.join("owner")).unwrap_or_default();
    let pid = written.split(' ').next().and_then(|pid| pid.parse().ok());
    let alive = pid.and_then(owner).is_some_and(|now| now == written);
    let kept = folder.join("kept").exists();
    Standing { name, alive, kept }
}

/// Removes labs whose owner is dead; those left on purpose only where `kept` says so. Returns their names.
pub fn sweep(kept: bool) -> Vec<String> {
    let dead = standing().into_iter().filter(|lab| !lab.alive && (kept || !lab.kept));
    let names: Vec<_> = dead.map(|lab| lab.name).collect();
    for name in &names {
        erase(name);
    }
    names
}

/// `PID START`, where START is the process's start time in ticks after boot (proc(5), field 22).
fn owner(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may itself hold both spaces and parentheses.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{pid} {start}"))
}

fn catch_signals() -> anyhow::Result<()> {
    let mut outcome = Ok(());
    HANDLER.call_once(|| match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    eprintln!("\ninterrupted: the lab is being removed");
                    let labs: Vec<_> = lock(&LABS).iter().filter_map(Weak::upgrade).collect();
                    labs.iter().for_each(|lab| lab.remove());
                    std::process::exit(128 + signal);
                }
            });
        }
        Err(error) => outcome = Err(error).context("signals cannot be caught"),
    });
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_known_by_pid_and_start() {
        let own = owner(std::process::id()).unwrap();
        assert_eq!(owner(std::process::id()).unwrap(), own);
        assert_eq!(own.split(' ').count(), 2);
        assert_eq!(owner(u32::MAX), None);
    }
}
