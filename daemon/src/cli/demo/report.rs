//! What the demo says at the end: a table for people, one JSON object for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Ack, Engine, MoveReport, Tally, Verdict, gaps_ms, percentile, steady_ms};

/// Everything that was counted or measured while it played.
#[derive(Debug)]
pub struct Facts {
    pub engine: Engine,
    pub nodes: usize,
    pub tenants: usize,
    pub moves: Vec<MoveReport>,
    /// Moves that did not happen, with the reason.
    pub aborted: Vec<String>,
    pub killed: Option<String>,
    /// Times that are not steady.
    pub windows: Vec<(u64, u64)>,
    /// Writers that loop without waiting for arrivals.
    pub dense: Vec<u32>,
    pub journals: Vec<Vec<Ack>>,
    pub lags_ms: Vec<f64>,
    pub wire_bytes: u64,
    pub raw_wal_bytes: u64,
    pub cpu_seconds: f64,
    pub loaded: Duration,
    pub seconds: Duration,
    pub seed: u64,
}

/// The end of a demo.
#[derive(Debug)]
pub struct Report {
    facts: Facts,
    verdict: Verdict,
    tallies: Vec<Tally>,
    moves_wanted: u64,
    pauses_ms: Vec<f64>,
    steady_ms: Vec<f64>,
}

impl Report {
    pub fn new(facts: Facts, verdict: Verdict, tallies: Vec<Tally>, moves_wanted: u64) -> Report {
        let is_dense = |journal: &&Vec<Ack>| {
            journal
                .first()
                .is_some_and(|a| facts.dense.contains(&a.writer))
        };
        let dense: Vec<Vec<Ack>> = facts.journals.iter().filter(is_dense).cloned().collect();
        let moves: Vec<&MoveReport> = facts.moves.iter().collect();
        let pauses_ms = gaps_ms(&dense, &moves);
        let steady_ms = steady_ms(&facts.journals, &facts.windows);
        Report {
            facts,
            verdict,
            tallies,
            moves_wanted,
            pauses_ms,
            steady_ms,
        }
    }

    /// Whether every promise was kept, every writer went on, and something moved if it should.
    pub fn is_clean(&self) -> bool {
        let stuck: u64 = self
            .tallies
            .iter()
            .map(|tally| tally.stuck + tally.strange)
            .sum();
        let moved = !self.facts.moves.is_empty() || self.moves_wanted == 0;
        self.verdict.is_clean() && stuck == 0 && moved
    }

    /// One object on one line.
    pub fn json(&self) -> Value {
        let (facts, verdict) = (&self.facts, &self.verdict);
        let [pause_p50, pause_p99, pause_max] = shares(&self.pauses_ms, [0.5, 0.99, 1.0]);
        let [steady_p50, steady_p99, steady_p999] = shares(&self.steady_ms, [0.5, 0.99, 0.999]);
        let [lag_p50, lag_p99] = shares(&facts.lags_ms, [0.5, 0.99]);
        json!({
            "clean": self.is_clean(),
            "engine": facts.engine.name(),
            "moves": facts.moves.len(),
            "aborted": facts.aborted,
            "killed": facts.killed,
            "acked": verdict.acked,
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "phantom": verdict.phantom,
            "accepted_after_fence": verdict.accepted_after_fence,
            "integrity_failures": verdict.integrity_failures,
            "digest_failures": verdict.digest_failures,
            "databases": verdict.databases,
            "copies_read": verdict.copies_read,
            "write_pause_ms": { "p50": pause_p50, "p99": pause_p99, "max": pause_max },
            "write_pause_samples": self.pauses_ms.len(),
            "steady_commit_ms": { "p50": steady_p50, "p99": steady_p99, "p999": steady_p999 },
            "lag_ms": { "p50": lag_p50, "p99": lag_p99 },
            "lag_samples": facts.lags_ms.len(),
            "wire_bytes": facts.wire_bytes,
            "raw_wal_bytes": facts.raw_wal_bytes,
            "cpu_seconds": rounded(facts.cpu_seconds),
            "load_seconds": rounded(facts.loaded.as_secs_f64()),
            "seconds": rounded(facts.seconds.as_secs_f64()),
            "seed": facts.seed,
            "writers": self.tallies,
            "notes": verdict.notes,
        })
    }

    /// The table.
    pub fn table(&self) -> String {
        let (facts, verdict) = (&self.facts, &self.verdict);
        let ms = |samples: &[f64], names: &[(&str, f64)]| -> String {
            let mut sorted = samples.to_vec();
            let all = names
                .iter()
                .map(|(n, s)| format!("{n} {:.2}", percentile(&mut sorted, *s)));
            all.collect::<Vec<String>>().join("   ")
        };
        let mut table = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a String does not fail.
            let _ = writeln!(table, "{name:24} {value}");
        };
        row("engine", facts.engine.name().to_owned());
        row(
            "nodes, tenants, writes",
            format!("{}, {}, {}", facts.nodes, facts.tenants, verdict.acked),
        );
        row(
            "writes a second",
            format!("{:.0}", verdict.acked as f64 / facts.loaded.as_secs_f64()),
        );
        row(
            "moves",
            format!("{} done, {} not", facts.moves.len(), facts.aborted.len()),
        );
        for line in &facts.aborted {
            row("  not moved", line.clone());
        }
        if let Some(line) = &facts.killed {
            row("killed in mid-move", line.clone());
        }
        let tail = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
        row("write pause, ms", ms(&self.pauses_ms, &tail));
        let tail = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        row("steady commit, ms", ms(&self.steady_ms, &tail));
        row("lag until durable, ms", ms(&facts.lags_ms, &tail[..2]));
        row("on the wire", on_the_wire(facts));
        let share = 100.0 * facts.cpu_seconds / facts.loaded.as_secs_f64();
        row(
            "CPU of all daemons",
            format!("{:.2} s ({share:.1} % of a core)", facts.cpu_seconds),
        );
        for tally in &self.tallies {
            let name = format!("writers, {} {}", facts.engine.title(), tally.version);
            row(&name, met(tally));
        }
        row("check", check(verdict));
        for line in &verdict.notes {
            row("  note", line.clone());
        }
        row("seconds", format!("{:.1}", facts.seconds.as_secs_f64()));
        let result = if self.is_clean() { "clean" } else { "BROKEN" };
        row("result", result.to_owned());
        if !self.is_clean() {
            let (engine, seed) = (facts.engine.name(), facts.seed);
            row(
                "again",
                format!("foreshadow demo --engine {engine} --seed {seed}"),
            );
        }
        table
    }
}

fn on_the_wire(facts: &Facts) -> String {
    let ratio = facts.raw_wal_bytes as f64 / facts.wire_bytes.max(1) as f64;
    let (wire, raw) = (megabytes(facts.wire_bytes), megabytes(facts.raw_wal_bytes));
    let log = facts.engine.raw();
    format!("{wire:.2} MB for {raw:.2} MB of {log} ({ratio:.1} : 1)")
}

fn met(tally: &Tally) -> String {
    format!(
        "{} reopened, {} busy, {} found committed",
        tally.reopened, tally.busy, tally.doubtful
    )
}

fn check(verdict: &Verdict) -> String {
    format!(
        "{} lost, {} duplicated, {} phantom, {} accepted after a fence, {} integrity, {} digest",
        verdict.lost,
        verdict.duplicated,
        verdict.phantom,
        verdict.accepted_after_fence,
        verdict.integrity_failures,
        verdict.digest_failures
    )
}

fn shares<const N: usize>(samples: &[f64], wanted: [f64; N]) -> [f64; N] {
    let mut sorted = samples.to_vec();
    wanted.map(|share| rounded(percentile(&mut sorted, share)))
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
