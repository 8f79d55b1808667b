//! Two phones of one number ring at once and play early media each: the browser hears the one, then the other.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::browser::{self, Browser, Call};
use sallyport_lab::net::{AGENT, STUN};
use sallyport_lab::registrar::{self, Registrar};
use sallyport_lab::sipp::{self, Scenario, Sipp, Sound};
use sallyport_lab::speaker::Speaker;
use sallyport_lab::{Lab, Options, Place, tone};

use crate::stage::{browser_hears, judge, server_possible, tail, until};

const PATIENCE: Duration = Duration::from_secs(30);
/// What the two phones play.
const TONES: [u32; 2] = [700, 1300];

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((AGENT, port))
}

#[test]
fn early_media_of_two_forks_is_heard_and_then_the_one_that_answers() {
    if !server_possible() {
        return;
    }
    let lab = Lab::new(Options::default()).unwrap();
    let place = |port: u16| ("1000".to_owned(), format!("sip:1000@{}", at(port)));
    let server =
        registrar::Setup { aliases: vec![place(5080), place(5082)], digest: false, ..Default::default() };
    let _registrar = Registrar::start(&lab, &server).unwrap();
    let inside = lab.namespace(Place::Enterprise);
    let [one, two] = [(30_100, TONES[0]), (30_200, TONES[1])]
        .map(|(port, tone)| Speaker::start(&inside, at(port), tone).unwrap());
    let first = Scenario::called()
        .answer("183 Session Progress", Some(Sound::at(at(30_100))))
        .expect("CANCEL", None)
        .agree("200 OK")
        .terminate()
        .expect("ACK", None);
    let second = Scenario::called()
        .answer("180 Ringing", None)
        .pause(Duration::from_secs(10))
        .answer("183 Session Progress", Some(Sound::at(at(30_200))))
        .pause(Duration::from_secs(5))
        .answer("200 OK", Some(Sound::at(at(30_200))))
        .expect("ACK", None)
        .hung_up();
    let start = |name, port, scenario| {
        let setup = sipp::Setup { name, at: at(port), scenario, calls: 1, target: None };
        Sipp::start(&lab, &setup).unwrap()
    };
    let phones = [start("first", 5080, first), start("second", 5082, second)];
    let mut setup = Setup::new(programs().unwrap(), Way::Xdp);
    setup.server = server.address;
    let appliance = Appliance::start(&lab, &setup).unwrap();
    let browser = Browser::start(&lab, &browser::Setup::default()).unwrap();
    let (token, stun) = (Some(appliance.token().to_owned()), Some(STUN.to_string()));
    // Answered with what the first phone says of its media.
    browser.call(&Call { url: appliance.call_url("1000"), token, stun, trickle: true }).unwrap();
    browser.wait_connected(PATIENCE).unwrap();
    assert!(!phones[1].said().contains("183 Session Progress"), "the first phone alone plays so far");
    browser_hears(&browser, TONES[0]);
    until("the second phone plays", PATIENCE, || phones[1].said().contains("183 Session Progress"));
    thread::sleep(Duration::from_millis(500));
    browser_hears(&browser, TONES[1]);
    judge(&tail(&one.heard(), 3), tone::BROWSER, TONES[0]);
    until("the second phone answers", PATIENCE, || phones[1].said().contains("\nACK sip:"));
    phones[0].finish(PATIENCE).unwrap();
    one.record();
    two.record();
    browser_hears(&browser, TONES[1]);
    judge(&two.heard(), tone::BROWSER, TONES[1]);
    assert!(one.heard().samples.len() < 800, "nobody speaks to the phone that was cancelled");
    let stats = browser.stats().unwrap();
    assert_eq!(stats.connection, "connected");
    // Where the sources change a number may be left out.
    assert!(stats.lost <= 2, "one stream by one answer: {} are lost", stats.lost);
    assert_eq!(browser.hang_up().unwrap(), 204);
    phones[1].finish(PATIENCE).unwrap();
    until("nothing is held", PATIENCE, || appliance.status().unwrap().holds_nothing());
}
