//! Agents whose browsers are signed in: Kamailio registers them and sends them calls, phones call them and are transferred.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use sallyport_lab::agent::{self, Agent};
use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::browser::{self, Browser, SignIn};
use sallyport_lab::net::{AGENT, STUN};
use sallyport_lab::registrar::{self, PASSWORD, Registrar};
use sallyport_lab::tone;
use sallyport_lab::{Lab, Options};
use serde_json::{Value, json};

use crate::stage::{browser_hears, judge, registered, server_possible, tail, until};

const PATIENCE: Duration = Duration::from_secs(20);
/// The tone of a second phone.
const OTHER: u32 = 700;

/// `bench try B` or `C`, as `./try` runs it.
fn between_browsers(deployment: &str, path: &str) {
    if !server_possible() {
        return;
    }
    let file = std::env::temp_dir().join(format!("sp-{deployment}-{path}-{}.json", std::process::id()));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.args(["try", deployment, "--seconds", "5", "--path", path, "--json"]).arg(&file);
    let output = bench.output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let object: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!((&object["passed"], &object["deployment"]), (&true.into(), &deployment.into()), "{said}");
    assert_eq!(object["audio"]["outside_hears_inside"], true);
    assert_eq!(object["audio"]["inside_hears_outside"], true);
    assert_eq!(object["lost"], 0);
}

#[test]
fn a_customer_and_an_agent_inside_talk_by_native_xdp() {
    between_browsers("B", "xdp");
}

#[test]
fn a_customer_and_an_agent_inside_talk_by_sockets() {
    between_browsers("B", "socket");
}

#[test]
fn a_customer_and_an_agent_outside_talk_by_native_xdp() {
    between_browsers("C", "xdp");
}

#[test]
fn a_customer_and_an_agent_outside_talk_by_sockets() {
    between_browsers("C", "socket");
}

/// An agent's browser signed in as 2000, a phone that calls it, and a second phone, 3000.
struct Office {
    browser: Browser,
    caller: Agent,
    second: Agent,
    appliance: Appliance,
    lab: Lab,
}

fn phone(port: u16, user: &str, tone: u32) -> agent::Setup {
    let server = Some(registrar::Setup::default().address);
    agent::Setup { port, user: user.into(), tone, server, ..agent::Setup::default() }
}

impl Office {
    fn open() -> Self {
        let lab = Lab::new(Options::default()).unwrap();
        let server = registrar::Setup {
            aliases: vec![
                ("1000".into(), format!("sip:1000@{AGENT}:5060")),
                ("3000".into(), format!("sip:3000@{AGENT}:5062")),
            ],
            ..registrar::Setup::default()
        };
        let registrar = Registrar::start(&lab, &server).unwrap();
        assert!(registrar.process().is_running());
        let mut setup = Setup::new(programs().unwrap(), Way::Xdp);
        setup.server = server.address;
        setup.more = registered();
        let appliance = Appliance::start(&lab, &setup).unwrap();
        let browser = Browser::start(&lab, &browser::Setup::default()).unwrap();
        let base = appliance.public_url("");
        let password = Some(PASSWORD.to_owned());
        browser.sign_in(&SignIn { base, number: "2000".into(), password, token: None }).unwrap();
        let second = Agent::start(&lab, &phone(5062, "3000", OTHER)).unwrap();
        let uri = format!("sip:2000@{}", server.address);
        let caller = Agent::start_calling(&lab, &phone(5060, "1000", tone::AGENT), &uri).unwrap();
        Self { browser, caller, second, appliance, lab }
    }

    fn take(&self) {
        let incoming = self.browser.heard("incoming", PATIENCE).unwrap();
        assert_eq!((&incoming["from"], &incoming["to"]), (&json!("1000"), &json!("2000")));
        self.browser.take(incoming["call"].as_str().unwrap(), Some(&STUN.to_string())).unwrap();
        self.browser.wait_connected(PATIENCE).unwrap();
    }

    /// The browser hears a tone, for three seconds from now on.
    fn browser_hears(&self, tone: u32) {
        browser_hears(&self.browser, tone);
    }

    /// The call is over, and nothing is left of it.
    fn is_empty(&self) {
        until("nothing is held", Duration::from_secs(10), || {
            self.appliance.status().unwrap().holds_nothing()
        });
        assert!(self.lab.folder().exists());
    }
}

#[test]
fn a_phone_calls_an_agent_who_holds_and_resumes() {
    if !server_possible() {
        return;
    }
    let office = Office::open();
    office.take();
    office.browser_hears(tone::AGENT);
    for hold in ["sendonly", "inactive"] {
        office.browser.direct(hold).unwrap();
        thread::sleep(Duration::from_secs(1));
        office.browser.direct("sendrecv").unwrap();
        thread::sleep(Duration::from_secs(1));
        office.browser_hears(tone::AGENT);
    }
    assert_eq!(office.browser.hang_up().unwrap(), 204);
    office.caller.process().wait_for_words("terminated", PATIENCE).unwrap();
    judge(&tail(&office.caller.heard().unwrap(), 3), tone::BROWSER, tone::AGENT);
    office.is_empty();
}

#[test]
fn an_agent_transfers_a_phone_to_another() {
    if !server_possible() {
        return;
    }
    let office = Office::open();
    office.take();
    office.browser_hears(tone::AGENT);
    office.browser.ask("transfer", &json!({ "to": "3000" })).unwrap();
    until("the transfer has come to its end", PATIENCE, || {
        let news = office.browser.heard("transfer", PATIENCE).unwrap();
        assert!(news["status"].as_u64().unwrap() < 300, "{news}");
        news["status"] == 200
    });
    office.browser.heard("ended", PATIENCE).unwrap();
    office.is_empty();
    assert_eq!(office.second.recordings().len(), 1, "the second phone was called");
    thread::sleep(Duration::from_secs(4));
    judge(&tail(&office.second.heard().unwrap(), 3), tone::AGENT, OTHER);
    judge(&tail(&office.caller.heard().unwrap(), 3), OTHER, tone::AGENT);
}
