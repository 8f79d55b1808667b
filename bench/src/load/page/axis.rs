//! Axes: where a value lies, and which ticks a reader wants.

/// How values are spaced.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    Linear,
    Logarithmic,
    /// 90 % lies as far from 0 % as 99 % from 90 %.
    Nines,
}

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    title: String,
    scale: Scale,
    low: f64,
    high: f64,
}

/// Ticks in a decade, the sparsest first.
const DECADES: [&[f64]; 3] = [&[1.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0]];
/// Fewer ticks are too few.
const FEW: usize = 4;

impl Axis {
    /// From 0.
    pub fn linear(title: &str, high: f64) -> Self {
        Self { title: title.into(), scale: Scale::Linear, low: 0.0, high: high.max(f64::MIN_POSITIVE) }
    }

    /// Holds all values above 0 with some air, and spans a factor of four at the least.
    pub fn logarithmic(title: &str, values: impl Iterator<Item = f64>) -> Self {
        let span = values.filter(|value| *value > 0.0).fold(None, |span: Option<(f64, f64)>, value| {
            Some(span.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        });
        let (low, high) = span.unwrap_or((1.0, 1.0));
        let (low, high) = (low / 1.15, high * 1.15);
        let air = (4.0 / (high / low)).max(1.0).sqrt();
        Self { title: title.into(), scale: Scale::Logarithmic, low: low / air, high: high * air }
    }

    /// Percentiles as nines, the decimal logarithm of one in how many is beyond: 2 is 99 %.
    pub fn nines(title: &str, high: f64) -> Self {
        Self { title: title.into(), scale: Scale::Nines, low: 0.0, high: high.max(1.0) }
    }

    /// What it shows, with its unit.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The pixel of a value between two pixels; `None` where there is none.
    #[allow(clippy::cast_possible_truncation)]
    pub fn place(&self, value: f64, (from, to): (i32, i32)) -> Option<i32> {
        let scaled = |value: f64| if self.scale == Scale::Logarithmic { value.ln() } else { value };
        let share = (scaled(value) - scaled(self.low)) / (scaled(self.high) - scaled(self.low));
        let pixel = f64::from(from) + share * f64::from(to - from);
        (pixel.is_finite() && (-0.001..=1.001).contains(&share)).then(|| pixel.round() as i32)
    }

    /// Ticks with their labels.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => self.linear_ticks().into_iter().map(|tick| (tick, short(tick))).collect(),
            Scale::Logarithmic => self.decades().into_iter().map(|tick| (tick, short(tick))).collect(),
            Scale::Nines => (0..)
                .map(f64::from)
                .take_while(|nines| *nines <= self.high)
                .map(|nines| (nines, percent(nines)))
                .collect(),
        }
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let rough = self.high / 5.0;
        let decade = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * decade).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= self.high * 1.001).collect()
    }

    fn decades(&self) -> Vec<f64> {
        let first = self.low.log10().floor();
        let decades: Vec<f64> = (0..)
            .map(|n| 10f64.powf(first + f64::from(n)))
            .take_while(|decade| *decade <= self.high)
            .collect();
        let ticks = |times: &[f64]| -> Vec<f64> {
            let all = decades.iter().flat_map(|decade| times.iter().map(move |times| times * decade));
            all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
        };
        let enough = DECADES.iter().map(|times| ticks(times)).find(|ticks| ticks.len() >= FEW);
        enough.unwrap_or_else(|| ticks(DECADES[2]))
    }
}

/// 2 is `99 %`.
fn percent(nines: f64) -> String {
    let decimals = if nines > 2.0 { nines as usize - 2 } else { 0 };
    format!("{:.decimals$} %", 100.0 - 100.0 / 10f64.powf(nines))
}

/// A number as engineers say it: 1500 is 1.5k.
pub fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn every_span_has_ticks_that_a_reader_likes() {
        let log = |values: &[f64]| labels(&Axis::logarithmic("", values.iter().copied()));
        assert_eq!(log(&[30.0, 900_000.0]), ["100", "1k", "10k", "100k", "1M"]);
        assert_eq!(log(&[30.0, 900.0]), ["50", "100", "200", "500", "1k"]);
        assert_eq!(log(&[50.0]), ["25", "30", "40", "50", "60", "80", "100"]);
        assert_eq!(labels(&Axis::linear("", 4300.0)), ["0", "1k", "2k", "3k", "4k"]);
        assert_eq!(labels(&Axis::linear("", 0.7)), ["0", "0.2", "0.4", "0.6"]);
        assert_eq!(labels(&Axis::nines("", 4.2)), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn values_without_a_place_get_none() {
        let axis = Axis::logarithmic("", [10.0, 1000.0].into_iter());
        assert_eq!(axis.place(100.0, (0, 100)), Some(50));
        assert_eq!(axis.place(0.0, (0, 100)), None);
        assert_eq!(axis.place(f64::NAN, (0, 100)), None);
        assert_eq!(axis.place(1e9, (0, 100)), None);
    }

    #[test]
    fn nothing_at_all_still_makes_an_axis() {
        assert!(Axis::logarithmic("", std::iter::empty()).place(1.0, (0, 10)).is_some());
        assert_eq!(Axis::linear("", 0.0).place(0.0, (5, 10)), Some(5));
    }
}
