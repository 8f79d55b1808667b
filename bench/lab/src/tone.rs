//! Tones: made, and recognised in a recording.
//!
//! Each side of a call plays a tone of its own. A recording passes only where the far side's tone is nearly all that is
//! heard, without gaps, and our own tone is not: swapped, silent, noisy, torn and clipped recordings fail.

use std::f64::consts::TAU;
use std::fmt;

use crate::wav::Wav;

/// Tone that browsers play, Hz.
pub const BROWSER: u32 = 440;
/// Tone that agents play, Hz.
pub const AGENT: u32 = 1000;

/// Length of a window in seconds. Two windows overlap by half.
const WINDOW: f64 = 0.040;
/// A window below this RMS is silent (-50 dB below full scale).
const SILENT: f64 = 0.003;
/// Share of a window's energy from which on the tone is there.
const THERE: f64 = 0.85;
/// Least share of the energy between the tone's begin and end.
const SHARE: f64 = 0.9;
/// Most that the other tone may have of the recording's energy.
const OTHER: f64 = 0.02;
/// Least share of windows with the tone between its begin and end.
const COVERAGE: f64 = 0.95;
/// Longest gap, seconds.
const GAP: f64 = 0.2;
/// Length of a window that looks for gaps, and how far it moves on, seconds.
const NARROW: f64 = 0.020;
const STEP: f64 = 0.005;
/// How much of a gap two windows that still hear the tone may cover together, seconds.
const COVERED: f64 = 0.008;
/// Most samples at full scale.
const CLIPPED: f64 = 0.01;

/// A sine of `hz` at a quarter of full scale; made of whole cycles where `seconds` is whole, so that it loops.
pub fn sine(hz: u32, rate: u32, seconds: u32) -> Wav {
    let step = TAU * f64::from(hz) / f64::from(rate);
    let sample = |at: u32| (f64::from(i16::MAX) * 0.25 * (step * f64::from(at)).sin()).round() as i16;
    Wav { rate, samples: (0..rate * seconds).map(sample).collect() }
}

/// What a recording should hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// The far side's tone, Hz.
    pub tone: u32,
    /// Our own tone, Hz.
    pub other: u32,
    /// For how long at least, seconds.
    pub seconds: f64,
}

/// What a recording holds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Heard {
    /// From the first to the last window with the tone.
    pub seconds: f64,
    /// Share of the tone in the energy of that span.
    pub share: f64,
    /// Share of the other tone in the energy of the whole recording.
    pub other: f64,
    /// Share of windows with the tone in that span.
    pub coverage: f64,
    /// Longest run of windows without the tone in that span, seconds.
    pub gap: f64,
    /// Share of samples at full scale.
    pub clipped: f64,
}

/// Why a recording fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The tone is nowhere.
    Missing,
    /// The other tone is heard.
    Swapped,
    /// The tone ends too early or begins too late.
    Short,
    /// Something else sounds with it.
    Noisy,
    /// It is interrupted.
    Torn,
    /// It is beyond full scale.
    Clipped,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the tone is missing",
            Self::Swapped => "the wrong tone is heard",
            Self::Short => "the tone is too short",
            Self::Noisy => "the tone is noisy",
            Self::Torn => "the tone is interrupted",
            Self::Clipped => "the tone is clipped",
        })
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (share, gap) = (self.share * 100.0, self.gap * 1000.0);
        write!(f, "{:.1} s, {share:.1} % of the energy, longest gap {gap:.0} ms", self.seconds)
    }
}

/// One window of a recording.
#[derive(Clone, Copy)]
struct Window {
    energy: f64,
    tone: f64,
    other: f64,
    there: bool,
}

/// Measures a recording.
pub fn listen(wav: &Wav, expected: Expected) -> Heard {
    let windows = windows(wav, expected);
    let hop = WINDOW / 2.0;
    let first = windows.iter().position(|window| window.there);
    let last = windows.iter().rposition(|window| window.there);
    let span = first.zip(last).and_then(|(first, last)| windows.get(first..=last)).unwrap_or_default();
    let energy = |windows: &[Window]| windows.iter().map(|window| window.energy).sum::<f64>();
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let there = span.iter().filter(|window| window.there).count();
    let gap = span.split(|window| window.there).map(<[Window]>::len).max().unwrap_or(0);
    let full = wav.samples.iter().filter(|sample| sample.unsigned_abs() >= 32_700).count();
    Heard {
        seconds: if span.is_empty() { 0.0 } else { (span.len() + 1) as f64 * hop },
        share: share(span.iter().map(|window| window.tone).sum(), energy(span)),
        other: share(windows.iter().map(|window| window.other).sum(), energy(&windows)),
        coverage: share(there as f64, span.len() as f64),
        gap: gap as f64 * hop,
        clipped: share(full as f64, wav.samples.len() as f64),
    }
}

/// A time without the tone.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Gap {
    /// Where it begins, seconds.
    pub at: f64,
    /// How long it is, seconds: exact to a hundredth.
    pub seconds: f64,
}

/// Where a tone is missing between its first and last sound, for longer than `least` seconds.
pub fn gaps(wav: &Wav, tone: u32, least: f64) -> Vec<Gap> {
    let expected = Expected { tone, other: tone, seconds: 0.0 };
    let there: Vec<usize> = windows_of(wav, expected, NARROW, STEP)
        .iter()
        .enumerate()
        .filter_map(|(at, window)| window.there.then_some(at))
        .collect();
    let step = (f64::from(wav.rate) * STEP).floor() / f64::from(wav.rate.max(1));
    let between = there.windows(2).filter_map(|pair| {
        let (end, begin) =
            (pair.first().copied()? as f64 * step + NARROW, pair.last().copied()? as f64 * step);
        Some(Gap { at: end, seconds: begin - end + COVERED })
    });
    between.filter(|gap| gap.seconds > least).collect()
}

impl Heard {
    /// Whether that is what was expected.
    ///
    /// # Errors
    /// The first fault found.
    pub fn judge(&self, expected: Expected) -> Result<(), Fault> {
        let faults = [
            (self.other > OTHER, Fault::Swapped),
            (self.seconds == 0.0, Fault::Missing),
            (self.clipped > CLIPPED, Fault::Clipped),
            (self.coverage < COVERAGE || self.gap > GAP, Fault::Torn),
            (self.share < SHARE, Fault::Noisy),
            (self.seconds < expected.seconds, Fault::Short),
        ];
        faults.into_iter().find(|(found, _)| *found).map_or(Ok(()), |(_, fault)| Err(fault))
    }
}

fn windows(wav: &Wav, expected: Expected) -> Vec<Window> {
    windows_of(wav, expected, WINDOW, WINDOW / 2.0)
}

fn windows_of(wav: &Wav, expected: Expected, window: f64, hop: f64) -> Vec<Window> {
    let rate = f64::from(wav.rate);
    let length = (rate * window) as usize;
    let hop = ((rate * hop) as usize).max(1);
    let hann: Vec<f64> = (0..length).map(|at| 0.5 - 0.5 * (TAU * at as f64 / length as f64).cos()).collect();
    let (tone, other) =
        (Goertzel::new(expected.tone, rate, &hann), Goertzel::new(expected.other, rate, &hann));
    let mut shaped = vec![0.0; length];
    let mut windows = Vec::new();
    let mut at = 0;
    while let Some(samples) = wav.samples.get(at..at + length).filter(|_| length > 0) {
        for ((shaped, sample), weight) in shaped.iter_mut().zip(samples).zip(&hann) {
            *shaped = f64::from(*sample) / 32_768.0 * weight;
        }
        let energy: f64 = shaped.iter().map(|value| value * value).sum();
        let tone = tone.energy(&shaped);
        let loud = (energy / hann.iter().map(|weight| weight * weight).sum::<f64>()).sqrt() > SILENT;
        let there = loud && tone >= THERE * energy;
        windows.push(Window { energy, tone, other: other.energy(&shaped), there });
        at += hop;
    }
    windows
}

/// Energy at one frequency (Goertzel's algorithm), scaled so that a pure sine has all of its window's.
struct Goertzel {
    coefficient: f64,
    scale: f64,
}

impl Goertzel {
    fn new(hz: u32, rate: f64, window: &[f64]) -> Self {
        let (sum, squares) = window.iter().fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
        Self { coefficient: 2.0 * (TAU * f64::from(hz) / rate).cos(), scale: 2.0 * squares / (sum * sum) }
    }

    fn energy(&self, samples: &[f64]) -> f64 {
        let (last, before) = samples
            .iter()
            .fold((0.0, 0.0), |(last, before), sample| (sample + self.coefficient * last - before, last));
        let power = last * last + before * before - self.coefficient * last * before;
        power * self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected { tone: BROWSER, other: AGENT, seconds: 4.0 };

    fn judge(wav: &Wav) -> Result<(), Fault> {
        listen(wav, EXPECTED).judge(EXPECTED)
    }

    fn noise(length: usize, level: f64) -> Vec<f64> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..length).map(|_| next() * level * 32_767.0).collect()
    }

    fn plus(wav: &Wav, added: &[f64]) -> Wav {
        let samples = wav.samples.iter().zip(added).map(|(a, b)| (f64::from(*a) + b) as i16).collect();
        Wav { rate: wav.rate, samples }
    }

    /// Zeroes packets of 20 ms that `lost` names.
    fn torn(wav: &Wav, lost: impl Fn(usize) -> bool) -> Wav {
        let packet = wav.rate as usize / 50;
        let sample = |(at, sample): (usize, &i16)| if lost(at / packet) { 0 } else { *sample };
        Wav { rate: wav.rate, samples: wav.samples.iter().enumerate().map(sample).collect() }
    }

    #[test]
    fn the_right_tone_passes_at_every_rate() {
        for rate in [8000, 16_000, 44_100, 48_000] {
            let heard = listen(&sine(BROWSER, rate, 5), EXPECTED);
            assert_eq!(heard.judge(EXPECTED), Ok(()), "{rate}: {heard:?}");
            assert!(heard.share > 0.999 && heard.other < 1e-3 && heard.gap == 0.0, "{rate}: {heard:?}");
            assert!((heard.seconds - 5.0).abs() < 0.05, "{rate}: {heard:?}");
        }
    }

    #[test]
    fn silence_around_it_and_the_noise_of_g711_are_no_fault() {
        let mut wav = sine(BROWSER, 8000, 5);
        wav.samples = [vec![0; 16_000], wav.samples, vec![3; 8000]].concat();
        let length = wav.samples.len();
        assert_eq!(judge(&plus(&wav, &noise(length, 0.004))), Ok(()));
    }

    #[test]
    fn one_lost_packet_in_a_hundred_is_no_fault() {
        assert_eq!(judge(&torn(&sine(BROWSER, 8000, 5), |packet| packet % 100 == 50)), Ok(()));
    }

    #[test]
    fn the_other_tone_fails() {
        assert_eq!(judge(&sine(AGENT, 8000, 5)), Err(Fault::Swapped));
    }

    #[test]
    fn both_tones_fail() {
        let other: Vec<f64> = sine(AGENT, 8000, 5).samples.into_iter().map(f64::from).collect();
        assert_eq!(judge(&plus(&sine(BROWSER, 8000, 5), &other)), Err(Fault::Swapped));
    }

    #[test]
    fn silence_and_nothing_fail() {
        assert_eq!(judge(&Wav { rate: 8000, samples: vec![0; 40_000] }), Err(Fault::Missing));
        assert_eq!(judge(&Wav { rate: 8000, samples: Vec::new() }), Err(Fault::Missing));
        assert_eq!(judge(&Wav { rate: 8000, samples: vec![2; 40_000] }), Err(Fault::Missing));
    }

    #[test]
    fn white_noise_fails() {
        let silence = Wav { rate: 8000, samples: vec![0; 40_000] };
        assert!(judge(&plus(&silence, &noise(40_000, 0.5))).is_err());
    }

    #[test]
    fn a_noisy_tone_fails() {
        let wav = sine(BROWSER, 8000, 5);
        // The tone's RMS is 0.177; uniform noise of 0.3 has 0.173.
        assert!(judge(&plus(&wav, &noise(40_000, 0.3))).is_err());
        assert!(judge(&plus(&wav, &noise(40_000, 0.12))).is_err());
    }

    #[test]
    fn a_tone_of_another_pitch_fails() {
        for hz in [390, 425, 455, 490, 880] {
            assert!(judge(&sine(hz, 8000, 5)).is_err(), "{hz}");
        }
    }

    #[test]
    fn half_of_it_lost_fails() {
        let wav = sine(BROWSER, 8000, 6);
        assert!(judge(&torn(&wav, |packet| packet % 2 == 0)).is_err());
        assert_eq!(judge(&torn(&wav, |packet| packet % 4 == 0)), Err(Fault::Torn));
        assert_eq!(judge(&torn(&wav, |packet| packet >= 150)), Err(Fault::Short));
        assert_eq!(judge(&torn(&wav, |packet| packet < 150)), Err(Fault::Short));
        assert_eq!(judge(&torn(&wav, |packet| (100..115).contains(&packet))), Err(Fault::Torn));
    }

    #[test]
    fn gaps_are_found_and_measured() {
        for rate in [8000, 16_000] {
            let mut wav = sine(AGENT, rate, 4);
            // 2 s and 65 ms of silence, and 55 ms; then the phase jumps, which is no gap.
            for (begin, length) in [(1.0, 2.0), (3.2, 0.065), (3.4, 0.055)] {
                let at = |seconds: f64| (seconds * f64::from(rate)) as usize;
                wav.samples[at(begin)..at(begin + length)].fill(0);
            }
            wav.samples.drain(rate as usize * 36 / 10..rate as usize * 36 / 10 + rate as usize / 2000);
            let found = gaps(&wav, AGENT, 0.06);
            assert_eq!(found.len(), 2, "{found:?}");
            assert!((found[0].at - 1.0).abs() < 0.02 && (found[0].seconds - 2.0).abs() < 0.012, "{found:?}");
            assert!((found[1].seconds - 0.065).abs() < 0.012, "{found:?}");
            assert_eq!(gaps(&wav, BROWSER, 0.06), []);
        }
    }

    #[test]
    fn a_clipped_tone_fails() {
        let wav = sine(BROWSER, 8000, 5);
        let loud = |sample: &i16| sample.saturating_mul(16);
        assert_eq!(
            judge(&Wav { rate: 8000, samples: wav.samples.iter().map(loud).collect() }),
            Err(Fault::Clipped)
        );
    }
}
