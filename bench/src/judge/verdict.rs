//! What a judge found, beside what it had to find.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sallyport_lab::appliance::Status;
use sallyport_lab::tone::{Gap, gaps};
use sallyport_lab::trouble::Tally;
use sallyport_lab::wav::Wav;
use serde::Serialize;

/// Packets that may be on their way, and dropped, when a hold begins or ends or somebody is transferred: 15 ms of sound.
const UNDER_WAY: u64 = 3;
/// How long a hold is heard: two seconds, signalling and the time for it, and what a jitter buffer makes of them.
const HOLD: std::ops::Range<f64> = 1.7..2.6;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What it is.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What had to be found; empty: it is only told.
    pub wanted: String,
    /// Whether it is so.
    pub passed: bool,
}

/// All figures.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Longest gap that nobody asked for, milliseconds; it grows by the time for which the generator itself was late.
    pub gap_ms: u32,
    /// In their order.
    pub rows: Vec<Row>,
}

impl Verdict {
    /// One without figures.
    pub const fn new(gap_ms: u32) -> Self {
        Self { gap_ms, rows: Vec::new() }
    }

    fn gap(&self) -> f64 {
        f64::from(self.gap_ms) / 1000.0
    }

    /// Whether all is as it had to be.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.passed)
    }

    /// A figure that is only told.
    pub fn tell(&mut self, what: &str, found: impl fmt::Display) {
        self.rows.push(Row {
            what: what.into(),
            found: found.to_string(),
            wanted: String::new(),
            passed: true,
        });
    }

    /// A figure that must be this one.
    pub fn equal<T: fmt::Display + PartialEq>(&mut self, what: &str, found: T, wanted: T) {
        let passed = found == wanted;
        self.rows.push(Row {
            what: what.into(),
            found: found.to_string(),
            wanted: wanted.to_string(),
            passed,
        });
    }

    /// A figure that must be at least this.
    pub fn least<T: fmt::Display + PartialOrd>(&mut self, what: &str, found: T, least: T) {
        let passed = found >= least;
        let wanted = format!("at least {least}");
        self.rows.push(Row { what: what.into(), found: found.to_string(), wanted, passed });
    }

    /// A figure that must be at most this.
    pub fn most<T: fmt::Display + PartialOrd>(&mut self, what: &str, found: T, most: T) {
        let passed = found <= most;
        let wanted = format!("at most {most}");
        self.rows.push(Row { what: what.into(), found: found.to_string(), wanted, passed });
    }

    /// What was played.
    pub fn played(&mut self, tally: &Tally) {
        self.tell("packets sent", tally.sent);
        self.tell("  of them in doubt, not to be heard", tally.doubtful);
        self.tell("  sent while held, beside them", tally.held);
        self.tell("numbers never sent", tally.skipped);
        self.tell("troubles; holds among them", format!("{}; {}", tally.troubles, tally.holds));
        self.tell("packets left late by at most, ms", tally.late.as_millis());
        self.gap_ms += u32::try_from(tally.late.as_millis()).unwrap_or(u32::MAX / 2);
    }

    /// What was taken of what was to be heard.
    pub fn taken(&mut self, what: &str, found: u64, tally: &Tally) {
        let (most, least) =
            (tally.heard(), tally.heard().saturating_sub(UNDER_WAY * u64::from(tally.signalled)));
        let (what, wanted) =
            (what.into(), if found == most { most.to_string() } else { format!("{least} to {most}") });
        self.rows.push(Row {
            what,
            found: found.to_string(),
            wanted,
            passed: (least..=most).contains(&found),
        });
    }

    /// A recording has no gap but the holds, of which some may not be heard as gaps.
    pub fn heard(&mut self, wav: &Wav, tone: u32, holds: u32, seconds: f64) {
        self.least("seconds of sound heard", (wav.seconds() * 10.0).round() / 10.0, seconds.floor());
        let found = gaps(wav, tone, self.gap());
        self.tell("sound: gaps above 60 ms, holds included", gaps(wav, tone, 0.060).len());
        self.gaps("sound", &found, holds);
    }

    /// On the judge's cable there is no gap but the holds; `arrivals` are of its packets, nanoseconds.
    pub fn arrived(&mut self, arrivals: &[u64], holds: u32) {
        let begin = arrivals.first().copied().unwrap_or_default();
        let found: Vec<Gap> = arrivals
            .windows(2)
            .filter_map(|pair| {
                let (from, to) = (*pair.first()?, *pair.last()?);
                let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
                Some(Gap {
                    at: seconds(from.saturating_sub(begin)),
                    seconds: seconds(to.saturating_sub(from)),
                })
            })
            .filter(|gap| gap.seconds > self.gap())
            .collect();
        self.gaps("cable", &found, holds);
    }

    fn gaps(&mut self, where_: &str, found: &[Gap], holds: u32) {
        let (asked, unasked): (Vec<Gap>, Vec<Gap>) =
            found.iter().copied().partition(|gap| HOLD.contains(&gap.seconds));
        self.tell(&format!("{where_}: gaps of a hold"), asked.len());
        let more = asked.len().saturating_sub(holds as usize);
        let what = format!("{where_}: other gaps above {} ms", self.gap_ms);
        self.equal(&what, unasked.len() + more, 0);
        for gap in unasked.iter().take(10) {
            self.tell("  gap", format!("{:.0} ms at {:.2} s", gap.seconds * 1000.0, gap.at));
        }
    }

    /// The relay dropped what it had to, and nothing else; its own eye on continuity saw no break.
    pub fn relay(&mut self, before: &Status, after: &Status, tally: &Tally) {
        let grown = grown(before, after);
        let counter = |name: &str| grown.get(name).copied().unwrap_or(0);
        self.equal("relay: continuity_broken", counter("continuity_broken"), 0);
        // What the other side said meanwhile is among them.
        self.least("relay: drop_held", counter("drop_held"), tally.held);
        // What was under way when a hold ended may come behind numbers that were given anew.
        let (doubted, wanted) = (counter("drop_out_of_sequence"), tally.doubtful + tally.stragglers);
        self.least("relay: drop_out_of_sequence", doubted, wanted);
        self.most("relay: and no more but by a hold", doubted, wanted + u64::from(tally.holds));
        // Those of the other way, of its beginning, of others and of an address that was left are no fault of the stream that is judged.
        let known =
            ["drop_early", "drop_rtcp_empty", "drop_stale_flow", "drop_unlatched", "drop_unknown_flow"];
        let is_known = |name: &str| known.contains(&name.trim_start_matches("xdp_"));
        let counted = ["drop_held", "drop_out_of_sequence"];
        let drops = |wanted: &dyn Fn(&str) -> bool| {
            let drops = grown.iter().filter(|(name, _)| {
                name.contains("drop_") && !counted.contains(&name.as_str()) && wanted(name.as_str())
            });
            let drops: Vec<String> = drops.map(|(name, value)| format!("{name} {value}")).collect();
            if drops.is_empty() { "none".to_owned() } else { drops.join(", ") }
        };
        let unknown = counter("drop_unknown_flow") + counter("xdp_drop_unknown_flow");
        self.least("relay: packets of no flow (intruders)", unknown, tally.intruded);
        self.equal("relay: drops beside these", drops(&|name| !is_known(name)), "none".to_owned());
        self.tell("relay: what goes with that", drops(&is_known));
    }
}

fn grown(before: &Status, after: &Status) -> BTreeMap<String, u64> {
    let was = before.counters();
    let difference = |(name, value): (String, u64)| {
        let grown = value.saturating_sub(was.get(&name).copied().unwrap_or(0));
        (grown > 0).then_some((name, grown))
    };
    after.counters().into_iter().filter_map(difference).collect()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let mark = match (row.passed, row.wanted.is_empty()) {
                (_, true) => "",
                (true, _) => "ok",
                (false, _) => "FAILED",
            };
            writeln!(f, "{:<44} {:>14} {:>14} {mark}", row.what, row.found, row.wanted)?;
        }
        writeln!(f, "{}", if self.passed() { "passed" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use sallyport_lab::tone;

    use super::*;

    #[test]
    fn a_gap_that_is_no_hold_fails_and_so_does_one_hold_too_many() {
        let mut wav = tone::sine(tone::AGENT, 8000, 6);
        wav.samples[8000..24_000].fill(0);
        let judge = |wav: &Wav, holds| {
            let mut verdict = Verdict::new(60);
            verdict.heard(wav, tone::AGENT, holds, 5.0);
            verdict.passed()
        };
        assert!(judge(&wav, 1));
        assert!(!judge(&wav, 0));
        wav.samples[40_000..40_640].fill(0);
        assert!(!judge(&wav, 1));
        assert!(!judge(&tone::sine(tone::AGENT, 8000, 4), 0), "too short");
    }

    #[test]
    fn a_cable_that_is_silent_for_too_long_fails() {
        let judge = |arrivals: &[u64]| {
            let mut verdict = Verdict::new(60);
            verdict.arrived(arrivals, 1);
            verdict.passed()
        };
        let ms = |at: &[u64]| at.iter().map(|at| at * 1_000_000).collect::<Vec<_>>();
        assert!(judge(&ms(&[0, 5, 65, 2065, 2070])));
        assert!(!judge(&ms(&[0, 5, 66])));
        assert!(!judge(&ms(&[0, 2000, 4000])), "one hold only");
    }

    #[test]
    fn what_is_missing_was_under_way_when_somebody_signalled() {
        let tally = Tally { sent: 100, doubtful: 1, signalled: 2, ..Tally::default() };
        let judge = |found| {
            let mut verdict = Verdict::new(60);
            verdict.taken("taken", found, &tally);
            verdict.passed()
        };
        assert!(judge(99) && judge(93));
        assert!(!judge(92) && !judge(100));
    }

    #[test]
    fn the_relay_may_drop_what_it_had_to_and_nothing_else() {
        let status = |counters: &str| -> Status {
            Status::read(&format!("{{\"relay\":{{\"counters\":{{{counters}}}}}}}")).unwrap()
        };
        let tally = Tally { intruded: 20, held: 400, doubtful: 2, stragglers: 1, ..Tally::default() };
        let judge = |counters: &str| {
            let mut verdict = Verdict::new(60);
            verdict.relay(&status("\"drop_held\":7"), &status(counters), &tally);
            verdict.passed()
        };
        assert!(judge(
            "\"drop_held\":407,\"drop_out_of_sequence\":3,\"xdp_drop_unknown_flow\":20,\"drop_early\":1"
        ));
        assert!(!judge("\"xdp_drop_unknown_flow\":20,\"drop_held\":406,\"drop_out_of_sequence\":3"));
        assert!(!judge(
            "\"xdp_drop_unknown_flow\":20,\"drop_held\":407,\"drop_out_of_sequence\":3,\"drop_bad_tag\":1"
        ));
        assert!(!judge(
            "\"xdp_drop_unknown_flow\":20,\"drop_held\":407,\"drop_out_of_sequence\":3,\"continuity_broken\":1"
        ));
        assert!(!judge("\"drop_held\":407,\"drop_out_of_sequence\":3"), "intruders are not let in");
    }
}
