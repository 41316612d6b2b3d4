//! Draws the plot: one bar for each row that has a goal. The length of a bar is proportional to the score of the row.
//! The colours are readable on light and on dark backgrounds.

use std::fmt::Write;

use crate::table::Row;

const ROW_HEIGHT: usize = 22;
const LABEL_WIDTH: usize = 520;
/// Length in pixels of a bar that has just reached its goal.
const GOAL_WIDTH: f64 = 180.0;
/// Maximum length of a bar, as a multiple of the goal.
const MAX_GOALS: f64 = 2.0;

/// Returns an SVG of all rows that have a goal.
pub fn svg(rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().filter_map(|row| Some((row, row.score()?))).collect();
    let (width, height) = (LABEL_WIDTH + 500, (rows.len() + 2) * ROW_HEIGHT);
    let goal = LABEL_WIDTH as f64 + GOAL_WIDTH;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"#808890\">\n<title>sha-api compared with its goals</title>\n"
    );
    let _ = writeln!(svg, "<text x=\"{goal}\" y=\"16\" text-anchor=\"middle\">goal</text>");
    for (number, (row, score)) in rows.iter().enumerate() {
        let top = (number + 1) * ROW_HEIGHT;
        let (base, length) = (top + 15, score.min(MAX_GOALS) * GOAL_WIDTH);
        let fill = if *score < 1.0 { "#d0843c" } else { "#3f8fd0" };
        let beside = row.beside.as_ref().map_or(String::new(), |(competitor, _)| format!(" : {competitor}"));
        let label = escape(&format!("{}{beside}", row.work));
        let number = if row.beside.is_some() { "×" } else { row.unit.as_str() };
        let value = format!("{:.2} {number} ({})", row.value(), row.goal);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{label}</text>", LABEL_WIDTH - 8);
        let _ = writeln!(
            svg,
            "<rect x=\"{LABEL_WIDTH}\" y=\"{}\" width=\"{length:.0}\" height=\"{}\" fill=\"{fill}\"/>",
            top + 3,
            ROW_HEIGHT - 6
        );
        let end = LABEL_WIDTH as f64 + length.max(GOAL_WIDTH) + 8.0;
        let _ = writeln!(svg, "<text x=\"{end:.0}\" y=\"{base}\">{}</text>", escape(&value));
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{goal}\" y1=\"{ROW_HEIGHT}\" x2=\"{goal}\" y2=\"{}\" stroke=\"#808890\" stroke-dasharray=\"4 3\"/>\n</svg>",
        (rows.len() + 1) * ROW_HEIGHT
    );
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
