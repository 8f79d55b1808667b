use super::*;
use crate::call::tests::{address, settings};
use crate::random::Seed;

const TCP: &str = "192.0.2.1:443";

fn known(address: &str, kind: CandidateKind, tcp: bool) -> LocalCandidate {
    let port = if tcp { 443 } else { 10_000 };
    LocalCandidate {
        address: SocketAddr::new(address.parse().unwrap(), port),
        base: SocketAddr::from(([192, 0, 2, 1], port)),
        kind,
        zone: Zone::Outside,
        tcp,
    }
}

fn both() -> Settings {
    let candidates = [false, true].map(|tcp| {
        let host = known("192.0.2.1", CandidateKind::Host, tcp);
        [known("203.0.113.7", CandidateKind::Advertised, tcp), host]
    });
    Settings { candidates: candidates.concat(), ..(*settings("")).clone() }
}

#[test]
fn tcp_is_offered_passive_and_below_all_of_udp() {
    let lines = lines(&both(), Zone::Outside);
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let priority = |words: &Vec<&str>| words[3].parse::<u32>().unwrap();
    let is_tcp = |words: &&Vec<&str>| words[2] == "tcp";
    let worst = words.iter().filter(|words| !is_tcp(words)).map(priority).min().unwrap();
    let tcp: Vec<&Vec<&str>> = words.iter().filter(is_tcp).collect();
    assert_eq!(tcp.len(), 2);
    for words in &tcp {
        assert!(priority(words) < worst && words.ends_with(&["tcptype", "passive"]), "{words:?}");
    }
    assert_eq!(tcp[0][4..8], ["203.0.113.7", "443", "typ", "srflx"]);
    assert_eq!(tcp[1][4..8], ["192.0.2.1", "443", "typ", "host"]);
    assert!(priority(tcp[0]) < priority(tcp[1]));
    assert!(
        lines.iter().all(|line| line.starts_with("candidate:") && Candidate::from_sdp_string(line).is_ok())
    );
}

/// A browser that comes by TCP connections only.
struct Browser {
    agent: IceAgent,
    ice: Ice,
    now: Instant,
    current: Option<FlowKey>,
}

impl Browser {
    fn new() -> Self {
        let mut random = Random::new(Seed([1; 32]));
        let mut agent = IceAgent::new(IceCreds::new());
        agent.set_controlling(true);
        let mut ice = Ice::open(&both(), Zone::Outside, false, &mut random);
        let theirs = agent.local_credentials().clone();
        ice.meet(&theirs.ufrag, &theirs.pass, &[]);
        agent.set_remote_credentials(IceCreds { ufrag: ice.ufrag().into(), pass: ice.password().into() });
        agent.add_remote_candidate(Candidate::host(address(TCP), "tcp").unwrap());
        let now = Instant::now();
        ice.begin(now);
        Self { agent, ice, now, current: None }
    }

    /// Lets time pass; datagrams of connections that are `cut` are lost.
    fn run(&mut self, time: Duration, cut: Option<SocketAddr>) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(20);
            self.agent.handle_timeout(self.now);
            self.ice.handle_timeout(self.now);
            while let Some(sent) = self.agent.poll_transmit() {
                let path = FlowKey { zone: Zone::Outside, local: sent.destination, remote: sent.source };
                if cut != Some(path.remote) {
                    self.ice.receive(&path, &sent.contents, self.now);
                }
            }
            while let Some(Command::Send { path, payload }) = self.ice.poll_transmit() {
                assert_eq!(path.local, address(TCP), "no check of UDP goes there, none of TCP elsewhere");
                let message = StunMessage::parse(&payload).unwrap();
                let (source, destination) = (path.local, path.remote);
                let packet = StunPacket { proto: Protocol::Tcp, source, destination, message };
                if cut != Some(destination) {
                    self.agent.handle_packet(self.now, packet);
                }
            }
            self.current = self.ice.poll_nominated(self.current, self.now).or(self.current);
        }
    }
}

#[test]
fn another_connection_is_taken_at_once_where_the_one_in_use_has_ended() {
    let [first, second] = ["198.51.100.7:40001", "198.51.100.7:40002"].map(address);
    let mut browser = Browser::new();
    browser.agent.add_local_candidate(Candidate::host(first, "tcp").unwrap());
    browser.run(Duration::from_secs(2), None);
    let flow = browser.current.unwrap();
    assert_eq!((flow.local, flow.remote), (address(TCP), first));
    // The browser's agent goes on by another connection, with a pair of the same priority.
    let lost = Candidate::host(first, "tcp").unwrap();
    browser.agent.invalidate_candidate(&lost);
    browser.agent.add_local_candidate(Candidate::host(second, "tcp").unwrap());
    browser.run(Duration::from_secs(3), Some(first));
    assert_eq!(browser.current, Some(flow), "ours does not know yet");
    browser.ice.disconnected(FlowKey { remote: second, ..flow });
    browser.run(Duration::from_secs(1), Some(first));
    assert_eq!(browser.current, Some(flow), "another one's end is none of its");
    browser.ice.disconnected(flow);
    browser.run(Duration::from_millis(20), Some(first));
    assert_eq!(browser.current, Some(FlowKey { remote: second, ..flow }));
    browser.run(Duration::from_secs(60), Some(first));
    assert_eq!(browser.current.map(|flow| flow.remote), Some(second), "and stays");
}
