//! `bench try`: one real call, measured, heard and judged.

mod measure;
mod pair;
mod report;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use clap::{Args, ValueEnum};
use nix::unistd::geteuid;
use sallyport_lab::Lab;
use sallyport_lab::agent::Srtp;
use sallyport_lab::appliance::{Appliance, Way, programs};
use sallyport_lab::browser::Browser;
use sallyport_lab::capture::{Span, is_rtp};
use sallyport_lab::net::{Agents, INSIDE};
use sallyport_lab::pcap::Captured;

use crate::path::PathChoice;
use crate::scene::Scene;
pub use measure::{Audio, Measured, Packets, faults};
use report::{failure_json, json, print};

/// Options of `bench try`.
#[derive(Args)]
pub struct Options {
    /// A: a customer's browser outside and a SIP agent inside; B: an agent's browser inside; C: an agent's browser outside.
    #[arg(value_enum, default_value = "A", ignore_case = true)]
    deployment: Deployment,
    /// Write the figures there as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Way that packets are to take through the appliance.
    #[arg(long, value_enum, default_value = "xdp")]
    path: PathChoice,
    /// Encrypt media inside as well, under keys in the SDP (deployment A).
    #[arg(long, value_enum, default_value = "off")]
    srtp: SrtpChoice,
    /// Leave the lab and the call up, and say how to look at them.
    #[arg(long)]
    keep: bool,
    /// Seconds of talk.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(3..=200))]
    seconds: u16,
}

/// Who talks with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Deployment {
    /// A customer's browser outside, a SIP agent inside.
    A,
    /// A customer's browser outside, an agent's browser inside.
    B,
    /// A customer's browser outside, an agent's browser outside as well.
    C,
}

impl Deployment {
    /// Where the agent's browser is.
    const fn agents(self) -> Option<Agents> {
        match self {
            Self::A => None,
            Self::B => Some(Agents::Inside),
            Self::C => Some(Agents::Outside),
        }
    }
}

impl std::fmt::Display for Deployment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        })
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SrtpChoice {
    /// RTP/AVP.
    Off,
    /// RTP/AVP with keys.
    Optional,
    /// RTP/SAVP.
    Required,
}

impl From<SrtpChoice> for Srtp {
    fn from(choice: SrtpChoice) -> Self {
        match choice {
            SrtpChoice::Off => Self::Off,
            SrtpChoice::Optional => Self::Optional,
            SrtpChoice::Required => Self::Required,
        }
    }
}

/// Says what is being done, and since when, while it takes its time.
struct Progress(Instant);

impl Progress {
    fn say(&self, text: &str) {
        eprintln!("[{:5.1} s] {text}", self.0.elapsed().as_secs_f64());
    }
}

/// Plays the call and prints its table; success only where it passed.
///
/// # Errors
/// What could not be set up or did not answer.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if !geteuid().is_root() {
        eprintln!(
            "bench try needs root, for everything that it makes: network namespaces with cables and address translation \
             (CAP_SYS_ADMIN, CAP_NET_ADMIN), an XDP program and AF_XDP sockets (CAP_BPF, CAP_NET_RAW), captures. \
             It touches no interface of this machine. Run it with sudo."
        );
        return Ok(ExitCode::from(2));
    }
    let way = options.path.into();
    let outcome = play(options, way);
    let (passed, text) = match &outcome {
        Ok(measured) => (faults(measured).is_empty(), json(measured)?),
        Err(error) => (false, failure_json(options.deployment, way, error)?),
    };
    if let Some(path) = &options.json {
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    outcome.map(|_| if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(options: &Options, way: Way) -> anyhow::Result<Measured> {
    let progress = Progress(Instant::now());
    for name in sallyport_lab::sweep(false) {
        progress.say(&format!("removed the dead lab {name}"));
    }
    if let Some(agents) = options.deployment.agents() {
        return pair::play(options, way, agents, &progress);
    }
    let scene = Scene::set_secret(way, options.srtp.into(), &mut |text| progress.say(text))?;
    let outcome = talk(&scene, options, way, &progress);
    match &outcome {
        Ok(measured) => {
            print(measured);
            if !faults(measured).is_empty() {
                last_words(&scene);
            }
        }
        Err(_) => last_words(&scene),
    }
    if options.keep {
        let Scene { browser, appliance, lab, .. } = scene;
        keep(&appliance, lab)?;
        // Its page has been loaded; the browser itself goes on without us.
        drop(browser);
    }
    outcome
}

fn talk(scene: &Scene, options: &Options, way: Way, progress: &Progress) -> anyhow::Result<Measured> {
    let before = scene.snapshot()?;
    progress.say("calling");
    let (_, timings) = scene.call()?;
    scene.browser.record()?;
    progress.say(&format!("connected after {:.0} ms; talking for {} s", timings.media_ms, options.seconds));
    let begin = SystemTime::now();
    let duration = Duration::from_secs(u64::from(options.seconds));
    watch(&scene.browser, duration, progress)?;
    let span = Span::between(begin, SystemTime::now());
    let by_browser = scene.browser.recorded()?;
    let stats = scene.browser.stats()?;
    if !options.keep {
        progress.say("hanging up");
        let status = scene.browser.hang_up()?;
        anyhow::ensure!(status == 204, "DELETE answers {status}, not 204");
        scene
            .agent
            .process()
            .wait_for_words("terminated", Duration::from_secs(5))
            .context("the agent's BYE")?;
    }
    progress.say("counting packets, listening to the recordings");
    let after = scene.snapshot()?;
    let by_agent = scene.agent.heard()?;
    let captures = [scene.outside.so_far()?, scene.inside.so_far()?];
    let plain = matches!(options.srtp, SrtpChoice::Off);
    anyhow::ensure!(plain || is_secret(&captures[1]), "media inside is not encrypted");
    Measured::new(&measure::Material {
        deployment: Deployment::A,
        way,
        timings,
        stats,
        control: captures.concat(),
        captures,
        toward_agent: SocketAddr::from((INSIDE, 0)),
        span,
        before,
        after,
        by_browser,
        by_agent,
        talk: duration,
    })
}

/// Whether all RTP of a capture has a tag: packets of G.711 with 20 ms are longer than header and sound.
fn is_secret(captured: &[Captured]) -> bool {
    let mut voice = captured.iter().filter(|datagram| is_rtp(datagram)).peekable();
    voice.peek().is_some() && voice.all(|datagram| datagram.payload.len() >= 12 + 160 + 4)
}

/// Lets time pass, with a line every few seconds.
fn watch(browser: &Browser, duration: Duration, progress: &Progress) -> anyhow::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < duration {
        std::thread::sleep(duration.saturating_sub(begin.elapsed()).min(Duration::from_secs(3)));
        let stats = browser.stats()?;
        progress.say(&format!("browser has sent {} RTP packets and received {}", stats.sent, stats.received));
    }
    Ok(())
}

fn last_words(scene: &Scene) {
    eprintln!("last words of the appliance:\n{}", scene.appliance.process().last_words(40));
    eprintln!("last words of the agent:\n{}", scene.agent.process().last_words(15));
    eprintln!("with --keep the lab stays up after this");
}

/// Leaves everything up and says how to look at it.
fn keep(appliance: &Appliance, lab: Lab) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let program = programs()?.join("sallyport");
    let (name, folder) = (lab.name().to_owned(), lab.folder().display().to_string());
    let (token, pins) = (appliance.token().to_owned(), appliance.pins().display().to_string());
    lab.keep()?;
    let enter = format!("nsenter --net=/run/netns/{name}-dmz");
    println!(
        "\nThe lab {name} stays up, and so does the call while the agent's tone lasts (5 minutes).\n\
         \n  a shell at the appliance   {enter} bash\
         \n  its kernel maps            {program} maps flows --pins {pins}\
         \n                             {program} maps counters --pins {pins}\
         \n  its state                  {enter} curl -s -H 'Authorization: Bearer {token}' http://127.0.0.1:8080/v1/status\
         \n  its metrics                {enter} curl -s http://127.0.0.1:8080/metrics\
         \n  other places               ip netns list | grep {name}\
         \n  logs, captures, recordings {folder}\
         \n  the end of it              {own} lab clean {name}",
        program = program.display(),
        own = own.display(),
    );
    Ok(())
}
