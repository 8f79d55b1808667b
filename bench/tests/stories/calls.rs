//! One real call: Chromium outside behind its NAT, baresip inside, the appliance behind a 1:1 NAT between them.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::stage::possible;

/// `bench try`, as `./try` runs it; its JSON object.
fn call(path: &str) -> Value {
    call_under(path, "off")
}

/// The same with media inside encrypted so.
fn call_under(path: &str, srtp: &str) -> Value {
    let file = std::env::temp_dir().join(format!("sp-story-{path}-{srtp}-{}.json", std::process::id()));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.args(["try", "A", "--seconds", "5", "--path", path, "--srtp", srtp, "--json"]).arg(&file);
    let output = bench.output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let object: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!((&object["passed"], &object["path"]), (&true.into(), &path.into()), "{said}");
    assert_eq!(object["audio"]["outside_hears_inside"], true);
    assert_eq!(object["audio"]["inside_hears_outside"], true);
    assert_eq!(object["lost"], 0);
    object
}

fn packets(object: &Value, way: &str) -> u64 {
    object["packets"][way].as_u64().unwrap()
}

#[test]
fn a_browser_and_an_agent_talk_by_native_xdp() {
    if !possible() {
        return;
    }
    let object = call("xdp");
    assert!(packets(&object, "afxdp") >= 480, "{object}");
    assert_eq!(packets(&object, "socket"), 0, "none through the kernel's UDP stack");
}

#[test]
fn a_browser_and_an_agent_talk_by_generic_xdp() {
    if !possible() {
        return;
    }
    let object = call("generic");
    assert!(packets(&object, "afxdp") >= 480, "{object}");
    assert_eq!(packets(&object, "socket"), 0, "none through the kernel's UDP stack");
}

#[test]
fn a_browser_and_an_agent_talk_by_sockets() {
    if !possible() {
        return;
    }
    let object = call("socket");
    assert!(packets(&object, "socket") >= 480, "{object}");
    assert_eq!(packets(&object, "afxdp"), 0);
}

/// Both ends insist: the agent takes RTP/SAVP only, and so does the appliance.
#[test]
fn an_agent_that_must_encrypt_is_heard_by_native_xdp() {
    if possible() {
        let object = call_under("xdp", "required");
        assert!(packets(&object, "afxdp") >= 480, "{object}");
    }
}

/// RTP/AVP with keys (RFC 8643).
#[test]
fn an_agent_that_may_encrypt_is_heard_by_sockets() {
    if possible() {
        let object = call_under("socket", "optional");
        assert!(packets(&object, "socket") >= 480, "{object}");
    }
}
