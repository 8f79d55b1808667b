//! Control, relay and client go at the worst moments: nobody rings on, nothing runs on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use sallyport_plan::{CallId, Event, FlowKey, PortPair, Zone};

use super::browser::Browser;
use super::harness::{Control, Net, TOKEN, head, until};
use super::lifecycle::connected;
use super::pbx::Pbx;
use super::relay::Relay;

fn lab() -> (Control, Relay, Pbx) {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, &[]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    (control, relay, pbx)
}

/// A request that is begun and waits for its answer.
fn calling(control: &Control, relay: &Relay, to: &str) -> TcpStream {
    let offer = Browser::new(relay, control.net.browser(1)).offer("actpass");
    let token = format!("Bearer {TOKEN}");
    let headers = [("Content-Type", "application/sdp"), ("Authorization", token.as_str())];
    let mut stream = TcpStream::connect(control.net.http()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&head("POST", &format!("/v1/calls?to={to}"), &headers, offer.len())).unwrap();
    stream.write_all(offer.as_bytes()).unwrap();
    stream
}

fn id(path: &str) -> CallId {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

#[test]
fn sigterm_cancels_what_rings_and_leaves_what_runs() {
    let (mut control, relay, pbx) = lab();
    let (_, _browser) = connected(&control, &relay, 2);
    let mut waiting = calling(&control, &relay, "ring");
    until("it rings", || pbx.heard("INVITE").len() == 2);
    until("it is heard to ring", || control.status()["calls"]["setup"] == 1);
    std::thread::sleep(Duration::from_millis(100));
    control.signal(Signal::SIGTERM);
    assert_eq!(control.ended(Duration::from_secs(4)), Some(0));
    assert_eq!(pbx.heard("CANCEL").len(), 1);
    assert_eq!((relay.state().plans.len(), pbx.state().talking.len()), (1, 1), "the other call goes on");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[test]
fn a_call_that_was_answered_but_has_no_keys_is_ended_by_the_next_control() {
    let (mut control, relay, pbx) = lab();
    let (_, _browser) = connected(&control, &relay, 1);
    // As it stood before the handshake: the keys are not there yet.
    let first = relay.state().installed[0].clone();
    assert!(first.directions.iter().all(|direction| direction.seal.is_none() || direction.open.is_none()));
    for plan in relay.state().plans.values_mut() {
        *plan = first.clone();
    }
    control.restart();
    until("the called side is told", || pbx.heard("BYE").len() == 1);
    assert!(pbx.state().talking.is_empty(), "by a BYE of the dialog");
    control.wait_until_idle();
    relay.wait_until_empty();
}

#[test]
fn a_call_that_ends_while_the_relay_is_away_is_removed_when_it_is_back() {
    let (control, relay, pbx) = lab();
    let (path, _browser) = connected(&control, &relay, 1);
    relay.stop(false);
    until("the relay's end is seen", || control.send("GET", "/readyz", &[], b"").status == 503);
    assert_eq!(control.ask("DELETE", &path).status, 204);
    control.wait_until_idle();
    assert!(pbx.state().talking.is_empty());
    assert_eq!(relay.state().plans.len(), 1, "nobody could tell it");
    relay.listen();
    relay.wait_until_empty();
    assert_eq!(control.ask("GET", &path).status, 404, "and it is not taken up again");
}

#[test]
fn what_the_relay_holds_and_nobody_knows_is_removed() {
    let (_control, relay, _pbx) = lab();
    let flow = FlowKey {
        zone: Zone::Outside,
        local: "127.1.1.1:1".parse().unwrap(),
        remote: "127.1.1.2:2".parse().unwrap(),
    };
    let pair = PortPair { rtp: flow.local, rtcp: flow.local };
    relay.say(&Event::ConsentLost { call: CallId(1), flow });
    relay.say(&Event::Reserved { call: CallId(2), ports: vec![pair] });
    relay.say(&Event::Installed { call: CallId(3), version: 1 });
    until("all are removed", || relay.state().removed.len() == 3);
    relay.say(&Event::ConsentLost { call: CallId(1), flow });
    until("again", || relay.state().removed.len() == 4);
    let removed = relay.state().removed.clone();
    assert_eq!(removed, [1, 2, 3, 1].map(CallId));
}

#[test]
fn consent_that_lapsed_while_control_was_away_ends_the_call() {
    let (mut control, relay, pbx) = lab();
    let (path, _browser) = connected(&control, &relay, 1);
    let flow = relay.state().plans[&id(&path)].consents[0].flow;
    relay.state().lapsed.push((id(&path), flow));
    control.restart();
    until("the called side is told", || pbx.heard("BYE").len() == 1);
    control.wait_until_idle();
    relay.wait_until_empty();
}

#[test]
fn a_relay_that_goes_while_it_rings_fails_the_call_at_once() {
    let (control, relay, pbx) = lab();
    let mut waiting = calling(&control, &relay, "ring");
    until("it rings", || pbx.heard("INVITE").len() == 1);
    std::thread::sleep(Duration::from_millis(100));
    relay.stop(true);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("relay_lost"), "{answer}");
    until("it is cancelled", || pbx.heard("CANCEL").len() == 1);
    control.wait_until_idle();
}

#[test]
fn who_watches_an_adopted_call_is_told_its_past() {
    let (mut control, relay, _pbx) = lab();
    let (path, _browser) = connected(&control, &relay, 1);
    control.restart();
    control.wait_until_ready();
    let mut stream = TcpStream::connect(control.net.http()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&head("GET", &format!("{path}/events"), &[], 0)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(control.ask("DELETE", &path).status, 204);
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("the stream ends with the call");
    let names: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["answered", "connected", "ended"]);
}

#[test]
fn logs_tell_calls_apart_without_their_names() {
    let (mut control, relay, _pbx) = lab();
    let (path, _browser) = connected(&control, &relay, 1);
    control.restart();
    control.wait_until_ready();
    assert_eq!(control.ask("DELETE", &path).status, 204);
    control.wait_until_idle();
    let name = id(&path).to_string();
    let log = control.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains(&name[..8])).collect();
    assert!(told.iter().any(|line| line.contains(" INFO ") && line.contains("ended")), "{log}");
    assert!(told.iter().all(|line| line.contains(" DEBUG ") || !line.contains(&name)), "{log}");
}
