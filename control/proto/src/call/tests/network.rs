//! The browser's network: several pairs, candidates of strangers.

use std::time::Duration;

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceCreds, Protocol};
use sallyport_plan::{FlowKey, Zone};

use super::{FINGERPRINT, Rig, address, media};
use crate::api::{Command, Input};
use crate::call::ice::CANDIDATES_MAX;

/// The relay answers the checks on the installed pair; control never sees them.
struct Relay {
    agent: IceAgent,
    flow: FlowKey,
}

impl Relay {
    fn new(rig: &Rig) -> Self {
        let consent = rig.plans().pop().unwrap().consents[0].clone();
        let creds = IceCreds { ufrag: consent.local_ufrag.clone(), pass: consent.local_pwd.clone() };
        let mut agent = IceAgent::new(creds);
        agent.add_local_candidate(Candidate::host(media(), "udp").unwrap());
        let remote = IceCreds { ufrag: consent.remote_ufrag.clone(), pass: consent.remote_pwd.clone() };
        agent.set_remote_credentials(remote);
        Self { agent, flow: consent.flow }
    }

    /// Takes a datagram of the browser if it is the relay's business, and answers it.
    fn takes(&mut self, rig: &mut Rig, path: FlowKey, payload: &[u8]) -> bool {
        let message = StunMessage::parse(payload).unwrap();
        if path != self.flow || !message.is_binding_request() {
            return false;
        }
        let packet =
            StunPacket { proto: Protocol::Udp, source: path.remote, destination: path.local, message };
        self.agent.handle_packet(rig.now, packet);
        self.agent.handle_timeout(rig.now);
        while let Some(transmit) = self.agent.poll_transmit() {
            if StunMessage::parse(&transmit.contents).unwrap().is_successful_binding_response() {
                rig.hear(path, &transmit.contents);
            }
        }
        true
    }
}

/// Lets time pass with the relay in between.
fn relayed(rig: &mut Rig, relay: &mut Relay, time: Duration) {
    let end = rig.now + time;
    let mut heard = rig.done.len();
    while rig.now < end {
        rig.browser.handle_timeout(rig.now);
        while let Some(transmit) = rig.browser.poll_transmit() {
            let path = FlowKey { zone: Zone::Outside, local: transmit.destination, remote: transmit.source };
            let payload = transmit.contents.to_vec();
            if !relay.takes(rig, path, &payload) {
                rig.put(Input::Stun { path, payload });
            }
        }
        rig.wait(Duration::from_millis(20));
        let sent: Vec<Command> = rig.done[heard..].to_vec();
        for command in sent {
            if let Command::Send { path, payload } = command {
                rig.hear(path, &payload);
            }
        }
        heard = rig.done.len();
    }
}

/// Two pairs that the browser nominates one after the other, the better one last and installed.
fn two_pairs() -> Rig {
    let mut rig = Rig::new();
    rig.reserve();
    rig.pick_up("0 101");
    let poor = address("198.51.100.8:40001");
    rig.at.push(poor);
    // The second of a kind has the lower priority; at first it is the only one that works.
    rig.browser.add_local_candidate(Candidate::host(poor, "udp").unwrap());
    rig.cut.push(rig.at[0]);
    rig.connect();
    assert_eq!(rig.plans().pop().unwrap().consents[0].flow.remote, poor);
    rig.installed();
    rig.cut.clear();
    rig.ice(Duration::from_secs(2));
    assert_eq!(rig.plans().pop().unwrap().consents[0].flow.remote, rig.at[0], "the better one is taken");
    rig.installed();
    rig.keys(FINGERPRINT);
    rig.installed();
    rig
}

#[test]
fn the_installed_pair_stays_while_the_relay_answers_its_checks() {
    let mut rig = two_pairs();
    let mut relay = Relay::new(&rig);
    let plans = rig.plans().len();
    relayed(&mut rig, &mut relay, Duration::from_secs(60));
    assert_eq!(rig.plans().len(), plans, "media is not moved");
    assert_eq!(rig.cause(), None);
    rig.finish();
}

#[test]
fn an_agent_that_lost_sight_of_the_pair_is_not_followed_where_nobody_wishes_to_go() {
    let mut rig = two_pairs();
    let plans = rig.plans().len();
    let flow = rig.plans().pop().unwrap().consents[0].flow;
    // Nothing more is heard on the installed pair, nor asked for on the other: but its checks are answered.
    let end = rig.now + Duration::from_secs(60);
    let mut heard = rig.done.len();
    while rig.now < end {
        rig.browser.handle_timeout(rig.now);
        while let Some(transmit) = rig.browser.poll_transmit() {
            let path = FlowKey { zone: Zone::Outside, local: transmit.destination, remote: transmit.source };
            let request = StunMessage::parse(&transmit.contents).unwrap().is_binding_request();
            if path != flow && !request {
                rig.put(Input::Stun { path, payload: transmit.contents.to_vec() });
            }
        }
        rig.wait(Duration::from_millis(20));
        let sent: Vec<Command> = rig.done[heard..].to_vec();
        for command in sent {
            match command {
                Command::Send { path, payload } if path != flow => rig.hear(path, &payload),
                _ => {}
            }
        }
        heard = rig.done.len();
    }
    assert_eq!(rig.plans().len(), plans);
    rig.finish();
}

#[test]
fn the_browser_may_move_to_another_pair() {
    let mut rig = Rig::connected();
    let plans = rig.plans().len();
    let better = address("198.51.100.9:40009");
    rig.at.push(better);
    let creds = rig.browser.local_credentials().clone();
    rig.browser = IceAgent::new(creds);
    rig.browser.set_controlling(true);
    rig.browser.add_local_candidate(Candidate::host(better, "udp").unwrap());
    rig.meet();
    // The former pair is dead: its checks get no answer, and the agent gives it up in time.
    rig.at.retain(|at| *at == better);
    rig.ice(Duration::from_secs(40));
    assert!(rig.plans().len() > plans);
    assert_eq!(rig.plans().pop().unwrap().consents[0].flow.remote, better);
    rig.installed();
    rig.finish();
}

#[test]
fn nothing_is_sent_where_no_browser_can_be() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.pick_up("0");
    let line = |ip: &str, port: u16| format!("candidate:1 1 udp 2130706431 {ip} {port} typ host");
    let nowhere = [
        ("127.0.0.1", 4000),
        ("0.0.0.0", 4000),
        ("224.0.0.1", 4000),
        ("255.255.255.255", 4000),
        ("192.0.2.1", 4000),
        ("10.0.0.1", 5060),
        ("198.51.100.1", 0),
    ];
    let mut candidates: Vec<String> = nowhere.iter().map(|(ip, port)| line(ip, *port)).collect();
    candidates.push("candidate:1 1 udp 2130706431 0a1b2c3d.local 4000 typ host".into());
    rig.put(Input::Trickle { ufrag: None, candidates, end: false });
    rig.wait(Duration::from_secs(2));
    let sent = |rig: &Rig| rig.done.iter().any(|command| matches!(command, Command::Send { .. }));
    assert!(!sent(&rig));
    rig.put(Input::Trickle { ufrag: None, candidates: vec![line("198.51.100.1", 4000)], end: true });
    rig.wait(Duration::from_secs(2));
    assert!(sent(&rig));
    rig.finish();
}

#[test]
fn a_call_has_so_many_candidates_and_no_more() {
    let mut rig = Rig::new();
    rig.reserve();
    rig.pick_up("0");
    for number in 0..500 {
        let port = 1024 + number;
        let candidate = format!("candidate:{number} 1 udp 2130706431 198.51.100.1 {port} typ host");
        rig.put(Input::Trickle { ufrag: None, candidates: vec![candidate], end: false });
    }
    rig.wait(Duration::from_secs(20));
    let targets: std::collections::BTreeSet<_> = rig
        .done
        .iter()
        .filter_map(|command| match command {
            Command::Send { path, .. } => Some(path.remote),
            _ => None,
        })
        .collect();
    assert_eq!(targets.len(), CANDIDATES_MAX);
    rig.finish();
}
