//! The Debian package goes into a root and out of it again without a trace but its configuration.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// Whether a test that needs root may run; without it the test says so, and fails where CI demands it.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIPPED: dpkg --root needs root");
        assert!(std::env::var_os("CI").is_none(), "CI demands this test");
    }
    root
}

fn files(root: &Path) -> Vec<PathBuf> {
    let text = run(Command::new("find").arg(root).args([
        "-path",
        "*/var/lib/dpkg",
        "-prune",
        "-o",
        "-type",
        "f",
        "-print",
    ]));
    text.lines().map(PathBuf::from).collect()
}

#[test]
fn installs_into_a_root_and_leaves_it_clean() {
    if !is_root() {
        return;
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // The test binary lies in target/PROFILE/deps; the package takes the programs of the same profile.
    let binaries = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    let folder = std::env::temp_dir().join(format!("sallyport-package-{}", std::process::id()));
    let root = folder.join("root");
    std::fs::create_dir_all(root.join("var/lib/dpkg/info")).unwrap();
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let package = folder.join("sallyport.deb");
    run(Command::new(top.join("appliance/deb")).arg(&binaries).arg(&package));

    let dpkg = || {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", root.display()));
        command.args(["--force-depends", "--force-script-chrootless", "--no-triggers"]);
        command
    };
    run(dpkg().arg("--install").arg(&package));
    for file in
        ["usr/bin/sallyport", "usr/bin/sallyport-relay", "usr/lib/systemd/system/sallyport-relay.service"]
    {
        assert!(root.join(file).exists(), "{file} is installed");
    }
    let unit = std::fs::read_to_string(root.join("usr/lib/systemd/system/sallyport-relay.service")).unwrap();
    assert!(unit.contains("FileDescriptorStoreMax=") && unit.contains("CapabilityBoundingSet="));
    // Its workers set their processors; a call that the filter does not know would kill it.
    assert!(unit.contains("sched_setaffinity"), "{unit}");
    let check = Command::new(root.join("usr/bin/sallyport"))
        .args(["check", "--outside", "lo", "--inside", "lo0", "--config"])
        .arg(root.join("etc/sallyport/sallyport.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("relay configuration    accepted"), "{said}");
    assert!(said.contains("control configuration  accepted"), "{said}");

    run(dpkg().args(["--remove", "sallyport"]));
    let left: Vec<_> = files(&root);
    assert_eq!(left, [root.join("etc/sallyport/sallyport.toml")], "a removal keeps the configuration only");
    run(dpkg().args(["--purge", "sallyport"]));
    assert_eq!(files(&root), Vec::<PathBuf>::new());
    std::fs::remove_dir_all(&folder).unwrap();
}
