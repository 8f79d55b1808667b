//! Pictures as SVG. Colours are those that style.css knows: it exchanges them for the reader's light or dark ones.

use std::fmt::Debug;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;

/// Words and axes.
const INK: RGBColor = RGBColor(0x10, 0x11, 0x14);
/// Tick labels.
const MUTED: RGBColor = RGBColor(0x60, 0x62, 0x64);
/// Lines of the grid.
const GRID: RGBColor = RGBColor(0xe0, 0xe2, 0xe4);
/// The wire alone.
pub const FLOOR: RGBColor = RGBColor(0x80, 0x82, 0x84);
/// Series in the order in which they appear.
pub const SERIES: [RGBColor; 8] = [
    RGBColor(0x0b, 0x6b, 0xcb),
    RGBColor(0xc2, 0x41, 0x0c),
    RGBColor(0x15, 0x80, 0x3d),
    RGBColor(0x7e, 0x22, 0xce),
    RGBColor(0xa1, 0x62, 0x07),
    RGBColor(0xbe, 0x18, 0x5d),
    RGBColor(0x0e, 0x74, 0x90),
    RGBColor(0x4b, 0x55, 0x63),
];
const FONT: &str = "sans-serif";
const SMALL: i32 = 12;
/// Room left and below a plot for its axes, right and above it for nothing.
const MARGINS: (i32, i32, i32, i32) = (58, 44, 14, 12);
/// Room for the names of bars and for what stands behind them.
const NAMES: i32 = 210;
const LABELS: i32 = 190;
const BAR: i32 = 26;

type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Point = (i32, i32);

/// A line of a chart.
pub struct Series {
    /// The floor's is drawn dashed.
    pub colour: RGBColor,
    /// Points, x ascending.
    pub points: Vec<(f64, f64)>,
    /// Whether points are marked.
    pub marks: bool,
}

/// A bar.
pub struct Bar {
    /// Whose.
    pub name: String,
    /// Parts with their colours, from the left.
    pub parts: Vec<(f64, RGBColor)>,
    /// Lowest and highest run, where there were several.
    pub range: Option<(f64, f64)>,
    /// What stands behind it.
    pub label: String,
}

fn draw(size: (u32, u32), work: impl FnOnce(&Area<'_>) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        work(&area)?;
        area.present().map_err(wrong)?;
    }
    // The picture takes the width that its place has.
    let own = format!("width=\"{}\" height=\"{}\" ", size.0, size.1);
    Ok(svg.replacen(&own, "role=\"img\" ", 1))
}

fn wrong<E: Debug>(error: E) -> anyhow::Error {
    anyhow!("drawing: {error:?}")
}

fn words(
    area: &Area<'_>,
    text: &str,
    at: Point,
    colour: RGBColor,
    anchor: (HPos, VPos),
) -> anyhow::Result<()> {
    let style = (FONT, SMALL).into_font().color(&colour).pos(Pos::new(anchor.0, anchor.1));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(wrong)
}

fn line(area: &Area<'_>, points: Vec<Point>, colour: RGBColor, width: u32) -> anyhow::Result<()> {
    area.draw(&PathElement::new(points, colour.stroke_width(width))).map_err(wrong)
}

/// A chart of lines. Values that an axis has no place for (0 on a logarithmic one) are left out.
///
/// # Errors
/// None that occurs: drawing goes into memory.
pub fn lines(size: (u32, u32), x: &Axis, y: &Axis, series: &[Series]) -> anyhow::Result<String> {
    draw(size, |area| {
        let (width, height) = (size.0.cast_signed(), size.1.cast_signed());
        let (left, below, right, above) = MARGINS;
        let (x_pixels, y_pixels) = ((left, width - right), (height - below, above));
        grid(area, x, y, x_pixels, y_pixels)?;
        for one in series {
            let place =
                |(at, value): &(f64, f64)| Some((x.place(*at, x_pixels)?, y.place(*value, y_pixels)?));
            let points: Vec<Point> = one.points.iter().filter_map(place).collect();
            if one.colour == FLOOR {
                dashed(area, &points)?;
            } else {
                line(area, points.clone(), one.colour, 2)?;
            }
            for point in points.iter().filter(|_| one.marks) {
                area.draw(&Circle::new(*point, 3, one.colour.filled())).map_err(wrong)?;
            }
        }
        Ok(())
    })
}

fn grid(
    area: &Area<'_>,
    x: &Axis,
    y: &Axis,
    (left, right): Point,
    (bottom, top): Point,
) -> anyhow::Result<()> {
    for (value, label) in x.ticks() {
        let Some(at) = x.place(value, (left, right)) else { continue };
        line(area, vec![(at, top), (at, bottom)], GRID, 1)?;
        words(area, &label, (at, bottom + 6), MUTED, (HPos::Center, VPos::Top))?;
    }
    for (value, label) in y.ticks() {
        let Some(at) = y.place(value, (bottom, top)) else { continue };
        line(area, vec![(left, at), (right, at)], GRID, 1)?;
        words(area, &label, (left - 6, at), MUTED, (HPos::Right, VPos::Center))?;
    }
    line(area, vec![(left, bottom), (right, bottom)], MUTED, 1)?;
    words(area, x.title(), (left.midpoint(right), bottom + 26), INK, (HPos::Center, VPos::Top))?;
    let style = (FONT, SMALL).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
    let style = style.transform(FontTransform::Rotate270);
    area.draw(&Text::new(y.title().to_owned(), (2, bottom.midpoint(top)), style)).map_err(wrong)
}

/// A dashed line; a single point becomes a mark.
fn dashed(area: &Area<'_>, points: &[Point]) -> anyhow::Result<()> {
    if let [(x, y)] = points {
        return line(area, vec![(x - 4, *y), (x + 4, *y)], FLOOR, 2);
    }
    let element = DashedPathElement::new(points.to_vec(), 5, 4, FLOOR.stroke_width(2));
    area.draw(&element).map_err(wrong)
}

/// Bars from 0, each on a line of its own, with a reference line where one is given.
///
/// # Errors
/// None that occurs.
pub fn bars(width: u32, bars: &[Bar]) -> anyhow::Result<String> {
    let rows = i32::try_from(bars.len()).unwrap_or(i32::MAX);
    let size = (width, (rows * BAR + 6).cast_unsigned());
    let total = |bar: &Bar| bar.parts.iter().map(|part| part.0).sum::<f64>();
    let longest = |bar: &Bar| bar.range.map_or(0.0, |range| range.1).max(total(bar));
    let most = bars.iter().map(longest).fold(f64::MIN_POSITIVE, f64::max);
    let (begin, end) = (NAMES, width.cast_signed() - LABELS);
    let axis = Axis::linear("", most);
    draw(size, |area| {
        for (bar, row) in bars.iter().zip(0..) {
            let (top, bottom) = (row * BAR + 5, (row + 1) * BAR - 4);
            let middle = top.midpoint(bottom);
            words(area, &bar.name, (begin - 10, middle), INK, (HPos::Right, VPos::Center))?;
            let (mut from, mut sum) = (begin, 0.0);
            for (part, colour) in &bar.parts {
                sum += part;
                let to = axis.place(sum, (begin, end)).unwrap_or(from);
                area.draw(&Rectangle::new([(from, top), (to, bottom)], colour.filled())).map_err(wrong)?;
                from = to;
            }
            let mut reach = from;
            if let Some((low, high)) = bar.range {
                let place = |value| axis.place(value, (begin, end)).unwrap_or(begin);
                line(area, vec![(place(low), middle), (place(high), middle)], INK, 1)?;
                for at in [place(low), place(high)] {
                    line(area, vec![(at, middle - 4), (at, middle + 4)], INK, 1)?;
                }
                reach = reach.max(place(high));
            }
            words(area, &bar.label, (reach + 8, middle), INK, (HPos::Left, VPos::Center))?;
        }
        line(area, vec![(begin, 2), (begin, rows * BAR + 2)], MUTED, 1)
    })
}
