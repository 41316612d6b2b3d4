//! The plot: a bar for each row that has a goal, as long as it got on the way there. Greys and blues that can be read
//! on light and on dark.

use std::fmt::Write;

use crate::table::Row;

const LINE: usize = 22;
const LABELS: usize = 520;
/// Pixels from nothing to the goal.
const GOAL: f64 = 180.0;
/// Longer bars are cut, in goals.
const MOST: f64 = 2.0;

/// An SVG of all rows.
pub fn svg(rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().filter_map(|row| Some((row, row.score()?))).collect();
    let (width, height) = (LABELS + 500, (rows.len() + 2) * LINE);
    let goal = LABELS as f64 + GOAL;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"#808890\">\n<title>How far sha-api got towards its goals</title>\n"
    );
    let _ = writeln!(svg, "<text x=\"{goal}\" y=\"16\" text-anchor=\"middle\">goal</text>");
    for (number, (row, score)) in rows.iter().enumerate() {
        let top = (number + 1) * LINE;
        let (base, length) = (top + 15, score.min(MOST) * GOAL);
        let fill = if *score < 1.0 { "#d0843c" } else { "#3f8fd0" };
        let beside = row.beside.as_ref().map_or(String::new(), |(who, _)| format!(" : {who}"));
        let label = escape(&format!("{}{beside}", row.work));
        let number = if row.beside.is_some() { "×" } else { row.unit.as_str() };
        let value = format!("{:.2} {number} ({})", row.value(), row.goal);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{label}</text>", LABELS - 8);
        let _ = writeln!(
            svg,
            "<rect x=\"{LABELS}\" y=\"{}\" width=\"{length:.0}\" height=\"{}\" fill=\"{fill}\"/>",
            top + 3,
            LINE - 6
        );
        let end = LABELS as f64 + length.max(GOAL) + 8.0;
        let _ = writeln!(svg, "<text x=\"{end:.0}\" y=\"{base}\">{}</text>", escape(&value));
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{goal}\" y1=\"{LINE}\" x2=\"{goal}\" y2=\"{}\" stroke=\"#808890\" stroke-dasharray=\"4 3\"/>\n</svg>",
        (rows.len() + 1) * LINE
    );
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
