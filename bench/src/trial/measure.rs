//! What a call was, in figures, and whether that is what it should be.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sallyport_lab::appliance::{INSIDE_PORTS, MEDIA_PORT, Way};
use sallyport_lab::browser::{Stats, Timings};
use sallyport_lab::capture::{Passage, Span, follow};
use sallyport_lab::net::{INSIDE, OUTSIDE};
use sallyport_lab::pcap::Captured;
use sallyport_lab::tone::{self, Expected, Fault, Heard, listen};
use sallyport_lab::wav::Wav;

use super::Deployment;
use crate::scene::Snapshot;

/// RTP packets a second and direction; both sides send 20 ms a packet.
const RATE: f64 = 50.0;

/// What a call left behind.
pub(super) struct Material {
    pub(super) deployment: Deployment,
    pub(super) way: Way,
    pub(super) timings: Timings,
    pub(super) stats: Stats,
    /// At the customer's side and at the agent's.
    pub(super) captures: [Vec<Captured>; 2],
    /// On both of its cables, whatever it is.
    pub(super) control: Vec<Captured>,
    /// The appliance's media address toward the agent; port 0: any.
    pub(super) toward_agent: SocketAddr,
    /// While both sides talked.
    pub(super) span: Span,
    pub(super) before: Snapshot,
    pub(super) after: Snapshot,
    pub(super) by_browser: Wav,
    pub(super) by_agent: Wav,
    pub(super) talk: Duration,
}

/// Packets of the call by the way that they took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packets {
    /// From XDP to an AF_XDP socket of the relay.
    pub afxdp: u64,
    /// Rewritten and sent on by XDP alone.
    pub xdp: u64,
    /// Media that the kernel's UDP stack took.
    pub socket: u64,
    /// Dropped by XDP or the relay, whatever the reason.
    pub dropped: u64,
}

/// What one side heard.
#[derive(Debug, Clone, Copy)]
pub struct Audio {
    /// What was to be heard.
    pub expected: Expected,
    /// What was heard.
    pub heard: Heard,
    /// Whether that is it.
    pub verdict: Result<(), Fault>,
}

impl Audio {
    fn new(wav: &Wav, expected: Expected) -> Self {
        let heard = listen(wav, expected);
        Self { expected, heard, verdict: heard.judge(expected) }
    }
}

/// A call in figures.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Which.
    pub deployment: Deployment,
    /// Way that was asked for.
    pub way: Way,
    /// Way of each interface, as the appliance says.
    pub paths: Vec<(String, String)>,
    /// How long setting up took.
    pub timings: Timings,
    /// The browser's own view.
    pub stats: Stats,
    /// Browser to agent.
    pub inward: Passage,
    /// Agent to browser.
    pub outward: Passage,
    /// By way.
    pub packets: Packets,
    /// By reason; reasons at zero are left out.
    pub drops: BTreeMap<String, u64>,
    /// The browser hears the agent.
    pub outside_hears: Audio,
    /// The agent hears the browser.
    pub inside_hears: Audio,
    /// How long both sides talked.
    pub talk: Duration,
}

impl Measured {
    pub(super) fn new(material: &Material) -> anyhow::Result<Self> {
        let [outside, inside] = &material.captures;
        let media = SocketAddr::from((OUTSIDE, MEDIA_PORT));
        let (before, after) = (material.before.status.counters(), material.after.status.counters());
        let grown = |name: &str| {
            let was = before.get(name).copied().unwrap_or(0);
            after.get(name).copied().unwrap_or(0).saturating_sub(was)
        };
        let drops: BTreeMap<String, u64> = after
            .keys()
            .filter(|name| name.starts_with("drop_") || name.starts_with("xdp_drop_"))
            .map(|name| (name.clone(), grown(name)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let between = Span::between(material.before.at, material.after.at);
        let others = material.control.iter().filter(|datagram| between.holds(datagram.at_ns));
        let others = others.filter(|datagram| is_for_the_kernel(datagram.destination)).count() as u64;
        let kernel = material.after.kernel_udp.saturating_sub(material.before.kernel_udp);
        let packets = Packets {
            afxdp: grown("xdp_redirect_flow") + grown("xdp_redirect_bare"),
            xdp: after.keys().filter(|name| name.starts_with("xdp_rewrite")).map(|name| grown(name)).sum(),
            socket: kernel.saturating_sub(others),
            dropped: drops.values().sum(),
        };
        let seconds = material.talk.as_secs_f64() * 0.9;
        let expected = |tone, other| Expected { tone, other, seconds };
        Ok(Self {
            deployment: material.deployment,
            way: material.way,
            paths: material.after.status.paths(),
            timings: material.timings,
            stats: material.stats.clone(),
            inward: follow(outside, media, inside, material.toward_agent, material.span)?,
            outward: follow(inside, material.toward_agent, outside, media, material.span)?,
            packets,
            drops,
            outside_hears: Audio::new(&material.by_browser, expected(tone::AGENT, tone::BROWSER)),
            inside_hears: Audio::new(&material.by_agent, expected(tone::BROWSER, tone::AGENT)),
            talk: material.talk,
        })
    }

    /// RTP packets that were lost between the cables, both ways.
    pub fn lost(&self) -> u64 {
        self.inward.lost() + self.outward.lost()
    }
}

/// Datagrams to the appliance that are no media: SIP, DNS. The kernel's stack is right to take those.
fn is_for_the_kernel(destination: SocketAddr) -> bool {
    let (address, port) = (destination.ip(), destination.port());
    let [low, high] = INSIDE_PORTS;
    (address == IpAddr::V4(OUTSIDE) && port != MEDIA_PORT)
        || (address == IpAddr::V4(INSIDE) && port != MEDIA_PORT && !(low..=high).contains(&port))
}

/// Everything about a call that is not as it should be; none where it passed.
pub fn faults(measured: &Measured) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, passage) in [("browser to agent", &measured.inward), ("agent to browser", &measured.outward)] {
        let least = (measured.talk.as_secs_f64() * RATE * 0.9) as u64;
        if passage.sent < least {
            faults.push(format!(
                "{name}: only {} RTP packets in {} s",
                passage.sent,
                measured.talk.as_secs()
            ));
        }
        if passage.lost() > 0 {
            faults.push(format!("{name}: {} of {} RTP packets lost", passage.lost(), passage.sent));
        }
    }
    for (who, audio) in [("the browser", &measured.outside_hears), ("the agent", &measured.inside_hears)] {
        if let Err(fault) = audio.verdict {
            faults.push(format!("{who} should hear {} Hz: {fault}", audio.expected.tone));
        }
    }
    way_faults(measured, &mut faults);
    faults
}

fn way_faults(measured: &Measured, faults: &mut Vec<String>) {
    let wanted = measured.way.to_string();
    if measured.paths.len() != 2 {
        faults.push(format!("the appliance names {} interfaces, not 2", measured.paths.len()));
    }
    if measured.way != Way::Auto {
        let others = measured.paths.iter().filter(|(_, path)| *path != wanted);
        faults.extend(others.map(|(name, path)| format!("interface {name} runs on {path}, not on {wanted}")));
    }
    let (packets, rtp) = (measured.packets, measured.inward.sent + measured.outward.sent);
    match measured.way {
        Way::Xdp | Way::Generic => {
            if packets.afxdp * 1000 < rtp * 999 {
                faults.push(format!("only {} of {rtp} RTP packets went by AF_XDP", packets.afxdp));
            }
            if packets.socket > 0 {
                faults.push(format!("the kernel's UDP stack took {} media packets", packets.socket));
            }
        }
        Way::Socket => {
            if packets.socket < rtp {
                faults.push(format!("only {} of {rtp} RTP packets went by UDP sockets", packets.socket));
            }
            if packets.afxdp > 0 {
                faults.push(format!("{} packets went by AF_XDP", packets.afxdp));
            }
        }
        Way::Auto => {}
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn passage(sent: u64, received: u64) -> Passage {
        let mut latency = sallyport_lab::capture::Passage::none().unwrap().latency;
        latency.record_n(70_000, received).unwrap();
        Passage { sent, received, latency }
    }

    fn audio(tone: u32, other: u32) -> Audio {
        Audio::new(&tone::sine(tone, 8000, 10), Expected { tone, other, seconds: 9.0 })
    }

    /// A call of 10 s that passes by XDP.
    pub fn good() -> Measured {
        let stats = serde_json::json!({
            "ice": "connected", "connection": "connected", "sent": 510, "received": 509, "lost": 0, "discarded": 0,
            "concealed": 0, "silent_concealed": 0, "samples": 160_000, "codec": "audio/PCMU",
            "dtls": { "state": "connected", "role": "client", "version": "FEFC", "srtp": "AEAD_AES_256_GCM" },
            "local": { "kind": "srflx" }, "remote": { "kind": "srflx", "address": "203.0.113.7", "port": 10_000 },
        });
        Measured {
            deployment: Deployment::A,
            way: Way::Xdp,
            paths: ["outside", "inside"].map(|name| (name.to_owned(), "xdp".to_owned())).to_vec(),
            timings: Timings {
                offer_ms: Some(3.0),
                answer_ms: Some(60.0),
                connected_ms: 180.0,
                media_ms: 200.5,
            },
            stats: serde_json::from_value(stats).unwrap(),
            inward: passage(500, 500),
            outward: passage(501, 501),
            packets: Packets { afxdp: 1040, xdp: 0, socket: 0, dropped: 2 },
            drops: BTreeMap::from([("xdp_drop_unknown_flow".to_owned(), 2)]),
            outside_hears: audio(tone::AGENT, tone::BROWSER),
            inside_hears: audio(tone::BROWSER, tone::AGENT),
            talk: Duration::from_secs(10),
        }
    }

    #[test]
    fn a_good_call_passes() {
        assert_eq!(faults(&good()), Vec::<String>::new());
    }

    type Spoil = fn(&mut Measured);

    #[test]
    fn each_fault_is_found() {
        let cases: [(Spoil, &str); 11] = [
            (|it| it.inward = passage(500, 499), "1 of 500 RTP packets lost"),
            (|it| it.outward = passage(0, 0), "agent to browser: only 0 RTP packets"),
            (|it| it.inward = passage(200, 200), "only 200 RTP packets"),
            (|it| it.packets.socket = 1, "UDP stack took 1 media packets"),
            (|it| it.packets.afxdp = 990, "only 990 of 1001 RTP packets went by AF_XDP"),
            (|it| it.paths[1].1 = "generic".into(), "interface inside runs on generic, not on xdp"),
            (|it| it.paths.clear(), "names 0 interfaces"),
            (
                |it| it.outside_hears.verdict = Err(Fault::Missing),
                "the browser should hear 1000 Hz: the tone is missing",
            ),
            (
                |it| it.inside_hears.verdict = Err(Fault::Swapped),
                "the agent should hear 440 Hz: the wrong tone",
            ),
            (|it| it.way = Way::Socket, "not on socket"),
            (|it| (it.way, it.packets.socket) = (Way::Socket, 1040), "1040 packets went by AF_XDP"),
        ];
        for (spoil, expected) in cases {
            let mut measured = good();
            spoil(&mut measured);
            let found = faults(&measured).join("; ");
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }

    #[test]
    fn media_ports_are_not_for_the_kernel() {
        let asked = |address: &str| is_for_the_kernel(address.parse().unwrap());
        assert!(asked("10.20.0.1:5060") && asked("172.20.0.7:53"));
        assert!(!asked("172.20.0.7:10000") && !asked("10.20.0.1:20000") && !asked("10.20.0.1:29999"));
        assert!(!asked("10.20.0.5:5060"), "the agent's");
    }
}
