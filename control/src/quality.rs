//! Quality of the media of calls that have ended, for the metrics and the log.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use sallyport_plan::{CallId, DirectionReport, Zone};
use sallyport_proto::quality::{loss_percent, mos};

use crate::calls::short;

type Label = Vec<(&'static str, String)>;

/// Edges of histograms: opinion scores, jitter and round trips in seconds.
const SCORES: [f64; 7] = [2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.3];
const SECONDS: [f64; 8] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

/// Sums over all directions of ended calls, by the side that their packets came from.
#[derive(Debug, Clone)]
pub struct Totals {
    received: Family<Label, Counter>,
    lost: Family<Label, Counter>,
    scores: Family<Label, Histogram, fn() -> Histogram>,
    jitter: Family<Label, Histogram, fn() -> Histogram>,
    round_trips: Family<Label, Histogram, fn() -> Histogram>,
}

impl Default for Totals {
    fn default() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        Self {
            received: Family::default(),
            lost: Family::default(),
            scores: Family::new_with_constructor(|| Histogram::new(SCORES)),
            jitter: Family::new_with_constructor(seconds),
            round_trips: Family::new_with_constructor(seconds),
        }
    }
}

impl Totals {
    /// Adds the last statistics of a call, and writes them to the log.
    pub fn add(&self, call: CallId, directions: &[DirectionReport]) {
        for (at, report) in directions.iter().enumerate().filter(|(_, report)| report.quality.received > 0) {
            let quality = &report.quality;
            let from = match report.from {
                Zone::Outside => "outside",
                Zone::Inside => "inside",
            };
            let label = vec![("from", from.to_owned())];
            self.received.get_or_create(&label).inc_by(quality.received);
            self.lost.get_or_create(&label).inc_by(u64::try_from(report.lost).unwrap_or(0));
            self.jitter.get_or_create(&label).observe(seconds(quality.jitter_us));
            if let Some(round_trip) = quality.round_trip_us {
                self.round_trips.get_or_create(&label).observe(seconds(round_trip));
            }
            let score = mos(report, directions.get(at ^ 1), None);
            if let Some(score) = score {
                self.scores.get_or_create(&label).observe(score);
            }
            tracing::info!(
                call = %short(call),
                from,
                packets = report.packets,
                loss_percent = %format_args!("{:.2}", loss_percent(report)),
                jitter_us = quality.jitter_us,
                round_trip_us = quality.round_trip_us,
                mos = %format_args!("{:.2}", score.unwrap_or_default()),
                "media ended"
            );
        }
    }

    /// Registers them all.
    pub fn register(&self, registry: &mut Registry) {
        let help = "RTP packets that came, of calls that have ended, by side";
        registry.register("media_received", help, self.received.clone());
        let help = "RTP packets missing on arrival, of calls that have ended, by side";
        registry.register("media_lost", help, self.lost.clone());
        let help = "Mean opinion scores (ITU-T G.107) of ended calls' directions, by side";
        registry.register("media_mos", help, self.scores.clone());
        let help = "Interarrival jitter at the end of calls, by side";
        registry.register("media_jitter_seconds", help, self.jitter.clone());
        let help = "Round trips between the relay and the senders at the end of calls, by side";
        registry.register("media_round_trip_seconds", help, self.round_trips.clone());
    }
}

fn seconds(us: u32) -> f64 {
    f64::from(us) / 1_000_000.0
}
