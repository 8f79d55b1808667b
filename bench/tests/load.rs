//! The latency harness end to end, briefly: every packet of the load arrives and verifies. How fast is not judged here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

use std::fs;
use std::process::Command;

use serde_json::Value;

fn possible() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: network namespaces, XDP and AF_XDP need root");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
    }
    root
}

fn run(path: &str, suite: &str) -> Value {
    let file = std::env::temp_dir().join(format!("sp-load-{path}-{suite}-{}.json", std::process::id()));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench
        .args(["run", "--calls", "8", "--seconds", "1", "--path", path, "--suite", suite, "--json"])
        .arg(&file);
    let output = bench.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    fs::remove_file(&file).unwrap();
    report
}

#[test]
fn every_packet_of_a_load_arrives_on_every_path_and_suite() {
    if !possible() {
        return;
    }
    for (path, suite) in [("xdp", "aes-cm"), ("generic", "gcm"), ("socket", "aes-cm")] {
        let report = run(path, suite);
        let rows = report["rows"].as_array().unwrap();
        let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["wire", &format!("sallyport {path} {suite}")]);
        for row in rows {
            for way in ["inward", "outward"] {
                let (sent, lost) = (row[way]["sent"].as_u64().unwrap(), row[way]["lost"].as_u64().unwrap());
                assert_eq!((sent, lost, row[way]["broken"].as_u64()), (8 * 50, 0, Some(0)), "{path} {row}");
                assert!(row[way]["us"]["p99"].as_f64().unwrap() > 0.0);
            }
        }
        assert!(report["facts"]["interfaces"].as_array().unwrap().iter().all(|one| one["path"] == path));
    }
}

#[test]
fn a_load_of_calls_over_ng_is_answered_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let file = std::env::temp_dir().join(format!("sp-load-ng-{}.json", std::process::id()));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench
        .args(["ng", "--cycles", "400", "--window", "8", "--kind", "browser,called,sdes,plain", "--json"])
        .arg(&file);
    let output = bench.output().unwrap();
    // Calls, ports, flows or directions that are left behind make it fail.
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!((&report["errors"], &report["unanswered"]), (&serde_json::json!({}), &0.into()), "{report}");
    assert!(report["cycles_per_second"].as_f64().unwrap() > 0.0);
    let looks = report["looks"].as_array().unwrap();
    assert_eq!((looks.len(), &looks.last().unwrap()["cycles"]), (11, &400.into()));
    assert!(looks.iter().all(|look| look["programs"]["control"]["kib"].as_u64().unwrap() > 0));
}
