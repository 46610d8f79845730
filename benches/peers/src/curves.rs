//! Draws calls a second, p99 and CPU a call against what grows, each on logarithmic scales.

use crate::{
    growth::{Axis, Point},
    load::Round,
};
use std::fmt::Write;

const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const COLORS: [&str; 2] = ["#2a6fb0", "#c8641e"];

type Figure = (&'static str, fn(&Round) -> f64);

const FIGURES: [Figure; 3] = [
    ("calls/s", |round| round.calls_per_second),
    ("p99, us", |round| round.p99_us),
    ("CPU a call, us", |round| round.cpu_us),
];

/// An SVG picture: one row for each axis, one column for each figure.
pub fn svg(points: &[Point]) -> String {
    let (column, row) = (WIDTH + LEFT + 20.0, HEIGHT + TOP + 50.0);
    let (width, height) = (column * FIGURES.len() as f64, row * 2.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (at, axis) in [Axis::CallsInFlight, Axis::Agents].into_iter().enumerate() {
        let points: Vec<_> = points.iter().filter(|point| point.axis == axis).collect();
        if points.is_empty() {
            continue;
        }
        for (column_at, figure) in FIGURES.into_iter().enumerate() {
            let corner = (column * column_at as f64 + LEFT, row * at as f64 + TOP);
            draw(&mut out, corner, axis, figure, &points);
        }
    }
    out + "</svg>\n"
}

/// A logarithmic scale of whole decades.
struct Scale {
    first: f64,
    last: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let first = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let last = values.fold(1.0, f64::max).log10().ceil();
        Self { first, last: last.max(first + 1.0) }
    }

    /// Position from 0 to 1.
    fn at(&self, value: f64) -> f64 {
        (value.log10() - self.first) / (self.last - self.first)
    }

    fn decades(&self) -> impl Iterator<Item = f64> + use<> {
        (self.first as i32..=self.last as i32).map(|exponent| 10f64.powi(exponent))
    }
}

fn draw(out: &mut String, corner: (f64, f64), axis: Axis, figure: Figure, points: &[&Point]) {
    let (left, top) = corner;
    let (name, value_of) = figure;
    let across = Scale::of(points.iter().map(|point| point.count as f64));
    let up = Scale::of(points.iter().map(|point| value_of(&point.median)));
    let x = |count: f64| left + across.at(count) * WIDTH;
    let y = |value: f64| top + HEIGHT - up.at(value) * HEIGHT;
    text(out, left, top - 28.0, &format!("font-weight=\"bold\">{name}, by {}", axis.name()));
    for decade in up.decades() {
        line(out, (left, y(decade)), (left + WIDTH, y(decade)));
        text(out, left - 6.0, y(decade) + 4.0, &format!("text-anchor=\"end\">{decade}"));
    }
    for decade in across.decades() {
        line(out, (x(decade), top), (x(decade), top + HEIGHT));
        let label = format!("text-anchor=\"middle\">{decade}");
        text(out, x(decade), top + HEIGHT + 16.0, &label);
    }
    let mut ways: Vec<_> = points.iter().map(|point| point.way).collect();
    ways.dedup();
    for ((at, way), color) in ways.into_iter().enumerate().zip(COLORS.into_iter().cycle()) {
        let label = format!("fill=\"{color}\">{way}");
        text(out, left + at as f64 * 110.0, top - 10.0, &label);
        let of_way = points.iter().filter(|point| point.way == way);
        let at = of_way.map(|point| (x(point.count as f64), y(value_of(&point.median))));
        let at: Vec<_> = at.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            at.join(" ")
        );
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, rest: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {rest}</text>");
}
