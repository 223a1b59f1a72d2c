//! The table: one row per figure, one column per system. Each cell beside ours is a case of the
//! report as well, with ours as the figure and the other's as the bound.

use std::process::ExitCode;

use foreshadow::cli::demo::harness::Error;

use crate::report::{Bar, Bound, Figure, Report, short};

/// Who stands in a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum System {
    Ours,
    Litestream,
    /// Polling, syncing and following every 50 ms instead of every second.
    LitestreamTuned,
    Postgres,
    /// What the machine or SQLite itself does: a roofline.
    Machine,
}

const COLUMNS: [System; 5] = [
    System::Ours,
    System::Litestream,
    System::LitestreamTuned,
    System::Postgres,
    System::Machine,
];

impl System {
    fn name(self) -> &'static str {
        match self {
            System::Ours => "Foreshadow",
            System::Litestream => "Litestream",
            System::LitestreamTuned => "Litestream 50 ms",
            System::Postgres => "PostgreSQL",
            System::Machine => "the machine",
        }
    }
}

/// One figure, as far as each system has it.
pub struct Row {
    name: String,
    unit: &'static str,
    cells: Vec<(System, f64)>,
    /// Ours is to be at most this share of the system's.
    bars: Vec<(System, f64)>,
}

impl Row {
    pub fn new(name: &str, unit: &'static str) -> Row {
        Row {
            name: name.to_owned(),
            unit,
            cells: Vec::new(),
            bars: Vec::new(),
        }
    }

    /// A cell, if it could be measured.
    pub fn cell(mut self, system: System, value: Option<f64>) -> Row {
        self.cells.extend(value.map(|value| (system, value)));
        self
    }

    pub fn bar(mut self, system: System, share: f64) -> Row {
        self.bars.push((system, share));
        self
    }

    fn value(&self, system: System) -> Option<f64> {
        let cell = self.cells.iter().find(|(other, _)| *other == system);
        cell.map(|(_, value)| *value)
    }
}

/// All rows of a run and the report behind them.
pub struct Table {
    report: Report,
    rows: Vec<Row>,
    /// Lines of what is none of ours: figure, and its share of the bound.
    others: Vec<String>,
    failed: bool,
}

impl Table {
    pub fn new() -> Table {
        Table {
            report: Report::new("peers"),
            rows: Vec::new(),
            others: Vec::new(),
            failed: false,
        }
    }

    /// Adds a row and reports each of its pairs. A bar without both sides is a failure.
    pub fn row(&mut self, row: Row) {
        let ours = row.value(System::Ours);
        for (system, value) in &row.cells {
            let Some(ours) = ours.filter(|_| *system != System::Ours) else {
                continue;
            };
            let bar = row.bars.iter().find(|(other, _)| other == system);
            let bar = bar.map_or(Bar::None, |(_, share)| Bar::AtMost(share * value));
            let bound = Bound(*value, system.name());
            self.report
                .case(&row.name, Figure(ours, row.unit), bound, bar);
        }
        for (system, _) in &row.bars {
            if ours.is_none() || row.value(*system).is_none() {
                let line = format!("{}: no figure against {}", row.name, system.name());
                self.fail(&line);
            }
        }
        self.rows.push(row);
    }

    /// A figure of somebody against what the machine can do.
    pub fn against(&mut self, case: &str, figure: Figure, bound: Bound<'_>) {
        self.asked(case, figure, bound, Bar::None);
    }

    /// A figure of ours against somebody's, with what is asked of it.
    pub fn asked(&mut self, case: &str, figure: Figure, bound: Bound<'_>, bar: Bar) {
        let (value, share) = (short(figure.0), short(figure.0 / bound.0));
        let line = format!(
            "| {case} | {value} {} | {share} x of {} |",
            figure.1, bound.1
        );
        self.others.push(line);
        self.report.case(case, figure, bound, bar);
    }

    pub fn note(&self, line: &str) {
        self.report.note(line);
    }

    pub fn fail(&mut self, line: &str) {
        self.failed = true;
        self.report.fail(line.to_owned());
    }

    /// The value, or nothing and a failure that names what is missing.
    pub fn take<T>(&mut self, what: &str, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(&format!("{what}: {error}"));
                None
            }
        }
    }

    /// Prints all rows side by side, in Markdown, and writes the file.
    pub fn finish(self) -> ExitCode {
        println!("\n| |{}", head(|system| format!(" {} |", system.name())));
        println!("|---|{}", head(|_| "---|".to_owned()));
        for row in &self.rows {
            let cell = |system| row.value(system).map_or(" |".to_owned(), cell_text);
            println!("| {}, {} |{}", row.name, row.unit, head(cell));
        }
        if !self.others.is_empty() {
            println!("\n| | | |\n|---|---|---|\n{}", self.others.join("\n"));
        }
        println!();
        if self.failed {
            println!("PARTS OF THIS TABLE ARE MISSING: see the lines that say FAILED");
        }
        self.report.finish()
    }
}

fn head(text: impl Fn(System) -> String) -> String {
    COLUMNS.into_iter().map(text).collect()
}

fn cell_text(value: f64) -> String {
    format!(" {} |", short(value))
}
