//! The rows of figures: printed, kept in one file an area, and put together for the README.

use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};

use crate::Place;
use crate::plot;
use crate::rounds::{median, rounds};

/// What a row is to reach.
#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// None: it is shown to compare with.
    Nothing,
}

/// One thing that was measured, round by round.
pub struct Row {
    pub work: String,
    pub unit: String,
    pub ours: Vec<f64>,
    /// Whose figures stand beside ours, and which.
    pub beside: Option<(String, Vec<f64>)>,
    pub goal: Goal,
}

impl Row {
    /// What counts is ours divided by theirs.
    pub fn ratio(work: &str, unit: &str, ours: Vec<f64>, opponent: &str, theirs: Vec<f64>, goal: Goal) -> Self {
        let beside = Some((opponent.to_owned(), theirs));
        Self { work: work.to_owned(), unit: unit.to_owned(), ours, beside, goal }
    }

    /// Figures of ours alone.
    pub fn alone(work: &str, unit: &str, ours: Vec<f64>, goal: Goal) -> Self {
        Self { work: work.to_owned(), unit: unit.to_owned(), ours, beside: None, goal }
    }

    /// What is held against the goal, for each round.
    fn values(&self) -> Vec<f64> {
        match &self.beside {
            Some((_, theirs)) => self.ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect(),
            None => self.ours.clone(),
        }
    }

    /// The middle of what is held against the goal.
    pub fn value(&self) -> f64 {
        median(&self.values())
    }

    /// How far it got on the way to its goal; 1 is there.
    pub fn score(&self) -> Option<f64> {
        match self.goal {
            Goal::AtLeast(goal) => Some(self.value() / goal),
            Goal::AtMost(goal) => Some(goal / self.value()),
            Goal::Nothing => None,
        }
    }

    fn fate(&self) -> &str {
        self.score().map_or("", |score| if score < 1.0 { "**missed**" } else { "reached" })
    }

    /// The opponent, and its figure.
    fn opponent(&self) -> (String, String) {
        self.beside.as_ref().map_or_else(Default::default, |(who, theirs)| (who.clone(), figure(median(theirs))))
    }

    /// The ratio with its spread, or nothing where our figure says it all.
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
        let (who, theirs) = beside.clone().unwrap_or_default();
        format!("{work}\t{unit}\t{goal}\t{}\t{who}\t{}\n", joined(ours, 3), joined(&theirs, 3))
    }

    fn from_line(line: &str) -> Self {
        let [work, unit, goal, ours, who, theirs] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let numbers = |text: &str| text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let beside = (!who.is_empty()).then(|| (who.to_owned(), numbers(theirs)));
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

fn joined(figures: &[f64], decimals: usize) -> String {
    figures.iter().map(|figure| format!("{figure:.decimals$}")).collect::<Vec<_>>().join(" ")
}

/// Three digits that count, or all before the point.
fn figure(number: f64) -> String {
    match number {
        1e6.. => format!("{:.2} M", number / 1e6),
        1e4.. => format!("{:.0},{:03}", (number / 1e3).floor(), (number % 1e3).floor()),
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// The rows of an area, printed and kept as they come.
pub struct Table {
    file: PathBuf,
    head: String,
    rows: Vec<Row>,
}

/// The areas in the order in which the README has them.
const AREAS: [&str; 4] = ["store", "growth", "cli", "http"];

impl Table {
    /// For the figures of `area`, that `command` makes.
    pub fn new(area: &str, command: &str, place: &Place) -> Self {
        println!("{:74} {:>9}   {:25} {:>9} {:19} {:8}", "", "sha-api", "beside", "", "ratio (least–most)", "goal");
        let head = format!("{}\t`{command}`, {} rounds\t{}\n", today(), rounds(), machine(&place.dir));
        Self { file: place.results.join(format!("{area}.tsv")), head, rows: Vec::new() }
    }

    /// Prints a row, with its ratios round by round, and takes it in.
    pub fn add(&mut self, row: Row) {
        let (who, theirs) = row.opponent();
        let (work, ours) = (format!("{}, {}", row.work, row.unit), figure(median(&row.ours)));
        let goal = row.goal.to_string();
        println!("{work:74} {ours:>9}   {who:25} {theirs:>9} {:19} {goal:8} {}", row.spread(), row.fate());
        println!("    rounds: {}", joined(&row.values(), 2));
        self.rows.push(row);
    }

    /// Writes the figures of this area.
    pub fn keep(self) {
        let lines: String = self.rows.iter().map(Row::to_line).collect();
        fs::write(&self.file, self.head + &lines).unwrap();
        println!("kept in {}", self.file.display());
    }
}

fn today() -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]");
    time::OffsetDateTime::now_utc().format(format).unwrap()
}

/// The processor, how many cores of it there are, the memory, the system and the file system.
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

/// What the directory is on.
fn file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mounts = mounts.filter(|mount| mount.len() > 2 && dir.starts_with(mount[1]));
    mounts.max_by_key(|mount| mount[1].len()).map_or_else(String::new, |mount| mount[2].to_owned())
}

/// Puts all kept figures between the marks in the README, and the plot beside them.
pub fn publish(dir: &Path, readme: &Path) {
    const MARKS: [&str; 2] = ["<!-- made by `make bench-readme` -->\n", "<!-- /made -->"];
    let (mut heads, mut rows) = (Vec::new(), Vec::new());
    for area in AREAS {
        let Ok(text) = fs::read_to_string(dir.join(format!("{area}.tsv"))) else { continue };
        let (head, lines) = text.split_once('\n').unwrap();
        heads.push(head.to_owned());
        rows.extend(lines.lines().map(Row::from_line));
    }
    let text = fs::read_to_string(readme).unwrap();
    let (before, rest) = text.split_once(MARKS[0]).unwrap();
    let (_, after) = rest.split_once(MARKS[1]).unwrap();
    fs::write(readme, format!("{before}{}{}{}{after}", MARKS[0], markdown(&rows, &heads), MARKS[1])).unwrap();
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
        let ((who, theirs), ours, spread) = (row.opponent(), figure(median(&row.ours)), row.spread());
        let Row { work, unit, goal, .. } = row;
        let _ = writeln!(text, "| {work}, {unit} | {ours} | {who} | {theirs} | {spread} | {goal} | {} |", row.fate());
    }
    text
}
