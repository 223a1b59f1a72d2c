//! What is seen on a node, as `GET /v1/observed` and `POST /v1/access` tell it.
//!
//! Counts are of the bin that runs; divide by its seconds for a rate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of the lines of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CountReply {
    pub accepted: u64,
    pub malformed: u64,
}

/// What is seen on this node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedReply {
    /// The bin that runs: when it began, in seconds since 1970.
    pub begin: i64,
    /// For how long it was looked so far.
    pub seconds: u64,
    /// Bytes in use, of those that grow with what is seen.
    pub bytes: u64,
    /// The newest readings, by name; shares lie in 0 to 1, links are bytes a second.
    pub node: BTreeMap<String, f64>,
    /// Those that changed most come first.
    pub partitions: Vec<ChangeReply>,
    /// Those asked for most come first.
    pub keys: Vec<KeyReply>,
    /// What is not among the keys that are counted was asked for at most so often.
    pub others_max: u64,
    /// The newest moves and requests for backups, oldest first.
    pub history: Vec<PastReply>,
    pub sources: Vec<AccessReply>,
    /// The bin that was over last.
    pub last: Option<BinReply>,
}

/// How much a partition changes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeReply {
    pub partition: String,
    pub commits: u64,
    pub pages: u64,
    pub bytes: u64,
    /// Median bytes of an update.
    pub update_size: f64,
    /// Segments that changed in this bin.
    pub segments: u64,
}

/// How often a key, or a partition as a whole, is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyReply {
    pub partition: Option<String>,
    /// None for a partition as a whole.
    pub key: Option<String>,
    /// Accesses that were counted exactly; there may have been `error` more.
    pub count: u64,
    pub error: u64,
    pub bytes: u64,
    pub regions: BTreeMap<String, u64>,
}

/// A move or a backup.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PastReply {
    /// Seconds since 1970.
    pub at: i64,
    pub partition: String,
    /// `left`, `came`, `backup`.
    pub what: String,
}

/// What came from one source of access events since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AccessReply {
    pub source: String,
    pub accepted: u64,
    pub malformed: u64,
    /// Right, and without a key.
    pub passed_over: u64,
    /// Counted into a later bin than their time says.
    pub late: u64,
    /// Of the future, counted now.
    pub early: u64,
}

/// A bin that is over.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BinReply {
    pub begin: i64,
    pub seconds: u32,
    pub missed: u32,
    pub samples: u64,
}
