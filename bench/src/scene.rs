//! Deployment A, set up: a browser behind its NAT, the appliance behind a 1:1 NAT, an agent inside, captures on both of the
//! appliance's cables. `bench try` and the stories play in it.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use sallyport_lab::agent::{self, Agent, Srtp};
use sallyport_lab::appliance::{self, Appliance, Status, Way, programs};
use sallyport_lab::browser::{self, Answered, Browser, Call, Timings};
use sallyport_lab::capture::Capture;
use sallyport_lab::net::{INSIDE_PEER, OUTSIDE_PEER, STUN};
use sallyport_lab::{Lab, Options, Place};

/// Whom the browser calls.
pub const USER: &str = "1000";
/// How long ICE, DTLS and the first packet may take after the answer.
const CONNECT: Duration = Duration::from_secs(30);
/// `/v1/status` is at most this old.
const STATUS_AGE: Duration = Duration::from_millis(1100);

/// Everything, running.
#[derive(Debug)]
pub struct Scene {
    /// The customer.
    pub browser: Browser,
    /// The SIP agent.
    pub agent: Agent,
    /// The appliance.
    pub appliance: Appliance,
    /// The far end of the appliance's outside cable.
    pub outside: Capture,
    /// The far end of the appliance's inside cable.
    pub inside: Capture,
    /// The world. It ends last.
    pub lab: Lab,
}

/// What the appliance and its kernel have counted so far.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When.
    pub at: SystemTime,
    /// What the appliance says.
    pub status: Status,
    /// UDP datagrams that its kernel's stack has taken.
    pub kernel_udp: u64,
}

impl Snapshot {
    /// Asks the appliance and its kernel, when their figures cover everything up to now.
    ///
    /// # Errors
    /// Where the appliance does not answer.
    pub fn of(appliance: &Appliance) -> anyhow::Result<Self> {
        std::thread::sleep(STATUS_AGE);
        let kernel_udp = appliance.kernel_udp()?;
        Ok(Self { at: SystemTime::now(), status: appliance.status()?, kernel_udp })
    }
}

impl Scene {
    /// Sets it up, saying what is being done.
    ///
    /// # Errors
    /// What does not start, with its last words.
    pub fn set(way: Way, say: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        Self::set_with(way, say, |_| ())
    }

    /// As [`Scene::set`], with media inside that is encrypted.
    ///
    /// # Errors
    /// As [`Scene::set`].
    pub fn set_secret(way: Way, srtp: Srtp, say: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        let agent = agent::Setup { srtp, ..agent::Setup::default() };
        Self::set_as(way, &agent, say, |setup| {
            let keys = toml::Table::from_iter([("srtp".to_owned(), srtp.name().into())]);
            setup.more.insert("inside".into(), keys.into());
        })
    }

    /// As [`Scene::set`], with an appliance that is set up in another way.
    ///
    /// # Errors
    /// As [`Scene::set`].
    pub fn set_with(
        way: Way,
        say: &mut dyn FnMut(&str),
        change: impl FnOnce(&mut appliance::Setup),
    ) -> anyhow::Result<Self> {
        Self::set_as(way, &agent::Setup::default(), say, change)
    }

    /// As [`Scene::set_with`], with such an agent.
    ///
    /// # Errors
    /// As [`Scene::set`].
    pub fn set_as(
        way: Way,
        agent: &agent::Setup,
        say: &mut dyn FnMut(&str),
        change: impl FnOnce(&mut appliance::Setup),
    ) -> anyhow::Result<Self> {
        say("building the network: browser, NAT, Internet with STUN, 1:1 NAT, DMZ, enterprise");
        let lab = Lab::new(Options::default())?;
        let tap = |place, interface, name| Capture::start(&lab, &lab.namespace(place), interface, name);
        let outside = tap(Place::DmzNat, OUTSIDE_PEER, "outside")?;
        let inside = tap(Place::Enterprise, INSIDE_PEER, "inside")?;
        say("starting the SIP agent (baresip)");
        let agent = Agent::start(&lab, agent)?;
        say(&format!("starting the appliance, path {way}"));
        let mut setup = appliance::Setup::new(programs()?, way);
        change(&mut setup);
        let appliance = Appliance::start(&lab, &setup).context("the appliance")?;
        say("starting the browser (Chromium)");
        let browser = Browser::start(&lab, &browser::Setup::default())?;
        Ok(Self { browser, agent, appliance, outside, inside, lab })
    }

    /// Calls the agent and waits until its first packet is heard.
    ///
    /// # Errors
    /// What the browser met.
    pub fn call(&self) -> anyhow::Result<(Answered, Timings)> {
        let answered = self.browser.call(&Call {
            url: self.appliance.call_url(USER),
            token: Some(self.appliance.token().into()),
            stun: Some(STUN.to_string()),
            trickle: true,
        })?;
        Ok((answered, self.browser.wait_connected(CONNECT)?))
    }

    /// Asks the appliance and its kernel, when their figures cover everything up to now.
    ///
    /// # Errors
    /// Where the appliance does not answer.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Snapshot::of(&self.appliance)
    }
}
