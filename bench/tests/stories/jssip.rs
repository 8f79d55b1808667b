//! JsSIP and SIP.js as they are published, in Chromium behind its NAT, with SIP agents inside: they register, call, hold, send
//! digits, are called, transfer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sallyport_lab::agent::{self, Agent};
use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::browser;
use sallyport_lab::film::{self, Film};
use sallyport_lab::net::{AGENT, INSIDE, STUN};
use sallyport_lab::softphone::{Account, Library, Softphone};
use sallyport_lab::tone::{self, Expected, listen};
use sallyport_lab::{Lab, Options};
use serde_json::{Value, json};

use crate::stage::{possible, until};

const SOON: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(30);
const TALK: Duration = Duration::from_secs(3);
const NUMBER: &str = "2000";
/// The tone of the agent that calls.
const CALLER: u32 = 700;

/// Where `.ci/softphones` puts the libraries: beside the programs.
fn folder() -> PathBuf {
    programs().unwrap().join("../softphones")
}

struct Scene {
    phone: Softphone,
    agent: Agent,
    appliance: Appliance,
    lab: Lab,
}

impl Scene {
    fn set(library: Library) -> Self {
        let lab = Lab::new(Options::default()).unwrap();
        let agent = Agent::start(&lab, &agent::Setup::default()).unwrap();
        let (appliance, phone) = page(&lab, library);
        Self { phone, agent, appliance, lab }
    }
}

/// An appliance, and a page with a library.
fn page(lab: &Lab, library: Library) -> (Appliance, Softphone) {
    let mut setup = Setup::new(programs().unwrap(), Way::Xdp);
    setup.more = toml::toml! {
        [agents]
        numbers = "token"
        register = false
    };
    setup.server = SocketAddr::from((AGENT, 5060));
    let appliance = Appliance::start(lab, &setup).unwrap();
    let phone = Softphone::start(lab, &browser::Setup::default(), library, &folder()).unwrap();
    (appliance, phone)
}

fn account(appliance: &Appliance, password: &str) -> Account {
    Account {
        url: appliance.public_url("/sip").replacen("http", "ws", 1),
        uri: format!("sip:{NUMBER}@lab.example"),
        password: password.to_owned(),
        stun: STUN.to_string(),
    }
}

impl Scene {
    fn hears(&self, name: &str) -> Value {
        self.phone.hears(name, SOON).unwrap_or_else(|error| {
            panic!("{error:#}\n{}", self.appliance.process().last_words(30));
        })
    }

    fn does(&self, what: &str, argument: &Value) {
        self.phone.does(what, argument).unwrap_or_else(|error| {
            panic!("{what}: {error:#}\n{}", self.appliance.process().last_words(30));
        });
    }

    /// The browser hears this tone now.
    fn sounds(&self, tone: u32) {
        self.phone.browser.record().unwrap();
        std::thread::sleep(TALK);
        let wav = self.phone.browser.recorded().unwrap();
        let expected = Expected { tone, other: tone::BROWSER, seconds: TALK.as_secs_f64() - 1.0 };
        let heard = listen(&wav, expected);
        heard.judge(expected).unwrap_or_else(|fault| panic!("{fault}: {heard}"));
    }
}

fn calls_out(scene: &Scene) {
    scene.does("Dial", &json!("sip:1000@lab.example"));
    scene.hears("confirmed");
    scene.phone.browser.wait_connected(CONNECT).unwrap();
    scene.sounds(tone::AGENT);
    scene.does("Digit", &json!("5"));
    // As a named event, which the agent takes and does not log.
    until("the digit has left", SOON, || scene.appliance.status().unwrap().counter("event_rtp") >= 7);
    scene.does("Hold", &json!(true));
    scene.does("Hold", &json!(false));
    scene.sounds(tone::AGENT);
    scene.does("Bye", &Value::Null);
    scene.agent.process().wait_for_words("terminated", SOON).unwrap();
    let expected = Expected { tone: tone::BROWSER, other: tone::AGENT, seconds: TALK.as_secs_f64() };
    let heard = listen(&scene.agent.heard().unwrap(), expected);
    assert!(heard.seconds >= expected.seconds && heard.share > 0.9, "the agent hears the browser: {heard}");
    until("the call is over", SOON, || scene.appliance.status().unwrap().holds_nothing());
}

fn is_called_and_transfers(scene: &Scene) {
    let setup = agent::Setup { port: 5070, user: "1001".into(), tone: CALLER, ..agent::Setup::default() };
    let uri = format!("sip:{NUMBER}@{INSIDE}:5060");
    let caller = Agent::start_calling(&scene.lab, &setup, &uri).unwrap();
    assert_eq!(scene.hears("incoming"), "1001");
    scene.does("Answer", &Value::Null);
    scene.hears("confirmed");
    scene.phone.browser.wait_connected(CONNECT).unwrap();
    scene.sounds(CALLER);
    let before = scene.agent.recordings().len();
    scene.does("Refer", &json!(format!("sip:1000@{AGENT}:5060")));
    scene.hears("referring");
    caller.process().wait_for_words("transferring call", SOON).unwrap();
    until("the agent is called by the other", SOON, || scene.agent.recordings().len() > before);
    while scene.hears("refer") != 200 {}
    until("the call is over", SOON, || scene.appliance.status().unwrap().holds_nothing());
}

fn is_there(library: Library) -> bool {
    let there = possible() && library.is_in(&folder());
    if possible() && !there {
        eprintln!("SKIPPED: {} is not there; .ci/softphones fetches it", folder().display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
    }
    there
}

fn plays(library: Library) {
    if !is_there(library) {
        return;
    }
    let scene = Scene::set(library);
    let wrong = scene.phone.register(&account(&scene.appliance, "not the token"));
    assert!(wrong.is_err(), "a wrong password is refused");
    let name = scene.phone.register(&account(&scene.appliance, scene.appliance.token())).unwrap();
    println!("{name} is registered");
    calls_out(&scene);
    is_called_and_transfers(&scene);
    scene.does("Unregister", &Value::Null);
    scene.hears("unregistered");
    until("nobody is signed in", SOON, || {
        scene.appliance.metrics().unwrap().lines().any(|line| line == "sallyport_sessions 0")
    });
}

/// The phone inside adds its picture: the library is offered it and answers by itself, without a camera.
fn is_shown_a_picture(library: Library) {
    if !is_there(library) {
        return;
    }
    let lab = Lab::new(Options::default()).unwrap();
    let film = Film::start(&lab, AGENT.into(), film::Kind::default()).unwrap();
    let (appliance, phone) = page(&lab, library);
    phone.register(&account(&appliance, appliance.token())).unwrap();
    phone.does("Dial", &json!("sip:1000@lab.example")).unwrap();
    phone.hears("confirmed", SOON).unwrap();
    phone.browser.wait_connected(CONNECT).unwrap();
    film.turn().unwrap();
    film.wait_for("refused", SOON).unwrap();
    film.wait_for("added", SOON).unwrap_or_else(|error| {
        panic!("{error:#}\n{}", appliance.process().last_words(30));
    });
    until("pictures go on", SOON, || {
        let before = phone.browser.film().unwrap().decoded;
        std::thread::sleep(Duration::from_secs(2));
        phone.browser.film().unwrap().decoded.saturating_sub(before) >= 20
    });
    phone.does("Bye", &Value::Null).unwrap();
    film.wait_for("over", SOON).unwrap();
    until("the call is over", SOON, || appliance.status().unwrap().holds_nothing());
}

#[test]
fn jssip_is_shown_a_picture_that_the_inside_adds() {
    is_shown_a_picture(Library::JsSip);
}

#[test]
fn sip_js_is_shown_a_picture_that_the_inside_adds() {
    is_shown_a_picture(Library::SipJs);
}

#[test]
fn jssip_registers_calls_holds_sends_digits_is_called_and_transfers() {
    plays(Library::JsSip);
}

#[test]
fn sip_js_registers_calls_holds_sends_digits_is_called_and_transfers() {
    plays(Library::SipJs);
}
