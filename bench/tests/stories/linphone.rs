//! linphone as a phone of the office: it registers at Kamailio, is called by a browser outside and calls an agent's.

use std::time::Duration;

use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::browser::{self, Browser, Call, SignIn};
use sallyport_lab::linphone::{self, Linphone};
use sallyport_lab::net::STUN;
use sallyport_lab::registrar::{self, PASSWORD, Registrar};
use sallyport_lab::{Lab, Options, tone};
use serde_json::json;

use crate::stage::{browser_hears, judge, registered, server_possible, tail, until};

const PATIENCE: Duration = Duration::from_secs(30);
/// What it plays.
const TONE: u32 = 700;

#[test]
fn linphone_registers_is_called_and_calls_an_agent() {
    if !server_possible() {
        return;
    }
    if !linphone::is_installed() {
        eprintln!("SKIPPED: linphone-cli is not installed");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
        return;
    }
    let lab = Lab::new(Options::default()).unwrap();
    let server = registrar::Setup::default();
    Registrar::start(&lab, &server).unwrap();
    let phone = linphone::Setup { number: "4000".into(), server: server.address, tone: TONE };
    let mut phone = Linphone::start(&lab, &phone).unwrap();
    let mut setup = Setup::new(programs().unwrap(), Way::Xdp);
    setup.server = server.address;
    setup.more = registered();
    let appliance = Appliance::start(&lab, &setup).unwrap();
    let browser = Browser::start(&lab, &browser::Setup::default()).unwrap();
    let empty = || until("nothing is held", PATIENCE, || appliance.status().unwrap().holds_nothing());

    let (token, stun) = (Some(appliance.token().to_owned()), Some(STUN.to_string()));
    browser.call(&Call { url: appliance.call_url("4000"), token, stun, trickle: true }).unwrap();
    browser.wait_connected(PATIENCE).unwrap();
    browser_hears(&browser, TONE);
    assert_eq!(browser.hang_up().unwrap(), 204);
    empty();
    std::thread::sleep(Duration::from_secs(1));
    judge(&tail(&phone.heard().unwrap(), 3), tone::BROWSER, TONE);

    let (base, password) = (appliance.public_url(""), Some(PASSWORD.to_owned()));
    browser.sign_in(&SignIn { base, number: "2000".into(), password, token: None }).unwrap();
    phone.call("2000").unwrap();
    let incoming = browser.heard("incoming", PATIENCE).unwrap();
    assert_eq!((&incoming["from"], &incoming["to"]), (&json!("4000"), &json!("2000")));
    browser.take(incoming["call"].as_str().unwrap(), Some(&STUN.to_string())).unwrap();
    browser.wait_connected(PATIENCE).unwrap();
    browser_hears(&browser, TONE);
    phone.hang_up().unwrap();
    browser.heard("ended", PATIENCE).unwrap();
    empty();
    std::thread::sleep(Duration::from_secs(1));
    judge(&tail(&phone.heard().unwrap(), 3), tone::BROWSER, TONE);
}
