//! How many calls a target carries without loss.

use std::time::Duration;

use super::CALLS_MAX;
use super::drive::{End, Generator, Load};
use super::report::{Limit, Measured};
use super::target::Target;

/// Share of packets that may be lost.
const LOSS: f64 = 1e-4;
/// Where the search begins.
const FIRST: usize = 100;
/// Tries of a step: the machine's own hiccups are no fault of the target.
const TRIES: usize = 3;
/// The generator was late by more than this for one packet in a hundred: it is what is at its limit.
const LATE_NS: u64 = 5_000_000;

/// Doubles until packets are lost, halves the gap until it is a twentieth, then measures at half of what was carried.
///
/// # Errors
/// What the target or the generator says.
pub fn search(
    generator: &mut Generator,
    target: &mut dyn Target,
    duration: Duration,
) -> anyhow::Result<Limit> {
    let idle = target.cost();
    let mut ends: Vec<End> = Vec::new();
    let (mut good, mut bad) = (0, CALLS_MAX + 1);
    let mut most = None;
    let mut calls = FIRST;
    while calls > good && calls < bad && calls <= CALLS_MAX {
        match attempt(generator, target, &mut ends, calls, duration)? {
            Some(load) => {
                good = calls;
                most = Some(load);
            }
            None => bad = calls,
        }
        calls = if bad > CALLS_MAX { good * 2 } else { good.midpoint(bad) };
        if bad <= CALLS_MAX && (bad - good) * 20 <= bad {
            break;
        }
    }
    let half = (good / 2).max(1);
    target.extend(&mut ends, half)?;
    generator.expect(&ends)?;
    let before = target.cost();
    let load = generator.run(&mut ends[..half], duration)?;
    let after = target.cost();
    let installed = ends.len();
    let memory = before.zip(idle).map(|((_, now), (_, then))| now.saturating_sub(then));
    let half = Measured::new(target.name(), half, load, [None, before, after]);
    Ok(Limit {
        name: target.name(),
        calls: good,
        most,
        half,
        kib_per_call: memory.map(|kib| per(kib, installed)),
    })
}

#[allow(clippy::cast_precision_loss)]
fn per(kib: u64, calls: usize) -> f64 {
    kib as f64 / calls.max(1) as f64
}

/// What the load was where it passed in one of the tries.
fn attempt(
    generator: &mut Generator,
    target: &mut dyn Target,
    ends: &mut Vec<End>,
    calls: usize,
    duration: Duration,
) -> anyhow::Result<Option<Load>> {
    target.extend(ends, calls)?;
    generator.expect(ends)?;
    for _ in 0..TRIES {
        let load = generator.run(&mut ends[..calls], duration)?;
        let late =
            if load.lateness.value_at_quantile(0.99) > LATE_NS { ", the generator was late" } else { "" };
        let (lost, unsent) = (load.loss(), load.shortfall());
        eprintln!("  {calls} calls: {:.3} % lost, {:.3} % not sent{late}", lost * 100.0, unsent * 100.0);
        if lost < LOSS && unsent < LOSS {
            return Ok(Some(load));
        }
    }
    Ok(None)
}
