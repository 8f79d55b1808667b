//! How many calls a target carries without loss.

use std::time::Duration;

use super::drive::Generator;
use super::report::{Limit, Measured};
use super::target::Target;
use super::{CALLS_MAX, measure};

/// Share of packets that may be lost.
const LOSS: f64 = 1e-4;
/// Where the search begins.
const FIRST: usize = 100;
/// Tries of a step: the machine's own hiccups are no fault of the target.
const TRIES: usize = 3;
/// The generator was late by more than a packet's interval for one in a hundred: what it offered was less than was asked
/// for, and what came of that proves nothing.
const LATE_NS: u64 = 20_000_000;

/// Doubles until packets are lost, halves the gap until it is a twentieth, then measures at half of what was carried. Each
/// step meets a fresh target: what overload did to the one before is not held against it.
///
/// # Errors
/// What the target or the generator says.
pub fn search(
    generator: &mut Generator,
    fresh: &mut dyn FnMut() -> anyhow::Result<Box<dyn Target>>,
    duration: Duration,
) -> anyhow::Result<Limit> {
    let (mut good, mut bad) = (0, CALLS_MAX + 1);
    let mut most = None;
    let mut calls = FIRST;
    while calls > good && calls < bad && calls <= CALLS_MAX {
        match attempt(generator, fresh, calls, duration)? {
            Some(measured) => {
                good = calls;
                most = Some(measured);
            }
            None => bad = calls,
        }
        calls = if bad > CALLS_MAX { (good * 2).min(CALLS_MAX) } else { good.midpoint(bad) };
        if bad <= CALLS_MAX && (bad - good) * 20 <= bad {
            break;
        }
    }
    let half = measure(generator, fresh()?.as_mut(), (good / 2).max(1), duration)?;
    Ok(Limit { calls: good, most, half })
}

/// Whether next to nothing was lost, and the generator kept its schedule.
pub fn passes(measured: &Measured) -> bool {
    let load = measured.load();
    let late = load.lateness.value_at_quantile(0.99) > LATE_NS;
    load.loss() < LOSS && load.shortfall() < LOSS && !late
}

/// What the load was where it passed in one of the tries.
fn attempt(
    generator: &mut Generator,
    fresh: &mut dyn FnMut() -> anyhow::Result<Box<dyn Target>>,
    calls: usize,
    duration: Duration,
) -> anyhow::Result<Option<Measured>> {
    for _ in 0..TRIES {
        let measured = match measure(generator, fresh()?.as_mut(), calls, duration) {
            Ok(measured) => measured,
            Err(error) => {
                eprintln!("  {calls} calls: {error:#}");
                return Ok(None);
            }
        };
        let load = measured.load();
        let late = load.lateness.value_at_quantile(0.99) > LATE_NS;
        let note = if late { ", but the generator was late" } else { "" };
        let (lost, unsent) = (load.loss(), load.shortfall());
        eprintln!("  {calls} calls: {:.3} % lost, {:.3} % not sent{note}", lost * 100.0, unsent * 100.0);
        if passes(&measured) {
            return Ok(Some(measured));
        }
    }
    Ok(None)
}
