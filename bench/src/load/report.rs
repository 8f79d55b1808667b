//! What came of a load, as it was measured.

use hdrhistogram::Histogram;

use super::drive::{Load, Outcome};
use super::results::{Capacity, Percentiles, Point, Residence, Way, bins, us};

/// One target at one number of calls.
pub struct Measured {
    name: String,
    calls: usize,
    load: Load,
    cost: Cost,
    capture: Option<Residence>,
    residence: Option<Residence>,
}

/// What a target cost, as far as it can be known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// CPU microseconds for each packet that arrived.
    pub cpu_us_per_packet: Option<f64>,
    /// Resident memory that a call adds, KiB.
    pub kib_per_call: Option<f64>,
    /// Calls set up in a second.
    pub setup_calls_per_second: Option<f64>,
}

impl Measured {
    /// A load and what it cost.
    pub fn new(name: String, calls: usize, load: Load, cost: Cost) -> Self {
        Self { name, calls, load, cost, capture: None, residence: None }
    }

    /// What came of the load.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Adds times between captures on both sides.
    #[must_use]
    pub fn with_capture(mut self, capture: Residence) -> Self {
        self.capture = Some(capture);
        self
    }

    /// Adds times inside the box as the relay says.
    #[must_use]
    pub fn with_residence(mut self, residence: Option<Residence>) -> Self {
        self.residence = residence;
        self
    }

    /// Both directions together.
    fn latency(&self) -> Histogram<u64> {
        let mut both = self.load.inward.latency.clone();
        // The same bounds: it fits.
        let _ = both.add(&self.load.outward.latency);
        both
    }

    /// As it is stored.
    pub fn point(&self) -> Point {
        let way = |outcome: &Outcome| Way {
            sent: outcome.sent,
            lost: outcome.lost(),
            broken: outcome.broken,
            us: Percentiles::of(&outcome.latency),
            histogram_us: bins(&outcome.latency),
        };
        Point {
            name: self.name.clone(),
            calls: self.calls,
            inward: way(&self.load.inward),
            outward: way(&self.load.outward),
            both: Percentiles::of(&self.latency()),
            unsent: self.load.unsent,
            generator_late_us_p99: us(&self.load.lateness, 99.0),
            cpu_us_per_packet: self.cost.cpu_us_per_packet,
            kib_per_call: self.cost.kib_per_call,
            setup_calls_per_second: self.cost.setup_calls_per_second,
            capture: self.capture.clone(),
            residence: self.residence.clone(),
        }
    }
}

/// What a target carries at the most, and what it does at half of that.
pub struct Limit {
    /// Calls without loss.
    pub calls: usize,
    /// At that; `None` where it carries none.
    pub most: Option<Measured>,
    /// At half of that.
    pub half: Measured,
}

impl Limit {
    /// As it is stored, with what was measured at other loads.
    pub fn capacity(&self, sweep: Vec<Point>) -> Capacity {
        Capacity {
            name: self.half.name.clone(),
            calls: self.calls,
            at_half: self.half.point(),
            at_most: self.most.as_ref().map(Measured::point),
            sweep,
        }
    }
}
