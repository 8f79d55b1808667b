//! The latency harness end to end, briefly: every packet of the load arrives and verifies, and what is written holds what it
//! promises. How fast is not judged here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

use std::fs;
use std::path::{Path, PathBuf};
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

/// A folder of this test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("sp-load-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What `bench` prints; the test ends where it fails.
fn bench(words: &str, files: &[(&str, &Path)]) -> String {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.args(words.split_whitespace());
    for (option, file) in files {
        bench.args([option].into_iter().filter(|option| !option.is_empty())).arg(file);
    }
    let output = bench.output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn read(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// Sent, lost and broken packets of a way.
fn counts(way: &Value) -> [u64; 3] {
    ["sent", "lost", "broken"].map(|name| way[name].as_u64().unwrap())
}

fn names(points: &Value) -> Vec<&str> {
    points.as_array().unwrap().iter().map(|point| point["name"].as_str().unwrap()).collect()
}

#[test]
fn every_packet_of_a_load_arrives_on_every_path_and_suite() {
    if !possible() {
        return;
    }
    for (path, suite) in [("xdp", "aes-cm"), ("generic", "gcm"), ("socket", "aes-cm")] {
        let folder = Folder::new(path);
        let json = folder.file("run.json");
        bench(&format!("run --calls 8 --seconds 1 --path {path} --suite {suite}"), &[("--json", &json)]);
        let report = read(&json);
        assert_eq!(names(&report["floor"]), ["wire"]);
        assert_eq!(names(&report["rows"]), [format!("sallyport {path} {suite}")]);
        for row in [&report["floor"][0], &report["rows"][0]] {
            for way in ["inward", "outward"] {
                assert_eq!(counts(&row[way]), [8 * 50, 0, 0], "{path} {row}");
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

#[test]
fn every_packet_of_every_mix_arrives() {
    if !possible() {
        return;
    }
    let folder = Folder::new("mix");
    // Of 30 frames of video a second, one call's first counted frame is due just before the warm-up's end, others' after it.
    for (mix, packets) in [("opus", 3 * 50..=3 * 50), ("video", 3 * 28 * 8..=3 * 31 * 12)] {
        let json = folder.file("run.json");
        bench(&format!("run --calls 3 --seconds 1 --mix {mix}"), &[("--json", &json)]);
        let report = read(&json);
        let row = &report["rows"][0];
        for way in ["inward", "outward"] {
            let [sent, lost, broken] = counts(&row[way]);
            assert!(packets.contains(&sent), "{mix}: {sent}");
            assert_eq!([lost, broken], [0, 0], "{mix} {row}");
        }
        assert_eq!(report["facts"]["mix"], mix);
    }
}

#[test]
fn a_report_holds_what_its_guide_says() {
    if !possible() {
        return;
    }
    let folder = Folder::new("report");
    let (json, html) = (folder.file("run.json"), folder.file("run.html"));
    let words = "run --calls 10 --seconds 1 --repeat 2 --workers 2 --capture";
    let said = bench(words, &[("--json", &json), ("--html", &html)]);
    let report = read(&json);
    assert_eq!((report["format"].as_u64(), report["command"].as_str()), (Some(2), Some("run")));
    let facts = &report["facts"];
    for fact in ["cpu", "cpus", "kernel", "date", "driver", "version", "build", "link", "memory_mib"] {
        assert!(!facts[fact].is_null(), "{fact}: {facts}");
    }
    assert_eq!((facts["workers"].as_u64(), facts["queues"].as_u64()), (Some(2), Some(2)));
    let share = |name: &str| facts["shares"][name].as_u64().unwrap();
    let (each, all) = ([share("received_by_worker_0"), share("received_by_worker_1")], share("received"));
    assert!(each.iter().all(|share| share * 4 > all) && each.iter().sum::<u64>() == all, "{facts}");
    assert_eq!(share("drop_stray_overflow"), 0, "{facts}");
    assert!(said.contains("veth, copy mode"), "the label is printed: {said}");
    assert!(
        said.find("floor:").unwrap() < said.find("sallyport xdp").unwrap(),
        "the floor comes first: {said}"
    );
    assert_eq!(names(&report["rows"]).len(), 2, "one for each repetition");
    for row in report["rows"].as_array().unwrap() {
        for way in ["inward", "outward"] {
            let way_of_row = &row[way];
            assert_eq!(counts(way_of_row), [10 * 50, 0, 0]);
            let percentiles = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
            let percentiles = percentiles.map(|name| way_of_row["us"][name].as_f64().unwrap());
            assert!(percentiles.is_sorted(), "{percentiles:?}");
            let bins = way_of_row["histogram_us"].as_array().unwrap();
            assert_eq!(bins.iter().map(|bin| bin[1].as_u64().unwrap()).sum::<u64>(), 10 * 50);
            // All that count are found on both sides, and of the warm-up what arrived.
            let captured = row["capture"][way]["packets"].as_u64().unwrap();
            assert!((10 * 50..=10 * 65).contains(&captured), "{way}: {captured}");
            // The relay counts what it handed to the kernel; its workers hand some of it to each other.
            let stayed = row["residence"][way]["packets"].as_u64().unwrap();
            assert!((1..=10 * 65).contains(&stayed), "{row}");
        }
        for figure in ["cpu_us_per_packet", "kib_per_call", "setup_calls_per_second"] {
            assert!(row[figure].as_f64().is_some(), "{figure}: {row}");
        }
    }
    assert_eq!(report["stages"].as_array().unwrap().len(), 8);
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.matches("<svg").count() >= 5 && page.contains("veth, copy mode"));

    let drawn = folder.file("drawn.html");
    bench(&format!("draw {} {}", json.display(), drawn.display()), &[]);
    assert_eq!(fs::read_to_string(&drawn).unwrap(), page, "the file holds all that the page shows");
    let said = bench(&format!("compare {0} {0}", json.display()), &[]);
    assert!(said.contains("sallyport xdp aes-cm, 10 calls") && said.contains("1.00"), "{said}");
    assert!(!said.contains("WORSE") && !said.contains("better"), "nothing differs from itself: {said}");
}

#[test]
fn two_relays_are_compared_in_turn() {
    if !possible() {
        return;
    }
    let folder = Folder::new("compare");
    let (json, html) = (folder.file("compare.json"), folder.file("compare.html"));
    let relays = Path::new(env!("CARGO_BIN_EXE_bench")).parent().unwrap();
    let words = format!("compare {0} {0} --calls 5 --seconds 1 --repeat 2", relays.display());
    let said = bench(&words, &[("--json", &json), ("--html", &html)]);
    assert!(said.contains("p99 us"), "{said}");
    let report = read(&json);
    let both = ["before: sallyport xdp aes-cm", "after: sallyport xdp aes-cm"];
    assert_eq!(names(&report["rows"]), [both[0], both[0], both[1], both[1]]);
    let line = report["comparison"].as_array().unwrap().iter().find(|line| line["figure"] == "lost").unwrap();
    assert_eq!(
        (line["before"]["runs"].as_u64(), line["verdict"].as_str()),
        (Some(2), Some("within")),
        "{line}"
    );
    assert!(fs::read_to_string(&html).unwrap().contains("What changed"));
}

#[test]
fn files_and_folders_are_not_compared_with_each_other() {
    let folder = Folder::new("kinds");
    fs::write(folder.file("a.json"), "{}").unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    let output = bench.arg("compare").arg(folder.file("a.json")).arg(&folder.0).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("not one of each"));
}
