//! Result tables: printed, saved in one file per area, and combined for `docs/benchmarks.md`.

use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};

use crate::Environment;
use crate::plot;
use crate::rounds::{median, rounds};

/// Goal of a row.
#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// No goal: the row is shown for comparison.
    Nothing,
}

/// Figures of one measurement, one per round.
pub struct Row {
    pub work: String,
    pub unit: String,
    pub ours: Vec<f64>,
    /// Name and figures of the competitor.
    pub beside: Option<(String, Vec<f64>)>,
    pub goal: Goal,
}

impl Row {
    /// Creates a row whose value is our figure divided by the competitor's.
    pub fn ratio(work: &str, unit: &str, ours: Vec<f64>, competitor: &str, theirs: Vec<f64>, goal: Goal) -> Self {
        let beside = Some((competitor.to_owned(), theirs));
        Self { work: work.to_owned(), unit: unit.to_owned(), ours, beside, goal }
    }

    /// Creates a row without a competitor.
    pub fn single(work: &str, unit: &str, ours: Vec<f64>, goal: Goal) -> Self {
        Self { work: work.to_owned(), unit: unit.to_owned(), ours, beside: None, goal }
    }

    /// Returns the values that are compared with the goal, one per round.
    fn values(&self) -> Vec<f64> {
        match &self.beside {
            Some((_, theirs)) => self.ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect(),
            None => self.ours.clone(),
        }
    }

    /// Returns the median of the values that are compared with the goal.
    pub fn value(&self) -> f64 {
        median(&self.values())
    }

    /// Returns the value relative to the goal: 1 or more means that the goal is reached. `None`: no goal.
    pub fn score(&self) -> Option<f64> {
        match self.goal {
            Goal::AtLeast(goal) => Some(self.value() / goal),
            Goal::AtMost(goal) => Some(goal / self.value()),
            Goal::Nothing => None,
        }
    }

    fn verdict(&self) -> &str {
        self.score().map_or("", |score| if score < 1.0 { "**missed**" } else { "reached" })
    }

    /// Returns the name and the median figure of the competitor; empty strings if there is none.
    fn competitor(&self) -> (String, String) {
        self.beside
            .as_ref()
            .map_or_else(Default::default, |(competitor, theirs)| (competitor.clone(), figure(median(theirs))))
    }

    /// Returns the median ratio with the least and the greatest one; empty without a competitor.
    fn spread(&self) -> String {
        let values = self.values();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        match self.beside {
            Some(_) => format!("{:.2} ({least:.2}–{most:.2})", self.value()),
            None => String::new(),
        }
    }

    fn to_line(&self) -> String {
        let Self { work, unit, goal, ours, beside } = self;
        let (competitor, theirs) = beside.clone().unwrap_or_default();
        format!("{work}\t{unit}\t{goal}\t{}\t{competitor}\t{}\n", format_values(ours, 3), format_values(&theirs, 3))
    }

    fn from_line(line: &str) -> Self {
        let [work, unit, goal, ours, competitor, theirs] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let numbers = |text: &str| text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let beside = (!competitor.is_empty()).then(|| (competitor.to_owned(), numbers(theirs)));
        Self { work: work.to_owned(), unit: unit.to_owned(), ours: numbers(ours), beside, goal: Goal::parse(goal) }
    }
}

impl Goal {
    fn parse(text: &str) -> Self {
        let number = |text: &str| text.parse().unwrap();
        match text.split_once(' ') {
            Some(("≥", goal)) => Self::AtLeast(number(goal)),
            Some(("≤", goal)) => Self::AtMost(number(goal)),
            _ => Self::Nothing,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, "≥ {goal}"),
            Self::AtMost(goal) => write!(f, "≤ {goal}"),
            Self::Nothing => Ok(()),
        }
    }
}

fn format_values(figures: &[f64], decimals: usize) -> String {
    figures.iter().map(|figure| format!("{figure:.decimals$}")).collect::<Vec<_>>().join(" ")
}

/// Formats a figure with three significant digits, or with all digits before the decimal point.
fn figure(number: f64) -> String {
    match number {
        1e6.. => format!("{:.2} M", number / 1e6),
        1e4.. => format!("{:.0},{:03}", (number / 1e3).floor(), (number % 1e3).floor()),
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// Rows of an area. Each is printed when it is added.
pub struct Table {
    file: PathBuf,
    head: String,
    rows: Vec<Row>,
}

/// The areas in the order of the document.
const AREAS: [&str; 4] = ["store", "growth", "cli", "http"];

impl Table {
    /// Creates the table of `area`, whose figures `command` produces, and prints its header.
    pub fn new(area: &str, command: &str, env: &Environment) -> Self {
        println!("{:74} {:>9}   {:25} {:>9} {:19} {:8}", "", "sha-api", "beside", "", "ratio (least–most)", "goal");
        let head = format!("{}\t`{command}`, {} rounds\t{}\n", today(), rounds(), machine(&env.dir));
        Self { file: env.results.join(format!("{area}.tsv")), head, rows: Vec::new() }
    }

    /// Prints a row with the values of each round, and adds it.
    pub fn add(&mut self, row: Row) {
        let (competitor, theirs) = row.competitor();
        let (work, ours) = (format!("{}, {}", row.work, row.unit), figure(median(&row.ours)));
        let goal = row.goal.to_string();
        println!("{work:74} {ours:>9}   {competitor:25} {theirs:>9} {:19} {goal:8} {}", row.spread(), row.verdict());
        println!("    rounds: {}", format_values(&row.values(), 2));
        self.rows.push(row);
    }

    /// Writes the figures of the area to the results directory.
    pub fn save(self) {
        let lines: String = self.rows.iter().map(Row::to_line).collect();
        fs::write(&self.file, self.head + &lines).unwrap();
        println!("saved to {}", self.file.display());
    }
}

fn today() -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]");
    time::OffsetDateTime::now_utc().format(format).unwrap()
}

/// Describes the machine: CPU, number of cores, memory, kernel and file system.
fn machine(dir: &Path) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (processor, memory, system) =
        (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/proc/sys/kernel/osrelease"));
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let memory: u64 = memory.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    let cores = std::thread::available_parallelism().unwrap();
    format!("{cores} cores of {model}, {} GiB of memory, Linux {}, {}", memory >> 20, system.trim(), file_system(dir))
}

/// Returns the type of the file system that contains `dir`; empty if it is unknown.
fn file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mounts = mounts.filter(|mount| mount.len() > 2 && dir.starts_with(mount[1]));
    mounts.max_by_key(|mount| mount[1].len()).map_or_else(String::new, |mount| mount[2].to_owned())
}

/// Replaces the generated block of `document` with all saved figures, and writes the plot beside them.
///
/// The opening marker may name an older command, so it is replaced as well.
pub fn publish(dir: &Path, document: &Path) {
    const BEGIN: &str = "<!-- made by ";
    const MARKER: &str = "<!-- made by `make bench-docs` -->\n";
    const END: &str = "<!-- /made -->";
    let (mut heads, mut rows) = (Vec::new(), Vec::new());
    for area in AREAS {
        let Ok(text) = fs::read_to_string(dir.join(format!("{area}.tsv"))) else { continue };
        let (head, lines) = text.split_once('\n').unwrap();
        heads.push(head.to_owned());
        rows.extend(lines.lines().map(Row::from_line));
    }
    let text = fs::read_to_string(document).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    fs::write(document, format!("{before}{MARKER}{}{END}{after}", markdown(&rows, &heads))).unwrap();
    fs::write(dir.join("speed.svg"), plot::svg(&rows)).unwrap();
}

fn markdown(rows: &[Row], heads: &[String]) -> String {
    let mut text = String::new();
    for (number, head) in heads.iter().enumerate() {
        let [date, command, machine] = head.split('\t').collect::<Vec<_>>().try_into().unwrap();
        if number == 0 {
            let _ = writeln!(text, "On {machine}:");
        }
        let _ = write!(text, "{command} ({date}){}", if number + 1 < heads.len() { "; " } else { ".\n\n" });
    }
    text += "| work | sha-api | beside | | ratio (least–most) | goal | |\n|---|--:|---|--:|---|---|---|\n";
    for row in rows {
        let ((competitor, theirs), ours, spread) = (row.competitor(), figure(median(&row.ours)), row.spread());
        let Row { work, unit, goal, .. } = row;
        let _ = writeln!(
            text,
            "| {work}, {unit} | {ours} | {competitor} | {theirs} | {spread} | {goal} | {} |",
            row.verdict()
        );
    }
    text
}
