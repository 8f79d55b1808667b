//! What phones do in the middle of a call by way of Kamailio: they offer anew, hold, move, transfer; and they call agents.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use sallyport_lab::agent::{self, Agent};
use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::browser::{self, Browser, Call, SignIn};
use sallyport_lab::capture::Capture;
use sallyport_lab::net::{AGENT, INSIDE_PEER, STUN};
use sallyport_lab::registrar::{self, PASSWORD, Registrar};
use sallyport_lab::sipp::{self, Scenario, Sipp, Sound};
use sallyport_lab::speaker::{self, Speaker};
use sallyport_lab::{Lab, Options, Place, tone};
use serde_json::json;

use crate::stage::{browser_hears, judge, judge_for, registered, server_possible, tail, until};

const PATIENCE: Duration = Duration::from_secs(30);
/// What phones play.
const TONES: [u32; 2] = [700, 1300];
/// A second address of the phone.
const MOVED: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 6);

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((AGENT, port))
}

struct World {
    browser: Browser,
    appliance: Appliance,
    lab: Lab,
}

impl World {
    fn open() -> Self {
        let lab = Lab::new(Options::default()).unwrap();
        let place = |number: &str, port: u16| (number.to_owned(), format!("sip:{number}@{}", at(port)));
        let server = registrar::Setup {
            aliases: vec![place("1000", 5060), place("3000", 5062), place("4000", 5064)],
            ..registrar::Setup::default()
        };
        Registrar::start(&lab, &server).unwrap();
        let mut setup = Setup::new(programs().unwrap(), Way::Xdp);
        setup.server = server.address;
        setup.more = registered();
        let appliance = Appliance::start(&lab, &setup).unwrap();
        let browser = Browser::start(&lab, &browser::Setup::default()).unwrap();
        Self { browser, appliance, lab }
    }

    fn phone(&self, name: &'static str, port: u16, scenario: Scenario) -> Sipp {
        let setup = sipp::Setup { name, at: at(port), scenario, calls: 1, target: None };
        Sipp::start(&self.lab, &setup).unwrap()
    }

    fn speaker(&self, at: SocketAddr, tone: u32) -> Speaker {
        Speaker::start(&self.lab.namespace(Place::Enterprise), at, tone).unwrap()
    }

    /// The browser calls 1000.
    fn call(&self) {
        let (token, stun) = (Some(self.appliance.token().to_owned()), Some(STUN.to_string()));
        let call = Call { url: self.appliance.call_url("1000"), token, stun, trickle: true };
        self.browser.call(&call).unwrap();
        self.browser.wait_connected(PATIENCE).unwrap();
    }

    /// The phone that talks to the browser goes on.
    fn sign(&self) {
        self.browser.ask("info", &json!({ "go": "on" })).unwrap();
    }

    fn is_empty(&self) {
        until("nothing is held", PATIENCE, || self.appliance.status().unwrap().holds_nothing());
    }
}

/// Where the phone is, and which way it wants sound, in each of twenty offers: at another port, held, at another address,
/// held altogether.
fn moves() -> Vec<Sound> {
    let sound = |step: u16| {
        let ip = if step % 8 < 4 { AGENT } else { MOVED };
        let at = SocketAddr::new(IpAddr::V4(ip), 30_200 + 2 * (step / 2));
        let direction = ["sendrecv", "sendonly", "sendrecv", "inactive"][usize::from(step % 4)];
        Sound { direction, ..Sound::at(at) }
    };
    (0..20).map(sound).collect()
}

#[test]
fn a_phone_moves_and_holds_by_twenty_offers_in_a_row() {
    if !server_possible() {
        return;
    }
    let world = World::open();
    world
        .lab
        .namespace(Place::Enterprise)
        .ip(&format!("address add {MOVED}/24 dev {INSIDE_PEER}\n"))
        .unwrap();
    let mut scenario = Scenario::called().answer("200 OK", Some(Sound::at(at(30_100)))).expect("ACK", None);
    for sound in moves() {
        scenario = scenario.sign().reinvite(sound);
    }
    let phone = world.phone("phone", 5060, scenario.hung_up());
    let mut speaker = world.speaker(at(30_100), TONES[0]);
    world.call();
    browser_hears(&world.browser, TONES[0]);
    for (step, sound) in moves().into_iter().enumerate() {
        if sound.direction == "sendrecv" {
            speaker = world.speaker(sound.at, TONES[(step / 2) % 2]);
        }
        world.sign();
        let acked = || phone.said().matches("\nACK sip:").count() == step + 2;
        until("the offer is answered and that acknowledged", PATIENCE, acked);
        thread::sleep(Duration::from_millis(400));
        speaker.record();
        world.browser.record().unwrap();
        thread::sleep(Duration::from_millis(1200));
        let heard = world.browser.recorded().unwrap();
        let (tone, spoken) = (TONES[(step / 2) % 2], speaker.heard());
        println!("offer {}: {} at {}", step + 1, sound.direction, sound.at);
        if sound.direction == "inactive" {
            let loudest = heard.samples.iter().map(|sample| sample.unsigned_abs()).max();
            assert!(loudest.unwrap_or(0) < 500, "held, and yet {loudest:?}");
        } else {
            judge_for(&heard, tone, tone::BROWSER, 0.8);
        }
        if sound.direction == "sendrecv" {
            judge_for(&spoken, tone::BROWSER, tone, 0.8);
        } else {
            assert_eq!(spoken.samples.len(), 0, "who holds hears nothing");
        }
    }
    assert_eq!(world.browser.stats().unwrap().connection, "connected");
    assert_eq!(world.browser.hang_up().unwrap(), 204);
    phone.finish(PATIENCE).unwrap();
    world.is_empty();
}

#[test]
fn phones_transfer_a_browser_attended_and_blind() {
    if !server_possible() {
        return;
    }
    let world = World::open();
    let server = registrar::Setup::default().address;
    let replaced = "Replaces=consult%40lab%3Bto-tag%3Da%3Bfrom-tag%3Db";
    let first = Scenario::called()
        .answer("200 OK", Some(Sound::at(at(30_100))))
        .expect("ACK", None)
        .sign()
        .refer(&format!("<sip:4000@{server}?{replaced}>"))
        .bye();
    let second = Scenario::called_with("Replaces: *consult@lab;to-tag=a;from-tag=b")
        .answer("180 Ringing", None)
        .answer("200 OK", Some(Sound::at(at(30_200))))
        .expect("ACK", None)
        .sign()
        .refer(&format!("<sip:3000@{server}>"))
        .bye();
    let phones = [world.phone("first", 5060, first), world.phone("second", 5064, second)];
    let speakers = [world.speaker(at(30_100), TONES[0]), world.speaker(at(30_200), TONES[1])];
    let third = agent::Setup { port: 5062, user: "3000".into(), ..agent::Setup::default() };
    let third = Agent::start(&world.lab, &third).unwrap();
    world.call();
    for ((phone, speaker), tone) in phones.iter().zip(&speakers).zip(TONES) {
        speaker.record();
        browser_hears(&world.browser, tone);
        judge(&speaker.heard(), tone::BROWSER, tone);
        world.sign();
        phone.finish(PATIENCE).unwrap();
    }
    browser_hears(&world.browser, tone::AGENT);
    assert_eq!(world.browser.hang_up().unwrap(), 204);
    third.process().wait_for_words("terminated", PATIENCE).unwrap();
    judge(&tail(&third.heard().unwrap(), 3), tone::BROWSER, tone::AGENT);
    world.is_empty();
}

#[test]
fn a_phone_calls_an_agent_s_number_at_the_registrar() {
    if !server_possible() {
        return;
    }
    let world = World::open();
    let sign_in = SignIn {
        base: world.appliance.public_url(""),
        number: "2000".into(),
        password: Some(PASSWORD.into()),
        token: None,
    };
    world.browser.sign_in(&sign_in).unwrap();
    let file = world.lab.folder().join("tone.pcmu");
    let samples = tone::sine(TONES[0], 8000, 10).samples;
    std::fs::write(&file, samples.into_iter().map(speaker::to_ulaw).collect::<Vec<u8>>()).unwrap();
    let inside = world.lab.namespace(Place::Enterprise);
    let capture = Capture::start(&world.lab, &inside, INSIDE_PEER, "phone").unwrap();
    let scenario = Scenario::calling("1000", Sound::at(at(0))).play(&file.display().to_string()).hung_up();
    let target = Some(("2000".to_owned(), registrar::Setup::default().address));
    let setup = sipp::Setup { name: "phone", at: at(5060), scenario, calls: 1, target };
    let phone = Sipp::start(&world.lab, &setup).unwrap();
    let incoming = world.browser.heard("incoming", PATIENCE).unwrap();
    assert_eq!((&incoming["from"], &incoming["to"]), (&json!("1000"), &json!("2000")));
    world.browser.take(incoming["call"].as_str().unwrap(), Some(&STUN.to_string())).unwrap();
    world.browser.wait_connected(PATIENCE).unwrap();
    browser_hears(&world.browser, TONES[0]);
    assert_eq!(world.browser.hang_up().unwrap(), 204);
    phone.finish(PATIENCE).unwrap();
    let said = phone.said();
    let port = said.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let heard = speaker::toward(&capture.stop().unwrap(), at(port.parse().unwrap()));
    judge(&tail(&heard, 3), tone::BROWSER, TONES[0]);
    world.is_empty();
}
