//! The JavaScript client as it is served: what its sources give, whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use boring::hash::{MessageDigest, hash};

use super::harness::{Control, Net};

fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { files(&entry, all) } else { all.push(entry) }
    }
}

/// `.ci/client` builds it anew; this needs no npm.
#[test]
fn what_is_served_was_built_from_these_sources() {
    let sums: BTreeMap<String, String> =
        serde_json::from_slice(&std::fs::read(web().join("dist/sums.json")).unwrap()).unwrap();
    let mut found: Vec<PathBuf> =
        ["package.json", "tsconfig.json", "build.mjs"].map(|name| web().join(name)).into();
    for folder in ["src", "dist"] {
        files(&web().join(folder), &mut found);
    }
    let mut actual = BTreeMap::new();
    for path in found {
        let name = path.strip_prefix(web()).unwrap().display().to_string();
        if name != "dist/sums.json" {
            let digest = hash(MessageDigest::sha256(), &std::fs::read(&path).unwrap()).unwrap();
            actual.insert(name, digest.iter().map(|octet| format!("{octet:02x}")).collect::<String>());
        }
    }
    assert_eq!(actual, sums, "npm run build, in control/web");
    let package: serde_json::Value =
        serde_json::from_slice(&std::fs::read(web().join("package.json")).unwrap()).unwrap();
    assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_client_is_served_to_all_and_the_demo_page_where_it_is_wanted() {
    let control = Control::start(Net::new(), &[("http", "demo = true")]);
    for (path, kind, word) in [
        ("/client/sallyport.js", "text/javascript; charset=utf-8", "export {"),
        ("/client/sallyport.iife.js", "text/javascript; charset=utf-8", "var Sallyport"),
        ("/client/grtc.js", "text/javascript; charset=utf-8", "var Grtc"),
        ("/demo/", "text/html; charset=utf-8", "<title>Sallyport"),
        ("/demo/demo.js", "text/javascript; charset=utf-8", "import"),
        ("/demo/demo.css", "text/css; charset=utf-8", "body {"),
    ] {
        let answer = control.send("GET", path, &[], b"");
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
        assert!(answer.text().contains(word), "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(
        control.send("GET", "/client/sallyport.js", &[], b"").header("access-control-allow-origin"),
        "*"
    );
    assert_eq!(control.send("GET", "/demo", &[], b"").header("location"), "/demo/");
    let without = Control::start(Net::new(), &[]);
    assert_eq!(without.send("GET", "/demo/", &[], b"").status, 404);
}
