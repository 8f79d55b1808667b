//! Configuration, signals, and what a new control makes of what the old one left.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use boring::asn1::Asn1Time;
use boring::ec::{EcGroup, EcKey};
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::PKey;
use boring::x509::X509;
use nix::sys::signal::Signal;

use super::browser::Browser;
use super::harness::{Control, Net, TOKEN, configuration, until};
use super::pbx::Pbx;
use super::relay::Relay;

/// Writes a self-signed certificate and its key; their paths.
pub fn certificate(folder: &Path) -> (String, String) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let paths = ["certificate.pem", "key.pem"].map(|name| folder.join(name));
    std::fs::write(&paths[0], builder.build().to_pem().unwrap()).unwrap();
    std::fs::write(&paths[1], key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    paths.map(|path| path.display().to_string()).into()
}

fn run(text: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("sallyport.toml");
    std::fs::write(&path, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_sallyport-control"))
        .arg("--config")
        .arg(path)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn check_shows_what_is_in_effect_without_secrets() {
    let folder = tempfile::TempDir::new().unwrap();
    let text = configuration(&Net::new(), folder.path(), &[("sip", "password = 'hush hush'")]);
    let output = run(&text, &["--check", "--outside", "wan9", "--inside", "lan9", "--path", "socket"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        shown.contains("wan9") && shown.contains("lan9") && shown.contains("ring_timeout_s = 60"),
        "{shown}"
    );
    assert!(!shown.contains("hush") && !shown.contains(TOKEN), "{shown}");
}

#[test]
fn each_mistake_in_the_configuration_is_named_and_nothing_starts() {
    let folder = tempfile::TempDir::new().unwrap();
    let base = |sections: &[(&str, &str)]| configuration(&Net::new(), folder.path(), sections);
    let cases = [
        (base(&[("http", "tokns = []")]), "tokns"),
        (base(&[("sip", "transport = 'smoke'")]), "smoke"),
        (base(&[("sip", "ring_timeout_s = 0")]), "ring_timeout_s"),
        (base(&[("http", "certificate = '/nowhere.pem'")]), "key"),
        (base(&[("http", "certificate = '/nowhere.pem'\nkey = '/nowhere.key'")]), "/nowhere.pem"),
        (base(&[("outside", "stun = 'not an address'")]), "stun"),
        (base(&[("outside", "ice = 'dry'")]), "dry"),
        (format!("{}[colour]\n", base(&[])), "colour"),
        ("[http\n".to_owned(), "TOML"),
        (base(&[]).replace("127.", "203."), "cannot be served"),
    ];
    for (text, word) in cases {
        let output = run(&text, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(word), "{word} is not in: {said}");
        assert!(!said.contains(TOKEN), "{said}");
    }
}

/// A call that carries media; its path.
pub fn connected(control: &Control, relay: &Relay, number: u16) -> (String, Browser) {
    let mut browser = Browser::new(relay, control.net.browser(number));
    let created = control.call("1000", &browser.offer("actpass"));
    assert_eq!(created.status, 201, "{}", created.text());
    let path = created.header("location").to_owned();
    browser.connect(&created.text());
    until("the call is connected", || control.ask("GET", &path).json()["state"] == "connected");
    (path, browser)
}

#[test]
fn a_killed_control_is_replaced_and_the_next_one_goes_on_with_its_calls() {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let mut control = Control::start(net, &[]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let (path, _browser) = connected(&control, &relay, 1);
    let before = control.ask("GET", &path).json();
    control.restart();
    control.wait_until_ready();
    assert!(relay.state().removed.is_empty(), "the call goes on");
    let after = control.ask("GET", &path).json();
    for member in ["id", "to", "created", "state"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    assert_eq!(after["legs"]["outside"]["profile"], before["legs"]["outside"]["profile"]);
    assert_eq!(control.ask("GET", "/v1/calls").json().as_array().unwrap().len(), 1);
    assert_eq!(control.ask("DELETE", &path).status, 204);
    control.wait_until_idle();
    relay.wait_until_empty();
    assert_eq!(pbx.heard("BYE").len(), 1);
    assert!(pbx.state().talking.is_empty(), "the BYE belongs to the dialog");
}

#[test]
fn the_called_side_can_hang_up_an_adopted_call() {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let mut control = Control::start(net, &[]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let (_, _browser) = connected(&control, &relay, 1);
    control.restart();
    control.wait_until_ready();
    let ack = pbx.heard("ACK").remove(0);
    pbx.send_datagram(&pbx.request("BYE", &ack, 1), control.net.sip());
    assert!(pbx.state().answers.last().unwrap().starts_with("SIP/2.0 200 "));
    control.wait_until_idle();
    relay.wait_until_empty();
}

#[test]
fn a_call_whose_record_cannot_be_read_is_ended_in_the_relay() {
    let net = Net::new();
    let _pbx = Pbx::start(net.pbx());
    let mut control = Control::start(net, &[]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let (path, _browser) = connected(&control, &relay, 1);
    for plan in relay.state().plans.values_mut() {
        plan.record = b"written by somebody else".to_vec();
    }
    control.restart();
    control.wait_until_ready();
    relay.wait_until_empty();
    assert_eq!(control.ask("GET", &path).status, 404);
    control.wait_until_idle();
}

#[test]
fn calls_that_the_relay_lost_are_ended() {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, &[]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let (path, _browser) = connected(&control, &relay, 1);
    relay.stop(true);
    until("the relay's end is seen", || control.send("GET", "/readyz", &[], b"").status == 503);
    assert_eq!(control.ask("GET", &path).json()["state"], "connected", "it may come back");
    relay.listen();
    control.wait_until_idle();
    until("the called side is told", || pbx.state().talking.is_empty());
}

#[test]
fn calls_that_the_relay_kept_go_on() {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, &[]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let (path, _browser) = connected(&control, &relay, 1);
    relay.stop(false);
    until("the relay's end is seen", || control.send("GET", "/readyz", &[], b"").status == 503);
    relay.listen();
    control.wait_until_ready();
    assert_eq!(control.ask("GET", &path).json()["state"], "connected");
    assert_eq!(pbx.state().talking.len(), 1);
    assert_eq!(control.ask("DELETE", &path).status, 204);
    control.wait_until_idle();
    relay.wait_until_empty();
}

#[test]
fn sigterm_leaves_media_running_and_sigint_hangs_up() {
    for (signal, left) in [(Signal::SIGTERM, 1), (Signal::SIGINT, 0)] {
        let net = Net::new();
        let pbx = Pbx::start(net.pbx());
        let mut control = Control::start(net, &[]);
        let relay = Relay::start(&control.socket(), &control.net);
        control.wait_until_ready();
        let (_, _browser) = connected(&control, &relay, 1);
        control.signal(signal);
        assert_eq!(control.ended(Duration::from_secs(8)), Some(0), "{signal}");
        assert_eq!(relay.state().plans.len(), left, "{signal}");
        assert_eq!(pbx.state().talking.len(), left, "{signal}");
    }
}
