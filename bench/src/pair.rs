//! Deployments B and C, set up: a customer's browser outside, an agent's browser inside or outside, the enterprise's SIP server
//! (Kamailio) between them, at which the appliance registers the agent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use sallyport_lab::appliance::{self, API_PORT, Appliance, MEDIA_PORT, Way, programs};
use sallyport_lab::browser::{self, Browser, Call, SignIn, Timings};
use sallyport_lab::capture::Capture;
use sallyport_lab::net::{
    AGENT_NAT_INSIDE, AGENT_NAT_OUTSIDE, Agents, BROWSER_PUBLIC, INSIDE, INSIDE_PEER, OUTSIDE, OUTSIDE_PEER,
    STUN, STUN_INSIDE,
};
use sallyport_lab::pcap::Captured;
use sallyport_lab::registrar::{self, PASSWORD, REALM, Registrar};
use sallyport_lab::{Lab, Options, Place, tone};

use crate::scene::Snapshot;

/// The agent's number.
pub const NUMBER: &str = "2000";
/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything, running, and the agent signed in.
#[derive(Debug)]
pub struct Pair {
    /// The customer.
    pub customer: Browser,
    /// The agent.
    pub agent: Browser,
    /// The SIP server.
    pub registrar: Registrar,
    /// The appliance.
    pub appliance: Appliance,
    /// Where the agent is.
    pub agents: Agents,
    outside: Capture,
    inside: Capture,
    /// The world. It ends last.
    pub lab: Lab,
}

/// How long setting up took, at both ends.
#[derive(Debug, Clone, Copy)]
pub struct Both {
    /// The customer, from its click on.
    pub customer: Timings,
    /// The agent, from its click on.
    pub agent: Timings,
}

impl Pair {
    /// Sets it up, saying what is being done.
    ///
    /// # Errors
    /// What does not start, with its last words.
    pub fn set(way: Way, agents: Agents, say: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        say(
            "building the network: two browsers, each behind its NAT, Internet with STUN, 1:1 NAT, DMZ, enterprise",
        );
        let lab = Lab::new(Options { agent: Some(agents), ..Options::default() })?;
        let tap = |place, interface, name| Capture::start(&lab, &lab.namespace(place), interface, name);
        let outside = tap(Place::DmzNat, OUTSIDE_PEER, "outside")?;
        let inside = tap(Place::Enterprise, INSIDE_PEER, "inside")?;
        say("starting the SIP server (Kamailio)");
        let server = registrar::Setup::default();
        let registrar = Registrar::start(&lab, &server)?;
        say(&format!("starting the appliance, path {way}"));
        let mut setup = appliance::Setup::new(programs()?, way);
        setup.server = server.address;
        setup.more = config(agents);
        let appliance = Appliance::start(&lab, &setup).context("the appliance")?;
        say("starting two browsers (Chromium)");
        let customer = Browser::start(&lab, &browser::Setup::default())?;
        let there = browser::Setup { place: Place::Agent, tone: tone::AGENT };
        let agent = Browser::start(&lab, &there)?;
        say(&format!("the agent signs in as {NUMBER}"));
        let base = match agents {
            Agents::Inside => format!("http://{INSIDE}:{API_PORT}"),
            Agents::Outside => appliance.public_url(""),
        };
        let password = Some(PASSWORD.to_owned());
        agent.sign_in(&SignIn { base, number: NUMBER.into(), password, token: None })?;
        Ok(Self { customer, agent, registrar, appliance, agents, outside, inside, lab })
    }

    /// The STUN server that the agent's browser asks.
    fn stun(&self) -> SocketAddr {
        if self.agents == Agents::Inside { STUN_INSIDE } else { STUN }
    }

    /// The customer calls, the agent takes the call; until both hear each other.
    ///
    /// # Errors
    /// What a browser met.
    pub fn call(&self) -> anyhow::Result<Both> {
        let call = Call {
            url: self.appliance.call_url(NUMBER),
            token: Some(self.appliance.token().into()),
            stun: Some(STUN.to_string()),
            trickle: true,
        };
        let stun = self.stun().to_string();
        std::thread::scope(|scope| {
            let calling = scope.spawn(|| {
                self.customer.call(&call)?;
                self.customer.wait_connected(PATIENCE)
            });
            let taken = self.take(&stun);
            let customer = calling.join().map_err(|_| anyhow::anyhow!("the customer's part failed"))?;
            match (customer, taken) {
                (Ok(customer), Ok(agent)) => Ok(Both { customer, agent }),
                (Err(error), Ok(_)) => Err(error.context("the customer")),
                (Ok(_), Err(error)) => Err(error.context("the agent")),
                (Err(one), Err(other)) => anyhow::bail!("the customer: {one:#}; the agent: {other:#}"),
            }
        })
    }

    fn take(&self, stun: &str) -> anyhow::Result<Timings> {
        let incoming = self.agent.heard("incoming", PATIENCE)?;
        let call = incoming["call"].as_str().context("a call that rings has no name")?;
        self.agent.take(call, Some(stun))?;
        self.agent.wait_connected(PATIENCE)
    }

    /// Both cables so far: what passed at the customer's side, and at the agent's.
    ///
    /// # Errors
    /// Where a capture is damaged.
    pub fn captures(&self) -> anyhow::Result<[Vec<Captured>; 2]> {
        let outside = self.outside.so_far()?;
        let of = |all: &[Captured], peer: std::net::Ipv4Addr| -> Vec<Captured> {
            let is = |datagram: &&Captured| {
                [datagram.source.ip(), datagram.destination.ip()].contains(&peer.into())
            };
            all.iter().filter(is).cloned().collect()
        };
        let customer = of(&outside, BROWSER_PUBLIC);
        let agent = match self.agents {
            Agents::Inside => of(&self.inside.so_far()?, AGENT_NAT_INSIDE),
            Agents::Outside => of(&outside, AGENT_NAT_OUTSIDE),
        };
        Ok([customer, agent])
    }

    /// Everything on the appliance's inside cable so far.
    ///
    /// # Errors
    /// Where the capture is damaged.
    pub fn inside(&self) -> anyhow::Result<Vec<Captured>> {
        self.inside.so_far()
    }

    /// Everything on its outside cable so far.
    ///
    /// # Errors
    /// Where the capture is damaged.
    pub fn whole_outside(&self) -> anyhow::Result<Vec<Captured>> {
        self.outside.so_far()
    }

    /// The appliance's media address toward the agent.
    pub fn media(&self) -> SocketAddr {
        match self.agents {
            Agents::Inside => SocketAddr::from((INSIDE, MEDIA_PORT)),
            Agents::Outside => SocketAddr::from((OUTSIDE, MEDIA_PORT)),
        }
    }

    /// As [`crate::scene::Scene::snapshot`].
    ///
    /// # Errors
    /// Where the appliance does not answer.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Snapshot::of(&self.appliance)
    }

    /// Waits until the appliance holds nothing of any call.
    ///
    /// # Errors
    /// Where it does not let go.
    pub fn wait_empty(&self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.appliance.status()?.holds_nothing() {
            anyhow::ensure!(Instant::now() < end, "the appliance still holds something of the call");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

fn config(agents: Agents) -> toml::Table {
    let mut more = toml::toml! {
        [agents]
        numbers = "password"
    };
    let mut sip = toml::Table::new();
    sip.insert("domain".into(), REALM.into());
    sip.insert("password".into(), PASSWORD.into());
    more.insert("sip".into(), sip.into());
    if agents == Agents::Inside {
        let mut inside = toml::Table::new();
        inside.insert("browsers".into(), i64::from(MEDIA_PORT).into());
        more.insert("inside".into(), inside.into());
    }
    more
}
