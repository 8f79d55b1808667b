//! Calls that are recorded, from the configuration to the recorder's SIP, and over REST.

use std::net::{IpAddr, SocketAddr};

use sallyport_plan::Plan;

use super::browser::Browser;
use super::harness::{Control, Net, TOKEN, until};
use super::pbx::{Pbx, line};
use super::relay::Relay;

struct Lab {
    control: Control,
    relay: Relay,
    pbx: Pbx,
    recorder: Pbx,
}

/// Where the recorder is.
fn place(net: &Net) -> SocketAddr {
    let IpAddr::V4(first) = net.pbx().ip() else { unreachable!() };
    let [a, b, c, _] = first.octets();
    SocketAddr::from(([a, b, c, 9], 5070))
}

fn lab(section: impl Fn(SocketAddr) -> String) -> Lab {
    let net = Net::new();
    let at = place(&net);
    let (pbx, recorder) = (Pbx::start(net.pbx()), Pbx::start(at));
    let control = Control::start(net, &[("recording", &section(at))]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    Lab { control, relay, pbx, recorder }
}

impl Lab {
    /// A call with media; its path.
    fn call(&self) -> String {
        let mut browser = Browser::new(&self.relay, self.control.net.browser(1));
        let created = self.control.call("1000", &browser.offer("actpass"));
        assert_eq!(created.status, 201, "{}", created.text());
        browser.connect(&created.text());
        let path = created.header("location").to_owned();
        until("the call is connected", || self.control.ask("GET", &path).json()["state"] == "connected");
        path
    }

    fn plan(&self) -> Plan {
        self.relay.state().plans.values().next().unwrap().clone()
    }

    /// Where copies of RTP go.
    fn copies(&self) -> Vec<Option<SocketAddr>> {
        let plan = self.plan();
        plan.directions.iter().map(|direction| direction.fork.map(|fork| fork.rtp.remote)).collect()
    }

    fn post(&self, path: &str, body: &str) -> (u16, String) {
        let token = format!("Bearer {TOKEN}");
        let headers = [("Content-Type", "application/json"), ("Authorization", token.as_str())];
        let answer = self.control.send("POST", path, &headers, body.as_bytes());
        (answer.status, answer.text())
    }

    fn is_clean(&self, path: &str) {
        assert_eq!(self.control.ask("DELETE", path).status, 204);
        self.control.wait_until_idle();
        self.relay.wait_until_empty();
        until("no dialog is left", || {
            self.pbx.state().talking.is_empty() && self.recorder.state().talking.is_empty()
        });
    }
}

#[test]
fn the_recorder_is_asked_by_tcp_gets_the_copies_and_its_bye_ends_them() {
    let lab = lab(|at| format!("server = 'sip:hangup@{at};transport=tcp'"));
    let path = lab.call();
    // This recorder leaves as soon as it has its ACK.
    until("the recorder has left", || lab.recorder.heard("ACK").len() == 1);
    let invite = lab.recorder.heard("INVITE").remove(0);
    assert!(line(&invite, "Contact").ends_with(">;+sip.src"), "{invite}");
    assert_eq!(line(&invite, "Require"), "siprec");
    assert!(line(&invite, "Content-Type").starts_with("multipart/mixed;boundary="));
    assert!(invite.contains("a=label:2\r\n") && invite.contains("<datamode>complete</datamode>"));
    let at = place(&lab.control.net);
    assert!(invite.starts_with(&format!("INVITE sip:hangup@{at};transport=tcp SIP/2.0\r\n")));
    until("the copies end", || lab.copies() == [None, None] && lab.recorder.state().answers.len() == 1);
    assert!(lab.recorder.state().answers[0].starts_with("SIP/2.0 200 "));
    let installed = lab.relay.state().installed.clone();
    let copied = |plan: &&Plan| plan.directions.iter().any(|direction| direction.fork.is_some());
    let begun = installed.iter().find(copied).unwrap();
    assert_eq!(begun.directions[0].fork.unwrap().rtp.remote, SocketAddr::new(at.ip(), 30_000));
    let metrics = lab.control.ask("GET", "/metrics").text();
    assert!(metrics.contains("sallyport_recordings_total{outcome=\"ended\"} 1"), "{metrics}");
    lab.is_clean(&path);
}

#[test]
fn a_call_that_must_be_recorded_ends_where_nobody_records_it() {
    let lab = lab(|at| format!("server = 'sip:busy@{at}'\nrequired = true"));
    let browser = Browser::new(&lab.relay, lab.control.net.browser(1));
    let created = lab.control.call("1000", &browser.offer("actpass"));
    assert_eq!(created.status, 201, "{}", created.text());
    lab.control.wait_until_idle();
    let metrics = lab.control.ask("GET", "/metrics").text();
    assert!(metrics.contains("sallyport_calls_ended_total{cause=\"not_recorded\"} 1"), "{metrics}");
    until("no dialog is left", || lab.pbx.state().talking.is_empty());
}

#[test]
fn administrators_have_calls_recorded_or_listen_in_where_the_configuration_lets_them() {
    let net = |at: SocketAddr| {
        let networks = format!("['{}/31', '2001:db8::/64']", at.ip());
        format!("server = 'sip:srs@{at}'\ncalls = 'asked'\nnetworks = {networks}")
    };
    let lab = lab(net);
    let path = lab.call();
    let recording = format!("{path}/recording");
    assert!(lab.recorder.heard("INVITE").is_empty());
    let anybody = lab.control.send("POST", &recording, &[("Content-Type", "application/json")], b"{}");
    assert_eq!(anybody.status, 401, "a call's own browser is no administrator");
    let at = place(&lab.control.net).ip();
    let cases = [
        (r#"{"to": ["203.0.113.9:4000", "203.0.113.9:4002"]}"#.to_owned(), 403, "listener"),
        (format!(r#"{{"to": ["{at}:0", "{at}:4002"]}}"#), 400, "listener"),
        (format!(r#"{{"to": ["{at}:4000", "[2001:db8::1]:4002"]}}"#), 400, "listener"),
        (format!(r#"{{"to": ["{at}:4000"]}}"#), 400, "body"),
        (r#"{"from": 1}"#.to_owned(), 400, "body"),
    ];
    for (body, status, kind) in cases {
        let (answered, text) = lab.post(&recording, &body);
        assert_eq!(answered, status, "{body}: {text}");
        assert!(text.contains(&format!("urn:sallyport:{kind}")), "{text}");
    }
    let listen = format!(r#"{{"to": ["{at}:4000", "{at}:4002"]}}"#);
    assert_eq!(lab.post(&recording, &listen).0, 202);
    until("copies are made", || lab.control.ask("GET", &path).json()["recording"] == true);
    assert_eq!(lab.copies(), [4000, 4002].map(|port| Some(SocketAddr::new(at, port))));
    assert_eq!(lab.post(&recording, "").0, 409, "one at a time");
    assert_eq!(lab.control.ask("DELETE", &recording).status, 204);
    until("copies have ended", || lab.copies() == [None, None]);
    assert_eq!(lab.post(&recording, "").0, 202);
    until("the recorder has the copies", || lab.copies()[0] == Some(SocketAddr::new(at, 30_000)));
    until("control knows", || lab.control.ask("GET", &path).json()["recording"] == true);
    lab.is_clean(&path);
    let metrics = lab.control.ask("GET", "/metrics").text();
    for (outcome, count) in [("begun", 2), ("ended", 2)] {
        let line = format!("sallyport_recordings_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "the last one ended with its call: {metrics}");
    }
    assert_eq!(lab.post(&recording, "").0, 404);
}
