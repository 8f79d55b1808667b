//! A network namespace by name: processes and threads that enter it, and who is in it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};

/// Where iproute2 keeps namespaces.
const FOLDER: &str = "/run/netns";

/// A named network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace of that name, there or not.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All namespaces whose name begins with `prefix`.
    pub fn all(prefix: &str) -> Vec<Self> {
        let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(prefix)).map(Self::named).collect()
    }

    fn path(&self) -> PathBuf {
        [FOLDER, &self.name].iter().collect()
    }

    /// Makes it.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn create(&self) -> anyhow::Result<()> {
        run(Command::new("ip").args(["netns", "add", &self.name]))
    }

    /// Takes its name away; it ends with the last process and socket in it.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn delete(&self) -> anyhow::Result<()> {
        run(Command::new("ip").args(["netns", "delete", &self.name]))
    }

    /// A command that will run in it. Not by `ip netns exec`, which mounts another /sys and so hides pinned maps.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Gives `ip -batch` these lines, in the namespace.
    ///
    /// # Errors
    /// What `ip` says of the first wrong line.
    pub fn ip(&self, lines: &str) -> anyhow::Result<()> {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
    }

    /// Gives `nft -f` these lines, in the namespace.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn nft(&self, lines: &str) -> anyhow::Result<()> {
        feed(self.command("nft").args(["-f", "-"]), lines)
    }

    /// Runs a program in it to its end; words are split at white space.
    ///
    /// # Errors
    /// What the program says where it fails.
    pub fn run(&self, line: &str) -> anyhow::Result<()> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command")?;
        run(self.command(program).args(words))
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets that it opens stay there, wherever they are used.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or the work panicked.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let file = File::open(self.path()).with_context(|| format!("no namespace {}", self.name))?;
        thread::scope(|scope| {
            let enter = move || {
                setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                Ok(work())
            };
            let joined = scope.spawn(enter).join();
            joined.map_err(|_| anyhow::anyhow!("work inside {} panicked", self.name))?
        })
    }

    /// Processes in it, this one apart.
    pub fn pids(&self) -> Vec<i32> {
        let Ok(own) = fs::metadata(self.path()) else { return Vec::new() };
        let me = std::process::id().cast_signed();
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let inside = |pid: &i32| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (own.dev(), own.ino()))
        };
        pids.filter(|pid| *pid != me).filter(inside).collect()
    }
}

/// Runs a command to its end, quietly.
///
/// # Errors
/// Its own words where it fails.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{} does not run", command.get_program().display()))?;
    judge(command, &output)
}

fn feed(command: &mut Command, lines: &str) -> anyhow::Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("{} does not run", command.get_program().display()));
    let mut child = child?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    judge(command, &output)
}

fn judge(command: &Command, output: &std::process::Output) -> anyhow::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let words: Vec<_> = command.get_args().map(|word| word.display().to_string()).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{} {}: {}", command.get_program().display(), words.join(" "), said.trim())
}
