//! Telephony calls telephony: plain on both sides, so that the kernel sends their media on by itself, and nobody sees it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_lab::appliance::Way;
use sallyport_lab::net::{AGENT, AGENT_V6, INSIDE_INTERFACE, INSIDE_PEER};
use sallyport_lab::ng::{Client, Value};
use sallyport_lab::{Lab, Options, Place};
use serde_json::Value as Json;

use crate::stage::{Stage, grown, maps, possible, until};

const NG: &str = "127.0.0.1:2223";
/// RTP packets and RTCP compounds each way in a talk.
const RTP: u64 = 50;
const RTCP: u64 = 5;

/// A telephone inside, with a port each for RTP and RTCP.
struct Phone {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    ssrc: u32,
    /// Where the appliance wants its RTP and RTCP.
    toward: [SocketAddr; 2],
    sequence: u16,
}

impl Phone {
    fn new(stage: &Stage, address: IpAddr, ssrc: u32) -> Self {
        let bind = || {
            let socket = UdpSocket::bind((address, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket
        };
        let enterprise = stage.lab.namespace(Place::Enterprise);
        let (rtp, rtcp) = enterprise.within(|| (bind(), bind())).unwrap();
        Self { rtp, rtcp, ssrc, toward: [(address, 0).into(); 2], sequence: 65_500 }
    }

    /// Its offer or answer; `event` is the payload type of telephone-event.
    fn sdp(&self, event: u8) -> String {
        let (rtp, rtcp) = (self.rtp.local_addr().unwrap(), self.rtcp.local_addr().unwrap());
        let family = if rtp.is_ipv4() { "IP4" } else { "IP6" };
        let (ip, port) = (rtp.ip(), rtp.port());
        format!(
            "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 {event}\r\n\
             a=rtcp:{}\r\na=rtpmap:{event} telephone-event/8000\r\n",
            rtcp.port()
        )
    }

    /// Takes from an SDP where to send to.
    fn heed(&mut self, sdp: &str) {
        let port = |prefix: &str| {
            let line = sdp.lines().find_map(|line| line.strip_prefix(prefix)).unwrap();
            line.split(' ').next().unwrap().parse().unwrap()
        };
        let ip: IpAddr =
            sdp.lines().find_map(|line| line.strip_prefix("c=IN IP")).unwrap()[2..].parse().unwrap();
        self.toward = [(ip, port("m=audio ")).into(), (ip, port("a=rtcp:")).into()];
    }

    /// The next packet of PCMU: 160 octets.
    fn packet(&mut self) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0x80, 0];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend((u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.resize(172, 0xd5);
        packet
    }

    /// A sender report, a source description and an application's words.
    fn report(&self) -> Vec<u8> {
        let ssrc = self.ssrc.to_be_bytes();
        let sender = [&[0x80, 200, 0, 6][..], &ssrc, &[9; 20]].concat();
        [&sender, &[0x81, 202, 0, 2][..], &ssrc, &[1, 1, b'x', 0], &[0x80, 204, 0, 2], &ssrc, b"name"]
            .concat()
    }
}

fn hears(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut room = [0; 2048];
    let (length, from) = socket.recv_from(&mut room).ok()?;
    Some((room[..length].to_vec(), from))
}

/// Whether a packet of the one reaches the other.
fn reaches(one: &mut Phone, other: &Phone) -> bool {
    let packet = one.packet();
    one.rtp.send_to(&packet, one.toward[0]).unwrap();
    hears(&other.rtp).is_some_and(|(heard, _)| heard == packet)
}

/// RTP and RTCP from the one to the other: all of it, octet by octet, from where the appliance said.
fn talks(one: &mut Phone, other: &Phone) {
    for nth in 0..RTP {
        let packet = one.packet();
        one.rtp.send_to(&packet, one.toward[0]).unwrap();
        assert_eq!(hears(&other.rtp), Some((packet, other.toward[0])), "packet {nth}");
    }
    for nth in 0..RTCP {
        one.rtcp.send_to(&one.report(), one.toward[1]).unwrap();
        assert_eq!(hears(&other.rtcp), Some((one.report(), other.toward[1])), "report {nth}");
    }
}

/// A call between two telephones under another proxy's signalling.
struct Scene {
    stage: Stage,
    client: Client,
    phones: [Phone; 2],
}

const CALL: [(&str, Value<'_>); 2] = [("call-id", Value::Text("plain")), ("from-tag", Value::Text("one"))];

impl Scene {
    fn set(way: Way, address: IpAddr) -> Self {
        Self::set_on(way, address, |_| ())
    }

    /// As [`Scene::set`]; `prepare` changes the world before the appliance starts.
    fn set_on(way: Way, address: IpAddr, prepare: impl FnOnce(&Lab)) -> Self {
        let options = Options { ipv6: address.is_ipv6(), ..Options::default() };
        let stage = Stage::set_on(way, options, prepare, |setup| {
            setup.more = toml::toml! {
                [ng]
                listen = ["127.0.0.1:2223"]
                [supervisor]
                restart_delay_ms = 3000
            };
        });
        let client = Client::new(&stage.lab.namespace(Place::Dmz), NG.parse().unwrap()).unwrap();
        let phones = [0x1111_1111, 0x2222_2222].map(|ssrc| Phone::new(&stage, address, ssrc));
        let mut scene = Self { stage, client, phones };
        scene.signal([101, 101]);
        scene
    }

    /// Offer and answer, under these payload types of telephone-event.
    fn signal(&mut self, events: [u8; 2]) {
        for (verb, by) in [("offer", 0), ("answer", 1)] {
            let sdp = self.phones[by].sdp(events[by]);
            let mut fields =
                [CALL.as_slice(), &[("command", Value::Text(verb)), ("sdp", Value::Text(&sdp))]].concat();
            if verb == "answer" {
                fields.push(("to-tag", Value::Text("other")));
            }
            let shown = self.client.ask_sdp(&fields).unwrap();
            self.phones[1 - by].heed(&shown);
        }
    }

    fn talk(&mut self) {
        let [one, other] = &mut self.phones;
        talks(one, other);
        talks(other, one);
    }

    /// What REST says of both directions: packets and octets.
    fn statistics(&self) -> Vec<(u64, u64)> {
        let get =
            |path: &str| -> Json { serde_json::from_str(&self.stage.appliance.get(path).unwrap()).unwrap() };
        let id = get("/v1/calls")[0]["id"].as_str().unwrap().to_owned();
        let call = get(&format!("/v1/calls/{id}"));
        let number = |value: &Json| value.as_u64().unwrap();
        let directions = call["media"]["directions"].as_array().unwrap();
        directions.iter().map(|one| (number(&one["packets"]), number(&one["octets"]))).collect()
    }

    /// Flows that name the peer's port.
    fn flows(&self) -> Vec<Json> {
        let mut flows = maps(&self.stage.appliance, "flows");
        flows.retain(|flow| !flow["remote"].as_str().unwrap().ends_with(":0"));
        flows
    }

    fn actions(&self) -> Vec<String> {
        let flows = self.flows();
        flows.iter().map(|flow| flow["action"].as_str().unwrap().to_owned()).collect()
    }

    /// Media ends with the call, and nothing is left.
    fn hang_up(mut self) {
        let deleted = [CALL.as_slice(), &[("command", Value::Text("delete"))]].concat();
        assert!(self.client.ask(&deleted).unwrap().contains("6:result2:ok"));
        until("everything is released", Duration::from_secs(5), || {
            self.stage.appliance.status().unwrap().holds_nothing()
        });
        let [one, other] = &mut self.phones;
        assert!(!reaches(one, other) && !reaches(other, one), "media after the end of the call");
    }
}

/// Both ways, and both statistics; on the XDP paths not one packet comes to a worker.
fn nobody_sees_it(way: Way, address: IpAddr) {
    let mut scene = Scene::set(way, address);
    let before = scene.stage.status();
    scene.talk();
    let grown = grown(&before, &scene.stage.status());
    let grew = |name: &str| grown.get(name).copied().unwrap_or(0);
    if way == Way::Socket {
        assert_eq!((grew("forward_rtp"), grew("forward_rtcp")), (2 * RTP, 2 * RTCP), "{grown:?}");
    } else {
        assert_eq!((grew("xdp_rewrite_rtp"), grew("xdp_rewrite_rtcp")), (2 * RTP, 2 * RTCP), "{grown:?}");
        assert_eq!((grew("received"), grew("xdp_redirect_flow")), (0, 0), "{grown:?}");
        assert_eq!(scene.actions(), ["rewrite"; 4]);
    }
    assert_eq!(scene.statistics(), [(RTP, RTP * 160); 2]);
    scene.hang_up();
}

#[test]
fn nobody_sees_plain_media_by_native_xdp() {
    if possible() {
        nobody_sees_it(Way::Xdp, AGENT.into());
    }
}

#[test]
fn nobody_sees_plain_media_by_generic_xdp() {
    if possible() {
        nobody_sees_it(Way::Generic, AGENT.into());
    }
}

#[test]
fn nobody_sees_plain_media_over_ipv6() {
    if possible() {
        nobody_sees_it(Way::Xdp, AGENT_V6.into());
    }
}

#[test]
fn plain_media_passes_by_sockets_as_it_came() {
    if possible() {
        nobody_sees_it(Way::Socket, AGENT.into());
    }
}

/// The other end of the cable takes no frames that a program redirects: the flows stay with the worker, and all is heard.
#[test]
fn plain_media_goes_by_the_worker_where_the_kernel_s_frames_would_be_lost() {
    if !possible() {
        return;
    }
    let mut scene = Scene::set_on(Way::Xdp, AGENT.into(), |lab| {
        let enterprise = lab.namespace(Place::Enterprise);
        enterprise.run(&format!("ethtool -K {INSIDE_PEER} gro off")).unwrap();
    });
    let before = scene.stage.status();
    scene.talk();
    let grown = grown(&before, &scene.stage.status());
    assert_eq!(
        (grown.get("forward_rtp"), grown.get("xdp_rewrite_rtp")),
        (Some(&(2 * RTP)), None),
        "{grown:?}"
    );
    assert_eq!(scene.actions(), ["redirect"; 4]);
    scene.hang_up();
}

/// Another next hop, another offer, and what the worker is for.
#[test]
fn the_kernel_follows_next_hops_and_new_plans() {
    if !possible() {
        return;
    }
    let mut scene = Scene::set(Way::Xdp, AGENT.into());
    scene.talk();

    let mac = "02:00:00:00:00:99";
    scene
        .stage
        .lab
        .namespace(Place::Enterprise)
        .ip(&format!("link set {INSIDE_PEER} address {mac}\n"))
        .unwrap();
    let neighbour = format!("neigh replace {AGENT} lladdr {mac} dev {INSIDE_INTERFACE}\n");
    scene.stage.lab.namespace(Place::Dmz).ip(&neighbour).unwrap();
    let [one, other] = &mut scene.phones;
    until("packets reach the new next hop", Duration::from_secs(5), || reaches(one, other));
    until("and the other way", Duration::from_secs(5), || reaches(other, one));
    let flows = scene.flows();
    assert!(flows.iter().all(|flow| flow["rtp"]["destination_mac"] == mac), "{flows:?}");
    let sent = scene.statistics();
    scene.talk();

    // A payload type that nobody agreed on is the worker's to drop.
    let before = scene.stage.status();
    let [one, other] = &mut scene.phones;
    let mut packet = one.packet();
    packet[1] = 18;
    one.rtp.send_to(&packet, one.toward[0]).unwrap();
    assert_eq!(hears(&other.rtp), None);
    let grown = grown(&before, &scene.stage.status());
    assert_eq!((grown.get("drop_payload_type"), grown.get("xdp_rewrite_rtp")), (Some(&1), None), "{grown:?}");

    // Other payload types on both sides: the worker translates, under an SSRC of its own, and what the kernel sent still counts.
    scene.signal([101, 96]);
    assert_eq!(scene.actions(), ["redirect"; 4]);
    let [one, other] = &mut scene.phones;
    let packet = one.packet();
    one.rtp.send_to(&packet, one.toward[0]).unwrap();
    let (heard, _) = hears(&other.rtp).unwrap();
    assert!(heard[8..12] != packet[8..12] && heard[12..] == packet[12..], "{heard:?}");
    let total = |nth: usize, more: u64| (sent[nth].0 + RTP + more, sent[nth].1 + (RTP + more) * 160);
    assert_eq!(scene.statistics(), [total(0, 1), total(1, 0)]);

    // And back.
    scene.signal([96, 96]);
    assert_eq!(scene.actions(), ["rewrite"; 4]);
    scene.talk();
    assert_eq!(scene.statistics(), [total(0, 1 + RTP), total(1, RTP)]);
    scene.hang_up();
}

/// While no relay runs the kernel sends on what it sent before; the next relay takes the call over.
#[test]
fn plain_media_needs_no_relay() {
    if !possible() {
        return;
    }
    let mut scene = Scene::set(Way::Xdp, AGENT.into());
    scene.talk();
    let old = scene.stage.appliance.pid("sallyport-relay").unwrap();
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
    sleep(Duration::from_millis(500));
    scene.talk();
    assert!(scene.stage.appliance.pid("sallyport-relay").is_err(), "the relay is still dead");
    until("a new relay has the call", Duration::from_secs(20), || {
        scene.stage.appliance.status().is_ok_and(|status| status.calls() == 1)
    });
    assert_eq!(scene.actions(), ["rewrite"; 4]);
    let before = scene.stage.status();
    scene.talk();
    let grown = grown(&before, &scene.stage.status());
    assert_eq!((grown.get("xdp_rewrite_rtp"), grown.get("received")), (Some(&(2 * RTP)), None), "{grown:?}");
    scene.hang_up();
}
