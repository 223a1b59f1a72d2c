//! What a bench prints and leaves behind: one line and one JSON object per case, each with the
//! bound it was measured against in the same run.
//!
//! `<target dir>/bench/<name>.json` is a list of
//! `{case, ours, unit, bound, bound_name, ratio, bar?}`.
//! `ratio` is ours / bound. `bar`, where the case has one, is the ratio that is asked for: a limit
//! that is given in the unit of the case is divided by the bound as well. `sense` says whether the
//! ratio must be at most or at least the bar, `met` whether it is.

use std::path::PathBuf;
use std::process::ExitCode;

use foreshadow::cli::demo::harness::percentile;
use serde_json::{Value, json};

/// What is asked of a case, in its own unit.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    None,
    AtMost(f64),
    AtLeast(f64),
}

/// A measured value and its unit.
#[derive(Clone, Copy, Debug)]
pub struct Figure(pub f64, pub &'static str);

/// What the case is compared with: its value in the same unit, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a>(pub f64, pub &'a str);

/// The cases of one bench, in the order in which they were measured.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    cases: Vec<Value>,
    failed: Vec<String>,
}

impl Report {
    pub fn new(name: &'static str) -> Report {
        println!(
            "{:<46} {:>16} {:>14} {:>9} {:>12}",
            name, "ours", "bound", "ratio", "bar"
        );
        Report {
            name,
            cases: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Prints a case at once and keeps it for the file.
    pub fn case(&mut self, case: &str, figure: Figure, bound: Bound<'_>, bar: Bar) {
        let (Figure(ours, unit), Bound(limit, bound_name)) = (figure, bound);
        let ratio = ours / limit;
        if !ratio.is_finite() {
            self.fail(format!("{case}: {ours} {unit} of {limit} was not measured"));
        }
        let mut object = json!({
            "case": case, "ours": ours, "unit": unit,
            "bound": limit, "bound_name": bound_name, "ratio": ratio,
        });
        let verdict = match bar {
            Bar::None => String::new(),
            Bar::AtMost(most) => judge(&mut object, most / limit, "at most", ours <= most),
            Bar::AtLeast(least) => judge(&mut object, least / limit, "at least", ours >= least),
        };
        println!(
            "{case:<46} {:>16} {:>14} {:>8}x {verdict:>12}  ({bound_name})",
            format!("{} {unit}", short(ours)),
            short(limit),
            short(ratio),
        );
        self.cases.push(object);
    }

    /// A line for people only.
    pub fn note(&self, line: &str) {
        println!("  {line}");
    }

    /// Something that must never happen, whatever the figures are: the bench fails.
    pub fn fail(&mut self, line: String) {
        println!("  FAILED: {line}");
        self.failed.push(line);
    }

    /// Writes the file.
    pub fn finish(self) -> ExitCode {
        let dir = target_dir().join("bench");
        let path = dir.join(format!("{}.json", self.name));
        let text = serde_json::to_vec_pretty(&Value::Array(self.cases)).expect("plain values");
        let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, text));
        match written {
            Ok(()) => println!("{}", path.display()),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
        match self.failed.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }
}

fn judge(object: &mut Value, bar: f64, sense: &str, met: bool) -> String {
    object["bar"] = json!(bar);
    object["sense"] = json!(sense);
    object["met"] = json!(met);
    let sign = if sense == "at most" { "<=" } else { ">=" };
    format!(
        "{sign}{}x {}",
        short(bar),
        if met { "met" } else { "MISSED" }
    )
}

/// Three significant digits, whatever the size.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}

/// The middle of several rounds.
pub fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 0.5)
}

/// Cargo marks its target directory with a CACHEDIR.TAG; the bench lies somewhere below it.
pub fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let marked = exe
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file());
    let named = || std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    marked
        .map(PathBuf::from)
        .or_else(named)
        .unwrap_or_else(|| "target".into())
}
