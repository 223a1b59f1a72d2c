//! Who foretells, as `GET /v1/model` and `GET /v1/model/log` tell it. Times are seconds since 1970.

use serde::{Deserialize, Serialize};

/// Who foretells, who would like to, and when is learned again.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelReply {
    pub now: i64,
    /// Which forecasters are to speak: `model.kind`.
    pub kind: String,
    pub bin_seconds: u32,
    pub horizons: Vec<u32>,
    pub champion: LearnedReply,
    pub challenger: Option<LearnedReply>,
    pub trial: Option<TrialReply>,
    /// What `foreshadow model rollback` goes back to.
    pub previous: Option<LearnedReply>,
    pub training: TrainingReply,
    pub drift: Option<DriftReply>,
    pub targets: u64,
    pub targets_max: u64,
    /// Targets that found no room since the start.
    pub left_out: u64,
    /// Bytes on disk of bins that were seen.
    pub replay_bytes: u64,
}

/// What was learned.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LearnedReply {
    /// 16 hexadecimal digits, or `rules`.
    pub version: String,
    pub kind: String,
    /// From when to when what it was learned from was seen.
    pub from: Option<i64>,
    pub to: Option<i64>,
    pub examples: u64,
    /// Forecasters that were learned, of values and of chances.
    pub members: Vec<String>,
}

/// How far the trial of the challenger has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrialReply {
    pub blocks: u64,
    /// Blocks, and what has to happen in them, before it is judged.
    pub blocks_min: u64,
    pub events_min: u64,
    pub block_seconds: u64,
}

/// When is learned.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingReply {
    /// One was asked for and did not begin yet.
    pub asked: bool,
    /// When the one began that runs.
    pub began: Option<i64>,
    /// What it does now.
    pub doing: Option<String>,
    /// When the last one since the start ended, and what came of it.
    pub last: Option<i64>,
    pub outcome: Option<String>,
    /// When the next one is due; none if nothing is learned.
    pub next: Option<i64>,
    /// Why.
    pub why: String,
}

/// The input that moved most since the model learned.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DriftReply {
    pub input: String,
    /// Population stability index.
    pub index: f64,
    /// Above this it is learned anew.
    pub index_max: f64,
}

/// What became of models, the newest last.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogReply {
    pub entries: Vec<LogEntry>,
}

/// One decision.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogEntry {
    pub at: i64,
    /// `challenged`, `promoted`, `dismissed`, `deposed`, `rolled back`.
    pub what: String,
    /// Who speaks from then on.
    pub champion: String,
    pub text: String,
}
