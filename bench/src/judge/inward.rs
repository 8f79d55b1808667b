//! A browser outside plays; baresip inside, whose media is encrypted under keys in the SDP, judges.

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use sallyport_lab::agent::{self, Agent, Srtp};
use sallyport_lab::appliance::{self, Appliance, programs};
use sallyport_lab::caller::{Caller, Speaking};
use sallyport_lab::capture::Capture;
use sallyport_lab::net::{BROWSER, INSIDE, INSIDE_PEER};
use sallyport_lab::pcap::Captured;
use sallyport_lab::trouble::{self, FRAME, RATE, Score, Tally, Voice};
use sallyport_lab::{Lab, Options as World, Place, tone};

use super::course::{Course, INWARD};
use super::{Options, Verdict, arrivals, first_number, go_on, status, wait};

/// How long ICE, DTLS and the end of a call may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn play(options: &Options, say: &mut dyn FnMut(&str)) -> anyhow::Result<Verdict> {
    say("building the network, starting baresip and the appliance");
    let lab = Lab::new(World::default())?;
    let capture = Capture::start(&lab, &lab.namespace(Place::Enterprise), INSIDE_PEER, "inside")?;
    let course = Course::begin(&INWARD, options.turn, options.short, true);
    let agent = agent::Setup { srtp: Srtp::Required, seconds: 900, ..agent::Setup::default() };
    let agent = Agent::start(&lab, &agent)?;
    let mut setup = appliance::Setup::new(programs()?, options.path.into());
    let keys = toml::Table::from_iter([("srtp".to_owned(), Srtp::Required.name().into())]);
    setup.more.insert("inside".into(), keys.into());
    let appliance = Appliance::start(&lab, &setup)?;
    say("a browser calls");
    let mut caller = Caller::new(&lab, Place::Browser, BROWSER.into())?;
    let placed = caller.call(&appliance, "1000")?;
    let media = caller.connect(&placed.answer, PATIENCE)?;
    let score = Score::new(if options.short { u32::MAX } else { options.packets });
    score.add(course.due());
    // Numbers and time wrap behind the third packet.
    let mut voice = Voice::new(tone::BROWSER, 0xb0b0_0001, 65_533, (3 * FRAME).wrapping_neg());
    let mut mouth = Speaking::new(&mut caller, media, &appliance, &placed)?;
    // Then both ways have keys: what is sent before is dropped as early.
    mouth.wait_heard(PATIENCE)?;
    let before = status(&appliance)?;
    let is_ours = |one: &Captured| one.source.ip() == IpAddr::from(INSIDE);
    let tally = thread::scope(|scope| {
        let playing = scope.spawn(|| trouble::play(&mut mouth, &mut voice, &score));
        let outcome = first_number(&capture, is_ours).and_then(|first| {
            go_on(options, &score, course, first);
            say(&format!("connected; the first number is {first}"));
            let fault = || playing.is_finished().then(|| "the browser cannot go on".to_owned());
            wait(&score, say, fault, || format!("{} complaints of baresip", complaints(&agent)))
        });
        if outcome.is_err() {
            score.end_at(0);
        }
        let played = playing.join().map_err(|_| anyhow::anyhow!("the browser's part failed"))?;
        played.context("the browser")?;
        outcome
    })?;
    let talk = mouth.talk();
    drop(mouth);
    anyhow::ensure!(caller.hang_up(&appliance, &placed)? == 204, "DELETE is not answered 204");
    agent.process().wait_for_words("pkt.report", PATIENCE).context("what baresip counted")?;
    let mut verdict = Verdict::new(options.gap);
    verdict.played(&tally);
    verdict.arrived(&arrivals(&capture.stop()?, is_ours), tally.holds);
    by_baresip(&agent, &tally, &mut verdict)?;
    verdict.equal("what came back and did not verify", talk.broken, 0);
    verdict.least("what came back", talk.heard, 50);
    verdict.relay(&before, &status(&appliance)?, &tally);
    Ok(verdict)
}

fn words(agent: &Agent) -> String {
    fs::read(agent.process().log()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
}

/// Packets that its SRTP refused.
fn complaints(agent: &Agent) -> usize {
    words(agent).matches("failed to decrypt").count()
}

fn by_baresip(agent: &Agent, tally: &Tally, verdict: &mut Verdict) -> anyhow::Result<()> {
    let words = words(agent);
    let counted =
        |name: &str| figure(&words, name).map_or_else(|| "nobody knows".into(), |figure| figure.to_string());
    verdict.taken("baresip received packets", figure(&words, "packets").unwrap_or(0), tally);
    verdict.equal("baresip refused packets", complaints(agent), 0);
    verdict.equal("baresip's errors", counted("errors"), "0".into());
    verdict.tell(
        "baresip lost packets (numbers never sent)",
        format!("{} ({})", counted("lost"), tally.skipped),
    );
    let heard = agent.heard()?;
    // Its recorder ends with the first hold. What it decodes lies there end to end; where numbers jump its buffer, of five
    // packets, begins anew.
    let packets = u32::try_from(tally.unheld.unwrap_or(tally.sent)).unwrap_or(u32::MAX);
    let seconds =
        f64::from(packets.saturating_sub(6 * tally.troubles)) * f64::from(FRAME) / f64::from(RATE) - 1.0;
    verdict.heard(&heard, tone::BROWSER, tally.holds, seconds);
    Ok(())
}

/// What it received, of its table at a call's end: `packets:   580   2159` is of what it sent and received.
fn figure(words: &str, name: &str) -> Option<u64> {
    let lines = words.lines().rev().filter_map(|line| line.split_once(':'));
    let values = lines.filter(|(field, _)| field.trim() == name).map(|(_, values)| values);
    values.filter_map(|values| values.split_whitespace().nth(1)?.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn its_table_is_read() {
        let words = "audio           Transmit:     Receive:\npackets:            580         2159\n\
                     avg. bitrate:      54.6         51.0  (kbit/s)\nerrors:               0            3\n";
        assert_eq!(
            [figure(words, "packets"), figure(words, "errors"), figure(words, "lost")],
            [Some(2159), Some(3), None]
        );
    }
}
