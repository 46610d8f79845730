//! Draws the calls a second of each way as bars, one group for each load.

use crate::compare::Table;
use std::fmt::Write;

const LABEL: usize = 190;
const BAR_MAX: f64 = 420.0;
const LINE: usize = 18;

/// An SVG picture. Within a group, lengths are relative to the fastest way.
pub fn svg(tables: &[Table]) -> String {
    let lines: usize = tables.iter().map(|table| table.rows.len() + 2).sum();
    let (width, height) = (LABEL + BAR_MAX as usize + 110, lines * LINE + LINE);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut y = LINE;
    for table in tables {
        let title = format!("{} B, {} in flight, calls/s", table.bytes, table.in_flight);
        line(&mut out, 8, y, &format!("font-weight=\"bold\">{title}"));
        let rates = table.rows.iter().map(|row| row.median.calls_per_second);
        let fastest = rates.fold(1.0, f64::max);
        for row in &table.rows {
            y += LINE;
            let rate = row.median.calls_per_second;
            let length = rate / fastest * BAR_MAX;
            let color = if row.way.starts_with("dialback") { "#2a6fb0" } else { "#b0b0b0" };
            line(&mut out, 8, y, &format!(">{}", row.way));
            let top = y - 11;
            let _ = writeln!(
                out,
                "<rect x=\"{LABEL}\" y=\"{top}\" width=\"{length:.1}\" height=\"13\" fill=\"{color}\"/>"
            );
            line(&mut out, LABEL + length as usize + 6, y, &format!(">{rate:.0}"));
        }
        y += 2 * LINE;
    }
    out + "</svg>\n"
}

fn line(out: &mut String, x: usize, y: usize, rest: &str) {
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" {rest}</text>");
}
