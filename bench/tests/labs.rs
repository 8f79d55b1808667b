//! Labs end with their process, however it ends, and never with another's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as the test does")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_lab::Namespace;

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: network namespaces need root");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
    }
    root
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(BENCH).args(arguments).output().unwrap()
}

/// A process with a lab, and the lab's name.
fn up() -> (Child, String) {
    let mut child = Command::new(BENCH).args(["lab", "up"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let name = line.split(' ').next().unwrap().to_owned();
    assert!(name.starts_with("sp-"), "{line}");
    assert_eq!(places(&name), 6);
    (child, name)
}

fn places(name: &str) -> usize {
    Namespace::all(&format!("{name}-")).len()
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

#[test]
fn a_signal_removes_the_lab() {
    if !root() {
        return;
    }
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (mut child, name) = up();
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(status));
        assert_eq!(places(&name), 0);
        assert!(!Path::new(sallyport_lab::FOLDER).join(&name).exists());
    }
}

#[test]
fn what_a_killed_process_left_is_cleaned_and_the_living_is_not() {
    if !root() {
        return;
    }
    let (mut living, alive) = up();
    let (mut killed, dead) = up();
    send(&killed, Signal::SIGKILL);
    killed.wait().unwrap();
    assert_eq!(places(&dead), 6, "nobody was there to clean up");
    let list = String::from_utf8(bench(&["lab", "list"]).stdout).unwrap();
    let states: Vec<_> = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert!(
        states.contains(&vec![dead.as_str(), "dead"]) && states.contains(&vec![alive.as_str(), "alive"]),
        "{list}"
    );

    let refused = bench(&["lab", "clean", &alive]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"));
    assert!(bench(&["lab", "clean", &dead]).status.success());
    assert_eq!((places(&dead), places(&alive)), (0, 6));
    assert!(!bench(&["lab", "clean", &dead]).status.success(), "there is none any more");

    send(&living, Signal::SIGTERM);
    living.wait().unwrap();
    assert_eq!(places(&alive), 0);
}

#[test]
fn a_plain_user_is_told_what_is_missing() {
    if !root() {
        return;
    }
    // As nobody; the program itself must be readable for him, which a build folder need not be.
    let folder = std::env::temp_dir().join(format!("sp-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("bench");
    std::fs::copy(BENCH, &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("try")
        .output();
    std::fs::remove_dir_all(&folder).unwrap();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("needs root") && said.contains("CAP_NET_ADMIN"), "{said}");
}
