//! Quality of media as REST shows it.

use sallyport_plan::DirectionReport;
use sallyport_proto::quality::{burst_ratio, loss_percent, mos, stay_us};
use serde::Serialize;
use utoipa::ToSchema;

/// How well the packets of a direction arrive at the relay, and what became of them beyond it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Quality {
    /// RTP packets that came.
    received: u64,
    /// Percentage of packets missing.
    loss_percent: f64,
    /// Interarrival jitter, milliseconds (RFC 3550 section 6.4.1).
    jitter_ms: f64,
    /// Packets that were overtaken.
    reordered: u32,
    /// Packets that came twice; of SRTP these are drops instead.
    duplicates: u32,
    /// Bursts of loss (RFC 3611 section 4.7.2, Gmin = 16).
    bursts: u32,
    /// Packets lost in bursts.
    burst_lost: u32,
    /// Sequence numbers that bursts are long, in all.
    burst_packets: u32,
    /// How much longer losses in a row are than at random (G.107, BurstR).
    burst_ratio: f64,
    /// Round trip between the relay and the sender, milliseconds; null until a report told.
    round_trip_ms: Option<f64>,
    /// Mean opinion score by the E-model (ITU-T G.107), 1 to 4.5; null for codecs that it has no figures for.
    mos: Option<f64>,
    /// What the receiver beyond the relay reports.
    reported: Option<Reported>,
    /// How long packets stayed in the relay.
    stay: Option<Stay>,
}

/// What a receiver reports of what left the relay (RFC 3550 section 6.4.1).
#[derive(Debug, Serialize, ToSchema)]
pub struct Reported {
    /// Percentage of packets lost between its last two reports.
    loss_percent: f64,
    /// Packets lost since the stream began.
    lost: i32,
    /// Its interarrival jitter, milliseconds.
    jitter_ms: f64,
}

/// Times in the relay, each the upper edge of an octave: at the most as long.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stay {
    /// Of half of all packets, microseconds.
    p50_us: u32,
    /// Of 99 of 100.
    p99_us: u32,
    /// Of 999 of 1,000.
    p999_us: u32,
}

impl Quality {
    /// Of a direction; `reverse`: of the one that runs the other way. `None` where nothing has arrived.
    pub fn new(
        report: &DirectionReport,
        reverse: Option<&DirectionReport>,
        codec: Option<&str>,
    ) -> Option<Self> {
        let quality = &report.quality;
        if quality.received == 0 {
            return None;
        }
        let stay = || {
            let [p50_us, p99_us, p999_us] = [0.5, 0.99, 0.999].map(|part| stay_us(quality, part));
            Some(Stay { p50_us: p50_us?, p99_us: p99_us?, p999_us: p999_us? })
        };
        Some(Self {
            received: quality.received,
            loss_percent: rounded(loss_percent(report)),
            jitter_ms: millis(quality.jitter_us),
            reordered: quality.reordered,
            duplicates: quality.duplicates,
            bursts: quality.bursts,
            burst_lost: quality.burst_lost,
            burst_packets: quality.burst_packets,
            burst_ratio: rounded(burst_ratio(quality)),
            round_trip_ms: quality.round_trip_us.map(millis),
            mos: mos(report, reverse, codec).map(rounded),
            reported: quality.told.map(|told| Reported {
                loss_percent: rounded(f64::from(told.fraction) * 100.0 / 256.0),
                lost: told.lost,
                jitter_ms: millis(told.jitter_us),
            }),
            stay: stay(),
        })
    }
}

fn millis(us: u32) -> f64 {
    f64::from(us) / 1000.0
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
