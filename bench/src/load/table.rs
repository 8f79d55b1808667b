//! Figures as tables.

use super::results::{Capacity, Percentiles, Point, Residence, Results};

/// Prints the floor alone, before anything else is measured.
pub fn print_floor(points: &[Point]) {
    println!("floor: the wire alone, by the kernel's own forwarding between veth pairs; one way, us");
    head();
    for point in points {
        print_point(point);
    }
    println!();
}

/// Prints rows of one load, what each adds to the floor, and what it costs.
pub fn print_rows(results: &Results) {
    println!("one way, us");
    head();
    for point in &results.rows {
        print_point(point);
    }
    for point in &results.rows {
        let floor = results.floor.iter().find(|floor| floor.calls == point.calls);
        if let Some(floor) = floor {
            let added =
                |percentile: fn(&Percentiles) -> f64| percentile(&point.both) - percentile(&floor.both);
            println!(
                "{}: adds p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us",
                point.name,
                added(|of| of.p50),
                added(|of| of.p99),
                added(|of| of.p99_9)
            );
        }
        println!(
            "{}: {} us/pkt, {} KiB/call, {} calls set up a second",
            point.name,
            number(point.cpu_us_per_packet, 2),
            number(point.kib_per_call, 1),
            number(point.setup_calls_per_second, 0)
        );
    }
    for point in results.floor.iter().chain(&results.rows) {
        print_residence(point);
    }
    print_foot(results);
}

/// Prints all capacities, each beside the first.
#[allow(clippy::cast_precision_loss)]
pub fn print_limits(results: &Results) {
    println!(
        "{:<26} {:>7} {:>6} | at half: {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>8} {:>8}",
        "most calls without loss",
        "calls",
        "times",
        "p50 us",
        "p90 us",
        "p99 us",
        "p99.9 us",
        "max us",
        "lost",
        "us/pkt",
        "KiB/call",
        "setup/s"
    );
    let first = results.limits.first().map_or(0, |limit| limit.calls);
    for limit in &results.limits {
        let Capacity { at_half: half, calls, .. } = limit;
        println!(
            "{:<26} {:>7} {:>6.2} |          {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8} {:>7} {:>8} {:>8}",
            limit.name,
            calls,
            *calls as f64 / first.max(1) as f64,
            half.both.p50,
            half.both.p90,
            half.both.p99,
            half.both.p99_9,
            half.both.max,
            half.inward.lost + half.outward.lost,
            number(half.cpu_us_per_packet, 2),
            number(half.kib_per_call, 1),
            number(half.setup_calls_per_second, 0),
        );
    }
    println!("times: beside the first row");
    if results.limits.iter().any(|limit| !limit.sweep.is_empty()) {
        println!("\nby load, both ways together, us");
        head();
        for point in results.limits.iter().flat_map(Capacity::points) {
            print_both(point);
        }
    }
    print_foot(results);
}

fn head() {
    println!(
        "{:<26} {:>6} {:>4} {:>9} {:>7} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "calls", "way", "sent", "lost", "broken", "p50", "p90", "p99", "p99.9", "p99.99", "max"
    );
}

fn print_point(point: &Point) {
    for (name, way) in [("in", &point.inward), ("out", &point.outward)] {
        line(point, name, [way.sent, way.lost, way.broken], &way.us);
    }
}

fn print_both(point: &Point) {
    let (one, other) = (&point.inward, &point.outward);
    let counts = [one.sent + other.sent, one.lost + other.lost, one.broken + other.broken];
    line(point, "both", counts, &point.both);
}

fn line(point: &Point, way: &str, [sent, lost, broken]: [u64; 3], us: &Percentiles) {
    print!("{:<26} {:>6} {way:>4} {sent:>9} {lost:>7} {broken:>6}", point.name, point.calls);
    for (_, value) in us.named() {
        print!(" {value:>9.1}");
    }
    println!();
}

fn print_residence(point: &Point) {
    let both = [("between captures", &point.capture), ("by the relay itself", &point.residence)];
    for (by, residence) in both {
        let Some(Residence { inward, outward }) = residence else { continue };
        for (way, stay) in [("in", inward), ("out", outward)] {
            println!(
                "{}: inside the box {by}, {way}: {} packets, p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us",
                point.name, stay.packets, stay.us.p50, stay.us.p99, stay.us.p99_9
            );
        }
    }
}

fn print_foot(results: &Results) {
    if !results.stages.is_empty() {
        let total = |way: &str| {
            let stages = results.stages.iter().filter(|stage| stage.way == way);
            stages.map(|stage| format!("{} {:.0}", stage.name, stage.ns)).collect::<Vec<_>>().join(", ")
        };
        println!("ns a packet by stage, in process: in: {}; out: {}", total("inward"), total("outward"));
    }
    println!("us/pkt: CPU microseconds a packet of the target, which is CPU seconds per million packets");
    println!(
        "{} ({}): {}; {} x {}, kernel {}, revision {}, {}",
        results.fact("link"),
        results.fact("driver"),
        results.fact("caveat"),
        results.fact("cpus"),
        results.fact("cpu"),
        results.fact("kernel"),
        results.fact("revision"),
        results.fact("date")
    );
}

/// A figure, or a dash where nobody knows.
pub fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.decimals$}"))
}
