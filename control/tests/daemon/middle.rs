//! The middle of a call over the wire: the browser holds, the far end transfers us, the browser transfers the far end.

use sallyport_plan::Mute;

use super::harness::{Control, Net, TOKEN, until};
use super::lifecycle::connected;
use super::pbx::{Pbx, line};
use super::relay::Relay;

/// Requests of a method, each once however often it was sent.
fn heard(pbx: &Pbx, method: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for request in pbx.heard(method) {
        let same =
            |have: &String| ["Call-ID", "CSeq"].iter().all(|name| line(have, name) == line(&request, name));
        if !all.iter().any(same) {
            all.push(request);
        }
    }
    all
}

#[test]
fn a_call_is_held_transferred_by_the_far_end_and_then_by_the_browser() {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, &[]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let (path, browser) = connected(&control, &relay, 1);
    let inward = || relay.state().plans.values().next().unwrap().directions[0].clone();
    let token = format!("Bearer {TOKEN}");
    let turn = |direction: &str| {
        let headers = [("Content-Type", "application/sdp"), ("Authorization", token.as_str())];
        let offer = browser.offer("actpass").replace("a=sendrecv", &format!("a={direction}"));
        let answer = control.send("PUT", &format!("{path}/offer"), &headers, offer.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let first = heard(&pbx, "ACK").remove(0);

    turn("inactive");
    until("the hold is acknowledged", || heard(&pbx, "ACK").len() == 2);
    assert!(heard(&pbx, "INVITE")[1].contains("a=inactive"));
    until("nothing passes", || inward().mute == Mute::Held);
    turn("sendrecv");
    until("it is resumed", || heard(&pbx, "ACK").len() == 3);
    until("it passes again", || inward().mute == Mute::Open);

    let refer = pbx.request("REFER", &first, 1);
    let refer = refer.replace("Content-Length", "Refer-To: <sip:1002@10.9.9.9>\r\nContent-Length");
    pbx.send_datagram(&refer, control.net.sip());
    assert!(pbx.state().answers.last().unwrap().starts_with("SIP/2.0 202 "));
    until("the new one is acknowledged", || heard(&pbx, "ACK").len() == 4);
    let (invite, second) = (heard(&pbx, "INVITE").remove(3), heard(&pbx, "ACK").remove(3));
    assert!(invite.starts_with("INVITE sip:1002@10.9.9.9 "), "{invite}");
    assert_ne!(line(&invite, "Call-ID"), line(&first, "Call-ID"));
    until("the one who transferred us knows", || {
        heard(&pbx, "NOTIFY").iter().any(|notify| notify.contains("\r\n\r\nSIP/2.0 200 "))
    });
    until("and is left", || {
        heard(&pbx, "BYE").iter().any(|bye| line(bye, "Call-ID") == line(&first, "Call-ID"))
    });
    assert_eq!(control.ask("GET", &path).json()["state"], "connected");

    let headers = [("Content-Type", "application/json"), ("Authorization", token.as_str())];
    let wanted = control.send("POST", &format!("{path}/transfer"), &headers, br#"{"to":"1003"}"#);
    assert!([202, 204].contains(&wanted.status), "{}", wanted.text());
    until("the new one is asked", || heard(&pbx, "REFER").len() == 1);
    let refer = heard(&pbx, "REFER").remove(0);
    assert_eq!(line(&refer, "Call-ID"), line(&second, "Call-ID"));
    assert!(line(&refer, "Refer-To").contains("sip:1003@"));
    let body = "SIP/2.0 200 OK\r\n";
    let notify = pbx.request("NOTIFY", &second, 1).replace(
        "Content-Length: 0\r\n\r\n",
        &format!(
            "Event: refer\r\nSubscription-State: terminated;reason=noresource\r\n\
             Content-Type: message/sipfrag\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    pbx.send_datagram(&notify, control.net.sip());
    assert!(pbx.state().answers.last().unwrap().starts_with("SIP/2.0 200 "));
    control.wait_until_idle();
    relay.wait_until_empty();
    until("both dialogs are ended", || pbx.state().talking.is_empty());
}
