//! A browser that starts over in the middle of a call: another connection, with handshakes as they are.

use sallyport_plan::{FlowKey, Protection};

use super::browser::Browser;
use super::harness::{Answer, Control, Net, TOKEN, until};
use super::lifecycle::connected;
use super::pbx::Pbx;
use super::relay::Relay;

fn offers(control: &Control, path: &str, browser: &Browser) -> Answer {
    let token = format!("Bearer {TOKEN}");
    let headers = [("Content-Type", "application/sdp"), ("Authorization", token.as_str())];
    control.send("PUT", &format!("{path}/offer"), &headers, browser.offer("actpass").as_bytes())
}

/// Flows from outside, and the keys there: what we open, and what we seal.
fn outside(relay: &Relay) -> (Vec<FlowKey>, Protection, Protection) {
    let state = relay.state();
    let plan = state.plans.values().next().unwrap();
    let [inward, outward, ..] = plan.directions.as_slice() else { panic!("{plan:?}") };
    (inward.ingress.clone(), inward.open.clone().unwrap(), outward.seal.clone().unwrap())
}

fn remotes(relay: &Relay) -> Vec<std::net::SocketAddr> {
    outside(relay).0.iter().map(|flow| flow.remote).collect()
}

#[test]
fn a_page_that_is_loaded_anew_goes_on_by_another_connection() {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let mut control = Control::start(net, &[]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let (path, first) = connected(&control, &relay, 1);
    let invites = pbx.heard("INVITE").len();
    let before = outside(&relay);

    // Who does not know the call's name cannot do that.
    let mut second = Browser::new(&relay, control.net.browser(2));
    let refused = offers(&control, &format!("/v1/calls/{}", "0".repeat(32)), &second);
    assert_eq!(refused.status, 404, "{}", refused.text());
    let answer = offers(&control, &path, &second);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(outside(&relay), before, "nothing has changed yet");
    let done = second.connect(&answer.text());
    until("the other connection has taken its place", || remotes(&relay) == [second.address]);
    let (_, open, seal) = outside(&relay);
    assert!(open == Protection::Srtp(done.send) && seal == Protection::Srtp(done.receive), "the same keys");
    assert!(first.hears_a_record(), "the former one is told by close_notify");

    // Handshakes that fail leave what runs: the certificate is another than that of the offer.
    let mut third = Browser::new(&relay, control.net.browser(3));
    let forged = Browser::new(&relay, control.net.browser(4));
    let lines = |sdp: String| sdp.lines().find(|line| line.starts_with("a=fingerprint")).unwrap().to_owned();
    let offer = third.offer("actpass");
    let offer = offer.replace(&lines(third.offer("actpass")), &lines(forged.offer("actpass")));
    let token = format!("Bearer {TOKEN}");
    let headers = [("Content-Type", "application/sdp"), ("Authorization", token.as_str())];
    let answer = control.send("PUT", &format!("{path}/offer"), &headers, offer.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    third.connect(&answer.text());
    until("it is given up", || remotes(&relay) == [second.address]);

    // Control is killed in between, and the next one is asked again.
    let mut fourth = Browser::new(&relay, control.net.browser(5));
    assert_eq!(offers(&control, &path, &fourth).status, 200);
    control.restart();
    control.wait_until_ready();
    until("the call is adopted", || control.ask("GET", &path).json()["state"] == "connected");
    let answer = offers(&control, &path, &fourth);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let done = fourth.connect(&answer.text());
    until("it goes on by the other control", || remotes(&relay) == [fourth.address]);
    assert!(outside(&relay).1 == Protection::Srtp(done.send), "the same keys");

    assert_eq!(pbx.heard("INVITE").len(), invites, "the inside sees nothing of it");
    assert_eq!(control.ask("DELETE", &path).status, 204);
    assert!(fourth.hears_a_record(), "the association that runs is closed");
    control.wait_until_idle();
    relay.wait_until_empty();
}
