//! Times inside the box as the relay itself reports them: counters named after the lower edge of their bucket.

use hdrhistogram::Histogram;
use sallyport_plan::Status;

use super::results::{Percentiles, Residence, Stay};

/// Buckets of an octave of the relay's histogram.
const OCTAVE: u64 = 16;

/// What the relay says of both ways; `None` where it was not asked to measure, or forwarded nothing.
pub fn of(status: &Status) -> anyhow::Result<Option<Residence>> {
    let (inward, outward) = (stay(status, "residence_inward_ns_")?, stay(status, "residence_outward_ns_")?);
    Ok((inward.packets + outward.packets > 0).then_some(Residence { inward, outward }))
}

fn stay(status: &Status, prefix: &str) -> anyhow::Result<Stay> {
    let mut times: Histogram<u64> = Histogram::new_with_bounds(1, 100_000_000_000, 3)?;
    for counter in &status.counters {
        let edge = counter.name.strip_prefix(prefix).and_then(|edge| edge.parse::<u64>().ok());
        if let Some(edge) = edge {
            // The middle of the bucket.
            let width = (edge.max(1).ilog2().saturating_sub(OCTAVE.ilog2())).min(63);
            times.saturating_record_n((edge + (1 << width) / 2).max(1), counter.value);
        }
    }
    Ok(Stay { packets: times.len(), us: Percentiles::of(&times) })
}

#[cfg(test)]
mod tests {
    use sallyport_plan::Counter;

    use super::*;

    fn status(counters: &[(&str, u64)]) -> Status {
        let counters =
            counters.iter().map(|(name, value)| Counter { name: (*name).into(), value: *value }).collect();
        Status {
            interfaces: vec![],
            srtp: String::new(),
            workers: 1,
            calls: 0,
            directions: 0,
            flows: 0,
            ports: 0,
            frames: (0, 0),
            counters,
        }
    }

    #[test]
    fn buckets_become_percentiles_by_way() {
        let status = status(&[
            ("received", 7),
            ("residence_inward_ns_1024", 98),
            ("residence_inward_ns_65536", 2),
            ("residence_outward_ns_8", 1),
        ]);
        let Residence { inward, outward } = of(&status).unwrap().unwrap();
        assert_eq!((inward.packets, outward.packets), (100, 1));
        assert!((1.024..1.088).contains(&inward.us.p50), "{}", inward.us.p50);
        assert!((65.5..69.7).contains(&inward.us.p99), "{}", inward.us.p99);
    }

    #[test]
    fn a_relay_that_does_not_measure_says_nothing() {
        assert!(of(&status(&[("received", 7)])).unwrap().is_none());
    }
}
