//! What the quality of a direction is worth to people: the E-model (ITU-T G.107), computed when somebody reads.
//!
//! `R = R0 - Id - Ie,eff`; loudness, echo and noise have their default values, since a relay knows nothing of them.
//! `Id` is the impairment by absolute delay alone (G.107 section 7.4, Idd), `Ie,eff` that by codec and loss (section 7.5).
//! Rating factors of wider bands are brought down to the narrow-band scale before they become a MOS (G.107.1, G.107.2).

use sallyport_plan::{DirectionReport, Medium, Pt, Quality};

/// Milliseconds of speech in a packet, which are spent before it leaves.
const PACKET_MS: f64 = 20.0;
/// Milliseconds that a receiver keeps packets back at the least.
const BUFFER_MS: f64 = 20.0;

/// A speech codec as the E-model sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speech {
    /// Rating factor without any impairment: 93.2 narrow-band (G.107), 129 wide-band (G.107.1), 148 full-band (G.107.2).
    best: f64,
    /// Equipment impairment factor.
    impairment: f64,
    /// Packet-loss robustness factor.
    robustness: f64,
}

impl Speech {
    /// G.711 with packet loss concealment as of its Appendix I: Ie 0, Bpl 25.1 (G.113 Appendix I, table I.4). Without
    /// concealment Bpl would be 4.3; browsers and all but the plainest phones have it.
    pub const G711: Self = Self { best: 93.2, impairment: 0.0, robustness: 25.1 };
    /// G.722 at 64 kbit/s: Ie,wb 13 (G.113 Appendix IV). Its Bpl is taken to be that of G.711 without concealment, 4.3: a
    /// careful guess.
    pub const G722: Self = Self { best: 129.0, impairment: 13.0, robustness: 4.3 };
    /// Opus at about 31 kbit/s, variable rate, super-wide-band: Ie 16.8, Bpl 10.4 under random loss (M. Al-Ahmadi, P. Pocta,
    /// H. Melvin: E-model parameters of Opus, 2021). ITU-T has none of its own.
    pub const OPUS: Self = Self { best: 148.0, impairment: 16.8, robustness: 10.4 };

    /// By its name in SDP (`PCMU/8000`); where there is none, by the payload type: a dynamic one is taken for Opus. `None`
    /// where the model has no figures.
    pub fn of(name: Option<&str>, payload_type: Pt) -> Option<Self> {
        let name = name.map(|name| name.split('/').next().unwrap_or_default().to_ascii_lowercase());
        match (name.as_deref(), payload_type.0) {
            (Some("pcmu" | "pcma"), _) | (None, 0 | 8) => Some(Self::G711),
            (Some("g722"), _) | (None, 9) => Some(Self::G722),
            (Some("opus"), _) | (None, 96..) => Some(Self::OPUS),
            _ => None,
        }
    }
}

/// Percentage of packets missing; 0 before the first.
pub fn loss_percent(report: &DirectionReport) -> f64 {
    let lost = to_f64(u64::try_from(report.lost).unwrap_or(0));
    let expected = lost + to_f64(report.quality.received);
    if expected > 0.0 { 100.0 * lost / expected } else { 0.0 }
}

/// How much longer losses in a row are than they were at random (G.107 section 7.5, BurstR); 1 at the least.
pub fn burst_ratio(quality: &Quality) -> f64 {
    if quality.runs == 0 {
        return 1.0;
    }
    let came = to_f64(quality.received);
    let missed = to_f64(quality.missed);
    let share = missed / (missed + came).max(1.0);
    (missed / f64::from(quality.runs) * (1.0 - share)).max(1.0)
}

/// Milliseconds from mouth to ear: half of both round trips, where they are known, a packet's speech, and twice the jitter kept back.
pub fn delay_ms(report: &DirectionReport, reverse: Option<&DirectionReport>) -> f64 {
    let ways = [Some(report), reverse].into_iter().flatten();
    let trips: f64 = ways.filter_map(|way| way.quality.round_trip_us).map(f64::from).sum();
    let buffer = (f64::from(report.quality.jitter_us) / 500.0).max(BUFFER_MS);
    trips / 2000.0 + PACKET_MS + buffer
}

/// Mean opinion score of a direction, 1 to 4.5 (G.107 Annex B). It judges what arrives at the relay; `reverse`: the direction
/// that runs the other way, `codec`: the name of the codec, where it is known. `None` before the first packet, for pictures, and
/// for codecs without figures.
pub fn mos(report: &DirectionReport, reverse: Option<&DirectionReport>, codec: Option<&str>) -> Option<f64> {
    let payload_type = report.quality.payload_type.filter(|_| report.medium == Medium::Audio)?;
    let speech = Speech::of(codec, payload_type)?;
    let rating =
        rating(&speech, loss_percent(report), burst_ratio(&report.quality), delay_ms(report, reverse));
    Some(opinion(rating))
}

/// Rating factor on the narrow-band scale: loss in percent, BurstR, delay in milliseconds.
fn rating(speech: &Speech, loss: f64, bursts: f64, delay: f64) -> f64 {
    let Speech { best, impairment, robustness } = *speech;
    let worst = 95.0 * best / 93.2;
    let equipment = impairment + (worst - impairment) * loss / (loss / bursts + robustness);
    (best - equipment) * 93.2 / best - delay_impairment(delay)
}

/// Idd of G.107, equation 7-27; none up to 100 ms.
fn delay_impairment(ms: f64) -> f64 {
    if ms <= 100.0 {
        return 0.0;
    }
    let x = (ms / 100.0).log2();
    25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
}

/// G.107 Annex B.
fn opinion(rating: f64) -> f64 {
    match rating {
        r if r <= 0.0 => 1.0,
        r if r >= 100.0 => 4.5,
        r => (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0),
    }
}

/// The `part` of packets (0 to 1) stayed in the relay no longer than this, microseconds: the upper edge of an octave. `None`
/// where none left.
pub fn stay_us(quality: &Quality, part: f64) -> Option<u32> {
    let all: u64 = quality.stays.iter().map(|count| u64::from(*count)).sum();
    let wanted = (to_f64(all) * part).ceil();
    let mut so_far = 0;
    let at = quality.stays.iter().position(|count| {
        so_far += u64::from(*count);
        so_far > 0 && to_f64(so_far) >= wanted
    })?;
    Some(1 << at)
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52, or need no such precision")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use sallyport_plan::{DirectionIndex, Zone};

    fn report(quality: Quality, lost: i64) -> DirectionReport {
        let (packets, octets, drops) = Default::default();
        DirectionReport {
            index: DirectionIndex(0),
            medium: Medium::Audio,
            from: Zone::Inside,
            packets,
            octets,
            lost,
            drops,
            quality,
        }
    }

    fn arrived(received: u64, payload_type: u8) -> Quality {
        Quality { received, payload_type: Some(Pt(payload_type)), ..Quality::default() }
    }

    /// Of G.107 Annex B and the tables that follow from its default values.
    #[test]
    fn ratings_become_opinions_as_the_annex_has_it() {
        for (rating, wanted) in
            [(93.2, 4.41), (90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58), (0.0, 1.0)]
        {
            assert!((opinion(rating) - wanted).abs() < 0.01, "{rating}: {}", opinion(rating));
        }
        assert_eq!((opinion(120.0), opinion(-5.0)), (4.5, 1.0));
    }

    #[test]
    fn delay_costs_beyond_a_tenth_of_a_second() {
        let costs = [50.0, 100.0, 150.0, 200.0, 300.0, 400.0].map(delay_impairment);
        assert_eq!(costs[..2], [0.0, 0.0]);
        // G.107 section 7.4, worked out by hand for 200 ms: X = 1.
        assert!(
            (costs[3] - 25.0 * (2f64.powf(1.0 / 6.0) - 3.0 * (730.0f64 / 729.0).powf(1.0 / 6.0) + 2.0)).abs()
                < 1e-9
        );
        assert!(costs.is_sorted() && costs[5] > 20.0, "{costs:?}");
    }

    #[test]
    fn loss_costs_by_codec_and_more_in_bursts() {
        let lossy = |lost: i64, runs| {
            let quality = Quality { missed: lost as u64, runs, ..arrived(1000, 0) };
            mos(&report(quality, lost), None, Some("PCMU/8000")).unwrap()
        };
        assert!((lossy(0, 0) - 4.41).abs() < 0.01);
        // 2 % at random: 95 * 1.96 / (1.96 + 25.1) = 6.9 of 93.2.
        assert!((lossy(20, 20) - opinion(93.2 - 6.88)).abs() < 0.01, "{}", lossy(20, 20));
        assert!(lossy(20, 4) < lossy(20, 20) && lossy(200, 20) < lossy(200, 200) - 0.5);
        assert!(lossy(200, 200) < 3.1);
        assert!(rating(&Speech::OPUS, 10.0, 1.0, 0.0) < rating(&Speech::G711, 10.0, 1.0, 0.0));
        assert!(rating(&Speech::G722, 0.0, 1.0, 0.0) > 80.0);
    }

    #[test]
    fn codecs_are_known_by_name_or_by_type() {
        assert_eq!(Speech::of(Some("opus/48000/2"), Pt(111)), Some(Speech::OPUS));
        assert_eq!(Speech::of(Some("PCMA/8000"), Pt(8)), Some(Speech::G711));
        assert_eq!(
            (Speech::of(None, Pt(9)), Speech::of(None, Pt(0))),
            (Some(Speech::G722), Some(Speech::G711))
        );
        assert_eq!((Speech::of(Some("G729/8000"), Pt(18)), Speech::of(None, Pt(18))), (None, None));
        assert_eq!(mos(&report(Quality::default(), 0), None, None), None);
        let picture = DirectionReport { medium: Medium::Video, ..report(arrived(9, 97), 0) };
        assert_eq!(mos(&picture, None, Some("opus/48000/2")), None);
    }

    #[test]
    fn both_round_trips_and_the_jitter_are_in_the_delay() {
        let one = report(Quality { round_trip_us: Some(80_000), jitter_us: 30_000, ..arrived(1, 0) }, 0);
        let other = report(Quality { round_trip_us: Some(10_000), ..arrived(1, 0) }, 0);
        assert!((delay_ms(&one, Some(&other)) - (45.0 + 20.0 + 60.0)).abs() < 1e-9);
        assert!((delay_ms(&other, None) - (5.0 + 20.0 + 20.0)).abs() < 1e-9);
    }

    #[test]
    fn stays_are_told_by_the_upper_edge() {
        let mut quality = Quality::default();
        assert_eq!(stay_us(&quality, 0.99), None);
        quality.stays[3] = 98;
        quality.stays[6] = 2;
        assert_eq!([0.5, 0.98, 0.99, 1.0].map(|part| stay_us(&quality, part)), [8, 8, 64, 64].map(Some));
    }
}
