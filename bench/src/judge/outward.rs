//! A phone inside plays; aiortc or Chromium outside judges.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sallyport_lab::aiortc::Aiortc;
use sallyport_lab::appliance::{self, Appliance, MEDIA_PORT, programs};
use sallyport_lab::browser::{self, Browser, Call, Stats};
use sallyport_lab::capture::Capture;
use sallyport_lab::net::{AGENT, INSIDE_PEER, OUTSIDE, OUTSIDE_PEER, STUN};
use sallyport_lab::pcap::Captured;
use sallyport_lab::phone::{self, Phone};
use sallyport_lab::trouble::{FRAME, RATE, Score, Tally, Voice};
use sallyport_lab::wav::Wav;
use sallyport_lab::{Lab, Options as World, Place, tone};

use super::course::{Course, OUTWARD};
use super::{Options, Verdict, Who, arrivals, first_number, go_on, status, wait};

/// A second address of the phone.
const MOVED: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 6);
/// Who was never spoken of.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 7);
/// How long ICE, DTLS and the first packet may take.
const CONNECT: Duration = Duration::from_secs(30);

/// Packets of 5 ms that Chromium's jitter buffer may leave out for a trouble.
const LEFT_OUT: u64 = 4;

enum Judge {
    Aiortc(Aiortc),
    Chromium(Browser),
}

pub(super) fn play(options: &Options, say: &mut dyn FnMut(&str)) -> anyhow::Result<Verdict> {
    say("building the network, starting a phone and the appliance");
    let lab = Lab::new(World::default())?;
    let capture = Capture::start(&lab, &lab.namespace(Place::DmzNat), OUTSIDE_PEER, "outside")?;
    let course = Course::begin(&OUTWARD, options.turn, options.short, false);
    let phone = start_phone(&lab, options, &course)?;
    let appliance = Appliance::start(&lab, &appliance::Setup::new(programs()?, options.path.into()))?;
    let before = status(&appliance)?;
    say(&format!("{:?} calls", options.who));
    let judge = call(&lab, &appliance, options.who)?;
    let is_ours = |one: &Captured| one.source == SocketAddr::from((OUTSIDE, MEDIA_PORT));
    let first = first_number(&capture, is_ours)?;
    go_on(options, phone.score(), course, first);
    say(&format!("connected; the first number is {first}"));
    let received = || match &judge {
        Judge::Aiortc(aiortc) => format!("aiortc has taken {}", aiortc.received()),
        Judge::Chromium(browser) => browser.stats().map_or_else(
            |error| format!("{error:#}"),
            |stats| format!("Chromium has received {}", stats.received),
        ),
    };
    let tally = wait(phone.score(), say, || phone.fault(), received)?;
    say("all was sent; listening to the recording");
    let mut verdict = Verdict::new(options.gap);
    verdict.played(&tally);
    verdict.arrived(&arrivals(&capture.stop()?, is_ours), tally.holds);
    match judge {
        Judge::Aiortc(aiortc) => by_aiortc(&aiortc, &tally, &mut verdict)?,
        Judge::Chromium(browser) => {
            let (stats, heard) = (browser.stats()?, browser.recorded()?);
            by_chromium(&stats, &heard, &tally, &mut verdict);
            anyhow::ensure!(browser.hang_up()? == 204, "DELETE is not answered 204");
        }
    }
    verdict.relay(&before, &status(&appliance)?, &tally);
    Ok(verdict)
}

fn start_phone(lab: &Lab, options: &Options, course: &Course) -> anyhow::Result<Phone> {
    let namespace = lab.namespace(Place::Enterprise);
    for address in [MOVED, STRANGER] {
        namespace.ip(&format!("address add {address}/24 dev {INSIDE_PEER}\n"))?;
    }
    let score = Arc::new(Score::new(if options.short { u32::MAX } else { options.packets }));
    score.add(course.due());
    // Numbers and time wrap behind the third packet.
    let voice = Voice::new(tone::AGENT, 0xa9e2_0002, 65_533, (3 * FRAME).wrapping_neg());
    let setup = phone::Setup {
        sip: SocketAddr::from((AGENT, 5060)),
        media: vec![
            SocketAddr::from((AGENT, 30_100)),
            SocketAddr::from((MOVED, 30_102)),
            SocketAddr::from((AGENT, 30_104)),
        ],
        intruder: SocketAddr::from((STRANGER, 30_200)),
        voice,
    };
    Phone::start(&namespace, setup, score)
}

fn call(lab: &Lab, appliance: &Appliance, who: Who) -> anyhow::Result<Judge> {
    if who == Who::Aiortc {
        return Ok(Judge::Aiortc(Aiortc::call(lab, appliance, "1000")?));
    }
    let browser = Browser::start(lab, &browser::Setup::default())?;
    let call = Call {
        url: appliance.call_url("1000"),
        token: Some(appliance.token().into()),
        stun: Some(STUN.to_string()),
        trickle: true,
    };
    browser.call(&call)?;
    browser.wait_connected(CONNECT).context("the browser")?;
    browser.record()?;
    Ok(Judge::Chromium(browser))
}

/// Seconds of sound that are to be heard, holds included, less what a recording may begin late.
fn seconds(tally: &Tally) -> f64 {
    let packets = u32::try_from(tally.heard() + tally.held).unwrap_or(u32::MAX);
    (f64::from(packets) * f64::from(FRAME) / f64::from(RATE) - 3.0).max(1.0)
}

fn by_aiortc(aiortc: &Aiortc, tally: &Tally, verdict: &mut Verdict) -> anyhow::Result<()> {
    let faults = aiortc.faults();
    let (report, heard) = aiortc.finish()?;
    verdict.taken("libsrtp took packets", report.received, tally);
    verdict.equal("libsrtp refused packets", report.refused, 0);
    verdict.equal("libsrtp refused reports", report.refused_rtcp, 0);
    verdict.equal("SSRCs heard", report.sources.len(), 1);
    verdict.equal("numbers missing", report.missing, tally.skipped);
    verdict.equal("packets out of order or double", report.disorder, 0);
    verdict.equal("timestamps going back", report.rewound, 0);
    verdict.equal("timestamps standing still", report.stuck, 0);
    verdict.tell("numbers wrapped, times", report.wraps);
    verdict.equal("complaints of aiortc", faults.len(), 0);
    for fault in faults.iter().take(5) {
        verdict.tell("  complaint", fault);
    }
    verdict.equal("state at the end", report.state, "connected".into());
    verdict.equal("sound out of its time, pieces", report.torn, 0);
    listen(&heard, tally, verdict);
    Ok(())
}

fn by_chromium(stats: &Stats, heard: &Wav, tally: &Tally, verdict: &mut Verdict) {
    verdict.taken("Chromium received packets", stats.received, tally);
    // It takes a step of 500 and more for a restart, and no loss.
    verdict.most(
        "Chromium lost packets (numbers never sent)",
        stats.lost,
        i64::try_from(tally.skipped).unwrap_or(i64::MAX),
    );
    // Its jitter buffer leaves out what comes when its time was filled already, as behind a clock that begins anew.
    verdict.most("Chromium discarded packets", stats.discarded, LEFT_OUT * u64::from(tally.troubles));
    verdict.equal("state at the end", stats.connection.clone(), "connected".into());
    verdict.tell(
        "samples concealed; silence among them",
        format!("{}; {}", stats.concealed, stats.silent_concealed),
    );
    verdict.tell("samples played", stats.samples);
    listen(heard, tally, verdict);
}

fn listen(heard: &Wav, tally: &Tally, verdict: &mut Verdict) {
    verdict.heard(heard, tone::AGENT, tally.holds, seconds(tally));
}
