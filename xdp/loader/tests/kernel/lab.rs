//! Network namespaces of a test: the appliance in the middle, with cables to the outside, the inside and nowhere known.
//!
//! ```text
//!   peer o1 192.0.2.9 ---- 192.0.2.1 o0 | appliance | i0 10.0.0.1 ---- 10.0.0.9 i1 peer     (2001:db8::, fd00::)
//!                                       |           | u0 ---- u1 peer
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use sallyport_xdp::{Kernel, Options};

/// RX queues of each interface.
pub const QUEUES: u32 = 4;

static LABS: AtomicU32 = AtomicU32::new(0);

pub struct Lab {
    name: String,
    folder: PathBuf,
}

/// Says why a test cannot run; in CI that is a failure.
pub fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI: {reason}");
}

pub fn run(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)))
}

impl Lab {
    /// Builds the lab with its peers' ends down: no frame comes but those of the test.
    pub fn quiet() -> Option<Self> {
        let lab = Self::new()?;
        for device in ["o1", "i1", "u1"] {
            lab.ip(&format!("-n {} link set {device} down", lab.namespace("p")));
        }
        Some(lab)
    }

    /// Builds the lab; `None` where this machine cannot.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("network namespaces and XDP need root");
            return None;
        }
        if let Err(error) = run("ip netns list") {
            skip(&error);
            return None;
        }
        let name = format!("sp-x{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder).unwrap();
        let lab = Self { name, folder };
        for place in ["a", "p"] {
            lab.ip(&format!("netns add {}", lab.namespace(place)));
            lab.ip(&format!("-n {} link set lo up", lab.namespace(place)));
        }
        lab.cable("o", ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.9/24", "2001:db8::9/64"]);
        lab.cable("i", ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.9/24", "fd00::9/64"]);
        lab.cable("u", ["172.16.0.1/24", "fd01::1/64"], ["172.16.0.9/24", "fd01::9/64"]);
        Some(lab)
    }

    fn namespace(&self, place: &str) -> String {
        format!("{}{place}", self.name)
    }

    fn ip(&self, line: &str) {
        run(&format!("ip {line}")).unwrap();
    }

    fn cable(&self, name: &str, ours: [&str; 2], theirs: [&str; 2]) {
        let (appliance, peer) = (self.namespace("a"), self.namespace("p"));
        let queues = format!("numrxqueues {QUEUES} numtxqueues {QUEUES}");
        self.ip(&format!(
            "-n {appliance} link add {name}0 {queues} type veth peer name {name}1 netns {peer} {queues}"
        ));
        for (namespace, device, addresses) in
            [(&appliance, format!("{name}0"), ours), (&peer, format!("{name}1"), theirs)]
        {
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                self.ip(&format!("-n {namespace} addr add {address} dev {device} {nodad}"));
            }
            self.ip(&format!("-n {namespace} link set {device} up"));
        }
    }

    /// Runs `work` in a thread of its own in the appliance's namespace. Mounts are seen everywhere: only the network is new.
    pub fn appliance<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.within("a", work)
    }

    /// Runs `work` in a thread of its own in the peers' namespace.
    pub fn peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.within("p", work)
    }

    fn within<T: Send>(&self, place: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.namespace(place))).unwrap();
        let worked = thread::scope(|scope| {
            let enter = || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(enter).join()
        });
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command line in the appliance's network.
    pub fn command(&self, line: &str) -> String {
        run(&format!("nsenter --net=/run/netns/{} {line}", self.namespace("a"))).unwrap()
    }

    /// Where the pins of this lab go.
    pub fn pins(&self) -> PathBuf {
        self.folder.join("bpf")
    }

    /// Where the files of this lab go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn options(&self) -> Options {
        Options { pins: self.pins(), max_flows: 64 }
    }

    /// The loaded program.
    pub fn kernel(&self) -> Kernel {
        Kernel::load(&self.options()).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Where a test failed, its mounts may still be there.
        for mounted in ["bpf", "other", "foreign"] {
            let _ = umount2(&self.folder.join(mounted), MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.folder);
        for place in ["a", "p"] {
            let _ = run(&format!("ip netns del {}", self.namespace(place)));
        }
    }
}

/// Index of a device of this thread's namespace.
pub fn index(device: &str) -> u32 {
    if_nametoindex(device).unwrap()
}

/// Waits for what the kernel does in its own time. Panics after some seconds.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < until, "{what} does not happen");
        thread::sleep(Duration::from_millis(2));
    }
}
