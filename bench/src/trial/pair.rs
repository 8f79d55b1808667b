//! Deployments B and C: a call between two browsers.

use std::time::{Duration, SystemTime};

use sallyport_lab::appliance::{INSIDE_PORTS, Way};
use sallyport_lab::capture::Span;
use sallyport_lab::net::{Agents, INSIDE};

use super::measure::{Material, Measured, faults};
use super::report::print;
use super::{Options, Progress, keep, watch};
use crate::pair::Pair;

/// Sets the scene, plays the call, prints its table.
pub(super) fn play(
    options: &Options,
    way: Way,
    agents: Agents,
    progress: &Progress,
) -> anyhow::Result<Measured> {
    let pair = Pair::set(way, agents, &mut |text| progress.say(text))?;
    let outcome = talk(&pair, options, way, progress);
    match &outcome {
        Ok(measured) => {
            print(measured);
            if !faults(measured).is_empty() {
                last_words(&pair);
            }
        }
        Err(_) => last_words(&pair),
    }
    if options.keep {
        let Pair { customer, agent, appliance, lab, .. } = pair;
        keep(&appliance, lab)?;
        drop((customer, agent));
    }
    outcome
}

fn talk(pair: &Pair, options: &Options, way: Way, progress: &Progress) -> anyhow::Result<Measured> {
    let before = pair.snapshot()?;
    progress.say("calling");
    let timings = pair.call()?;
    pair.customer.record()?;
    pair.agent.record()?;
    let text =
        format!("connected after {:.0} ms; talking for {} s", timings.customer.media_ms, options.seconds);
    progress.say(&text);
    let begin = SystemTime::now();
    let talk = Duration::from_secs(u64::from(options.seconds));
    watch(&pair.customer, talk, progress)?;
    let span = Span::between(begin, SystemTime::now());
    let by_browser = pair.customer.recorded()?;
    let by_agent = pair.agent.recorded()?;
    let stats = pair.customer.stats()?;
    if !options.keep {
        progress.say("hanging up");
        let status = pair.customer.hang_up()?;
        anyhow::ensure!(status == 204, "DELETE answers {status}, not 204");
        pair.agent.heard("ended", Duration::from_secs(5))?;
        pair.wait_empty()?;
    }
    progress.say("counting packets, listening to the recordings");
    let after = pair.snapshot()?;
    let inside = pair.inside()?;
    let bare = |port: u16| (INSIDE_PORTS[0]..=INSIDE_PORTS[1]).contains(&port);
    let leaked = inside.iter().filter(|datagram| {
        [datagram.source, datagram.destination].iter().any(|end| end.ip() == INSIDE && bare(end.port()))
    });
    let leaked = leaked.count();
    anyhow::ensure!(leaked == 0, "{leaked} packets of media without encryption left the appliance");
    let captures = pair.captures()?;
    let mut control = pair.whole_outside()?;
    control.extend(inside);
    Measured::new(&Material {
        deployment: options.deployment,
        way,
        timings: timings.customer,
        stats,
        captures,
        control,
        toward_agent: pair.media(),
        span,
        before,
        after,
        by_browser,
        by_agent,
        talk,
    })
}

fn last_words(pair: &Pair) {
    eprintln!("last words of the appliance:\n{}", pair.appliance.process().last_words(40));
    eprintln!("last words of the SIP server:\n{}", pair.registrar.process().last_words(15));
    eprintln!("with --keep the lab stays up after this");
}
