//! Two SIP servers in front of one phone, the first of which dies: while it rings, in the middle of a call, between calls.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use sallyport_lab::agent::{self, Agent};
use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::browser::{self, Browser, Call, SignIn};
use sallyport_lab::net::{AGENT, STUN};
use sallyport_lab::registrar::{self, PASSWORD, Registrar};
use sallyport_lab::sipp::{self, Scenario, Sipp, Sound};
use sallyport_lab::speaker::Speaker;
use sallyport_lab::{Lab, Options, Place, tone};

use crate::stage::{browser_hears, judge, registered, server_possible, tail, until};

const PATIENCE: Duration = Duration::from_secs(30);
/// The tone of a phone's loudspeaker.
const SPEAKER: u32 = 700;

/// Where phones are beside baresip's port.
fn at(port: u16) -> SocketAddr {
    SocketAddr::from((AGENT, port))
}

struct World {
    browser: Browser,
    servers: [Registrar; 2],
    appliance: Appliance,
    lab: Lab,
}

impl World {
    /// Two servers that know 1000; the appliance asks the first one first, and each every `probe_s` seconds.
    fn with(probe_s: u16) -> Self {
        let lab = Lab::new(Options::default()).unwrap();
        let addresses = [at(5070), at(5072)];
        let servers = addresses.map(|address| {
            let aliases = vec![("1000".to_owned(), format!("sip:1000@{}", at(5060)))];
            Registrar::start(&lab, &registrar::Setup { address, aliases, digest: true }).unwrap()
        });
        let mut setup = Setup::new(programs().unwrap(), Way::Xdp);
        setup.more = registered();
        let sip = setup.more.get_mut("sip").and_then(toml::Value::as_table_mut).unwrap();
        sip.insert("server".into(), addresses.map(|address| address.to_string()).to_vec().into());
        sip.insert("probe_s".into(), i64::from(probe_s).into());
        let appliance = Appliance::start(&lab, &setup).unwrap();
        let browser = Browser::start(&lab, &browser::Setup::default()).unwrap();
        Self { browser, servers, appliance, lab }
    }

    fn call(&self) {
        let (token, stun) = (Some(self.appliance.token().to_owned()), Some(STUN.to_string()));
        let call = Call { url: self.appliance.call_url("1000"), token, stun, trickle: true };
        self.browser.call(&call).unwrap();
        self.browser.wait_connected(PATIENCE).unwrap();
    }

    fn is_empty(&self) {
        until("nothing is held", PATIENCE, || self.appliance.status().unwrap().holds_nothing());
    }
}

#[test]
fn a_call_rings_on_when_its_server_dies_and_is_taken_by_way_of_the_next() {
    if !server_possible() {
        return;
    }
    let world = World::with(10);
    let speaker = Speaker::start(&world.lab.namespace(Place::Enterprise), at(30_100), SPEAKER).unwrap();
    // It rings until it hears that nobody calls any more; what nobody takes back it answers.
    let scenario = Scenario::called()
        .answer("180 Ringing", None)
        .expect_or_jump("BYE", Duration::from_secs(8), 1)
        .agree("200 OK")
        .jump(2)
        .label(1)
        .answer("200 OK", Some(Sound::at(at(30_100))))
        .expect("ACK", None)
        .hung_up()
        .label(2);
    let phone = sipp::Setup { name: "phone", at: at(5060), scenario, calls: 2, target: None };
    let phone = Sipp::start(&world.lab, &phone).unwrap();
    let [first, _] = &world.servers;
    thread::scope(|scope| {
        let placed = scope.spawn(|| world.call());
        // The appliance has to have heard it: of what the server took along nobody could be told to stop.
        until("the call rings", PATIENCE, || {
            let calls = world.appliance.get("/v1/calls").unwrap();
            serde_json::from_str::<serde_json::Value>(&calls).unwrap()[0]["state"] == "ringing"
        });
        first.process().signal_all(Signal::SIGKILL).unwrap();
        placed.join().unwrap();
    });
    speaker.record();
    browser_hears(&world.browser, SPEAKER);
    judge(&tail(&speaker.heard(), 3), tone::BROWSER, SPEAKER);
    // More than once: SIPp sends its answer to where the call came from, which is the dead server.
    assert!(phone.said().contains("\nBYE sip:"), "what rang first is told to stop");
    assert_eq!(world.browser.hang_up().unwrap(), 204);
    phone.finish(PATIENCE).unwrap();
    world.is_empty();
}

#[test]
fn a_call_goes_on_when_its_server_dies_is_held_resumed_and_hung_up_by_way_of_the_next() {
    if !server_possible() {
        return;
    }
    let world = World::with(1);
    let agent = Agent::start(&world.lab, &agent::Setup::default()).unwrap();
    world.call();
    browser_hears(&world.browser, tone::AGENT);
    // It hangs: nothing tells so but its silence.
    world.servers[0].process().signal_all(Signal::SIGSTOP).unwrap();
    browser_hears(&world.browser, tone::AGENT);
    for hold in ["sendonly", "inactive"] {
        world.browser.direct(hold).unwrap();
        thread::sleep(Duration::from_secs(3));
        world.browser.direct("sendrecv").unwrap();
        thread::sleep(Duration::from_secs(1));
        browser_hears(&world.browser, tone::AGENT);
    }
    assert_eq!(world.browser.hang_up().unwrap(), 204);
    agent.process().wait_for_words("terminated", PATIENCE).unwrap();
    judge(&tail(&agent.heard().unwrap(), 3), tone::BROWSER, tone::AGENT);
    world.is_empty();
}

#[test]
fn an_agent_is_called_by_way_of_the_server_that_is_left() {
    if !server_possible() {
        return;
    }
    let world = World::with(1);
    let sign_in = SignIn {
        base: world.appliance.public_url(""),
        number: "2000".into(),
        password: Some(PASSWORD.into()),
        token: None,
    };
    world.browser.sign_in(&sign_in).unwrap();
    world.servers[0].process().signal_all(Signal::SIGKILL).unwrap();
    until("the first server is known to be dead", PATIENCE, || {
        world
            .appliance
            .metrics()
            .unwrap()
            .contains("sallyport_sip_peer_alive{peer=\"0\",transport=\"UDP\"} 0")
    });
    // By then the number is known to the second one.
    thread::sleep(Duration::from_secs(3));
    let next = at(5072);
    let setup = agent::Setup { server: Some(next), ..agent::Setup::default() };
    let caller = Agent::start_calling(&world.lab, &setup, &format!("sip:2000@{next}")).unwrap();
    let incoming = world.browser.heard("incoming", PATIENCE).unwrap();
    world.browser.take(incoming["call"].as_str().unwrap(), Some(&STUN.to_string())).unwrap();
    world.browser.wait_connected(PATIENCE).unwrap();
    browser_hears(&world.browser, tone::AGENT);
    assert_eq!(world.browser.hang_up().unwrap(), 204);
    caller.process().wait_for_words("terminated", PATIENCE).unwrap();
    judge(&tail(&caller.heard().unwrap(), 3), tone::BROWSER, tone::AGENT);
    world.is_empty();
}
